"""Certificates made on the spot with openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with openssl")


def write_certificate(folder: Path, name: str, *, authority: str | None = None) -> None:
    """Write ``<name>.pem`` and ``<name>.key`` for localhost, signed by an authority of the folder or by themselves."""
    signed = () if authority is None else ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key")
    leaf = () if authority is None else ("-addext", "basicConstraints=critical,CA:FALSE")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}",
         "-addext", "subjectAltName=DNS:localhost", *signed, *leaf],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
