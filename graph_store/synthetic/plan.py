"""The hidden truth of a generated catalogue: where films, people and users stand in a space of tastes.

A film stands near one of the themes, leans towards a second one, and has something of its own; its tags, people and
viewers are drawn from its place in this space, with noise. Nothing that is written says the place itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_store.synthetic.words import THEMES

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

DIMENSION = 16
"""Of the space of tastes: fewer than themes, so that some themes are closer to each other than others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The places of everything, before a row is written."""

    themes: Floats
    """``[themes, DIMENSION]``, length 1, like all places."""
    films: Floats
    """``[films, DIMENSION]``."""
    main_theme: Ints
    """The theme that each film stands nearest to ``[films]``."""
    popularity: NDArray[np.float64]
    """Chance of a film to come up, whatever the viewer's taste; 0 for films that nobody has touched ``[films]``."""
    sequel_of: Ints
    """The film that a film continues, -1 for most ``[films]``."""
    book: Ints
    """The book that a film is made from, -1 for most ``[films]``."""
    users: Floats
    """``[users, DIMENSION]``."""

    @property
    def cold(self) -> NDArray[np.bool_]:
        """Films that nobody has touched ``[films]``."""
        cold: NDArray[np.bool_] = self.popularity == 0
        return cold


def make_plan(*, films: int, users: int, cold_share: float, rng: np.random.Generator) -> Plan:
    """Draw the places of ``films`` and ``users``."""
    themes = _unit(rng.standard_normal((len(THEMES), DIMENSION), dtype=np.float32))
    places, main = place_near(themes, films, rng)

    # Rare relations carry signal of their own: a sequel, or a film of the same book, is almost the same film.
    sequel_of = np.full(films, -1, dtype=np.int64)
    rare = rng.permutation(films)
    sequels = rare[: films * 6 // 100]
    originals = rare[films * 6 // 100 : films * 40 // 100]
    sequel_of[sequels] = originals[rng.permutation(len(originals))[: len(sequels)]]
    places[sequels] = _beside(places[sequel_of[sequels]], 0.15, rng)
    main[sequels] = main[sequel_of[sequels]]
    book = np.full(films, -1, dtype=np.int64)
    filmed = rare[films * 40 // 100 : films * 46 // 100]
    book[filmed] = np.arange(len(filmed)) // 3
    first = filmed[book[filmed] * 3]
    places[filmed] = _beside(places[first], 0.2, rng)
    main[filmed] = main[first]

    rank = rng.permutation(films) + 1
    popularity = (rank + 5.0) ** -0.8  # a Zipf-like tail with a flattened head (Mandelbrot 1953)
    popularity[rng.permutation(films)[: round(films * cold_share)]] = 0
    tastes, _ = place_near(themes, users, rng, second=0.8, own=0.25)
    return Plan(
        themes=themes,
        films=places,
        main_theme=main,
        popularity=popularity / popularity.sum(),
        sequel_of=sequel_of,
        book=book,
        users=tastes,
    )


def place_near(
    themes: Floats, count: int, rng: np.random.Generator, *, second: float = 0.9, own: float = 0.2
) -> tuple[Floats, Ints]:
    """``count`` places, each near a theme (returned too), leaning towards a second, with a share of its own."""
    main = rng.integers(0, len(themes), count)
    other = rng.integers(0, len(themes), count)
    lean = (second * rng.random(count, dtype=np.float32))[:, None]
    noise = rng.standard_normal((count, DIMENSION), dtype=np.float32) * np.float32(own / np.sqrt(DIMENSION))
    return _unit(themes[main] + lean * themes[other] + noise), main


def _beside(places: Floats, distance: float, rng: np.random.Generator) -> Floats:
    noise = rng.standard_normal(places.shape, dtype=np.float32) * np.float32(distance / np.sqrt(DIMENSION))
    return _unit(places + noise)


def _unit(places: Floats) -> Floats:
    lengths: Floats = np.linalg.norm(places, axis=1, keepdims=True).astype(np.float32)
    return places / lengths


def weighted_draws(weights: NDArray[np.floating[Any]], shape: tuple[int, ...], rng: np.random.Generator) -> Ints:
    """Indices drawn in proportion to the weights, with replacement."""
    cumulative = np.cumsum(weights)
    drawn = np.searchsorted(cumulative, rng.random(shape) * cumulative[-1], side="right")
    # Rounding may put a draw past the last index of any weight.
    found: Ints = np.minimum(drawn, np.flatnonzero(weights)[-1]).astype(np.int64)
    return found


def softmax_choices(scores: Floats, count: int, rng: np.random.Generator) -> Ints:
    """For each row ``count`` different columns, drawn by the softmax of the scores (Gumbel top-k, Kool et al. 2019)."""
    noisy = scores + rng.gumbel(size=scores.shape).astype(np.float32)
    if count == 1:
        best: Ints = np.argmax(noisy, axis=1)[:, None]
        return best
    ranked: Ints = np.argsort(-noisy, axis=1, kind="stable")[:, :count]
    return ranked
