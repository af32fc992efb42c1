"""Answers recorded by a server, and read back as views by the ingest of the same project."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pyarrow as pa

from graph_store.embedded.store import EmbeddedStore
from graph_store.ingest.run import ingest
from graph_store.project import load_project
from graph_store.schema import Triple
from graph_store.serving_settings import ImpressionSettings
from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import retrieval_service_pb2_grpc, types_pb2
from model_store.bundle_store import BundleStore
from server.model.served_model import ServedModel
from server.processes.state import State
from server.wire.application import Application
from tests.bundles import write_toy_bundle

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
NODES = """
[nodes.Artist]
role = "entity"

[nodes.User]
role = "user"

[[sources]]
file = "artists.csv"
node = "Artist"
id = "id"

[[sources]]
file = "users.csv"
node = "User"
id = "id"
"""


def documented() -> str:
    """The declaration that the page on operations gives, for the toy bundle's types."""
    (block,) = re.findall(r"```toml\n([^`]*VIEWED[^`]*)```", PAGE.read_text(encoding="utf-8"))
    return str(block).replace("Film", "Artist")


async def test_what_was_answered_comes_back_as_views(tmp_path: Path) -> None:
    project_folder = tmp_path / "project"
    project_folder.mkdir()
    bundles = BundleStore(tmp_path / "models")
    folder = project_folder / "impressions"
    state = State(settings=ServingSettings(drain_s=1, impressions=ImpressionSettings(folder=folder)))
    state.take(ServedModel.load(bundles.open(write_toy_bundle(bundles, encoders=False))))
    application = Application(state)
    port = await application.start("127.0.0.1", 0)
    shown: set[tuple[str, str]] = set()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        for user in ("u1", "u2", "u3"):
            answer = await stub.RetrieveEntitiesForUser(
                pb.RetrieveEntitiesForUserRequest(user=types_pb2.NodeRef(id=user), top_k=2), timeout=10
            )
            shown |= {(user, result.node.ref.id) for result in answer.results}
        answer = await stub.RetrieveEntitiesForUser(
            pb.RetrieveEntitiesForUserRequest(
                user=types_pb2.NodeRef(id="new"), top_k=1, fallback=types_pb2.FALLBACK_POPULAR
            ),
            timeout=10,
        )
        shown.add(("new", answer.results[0].node.ref.id))
        # Of nobody the graph knows: recorded, and no view.
        await stub.RetrieveEntitiesForUser(
            pb.RetrieveEntitiesForUserRequest(vector=types_pb2.Vector(values=[1, 0, 0, 0]), top_k=2), timeout=10
        )
        await stub.SearchSimilarEntities(
            pb.SearchSimilarEntitiesRequest(entity=types_pb2.NodeRef(id="1"), top_k=2), timeout=10
        )
        assert not list(folder.glob("*.parquet")), "nothing is shown before a file is whole"
    await application.drain(notice=0)
    assert len(shown) == 7

    (project_folder / "artists.csv").write_text("id\n1\n10\n2\n3\n4\n5\n6\n")
    (project_folder / "users.csv").write_text("id\nu1\nu2\nu3\n")
    (project_folder / "kithkin.toml").write_text(NODES + documented())
    project = load_project(project_folder)
    with EmbeddedStore.open(project.schema, project.settings.store, project_folder, read_only=False) as store:
        store.apply_schema()
        report = ingest(project, store)
        assert [source.rejected for source in report.sources] == [0] * len(report.sources)
        views = pa.Table.from_batches(store.scan_edges(Triple("User", "VIEWED", "Artist"))).to_pylist()
    assert {(view["source"], view["target"]) for view in views} == shown
    assert all(view["at"] is not None and view["position"] in (1, 2) for view in views)
