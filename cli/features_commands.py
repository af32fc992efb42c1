"""Commands for those who use the vectors elsewhere: export-features, and the daily retrain that keeps them fresh."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.console import err, print_json, say
from cli.options import DataOption, ForceOption, JsonOption, ProjectOption, SetOption, StoreOption, open_project
from cli.progress import RichProgress
from cli.steps import Pipeline
from cli.write_back import summary, write_back
from graph_store.errors import ConfigError

NOT_PROMOTED = 3
"""Exit status of ``retrain`` where the gate kept the old bundle."""


def export_features(
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Folder to write <version>/<space>/<Type>.parquet into.")
    ],
    project: ProjectOption = None,
    bundle: Annotated[str | None, typer.Option("--bundle", help="Version to export; default: the active one.")] = None,
    space: Annotated[
        str | None, typer.Option("--space", help="Vector space; default: user, or similar where that is all there is.")
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Node type; repeatable. Default: users and entities.")
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the vectors of users and entities to Parquet, for another team's model.

    Columns: bundle_version, space, node_type, id, vector (fixed-size list of float32).
    """
    from model_store.bundle_store import BundleStore
    from model_store.export_vectors import export_vectors

    pipeline = Pipeline(open_project(project, settings=settings), RichProgress(err))
    opened = BundleStore(pipeline.models).open(bundle)
    chosen = space or next((each for each in ("user", "similar") if each in opened.spaces), "")
    if chosen not in opened.spaces:
        known = ", ".join(sorted(opened.spaces)) or "none"
        raise ConfigError(
            f"no such space in bundle {opened.version}", key="--space", value=space, hint=f"It has: {known}."
        )
    if wrong := [each for each in types or () if each not in opened.spaces[chosen].node_types]:
        known = ", ".join(opened.spaces[chosen].node_types)
        raise ConfigError(
            f"has no vectors in the space {chosen}", key="--type", value=wrong[0], hint=f"Those that have: {known}."
        )
    written = export_vectors(opened, chosen, to, node_types=types or None)
    if as_json:
        print_json(
            {
                "bundle_version": opened.version,
                "space": chosen,
                "files": [
                    {
                        "file": str(each.file),
                        "node_type": each.node_type,
                        "rows": each.rows,
                        "dimension": each.dimension,
                    }
                    for each in written
                ],
            }
        )
        return
    for each in written:
        say(f"{each.file}: {each.rows:,} vectors of {each.dimension}")


def retrain(
    project: ProjectOption = None,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """The daily job: read the files anew, train from the last weights, and publish only what passes the gate.

    What it is held to stands in kithkin.toml under [retrain]. Ends with 3 where the old bundle stays, and says why.
    """
    from cli.retrain import retrain as run

    pipeline = Pipeline(
        open_project(project, store=store, data=data, settings=settings), RichProgress(err), force=force
    )
    with pipeline.alone():
        done = run(pipeline)
        back = done.active is not None and pipeline.project.settings.publish.write_back
        written_back = write_back(pipeline) if back else None
    if as_json:
        told = None if written_back is None else {"skipped": written_back.skipped, **written_back.outcome}
        print_json(done.to_json() | {"write_back": told})
    elif done.unchanged:
        say(f"{done.reason}; bundle {done.active} stays")
    elif done.refused:
        say(f"not published: {done.reason}; bundle {done.active or 'none'} stays")
    else:
        say(f"bundle {done.published} published: {done.reason}")
    if written_back is not None and not written_back.skipped and not as_json:
        say(f"written back: {summary(written_back)}")
    if done.refused:
        raise typer.Exit(NOT_PROMOTED)
