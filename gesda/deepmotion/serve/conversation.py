"""One WebSocket: what the page sends is checked, done, and answered, one message after the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from gesda.deepmotion.serve.protocol import (
    CLOSE_FAULTS,
    CLOSE_FULL,
    CLOSE_IDLE,
    Limits,
    Message,
    ProtocolError,
    parse,
    reply_to,
)
from gesda.deepmotion.serve.security import Allowance
from gesda.deepmotion.serve.sessions import BaseModels, Connection, Session, SessionStore
from gesda.deepmotion.serve.workspace import Answer, Workspace, error_answer, sentence

_FORGIVEN = 0.1  # faults a second


@dataclass
class Services:
    """What the conversations share."""

    limits: Limits
    store: SessionStore
    models: BaseModels
    make_stream: Callable[[Any, float], Any]


async def converse(socket: WebSocket, session: Session, services: Services) -> None:
    """Accept a WebSocket and serve it until either side ends it."""
    await socket.accept()
    if len(session.connections) >= services.limits.connections:
        await socket.close(CLOSE_FULL, "too many pages of this session are open")
        return
    connection = Connection()
    session.connections.add(connection)
    sender = asyncio.create_task(_send(socket, connection))
    listener = asyncio.create_task(_listen(socket, _Talk(session, connection, services)))
    try:
        await asyncio.wait({sender, listener}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        session.connections.discard(connection)
        for task in (sender, listener):
            task.cancel()
        await asyncio.gather(sender, listener, return_exceptions=True)


async def _send(socket: WebSocket, connection: Connection) -> None:
    """Work off the answers of one connection; the None at their end closes it."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):  # the page has gone
        while (answer := await connection.answers.get()) is not None:
            await socket.send_text(json.dumps(answer, allow_nan=False, separators=(",", ":")))
        await socket.close(connection.close_code or 1000, connection.close_reason)


async def _listen(socket: WebSocket, talk: _Talk) -> None:
    limits, connection = talk.services.limits, talk.connection
    messages = Allowance(limits.messages_per_second, limits.burst)
    faults = Allowance(_FORGIVEN, limits.faults)
    while True:
        try:
            received = await asyncio.wait_for(socket.receive(), limits.idle_seconds)
        except (asyncio.TimeoutError, TimeoutError):
            connection.close(CLOSE_IDLE, "nothing was done for a long time")
            break
        if received["type"] == "websocket.disconnect":
            return
        text = received.get("text")
        try:
            if not messages.take():
                raise ProtocolError("too-fast", "messages come too fast; wait a moment.")
            if text is None:
                raise ProtocolError("malformed", "messages are text, not binary.")
            message = parse(text, limits)
            await talk.answer(message)
        except ProtocolError as error:
            connection.post(error_answer(error.code, str(error), _id_of(text, error)))
            # Being told that a stroke was too short is no offence; not speaking the protocol is.
            if error.code in _OFFENCES and not faults.take():
                connection.close(CLOSE_FAULTS, "too many messages that make no sense")
                break
        except Exception as error:  # the recogniser's own trouble: told to the page, and the server goes on
            connection.post(error_answer("internal", f"that failed: {sentence(error)}", _id_of(text, None)))
    await asyncio.sleep(1.0)  # for the sender to say why


_OFFENCES = frozenset({"malformed", "unknown", "too-large", "too-fast"})


def _id_of(text: str | None, error: ProtocolError | None) -> int | None:
    # What came too fast or is too long is not read a second time.
    if text is None or (error is not None and error.code in ("too-fast", "too-large")):
        return None
    return reply_to(text)


class _Talk:
    """What each type of message does."""

    def __init__(self, session: Session, connection: Connection, services: Services) -> None:
        self.session, self.connection, self.services = session, connection, services

    async def answer(self, message: Message) -> None:
        """Do what a message asks, and answer."""
        do: Callable[[Message, Any], Awaitable[Answer | None]] = getattr(self, f"_{message.type}")
        answer = await do(message, self.session.workspaces.get(message.input))
        if answer is not None:
            self.connection.post(answer if message.id is None else {**answer, "reply_to": message.id})

    async def _ping(self, message: Message, _: Any) -> Answer:
        return {"type": "pong"}

    async def _use(self, message: Message, workspace: Workspace) -> Answer:
        if workspace.recognizer is None:
            workspace.start(self.services.models.open(workspace))
        self.connection.post(workspace.curves())
        if workspace.recognizer is not None and not workspace.lock.locked():
            self.connection.post(await workspace.map())
        return workspace.state()

    async def _example(self, message: Message, workspace: Workspace) -> Answer:
        assert message.motion is not None
        gesture = workspace.add(message.name, message.motion)
        if workspace.recognizer is None:
            workspace.start(self.services.models.open(workspace))
        self.session.post(workspace.state())
        workspace.follow()
        return {"type": "taken", "input": message.input, "name": gesture.name, "examples": len(gesture.examples)}

    async def _undo(self, message: Message, workspace: Workspace) -> None:
        workspace.undo(message.name)
        self._changed(workspace)

    async def _forget(self, message: Message, workspace: Workspace) -> None:
        workspace.forget(message.name)
        self._changed(workspace)

    def _changed(self, workspace: Workspace) -> None:
        self.session.post(workspace.state())
        workspace.follow()

    async def _recognize(self, message: Message, workspace: Workspace) -> Answer:
        assert message.motion is not None
        return await workspace.recognize(message.motion)

    async def _look(self, message: Message, workspace: Workspace) -> Answer:
        return await workspace.shape(message.name, message.index)

    async def _train(self, message: Message, workspace: Workspace) -> None:
        models = self.services.models

        def save(recognizer: Any) -> Any:
            path = self.session.path()
            recognizer.save(str(path))
            return path

        workspace.train(lambda: models.make(workspace.kind), models.background, save)

    async def _stop(self, message: Message, workspace: Workspace) -> None:
        workspace.stop_training = True

    async def _samples(self, message: Message, workspace: Workspace) -> None:
        motion, connection = message.motion, self.connection
        assert motion is not None
        async with workspace.lock:
            if workspace.recognizer is None or not len(getattr(workspace.recognizer, "classes_", ())):
                raise ProtocolError("untaught", "no gesture is learnt yet; teach one first.")
            if connection.stream is None or connection.stream_of is not workspace.recognizer:
                connection.stream = await workspace.run(self.services.make_stream, workspace.recognizer, workspace.rate)
                connection.stream_of = workspace.recognizer
            events = await workspace.run(connection.stream.push, motion.points, motion.times)
        self._tell(workspace, events)

    async def _rest(self, message: Message, workspace: Workspace) -> None:
        stream, self.connection.stream = self.connection.stream, None
        if stream is not None:
            async with workspace.lock:
                events = await workspace.run(stream.flush)
            self._tell(workspace, events)

    def _tell(self, workspace: Workspace, events: Any) -> None:
        for event in events:
            self.connection.post(
                {
                    "type": "event",
                    "input": workspace.kind,
                    "label": None if event.label is None else str(event.label),
                    "confidence": round(float(event.confidence), 4),
                    "start": round(float(event.start), 3),
                    "end": round(float(event.end), 3),
                }
            )
