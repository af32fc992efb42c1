"""Serves a bundle as Kithkin does and, in the same process, two handlers without anything around them.

    python -m benchmarks._bare_server FOLDER

``/bare/Ready`` returns one ready message. ``/bare/Scann`` is what one would write by hand: parse, look the vector up,
ask ScaNN, build the answer. The ports are printed as JSON; the process ends with its standard input.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvloop
from scann.scann_ops.py import scann_ops_pybind

from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from model_store.bundle_store import BundleStore
from server.model.served_model import ServedModel
from server.processes.state import State
from server.wire.application import Application

KEY = "benchmark-key"


def main() -> None:
    """Serve until standard input ends."""
    uvloop.run(_serve(Path(sys.argv[1])))


def settings(folder: Path) -> ServingSettings:
    """Everything on: keys, metrics and the log."""
    keys = folder / "keys"
    keys.write_text(f"read benchmark {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    return ServingSettings.model_validate({"port": 0, "insecure": True, "keys_file": str(keys), "metrics_port": 0})


async def _serve(folder: Path) -> None:
    store = BundleStore(folder)
    model = ServedModel.load(store.open())
    with tempfile.TemporaryDirectory() as scratch:
        state = State(settings=settings(Path(scratch)), store=store)
        state.take(model)
        application = Application(state)
        port = await application.start("127.0.0.1", 0)
        bare = grpc.aio.server()
        bare.add_generic_rpc_handlers((_handlers(model),))
        bare_port = bare.add_insecure_port("127.0.0.1:0")
        await bare.start()
        # As a worker does: what is loaded is no garbage.
        gc.collect()
        gc.freeze()
        print(json.dumps({"port": port, "bare_port": bare_port}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await bare.stop(None)
        await application.drain(notice=0)


def _handlers(model: ServedModel) -> grpc.GenericRpcHandler:
    index: Any = model.index("similar", "Item", "")
    parameters = index.parameters
    vectors = np.array(model.bundle.vectors("similar", "Item"))
    # As its own documentation builds it: partitions, quantised scores, and the best rescored.
    searcher = (
        scann_ops_pybind.builder(vectors, 20, "dot_product")
        .tree(
            num_leaves=parameters.leaves,
            num_leaves_to_search=parameters.leaves_to_search,
            training_sample_size=len(vectors),
            spherical=True,
        )
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(parameters.reorder)
        .build()
    )
    table = model.bundle.nodes("Item")
    ids = table.column("id").to_pylist()
    rows = {name: row for row, name in enumerate(ids)}
    names, years, makers = (table.column(name).to_pylist() for name in ("name", "year", "maker"))

    @functools.cache
    def node(row: int) -> types_pb2.Node:
        found = types_pb2.Node(ref=types_pb2.NodeRef(type="Item", id=ids[row]), name=names[row])
        found.properties["year"].int_value = years[row]
        found.properties["maker"].string_value = makers[row]
        return found

    def search(request: pb.SearchSimilarEntitiesRequest) -> pb.SearchSimilarEntitiesResponse:
        own = rows[request.entity.id]
        found, scores = searcher.search(vectors[own], final_num_neighbors=request.top_k + 1)
        response = pb.SearchSimilarEntitiesResponse()
        for row, score in zip(found.tolist(), scores.tolist(), strict=True):
            if row != own and len(response.results) < request.top_k:
                response.results.add(node=node(row), score=score)
        return response

    ready = search(pb.SearchSimilarEntitiesRequest(entity=types_pb2.NodeRef(id=ids[0]), top_k=20))

    async def scann(request: pb.SearchSimilarEntitiesRequest, _context: Any) -> pb.SearchSimilarEntitiesResponse:
        return search(request)

    async def return_ready(_request: Any, _context: Any) -> pb.SearchSimilarEntitiesResponse:
        return ready

    def method(behaviour: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=pb.SearchSimilarEntitiesRequest.FromString,
            response_serializer=pb.SearchSimilarEntitiesResponse.SerializeToString,
        )

    return grpc.method_handlers_generic_handler("bare", {"Ready": method(return_ready), "Scann": method(scann)})


if __name__ == "__main__":
    main()
