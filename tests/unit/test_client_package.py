"""The package itself: its public names, what importing it costs, how its values print, and the generated stubs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import kithkin
from kithkin import Explanation, Node, Nodes, Reason, Ref, ResponseInfo, Results, ScoredEntity, Vector, Vectors

ROOT = Path(__file__).parents[2]
FILM = Node(Ref("Movie", "1"), "Toy Story", {"title": "Toy Story", "year": 1995})
OTHER = Node(Ref("Movie", "3114"), "Toy Story 2", {"year": 1999})
WHY = Reason((FILM, OTHER), ("CO_RATED",), 0.625, "often rated together")
INFO = ResponseInfo(bundle_version="b7")


def test_public_names_are_sorted_and_there() -> None:
    assert kithkin.__all__ == sorted(set(kithkin.__all__))
    assert set(kithkin.__all__) <= set(dir(kithkin))
    for name in kithkin.__all__:
        assert getattr(kithkin, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        kithkin.Klient  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    source = (ROOT / "client/kithkin/__init__.py").read_text()
    seen = {line.split(" as ")[1] for line in source.splitlines() if line.startswith("    from kithkin.")}
    assert seen == set(kithkin.__all__) - {"__version__"}


def test_importing_loads_no_grpc_until_a_client_is_asked_for() -> None:
    code = """
import sys, kithkin
heavy = lambda: sorted({"grpc", "google.protobuf", "numpy"} & set(sys.modules))
assert heavy() == [], heavy()
kithkin.NotFound, kithkin.Ref("Movie", "1"), kithkin.Described(), kithkin.__version__
assert heavy() == [], heavy()
kithkin.Client
assert heavy() == ["google.protobuf", "grpc"], heavy()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT / "client")


def test_lists_of_results_behave_like_lists() -> None:
    results = Results((ScoredEntity(OTHER, 0.75), ScoredEntity(FILM, 0.5)), INFO)
    assert len(results) == 2
    assert [item.name for item in results] == ["Toy Story 2", "Toy Story"]
    assert results[-1].id == "1"
    assert results[:1] == (results[0],)
    assert results[0] in results
    assert results == Results((ScoredEntity(OTHER, 0.75), ScoredEntity(FILM, 0.5)), INFO)
    assert results.to_dicts() == [
        {"type": "Movie", "id": "3114", "name": "Toy Story 2", "score": 0.75, "year": 1999},
        {"type": "Movie", "id": "1", "name": "Toy Story", "score": 0.5, "title": "Toy Story", "year": 1995},
    ]
    assert not Results((), INFO)


def test_a_property_does_not_hide_what_the_row_says_itself() -> None:
    node = Node(Ref("Artist", "1"), "Radiohead", {"name": "other", "score": 3})
    assert Results((ScoredEntity(node, 0.5),), INFO).to_dicts() == [
        {"type": "Artist", "id": "1", "name": "Radiohead", "score": 0.5}
    ]


def test_values_print_readably() -> None:
    assert repr(FILM) == "<Movie '1' 'Toy Story', year=1995>"
    assert repr(Results((ScoredEntity(OTHER, 0.75, (WHY,)),), INFO)) == (
        "Results(1 from bundle b7)\n  <0.7500 Movie '3114' 'Toy Story 2' because often rated together>"
    )
    info = ResponseInfo("b7", fallback="popular", truncated=True, shortfall_reason="only 1 is left")
    assert repr(Nodes((), info)) == ("Nodes(0 from bundle b7, fallback: popular, more have the name, only 1 is left)")
    assert repr(Explanation(FILM, OTHER, 0.5, (WHY,), INFO)) == (
        "Explanation(<Movie '1' 'Toy Story', year=1995> -> <Movie '3114' 'Toy Story 2', year=1999>, 0.5000)\n"
        "  <Reason 62% 'often rated together'>"
    )
    assert repr(Vector([1, 2, 3, 4, 5], "similar")) == "<Vector 'similar' [5] 1.0000, 2.0000, 3.0000, 4.0000, ...>"


def test_values_are_frozen_and_hashable() -> None:
    for value in (FILM, WHY, ScoredEntity(FILM, 0.5, (WHY,)), INFO, Vector([1.0]), Ref("Movie", "1")):
        field = next(iter(type(value).__dataclass_fields__))
        with pytest.raises(AttributeError):
            setattr(value, field, None)
        assert isinstance(hash(value), int)
    assert ResponseInfo(server_time=timedelta(seconds=1)) != ResponseInfo()


def test_vectors_are_float32_sequences_and_arrays() -> None:
    vector = Vector([0.1, 2.0], "similar", "b7")
    assert vector[0] == np.float32(0.1)
    assert (len(vector), vector[1:], list(vector)[1]) == (2, (2.0,), 2.0)
    assert vector == Vector([np.float32(0.1), 2], "similar", "b7")
    assert vector != Vector([0.1, 2.0], "user", "b7")
    array = np.asarray(vector)
    assert array.dtype == np.float32
    array[0] = 9
    assert vector[0] == np.float32(0.1)
    assert np.asarray(vector, dtype=np.float64).dtype == np.float64
    assert np.asarray(Vectors((vector, vector), INFO)).shape == (2, 2)
    with pytest.raises(ValueError, match="without a copy"):
        np.array(vector, copy=False)


