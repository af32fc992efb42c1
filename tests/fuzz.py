"""Calls that nobody would send, over the wire: the server answers documented codes only, and lives.

    python -m tests.fuzz --each 100000

Three kinds, in equal numbers over all methods: random bytes; messages that were right, with bytes changed, taken out or
put in; and requests that Hypothesis makes from the protos' own descriptors, many of them naming nodes that are there,
or that are joined of two such.
UNKNOWN and INTERNAL are failures, and so is a server that no longer answers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given
from hypothesis import seed as seeded
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from graph_store.settings import ServingSettings
from kithkin.v1 import model_service_pb2, retrieval_service_pb2
from model_store.bundle_store import BundleStore
from server.wire.local import serve_in_thread
from server.wire.status import STATUS
from tests.bundles import write_toy_bundle

METHODS: list[MethodDescriptor] = [
    method
    for module in (retrieval_service_pb2, model_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
DOCUMENTED = {code.name for code, _ in STATUS.values()} | {"OK"}
FAULTS = {"INTERNAL", "UNKNOWN"}
TEXTS = ["1", "10", "u1", "t1", "Artist", "User", "Tag", "year", "HAS_TAG", "PLAYED", "similar", "user", "Ride", ""]
"""Names that the toy bundle knows: a request of nothing but noise is refused at its first field."""
_DEPTH = 5
_IN_FLIGHT = 32
Codes = Counter[tuple[str, str]]
"""Answers by kind and code."""


class Wire:
    """Sends raw bytes to any method, many at a time, and counts the codes."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.codes: Codes = Counter()
        self.faults: list[tuple[str, str, bytes]] = []
        """Method, code and bytes of what must not be."""
        self._calls = {path(method): self.channel.unary_unary(path(method)) for method in METHODS}
        self._running: list[tuple[str, MethodDescriptor, bytes, Any]] = []

    def send(self, kind: str, method: MethodDescriptor, raw: bytes) -> None:
        """Send, and hear the oldest answers where many are awaited."""
        self._running.append((kind, method, raw, self._calls[path(method)].future(raw, timeout=20)))
        if len(self._running) >= _IN_FLIGHT:
            self._hear(self._running.pop(0))

    def end(self) -> None:
        """Hear what is left."""
        while self._running:
            self._hear(self._running.pop(0))

    def _hear(self, sent: tuple[str, MethodDescriptor, bytes, Any]) -> None:
        kind, method, raw, call = sent
        code = call.code().name
        self.codes[kind, code] += 1
        if code in FAULTS or code not in DOCUMENTED:
            self.faults.append((path(method), code, raw))


def path(method: MethodDescriptor) -> str:
    """``/package.Service/Method``."""
    return f"/{method.containing_service.full_name}/{method.name}"


def random_bytes(rng: np.random.Generator) -> bytes:
    """Up to 300 bytes of anything."""
    return rng.bytes(int(rng.integers(0, 300)))


def mutated(rng: np.random.Generator, raw: bytes) -> bytes:
    """The bytes with one to four of them changed, taken out, put in or cut off."""
    data = bytearray(raw)
    for _ in range(int(rng.integers(1, 5))):
        place = int(rng.integers(0, len(data) + 1))
        match int(rng.integers(0, 4)):
            case 0 if place < len(data):
                data[place] = int(rng.integers(0, 256))
            case 1 if place < len(data):
                del data[place]
            case 2:
                data.insert(place, int(rng.integers(0, 256)))
            case 3 if rng.random() < 0.2:
                del data[place:]
    return bytes(data)


def requests_of(method: MethodDescriptor) -> st.SearchStrategy[Message]:
    """Requests of a method."""
    return messages(method.input_type, _DEPTH)


def messages(descriptor: Any, depth: int) -> st.SearchStrategy[Message]:
    """Messages of a type, as deep as allowed: any fields set, repeated ones up to four times."""
    kind: Any = message_factory.GetMessageClass(descriptor)
    fields = [field for field in descriptor.fields if depth > 0 or field.type != FieldDescriptor.TYPE_MESSAGE]
    values = {field.name: st.none() | value_of(field, depth) for field in fields}

    def build(chosen: dict[str, Any]) -> Message:
        made: Message = kind()
        for name, value in chosen.items():
            if value is not None:
                _set(made, name, value)
        return made

    return st.fixed_dictionaries(values).map(build)


