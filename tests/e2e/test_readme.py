"""The README's session and its Python run as they stand there, against a real build."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.e2e.conftest import kithkin, serving

README = Path(__file__).parents[2] / "README.md"


def test_the_session_and_the_python_of_the_readme(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    (session,) = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    commands = re.findall(r"^\$ kithkin (.*?)(?:\s+# .*)?$", session, re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        arguments = shlex.split(command)
        if arguments[0] == "serve":
            continue
        ended = kithkin(*arguments, folder=tmp_path)
        if arguments[0] == "cypher":
            assert ended.out.strip() in session, "the graph is generated: its rows are the same everywhere"
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with serving(tmp_path / "films") as address:
        printed: list[tuple[object, ...]] = []
        exec(code.replace("localhost:50051", address), {"print": lambda *values: printed.append(values)})
    assert len(printed) == 5
    assert all(0 < score <= 1 and reasons for _, score, reasons in printed[:3])
    assert [len(results) for (results,) in printed[3:]] == [5, 10]
