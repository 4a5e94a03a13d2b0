"""
Which layer fits a recording?
=============================

A vision model has many layers. This example compares some of them on the embedded simulation, and chooses one without
reading a single test row.
"""

# %%
# Compare layers
# --------------
# ``recon sweep`` trains an encoder for each layer and scores it by cross-validation on training rows. ``--no-test``
# leaves the test rows for later. The settings are small so that this page is built quickly: two simulated subjects, a
# linear encoder (``ridge``), two folds.

import csv
import json
import tempfile
from collections import defaultdict
from contextlib import chdir, redirect_stderr
from io import StringIO
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt

from recon.cli import main as recon  # recon(["sweep", ...]) is the command `recon sweep ...`

work = Path(tempfile.gettempdir()) / "shallow-recon-examples"
work.mkdir(exist_ok=True)

settings = ["study.name=simulated", "subjects=[01,02]", "target.components=60", "encoder.name=ridge"]
settings += ["sweep.seeds=1", "sweep.folds=2"]
with chdir(work), redirect_stderr(StringIO()):  # runs are written below the working folder, progress is not shown
    recon(["sweep", *settings, "--no-test", "--layers", "0", "1", "2", "4", "6", "8"])

# %%
# The curve over depth
# --------------------
# The result is a file that other programs can read. The brains of this simulation were built with an early and a late
# code. So it is no finding that the last layer loses: it shows that the tool finds such a layer.

(folder,) = (work / "runs" / "sweep").iterdir()
chosen = json.loads((folder / "sweep.json").read_text())["chosen"]["layer"]
with open(folder / "sweep.csv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))

figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
curves = {}
for subject in ("01", "02"):
    scores = defaultdict(list)
    for row in rows:
        if (row["subject"], row["direction"], row["level"]) == (subject, "brain_to_image", "picture"):
            scores[int(row["layer"])].append(100 * float(row["top1"]))
    curves[subject] = {layer: fmean(values) for layer, values in scores.items()}
    axis.plot(*zip(*curves[subject].items(), strict=True), "o-", label=f"subject {subject}")
axis.axhline(100 * float(rows[0]["chance_top1"]), color="k", linestyle=":", label="chance")
axis.axvline(int(chosen), color="0.85", linewidth=12, zorder=0, label="chosen")
axis.set(xlabel="layer of the vision model", ylabel="top-1 in cross-validation (%)", ylim=(0, None))
axis.legend(frameon=False)
plt.show()

# %%
# What to do next
# ---------------
# ``best.yaml`` in the same folder is a configuration with the chosen layer. The same command without ``--no-test``
# scores the chosen layer on the test rows, once.

print(sorted(path.name for path in folder.iterdir() if path.is_file()))
