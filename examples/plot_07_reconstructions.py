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
import logging
import tempfile
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import matplotlib.pyplot as plt

from recon import Decoder, Study
from recon.cli import main as recon  # recon(["evaluate", ...]) is the command `recon evaluate ...`

logging.disable(logging.INFO)
work = Path(tempfile.gettempdir()) / "shallow-recon-examples"
work.mkdir(exist_ok=True)
settings = {"target.pooling": "grid:8", "target.components": 60, "loss.normalize_brain": True, "train.batch_size": 230}
with chdir(work):  # the run is written below the working folder
    study = Study.open("simulated", simulated__noise="low")
    decoder = Decoder(layer="1", run_dir="runs/decoder", settings=settings).fit(study, subject="01")

# %%
# Draw
# ----
# The first 24 of the 200 test pictures, with the embedded generator (64 × 64 pixels), and three controls:
#
# * *oracle*: from the true tokens of the seen picture. It is the ceiling of this generator.
# * *shuffled*: from the signals of another picture.
# * *zero brain*: from signals that are all zero.

with chdir(work):
    pictures = decoder.reconstruct(limit=24, controls=("oracle", "shuffled", "zero_brain"))
print(pictures)
print(pictures.evaluate(metrics=["PixCorr", "SSIM"], n_perm=499)[["value", "ci95_low", "ci95_high", "shuffled"]])

# %%
# Score
# -----
# ``recon evaluate`` adds the controls that need no generator, and writes all scores into one report:
#
# * *nearest training*: the training picture that the decoder finds most similar.
# * *pixel ridge*: a plain linear regression from signals to pixels.
# * *mean image*: the mean of the training pictures. *Grey*: a grey picture.

run = work / "runs" / "decoder"
with chdir(work), redirect_stdout(StringIO()):
    recon(["evaluate", "--subject", "01", "--run", str(run), "evaluate.networks=false", "evaluate.n_perm=999"])
report = json.loads((run / "report_sub-01.json").read_text())

# %%
# Look
# ----
# Every third picture. From top to bottom: what was seen, what was reconstructed, and the controls.


def control(name):
    """The pictures of a control, in the order of the reconstructions."""
    folder = run / "controls" / name / "mini" / "sub-01"
    with open(folder / "index.csv", encoding="utf-8") as file:
        files = {row["stimulus_id"]: row["file"] for row in csv.DictReader(file)}
    return [plt.imread(folder / files[stimulus]) for stimulus in pictures.ids]


rows = {
    "seen": [target.transpose(1, 2, 0) for target in pictures.targets],
    "reconstruction": pictures.images[:, 0].transpose(0, 2, 3, 1),
}
for name in ("oracle", "shuffled", "zero_brain", "nearest_training_image", "pixel_ridge"):
    rows[name.removesuffix("_image").replace("_", " ")] = control(name)
columns = range(0, len(pictures), 3)
figure, axes = plt.subplots(len(rows), len(columns), figsize=(8, 6.6), layout="constrained")
for line, (name, images) in zip(axes, rows.items(), strict=True):
    for axis, column in zip(line, columns, strict=True):
        axis.imshow(images[column])
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
labels = [name.removesuffix("_image").replace("_", " ") for name in names]
for axis, metric, chance in zip(axes, ("PixCorr", "two_way"), (0, 0.5), strict=True):
    own = report["reconstruction"][metric]
    low, high = own["ci95"]
    axis.axvspan(low, high, color="C0", alpha=0.2)
    axis.axvline(own["value"], color="C0", label="reconstruction [95 %]")
    axis.axvline(chance, color="k", linestyle=":", label="chance")
    axis.plot([report["controls"][name][metric]["value"] for name in names], labels, "o", color="0.3", label="control")
    axis.set(xlabel=f"{metric}, mean of {own['n']} pictures")
axes[0].invert_yaxis()
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
plt.show()
