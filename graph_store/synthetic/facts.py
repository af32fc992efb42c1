"""What is known of each generated film: titles, people, tags, studios, books."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graph_store.synthetic import words
from graph_store.synthetic.plan import Floats, Ints, Plan, place_near, softmax_choices, weighted_draws

_BLOCK = 8192
"""Films drawn for at once."""
_SHORT_TITLES = 20_000
_CANDIDATES = 48
"""People who are asked for a part; taste chooses among them."""


def numbered(prefix: str, count: int) -> pa.Array:
    """Ids such as ``f0042``, all of one length, so that text and number sort alike."""
    width = len(str(max(count, 1)))
    numbers = pc.utf8_lpad(pa.array(np.arange(1, count + 1)).cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, numbers, "")


def _pick(texts: Sequence[str], index: Ints) -> pa.Array:
    return pa.array(texts, pa.string()).take(pa.array(index))


def _joined(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def titles(plan: Plan, rng: np.random.Generator) -> pa.Array:
    """One title a film, all different; half of them hint at the theme, a sequel is called after its film."""
    count = len(plan.films)
    nouns = np.array(words.NOUNS)
    hints = np.array([[word.title() for word in tags] for tags in words.THEMES.values()])
    hinted = hints[plan.main_theme, rng.integers(0, hints.shape[1], count)]
    noun = np.where(rng.random(count) < 0.5, hinted, nouns[rng.integers(0, len(nouns), count)])
    adjective = rng.integers(0, len(words.ADJECTIVES), count)
    other = rng.integers(0, len(words.NOUNS), count)
    place = rng.integers(0, len(words.PLACES), count)
    # Two words make some ten thousand titles, four make millions.
    pattern = rng.integers(0, 5, count) if count <= _SHORT_TITLES else rng.integers(2, 7, count)
    first = pa.array(noun.tolist(), pa.string())
    shapes = [
        _joined("The ", _pick(words.ADJECTIVES, adjective), " ", first),
        _joined(_pick(words.ADJECTIVES, adjective), " ", first),
        _joined("The ", first, " of ", _pick(words.PLACES, place)),
        _joined(first, " and ", _pick(words.NOUNS, other)),
        _joined(_pick(words.NOUNS, other), " for the ", first),
        _joined("The ", _pick(words.ADJECTIVES, adjective), " ", first, " of ", _pick(words.PLACES, place)),
        _joined(_pick(words.ADJECTIVES, adjective), " ", first, " for the ", _pick(words.NOUNS, other)),
    ]
    made = pc.choose(pa.array(pattern), *shapes)
    continued = plan.sequel_of >= 0
    originals = made.take(pa.array(np.where(continued, plan.sequel_of, 0)))
    made = pc.if_else(pa.array(continued), _joined(originals, " II"), made)
    return _different(made)


def _different(made: pa.Array) -> pa.Array:
    """The same texts, with a number on every repetition: no text twice."""
    while True:
        codes = np.asarray(made.dictionary_encode().indices).astype(np.int64)
        order = np.argsort(codes, kind="stable")
        starts = np.concatenate([[True], np.diff(codes[order]) != 0])
        place = np.arange(len(codes)) - np.flatnonzero(starts)[np.cumsum(starts) - 1]
        repetition = np.empty(len(codes), dtype=np.int64)
        repetition[order] = place
        if not repetition.any():
            return made
        number = pa.array(repetition + 1).cast(pa.string())
        made = pc.if_else(pa.array(repetition > 0), _joined(made, ": Part ", number), made)


def person_names(count: int, rng: np.random.Generator) -> pa.Array:
    """Invented names; with many people some share one, as in life."""
    first = _pick(words.FIRST_NAMES, rng.integers(0, len(words.FIRST_NAMES), count))
    last = _pick(words.LAST_NAMES, rng.integers(0, len(words.LAST_NAMES), count))
    initial = _pick([chr(65 + letter) + ". " for letter in range(26)], rng.integers(0, 26, count))
    middle = pc.if_else(pa.array(rng.random(count) < 0.3), initial, "")
    return _joined(first, " ", middle, last)


def studio_names(count: int, rng: np.random.Generator) -> pa.Array:
    """Invented names, all different."""
    last = _pick(words.LAST_NAMES, rng.integers(0, len(words.LAST_NAMES), count))
    return _different(_joined(last, " ", _pick(words.STUDIO_WORDS, rng.integers(0, len(words.STUDIO_WORDS), count))))


def book_names(count: int, rng: np.random.Generator) -> pa.Array:
    """Invented names, all different."""
    adjective = _pick(words.ADJECTIVES, rng.integers(0, len(words.ADJECTIVES), count))
    noun = _pick(words.NOUNS, rng.integers(0, len(words.NOUNS), count))
    place = _pick(words.PLACES, rng.integers(0, len(words.PLACES), count))
    return _different(_joined("The ", adjective, " ", noun, " of ", place))


def tag_names() -> list[str]:
    """All tags: those of the themes in order, then those that say nothing."""
    return [tag for tags in words.THEMES.values() for tag in tags] + list(words.GENERIC_TAGS)


def film_tags(plan: Plan, rng: np.random.Generator) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Blocks of (film, tag, how many people gave it): some by taste, some by chance; one film has none to twelve."""
    themed = len(words.THEMES) * len(words.THEMES["heist"])
    own, _ = _leaning(plan.themes, themed // len(plan.themes), rng)
    liking = (rng.random(themed + len(words.GENERIC_TAGS)) * 1.5).astype(np.float32)
    for start in range(0, len(plan.films), _BLOCK):
        films = plan.films[start : start + _BLOCK]
        scores = np.zeros((len(films), len(liking)), dtype=np.float32)
        scores[:, :themed] = 9 * (films @ own.T)
        scores += liking
        scores[:, themed:] += 4.5
        tags = softmax_choices(scores, 12, rng)
        kept = np.arange(12) < np.minimum(rng.poisson(4.5, len(films)), 12)[:, None]
        given = 1 + rng.poisson(1.5, tags.shape)
        film = np.broadcast_to(np.arange(start, start + len(films))[:, None], tags.shape)
        yield film[kept], tags[kept], given[kept]


def _leaning(themes: Floats, each: int, rng: np.random.Generator) -> tuple[Floats, Ints]:
    """``each`` places around every theme, in order."""
    main = np.repeat(np.arange(len(themes)), each)
    noise = rng.standard_normal((len(main), themes.shape[1]), dtype=np.float32) * np.float32(0.5 / 4)
    places = themes[main] + noise
    return places / np.linalg.norm(places, axis=1, keepdims=True), main


def film_genres(plan: Plan, rng: np.random.Generator) -> Iterator[Ints]:
    """Blocks ``[films, 3]`` of genres, -1 for none: coarse, one to three a film."""
    leaning = np.array([[genre in genres for genre in words.GENRES] for genres in words.THEME_GENRES.values()])
    own = leaning.T.astype(np.float32) @ plan.themes
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    for start in range(0, len(plan.films), _BLOCK):
        films = plan.films[start : start + _BLOCK]
        genres = softmax_choices(8 * (films @ own.T), 3, rng)
        more = rng.random(genres.shape) < np.array([1.0, 0.6, 0.25])
        yield np.where(np.minimum.accumulate(more, axis=1), genres, -1)


def film_people(plan: Plan, people: int, rng: np.random.Generator) -> Iterator[tuple[Ints, Ints]]:
    """Blocks of directors ``[films]`` and actors ``[films, 4]`` (-1 for none): people who keep to their tastes."""
    places, _ = place_near(plan.themes, people, rng, second=0.7, own=0.3)
    directing = max(people // 4, 1)
    for start in range(0, len(plan.films), _BLOCK):
        films = plan.films[start : start + _BLOCK]
        asked = rng.integers(0, directing, (len(films), _CANDIDATES))
        chosen = softmax_choices(16 * _match(films, places[asked]), 1, rng)
        director = np.take_along_axis(asked, chosen, axis=1)[:, 0]
        fame = (np.arange(directing, people) - directing + 10.0) ** -0.5
        asked = directing + weighted_draws(fame, (len(films), _CANDIDATES), rng)
        actors = np.take_along_axis(asked, softmax_choices(16 * _match(films, places[asked]), 4, rng), axis=1)
        kept = np.arange(4) < rng.integers(2, 5, len(films))[:, None]
        # The same person may be asked twice.
        again = np.triu(actors[:, None, :] == actors[:, :, None], 1).any(axis=1)
        yield director, np.where(kept & ~again, actors, -1)


def film_studios(plan: Plan, studios: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Blocks of studios ``[films]``: big ones make everything, a weak hint at most."""
    places, _ = place_near(plan.themes, studios, rng)
    size = (np.arange(studios) + 2.0) ** -0.7
    for start in range(0, len(plan.films), _BLOCK):
        films = plan.films[start : start + _BLOCK]
        asked = weighted_draws(size, (len(films), 6), rng)
        chosen = softmax_choices(2 * _match(films, places[asked]), 1, rng)
        yield np.take_along_axis(asked, chosen, axis=1)[:, 0]


def _match(films: Floats, candidates: Floats) -> Floats:
    """Cosine of every film with its candidates ``[films, candidates]``."""
    found: Floats = np.einsum("fd,fcd->fc", films, candidates)
    return found


def joined_known(parts: Sequence[pa.Array], separator: str) -> pa.Array:
    """The texts of each row that are there, with the separator between them."""
    return pc.binary_join_element_wise(*parts, separator, null_handling="skip")
