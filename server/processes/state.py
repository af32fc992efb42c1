"""What one worker serves, and what it was told of bundles."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from graph_store.settings import ServingSettings
from model_store.bundle_store import BundleStore
from server.calls.retrieval import Retrieval
from server.errors import BundleNotLoaded, NoBundle
from server.model.served_model import ServedModel
from server.processes.shadow import Shadow


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """All workers of the server, as the supervisor told last."""

    workers: int = 1
    serving: dict[str, int] = field(default_factory=dict)
    """Workers by the bundle that they answer from."""
    everywhere: str | None = None
    """The bundle that every running worker answers from; None: they differ, or answer from none."""
    written: int = 0
    """``st_mtime_ns`` of the ACTIVE that this is the outcome of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeltaCounts:
    """What changed in the store since the bundle that serves, and is answered with."""

    fresh: int
    changed: int
    deleted: int
    lag_s: float | None
    """Seconds since the follower last had everything; None: it never had."""


@dataclass(kw_only=True)
class State:
    """What one worker serves."""

    settings: ServingSettings
    store: BundleStore | None = None
    """Where the bundles lie, if a supervisor follows its ACTIVE; None: the bundle never changes."""
    retrieval: Retrieval | None = None
    """None: no bundle yet."""
    beside: dict[str, Retrieval] = field(default_factory=dict)
    """Further bundles by version, for requests that name one."""
    shadow: Shadow | None = None
    """A bundle that is asked a share of the searches too."""
    fleet: Fleet | None = None
    """None: this worker is the only one, and nobody leads it."""
    delta: DeltaCounts | None = None
    """None: the store is not followed."""
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

    def take_beside(self, model: ServedModel) -> None:
        """Answer from this bundle too where a request names it, or ask it as the shadow, as the settings say."""
        if model.version in self.settings.beside:
            self.beside[model.version] = Retrieval(model, self.settings)
        shadow = self.settings.shadow
        if shadow is not None and shadow.version == model.version:
            self.shadow = Shadow(Retrieval(model, self.settings), shadow.share)

    def hear(self, fleet: Fleet) -> None:
        """Know what the other workers serve."""
        self.fleet = fleet
        self._tell()

    def is_served(self, version: str, written: int) -> bool:
        """Whether every worker answers from this bundle, as the outcome of an ACTIVE written then or later."""
        if self.fleet is None:
            return self.version == version
        return self.version == version == self.fleet.everywhere and self.fleet.written >= written

    @property
    def workers(self) -> tuple[int, int]:
        """Workers there are, and those that answer from the same bundle as this one."""
        if self.version is None:
            return (1 if self.fleet is None else self.fleet.workers), 0
        if self.fleet is None:
            return 1, 1
        # This one does, also where the supervisor has not told so yet.
        return self.fleet.workers, max(self.fleet.serving.get(self.version, 0), 1)

    def refuse(self, reason: str) -> None:
        """Remember why the newest bundle was refused; empty: none is any more."""
        self.refused_bundle = reason
        self.refusals += bool(reason)
        self._tell()

    def serving(self, version: str = "") -> Retrieval:
        """The calls of the bundle of this version; of the active one where it is empty.

        Raises NoBundle and BundleNotLoaded.
        """
        if self.retrieval is None:
            why = f": {self.refused_bundle}" if self.refused_bundle else ""
            raise NoBundle(f"no bundle is loaded yet{why}", hint="Publish one (`kithkin build`), then try again.")
        if version in ("", self.version):
            return self.retrieval
        if version not in self.beside:
            loaded = [f"{self.version} (active)", *sorted(self.beside)]
            raise BundleNotLoaded(
                f"bundle {version} is not loaded by this server", hint=f"Loaded are: {', '.join(loaded)}."
            )
        return self.beside[version]

    def _tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()
