"""
How many repetitions are needed?
================================

Recordings are noisy, so the same picture is often shown many times and the responses are averaged. This example shows
how the score grows with the number of repetitions, next to how reliable the signals are.
"""

# %%
# Train a decoder once
# --------------------
# One simulated subject saw 200 test pictures 20 times each. Several examples use this decoder: the first one trains it,
# and the others find it finished.

import csv
import tempfile
from contextlib import chdir
from pathlib import Path

import matplotlib.pyplot as plt

from align.config import Config, load_config
from align.train import train
from recon.cli import main as recon  # recon(["repeats", ...]) is the command `recon repeats ...`

work = Path(tempfile.gettempdir()) / "shallow-recon-examples"
work.mkdir(exist_ok=True)
settings = ["study.name=simulated", "subjects=[01]", "target.layer=1", "target.components=60"]
settings += ["loss.normalize_brain=true", "train.batch_size=230", "train.epochs=25"]
with chdir(work):  # runs are written below the working folder
    train(load_config(Config, None, [*settings, "run_dir=runs/shared"]), progress=False)

# %%
# Average 1, 2, 3, ... repetitions
# --------------------------------
# For each number, some repetitions of every picture are drawn at random. ``--draws 3`` does this three times.

with chdir(work):
    recon(["repeats", "--subject", "01", "--run", "runs/shared", "--draws", "3"])

# %%
# The curve
# ---------
# ``split-half reliability`` compares the average of one half of the repetitions with the average of the other half. It
# describes the recording and needs no decoder.

with open(work / "runs" / "shared" / "repeats_sub-01.csv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
own = [row for row in rows if row["what"] == "run" and row["direction"] == "brain_to_image"]
with open(work / "runs" / "shared" / "reliability_sub-01.csv", encoding="utf-8") as file:
    channels = sorted(csv.DictReader(file), key=lambda row: float(row["full"]))

figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), width_ratios=(3, 2), layout="constrained")
counts = [int(row["repetitions"]) for row in own]
for key, style, name in (("top1", "o-", "top-1"), ("chance_top1", "k:", "chance")):
    axes[0].plot(counts, [100 * float(row[key]) for row in own], style, label=name)
low, high = ([100 * float(row[f"ci95_top1_{end}"]) for row in own] for end in ("low", "high"))
axes[0].fill_between(counts, low, high, alpha=0.2, linewidth=0, label="95 % interval")
axes[0].set_xticks(counts[::2])
axes[0].set(xlabel="repetitions averaged", ylabel="top-1 of 200 (%)", ylim=(0, None))
axes[0].legend(frameon=False, loc="upper left")

best = channels[-12:]
axes[1].barh([row["channel"] for row in best], [float(row["full"]) for row in best], color="0.6")
axes[1].set(xlabel="split-half reliability", title="the 12 most reliable channels")
plt.show()
