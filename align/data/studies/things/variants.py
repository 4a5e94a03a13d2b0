"""The layouts in which THINGS-EEG2 and THINGS-MEG circulate, each read into one common `Block`.

Every layout is a folder of ``sub-XX`` folders with one file for training and one for test. What the layouts differ in:

- the container: an array of one dict by ``np.save``; a dict by ``pickle.dump`` under a ``.npy`` or ``.pkl`` name; a
  dict by ``torch.save`` that holds numpy arrays; a plain ``.npy`` with an ``info.json``;
- the axes: (images, repetitions, C, T) or (concepts, images, repetitions, C, T);
- ``times``: one value per sample, or those of the epoch before its pre-stimulus samples were dropped: then the last
  ones belong to the data, and the first of them is 0 s;
- what else is told: the recording session of every trial, the picture of every row.

Signals are mapped from the file where its container allows, never read whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from align.data.reading.convert import open_container
from align.data.reading.stored_array import StoredArray
from align.data.studies.things.block import Block
from align.errors import UserError, counted
from align.files import read_json


@dataclass(frozen=True)
class Layout:
    """One variant: its two files below ``sub-XX``, how the training file begins, how it is read, what is declared.

    ``declared``: "channels x samples at rate" as the publisher states it. ``read`` None: the study has its own way.
    ``assumed``: ``ch_names`` and ``times`` of a file that does not tell them.
    """

    train: str
    test: str
    declared: str
    read: Callable[[Path, Layout], Block] | None = None
    key: str = ""
    begins: bytes = b""
    assumed: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, folder: Path) -> bool:
        """Whether ``folder`` (a subject's) holds this variant's training file."""
        path = folder / self.train
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(self.begins)) == self.begins


def find_layout(
    root: Path, layouts: Mapping[str, Layout], variant: str | None, title: str
) -> tuple[str, Path, tuple[str, ...]]:
    """(variant, folder of the subjects, subject labels) of the one recording at or up to four folders below ``root``.

    Raises
    ------
    UserError
        No recording, or several among which ``variant`` does not decide.
    """
    found: dict[tuple[str, Path], list[str]] = {}
    for subject in _subject_folders(root):
        for name, layout in layouts.items():
            if variant in (None, name) and layout.fits(subject):
                found.setdefault((name, subject.parent), []).append(subject.name.removeprefix("sub-"))
    if not found:
        wanted = [layout for name, layout in layouts.items() if variant in (None, name)]
        examples = dict.fromkeys(f"sub-01/{layout.train}" for layout in wanted)
        raise UserError(f"study.root={str(root)!r} holds no {title} recording such as {', '.join(examples)}")
    if len(found) > 1:
        places = ", ".join(f"{name} in {str(folder)!r}" for name, folder in found)
        raise UserError(f"study.root={str(root)!r} holds several: {places}; give study.variant=NAME or a deeper root")
    ((name, folder), subjects), *_ = found.items()
    return name, folder, tuple(sorted(subjects))


def read_dict(path: Path, layout: Layout) -> Block:
    """A dict with the signals under ``layout.key``, ``ch_names`` and ``times``, however it was pickled."""
    return _block(path, _dict(path), layout)


def read_torch_dict(path: Path, layout: Layout) -> Block:
    """A dict of numpy arrays by ``torch.save``: signals, and per trial ``session``, ``img``, ``label``."""
    content = _dict(path)
    block = _block(path, content, layout)
    session = _per_trial(path, content, "session", block)
    images, labels = _per_image(path, content, "img", block), _per_image(path, content, "label", block)
    return Block(
        **{
            **vars(block),
            "session": None if session is None else session.astype(np.int64).reshape(-1),
            "images": None if images is None else tuple("/".join(str(name).split("/")[-2:]) for name in images),
            "labels": None if labels is None else tuple(int(label) for label in labels),
        }
    )


def read_plain(path: Path, layout: Layout) -> Block:
    """A plain array with an ``info.json`` beside it or one folder up; also the dict form of the same publisher."""
    content = open_container(path)
    if isinstance(content, dict):
        return _block(path, content, layout)
    places = [folder / "info.json" for folder in (path.parent, path.parent.parent)]
    info: Any = next((read_json(place) for place in places if place.is_file()), {})
    if not isinstance(info, dict):
        raise UserError(f"info.json beside {str(path)!r} holds no keys; expected ch_names and times")
    return _block(path, {**info, layout.key: content}, layout)


def _subject_folders(root: Path) -> Iterator[Path]:
    """Every ``sub-*`` folder in root, its folders, and theirs; folders of pictures are passed over."""
    level = [root]
    for _ in range(5):  # data/things-meg/Preprocessed_data/sub-01 is the deepest in circulation
        folders = sorted(child for folder in level for child in folder.iterdir() if child.is_dir())
        yield from (folder for folder in folders if folder.name.startswith("sub-"))
        level = [f for f in folders if not f.name.startswith(("sub-", ".")) and not f.name.lower().endswith("images")]


def _dict(path: Path) -> dict[Any, Any]:
    content = open_container(path)
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} holds {_kind(content)}, expected a dict of signals, ch_names and times")
    return content


def _block(path: Path, content: Mapping[Any, Any], layout: Layout) -> Block:
    """The part that all variants share; refuses whatever does not fit together."""
    stored = content.get(layout.key)
    if not isinstance(stored, StoredArray) or stored.shape is None:
        raise UserError(f"{str(path)!r} has no array {layout.key!r}; it holds: {', '.join(map(str, content))}")
    shape = stored.shape
    if stored.dtype.kind not in "fiu" or len(shape) not in (4, 5) or 0 in shape:
        raise UserError(
            f"{str(path)!r}: {layout.key!r} is {stored.dtype} {shape}; expected numbers (images, repetitions, "
            "channels, samples) or (concepts, images, repetitions, channels, samples)"
        )
    if stored.fortran:
        raise UserError(f"{str(path)!r}: {layout.key!r} is in column order and cannot be mapped; store it in C order")
    *images, repetitions, n_chans, n_times = shape
    n_images = int(np.prod(images))
    told = {name: content.get(name) if _has(content, name) else None for name in ("ch_names", "times")}
    notes = []
    for name, value in layout.assumed.items():
        if told[name] is None and len(value) == {"ch_names": n_chans, "times": n_times}[name]:  # not another selection
            told[name] = value
            notes.append(f"{path.name} does not tell its {name}; those that its publisher describes are taken")
    return Block(
        path=path,
        x=stored.open().reshape(n_images * repetitions, n_chans, n_times),
        row=np.repeat(np.arange(n_images), repetitions),
        repetition=np.tile(np.arange(repetitions), n_images),
        n_images=n_images,
        ch_names=_ch_names(path, told["ch_names"], n_chans),
        times=_times(path, told["times"], n_times),
        notes=tuple(notes),
    )


def _has(content: Mapping[Any, Any], name: str) -> bool:
    value = content.get(name)
    return value is not None and (not isinstance(value, list | tuple) or len(value) > 0)


def _ch_names(path: Path, value: Any, n_chans: int) -> tuple[str, ...]:
    if value is None:
        return ()
    names = tuple(texts(path, "ch_names", value))
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise UserError(
            f"{str(path)!r}: channel {twice!r} is listed twice in ch_names; every channel needs its own name"
        )
    if len(names) != n_chans:
        raise UserError(f"{str(path)!r} names {counted(len(names), 'channel')}, its signals have {n_chans}")
    return names


def _times(path: Path, value: Any, n_times: int) -> np.ndarray:
    """Seconds of the samples; of more values than samples the last ones, when those begin at the picture's onset."""
    if value is None:
        raise UserError(f"{str(path)!r} has no 'times'; add one value in s per sample")
    try:
        times = np.asarray(value.open() if isinstance(value, StoredArray) else value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{str(path)!r}: times are no list of numbers in s") from error
    if times.ndim != 1 or len(times) < max(2, n_times) or not np.isfinite(times).all():
        raise UserError(f"{str(path)!r}: times of shape {times.shape} do not fit signals of {n_times} samples")
    step = float(np.median(np.diff(times)))
    if step <= 0 or np.abs(np.diff(times) - step).max() > 0.01 * step:
        raise UserError(f"{str(path)!r}: times do not rise evenly; expected seconds at one sampling rate")
    dropped = len(times) - n_times
    if dropped and abs(times[dropped]) > 0.5 * step:
        raise UserError(
            f"{str(path)!r}: {len(times)} times for {n_times} samples, and the last {n_times} begin at "
            f"{times[dropped]:.3f} s instead of 0; which samples they belong to is unknown"
        )
    return times[dropped:]


def _per_trial(path: Path, content: Mapping[Any, Any], name: str, block: Block) -> np.ndarray | None:
    """The array ``name`` (images, repetitions), or None where the file has none."""
    value = content.get(name)
    if value is None:
        return None
    array = value.open() if isinstance(value, StoredArray) else np.asarray(value)
    repetitions = len(block.row) // block.n_images
    if array.shape == (block.n_images,):
        array = np.repeat(array[:, None], repetitions, axis=1)
    if array.shape != (block.n_images, repetitions):
        raise UserError(
            f"{str(path)!r}: {name!r} has shape {array.shape}, its signals {block.n_images} pictures x {repetitions}"
        )
    return array


def _per_image(path: Path, content: Mapping[Any, Any], name: str, block: Block) -> np.ndarray | None:
    array = _per_trial(path, content, name, block)
    if array is None:
        return None
    mixed = (array != array[:, :1]).any(axis=1)
    if mixed.any():
        raise UserError(f"{str(path)!r}: {name!r} differs between repetitions of row {int(mixed.argmax())}")
    return array[:, 0]


def texts(path: Path, name: str, value: Any) -> list[str]:
    """A list or array of texts as a list; raises `UserError` for anything else."""
    items: Iterable[Any] = value.open().reshape(-1).tolist() if isinstance(value, StoredArray) else value
    if isinstance(items, str) or not isinstance(items, list | tuple) or not all(isinstance(i, str) for i in items):
        raise UserError(f"{str(path)!r}: {name} is no list of texts")
    return list(items)


def _kind(value: Any) -> str:
    return f"an array {value.shape}" if isinstance(value, StoredArray) else f"a {type(value).__name__}"