def load(script: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(script).stem, ROOT / script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return load("protos/generate.py")


def test_committed_stubs_are_what_protoc_makes(generate: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().err


def test_stale_missing_and_left_over_stubs(
    generate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protos, stubs = tmp_path / "protos", tmp_path / "client"
    (protos / "shop/v1").mkdir(parents=True)
    head = 'syntax = "proto3"; package shop.v1; '
    (protos / "shop/v1/a.proto").write_text(head + "message A { string id = 1; }")
    (protos / "shop/v1/b_service.proto").write_text(
        head + 'import "shop/v1/a.proto"; service B { rpc Get(A) returns (A); }'
    )

    def run(*arguments: str) -> tuple[int, list[str]]:
        status = generate.main(list(arguments), protos=protos, stubs=stubs)
        output = capsys.readouterr()
        return status, (output.out + output.err).splitlines()

    names = ["a_pb2.py", "a_pb2.pyi", "b_service_pb2.py", "b_service_pb2.pyi", "b_service_pb2_grpc.py"]
    again = "; run: python protos/generate.py"
    assert run("--check") == (1, [f"shop/v1/{name} is missing{again}" for name in names])
    assert not stubs.exists()
    assert run() == (0, [f"wrote shop/v1/{name}" for name in names])
    assert run("--check") == (0, [])
    (protos / "shop/v1/b_service.proto").unlink()
    (protos / "shop/v1/a.proto").write_text(head + "message A { string key = 1; }")
    (stubs / "shop/v1/by_hand.py").write_text("")
    assert run("--check") == (
        1,
        [f"shop/v1/{name} is stale{again}" for name in names[:2]]
        + [f"shop/v1/{name} should not be there{again}" for name in names[2:]],
    )
    assert run() == (
        0,
        [f"wrote shop/v1/{name}" for name in names[:2]] + [f"removed shop/v1/{name}" for name in names[2:]],
    )
    assert sorted(path.name for path in (stubs / "shop/v1").iterdir()) == ["a_pb2.py", "a_pb2.pyi", "by_hand.py"]


def test_a_broken_proto_is_named(generate: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.proto").write_text('syntax = "proto3"; message A { strin id = 1; }')
    assert generate.main([], protos=tmp_path, stubs=tmp_path / "out") == 2
    assert "a.proto:1:32" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def generate_api() -> ModuleType:
    return load("docs/generate_api.py")


def test_the_api_page_is_what_the_protos_say(generate_api: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate_api.main(["--check"]) == 0, capsys.readouterr().err


def test_the_api_page_of_a_small_proto(
    generate_api: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shop_service.proto").write_text("""// A shop.

syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";

// Sells things.
service Shop {
  // Sells one
  // thing.
  rpc Sell(Order) returns (Order) {}
}

// What | who.
message Order {
  oneof what {
    // By name.
    string name = 1;
    Kind kind = 2;
  }
  optional float price = 3;
  repeated google.protobuf.Timestamp times = 4;
  map<string, Order> parts = 5; // Of it.
}

enum Kind {
  KIND_UNSPECIFIED = 0;
  // Round.
  BALL = 1;
}
""")
    page = tmp_path / "api.md"
    assert generate_api.main(["--check"], protos=tmp_path, page=page) == 1
    assert not page.exists()
    assert generate_api.main([], protos=tmp_path, page=page) == 0
    assert generate_api.main(["--check"], protos=tmp_path, page=page) == 0
    capsys.readouterr()
    assert (
        page.read_text().removeprefix(generate_api.HEAD)
        == """
## shop_service.proto

A shop.

### Shop

Sells things.

| call | request | response | |
|---|---|---|---|
| `Sell` | [Order](#order) | [Order](#order) | Sells one thing. |

### Order

What | who.

| field | type | |
|---|---|---|
| *one of `what`:* | | |
| – `name` | string | By name. |
| – `kind` | [Kind](#kind) | |
| `price` | optional float | |
| `times` | repeated `google.protobuf.Timestamp` | |
| `parts` | map of string to [Order](#order) | Of it. |

### Kind

| value | number | |
|---|---|---|
| `KIND_UNSPECIFIED` | 0 | |
| `BALL` | 1 | Round. |
"""
    )


def test_every_kind_of_property_is_sent_and_read() -> None:
    from kithkin._requests import property_value as to_wire
    from kithkin._responses import _property as from_wire
    from kithkin.v1 import types_pb2 as wire

    moment = datetime(2001, 9, 9, 1, 46, 40, 123456, tzinfo=UTC)
    values = ["a", 7, 0.5, True, ("a", "b"), (0.5, 1.0), moment]
    assert [from_wire(to_wire("x", value)) for value in values] == values
    kinds = {to_wire("x", value).WhichOneof("kind") for value in values}
    assert kinds == {field.name for field in wire.PropertyValue.DESCRIPTOR.oneofs_by_name["kind"].fields}
