"""A record of what was answered: one row a shown entity, in Parquet files that ``kithkin ingest`` can read back.

    request_id, bundle_version, time, method, asked, user, query, entity_type, entity, position, score

``asked`` is what the request gave: ``user``, ``entity``, ``events``, ``vector`` or ``described``. ``user`` is the id of
the first, ``query`` that of the second; each is null otherwise. ``position`` counts from 1.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from graph_store.serving_settings import ImpressionSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from server.errors import StartError
from server.observe import log

HASH_KEY = "KITHKIN_IMPRESSIONS_KEY"
SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("bundle_version", pa.string(), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("asked", pa.string(), nullable=False),
        pa.field("user", pa.string()),
        pa.field("query", pa.string()),
        pa.field("entity_type", pa.string(), nullable=False),
        pa.field("entity", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
_RECORDED = (pb.RetrieveEntitiesForUserRequest, pb.SearchSimilarEntitiesRequest)
_Answer = tuple[str, str, int, Any, Any]
"""Request id, method, microseconds since 1970, request, response."""


class Impressions:
    """Takes answers without ever waiting, and writes them in a thread of its own.

    A file is written beside and renamed when it is whole; what is half written begins with a dot. ``told`` is called
    with ``written`` or ``dropped`` for each answer.
    """

    def __init__(self, settings: ImpressionSettings, told: Callable[[str], None] = lambda outcome: None) -> None:
        assert settings.folder is not None
        self._folder = settings.folder
        self._settings = settings
        self._told = told
        self._hash_key = _hash_key() if settings.users == "hash" else b""
        self._waiting: queue.Queue[_Answer | None] = queue.Queue(settings.queue)
        self._columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        self._answers = 0
        self._begun = 0.0
        self._number = itertools.count()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            trial = self._folder / f".{os.getpid()}.trial"
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise StartError(
                f"serving.impressions.folder {self._folder} cannot be written: {error.strerror}",
                hint="Choose a folder that the server may write.",
            ) from None
        self._thread = threading.Thread(target=self._run, name="kithkin-impressions", daemon=True)
        self._thread.start()

    def record(self, method: str, request_id: str, request: Any, response: Any) -> None:
        """Take an answer, where it is of a call that is recorded; dropped where too many wait."""
        if not isinstance(request, _RECORDED) or not response.results:
            return
        try:
            self._waiting.put_nowait((request_id, method, time.time_ns() // 1000, request, response))
        except queue.Full:
            self._told("dropped")

    def close(self) -> None:
        """Write all that was taken, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            left = self._begun + self._settings.rotate_s - time.monotonic() if self._answers else None
            try:
                # A file that is due is written before anything else is taken.
                answer = self._waiting.get(timeout=None if left is None else max(left, 0.001))
            except queue.Empty:
                self._rotate()
                continue
            if answer is None:
                self._rotate()
                return
            try:
                self._add(answer)
            except Exception as error:
                # One answer that cannot be written must not end the record of all others.
                self._told("dropped")
                log.event(logging.ERROR, "impression not recorded", trace=True, error=str(error))
            full = len(self._columns["entity"]) >= self._settings.rotate_rows
            if full or time.monotonic() - self._begun >= self._settings.rotate_s:
                self._rotate()

    def _add(self, answer: _Answer) -> None:
        request_id, method, moment, request, response = answer
        asked = request.WhichOneof("query")
        user = self._user(request.user.id) if asked == "user" else None
        query = request.entity.id if asked == "entity" else None
        if not self._answers:
            self._begun = time.monotonic()
        self._answers += 1
        version = response.info.bundle_version
        for position, result in enumerate(response.results, 1):
            row = (
                request_id,
                version,
                moment,
                method,
                asked,
                user,
                query,
                result.node.ref.type,
                result.node.ref.id,
                position,
                result.score,
            )
            for column, value in zip(self._columns.values(), row, strict=True):
                column.append(value)

    def _user(self, user: str) -> str | None:
        match self._settings.users:
            case "id":
                return user
            case "hash":
                return hmac.new(self._hash_key, user.encode(), hashlib.sha256).hexdigest()
            case _:
                return None

    def _rotate(self) -> None:
        """Write what was taken as a file; where that fails it is lost, and the log says so."""
        answers, self._answers = self._answers, 0
        columns, self._columns = self._columns, {name: [] for name in SCHEMA.names}
        if not answers:
            return
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        name = f"impressions-{now}-{os.getpid()}-{next(self._number)}.parquet"
        beside = self._folder / f".{name}.half"
        try:
            _write(pa.table(columns, schema=SCHEMA), beside, self._folder / name)
        except OSError as error:
            beside.unlink(missing_ok=True)
            log.event(logging.ERROR, "impressions lost", answers=answers, error=str(error))
            outcome = "dropped"
        else:
            outcome = "written"
        for _ in range(answers):
            self._told(outcome)


def _write(table: pa.Table, beside: Path, path: Path) -> None:
    with beside.open("wb") as stream:
        pq.write_table(table, stream, compression="zstd")
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)


def _hash_key() -> bytes:
    key = os.environ.get(HASH_KEY, "")
    if not key:
        raise StartError(
            f'serving.impressions.users = "hash" needs a secret in {HASH_KEY}',
            hint="Without one, hashes of ids that can be guessed tell the ids.",
        )
    return key.encode()
