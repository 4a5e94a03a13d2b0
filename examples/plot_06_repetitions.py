"""
How many repetitions are needed?
================================

Recordings are noisy, so the same picture is often shown many times and the responses are averaged. This example shows
how the score grows with the number of repetitions, next to how reliable the signals are.
"""

# %%
# Train a decoder once
# --------------------
# One simulated subject saw 200 test pictures 20 times each. The next example uses this decoder, too: whichever runs
# first trains it, and the other one finds it finished, because it stays in ``run_dir``.

import logging
import tempfile
from contextlib import chdir
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from recon import Decoder, Study, score

logging.disable(logging.INFO)
work = Path(tempfile.gettempdir()) / "shallow-recon-examples"
work.mkdir(exist_ok=True)
settings = {"target.components": 60, "loss.normalize_brain": True, "train.batch_size": 230, "train.epochs": 25}
with chdir(work):  # the run is written below the working folder
    study = Study.open("simulated")
    decoder = Decoder(layer="1", run_dir="runs/decoder", settings=settings).fit(study, subject="01")
print(decoder)

# %%
# Average 1, 2, 3, ... repetitions
# --------------------------------
# For each number, so many repetitions of every picture are drawn at random and averaged. The decoder predicts one
# embedding for each average, and ``score`` compares it with the embeddings of all 200 test pictures.

recording = study.recording("01")
test, rng = recording.test, np.random.default_rng(0)
shown = np.unique(test.stimulus)
trials = [rng.permutation(np.flatnonzero(test.stimulus == picture)) for picture in shown]  # rows of each picture
with chdir(work):
    pictures = decoder.embed_images(recording.stimuli)[shown]


def average(start, stop):
    """Mean over repetitions ``start`` to ``stop`` of every picture: (pictures, channels, samples)."""
    return np.stack([test.x[rows[start:stop]].mean(axis=0) for rows in trials])


counts = [1, 2, 3, 4, 6, 8, 10, 12, 16, 20]
results = []
for count in counts:
    _, embeds = decoder.predict(average(0, count))
    results.append(score(embeds, pictures, n_perm=499)["brain_to_image"])

# %%
# How reliable are the signals?
# -----------------------------
# *Split-half reliability* compares the average of one half of the repetitions with the average of the other half. It
# describes the recording and needs no decoder. The formula of Spearman and Brown gives the reliability of the average
# over all 20 repetitions: 1 means that nothing but the picture matters, 0 that nothing repeats.

first, second = (half - half.mean(axis=0) for half in (average(0, 10), average(10, 20)))
r = (first * second).sum(axis=(0, 2)) / np.sqrt((first**2).sum(axis=(0, 2)) * (second**2).sum(axis=(0, 2)))
reliability = 2 * r / (1 + r)
best = np.argsort(reliability)[-12:]

# %%
# The curve
# ---------
# With more repetitions the score grows. The curve is not smooth, because each point is one random draw.
# ``recon repeats`` averages over several draws, and also scores the other direction.

figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), width_ratios=(3, 2), layout="constrained")
top1 = [100 * result["top1"] for result in results]
low, high = (100 * np.array([result["ci95_top1"][end] for result in results]) for end in (0, 1))
axes[0].plot(counts, top1, "o-", label="top-1")
axes[0].fill_between(counts, low, high, alpha=0.2, linewidth=0, label="95 % interval")
axes[0].axhline(100 / len(shown), color="k", linestyle=":", label="chance")
axes[0].set_xticks(range(2, 21, 2))
axes[0].set(xlabel="repetitions averaged", ylabel="top-1 among 200 pictures (%)", ylim=(0, None))
axes[0].legend(frameon=False, loc="upper left")

axes[1].barh([recording.ch_names[channel] for channel in best], reliability[best], color="0.6")
axes[1].set(xlabel="split-half reliability (0 to 1)", title="the 12 most reliable channels")
plt.show()
