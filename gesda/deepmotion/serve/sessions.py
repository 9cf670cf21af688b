"""The sessions of the visitors, and the models that they begin with.

A session is named by a random cookie that only its visitor has. It outlives its connections for a while, and then
goes with its folder. The recogniser that everyone begins with is made once for each input, saved, and loaded anew
for each session, so that no session sees what another one teaches.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gesda.deepmotion.serve import curves
from gesda.deepmotion.serve.protocol import CHANNELS, CLOSE_SLOW, Limits, ProtocolError
from gesda.deepmotion.serve.workspace import Answer, Workspace, sentence

# Seconds that a session is left alone after its visitor has gone, when others wait.
_GRACE_EMPTY, _GRACE = 5.0, 300.0
_MOST_WAITING = 256  # answers that a connection may leave unread


class Connection:
    """One page that is open: a queue of answers that its sender works off."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[Answer | None] = asyncio.Queue()
        self.stream: Any = None
        self.stream_of: Any = None
        self.close_code: int | None = None
        self.close_reason = ""

    def post(self, answer: Answer) -> None:
        """Queue an answer; a page that reads none of them is disconnected."""
        if self.answers.qsize() >= _MOST_WAITING:
            self.close(CLOSE_SLOW, "the page does not read its messages")
        else:
            self.answers.put_nowait(answer)

    def close(self, code: int, reason: str) -> None:
        """Ask the sender to close the connection after what waits."""
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
            self.answers.put_nowait(None)


class Session:
    """What one visitor has taught.

    Parameters
    ----------
    folder : Path
        For this session alone; removed with it.
    limits : Limits
    executor : concurrent.futures.Executor
    """

    def __init__(self, folder: Path, limits: Limits, executor: Any) -> None:
        self.folder = folder
        self.connections: set[Connection] = set()
        self.workspaces = {kind: Workspace(kind, limits, executor, self.post) for kind in CHANNELS}
        self.uploading = asyncio.Lock()
        self.seen = time.monotonic()

    def post(self, answer: Answer) -> None:
        """Tell all pages of this visitor."""
        for connection in self.connections:
            connection.post(answer)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was taught or uploaded."""
        return not any(workspace.gestures for workspace in self.workspaces.values())

    def path(self) -> Path:
        """Name a new file in the session's folder."""
        return self.folder / f"{secrets.token_hex(8)}.gesda"

    def end(self) -> None:
        """Stop what runs and remove the folder."""
        for workspace in self.workspaces.values():
            workspace.stop_training = True
            for task in workspace.tasks:
                task.cancel()
        shutil.rmtree(self.folder, ignore_errors=True)


