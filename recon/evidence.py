"""Maps of evidence: which part of a picture the brain decided, and which the generator added.

The picture from the brain's tokens and the one without a brain start from the same noise; where they differ, the brain
changed something. A brain that saw nothing changes something, too: its noise. A pixel is lit where the difference is
larger than null brains (`recon.null_brain`) make it. Half of them set the threshold, the lit area under the other half
is measured and stored.

    <run>/evidence/<generator>/sub-01/index.csv            which map is which
    <run>/evidence/<generator>/sub-01/<safe id>_seed-0.png grey: black = as without a brain, white = twice the threshold
    <run>/evidence/<generator>/sub-01/evidence.json        rule, lit share of every picture, null brains, settings
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from align.seeding import derive
from recon.conditions import Condition
from recon.drawing import Sampling
from recon.null_brain import NOISE

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from recon.decoder import Decoder
    from recon.folders import PictureFolders
    from recon.generation.bridges.choose import Conditioning
    from recon.generation.pipeline import Generator
    from recon.generation.runtime import Runtime
    from recon.null_brain import NullSignals

OnMap = Callable[[str, str, np.ndarray], None]
LEVEL = 0.95  # share of the area that stays dark under a null brain
OWN = "reconstructions"
CONTROLS = ("shuffled", "oracle")  # compared with the pictures without a brain as the reconstructions are
LONGEST = 256  # px; maps of larger pictures are reduced
_BOX = 16  # a map is smoothed over one part in so many of its side
_OTHERWISE = 0.02  # mean absolute difference from which a stored picture was made in another way; 8 bits leave .002


@dataclass(frozen=True)
class Maker:
    """Pictures of conditions, all with the noise that `recon generate` gives a stimulus."""

    model: Generator
    decoder: Decoder
    sampling: Sampling

    def pictures(self, condition: Condition, ids: tuple[str, ...]) -> torch.Tensor:
        """(n, 3, H, W) in [0, 1], one for each of ``ids``."""
        import torch

        seeds = [derive(self.sampling.seeds[0], "noise", name) % 2**31 for name in ids]
        tokens = torch.from_numpy(np.ascontiguousarray(condition.tokens, dtype=np.float32))
        start = self.decoder.start(self.model, condition)
        return self.model.generate(
            tokens,
            seeds,
            self.sampling.steps,
            self.sampling.guidance_scale,
            self.sampling.batch_size,
            self.sampling.scale,
            start=start,
            strength=self.sampling.strength,
            prompts=condition.prompts,
        )

    def without_brain(self, ids: tuple[str, ...]) -> torch.Tensor:
        """(n, 3, H, W): what the generator makes of the noise of ``ids`` when no brain speaks."""
        return self.pictures(self._silent.take(np.zeros(len(ids), dtype=np.int64)), ids)

    @cached_property
    def _silent(self) -> Condition:
        return self.decoder.condition("zero_brain", self.sampling.seeds[0])


@dataclass(frozen=True)
class NullBrains:
    """``threshold``: of the difference, the ``quantile`` of what ``n_threshold`` null brains make it.

    ``lit``: mean lit share under ``n`` other ones, with its 95 % ``interval`` (over null brains). ``kind``,
    ``left_out``: see `recon.null_brain.NullSignals`.
    """

    kind: str
    left_out: int
    threshold: float
    quantile: float
    n_threshold: int
    n: int
    lit: float
    interval: list[float]


def evidence(
    run: Run,
    generator: str = "mini",
    sampling: Sampling | None = None,
    limit: int | None = None,
    nulls: int = 32,
    conditioning: Conditioning | None = None,
    runtime: Runtime | None = None,
    on_map: OnMap | None = None,
) -> dict[str, Any]:
    """Write the maps of every test picture (or of the first ``limit``) for one noise seed; returns evidence.json.

    Arguments as in `recon.generate.generate`, ``nulls``: null brains, `recon.null_brain.LEAST` or more, at most one for
    every test picture. ``on_map(name, stimulus_id, lit)`` is called with bool (H, W) for the reconstruction and every
    control. Raises `UserError` for settings that leave no single picture to explain (several seeds, best of
    n), and when the run holds pictures of the same seed that were made in another way.
    """
    from recon.decoder import Decoder
    from recon.folders import PictureFolders
    from recon.generate import generator_label
    from recon.generation.bridges.choose import Conditioning, adapter_and_bridge
    from recon.generation.loading import family_of
    from recon.generation.pipeline import Generator
    from recon.generation.places import generator_folder
    from recon.generation.runtime import Runtime, check_runtime
    from recon.null_brain import null_condition, null_signals
    from recon.predict import open_recording

    sampling, conditioning, runtime = sampling or Sampling(), conditioning or Conditioning(), runtime or Runtime()
    _check(sampling, conditioning, limit)
    null = null_signals(run, open_recording(run), nulls, sampling.seeds[0])
    device = check_runtime(runtime)
    adapter, bridge = adapter_and_bridge(run, conditioning, generator, family_of(generator_folder(generator)), device)
    decoder = Decoder(run, adapter, conditioning, limit)
    maker = Maker(Generator.load(generator, adapter, runtime, bridge), decoder, sampling)
    folders = PictureFolders(run.path, generator_label(generator, conditioning), run.subject)
    brains = null_brains(maker, null, null_condition(decoder, adapter, conditioning, null, sampling.seeds[0]))
    (folders.evidence / "index.csv").unlink(missing_ok=True)  # without it nobody reads maps of two thresholds
    rows = _explain(maker, brains.threshold, folders, on_map)
    return _store(maker, brains, rows, folders.evidence)


def difference(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Of pictures (n, 3, H, W): root mean square over channels, smoothed by a box; (n, H, W) float32, 0 to 1.

    Reduced where H is above `LONGEST`.
    """
    from scipy.ndimage import uniform_filter
    from torch.nn.functional import adaptive_avg_pool2d

    apart = (a - b).square().mean(1).sqrt()
    if apart.shape[-1] > LONGEST:
        apart = adaptive_avg_pool2d(apart, LONGEST)
    box = max(1, round(apart.shape[-1] / _BOX))
    smooth: np.ndarray = uniform_filter(apart.numpy(), size=(1, box, box), mode="nearest")
    return smooth


