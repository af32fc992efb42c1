"""The calls that move the active bundle: list, activate, roll back."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable

from kithkin.v1 import model_service_pb2 as pb
from model_store import layout
from model_store.bundle_store import BundleStore
from model_store.errors import BundleNotFound, ModelStoreError, NothingBefore
from server.deadline import Deadline
from server.errors import (
    ActivationOvertaken,
    BundleRefused,
    BundlesNotManaged,
    DeadlinePassed,
    InvalidField,
    NoPreviousBundle,
    NoSuchBundle,
)
from server.processes.state import State

MOST_LISTED = 100
"""Bundles of one page."""
_LOOK_S = 0.5
"""How often a call that waits looks whether ACTIVE names another bundle by now."""
_RESERVE_S = 0.05
"""Kept of the deadline to tell in it that it passed."""


class Administration:
    """Moves the file ACTIVE, which the supervisor follows, and waits until all workers serve what it names."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._turn = asyncio.Lock()

    async def list_bundles(self, request: pb.ListBundlesRequest) -> pb.ListBundlesResponse:
        """One page of bundles, newest first."""
        store = self._store()
        if request.page_size < 0:
            raise InvalidField("page_size", f"{request.page_size} is negative")
        size = min(request.page_size or MOST_LISTED, MOST_LISTED)
        before = _read_token(request.page_token)
        return await asyncio.to_thread(self._page, store, size, before)

    async def activate(self, version: str, deadline: Deadline) -> pb.ActivateBundleResponse:
        """Make a bundle the active one, and wait until every worker serves it.

        Raises NoSuchBundle, BundleRefused, ActivationOvertaken and DeadlinePassed. Refused, ACTIVE is as it was.
        """
        store = self._store()
        if not version:
            raise InvalidField("version", "is empty", hint="ListBundles tells the versions there are.")
        async with self._turn:
            await asyncio.to_thread(_check, store, version)
            before = await self._switch(store, version, lambda: store.activate(version), deadline)
        return pb.ActivateBundleResponse(version=version, previous_version=before)

    async def roll_back(self, deadline: Deadline) -> pb.RollbackBundleResponse:
        """Activate the bundle that was active before, and wait until every worker serves it.

        Raises NoPreviousBundle too.
        """
        store = self._store()
        async with self._turn:
            version = await asyncio.to_thread(store.previous)
            if version is None:
                raise NoPreviousBundle(
                    "no bundle that is still there was active before", hint="ListBundles tells those there are."
                )
            await asyncio.to_thread(_check, store, version)
            before = await self._switch(store, version, lambda: _roll_back_to(store, version), deadline)
        return pb.RollbackBundleResponse(version=version, previous_version=before)

    def _store(self) -> BundleStore:
        if self._state.store is None:
            raise BundlesNotManaged(
                "this server serves the one bundle that it was given", hint="Ask one that `kithkin serve` started."
            )
        return self._state.store

    async def _switch(self, store: BundleStore, version: str, move: Callable[[], None], deadline: Deadline) -> str:
        """Move ACTIVE and wait until its bundle serves; returns the version it named before."""
        state = self._state
        before = await asyncio.to_thread(store.active) or ""
        if before == version and state.is_served(version, await asyncio.to_thread(store.written)):
            return before
        refusals = state.refusals
        deadline.check("activation")
        await asyncio.to_thread(move)
        written = await asyncio.to_thread(store.written)
        while True:
            # Taken before looking: what happens from here on sets it.
            news = state.news
            if state.is_served(version, written):
                return before
            if state.refusals > refusals and state.refused_bundle.startswith(f"{version}:"):
                reason = state.refused_bundle
                await asyncio.to_thread(_put_back, store, before, version)
                raise BundleRefused(
                    f"bundle {reason}",
                    hint=f"{before or 'None'} is active as before: publish again, or choose another.",
                )
            active = await asyncio.to_thread(store.active)
            if active != version:
                raise ActivationOvertaken(
                    f"bundle {active} was activated before {version} served", hint="GetStatus tells which one serves."
                )
            if deadline.left <= _RESERVE_S:
                raise DeadlinePassed(
                    f"bundle {version} is the active one now, and is still being loaded",
                    hint="GetStatus tells when it serves; give the call more time.",
                )
            try:
                await asyncio.wait_for(news.wait(), min(_LOOK_S, deadline.left - _RESERVE_S))
            except TimeoutError:
                continue

    def _page(self, store: BundleStore, size: int, before: str | None) -> pb.ListBundlesResponse:
        versions = [each for each in reversed(store.versions()) if before is None or each < before]
        active, serving = store.active(), self._state.version
        response = pb.ListBundlesResponse()
        for version in versions[:size]:
            summary = response.bundles.add(version=version, active=version == active, serving=version == serving)
            summary.published_at.FromDatetime(layout.time_of(version))
            try:
                manifest = store.open(version, verify=False).manifest
            except ModelStoreError as error:
                summary.problem = error.message
            else:
                summary.snapshot_hash = manifest.snapshot_hash
                for node_type in manifest.node_types:
                    summary.nodes[node_type.name] = node_type.count
        if len(versions) > size:
            response.next_page_token = base64.urlsafe_b64encode(versions[size - 1].encode()).decode()
        return response


def _check(store: BundleStore, version: str) -> None:
    """Open a bundle with all its checksums. Raises NoSuchBundle and BundleRefused."""
    try:
        store.open(version)
    except BundleNotFound as error:
        raise NoSuchBundle(version, error.message, hint=error.hint) from None
    except ModelStoreError as error:
        raise BundleRefused(f"bundle {version}: {error.message}", hint=error.hint) from None


def _roll_back_to(store: BundleStore, version: str) -> None:
    try:
        went_to = store.roll_back()
    except NothingBefore as error:
        raise NoPreviousBundle(error.message, hint=error.hint) from None
    if went_to != version:
        raise ActivationOvertaken(
            f"another bundle was activated meanwhile, {went_to} is active now", hint="GetStatus tells which one serves."
        )


def _put_back(store: BundleStore, before: str, version: str) -> None:
    """A bundle that was refused must not be what the next start finds."""
    if store.active() != version or before in ("", version):
        return
    if store.previous() == before:
        store.roll_back()
    else:
        store.activate(before)


def _read_token(token: str) -> str | None:
    if not token:
        return None
    try:
        version = base64.urlsafe_b64decode(token.encode("ascii")).decode("ascii")
    except (binascii.Error, ValueError):
        version = ""
    if not layout.is_version(version):
        raise InvalidField("page_token", "is none of this call", hint="Send next_page_token of the page before.")
    return version
