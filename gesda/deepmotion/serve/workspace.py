"""The gestures of one session and one kind of input, and the recogniser that learns them.

What is wanted (the gestures' examples) and what is learnt are held apart: `Workspace.sync` makes the recogniser
follow, one gesture after the other in a worker thread, whatever was added, undone or forgotten meanwhile. All
methods run in the event loop's thread, what computes runs in `Workspace.run`. Imports `gesda.callbacks`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gesda.deepmotion.serve import curves, look
from gesda.deepmotion.serve.gestures import Example, Gesture
from gesda.deepmotion.serve.motions import Motion
from gesda.deepmotion.serve.protocol import Limits, ProtocolError, clean_name

Answer: TypeAlias = dict[str, Any]

#: Samples a second that motion is brought to where the recogniser does not ask for a rate.
RATES = {"pointer": 100.0, "phone": 50.0}


class Workspace:
    """Gestures of one kind of input.

    Parameters
    ----------
    kind : {"pointer", "phone"}
    limits : Limits
    executor : concurrent.futures.Executor
        Where learning and recognising run.
    post : callable of one dict
        Tells all pages of the session.
    """

    def __init__(self, kind: str, limits: Limits, executor: Any, post: Callable[[Answer], None]) -> None:
        self.kind, self.limits, self._executor, self.post = kind, limits, executor, post
        self.recognizer: Any = None
        self.origin: Path | None = None  # the file that the recogniser was loaded from
        self.gestures: dict[str, Gesture] = {}
        self.busy = ""  # "preparing", "learning" or "training", as the page words it
        self.trouble = ""
        self.history: list[dict[str, Any]] = []
        self.stop_training = False
        self.lock = asyncio.Lock()  # who holds it may use the recogniser
        self.tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()
        self._syncing = self._training = False
        self._map = look.Map()

    # ---- running ----------------------------------------------------------------------------------
    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call something that computes in a worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def start(self, work: Any) -> None:
        """Run a coroutine beside the conversation, and keep it until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    @property
    def rate(self) -> float:
        """Samples a second that the recogniser gets."""
        return float(getattr(self.recognizer, "rate_", None) or RATES[self.kind])

    def sequence(self, example: Example) -> NDArray[np.float32]:
        """Bring an example to the recogniser's rate and form."""
        return example.sequence(self.rate, self.kind)

    # ---- recogniser -------------------------------------------------------------------------------
    def adopt(self, recognizer: Any, origin: Path) -> None:
        """Take a recogniser that was loaded from a file, with the gestures it brings; what was here goes."""
        labels = list(getattr(recognizer, "classes_", ()))
        if len(labels) > self.limits.gestures:
            raise ProtocolError(
                "model", f"the model knows {len(labels)} gestures; this page takes {self.limits.gestures}."
            )
        gestures: dict[str, Gesture] = {}
        for label in labels:
            name = clean_name(str(label), self.limits)
            if name in gestures:
                raise ProtocolError("model", "the model has two gestures of one name; rename one.")
            plain = label.item() if isinstance(label, np.generic) else label
            gestures[name] = Gesture(name, plain, len(gestures), brought=True)
        self.recognizer, self.origin, self.gestures = recognizer, origin, gestures
        self.history = [dict(record) for record in getattr(recognizer, "history_", ())]
        self.trouble = ""

    def add(self, name: str, motion: Motion) -> Gesture:
        """Keep an example, of a gesture that may be new."""
        gesture = self.gestures.get(name)
        if gesture is None:
            if len(self.gestures) >= self.limits.gestures:
                raise ProtocolError(
                    "full", f"there are {self.limits.gestures} gestures already; delete one to make room."
                )
            colours = {known.colour for known in self.gestures.values()}
            free = next(colour for colour in itertools.count() if colour not in colours)
            gesture = self.gestures[name] = Gesture(name, name, free)
        if gesture.gone:
            raise ProtocolError("busy", f"{name!r} is being deleted; try again in a moment.")
        if len(gesture.examples) >= self.limits.examples:
            raise ProtocolError(
                "full", f"{name!r} has {self.limits.examples} examples, which is enough; undo one first."
            )
        gesture.examples.append(Example(next(self._numbers), motion))
        return gesture

    def undo(self, name: str) -> None:
        """Take the last example of a gesture back; a gesture without any is deleted."""
        gesture = self.known(name)
        if not gesture.examples:
            raise ProtocolError("empty", f"{name!r} came with the model and has no example to take back.")
        gesture.examples.pop()
        if not gesture.examples and not gesture.brought:
            self.forget(name)

    def forget(self, name: str) -> None:
        """Delete a gesture."""
        gesture = self.known(name)
        gesture.gone = True
        if not gesture.learnt and not gesture.brought and not self._syncing:
            del self.gestures[name]

    def known(self, name: str) -> Gesture:
        """Find a gesture by its name."""
        gesture = self.gestures.get(name)
        if gesture is None or gesture.gone:
            raise ProtocolError("absent", "there is no gesture of that name; it may have been deleted.")
        return gesture

    # ---- learning ---------------------------------------------------------------------------------
    def follow(self) -> None:
        """Begin to learn what is new, unless that is under way."""
        if not self._syncing and self.recognizer is not None:
            self._syncing = True
            self.start(self._sync())

    async def _sync(self) -> None:
        try:
            while gesture := self._next_stale():
                self.busy = self.busy or "learning"
                self.post(self.state())
                await self._update(gesture)
        finally:
            self._syncing = False
            if self.busy == "learning":
                self.busy = ""
            self.post(self.state())
        self.post(await self.map())

    def _next_stale(self) -> Gesture | None:
        stale = (gesture for gesture in self.gestures.values() if gesture.stale(self.limits.examples_needed))
        return next(stale, None)

    async def _update(self, gesture: Gesture) -> None:
        """Make the recogniser follow one gesture."""
        wanted = gesture.wanted(self.limits.examples_needed)
        examples = {example.number: self.sequence(example) for example in gesture.examples}
        started = time.perf_counter()
        async with self.lock:
            known = len(gesture.learnt)
            try:
                if wanted[:known] == gesture.learnt and not gesture.gone:
                    await self.run(self._teach, gesture.label, [examples[number] for number in wanted[known:]])
                elif gesture.brought and not gesture.gone:
                    # Its own examples are in the file alone, so forgetting some means to begin from there.
                    await self._begin_again(gesture, [examples[number] for number in wanted])
                else:
                    await self.run(self._replace, gesture, [examples[number] for number in wanted])
                gesture.learnt, gesture.failed = wanted, None
            except Exception as error:  # the recogniser's reasons are the person's to read; the server goes on
                # What the recogniser has of it now is what it still lists; what it will not forget stays.
                listed = gesture.label in list(getattr(self.recognizer, "classes_", ()))
                gesture.learnt = gesture.learnt if listed else ()
                gesture.gone = gesture.gone and not listed
                gesture.failed = gesture.wanted(self.limits.examples_needed)
                self.post(error_answer("learning", f"{gesture.name!r} could not be learnt: {sentence(error)}"))
        gesture.seconds = time.perf_counter() - started
        if gesture.gone or (not gesture.examples and not gesture.brought):
            self.gestures.pop(gesture.name, None)
        elif (gesture.learnt or gesture.brought) and gesture.failed is None:
            answer = {"type": "learnt", "input": self.kind, "name": gesture.name, "examples": len(gesture.examples)}
            self.post({**answer, "seconds": round(gesture.seconds, 4)})

    def _teach(self, label: Any, examples: list[Any]) -> None:
        if examples:
            self.recognizer.add_gesture(label, examples)

    def _replace(self, gesture: Gesture, examples: list[Any]) -> None:
        if gesture.learnt or gesture.brought:
            self.recognizer.remove_gesture(gesture.label)
        self._teach(gesture.label, examples)

    async def _begin_again(self, changed: Gesture, examples: list[Any]) -> None:
        """Load the model again and teach all gestures again: slow, and needed for the gestures it brought alone."""
        fresh = await self.run(type(self.recognizer).load, str(self.origin))
        kept = {str(gesture.label) for gesture in self.gestures.values() if gesture.brought}
        teach = {
            gesture.label: [self.sequence(e) for e in gesture.examples if e.number in gesture.learnt]
            for gesture in self.gestures.values()
        }
        teach[changed.label] = examples

        def again() -> None:
            for label in list(fresh.classes_):
                if str(label) not in kept:
                    fresh.remove_gesture(label)
            for label, motions in teach.items():
                if motions:
                    fresh.add_gesture(label, motions)

        await self.run(again)
        self.recognizer = fresh

    # ---- training ---------------------------------------------------------------------------------
    def train(self, make: Callable[[], Any], background: Any, save: Callable[[Any], Path]) -> None:
        """Begin to train the whole recogniser anew on the background motion and all examples."""
        if self._training:
            raise ProtocolError("busy", "a training is under way; wait for its end or stop it.")
        if any(gesture.brought for gesture in self.gestures.values()):
            raise ProtocolError(
                "brought", "some gestures came with a model, without examples to train on; delete them first."
            )
        taught = [gesture for gesture in self.gestures.values() if gesture.learnt and not gesture.gone]
        if len(taught) < 2:
            raise ProtocolError("too-few", "training needs two learnt gestures or more; teach another one first.")
        self._training, self.stop_training, self.busy = True, False, "training"
        self.post(self.state())
        self.start(self._train(taught, make, background, save))

    async def _train(self, taught: list[Gesture], make: Any, background: Any, save: Any) -> None:
        numbers = {gesture: gesture.learnt for gesture in taught}
        sequences, labels = [], []
        for gesture in taught:
            for example in gesture.examples:
                if example.number in gesture.learnt:
                    sequences.append(self.sequence(example))
                    labels.append(gesture.label)
        history, self.history = self.history, []
        live = curves.Live(asyncio.get_running_loop(), self._record, lambda: self.stop_training)

        def fit() -> tuple[Any, Path]:
            fresh = make()
            motion = background(self.kind) if background is not None else []
            unlabelled = list(getattr(motion, "sequences", motion))
            targets = np.array([*labels, *[None] * len(unlabelled)], dtype=object)
            fresh.fit([*sequences, *unlabelled], targets, callbacks=[live.callback])
            return fresh, save(fresh)

        started = time.perf_counter()
        try:
            fresh, path = await self.run(fit)
            async with self.lock:
                # What was deleted meanwhile was deleted from the recogniser before.
                for gesture in numbers.keys() - set(self.gestures.values()):
                    await self.run(fresh.remove_gesture, gesture.label)
                self.recognizer, self.origin = fresh, path
                for gesture in self.gestures.values():
                    gesture.learnt = numbers.get(gesture, ())
            seconds = round(time.perf_counter() - started, 3)
            self.post({"type": "trained", "input": self.kind, "seconds": seconds, "stopped": self.stop_training})
        except Exception as error:  # as in _update
            self.history = history
            self.post(error_answer("training", f"the training failed: {sentence(error)}"))
        finally:
            self._training, self.busy = False, ""
        self.post(self.curves())
        self.post(self.state())
        self.follow()
        self.post(await self.map())

    def _record(self, records: list[dict[str, Any]]) -> None:
        self.history.extend(records)
        self.post(self.curves())

    # ---- answers ----------------------------------------------------------------------------------
    async def recognize(self, motion: Motion) -> Answer:
        """Say what gesture a motion is, and show it as the recogniser sees it."""
        sequence = self.sequence(Example(-1, motion))
        async with self.lock:
            if self.recognizer is None or not len(getattr(self.recognizer, "classes_", ())):
                raise ProtocolError("untaught", "no gesture is learnt yet; teach one first.")
            return {**await self.run(look.recognition, self.recognizer, sequence, self._map), "input": self.kind}

    async def shape(self, name: str, index: int) -> Answer:
        """Show one example as the recogniser sees it."""
        gesture = self.known(name)
        if index >= len(gesture.examples):
            raise ProtocolError("absent", "there is no such example; it may have been taken back.")
        sequence = self.sequence(gesture.examples[index])
        async with self.lock:
            if self.recognizer is None:
                raise ProtocolError("preparing", "the recogniser is not ready yet; try again in a moment.")
            seen = await self.run(look.shape, self.recognizer, sequence)
        return {"type": "shape", "input": self.kind, "name": name, "index": index, **seen}

    async def map(self) -> Answer:
        """Place the encodings of all examples in the plane."""
        # A gesture that is being deleted shows no points any more.
        entries = [
            (g.name, i, self.sequence(e))
            for g in self.gestures.values()
            if not g.gone
            for i, e in enumerate(g.examples)
        ]
        if self.recognizer is None or not len(getattr(self.recognizer, "classes_", ())):
            entries = []
        async with self.lock:
            points = await self.run(self._map.place, self.recognizer, [sequence for *_, sequence in entries])
        rows = [[name, index, *point] for (name, index, _), point in zip(entries, points, strict=True)]
        return {"type": "map", "input": self.kind, "points": rows, "explained": self._map.explained}

    def state(self) -> Answer:
        """Tell what gestures there are and what is being done."""
        needed = self.limits.examples_needed
        gestures = [
            {
                "name": gesture.name,
                "colour": gesture.colour,
                "brought": gesture.brought,
                "learnt": bool(gesture.learnt) or gesture.brought,
                "pending": gesture.stale(needed),
                "examples": [look.thumbnail(example.motion) for example in gesture.examples],
            }
            for gesture in self.gestures.values()
            if not gesture.gone
        ]
        answer = {"type": "state", "input": self.kind, "gestures": gestures, "busy": self.busy}
        return {**answer, "ready": self.recognizer is not None, "trouble": self.trouble}

    def curves(self) -> Answer:
        """Tell the losses so far, of all layers and phases."""
        running = self.busy in ("training", "preparing")
        return {"type": "curves", "input": self.kind, "running": running, "series": curves.series(self.history)}


def sentence(error: BaseException) -> str:
    """Word an exception on one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def error_answer(code: str, message: str, reply: int | None = None) -> Answer:
    """Make the answer that tells an error."""
    return {"type": "error", "code": code, "message": message, "reply_to": reply}
