"""Model cards in the form of the Hugging Face hub: a YAML head, then what a stranger must know before using a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from align.checkpoint import LIBRARY
from align.errors import UserError
from align.files import write_atomic
from recon.evaluation.provenance import choice_of_layer
from recon.publishing.facts import ADAPTER, ConditionerFacts, RunFacts, read_facts
from recon.publishing.places import is_local
from recon.publishing.tables import markdown_table, model_index, scores_text

UNNAMED = "OWNER/NAME"  # where nobody has said where it will lie on the hub
_NOT_FOR = """Not to be used

- on recordings of people who have not agreed to exactly this use, or to find out who somebody is;
- for diagnosis, selection, surveillance, or as evidence of what somebody saw, thought or remembers;
- on other subjects, devices or preparations than those named above: there the output looks just as sure and means \
nothing.

Predictions and pictures show what the decoder expects from its training pictures; they are not a recording of thought.
What no control explains is the only part that the brain decided."""


def write_card(folder: str | Path, repository: str = UNNAMED, license_id: str | None = None) -> dict[str, Any]:
    """Write ``README.md`` of a run or conditioner; returns its path and the subjects whose scores it shows.

    ``repository``: where it will lie on the hub, for the lines that say how to load it. ``license_id``: of the weights,
    as the hub names licences (default: other, with the terms of the recordings). Raises `UserError`.
    """
    return write_cards([folder], repository, license_id)[0]


def write_cards(
    folders: Sequence[str | Path], repository: str = UNNAMED, license_id: str | None = None
) -> list[dict[str, Any]]:
    """`write_card` of each folder; nothing is written where one of them is refused."""
    written = []
    texts = {Path(folder).expanduser() / "README.md": read_facts(folder) for folder in folders}
    for path, facts in texts.items():
        write_atomic(path, card(facts, repository, license_id))
        written.append({"card": str(path), "evaluated": list(facts.reports) if isinstance(facts, RunFacts) else []})
    return written


def card(facts: RunFacts | ConditionerFacts, repository: str = UNNAMED, license_id: str | None = None) -> str:
    """The text of a card."""
    if isinstance(facts, RunFacts):
        return _run_card(facts, repository, license_id)
    return _conditioner_card(facts, repository, license_id)


def _run_card(facts: RunFacts, repository: str, license_id: str | None) -> str:
    run, config = facts.run, facts.run.config
    who = ", ".join(facts.subjects)
    plural = "subjects" if len(facts.subjects) > 1 else "subject"
    terms = _terms(config.study.name)
    tags = ["brain-decoding", terms["signal"], run.study, config.encoder.name, config.backbone.name]
    head = _head(license_id, "terms-of-the-recordings", [*dict.fromkeys(tags)], [run.study])
    if facts.reports:
        head["model-index"] = model_index(f"{run.study} {plural} {who}", facts.reports)
    parts = [
        f"# Brain encoder: {run.study}, {plural} {who}",
        "Predicts the embedding and the backbone tokens of the picture that was seen, from a recording of the brain. "
        f"{_valid_for(facts)}",
        markdown_table(["", ""], [[name, value] for name, value in _run_rows(facts).items()]),
        "## Scores",
        *_scores(facts),
        "## Limits",
        _NOT_FOR,
        "## Licence",
        f"Recordings and pictures: {terms['licence']} (source: {terms['source']}). They are not part of this folder, "
        "which holds weights, configuration, the list of pictures of each split and scores. The terms of the "
        "recordings apply to what was trained on them; those of the backbone's weights apply too.",
        "## Load",
        _run_loading(facts, repository),
        "## Made by",
        _code(_run_command(facts)),
    ]
    return _front(head) + "\n\n".join(parts) + "\n"


def _run_rows(facts: RunFacts) -> dict[str, Any]:
    from align.data.preparing.selection import described

    run, config, split = facts.run, facts.run.config, facts.split
    looked_at = {key: value for key, value in described(config, run.aligner.in_shape).items() if value is not None}
    report = next(iter(facts.reports.values()), None)
    rows = {
        "study": run.study,
        "subjects": ", ".join(facts.subjects),
        "trained on": f"subjects {', '.join(run.meta.get('trained_on', facts.subjects))}",
        "protocol": config.protocol,
        "part of the recording": ", ".join(f"{key} {_listed(value)}" for key, value in looked_at.items()),
        "encoder": config.encoder.name,
        "backbone": config.backbone.name,
        "layer": config.target.layer,
        "layer chosen on": config.target.chosen_on,
        "epoch chosen on": "not recorded" if report is None else report["epoch_chosen_on"],
        "pooling": config.target.pooling,
        "training rows": f"{split['train']['n_trials']} trials of {len(split['train']['ids'])} pictures",
        "rows the weights saw": run.meta.get("n_training_rows", "not recorded"),
        "test pictures": f"{len(split['test']['ids'])}, {split['test']['n_trials']} trials",
        "seed": config.seed,
        "weights": f"SHA-256 {facts.digest}",
    }
    if report is not None:
        rows["code"] = f"commit {report['commit']} (evaluation)"
        rows["versions"] = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return rows


def _listed(value: Any) -> str:
    named = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return " and ".join(value) if named else str(value)


def _scores(facts: RunFacts) -> list[str]:
    told = [f"**Not evaluated** for subject {name}." for name in facts.subjects if name not in facts.reports]
    if not facts.reports:
        return ["**Not evaluated.** Nothing is claimed about its accuracy; `recon evaluate` measures it."]
    texts = [scores_text(report, facts.image_seeds.get(name)) for name, report in facts.reports.items()]
    rules = {(report["layer_chosen_on"], report["epoch_chosen_on"]) for report in facts.reports.values()}
    rule = "; ".join(f"layer {choice_of_layer(layer)}; epoch: {epoch}" for layer, epoch in sorted(rules))
    return [f"Selection rule: {rule}.", *told, *texts]


def _run_loading(facts: RunFacts, repository: str) -> str:
    from align.checkpoint import preparation_path

    subject = f", subject={facts.subjects[0]!r}" if len(facts.subjects) > 1 else ""
    stored = preparation_path(facts.run.path, facts.run.subject).is_file()  # an older run has none
    in_shape = facts.run.preparation.in_shape if stored else facts.run.aligner.in_shape
    shape = ", ".join(map(str, in_shape))
    return _code(
        "from recon import load_run\n\n"
        f"run = load_run({repository!r}{subject})  # or a local folder; {repository}@REVISION for a fixed state\n"
        f"run.predict(signals)  # (n, {shape}) as the study holds them: embeds, tokens",
        "python",
    )


def _run_command(facts: RunFacts) -> str:
    """The commands that lead to this folder; files of the one who trained it are named by what they are."""
    config = facts.run.config
    people = facts.subjects if config.protocol == "intra" else config.subjects
    words = ["python -m align.train --config config.yaml"]
    words += [f"'subjects=[{','.join(people)}]'"] if people else []
    words += ["study.root=FOLDER"] if config.study.root or config.study.name != "simulated" else []
    words += ["study.images=FOLDER"] if config.study.images else []
    words += ["backbone.weights=FILE"] if config.backbone.weights else []
    lines = [" ".join([*words, "run_dir=RUN"])]
    for name, report in facts.reports.items():
        if "reconstruction" not in report:
            lines.append(f"recon retrieve --run RUN --subject {name}")
            continue
        made_by = "" if report["generator"] == "mini" else f"  # with the options of {report['generator']}"
        lines += [f"recon generate --run RUN --subject {name}{made_by}", f"recon evaluate --run RUN --subject {name}"]
    return "\n".join(lines)


def _conditioner_card(facts: ConditionerFacts, repository: str, license_id: str | None) -> str:
    told, generator = facts.facts, _name(facts.facts["generator"])
    head = _head(license_id, "terms-of-the-pictures", ["ip-adapter", "image-conditioning", told["backbone"]], None)
    counts = ("rendered", "photographs")
    pictures = "not recorded in the file"
    if all(key in told for key in counts):
        pictures = ", ".join(f"{told[key]} {key}" for key in counts)
        sources = json.loads(told.get("sources", "[]"))
        pictures += f" (from {', '.join(sources)})" if sources else ""
    rows = {
        "backbone": told["backbone"],
        "layer": told["layer"],
        "pooling": f"{told['pooling']}: {told['n_tokens']} tokens of width {told['width']}",
        "pictures seen as": told.get("resizing", "not recorded in the file"),
        "generator": generator,
        "pictures trained on": pictures,
        "steps": told.get("steps", "not recorded in the file"),
        **{key.replace("_", " "): told[key] for key in ("batch_size", "lr", "seed") if key in told},
        "weights": f"SHA-256 {facts.digest}",
    }
    options = f"generator={generator} backbone.name={told['backbone']} layer={told['layer']} pooling={told['pooling']}"
    trained = {"train.steps": "steps", "train.batch_size": "batch_size", "train.lr": "lr", "seed": "seed"}
    trained |= {"pictures.rendered": "rendered"}
    options += "".join(f" {key}={told[name]}" for key, name in trained.items() if name in told)
    options += " 'pictures.photographs=[ZIP_OR_FOLDER]'" if int(told.get("photographs", 0)) else ""
    parts = [
        f"# Conditioner: layer {told['layer']} of {told['backbone']} for {generator}",
        "Makes a frozen generator draw the picture that tokens of one backbone layer describe. Trained on pictures "
        "alone, without recordings. The file has the 'full' layout of IP-Adapter, position channels beside the tokens.",
        markdown_table(["", ""], [[name, value] for name, value in rows.items()]),
        "## Scores",
        "**Not evaluated** by itself: scores of pictures belong to the runs whose tokens it drew, among them the "
        "control from true tokens (oracle).",
        "## Limits",
        f"Fits {generator} and tokens of this backbone, layer and pooling only. {_NOT_FOR}",
        "## Licence",
        "The terms of the generator and of the pictures it was trained on apply.",
        "## Load",
        _code(f"recon generate --run RUN --subject 01 --generator {generator} --adapter {repository}/{ADAPTER}"),
        "## Made by",
        _code(f"accelerate launch recon/train.py {options}"),
    ]
    return _front(head) + "\n\n".join(parts) + "\n"


def _head(license_id: str | None, terms: str, tags: list[str], datasets: list[str] | None) -> dict[str, Any]:
    named: dict[str, Any] = {"license": license_id} if license_id else {"license": "other", "license_name": terms}
    return {"library_name": LIBRARY, **named, "tags": tags} | ({"datasets": datasets} if datasets else {})


def _front(head: dict[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n"


def _terms(study: str) -> dict[str, str]:
    """Kind of signal, licence and home of a study's recordings, as the study declares them."""
    from align.data.studies import study_class

    try:
        info = study_class(study).info
    except UserError:  # a study that a later version dropped or renamed
        return {"signal": "unknown signal", "licence": "not known here", "source": study}
    return {"signal": info.signal, "licence": info.licence, "source": info.source}


def _valid_for(facts: RunFacts) -> str:
    trained = facts.run.meta.get("trained_on", facts.subjects)
    if list(trained) != facts.subjects:
        return "No recording of the subject it is tested on took part in training."
    return "For the subjects it was trained on only." if len(trained) > 1 else "For this subject only."


def _name(generator: str) -> str:
    """A hub id or "mini" as it is; of a local folder its last name alone."""
    return Path(generator).name if is_local(generator) else generator


def _code(text: str, language: str = "bash") -> str:
    return f"```{language}\n{text}\n```"
