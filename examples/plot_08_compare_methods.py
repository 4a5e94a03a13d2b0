"""
Comparing two decoders
======================

Two decoders were tested on the same pictures and the same people. Is one of them better? This example makes the row of
a paper's table out of six result files, and compares the methods picture by picture.
"""

# %%
# Six result files
# ----------------
# Three simulated people, two methods. The true top-1 scores are 0.58, 0.60 and 0.62 for the new method, and 0.48, 0.50
# and 0.52 for the old one. ``recon score --out`` stores each result with its labels.

import csv
import io
import json
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from recon.cli import main as recon  # recon(["table", ...]) is the command `recon table ...`

folder = Path(tempfile.mkdtemp())
pictures = np.random.default_rng(0).normal(size=(200, 64))
np.save(folder / "Z.npy", pictures)


def printed(*words):
    """What a command prints."""
    with redirect_stdout(io.StringIO()) as text:
        recon([str(word) for word in words])
    return text.getvalue()


files = {"new": [], "old": []}
for method, right in (("new", 120), ("old", 100)):
    for subject, more in (("01", -4), ("02", 0), ("03", 4)):
        decoded = np.arange(200)
        decoded[right + more :] = np.roll(decoded[right + more :], 1)
        noise = np.random.default_rng(right + more).normal(size=pictures.shape)
        np.save(folder / "E.npy", pictures[decoded] + 0.3 * noise)
        files[method].append(folder / f"{method}_{subject}.json")
        labels = ["--name", method, "--subject", subject, "--seed", 0, "--out", files[method][-1]]
        printed("score", "--brain", folder / "E.npy", "--images", folder / "Z.npy", *labels)

# %%
# One table
# ---------
# The mean is over subjects, and so is its interval (Student's t). The difference is tested stimulus by stimulus.

print(printed("table", *files["new"], "--paired", *files["old"]))

# %%
# One figure
# ----------
# Three subjects give a wide interval: with so few people it says little about the next person. The comparison on the
# same pictures is sharper, but it speaks about pictures, not about people.

rows = list(csv.DictReader(io.StringIO(printed("table", *files["new"], "--paired", *files["old"], "--csv"))))
score = "brain_to_image.top1"
value, low, high = ({row["method"]: float(row[score + end]) for row in rows} for end in ("", "_low", "_high"))

figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), width_ratios=(3, 2), layout="constrained")
for x, (method, row) in enumerate((("new", "new"), ("old", "old (base)"))):
    own = [json.loads(file.read_text())["brain_to_image"]["top1"] for file in files[method]]
    errors = [[value[row] - low[row]], [high[row] - value[row]]]
    axes[0].errorbar(x, value[row], yerr=errors, fmt="o", capsize=8, color=f"C{x}")
    axes[0].plot([x + 0.15] * 3, own, ".", color="0.4")
axes[0].set_xticks([0, 1], ["new", "old"])
axes[0].set(xlim=(-0.5, 1.5), ylabel="top-1", title="mean over subjects [95 %], and each subject")

difference, below, above = (float(rows[0][f"{score}_difference{end}"]) for end in ("", "_low", "_high"))
axes[1].errorbar(0, difference, yerr=[[difference - below], [above - difference]], fmt="o", capsize=8, color="k")
axes[1].axhline(0, color="k", linestyle=":")
axes[1].set(xlim=(-1, 1), xticks=[], ylabel="difference in top-1", title="new minus old [95 %]")
plt.show()
