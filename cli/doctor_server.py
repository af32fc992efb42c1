"""What ``kithkin doctor`` finds of the server: its keys, its certificates, its port, and whether it answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from cli.finding import Finding
from graph_store.errors import ConfigError
from graph_store.project import Project

_OF_CALLER = ("UNAUTHENTICATED", "PERMISSION_DENIED")


def examine_server(project: Project) -> Iterator[Finding]:
    """The files that ``kithkin serve`` reads, as it reads them, then the server or its port."""
    yield from _keys(project)
    yield from _certificates(project)
    yield _server(project)


def _keys(project: Project) -> Iterator[Finding]:
    try:
        from server.errors import StartError
        from server.wire.keys import ENVIRONMENT, Keys
    except ImportError as error:
        yield Finding(what="keys", state="note", says=f"not looked at: {error.name} is not installed")
        return
    file = project.settings.serving.within(project.folder).keys_file
    try:
        keys = Keys.of(file)
    except StartError as error:
        yield Finding(what="keys", state="wrong", says=error.message, do=error.hint)
        return
    if keys is not None:
        yield Finding(what="keys", state="ok", says=f"{file or ENVIRONMENT} can be read")


def _certificates(project: Project) -> Iterator[Finding]:
    settings = project.settings.serving.within(project.folder).tls
    if settings.certificate is None:
        return
    try:
        from server.errors import StartError
        from server.wire.tls import Certificates
    except ImportError as error:
        yield Finding(what="certificates", state="note", says=f"not looked at: {error.name} is not installed")
        return
    try:
        Certificates(settings)
    except StartError as error:
        yield Finding(what="certificates", state="wrong", says=error.message, do=error.hint)
        return
    yield Finding(what="certificates", state="ok", says=f"{settings.certificate} and its key fit")


def _server(project: Project) -> Finding:
    serving = project.settings.serving
    place = f"{serving.host}:{serving.port}"
    if not serving.port:
        return Finding(what="server", state="note", says="any free port: where one runs cannot be known")
    try:
        socket.getaddrinfo(serving.host, serving.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        says = f"serving.host {serving.host!r} does not resolve on this machine: {error}"
        return Finding(what="server", state="wrong", says=says, do="Give a name or an address of this machine.")
    from cli.connection import running
    from cli.hints import OF_TLS, with_hint
    from kithkin.errors import KithkinError

    try:
        with running(project, None) as client:
            if client is not None:
                status = client.status(timeout=2)
                version = status.bundle.version if status.bundle is not None else "no bundle"
                says = f"{place} answers from {version}, {status.workers_serving} of {status.workers} workers"
                if status.refused_bundle:
                    do = "Publish again, or kithkin activate another."
                    return Finding(what="server", state="wrong", says=f"{says}; {status.refused_bundle}", do=do)
                return Finding(what="server", state="ok", says=says)
    except ConfigError as error:
        return Finding(what="server", state="wrong", says=error.message, do=error.hint)
    except KithkinError as error:
        hint = with_hint(error).hint
        says = f"{place}: {error.message} [{error.code}]"
        # Said by a Kithkin server, or of its certificate: a matter of what this caller shows and trusts.
        if error.reason or any(phrase in error.message for phrase in OF_TLS) or error.code in _OF_CALLER:
            return Finding(what="server", state="note", says=says, do=hint)
        do = "Another program may have it: choose another serving.port. Or the server hangs: see its log."
        return Finding(what="server", state="wrong", says=says, do=do)
    try:
        from server.errors import StartError
        from server.processes.port import reserve
    except ImportError as error:
        return Finding(what="server", state="note", says=f"port not looked at: {error.name} is not installed")
    try:
        for each in reserve(serving.host, serving.port):
            each.close()
    except StartError as error:
        do = "It is another program's, or a server of another project: choose another serving.port."
        return Finding(what="server", state="wrong", says=error.message, do=do)
    return Finding(what="server", state="ok", says=f"none runs; {place} is free", do="kithkin serve")
