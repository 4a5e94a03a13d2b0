"""
When does the recording predict the picture?
============================================

EEG and MEG follow the brain in time. This example decodes from short windows, one after the other, and asks when the
score is above chance for two layers of the vision model.
"""

# %%
# Decode in windows
# -----------------
# ``recon timecourse`` fits a decoder in each window and scores it by cross-validation on training rows. Here each
# window is 0.1 s long. The two layers are an early and a late one.

import csv
import tempfile
from contextlib import chdir
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from recon.cli import main as recon  # recon(["timecourse", ...]) is the command `recon timecourse ...`

work = Path(tempfile.gettempdir()) / "shallow-recon-examples"
work.mkdir(exist_ok=True)
settings = ["study.name=simulated", "subjects=[01]", "target.components=60", "sweep.folds=2"]
options = ["--layers", "1", "8", "--width", "0.1", "--step", "0.05", "--permutations", "500", "--out", "timecourse"]
with chdir(work):  # results are written below the working folder
    recon(["timecourse", *settings, *options])

# %%
# Two curves
# ----------
# The early layer peaks first and the late layer later, because the simulation was built so. Dots mark the windows
# that lie in a cluster above chance, tested by shuffling which picture belongs to which recording.

with open(work / "timecourse" / "timecourse.csv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))

figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for colour, layer in (("C0", "1"), ("C1", "8")):
    own = [row for row in rows if row["layer"] == layer]
    time, top1, low, high, p = (
        np.array([float(row[key] or 1) for row in own])
        for key in ("centre", "top1", "ci95_low", "ci95_high", "p_cluster")
    )
    axis.fill_between(time, 100 * low, 100 * high, color=colour, alpha=0.2, linewidth=0)
    axis.plot(time, 100 * top1, color=colour, label=f"layer {layer} [95 %]")
    axis.plot(time, np.where(p < 0.05, 100 * top1, np.nan), "o", color=colour)
axis.axhline(100 * float(rows[0]["chance"]), color="k", linestyle=":", label="chance")
axis.set(xlabel="middle of the window, in s after the picture", ylabel="top-1 (%)", ylim=(0, None))
axis.legend(frameon=False)
plt.show()
