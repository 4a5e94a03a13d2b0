"""Names that a configuration accepts: studies and their layouts, encoders, trackers. Nothing is imported for them."""

from __future__ import annotations

CLOSED_FORM = ("ridge", "banded_ridge", "encoding")  # encoders that are solved, not trained; they predict components
STUDIES = ("simulated", "cowley2023_v4", "things_eeg2", "things_meg", "folder", "nsd")
VARIANTS = {  # the layouts in which a study circulates: `study.variant`
    "things_eeg2": ("official", "nice", "ubp", "neurobridge", "raw"),
    "things_meg": ("openneuro", "atm", "ubp", "neurobridge"),
    "nsd": ("40-hour", "1-hour", "averaged", "algonauts"),
}
# Names of tables elsewhere, so that a misspelt one costs no import; a test holds both against each other.
ENCODERS = (
    *CLOSED_FORM,
    *("linear", "mlp", "residual_mlp", "skip_mlp", "mindbridge", "sttm", "tsconv", "atm"),
    *("eegnet", "shallownet", "conformer"),  # of braindecode
    *("labram", "cbramod", "reve"),  # trained by others
)
BRAINDECODE = "braindecode:"  # any other class of braindecode.models, such as braindecode:EEGSimpleConv
OWN = "own"  # the encoder is a module given in Python (`align.encoders.own`)
TRACKERS = ("tensorboard", "wandb", "aim", "comet_ml", "mlflow", "clearml", "dvclive", "swanlab", "trackio")
CHANNEL = "channel"  # encoder.bands: one band per channel
REST = "rest"  # encoder.bands: what is in none of the regions that are named
