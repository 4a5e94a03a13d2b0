#!/usr/bin/env bash
# The embedded generator on one GPU, nine minutes a call, from and to parts of at most 60 MB.
#
#   here    benchmarks/pretrain_gpu.sh pack FOLDER --photographs A.zip B.zip --classes classes.csv --v4 DIR --squeezenet W
#   there   benchmarks/pretrain_gpu.sh train FOLDER OUT [key=value ...]     (SECONDS_LIMIT=480 of training, DEVICE=cuda)
#   here    cp OUT/parts.safetensors.* FOLDER/, and once more; or, to go on with `recon pretrain`:
#           python benchmarks/pretrain_gpu.py resume OUT RUN
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
step=$1 folder=$2
shift 2
if [ "$step" = pack ]; then
    exec python3 benchmarks/pretrain_gpu.py pack "$folder" "$@"
fi
out=$1
shift
run=$(mktemp -d)
start=$(python3 benchmarks/pretrain_gpu.py resume "$folder" "$run")
timeout --signal=INT --kill-after=20 "${SECONDS_LIMIT:-480}" \
    python3 -m recon.cli pretrain --config configs/recon/mini_gpu.yaml "out=$run" "device=${DEVICE:-cuda}" \
    "pictures.photographs=[$folder/photographs.zip]" "pictures.classes=$folder/classes.csv" \
    "squeezenet_weights=$folder/squeezenet.safetensors" "$start" "$@" || echo "stopped: rc $?"
python3 benchmarks/pretrain_gpu.py collect "$out" "$run"
