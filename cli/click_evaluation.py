"""``kithkin evaluate clicks``: clicks given views, with and without the vectors of the click network."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.console import err, print_json, print_table, say
from cli.options import DataOption, JsonOption, ProjectOption, SetOption, StoreOption, open_project
from cli.progress import RichProgress
from cli.steps import Pipeline
from graph_store.errors import ConfigError


def clicks(
    project: ProjectOption = None,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the network and the click models.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Clicks given views: ROC-AUC of click models without and with the vectors of a graph network trained for it.

    Trains on the last exported snapshot; what is a view and what a click is declared under [[evaluation.clicks]].
    """
    from training.clicks.protocol import evaluate_clicks

    pipeline = Pipeline(open_project(project, store=store, data=data, settings=settings), RichProgress(err))
    evaluation = pipeline.project.settings.evaluation
    if not evaluation.clicks:
        raise ConfigError(
            "no [[evaluation.clicks]] says what a view is and what a click",
            key="evaluation.clicks",
            hint="Give it a relation, and kinds or least_weight.",
        )
    reports = evaluate_clicks(pipeline.snapshot(), evaluation, seed=seed, progress=RichProgress(err))
    if as_json:
        print_json({"clicks": [report.to_json() for report in reports]})
        return
    for report in reports:
        table = report.table()
        print_table(table.columns, table.rows, title=table.title)
    say("docs/methods/graph_sage.md says what each line is")
