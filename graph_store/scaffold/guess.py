"""Guesses: which files are nodes, which are edges, what each column is."""

from __future__ import annotations

import re
from collections.abc import Sequence

import duckdb

from graph_store.errors import InputError
from graph_store.scaffold.declaration import Guess, NodeGuess, RelationGuess, SourceGuess
from graph_store.scaffold.naming import base, property_name, relation_name, singular, text, type_name, words
from graph_store.scaffold.profile import ColumnProfile, FileProfile
from graph_store.schema import FeatureKind, NodeRole, PropertyType, RelationRole

_USER_WORDS = frozenset(
    [
        "user",
        "customer",
        "member",
        "account",
        "client",
        "listener",
        "reader",
        "visitor",
        "viewer",
        "buyer",
        "shopper",
        "subscriber",
        "person",
        "profile",
    ]
)
_ENTITY_WORDS = ("item", "product", "movie", "film", "artist", "track", "song", "article", "book", "entity", "content")
_DISPLAY = ("title", "name", "label", "display_name", "headline", "caption")
_VERBS = {
    "rating": "RATED", "play": "PLAYED", "view": "VIEWED", "click": "CLICKED", "purchase": "BOUGHT", "order": "BOUGHT",
    "like": "LIKED", "listen": "LISTENED", "interaction": "INTERACTED", "event": "INTERACTED", "review": "REVIEWED",
    "friend": "FRIEND", "watch": "WATCHED", "visit": "VISITED", "sale": "BOUGHT",
}  # fmt: skip
_WEIGHTS = ("rating", "weight", "score", "stars", "plays", "count", "quantity", "qty", "amount", "value", "listens")
_KINDS = re.compile(r"^(event|event_type|action|kind|type|behaviou?r)$", re.IGNORECASE)
_PREDICATES = re.compile(r"^(relation|predicate|property|relationship|rel)$", re.IGNORECASE)
_ID = re.compile(r"[_ ]?(id|key|code|uid|uuid)$", re.IGNORECASE)
_FEW = 0.2
"""A text column with fewer distinct values than this share of its rows is a concept."""