def shares(apart: np.ndarray, threshold: float) -> np.ndarray:
    """Lit part (n,) of the area of maps (n, H, W)."""
    lit: np.ndarray = (apart > threshold).mean(axis=(1, 2))
    return lit


def grey(apart: np.ndarray, threshold: float) -> np.ndarray:
    """Maps in [0, 1]: 0 = as without a brain, 1/2 = the threshold, 1 = twice the threshold or more."""
    graded: np.ndarray = np.minimum(1.0, apart / max(2 * threshold, np.finfo(np.float32).tiny))
    return graded


def null_brains(maker: Maker, null: NullSignals, condition: Condition) -> NullBrains:
    """Draw the null brains; every other one sets the threshold, the rest are measured."""
    from recon.evaluation.stats import t_interval

    size, parts = maker.sampling.batch_size, []
    for start in range(0, len(null.ids), size):
        rows = np.arange(start, min(start + size, len(null.ids)))
        ids = tuple(null.ids[i] for i in rows)
        parts.append(difference(maker.pictures(condition.take(rows), ids), maker.without_brain(ids)))
    apart = np.concatenate(parts)
    threshold, quantile = safe_threshold(apart[::2])
    lit = shares(apart[1::2], threshold)
    counts = len(apart[::2]), len(lit)
    return NullBrains(null.kind, null.left_out, threshold, quantile, *counts, float(lit.mean()), t_interval(lit))


