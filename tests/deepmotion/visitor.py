"""A visitor of the gestures' page without a page: requests, a WebSocket, and strokes to send."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import time
from typing import Any

import numpy as np
from websockets.sync.client import ClientConnection, connect

from tests.deepmotion.live_server import LiveServer


class Visitor:
    """A browser without a page: a cookie and a WebSocket."""

    def __init__(self, server: LiveServer, token: str | None = None) -> None:
        self.server, self.host = server, f"127.0.0.1:{server.port}"
        self.cookie = ""
        self.token = token
        self.socket: ClientConnection | None = None
        self.exits = contextlib.ExitStack()
        self.numbers = iter(range(1, 10**9))

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        given = {"Host": self.host, "Origin": f"http://{self.host}", "Cookie": self.cookie}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            connection.request(method, path, body=body, headers={k: v for k, v in given.items() if v})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def enter(self) -> Visitor:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        status, answer, _ = self.request("POST", "/session", **headers)
        assert status == 200
        self.cookie = answer.get("set-cookie", self.cookie).split(";")[0]
        return self

    def open(self, origin: str | None = "own") -> Visitor:
        self.close()
        given = {"Cookie": self.cookie}
        origin = f"http://{self.host}" if origin == "own" else origin
        connection = connect(
            f"ws://{self.host}/ws", additional_headers=given, origin=origin, compression=None,
            max_size=None, proxy=None,
        )  # fmt: skip
        self.socket = self.exits.enter_context(connection)
        return self

    def close(self) -> None:
        self.exits.close()

    def __enter__(self) -> Visitor:
        return self.enter().open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, message: Any) -> None:
        assert self.socket is not None
        self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def hear(self, *types: str, timeout: float = 20.0, **fields: Any) -> dict[str, Any]:
        """Wait for an answer of one of these types."""
        assert self.socket is not None
        deadline = time.monotonic() + timeout
        while True:
            answer = json.loads(self.socket.recv(max(0.01, deadline - time.monotonic())))
            if answer["type"] in types and all(answer.get(name) == value for name, value in fields.items()):
                return answer

    def ask(self, type: str, **fields: Any) -> dict[str, Any]:
        """Send a message and wait for the answer or the error that repeats its id."""
        number = next(self.numbers)
        self.send({"type": type, "id": number, **fields})
        assert self.socket is not None
        deadline = time.monotonic() + 20.0
        while True:
            answer = json.loads(self.socket.recv(max(0.01, deadline - time.monotonic())))
            if answer.get("reply_to") == number:
                return answer

    def teach(self, name: str, shape: str, n: int = 3, input: str = "pointer") -> None:
        for _ in range(n):
            assert self.ask("example", input=input, name=name, stroke=stroke(shape))["type"] == "taken"
        self.hear("learnt", name=name, examples=n)


def stroke(shape: str, n: int = 40) -> list[list[float]]:
    """A circle or a zigzag of random size, place and duration; "shake" and "push" have three channels."""
    t = np.linspace(0.0, 1.0, n)
    size, duration = random.uniform(0.2, 0.4), random.uniform(0.4, 1.5)
    curves = {
        "circle": (np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)),
        "zigzag": (2 * t - 1, 0.5 * np.abs((4 * t) % 2 - 1)),
        "scribble": (np.sin(17 * t) * np.cos(31 * t), np.sin(23 * t + 1)),
        "shake": (np.sin(20 * t), 0.1 * np.cos(20 * t), 0 * t),
        "push": (0 * t, 0.1 * t, np.exp(-((t - 0.5) ** 2) / 0.02)),
    }
    points = size * np.stack(curves[shape], axis=1) + np.random.default_rng().normal(0, 0.004, (n, len(curves[shape])))
    return np.column_stack([duration * t, points + random.uniform(-0.1, 0.1)]).round(5).tolist()


def assert_alive(server: LiveServer) -> None:
    """Another visitor can teach and be recognised."""
    with Visitor(server) as other:
        other.teach("circle", "circle")
        assert other.ask("recognize", input="pointer", stroke=stroke("circle"))["label"] == "circle"