class Guesser:
    """Guesses from the profiles of all files, with the values at hand in DuckDB."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, files: Sequence[FileProfile]) -> None:
        self._connection, self._files = connection, files
        self._guess = Guess()
        self._keys: dict[str, list[tuple[FileProfile, ColumnProfile]]] = {}
        """Node type -> the files that list it, each with its key column."""

    def guess(self) -> Guess:
        """The declaration; InputError where nothing looks like an entity."""
        rest = self._find_nodes()
        edges = [(file, self._references(file)) for file in rest]
        edges += self._without_lists([(file, ends) for file, ends in edges if len(ends) < 2])
        done: set[str] = set()
        for file, ends in sorted(edges, key=lambda edge: -len(edge[1])):
            if file.table not in done and self._edges(file, ends):
                done.add(file.table)
        for file in rest:
            if file.table not in done:
                self._guess.unused.append((file, "no column in it names the nodes of another file"))
        self._roles()
        for name, listed in self._keys.items():
            for file, key in listed:
                self._node_source(name, file, key)
        if not any(node.role is NodeRole.ENTITY for node in self._guess.nodes.values()):
            raise InputError(
                "nothing here looks like a catalogue",
                file=self._files[0].file.parent if self._files else None,
                hint="A catalogue is a file with a column of unique ids, a log one with a user and an item column.",
            )
        return self._guess

    # ------------------------------------------------------------------ nodes

    def _find_nodes(self) -> list[FileProfile]:
        """Note the files that list nodes; the others come back."""
        candidates = [(file, key) for file in self._files if (key := self._key(file)) is not None]
        rest = [file for file in self._files if all(file is not other for other, _ in candidates)]
        for file, key in candidates:
            if len(file.columns) == 1 and self._subset_of_another(file, key, candidates):
                self._guess.unused.append((file, "only ids that another file lists too"))
                continue
            named = base(key.name)
            # A second file about the same nodes carries the same key (movies.csv and links.csv: movieId).
            name = type_name(named or singular("_".join(words(file.stem))))
            self._keys.setdefault(name, []).append((file, key))
        for name, listed in self._keys.items():
            listed.sort(key=lambda entry: type_name(singular("_".join(words(entry[0].stem)))) != name)
            user = bool(set(words(name)) & _USER_WORDS)
            self._guess.nodes[name] = NodeGuess(name=name, role=NodeRole.USER if user else NodeRole.CONCEPT)
        return rest

    def _key(self, file: FileProfile) -> ColumnProfile | None:
        """The column of unique ids, if the file has one that is named like it."""
        stem = singular("_".join(words(file.stem)))
        stands = list(file.columns.values())
        others = [c for c in stands if base(c.name) not in ("", stem) and self._listed(c.name, file)]
        users = [c for c in others if set(words(base(c.name))) & _USER_WORDS]
        # A user and something else, each by another file's name: a log, even if its rows have ids (orders).
        if users and len(others) > len(users):
            return None
        possible = [c for c in stands if c.unique and c.type in (PropertyType.INT, PropertyType.STRING) and not c.split]
        for column in possible:
            named = column.name.lower() in ("id", "_id", "uid", "uuid") or base(column.name) == stem
            if named and (_ID.search(column.name) or column is stands[0]):
                return column
        if len([c for c in others if _ID.search(c.name)]) >= 2:
            return None
        if possible and possible[0] is stands[0] and (_ID.search(possible[0].name) or len(stands) == 1):
            return possible[0]
        return None

    def _listed(self, column: str, but: FileProfile) -> bool:
        """Is the column's name also that of a column in another file, or of another file."""
        named = base(column)
        return bool(set(words(named)) & _USER_WORDS) or any(
            file is not but and (singular("_".join(words(file.stem))) == named or column in file.columns)
            for file in self._files
        )

    def _subset_of_another(
        self, file: FileProfile, key: ColumnProfile, candidates: list[tuple[FileProfile, ColumnProfile]]
    ) -> bool:
        return any(
            other is not file and len(other.columns) > 1 and self._share(file, key, other, other_key) > 0.99
            for other, other_key in candidates
        )

    def _share(self, file: FileProfile, column: ColumnProfile, other: FileProfile, key: ColumnProfile) -> float:
        """The share of a column's distinct values that another file's key has."""
        value = self._connection.execute(
            f"SELECT coalesce(avg((v IN (SELECT {key.text} FROM {other.table}))::INT), 0) "
            f"FROM (SELECT DISTINCT {column.text} AS v FROM {file.table} WHERE v IS NOT NULL)"
        ).fetchall()[0][0]
        return float(value)

    # ------------------------------------------------------------------ edges

    def _references(self, file: FileProfile) -> list[tuple[ColumnProfile, str, str]]:
        """Columns that hold ids of a node type: by name and values; with the note that says why."""
        found: list[tuple[ColumnProfile, str, str]] = []
        for column in file.columns.values():
            if column.type not in (PropertyType.INT, PropertyType.STRING):
                continue
            named = type_name(base(column.name) or column.name)
            if named in self._keys and self._share(file, column, *self._keys[named][0]) >= 0.5:
                found.append((column, named, f"{column.name} holds ids of {named}, by its name and its values"))
            elif set(words(base(column.name))) & _USER_WORDS and named not in self._keys:
                found.append((column, "User", f"{column.name} looks like a user's id by its name"))
        # friend in friends.csv: what is left of two columns, and its values are ids of the other end's type.
        if len(found) == 1 and len(file.columns) == 2:
            (end, name, _), column = found[0], next(c for c in file.columns.values() if c is not found[0][0])
            listed = self._keys[name][0] if name in self._keys else (file, end)
            if self._share(file, column, *listed) > 0.9:
                found.append((column, name, f"{column.name} holds ids of {name}, by its values alone: check"))
        return found

    def _without_lists(
        self, edges: list[tuple[FileProfile, list[tuple[ColumnProfile, str, str]]]]
    ) -> list[tuple[FileProfile, list[tuple[ColumnProfile, str, str]]]]:
        """Logs of user and item where no file lists the items."""
        result = []
        for file, ends in edges:
            if len(ends) != 1 or ends[0][1] not in ("User", *self._users()):
                continue
            columns = [c for c in file.columns.values() if c is not ends[0][0]]
            items = [c for c in columns if base(c.name) in _ENTITY_WORDS or _ID.search(c.name)]
            if items:
                column, name = items[0], type_name(base(items[0].name) or "item")
                result.append((file, [*ends, (column, name, f"{column.name} names {name}s that no file lists")]))
        return result

    def _users(self) -> list[str]:
        return [node.name for node in self._guess.nodes.values() if node.role is NodeRole.USER]

    def _edges(self, file: FileProfile, ends: list[tuple[ColumnProfile, str, str]]) -> bool:
        """Declare what a file of edges holds."""
        ends = sorted(ends, key=lambda end: end[1] not in ("User", *self._users()))
        users = [end for end in ends if end[1] in ("User", *self._users())]
        others = [end for end in ends if end not in users]
        used = {end[0].name for end in ends}
        left = [column for column in file.columns.values() if column.name not in used and column.filled]
        texts = [c for c in left if c.type is PropertyType.STRING and not _KINDS.match(c.name) and not c.split]
        predicate = next((c for c in texts if _PREDICATES.match(c.name) and c.distinct <= 50), None)
        if len(ends) == 1 and others and predicate is not None:
            return self._facts(file, others[0], predicate, texts)
        if others and texts and (users or len(ends) == 1) and texts[0].distinct < 0.9 * texts[0].filled:
            self._concept_edges(file, others[0], texts[0])
            return True
        if len(ends) < 2:
            return False
        (source, source_type, first_note), (target, target_type, second_note) = ends[:2]
        for name in (source_type, target_type):
            if name not in self._guess.nodes:
                role = NodeRole.USER if name == "User" else NodeRole.ENTITY
                self._guess.nodes[name] = NodeGuess(
                    name=name, role=role, note="no file lists them: made from the edges"
                )
        engagement = bool(users) and bool(others)
        verb = _VERBS.get(singular(words(file.stem)[-1]) if words(file.stem) else "", relation_name(file.stem))
        if not engagement and target_type != source_type and verb == relation_name(file.stem):
            verb = f"HAS_{relation_name(target_type)}"
        if verb.lower() in {name.lower() for name in self._guess.nodes}:
            verb = f"TO_{verb}"  # a store may not call a relation and a node type the same
        relation = RelationGuess(
            triple=(source_type, verb, target_type),
            role=RelationRole.ENGAGEMENT if engagement else RelationRole.SEMANTIC,
            note=f"{first_note}; {second_note}.",
        )
        fills = {
            "relation": f"[{text(source_type)}, {text(verb)}, {text(target_type)}]",
            "source": text(source.name),
            "target": text(target.name),
        }
        for end, column, name in (("source", source, source_type), ("target", target, target_type)):
            if name not in self._keys or self._share(file, column, *self._keys[name][0]) < 1:
                fills[f"create_{end}"] = "true"
        properties = self._edge_properties(relation, left, engagement)
        if engagement and relation.weight is None and relation.time is None:
            relation.weight, relation.properties["count"] = "count", '{ type = "int" }'
            fills["count_as"] = '"count"'
        self._guess.relations[relation.triple] = relation
        self._guess.sources.append(SourceGuess(file=file, fills=fills, properties=properties))
        if engagement:
            self._guess.nodes[target_type].role = NodeRole.ENTITY
            self._co_engagement(source_type, verb, target_type)
        return True

    def _edge_properties(
        self, relation: RelationGuess, columns: list[ColumnProfile], engagement: bool
    ) -> dict[str, str]:
        numbers = [c for c in columns if c.type in (PropertyType.INT, PropertyType.FLOAT) and c.filled == c.rows]
        weights = [c for c in numbers if any(word in _WEIGHTS for word in words(c.name))]
        weight = next(iter(weights or numbers), None)
        times = [c for c in columns if c.type in (PropertyType.TIMESTAMP, PropertyType.DATE) and c.filled == c.rows]
        kinds = [c for c in columns if _KINDS.match(c.name) and c.distinct <= 20 and c.filled == c.rows]
        properties: dict[str, str] = {}
        for column in columns:
            is_time, is_kind = column in times[:1] and engagement, column in kinds[:1] and engagement
            if column is not weight and not is_time and not is_kind:
                continue
            name = property_name(column.name, list(relation.properties))
            relation.properties[name] = f"{{ type = {text(column.type.value)} }}"
            properties[name] = _column_toml(column)
            if column is weight:
                relation.weight = name
            elif is_time:
                relation.time = name
            else:
                relation.kind = name
        return properties

    def _co_engagement(self, user: str, verb: str, entity: str) -> None:
        triple = (entity, f"CO_{verb}"[:60], entity)
        if triple not in self._guess.relations:
            self._guess.relations[triple] = RelationGuess(
                triple=triple,
                role=RelationRole.CO_ENGAGEMENT,
                derive=f'{{ via = {text(verb)}, weight = "cosine", min_support = 2, top_k = 50 }}',
                note="Derived: entities that the same users engage with. weight may be count, cosine, npmi or lift;\n"
                "min_engagement = 3.5 would count only engagements of at least that weight, window_days recent ones.",
            )

    def _concept(self, name: str, taken_by: str) -> str:
        """A concept type of this name, new or of an earlier column."""
        node = self._guess.nodes.get(name)
        if node is not None and (name in self._keys or node.role is not NodeRole.CONCEPT or name == taken_by):
            name = f"{name}Value"
        self._guess.nodes.setdefault(name, NodeGuess(name=name, role=NodeRole.CONCEPT))
        return name

    def _concept_edges(self, file: FileProfile, end: tuple[ColumnProfile, str, str], column: ColumnProfile) -> None:
        """Entity and a text that comes again and again, given by users perhaps (tags)."""
        source, source_type, note = end
        concept = self._concept(type_name(base(column.name) or column.name), source_type)
        triple = (source_type, f"HAS_{relation_name(concept)}", concept)
        self._guess.relations[triple] = RelationGuess(
            triple=triple,
            role=RelationRole.SEMANTIC,
            weight="count",
            properties={"count": '{ type = "int" }'},
            note=f"{note}; {column.name} repeats: a concept. count is how many rows say the same.",
        )
        fills = self._fills(triple, text(source.name), _end_toml(column, fold=True))
        fills["create_target"] = "true"
        fills["count_as"] = '"count"'
        if self._share(file, source, *self._keys[source_type][0]) < 1:
            fills["create_source"] = "true"
        self._guess.sources.append(SourceGuess(file=file, fills=fills))

    def _facts(
        self,
        file: FileProfile,
        end: tuple[ColumnProfile, str, str],
        predicate: ColumnProfile,
        texts: list[ColumnProfile],
    ) -> bool:
        """Rows of entity, relation's name, value: one relation and one concept type for each name."""
        source, source_type, note = end
        values = [column for column in texts if column is not predicate]
        if not values:
            return False
        target = max(values, key=lambda column: column.distinct)
        names = self._connection.execute(
            f"SELECT {predicate.text} AS v FROM {file.table} WHERE v IS NOT NULL GROUP BY v ORDER BY count(*) DESC, v"
        ).fetchall()
        why = (
            f"{note}; {predicate.name} says which relation a row is of.\n"
            "Two relations may share one concept type (BirthPlace and Hometown: Place)."
        )
        for (name,) in names:
            concept = self._concept(type_name(name), source_type)
            triple = (source_type, f"HAS_{relation_name(name)}"[:60], concept)
            if triple in self._guess.relations:
                continue
            self._guess.relations[triple] = RelationGuess(
                triple=triple,
                role=RelationRole.SEMANTIC,
                note=why,
            )
            why = ""
            fills = self._fills(triple, text(source.name), _end_toml(target))
            fills["where"] = f"{{ {text(predicate.name)} = {text(name)} }}"
            fills["create_target"] = "true"
            if self._share(file, source, *self._keys[source_type][0]) < 1:
                fills["create_source"] = "true"
            self._guess.sources.append(SourceGuess(file=file, fills=fills))
        return True

    def _fills(self, triple: tuple[str, str, str], source: str, target: str) -> dict[str, str]:
        return {"relation": "[" + ", ".join(map(text, triple)) + "]", "source": source, "target": target}

    # ------------------------------------------------- roles, and nodes' columns

    def _roles(self) -> None:
        """Where no log says what users engage with, the type with the most columns is the catalogue."""
        nodes = self._guess.nodes
        if any(node.role is NodeRole.ENTITY for node in nodes.values()):
            return
        listed = [name for name in self._keys if nodes[name].role is NodeRole.CONCEPT]
        sources = {triple[0] for triple in self._guess.relations}
        if listed:
            best = max(
                listed,
                key=lambda name: (
                    name.lower() in _ENTITY_WORDS,
                    name in sources,
                    sum(len(file.columns) for file, _ in self._keys[name]),
                    self._keys[name][0][0].rows,
                ),
            )
            nodes[best].role = NodeRole.ENTITY

    def _node_source(self, name: str, file: FileProfile, key: ColumnProfile) -> None:
        """Declare a file of nodes: its columns as properties, concepts or relations to other nodes."""
        node = self._guess.nodes[name]
        source = SourceGuess(file=file, fills={"node": text(name), "id": text(key.name)})
        self._guess.sources.append(source)
        display = next((c for word in _DISPLAY for c in file.columns.values() if c.name.lower() == word), None)
        for column in file.columns.values():
            if column is key or not column.filled:
                continue
            referred = type_name(base(column.name))
            if (
                referred != name
                and referred in self._keys
                and self._share(file, column, *self._keys[referred][0]) > 0.5
            ):
                self._node_link(name, file, key, column, referred, listed=True)
                continue
            few = column.distinct <= max(2, _FEW * column.filled) and column.length < 60 and column is not display
            several = bool(column.split) or column.type is PropertyType.STRINGS
            if several or (column.type is PropertyType.STRING and few and node.role is not NodeRole.USER):
                parts = column.parts or column.distinct
                if parts < column.filled * 2 or several:
                    concept = self._concept(type_name(base(column.name) or singular(column.name)), name)
                    self._node_link(name, file, key, column, concept, listed=False)
                    continue
            self._node_property(node, source, column, column is display)

    def _node_link(
        self, name: str, file: FileProfile, key: ColumnProfile, column: ColumnProfile, target: str, *, listed: bool
    ) -> None:
        triple = (name, f"HAS_{relation_name(target)}", target)
        if triple in self._guess.relations:
            return
        if listed:
            note = f"{column.name} in {file.file.name} holds ids of {target}."
        elif column.split:
            note = f"{column.name} in {file.file.name} holds several values, split at {column.split!r}."
        else:
            note = (
                f"{column.name} in {file.file.name} has {column.parts or column.distinct} distinct values: a concept.\n"
                f'The other way: a property of {name}, {{ type = "string", feature = "category", filter = true }}.'
            )
        self._guess.relations[triple] = RelationGuess(triple=triple, role=RelationRole.SEMANTIC, note=note)
        fills = self._fills(triple, text(key.name), _end_toml(column, optional=True))
        if not listed or self._share(file, column, *self._keys[target][0]) < 1:
            fills["create_target"] = "true"
        self._guess.sources.append(SourceGuess(file=file, fills=fills))

    def _node_property(self, node: NodeGuess, source: SourceGuess, column: ColumnProfile, is_display: bool) -> None:
        name = property_name(column.name, list(node.properties))
        same = [there for there in node.properties if there == column.name]
        name = same[0] if same else name
        kind = column.type
        if is_display and kind is not PropertyType.VECTOR:
            node.display = name
            node.properties[name] = '{ type = "string", show = true }'
            if column.year_in_brackets:
                year = property_name("year", list(node.properties))
                node.properties[year] = '{ type = "int", filter = true, show = true }'
                source.note = f"Most {column.name} end in a year in brackets: taken out as {year}."
                source.properties[name] = (
                    f"{{ column = {text(column.name)}, extract = '^(.*?)\\s*(?:\\(\\d{{4}}\\)\\s*)?$' }}"
                )
                source.properties[year] = f"{{ column = {text(column.name)}, extract = '\\((\\d{{4}})\\)\\s*$' }}"
                return
            source.properties[name] = _column_toml(column)
            return
        is_id = bool(_ID.search(column.name)) and kind is PropertyType.INT
        features = {
            PropertyType.INT: FeatureKind.NUMBER,
            PropertyType.FLOAT: FeatureKind.NUMBER,
            PropertyType.BOOL: FeatureKind.CATEGORY,
            PropertyType.DATE: FeatureKind.DATE,
            PropertyType.TIMESTAMP: FeatureKind.DATE,
            PropertyType.VECTOR: FeatureKind.VECTOR,
        }
        parts = [f"type = {text('string' if is_id else kind.value)}"]
        if kind is PropertyType.VECTOR:
            parts += [f"dimension = {column.dimension}", 'feature = "vector"']
        elif is_id:
            parts.append("show = true")
        elif kind in features:
            parts += [f"feature = {text(features[kind].value)}", "filter = true", "show = true"]
        elif column.length >= 40:
            parts.append('feature = "text"')
        elif column.distinct <= max(2, _FEW * column.filled):
            parts += ['feature = "category"', "filter = true", "show = true"]
        else:
            parts.append("show = true")
        node.properties[name] = "{ " + ", ".join(parts) + " }"
        source.properties[name] = _column_toml(column)


def _column_toml(column: ColumnProfile) -> str:
    parts = [f"column = {text(column.name)}"]
    if column.nulls:
        parts.append(f"null = [{', '.join(map(text, column.nulls))}]")
    if column.format:
        parts.append(f"format = {text(column.format)}")
    return text(column.name) if len(parts) == 1 else "{ " + ", ".join(parts) + " }"


def _end_toml(column: ColumnProfile, *, optional: bool = False, fold: bool = False) -> str:
    parts = [f"column = {text(column.name)}"]
    if column.split:
        parts.append(f"split = {text(column.split)}")
    nulls = column.nulls
    if optional and not column.split and column.filled < column.rows and not nulls:
        nulls = ("",)  # an empty field is no value here, and no fault
    if nulls:
        parts.append(f"null = [{', '.join(map(text, nulls))}]")
    if fold and column.case_varies:
        parts.append("lower = true")
    return text(column.name) if len(parts) == 1 else "{ " + ", ".join(parts) + " }"
