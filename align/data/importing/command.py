"""`recon data import`: one's own recordings, or a laboratory's files, as a `folder` study."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError

if TYPE_CHECKING:
    from align.data.importing.parts import Part
    from align.data.importing.trials import TrialChoice

_TABLE = (
    "stimulus_column",
    "split_column",
    "test_column",
    "test_list",
    "session_column",
    "concept_column",
    "caption_column",
    "images",
    "link",
    "append",
    "subject_column",
)


@dataclass(frozen=True)
class Form:
    """One kind of source: which options it needs beside the file, and which it takes."""

    run: Callable[[argparse.Namespace], Path]
    needs: tuple[str, ...]
    takes: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon data import``."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--epochs", type=Path, nargs="+", metavar="FIF", help="MNE epochs whose metadata name the pictures"
    )
    source.add_argument(
        "--bids", type=Path, metavar="ROOT", help="BIDS folder: events.tsv beside EEG or MEG recordings"
    )
    source.add_argument(
        "--betas", type=Path, nargs="+", metavar="NII", help="NIfTI of single-trial betas (X, Y, Z, trials)"
    )
    source.add_argument("--bdpy", type=Path, metavar="H5", help="bdpy file (GOD, Deeprecon)")
    source.add_argument("--mat", type=Path, metavar="MAT", help="fmriTrn, stimTrn, labelTrn, ... (the digits 6 and 9)")
    source.add_argument(
        "--embeddings", type=Path, nargs="+", metavar="FILE", help="embeddings of another encoder, one row a trial"
    )
    source.add_argument(
        "--arrays", type=Path, nargs="+", metavar="FILE", help="arrays (n, channels, samples) or (n, voxels), .npy"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; it must not exist")
    parser.add_argument("--append", action="store_true", default=None, help="--out may exist: add to its trials")
    text = "label of the subject (default: 01); with several files one label for all of them, or one for each"
    parser.add_argument("--subject", nargs="+", metavar="LABEL", help=text)
    text = "names the subject of each trial; with --subject only the trials of these"
    parser.add_argument("--subject-column", metavar="COLUMN", help=text)

    table = parser.add_argument_group("trials and pictures")
    table.add_argument("--images", type=Path, metavar="FOLDER", help="where the pictures are (BIDS: ROOT/stimuli)")
    table.add_argument("--link", action="store_true", default=None, help="leave the pictures there instead of copying")
    table.add_argument(
        "--stimulus-column",
        metavar="COLUMN",
        help="names the picture (default: image for epochs and arrays, stim_file for bids, betas; id for embeddings)",
    )
    table.add_argument("--split-column", metavar="COLUMN", help="train, test or unused (default: split, where it is)")
    table.add_argument("--test-column", metavar="COLUMN", help="instead: true or 1 for test trials")
    table.add_argument("--test-list", type=Path, metavar="FILE", help="instead: a test picture in every line")
    for name in ("session", "concept", "caption"):
        table.add_argument(f"--{name}-column", metavar="COLUMN", help=f"(default: {name}, where it is)")

    forms = parser.add_argument_group("one kind of source only")
    forms.add_argument("--task", help="bids: label of the task")
    forms.add_argument("--tmin", type=float, help="bids, arrays: first sample, s from the onset (bids: -0.2)")
    forms.add_argument("--tmax", type=float, help="bids: last sample, included, s from the onset (default: 1.0)")
    forms.add_argument("--sfreq", type=float, metavar="HZ", help="arrays: samples per second")
    forms.add_argument("--channels", metavar="A,B,...", help="arrays: names of the channels, in order")
    text = "betas: voxels to keep, coded 1; one mask for all files"
    forms.add_argument("--mask", type=Path, nargs="+", metavar="NII", help=text)
    forms.add_argument("--mask-value", type=float, metavar="N", help="betas: code to keep in a mask of other codes")
    text = "betas: NAME=FILE (masks of 0 and 1) or label images; written into info.json, for study.roi"
    forms.add_argument("--roi", nargs="+", metavar="[NAME=]NII", help=text)
    forms.add_argument("--roi-names", nargs="+", metavar="CODE=NAME", help="betas: names for codes of a label image")
    text = "betas: leave out voxels that are NaN or 0 in every trial of a file, from all files of that person"
    forms.add_argument("--drop-empty", action="store_true", default=None, help=text)
    forms.add_argument("--events", type=Path, nargs="+", metavar="TSV", help="betas, arrays: a line per trial")
    forms.add_argument("--ids", type=Path, nargs="+", metavar="CSV", help="embeddings: a line per row")
    forms.add_argument("--test", type=Path, metavar="H5", help="bdpy: file of the test samples, where they are apart")
    forms.add_argument("--voxels", metavar="NAME", help="bdpy: columns to keep, e.g. ROI_VC (default: VoxelData)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the folder; what it holds, with the line to use next. Raises `UserError` for any fault."""
    name = next(name for name in FORMS if getattr(args, name) is not None)
    form = FORMS[name]
    _require_options(args, name, form)
    for label in args.subject or ():
        if not label.strip() or "/" in label:
            raise UserError(f"--subject {label!r} is no label; write for example --subject 01")
    return {"source": name, **_summary(form.run(args))}


