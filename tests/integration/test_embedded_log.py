"""Small commits of the embedded store lie in Ladybug's log: who sees them, when it is folded, what a kill leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from graph_store.changes.batch import Batch
from graph_store.changes.checks import typed
from graph_store.changes.rows import Given, read
from graph_store.embedded import database, scan, seek
from graph_store.embedded.store import EmbeddedStore
from graph_store.errors import InputError, StoreCorrupt, StoreUnavailable
from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.settings import StoreSettings
from graph_store.store import Written

ROOT = Path(__file__).resolve().parents[2]
SAW = Triple("User", "SAW", "Film")
PROPERTIES: dict[str, dict[str, Any]] = {
    "title": {"type": "string"},
    "year": {"type": "int"},
    "length": {"type": "float"},
    "seen": {"type": "bool"},
    "day": {"type": "date"},
    "at": {"type": "timestamp"},
    "words": {"type": "strings"},
    "face": {"type": "vector", "dimension": 768},
}
SCHEMA = GraphSchema(
    node_types=(
        NodeType.model_validate({"name": "Film", "role": "entity", "properties": PROPERTIES}),
        NodeType.model_validate({"name": "User", "role": "user"}),
    ),
    relations=(
        Relation.model_validate(
            {
                "triple": SAW,
                "role": "engagement",
                "weight": "stars",
                "time": "at",
                "properties": {"stars": {"type": "float"}, "at": {"type": "timestamp"}},
            }
        ),
    ),
)
TIMES = [datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), datetime(2026, 11, 21, 10, 11, 12, 5, UTC)]
FILMS = SCHEMA.node_type("Film").arrow_schema
EDGES = SCHEMA.relation(SAW).arrow_schema

# A process that writes every kind of small change, tells its commits and is killed.
WRITER = """
import sys
from pathlib import Path
from tests.integration.test_embedded_log import open_store, write
with open_store(Path(sys.argv[1])) as store:
    write(store)
    print("done", flush=True)
    sys.stdin.readline()
