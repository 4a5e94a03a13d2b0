"""`recon data download`: fetch a published study, or say what it takes."""

from __future__ import annotations

import argparse
import getpass
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError

if TYPE_CHECKING:
    from align.data.download.records import Records
    from align.data.download.sources import File, Page, Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon data download``."""
    parser.add_argument("study", metavar="STUDY", help="things_eeg2, things_meg, nsd, cowley2023_v4")
    parser.add_argument("--subjects", nargs="+", metavar="SUBJECT", help="labels, like 01 02 (default: all)")
    parser.add_argument("--variant", help="which published form (default: the first; a wrong name lists them)")
    parser.add_argument("--root", type=Path, help="folder for the files, later study.root (default: data/STUDY)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched, from where, how large")
    parser.add_argument("--yes", action="store_true", help="accept the licence without being asked")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Fetch what is missing; the result lists files, pages to visit by hand and the command to run afterwards.

    ``exit_code`` is 2 while something is left to be fetched by hand. Raises `UserError` for unknown names, a licence
    that was not accepted, a disk that is too small, and as `align.data.download.transfer.fetch` does.
    """
    from align.data.download.part import free_bytes, require_space
    from align.data.download.records import Records, is_there
    from align.data.download.sources import plan

    wanted = plan(args.study, args.variant, _labels(args.subjects))
    root = args.root or Path("data") / args.study
    records = Records(root)
    before = [file for file in wanted.files if records.has(file)]
    missing = [file for file in wanted.files if file not in before]
    if not args.dry_run:
        if missing:
            _require_licence(wanted, args.yes)
            passwords = _passwords(missing)
            require_space(sum(file.size or 0 for file in missing), root)
        for file in before:
            records.verify(file)
        for file in missing:
            records.get(file, progress=not args.json, password=passwords.get(file.key or ""))
    by_hand = [page for page in wanted.pages if not is_there(page, root)]
    listed = [_entry(file, records, "there" if file in before else _done(args.dry_run)) for file in wanted.files]
    result: dict[str, Any] = {
        "study": wanted.study,
        "variant": wanted.variant,
        "subjects": list(wanted.subjects),
        "root": str(root),
        "licence": wanted.licence,
        "files": listed,
        "by_hand": [_by_hand(page, root) for page in by_hand],
        "bytes_missing": sum(file.size or 0 for file in missing) if args.dry_run else 0,
        "of_unknown_size": sum(file.size is None for file in missing) if args.dry_run else 0,
        "subtotals": _subtotals(wanted, missing),
        "in_use": list(wanted.use),
        "bytes_free": free_bytes(root),
        "next": _next(wanted, root),
        "exit_code": 2 if by_hand and not args.dry_run else 0,
    }
    return {**result, "text": _text(result, args.dry_run)}


def _labels(words: list[str] | None) -> list[str] | None:
    """``--subjects 01 02`` and ``--subjects 01,02`` mean the same."""
    return [label for word in words for label in word.split(",") if label] if words else None


