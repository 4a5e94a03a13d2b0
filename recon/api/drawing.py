"""The options of `Decoder.reconstruct`, and the pictures it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from recon.api.pictures import Pictures
from recon.decoding.bridges.choose import Conditioning, default_adapter
from recon.decoding.guidance import Guidance, require_steps
from recon.drawing.generate import OWN, check_sampling, generate
from recon.drawing.sets import Sampling
from recon.generation.runtime import Runtime, default_precision

if TYPE_CHECKING:
    from align.checkpoint import Run


@dataclass(frozen=True)
class Drawing:
    """The generator and how it is used."""

    generator: str
    sampling: Sampling
    conditioning: Conditioning
    runtime: Runtime

    @classmethod
    def of(
        cls,
        generator: str,
        seeds: Sequence[int],
        steps: int | None,
        guidance_scale: float | None,
        strength: float | None,
        batch_size: int,
        device: str,
        precision: str | None,
        conditioning: Mapping[str, Any],
        guide: str | None = None,
    ) -> Drawing:
        """From plain values; raises `UserError` for unknown names and values."""
        known = [item.name for item in fields(Conditioning) if item.name != "guide"]
        for name in conditioning:
            if name not in known:
                raise UserError(f"reconstruct knows no option {name!r}; of the conditioning: {', '.join(known)}")
        listed = (seeds,) if isinstance(seeds, int) else tuple(int(seed) for seed in seeds)
        sampling = Sampling(listed, steps, guidance_scale, batch_size, strength=strength)
        check_sampling(sampling, None)
        wanted = Conditioning(guide=Guidance.parse(guide), **conditioning)
        if wanted.adapter is None:
            wanted = replace(wanted, adapter=default_adapter(str(generator), wanted.bridge))
        precision = precision or default_precision(str(generator), device)
        return cls(str(generator), sampling, wanted, Runtime(precision, device))


def draw_study(
    run: Run, drawing: Drawing, out: str | Path | None, limit: int | None, controls: Sequence[str]
) -> Pictures:
    """The pictures that `recon generate` makes of the run's test rows, read back from their files."""
    from recon.decoding.predict import open_recording
    from recon.drawing.folders import read_pictures, read_seed
    from recon.images import load_image

    folder = None if out is None else Path(out).expanduser()
    made = generate(
        run,
        drawing.generator,
        folder,
        drawing.sampling,
        tuple(controls),
        limit,
        drawing.conditioning,
        drawing.runtime,
    )
    own = Path(made["folders"][OWN])
    stimuli = open_recording(run).stimuli
    place = {name: i for i, name in enumerate(stimuli.ids)}
    by_seed = [read_seed(own, seed) for seed in drawing.sampling.seeds]
    ids = [name for name in _order(run) if name in by_seed[0]][:limit]
    images = np.stack([read_pictures(own, index, ids).numpy() for index in by_seed], axis=1)
    seen = [load_image(stimuli, place[name]).numpy() for name in ids]
    return Pictures(images, tuple(ids), drawing.sampling.seeds, seen, own, made["generator"])


def draw_signals(
    run: Run, x: np.ndarray, ids: Sequence[str], drawing: Drawing, seen: Sequence[np.ndarray] | None = None
) -> Pictures:
    """Pictures of prepared trials x (n, ...), of 8-bit values as in a file; ``ids`` settle the starting noise.

    ``seen``: the true pictures, uint8 (H, W, 3), where they are known.
    """
    from recon.decoding.bridges.choose import adapter_and_bridge
    from recon.decoding.decoder import RunDecoder
    from recon.drawing.sets import sample
    from recon.generation.loading import family_of
    from recon.generation.pipeline import Generator
    from recon.generation.places import generator_folder
    from recon.generation.runtime import check_runtime

    wanted = drawing.conditioning
    if wanted.best_of > 1 or wanted.match != "spread" or wanted.controlnet is not None:
        raise UserError("best_of, match and controlnet need the test rows of the decoder's own study")
    require_steps(wanted.guide, drawing.sampling.strength)
    if not len(x):
        raise UserError("there are no signals to draw from")
    device = check_runtime(drawing.runtime)
    family = family_of(generator_folder(drawing.generator, drawing.runtime.half))
    adapter, bridge = adapter_and_bridge(run, wanted, drawing.generator, family, device)
    teller = RunDecoder(run, adapter, wanted)
    model = Generator.load(drawing.generator, adapter, drawing.runtime, bridge, None)
    rows = []
    for seed in drawing.sampling.seeds:
        condition = teller.of_signals(x, seed)
        rows.append(sample(model, teller, condition, list(ids), replace(drawing.sampling, seeds=(seed,))).numpy())
    images = np.round(np.clip(np.stack(rows, axis=1), 0, 1) * 255).astype(np.float32) / 255
    true = None if seen is None else [np.asarray(one, np.float32).transpose(2, 0, 1) / 255 for one in seen]
    return Pictures(images, tuple(ids), drawing.sampling.seeds, true, None, drawing.generator)


def _order(run: Run) -> tuple[str, ...]:
    from recon.decoding.predict import load_predictions

    return load_predictions(run).ids
