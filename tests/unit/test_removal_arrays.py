"""A removed node's row is gone from every array that has one per node, and a bundle with a row too many is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph_store.settings import PublishSettings
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore
from model_store.csr import EdgeType
from model_store.errors import BundleIncomplete
from model_store.features import FeatureTransforms, LinkBlock
from model_store.removal import write_without
from model_store.writer import BundleWriter
from server.index.publish import build_indexes
from tests.bundles import PLAYED, fill

ROW = 1
"""Of u2 among the four users."""


def numbered(count: int) -> np.ndarray:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3) + 1


def heard_by(edge_type: EdgeType, factors: np.ndarray) -> LinkBlock:
    return LinkBlock(
        neighbour_type=edge_type.neighbour_type,
        role="engagement",
        edge_types=(edge_type,),
        medians=(0.0,),
        bounds=(0.0, 0.0),
        factors=factors,
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The toy bundle with focal vectors of users and link features that read users' factors."""
    store = BundleStore(tmp_path)
    with store.writer("toy") as writer:
        fill(writer, encoders=False)
        counts = {each.name: each.count for each in writer.manifest.node_types}
        for space in writer.manifest.spaces:
            if space.name == "user":
                space.focal.node_types.append("User")
        writer.write_relevance("user", "User", numbered(4))
        writer.write_focal("user", "User", -numbered(4))
        users, artists = numbered(counts["User"]), numbered(counts["Artist"])
        blocks = {
            "Artist": [heard_by(EdgeType(PLAYED, True), users)],
            "Tag": [heard_by(EdgeType(PLAYED, True), users)],
            "User": [heard_by(EdgeType(PLAYED), artists)],
        }
        FeatureTransforms(blocks).save(writer.features_folder)
        build_indexes(writer, PublishSettings())
        return store.open(writer.commit())


def cut(bundle: Bundle, writer: BundleWriter) -> None:
    write_without(writer, bundle, "User", [ROW])
    build_indexes(writer, PublishSettings())


def test_every_array_of_the_type_loses_the_row(bundle: Bundle) -> None:
    store = BundleStore(bundle.folder.parent)
    with store.writer("toy") as writer:
        cut(bundle, writer)
        after = store.open(writer.commit())
    left = np.delete(numbered(4), ROW, axis=0)
    np.testing.assert_array_equal(after.relevance("user", "User"), left)
    np.testing.assert_array_equal(after.focal("user", "User"), -left)
    for path in (after.folder / "spaces").rglob("User.npy"):
        assert len(np.load(path)) == 3, path
    blocks = after.features().blocks
    for name in ("Artist", "Tag"):
        (block,) = blocks[name]
        assert isinstance(block, LinkBlock)
        np.testing.assert_array_equal(block.factors, left)
    (block,) = blocks["User"]
    assert isinstance(block, LinkBlock)
    assert len(block.factors) == bundle.node_types["Artist"].count
    assert len(list((after.folder / "features").glob("*.npy"))) == 2, "what was shared is shared"


@pytest.mark.parametrize("kind", ["relevance", "focal", "states/0", "."])
def test_a_row_too_many_is_not_published(bundle: Bundle, kind: str) -> None:
    store = BundleStore(bundle.folder.parent)
    with store.writer("toy") as writer:
        cut(bundle, writer)
        path = writer.folder / "spaces" / "user" / kind / "User.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        width = 3 if kind != "." else 4
        np.save(path, np.ones((4, width), np.float32))
        with pytest.raises(BundleIncomplete, match=r"User\.npy: 4 rows for 3 nodes of User"):
            writer.commit()
    assert store.versions() == (bundle.version,)
