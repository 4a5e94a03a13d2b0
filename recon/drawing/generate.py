"""Predicted tokens to picture files, with the controls that need the generator; resumable picture by picture.

    <run>/reconstructions/<generator>/sub-01/<safe id>_seed-0.png    from the predicted tokens
    <run>/controls/shuffled/<generator>/sub-01/...                   from another stimulus's predicted tokens
    <run>/controls/zero_brain/<generator>/sub-01/...                 from the tokens of all-zero signals
    <run>/controls/oracle/<generator>/sub-01/...                     from the true tokens of the picture that was seen
    <run>/low_level/<generator>/sub-01/...                           the coarse pictures that reconstructions start from

Every folder has an index.csv. The starting noise of a stimulus is the same in all of them, and what stands beside the
tokens (start picture, words, the choice among samples) is each control's own. Pictures made in another than the usual
way lie under a longer name, such as <generator>_<adapter>_<bridge> or <generator>_words-retrieved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from recon.decoding.conditions import CONTROLS
from recon.drawing.folders import PictureFolders, base_label, write_pictures
from recon.drawing.sets import PictureSet, Sampling, draw, fingerprint

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.decoder import Decoder
    from recon.generation.pipeline import Generator
    from recon.generation.runtime import Runtime

OWN = "reconstructions"


def generate(
    run: Run,
    generator: str = "mini",
    out: Path | None = None,
    sampling: Sampling | None = None,
    controls: Sequence[str] = CONTROLS,
    limit: int | None = None,
    conditioning: Conditioning | None = None,
    runtime: Runtime | None = None,
) -> dict[str, Any]:
    """Sample pictures of every test stimulus, one per seed, and per control, into ``out`` (default: the run folder).

    ``generator``: "mini", a folder or a hub id. ``conditioning``: adapter, bridge and what stands beside the tokens
    (default: the own conditioner that fits the run's backbone, layer and pooling, else `UserError` names the command
    that trains one). ``runtime``: number format, device and the like. ``limit``: only the first stimuli, in the order
    of the split. Returns folders, number of pictures and settings.
    """
    from recon.decoding.bridges.choose import Conditioning, adapter_and_bridge
    from recon.decoding.decoder import Decoder
    from recon.generation.loading import family_of
    from recon.generation.pipeline import Generator
    from recon.generation.places import generator_folder
    from recon.generation.runtime import Runtime, check_runtime

    sampling, conditioning, runtime = sampling or Sampling(), conditioning or Conditioning(), runtime or Runtime()
    check_sampling(sampling, limit)
    device = check_runtime(runtime)
    folder = generator_folder(generator)
    adapter, bridge = adapter_and_bridge(run, conditioning, generator, family_of(folder), device)
    decoder = Decoder(run, adapter, conditioning, limit)
    _ = decoder.ids  # a recording that cannot be read is said before the generator is loaded
    if sampling.strength == 0 and decoder.low_level == "none":
        raise UserError("--strength 0 shows the coarse picture itself, and there is none with --low-level none")
    controlnet = conditioning.controlnet
    if controlnet is not None and decoder.low_level == "none":
        raise UserError("--controlnet reads the edges of the coarse picture, and there is none with --low-level none")
    model = Generator.load(generator, adapter, runtime, bridge, controlnet)
    weights = fingerprint(folder, adapter.path, bridge.key, *runtime.key, *([controlnet] if controlnet else []))
    folders = PictureFolders(out or run.path, generator_label(generator, conditioning), run.subject)
    maker = _Maker(model, decoder, folders, weights, controlnet is not None)
    sampled = 0
    for seeds in [(seed,) for seed in sampling.seeds] if decoder.varies else [sampling.seeds]:
        part = replace(sampling, seeds=seeds)
        sampled += sum(maker.fill(name, part, seeds[0] == sampling.seeds[0]) for name in (OWN, *controls))
    return {
        "study": run.study,
        "subject": run.subject,
        "run": str(run.path),
        "layer": decoder.layer,
        "generator": folders.generator,
        "bridge": bridge.name,
        "match": conditioning.match,
        "tokens": decoder.tokens,
        "low_level": decoder.low_level,
        "words": conditioning.words,
        "best_of": conditioning.best_of,
        "n_stimuli": len(decoder.ids),
        "seeds": list(sampling.seeds),
        "sampled": sampled,
        "folders": {name: str(_folder(folders, name)) for name in (OWN, *controls)},
    }


@dataclass(frozen=True)
class _Maker:
    """Fills one folder after the other."""

    model: Generator
    decoder: Decoder
    folders: PictureFolders
    weights: str
    edges: bool = False

    def fill(self, name: str, sampling: Sampling, first: bool) -> int:
        """The folder of the reconstructions or of a control; returns how many pictures were sampled.

        ``first``: the seeds that the low-level pictures are stored for.
        """
        from recon.decoding.predict import run_id
        from recon.drawing.best_of import draw_best
        from recon.generation.edges import edges

        decoder, condition = self.decoder, self.decoder.condition(name, sampling.seeds[0])
        start, own = decoder.start(self.model, condition), run_id(decoder.run)
        if name == OWN and first and start is not None:
            write_pictures(self.folders.low_level, decoder.ids, start, seed=sampling.seeds[0], run_id=own)
        pictures = PictureSet(
            name,
            _folder(self.folders, name),
            decoder.ids,
            condition.tokens,
            condition.owners,
            own,
            None if start is None else start.numpy(),
            condition.prompts,
            None if start is None or not self.edges else edges(start).numpy(),
        )
        if decoder.best_of > 1 and condition.embeds is not None:
            candidates = self.folders.candidates(name)
            return draw_best(self.model, decoder, pictures, candidates, condition, sampling, self.weights)
        return draw(self.model, pictures, sampling, self.weights)


def _folder(folders: PictureFolders, name: str) -> Path:
    return folders.reconstructions if name == OWN else folders.control(name)


def check_sampling(sampling: Sampling, limit: int | None) -> None:
    """Raise `UserError` for numbers that cannot be, before anything is read."""
    if limit is not None and limit < 2:
        raise UserError(f"--limit {limit} should be 2 or more: the shuffled control needs another stimulus")
    if sampling.steps is not None and sampling.steps < 1:
        raise UserError(f"--steps {sampling.steps} should be 1 or more")
    if sampling.batch_size < 1:
        raise UserError(f"--batch-size {sampling.batch_size} should be 1 or more")
    if not 0 <= sampling.strength <= 1:
        raise UserError(f"--strength {sampling.strength} should be from 0 (the coarse picture itself) to 1")
    if not sampling.seeds or len(set(sampling.seeds)) < len(sampling.seeds) or min(sampling.seeds) < 0:
        raise UserError(f"--seeds {' '.join(map(str, sampling.seeds))}: give different whole numbers, 0 or more")


def generator_label(generator: str, conditioning: Conditioning | None = None) -> str:
    """Folder name of a generator: its own, and whatever of the conditioning is not the usual."""
    names = [base_label(generator)]
    if conditioning is not None:
        if conditioning.adapter is not None:
            adapter = conditioning.adapter.removesuffix(".safetensors").removesuffix(".bin")
            names += [base_label(adapter), conditioning.bridge]
        names += [conditioning.match] * (conditioning.match != "spread")
        names += [f"tokens-{conditioning.tokens}"] * (conditioning.tokens is not None)
        names += [f"low-{conditioning.low_level}"] * (conditioning.low_level is not None)
        names += [f"words-{conditioning.words}"] * (conditioning.words != "none")
        names += [f"controlnet-{base_label(conditioning.controlnet)}"] if conditioning.controlnet else []
        names += [f"best-of-{conditioning.best_of}"] * (conditioning.best_of > 1)
    return "_".join(names)
