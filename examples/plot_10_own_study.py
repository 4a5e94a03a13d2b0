"""
Your own recording, and where on the head it is read
====================================================

Epochs of MNE and the pictures that were shown are enough for a study. This example makes both, so the answer is known:
only the channels over the back of the head carry what was seen.
"""

# %%
# Epochs and pictures
# -------------------
# 140 pictures of four coarse patches, each shown twice. Signals of the O and P channels mix the colours of the patches;
# all other channels hold noise alone.

import logging
import tempfile
from contextlib import chdir
from pathlib import Path

import matplotlib.pyplot as plt
import mne
import numpy as np

from recon import Decoder, Study

logging.disable(logging.INFO)
rng = np.random.default_rng(0)
names = ["Fp1", "Fp2", "F3", "Fz", "F4", "C3", "Cz", "C4", "T7", "T8", "P7", "P3", "Pz", "P4", "P8", "O1", "Oz", "O2"]
patches = rng.integers(0, 256, (140, 2, 2, 3), dtype=np.uint8)
images = patches.repeat(32, axis=1).repeat(32, axis=2)  # (140, 64, 64, 3)
colours = patches.reshape(140, 12) / 255 - 0.5
mixing = rng.normal(size=(12, len(names), 30)) * np.array([name[0] in "OP" for name in names])[:, None]
stimulus = np.tile(np.arange(140), 2)
signals = np.tensordot(colours, mixing, 1)[stimulus] + rng.normal(size=(280, len(names), 30))
epochs = mne.EpochsArray(1e-6 * signals, mne.create_info(names, 100, "eeg"), verbose="error")

# %%
# A study
# -------
# ``stimulus`` says which picture each epoch shows, ``test`` which pictures are kept for the test. Training and test
# that share a picture are refused. ``check`` looks for what goes wrong most often.

study = Study.from_epochs(epochs, images, stimulus=stimulus, test=range(110, 140))
print(study.check().text)

# %%
# Fit and score
# -------------
# The decoder scales the signals itself, so volts are no trouble.

work = Path(tempfile.gettempdir()) / "shallow-recon-examples"
work.mkdir(exist_ok=True)
settings = {"target.pooling": "grid:8", "target.components": 20, "train.epochs": 40, "train.batch_size": 110}
with chdir(work):
    decoder = Decoder(layer="1", settings=settings).fit(study)
    print(decoder.score(n_perm=999).T)

# %%
# Where it reads
# --------------
# One channel after the other is set to its mean, and the retrieval of held-out training pictures is measured again:
# z is how far the seen picture stands out from the others. A fall says that this decoder reads the
# channel. It does not say where in the brain the information is, and a channel whose neighbours say the same is hardly
# missed.

with chdir(work):
    decoder.plot_topomap(folds=2)
plt.show()

# %%
# Draw what was seen
# ------------------
# Six test pictures by the embedded generator: above what was seen, below what was drawn.

with chdir(work):
    pictures = decoder.reconstruct(limit=6)
figure, axes = plt.subplots(2, 6, figsize=(8, 3), layout="constrained")
for column, (target, drawn) in enumerate(zip(pictures.targets, pictures.images[:, 0], strict=True)):
    for axis, pixels in zip(axes[:, column], (target, drawn), strict=True):
        axis.imshow(pixels.transpose(1, 2, 0))
        axis.set(xticks=[], yticks=[])
for axis, label in zip(axes[:, 0], ("seen", "drawn"), strict=True):
    axis.set_ylabel(label)
plt.show()

# %%
# Score them
# ----------
# Any function of reconstructions and targets can stand beside the known metrics; its controls are computed, too.


def colour_error(reconstructions, targets):
    """Mean distance of the average colours, 0 = the same."""
    return np.abs(reconstructions.mean((2, 3)) - targets.mean((2, 3))).mean(1)


colour_error.better = "lower"
print(pictures.evaluate(metrics=["PixCorr", colour_error], n_perm=499)[["value", "shuffled", "grey", "p_shuffled"]])
