"""Where the pictures of a run lie, under which names; the index.csv that says which is which; reading them."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.names import file_name, joined_name, labelled, listed_file, refuse_links
from align.errors import UserError
from align.files import atomic_path, locked, write_atomic
from align.files.table import read_rows

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.plan import Plan
    from recon.generation.control import Control

INDEX_COLUMNS = ("stimulus_id", "file", "seed", "noise_seed", "tokens_of", "run", "settings")
DIGEST = "sha256"  # one more column: of the file as it was written; older indexes have none
SIGNALS = "signals"  # one more: `Predictions.mark` of what was drawn; "" likewise
DRAWING = "drawing"  # one more: `Plan.drawing`; "" in older indexes and of what no generator draws

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureFolders:
    """Where the pictures of one subject and one generator are. ``base`` is the run folder unless told otherwise."""

    base: Path
    generator: str
    subject: str

    @classmethod
    def of(cls, plan: Plan, out: Path | None = None) -> PictureFolders:
        """Where the pictures of a plan lie; ``out``: in place of the run folder."""
        return cls(out or plan.run.path, generator_label(plan.name, plan.conditioning), plan.run.subject)

    @property
    def reconstructions(self) -> Path:
        """Folder of the pictures from predicted tokens."""
        return self._of("reconstructions")

    @property
    def low_level(self) -> Path:
        """Folder of the coarse pictures that reconstructions start from."""
        return self._of("low_level")

    @property
    def evidence(self) -> Path:
        """Folder of the maps of what the brain decided."""
        return self._of("evidence")

    def control(self, name: str) -> Path:
        """Folder of one control."""
        return self._of("controls", name)

    def candidates(self, name: str) -> Path:
        """Folder of the samples among which the brain chooses, of the reconstructions or of a control."""
        return self._of("candidates", name)

    def _of(self, *kind: str) -> Path:
        folder = labelled(self.base.joinpath(*kind) / self.generator, "sub-{}", self.subject)
        refuse_links(self.base, folder)
        return folder


def base_label(generator: str) -> str:
    """Folder name of a generator: its own name, or the last part of its path or hub id."""
    return file_name(generator.rstrip("/").rsplit("/", 1)[-1] or "generator")


def generator_label(generator: str, conditioning: Conditioning | None = None) -> str:
    """Folder name of a generator: its own, and whatever of the conditioning is not the usual."""
    names = [base_label(generator)]
    if conditioning is not None:
        if conditioning.adapter is not None:
            adapter = conditioning.adapter.removesuffix(".safetensors").removesuffix(".bin")
            names += [base_label(adapter), conditioning.bridge]
        names += [conditioning.match] * (conditioning.match != "spread")
        names += [f"tokens-{conditioning.tokens}"] * (conditioning.tokens is not None)
        if conditioning.library is not None:
            library = Path(conditioning.library).expanduser().resolve().name.removesuffix(".zip")
            names += [f"library-{base_label(library)}"]
        names += [f"low-{conditioning.low_level}"] * (conditioning.low_level is not None)
        names += [f"words-{conditioning.words}"] * (conditioning.words != "none")
        names += [base_label(conditioning.text_tower)] if conditioning.text_tower else []
        names += [_control_label(conditioning.control_of)] if conditioning.control_of else []
        names += [f"guide-{conditioning.guide.label}"] if conditioning.guide else []
        names += [f"best-of-{conditioning.best_of}"] * (conditioning.best_of > 1)
    return joined_name(names)


def _control_label(control: Control) -> str:
    label = f"controlnet-{base_label(control.name)}" + ("" if control.reads == "edges" else f"-{control.reads}")
    return label if control.scale == 1 else f"{label}-{control.scale:g}"


def safe_names(ids: Sequence[str]) -> list[str]:
    """File-name stems for stimulus ids, see `align.data.names.file_name`."""
    return [file_name(stimulus_id) for stimulus_id in ids]


def read_index(folder: Path) -> list[dict[str, str]]:
    """Rows of a folder's index.csv; empty where there is none.

    Raises `UserError` where a column is missing or a row names a file outside the folder.
    """
    path = folder / "index.csv"
    if not path.is_file():
        return []
    listed_file(folder, path.name, f"folder {str(folder)!r}")
    rows = read_rows(path, INDEX_COLUMNS, "delete the folder and generate again")
    for number, row in enumerate(rows, 1):
        listed_file(folder, row["file"], f"{str(path)!r}, row {number}")
        for column in ("seed", "noise_seed"):
            if not (row[column].isascii() and row[column].isdecimal() and len(row[column]) <= 20) and (
                row[column] or column == "seed"
            ):
                raise UserError(f"{str(path)!r}, row {number}: {column} {row[column][:40]!r} is no whole number")
    twins = len(rows) - len({(row["stimulus_id"], row["seed"]) for row in rows})
    if twins:
        raise UserError(f"{str(path)!r} lists {twins} pictures of one stimulus and seed twice; generate again")
    return rows


def write_index(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write index.csv; columns that a row lacks stay empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(
        buffer, (*INDEX_COLUMNS, DRAWING, SIGNALS, DIGEST), restval="", extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / "index.csv", buffer.getvalue())


def merge_index(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    seeds: Sequence[int],
    run_id: str,
    planned: Sequence[dict[str, Any]] = (),
) -> None:
    """Put ``rows`` in the place of those of ``seeds``, in the order of the seeds; those of other seeds of the same
    training of the run stay, also where another process is writing them. So do those of ``planned``, which other
    processes draw for the same seeds."""
    mine = {str(seed) for seed in seeds}
    theirs = {_picture_of(row) for row in planned} - {_picture_of(row) for row in rows}
    with locked(folder / ".index.lock", f"writing {str(folder / 'index.csv')!r}", wait=None, keep=False):
        own = [row for row in read_index(folder) if row["run"] == run_id]
        others = [row for row in own if row["seed"] not in mine or _picture_of(row) in theirs]
        write_index(folder, sorted([*others, *rows], key=lambda row: int(row["seed"])))


def _picture_of(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row.get(column) or "") for column in ("stimulus_id", "seed", "settings"))


def write_png(path: Path, image: np.ndarray) -> str:
    """Write ``image``, float (3, H, W) in [0, 1]; returns the SHA-256 of the file, for the index."""
    from PIL import Image

    if not np.isfinite(image).all():
        raise UserError(f"picture {path.name!r} came out as NaN; a weight of generator or adapter is damaged")
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    with atomic_path(path, flush=False) as temporary:
        Image.fromarray(pixels).save(temporary)
        return file_digest(temporary)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same_file(folder: Path, row: dict[str, str]) -> bool:
    """Whether the file of a row is there with the bytes it was written with; of older indexes, whether it is there."""
    path = folder / row["file"]
    return path.is_file() and (not row.get(DIGEST) or file_digest(path) == row[DIGEST])


def listed_picture(folder: Path, row: dict[str, str]) -> Path:
    """The picture file of a row of `read_index`.

    Raises `UserError` where there is none, or where it has changed since it was drawn; older indexes cannot tell that,
    which one line of log says.
    """
    _ = picture_bytes(folder, row)
    return folder / row["file"]


def picture_bytes(folder: Path, row: Mapping[str, str]) -> bytes:
    """The content of the picture file of a row, as `listed_picture` compares it: of these very bytes."""
    path = folder / row["file"]
    if not path.is_file():
        raise UserError(f"picture {str(path)!r} of index.csv does not exist; generate the pictures again")
    content = path.read_bytes()
    if not row.get(DIGEST):
        _say_unsigned(row.get("run") or "")
    elif hashlib.sha256(content).hexdigest() != row[DIGEST]:
        raise UserError(
            f"picture {str(path)!r} was changed after it was drawn; wait for a recon generate that is at work, else "
            "delete it and generate it again"
        )
    return content


@cache
def _say_unsigned(run_id: str) -> None:
    """Once for each training of a run."""
    log.warning(
        "the pictures of %s have no checksums (index.csv is older): whether they were changed later is not seen",
        run_id,
    )


def write_pictures(
    folder: Path, ids: Sequence[str], images: torch.Tensor, *, seed: int, run_id: str, drawing: str = ""
) -> None:
    """Write pictures (n, 3, H, W) of one seed as PNG into index.csv too, in the layout of `recon generate`.

    ``drawing``: of the pictures that they belong to (`recon.decoding.plan.Plan.drawing`), where they belong to some.
    """
    rows = []
    for stimulus_id, name, image in zip(ids, safe_names(ids), images.numpy(), strict=True):
        file = f"{name}_seed-{seed}.png"
        digest = write_png(folder / file, image)
        row = {"stimulus_id": stimulus_id, "file": file, "seed": seed, "run": run_id}
        rows.append({**row, DIGEST: digest, DRAWING: drawing})
    merge_index(folder, rows, [seed], run_id)


def find_folders(run: Run, images_dir: str | Path | None = None, generator: str | None = None) -> PictureFolders:
    """The folders to score: ``images_dir`` (what `recon generate --out` was told) or the run's own.

    Raises `UserError` when there are none, or those of several generators and none is named.
    """
    base = Path(images_dir).expanduser() if images_dir else run.path
    drawn = [PictureFolders(base, path.name, run.subject) for path in sorted(base.glob("reconstructions/*"))]
    found = [one.generator for one in drawn if (one.reconstructions / "index.csv").is_file()]
    if generator is not None:
        alike = [name for name in found if name.lower() == base_label(generator).lower()]
        found = [name for name in alike if name == base_label(generator)] or alike
    if not found:
        asked = f" by {generator!r}" if generator else ""
        raise UserError(
            f"no reconstructions{asked} of subject {run.subject} under {str(base)!r}; "
            f"run: recon generate --subject {run.subject} --run {run.path}"
        )
    if len(found) > 1:
        raise UserError(f"reconstructions of several generators under {str(base)!r}: {', '.join(found)}; name one")
    return PictureFolders(base, found[0], run.subject)


def lowest_seed(folder: Path) -> int:
    """The lowest seed of a folder that has an index; never the best sample."""
    rows = read_index(folder)
    if not rows:
        raise UserError(f"{str(folder / 'index.csv')!r} lists no picture; run recon generate again")
    return min(int(row["seed"]) for row in rows)


def read_seed(folder: Path, seed: int) -> dict[str, dict[str, str]]:
    """Stimulus id to row of the folder's index.csv, for one seed. {} where there is no index."""
    return {row["stimulus_id"]: row for row in read_index(folder) if row["seed"] == str(seed)}


def read_pictures(folder: Path, index: dict[str, dict[str, str]], ids: Sequence[str]) -> torch.Tensor:
    """Float (n, 3, H, W) in [0, 1] of ``ids``, paired through the index, never through the order of files."""
    return read_hashed(folder, index, ids)[0]


def read_hashed(folder: Path, index: dict[str, dict[str, str]], ids: Sequence[str]) -> tuple[torch.Tensor, list[str]]:
    """`read_pictures`, and the SHA-256 of the bytes that were read, picture by picture."""
    import torch

    images, found = [], []
    for stimulus_id in ids:
        content = picture_bytes(folder, index[stimulus_id])
        images.append(_decoded(content, folder / index[stimulus_id]["file"]))
        found.append(hashlib.sha256(content).hexdigest())
    return torch.stack(images), found


def _decoded(content: bytes, path: Path) -> torch.Tensor:
    import torch

    from align.data.reading.safe_load import decode_image

    try:
        pixels = np.array(decode_image(content, str(path)))
    except UserError as error:
        raise UserError(
            f"picture {str(path)!r} is not a readable image ({error}); delete it and generate again"
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
