"""``kithkin doctor``: what of the project and the machine is as it should be, and what to do where it is not."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.console import out, print_json
from cli.doctor_server import examine_server
from cli.finding import Finding as Finding
from cli.options import JsonOption, ProjectOption, SetOption, open_project
from graph_store.errors import ConfigError, GraphStoreError, StoreLocked
from graph_store.project import Project, find_project_file

if TYPE_CHECKING:
    from model_store.bundle_store import BundleStore

_DISTRIBUTION = "kithkin-service"
_ROLES = {"store": "duckdb", "train": "torch", "serve": "grpcio-health-checking"}
"""Roles of a machine, and the library whose absence says that it was not installed for that role."""
_LEAST_FREE_MIB = 1024
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)")


def doctor(project: ProjectOption = None, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Check the project and the machine; each line says what to do. Ends with 1 where something is wrong."""
    findings = list(examine(project, settings))
    if as_json:
        print_json([asdict(each) for each in findings])
    else:
        for each in findings:
            mark = {"ok": "ok", "note": "-", "wrong": "WRONG"}[each.state]
            out.print(f"{mark:5}  {each.what:16}  {each.says}", markup=False, highlight=False)
            if each.do:
                out.print(f"{'':25}{each.do}", markup=False, highlight=False)
    if any(each.state == "wrong" for each in findings):
        raise typer.Exit(1)


def examine(path: Path | None = None, settings: list[str] | None = None) -> Iterator[Finding]:
    """All findings, the machine's first; a project that cannot be read ends them."""
    yield _python()
    yield from _libraries()
    yield _scann()
    try:
        if path is None:
            find_project_file()
    except ConfigError as error:
        yield Finding(what="project", state="note", says=error.message, do=error.hint)
        return
    try:
        project = open_project(path, settings=settings)
    except ConfigError as error:
        yield Finding(what="kithkin.toml", state="wrong", says=error.message, do=error.hint or "Correct it.")
        return
    yield Finding(what="kithkin.toml", state="ok", says=f"{project.file}: project {project.name!r}")
    yield from _store(project)
    if project.work.exists() and not project.work.is_dir():
        do = "Remove or rename the file, or give another folder as `work`."
        yield Finding(what="work folder", state="wrong", says=f"{project.work} is a file, not a folder", do=do)
    else:
        yield _snapshot(project)
        yield from _bundles(project)
        yield _disk(project)
    yield from examine_server(project)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    # A newer or older one than pyproject.toml allows can run a copied tree all the same.
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding(what="Python", state="ok", says=version)
    return Finding(what="Python", state="wrong", says=version, do="Use Python 3.11, 3.12 or 3.13.")


def _libraries() -> Iterator[Finding]:
    required = metadata.requires(_DISTRIBUTION) or []
    for role, sign in (("", "numpy"), *_ROLES.items()):
        named = [each for each in required if _is_of(each, role)]
        found = {each: _version(_name(each)) for each in named}
        what = f"libraries: {role}" if role else "libraries"
        if role and _version(sign) is None:
            do = f"Where this machine is to do it: pip install '{_DISTRIBUTION}[{role}]'."
            yield Finding(what=what, state="note", says="not installed for this role", do=do)
            continue
        missing = [_name(each) for each in named if found[each] is None and _name(each) != "scann"]
        other = [
            f"{_name(each)} {version}" for each in named if (version := found[each]) and not _allowed(each, version)
        ]
        install = f"pip install '{_DISTRIBUTION}[{role}]'" if role else f"pip install {_DISTRIBUTION}"
        if missing or other:
            says = "; ".join(
                text
                for text in (
                    f"missing: {', '.join(missing)}" if missing else "",
                    f"other version than required: {', '.join(other)}" if other else "",
                )
                if text
            )
            yield Finding(what=what, state="wrong", says=says, do=f"{install}.")
        else:
            versions = ", ".join(f"{_name(each)} {version}" for each, version in found.items() if version)
            yield Finding(what=what, state="ok", says=versions)


def _is_of(requirement: str, role: str) -> bool:
    extra = re.search(r"extra == '([^']+)'", requirement)
    return (extra.group(1) if extra else "") == role


