"""EmbeddedStore and the world around it: other processes, damaged files, files that are something else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from graph_store.embedded.store import EmbeddedStore
from graph_store.errors import ConfigError, StoreConflict, StoreCorrupt, StoreLocked, StoreUnavailable
from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.settings import StoreSettings

LINKS = Triple("Page", "LINKS", "Page")
SCHEMA = GraphSchema(
    node_types=(NodeType.model_validate({"name": "Page", "role": "entity", "properties": {"n": {"type": "int"}}}),),
    relations=(Relation.model_validate({"triple": LINKS, "role": "semantic"}),),
)
ROOT = Path(__file__).resolve().parents[2]

# Another process that writes batches of 1,000 pages, all of one batch with the same number, and says what it does.
WRITER = """
import sys
from pathlib import Path
import pyarrow as pa
from tests.integration.test_embedded_store import SCHEMA, open_store
with open_store(Path(sys.argv[1])) as store:
    store.apply_schema()
    for batch in range(int(sys.argv[2])):
        ids = [f"p{i}" for i in range(1000)] + [f"b{batch}-{i}" for i in range(100)]
        store.upsert_nodes("Page", pa.table({"id": ids, "n": [batch] * len(ids)}))
        print(batch, flush=True)
    sys.stdin.readline()
"""


def open_store(folder: Path, *, read_only: bool = False, timeout_s: float = 0.5) -> EmbeddedStore:
    """The store of these tests."""
    settings = StoreSettings(uri="graph.lbug", timeout_s=timeout_s, memory_mib=128)
    return EmbeddedStore.open(SCHEMA, settings, folder, read_only=read_only)


def _pages(store: EmbeddedStore) -> dict[str, int]:
    return {row["id"]: row["n"] for batch in store.scan_nodes("Page") for row in batch.to_pylist()}


def _writer(folder: Path, batches: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(batches)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_second_writing_process_is_told_who_writes(tmp_path: Path) -> None:
    with _writer(tmp_path, 1) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        start = time.monotonic()
        with pytest.raises(StoreLocked, match=rf"process {other.pid}\b") as caught:
            open_store(tmp_path)
        assert 0.4 < time.monotonic() - start < 5
        assert caught.value.hint
        other.stdin.close()
        with open_store(tmp_path, timeout_s=20) as store:  # waits until the other is done
            assert len(_pages(store)) == 1100
    assert other.returncode == 0


def test_the_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    with _writer(tmp_path, 1) as other:
        assert other.stdout is not None
        other.stdout.readline()
        other.kill()
        other.wait()
    with open_store(tmp_path) as store:
        assert len(_pages(store)) == 1100


def test_the_same_process_cannot_write_twice(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.apply_schema()
        with pytest.raises(StoreLocked, match=f"this process \\({os.getpid()}\\)"):
            open_store(tmp_path)
        # Closing a reader in this process drops Ladybug's own lock (POSIX), and must not let another writer in.
        open_store(tmp_path, read_only=True).close()
        refused = subprocess.run(
            [sys.executable, "-c", WRITER, str(tmp_path), "1"],
            cwd=ROOT, input="", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert f"process {os.getpid()}" in refused.stderr
        store.upsert_nodes("Page", pa.table({"id": ["a"]}))
    open_store(tmp_path).close()


def test_readers_beside_a_writer_see_whole_batches(tmp_path: Path) -> None:
    batches = 12
    seen: list[int] = []

    def look(reader: EmbeddedStore) -> None:
        pages = _pages(reader)
        batch = pages["p0"]
        assert {pages[f"p{i}"] for i in range(1000)} == {batch}
        assert len(pages) == 1000 + 100 * (batch + 1)
        seen.append(batch)

    with _writer(tmp_path, batches) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        with open_store(tmp_path, read_only=True, timeout_s=20) as long_lived:
            while not seen or seen[-1] < batches - 1:
                assert other.poll() is None
                look(long_lived)
                with open_store(tmp_path, read_only=True, timeout_s=20) as fresh:
                    look(fresh)
        other.stdin.close()
    assert seen == sorted(seen)
    assert len(set(seen)) > 1


def test_a_reader_of_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"no graph at .*graph\.lbug") as caught:
        open_store(tmp_path, read_only=True)
    assert "kithkin ingest" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_that_is_something_else_is_left_as_it_is(tmp_path: Path, read_only: bool) -> None:
    file = tmp_path / "graph.lbug"
    file.write_text("id,name\n1,one\n" * 1000)
    before = file.read_bytes()
    with pytest.raises(StoreCorrupt, match="damaged or not a graph store") as caught:
        open_store(tmp_path, read_only=read_only)
    assert caught.value.hint
    assert file.read_bytes() == before


def test_a_folder_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "graph.lbug").mkdir()
    with pytest.raises(ConfigError, match=r"store\.uri"):
        open_store(tmp_path)


def test_a_damaged_log_is_called_damage_when_nobody_writes(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.apply_schema()
    (tmp_path / "graph.lbug.wal").write_bytes(bytes(range(256)) * 40)
    with pytest.raises(StoreCorrupt):
        open_store(tmp_path, timeout_s=20)


def test_a_table_made_otherwise_is_a_conflict(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.query("CREATE NODE TABLE Page(name STRING PRIMARY KEY)", write=True)
        with pytest.raises(StoreConflict, match="another key than id"):
            store.apply_schema()


def test_a_failed_write_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(tmp_path) as store:
        store.apply_schema()
        store.upsert_nodes("Page", pa.table({"id": ["a", "b"], "n": [1, 2]}))
        token = store.state_token()
        monkeypatch.setattr("graph_store.embedded.writing._assignments", lambda *_: "n.nothing = 1")
        with pytest.raises(Exception, match="nothing"):
            store.upsert_nodes("Page", pa.table({"id": ["a", "c"], "n": [9, 3]}))  # copies c, then fails on a
        assert store.state_token() == token
        assert _pages(store) == {"a": 1, "b": 2}