"""


def open_store(folder: Path, *, read_only: bool = False) -> EmbeddedStore:
    """The store of these tests."""
    settings = StoreSettings(uri="graph.lbug", timeout_s=2, memory_mib=128)
    return EmbeddedStore.open(SCHEMA, settings, folder, read_only=read_only)


def film(number: int, **given: Any) -> dict[str, Any]:
    """A node with a value of every kind; the text longer than a record of a log may be in some versions."""
    values = {
        "title": f"film {number} " + "x" * 5_000,
        "year": number,
        "length": number / 3,
        "seen": number % 2 == 0,
        "day": date(1900 + number, 1, 1),
        "at": TIMES[number % 2],
        "words": ["a", str(number)],
        "face": [float(number)] * 768,
    }
    return {"id": f"f{number}", **values, **given}


def write(store: EmbeddedStore) -> None:
    """Create, change, change to null and delete nodes and edges, in commits of their own."""
    store.apply_schema()
    store.upsert_nodes("Film", pa.Table.from_pylist([film(number) for number in range(6)], FILMS))
    store.upsert_nodes("User", pa.table({"id": ["u0", "u1", "u2"]}))
    edges = [
        {"source": f"u{number % 3}", "target": f"f{number}", "stars": number / 2, "at": TIMES[number % 2]}
        for number in range(6)
    ]
    store.upsert_edges(SAW, pa.Table.from_pylist(edges, EDGES))
    nothing = dict.fromkeys(PROPERTIES)
    store.upsert_nodes("Film", pa.Table.from_pylist([film(0, title="changed"), {"id": "f1", **nothing}], FILMS))
    store.upsert_edges(SAW, pa.Table.from_pylist([{**edges[2], "stars": 9.0}], EDGES))
    store.delete_edges(SAW, pa.Table.from_pylist([edges[3]], EDGES))
    store.delete_nodes("Film", ["f5"])


def content(store: EmbeddedStore) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All films and edges."""
    films = [row for batch in store.scan_nodes("Film") for row in batch.to_pylist()]
    edges = [row for batch in store.scan_edges(SAW) for row in batch.to_pylist()]
    return sorted(films, key=lambda row: row["id"]), sorted(edges, key=lambda row: (row["source"], row["target"]))


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What is there after ``write``."""
    with open_store(tmp_path_factory.mktemp("wanted")) as store:
        write(store)
        return content(store)


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A folder whose writer was killed after its last commit."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "done\n"
        with open_store(tmp_path, read_only=True) as beside:
            assert len(content(beside)[0]) == 5, "who reads beside a writer reads its log"
        writer.kill()
    assert (tmp_path / "graph.lbug.wal").stat().st_size > 0
    return tmp_path


def test_a_killed_writer_loses_nothing_that_it_committed(killed: Path, wanted: object) -> None:
    with open_store(killed, read_only=True) as reader:
        assert content(reader) == wanted
    with open_store(killed) as writer:
        assert content(writer) == wanted
    assert not (killed / "graph.lbug.wal").exists()
    with open_store(killed, read_only=True) as reader:
        assert content(reader) == wanted


@pytest.mark.parametrize("tail", [bytes(700), os.urandom(700), b"\x01"])
def test_a_commit_cut_short_is_cut_off_and_those_before_it_stay(killed: Path, wanted: object, tail: bytes) -> None:
    with (killed / "graph.lbug.wal").open("ab") as log:
        log.write(tail)
    with pytest.raises(StoreUnavailable, match="cut short") as caught:
        open_store(killed, read_only=True)
    assert caught.value.hint
    with open_store(killed) as writer:
        assert content(writer) == wanted
        writer.upsert_nodes("User", pa.table({"id": ["u9"]}))
    assert not list(killed.glob("*.torn"))
    with open_store(killed, read_only=True) as reader:
        assert content(reader) == wanted
        assert reader.counts().nodes["User"] == 4


def test_a_log_that_lost_a_commit_is_damage_and_stays_as_it_is(killed: Path) -> None:
    log = killed / "graph.lbug.wal"
    short = log.read_bytes()[:-200]
    log.write_bytes(short)
    for read_only in (False, True):
        with pytest.raises(StoreCorrupt):
            open_store(killed, read_only=read_only)
        assert log.read_bytes() == short
    assert not list(killed.glob("*.torn"))


def test_folding_is_no_commit(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.apply_schema()
        begin = store.log_position()
        store.upsert_nodes("User", pa.table({"id": ["u0"]}))
        token = store.state_token()
        assert (tmp_path / "graph.lbug.wal").stat().st_size > 0
    assert not (tmp_path / "graph.lbug.wal").exists()
    with open_store(tmp_path, read_only=True) as reader:
        assert reader.state_token() == token
        with open_store(tmp_path) as store:
            assert store.state_token() == token
            store.upsert_nodes("User", pa.table({"id": ["u1"]}))
            assert reader.state_token() == store.state_token() != token
            told = reader.written_since(begin)
            assert told is not None
            assert told.complete
            assert [each.keys for each in told.changes] == [(("u0",),), (("u1",),)]
            rest = reader.written_since(token)
            assert rest is not None
            assert rest.complete
            assert [each.keys for each in rest.changes] == [(("u1",),)]


def test_a_statement_of_cypher_moves_the_token_and_breaks_the_chain(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.apply_schema()
        store.upsert_nodes("User", pa.table({"id": ["u0"]}))
        before = store.state_token()
    with open_store(tmp_path) as store:
        store.query("CREATE (:User {id: 'u1'})", write=True)
        assert store.state_token() != before
        told = store.written_since(before)
        assert told is None or not told.complete
        store.upsert_nodes("User", pa.table({"id": ["u2"]}))
        assert store.written_since(before) is None


def test_a_long_log_is_folded_and_the_file_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_FOLD_BYTES", 2_000)
    monkeypatch.setattr(database, "_LEFT_SHARE", 1_000)
    folds = []
    with open_store(tmp_path) as store, open_store(tmp_path, read_only=True) as reader:
        store.apply_schema()
        position = store.log_position()
        for number in range(40):
            store.upsert_nodes("User", pa.table({"id": [f"u{number}-{each}" for each in range(20)]}))
            folds.append((tmp_path / "graph.lbug.wal").stat().st_size)
            assert reader.counts().nodes["User"] == 20 * (number + 1)
        assert store.counts().nodes["User"] == 800
        told = store.written_since(position)
        assert told is not None
        assert told.complete
        assert len(told.changes) == 40
    assert any(later < earlier for earlier, later in pairwise(folds))


def test_many_rows_are_in_the_file_at_once(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.apply_schema()
        store.upsert_nodes("User", pa.table({"id": [f"u{number}" for number in range(3_000)]}))
        assert not (tmp_path / "graph.lbug.wal").exists()


def test_a_scan_in_parts_is_of_one_state_while_small_commits_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_NODES_AT_ONCE", 100)
    with open_store(tmp_path) as store:
        store.apply_schema()
        store.upsert_nodes("User", pa.table({"id": [f"u{number:04d}" for number in range(1_000)]}))
        with open_store(tmp_path, read_only=True) as reader:
            parts = reader.scan_nodes("User")
            count = next(parts).num_rows
            store.upsert_nodes("User", pa.table({"id": ["new"]}))
            count += sum(part.num_rows for part in parts)
            assert count == 1_000
            assert reader.counts().nodes["User"] == 1_001
            parts = reader.scan_nodes("User")
            next(parts)
            store.upsert_nodes("User", pa.table({"id": [f"v{number}" for number in range(3_000)]}))
            with pytest.raises(StoreUnavailable, match="written to while it was read"):
                list(parts)


@pytest.mark.parametrize("together", [False, True])
def test_edges_are_found_by_either_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, together: bool) -> None:
    monkeypatch.setattr(seek, "_STATEMENT_S", 1.0 if together else 0.0)
    with open_store(tmp_path) as store:
        write(store)
        _, every = content(store)
        for end, ids in (("source", ["u0", "u2", "nobody"]), ("target", ["f2", "f4"]), ("source", [])):
            found = store.edges_of(SAW, ["stars"], end, pa.array(ids, pa.string())).to_pylist()
            listed = [{name: row[name] for name in ("source", "target", "stars")} for row in every if row[end] in ids]
            assert sorted(found, key=str) == sorted(listed, key=str)


def test_an_upsert_of_nodes_and_edges_is_one_commit(tmp_path: Path) -> None:
    changes = [
        _upsert("User", "u0"),
        _upsert("Film", "f0"),
        _upsert("Film", "f1"),
        {"op": "upsert", "relation": "SAW", "source": "u0", "target": "f0", "properties": SEEN},
    ]
    with open_store(tmp_path) as store:
        store.apply_schema()
        before = store.state_token()
        assert sum(each.created for each in _batch(changes).write(store).values()) == 4
        after = store.state_token()
        assert len((tmp_path / "graph.lbug.changes").read_bytes().splitlines()) == 1
        told = store.written_since(before)
        assert told is not None
        assert [(each.what, each.keys) for each in told.changes] == [
            ("User", (("u0",),)),
            ("Film", (("f0",), ("f1",))),
            (SAW.key, (("u0", "f0"),)),
        ]
        assert {each.unchanged for each in _batch(changes).write(store).values()} == {1, 2}
        assert store.state_token() == after, "nothing differs, nothing is committed"
        # An end that went since it was looked for: nothing of the upsert stays.
        lost = [_upsert("User", "u1"), {**changes[3], "source": "u1", "target": "nowhere"}]
        with pytest.raises(InputError, match="no Film with this id"):
            _batch(lost).write(store)
        assert store.state_token() == after
        assert store.counts().nodes == {"Film": 2, "User": 1}
        assert _batch([_upsert("User", "u1")]).write(store) == {"User": Written(created=1)}


SEEN = {"stars": 1.5, "at": "2026-11-21T10:11:12"}


def _upsert(node_type: str, node_id: str) -> dict[str, Any]:
    return {"op": "upsert", "type": node_type, "id": node_id}


def _batch(rows: list[dict[str, Any]]) -> Batch:
    changes, rejects = read(SCHEMA, (Given(number=n, values=row, text="") for n, row in enumerate(rows)))
    checked, wrong = typed(changes)
    assert not rejects
    assert not wrong
    return Batch.of(SCHEMA, checked)
