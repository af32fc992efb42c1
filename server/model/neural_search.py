"""Search by a bundle's neural score: the similarity graph is walked, and the network scores a frontier at a time.

NANN, Chen et al. 2022, arXiv 2202.10226; docs/methods/nann.md. The walk is ``model_store.beam_search``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from model_store.beam_search import beam_search, exhaustive
from model_store.bundle import Bundle
from model_store.neural_files import NeuralFiles
from model_store.onnx_scorer import OnnxScorer
from server.deadline import Deadline
from server.errors import DeadlinePassed, NodeWithoutVector, NoScorer, SelfTestFailed
from server.index.selection import Selection
from server.index.vector_index import Found, Rows, Vectors
from server.model.catalogue import NodeKey

_NONE = np.empty(0, np.int64)
_MARGIN_S = 0.02
"""Kept of a deadline for what comes after the search: the response, and its way back."""
_MARGIN_SHARE = 0.25
"""Of what is left at the start, at most so much is kept."""


class NeuralSearch:
    """Answers from one bundle's neural scorer. Its calls take milliseconds of one thread: keep them out of the loop."""

    def __init__(self, bundle: Bundle, files: NeuralFiles) -> None:
        """Load the scorer. Raises ScorerMismatch where its file does not read these vectors."""
        self._files = files
        self._lists = bundle.neighbours(files.events)
        # A call is one small batch: threads would cost more than they give.
        self._scorer = OnnxScorer(files.scorer, files.entities.shape[1], threads=1)
        self.user_type = files.events.node_type
        self.entity_type = files.events.neighbour_type

    def __len__(self) -> int:
        """Entities that can be found."""
        return len(self._files.entities)

    def self_test(self, version: str) -> None:
        """Search once, for nobody; it also compiles the walk. Raises SelfTestFailed."""
        try:
            found = self.search(_NONE, 1, exclude=_NONE, allowed=None, deadline=Deadline())
            walked = beam_search(self._files.graph, self._score(_NONE), k=1, settings=self._files.search)
        except Exception as error:
            raise SelfTestFailed(
                f"bundle {version}: the neural scorer does not run: {error}",
                hint="Publish again; the bundle that served before is kept.",
            ) from error
        if len(self) and not (len(found.rows) and len(walked.entities)):
            raise SelfTestFailed(
                f"bundle {version}: the neural scorer gives no finite score",
                hint="Publish again; the bundle that served before is kept.",
            )

    def check_target(self, target: str, field: str) -> None:
        """Raise NoScorer where the scorer does not score this entity type."""
        if target != self.entity_type:
            raise NoScorer(
                f"{field}: the bundle's neural scorer scores {self.entity_type}, not {target}",
                hint="Leave `score` out: the space's own score takes every type.",
            )

    def events_of(self, user: NodeKey, user_id: str, field: str) -> Rows:
        """What a user engaged with last, rows of the entity type, oldest first.

        Raises NoScorer for another user type, NodeWithoutVector for a user without engagements.
        """
        if user.type != self.user_type:
            raise NoScorer(
                f"{field}: the bundle's neural scorer reads the events of {self.user_type}, not of {user.type}",
                hint="Leave `score` out: the space's own score takes every type.",
            )
        # Lists are the newest first where there are times, else the heaviest first.
        newest = np.asarray(self._lists.indices[self._lists.row(user.row)])[: self._files.max_events]
        if not len(newest):
            raise NodeWithoutVector(
                field,
                user.type,
                user_id,
                f"the {user.type} {user_id!r} engaged with no {self.entity_type}",
                hint="The neural score reads what a user engaged with.",
            )
        return newest[::-1].astype(np.int64)

    def events_among(self, touched: Sequence[NodeKey], field: str) -> Rows:
        """The same of told events, given the newest first. Raises NoScorer where none is of the entity type."""
        rows = [key.row for key in touched if key.type == self.entity_type][: self._files.max_events]
        if not rows:
            raise NoScorer(
                f"{field}: the bundle's neural scorer reads events of {self.entity_type}, and there are none",
                hint="Leave `score` out: the space's own score takes every type.",
            )
        return np.array(rows[::-1], np.int64)

    def scores(self, events: Rows, rows: Rows) -> Vectors:
        """Scores float32 ``[n]`` of entity rows for a user of these events (rows, oldest first)."""
        return self._score(events)(rows)

    def prepared(self, events: Rows, k: int, exclude: Rows, allowed: Selection | None) -> Callable[[Deadline], Found]:
        """The search as ``server.calls.search`` calls it."""
        return lambda deadline: self.search(events, k, exclude=exclude, allowed=allowed, deadline=deadline)

    def search(self, events: Rows, k: int, *, exclude: Rows, allowed: Selection | None, deadline: Deadline) -> Found:
        """The best ``k`` entities for a user of these events (rows, oldest first), as far as the search finds them.

        Of ``allowed`` rows (None: all) less ``exclude``; where these are so few that the walk would score more, all of
        them are scored. Shortly before the deadline it ends with the best so far. Raises DeadlinePassed where there is
        no time to begin.
        """
        files, count = self._files, len(self)
        stop = _stop(deadline)
        if stop():
            raise DeadlinePassed(
                "the deadline passed before the neural search", hint="Give the call more time, or ask for less."
            )
        score = self._score(events)
        passing = count - len(exclude) if allowed is None else len(allowed)
        # A walk scores `share` of all; where few may be answered, it goes on for all / few times as long.
        if passing * passing <= files.share_evaluated * count * count:
            rows = np.arange(count) if allowed is None else allowed.rows
            rows = np.setdiff1d(rows, exclude) if len(exclude) else rows
            found = exhaustive(rows, score, k=k, stop=stop)
            return Found(
                rows=found.entities,
                scores=found.scores,
                exact=not found.truncated,
                scored=found.evaluations,
                truncated=found.truncated,
                network_calls=found.rounds,
            )
        found = beam_search(
            files.graph, score, k=k, settings=files.search, allowed=_mask(count, exclude, allowed), stop=stop
        )
        return Found(
            rows=found.entities,
            scores=found.scores,
            exact=False,
            scored=found.evaluations,
            truncated=found.truncated,
            network_calls=found.rounds,
        )

    def _score(self, events: Rows) -> Callable[[Rows], Vectors]:
        table = self._files.entities
        vectors, mask = np.asarray(table[events]), np.ones(len(events), np.bool_)
        return lambda rows: self._scorer(vectors, mask, np.asarray(table[rows]))


def _mask(count: int, exclude: Rows, allowed: Selection | None) -> NDArray[np.bool_] | None:
    """What may be answered, ``[entities]``; None: everything."""
    if allowed is None and not len(exclude):
        return None
    mask = np.ones(count, np.bool_) if allowed is None else allowed.mask.copy()
    mask[exclude] = False
    return mask


def _stop(deadline: Deadline) -> Callable[[], bool]:
    """Whether another call of the network would end too late, judged by the longest time between two so far."""
    margin = min(_MARGIN_S, _MARGIN_SHARE * deadline.left)
    longest, last = 0.0, time.perf_counter()

    def stop() -> bool:
        nonlocal longest, last
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        return deadline.left < margin + longest

    return stop
