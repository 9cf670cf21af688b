"""A real server on a free port of loopback, in a thread, and a tunnel to it that a test can cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from gesda.deepmotion.serve import Limits, create_app
from gesda.deepmotion.serve.protocol import CHANNELS
from gesda.deepmotion.serve.server import configure
from tests.deepmotion.standin import StandIn, StandInStream


def make_standin(kind: str) -> StandIn:
    # What a stream cuts off its ends shifts a shaken stroke against its examples.
    return StandIn(len(CHANNELS[kind]), threshold=0.45 if kind == "pointer" else 0.9)


def background(kind: str) -> list[Any]:
    return []


class LiveServer:
    def __init__(self, port: int = 0, *, limits: Limits | None = None, **options: Any) -> None:
        options = {
            "make_recognizer": make_standin, "load_recognizer": StandIn.load, "make_stream": StandInStream, **options
        }  # fmt: skip
        self.app = create_app(limits=limits, **options)
        self.socket = socket.create_server(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.server = uvicorn.Server(configure(self.app, limits or Limits()))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)

    @property
    def services(self) -> Any:
        return self.app.app.state.services

    def __enter__(self) -> LiveServer:
        self.thread.start()
        deadline = time.monotonic() + 20.0
        while not self.server.started:
            assert self.thread.is_alive() and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(20.0)
        self.socket.close()
        assert not self.thread.is_alive(), "the server did not end"


class Tunnel:
    """Passes connections on to a port; `cut` breaks them all and refuses new ones, `mend` takes them again."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.open = True
        self.pairs: list[socket.socket] = []
        self.listener: socket.socket | None = None
        self.mend()

    def mend(self) -> None:
        self.open = True
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def cut(self) -> None:
        self.open = False
        assert self.listener is not None
        # A thread that waits in accept() keeps the port; shutdown wakes it.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for end in self.pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.pairs = []

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while self.open:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                self.pairs += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                sink.sendall(chunk)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def tunnel(target: int) -> Iterator[Tunnel]:
    made = Tunnel(target)
    try:
        yield made
    finally:
        if made.open:
            made.cut()
