"""The web application: static files, sessions, models up and down, and the conversation over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from gesda.deepmotion.serve.conversation import Services, converse
from gesda.deepmotion.serve.protocol import CHANNELS, Limits, ProtocolError
from gesda.deepmotion.serve.security import Allowance, Guard, HostList, token_matches
from gesda.deepmotion.serve.sessions import BaseModels, Session, SessionStore, kind_of
from gesda.deepmotion.serve.static_files import static_routes
from gesda.deepmotion.serve.workspace import sentence

_UPLOAD_SECONDS = 60.0
_SWEEP_SECONDS = 60.0


def create_app(
    make_recognizer: Callable[[str], Any],
    *,
    load_recognizer: Callable[[str], Any] | None = None,
    make_stream: Callable[[Any, float], Any] | None = None,
    background: Callable[[str], Iterable[Any]] | None = None,
    model: str | None = None,
    token: str | None = None,
    host: str = "127.0.0.1",
    allowed_hosts: Iterable[str] = (),
    limits: Limits | None = None,
) -> Guard:
    """Make the application, for an ASGI server with lifespan events.

    Parameters
    ----------
    make_recognizer : callable of one str, giving a GestureRecognizer
        The str is the kind of input: "pointer" (2 channels) or "phone" (3 channels). Called in a worker thread
        when the first visitor needs it; one that is not fitted is pretrained on `background`.
    load_recognizer : callable of a path, default: GestureRecognizer.load
        Reads a model file, which may come from a visitor: it must refuse what is not safe.
    make_stream : callable of a recogniser and a rate in Hz, default: GestureStream
        Makes what spots gestures in a phone's motion.
    background : callable of one str, giving sequences, default: None
        Unlabelled motion, to pretrain on and to train anew with.
    model : str, default: None
        A model file to begin with.
    token : str, default: None
        What a visitor must know to get a session; None lets in everyone who reaches the server.
    host : str, default: "127.0.0.1"
        The address bound to: decides which Host headers are answered.
    allowed_hosts : iterable of str, default: ()
        Further host names to answer.
    limits : Limits, default: Limits()

    Returns
    -------
    ASGI application
    """
    bounds = limits or Limits()
    load = load_recognizer or _load_recognizer
    streams = make_stream or _make_stream
    new_sessions = Allowance(2.0, bounds.sessions)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        executor = ThreadPoolExecutor(bounds.workers, thread_name_prefix="gesda-serve")
        store = SessionStore(bounds, executor)
        sweeper = asyncio.create_task(_sweep(store))
        try:
            models = BaseModels(make_recognizer, load, background, model, store.folder)
            app.state.services = Services(bounds, store, models, streams)
            yield
        finally:
            sweeper.cancel()
            store.close()
            executor.shutdown(wait=True, cancel_futures=True)

    async def enter(request: Request) -> Response:
        """Give the visitor a session, or the one of the cookie again."""
        services: Services = request.app.state.services
        session = _session(request, services)
        kept = session is not None
        secret = None
        if session is None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            if token is not None and not (scheme.lower() == "bearer" and token_matches(given.strip(), token)):
                return _error(401, "token", "this server asks for its token; open the address that it printed.")
            if not new_sessions.take():
                return _error(429, "too-fast", "too many new visitors at once; try again in a moment.")
            try:
                secret, session = services.store.create()
            except ProtocolError as error:
                return _error(503, error.code, str(error))
        told = {
            "needed": bounds.examples_needed,
            "examples": bounds.examples,
            "gestures": bounds.gestures,
            "name_length": bounds.name_length,
            "upload_bytes": bounds.upload_bytes,
            "stroke_samples": bounds.stroke_samples,
            "stroke_seconds": bounds.stroke_seconds,
        }
        answer = JSONResponse({"kept": kept, "limits": told}, headers={"Cache-Control": "no-store"})
        if secret is not None:
            answer.set_cookie(
                _cookie(request),
                secret,
                max_age=int(bounds.session_seconds) + 86400,
                httponly=True,
                samesite="strict",
                secure=request.url.scheme == "https",
                path="/",
            )
        return answer

    async def download(request: Request) -> Response:
        """Send the recogniser of one input as a file."""
        services: Services = request.app.state.services
        session, kind = _session(request, services), request.path_params["kind"]
        if session is None:
            return _no_session()
        if kind not in CHANNELS:
            return _error(404, "absent", "there is no such model.")
        workspace = session.workspaces[kind]
        path = session.path()
        async with workspace.lock:
            if workspace.recognizer is None or not len(getattr(workspace.recognizer, "classes_", ())):
                return _error(409, "untaught", "there is nothing to keep yet; teach a gesture first.")
            try:
                await workspace.run(lambda: workspace.recognizer.save(str(path)))
                content = await workspace.run(path.read_bytes)
            except Exception as error:  # a full disk, say: the visitor is told and the server goes on
                return _error(500, "model", f"the model could not be saved: {sentence(error)}")
            finally:
                path.unlink(missing_ok=True)
        headers = {"Content-Disposition": f'attachment; filename="gestures-{kind}.gesda"', "Cache-Control": "no-store"}
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def upload(request: Request) -> Response:
        """Take a model file as the recogniser of the input whose channels it has."""
        services: Services = request.app.state.services
        session = _session(request, services)
        if session is None:
            return _no_session()
        if session.uploading.locked():
            return _error(409, "busy", "another upload is under way; wait for its end.")
        async with session.uploading:
            path = session.path()
            try:
                await asyncio.wait_for(_receive(request, path, bounds.upload_bytes), _UPLOAD_SECONDS)
                kind = await _adopt(session, services, path)
            except ProtocolError as error:
                path.unlink(missing_ok=True)
                return _error(413 if error.code == "too-large" else 422, error.code, str(error))
            except (asyncio.TimeoutError, TimeoutError):
                path.unlink(missing_ok=True)
                return _error(408, "too-slow", "the upload took too long; try again.")
            except Exception as error:  # whatever the loader refuses: it says why
                path.unlink(missing_ok=True)
                return _error(422, "model", f"this is no model that can be used: {_without(path, sentence(error))}")
        return JSONResponse({"input": kind, "gestures": list(session.workspaces[kind].gestures)})

    routes = [
        *static_routes(),
        Route("/session", enter, methods=["POST"]),
        Route("/models", upload, methods=["POST"]),
        Route("/models/{kind}", download, methods=["GET"]),
        WebSocketRoute("/ws", _socket),
    ]
    return Guard(Starlette(routes=routes, lifespan=lifespan), HostList(host, allowed_hosts))


async def _socket(socket: WebSocket) -> None:
    services: Services = socket.app.state.services
    session = services.store.find(socket.cookies.get(_cookie(socket)))
    if session is None:
        await socket.close(1008)
        return
    await converse(socket, session, services)


async def _adopt(session: Session, services: Services, path: Path) -> str:
    executor_of = next(iter(session.workspaces.values()))
    recognizer = await executor_of.run(services.models.load, str(path))
    kind = kind_of(recognizer)
    workspace = session.workspaces[kind]
    if workspace.busy:
        raise ProtocolError("busy", "the recogniser is learning; upload again when it is done.")
    async with workspace.lock:
        workspace.adopt(recognizer, path)
    for answer in (workspace.curves(), workspace.state(), await workspace.map()):
        session.post(answer)
    return kind


async def _receive(request: Request, path: Path, most: int) -> None:
    """Write a request's body to a file, as far as it may be long."""
    total = 0
    with path.open("xb") as file:
        async for chunk in request.stream():
            total += len(chunk)
            if total > most:
                raise ProtocolError("too-large", f"a model may have {most // 1024**2} MiB; this file is larger.")
            file.write(chunk)
    if not total:
        raise ProtocolError("model", "the file is empty; choose a model that was downloaded here.")


async def _sweep(store: SessionStore) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        store.sweep()


def _cookie(connection: Any) -> str:
    # Browsers share cookies between the ports of a host; two servers on one machine must not.
    host = connection.headers.get("host", "")
    port = host.rpartition(":")[2]
    return f"gesda-{port if port.isdigit() else 'session'}"


def _session(request: Request, services: Services) -> Session | None:
    return services.store.find(request.cookies.get(_cookie(request)))


def _no_session() -> Response:
    return _error(401, "session", "your session has ended; reload the page.")


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"code": code, "message": message}, status_code=status, headers={"Cache-Control": "no-store"})


def _without(path: Path, message: str) -> str:
    """Leave the server's folders out of a message for visitors."""
    return message.replace(str(path), "the file").replace(tempfile.gettempdir(), "")


def _load_recognizer(path: str) -> Any:
    from gesda.deepmotion.recognition.recognizer import GestureRecognizer

    return GestureRecognizer.load(path)


def _make_stream(recognizer: Any, rate: float) -> Any:
    from gesda.deepmotion.streaming.stream import GestureStream

    return GestureStream(recognizer, rate=rate, unknown=True)
