"""
Reconstructions next to their controls
======================================

A picture that looks good proves nothing: a generator draws good pictures from noise, too. This example draws pictures
from simulated brain signals, and next to them the controls that a reader should ask for.
"""

# %%
# Train a decoder once
# --------------------
# The decoder is that of :ref:`the example on repetitions <sphx_glr_auto_examples_plot_06_repetitions.py>`.

import csv
import json
import tempfile
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import matplotlib.pyplot as plt

from align.config import Config, load_config
from align.train import train
from recon.cli import main as recon  # recon(["generate", ...]) is the command `recon generate ...`

work = Path(tempfile.gettempdir()) / "shallow-recon-examples"
work.mkdir(exist_ok=True)
settings = ["study.name=simulated", "subjects=[01]", "target.layer=1", "target.components=60"]
settings += ["loss.normalize_brain=true", "train.batch_size=230", "train.epochs=25"]
with chdir(work):  # runs are written below the working folder
    train(load_config(Config, None, [*settings, "run_dir=runs/shared"]), progress=False)

# %%
# Draw and score
# --------------
# ``--limit 24`` draws the first 24 of the 200 test pictures, with the embedded generator (64 × 64 pixels).

run = work / "runs" / "shared"
chosen = ["--subject", "01", "--run", "runs/shared"]
with chdir(work), redirect_stdout(StringIO()):
    recon(["generate", *chosen, "--limit", "24"])
    recon(["evaluate", *chosen, "evaluate.networks=false", "evaluate.n_perm=999"])
report = json.loads((run / "report_sub-01.json").read_text())

# %%
# Look
# ----
# From top to bottom: what was seen (the run keeps a blurred copy), what was reconstructed, and the controls.
#
# * *oracle*: from the true tokens of the seen picture. It is the ceiling of this generator.
# * *shuffled*: from the signals of another picture.
# * *zero brain*: from signals that are all zero.
# * *nearest training*: the training picture that the decoder finds most similar.
# * *pixel ridge*: a plain linear regression from signals to pixels, without any generator.


def pictures(folder):
    """File of every stimulus in a folder of pictures."""
    with open(folder / "index.csv", encoding="utf-8") as file:
        return {row["stimulus_id"]: folder / row["file"] for row in csv.DictReader(file)}


rows = {"seen": run / "controls" / "blurred_target", "reconstruction": run / "reconstructions"}
for name in ("oracle", "shuffled", "zero_brain", "nearest_training_image", "pixel_ridge"):
    rows[name.removesuffix("_image").replace("_", " ")] = run / "controls" / name
folders = {name: pictures(folder / "mini" / "sub-01") for name, folder in rows.items()}
ids = list(folders["reconstruction"])[::3]
figure, axes = plt.subplots(len(rows), len(ids), figsize=(8, 6.6), layout="constrained")
for line, (name, files) in zip(axes, folders.items(), strict=True):
    for axis, stimulus in zip(line, ids, strict=True):
        axis.imshow(plt.imread(files[stimulus]))
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
plt.show()

# %%
# The scores
# ----------
# ``two_way``: of two pictures, is the seen one more similar to the reconstruction? Chance is 0.5. The judge is a
# network that took no part in decoding or drawing.

figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True, layout="constrained")
names = ["oracle", "pixel_ridge", "nearest_training_image", "mean_image", "zero_brain", "shuffled", "grey"]
for axis, metric in zip(axes, ("PixCorr", "two_way"), strict=True):
    own = report["reconstruction"][metric]
    low, high = own["ci95"]
    axis.axvspan(low, high, color="C0", alpha=0.2)
    axis.axvline(own["value"], color="C0", label="reconstruction [95 %]")
    axis.plot([report["controls"][name][metric]["value"] for name in names], names, "o", color="0.3", label="control")
    axis.set(title=f"{metric}, n {own['n']}")
axes[0].invert_yaxis()
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
plt.show()
