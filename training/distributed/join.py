"""Workers of a further machine for a training that ``kithkin train`` started on the first one.

Waits for the plan, runs this machine's workers, and ends with torchrun's status::

    python -m training.distributed.join .kithkin/checkpoints/similar/plan.json
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from training.distributed.launch import environment_of, torchrun
from training.distributed.plan import Plan

_POLL_S = 1.0


def main() -> int:
    """Wait for the plan on the command line and run its workers."""
    parser = argparse.ArgumentParser(description="Run a further machine's workers of a training.")
    parser.add_argument("plan", type=Path, help="plan.json of a space, in the work folder that all machines share")
    path = parser.parse_args().plan
    while not path.exists():
        time.sleep(_POLL_S)
    plan = Plan.read(path)
    logs = plan.folder / f"workers-{socket.gethostname()}-{os.getpid()}"
    return subprocess.run(torchrun(path, plan, logs), env=environment_of(plan), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
