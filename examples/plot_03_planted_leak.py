"""
Finding a planted leak
======================

A score can be too good because something of the test set was known in training. ``recon audit`` looks for such leaks.
This example plants two of them and shows that they are found, and that an honest set of files is left in peace.
"""

# %%
# Files of an honest study
# ------------------------
# One hundred training pictures, forty test pictures, and embeddings of a decoder that is fairly good.

import json
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from recon.cli import main as recon  # recon(["audit", ...]) is the command `recon audit ...`

rng = np.random.default_rng(0)
folder = Path(tempfile.mkdtemp())
train_pictures = rng.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
test_pictures = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
train_embeds, test_embeds = rng.normal(size=(100, 24)), rng.normal(size=(40, 24))
honest = test_embeds + 0.8 * rng.normal(size=test_embeds.shape)

# %%
# Two leaks
# ---------
# In the first, one test picture is also a training picture. In the second, the decoder's answers were shifted and
# scaled so that their mean and spread over the *test* rows are exactly 0 and 1. That uses the whole test set at once,
# which a decoder that sees one recording at a time cannot do.

repeated = test_pictures.copy()
repeated[7] = train_pictures[31]
standardised = (honest - honest.mean(axis=0)) / honest.std(axis=0)


def audit(pictures, brain):
    """The findings of `recon audit` by name of the check."""
    arrays = {"train-images": train_pictures, "test-images": pictures, "train-embeds": train_embeds}
    arrays |= {"images": test_embeds, "brain": brain}
    words = ["audit", "--json"]
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        words += [f"--{name}", str(folder / f"{name}.npy")]
    with redirect_stdout(StringIO()) as printed:
        recon(words)
    return {finding["check"]: finding for finding in json.loads(printed.getvalue())["findings"]}


cases = {
    "honest": audit(test_pictures, honest),
    "repeated\npicture": audit(repeated, honest),
    "standardised\non test": audit(test_pictures, standardised),
}
for name, findings in cases.items():
    found = [f"{check}: {part['evidence']}" for check, part in findings.items() if part["verdict"] == "leak"]
    print(name.replace("\n", " "), "->", "; ".join(found) or "no leak")

# %%
# All checks at a glance
# ----------------------
# A check that lacks its input says "not checked". It never counts as clear.

colours = {"clear": "#3a8f5c", "suspect": "#d9a420", "leak": "#b8332e", "not checked": "#dddddd"}
checks = list(cases["honest"])
figure, axis = plt.subplots(figsize=(7, 6), layout="constrained")
for column, findings in enumerate(cases.values()):
    for row, check in enumerate(checks):
        verdict = findings[check]["verdict"]
        axis.add_patch(plt.Rectangle((column, row), 0.94, 0.88, color=colours[verdict]))
axis.set(xlim=(0, len(cases)), ylim=(len(checks), 0))
axis.set_xticks([column + 0.47 for column in range(len(cases))], list(cases))
axis.set_yticks([row + 0.44 for row in range(len(checks))], checks)
axis.tick_params(length=0)
for side in axis.spines.values():
    side.set_visible(False)
axis.legend(
    [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()],
    list(colours),
    loc="center left",
    bbox_to_anchor=(1, 0.5),
    frameon=False,
)
plt.show()
