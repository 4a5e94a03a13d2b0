"""`recon score`: retrieval scores of anybody's embeddings or score matrix."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from align.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon score``."""
    kinds = "FILE or FILE:KEY; .npy .npz .h5 .mat .safetensors .pt .csv"
    parser.add_argument("--brain", metavar="E", help=f"embeddings from the brain, one row per recording ({kinds})")
    parser.add_argument("--images", metavar="Z", help="embeddings of the candidate pictures, one row each")
    parser.add_argument("--scores", metavar="S", help="score matrix instead: rows recordings, columns pictures")
    parser.add_argument(
        "--ids", metavar="CSV", help="picture id of every brain row: columns id, and row if not in order"
    )
    parser.add_argument("--image-ids", metavar="CSV", help="id of every candidate (default: the order of --ids)")
    parser.add_argument(
        "--labels", metavar="COLUMN", help="column of labels of the candidates (default: label, if any)"
    )
    text = "features of the candidates, such as of a low layer; repeatable: also score among the most alike pictures"
    parser.add_argument("--alike", action="append", default=[], metavar="NAME=FILE", help=text)
    text = "candidates in such a pool, the right one among them (default: %(default)s)"
    parser.add_argument("--alike-size", type=int, default=10, metavar="N", help=text)
    parser.add_argument("--pools", default="50,100,200,300", help="smaller candidate sets, by formula (%(default)s)")
    parser.add_argument("--topk", default="1,5", help="(default: %(default)s)")
    parser.add_argument(
        "--repeats", choices=["average", "refuse"], default="average", help="several rows of one picture"
    )
    parser.add_argument(
        "--no-transductive", dest="transductive", action="store_false", help="leave the corrections out"
    )
    parser.add_argument("--n-boot", type=int, default=2000, help="bootstrap draws (default: %(default)s)")
    parser.add_argument("--n-perm", type=int, default=2000, help="permutations (default: %(default)s)")
    parser.add_argument("--resampling-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="store the result, for recon table")
    parser.add_argument("--name", help="label of the method for recon table")
    parser.add_argument("--subject", help="label of the subject for recon table")
    parser.add_argument("--seed", type=int, help="label of the training seed for recon table")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The dict of `recon.scoring.retrieval.score` with labels and sources; also written to ``--out``. ``text`` is for
    the terminal.

    Raises `UserError` on files, ids or settings that do not fit.
    """
    from align.files import write_json
    from recon.scoring.embeddings import read_matrix
    from recon.scoring.retrieval import score, score_matrix
    from recon.scoring.score_text import format_score

    if bool(args.scores) == bool(args.brain or args.images) or bool(args.brain) != bool(args.images):
        raise UserError("pass --brain E with --images Z, or --scores S alone")
    settings: dict[str, Any] = {
        "pools": _numbers(args.pools, "--pools"),
        "topk": _numbers(args.topk, "--topk"),
        "transductive": args.transductive,
        "repeats": args.repeats,
        "n_boot": args.n_boot,
        "n_perm": args.n_perm,
        "seed": args.resampling_seed,
        "alike_size": args.alike_size,
        "alike": _alike(args.alike),
    }
    if args.scores:
        result = score_matrix(read_matrix(args.scores), **_listings(args), **settings)
    else:
        result = score(read_matrix(args.brain), read_matrix(args.images), **_listings(args), **settings)
    files: dict[str, Any] = {
        key: getattr(args, key) for key in ("brain", "images", "scores", "ids", "image_ids") if getattr(args, key)
    }
    if args.alike:
        files["alike"] = list(args.alike)
    labels = {"name": args.name, "subject": args.subject, "seed": args.seed}
    result = {"schema": 1, "kind": "score", **labels, "files": files, **result}
    if args.out:
        write_json(args.out, result)
    return {**result, "text": format_score(result)}


def _listings(args: argparse.Namespace) -> dict[str, Any]:
    """ids, image_ids and labels out of the two CSV files."""
    from recon.scoring.embeddings import read_listing

    if args.labels and not (args.ids or args.image_ids):
        raise UserError(f"--labels {args.labels} names a column of --ids or --image-ids; pass one of them")
    pictures = read_listing(args.image_ids, args.labels) if args.image_ids else None
    brain = read_listing(args.ids, None if pictures else args.labels) if args.ids else None
    source = pictures or brain
    return {
        "ids": brain.ids if brain else None,
        "image_ids": pictures.ids if pictures else None,
        "labels": source.labels if source else None,
    }


def _alike(given: list[str]) -> dict[str, Any]:
    from recon.scoring.embeddings import read_matrix

    found: dict[str, Any] = {}
    for word in given:
        name, sign, file = word.partition("=")
        if not (name and sign and file):
            raise UserError(f"--alike {word!r}: write NAME=FILE, such as low=layer2.npy")
        if name in found:
            raise UserError(f"--alike {name!r} is given twice; choose another name")
        found[name] = read_matrix(file)
    return found


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError as error:
        raise UserError(f"{option} {text!r} must be whole numbers with commas between, like 50,100") from error