def value_of(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    """Values of a field."""
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        keys, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        return st.dictionaries(one_of(keys, depth - 1), one_of(value, depth - 1), max_size=2)
    single = one_of(field, depth - 1)
    return st.lists(single, max_size=4) if field.is_repeated else single


def one_of(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    """Single values of a field."""
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return messages(field.message_type, max(depth, 0))
        case FieldDescriptor.TYPE_STRING:
            return st.sampled_from(TEXTS) | st.text(max_size=20).filter(_encodes)
        case FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=20)
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_ENUM:
            return st.integers(-1, 5)
        case FieldDescriptor.TYPE_FLOAT:
            return st.sampled_from([0.0, 1.0, 0.5]) | st.floats(width=32)
        case FieldDescriptor.TYPE_DOUBLE:
            return st.sampled_from([0.0, 1.0]) | st.floats()
        case FieldDescriptor.TYPE_INT32:
            return st.sampled_from([1, 3, 10]) | st.integers(-(2**31), 2**31 - 1)
        case FieldDescriptor.TYPE_INT64:
            return st.sampled_from([0, 1, 1990]) | st.integers(-(2**63), 2**63 - 1)
        case _:
            raise NotImplementedError(f"{field.full_name}: no values for a field of type {field.type}")


def _encodes(text: str) -> bool:
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


def _set(made: Message, name: str, value: Any) -> None:
    field = made.DESCRIPTOR.fields_by_name[name]
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        for key, each in value.items():
            if isinstance(each, Message):
                getattr(made, name)[key].CopyFrom(each)
            else:
                getattr(made, name)[key] = each
    elif field.is_repeated:
        getattr(made, name).extend(value)
    elif isinstance(value, Message):
        getattr(made, name).CopyFrom(value)
    else:
        setattr(made, name, value)


def fuzz(port: int, each: int, *, seed: int = 1, told: Callable[[str], None] | None = None) -> Wire:
    """Send so many calls of each kind."""
    wire, rng = Wire(port), np.random.default_rng(seed)
    for number in range(each):
        wire.send("random bytes", METHODS[number % len(METHODS)], random_bytes(rng))
    if told is not None:
        told("random bytes sent")
    rest = _shares(each, len(METHODS))
    for method, count in zip(METHODS, rest, strict=True):
        seen: list[bytes] = []
        for raw in made_requests(method, count, seed):
            wire.send("made requests", method, raw)
            seen.append(raw)
        for number in range(count):
            wire.send("mutated messages", method, mutated(rng, seen[number % len(seen)]))
        if told is not None:
            told(f"{method.name} sent")
    wire.end()
    return wire


def made_requests(method: MethodDescriptor, count: int, seed: int) -> Iterator[bytes]:
    """So many requests as bytes: up to 500 and a quarter of the rest by Hypothesis, the others joined of two of these.

    One by Hypothesis takes milliseconds, ten times as long as answering it.
    """
    made: list[bytes] = []
    wanted = min(count, 500) + max(count - 500, 0) // 4
    while len(made) < wanted:
        part = min(wanted - len(made), 500)
        found = _examples(requests_of(method), part, seed)
        # Where a message has few forms, Hypothesis stops when it has seen them.
        made += [found[number % len(found)] for number in range(part)]
        seed += 1
    yield from made
    rng = np.random.default_rng(seed)
    kind: Any = message_factory.GetMessageClass(method.input_type)
    for _ in range(count - wanted):
        yield joined(kind, rng, *(made[int(rng.integers(len(made)))] for _ in range(2))).SerializeToString()


def joined(kind: Any, rng: np.random.Generator, first: bytes, second: bytes) -> Message:
    """A message with fields of both: of those that one has, each is kept or not."""
    parts = [kind.FromString(raw) for raw in (first, second)]
    for part in parts:
        for field, _ in part.ListFields():
            if rng.random() < 0.3:
                part.ClearField(field.name)
    made: Message = parts[0]
    made.MergeFrom(parts[1])
    return made


def _examples(requests: st.SearchStrategy[Message], count: int, seed: int) -> list[bytes]:
    found: list[bytes] = []

    @seeded(seed)
    @hypothesis_settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests)
    def make(request: Message) -> None:
        found.append(request.SerializeToString())

    make()
    return found


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (number < total % parts) for number in range(parts)]


def main() -> int:
    """Fuzz a server of its own; exit code 1 where something must not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=100_000, help="calls of each of the three kinds")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        store = BundleStore(Path(folder))
        bundle = store.open(write_toy_bundle(store))
        with serve_in_thread(bundle, ServingSettings(port=0, max_top_k=50), store=store) as port:
            wire = fuzz(port, chosen.each, seed=chosen.seed, told=lambda text: print(text, flush=True))
            alive = wire.channel.unary_unary("/kithkin.v1.ModelService/GetStatus")(b"", timeout=20)
    for (kind, code), count in sorted(wire.codes.items()):
        print(f"{kind:18} {code:20} {count:>9,}")
    print(
        f"{sum(wire.codes.values()):,} calls in {time.perf_counter() - begun:.0f} s; the server answers: {bool(alive)}"
    )
    for method, code, raw in wire.faults[:10]:
        print(f"{code} from {method} for {raw.hex()}", file=sys.stderr)
    return 1 if wire.faults else 0


if __name__ == "__main__":
    sys.exit(main())
