"""
Retrieval scores of your embeddings
===================================

You have a decoder and want to know how often it finds the right picture. All that is needed are two arrays: one row
per recording, and one row per picture. No model of this project takes part.
"""

# %%
# Embeddings with a known answer
# ------------------------------
# Two hundred pictures have random embeddings. The decoder below is right for 120 recordings and points at a wrong
# picture for the other 80. So the true top-1 score is 0.60, and chance is 1/200.

import matplotlib.pyplot as plt
import numpy as np

from recon import score

rng = np.random.default_rng(0)
pictures = rng.normal(size=(200, 64))
decoded = np.arange(200)
decoded[120:] = np.roll(decoded[120:], 1)
brain = pictures[decoded] + 0.3 * rng.normal(size=pictures.shape)

# %%
# Scores in both directions
# -------------------------
# ``brain_to_image`` asks with a recording among the pictures. ``image_to_brain`` asks with a picture among the
# recordings. The interval resamples stimuli, p permutes the pairing.

result = score(brain, pictures)
for direction in ("brain_to_image", "image_to_brain"):
    part = result[direction]
    low, high = part["ci95_top1"]
    print(f"{direction}: top-1 {part['top1']:.3f} [{low:.3f}, {high:.3f}], chance {part['chance_top1']:.3f}")
    print(f"  p {part['p_permutation']:.4f}, n {part['n']}, candidates {part['candidates']}")

# %%
# How the score depends on the number of candidates
# -------------------------------------------------
# Published scores are often measured among fewer pictures. ``pools`` gives the score to expect in smaller sets. It is
# computed by a formula over all sets that hold the right picture, without drawing sets at random.
#
# A second decoder is never completely wrong, but every answer is noisy. Among 20 pictures it is the better one, among
# 200 the worse one. So compare two scores only when both were measured among equally many pictures.

noisy = score(pictures + 3 * rng.normal(size=pictures.shape), pictures, pools=(2, 5, 10, 20, 50, 100))
clear = score(brain, pictures, pools=(2, 5, 10, 20, 50, 100))

figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for name, found in (("right in 60 % of cases", clear), ("noisy every time", noisy)):
    part = found["brain_to_image"]
    sizes = [*(int(size) for size in part["pools"]), part["candidates"]]
    axis.plot(sizes, [*(pool["top1"] for pool in part["pools"].values()), part["top1"]], "o-", label=name)
axis.plot(sizes, [1 / size for size in sizes], "k:", label="chance")
axis.set(xscale="log", xlabel="number of candidates", ylabel="expected top-1", ylim=(0, 1.05))
axis.set_xticks(sizes, sizes)
axis.minorticks_off()
axis.legend(frameon=False)
plt.show()
