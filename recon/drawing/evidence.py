"""Maps of evidence: which part of a picture the brain decided, and which the generator added.

What the brain decided comes out the same from two halves of its signals with independent noise
(`recon.decoding.halves`), both pictures made from the same starting noise; what the generator made of chance does not
(`recon.drawing.agreement`). A pixel is lit where the two agree more than the pictures of two null brains do. Half of
the pairs of null brains set the threshold, the lit area under the other half is measured and stored.

    <run>/evidence/<generator>/sub-01/index.csv            which map is which
    <run>/evidence/<generator>/sub-01/<safe id>_seed-0.png grey: black = no agreement, white = twice the threshold
    <run>/evidence/<generator>/sub-01/evidence.json        rule, lit share of every picture, null brains, settings
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from align.files import locked
from recon.decoding.conditions import Condition, derangement
from recon.decoding.plan import Plan, Sampling
from recon.drawing.agreement import LEVEL, LONGEST, NullBrains, agreement, box, checked, grey, shares
from recon.drawing.sets import sample

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.halves import Halves
    from recon.drawing.folders import PictureFolders
    from recon.generation.runtime import Runtime

OnMap = Callable[[str, str, np.ndarray], None]
Baselines = tuple["torch.Tensor", "torch.Tensor"]
OWN = "reconstructions"
CONTROLS = ("shuffled", "oracle")  # halves of another picture; the picture from true tokens, against itself
_OTHERWISE = 0.02  # mean absolute difference from which a stored picture was made in another way; 8 bits leave .002


@dataclass(frozen=True)
class Two:
    """What the decoder makes of two signals, one for each half: (n) rows each."""

    a: Condition
    b: Condition

    def take(self, rows: np.ndarray) -> Two:
        a = self.a.take(rows)
        return Two(a, a if self.b is self.a else self.b.take(rows))


@dataclass(frozen=True)
class Maker:
    """Pictures of conditions, all with the noise that `recon generate` gives a stimulus, and their agreement.

    ``base``: null brains, in turn for the one and the other half.
    """

    plan: Plan
    base: Condition

    def pictures(self, condition: Condition, ids: tuple[str, ...]) -> torch.Tensor:
        """(n, 3, H, W) in [0, 1], one for each of ``ids``."""
        return sample(self.plan.generator, self.plan.decoder, condition, ids, self.plan.sampling)

    def baselines(self, ids: tuple[str, ...]) -> Baselines:
        """Twice (n, 3, H, W): the mean of what the generator makes of the noise of ``ids`` for null brains."""
        import torch

        turns = range(len(self.base.owners))
        drawn = [self.pictures(self.base.take([k] * len(ids)), ids) for k in turns]
        return torch.stack(drawn[::2]).mean(0), torch.stack(drawn[1::2]).mean(0)

    def map_of(self, two: Two, ids: tuple[str, ...], base: Baselines) -> np.ndarray:
        """(n, H, W): agreement of the pictures of the two."""
        a = self.pictures(two.a, ids)
        return agreement(a, a if two.b is two.a else self.pictures(two.b, ids), base)

    def parts(self, n: int) -> list[np.ndarray]:
        """Rows of n pictures, a batch at a time."""
        size = self.plan.sampling.batch_size
        return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]


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

    Arguments as in `recon.drawing.generate.generate`, ``nulls``: pairs of null brains, `recon.decoding.halves.LEAST` or
    more, at most one for every two test pictures. ``on_map(name, stimulus_id, lit)`` is called with bool (H, W) for the
    reconstruction and every control. Raises `UserError` for settings that leave no single picture to explain (several
    seeds, best of n), and when the run holds pictures of the same seed that were made in another way.
    """
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.halves import halves_of, null_signals
    from recon.decoding.predict import open_recording
    from recon.drawing.folders import PictureFolders

    sampling, conditioning = sampling or Sampling(), conditioning or Conditioning()
    _check(sampling, conditioning, limit)
    recording, seed = open_recording(run), sampling.seeds[0]
    source = halves_of(run, recording, seed)
    null = null_signals(run, recording, source, nulls, seed)
    plan = Plan.of(run, generator, conditioning, sampling, runtime, limit)
    place = {name: i for i, name in enumerate(recording.stimuli.ids)}
    own = np.stack([source.two(place[name]) for name in plan.decoder.ids], axis=1)
    signals = [own[0], own[1], null.a, null.b, null.base]
    heard = plan.decoder.of_signals(np.concatenate(signals).astype(np.float32), seed)
    ends = np.cumsum([len(x) for x in signals])
    a, b, null_a, null_b, base = (
        heard.take(np.arange(end - len(x), end)) for x, end in zip(signals, ends, strict=True)
    )
    maker, folders = Maker(plan, base), PictureFolders.of(plan)
    with locked(folders.evidence / ".lock", f"drawing maps into {str(folders.evidence)!r}", wait=None, keep=False):
        brains = _null_brains(maker, Two(null_a, null_b), null.ids)
        rows = _explain(maker, Two(a, b), brains.threshold, folders, on_map)
        return _store(maker, source, brains, null.left_out, rows, folders)


def _null_brains(maker: Maker, null: Two, ids: tuple[str, ...]) -> NullBrains:
    maps = []
    for rows in maker.parts(len(ids)):
        part = tuple(ids[i] for i in rows)
        maps.append(maker.map_of(null.take(rows), part, maker.baselines(part)))
    return checked(np.concatenate(maps))


