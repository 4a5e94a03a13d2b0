"""`recon retrieve` and `recon evaluate`: scores of a run, printed as a table or as JSON."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from recon.commands.runs import evaluate_settings, open_run, opened
from recon.commands.texts import TEXT_OPTIONS, text_settings

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.evaluation.settings import EvaluateConfig


def run_retrieve(args: argparse.Namespace) -> dict[str, Any]:
    settings, paths = evaluate_settings(args), args.run or [None]
    if args.against == "text":
        return _retrieve_texts(args, settings)
    given = next((name for name in TEXT_OPTIONS if getattr(args, name) is not None), None)
    if given is not None:
        raise UserError(f"--{given.replace('_', '-')} is about texts; pass --against text too")
    from recon.evaluation.report import retrieval_report

    if len(paths) > 1:
        return _ensemble(args, settings)
    if args.out is not None:
        raise UserError("--out is where the report of several runs goes; a single run keeps its own in its folder")
    run = opened(paths[0], args)
    return _table(args, run, retrieval_report(run, settings))


def _retrieve_texts(args: argparse.Namespace, settings: EvaluateConfig) -> dict[str, Any]:
    """The report for --json; else its lines are printed and its place returned."""
    from recon.evaluation.text_retrieval import format_text_report, text_report, text_report_path

    paths = args.run or [None]
    if len(paths) > 1 or args.out is not None:
        raise UserError("--against text scores one run, whose folder keeps the report; give one --run and no --out")
    run, wanted = opened(paths[0], args), text_settings(args)
    report = text_report(run, wanted, settings)
    if args.json:
        return report
    print(format_text_report(report))
    return {"report": str(text_report_path(run, wanted.alignment))}


def _ensemble(args: argparse.Namespace, settings: EvaluateConfig) -> dict[str, Any]:
    from align.data.names import labelled
    from recon.evaluation.ensemble import ensemble_retrieval
    from recon.evaluation.table import format_report

    if args.out is None:
        raise UserError("the report of several runs belongs to none of them; pass --out DIR")
    report = ensemble_retrieval([opened(path, args) for path in args.run], args.out, settings)
    if args.json:
        return report
    print(format_report(report))
    return {"report": str(labelled(args.out, "report_sub-{}.json", report["subject"]))}


def run_evaluate(args: argparse.Namespace) -> dict[str, Any]:
    settings = evaluate_settings(args)
    from recon.evaluation.report import evaluate_run

    run = open_run(args)
    chosen = {"generator": args.generator, "seed": args.seed, "partial": args.partial}
    report = evaluate_run(run, args.images, settings=settings, **chosen)
    return _table(args, run, report)


def _table(args: argparse.Namespace, run: Run, report: dict[str, Any]) -> dict[str, Any]:
    """The whole report for --json; else its table is printed and its place returned."""
    from recon.evaluation.report import report_path
    from recon.evaluation.table import format_report

    if args.json:
        return report
    print(format_report(report))
    return {"report": str(report_path(run))}
