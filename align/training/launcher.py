"""What `accelerate launch` was told and this project does not take from there: said before anything starts.

The launcher hands its options, and those of its ``default_config.yaml``, on as environment variables. Precision, steps
and the like are settings of a run, kept in its config.yaml: two sources of one fact would disagree.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from align.errors import UserError

_OFF = ("", "no", "false", "0", "none")
_OTHERS = {  # variable: option, what to do
    "ACCELERATE_DYNAMO_BACKEND": ("--dynamo_backend", "pass train.compile=true"),
    "ACCELERATE_USE_DEEPSPEED": ("--use_deepspeed", "models here fit one GPU: leave it out"),
    "ACCELERATE_USE_FSDP": ("--use_fsdp", "models here fit one GPU: leave it out"),
    "ACCELERATE_USE_MEGATRON_LM": ("--use_megatron_lm", "models here fit one GPU: leave it out"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("--use_parallelism_config", "models here fit one GPU: leave it out"),
}


def refuse_options(precision: str | None = None, environment: Mapping[str, str] | None = None) -> None:
    """Raise `UserError` for an option of the launcher that would be ignored.

    ``precision``: the ``train.precision`` of this training; None where it has no such setting and computes in fp32.
    """
    given = os.environ if environment is None else environment
    asked = given.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if asked not in _OFF and asked != precision and not (asked == "fp32" and precision is None):
        if precision is None:
            remedy = "this training computes in fp32: pass --mixed_precision no"
        elif asked in ("bf16", "fp16"):
            remedy = f"pass train.precision={asked} (and --mixed_precision no, or the same)"
        else:
            remedy = "pass --mixed_precision no, and train.precision=bf16 for a lower one"
        raise UserError(
            f"accelerate's --mixed_precision {asked} (an option of accelerate launch, or of its default_config.yaml) "
            f"is ignored here; {remedy}"
        )
    for variable, (option, remedy) in _OTHERS.items():
        if given.get(variable, "").lower() not in _OFF:
            raise UserError(f"accelerate's {option} ({variable}={given[variable]}) is ignored here; {remedy}")
