"""Every metric of one set of pictures against another: values per sample and stimulus, controls beside them.

k samples per stimulus are scored one set at a time: sample s of every stimulus against the targets, two-way included.
No sample is ever picked, least of all by its likeness to the target.

The controls need no model: ``shuffled``, called mismatched where people read it, pairs each target with the
reconstruction of another stimulus (one cycle through all, sample 0; `recon generate` draws its shuffled control),
``grey`` answers every stimulus with flat grey. There is no mean picture among them: the mean
of the *targets* contains what was to be told, and training pictures are not known here.

Memory: a batch of `BATCH` pictures and, for one network at a time, its features of the targets and of one sample set
(float32; the largest, AlexNet(2) and (5) in one pass, 0.9 GB per 1,000 pictures and set), and n x n correlations in
double precision.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from align.errors import UserError
from align.files import launched
from recon.metrics.dream_sim import PROTOCOL as DREAM_SIM_PROTOCOL
from recon.metrics.dream_sim import SIZE as DREAM_SIM_SIZE
from recon.metrics.dream_sim import load_dream_sim
from recon.metrics.feature_nets import FeatureNets, WeightsMissing
from recon.metrics.identification import correlation_distance, correlations, n_way_of, two_way_of
from recon.metrics.metrics import METRICS, STAND_INS, Metric
from recon.metrics.pixels import correlation, enlarged_correlation, gray, structural_similarity
from recon.scoring.presets import Preset
from recon.scoring.views import GreyView, View

BATCH = 16
PIXEL_METRICS = ("PixCorr", "SSIM", "SSIM(columnwise)")
_Values = tuple[np.ndarray, dict[str, np.ndarray]]  # own (n,), controls
_Kinds = dict[str, tuple[str, float | None]]  # row to protocol and chance
KNOWN = (*METRICS, "SSIM(columnwise)", "DreamSim", *STAND_INS)


@dataclass
class Scored:
    """One row of the table. ``values``: (k, n), NaN where undefined. ``controls``: name to (n,).

    ``saturates``: two-way among all pictures, where knowing the category alone already scores high.
    """

    values: np.ndarray
    better: str
    protocol: str
    chance: float | None = None
    weights: str | None = None
    controls: dict[str, np.ndarray] = field(default_factory=dict)
    saturates: bool = False


@dataclass
class Task:
    """What is compared: ``own`` one view per sample, ``controls`` views by name, ``n`` stimuli."""

    own: list[View]
    target: View
    controls: dict[str, View]
    n: int
    preset: Preset
    nets: FeatureNets
    n_way: tuple[int, ...] = ()
    labels: np.ndarray | None = None
    cycle: np.ndarray = field(default_factory=lambda: np.arange(0))
    progress: Callable[[str], None] = lambda stage: None

    def chunks(self, size: int = BATCH) -> Iterator[list[int]]:
        """All stimuli in batches of rows."""
        for start in range(0, self.n, size):
            yield list(range(start, min(start + size, self.n)))


def spelled(names: Sequence[str]) -> list[str]:
    """Names of metrics as they stand in tables, whatever the case they were written in; others as they are."""
    own = {name.lower(): name for name in KNOWN}
    return [own.get(name.lower(), name) for name in names]


def require_known(names: Sequence[str]) -> None:
    """Raise `UserError` for a metric that does not exist."""
    for name in names:
        if name not in KNOWN:
            raise UserError(f"metric {name!r} is not known; known: {', '.join(KNOWN)}")


def cycle_of(n: int, seed: int) -> np.ndarray:
    """A random cycle through all n stimuli: a pairing in which nobody meets the own target. (n,)"""
    order = np.random.default_rng(seed).permutation(n)
    partner = np.empty(n, dtype=int)
    partner[order] = np.roll(order, 1)
    return partner


def score_sets(task: Task, names: Sequence[str]) -> tuple[dict[str, Scored], dict[str, str]]:
    """Rows by name, in the order of ``names``, and the metrics that were skipped, with the reason."""
    require_known(names)
    rows: dict[str, Scored] = {}
    skipped: dict[str, str] = {}
    pixels = [name for name in names if name in PIXEL_METRICS]
    if pixels:
        task.progress(", ".join(pixels))
        rows |= _pixel_rows(task, pixels)
    left = [name for name in names if name not in pixels]
    while left:
        group = _one_pass(task, left)
        left = [name for name in left if name not in group]
        task.progress(", ".join(group))
        try:
            rows |= _network_rows(task, group)
        except WeightsMissing as error:
            skipped |= dict.fromkeys(group, str(error))
        finally:
            task.nets.clear()
    ordered = {key: rows[key] for name in names for key in rows if key == name or key.startswith(f"{name}, ")}
    return ordered, skipped


def _pixel_rows(task: Task, names: list[str]) -> dict[str, Scored]:
    own = [_pixel_values(task, view, names) for view in task.own]
    controls = {control: _pixel_values(task, view, names) for control, view in task.controls.items()}
    rows = {}
    for name in names:
        columnwise = task.preset.ssim_columnwise or name == "SSIM(columnwise)"
        text = METRICS["PixCorr" if name == "PixCorr" else "SSIM"].protocol
        if name != "PixCorr" and columnwise:
            text = "gray, 425 px, mean of 1-D SSIMs of columns (legacy, scikit-image <= 0.19)"
        rows[name] = Scored(
            np.stack([values[name] for values in own]),
            "higher",
            _at_size(text, task.preset.pixel_size, task.preset),
            controls={control: values[name] for control, values in controls.items()},
        )
    return rows


def _pixel_values(task: Task, view: View, names: list[str]) -> dict[str, np.ndarray]:
    from torch.nn.functional import interpolate

    preset, size = task.preset, task.preset.pixel_size
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    linear = preset.resize == "tensor" and preset.entry_size is not None and size >= preset.entry_size
    for rows in launched.own_share(list(task.chunks(4))):
        if linear:  # what is linear can be done before the pictures are enlarged
            a, b = view.entered(rows), task.target.entered(rows)
            r = enlarged_correlation(a, b, size) if "PixCorr" in names else None
            how: dict[str, Any] = {"size": (size, size), "mode": "bilinear", "align_corners": False}
            gray_a, gray_b = (interpolate(gray(images), **how) for images in (a, b))
        else:
            a, b = view.pixels(rows), task.target.pixels(rows)
            r = correlation(a, b) if "PixCorr" in names else None
            gray_a, gray_b = gray(a), gray(b)
        if r is not None:
            found["PixCorr"].append(r)
        for name in set(names) - {"PixCorr"}:
            columnwise = preset.ssim_columnwise or name == "SSIM(columnwise)"
            found[name].append(structural_similarity(gray_a, gray_b, columnwise=columnwise))
    return {name: launched.of_all(np.concatenate(values) if values else None) for name, values in found.items()}


def _metric(task: Task, name: str) -> tuple[Metric, str]:
    """A metric and the network it reads under the preset."""
    metric = METRICS.get(name) or STAND_INS[name]
    network = task.preset.networks.get(name, metric.network)
    assert network is not None
    return metric, network


def _one_pass(task: Task, names: Sequence[str]) -> list[str]:
    """The first metric and the others that read the same network at another node."""
    first = names[0]
    if first == "DreamSim" or _metric(task, first)[0].kind == "lpips":
        return [first]
    network = _metric(task, first)[1]
    rest = [name for name in names[1:] if name != "DreamSim" and _metric(task, name)[0].kind != "lpips"]
    return [first, *(name for name in rest if task.nets.one_pass(network, _metric(task, name)[1]))]


def _network_rows(task: Task, names: list[str]) -> dict[str, Scored]:
    """Rows of one metric, or of several that read one network."""
    name = names[0]
    if name == "DreamSim":
        with launched.first_then_others():
            distance = load_dream_sim(task.nets.weights_dir, download=task.nets.download)
        return {name: _paired_row(task, distance, DREAM_SIM_SIZE, DREAM_SIM_PROTOCOL, None)}
    metric, network = _metric(task, name)
    weights, size = task.nets.source(network), task.nets.size(network)
    if metric.kind == "lpips":
        return {
            name: _paired_row(task, lambda a, b: task.nets.lpips_pairs(network, a, b), size, metric.protocol, weights)
        }
    return _feature_rows(task, names, weights)


def _paired_row(
    task: Task, distance: Callable[[Any, Any], np.ndarray], size: int, protocol: str, weights: str | None
) -> Scored:
    """A distance that needs both pictures of a pair at once."""

    def values(view: View) -> np.ndarray:
        own = launched.own_share(list(task.chunks()))
        parts = [distance(view.network(rows, size), task.target.network(rows, size)) for rows in own]
        return launched.of_all(np.concatenate(parts) if parts else None)

    own = np.stack([values(view) for view in task.own])
    controls = {name: values(view) for name, view in task.controls.items()}
    protocol = _at_size(protocol, task.preset.network_size or size, task.preset)
    return Scored(own, "lower", protocol, weights=weights, controls=controls)


def _feature_rows(task: Task, names: list[str], weights: str) -> dict[str, Scored]:
    """Rows of all metrics that read features of one network, in one pass over every set of pictures."""
    networks = {name: _metric(task, name)[1] for name in names}
    size = task.nets.size(networks[names[0]])

    def extract(view: View, chunks: Sequence[list[int]]) -> dict[str, np.ndarray]:
        batches, n = (view.network(rows, size) for rows in chunks), sum(map(len, chunks))
        return task.nets.extract_together(list(networks.values()), batches, n)

    def features(view: View) -> dict[str, np.ndarray]:
        own = extract(view, launched.own_share(list(task.chunks())))
        return {network: launched.of_all(own.get(network)) for network in dict.fromkeys(networks.values())}

    truth = features(task.target)
    # one grey picture stands for all of them
    grey = extract(task.controls["grey"], [[0]]) if "grey" in task.controls else {}
    rows: dict[str, Scored] = {}
    for view in task.own:
        told = features(view)
        for name, network in networks.items():
            found = _sample_rows(task, name, told[network], truth[network], grey.get(network))
            for row, scored in found.items():
                if row in rows:
                    rows[row].values = np.concatenate([rows[row].values, scored.values])
                else:
                    rows[row] = scored
                    rows[row].weights = weights
    return rows


def _sample_rows(
    task: Task, name: str, told: np.ndarray, truth: np.ndarray, grey: np.ndarray | None
) -> dict[str, Scored]:
    """Rows of one metric for one sample of every stimulus, values (1, n)."""
    metric, network = _metric(task, name)
    protocol = _at_size(metric.protocol, task.preset.network_size or task.nets.size(network), task.preset)
    if network == "effnet_v1":
        protocol += ", IMAGENET1K_V1"
    if metric.kind == "distance":
        values = {name: _distances(task, told, truth, grey)}
        kinds: _Kinds = {name: (protocol, None)}
    else:
        values, kinds = _identified(task, name, protocol, told, truth, grey)
    rows = {}
    for row, (own, controls) in values.items():
        text, chance = kinds[row]
        saturates = metric.kind == "two_way" and row in _two_way_names(name)
        rows[row] = Scored(own[None], metric.better, text, chance, None, controls, saturates)
    return rows


def _two_way_names(name: str) -> tuple[str, str]:
    """Rows of the two conventions: as coded, as written."""
    return name, f"{name}, reconstructions as distractors"


def _distances(task: Task, told: np.ndarray, truth: np.ndarray, grey: np.ndarray | None) -> _Values:
    controls = {}
    if "shuffled" in task.controls:
        controls["shuffled"] = correlation_distance(told[task.cycle], truth)
    if grey is not None:
        controls["grey"] = correlation_distance(np.repeat(grey, len(truth), axis=0), truth)
    return correlation_distance(told, truth), controls


def _identified(
    task: Task, name: str, protocol: str, told: np.ndarray, truth: np.ndarray, grey: np.ndarray | None
) -> tuple[dict[str, _Values], _Kinds]:
    """Two-way in both conventions, n-way, and within categories: values and (protocol, chance) of each row."""
    r = correlations(told, truth)
    others = {}
    if "shuffled" in task.controls:
        others["shuffled"] = r[:, task.cycle]
    if grey is not None:
        others["grey"] = np.repeat(correlations(grey, truth), len(truth), axis=1)
    kinds: dict[str, tuple[str, float | None, Callable[[np.ndarray], np.ndarray]]] = {
        name: (f"{protocol}, distractors are true pictures (as coded)", 0.5, two_way_of),
        _two_way_names(name)[1]: (
            f"{protocol}, distractors are reconstructions (as written in MindEye2's appendix)",
            0.5,
            lambda x: two_way_of(x.T),
        ),
    }
    for k in task.n_way:
        text = f"{protocol.replace(', two-way', '')}, expected top-1 of {k} true pictures, closed form"
        kinds[f"{name}, {k}-way"] = (text, 1 / k, partial(n_way_of, n_candidates=k))
    if task.labels is not None:
        text = f"{protocol}, distractors are true pictures of the same category"
        kinds[f"{name}, within category"] = (text, 0.5, partial(two_way_of, within=task.labels))
    values = {
        row: (function(r), {control: function(x) for control, x in others.items()})
        for row, (_, _, function) in kinds.items()
    }
    return values, {row: (text, chance) for row, (text, chance, _) in kinds.items()}


def _at_size(protocol: str, size: int, preset: Preset) -> str:
    """The protocol's words with the size really used."""
    text = re.sub(r"\d+ px", f"{size} px", protocol, count=1)
    return f"{text}, resized by Pillow" if preset.resize == "pil" else text


def build_task(
    own: Any, target: Any, preset: Preset, nets: FeatureNets, *, controls: bool, seed: int, low_level: Any = None
) -> Task:
    """Views of two paired `PictureSet`; ``low_level`` is one more, paired with them."""
    n = target.n if preset.first is None else min(target.n, preset.first)
    cycle = cycle_of(n, seed)
    views: dict[str, View] = {}
    if controls:
        views["shuffled"] = View(own, preset, 0, cycle, low_level)
        views["grey"] = GreyView(own, preset)
    samples = [View(own, preset, sample, None, low_level) for sample in range(own.samples)]
    return Task(samples, View(target, preset), views, n, preset, nets, cycle=cycle)
