"""Writers of what people import: pictures, tables of trials, BrainVision and EDF recordings, byte by byte."""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.config import Config, load_config
from align.data.importing import command
from align.data.signals import Recording
from align.data.studies import open_study
from align.errors import UserError
from tests.align.fixture_studies import picture, png

CHANNELS = ("Fz", "Oz", "EOG", "POz")


def write_pictures(folder: Path, names: Sequence[str]) -> Path:
    """A different smooth picture for every name."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture(500 + i)))
    return folder


def write_table(path: Path, columns: Mapping[str, Sequence[object]]) -> Path:
    """Commas or, for .tsv, tabs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def write_brainvision(path: Path, counts: np.ndarray, sfreq: int, names: Sequence[str], microvolts: float) -> None:
    """The three files of BrainVision Core Data 1.0, int16 multiplexed; ``counts`` (channels, samples)."""
    counts.T.astype("<i2").tofile(path.with_suffix(".eeg"))
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\n\n[Marker Infos]\nMk1=New Segment,,1,1,0,20200101000000000000\n",
        encoding="utf-8",
    )
    channels = "\n".join(f"Ch{i}={name},,{microvolts},µV" for i, name in enumerate(names, 1))
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\nMarkerFile={path.stem}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={len(names)}\nSamplingInterval={1e6 / sfreq:g}\n\n[Binary Infos]\nBinaryFormat=INT_16\n\n"
        f"[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )


def write_edf(path: Path, counts: np.ndarray, sfreq: int, names: Sequence[str], microvolts: float) -> None:
    """EDF with records of one second; ``counts`` int16 (channels, whole seconds)."""
    n, seconds = len(names), counts.shape[1] // sfreq
    edges = [-32768 * microvolts, 32767 * microvolts]
    head = f"{'0':<8}{'X X X X':<80}{'Startdate 01-JAN-2020 X X X':<80}01.01.2000.00.00{256 * (n + 1):<8}{'':<44}"
    head += f"{seconds:<8}{'1':<8}{n:<4}" + "".join(f"{name:<16}" for name in names) + " " * 80 * n + f"{'uV':<8}" * n
    head += f"{edges[0]:<8.6g}" * n + f"{edges[1]:<8.6g}" * n + f"{-32768:<8}" * n + f"{32767:<8}" * n
    head += " " * 80 * n + f"{sfreq:<8}" * n + " " * 32 * n
    records = counts.astype("<i2").reshape(n, seconds, sfreq).transpose(1, 0, 2)
    path.write_bytes(head.encode("ascii") + records.tobytes())


def imported(*words: object) -> dict[str, Any]:
    """``recon data import`` with the given words."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


def mutated(data: bytes, n: int) -> Iterator[bytes]:
    """``n`` damaged copies: cut short, or some bytes changed; the same ones every time."""
    rng = np.random.default_rng(0)
    for i in range(n):
        copy = bytearray(data[: rng.integers(len(data))] if i % 5 == 0 else data)
        for place in rng.integers(len(copy), size=rng.choice([1, 3, 20])) if copy else ():
            copy[place] = rng.choice([0, 255, rng.integers(256)])
        yield bytes(copy)


def survives(path: Path, n: int, out: Path, *words: object) -> None:
    """Each of ``n`` damaged copies of ``path`` is imported or refused in one line; then the file is whole again."""
    whole = path.read_bytes()
    for data in mutated(whole, n):
        path.write_bytes(data)
        try:
            imported(*words, "--out", out)
        except UserError as error:
            assert "\n" not in str(error) and not out.exists()
        shutil.rmtree(out, ignore_errors=True)
    path.write_bytes(whole)


def read_folder(root: Path, subject: str = "01") -> Recording:
    return open_study(load_config(Config, None, ["study.name=folder", f"study.root={root}"])).recording(subject)


def shown(recording: Recording, split: str) -> list[str]:
    """Ids of the pictures of a split, row by row."""
    return [recording.stimuli.ids[i] for i in getattr(recording, split).stimulus]