def safe_threshold(apart: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Threshold for maps (n, H, W) of null brains, n > 1, and which quantile of all their pixels it is.

    The quantile ``level`` lights 1 - level of the area of these maps, of further ones as often more as less. So it is
    the lowest quantile at which the area lit is surely that small: the one-sided 95 % limit of its mean over null
    brains (Student 1908) is at most 1 - level.
    """
    from scipy.stats import t

    n = len(apart)
    for quantile in np.linspace(level, 1, 101):
        threshold = float(np.quantile(apart, quantile))
        lit = shares(apart, threshold)
        if lit.mean() + t.ppf(0.95, n - 1) * lit.std(ddof=1) / np.sqrt(n) <= 1 - level:
            break
    return threshold, float(quantile)


def _explain(
    maker: Maker, threshold: float, folders: PictureFolders, on_map: OnMap | None
) -> dict[str, dict[str, float]]:
    """Write the maps of all pictures; returns lit shares by stimulus id, of the picture and of its `CONTROLS`."""
    from recon.folders import safe_names, write_png

    ids, seed, size = maker.decoder.ids, maker.sampling.seeds[0], maker.sampling.batch_size
    conditions = {name: maker.decoder.condition(name, seed) for name in (OWN, *CONTROLS)}
    files, lit = safe_names(ids), {}
    for start in range(0, len(ids), size):
        rows = np.arange(start, min(start + size, len(ids)))
        part = ids[start : start + size]
        plain, found = maker.without_brain(part), {}
        for name, condition in conditions.items():
            pictures = maker.pictures(condition.take(rows), part)
            if name == OWN:
                _require_same(pictures, part, folders, maker)
            found[name] = difference(pictures, plain)
        share = {name: shares(apart, threshold) for name, apart in found.items()}
        for k, stimulus_id in enumerate(part):
            lit[stimulus_id] = {("lit" if name == OWN else name): float(values[k]) for name, values in share.items()}
            image = np.repeat(grey(found[OWN][k], threshold)[None], 3, axis=0)
            write_png(folders.evidence / f"{files[start + k]}_seed-{seed}.png", image)
            for name, apart in found.items():
                if on_map is not None:
                    on_map(name, stimulus_id, apart[k] > threshold)
    return lit


def _require_same(pictures: torch.Tensor, ids: tuple[str, ...], folders: PictureFolders, maker: Maker) -> None:
    """Raise `UserError` where the run holds another picture of one of ``ids``: its map would explain a third one."""
    from recon.evaluation.pictures import read_pictures, read_seed
    from recon.predict import run_id

    own = run_id(maker.decoder.run)
    stored = read_seed(folders.reconstructions, maker.sampling.seeds[0])
    held = [k for k, name in enumerate(ids) if name in stored and stored[name]["run"] == own]
    if not held:
        return
    images = read_pictures(folders.reconstructions, stored, [ids[k] for k in held])
    apart = (pictures[held] - images).abs().mean(dim=(1, 2, 3)) if images.shape[1:] == pictures.shape[1:] else None
    if apart is None or apart.max() > _OTHERWISE:
        raise UserError(
            f"the pictures in {str(folders.reconstructions)!r} were made in another way; "
            "pass the --steps, --strength and the like they were made with, or generate them again"
        )


def _store(maker: Maker, brains: NullBrains, rows: dict[str, dict[str, float]], folder: Path) -> dict[str, Any]:
    """Write evidence.json, then index.csv."""
    from align.files import write_json
    from recon.folders import safe_names, write_index
    from recon.predict import run_id

    seed, own = maker.sampling.seeds[0], run_id(maker.decoder.run)
    model, sampling = maker.model, maker.sampling
    settings = asdict(sampling) | {
        "steps": model.defaults.steps if sampling.steps is None else sampling.steps,
        "guidance_scale": model.defaults.guidance_scale if sampling.guidance_scale is None else sampling.guidance_scale,
        "generator": model.name,
        "low_level": maker.decoder.low_level,
        "level": LEVEL,
        "side": min(model.size, LONGEST),
        "box": max(1, round(min(model.size, LONGEST) / _BOX)),
    }
    medians = {name: float(np.median([row[name] for row in rows.values()])) for name in ("lit", *CONTROLS)}
    facts = {
        "rule": _rule(brains),
        "run": own,
        "median": medians,
        "null": asdict(brains),
        "settings": settings,
        "rows": rows,
    }
    write_json(folder / "evidence.json", facts)
    index = [
        {"stimulus_id": name, "file": f"{file}_seed-{seed}.png", "seed": seed, "tokens_of": name, "run": own}
        for name, file in zip(rows, safe_names(tuple(rows)), strict=True)
    ]
    write_index(folder, index)
    return {"folder": str(folder), **facts}


def _rule(brains: NullBrains) -> str:
    """What lit means, for a reader of the gallery."""
    return (
        "Lit (lighter than middle grey) = differs from the picture without a brain, made from the same noise, by more "
        f"than {brains.n_threshold} null brains ({NOISE[brains.kind]}) make it differ. Under {brains.n} further null "
        f"brains {100 * brains.lit:.1f} % of the area is lit."
    )


def _check(sampling: Sampling, conditioning: Conditioning, limit: int | None) -> None:
    if len(sampling.seeds) != 1:
        raise UserError(f"a map explains the pictures of one seed, {len(sampling.seeds)} were given")
    if conditioning.best_of > 1:
        raise UserError("a map explains one picture; of best-of-n pictures there is none")
    if conditioning.match != "spread":
        raise UserError(f"null brains go through --match spread alone, not {conditioning.match}")
    if limit is not None and limit < 2:
        raise UserError(f"--limit {limit} should be 2 or more: the shuffled control needs another stimulus")
    if sampling.steps is not None and sampling.steps < 1:
        raise UserError(f"--steps {sampling.steps} should be 1 or more")
    if not 0 < sampling.strength <= 1:
        raise UserError(f"--strength {sampling.strength} should be above 0 and at most 1")
