"""What the container's image would hold and do, without a container: its instructions run in an empty environment.

    KITHKIN_TEST_IMAGE=1 make test ARGS=tests/e2e/test_container.py

It installs all that the image installs (a minute or more, some hundred MB from the package index), so it is asked for.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model_store.bundle_store import BundleStore
from tests.bundles import write_toy_bundle
from tests.unit.test_deploy import ROOT, copied, instructions

pytestmark = [
    pytest.mark.skipif(os.environ.get("KITHKIN_TEST_IMAGE") != "1", reason="KITHKIN_TEST_IMAGE=1 asks for it"),
    pytest.mark.timeout(1800),
]
PREFIX = "/opt/kithkin"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment that the first stage makes, from what is copied and no more."""
    folder = tmp_path_factory.mktemp("image")
    source, prefix = folder / "source", folder / "opt"
    source.mkdir()
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, source / name)
    (extras,) = [value for words in instructions("ARG") for name, _, value in [words[0].partition("=")]]
    runs = [words for words in instructions("RUN") if any(PREFIX in word for word in words)]
    assert len(runs) == 2
    for words in runs:
        command = [word.replace(PREFIX, str(prefix)).replace("${EXTRAS}", extras) for word in words]
        if command[0] == "python":
            command[0] = sys.executable
        subprocess.run(command, cwd=source, check=True, timeout=1500, capture_output=True)
    # What is installed has to stand without its source.
    shutil.rmtree(source)
    return prefix


def environment(image: Path) -> dict[str, str]:
    """As ENV sets it, and nothing of this test's own environment in Python's path."""
    (path,) = [word.partition("=")[2] for words in instructions("ENV") for word in words]
    cleared = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KITHKIN", "VIRTUAL"))
    }
    return {**cleared, "PATH": path.replace(PREFIX, str(image)).replace("$PATH", os.environ["PATH"])}


def test_it_serves_tells_its_health_and_stops_at_the_signal(image: Path, tmp_path: Path) -> None:
    (tmp_path / "kithkin.toml").write_text('name = "toy"\n[nodes.Artist]\nrole = "entity"\n', encoding="utf-8")
    store = BundleStore(tmp_path / ".kithkin" / "models")
    store.activate(write_toy_bundle(store))
    port_file = tmp_path / "port"
    (entry,) = instructions("ENTRYPOINT")[0]
    command = [json.loads(entry.replace("[", '["').replace("]", '"]'))[0], *_words("CMD")]
    with subprocess.Popen(
        [str(image / "bin" / command[0]), *command[1:], "--port", "0", "--port-file", str(port_file)],
        cwd=tmp_path,
        env=environment(image),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as served:
        try:
            end = time.monotonic() + 600
            while not port_file.exists() or not port_file.read_text().strip():
                assert served.poll() is None, served.communicate()[0]
                assert time.monotonic() < end, "no port after ten minutes"
                time.sleep(0.1)
            port = port_file.read_text().strip()
            check = [word.replace("50051", port) for word in _words("HEALTHCHECK")]
            # Found by PATH, as the image's ENV has it.
            assert shutil.which(check[0], path=environment(image)["PATH"]) == str(image / "bin" / "python")
            healthy = subprocess.run(check, cwd=tmp_path, env=environment(image), timeout=120, check=False)
            assert healthy.returncode == 0
            served.send_signal(getattr(signal, instructions("STOPSIGNAL")[0][0]))
            told, _ = served.communicate(timeout=120)
        finally:
            served.kill()
    assert served.returncode == 0, told
    unhealthy = subprocess.run(
        check, cwd=tmp_path, env=environment(image), timeout=120, check=False, capture_output=True
    )
    assert unhealthy.returncode != 0, "nobody serves any more"


def test_what_serves_has_no_training_libraries(image: Path) -> None:
    found = subprocess.run(
        [str(image / "bin" / "python"), "-c", "import server.processes.worker_process, importlib.util as u;"
         "print(*(name for name in ('torch', 'scann', 'duckdb') if u.find_spec(name)))"],
        env=environment(image),
        cwd=image,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )  # fmt: skip
    assert found.stdout.split() == ["scann", "duckdb"]


def _words(name: str) -> list[str]:
    """The words of an instruction's last JSON array."""
    text = re.sub(r"\\\n", " ", (ROOT / "deploy" / "Dockerfile").read_text())
    (line,) = [each for each in text.splitlines() if each.startswith(f"{name} ")]
    words: list[str] = json.loads(line[line.index("[") :])
    assert shlex.join(words)
    return words
