"""`recon evaluate-images`: the field's table for anybody's pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from align.files.table import cell

if TYPE_CHECKING:
    import pandas as pd


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The grammar; nothing heavy is imported."""
    parser.add_argument(
        "--reconstructions",
        required=True,
        type=Path,
        metavar="X",
        help="folder (paired by file stem; STEM_0.png, STEM_seed-3.png or a subfolder per stimulus are samples), or a "
        ".npy, .pt or .safetensors stack",
    )
    parser.add_argument(
        "--targets", required=True, type=Path, metavar="Y", help="the pictures shown, in the same forms"
    )
    parser.add_argument("--preset", default="ours", help="ours, mindeye2 or brain-diffuser (default: %(default)s)")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="default: those of the preset")
    parser.add_argument(
        "--n-way",
        nargs="+",
        type=int,
        metavar="N",
        help="numbers of candidates, besides two-way (default: 10 and 50 where they fit, and all pictures)",
    )
    parser.add_argument("--low-level", type=Path, metavar="X", help="low-level pictures that the preset blends in")
    parser.add_argument("--weights-dir", type=Path, help="folder searched first for the weights of the networks")
    parser.add_argument(
        "--weights-file",
        action="append",
        default=[],
        metavar="NETWORK=FILE",
        help="weights of one network (a folder for clip), repeatable",
    )
    parser.add_argument("--download", action="store_true", help="fetch missing weights from their public homes")
    parser.add_argument("--labels", type=Path, metavar="CSV", help="columns id,label: the category of each stimulus")
    parser.add_argument("--seed", type=int, default=0, help="of resampling and of the mismatched pairs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table, as .json or .csv")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score, write ``--out`` where asked, and return the report with the table as ``text``."""
    from align.files import write_atomic, write_json
    from align.files.launched import is_first
    from recon.scoring.images import as_report, evaluate_images

    if args.out is not None and args.out.suffix not in (".json", ".csv"):
        raise UserError(f"--out {str(args.out)!r} should end in .json or .csv")
    frame = evaluate_images(
        args.reconstructions,
        args.targets,
        preset=args.preset,
        metrics=args.metrics,
        n_way=args.n_way,
        low_level=args.low_level,
        labels=args.labels,
        weights_dir=args.weights_dir,
        weights_files=_pairs(args.weights_file),
        download=args.download,
        seed=args.seed,
        progress=lambda stage: print(f"scoring {stage}", file=sys.stderr),
    )
    report = as_report(frame)
    if args.out is None or not is_first():
        pass
    elif args.out.suffix == ".json":
        write_json(args.out, report)
    else:
        write_atomic(args.out, _csv(frame))
    return {**report, "text": text(report)}


def _csv(frame: pd.DataFrame) -> str:
    """The table with a row for each skipped metric, its reason under ``protocol``: nothing is left out silently."""
    from pandas.api.types import is_numeric_dtype

    table = frame.astype({"n": "Int64", "samples": "Int64"})
    for name, reason in frame.attrs["skipped"].items():
        table.loc[name, "protocol"] = f"skipped: {reason}"
    table = table.astype({"n": "Int64", "samples": "Int64"})  # pandas 3.0 makes floats of them for a new row
    for name in [name for name in table if not is_numeric_dtype(table[name])]:
        table[name] = table[name].map(cell)
    return table.rename(index=cell).to_csv()


def _pairs(words: list[str]) -> dict[str, str]:
    for word in words:
        if "=" not in word:
            raise UserError(f"--weights-file {word!r} should be NETWORK=FILE")
    return dict(word.split("=", 1) for word in words)


def text(report: dict[str, Any]) -> str:
    """The report as lines for the terminal."""
    from recon.metrics.feature_nets import AS_OPTIONS
    from recon.metrics.skipped import skipped_lines

    width = max([len(name) for name in report["metrics"]] or [0]) + 2
    titles = ("value", "95 % interval", "chance", "mismatched", "grey", "sample sd")
    lines = [f"{'':<{width}}" + "".join(f"{title:>18}" for title in titles)]
    for name, entry in report["metrics"].items():
        cells = [_number(entry, "value"), "[{:.3f}, {:.3f}]".format(*entry["ci95"]) if "ci95" in entry else "-"]
        cells += [_number(entry, key) for key in ("chance", "shuffled", "grey", "sample_sd")]
        sign = "+" if entry["better"] == "higher" else "-"
        lines.append(f"{name + ' ' + sign:<{width}}" + "".join(f"{cell:>18}" for cell in cells))
    if "category" in report:
        facts = report["category"]
        lines.append(
            f"knowing only which of {facts['k']} categories was shown is worth {facts['ceiling']:.3f} in two-way "
            f"(1 - 1/(2k) = {facts['ceiling_equal']:.3f} for equal ones)"
        )
    samples = max((entry["samples"] for entry in report["metrics"].values()), default=1)
    blend = report["blend"]
    lines.append(
        f"n {report['n_stimuli']}, samples {samples} (mean over all), preset {report['preset']}, + higher is better, "
        f"- lower is better, {f'blended {blend:g} : {1 - blend:g}' if blend else 'nothing blended'}"
    )
    lines += [f"note: {note}" for note in report["notes"]]
    return "\n".join([*lines, *skipped_lines(report["skipped"], AS_OPTIONS)])


def _number(entry: dict[str, Any], key: str) -> str:
    return f"{entry[key]:.3f}" if key in entry else "-"
