"""Options of accelerate's launcher are followed or refused in one line, never ignored."""

from __future__ import annotations

import pytest

from align import train
from align.training.launcher import refuse_options
from tests.one_line import fails


@pytest.mark.parametrize(
    ("environment", "precision", "words"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "fp32", "mixed_precision bf16 .* train.precision=bf16"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, "bf16", "mixed_precision fp16 .* train.precision=fp16"),
        ({"ACCELERATE_MIXED_PRECISION": "FP8"}, "fp32", "mixed_precision fp8 .* --mixed_precision no"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, None, "computes in fp32"),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "fp32", "--dynamo_backend .* train.compile=true"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "fp32", "--use_deepspeed"),
        ({"ACCELERATE_USE_FSDP": "true"}, "fp32", "--use_fsdp"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "fp32", "--use_megatron_lm"),
    ],
)
def test_what_would_be_ignored_is_refused(environment: dict[str, str], precision: str | None, words: str) -> None:
    fails(words, lambda: refuse_options(precision, environment))


@pytest.mark.parametrize(
    ("environment", "precision"),
    [
        ({}, "bf16"),
        ({"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "no"}, "bf16"),
        ({"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO"}, None),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "bf16"),
        ({"ACCELERATE_USE_DEEPSPEED": "false", "ACCELERATE_USE_CPU": "true"}, "fp32"),
    ],
)
def test_what_is_followed_passes(environment: dict[str, str], precision: str | None) -> None:
    refuse_options(precision, environment)


def test_training_asks_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from recon import train as conditioner

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    for main in (train.main, conditioner.main):
        assert main([]) == 2 and "mixed_precision bf16" in capsys.readouterr().err
