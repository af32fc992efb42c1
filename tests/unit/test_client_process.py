"""A client and its process: forks, pickles, and the retry policy that other languages read from a file."""

from __future__ import annotations

import copy
import json
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import grpc
import pytest

import kithkin
from kithkin import AsyncClient, Client
from kithkin._calls import operations
from kithkin._connection import Connection
from kithkin._retry import RetryPolicy, worth_another_try
from kithkin.errors import ERROR_OF_STATUS
from kithkin.v1 import model_service_pb2 as model
from kithkin.v1 import retrieval_service_pb2 as retrieval
from tests.fake_server import Failure, FakeServer

ROOT = Path(__file__).parents[2]
CONFIG: dict[str, Any] = json.loads((ROOT / "client/service_config.json").read_text())


@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there")
def test_a_client_used_after_a_fork_says_so_and_a_new_one_works() -> None:
    # In a process of its own: the tests' own threads are not to be forked.
    code = """
        import asyncio, os, sys
        from kithkin import AsyncClient, Client
        before, also_before = Client("localhost:1", retries=0), AsyncClient("localhost:1", retries=0)
        child = os.fork()
        if child == 0:
            try:
                for ask in (before.status, lambda: asyncio.run(also_before.status())):
                    try:
                        ask()
                    except RuntimeError as error:
                        assert str(error) == "this client was made before a fork; make a new one in each child process"
                    else:
                        raise AssertionError("it answered")
                with Client("localhost:1", retries=0, timeout=5) as new:
                    assert new.similar.__self__ is new
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.exit(os.waitstatus_to_exitcode(status))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_is_not_pickled(kind: Any) -> None:
    client = kind("localhost:1")
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=f"a kithkin.{kind.__name__} holds a connection and cannot be pickled"):
            take(client)


def seconds(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)s", text)
    assert match is not None
    return float(match[1])


def test_the_service_config_says_what_the_client_does() -> None:
    with Client() as client:
        connection: Connection = client._connection
    policy = connection.policy
    assert policy == RetryPolicy()
    usual, rollback = CONFIG["methodConfig"]
    services = [
        file.services_by_name[name].full_name
        for file, name in ((retrieval.DESCRIPTOR, "RetrievalService"), (model.DESCRIPTOR, "ModelService"))
    ]
    assert [each["service"] for each in usual["name"]] == services
    assert seconds(usual["timeout"]) == seconds(rollback["timeout"]) == connection.timeout
    retry = usual["retryPolicy"]
    assert retry["maxAttempts"] == policy.retries + 1
    assert seconds(retry["initialBackoff"]) == policy.first_wait
    assert seconds(retry["maxBackoff"]) == policy.longest_wait
    assert retry["backoffMultiplier"] == 2
    worth = {name for name, kind in ERROR_OF_STATUS.items() if worth_another_try(kind("no"))}
    assert set(retry["retryableStatusCodes"]) == worth
    # What is never tried again is named by its method, and has no policy.
    once = operations.rollback()
    (named,) = rollback["name"]
    assert once.once
    assert f"/{named['service']}/{named['method']}" == once.path
    assert "retryPolicy" not in rollback


def test_grpc_itself_takes_the_service_config() -> None:
    fake = FakeServer()
    running = fake.start()
    unavailable = Failure(code=grpc.StatusCode.UNAVAILABLE)
    fake.will("GetStatus", unavailable, unavailable, model.GetStatusResponse(worker_pid=7))
    fake.will("RollbackBundle", unavailable, model.RollbackBundleResponse())
    options = [("grpc.service_config", json.dumps(CONFIG)), ("grpc.enable_retries", 1)]
    with grpc.insecure_channel(fake.target, options=options) as channel:
        ask = channel.unary_unary(
            "/kithkin.v1.ModelService/GetStatus",
            model.GetStatusRequest.SerializeToString,
            model.GetStatusResponse.FromString,
        )
        assert ask(model.GetStatusRequest()).worker_pid == 7
        roll_back = channel.unary_unary("/kithkin.v1.ModelService/RollbackBundle", None, None)
        with pytest.raises(grpc.RpcError):
            roll_back(b"")
    running.stop(None).wait()
    assert (len(fake.received["GetStatus"]), len(fake.received["RollbackBundle"])) == (3, 1)


def test_the_package_is_typed() -> None:
    assert (Path(kithkin.__file__).parent / "py.typed").is_file()


def test_the_client_needs_nothing_heavy() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]
    names = {re.split("[<>=]", each)[0] for each in project["dependencies"]}
    assert names <= {"grpcio", "protobuf", "googleapis-common-protos", "grpcio-status"}


def test_without_the_service_a_local_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kithkin._local.entry_points", lambda group: [])
    for kind in (Client, AsyncClient):
        with pytest.raises(ImportError, match=r"pip install 'kithkin-service\[serve\]'.*Client\('localhost:50051'\)"):
            kind.local("models")

    class Half:
        def load(self) -> None:
            raise ModuleNotFoundError("No module named 'onnxruntime'")

    monkeypatch.setattr("kithkin._local.entry_points", lambda group: [Half()])
    with pytest.raises(ImportError, match=r"not all it needs to answer \(No module named 'onnxruntime'\)"):
        Client.local("models")
