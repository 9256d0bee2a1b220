"""Who may talk to a page's server: the page that it served itself, and programs, but no other page of the same browser.

A browser lets every page open a websocket to every address, and says whose page it is in "Origin"; viser does not look.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

_PATCHING = threading.Lock()


def is_own(host: str, origin: str | None, is_local: bool) -> bool:
    """Whether a request for ``host``, as in its header, may come from a page of ``origin``; None is no page at all.

    ``is_local``: served on this machine alone.  Then a name that is not this machine's is refused as well: somebody's
    own name can be made to lead here.
    """
    if is_local and not _is_here(host):
        return False
    return origin is None or (bool(host) and urlsplit(origin).netloc.lower() == host.lower())


def _is_here(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's for itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def own_pages_only(host: str) -> Iterator[None]:
    """A websocket server at ``host`` that starts meanwhile answers foreign pages with 403.

    viser has no way to be told, so the function with which it starts its server is another one for as long.
    """
    from websockets.asyncio import server

    is_local = is_loopback(host)
    plain: Any = server.serve

    def serve(*arguments: Any, process_request: Callable[..., Any], **more: Any) -> Any:
        def checked(connection: Any, request: Any) -> Any:
            asked = request.headers.get_all("Host"), request.headers.get_all("Origin")
            (wanted, *others), origins = asked[0] or [""], asked[1]
            if others or len(origins) > 1 or not is_own(wanted, origins[0] if origins else None, is_local):
                return connection.respond(HTTPStatus.FORBIDDEN, "This page belongs to another address.\n")
            return process_request(connection, request)

        return plain(*arguments, process_request=checked, **more)

    with _PATCHING:
        server.serve = serve  # type: ignore[misc,assignment]
        try:
            yield
        finally:
            server.serve = plain  # type: ignore[misc]
