"""Who may talk to the server: host names, origins, the token, rates, and the headers of every answer.

A page of another site can make a browser send requests here. It cannot choose the ``Origin`` header, which has
to be the server's own for everything that acts. Nor does it help to point a name of its own at this address
(DNS rebinding): the ``Host`` header has to be on a list. Imports nothing of gesda.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
import socket
import time
from collections.abc import Iterable
from typing import Any, TypeAlias
from urllib.parse import urlsplit

Headers: TypeAlias = dict[bytes, bytes]

# What a host name and a port are made of: the header is repeated in the content security policy.
_HOST = re.compile(r"[A-Za-z0-9._\-:\[\]]{1,255}\Z")
_LOOPBACK_NAMES = ("localhost",)
_PERMISSIONS = "accelerometer=(self), gyroscope=(self), camera=(), geolocation=(), microphone=(), payment=(), usb=()"


def is_loopback(host: str) -> bool:
    """Whether an address or name can be reached from this machine alone.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class HostList:
    """The values of ``Host`` that are answered.

    Parameters
    ----------
    bound : str
        The address that the server binds to. On loopback only loopback's names are answered. Elsewhere any
        address in digits is too, which no rebinding can use, and this machine's own name.
    more : iterable of str, default: ()
        Further names, such as that of a proxy before the server.

    Examples
    --------
    >>> hosts = HostList("127.0.0.1")
    >>> hosts.allows("127.0.0.1:8000"), hosts.allows("localhost"), hosts.allows("attacker.example")
    (True, True, False)
    """

    def __init__(self, bound: str, more: Iterable[str] = ()) -> None:
        self.local = is_loopback(bound)
        self.names = {name.lower() for name in (*_LOOPBACK_NAMES, bound, *more)}
        if not self.local:
            self.names |= {socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}

    def allows(self, header: str) -> bool:
        """Whether a Host header, with or without a port, is on the list."""
        if not _HOST.match(header):
            return False
        try:
            parts = urlsplit(f"//{header}")
            name, _ = parts.hostname, parts.port
        except ValueError:
            return False
        if not name:
            return False
        if name in self.names or (self.local and is_loopback(name)):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return not self.local


def same_origin(headers: Headers) -> bool:
    """Whether the Origin is that of the server: there, and its host and port those of the Host header.

    Examples
    --------
    >>> same_origin({b"host": b"localhost:8000", b"origin": b"http://localhost:8000"})
    True
    >>> same_origin({b"host": b"localhost:8000", b"origin": b"http://localhost:8001"})
    False
    """
    origin, host = headers.get(b"origin", b""), headers.get(b"host", b"")
    scheme, _, rest = origin.decode("latin-1").lower().partition("://")
    return scheme in ("http", "https") and bool(rest) and rest == host.decode("latin-1").lower()


def token_matches(given: str, token: str) -> bool:
    """Compare in a time that does not tell how much of it was right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode("utf-8", "surrogatepass"))


class Allowance:
    """A token bucket: so many a second, and some at once.

    Parameters
    ----------
    rate : float
        Units a second that come back.
    burst : float
        Units there at most, and at the beginning.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst, self._left, self._seen = rate, burst, burst, time.monotonic()

    def take(self) -> bool:
        """Take one unit; False if none is left."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._seen) * self._rate)
        self._seen = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Guard:
    """ASGI middleware: refuses foreign hosts and origins, and puts the security headers on every answer.

    Parameters
    ----------
    app : ASGI application
    hosts : HostList
    """

    def __init__(self, app: Any, hosts: HostList) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on what is allowed."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers: Headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        known = self.hosts.allows(host)
        extra = _security_headers(host if known else "")

        async def send_with_headers(message: Any) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        acts = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        fetched_by_others = headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none")
        if not known:
            reason = "this name is not one of the server's; use its address, or allow the name when starting it."
        elif acts and not same_origin(headers):
            reason = "the request does not come from the server's own page; open the page at the server's address."
        elif fetched_by_others and scope.get("path") not in ("/", ""):
            reason = "another site's page asked for this; open the page at the server's address."
        else:
            await self.app(scope, receive, send_with_headers)
            return
        await _refuse(scope, send, send_with_headers, reason)


async def _refuse(scope: Any, send: Any, send_with_headers: Any, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": ""})  # before the handshake: status 403
        return
    body = json.dumps({"code": "refused", "message": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send_with_headers({"type": "http.response.start", "status": 403, "headers": headers})
    await send_with_headers({"type": "http.response.body", "body": body})


def _security_headers(host: str) -> list[tuple[bytes, bytes]]:
    # Browsers before 2022 do not count the server's WebSocket as 'self'.
    sockets = f" ws://{host} wss://{host}" if host else ""
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'{sockets}; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return [
        (b"content-security-policy", policy.encode("latin-1")),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"permissions-policy", _PERMISSIONS.encode()),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]
