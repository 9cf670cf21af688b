"""Binding, the token, and uvicorn: what `gesda.deepmotion.serve.run` does."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

import uvicorn

from gesda.deepmotion.serve.app import create_app
from gesda.deepmotion.serve.protocol import Limits
from gesda.deepmotion.serve.security import is_loopback

_SHORTEST_TOKEN = 16


def serve(
    host: str,
    port: int,
    *,
    token: str | None,
    model: str | None,
    make_recognizer: Callable[[str], Any] | None,
    background: Callable[[str], Iterable[Any]] | None,
    allowed_hosts: Iterable[str],
    certificate: str | None,
    key: str | None,
    limits: Limits | None,
) -> None:
    """Serve until Ctrl-C; see `gesda.deepmotion.serve.run`."""
    if not 0 <= port < 65536:
        raise ValueError(f"a port is a number from 0 to 65535; got {port}.")
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise ValueError(f"a token needs {_SHORTEST_TOKEN} characters or more; this one has {len(token)}.")
    for name, path in (("model", model), ("certificate", certificate), ("key", key)):
        if path is not None and not os.path.isfile(path):
            raise ValueError(f"there is no {name} file {path!r}; give the path of one.")
    if make_recognizer is None:
        from gesda.deepmotion.serve.defaults import background as simulated
        from gesda.deepmotion.serve.defaults import make_recognizer as pretrained

        make_recognizer, background = pretrained, background or simulated
    app = create_app(
        make_recognizer,
        background=background,
        model=model,
        token=token,
        host=host,
        allowed_hosts=allowed_hosts,
        limits=limits,
    )
    bound = bind(host, port)
    with bound:
        config = configure(app, limits or Limits(), certificate=certificate, key=key)
        print(f"The gestures' page is at {address(host, bound, token, secure=certificate is not None)}", flush=True)
        if not is_loopback(host) and certificate is None:
            print("Phones give their motion to https pages only: give a certificate to wave one.", flush=True)
        print("Ctrl-C ends it.", flush=True)
        server = uvicorn.Server(config)
        # uvicorn shuts down first and raises the signal again afterwards.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[bound])
    if not server.started:
        raise OSError("the server could not start; its log says why.")


def configure(app: Any, limits: Limits, *, certificate: str | None = None, key: str | None = None) -> uvicorn.Config:
    """Configure uvicorn: what it must not believe, what it must not accept, and no chatter."""
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # A compressed message may be a thousand times as long as what was sent.
        ws_per_message_deflate=False,
        ws_max_size=limits.message_bytes,
        ws_max_queue=16,
        limit_concurrency=4 * limits.sessions + 64,
        timeout_graceful_shutdown=2,
        lifespan="on",
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket, or say in one sentence why it cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot serve at {host}, port {port}: {error.strerror}; choose another address or port"
        ) from error


def address(host: str, bound: socket.socket, token: str | None, *, secure: bool) -> str:
    """Word the URL; the token is in its fragment, which browsers do not send and servers do not log."""
    name = host.strip("[]")
    if name in ("0.0.0.0", "::", ""):
        name = socket.gethostname()
    name = f"[{name}]" if ":" in name else name
    fragment = f"#token={quote(token, safe='')}" if token is not None else ""
    return f"{'https' if secure else 'http'}://{name}:{bound.getsockname()[1]}/{fragment}"
