"""A server as in production: two workers, TLS, keys, the administration on a port of its own, metrics, impressions."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kithkin import Client, Tls
from kithkin.errors import KithkinError
from model_store.bundle_store import BundleStore
from server.wire.keys import Role, new_key
from tests.bundles import write_toy_bundle
from tests.certificates import needs_openssl, write_certificate
from tests.e2e.conftest import kithkin, serving
from tests.toy import write_toy

pytestmark = needs_openssl


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_toy(tmp_path_factory.mktemp("production"))
    store = BundleStore(folder / ".kithkin" / "models")
    store.activate(write_toy_bundle(store, encoders=False))
    write_certificate(folder, "server")
    with (folder / "kithkin.toml").open("a") as file:
        file.write(
            f"""
[serving]
host = "0.0.0.0"
workers = 2
drain_s = 2
keys_file = "keys"
admin_port = {free_port()}
metrics_port = {free_port()}

[serving.tls]
certificate = "server.pem"
key = "server.key"

[serving.impressions]
folder = "impressions"
"""
        )
    return folder


@pytest.fixture(scope="module")
def keys(project: Path) -> dict[str, str]:
    """Keys by role, known to the server."""
    made: dict[str, str] = {}
    lines = []
    for role in Role:
        made[role], line = new_key(role, f"the-{role}")
        lines.append(line)
    (project / "keys").write_text("\n".join(lines))
    return made


@pytest.fixture(scope="module")
def address(project: Path, keys: dict[str, str]) -> Iterator[str]:
    with serving(project, "--json-log") as address:
        yield address.replace("127.0.0.1", "localhost")


def setting(project: Path, name: str) -> int:
    (line,) = (line for line in (project / "kithkin.toml").read_text().splitlines() if line.startswith(name))
    return int(line.partition("=")[2])


def _settings(**given: object) -> list[str]:
    return [f"--set=serving.{key}={value}" for key, value in given.items()]


def environment(project: Path, key: str) -> dict[str, str]:
    return {"KITHKIN_CA": str(project / "server.pem"), "KITHKIN_API_KEY": key}


def metrics(project: Path) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{setting(project, 'metrics_port')}/metrics", timeout=10) as page:
        lines = [line for line in page.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_the_command_line_asks_with_a_key(project: Path, address: str, keys: dict[str, str]) -> None:
    asked = kithkin(
        "similar", "Slowdive", "--server", address, "-k", "1", "--json",
        folder=project, environment=environment(project, keys["read"]),
    )  # fmt: skip
    assert asked.json["results"][0]["name"] == "Ride"


def test_bundles_are_changed_on_the_port_of_the_administration_with_its_key(
    project: Path, address: str, keys: dict[str, str]
) -> None:
    store = BundleStore(project / ".kithkin" / "models")
    inside = f"localhost:{setting(project, 'admin_port')}"
    version = write_toy_bundle(store, encoders=False, snapshot="next")
    refused = kithkin(
        "activate", version, "--server", inside, folder=project,
        environment=environment(project, keys["read"]), code=7,
    )  # fmt: skip
    assert "the-read has the role read" in refused.err
    kithkin("activate", version, "--server", inside, folder=project, environment=environment(project, keys["admin"]))
    with Client(inside, tls=Tls(ca=project / "server.pem"), api_key=keys["read"]) as client:
        status = client.status()
        assert status.bundle is not None
        assert (status.bundle.version, status.workers_serving) == (version, 2)
    with (
        Client(address, tls=Tls(ca=project / "server.pem"), api_key=keys["admin"], retries=0) as outside,
        pytest.raises(KithkinError, match=r"UNIMPLEMENTED|[Mm]ethod not found"),
    ):
        outside.status()


def test_metrics_are_the_sum_of_both_workers(project: Path, address: str, keys: dict[str, str]) -> None:
    calls = 'kithkin_calls_total{code="OK",method="RetrieveEntitiesForUser"}'
    for _ in range(12):
        # A client of its own each time: the system deals connections out to the workers.
        with Client(address, tls=Tls(ca=project / "server.pem"), api_key=keys["read"]) as client:
            client.recommend("u1", top_k=2)
    # A worker adds up what it noted every second.
    deadline = time.monotonic() + 20
    while (values := metrics(project)).get(calls) != 12 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert values[calls] == 12
    assert sum(value for name, value in values.items() if name.startswith("kithkin_bundle_info")) == 2


def test_what_was_answered_is_recorded_when_the_server_has_drained(project: Path, keys: dict[str, str]) -> None:
    with serving(
        project, *_settings(workers=1, metrics_port=0, admin_port=free_port(), **{"impressions.folder": "own"})
    ) as address:
        outside = address.replace("127.0.0.1", "localhost")
        with Client(outside, tls=Tls(ca=project / "server.pem"), api_key=keys["read"]) as client:
            shown = client.recommend("u1", top_k=3).ids
    rows = [row for file in (project / "own").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    assert [row["entity"] for row in rows] == shown


def test_no_key_is_in_the_log_or_in_the_processes(project: Path, address: str, keys: dict[str, str]) -> None:
    with Client(address, tls=Tls(ca=project / "server.pem"), api_key=keys["read"]) as client:
        assert client.recommend("u1", top_k=1)
    time.sleep(0.2)
    log = (project / "server.observe.log").read_text()
    for key in keys.values():
        assert key not in log


def test_keys_without_tls_do_not_start(project: Path, keys: dict[str, str]) -> None:
    plain = project / "plain"
    plain.mkdir()
    text = (project / "kithkin.toml").read_text().replace('certificate = "server.pem"\nkey = "server.key"\n', "")
    (plain / "kithkin.toml").write_text(text)
    (plain / "keys").write_text((project / "keys").read_text())
    (plain / ".kithkin" / "models").mkdir(parents=True)
    # Another administration's port: the project's own may still be held by the server of the test before.
    settings = _settings(metrics_port=0, workers=1, admin_port=free_port())
    ended = kithkin("serve", "--port", "0", *settings, folder=plain, code=7)
    assert "without TLS" in ended.err
    assert "--insecure" in ended.err