def _require_options(args: argparse.Namespace, name: str, form: Form) -> None:
    """Nothing that the form needs is missing, and nothing is given that it would not look at."""
    for option in form.needs:
        if getattr(args, option) is None:
            raise UserError(f"--{name} needs {_flag(option)} too")
    for option in dict.fromkeys(option for other in FORMS.values() for option in (*other.needs, *other.takes)):
        if getattr(args, option) is not None and option not in (*form.needs, *form.takes):
            raise UserError(f"--{name} does not use {_flag(option)}; leave it out")


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _people(args: argparse.Namespace, files: Sequence[Path]) -> list[str]:
    """The label of each file; of no weight where a column names the subjects."""
    labels = args.subject or []
    if args.subject_column is not None:
        return [""] * len(files)
    if len(labels) == len(files):
        return list(labels)
    if not labels and args.append:
        raise UserError("--append adds trials of somebody; say whose: --subject LABEL or --subject-column COLUMN")
    if len(labels) == 1 or (not labels and len(files) == 1):
        return [labels[0] if labels else ""] * len(files)
    told = f"{len(labels)} labels for {len(files)} files" if labels else f"{len(files)} files, and nobody says whose"
    each = " ".join(f"{i:02d}" for i in range(1, len(files) + 1))
    raise UserError(f"{told}; give --subject 01 (all of one person), --subject {each}, or --subject-column COLUMN")


def _beside(args: argparse.Namespace, option: str, files: Sequence[Path]) -> list[Path]:
    """The table of each file."""
    tables: list[Path] = getattr(args, option)
    if len(tables) != len(files):
        raise UserError(f"{_flag(option)} names {len(tables)} tables for {len(files)} files; give one for each")
    return tables


def _one_mask(args: argparse.Namespace) -> Path:
    """The mask that all files share: a folder holds the same voxels for everybody."""
    masks: list[Path] = args.mask
    if len(masks) > 1:
        raise UserError(
            f"--mask names {len(masks)} files, and a folder holds the same voxels for all: give one mask for files on "
            "one grid, or import each person with an own mask into a folder of its own (--out A/data, --out B/data)"
        )
    return masks[0]


def _one_label(args: argparse.Namespace) -> str:
    labels = args.subject or ["01"]
    if len(labels) > 1:
        raise UserError(f"this file is of one subject, --subject names {len(labels)}; give one")
    return str(labels[0])


def _write(args: argparse.Namespace, parts: list[Part]) -> Path:
    from align.data.importing.parts import write_parts

    return write_parts(args.out, parts, bool(args.link), bool(args.append))


def _choice(args: argparse.Namespace, stimulus: str, subject: str) -> TrialChoice:
    from align.data.importing.trials import People, TrialChoice

    return TrialChoice(
        stimulus=args.stimulus_column or stimulus,
        subject=subject,
        people=People(args.subject_column, tuple(args.subject or ()) if args.subject_column else ()),
        split=args.split_column,
        test=args.test_column,
        test_list=args.test_list,
        session=args.session_column,
        concept=args.concept_column,
        caption=args.caption_column,
    )


