"""Bundles in use are never removed, whoever prunes, and two prunings at once do no harm."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_store.bundle_store import BundleStore
from model_store.errors import BundleNotFound
from tests.bundles import write_toy_bundle


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "models")


def test_a_bundle_that_is_held_is_not_pruned(store: BundleStore) -> None:
    versions = [write_toy_bundle(store, encoders=False) for _ in range(4)]
    store.activate(versions[3])
    hold = store.hold(versions[0])
    store.prune(keep=0)
    assert store.versions() == (versions[0], versions[3])
    assert not store.remove(versions[0])
    hold.release()
    store.prune(keep=0)
    assert store.versions() == (versions[3],)


def test_a_hold_ends_with_its_process(store: BundleStore) -> None:
    old, new = (write_toy_bundle(store, encoders=False) for _ in range(2))
    store.activate(new)
    script = (
        "import sys; from pathlib import Path; from model_store.bundle_store import BundleStore\n"
        "hold = BundleStore(Path(sys.argv[1])).hold(sys.argv[2])\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(store.root), old], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        store.prune(keep=0)
        assert store.versions() == (old, new)
        other.kill()
    store.prune(keep=0)
    assert store.versions() == (new,)


def test_what_is_gone_cannot_be_held(store: BundleStore) -> None:
    old, new = (write_toy_bundle(store, encoders=False) for _ in range(2))
    store.activate(new)
    assert store.remove(old)
    with pytest.raises(BundleNotFound, match=old):
        store.hold(old)
    with pytest.raises(BundleNotFound):
        store.remove(old)


def test_the_active_bundle_is_not_removed(store: BundleStore) -> None:
    version = write_toy_bundle(store, encoders=False)
    store.activate(version)
    assert not store.remove(version)
    assert store.open().version == version


def test_prunings_at_once_do_no_harm(store: BundleStore) -> None:
    versions = [write_toy_bundle(store, encoders=False) for _ in range(12)]
    store.activate(versions[0])
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(store.prune, keep) for keep in (8, 2, 5, 2)]:
            done.result()
    assert store.versions() == (versions[0], *versions[-2:])
    assert not list(store.root.glob(".*"))
