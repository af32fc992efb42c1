"""What `status` and `explain` print of an answer, against a server that says what the test wants."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cli.main import main
from kithkin.v1 import model_service_pb2 as model
from kithkin.v1 import retrieval_service_pb2 as retrieval
from tests.fake_server import FakeServer

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    running = fake.start()
    yield fake
    running.stop(None).wait()


@pytest.fixture
def run(
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    # No project is near: the server alone is asked.
    monkeypatch.chdir(tmp_path_factory.mktemp("nowhere"))

    def asked(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["kithkin", *arguments, "--server", server.target])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code in (0, None), printed.err
        return printed.out, printed.err

    return asked


@pytest.mark.parametrize(
    ("delta", "line"),
    [
        ({"fresh": 1203, "changed": 2, "lag": {"seconds": 1}}, "1,203 fresh, 2 changed, 0 deleted; 1.0 s behind"),
        ({"deleted": 4}, "0 fresh, 0 changed, 4 deleted; not yet whole"),
        (None, ""),
    ],
)
def test_status_shows_the_delta(server: FakeServer, run: Run, delta: dict[str, Any] | None, line: str) -> None:
    server.will("GetStatus", model.GetStatusResponse(server_version="1", delta=delta))
    out, _ = run("status")
    assert line in out
    assert ("delta" in out) == (delta is not None)
    told = json.loads(run("status", "--json")[0])["delta"]
    assert told is None if delta is None else told["fresh"] == delta.get("fresh", 0)


def test_explain_shows_what_the_score_hangs_on(server: FakeServer, run: Run) -> None:
    film = {"ref": {"type": "Film", "id": "1"}, "name": "One"}
    server.will("GetEntity", retrieval.GetEntityResponse(nodes=[film]))
    reasons = [{"text": "both are noir", "contribution": 1.0, "score_part": 0.5}]
    whole = retrieval.ExplainSimilarityResponse(
        score=0.75, reasons=reasons, explained_score=0.5, rest="Their likeness."
    )
    server.will("ExplainSimilarity", whole)
    out, err = run("explain", "1", "2")
    assert "of the score" in out
    assert "+0.500" in out
    assert "explained: 0.500 of the score" in err
    assert "the rest: Their likeness." in err
    answer = json.loads(run("explain", "1", "2", "--json")[0])
    assert (answer["explained_score"], answer["rest"]) == (0.5, "Their likeness.")
    assert answer["reasons"][0]["score_part"] == 0.5
    # A bundle whose encoder cannot tell.
    server.will("ExplainSimilarity", retrieval.ExplainSimilarityResponse(score=0.75, reasons=[{"text": "both"}]))
    out, err = run("explain", "1", "2")
    assert "of the score" not in out
    assert "explained" not in err
