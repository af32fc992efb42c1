"""The main job from beginning to end on a generated catalogue: generate, build, serve, ask.

Run by `make demo`. Every step is a command that a person could type; the answers come over gRPC.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(".demo")
KITHKIN = [str(Path(sys.executable).with_name("kithkin"))]
CLICKED = "MATCH (u:User)-[w:WATCHED {kind: 'click'}]->(f:Film)"
POPULAR = f"{CLICKED} WITH f, count(u) AS n RETURN f.title AS name, n ORDER BY n DESC, f.id LIMIT 3"
ACTIVE = f"{CLICKED} WITH u, count(f) AS n RETURN u.id AS name, n ORDER BY n DESC, u.id LIMIT 1"
UNTOUCHED = """\
MATCH (f:Film) WHERE NOT EXISTS { MATCH (:User)-[:WATCHED]->(f) } RETURN f.title AS name ORDER BY f.id LIMIT 1"""
GENRES = """\
MATCH (f:Film)-[:HAS_GENRE]->(g:Genre) RETURN g.id, count(f) AS n ORDER BY n DESC, g.id LIMIT 5"""


def main() -> None:
    started = time.perf_counter()
    _heading("A catalogue with a planted truth: films, genres, tags, people, and what users watched")
    _show("generate", str(FOLDER), "--entities", "2000", "--users", "1500", "--seed", "1", "--force")

    _heading("Files to graph, graph to snapshot, snapshot to model, model to bundle")
    _show("build", "-p", str(FOLDER))

    _heading("The server, and three of the most watched films: what is similar, and why")
    with _server() as address:
        for row in _rows(POPULAR):
            _show("similar", row["name"], "-p", str(FOLDER), "--server", address, "-k", "5", "--reasons", "2")
        _heading("A film nobody ever watched: its metadata speaks for it")
        for row in _rows(UNTOUCHED):
            _show("similar", row["name"], "-p", str(FOLDER), "--server", address, "-k", "5", "--reasons", "2")
        _heading("What to show one user")
        for row in _rows(ACTIVE):
            _show("recommend", row["name"], "-p", str(FOLDER), "--server", address, "-k", "5", "--reasons", "1")

    _heading("Against the planted truth, beside the baselines")
    _show("evaluate", "-p", str(FOLDER))
    _verdict()

    _heading(f"Done in {time.perf_counter() - started:.0f} seconds. What to try next")
    print(
        f"""\
  kithkin serve -p {FOLDER}                        the server, in one terminal
  kithkin similar "..." -p {FOLDER} --reasons 3    ask it from another
  kithkin cypher -p {FOLDER} "{GENRES}"
  kithkin init FOLDER_WITH_YOUR_FILES           the same on your own data
The commands are in .venv/bin. examples/ has MovieLens and Last.FM; docs/ has a page a part."""
    )


@contextmanager
def _server() -> Iterator[str]:
    """A server on a free port, stopped at the end; yields its address."""
    port_file = FOLDER / "port"
    port_file.unlink(missing_ok=True)
    command = [*KITHKIN, "serve", "-p", str(FOLDER), "--port", "0", "--port-file", str(port_file)]
    print(f"$ kithkin {' '.join(command[1:])} &\n", flush=True)
    with (FOLDER / "server.observe.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(600):
            if port_file.exists() and process.poll() is None:
                break
            if process.poll() is not None:
                sys.exit(f"the server ended with {process.returncode}; see {FOLDER / 'server.observe.log'}")
            time.sleep(0.1)
        else:
            sys.exit(f"the server did not start within a minute; see {FOLDER / 'server.observe.log'}")
        yield f"127.0.0.1:{port_file.read_text().strip()}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def _show(*arguments: str) -> None:
    """Run a command as a person would, its output on the screen."""
    shown = " ".join(f'"{part}"' if " " in part else part for part in arguments)
    print(f"$ kithkin {shown}", flush=True)
    ended = subprocess.run([*KITHKIN, *arguments], env={**os.environ, "COLUMNS": "120"}, check=False)
    if ended.returncode:
        sys.exit(ended.returncode)
    print(flush=True)


def _rows(statement: str) -> list[dict[str, str]]:
    """Rows of a Cypher query on the demo's graph."""
    command = [*KITHKIN, "cypher", "-p", str(FOLDER), "--json", statement]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    rows: list[dict[str, str]] = json.loads(answer.stdout)
    return rows


def _verdict() -> None:
    """Which planted truth was met, in sentences, from the evaluation that was published with the bundle."""
    command = [*KITHKIN, "publish", "-p", str(FOLDER), "--json"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    about = {"truth": "The truly similar films", "truth_untouched": "The same for films nobody ever watched"}
    for protocol in json.loads(answer.stdout)["publish"]["evaluation"]["protocols"]:
        scores = {name: found["Recall@100"][0] for name, found in protocol["scores"].items() if "Recall@100" in found}
        if protocol["name"] not in about:
            continue
        ours = scores.pop("kithkin")
        best = max(scores, key=lambda name: scores[name])
        print(
            f"{about[protocol['name']]}: {ours:.0%} of them are among the first 100 of 2,000;"
            f" the best baseline ({best}) finds {scores[best]:.0%}, popularity {scores['popularity']:.0%}."
        )


def _heading(text: str) -> None:
    print(f"\n=== {text} ===\n", flush=True)


if __name__ == "__main__":
    main()
