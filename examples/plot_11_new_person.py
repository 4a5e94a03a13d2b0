"""
A new person from little data
=============================

Three people were recorded for long, a fourth for some minutes. What do the three know that helps to decode the fourth?
This example plants people with different numbers of units, adapts to the fourth from 25 to 400 pictures, and compares
with decoders that learn from the fourth person alone.
"""

# %%
# Four people
# -----------
# The pictures are stand-ins: random tokens at 16 places. Every unit of every person reads the same eight features of
# the tokens, with weights of its own, and adds noise. So people share what their units can be tuned to, and not one
# unit, and no picture is shown to two of them.

import matplotlib.pyplot as plt
import numpy as np

from align import retrieval
from align.adaptation.methods import METHODS
from align.adaptation.people import Person, Pictures
from align.config import Config

PLACES, WIDTH, FEATURES = 16, 12, 8
rng = np.random.default_rng(0)
shared_features = rng.normal(size=(PLACES * WIDTH, FEATURES))


def record(name, units, pictures):
    """Responses of so many units to so many pictures."""
    tokens = rng.normal(size=(pictures, PLACES, WIDTH)).astype(np.float32)
    answer = tokens.reshape(pictures, -1) @ shared_features @ rng.normal(size=(FEATURES, units))
    signals = answer / answer.std(0) + rng.normal(size=answer.shape)
    shown = Pictures(tuple(f"{name}-{i}" for i in range(pictures)), rng.normal(size=(pictures, 768)))
    return Person(name, signals.astype(np.float32), tokens, np.arange(pictures), shown)


known = [record("A", 40, 400), record("B", 25, 300), record("C", 60, 300)]
new = record("D", 30, 600)
train, test = new.take(np.arange(400)), new.take(np.arange(400, 600))

# %%
# What the three share
# --------------------
# ``prior`` stores the units of known people. The weights of a new unit get a prior that is learned from them. How much
# each person counts is chosen by the likelihood of the new responses.

config = Config()
config.encoder.name = "encoding"
shared = METHODS["prior"].share(config, known, [WIDTH])

# %%
# The learning curve
# ------------------
# On a study, ``recon adapt --subject D`` does this with every method, chooses on held-out training pictures, and writes
# the decoder as an ordinary run.


def top1(adapted):
    """Share of the 200 test pictures that come first among all."""
    decoder = adapted.aligner
    similarity = retrieval.scores(decoder.predict(test.x)["embeds"], decoder.embed_images(test.tokens))
    return 100 * (similarity.argmax(1) == np.arange(len(test))).mean()


counts = [25, 50, 100, 200, 400]
curves = {"prior": [], "context": [], "from scratch": []}
for count in counts:
    few = train.take(np.arange(count))
    for name in ("prior", "context"):
        curves[name].append(top1(METHODS[name].adapt(config, shared, few)))
    curves["from scratch"].append(top1(METHODS["prior"].scratch(config, few, [WIDTH])))

figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for name, values in curves.items():
    axis.plot(counts, values, "o--" if name == "from scratch" else "o-", label=name)
axis.axhline(100 / len(test), color="k", linestyle=":", label="chance")
axis.set(xlabel="pictures of the new person", ylabel="top-1 of 200 pictures (%)", xscale="log", ylim=(0, None))
axis.set_xticks(counts, counts)
axis.minorticks_off()
axis.legend(frameon=False)
plt.show()

# %%
# What to do next
# ---------------
# Try ``METHODS["lora"]`` or another name, with ``config.encoder.name = "mlp"``. The page *A new person from little
# data* lists all of them.

for name, values in curves.items():
    print(name, [round(float(value)) for value in values])
