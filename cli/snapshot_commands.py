"""Commands of snapshots: list, diff."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import cell_text, print_json, print_table, say
from cli.options import JsonOption, ProjectOption, open_project
from graph_store.errors import ConfigError

if TYPE_CHECKING:
    from graph_store.project import Project
    from training.export import Changes, Comparison, Snapshot

snapshot = typer.Typer(help="Snapshots of the graph: which there are, and what differs.", no_args_is_help=True)

SnapshotArgument = Annotated[
    str, typer.Argument(help="A snapshot's folder, or the first letters of its hash in the work folder.")
]


@snapshot.callback()
def _group() -> None:
    """Snapshots of the graph: which there are, and what differs."""


@snapshot.command("list")
def listed(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """The snapshots in the work folder, the newest first, and what came from them."""
    from training.errors import SnapshotError
    from training.export import Snapshot

    opened = open_project(project)
    uses = _uses(opened)
    rows: list[dict[str, Any]] = []
    for folder in _folders(opened):
        row: dict[str, Any] = {
            "content_hash": folder.name,
            "written": datetime.fromtimestamp(folder.stat().st_mtime, UTC),
            "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            "part": folder.parent.name == "subgraphs",
            "used_by": uses.get(folder.name, []),
        }
        try:
            manifest = Snapshot.open(folder).manifest
            row["nodes"] = {name: each["count"] for name, each in manifest.nodes.items()}
            row["edges"] = {
                str(each.triple): manifest.relations[each.triple.key]["count"] for each in manifest.schema.relations
            }
        except SnapshotError as error:
            row["fault"] = error.message
        rows.append(row)
    rows.sort(key=lambda row: (row["written"], row["content_hash"]), reverse=True)
    if as_json:
        print_json(rows)
        return
    print_table(
        ("snapshot", "written (UTC)", "MiB", "nodes", "edges", "used by"),
        [
            (
                row["content_hash"][:12],
                f"{row['written']:%Y-%m-%d %H:%M}",
                round(row["bytes"] / (1 << 20), 1),
                sum(row["nodes"].values()) if "nodes" in row else None,
                sum(row["edges"].values()) if "edges" in row else None,
                "cannot be read" if "fault" in row else "a part" if row["part"] else ", ".join(row["used_by"]),
            )
            for row in rows
        ],
    )
    for row in rows:
        if "fault" in row:
            say(row["fault"])


@snapshot.command("diff")
def diff(
    before: SnapshotArgument,
    after: SnapshotArgument,
    first: Annotated[int, typer.Option("--first", min=0, help="Nodes and edges of each kind that are named.")] = 5,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """What differs between two snapshots: types, relations, properties, nodes, edges and weights."""
    from training.export import compare

    found = compare(_open(before, project), _open(after, project), shown=first)
    if as_json:
        print_json(asdict(found) | {"same": found.same})
    elif found.same:
        say("nothing differs")
    else:
        _print(found)


def _print(found: Comparison) -> None:
    whole = [
        *((name, "type added", count) for name, count in found.node_types_added.items()),
        *((name, "type removed", count) for name, count in found.node_types_removed.items()),
        *((name, "relation added", count) for name, count in found.relations_added.items()),
        *((name, "relation removed", count) for name, count in found.relations_removed.items()),
    ]
    if whole:
        print_table(("", "", "nodes or edges"), whole, title="Declared by one alone")
    parts = [each for each in (*found.nodes, *found.edges) if each.differs]
    if not parts:
        return
    print_table(
        ("", "added", "removed", "changed", "other weight", "properties"),
        [(each.name, each.added, each.removed, each.changed, each.reweighted, _properties(each)) for each in parts],
        title=f"From {found.before[:12]} to {found.after[:12]}",
    )
    named = [row for each in parts for row in _named(each)]
    if named:
        print_table(("", "", "node or edge", "before and after"), named, title="The first of each")


def _properties(changes: Changes) -> str:
    kinds = (
        ("+", changes.properties_added),
        ("-", changes.properties_removed),
        ("other type: ", changes.properties_retyped),
    )
    return ", ".join(f"{sign}{name}" for sign, names in kinds for name in names)


def _named(changes: Changes) -> Iterator[tuple[str, str, str, str | None]]:
    for how, rows in (("added", changes.first_added), ("removed", changes.first_removed)):
        for row in rows:
            yield changes.name, how, _key(row), None
    for row in changes.first_changed:
        values = ", ".join(f"{name}: {_value(old)} -> {_value(new)}" for name, (old, new) in row["properties"].items())
        yield changes.name, "changed", _key(row), values


def _key(row: dict[str, Any]) -> str:
    if "id" in row:
        return str(row["id"])
    more = ", ".join(cell_text(value) for name, value in row.items() if name not in ("source", "target", "properties"))
    return f"{row['source']} -> {row['target']}" + (f" ({more})" if more else "")


def _value(value: Any) -> str:
    return "missing" if value is None else cell_text(value)


def _open(given: str, project: Path | None) -> Snapshot:
    """A snapshot by its folder, or by the beginning of its hash."""
    from training.export import Snapshot

    if (Path(given) / "manifest.json").is_file():
        return Snapshot.open(Path(given))
    opened = open_project(project)
    folders = [folder for folder in _folders(opened) if folder.name.startswith(given)]
    if len(folders) == 1:
        return Snapshot.open(folders[0])
    if folders:
        raise ConfigError(
            f"{len(folders)} snapshots in {opened.work} begin so",
            value=given,
            hint=f"Give more letters: {_names(folders)}.",
        )
    known = sorted(_folders(opened))
    raise ConfigError(
        f"no snapshot folder, and no snapshot in {opened.work} begins so",
        value=given,
        hint=f"There are {_names(known)}." if known else "Run `kithkin export` first.",
    )


def _folders(project: Project) -> list[Path]:
    """The whole graph's, and those of parts."""
    roots = (project.work / "snapshots", project.work / "subgraphs")
    return [folder for root in roots for folder in root.glob("[0-9a-f]*") if folder.is_dir()]


def _names(folders: Sequence[Path]) -> str:
    return ", ".join(folder.name[:16] for folder in folders[:10]) + (", ..." if len(folders) > 10 else "")


def _uses(project: Project) -> dict[str, list[str]]:
    """Which steps and bundles came from a snapshot, by its hash."""
    from cli.step_log import StepLog
    from model_store.bundle_store import BundleStore
    from model_store.errors import ModelStoreError

    uses: dict[str, list[str]] = {}
    log = StepLog(project.work / "steps.json")
    for step in ("export", "train"):
        if outcome := log.last(step):
            uses.setdefault(outcome["content_hash"], []).append(f"last {step}")
    bundles = BundleStore(project.work / "models")
    for version in bundles.versions():
        try:
            content_hash = bundles.open(version, verify=False).manifest.snapshot_hash
        except ModelStoreError:
            continue
        uses.setdefault(content_hash, []).append(f"bundle {version}")
    return uses
