"""Write the reference pages of docs/ from the code; with --check, only say which are out of date."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generate_api
import generate_cli
import generate_configuration

FOLDER = Path(__file__).parent
PAGES: dict[str, Callable[[], str]] = {
    "api.md": generate_api.render,
    "cli.md": generate_cli.render,
    "configuration.md": generate_configuration.render,
}


def main() -> int:
    """Write or check every page; 1 where one is out of date."""
    stale = []
    for name, render in PAGES.items():
        page, text = FOLDER / name, render()
        if page.is_file() and page.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            page.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"out of date: {', '.join(stale)}; run make docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
