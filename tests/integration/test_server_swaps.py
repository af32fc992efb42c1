"""Changing bundles under load, short: the same measurement as ``benchmarks/swaps.py``, which makes fifty changes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.swaps import measure
from kithkin.v1 import types_pb2
from model_store.bundle_store import BundleStore
from tests.bundles import write_toy_bundle


def test_changes_under_load_cost_no_call_and_mix_no_answer(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "models")
    versions = (write_toy_bundle(store, encoders=False), write_toy_bundle(store, encoders=False))
    nodes = [types_pb2.NodeRef(type="Artist", id=each) for each in ("1", "10", "2", "3")]
    figures = measure(store, versions, nodes, workers=2, swaps=6, folder=tmp_path)
    assert figures["errors"] == []
    assert (figures["mixed_answers"], figures["late_answers"]) == (0, 0)
    assert figures["calls"] > 6 * 20
    # The first changes fill caches; from then on what is freed is used again. Fifty changes grow by less than 5 %
    # (benchmarks/results/swaps.json); after six, pages that come and go with calls count for more.
    assert figures["growth_of_last_half"] < 0.1
