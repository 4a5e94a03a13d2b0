"""What a drawing needs, put together once: the adapter and its bridge, the decoder, the generator, how it is sampled.

`recon generate`, `recon evidence`, `recon curves` and best-of-n all draw by a `Plan`, so that none of them can choose
another conditioner, strength, guidance or number of steps than the others.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from align.errors import UserError

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.decoder import RunDecoder
    from recon.generation.adapters import Adapter
    from recon.generation.bridge import Bridge
    from recon.generation.loading import Defaults
    from recon.generation.pipeline import Generator
    from recon.generation.runtime import Runtime

_LARGE = 10**8  # bytes


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled. None = what the generator is meant for. ``batch_size`` never changes a picture.

    ``seeds``: samples of every stimulus. ``scale``: of the adapter, 0 = the generator without it. ``strength``: for
    sets with coarse pictures, 0 = these themselves, 1 = from noise (a generator that reads a sketch sees them still).
    """

    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    guidance_scale: float | None = None
    batch_size: int = 32
    scale: float = 1.0
    strength: float | None = None

    def check(self) -> None:
        """Raise `UserError` for steps, a batch size or a strength that cannot be."""
        if self.steps is not None and self.steps < 1:
            raise UserError(f"--steps {self.steps} should be 1 or more")
        if self.batch_size < 1:
            raise UserError(f"--batch-size {self.batch_size} should be 1 or more")
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise UserError(f"--strength {self.strength} should be from 0 (the coarse picture itself) to 1")

    def filled(self, defaults: Defaults) -> Sampling:
        """The same with the generator's ``defaults`` where steps, guidance and strength are None."""
        return replace(
            self,
            steps=defaults.steps if self.steps is None else self.steps,
            guidance_scale=defaults.guidance_scale if self.guidance_scale is None else self.guidance_scale,
            strength=defaults.strength if self.strength is None else self.strength,
        )


@dataclass(frozen=True)
class Plan:
    """A run and a generator that fit together. Build it with `Plan.of`; predictions are read when they are asked for.

    ``name``: the generator as it was named, ``folder``: where it lies. ``decoder``: gives the conditions (tokens, start
    pictures, words) of the run's test pictures.
    """

    run: Run
    name: str
    folder: Path
    conditioning: Conditioning
    sampling: Sampling
    runtime: Runtime
    adapter: Adapter
    bridge: Bridge
    decoder: RunDecoder

    @classmethod
    def of(
        cls,
        run: Run,
        name: str = "mini",
        conditioning: Conditioning | None = None,
        sampling: Sampling | None = None,
        runtime: Runtime | None = None,
        limit: int | None = None,
    ) -> Plan:
        """Find adapter and bridge, and open the decoder; the generator itself is loaded when it is first asked for.

        ``name``: "mini", a folder or a hub id. ``conditioning``: default the own conditioner that fits the run's
        backbone, layer and pooling. ``limit``: only the first test pictures. Raises `UserError` for what is missing,
        what does not fit together, and for settings that need a coarse picture where there is none.
        """
        from recon.decoding.bridges.choose import Conditioning, adapter_and_bridge
        from recon.decoding.decoder import RunDecoder
        from recon.decoding.guidance import require_steps
        from recon.generation.loading import family_of
        from recon.generation.named import spelled
        from recon.generation.places import generator_folder
        from recon.generation.runtime import Runtime, check_runtime

        name, conditioning, sampling = spelled(name), conditioning or Conditioning(), sampling or Sampling()
        sampling.check()
        require_steps(conditioning.guide, sampling.strength)
        runtime = runtime or Runtime()
        device = check_runtime(runtime)
        folder = generator_folder(name, runtime.half)
        adapter, bridge = adapter_and_bridge(run, conditioning, name, family_of(folder), device)
        decoder = RunDecoder(run, adapter, conditioning, limit)
        if decoder.low_level == "none":
            _refuse_without_coarse(conditioning, sampling)
        return cls(run, name, folder, conditioning, sampling, runtime, adapter, bridge, decoder)

    @cached_property
    def generator(self) -> Generator:
        """Loaded with adapter, bridge and ControlNet; raises `UserError` where they do not fit it."""
        from recon.generation.pipeline import Generator

        return Generator.load(self.name, self.adapter, self.runtime, self.bridge, self.conditioning.control_of)

    @property
    def used(self) -> Sampling:
        """`sampling` with the generator's own steps, guidance and strength where none are given."""
        return self.sampling.filled(self.generator.defaults)

    @cached_property
    def weights(self) -> str:
        """16 digits that change with generator, adapter, bridge, number format, ControlNet, the pictures of
        ``--library`` and what guides (`fingerprint`)."""
        control, guide = self.conditioning.control_of, self.conditioning.guide
        added = None if self.conditioning.library is None else self.decoder.library.added
        settings: list[object] = [self.bridge.key, *self.runtime.key, *([] if control is None else control.key)]
        settings += [] if added is None else [f"library {added.digest}"]
        if guide is not None:
            from recon.decoding.predict import run_id

            settings += [asdict(guide), run_id(self.run)]
        return fingerprint(self.folder, self.adapter.path, *settings)

    @cached_property
    def drawing(self) -> str:
        """16 digits that change with `weights` and with every setting of the drawing but the seeds: the same for
        everything that may be scored together, i.e. the reconstructions of every seed and their controls."""
        used, wanted, decoder = self.used, self.conditioning, self.decoder
        settings = {
            "sampling": [used.steps, used.guidance_scale, used.scale],
            "strength": None if decoder.low_level == "none" else used.strength,
            "decoder": [decoder.tokens, decoder.low_level, decoder.best_of],
            "conditioning": [wanted.match, wanted.words, wanted.text_tower],
        }
        return hashlib.sha256(json.dumps([self.weights, settings]).encode()).hexdigest()[:16]


def fingerprint(folder: Path, adapter: Path, *settings: object) -> str:
    """16 digits that change with the generator's folder, the adapter's file and any of ``settings``: content of small
    files, size and time of files beyond 100 MB."""
    digest = hashlib.sha256(json.dumps(settings).encode())
    files = [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin", ".json")]
    for path in [adapter, *sorted(files)]:
        stat = path.stat()
        content = path.read_bytes() if stat.st_size < _LARGE else str((stat.st_size, stat.st_mtime_ns)).encode()
        name = path.relative_to(folder).as_posix() if path is not adapter else "adapter"
        digest.update(name.encode() + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def _refuse_without_coarse(conditioning: Conditioning, sampling: Sampling) -> None:
    """Raise `UserError` for settings that mean a coarse picture."""
    asked = conditioning.low_level == "none"
    reason = "there is none with --low-level none" if asked else "this run and conditioner have none"
    if sampling.strength == 0:
        raise UserError(f"--strength 0 shows the coarse picture itself, and {reason}")
    control = conditioning.control_of
    if control is not None:
        what = "edges of the coarse picture" if control.reads == "edges" else "coarse picture"
        raise UserError(f"--controlnet reads the {what}, and {reason}")