def _explain(
    maker: Maker, own: Two, threshold: float, folders: PictureFolders, on_map: OnMap | None
) -> dict[str, dict[str, float]]:
    """Write the maps of all pictures; returns lit shares by stimulus id, of the picture and of its `CONTROLS`."""
    from recon.drawing.folders import safe_names, write_png

    ids, seed = maker.plan.decoder.ids, maker.plan.sampling.seeds[0]
    true = maker.plan.decoder.condition("oracle", seed)
    pairs = {OWN: own, "shuffled": own.take(derangement(len(ids), 0)), "oracle": Two(true, true)}
    files, lit = safe_names(ids), {}
    for rows in maker.parts(len(ids)):
        part = tuple(ids[i] for i in rows)
        _require_same(maker, rows, folders)
        base = maker.baselines(part)
        found = {name: maker.map_of(two.take(rows), part, base) for name, two in pairs.items()}
        share = {name: shares(together, threshold) for name, together in found.items()}
        (folders.evidence / "index.csv").unlink(missing_ok=True)  # without it nobody reads maps of two thresholds
        for k, stimulus_id in enumerate(part):
            lit[stimulus_id] = {("lit" if name == OWN else name): float(values[k]) for name, values in share.items()}
            image = np.repeat(grey(found[OWN][k], threshold)[None], 3, axis=0)
            write_png(folders.evidence / f"{files[rows[k]]}_seed-{seed}.png", image)
            for name, together in found.items():
                if on_map is not None:
                    on_map(name, stimulus_id, together[k] > threshold)
    return lit


def _require_same(maker: Maker, rows: np.ndarray, folders: PictureFolders) -> None:
    """Raise `UserError` where the run holds another picture than these settings give: its map would explain a third."""
    from recon.decoding.predict import run_id
    from recon.drawing.folders import read_pictures, read_seed

    own, seed, ids = run_id(maker.plan.run), maker.plan.sampling.seeds[0], maker.plan.decoder.ids
    stored = read_seed(folders.reconstructions, seed)
    known = [i for i in rows if ids[i] in stored and stored[ids[i]]["run"] == own]
    if not known:
        return
    names = tuple(ids[i] for i in known)
    drawn = maker.pictures(maker.plan.decoder.condition(OWN, seed).take(known), names)
    images = read_pictures(folders.reconstructions, stored, list(names))
    apart = (drawn - images).abs().mean(dim=(1, 2, 3)) if images.shape == drawn.shape else None
    if apart is None or apart.max() > _OTHERWISE:
        raise UserError(
            f"the pictures in {str(folders.reconstructions)!r} were made in another way; "
            "pass the --steps, --strength and the like they were made with, or generate them again"
        )


def _store(
    maker: Maker,
    source: Halves,
    brains: NullBrains,
    left_out: int,
    rows: dict[str, dict[str, float]],
    folders: PictureFolders,
) -> dict[str, Any]:
    """Write evidence.json, then index.csv; a map belongs to the drawing of the picture that it explains."""
    from align.files import write_sealed
    from recon.decoding.predict import run_id
    from recon.drawing.folders import DIGEST, DRAWING, file_digest, read_seed, safe_names, write_index

    seed, own, folder = maker.plan.sampling.seeds[0], run_id(maker.plan.run), folders.evidence
    side, guide = min(maker.plan.generator.size, LONGEST), maker.plan.conditioning.guide
    settings = asdict(maker.plan.used) | {
        "generator": maker.plan.name,
        "low_level": maker.plan.decoder.low_level,
        "level": LEVEL,
        "side": side,
        "box": box(side),
        **({} if guide is None else {"guide": asdict(guide)}),
        "baseline": f"means of the pictures of {len(maker.base.owners)} null brains with the same noise",
    }
    if maker.plan.conditioning.library is not None and maker.plan.decoder.library.added is not None:
        settings["library"] = asdict(maker.plan.decoder.library.added)
    medians = {name: float(np.median([row[name] for row in rows.values()])) for name in ("lit", *CONTROLS)}
    facts = {
        "rule": _rule(source, brains),
        "run": own,
        "halves": source.kind,
        "median": medians,
        "null": {"kind": source.kind, "left_out": left_out, **asdict(brains)},
        "settings": settings,
        "rows": rows,
    }
    write_sealed(folder / "evidence.json", facts)
    index, explained = [], read_seed(folders.reconstructions, seed)
    for name, stem in zip(rows, safe_names(tuple(rows)), strict=True):
        file = f"{stem}_seed-{seed}.png"
        row = {"stimulus_id": name, "file": file, "seed": seed, "tokens_of": name, "run": own}
        of = explained.get(name, {}).get(DRAWING, "")
        index.append({**row, DIGEST: file_digest(folder / file), DRAWING: of})
    write_index(folder, index)
    return {"folder": str(folder), **facts}


def _rule(source: Halves, brains: NullBrains) -> str:
    """What lit means, for a reader of the gallery."""
    return (
        f"Lit (lighter than middle grey) = comes out the same from {source.halves}, by more than from "
        f"{brains.n_threshold} pairs of null brains ({source.noise}); all from the same starting noise. Under "
        f"{brains.n} further pairs {100 * brains.lit:.1f} % of the area is lit."
    )


def _check(sampling: Sampling, conditioning: Conditioning, limit: int | None) -> None:
    if len(sampling.seeds) != 1:
        raise UserError(f"a map explains the pictures of one seed, {len(sampling.seeds)} were given")
    if conditioning.best_of > 1:
        raise UserError("a map explains one picture; of best-of-n pictures there is none")
    if conditioning.match != "spread":
        raise UserError(f"halves are scaled by their spread alone (match='spread'), not by {conditioning.match}")
    if limit is not None and limit < 2:
        raise UserError(f"--limit {limit} should be 2 or more: the shuffled control needs another stimulus")
    sampling.check()
