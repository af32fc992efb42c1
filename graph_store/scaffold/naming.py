"""What names of files and columns say, and the names of types, properties and relations made from them."""

from __future__ import annotations

import re
from collections.abc import Sequence


def text(value: str) -> str:
    """A TOML string."""
    if "'" not in value and ("\\" in value or '"' in value) and value.isprintable():
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in escaped) + '"'


def words(name: str) -> list[str]:
    """The words of a file's or a column's name, in lower case."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word]


def singular(word: str) -> str:
    """One of what a plural names."""
    if word.endswith("ies") and len(word) > 4 and word != "movies":
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 2 else word


def base(name: str) -> str:
    """What an id column names: ``movieId`` and ``movie_id`` -> ``movie``; a bare ``id`` -> nothing."""
    parts = words(name)
    if parts and parts[-1] in ("id", "key", "code", "uid", "uuid"):
        parts = parts[:-1]
    elif len(parts) == 1 and parts[0] != "id" and re.fullmatch(r"[a-z]{3,}id", parts[0]) and parts[0] not in ("paid",):
        parts = [parts[0][:-2]]
    return "_".join([*parts[:-1], singular(parts[-1])]) if parts else ""


def type_name(name: str) -> str:
    """A node type's name: ``film studio`` -> ``FilmStudio``."""
    joined = "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", name) if part)
    return (joined if joined[:1].isalpha() else f"Type{joined}")[:60]


def property_name(name: str, taken: Sequence[str] = ()) -> str:
    """A property's name: letters, digits and _, none of the reserved ones, none twice."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
    plain = plain if plain[0].isalpha() else f"p_{plain}"
    if plain.lower() in ("id", "source", "target"):
        plain += "_value"
    plain = plain[:60]
    number, unique = 2, plain
    while unique.lower() in {name.lower() for name in taken}:
        unique, number = f"{plain}_{number}", number + 1
    return unique


def relation_name(name: str) -> str:
    """A relation's name, in capitals."""
    plain = "_".join(words(name)).upper()
    return (plain if plain[:1].isalpha() else f"R_{plain}")[:60]
