"""Evidence as English sentences, made from the names that kithkin.toml gives relations and types."""

from __future__ import annotations

import re

_PREPOSITIONS = frozenset({"by", "in", "of", "from", "at", "on", "with", "to", "for", "about", "under", "into"})


def shared(relation: str, concept_type: str, concept: str, *, reverse: bool = False) -> str:
    """What two nodes have in common: ``both have the tag shoegaze``; reversed: the concept points at both."""
    words = _words(relation)
    if reverse:
        if _reads_on(words):
            return f"{concept} {'is ' if _with_is(words) else ''}{' '.join(words)} both"
        return f"{concept} has both" if words[0] == "has" else f"both are {_singular(words)} of {concept}"
    if words[0] == "has":
        return f"both have the {spoken(concept_type)} {concept}"
    if _reads_on(words):
        return f"both {_said_of_both(words)} {concept}"
    return f"both have {concept} as {_singular(words)}"


def direct(source: str, relation: str, target: str) -> str:
    """One edge: ``Slowdive has Mojave 3 as associated band``."""
    words = _words(relation)
    if words[0] == "has":
        return f"{source} has {target}"
    if _reads_on(words):
        return f"{source} {'is ' if _with_is(words) else ''}{' '.join(words)} {target}"
    return f"{source} has {target} as {_singular(words)}"


def together(count: int | None, engagement: str | None) -> str:
    """Co-engagement: ``14 users played both``; where the count is not known, without it."""
    if count is None or engagement is None:
        return "the same users engage with both"
    people = "1 user" if count == 1 else f"{count:,} users"
    words = _words(engagement)
    if words[-1].endswith("ed"):
        return f"{people} {' '.join(words)} both"
    return f"{people} in common ({' '.join(words)})"


def rest(score: float, explained: float) -> str:
    """What evidence does not tell of a score: ``0.31 of 0.52 comes from ...``."""
    left = score - explained
    if left <= 0:
        return f"Without this evidence nothing is left of the score of {score:.2f}."
    return (
        f"{left:.2f} of {score:.2f} comes from what the two have in common with others without sharing it, "
        "from their properties, and from evidence that is not told."
    )


def engaged(engagement: str | None, entity: str, why: str) -> str:
    """Why something fits a user: ``played Slowdive, and both have the tag shoegaze``."""
    words = _words(engagement) if engagement else ["engaged", "with"]
    verb = " ".join(words) if words[-1].endswith("ed") or _reads_on(words) else "engaged with"
    return f"{verb} {entity}, and {why}"


def sentence(text: str) -> str:
    """First letter in upper case."""
    return text[:1].upper() + text[1:]


def spoken(node_type: str) -> str:
    """A type's name in the middle of a sentence: ``RecordLabel`` is ``record label``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", node_type).replace("_", " ").lower()


def _words(relation: str) -> list[str]:
    return [word for word in relation.lower().split("_") if word] or ["related"]


def _reads_on(words: list[str]) -> bool:
    """Whether the other end follows as it stands: ``directed by``, ``born in``, ``influenced``."""
    return words[-1] in _PREPOSITIONS or (len(words) == 1 and words[0].endswith("ed"))


def _with_is(words: list[str]) -> bool:
    """Whether it reads on after "is": ``directed by``, ``sequel of``; not ``belongs to`` or ``influenced``."""
    return words[-1] in _PREPOSITIONS and not _verb(words[0])


def _verb(word: str) -> bool:
    return word.endswith("s") and not word.endswith("ss")


def _said_of_both(words: list[str]) -> str:
    """``are directed by``, ``belong to``."""
    if _with_is(words):
        return f"are {' '.join(words)}"
    if _verb(words[0]):
        return " ".join([words[0].removesuffix("s"), *words[1:]])
    return " ".join(words)


def _singular(words: list[str]) -> str:
    """``STARS`` and ``BAND_MEMBERS`` as what one of them is."""
    last = words[-1]
    if last.endswith("ies"):
        return " ".join([*words[:-1], last[:-3] + "y"])
    return " ".join([*words[:-1], last.removesuffix("s") if not last.endswith("ss") else last])
