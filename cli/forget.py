"""``kithkin forget``: take a person out of everything Kithkin holds, and name what it does not hold."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pyarrow as pa
import pyarrow.compute as pc
import typer

from cli.console import err, print_json, print_table, say
from cli.options import JsonOption, ProjectOption, SetOption, StoreOption, open_project
from cli.progress import RichProgress
from cli.steps import Pipeline
from graph_store.errors import ConfigError, NodeNotFound, StoreConflict, StoreUnavailable
from graph_store.project import Project
from graph_store.schema import NodeRole

if TYPE_CHECKING:
    from model_store.bundle_store import BundleStore

_TELLING = 4
"""Ids shorter than this stand in any file by chance."""
_RELEASE_S = 20.0
"""Given to a server to let go of the bundle that it served before."""
_CHUNK = 1 << 20
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
    opened = open_project(project, store=store, settings=settings)
    pipeline = Pipeline(opened, RichProgress(err))
    forgetting = Forgetting(pipeline, user, _type(opened, node_type), dry_run=dry_run)
    with nullcontext() if dry_run else pipeline.alone():
        found = list(forgetting.run())
    if not found:
        raise NodeNotFound(user, node_type=forgetting.node_type)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    done = [(each.where, each.what) for each in found if not each.left]
    if done:
        print_table(("where", "would be" if dry_run else "done"), done)
    else:
        say(f"nothing that Kithkin holds has the {forgetting.node_type} {user!r}")
    for each in found:
        if each.left:
            say(f"left to do by hand: {each.where}: {each.what}")


class Forgetting:
    """The removal of one person from one project."""

    def __init__(self, pipeline: Pipeline, user: str, node_type: str, *, dry_run: bool) -> None:
        self.node_type = node_type
        self._pipeline, self._project = pipeline, pipeline.project
        self._user, self._dry_run = user, dry_run
        self._served = False
        """Whether a server of the project runs."""

    def run(self) -> Iterator[Found]:
        """Every place in turn, as it is done; the store first, so that no build brings the person back."""
        known = False
        for place in (self._store(), self._bundles(), self._snapshots()):
            for found in place:
                known = True
                yield found
        yield from self._checkpoints(known)
        yield from self._impressions()
        yield from self._by_hand()

    def _store(self) -> Iterator[Found]:
        from graph_store.stores import open_store

        settings = self._project.settings.store
        try:
            with open_store(self._project, read_only=True) as graph:
                known = any(
                    self._user in batch.column("id").to_pylist() for batch in graph.scan_nodes(self.node_type, ())
                )
                edges = len(graph.neighbourhood(self.node_type, self._user, 10**9)) if known else 0
        except StoreUnavailable:
            if settings.is_neo4j:
                raise
            return
        if known and not self._dry_run:
            with open_store(self._project) as graph:
                graph.delete_nodes(self.node_type, [self._user])
        if known:
            yield Found(where="store", what=f"the {self.node_type} and {edges:,} edges removed")
        if settings.is_neo4j:
            yield from self._neo4j_log()
            return
        path = self._project.folder / settings.uri
        # Also where they were deleted before: their bytes stay in the file's free pages.
        changes = path.with_name(path.name + ".changes")
        # The log is JSON, and other letters than ASCII are written otherwise there.
        noted = any(_holds(changes, text) for text in (self._user, json.dumps(self._user)[1:-1]))
        if not noted and not _holds(path, self._user):
            return
        if not self._dry_run:
            from graph_store.embedded.rewrite import rewrite

            try:
                rewrite(self._project.schema, settings, self._project.folder)
            except StoreConflict as error:
                yield Found(where="store", what=f"{error.message}; {error.hint}", left=True)
                return
        yield Found(where="store", what="file written anew, its log of changes removed")

    def _neo4j_log(self) -> Iterator[Found]:
        """Deleting them was noted too: by its id."""
        from graph_store.neo4j.log import clear_log

        if clear_log(self._project.settings.store, self._user, dry_run=self._dry_run):
            yield Found(where="store", what="its log of changes emptied")

    def _bundles(self) -> Iterator[Found]:
        from cli.connection import running
        from model_store.bundle_store import BundleStore

        with running(self._project, None) as client:
            self._served = client is not None
        store = BundleStore(self._pipeline.models)
        active = store.active()
        holding = [each for each in store.versions() if self._in(store.root / each)]
        if active in holding:
            if not self._dry_run:
                yield Found(where=f"bundle {self._rewrite(store, active)}", what=f"made from {active}, and activated")
            else:
                yield Found(where=f"bundle {active}", what="written anew without the person")
        for version in holding:
            if self._dry_run or self._remove(store, version):
                yield Found(where=f"bundle {version}", what="removed")
            else:
                do = "a server uses it: stop it or take it out of serving.beside and shadow, then run this again"
                yield Found(where=f"bundle {version}", what=do, left=True)
        # Also one that a follower was writing when it ended.
        for delta in sorted(store.root.rglob("*.delta*")):
            if _holds(delta, self._user):
                if not self._dry_run:
                    delta.unlink(missing_ok=True)
                yield Found(where=str(delta.relative_to(self._project.work)), what="removed")

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
        with running(self._project, None) as client:
            if client is not None:
                client.activate(published, timeout=600)
            else:
                store.activate(published)
        return published

    def _remove(self, store: BundleStore, version: str) -> bool:
        end = time.monotonic() + _RELEASE_S
        while not (removed := store.remove(version)) and time.monotonic() < end:
            time.sleep(0.2)
        return removed

    def _snapshots(self) -> Iterator[Found]:
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

    def _checkpoints(self, known: bool) -> Iterator[Found]:
        folder = self._pipeline.checkpoints
        # A model may hold a vector of theirs without their id; who was not known anywhere was not learned from.
        if folder.is_dir() and (known or _any_holds(folder, self._user)):
            if not self._dry_run:
                self._pipeline.log.forget("train")
                shutil.rmtree(folder)
            yield Found(where="checkpoints", what="removed (learned with the person); the next build trains anew")

    def _impressions(self) -> Iterator[Found]:
        settings = self._project.settings.serving.impressions
        if settings.folder is None:
            return
        folder = self._project.folder / settings.folder
        names = {self._user, _hashed(self._user)} - {""}
        rows = files = 0
        for file in sorted(folder.glob("*.parquet")):
            removed = _without_rows(file, names, dry_run=self._dry_run)
            rows, files = rows + removed, files + bool(removed)
        if rows:
            yield Found(where=f"impressions {folder}", what=f"{rows:,} rows of {files:,} files removed")
        if self._served:
            do = f"the server may write rows that it still holds: run this again in {settings.rotate_s:g} s"
            yield Found(where=f"impressions {folder}", what=do, left=True)
        if settings.users == "hash" and not _hashed(self._user):
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
            if _holds(file, self._user):
                yield Found(where=str(file), what="a source: the next ingest brings them back", left=True)
            elif file.suffix in _PACKED:
                yield Found(where=str(file), what="a source, packed: look for them in it", left=True)
        for file in sorted(path for path in rejects.rglob("*") if path.is_file()):
            if _holds(file, self._user):
                yield Found(where=str(file), what="rejected rows", left=True)
        if self._dry_run or len(self._user) < _TELLING:
            return
        for file in sorted(path for path in self._project.work.rglob("*") if path.is_file()):
            if rejects not in file.parents and _holds(file, self._user):
                yield Found(where=str(file), what="holds these letters, by chance or not", left=True)

    def _in(self, folder: Path) -> bool:
        """Whether a bundle or a snapshot has the person among its nodes."""
        file = folder / "nodes" / f"{self.node_type}.arrow"
        try:
            with pa.memory_map(str(file)) as source:
                ids = pa.ipc.open_file(source).read_all().column("id")
                return bool(pc.any(pc.equal(ids, self._user)).as_py())
        except (OSError, pa.ArrowInvalid, KeyError):
            # Damaged: whatever can be read of it.
            return _any_holds(folder, self._user)


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


def _holds(file: Path, text: str) -> bool:
    """Whether a file's bytes hold a text."""
    wanted = text.encode()
    try:
        with file.open("rb") as stream:
            before = b""
            while part := stream.read(_CHUNK):
                if wanted in before + part:
                    return True
                before = part[-len(wanted) :]
    except FileNotFoundError:
        pass
    return False


def _any_holds(folder: Path, text: str) -> bool:
    return any(_holds(path, text) for path in folder.rglob("*") if path.is_file())


def _hashed(user: str) -> str:
    """The person as impressions name them where users are hashed; empty where the key is not known."""
    key = os.environ.get("KITHKIN_IMPRESSIONS_KEY", "")
    return hmac.new(key.encode(), user.encode(), hashlib.sha256).hexdigest() if key else ""


def _without_rows(file: Path, users: set[str], *, dry_run: bool) -> int:
    """Rewrite a Parquet file without a person's rows; returns how many there were."""
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    if "user" not in table.column_names:
        return 0
    theirs = pc.fill_null(pc.is_in(table.column("user"), value_set=pa.array(sorted(users))), False)
    count = int(pc.sum(theirs).as_py() or 0)
    if count and not dry_run:
        kept = table.filter(pc.invert(theirs))
        if kept.num_rows:
            beside = file.with_name(f".{file.name}.half")
            pq.write_table(kept, beside, compression="zstd")
            beside.replace(file)
        else:
            file.unlink()
    return count
