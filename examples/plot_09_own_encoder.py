"""
An encoder of your own
======================

The encoder is the part that reads the brain signals. Here a small network written in a few lines of torch takes its
place; all else, from the scaling of the signals to the scores, stays the same.
"""

# %%
# A network in torch
# ------------------
# It takes trials of shape (B, channels, samples) and gives embeds of shape (B, width). A function that makes the
# network is better than the network itself: it is called under the seed of the decoder, so every run starts anew.

import logging
import tempfile
from contextlib import chdir
from pathlib import Path

import matplotlib.pyplot as plt
from torch import nn

from recon import Decoder, Study

logging.disable(logging.INFO)


def small_network(n_chans, n_times, width):
    """Channels are mixed, then every mixture is filtered in time."""
    return nn.Sequential(
        nn.Conv1d(n_chans, 32, 1),
        nn.Conv1d(32, 32, 11, stride=5, groups=32),
        nn.ELU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.LazyLinear(width),
    )


# %%
# Train it beside a known one
# ---------------------------
# ``settings`` are the keys of a configuration. The two decoders differ in the encoder alone.

work = Path(tempfile.gettempdir()) / "shallow-recon-examples"
work.mkdir(exist_ok=True)
settings = {"target.components": 60, "loss.normalize_brain": True, "train.batch_size": 230, "train.epochs": 15}
scores = {}
with chdir(work):  # the simulation is kept below the working folder
    study = Study.open("simulated")
    for name, encoder in (("mlp", "mlp"), ("small_network", small_network)):
        decoder = Decoder(layer="1", encoder=encoder, settings=settings).fit(study, subject="01")
        scores[name] = decoder.score(n_perm=499)

# %%
# Compare
# -------
# Of 200 test pictures, how often is the seen one ranked first, and how often among the first five? The interval comes
# from drawing pictures anew; the dotted lines are chance.

figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for line, table in enumerate(scores.values()):
    row = table.loc["brain_to_image"]
    axis.plot([100 * row["ci95_low"], 100 * row["ci95_high"]], [line, line], color="C0")
    axis.plot(100 * row["top1"], line, "o", color="C0", label="top-1 [95 %]" if line == 0 else None)
    axis.plot(100 * row["top5"], line, "s", color="C1", label="top-5" if line == 0 else None)
axis.axvline(100 * row["chance_top1"], color="C0", linestyle=":")
axis.axvline(500 * row["chance_top1"], color="C1", linestyle=":")
axis.set(yticks=range(len(scores)), yticklabels=scores, ylim=(-0.5, 1.5), xlim=(0, None), xlabel="retrieval (%)")
axis.legend(frameon=False, loc="upper right")
plt.show()

# %%
# Keep it
# -------
# A saved decoder holds the weights, not the code of the network. Whoever opens it gives the same function again.

folder = Path(tempfile.mkdtemp()) / "decoder"
decoder.save(folder)
decoder = Decoder.load(folder, encoder=small_network)
print(decoder)
