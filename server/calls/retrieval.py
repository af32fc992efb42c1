"""The calls of ``RetrievalService`` on one loaded bundle, request to response, with no gRPC in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from graph_store.schema import NodeRole
from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from server.calls import embeddings, lookups, pairs, queries, search
from server.calls.answers import Answer, Reasons, fill_batch_info, search_answer
from server.calls.focal_queries import read_context, told_vector, user_vector
from server.calls.plain_searches import PlainReader, answer_one
from server.calls.search import Limits, Prepared
from server.calls.vectors import encoded, stored
from server.deadline import Deadline
from server.errors import InvalidField, NodeNotFound, NodeWithoutVector
from server.index.vector_index import Found, Rows, Vectors
from server.model.catalogue import NodeKey
from server.model.served_model import SIMILAR, USER, ServedModel
from server.reasons.explanation import UserProfile
from server.wire.guard import Origin

R = TypeVar("R")
SearchRequest = pb.SearchSimilarEntitiesRequest | pb.RetrieveEntitiesForUserRequest | pb.RetrieveUsersForEntityRequest


class Retrieval:
    """Answers calls from one bundle. Raises CallError; what it raises else is a fault of ours."""

    def __init__(self, model: ServedModel, settings: ServingSettings) -> None:
        self.model = model
        self._settings = settings
        self.plain = PlainReader(model, settings.max_top_k)

    def search_similar_entities(
        self, request: pb.SearchSimilarEntitiesRequest, deadline: Deadline
    ) -> Answer[pb.SearchSimilarEntitiesResponse]:
        plain = self.plain.read(request)
        if plain is not None:
            return answer_one(self.model, *plain, deadline)
        return search.answer(self.model, self.prepare_similar(request, deadline), deadline)

    def retrieve_entities_for_user(
        self, request: pb.RetrieveEntitiesForUserRequest, deadline: Deadline
    ) -> Answer[pb.RetrieveEntitiesForUserResponse]:
        return search.answer(self.model, self.prepare_for_user(request, deadline), deadline)

    def retrieve_users_for_entity(
        self, request: pb.RetrieveUsersForEntityRequest, deadline: Deadline
    ) -> Answer[pb.RetrieveUsersForEntityResponse]:
        return search.answer(self.model, self.prepare_users(request, deadline), deadline)

    def find(self, prepared: Sequence[Prepared[R]], deadline: Deadline) -> list[Found]:
        """What searches of one group find, by one call of their index."""
        return search.find(self.model, prepared, deadline)

    def search(self, prepared: Sequence[Prepared[R]], deadline: Deadline) -> list[Found]:
        """The same, before ``narrowed``."""
        return search.searched(self.model, prepared, deadline)

    def embed_entities(self, request: pb.EmbedEntitiesRequest, deadline: Deadline) -> pb.EmbedEntitiesResponse:
        return embeddings.embed_entities(self.model, request, deadline)

    def embed_users(self, request: pb.EmbedUsersRequest, deadline: Deadline) -> pb.EmbedUsersResponse:
        return embeddings.embed_users(self.model, request, deadline)

    def score_pairs(self, request: pb.ScorePairsRequest, deadline: Deadline, origin: Origin) -> pb.ScorePairsResponse:
        return pairs.score_pairs(self.model, request, deadline, origin)

    def explain_similarity(
        self, request: pb.ExplainSimilarityRequest, deadline: Deadline
    ) -> pb.ExplainSimilarityResponse:
        return lookups.explain_similarity(self.model, request, deadline)

    def get_entity(self, request: pb.GetEntityRequest, deadline: Deadline) -> pb.GetEntityResponse:
        return lookups.get_entity(self.model, request, deadline)

    def describe_batch(
        self, info: types_pb2.ResponseInfo, items: Sequence[tuple[types_pb2.ResponseInfo, int]], deadline: Deadline
    ) -> None:
        """Fill the ``info`` of a batch from those of the items that were answered, each with how many have it."""
        fill_batch_info(info, self.model, items, deadline)

    def prepare_similar(
        self, request: pb.SearchSimilarEntitiesRequest, deadline: Deadline
    ) -> Prepared[Answer[pb.SearchSimilarEntitiesResponse]]:
        """Read a SearchSimilarEntities."""
        k = queries.top_k(request.top_k, self._settings.max_top_k)
        most = queries.reasons(request.reasons, results=k)
        own: NodeKey | None = None
        reasons: Reasons | None = None
        match request.WhichOneof("query"):
            case "entity":
                own = source = self.model.catalogue.resolve(request.entity, "entity")
                vector = stored(self.model, source, SIMILAR, "entity")
                kind = source.type

                def reasons(result: NodeKey) -> list[types_pb2.Reason]:
                    return self.model.explainer.between(source, result, most)

            case "vector":
                vector, kind = queries.vector(self.model, request.vector, SIMILAR, "vector"), ""
            case "described":
                description = self.model.describer.entity(request.described, "described")
                deadline.check("encoding")
                vector, kind = encoded(self.model, description, SIMILAR, "described"), description.node_type

                def reasons(result: NodeKey) -> list[types_pb2.Reason]:
                    return self.model.explainer.described(description, result, most)

            case _:
                raise InvalidField("query", "is not set", hint="Give an entity, a vector or a described entity.")
        target = self.model.catalogue.type_named(request.target_type or kind, "target_type", None)
        exclude = queries.left_out(self.model, request.exclude, target)
        if own is not None and own.type == target:
            exclude.add(own.row)
        explain = reasons if most else None
        limits = self._limits(request, target, k, queries.as_rows(exclude), deadline)

        def finish(found: Found) -> Answer[pb.SearchSimilarEntitiesResponse]:
            kind = pb.SearchSimilarEntitiesResponse
            return search_answer(kind, self.model, target, found, limits, deadline, reasons=explain)

        return self._prepared(SIMILAR, target, vector, limits, finish)

    def prepare_for_user(
        self, request: pb.RetrieveEntitiesForUserRequest, deadline: Deadline
    ) -> Prepared[Answer[pb.RetrieveEntitiesForUserResponse]]:
        """Read a RetrieveEntitiesForUser."""
        k = queries.top_k(request.top_k, self._settings.max_top_k)
        most = queries.reasons(request.reasons, results=k)
        target = self.model.catalogue.type_named(request.target_type, "target_type", NodeRole.ENTITY)
        exclude = queries.left_out(self.model, request.exclude, target)
        if request.fallback not in types_pb2.Fallback.values():
            raise InvalidField("fallback", f"{request.fallback} is not a fallback this server knows")
        neural = self.model.neural("score") if queries.is_neural(request.score) else None
        if neural is not None:
            neural.check_target(target, "target_type")
        context = read_context(self.model.catalogue, request.context) if request.HasField("context") else None
        if context is not None and (neural is not None or request.WhichOneof("query") == "vector"):
            raise InvalidField("context", "goes with a user or events, and the space's own score")
        engaged: list[tuple[str, NodeKey]] = []
        vector: Vectors | None = None
        told: Rows | None = None
        try:
            match request.WhichOneof("query"):
                case "user":
                    user = self.model.catalogue.resolve(request.user, "user", NodeRole.USER)
                    engaged = self.model.explainer.neighbourhoods.engaged(user)
                    if neural is not None:
                        told = neural.events_of(user, self.model.catalogue.id(user), "user")
                    else:
                        vector = user_vector(self.model, user, context, "user")
                case "events":
                    description, touched = self.model.describer.events(request.events, "events")
                    names = self.model.explainer.neighbourhoods
                    engaged = [(names.engagement_name(key.type) or "", key) for key in dict.fromkeys(touched)]
                    if neural is not None:
                        told = neural.events_among(touched, "events")
                    else:
                        deadline.check("encoding")
                        vector = told_vector(self.model, description, context, "events")
                case "vector" if neural is not None:
                    raise InvalidField("score", "NEURAL does not read vectors", hint="Give a user or events.")
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
        nobody = vector is None and told is None
        fallback = types_pb2.FALLBACK_POPULAR if nobody else types_pb2.FALLBACK_UNSPECIFIED
        limits = self._limits(request, target, k, queries.as_rows(exclude), deadline)

        def finish(found: Found) -> Answer[pb.RetrieveEntitiesForUserResponse]:
            reasons: Reasons | None = None
            if most and engaged:
                profile = UserProfile(self.model.explainer.neighbourhoods, engaged)

                def reasons(result: NodeKey) -> list[types_pb2.Reason]:
                    return self.model.explainer.for_user(profile, result, most)

            kind = pb.RetrieveEntitiesForUserResponse
            return search_answer(kind, self.model, target, found, limits, deadline, reasons=reasons, fallback=fallback)

        prepared = self._prepared(USER, target, vector, limits, finish)
        if neural is None or told is None:
            return prepared
        return replace(prepared, neural=neural.prepared(told, limits.depth, limits.exclude, limits.allowed))

    def prepare_users(
        self, request: pb.RetrieveUsersForEntityRequest, deadline: Deadline
    ) -> Prepared[Answer[pb.RetrieveUsersForEntityResponse]]:
        """Read a RetrieveUsersForEntity."""
        k = queries.top_k(request.top_k, self._settings.max_top_k)
        catalogue = self.model.catalogue
        target = catalogue.type_named(request.target_type, "target_type", NodeRole.USER)
        exclude = queries.as_rows(queries.left_out(self.model, request.exclude, target, NodeRole.USER))
        match request.WhichOneof("query"):
            case "entity":
                entity = catalogue.resolve(request.entity, "entity", NodeRole.ENTITY)
                vector = stored(self.model, entity, USER, "entity")
                if not request.include_engaged:
                    engaged = self.model.explainer.neighbourhoods.engaged_with(entity, target)
                    exclude = np.union1d(exclude, engaged)
            case "vector":
                vector = queries.vector(self.model, request.vector, USER, "vector")
            case _:
                raise InvalidField("query", "is not set", hint="Give an entity or a vector.")

        limits = self._limits(request, target, k, exclude, deadline)

        def finish(found: Found) -> Answer[pb.RetrieveUsersForEntityResponse]:
            return search_answer(pb.RetrieveUsersForEntityResponse, self.model, target, found, limits, deadline)

        return self._prepared(USER, target, vector, limits, finish)

    def _limits(self, request: SearchRequest, target: str, k: int, exclude: Rows, deadline: Deadline) -> Limits:
        """What a request says of its results, beside their number and what is left out."""
        return Limits(
            k=k,
            exclude=exclude,
            allowed=self.model.filters.select(request.filter, target, deadline) if request.HasField("filter") else None,
            min_score=queries.min_score(request.min_score) if request.HasField("min_score") else None,
            diversity=0.0
            if isinstance(request, pb.RetrieveUsersForEntityRequest)
            else queries.diversity(request.diversity, k),
        )

    def _prepared(
        self, space: str, target: str, vector: Vectors | None, limits: Limits, finish: Callable[[Found], R]
    ) -> Prepared[R]:
        if vector is not None:
            # Whether there is such an index is a question to the request too.
            self.model.index(space, target, "target_type")
        return Prepared(space=space, target=target, vector=vector, limits=limits, finish=finish)
