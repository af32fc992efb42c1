"""The code of docs/client.md runs as it stands, in its order, and prints what stands behind its prints."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from graph_store.settings import ServingSettings
from kithkin import Client
from model_store.bundle_store import BundleStore
from server.wire.local import serve_in_thread
from tests.bundles import write_toy_bundle

PAGE = Path(__file__).parents[2] / "docs/client.md"
_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_PRINTED = re.compile(r"^\s*print\(.*\)  # (?P<behind>.+)$|^# (?P<below>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Recipe:
    """One block of the page."""

    heading: str
    line: int
    code: str

    @property
    def printed(self) -> list[str]:
        """What its comments say that it prints, in the order of the prints."""
        return [match["behind"] or match["below"] for match in _PRINTED.finditer(self.code)]


def recipes() -> list[Recipe]:
    text = PAGE.read_text(encoding="utf-8")
    return [
        Recipe(
            heading=re.findall(r"^## (.+)$", text[: match.start()], re.MULTILINE)[-1],
            line=text[: match.start("code")].count("\n") + 1,
            code=match["code"],
        )
        for match in _BLOCK.finditer(text)
    ]


RECIPES = recipes()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where the page's server and bundles are in this run."""
    store = BundleStore(tmp_path_factory.mktemp("models"))
    store.activate(write_toy_bundle(store))
    with serve_in_thread(store.open(), ServingSettings()) as port:
        yield {"localhost:50051": f"127.0.0.1:{port}", ".kithkin/models": store.root.as_posix()}


@pytest.fixture(scope="module")
def names(places: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What the blocks before have left: one namespace for the page, as for its reader."""
    with Client(places["localhost:50051"], timeout=60) as client:
        yield {"client": client, "__name__": "recipes"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.heading}, line {recipe.line}")
def test_a_recipe(recipe: Recipe, places: dict[str, str], names: dict[str, Any]) -> None:
    code = recipe.code
    for written, here in places.items():
        code = code.replace(f'"{written}"', f'"{here}"')
    kept = names["client"]
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            # The empty lines before it make a failure name the line of the page.
            exec(compile("\n" * (recipe.line - 1) + code, str(PAGE), "exec"), names)
    finally:
        names["client"] = kept  # a block may have closed one of its own
    assert output.getvalue().splitlines() == recipe.printed


def test_the_page_has_its_recipes() -> None:
    assert len(RECIPES) >= 12
    assert sum(len(recipe.printed) for recipe in RECIPES) >= 35
    # What a print writes is checked only where it stands behind it, or below all of them.
    for recipe in RECIPES:
        below = [line for line in recipe.code.splitlines() if line.startswith("# ")]
        for line in recipe.code.splitlines():
            if "print(" in line and not line.strip().startswith("#"):
                assert below or re.search(r"\)  # \S", line), f"line {recipe.line}: {line}"


def test_every_method_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in vars(Client):
        if not name.startswith("_"):
            assert f"{name}(" in text or f".{name}" in text, name
