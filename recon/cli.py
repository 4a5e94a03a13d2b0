"""The `recon` command: a thin shell over functions of other modules. Heavy imports happen inside the commands.

Every command function takes the parsed arguments and returns a plain object; `--json` prints that object, otherwise a
few lines are printed from it. Mistakes of the user end in one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

from align.config import add_config_option
from align.errors import UserError, print_anywhere, run_command
from align.files import launched
from align.files.streams import is_standard_output
from recon.commands import (
    adapt,
    aligned_cut,
    audit,
    brain_score,
    caption,
    curves,
    data,
    encode,
    evaluate_images,
    evidence,
    gallery,
    generate,
    maximize,
    publish,
    repeats,
    reproduce,
    rosetta,
    rsa,
    score,
    score_votes,
    sheet,
    sweep,
    table,
    targets,
    texts,
    timecourse,
    train,
    tune_pictures,
    universality,
)
from recon.commands.arguments import require_sensible
from recon.commands.evaluate import run_evaluate, run_retrieve
from recon.commands.runs import evaluate_settings, open_run
from recon.config import PLACES

SHARED = (
    "targets",
    "generate",
    "evaluate",
    "evaluate-images",
    "reproduce",
)  # by the processes of torchrun and the like
_PAIR = re.compile(r"[A-Za-z_][\w.]*=")
_SETTINGS = "evaluate.weights_dir, evaluate.judge, evaluate.judge_weights and the like"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage text; options of several values may be given again."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.register("action", None, _Joined)  # of arguments that name no action, also those of groups

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Joined(argparse.Action):
    """Stores what is given; an option of several values (nargs + or *) that stands twice has the values of both."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        before = getattr(namespace, self.dest, None)
        again = option is not None and self.nargs in ("+", "*") and before is not self.default
        setattr(namespace, self.dest, [*before, *values] if again and before is not None else values)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 or the result's ``exit_code``, else that of
    `align.errors.run_command`."""
    print_anywhere()
    args = parse(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        if args.command in SHARED:
            launched.join()
        else:
            launched.refuse(f"recon {args.command}", [*(f"recon {name}" for name in SHARED), "align/train.py"])
        with launched.one_voice():
            if args.command != "info":
                _log_to_stderr()
            result = args.function(args)
            with _apart(args):
                show(result, args.json)
            launched.wait()  # nobody leaves before all is written
        return int(result.get("exit_code", 0))

    return run_command(f"recon {args.command}", work, args.debug, "the same command continues from here")


def parse(argv: list[str]) -> argparse.Namespace:
    """Arguments of one command; ``key=value`` pairs may stand anywhere and end up in ``overrides``."""
    parser = build_parser()
    flags, named = flags_of(parser, argv), naming_of(parser, argv)
    is_pair, option = list[bool](), ""  # the option whose values may still follow
    for last, word in zip(["", *argv[:-1]], argv, strict=True):
        option = word if word.startswith("-") else option
        value = option in named or (last.startswith("--") and "=" not in last and last not in flags)
        is_pair.append(bool(_PAIR.match(word)) and not value)
    args = parser.parse_args([word for word, pair in zip(argv, is_pair, strict=True) if not pair])
    require_sensible(parser, args)
    pairs = [word for word, pair in zip(argv, is_pair, strict=True) if pair]
    if pairs and not args.takes_pairs:
        parser.error(f"{args.command} takes no key=value pairs, got {pairs[0]!r}")
    args.overrides = pairs
    return args


def flags_of(parser: argparse.ArgumentParser, words: list[str]) -> set[str]:
    """The options behind which no value stands, of the command (and its action) that ``words`` name."""
    return {name for action in _options(parser, words) if action.nargs == 0 for name in action.option_strings}


def naming_of(parser: argparse.ArgumentParser, words: list[str]) -> set[str]:
    """The options that take several values such as NAME=FILE (their ``metavar`` says so): none of these is a pair."""
    several = [action for action in _options(parser, words) if action.nargs in ("+", "*")]
    return {name for action in several if "=" in str(action.metavar) for name in action.option_strings}


def _options(parser: argparse.ArgumentParser, words: list[str]) -> Iterator[argparse.Action]:
    """Of the command (and its action) that ``words`` name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            named = next((word for word in words if word in action.choices), None)
            yield from () if named is None else _options(action.choices[named], words)
        elif action.option_strings:
            yield action


