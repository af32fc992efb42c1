"""The record of answers: rows, files that are whole or not there, and no call that waits for it."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graph_store.serving_settings import ImpressionSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from server.errors import StartError
from server.observe import impressions as module
from server.observe.impressions import HASH_KEY, SCHEMA, Impressions


def for_user(user: str, *films: str) -> tuple[str, str, Any, Any]:
    """Method, request id, request and response of a RetrieveEntitiesForUser."""
    response = pb.RetrieveEntitiesForUserResponse()
    response.info.bundle_version = "20260102T030405.000006Z"
    for number, film in enumerate(films):
        response.results.add(node=types_pb2.Node(ref=types_pb2.NodeRef(type="Film", id=film)), score=1.0 - number / 4)
    request = pb.RetrieveEntitiesForUserRequest(user=types_pb2.NodeRef(id=user), top_k=10)
    return "RetrieveEntitiesForUser", f"request-{user}", request, response


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for file in files(folder) for row in pq.read_table(file).to_pylist()]


def test_one_row_a_shown_entity(tmp_path: Path) -> None:
    told: Counter[str] = Counter()
    impressions = Impressions(ImpressionSettings(folder=tmp_path), lambda outcome: told.update([outcome]))
    impressions.record(*for_user("ann", "s1", "s2"))
    similar = pb.SearchSimilarEntitiesResponse()
    similar.results.add(node=types_pb2.Node(ref=types_pb2.NodeRef(type="Film", id="l1")), score=0.5)
    request = pb.SearchSimilarEntitiesRequest(entity=types_pb2.NodeRef(id="s5"), top_k=1)
    impressions.record("SearchSimilarEntities", "r2", request, similar)
    impressions.close()
    (file,) = files(tmp_path)
    assert pq.read_schema(file).equals(SCHEMA)
    found = rows(tmp_path)
    assert [(row["user"], row["query"], row["entity"], row["position"], row["score"]) for row in found] == [
        ("ann", None, "s1", 1, 1.0),
        ("ann", None, "s2", 2, 0.75),
        (None, "s5", "l1", 1, 0.5),
    ]
    assert {row["entity_type"] for row in found} == {"Film"}
    assert [row["asked"] for row in found] == ["user", "user", "entity"]
    assert [row["request_id"] for row in found] == ["request-ann", "request-ann", "r2"]
    assert found[0]["bundle_version"] == "20260102T030405.000006Z"
    assert found[0]["method"] == "RetrieveEntitiesForUser"
    assert told == {"written": 2}


def test_what_is_not_shown_to_anybody_is_not_recorded(tmp_path: Path) -> None:
    impressions = Impressions(ImpressionSettings(folder=tmp_path))
    impressions.record(*for_user("ann"))
    impressions.record("GetEntity", "r", pb.GetEntityRequest(), pb.GetEntityResponse())
    impressions.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_closed_when_it_is_full(tmp_path: Path) -> None:
    impressions = Impressions(ImpressionSettings(folder=tmp_path, rotate_rows=4))
    for number in range(5):
        impressions.record(*for_user(f"u{number}", "a", "b"))
    impressions.close()
    assert [pq.read_metadata(file).num_rows for file in files(tmp_path)] == [4, 4, 2]
    assert [row["user"] for row in rows(tmp_path)] == [f"u{number // 2}" for number in range(10)]


def test_a_file_is_closed_when_its_time_is_over(tmp_path: Path) -> None:
    written = threading.Event()
    impressions = Impressions(ImpressionSettings(folder=tmp_path, rotate_s=0.05), lambda outcome: written.set())
    impressions.record(*for_user("ann", "s1"))
    assert written.wait(20)
    assert [row["user"] for row in rows(tmp_path)] == ["ann"]
    impressions.close()


def test_a_half_written_file_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    write = pq.write_table

    def watched(table: pa.Table, stream: Any, **options: Any) -> None:
        write(table, stream, **options)
        seen.append([file.name for file in tmp_path.iterdir()])

    monkeypatch.setattr(module.pq, "write_table", watched)
    impressions = Impressions(ImpressionSettings(folder=tmp_path))
    impressions.record(*for_user("ann", "s1"))
    impressions.close()
    ((name,),) = seen
    assert name.startswith(".impressions-")
    assert not name.endswith(".parquet")
    assert [file.name for file in tmp_path.iterdir()] == [name.removeprefix(".").removesuffix(".half")]


def test_a_call_never_waits_and_what_is_dropped_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, writing = threading.Event(), threading.Event()
    write = pq.write_table

    def slow(*arguments: Any, **options: Any) -> None:
        writing.set()
        go_on.wait(30)
        write(*arguments, **options)

    monkeypatch.setattr(module.pq, "write_table", slow)
    told: Counter[str] = Counter()
    settings = ImpressionSettings(folder=tmp_path, queue=3, rotate_rows=1)
    impressions = Impressions(settings, lambda outcome: told.update([outcome]))
    impressions.record(*for_user("first", "s1"))
    assert writing.wait(20)
    for number in range(10):
        impressions.record(*for_user(f"u{number}", "s1"))
    assert told == {"dropped": 7}
    go_on.set()
    impressions.close()
    assert told == {"dropped": 7, "written": 4}
    assert [row["user"] for row in rows(tmp_path)] == ["first", "u0", "u1", "u2"]


def test_a_disk_that_fails_loses_its_rows_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    told: Counter[str] = Counter()
    impressions = Impressions(ImpressionSettings(folder=tmp_path), lambda outcome: told.update([outcome]))
    monkeypatch.setattr(module.pq, "write_table", full)
    impressions.record(*for_user("ann", "s1"))
    impressions.close()
    assert told == {"dropped": 1}
    assert list(tmp_path.iterdir()) == []


def test_users_by_hash_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HASH_KEY, raising=False)
    with pytest.raises(StartError, match=HASH_KEY):
        Impressions(ImpressionSettings(folder=tmp_path, users="hash"))
    hashes = []
    for key in ("one", "one", "two"):
        monkeypatch.setenv(HASH_KEY, key)
        folder = tmp_path / str(len(hashes))
        impressions = Impressions(ImpressionSettings(folder=folder, users="hash"))
        impressions.record(*for_user("ann", "s1"))
        impressions.close()
        hashes.append(rows(folder)[0]["user"])
    assert len(hashes[0]) == 64
    assert hashes[0] == hashes[1] != hashes[2]
    impressions = Impressions(ImpressionSettings(folder=tmp_path / "none", users="none"))
    impressions.record(*for_user("ann", "s1"))
    impressions.close()
    assert rows(tmp_path / "none")[0]["user"] is None


def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"serving\.impressions\.folder"):
        Impressions(ImpressionSettings(folder=tmp_path / "file" / "below"))
