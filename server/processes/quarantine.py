"""Which bundles were refused since ACTIVE was last written, kept in a file: a restart does not try them again."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

from model_store.durable import replace_text
from server.observe import log

FILE = "QUARANTINE"


class Quarantine:
    """Refused bundles and why. Whoever writes ACTIVE again has them all looked at again."""

    def __init__(self, root: Path) -> None:
        self._file = root / FILE

    def reasons(self, written: int) -> dict[str, str]:
        """Reasons by version, of what was refused while ACTIVE was as written then (``st_mtime_ns``)."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            noted = json.loads(self._file.read_text(encoding="utf-8"))
            if noted["active_written"] == written:
                return {str(version): str(reason) for version, reason in noted["refused"].items()}
        return {}

    def add(self, version: str, reason: str, written: int) -> None:
        """Note a refused bundle; a folder that cannot be written is logged, and no reason to stop."""
        refused = {**self.reasons(written), version: reason}
        try:
            replace_text(self._file, json.dumps({"active_written": written, "refused": refused}, indent=2) + "\n")
        except OSError as error:
            log.event(logging.WARNING, "quarantine cannot be noted", bundle=version, error=str(error))
