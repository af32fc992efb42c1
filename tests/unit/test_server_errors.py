"""The table from errors to statuses is complete, and the page that shows it says the same."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from kithkin.v1 import types_pb2
from model_store import errors as model_store_errors
from server import errors
from server.wire.status import RETRY_AFTER_S, STATUS, code_of, status_of

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
PROTO = Path(__file__).parents[2] / "protos" / "kithkin" / "v1" / "types.proto"


def _below(kind: type[Exception]) -> list[type[Exception]]:
    return [each for child in kind.__subclasses__() for each in (child, *_below(child))]


def _example(kind: type[errors.CallError]) -> errors.CallError:
    if issubclass(kind, errors.InvalidField):
        return kind("field", "wrong")
    if issubclass(kind, errors.NodeMissing):
        return kind("field", "Artist", "1", "missing")
    if issubclass(kind, errors.NoSuchBundle):
        return kind("20260102T030405.000006Z", "missing")
    return kind("because", hint="Do this.")


def test_every_call_error_has_a_status() -> None:
    for kind in _below(errors.CallError):
        code, reason = code_of(_example(kind)) if kind is not errors.NodeMissing else (grpc.StatusCode.NOT_FOUND, 1)
        assert code not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.OK)
        assert reason
    assert set(STATUS) == set(_below(errors.CallError)) - {errors.NodeMissing}, "its two kinds stand for it"


def test_every_reason_is_given_by_one_error() -> None:
    reasons = [reason for _, reason in STATUS.values()]
    assert sorted(reasons) == sorted(set(types_pb2.ErrorReason.values()) - {0})


def test_the_proto_names_the_same_codes() -> None:
    """Each reason's comment ends with its code."""
    text = PROTO.read_text(encoding="utf-8")
    for _, (code, reason) in STATUS.items():
        name = types_pb2.ErrorReason.Name(reason)
        comment = re.search(rf"// ([^\n]*)\n  {name} =", text)
        assert comment is not None, name
        assert code.name in comment.group(1), name


def test_the_page_has_a_row_for_every_error() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    wanted = [(types_pb2.ErrorReason.Name(reason), code.name, kind.__name__) for kind, (code, reason) in STATUS.items()]
    assert rows == sorted(wanted, key=lambda row: types_pb2.ErrorReason.Value(row[0]))


@pytest.mark.parametrize("package", [errors, model_store_errors])
def test_the_tree_in_the_docstring_names_every_error(package: object) -> None:
    root = errors.ServerError if package is errors else model_store_errors.ModelStoreError
    drawn = re.findall(r"^(?:[│ ]*[├└]── )?(\w+)", package.__doc__ or "", re.MULTILINE)
    own = {kind.__name__ for kind in (root, *_below(root)) if kind.__module__ == root.__module__}
    assert own <= set(drawn)


def test_only_what_passes_by_itself_says_when_to_try_again() -> None:
    for kind, (code, _) in STATUS.items():
        details = status_of(_example(kind), "id").details
        retry = any(detail.type_url.endswith("google.rpc.RetryInfo") for detail in details)
        passes = code is grpc.StatusCode.UNAVAILABLE or kind is errors.Overloaded
        assert retry == (kind in RETRY_AFTER_S) == passes


def test_a_subclass_made_later_has_the_status_of_its_parent() -> None:
    class StillWrong(errors.WrongDimension):
        pass

    assert code_of(StillWrong("vector", "short"))[1] == types_pb2.WRONG_DIMENSION


def test_an_error_says_what_to_do() -> None:
    error = errors.StartError("the port is taken", hint="Choose another.")
    assert str(error) == "the port is taken\n  Choose another."
    assert error.exit_code == 7
    assert status_of(errors.NoBundle("none yet", hint="Publish one."), "id").message == "none yet. Publish one."
