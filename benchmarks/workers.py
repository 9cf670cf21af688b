"""One subprocess per contender, and rounds in which each gets a slice in turn while the others sleep.

Thread pools of two libraries in one process hurt each other, so each contender has a process of its
own. Parent and worker talk in lines of JSON over the worker's standard input and output.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common

WORKER = Path(__file__).with_name("worker.py")

#: Seconds that a contender's threads get after a slice to fall asleep: thread pools spin before they do.
SETTLE = 0.12


class Unavailable(Exception):
    """The contender cannot run this case here; the message says why."""


def find_peer_python() -> str:
    """The interpreter for the peers: this one if it has JAX, else a .venv-bench next to the project."""
    beside = common.ROOT / ".venv-bench" / "bin" / "python"
    if common.package_versions()["jax"] is None and beside.exists():
        return str(beside)
    return sys.executable


class Worker:
    """A contender in its own process.

    Parameters
    ----------
    name : str
        Key of `contenders.CONTENDERS`.
    threads : int
    python : str
        The interpreter to run it with.
    """

    def __init__(self, name: str, threads: int, python: str = sys.executable) -> None:
        self.name = name
        self.failure: str | None = None
        self.idle_seconds = 0.0
        self._process = subprocess.Popen(
            [python, str(WORKER), name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=common.child_environment(threads),
            text=True,
            bufsize=1,
        )

    def ask(self, timeout: float, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Raises
        ------
        Unavailable
            When the worker reports a failure, dies, or does not answer in time (it is then ended).
        """
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        if process.poll() is not None:
            raise Unavailable(self.failure or f"its process ended with status {process.returncode}")
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                answered = bool(selector.select(timeout))
            line = process.stdout.readline() if answered else ""
        except OSError as error:
            line, answered = "", True
            self.failure = str(error)
        if not line:
            self.failure = self.failure or ("its process ended" if answered else f"no answer in {timeout:.0f} s")
            self.close()
            raise Unavailable(self.failure)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Unavailable(answer["error"])
        return answer

    def cpu_seconds(self) -> float:
        """Processor time used so far by all threads of the worker."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def close(self) -> None:
        """End the worker."""
        process = self._process
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def interleave(
    workers: Sequence[Worker], rounds: int, slice_seconds: float, settle: float = SETTLE, extra: Sequence[str] = ()
) -> dict[str, list[dict[str, float]]]:
    """Give every prepared worker a slice in turn, so many times over.

    Returns a list of answers per contender, one for each round, each with ``seconds`` and ``steps``;
    a contender that fails on the way is dropped, so that all lists have one entry per round. ``extra``
    names further requests to make of the first worker in each round (the machine's peak); its answers
    are stored under that name. The order turns by one place each round, so that nobody always runs
    behind the same neighbour.
    """
    results: dict[str, list[dict[str, float]]] = {worker.name: [] for worker in workers}
    results.update({name: [] for name in extra})
    active = list(workers)
    for number in range(rounds):
        turn = number % len(active) if active else 0
        slices = [(worker, "run") for worker in active[turn:] + active[:turn]]
        slices += [(workers[0], name) for name in extra if workers[0] in active]
        for worker, request in slices:
            others = {other.name: other.cpu_seconds() for other in workers if other is not worker}
            begin = time.perf_counter()
            try:
                answer = worker.ask(120 + 20 * slice_seconds, op=request, seconds=slice_seconds)
            except Unavailable as error:
                worker.failure = str(error)
                common.log(f"  {worker.name} dropped: {error}")
                if request == "run":
                    active.remove(worker)
                    del results[worker.name]
                continue
            for other in workers:
                if other is not worker:
                    other.idle_seconds += other.cpu_seconds() - others[other.name]
            answer["wall"] = time.perf_counter() - begin
            results[worker.name if request == "run" else request].append(answer)
            time.sleep(settle)
    return results


def close_all(workers: Sequence[Worker]) -> None:
    """End all workers."""
    for worker in workers:
        worker.close()
