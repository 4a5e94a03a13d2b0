"""The parameters of a `Decoder`: as scikit-learn asks for them, and as the configuration of a training."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from align.errors import UserError
from recon.api.settings import as_config, as_pairs

if TYPE_CHECKING:
    from align.config import Config

CHOSEN = "cv"  # the layer is chosen by cross-validation
NAMES = ("backbone", "layer", "encoder", "scale", "seed", "run_dir", "settings")
PARAMETERS = {"backbone": "backbone.name", "layer": "target.layer", "scale": "preprocess.scale", "seed": "seed"}
SET_ELSEWHERE = {
    **{key: name for name, key in PARAMETERS.items()},
    "encoder.name": "encoder",
    "run_dir": "run_dir",
    "subjects": "fit(..., subject=)",
}


class Parameters:
    """See `recon.Decoder`. Values are kept as they are given, and checked at once."""

    def __init__(
        self,
        backbone: str = "mini",
        layer: str = "1",
        encoder: Any = "mlp",
        scale: str = "zscore",
        seed: int = 0,
        run_dir: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        self.backbone, self.layer, self.encoder, self.scale, self.seed = backbone, layer, encoder, scale, seed
        self.run_dir, self.settings, self._more = run_dir, settings, dict(more)
        self._configured({}, files=False)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Every parameter by name, as it was given."""
        return {**{name: getattr(self, name) for name in NAMES}, **self._more}

    def set_params(self, **params: Any) -> Self:
        """Change parameters; what was fitted stays until the next `fit`. Raises `UserError` for unknown ones."""
        merged = {**self.get_params(), **params}
        type(self)(**merged)  # raises before anything is changed
        for name in NAMES:
            setattr(self, name, merged.pop(name))
        self._more = merged
        return self

    def _configured(self, of_study: Mapping[str, Any], files: bool = True) -> Config:
        """The configuration of a training; ``of_study``: keys that the study sets."""
        own = as_pairs(self.settings, self._more)
        for key in own:
            if key in SET_ELSEWHERE or key.startswith(("study.", "simulated.")):
                where = SET_ELSEWHERE.get(key, "Study.open")
                raise UserError(f"{key!r} is set by {where}, not in the settings of a Decoder")
            if key in of_study and of_study[key] != own[key]:
                raise UserError(f"{key} is {of_study[key]!r} in the study and {own[key]!r} in the decoder; set it once")
        if str(own.get("protocol", "intra")) != "intra":
            raise UserError(
                "a Decoder reads one person; train others with `python -m align.train protocol=...` and open them by "
                "Decoder.load(run, subject=...)"
            )
        pairs: dict[str, Any] = {**of_study, **own}
        pairs |= {key: getattr(self, name) for name, key in PARAMETERS.items()}
        if self.layer == CHOSEN:
            pairs["target.layer"] = "1"  # until it is chosen
        pairs |= {} if self.run_dir is None else {"run_dir": str(self.run_dir)}
        return as_config({**pairs, **self._encoder_pairs()}, files)

    def _encoder_pairs(self) -> dict[str, Any]:
        if isinstance(self.encoder, str):
            return {"encoder.name": self.encoder}
        from align.encoders.own import name_of
        from align.known_names import OWN

        if isinstance(self.encoder, type) or not callable(self.encoder):
            raise UserError(
                f"encoder={self.encoder!r} is no name, torch module or function (n_chans, n_times, width) -> module"
            )
        return {"encoder.name": OWN, "encoder.options": [f"class={name_of(self.encoder)}"]}

    def _own_encoder(self) -> AbstractContextManager[None]:
        from align.encoders.own import given

        return given(None if isinstance(self.encoder, str) else self.encoder)


def settings_of(config: Config) -> dict[str, Any]:
    """What differs from the defaults and is no parameter of `Decoder` and no place of the study."""
    from align.config import flatten, to_dict
    from align.known_names import OWN

    usual = dict(flatten(to_dict(type(config)())))
    skip = (*SET_ELSEWHERE, "protocol", *(["encoder.options"] if config.encoder.name == OWN else []))
    return {
        key: value
        for key, value in flatten(to_dict(config))
        if value != usual[key] and key not in skip and not key.startswith(("study.", "simulated."))
    }
