"""Errors of training, from the exported snapshot to the published bundle.

TrainingError
├── SnapshotError              a snapshot cannot be made or read
│   ├── SnapshotCorrupt        files of a snapshot are missing, cut short or changed
│   └── SnapshotVersionError   written in a format that this version does not read
├── CheckpointError            a trained model or checkpoint cannot be read
├── GraphTooSmall              the graph holds nothing that vectors could be made of
├── EncoderMismatch            the exported encoder does not compute what the trained one does
├── DistributedError           workers cannot be started, or one died for good
└── JudgementsError            the judgements cannot be read, or name nothing of the graph
"""

from __future__ import annotations


class TrainingError(Exception):
    """Base of every error this package raises on purpose.

    ``hint`` says what to do about it, in one sentence; ``exit_code`` is what the command line ends with.
    """

    exit_code = 6

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class SnapshotError(TrainingError):
    """A snapshot cannot be made from the store, or cannot be read."""


class SnapshotCorrupt(SnapshotError):
    """Files of a snapshot are missing, cut short or changed."""


class SnapshotVersionError(SnapshotError):
    """The snapshot was written in a format that this version does not read."""


class CheckpointError(TrainingError):
    """A trained model or checkpoint cannot be read."""


class GraphTooSmall(TrainingError):
    """The graph holds nothing that vectors could be made of."""


class EncoderMismatch(TrainingError):
    """The exported encoder does not compute what the trained one does."""


class DistributedError(TrainingError):
    """Workers cannot be started, or one died for good."""


class JudgementsError(TrainingError):
    """The judgements cannot be read, or name nothing of the graph."""

    exit_code = 4
