"""No field of an answer gets lost: each one, taken out of a full message, changes what the client gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from kithkin import DeltaStatus, _responses
from kithkin.v1 import model_service_pb2 as model
from kithkin.v1 import retrieval_service_pb2 as retrieval

Path = tuple[str, ...]

READERS: dict[str, Callable[[Any, str], Any]] = {
    "SearchSimilarEntitiesResponse": _responses.results,
    "RetrieveEntitiesForUserResponse": _responses.results,
    "RetrieveUsersForEntityResponse": _responses.results,
    "BatchSearchSimilarEntitiesResponse": _responses.batch,
    "BatchRetrieveEntitiesForUserResponse": _responses.batch,
    "ScorePairsResponse": _responses.scores,
    "EmbedEntitiesResponse": _responses.vectors,
    "EmbedUsersResponse": _responses.vectors,
    "ExplainSimilarityResponse": _responses.explanation,
    "GetEntityResponse": _responses.nodes,
    "ListEntitiesResponse": _responses.page,
    "GetStatusResponse": _responses.status,
    "ListBundlesResponse": _responses.bundles,
    "ActivateBundleResponse": _responses.activation,
    "RollbackBundleResponse": _responses.activation,
}
RESPONSES: dict[str, Descriptor] = {
    method.output_type.name: method.output_type
    for file in (retrieval, model)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def ours(field: FieldDescriptor) -> bool:
    """Holds a message of this project, whose own fields count."""
    return field.message_type is not None and field.message_type.full_name.startswith("kithkin.")


def mapped(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def inner(field: FieldDescriptor) -> Descriptor | None:
    """The message under a field, through lists and maps, where it is ours."""
    if mapped(field):
        field = field.message_type.fields_by_name["value"]
    return field.message_type if ours(field) else None


def paths(message: Descriptor) -> Iterator[Path]:
    for field in message.fields:
        yield (field.name,)
        if (under := inner(field)) is not None:
            yield from ((field.name, *rest) for rest in paths(under))


def full(descriptor: Descriptor, path: Path) -> Message:
    """A message with a value in every field; of fields that exclude each other, the one of the path."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        group = field.containing_oneof
        if group is not None and len(group.fields) > 1:
            wanted = next((each.name for each in group.fields if path and each.name == path[0]), group.fields[0].name)
            if field.name != wanted:
                continue
        rest = path[1:] if path and path[0] == field.name else ()
        put(message, field, rest)
    return message


def put(message: Message, field: FieldDescriptor, rest: Path) -> None:
    target = getattr(message, field.name)
    if mapped(field):
        value = field.message_type.fields_by_name["value"]
        if value.message_type is None:
            target["key"] = scalar(value)
        else:
            target["key"].CopyFrom(full(value.message_type, rest))
    elif field.message_type is not None:
        made = full(field.message_type, rest) if ours(field) else foreign(field.message_type)
        target.add().CopyFrom(made) if field.is_repeated else target.CopyFrom(made)
    elif field.is_repeated:
        target.append(scalar(field))
    else:
        setattr(message, field.name, scalar(field))


def foreign(descriptor: Descriptor) -> Message:
    message = GetMessageClass(descriptor)()
    name = "code" if "code" in descriptor.fields_by_name else "seconds"
    setattr(message, name, 5)
    return message


def scalar(field: FieldDescriptor) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return field.name
    return True if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else 1


def without(message: Message, path: Path) -> None:
    for name in path[:-1]:
        field = message.DESCRIPTOR.fields_by_name[name]
        value = getattr(message, name)
        message = value["key"] if mapped(field) else value[0] if field.is_repeated else value
    message.ClearField(path[-1])


def read(message: Message) -> Any:
    try:
        return READERS[message.DESCRIPTOR.name](message, "r1")
    except ValueError as error:
        return str(error)


def lost(descriptor: Descriptor) -> list[str]:
    """The fields that make no difference."""
    found = []
    for path in paths(descriptor):
        whole, less = full(descriptor, path), full(descriptor, path)
        without(less, path)
        assert whole != less, path
        if read(whole) == read(less):
            found.append(".".join(path))
    return found


def test_every_response_has_a_reader() -> None:
    assert RESPONSES.keys() == READERS.keys()


@pytest.mark.parametrize("name", sorted(RESPONSES))
def test_no_field_of_an_answer_is_lost(name: str) -> None:
    assert list(paths(RESPONSES[name]))
    assert lost(RESPONSES[name]) == []


def test_the_walk_sees_a_field_that_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(response: Any, request_id: str) -> Any:
        response.ClearField("delta")
        for result in response.bundle.spaces:
            result.ClearField("metric")
        return _responses.status(response, request_id)

    monkeypatch.setitem(READERS, "GetStatusResponse", forgetful)
    assert lost(RESPONSES["GetStatusResponse"]) == [
        "bundle.spaces.metric",
        "delta",
        "delta.fresh",
        "delta.changed",
        "delta.deleted",
        "delta.lag",
    ]


def test_a_delta_and_the_parts_of_a_score() -> None:
    status = _responses.status(model.GetStatusResponse(delta={"fresh": 3, "deleted": 1, "lag": {"seconds": 2}}), "r")
    assert status.delta == DeltaStatus(fresh=3, changed=0, deleted=1, lag=timedelta(seconds=2))
    begun = _responses.status(model.GetStatusResponse(delta={}), "r").delta
    assert begun is not None
    assert begun.lag is None
    assert _responses.status(model.GetStatusResponse(), "r").delta is None
    answer = retrieval.ExplainSimilarityResponse(reasons=[{"text": "a", "score_part": -0.25}, {"text": "b"}])
    assert [reason.score_part for reason in _responses.explanation(answer, "r")] == [-0.25, None]
