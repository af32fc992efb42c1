"""``kithkin evaluate``: all declared protocols, or one of them by name.

A protocol is one command of ``evaluate``: a function with the shared options, registered at the end of this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.click_evaluation import clicks
from cli.console import err, print_json, print_table, say
from cli.options import DataOption, JsonOption, ProjectOption, SetOption, StoreOption, open_project
from cli.progress import RichProgress
from cli.steps import Pipeline
from graph_store.errors import ConfigError

if TYPE_CHECKING:
    from training.evaluation.report import EvaluationReport

BundleOption = Annotated[str | None, typer.Option("--bundle", help="Version to measure; default: the active one.")]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a report with plots, one file that needs no other.")
]

evaluate = typer.Typer(invoke_without_command=True, pretty_exceptions_enable=False)


@evaluate.callback()
def run_all(
    context: typer.Context,
    project: ProjectOption = None,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    bundle: BundleOption = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a bundle's vectors in the declared protocols, beside the baselines, with confidence intervals.

    A protocol's name after it measures that one alone; `cold` trains a model and is only measured by name.
    """
    if context.invoked_subcommand is None:
        _measure(_pipeline(project, store, data, settings), bundle, None, html, as_json)
    elif any(context.params.values()):
        raise typer.BadParameter(f"options go behind the protocol: kithkin evaluate {context.invoked_subcommand} ...")


def similar(
    project: ProjectOption = None,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    bundle: BundleOption = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Similar entities against the declared judgements, from a bundle's vectors."""
    _measure(_pipeline(project, store, data, settings), bundle, "judged", html, as_json)


def users(
    project: ProjectOption = None,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    bundle: BundleOption = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Each user's newest engagements, as measured before the bundle was published."""
    _measure(_pipeline(project, store, data, settings), bundle, "users", html, as_json)


def next_entity(
    project: ProjectOption = None,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    bundle: BundleOption = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """The one engagement that comes next for each user, as measured before the bundle was published."""
    _measure(_pipeline(project, store, data, settings), bundle, "next", html, as_json)


def cold(
    project: ProjectOption = None,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Similar entities for entities that lose all engagements: trains on the graph without them.

    Which ones is declared by cold_modulo. The model is kept, and trained again only when the snapshot or the settings
    of training change.
    """
    pipeline = _pipeline(project, store, data, settings)
    opened = pipeline.project
    if not any(each.cold_modulo for each in opened.settings.evaluation.judged):
        raise ConfigError(
            "no [[evaluation.judged]] declares which entities are cold",
            key="evaluation.judged.cold_modulo",
            hint="With cold_modulo = 5 a fifth of the candidates lose their engagements.",
        )
    from training.evaluate import EvaluationReport, evaluate_cold_entities

    snapshot = pipeline.snapshot()
    folder = opened.work / "cold"
    with pipeline.alone():
        found = evaluate_cold_entities(opened, snapshot, folder=folder, progress=RichProgress(err))
    report = EvaluationReport(protocols=tuple(found))
    _tell(pipeline, report, {"snapshot": snapshot.content_hash}, html, as_json)


def _pipeline(project: Path | None, store: str | None, data: Path | None, settings: list[str] | None) -> Pipeline:
    return Pipeline(open_project(project, store=store, data=data, settings=settings), RichProgress(err))


def _measure(pipeline: Pipeline, bundle: str | None, kind: str | None, html: Path | None, as_json: bool) -> None:
    from model_store.bundle_store import BundleStore
    from training.evaluate import evaluate_bundle

    opened = BundleStore(pipeline.models).open(bundle)
    snapshot = pipeline.snapshot(opened.manifest.snapshot_hash)
    report = evaluate_bundle(pipeline.project, snapshot, opened, kind=kind, progress=RichProgress(err))
    facts = {"bundle": opened.version, "snapshot": snapshot.content_hash}
    _tell(pipeline, report, facts, html, as_json, log=pipeline.training_log(opened.version))


def _tell(
    pipeline: Pipeline,
    report: EvaluationReport,
    facts: dict[str, str],
    html: Path | None,
    as_json: bool,
    *,
    log: Path | None = None,
) -> None:
    if html is not None:
        from training.evaluation.html_report import write_html

        write_html(report, html, title=f"{pipeline.project.name}: evaluation", facts=facts, log=log)
        say(f"report: {html}")
    if as_json:
        print_json(report.to_json())
        return
    for table in report.tables():
        print_table(table.columns, table.rows, title=table.title)
    for note in report.notes:
        say(note)
    say("docs/evaluation.md says what each scorer is")


evaluate.command("similar")(similar)
evaluate.command("users")(users)
evaluate.command("next")(next_entity)
evaluate.command("cold")(cold)
evaluate.command("clicks")(clicks)
