"""The calls of ``RetrievalService`` on one loaded bundle, request to response, with no gRPC in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from graph_store.schema import NodeRole
from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from server import queries
from server.catalogue import NodeKey
from server.deadline import Deadline
from server.description import Description
from server.errors import InvalidField, NodeNotFound, NodeWithoutVector
from server.explanation import UserProfile
from server.model import SIMILAR, USER, ServedModel
from server.vector_index import Found, Rows, Vectors, scores_of, unit_rows

MOST_ITEMS = 100
"""Items of one EmbedEntities."""
MOST_EXPLAINED = 50
DEFAULT_EXPLAINED = 5
MOST_NAMED = 100
"""Nodes of one name that GetEntity answers at most."""

SearchResponse = (
    pb.SearchSimilarEntitiesResponse | pb.RetrieveEntitiesForUserResponse | pb.RetrieveUsersForEntityResponse
)
R = TypeVar("R")
Reasons = Callable[[NodeKey], list[types_pb2.Reason]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared(Generic[R]):
    """A search whose request was read and found right: all but the search itself."""

    space: str
    target: str
    k: int
    vector: Vectors | None
    """``[dimension]``; None: the most engaged entities instead."""
    exclude: Rows
    finish: Callable[[Found], R]
    """The response with what was found."""

    @property
    def group(self) -> tuple[str, str, int, bool]:
        """Searches of the same group can be asked together."""
        return self.space, self.target, self.k, self.vector is None


class Retrieval:
    """Answers calls from one bundle. Raises CallError; what it raises else is a fault of ours."""

    def __init__(self, model: ServedModel, settings: ServingSettings) -> None:
        self.model = model
        self._settings = settings

    def search_similar_entities(
        self, request: pb.SearchSimilarEntitiesRequest, deadline: Deadline
    ) -> pb.SearchSimilarEntitiesResponse:
        return self._answer(self.prepare_similar(request, deadline), deadline)

    def retrieve_entities_for_user(
        self, request: pb.RetrieveEntitiesForUserRequest, deadline: Deadline
    ) -> pb.RetrieveEntitiesForUserResponse:
        return self._answer(self.prepare_for_user(request, deadline), deadline)

    def retrieve_users_for_entity(
        self, request: pb.RetrieveUsersForEntityRequest, deadline: Deadline
    ) -> pb.RetrieveUsersForEntityResponse:
        k = queries.top_k(request.top_k, self._settings.max_top_k)
        catalogue = self.model.catalogue
        target = catalogue.type_named(request.target_type, "target_type", NodeRole.USER)
        exclude = queries.as_rows(queries.left_out(self.model, request.exclude, target, NodeRole.USER))
        match request.WhichOneof("query"):
            case "entity":
                entity = catalogue.resolve(request.entity, "entity", NodeRole.ENTITY)
                vector = self._stored(entity, USER, "entity")
                if not request.include_engaged:
                    engaged = self.model.explainer.neighbourhoods.engaged_with(entity, target)
                    exclude = np.union1d(exclude, engaged)
            case "vector":
                vector = queries.vector(self.model, request.vector, USER, "vector")
            case _:
                raise InvalidField("query", "is not set", hint="Give an entity or a vector.")

        def finish(found: Found) -> pb.RetrieveUsersForEntityResponse:
            response = pb.RetrieveUsersForEntityResponse()
            self._results(response, target, found, None, deadline)
            self._info(response.info, found, k, deadline)
            return response

        return self._answer(self._prepared(USER, target, vector, k, exclude, finish), deadline)

    def find(self, prepared: Sequence[Prepared[R]], deadline: Deadline) -> list[Found]:
        """What searches of one group find, by one call of their index."""
        first = prepared[0]
        deadline.check("search")
        vectors = [each.vector for each in prepared if each.vector is not None]
        if not vectors:
            return [self._popular(each.target, each.k, set(each.exclude.tolist())) for each in prepared]
        # Given for each, also where nothing is left out: ScaNN's own batches choose other candidates at the margin than
        # its single searches, and an item of a batch must answer what its call alone answers.
        excludes = [each.exclude for each in prepared]
        index = self.model.index(first.space, first.target, "target_type")
        return index.search(np.stack(vectors), first.k, excludes)

    def prepare_similar(
        self, request: pb.SearchSimilarEntitiesRequest, deadline: Deadline
    ) -> Prepared[pb.SearchSimilarEntitiesResponse]:
        """Read a SearchSimilarEntities."""
        k = queries.top_k(request.top_k, self._settings.max_top_k)
        most = queries.reasons(request.reasons)
        own: NodeKey | None = None
        reasons: Reasons | None = None
        match request.WhichOneof("query"):
            case "entity":
                own = source = self.model.catalogue.resolve(request.entity, "entity")
                vector = self._stored(source, SIMILAR, "entity")
                kind = source.type

                def reasons(result: NodeKey) -> list[types_pb2.Reason]:
                    return self.model.explainer.between(source, result, most)

            case "vector":
                vector, kind = queries.vector(self.model, request.vector, SIMILAR, "vector"), ""
            case "described":
                description = self.model.describer.entity(request.described, "described")
                deadline.check("encoding")
                vector, kind = self._encoded(description, SIMILAR, "described"), description.node_type

                def reasons(result: NodeKey) -> list[types_pb2.Reason]:
                    return self.model.explainer.described(description, result, most)

            case _:
                raise InvalidField("query", "is not set", hint="Give an entity, a vector or a described entity.")
        target = self.model.catalogue.type_named(request.target_type or kind, "target_type", None)
        exclude = queries.left_out(self.model, request.exclude, target)
        if own is not None and own.type == target:
            exclude.add(own.row)
        explain = reasons if most else None

        def finish(found: Found) -> pb.SearchSimilarEntitiesResponse:
            response = pb.SearchSimilarEntitiesResponse()
            self._results(response, target, found, explain, deadline)
            self._info(response.info, found, k, deadline)
            return response

        return self._prepared(SIMILAR, target, vector, k, queries.as_rows(exclude), finish)

    def prepare_for_user(
        self, request: pb.RetrieveEntitiesForUserRequest, deadline: Deadline
    ) -> Prepared[pb.RetrieveEntitiesForUserResponse]:
        """Read a RetrieveEntitiesForUser."""
        k = queries.top_k(request.top_k, self._settings.max_top_k)
        most = queries.reasons(request.reasons)
        target = self.model.catalogue.type_named(request.target_type, "target_type", NodeRole.ENTITY)
        exclude = queries.left_out(self.model, request.exclude, target)
        if request.fallback not in types_pb2.Fallback.values():
            raise InvalidField("fallback", f"{request.fallback} is not a fallback this server knows")
        engaged: list[tuple[str, NodeKey]] = []
        vector: Vectors | None = None
        try:
            match request.WhichOneof("query"):
                case "user":
                    user = self.model.catalogue.resolve(request.user, "user", NodeRole.USER)
                    engaged = self.model.explainer.neighbourhoods.engaged(user)
                    vector = self._stored(user, USER, "user")
                case "events":
                    description, touched = self.model.describer.events(request.events, "events")
                    names = self.model.explainer.neighbourhoods
                    engaged = [(names.engagement_name(key.type) or "", key) for key in dict.fromkeys(touched)]
                    deadline.check("encoding")
                    vector = self._encoded(description, USER, "events")
                case "vector":
                    vector = queries.vector(self.model, request.vector, USER, "vector")
                case _:
                    raise InvalidField("query", "is not set", hint="Give a user, events or a vector.")
        except (NodeNotFound, NodeWithoutVector) as error:
            # Only what is unknown of the user; an event that names no entity is the caller's mistake.
            if request.fallback != types_pb2.FALLBACK_POPULAR or error.field != "user":
                raise
        if not request.include_engaged:
            exclude |= {key.row for _, key in engaged if key.type == target}
        fallback = vector is None

        def finish(found: Found) -> pb.RetrieveEntitiesForUserResponse:
            response = pb.RetrieveEntitiesForUserResponse()
            reasons: Reasons | None = None
            if most and engaged:
                profile = UserProfile(self.model.explainer.neighbourhoods, engaged)

                def reasons(result: NodeKey) -> list[types_pb2.Reason]:
                    return self.model.explainer.for_user(profile, result, most)

            self._results(response, target, found, reasons, deadline)
            if fallback:
                response.info.fallback = types_pb2.FALLBACK_POPULAR
            self._info(response.info, found, k, deadline)
            return response

        return self._prepared(USER, target, vector, k, queries.as_rows(exclude), finish)

    def embed_entities(self, request: pb.EmbedEntitiesRequest, deadline: Deadline) -> pb.EmbedEntitiesResponse:
        if not 1 <= len(request.items) <= MOST_ITEMS:
            raise InvalidField("items", f"{len(request.items)} items, send 1 to {MOST_ITEMS}")
        space = self.model.space(request.space or SIMILAR, "space")
        response = pb.EmbedEntitiesResponse()
        for number, item in enumerate(request.items):
            deadline.check("next vector")
            field = f"items[{number}]"
            match item.WhichOneof("query"):
                case "entity":
                    key = self.model.catalogue.resolve(item.entity, f"{field}.entity")
                    vector = self._stored(key, space, f"{field}.entity")
                case "described":
                    description = self.model.describer.entity(item.described, f"{field}.described")
                    vector = self._encoded(description, space, f"{field}.described")
                case _:
                    raise InvalidField(field, "is not set", hint="Give an entity or a described entity.")
            response.vectors.add(values=vector, space=space, bundle_version=self.model.version)
        response.info.exact = True
        self._info(response.info, None, 0, deadline)
        return response

    def explain_similarity(
        self, request: pb.ExplainSimilarityRequest, deadline: Deadline
    ) -> pb.ExplainSimilarityResponse:
        most = queries.reasons(request.max_reasons, MOST_EXPLAINED, "max_reasons") or DEFAULT_EXPLAINED
        source = self.model.catalogue.resolve(request.source, "source")
        target = self.model.catalogue.resolve(request.target, "target")
        if source == target:
            raise InvalidField("target", "is the same node as source", hint="Name two different nodes.")
        response = pb.ExplainSimilarityResponse(
            source=self.model.catalogue.node(source), target=self.model.catalogue.node(target)
        )
        pair = [self._stored_or_none(key) for key in (source, target)]
        if pair[0] is not None and pair[1] is not None:
            response.score = float(scores_of(pair[0][None], pair[1])[0])
        deadline.check("reasons")
        explainer = self.model.explainer
        if self.model.catalogue.role(source.type) is NodeRole.USER:
            profile = UserProfile(explainer.neighbourhoods, explainer.neighbourhoods.engaged(source))
            response.reasons.extend(explainer.for_user(profile, target, most))
        else:
            response.reasons.extend(explainer.between(source, target, most))
        response.info.exact = True
        self._info(response.info, None, 0, deadline)
        return response

    def get_entity(self, request: pb.GetEntityRequest, deadline: Deadline) -> pb.GetEntityResponse:
        catalogue = self.model.catalogue
        match request.WhichOneof("query"):
            case "ref":
                keys = [catalogue.resolve(request.ref, "ref")]
            case "name":
                if not request.name.name.strip():
                    raise InvalidField("name.name", "is empty")
                named = request.name.type
                types = (catalogue.type_named(named, "name.type", None),) if named else catalogue.entity_types
                keys = catalogue.named(request.name.name, types)
                if not keys:
                    raise NodeNotFound(
                        "name",
                        "|".join(types),
                        request.name.name,
                        f"no {' or '.join(types)} is called {request.name.name!r}",
                        hint="The whole name is compared, without regard to case.",
                    )
            case _:
                raise InvalidField("query", "is not set", hint="Give a reference or a name.")
        response = pb.GetEntityResponse(nodes=[catalogue.node(key) for key in keys[:MOST_NAMED]])
        response.info.exact = True
        response.info.truncated = len(keys) > MOST_NAMED
        self._info(response.info, None, 0, deadline)
        return response

    def describe_batch(
        self, info: types_pb2.ResponseInfo, items: Sequence[types_pb2.ResponseInfo], deadline: Deadline
    ) -> None:
        """Fill the ``info`` of a batch from those of its items (an empty one where an item failed)."""
        answered = [each for each in items if each.bundle_version]
        info.exact = bool(answered) and all(each.exact for each in answered)
        info.candidates_scored = sum(each.candidates_scored for each in answered)
        self._info(info, None, 0, deadline)

    def _stored(self, key: NodeKey, space: str, field: str) -> Vectors:
        vector = self.model.vector(space, key.type, key.row, field)
        if vector is None:
            node_id = self.model.catalogue.id(key)
            raise NodeWithoutVector(
                field,
                key.type,
                node_id,
                f"nothing is known of the {key.type} {node_id!r} to make a vector from",
                hint="It has no properties, links or engagements that the encoder reads.",
            )
        return vector

    def _stored_or_none(self, key: NodeKey) -> Vectors | None:
        if not self.model.has_vectors(SIMILAR, key.type):
            return None
        return self.model.vector(SIMILAR, key.type, key.row, "")

    def _encoded(self, description: Description, space: str, field: str) -> Vectors:
        vector = self.model.encoder(space, description.node_type, field).encode(
            description.properties, description.links
        )
        if not np.isfinite(vector).all():
            raise InvalidField(field, "gives a vector that is not finite", hint="A number in it is too large.")
        return unit_rows(vector[None])[0] if self.model.metric_is_cosine(space) else vector

    def _prepared(
        self, space: str, target: str, vector: Vectors | None, k: int, exclude: Rows, finish: Callable[[Found], R]
    ) -> Prepared[R]:
        if vector is not None:
            # Whether there is such an index is a question to the request too.
            self.model.index(space, target, "target_type")
        return Prepared(space=space, target=target, k=k, vector=vector, exclude=exclude, finish=finish)

    def _answer(self, prepared: Prepared[R], deadline: Deadline) -> R:
        return prepared.finish(self.find([prepared], deadline)[0])

    def _popular(self, target: str, k: int, exclude: set[int]) -> Found:
        order = self.model.popular(target)
        # At most so many must be looked at: a list of all rows would hold up every other call.
        rows = [row for row in order[: k + len(exclude)].tolist() if row not in exclude][:k]
        scores = self.model.bundle.popularity(target)[rows].astype(np.float32)
        return Found(rows=np.array(rows, np.int64), scores=np.nan_to_num(scores), exact=True, scored=len(order))

    def _results(
        self, response: SearchResponse, target: str, found: Found, reasons: Reasons | None, deadline: Deadline
    ) -> None:
        keys = [NodeKey(target, row) for row in found.rows.tolist()]
        # All search responses hold their results in the same field.
        response.MergeFromString(b"".join(map(self.model.catalogue.result, keys)))
        for key, result, score in zip(keys, response.results, found.scores.tolist(), strict=True):
            result.score = score
            if reasons is not None:
                deadline.check("reasons")
                result.reasons.extend(reasons(key))

    def _info(self, info: types_pb2.ResponseInfo, found: Found | None, asked: int, deadline: Deadline) -> None:
        info.bundle_version = self.model.version
        if found is not None:
            info.exact = found.exact
            info.candidates_scored = found.scored
            if len(found.rows) < asked:
                what = "are" if info.fallback else "have a vector and are"
                info.shortfall_reason = f"only {len(found.rows)} of this type {what} not left out (asked for {asked})"
        info.server_time.FromNanoseconds(int(deadline.spent * 1e9))
