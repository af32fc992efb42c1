"""A catalogue of ten films whose right answers are known by construction.

    Space films                          Love films
    s1 s2 s3 s4   s5 (nobody saw it)     l1 l2 l3 l4   l5 (nobody saw it)
     \\ |  | /     |                       \\ |  | /     |
      [Space]     [Space]                  [Love]     [Love]
       ann, bob, cem watch s1..s4          dan, eve, fay watch l1..l4
       (cem not s4)                        (fay not l4)

Every space film is closer to any space film than to a love film, s5 and l5 included, of which only genre and year are
known; cem should be shown s4 first, fay l4.
"""

from __future__ import annotations

from pathlib import Path

SPACE = ("s1", "s2", "s3", "s4", "s5")
LOVE = ("l1", "l2", "l3", "l4", "l5")
TITLES = {
    **dict(zip(SPACE, ("Alien Dawn", "Star Harbour", "Moon Base", "The Void", "New Orbit"), strict=True)),
    **dict(zip(LOVE, ("First Kiss", "Paris in May", "Two Letters", "The Wedding", "Second Spring"), strict=True)),
}
WATCHED = {
    "ann": SPACE[:4],
    "bob": SPACE[:4],
    "cem": SPACE[:3],
    "dan": LOVE[:4],
    "eve": LOVE[:4],
    "fay": LOVE[:3],
}

TOML = """\
name = "toy"

[nodes.Film]
role = "entity"
display = "title"

[nodes.Film.properties]
title = { type = "string", show = true, required = true }
year = { type = "int", feature = "number", show = true, filter = true }

[nodes.Genre]
role = "concept"

[nodes.User]
role = "user"

[[relations]]
triple = ["Film", "HAS_GENRE", "Genre"]
role = "semantic"

[[relations]]
triple = ["User", "WATCHED", "Film"]
role = "engagement"
weight = "stars"
time = "at"
properties = { stars = { type = "float" }, at = { type = "timestamp" } }

[[relations]]
triple = ["Film", "CO_WATCHED", "Film"]
role = "co_engagement"
derive = { via = "WATCHED", weight = "cosine", min_support = 1, top_k = 10 }

[[sources]]
file = "films.csv"
node = "Film"
id = "id"
properties = { title = "title", year = "year" }

[[sources]]
file = "films.csv"
relation = ["Film", "HAS_GENRE", "Genre"]
source = "id"
target = { column = "genres", split = "|" }
create_target = true

[[sources]]
file = "watched.csv"
relation = ["User", "WATCHED", "Film"]
source = "user"
target = "film"
create_source = true
properties = { stars = "stars", at = { column = "at", format = "unix" } }
"""


def write_toy(folder: Path) -> Path:
    """Write the catalogue and its kithkin.toml into a folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    films = [f"{film},{TITLES[film]},{1990 + number},Space" for number, film in enumerate(SPACE)]
    films += [f"{film},{TITLES[film]},{1990 + number},Love" for number, film in enumerate(LOVE)]
    (folder / "films.csv").write_text("id,title,year,genres\n" + "\n".join(films) + "\n", encoding="utf-8")
    events = [
        f"{user},{film},{4 + number % 2},{1_700_000_000 + 3600 * number}"
        for user, seen in WATCHED.items()
        for number, film in enumerate(seen)
    ]
    (folder / "watched.csv").write_text("user,film,stars,at\n" + "\n".join(events) + "\n", encoding="utf-8")
    (folder / "kithkin.toml").write_text(TOML, encoding="utf-8")
    return folder