def build_parser() -> argparse.ArgumentParser:
    """The whole grammar, without importing what the commands need."""
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    common.add_argument("--debug", action="store_true", help="show the trace of an error")
    parser = _Parser(prog="recon", description="From brain recordings to pictures.", epilog="Each command has --help.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, function: Any, text: str, pairs: str | None = None) -> argparse.ArgumentParser:
        epilog = f"key=value pairs may follow: {pairs}" if pairs else None
        command = commands.add_parser(
            name, help=text, description=text, epilog=epilog, parents=[common], allow_abbrev=False
        )
        command.set_defaults(function=function, takes_pairs=pairs is not None)
        return command

    demo = add("demo", _demo, "the whole path on the embedded simulation, for one subject")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="run folder (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0)
    text = "of the simulated signals: low as in arrays of many spiking units, or eeg (default: %(default)s)"
    demo.add_argument("--noise", choices=["low", "eeg"], default="low", help=text)

    demo.add_argument("--overwrite", action="store_true", help="replace another demo there")

    data.add_arguments(add("data", data.run, "check, convert, import or download recordings"))

    text = "extract and cache the backbone tokens of a study's pictures; or say what backbones cost"
    targets.add_arguments(add("targets", targets.run, text, "laid over the configuration file"))

    text = "train the encoders of a study: each subject, all, or one left out"
    train.add_arguments(add("train", train.run, text, "laid over the configuration file"))
    text = "decoders for a new person from little data; learning curves over the number of pictures"
    adapt.add_arguments(add("adapt", adapt.run, text, "laid over the configuration file"))
    text = "compare layers by cross-validation on training rows; table, figures, best.yaml"
    sweep.add_arguments(add("sweep", sweep.run, text, "laid over the configuration file"))
    text = "build the embedded miniature Stable Diffusion"
    pretrain = add("pretrain", _pretrain, text, "laid over the configuration file")
    add_config_option(pretrain)

    text = "retrieval in sliding windows: onset, peak, clusters above chance; figure, CSV, JSON"
    timecourse.add_arguments(add("timecourse", timecourse.run, text, "laid over the configuration file"))

    text = "how well pictures predict responses: by layer, method, unit and number of pictures; figures, CSV, JSON"
    encode.add_arguments(add("encode", encode.run, text, "laid over the configuration file"))
    text = "predictivity of recorded units as Brain-Score computes it: 25 components, over the ceiling"
    brain_score.add_arguments(add("brain-score", brain_score.run, text, "laid over the configuration file"))
    text = "what drives units: best and worst pictures, scores, nearest texts, places; one sheet, CSV, JSON"
    sheet.add_arguments(add("sheet", sheet.run, text, "laid over the configuration file"))
    text = "patches of pictures in groups, in the space of a subject's units; painted, with what each group drives"
    aligned_cut.add_arguments(add("aligned-cut", aligned_cut.run, text, "laid over the configuration file"))
    text = "pictures that drive units more than natural ones do, judged by another encoder"
    maximize.add_arguments(add("maximize", maximize.run, text, "laid over the configuration file"))
    text = "which dimensions of vision models other models have too, and which of them a brain carries"
    universality.add_arguments(add("universality", universality.run, text, "laid over the configuration file"))
    text = "dissimilarities of pictures in layers and brains: by depth, with noise ceilings and intervals"
    rsa.add_arguments(add("rsa", rsa.run, text, "laid over the configuration file"))
    text = "channels that match across vision models, with heat maps on pictures; against shuffled pictures"
    rosetta.add_arguments(add("rosetta", rosetta.run, text, "laid over the configuration file"))

    text = "train a published recipe; its own rule of choice next to the clean one, and the price of the leak"
    reproduce.add_arguments(add("reproduce", reproduce.run, text, "laid over recipe and study"))

    _add_run_commands(add)
    for name, module, text in (
        ("evaluate-images", evaluate_images, "picture metrics of anybody's reconstructions: folders or stacks"),
        ("score", score, "retrieval scores of anybody's embeddings or score matrix, both directions"),
        ("score-votes", score_votes, "people's votes: accuracy, agreement of voters, agreement with the metrics"),
        ("table", table, "the row for a paper: mean over subjects and seeds, interval, paired comparison"),
        ("audit", audit, "look for leaks, memorisation and collapse; verdict in words with the evidence"),
    ):
        places = f"where the files of a run lie, i.e. {', '.join(PLACES)}"
        pairs = {"audit": places, "score-votes": f"{places}; {_SETTINGS}"}.get(name)
        module.add_arguments(add(name, module.run, text, pairs))
    publish.add_card_arguments(add("card", publish.run_card, "write the model card of a run or conditioner"))
    publish.add_push_arguments(add("push", publish.run_push, "upload a run or conditioner to the Hugging Face hub"))
    info = add("info", _info, "say what a run folder or a file is")
    info.add_argument("path", type=Path, metavar="RUN_OR_FILE")
    return parser


def _add_run_commands(add: Any) -> None:
    """The commands that start from a trained run."""
    places = f"where files lie, i.e. {', '.join(PLACES)}"
    pairs = (places, f"{places}; {_SETTINGS}")
    scored = ("retrieve", "evaluate", "curves", "tune-pictures", "caption")
    added: dict[str, argparse.ArgumentParser] = {}
    for name, function, text in (
        ("predict", _predict, "predicted embeds and tokens of a split, stored in the run"),
        ("retrieve", run_retrieve, "retrieval scores in both directions; writes the retrieval part of report.json"),
        ("tune-pictures", _tune_pictures, "choose how pictures are drawn, on held-out training pictures"),
        ("generate", _generate, "pictures from the predicted tokens, and from control tokens"),
        ("evaluate", run_evaluate, "every score beside its controls; writes report.json"),
        ("caption", _caption, "the nearest text of a bank for every test picture; captions of reconstructions; scores"),
        ("evidence", _evidence, "maps of what the brain decided in a picture, beside those of null brains"),
        ("gallery", gallery.run, "page and sheets of seen and reconstructed, controls, retrieved; a page to vote on"),
        ("repeats", _repeats, "accuracy with 1 to k repetitions averaged, and the noise ceiling; figure, CSV, JSON"),
        ("curves", _curves, "scores of pictures by rank of the tokens and by repetitions averaged; figure, CSV, JSON"),
    ):
        command = added[name] = add(name, function, text, pairs[name in scored])
        if name == "gallery":  # takes several of both
            gallery.add_arguments(command)
            continue
        command.add_argument("--subject", required=name != "generate", help="label, e.g. 01")
        several: dict[str, Any] = {"nargs": "+"} if name == "retrieve" else {}
        text = "run folder (default: the newest of the subject under runs/)"
        more = "; several: one decoder, their similarities averaged" if several else ""
        command.add_argument("--run", type=Path, metavar="RUN", help=text + more, **several)
    repeats.add_arguments(added["repeats"])
    evidence.add_arguments(added["evidence"])
    curves.add_arguments(added["curves"])
    added["predict"].add_argument("--split", choices=["test", "train"], default="test")
    text = "what the candidates are: pictures, or texts (captions, else names of concepts)"
    added["retrieve"].add_argument("--against", choices=["image", "text"], default="image", help=text)
    texts.add_arguments(added["retrieve"])
    caption.add_arguments(added["caption"])
    added["retrieve"].add_argument("--out", type=Path, metavar="DIR", help="of several runs: folder for their report")
    evaluate = added["evaluate"]
    generate.add_arguments(added["generate"])
    tune_pictures.add_arguments(added["tune-pictures"])
    evaluate.add_argument("--generator", help="whose pictures, where the run holds those of several")
    evaluate.add_argument("--images", type=Path, help="the folder of recon generate --out (default: the run folder)")
    text = "score what is there, where pictures are missing or seeds hold different stimuli (default: refuse)"
    evaluate.add_argument("--partial", action="store_true", help=text)
    evaluate.add_argument("--seed", type=int, help="which sample of each stimulus (default: the lowest)")


def _log_to_stderr() -> None:
    """The sentences of both packages go to stderr, stdout stays free for results."""
    import logging

    from align.tracking import setup_logging

    setup_logging()
    ours, theirs = logging.getLogger("recon"), logging.getLogger("align")
    ours.handlers, ours.level, ours.propagate = theirs.handlers, theirs.level, theirs.propagate


def _apart(args: argparse.Namespace) -> AbstractContextManager[Any]:
    """What a command says goes to stderr where it wrote a file to stdout (--out /dev/stdout), which so stays whole."""
    taken = any(isinstance(value, Path) and is_standard_output(value) for value in vars(args).values())
    return redirect_stdout(sys.stderr) if taken else nullcontext()


def show(result: Any, as_json: bool) -> None:
    """Print a command's result: the whole object, else its own ``text``, else its plain entries line by line."""
    import json

    if as_json:
        print(json.dumps({key: value for key, value in result.items() if key != "text"}, indent=2, allow_nan=False))
        return
    print(result["text"] if "text" in result else "\n".join(_lines(result)))


def _lines(result: Any, indent: str = "") -> list[str]:
    lines = []
    for key, value in result.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and (len(value) > 8 or any(isinstance(item, dict) for item in value)):
            lines.append(f"{indent}{key}: {len(value)} entries")
        else:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            lines.append(f"{indent}{key}: {text.replace(chr(10), chr(92) + 'n')}")  # a value starts no line of its own
    return lines


def _demo(args: argparse.Namespace) -> dict[str, Any]:
    from recon.commands.demo import demo

    return demo(args.out, args.seed, args.noise, args.overwrite)


def _predict(args: argparse.Namespace) -> dict[str, Any]:
    from recon.decoding.predict import predict

    return {"predictions": str(predict(open_run(args), args.split))}


def _generate(args: argparse.Namespace) -> dict[str, Any]:
    if args.dry_run:
        return generate.dry_run(args)
    if args.subject is None:
        raise UserError("the following arguments are required: --subject; see recon generate --help")
    return generate.run(args, open_run(args))


def _repeats(args: argparse.Namespace) -> dict[str, Any]:
    return repeats.run(args, open_run(args))


def _curves(args: argparse.Namespace) -> dict[str, Any]:
    settings = evaluate_settings(args)
    return curves.run(args, open_run(args), settings)


def _tune_pictures(args: argparse.Namespace) -> dict[str, Any]:
    settings = evaluate_settings(args)
    return tune_pictures.run(args, open_run(args), settings)


def _evidence(args: argparse.Namespace) -> dict[str, Any]:
    return evidence.run(args, open_run(args))


def _caption(args: argparse.Namespace) -> dict[str, Any]:
    settings = evaluate_settings(args)
    return caption.run(args, open_run(args), settings)


def _pretrain(args: argparse.Namespace) -> dict[str, Any]:
    from align.config import load_config
    from recon.config import PretrainConfig

    config = load_config(PretrainConfig, args.config, args.overrides)
    from recon.pretraining.pretrain import run

    return {"folder": str(run(config))}


def _info(args: argparse.Namespace) -> dict[str, Any]:
    from recon.commands.info import describe

    return describe(args.path)


if __name__ == "__main__":
    sys.exit(main())
