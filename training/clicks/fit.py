"""Training of the click network: spans of the past, each asked for from what was before it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from graph_store.progress import NoProgress, Progress
from graph_store.settings import ClickNetworkSettings
from training.clicks.batches import COUNTS, ClickBatcher, message_types, node_types
from training.clicks.data import ClickFrame, Clicks, newest
from training.clicks.model import ClickBatch, ClickNetwork
from training.fit_features import fit_features

Floats = NDArray[np.float32]

EARLY_STOPPING_SHARE = 0.2
"""Newest share of the supervision rows that the training is stopped by (and the click models' settings chosen by)."""
_LEAST_BATCHES = 4


@dataclass(frozen=True, kw_only=True)
class FittedNetwork:
    """A trained network, and how the training went."""

    network: ClickNetwork
    batcher: ClickBatcher
    epochs: int
    """Passes made; the best is kept."""
    validated: float
    """ROC-AUC on the newest supervision rows, from the message links."""
    seconds: float

    def vectors(self, frame: ClickFrame, links: Clicks, rows: Clicks) -> tuple[Floats, Floats, Floats]:
        """Vectors of the rows' users and entities ``[rows, dimension]`` and the logits ``[rows]``, from these links."""
        return _applied(self.network, ClickBatcher(frame, links, self.network.settings, seed=0), rows)


def fit_network(
    frame: ClickFrame, settings: ClickNetworkSettings, *, seed: int, progress: Progress | None = None
) -> FittedNetwork:
    """Train on ``settings.windows`` spans of the message rows, newest back; with 0, on the supervision rows.

    Each span is as long as the supervision part, and asked for from the links before it, as the supervision rows are
    from the message links: nothing that carries a message for an example is of its time or later. So the vectors of the
    supervision rows are of a network that has not learned from them, as those of the test rows are, and a click model
    may learn from them what they are worth. With 0 they are not, and it overrates them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _fitted(frame, settings, seed, progress or NoProgress())


def _fitted(frame: ClickFrame, settings: ClickNetworkSettings, seed: int, progress: Progress) -> FittedNetwork:
    rng = np.random.default_rng(seed)
    begun = time.monotonic()
    network = build_network(frame, settings, seed=seed)
    validation = newest(frame.split.supervision, EARLY_STOPPING_SHARE, frame.how)
    batcher = ClickBatcher(frame, frame.split.message, settings, seed=seed)
    spans = _spans(frame, settings, validation)
    learner = _Sampled(frame, settings, spans, batcher) if settings.fan_out else _Whole(frame, settings, spans, seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    best, kept, waited, epoch = -1.0, network.state_dict(), 0, 0
    with progress.task("train clicks", settings.epochs, "epochs") as task:
        for epoch in range(1, settings.epochs + 1):
            network.train()
            for batch, clicked in learner.batches(rng, epoch):
                logits = network(batch)
                loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(clicked.astype(np.float32)))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            area = _area(network, batcher, frame.split.supervision.take(validation))
            task.advance(1, auc=round(area, 4))
            waited += 1
            if area > best:
                best, waited = area, 0
                kept = {name: value.clone() for name, value in network.state_dict().items()}
            if waited == settings.patience:
                break
    network.load_state_dict(kept)
    return FittedNetwork(
        network=network.eval(),
        batcher=batcher,
        epochs=epoch,
        validated=best,
        seconds=round(time.monotonic() - begun, 1),
    )


def build_network(frame: ClickFrame, settings: ClickNetworkSettings, *, seed: int) -> ClickNetwork:
    """An untrained network with features fitted on the graph without any engagement of the protocol's relation."""
    nothing = frame.split.message.take(np.zeros(0, np.int64))
    graph = frame.graph(nothing)
    transforms = fit_features(graph, dimension=settings.input_dimension, seed=seed)
    edge_types = message_types(frame, settings)
    types = node_types(frame, edge_types)
    features = {
        name: torch.from_numpy(transforms.apply(name, graph.properties(name), graph.links(name))) for name in types
    }
    return ClickNetwork(
        features,
        settings,
        user_type=frame.user_type,
        entity_type=frame.entity_type,
        counts=COUNTS,
        edge_types=len(edge_types),
    )


@dataclass(frozen=True, kw_only=True)
class _Span:
    """Rows that are asked for together, from the message links before ``begin``."""

    rows: Clicks
    begin: int


def _spans(frame: ClickFrame, settings: ClickNetworkSettings, validation: NDArray[np.bool_]) -> list[_Span]:
    message, supervision = frame.split.message, frame.split.supervision
    if not settings.windows:
        return [_Span(rows=supervision.take(~validation), begin=np.iinfo(np.int64).max)]
    begins = frame.span_begins(settings.windows)
    number = np.searchsorted(begins, message.place, side="right") - 1
    return [_Span(rows=message.take(number == each), begin=int(begin)) for each, begin in enumerate(begins)]


class _Sampled:
    """Batches of disjoint sampled subgraphs, the examples of all spans mixed."""

    def __init__(
        self, frame: ClickFrame, settings: ClickNetworkSettings, spans: list[_Span], batcher: ClickBatcher
    ) -> None:
        self._batcher = batcher
        self._rows = spans[0].rows
        for span in spans[1:]:
            self._rows = self._rows + span.rows
        self._before = np.concatenate([np.full(len(span.rows), span.begin) for span in spans])
        self._size = min(settings.batch_size, max(len(self._rows) // _LEAST_BATCHES, 1))

    def batches(self, rng: np.random.Generator, epoch: int) -> Iterator[tuple[ClickBatch, NDArray[np.bool_]]]:
        order = rng.permutation(len(self._rows))
        for first in range(0, len(order), self._size):
            chosen = order[first : first + self._size]
            rows = self._rows.take(chosen)
            yield self._batcher.sampled(rows, self._before[chosen], key=epoch * len(order) + first), rows.clicked


class _Whole:
    """Batches of one span each, over all nodes and all links before it: exact, for graphs that are small."""

    def __init__(self, frame: ClickFrame, settings: ClickNetworkSettings, spans: list[_Span], seed: int) -> None:
        message = frame.split.message
        self._spans = [
            (span.rows, ClickBatcher(frame, message.take(message.place < span.begin), settings, seed=seed))
            for span in spans
        ]
        rows = sum(len(span.rows) for span in spans)
        self._size = min(settings.batch_size, max(rows // _LEAST_BATCHES, 1))

    def batches(self, rng: np.random.Generator, epoch: int) -> Iterator[tuple[ClickBatch, NDArray[np.bool_]]]:
        parts = []
        for number, (rows, _) in enumerate(self._spans):
            order = rng.permutation(len(rows))
            parts += [(number, order[first : first + self._size]) for first in range(0, len(order), self._size)]
        for each in rng.permutation(len(parts)):
            number, chosen = parts[each]
            rows, batcher = self._spans[number]
            asked = rows.take(chosen)
            yield batcher.whole(asked), asked.clicked


@torch.no_grad()
def _applied(network: ClickNetwork, batcher: ClickBatcher, rows: Clicks) -> tuple[Floats, Floats, Floats]:
    network.eval()
    batch = batcher.whole(rows)
    states = network.states(batch)
    users, entities = states[batch.users], states[batch.entities]
    return (
        network.vectors(network.user_type, users).numpy(),
        network.vectors(network.entity_type, entities).numpy(),
        network.logits(users, entities).numpy(),
    )


def _area(network: ClickNetwork, batcher: ClickBatcher, rows: Clicks) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(rows.clicked, _applied(network, batcher, rows)[2]))
