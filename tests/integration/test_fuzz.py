"""Noise over the wire gets documented codes, and the server lives (``make fuzz`` sends a hundred times as much)."""

from __future__ import annotations

from pathlib import Path

from graph_store.settings import ServingSettings
from model_store.bundle_store import BundleStore
from server.wire.local import serve_in_thread
from tests.bundles import write_toy_bundle
from tests.fuzz import fuzz


def test_noise_gets_documented_codes_and_the_server_lives(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    bundle = store.open(write_toy_bundle(store))
    with serve_in_thread(bundle, ServingSettings(port=0, max_top_k=50), store=store) as port:
        wire = fuzz(port, 700)
        assert wire.channel.unary_unary("/kithkin.v1.ModelService/GetStatus")(b"", timeout=20)
    assert not wire.faults, wire.faults[0]
    assert sum(wire.codes.values()) == 2100
    # Some of it must get through, or all of it was refused at the door.
    assert wire.codes["made requests", "OK"] > 20
    assert wire.codes["mutated messages", "OK"] > 20
    assert {kind for kind, _ in wire.codes} == {"random bytes", "made requests", "mutated messages"}