class SessionStore:
    """All sessions, of bounded number and age.

    Parameters
    ----------
    limits : Limits
    executor : concurrent.futures.Executor
    """

    def __init__(self, limits: Limits, executor: Any) -> None:
        self.limits, self._executor = limits, executor
        self._sessions: dict[str, Session] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="gesda-serve-"))

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Any:
        return iter(list(self._sessions.values()))

    def find(self, secret: str | None) -> Session | None:
        """Find the session that a cookie names."""
        # Looked up by its digest: how long that takes says nothing of the secrets that are there.
        session = self._sessions.get(_digest(secret)) if secret else None
        if session is not None:
            session.seen = time.monotonic()
        return session

    def create(self) -> tuple[str, Session]:
        """Make a session and its secret.

        Raises
        ------
        ProtocolError
            There are too many, and all are in use.
        """
        self.sweep()
        if len(self._sessions) >= self.limits.sessions:
            self._sessions.pop(self._dispensable()).end()
        secret = secrets.token_urlsafe(32)
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        session = self._sessions[_digest(secret)] = Session(folder, self.limits, self._executor)
        return secret, session

    def _dispensable(self) -> str:
        """Find the session that is missed the least: one without gestures, else the one left the longest ago."""
        now = time.monotonic()
        left = [
            (not session.is_empty, session.seen, key)
            for key, session in self._sessions.items()
            if not session.connections and now - session.seen > (_GRACE_EMPTY if session.is_empty else _GRACE)
        ]
        if not left:
            raise ProtocolError("full", "the server has as many visitors as it can serve; try again later.")
        return min(left)[2]

    def sweep(self) -> None:
        """End the sessions that nobody came back to."""
        oldest = time.monotonic() - self.limits.session_seconds
        for key, session in list(self._sessions.items()):
            if not session.connections and session.seen < oldest:
                self._sessions.pop(key).end()

    def close(self) -> None:
        """End all sessions and remove all files."""
        for session in self._sessions.values():
            session.end()
        self._sessions.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class BaseModels:
    """The recogniser that every session begins with, one for each input; made when the first one asks.

    Parameters
    ----------
    make : callable of the kind of input, giving a recogniser
        One that is not fitted yet is pretrained on `background`.
    load : callable of a path, giving a recogniser
    background : callable of the kind of input, giving sequences, or None
        Unlabelled motion.
    given : str or None
        A model file to begin with, for the input whose channels it has.
    folder : Path
        Where the models are kept.
    """

    def __init__(
        self,
        make: Callable[[str], Any],
        load: Callable[[str], Any],
        background: Callable[[str], Iterable[Any]] | None,
        given: str | None,
        folder: Path,
    ) -> None:
        self.make, self.load, self.background, self._folder = make, load, background, folder
        self._paths: dict[str, Path] = {}
        self._locks = {kind: asyncio.Lock() for kind in CHANNELS}
        self.watchers: dict[str, set[Workspace]] = {kind: set() for kind in CHANNELS}
        if given is not None:
            model = load(given)
            kind = kind_of(model)
            self._paths[kind] = folder / f"{kind}.gesda"
            model.save(str(self._paths[kind]))

    async def open(self, workspace: Workspace) -> None:
        """Give a workspace its own copy of the model, unless it has a recogniser."""
        kind = workspace.kind
        if workspace.recognizer is not None or workspace.busy == "preparing":
            return
        workspace.busy, workspace.trouble = "preparing", ""
        workspace.post(workspace.state())
        self.watchers[kind].add(workspace)
        try:
            async with self._locks[kind]:
                if kind not in self._paths:
                    await workspace.run(self._prepare, kind, asyncio.get_running_loop())
            path = self._paths[kind]
            recognizer = await workspace.run(self.load, str(path))
            if workspace.recognizer is None:  # an upload may have come first
                drafts = workspace.gestures
                workspace.adopt(recognizer, path)
                _merge(workspace, drafts)
        except Exception as error:  # the page has to say why there is none
            workspace.trouble = f"the recogniser could not be prepared: {sentence(error)}"
        finally:
            self.watchers[kind].discard(workspace)
            workspace.busy = ""
        workspace.post(workspace.curves())
        workspace.post(workspace.state())
        workspace.follow()
        workspace.post(await workspace.map())

    def _prepare(self, kind: str, loop: asyncio.AbstractEventLoop) -> None:
        model = self.make(kind)
        if not hasattr(model, "n_channels_"):
            if self.background is None:
                raise ValueError("the recogniser is not fitted and there is no motion to pretrain it on")
            model.fit(self.background(kind), callbacks=[curves.Live(loop, self._watch(kind)).callback])
        path = self._folder / f"{kind}.gesda"
        model.save(str(path))
        self._paths[kind] = path

    def _watch(self, kind: str) -> Callable[[list[dict[str, Any]]], None]:
        history: list[dict[str, Any]] = []

        def deliver(records: list[dict[str, Any]]) -> None:
            history.extend(records)
            for workspace in self.watchers[kind]:
                workspace.history = history
                workspace.post(workspace.curves())

        return deliver


def _merge(workspace: Workspace, drafts: Any) -> None:
    """Put back the examples that were given while the recogniser was being made."""
    for name, draft in drafts.items():
        for example in draft.examples:
            workspace.add(name, example.motion)


def kind_of(recognizer: Any) -> str:
    """Tell the input whose channels a recogniser has.

    Raises
    ------
    ProtocolError
        No input has as many.
    """
    n_channels = int(recognizer.n_channels_)
    for kind, channels in CHANNELS.items():
        if len(channels) == n_channels:
            return kind
    raise ProtocolError(
        "model", f"the model is for {n_channels} channels; this page has 2 (drawing) or 3 (a phone's acceleration)."
    )