def _require_licence(wanted: Plan, accepted: bool) -> None:
    """Print the licence; raises `UserError` unless it is accepted by ``--yes`` or on the terminal."""
    print(f"licence: {wanted.licence}", file=sys.stderr)
    if accepted:
        return
    if sys.stdin is not None and sys.stdin.isatty():
        print("Accept it and fetch the files? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise UserError(f"the licence of {wanted.study} was not accepted, nothing was fetched; pass --yes to accept it")


def _passwords(missing: list[File]) -> dict[str, str]:
    """Passwords of locked archives by the name of their environment variable, else as typed on the terminal.

    Raises `UserError` where there is neither, before anything is fetched.
    """
    found = {}
    for key, terms, target in {(file.key, file.terms, file.target) for file in missing if file.key}:
        value = os.environ.get(key or "")
        if not value and sys.stdin is not None and sys.stdin.isatty():
            value = getpass.getpass(f"{target} is locked; its password stands with its terms, {terms}. Password: ")
        if not value:
            raise UserError(
                f"{target} is locked: read its terms at {terms}, where the password stands, and run the same command "
                f"with {key}=PASSWORD before it; nothing was fetched"
            )
        found[str(key)] = value
    return found


def _done(dry_run: bool) -> str:
    return "missing" if dry_run else "fetched"


def _entry(file: File, records: Records, state: str) -> dict[str, Any]:
    return {
        "target": file.target if file.unpack is None else f"{file.unpack}/ (from {file.target})",
        "url": file.url,
        "bytes": file.size,
        "sha256": records.expected(file),
        "published_checksum": file.sha256 is not None,
        "password": file.key and {"variable": file.key, "terms": file.terms},
        "state": state,
    }


def _subtotals(wanted: Plan, missing: list[File]) -> dict[str, dict[str, int]]:
    """Of every subject, and of what they ``share``: bytes in all, bytes missing, missing files of unknown size."""
    mine = [file for files in wanted.own.values() for file in files]
    parts = {**wanted.own, "share": tuple(file for file in wanted.files if file not in mine)}
    return {
        name: {
            "bytes": sum(file.size or 0 for file in files),
            "bytes_missing": sum(file.size or 0 for file in files if file in missing),
            "of_unknown_size": sum(file.size is None for file in files if file in missing),
        }
        for name, files in parts.items()
    }


def _subtotal_lines(result: dict[str, Any]) -> list[str]:
    """To be fetched by subject, where they are several."""
    from align.data.download.part import human

    parts = result["subtotals"]
    if len(parts) < 3:
        return []
    told = {"share": "shared by all subjects"}
    lines = []
    for name, part in parts.items():
        unknown = f" and {part['of_unknown_size']} of unknown size" if part["of_unknown_size"] else ""
        lines.append(f"  {human(part['bytes_missing']):>10}  {told.get(name, f'subject {name}')}{unknown}")
    return ["to fetch, of these:", *lines]


def _by_hand(page: Page, root: Path) -> dict[str, str]:
    return {"page": page.url, "what": page.what, "expected": str(root / page.expects)}


def _next(wanted: Plan, root: Path) -> str:
    variant = [] if wanted.variant is None else [f"study.variant={wanted.variant}"]
    subjects = f"subjects=[{','.join(wanted.subjects)}]"
    return shlex.join(["recon", "data", "check", wanted.study, "--root", str(root), *variant, subjects])


def _text(result: dict[str, Any], dry_run: bool) -> str:
    """The result in lines for the terminal."""
    from align.data.download.part import human

    variant = f", variant {result['variant']}" if result["variant"] else ""
    lines = [f"{result['study']}{variant}, subjects {', '.join(result['subjects'])} -> {result['root']}"]
    if dry_run:
        lines.append(f"licence: {result['licence']}")
    for entry in result["files"]:
        size = "size unknown" if entry["bytes"] is None else human(entry["bytes"])
        locked = entry["password"]
        told = f"  (locked; password in {locked['variable']}, see {locked['terms']})" if locked else ""
        lines.append(f"  {entry['state']:8}{size:>13}  {entry['target']}  {entry['url']}{told}")
    if result["by_hand"]:
        lines.append("to be fetched by hand:")
        lines += [f"  {page['page']}: {page['what']} (looked for: {page['expected']})" for page in result["by_hand"]]
    if dry_run:
        lines += _subtotal_lines(result)
        unknown = result["of_unknown_size"]
        more = f" and {unknown} file{'s' * (unknown > 1)} of unknown size" if unknown else ""
        lines.append(f"to fetch: {human(result['bytes_missing'])}{more}; free: {human(result['bytes_free'])}")
    if dry_run and result["in_use"]:
        lines.append("when used, as float32 (on disk: a copy of the rows in cache_dir, read in batches):")
        lines += [f"  {text}" for text in result["in_use"]]
    published = sum(entry["published_checksum"] for entry in result["files"])
    if result["files"]:
        lines.append(
            f"checksums: {published} of {len(result['files'])} files have a published one; of the others the SHA-256 "
            f"of the first complete download is kept in {Path(result['root']) / 'checksums.json'} and compared later"
        )
    lines.append(f"{'afterwards' if dry_run or result['by_hand'] else 'now'}: {result['next']}")
    return "\n".join(lines)