def _name(requirement: str) -> str:
    match = _REQUIREMENT.match(requirement)
    assert match is not None
    return match.group(1)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _allowed(requirement: str, version: str) -> bool:
    """Whether a version is one that is required; taken to be where nothing is there that can tell."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return True
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def _scann() -> Finding:
    version = _version("scann")
    if version is not None:
        return Finding(what="ScaNN", state="ok", says=version)
    return Finding(
        what="ScaNN",
        state="note",
        says="not installed: exact search answers",
        do="There is a wheel for Linux on x86_64; elsewhere exact search is right up to some ten thousand vectors.",
    )


def _store(project: Project) -> Iterator[Finding]:
    settings = project.settings.store
    place = settings.uri if settings.is_neo4j else str(project.folder / settings.uri)
    if not settings.is_neo4j and not Path(place).exists():
        yield Finding(what="store", state="note", says=f"not there yet: {place}", do="kithkin build")
        return
    try:
        from graph_store.drift import drift
        from graph_store.stores import open_store

        with open_store(project, read_only=True) as graph:
            counts = graph.counts()
            nodes, edges = sum(counts.nodes.values()), sum(counts.edges.values())
            found = drift(graph, project.schema, counts, neo4j=settings.is_neo4j)
    except ImportError as error:
        yield Finding(what="store", state="note", says=f"not looked at: {error.name} is not installed")
        return
    except StoreLocked as error:
        yield Finding(what="store", state="note", says=error.message, do=error.hint)
        return
    except GraphStoreError as error:
        yield Finding(what="store", state="wrong", says=error.message, do=error.hint)
        return
    holder = None if settings.is_neo4j else _writer(Path(place))
    written = "" if holder is None else f"; process {holder} is writing"
    yield Finding(what="store", state="ok", says=f"{place}: {nodes:,} nodes, {edges:,} edges{written}")
    extra = [*found.node_types, *found.relations, *found.edges, *(found.properties or ())]
    empty = [name for name, count in counts.nodes.items() if not count]
    if extra:
        do = "Declare it in kithkin.toml, or leave it: nothing reads it."
        yield Finding(what="schema", state="note", says=f"in the store, not declared: {', '.join(extra)}", do=do)
    if empty:
        do = "kithkin ingest; where the rows are missing, look at the rejects."
        yield Finding(what="schema", state="note", says=f"declared, without a node: {', '.join(empty)}", do=do)
    if not extra and not empty:
        yield Finding(what="schema", state="ok", says="the store holds what is declared")


def _writer(store: Path) -> int | None:
    """The process that holds the writer's lock, by what it wrote into it."""
    lock = store.with_name(store.name + ".lock")
    text = lock.read_text(encoding="ascii", errors="replace").strip() if lock.is_file() else ""
    return int(text) if text.isdigit() and Path(f"/proc/{text}").exists() else None


def _snapshot(project: Project) -> Finding:
    from cli.step_log import StepLog

    last = StepLog(project.work / "steps.json").last("export")
    if last is None:
        return Finding(what="snapshot", state="note", says="none yet", do="kithkin build")
    folder = project.work / "snapshots" / last["content_hash"]
    name = last["content_hash"][:12]
    try:
        from training.errors import TrainingError
        from training.export import Snapshot

        try:
            Snapshot.open(folder)
        except TrainingError as error:
            return Finding(what="snapshot", state="wrong", says=str(error), do="kithkin export")
    except ImportError as error:
        if not folder.is_dir():
            return Finding(what="snapshot", state="wrong", says=f"{name} is gone", do="kithkin export")
        return Finding(what="snapshot", state="note", says=f"{name}, not looked into: {error.name} is not installed")
    return Finding(what="snapshot", state="ok", says=f"{name}, {_age(folder.stat().st_mtime)} old")


def _bundles(project: Project) -> Iterator[Finding]:
    from model_store import layout
    from model_store.bundle_store import BundleStore
    from model_store.errors import ModelStoreError
    from server.processes.quarantine import Quarantine

    store = BundleStore(project.work / "models")
    active = store.active()
    if active is None:
        yield Finding(what="bundle", state="note", says="none is active yet", do="kithkin build")
    else:
        try:
            store.open(active)
        except ModelStoreError as error:
            do = f"{error.hint} Or: kithkin rollback."
            yield Finding(what="bundle", state="wrong", says=f"{active}: {error.message}", do=do)
        else:
            age = _age(layout.time_of(active).timestamp())
            yield Finding(what="bundle", state="ok", says=f"{active}: whole, {age} old")
        # A server may have found more than checksums tell.
        refused = Quarantine(store.root).reasons(store.written()).get(active)
        if refused is not None:
            do = f"kithkin activate {active} has it looked at again; kithkin publish makes another."
            yield Finding(what="bundle", state="wrong", says=f"a server refused it: {refused}", do=do)
    yield _clock(store)
    for version in store.versions():
        if version != active:
            try:
                store.open(version, verify=False)
            except ModelStoreError as error:
                do = "kithkin publish makes another; this one may be removed."
                yield Finding(what="bundle", state="note", says=f"{version}: {error.message}", do=do)


def _clock(store: BundleStore) -> Finding:
    """A clock that went back: bundles are then published with versions that are not their time."""
    from model_store import layout

    now, versions = datetime.now(UTC), store.versions()
    ahead = (layout.time_of(versions[-1]) - now).total_seconds() if versions else 0.0
    if ahead > 0:
        says = f"{now:%Y-%m-%d %H:%M:%S} UTC, {ahead:.0f} s before the newest bundle was published"
        return Finding(what="clock", state="wrong", says=says, do="Set the clock, or run a time service.")
    return Finding(what="clock", state="ok", says=f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _disk(project: Project) -> Finding:
    folder = project.work if project.work.is_dir() else project.folder
    if not os.access(folder, os.W_OK):
        return Finding(what="disk", state="wrong", says=f"{folder} cannot be written", do="Give it to this user.")
    free = shutil.disk_usage(folder).free / 2**20
    sizes = [_size(each) for each in (project.work / "models").glob("2*")]
    # A bundle and its snapshot are written beside those there are.
    needed = max([_LEAST_FREE_MIB, *(3 * size for size in sizes)])
    says = f"{free / 1024:,.1f} GiB free under {folder}"
    if free >= needed:
        return Finding(what="disk", state="ok", says=says)
    do = f"Make room: the next build needs about {needed / 1024:,.1f} GiB; publish.keep says how many bundles stay."
    return Finding(what="disk", state="wrong", says=says, do=do)


def _size(folder: Path) -> float:
    """Mebibytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def _age(moment: float) -> str:
    seconds = max(time.time() - moment, 0.0)
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
