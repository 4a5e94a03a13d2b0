"""The page: one HTML file that needs nothing else, with every picture of one or several runs inside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from recon.evaluation.judges import described
from recon.gallery.album import Album
from recon.gallery.content import CONTROLS, Content, Item, choose
from recon.gallery.template import data_text, filled

CHOSEN_EACH = 6
_PARTS = (("__STYLE__", "page.css"), ("__SCRIPT__", "page.js"))


def draw_page(contents: Iterable[Content]) -> str:
    """The page as text: page.html with page.css, page.js and the data of `page_data` inside.

    ``contents`` is gone through once, so that runs can be read one after the other.
    """
    folder = Path(__file__).parent
    page = (folder / "page.html").read_text(encoding="utf-8")
    for mark, name in _PARTS:
        page = filled(page, mark, (folder / name).read_text(encoding="utf-8"))
    return filled(page, "__GALLERY__", data_text(page_data(contents)))


def page_data(contents: Iterable[Content]) -> dict[str, Any]:
    """What the script of the page reads: ``runs``, and ``images``, into which pictures are numbers."""
    album = Album()
    runs = [_run_data(content, album) for content in contents]
    for run, label in zip(runs, labels([(run["report"]["subject"], run["folder"]) for run in runs]), strict=True):
        run["label"] = label
    return {"runs": runs, "images": album.addresses()}


def labels(named: Sequence[tuple[str, str]]) -> list[str]:
    """A short name of each (subject, folder): the subject where that tells them apart, else the folder with it."""
    subjects = [subject for subject, _ in named]
    plain = [subject if subjects.count(subject) == 1 else f"{subject}, {folder}" for subject, folder in named]
    place = [plain[:k].count(label) + 1 for k, label in enumerate(plain)]
    return [label if number == 1 else f"{label} ({number})" for label, number in zip(plain, place, strict=True)]


def _run_data(content: Content, album: Album) -> dict[str, Any]:
    seen = {stimulus_id: album.add(pixels) for stimulus_id, pixels in content.seen.items()}
    groups = {item.stimulus_id: name for name, items in choose(content, CHOSEN_EACH).items() for item in items}
    return {
        "report": content.report,
        "audit": content.audit,
        "curves": content.curves,
        "folder": content.folder,
        "rule": list(content.rule),
        "headline": list(content.headline),
        "judges": described(content.report),
        "image_seed": content.image_seed,
        "seeds_left_out": content.extras.seeds_left_out,
        "evidence_rule": content.extras.rule,
        "controls": [{"name": name, "text": CONTROLS[name]} for name in content.controls],
        "candidates": {stimulus_id: [seen[stimulus_id], text] for stimulus_id, text in content.captions.items()},
        "items": [
            _item_data(item, content, seen[item.stimulus_id], groups.get(item.stimulus_id, ""), album)
            for item in content.items
        ],
    }


def _item_data(item: Item, content: Content, seen: int, group: str, album: Album) -> dict[str, Any]:
    return {
        "id": item.stimulus_id,
        "caption": item.caption,
        "concept": item.concept,
        "group": group,
        "seen": seen,
        "reconstructed": album.add(item.reconstructed),
        "others": [[seed, album.add(pixels)] for seed, pixels in item.others.items()],
        "low_level": None if item.low_level is None else album.add(item.low_level),
        "evidence": None if item.evidence is None else album.add(item.evidence),
        "lit": item.lit,
        "controls": [album.add(item.controls[name]) for name in content.controls],
        "retrieved": list(item.retrieved),
        "rank": item.rank,
        "scores": {name: round(value, 4) for name, value in item.scores.items()},
    }
