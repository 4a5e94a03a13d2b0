"""The Methods paragraph of a paper out of a run: what was recorded, prepared, trained and scored, in sentences.

Every number comes from the run's own files; what they do not hold is left out or said to be not recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from align.known_names import CLOSED_FORM
from recon.evaluation.judges import described
from recon.evaluation.provenance import choice_of_layer

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.publishing.facts import RunFacts


def methods(facts: RunFacts) -> str:
    """One paragraph in English."""
    run = facts.run
    sentences = [
        _data(facts),
        _signals(run),
        _target(run),
        _encoder(run),
        _training(run),
        _scores(facts),
        _tools(facts),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _data(facts: RunFacts) -> str:
    train, test = facts.split["train"], facts.split["test"]
    people = run_people(facts)
    protocol = {
        "intra": "one encoder was trained for each subject",
        "pooled": "one encoder was trained for all subjects",
        "loso": "the encoder was tested on a subject whose recordings took no part in training",
    }[facts.run.config.protocol]
    return (
        f"Recordings of {people} of the study {facts.run.study} were split into {train['n_trials']} training trials "
        f"of {len(train['ids'])} pictures and {test['n_trials']} test trials of {len(test['ids'])} pictures; no "
        f"picture stood in both, and {protocol}."
    )


def run_people(facts: RunFacts) -> str:
    """ "subject 01" or "subjects 01 and 02"."""
    names = facts.subjects
    return f"subject {names[0]}" if len(names) == 1 else f"subjects {', '.join(names[:-1])} and {names[-1]}"


def _signals(run: Run) -> str:
    """What a trial was, and what was done to it."""
    from align.data.preparing.selection import described
    from align.data.spans import asked

    shape, rate, steps = run.aligner.in_shape, run.meta.get("sfreq"), run.config.preprocess
    part = described(run.config, shape)
    size = f"{shape[0]} channels and {shape[1]} samples" if len(shape) == 2 else f"{shape[0]} voxels or units"
    told = f"A trial had {size}" + (f" at {rate:g} Hz" if rate and len(shape) == 2 else "")
    window = part["window"]
    if window is not None:
        told += f", cut from {asked(window)} after onset"
    chosen = [f"regions {' and '.join(part['roi'])}"] if part["roi"] else []
    chosen += [f"channels {part['channels']}"] if part["channels"] else []
    told += f" ({'; '.join(chosen)})" if chosen else ""
    done = [f"the mean from {steps.baseline[0]:g} to {steps.baseline[1]:g} s was subtracted"] if steps.baseline else []
    done += [f"signals were resampled to {steps.sfreq:g} Hz"] if steps.sfreq else []
    done += ["noise was whitened for each recording session (multivariate noise normalisation)"] if steps.mvnn else []
    done += [f"every channel was scaled ({steps.scale})"] if steps.scale != "none" else []
    done += [f"values were clamped to {steps.clamp:g}"] if steps.clamp is not None else []
    repeats = run.config.train.average_repetitions
    kept = "averaged" if repeats else "kept apart"
    done.append(f"repetitions of a training picture were {kept}, those of a test picture averaged")
    fitted = "; what these steps learn came from training trials alone" if len(done) > 1 else ""
    return f"{told}; {', '.join(done)}{fitted}."


def _target(run: Run) -> str:
    config, target = run.config, run.config.target
    kept = run.aligner.targets.components  # few pictures have fewer than target.components
    return (
        f"The target was the output of layer {target.layer} of {config.backbone.name} (frozen; pooling "
        f"{target.pooling}, {kept} principal components of the training pictures); the layer was "
        f"{choice_of_layer(target.chosen_on)}."
    )


def _encoder(run: Run) -> str:
    config, loss = run.config, run.config.loss
    name = config.encoder.name
    if name in CLOSED_FORM:
        penalties = ", ".join(f"{alpha:g}" for alpha in config.encoder.alphas)
        return (
            f"The encoder ({name}) was solved in closed form, its penalty chosen among {penalties} on training trials."
        )
    return (
        f"The encoder was {name} (width {config.encoder.width}, dropout {config.encoder.dropout:g}), with a loss of "
        f"{loss.kind} (weight {loss.contrastive:g}) and {loss.regression_kind} to the components (weight "
        f"{loss.regression:g})."
    )


def _training(run: Run) -> str:
    config, train = run.config, run.config.train
    seed = f"seed {config.seed}"
    rows = run.meta.get("n_training_rows")
    told = f" on {rows} rows" if rows else ""
    if config.encoder.name in CLOSED_FORM:
        return f"It was fitted{told} ({seed})."
    return (
        f"It was trained{told} by AdamW ({train.schedule} schedule, highest rate {train.lr:g}, weight decay "
        f"{train.weight_decay:g}), batches of {train.batch_size}, {train.epochs} epochs, the weights of the last one "
        f"kept ({seed})."
    )


def _scores(facts: RunFacts) -> str:
    report = next(iter(facts.reports.values()), None)
    part = (report or {}).get("retrieval", {}).get("brain_to_image")
    if report is None or part is None:
        return "Test trials have not been scored."
    text = (
        f"Each of {part['n']} test pictures was looked for among {part['candidates']} candidates by cosine similarity "
        f"(chance {part['chance_top1']:.2%}); intervals are bootstraps over pictures, p values permutations."
    )
    return " ".join([text, *_pictures(facts)])


def _pictures(facts: RunFacts) -> list[str]:
    """A sentence about the pictures that were drawn and scored; one for each group of subjects where they differ."""
    told: dict[str, list[str]] = {}
    for subject, report in facts.reports.items():
        if report.get("reconstruction"):
            told.setdefault(_drawn(report, facts.image_seeds.get(subject)), []).append(subject)
    if len(told) < 2:
        return list(told)
    return [f"Of subject {' and '.join(people)}: {sentence}" for sentence, people in told.items()]


def _drawn(report: dict[str, Any], seed: int | None) -> str:
    n, total = report["n_stimuli"], report.get("n_test_stimuli")
    count = f"{n} pictures were" if total is None else f"{n} of the {total} test pictures were"
    steps = report.get("drawn_with", {}).get("steps")
    how = [] if steps is None else [f"{steps} steps"]
    how += [] if seed is None else [f"noise of seed {seed}"]
    note = f" ({', '.join(how)})" if how else ""
    judges = f", judged by {' and '.join(described(report))}" if report.get("judges") else ""
    return f"{count} drawn by {report['generator']}{note} and scored next to controls{judges}."


def _tools(facts: RunFacts) -> str:
    from align import __version__
    from align.files import read_json
    from align.train import MEASURED

    report, measured = next(iter(facts.reports.values()), None), facts.run.path / MEASURED
    trained = read_json(measured, {"device": str, "seconds": float, "weights?": str}) if measured.is_file() else {}
    versions = {} if report is None else report["versions"]
    told = ", ".join(f"{name} {value}" for name, value in versions.items()) or f"shallow-recon {__version__}"
    where = "hardware and time of the training were not recorded"
    if trained and trained.get("weights", facts.digest) == facts.digest:
        where = f"the training ran on {trained['device']} for {float(trained['seconds']):.0f} s"
    return f"Software: {told}; {where}."
