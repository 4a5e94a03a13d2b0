"""The results of a sweep's cells, found on disk or computed: one fit each, one file each.

``cells/<key>.json`` holds a validation score, ``test/<name>.safetensors`` the similarity matrix of a refit. The key
stands for all that decides the fit. Files are written whole or not at all and nobody writes into another's, so any
number of processes, also on several machines, may fill one folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align import __version__, retrieval
from align.config import Config, to_dict
from align.data.names import file_name, joined_name, subject_name
from align.data.signals import Trials
from align.data.studies.base import Study
from align.errors import Damaged
from align.files import read_json, read_tensors, save_tensors, write_sealed
from align.model.aligner import Aligner
from align.sweep.grid import Cell, Grid, recipe_of
from align.sweep.measures import concept_level, held_out_loss
from align.training.training_set import TrainingSide, digest_rows

logger = logging.getLogger(__name__)
_DRAWS = 500  # bootstrap and permutation draws of one cross-validation cell; the final numbers use 2000
_PLACES = (("study", "root"), ("study", "images"), ("backbone", "weights"))  # where files lie: their content counts


@dataclass
class Cells:
    """Finds or computes cells; test rows are read when the first test cell asks for them."""

    grid: Grid
    study: Study
    folder: Path
    _test_rows: dict[str, Trials] = field(default_factory=dict)

    def find(self, cell: Cell) -> dict[str, Any] | None:
        """The stored result, None where there is none that is whole and belongs to this configuration and data."""
        key = self.key(cell)
        path = self.path(cell, key)
        if not path.is_file():
            return None
        try:
            if cell.fold is not None:
                found: dict[str, Any] = read_json(path, {})
                if found.get("key") != key:
                    raise Damaged(f"{str(path)!r} is of another cell")
                if "hits" not in found:
                    raise Damaged(f"{str(path)!r} was written before hits of each picture were kept")
                return found
            tensors, facts = read_tensors(path)
        except Damaged as error:
            logger.warning("%s; this cell is computed again", error)
            return None
        return self._tested(cell, key, tensors["similarity"].numpy()) if facts.get("key") == key else None

    def compute(self, cell: Cell) -> dict[str, Any]:
        """Fit, score and store the cell."""
        key = self.key(cell)
        recipe, subject = recipe_of(self.grid, cell.variant, cell.seed), self.grid.subjects[cell.subject]
        if cell.fold is not None:
            result = {**_where(key, cell), **self._validate(recipe, subject, cell)}
            write_sealed(self.path(cell, key), result, flush=False)  # what a power cut leaves empty is computed again
            return result
        rows = np.arange(len(subject.train))
        aligner, _ = self._fit(recipe, subject, rows, cell)
        result = self._tested(cell, key, self._similarity(aligner, subject, self._test(subject.name), cell))
        kept = {name: result[name] for name in (*_where(key, cell), "ids")}
        facts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in kept.items()}
        save_tensors(self.path(cell, key), {"similarity": torch.from_numpy(result["similarity"])}, facts)
        return result

    def key(self, cell: Cell) -> str:
        """SHA-256 of all that decides the fit: version, recipe, targets (weights and pictures), rows, held-out part."""
        subject, place = self.grid.subjects[cell.subject], self._place(cell)
        tree = to_dict(recipe_of(self.grid, cell.variant, cell.seed))
        for name in ("subjects", "sweep", "run_dir", "cache_dir"):
            tree.pop(name)
        for section, name in _PLACES:
            tree[section].pop(name)
        part = f"fold {cell.fold} of {len(subject.folds)}, dealt by seed {self.grid.config.seed}"
        if cell.fold is None:
            rows = self._test(cell.subject)
            part = f"refit, test rows {digest_rows(rows, rows.stimulus)}"
        tokens = [self.grid.targets[place].key, self.grid.candidates[place].key]
        text = json.dumps([__version__, tree, tokens, subject.name, subject.digest, part], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def path(self, cell: Cell, key: str) -> Path:
        """Where the result lies or will lie."""
        if cell.fold is not None:
            return self.folder / "cells" / f"{key[:32]}.json"
        variant = cell.variant
        names = [file_name(label) for label in (variant.backbone, variant.encoder, variant.layer)]
        name = joined_name([*names, subject_name(cell.subject), f"seed-{cell.seed}"])
        return self.folder / "test" / f"{name}.safetensors"

    def _place(self, cell: Cell) -> tuple[str, str, str]:
        return cell.variant.backbone, cell.variant.layer, cell.subject

    def _test(self, subject: str) -> Trials:
        if subject not in self._test_rows:
            self._test_rows[subject] = self.study.recording(subject).test.averaged()
        return self._test_rows[subject]

    def _tested(self, cell: Cell, key: str, similarity: np.ndarray) -> dict[str, Any]:
        stimuli = self.grid.subjects[cell.subject].stimuli
        ids = [stimuli.ids[i] for i in self._test(cell.subject).stimulus]
        scores = retrieval.report(similarity)
        return {**_where(key, cell), "ids": ids, "similarity": similarity, "scores": scores}

    def _validate(self, recipe: Config, subject: TrainingSide, cell: Cell) -> dict[str, Any]:
        fitted, rows = subject.fold(cell.fold or 0)
        aligner, train_loss = self._fit(recipe, subject, fitted, cell)
        similarity = self._similarity(aligner, subject, rows, cell)
        tokens = self.grid.targets[self._place(cell)].tokens[rows.stimulus]
        validation_loss = None if train_loss is None else held_out_loss(aligner, rows.x, np.asarray(tokens))
        concept = concept_level(similarity, subject.stimuli, rows.stimulus)
        shown = json.dumps([subject.stimuli.ids[i] for i in rows.stimulus])
        hits = {
            "pictures": hashlib.sha256(shown.encode()).hexdigest()[:16],  # cells of the same ones are averaged
            "picture": retrieval.per_stimulus(similarity)["brain_to_image"]["top1"],
            "concept": concept.pop("hits"),
        }
        return {
            "scores": retrieval.both_directions(similarity, seed=recipe.seed, n_boot=_DRAWS, n_perm=_DRAWS),
            "concept": concept,
            "hits": hits,
            "loss": {"train": train_loss, "validation": validation_loss},
        }

    def _fit(self, recipe: Config, subject: TrainingSide, rows: np.ndarray, cell: Cell) -> tuple[Aligner, float | None]:
        """Fit on the given training rows; also the loss of the last epoch, where there are epochs."""
        records: list[dict[str, Any]] = []
        aligner = subject.fit(recipe, rows, self.grid.targets[self._place(cell)], metrics=records.append)
        epochs = [record for record in records if record["stage"] == "train"]
        return aligner, epochs[-1]["loss"] if epochs else None

    def _similarity(self, aligner: Aligner, subject: TrainingSide, rows: Trials, cell: Cell) -> np.ndarray:
        """Held-out rows against their pictures, (n, n) cosine; row i belongs to picture i."""
        tokens = self.grid.candidates[self._place(cell)].tokens[rows.stimulus]
        return retrieval.scores(aligner.predict(rows.x)["embeds"], aligner.embed_images(np.asarray(tokens)))


def _where(key: str, cell: Cell) -> dict[str, Any]:
    fold, split = ("refit", "test") if cell.fold is None else (str(cell.fold), "validation")
    place = {"subject": cell.subject, "seed": cell.seed, "fold": fold, "split": split}
    return {"key": key, **asdict(cell.variant), **place}
