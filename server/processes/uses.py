"""The bundles that a server uses, held so that no pruning removes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from model_store.bundle_store import BundleStore
from model_store.errors import BundleNotFound
from model_store.holds import Hold


class Uses:
    """Holds on bundles by version."""

    def __init__(self, store: BundleStore) -> None:
        self._store = store
        self._holds: dict[str, Hold] = {}

    def keep(self, versions: Iterable[str]) -> None:
        """Hold these and no others; what is not there cannot be held, and whoever opens it tells."""
        wanted = set(versions)
        for version in wanted - set(self._holds):
            # What the system refuses just now (a descriptor, say) is asked for again at the next look.
            with contextlib.suppress(BundleNotFound, OSError):
                self._holds[version] = self._store.hold(version)
        for version in set(self._holds) - wanted:
            self._holds.pop(version).release()
