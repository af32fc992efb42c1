"""Loads that are killed, that meet each other, and run out of disk: the same command ends them, nothing is lost."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graph_store.embedded.store import EmbeddedStore
from graph_store.errors import StoreLocked
from graph_store.ingest import ingest
from graph_store.project import Project, load_project
from graph_store.schema import Triple
from graph_store.store import GraphStore, Written
from graph_store.stores import open_store
from tests.unit.test_bulk_load import DECLARATION

ROOT = Path(__file__).resolve().parents[2]
FILMS, USERS, EVENTS = 20_000, 10_000, 120_000
ALL = FILMS + USERS + EVENTS + FILMS
SAW, NEAR = Triple("User", "SAW", "Film"), Triple("Film", "NEAR", "Film")

# A load that tells each step before it begins, goes on when it is told to, and says how it ended.
LOADER = """
import resource, sys
from contextlib import contextmanager
from pathlib import Path
from graph_store.errors import GraphStoreError
from graph_store.ingest import ingest
from graph_store.project import load_project
from graph_store.stores import open_store

class Told:
    @contextmanager
    def task(self, description, total=None, unit="rows"):
        print(description, flush=True)
        sys.stdin.readline()
        yield self
    def advance(self, steps=1, **fields):
        pass

project = load_project(Path(sys.argv[1]), environment={})
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    with open_store(project) as store:
        print("wrote", ingest(project, store, progress=Told()).written.created, flush=True)
except GraphStoreError as error:
    print(type(error).__name__, str(error).replace("\\n", " "), flush=True)
    sys.exit(error.exit_code)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source files."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(1)
    films, users = [f"f{number}" for number in range(FILMS)], [f"u{number}" for number in range(USERS)]
    tables = {
        "films": {
            "id": films,
            "title": [f"Film {name}" for name in films],
            "year": rng.integers(1930, 2020, FILMS),
            "score": rng.random(FILMS),
            "seen": rng.random(FILMS) < 0.5,
            "day": pa.array(rng.integers(0, 9000, FILMS).astype(np.int32)).cast(pa.date32()),
            "at": pa.array(rng.integers(0, 10**12, FILMS)).cast(pa.timestamp("us")),
        },
        "users": {"id": users},
        "saw": {
            "user": np.take(users, rng.integers(0, USERS, EVENTS)),
            "film": np.take(films, rng.integers(0, FILMS, EVENTS)),
            "stars": rng.integers(1, 10, EVENTS) / 2,
            "at": pa.array(np.arange(EVENTS)).cast(pa.timestamp("us")),
        },
        "near": {"film": films, "other": [*films[7:], *films[:7]]},
    }
    for name, table in tables.items():
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def undisturbed(files: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Hash of the graph that nothing disturbed."""
    project = project_of(tmp_path_factory.mktemp("undisturbed"), files)
    with open_store(project) as store:
        assert ingest(project, store).written == Written(created=ALL)
        return content_hash(store)


@pytest.fixture
def project(files: Path, tmp_path: Path) -> Project:
    return project_of(tmp_path, files)


def project_of(folder: Path, files: Path) -> Project:
    (folder / "kithkin.toml").write_text(f"data = {str(files)!r}\n{DECLARATION}", encoding="utf-8")
    return load_project(folder, environment={})


def content_hash(store: GraphStore) -> str:
    """Over all nodes and edges with all their properties, in one order."""
    digest = hashlib.sha256()
    for batches in (store.scan_nodes("Film"), store.scan_nodes("User"), store.scan_edges(SAW), store.scan_edges(NEAR)):
        for row in sorted(repr(row) for batch in batches for row in batch.to_pylist()):
            digest.update(row.encode())
    return digest.hexdigest()


class Load:
    """A load in a process of its own, which waits before each step."""

    def __init__(self, project: Project, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOADER, str(project.folder), *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def until(self, step: str) -> None:
        """Let it run to the beginning of a step."""
        line = self.line()
        while not line.startswith(step):
            assert line, f"it ended before {step}"
            self.go_on()
            line = self.line()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def to_the_end(self) -> str:
        """Its last word."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n" * 100)
        self.process.stdin.close()
        said = self.process.stdout.read().splitlines()
        self.process.stdout.close()
        self.process.wait()
        return said[-1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.mark.parametrize(
    ("step", "inside"),
    [
        ("read saw", True),
        ("check edges", True),
        ("write Film", True),
        ("write User", False),
        ("write (User)-[SAW]->(Film)", False),
        ("write (User)-[SAW]->(Film)", True),
        ("write (Film)-[NEAR]->(Film)", True),
    ],
)
def test_a_killed_load_is_ended_by_the_same_command(
    project: Project, undisturbed: str, step: str, inside: bool
) -> None:
    load = Load(project)
    load.until(step)
    file = project.folder / project.settings.store.uri
    if inside:
        before = _size(file)
        load.go_on()
        # A step that writes is killed once its file grows: while rows are copied, or while they are committed.
        end = time.monotonic() + 20
        while step.startswith("write") and _size(file) == before and time.monotonic() < end:
            time.sleep(0.001)
    load.kill()
    with open_store(project) as store:
        written = ingest(project, store).written
        assert written.created + written.unchanged == ALL
        assert written.changed == 0
        assert content_hash(store) == undisturbed
        token = store.state_token()
        assert ingest(project, store).written == Written(unchanged=ALL)
        assert store.state_token() == token
    assert not (project.work / "staging").exists()


def test_a_load_killed_again_and_again_comes_to_its_end(project: Project, undisturbed: str) -> None:
    for step in ("write User", "write (User)-[SAW]->(Film)", "write (Film)-[NEAR]->(Film)"):
        load = Load(project)
        load.until(step)
        load.go_on()
        time.sleep(0.05)
        load.kill()
    assert Load(project).to_the_end().startswith("wrote")
    with open_store(project, read_only=True) as store:
        assert content_hash(store) == undisturbed


def test_a_second_load_is_told_who_writes_and_nothing_is_doubled(project: Project, undisturbed: str) -> None:
    first = Load(project)
    first.until("write (User)-[SAW]->(Film)")
    impatient = project.settings.store.model_copy(update={"timeout_s": 0.2})
    with pytest.raises(StoreLocked, match=rf"process {first.process.pid}\b"):
        EmbeddedStore.open(project.schema, impatient, project.folder, read_only=False)
    waiting = Load(project)  # has the time to wait
    assert first.to_the_end() == f"wrote {ALL}"
    assert waiting.to_the_end() == "wrote 0"
    with open_store(project, read_only=True) as store:
        assert content_hash(store) == undisturbed


@pytest.mark.parametrize("limit", [50_000, 1_500_000, 4_000_000])
def test_a_load_that_runs_out_of_disk_says_so_and_ends_when_there_is_room(
    project: Project, undisturbed: str, limit: int
) -> None:
    load = Load(project, str(limit))
    said = load.to_the_end()
    assert said.startswith("StoreError"), said
    assert "graph.lbug cannot be written to its end: its disk is full" in said
    assert "Make room and run the same command again" in said
    assert load.process.returncode == 5
    with open_store(project) as store:
        held = store.counts()
        there = sum(held.nodes.values()) + sum(held.edges.values())
        assert ingest(project, store).written == Written(created=ALL - there, unchanged=there)
        assert content_hash(store) == undisturbed


def _size(file: Path) -> int:
    """Of the store and its log together."""
    return sum(path.stat().st_size for path in file.parent.glob(f"{file.name}*") if path.is_file())
