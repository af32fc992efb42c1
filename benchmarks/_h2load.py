"""Drives a gRPC method by h2load (Debian's nghttp2-client): a fixed payload, many connections, little processor."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np


class H2loadMissing(RuntimeError):
    """h2load is not installed."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one run of h2load saw."""

    per_second: float
    """Calls answered with HTTP status 200 in a second; gRPC's own status is not looked at."""
    p50_ms: float
    p99_ms: float
    failed: int
    """Calls that ended without an HTTP status 200."""


def drive(
    port: int,
    method: str,
    message: bytes,
    *,
    seconds: int,
    connections: int = 4,
    streams: int = 8,
    per_second: float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Load:
    """Call ``/package.Service/Method`` on a loopback port with one serialised message, again and again.

    ``streams``: calls in flight on each connection; ``per_second``: at most so many calls, all connections together.
    Raises H2loadMissing; RuntimeError where h2load fails.
    """
    if shutil.which("h2load") is None:
        raise H2loadMissing("h2load is not installed: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory() as folder:
        payload, log = Path(folder) / "payload", Path(folder) / "log"
        payload.write_bytes(struct.pack(">BI", 0, len(message)) + message)
        command = ["h2load", "--duration", str(seconds), "--warm-up-time", "1", "-c", str(connections)]
        command += ["-m", str(streams), "-t", "1", "-d", str(payload), "--log-file", str(log)]
        if per_second is not None:
            command += ["--rps", str(per_second / connections)]
        for name, value in {"content-type": "application/grpc", "te": "trailers", **(metadata or {})}.items():
            command += ["-H", f"{name}: {value}"]
        ended = subprocess.run(
            [*command, f"http://127.0.0.1:{port}{method}"], capture_output=True, text=True, check=False
        )
        if ended.returncode or not log.exists():
            raise RuntimeError(f"h2load ended with {ended.returncode}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}")
        # Start in microseconds, HTTP status, microseconds taken.
        rows = np.loadtxt(log, dtype=np.int64, ndmin=2)
        rate = re.search(r"finished in .*?, ([0-9.]+) req/s", ended.stdout)
        if rate is None or not len(rows):
            raise RuntimeError(f"h2load told no rate: {ended.stdout[-2000:]}")
        taken = rows[rows[:, 1] == 200, 2] / 1000
        return Load(
            per_second=float(rate[1]),
            p50_ms=float(np.percentile(taken, 50)),
            p99_ms=float(np.percentile(taken, 99)),
            failed=int((rows[:, 1] != 200).sum()),
        )
