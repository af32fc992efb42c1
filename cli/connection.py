"""How the asking commands reach a service: a named server, the project's, or the active bundle in this process."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cli.console import say
from cli.credentials import client_of, client_of_project
from graph_store.errors import ConfigError
from graph_store.project import Project
from kithkin import Client
from kithkin.errors import KithkinError, NotFound, Unavailable
from kithkin.types import Node
from model_store.bundle_store import BundleStore

_ANSWER_S = 3.0
"""Given to a server to tell what it is."""
_REFUSED = (errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Nobody is there; or the machine has no address of that kind, so that nobody can be."""


@contextmanager
def connected(project: Project | None, server: str | None, *, asking: bool = True) -> Iterator[Client]:
    """A client of ``server``; without one, of the project's own server, or of its bundle served in this process.

    ``asking`` false: of the port of its administration, where it has one.
    """
    with ExitStack() as stack:
        client = stack.enter_context(running(project, server, asking=asking))
        if client is None:
            from server.wire.local import serve_in_thread

            assert project is not None
            serving = project.settings.serving
            say(
                f"no server of this project answers at {serving.host}:{serving.port}, --server names another; "
                "answering from its active bundle in this process"
            )
            bundle = BundleStore(project.work / "models").open()
            port = stack.enter_context(serve_in_thread(bundle, project.settings.serving))
            client = stack.enter_context(Client(f"127.0.0.1:{port}"))
        yield client


@contextmanager
def running(project: Project | None, server: str | None, *, asking: bool = False) -> Iterator[Client | None]:
    """A client of ``server``; without one, of the project's own server, None where none of it runs.

    ``asking``: for questions, where the administration may have a port of its own. Raises KithkinError where a server
    is there and does not say what it serves (no key, a certificate that is not trusted, no answer in time).
    """
    with ExitStack() as stack:
        if server is not None:
            yield stack.enter_context(client_of(server))
            return
        if project is None:
            raise ConfigError("name a server with --server, or a project with --project")
        serving = project.settings.serving
        # Port 0 is any free one: where it is cannot be known.
        client = stack.enter_context(client_of_project(serving, asking=False)) if serving.port else None
        port = serving.port if serving.admin_port is None else serving.admin_port
        if client is not None and not _serves(client, BundleStore(project.work / "models"), serving.host, port):
            client.close()
            client = None
        if client is not None and asking and serving.admin_port is not None:
            client = stack.enter_context(client_of_project(serving, asking=True))
        yield client


def find_node(client: Client, text: str, node_type: str | None) -> Node:
    """The node that a person means: by id, else by name; of several of one name the most engaged."""
    try:
        return client.get(text, type=node_type)
    except NotFound:
        pass
    except KithkinError as error:
        if error.reason != "TYPE_NEEDED":
            raise
    found = client.find(text, type=node_type)
    if len(found) > 1:
        others = ", ".join(f"{node.type} {node.id} {node.name!r}" for node in found[1:4])
        say(f"took {found[0].type} {found[0].id} {found[0].name!r}; other matches: {others}")
    return found[0]


def _serves(client: Client, bundles: BundleStore, host: str, port: int) -> bool:
    """Whether a server answers there that has a bundle of ours: another project may use the same port.

    Raises what a server that is there says instead (KithkinError): a key that it does not know, a certificate that is
    not trusted, no answer in time. Only where nobody takes connections does none run.
    """
    try:
        status = client.status(timeout=_ANSWER_S)
    except Unavailable:
        if _nobody_listens(host, port):
            return False
        raise
    return status.bundle is not None and status.bundle.version in bundles.versions()


def _nobody_listens(host: str, port: int) -> bool:
    """Whether every address of the host refuses; of several gRPC tells only the last one's error."""
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    for family, kind, _, _, address in places:
        try:
            with socket.socket(family, kind) as tried:
                tried.settimeout(_ANSWER_S)
                tried.connect(address)
        except OSError as error:
            if error.errno not in _REFUSED:
                return False
        else:
            return False
    return True
