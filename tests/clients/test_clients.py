"""Clients in other languages: built from protos/ alone, they get the answers and error details of the Python client.

Run by ``make test-clients``: the packages of each language are fetched and built, which takes minutes the first time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from google.rpc import status_pb2

from graph_store.settings import ServingSettings
from kithkin import Client, Event, F, KithkinError
from kithkin.types import Results
from model_store.bundle_store import BundleStore
from server.wire.local import serve_in_thread
from tests.bundles import write_toy_bundle

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PROTOS = ROOT / "protos"
# google.rpc comes with googleapis-common-protos, whose folder is where its modules are.
GOOGLE = Path(status_pb2.__file__).parents[2]
CONFIG = ROOT / "client/service_config.json"
GO_PACKAGE = "kithkin.test/client/kithkinv1"

pytestmark = [
    pytest.mark.skipif(os.environ.get("KITHKIN_TEST_CLIENTS") != "1", reason="`make test-clients` runs these"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = BundleStore(tmp_path_factory.mktemp("models"))
    store.activate(write_toy_bundle(store))
    with serve_in_thread(store.open(), ServingSettings()) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def wanted(target: str) -> dict[str, Any]:
    """What the Python client answers to the same questions."""
    with Client(target, timeout=30) as client:
        return {
            "similar": _rows(client.similar("1", top_k=5, filter=F.year >= 1991)),
            "recommend": _rows(client.recommend(events=["3", Event("4", weight=2)], top_k=3)),
            "batch": [
                _readable(item) if isinstance(item, KithkinError) else _rows(item)
                for item in client.similar_batch(["1", "99"], top_k=2)
            ],
            "embed": list(client.embed(["10"])[0]),
            "list": [node.name for node in client.list_entities("Tag")],
            "too_many": _raised(lambda: client.similar("1", top_k=5000)),
            "unknown": _raised(lambda: client.similar("99", top_k=1)),
        }


def test_go(target: str, wanted: dict[str, Any], tmp_path: Path) -> None:
    _need("go")
    folder = tmp_path / "go"
    shutil.copytree(HERE / "go", folder)
    tools = tmp_path / "tools"
    # -mod=mod: what go.mod names is fetched, and go.sum written here.
    go = {"GOFLAGS": "-mod=mod", "GOBIN": str(tools)}
    _run(["go", "install", "tool"], folder, go)
    _generate(folder, tools)
    _run(["go", "build", "-o", str(tmp_path / "client"), "."], folder, go)
    _compare(_run([str(tmp_path / "client"), target, str(CONFIG)], folder), wanted)


def test_node(target: str, wanted: dict[str, Any], tmp_path: Path) -> None:
    _need("node", "npm")
    folder = tmp_path / "node"
    shutil.copytree(HERE / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    _run(["npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], folder)
    _compare(_run(["node", "client.js", target, str(CONFIG), str(PROTOS), str(GOOGLE)], folder), wanted)


def _need(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found on PATH")


def _run(command: list[str], folder: Path, more: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | (more or {}), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _generate(folder: Path, tools: Path) -> None:
    from grpc_tools import protoc

    sources = [f"kithkin/v1/{name}.proto" for name in ("types", "retrieval_service")]
    packages = [f"M{source}={GO_PACKAGE}" for source in sources]
    command = ["protoc", f"-I{PROTOS}", f"-I{GOOGLE}", f"-I{files('grpc_tools') / '_proto'}"]
    for plugin in ("go", "go-grpc"):
        command += [
            f"--plugin=protoc-gen-{plugin}={tools / f'protoc-gen-{plugin}'}",
            f"--{plugin}_out={folder}",
            f"--{plugin}_opt={','.join(['module=kithkin.test/client', *packages])}",
        ]
    assert protoc.main([*command, *sources]) == 0


def _rows(results: Results) -> list[list[Any]]:
    return [[item.type, item.id, item.name, item.score] for item in results]


def _raised(ask: Callable[[], object]) -> dict[str, Any]:
    with pytest.raises(KithkinError) as raised:
        ask()
    return _readable(raised.value)


def _readable(error: KithkinError) -> dict[str, Any]:
    told: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "reason": error.reason,
        "domain": "kithkin",
        "violations": [[violation.field, violation.description] for violation in error.violations],
    }
    return told | ({"resource": [error.resource_type, error.resource_name]} if error.resource_type else {})


def _compare(output: str, wanted: dict[str, Any]) -> None:
    found = json.loads(output)
    assert found.keys() == wanted.keys()
    for question, answer in wanted.items():
        assert _as_float32(found[question]) == _as_float32(answer), question
    assert (found["too_many"]["reason"], found["unknown"]["reason"]) == ("TOP_K_OUT_OF_RANGE", "NODE_NOT_FOUND")


def _as_float32(value: Any) -> Any:
    """Languages print a float32 with more digits or fewer."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return pytest.approx(value, rel=1e-6, abs=1e-7)
    return [_as_float32(each) for each in value] if isinstance(value, list) else value
