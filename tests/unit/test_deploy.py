"""The container files name what is there: paths, extras, commands, settings."""

from __future__ import annotations

import fnmatch
import re
import shlex
import tomllib
from pathlib import Path

from graph_store.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE = (ROOT / "deploy" / "compose.yaml").read_text()


def instructions(name: str) -> list[list[str]]:
    """Words of every instruction of a kind, lines that go on put together."""
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [shlex.split(line)[1:] for line in lines if line.split()[0] == name]


def copied() -> list[str]:
    """What is copied from the repository."""
    return [source for words in instructions("COPY") if "--from=install" not in words for source in words[:-1]]


def in_context(name: str) -> bool:
    """Whether .dockerignore lets a top-level name through: the last line that fits says so."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().split():
        if fnmatch.fnmatch(name, line.removeprefix("!")):
            kept = line.startswith("!")
    return kept


def test_what_is_copied_is_there_and_in_the_context() -> None:
    assert copied()
    for name in copied():
        assert (ROOT / name).exists(), name
        assert in_context(name), name
    assert not in_context(".venv")


def test_every_package_is_copied() -> None:
    assert set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= set(copied())
    assert {PROJECT["project"]["readme"], "client", "pyproject.toml"} <= set(copied())


def test_what_is_installed_is_declared() -> None:
    (install,) = [words for words in instructions("RUN") if "install" in words]
    assert install[-2:] == ["./client", ".[${EXTRAS}]"]
    given = [instructions("ARG")[0][0].split("=")[1]]
    given += re.findall(r"EXTRAS: (\S+)", COMPOSE)
    assert len(given) == 2
    for extras in given:
        assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"]), extras


def test_python_is_one_that_is_allowed() -> None:
    (version,) = {words[0].removeprefix("python:").removesuffix("-slim") for words in instructions("FROM")}
    assert f">={version}" in PROJECT["project"]["requires-python"]


def test_commands_are_there() -> None:
    from cli.main import app

    commands = {command.name for command in app.registered_commands}
    assert instructions("ENTRYPOINT")[0] == ["[kithkin]"]
    assert "kithkin" in PROJECT["project"]["scripts"]
    named = re.findall(r'^    command: \["(\w+)"', COMPOSE, re.MULTILINE)
    assert named == ["build", "serve"]
    assert set(named) <= commands
    built = re.findall(r"context: (\S+)\n\s+dockerfile: (\S+)", COMPOSE)
    assert len(built) == 2
    for context, dockerfile in built:
        assert (ROOT / "deploy" / context / dockerfile).resolve() == DOCKERFILE


def test_the_environment_names_settings() -> None:
    names = set(re.findall(r"^\s+KITHKIN_(\w+):", COMPOSE, re.MULTILINE)) - {"STORE_PASSWORD"}
    assert names == {"STORE__URI", "SERVING__WORKERS"}
    for name in names:
        section, key = name.lower().split("__")
        assert key in type(getattr(Settings(), section)).model_fields, name


def test_neo4j_is_the_one_that_is_tested() -> None:
    tested = re.search(r"<neo4j.version>(\d+\.\d+)", (ROOT / "tests" / "neo4j" / "pom.xml").read_text())
    assert tested is not None
    assert f"image: neo4j:{tested.group(1)}\n" in COMPOSE
