"""
Evaluating somebody's pictures
==============================

You have reconstructed pictures and the pictures that were shown, for example from a paper's repository. This example
scores them with the measures of the field, and puts two controls next to each score.
"""

# %%
# Pictures with a known quality
# -----------------------------
# The "seen" pictures are pieces of photographs that come with scikit-image. Three methods "reconstruct" them: one
# blurs them, one keeps the edges but loses the colour, and one draws a sharp picture of something else.

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter
from skimage import data

from recon import evaluate_images

photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
corners = [(row, column) for row in (0, 80, 160) for column in (40, 140, 240)]
seen = np.stack([photo[r : r + 128, c : c + 128] for photo in photographs for r, c in corners]) / 255

methods = {
    "blurred": gaussian_filter(seen, (0, 6, 6, 0)),
    "grey edges": np.repeat(seen.mean(-1, keepdims=True), 3, axis=-1),
    "another picture": np.roll(seen, 5, axis=0),
}

figure, axes = plt.subplots(4, 6, figsize=(8, 5.4), layout="constrained")
for line, (name, pictures) in zip(axes, {"seen": seen, **methods}.items(), strict=True):
    for axis, picture in zip(line, pictures[[1, 7, 13, 19, 25, 31]], strict=True):
        axis.imshow(picture)
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
plt.show()

# %%
# Scores with their controls
# --------------------------
# ``shuffled`` gives each seen picture the reconstruction of another one. ``grey`` answers every picture with flat grey.
# A score means something only when it is better than both. PixCorr and SSIM need no network. A measure whose network is
# not on this machine is listed as skipped, with the reason.

tables = {}
for name, pictures in methods.items():
    tables[name] = evaluate_images(pictures.astype(np.float32), seen.astype(np.float32), metrics=["PixCorr", "SSIM"])
    print(name)
    print(tables[name][["value", "ci95_low", "ci95_high", "n", "shuffled", "grey", "p_shuffled"]].round(3), "\n")

# %%
# One look at all of it
# ---------------------
# The bars are the scores, the lines their 95 % intervals over pictures, and the marks the two controls.

figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
for axis, metric in zip(axes, ("PixCorr", "SSIM"), strict=True):
    rows = [table.loc[metric] for table in tables.values()]
    values = np.array([row["value"] for row in rows])
    errors = [values - [row["ci95_low"] for row in rows], [row["ci95_high"] for row in rows] - values]
    axis.barh(list(tables), values, xerr=errors, color="0.75", capsize=4)
    for control, mark in (("shuffled", "x"), ("grey", "o")):
        axis.plot([row[control] for row in rows], list(tables), mark, color="C3", label=control, clip_on=False)
    axis.set(title=metric, xlim=(min(-0.1, values.min() - 0.1), 1))
axes[0].invert_yaxis()
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
plt.show()
