"""``kithkin forget``: take a person out of everything Kithkin holds, and name what it does not hold."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import err, out, print_json, say
from cli.options import JsonOption, ProjectOption, SetOption, StoreOption, open_project
from cli.progress import RichProgress
from cli.steps import Pipeline
from cli.traces import any_holds, hashed, holds, holds_field, holds_node, without_rows
from graph_store.errors import ConfigError, GraphStoreError, NodeNotFound, StoreConflict, StoreUnavailable
from graph_store.project import Project
from graph_store.schema import NodeRole

if TYPE_CHECKING:
    from kithkin import Client
    from model_store.bundle_store import BundleStore

_TELLING = 4
"""Ids shorter than this stand in any file by chance."""
_RELEASE_S = 20.0
"""Given to a server to let go of the bundle that it served before."""
_PACKED = (".gz", ".zst", ".parquet", ".pq")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One place that held the person."""

    where: str
    what: str
    """What was done there; of a dry run what would be; of what is ``left`` what is to be done by hand."""
    left: bool = False


def forget(
    user: Annotated[str, typer.Argument(help="The person's id.")],
    node_type: Annotated[str | None, typer.Option("--type", help="Their type, where there are several.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    project: ProjectOption = None,
    store: StoreOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a person from store, bundles, snapshots, checkpoints, impressions; say what is left to do by hand."""
    if not user:
        raise typer.BadParameter("the id is empty", param_hint="USER")
    opened = open_project(project, store=store, settings=settings)
    pipeline = Pipeline(opened, RichProgress(err))
    forgetting = Forgetting(pipeline, user, _type(opened, node_type), dry_run=dry_run)
    told: list[Found] = []
    try:
        with nullcontext() if dry_run else pipeline.alone():
            # Each as it is done: what fails later does not undo it.
            for found in forgetting.run():
                told.append(found)
                if not as_json:
                    _tell(found, dry_run=dry_run)
    finally:
        if as_json and told:
            print_json([asdict(each) for each in told])
    if not forgetting.known:
        raise forgetting.unknown()
    if not as_json and all(each.left for each in told):
        say(f"nothing that Kithkin holds has the {forgetting.node_type} {user!r}")


def _tell(found: Found, *, dry_run: bool) -> None:
    if found.left:
        say(f"left to do by hand: {found.where}: {found.what}")
    else:
        out.print(f"{'would be' if dry_run else 'done'}: {found.where}: {found.what}", markup=False, highlight=False)


class Forgetting:
    """The removal of one person from one project."""

    def __init__(self, pipeline: Pipeline, user: str, node_type: str, *, dry_run: bool) -> None:
        from model_store.bundle_store import BundleStore

        self.node_type = node_type
        self.known = False
        """Whether anything holds a person of this very id; letters that may be those of another id are no proof."""
        self._pipeline, self._project = pipeline, pipeline.project
        self._user, self._dry_run = user, dry_run
        self._bundle_store = BundleStore(pipeline.models)
        self._holding: list[str] = []
        """Versions of the bundles that have the person."""
        self._edges: int | None = None
        """Their edges in the store; None: the store does not have them."""
        self._noted = False
        """Whether the store's log of changes names such an id, of whatever type."""
        self._served = False
        """Whether a server of the project runs."""

    def run(self) -> Iterator[Found]:
        """Every place in turn, as it is done; who is nowhere has nothing removed, the store at most written anew.

        Looking comes first, and what may not be done is found out then: nothing is half done for a key's role.
        """
        self._look()
        yield from self._store()
        # Before what tells who was learned from: ended half-way, the next run still knows.
        if self.known:
            yield from self._checkpoints()
        yield from self._bundles()
        yield from self._snapshots()
        yield from self._impressions()
        yield from self._by_hand()

    def unknown(self) -> NodeNotFound:
        """The error for a person whom nothing holds."""
        from graph_store.node_view import closest
        from graph_store.stores import open_store

        near: list[tuple[str, str, str]] = []
        with suppress(GraphStoreError), open_store(self._project, read_only=True) as graph:
            types = [self._project.schema.node_type(self.node_type)]
            near = [(each.type, each.id, each.name) for each in closest(graph, types, self._user)]
        error = NodeNotFound(self._user, node_type=self.node_type, closest=tuple(near))
        if not near:
            error.hint = "Ids are compared as they are written; nobody was removed."
        return error

    def _look(self) -> None:
        """Who holds the person by their very id, and whether a server would let the active bundle be replaced."""
        from cli.connection import running

        self._look_into_store()
        store = self._bundle_store
        self._holding = [each for each in store.versions() if self._in(store.root / each)]
        self.known = self._edges is not None or any(map(self._in, self._folders()))
        with running(self._project, None) as client:
            self._served = client is not None
            if client is not None and not self._dry_run and store.active() in self._holding:
                _check_role(client)

    def _look_into_store(self) -> None:
        from graph_store.stores import open_store

        settings = self._project.settings.store
        try:
            with open_store(self._project, read_only=True) as graph:
                batches = graph.scan_nodes(self.node_type, ())
                if any(self._user in batch.column("id").to_pylist() for batch in batches):
                    self._edges = len(graph.neighbourhood(self.node_type, self._user, 10**9))
        except StoreUnavailable:
            if settings.is_neo4j:
                raise
            return
        if settings.is_neo4j:
            from graph_store.neo4j.log import clear_log

            self._noted = clear_log(settings, self._user, dry_run=True)
        else:
            path = self._project.folder / settings.uri
            # The log is JSON: with its quotes an id is not found within another.
            self._noted = holds(path.with_name(path.name + ".changes"), json.dumps(self._user))

    def _store(self) -> Iterator[Found]:
        from graph_store.stores import open_store

        settings = self._project.settings.store
        if self._edges is not None:
            if not self._dry_run:
                with open_store(self._project) as graph:
                    graph.delete_nodes(self.node_type, [self._user])
            yield Found(where="store", what=f"the {self.node_type} and {self._edges:,} edges removed")
        if settings.is_neo4j:
            yield from self._neo4j_log()
            return
        path = self._project.folder / settings.uri
        # Also where they were deleted before: their bytes stay in the file's free pages.
        letters = len(self._user) >= _TELLING and holds(path, self._user)
        if self._edges is None and not self._noted and not letters:
            return
        if not self._dry_run:
            from graph_store.embedded.rewrite import rewrite

            try:
                rewrite(self._project.schema, settings, self._project.folder)
            except StoreConflict as error:
                yield Found(where="store", what=f"{error.message}; {error.hint}", left=True)
                return
        why = "" if self.known else " (it held these letters, by chance or not)"
        yield Found(where="store", what=f"file written anew, its log of changes removed{why}")

    def _neo4j_log(self) -> Iterator[Found]:
        """Deleting them was noted too: by its id."""
        from graph_store.neo4j.log import clear_log

        if clear_log(self._project.settings.store, self._user, dry_run=self._dry_run):
            yield Found(where="store", what="its log of changes emptied")

    def _bundles(self) -> Iterator[Found]:
        store, holding = self._bundle_store, self._holding
        active = store.active()
        if active in holding:
            if not self._dry_run:
                published = self._rewrite(store, active)
                yield Found(where=f"bundle {published}", what=f"made from {active}, and activated")
                yield from self._written_back()
            else:
                yield Found(where=f"bundle {active}", what="written anew without the person")
                yield from self._written_back()
        elif self._wrote_back(holding):
            # Ended between the new bundle and the write-back, or an older bundle is the one written back.
            yield from self._written_back()
        for version in holding:
            if self._dry_run or self._remove(store, version):
                yield Found(where=f"bundle {version}", what="removed")
            else:
                do = "a server uses it: stop it or take it out of serving.beside and shadow, then run this again"
                yield Found(where=f"bundle {version}", what=do, left=True)
        # Also one that a follower was writing when it ended.
        for delta in sorted(store.root.rglob("*.delta*")):
            if self.known and holds(delta, self._user):
                if not self._dry_run:
                    delta.unlink(missing_ok=True)
                yield Found(where=str(delta.relative_to(self._project.work)), what="removed")

    def _wrote_back(self, versions: Collection[str]) -> bool:
        """Whether one of these bundles is what is written back into the store."""
        from cli.write_back import written_back_version
        from graph_store.stores import open_store

        with suppress(StoreUnavailable), open_store(self._project, read_only=True) as graph:
            return written_back_version(graph) in versions
        return False

    def _written_back(self) -> Iterator[Found]:
        """What is written back counts them among a reason's users: it is made again, of the bundle without them."""
        from cli.write_back import write_back, written_back_version
        from graph_store.stores import open_store

        version = None
        with suppress(StoreUnavailable), open_store(self._project, read_only=True) as graph:
            version = written_back_version(graph)
        if version is not None:
            made = "" if self._dry_run else f", of {write_back(self._pipeline).outcome['version']}"
            yield Found(where="store", what=f"what was written back of {version} made anew{made}")

    def _rewrite(self, store: BundleStore, version: str) -> str:
        """A bundle like this one without the person, active and served; returns its version."""
        from cli.connection import running
        from model_store.removal import write_without
        from server.index.publish import build_indexes

        bundle = store.open(version)
        row = bundle.row(self.node_type, self._user)
        assert row is not None
        with store.writer(self._project.name) as writer:
            write_without(writer, bundle, self.node_type, [row])
            build_indexes(writer, self._project.settings.publish, progress=self._pipeline.progress)
            published = writer.commit()
        try:
            with running(self._project, None) as client:
                if client is not None:
                    client.activate(published, timeout=600)
                else:
                    store.activate(published)
        except Exception:
            # Unless it is the active one all the same.
            store.remove(published)
            raise
        return published

    def _remove(self, store: BundleStore, version: str) -> bool:
        end = time.monotonic() + _RELEASE_S
        while not (removed := store.remove(version)) and time.monotonic() < end:
            time.sleep(0.2)
        return removed

    def _snapshots(self) -> Iterator[Found]:
        for folder in sorted((self._project.work / "snapshots").glob(".exporting-*")) if self.known else ():
            if not self._dry_run:
                shutil.rmtree(folder)
            yield Found(where="an export that was interrupted", what="removed; the next one reads all again")
        for folder in sorted((self._project.work / "snapshots").glob("[0-9a-f]*")):
            if self._in(folder):
                if not self._dry_run:
                    # Else the next export would pass for done.
                    self._pipeline.log.forget("export")
                    shutil.rmtree(folder)
                yield Found(where=f"snapshot {folder.name[:12]}", what="removed; the next build makes another")
        for folder in sorted((self._project.work / "subgraphs").glob("[0-9a-f]*")):
            if self._in(folder):
                if not self._dry_run:
                    shutil.rmtree(folder)
                yield Found(where=f"part {folder.name[:12]}", what="removed; kithkin export makes another")

    def _checkpoints(self) -> Iterator[Found]:
        """Learned models may hold a vector of theirs without their id."""
        from cli.retrain import FOLDER

        for folder in (self._pipeline.checkpoints, self._project.work / FOLDER):
            if folder.is_dir():
                if not self._dry_run:
                    self._pipeline.log.forget("train")
                    shutil.rmtree(folder)
                what = "removed (learned with the person); the next build trains anew"
                yield Found(where=folder.name, what=what)

    def _impressions(self) -> Iterator[Found]:
        settings = self._project.settings.serving.impressions
        if settings.folder is None:
            return
        folder = self._project.folder / settings.folder
        names = {self._user, hashed(self._user)} - {""}
        rows = files = 0
        for file in sorted(folder.glob("*.parquet")):
            removed = without_rows(file, names, dry_run=self._dry_run)
            rows, files = rows + removed, files + bool(removed)
        if rows:
            self.known = True
            yield Found(where=f"impressions {folder}", what=f"{rows:,} rows of {files:,} files removed")
        if not self.known:
            return
        if self._served:
            do = f"the server may write rows that it still holds: run this again in {settings.rotate_s:g} s"
            yield Found(where=f"impressions {folder}", what=do, left=True)
        if settings.users == "hash" and not hashed(self._user):
            do = "users are hashed: set KITHKIN_IMPRESSIONS_KEY as the server has it, then run this again"
            yield Found(where=f"impressions {folder}", what=do, left=True)

    def _by_hand(self) -> Iterator[Found]:
        from graph_store.errors import InputError
        from graph_store.ingest.files import source_files

        rejects = self._project.work / "rejects"
        files: set[Path] = set()
        for source in self._project.sources:
            # A file that is gone holds nobody.
            with suppress(InputError):
                files.update(source_files(self._project, source))
        for file in sorted(files):
            if holds_field(file, self._user):
                does = "the next ingest brings them back" if self.known else "it has this id, maybe of another type"
                yield Found(where=str(file), what=f"a source: {does}", left=True)
            elif file.suffix in _PACKED and self.known:
                yield Found(where=str(file), what="a source, packed: look for them in it", left=True)
            elif len(self._user) >= _TELLING and holds(file, self._user):
                yield Found(where=str(file), what="a source, holds these letters, by chance or not", left=True)
        named: set[Path] = set()
        for file in sorted(path for path in rejects.rglob("*") if path.is_file()):
            if holds_field(file, self._user):
                named.add(file)
                yield Found(where=str(file), what="rejected rows", left=True)
        damaged = (each for each in self._folders() if holds_node(each, self.node_type, self._user) is None)
        for folder in damaged:
            if any_holds(folder, self._user):
                yield Found(where=str(folder), what="damaged, and holds these letters: remove it", left=True)
        if self._dry_run or len(self._user) < _TELLING:
            return
        for file in sorted(path for path in self._project.work.rglob("*") if path.is_file()):
            if file not in named and holds(file, self._user):
                yield Found(where=str(file), what="holds these letters, by chance or not", left=True)

    def _folders(self) -> Iterator[Path]:
        """Snapshots, the parts of the graph that were exported, and bundles."""
        for name in ("snapshots", "subgraphs", "models"):
            yield from sorted(each for each in (self._project.work / name).glob("[0-9a-f]*") if each.is_dir())

    def _in(self, folder: Path) -> bool:
        """Whether a bundle or a snapshot has the person among its nodes."""
        return bool(holds_node(folder, self.node_type, self._user))


def _check_role(client: Client) -> None:
    """Raise PermissionDenied, or what else the server would say, before anything is removed."""
    from kithkin.errors import NotFound

    with suppress(NotFound):
        # There is no such bundle: who may activate is told so, who may not is refused before.
        client.activate("none", timeout=30)


def _type(project: Project, given: str | None) -> str:
    users = [each.name for each in project.schema.of_role(NodeRole.USER)]
    if given is None and len(users) == 1:
        return users[0]
    if given in users:
        return given
    hint = f"Types of users: {', '.join(users) or 'none'}."
    if given is None:
        raise ConfigError("several types of users, or none: name one", key="--type", hint=hint)
    raise ConfigError("is not a type of users", key="--type", value=given, hint=hint)