def _epochs(args: argparse.Namespace) -> Path:
    from align.data.importing.epochs import read_epochs

    labels = _people(args, args.epochs)
    told = zip(args.epochs, labels, strict=True)
    return _write(args, [read_epochs(path, args.images, _choice(args, "image", label)) for path, label in told])


def _bids(args: argparse.Namespace) -> Path:
    from align.data.importing.bids import read_bids

    window = (-0.2 if args.tmin is None else args.tmin, 1.0 if args.tmax is None else args.tmax)
    choices = [_choice(args, "stim_file", label) for label in args.subject or ["01"]]
    return _write(args, [read_bids(args.bids, choice, args.task, window, args.images) for choice in choices])


def _betas(args: argparse.Namespace) -> Path:
    from align.data.importing.betas import Betas, read_betas

    mask = _one_mask(args)
    told = zip(args.betas, _beside(args, "events", args.betas), _people(args, args.betas), strict=True)
    files = [Betas(path, events, _choice(args, "stim_file", label)) for path, events, label in told]
    regions = (args.roi or (), args.roi_names or (), bool(args.drop_empty))
    return _write(args, read_betas(files, mask, args.images, args.mask_value, *regions))


def _embeddings(args: argparse.Namespace) -> Path:
    from align.data.importing.embeddings import read_embeddings

    told = zip(args.embeddings, _beside(args, "ids", args.embeddings), _people(args, args.embeddings), strict=True)
    parts = [read_embeddings(path, ids, args.images, _choice(args, "id", label)) for path, ids, label in told]
    return _write(args, parts)


def _arrays(args: argparse.Namespace) -> Path:
    from align.data.importing.embeddings import read_arrays

    told = zip(args.arrays, _beside(args, "events", args.arrays), _people(args, args.arrays), strict=True)
    names = [] if args.channels is None else [name.strip() for name in args.channels.split(",")]
    times = (args.sfreq, args.tmin)
    choices = [(path, events, _choice(args, "image", label)) for path, events, label in told]
    return _write(args, [read_arrays(path, events, args.images, one, times, names) for path, events, one in choices])


def _bdpy(args: argparse.Namespace) -> Path:
    from align.data.importing.bdpy import Columns, import_bdpy

    given = {"voxels": args.voxels, "stimulus": args.stimulus_column, "split": args.split_column}
    given["session"] = args.session_column
    columns = Columns(**{name: value for name, value in given.items() if value is not None})
    return import_bdpy(args.bdpy, args.images, args.out, args.test, _one_label(args), columns, bool(args.link))


def _mat(args: argparse.Namespace) -> Path:
    from align.data.importing.mat_columns import import_columns

    return import_columns(args.mat, args.out, _one_label(args))


FORMS = {
    "epochs": Form(_epochs, ("images",), _TABLE),
    "bids": Form(_bids, (), (*(o for o in _TABLE if o != "subject_column"), "task", "tmin", "tmax")),
    "betas": Form(_betas, ("mask", "events", "images"), (*_TABLE, "mask_value", "roi", "roi_names", "drop_empty")),
    "bdpy": Form(_bdpy, ("images",), ("test", "voxels", "stimulus_column", "split_column", "session_column", "link")),
    "mat": Form(_mat, (), ()),
    "embeddings": Form(_embeddings, ("ids", "images"), _TABLE),
    "arrays": Form(_arrays, ("events", "images"), (*_TABLE, "sfreq", "tmin", "channels")),
}


def _summary(out: Path) -> dict[str, Any]:
    """What was written, read back from the folder."""
    from collections import Counter

    from align.data.importing.trials import read_table
    from align.data.reading.containers import stored_npy

    table = read_table(out / "stimuli.csv")
    split = Counter(table.column("split"))
    stored = stored_npy(out / "signals.npy")
    return {
        "out": str(out),
        "subject": ", ".join(dict.fromkeys(table.column("subject"))),
        "trials": len(table),
        **{name: split[name] for name in ("train", "test", "unused")},
        "images": len(set(table.column("image"))),
        "shape": list(stored.shape or ()) if stored else [],
        "next": f"recon data check folder --root {out}",
    }
