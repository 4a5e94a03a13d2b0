"""Damaged run folders through every command that reads one.

    python -m benchmarks.fuzz_runs [--count 2000] [--seed 0] [--out FILE.json]

What is changed and what counts as wrong is written in tests/recon/mutated.py. Printed: the number of cases, how many
commands refused the folder, and every case that was wrong. Exit code 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tests.recon.mutated import Case, build, fuzz


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--heavy", type=float, default=0.0, help="1: evaluate and generate as often as the others")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = build(Path(folder))
        cases = [_told(case) for case in fuzz(run, Path(folder), args.count, args.seed, args.heavy)]
    wrong = [case for case in cases if case.wrong]
    codes, commands = Counter(str(case.code) for case in cases), Counter(case.command for case in cases)
    print(", ".join(f"{name} {count}" for name, count in sorted(commands.items())))
    print(f"{len(cases)} damaged files: {codes['2']} refused, {codes['0']} without effect, {len(wrong)} wrong")
    if args.out is not None:
        args.out.write_text(json.dumps([asdict(case) for case in cases], indent=1), encoding="utf-8")
    return int(bool(wrong))


def _told(case: Case) -> Case:
    if case.wrong:
        print(f"{case.number}: {case.command}, {case.file}, {case.change}: {case.wrong}", flush=True)
    elif case.number % 100 == 99:
        print(f"{case.number + 1} cases", flush=True)
    return case


if __name__ == "__main__":
    sys.exit(main())
