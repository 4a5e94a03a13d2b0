# The commands in a box; without words after the name it runs the demo.
#   docker build -t shallow-recon .                              CPU
#   docker build -t shallow-recon:cuda --build-arg DEVICE=cuda . GPU, with: docker run --gpus all ... shallow-recon:cuda
#   docker run --rm -v "$PWD/data:/data" shallow-recon           gallery.html lies in data/runs/demo afterwards
#   docker run --rm -v "$PWD/data:/data" shallow-recon score --brain E.npy --images Z.npy
ARG PYTHON=3.12
FROM python:${PYTHON}-slim
ARG DEVICE=cpu
ARG CPU_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /opt/shallow-recon
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY align align
COPY recon recon
COPY configs configs
# The registry's torch brings its CUDA libraries along; the other index has builds without them.
RUN case "$DEVICE" in \
        cpu) more="--extra-index-url $CPU_INDEX" ;; \
        cuda) more="" ;; \
        *) echo "DEVICE=$DEVICE is neither cpu nor cuda" >&2; exit 1 ;; \
    esac \
    && python -m pip install --no-cache-dir -c constraints.txt $more '.[encoders]' \
    && python -m pip install --no-cache-dir -c constraints.txt $more --no-deps braindecode \
    && rm -rf build ./*.egg-info

# Any user may write there, so that `docker run --user "$(id -u):$(id -g)"` leaves files that belong to you.
RUN mkdir -p /data /home/recon && chmod 777 /data /home/recon
ENV HOME=/home/recon RECON_HOME=/data MPLBACKEND=Agg
WORKDIR /data
VOLUME /data
ENTRYPOINT ["recon"]
CMD ["demo", "--out", "runs/demo"]
