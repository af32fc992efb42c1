"""What one worker serves, and what it was told of bundles."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from graph_store.settings import ServingSettings
from model_store.bundle_store import BundleStore
from server.errors import NoBundle
from server.model import ServedModel
from server.retrieval import Retrieval


@dataclass(kw_only=True)
class State:
    """What one worker serves."""

    settings: ServingSettings
    store: BundleStore | None = None
    """Where the bundles lie, if a supervisor follows its ACTIVE; None: the bundle never changes."""
    retrieval: Retrieval | None = None
    """None: no bundle yet."""
    refused_bundle: str = ""
    """Why the newest bundle was refused, its version first."""
    refusals: int = 0
    """How often one was."""
    started: float = field(default_factory=time.monotonic)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when another bundle serves or was refused; who waits takes it before looking, it is replaced then."""

    @property
    def version(self) -> str | None:
        """The bundle that serves."""
        return None if self.retrieval is None else self.retrieval.model.version

    def take(self, model: ServedModel) -> None:
        """Answer from this bundle from now on; calls that run keep the one they began with."""
        self.retrieval = Retrieval(model, self.settings)
        self._tell()

    def refuse(self, reason: str) -> None:
        """Remember why the newest bundle was refused; empty: none is any more."""
        self.refused_bundle = reason
        self.refusals += bool(reason)
        self._tell()

    def serving(self) -> Retrieval:
        """The loaded bundle's calls. Raises NoBundle."""
        if self.retrieval is None:
            why = f": {self.refused_bundle}" if self.refused_bundle else ""
            raise NoBundle(f"no bundle is loaded yet{why}", hint="Publish one (`kithkin build`), then try again.")
        return self.retrieval

    def _tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()
