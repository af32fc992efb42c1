"""The kithkin.toml of a generated catalogue."""

from __future__ import annotations

_TEXT = """\
# A made-up catalogue of films: {entities} films, {users} people, seed {seed}.
# Written by `kithkin generate`; the same command writes the same files.
#
#   kithkin build      reads the files, trains, publishes
#   kithkin serve      answers
#   kithkin evaluate   says how much of the planted truth is found
name = "films"

# ---------------------------------------------------------------- node types

[nodes.Film]
role = "entity"
display = "title" # what people call it: kithkin similar "The Silent Harbour"

[nodes.Film.properties]
title = {{ type = "string", show = true, required = true }}
year = {{ type = "int", feature = "number", filter = true, show = true }}
runtime = {{ type = "int", feature = "number", filter = true, show = true }} # minutes
language = {{ type = "string", feature = "category", filter = true, show = true }}

[nodes.User]
role = "user"

[nodes.User.properties]
country = {{ type = "string", feature = "category" }}

[nodes.Genre]
role = "concept"

[nodes.Tag]
role = "concept"

[nodes.Person]
role = "concept"
display = "name"

[nodes.Person.properties]
name = {{ type = "string", show = true }}

[nodes.Studio]
role = "concept"

[nodes.Book]
role = "concept"

# ----------------------------------------------------------------- relations

# What people looked at and clicked. A view weighs 0.05, a click the share of the film watched (0.1 to 1).
[[relations]]
triple = ["User", "WATCHED", "Film"]
role = "engagement"
weight = "share"
time = "time"
kind = "kind"
properties = {{ share = {{ type = "float" }}, time = {{ type = "timestamp" }}, kind = {{ type = "string" }} }}

# Films that the same people clicked, derived from the log.
[[relations]]
triple = ["Film", "CO_WATCHED", "Film"]
role = "co_engagement"
derive = {{ via = "WATCHED", weight = "cosine", min_support = 2, top_k = 50, min_engagement = 0.1 }}

[[relations]]
triple = ["Film", "HAS_GENRE", "Genre"]
role = "semantic"

[[relations]]
triple = ["Film", "HAS_TAG", "Tag"]
role = "semantic"
weight = "count"
properties = {{ count = {{ type = "int" }} }} # how many people gave the tag

[[relations]]
triple = ["Film", "DIRECTED_BY", "Person"]
role = "semantic"

[[relations]]
triple = ["Film", "STARS", "Person"]
role = "semantic"

[[relations]]
triple = ["Film", "MADE_BY", "Studio"]
role = "semantic"

# Two rare relations: few edges, each of which says much.
[[relations]]
triple = ["Film", "BASED_ON", "Book"]
role = "semantic"

[[relations]]
triple = ["Film", "SEQUEL_OF", "Film"]
role = "semantic"

# ------------------------------------------------------------------- sources

[[sources]]
file = "films{ending}"
node = "Film"
id = "film"
properties = {{ title = "title", year = "year", runtime = "runtime", language = "language" }}

[[sources]]
file = "films{ending}" # the genres stand in one column: Crime|Drama
relation = ["Film", "HAS_GENRE", "Genre"]
source = "film"
target = {{ column = "genres", split = "|" }}
create_target = true

[[sources]]
file = "films{ending}"
relation = ["Film", "MADE_BY", "Studio"]
source = "film"
target = "studio"
create_target = true

[[sources]]
file = "people{ending}"
node = "Person"
id = "person"
properties = {{ name = "name" }}

[[sources]]
file = "credits{ending}"
where = {{ role = "director" }}
relation = ["Film", "DIRECTED_BY", "Person"]
source = "film"
target = "person"

[[sources]]
file = "credits{ending}"
where = {{ role = "actor" }}
relation = ["Film", "STARS", "Person"]
source = "film"
target = "person"

[[sources]]
file = "tags{ending}"
relation = ["Film", "HAS_TAG", "Tag"]
source = "film"
target = "tag"
create_target = true
properties = {{ count = "count" }}

[[sources]]
file = "books{ending}"
relation = ["Film", "BASED_ON", "Book"]
source = "film"
target = "book"
create_target = true

[[sources]]
file = "sequels{ending}"
relation = ["Film", "SEQUEL_OF", "Film"]
source = "film"
target = "original"

[[sources]]
file = "users{ending}"
node = "User"
id = "user"
properties = {{ country = "country" }}

[[sources]]
file = "events{ending}"
relation = ["User", "WATCHED", "Film"]
source = "user"
target = "film"
properties = {{ share = "share", time = {{ column = "time", format = "unix" }}, kind = "kind" }}

# ---------------------------------------------------------------- evaluation
# What is truly similar, from the hidden tastes that the catalogue was made from. It never enters the graph.
# truth_user{ending} says the same of users: the films they would like best among those they have not touched.

[[evaluation.judged]]
name = "truth"
node = "Film"
file = "truth_similar{ending}"
query = "query"
similar = "similar"
candidates = "truth_candidates{ending}"
candidates_column = "film"
{cold}
# ------------------------------------------------------------------ training
# Everything has a default; see docs/configuration.md for all settings.

[training]
seed = {seed}
"""

_COLD = """
[[evaluation.judged]] # of these, the films that nobody has touched
name = "truth_untouched"
node = "Film"
file = "truth_untouched{ending}"
query = "query"
similar = "similar"
candidates = "truth_candidates{ending}"
candidates_column = "film"
"""


def declaration(*, entities: int, users: int, seed: int, ending: str, untouched: bool) -> str:
    """Text of kithkin.toml; ``ending`` is that of the files, ``untouched`` whether there are such queries."""
    cold = _COLD.format(ending=ending) if untouched else ""
    return _TEXT.format(entities=entities, users=users, seed=seed, ending=ending, cold=cold)
