"""The process of one contender on the GPU: answers requests, lines of JSON on standard input, until it closes.

Requests: ``{"op": "prepare", "case": {...}}`` builds every form of the contender, times each over some steps
and keeps the fastest; ``{"op": "round", "number": r}`` runs a round's two epochs and answers with their
seconds; ``{"op": "reset"}`` goes back to the initial weights; ``{"op": "losses"}`` tells what has been learnt.
`Contender` is the other end of the pipe.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common  # first: frees OpenBLAS before NumPy loads
import gpu_problem
import workers

#: Contender -> module of this folder, and what its `forms` is asked for.
CONTENDERS = {
    "gesda": ("gpu_gesda", "auto"),
    "gesda_persistent": ("gpu_gesda", "persistent"),
    "gesda_panels": ("gpu_gesda", "panels"),
    "gesda_tiles": ("gpu_gesda", "tiles"),
    "gesda_tuned": ("gpu_gesda", "tuned"),
    "torch_graph": ("gpu_torch", "graph"),
    "jax": ("gpu_jax", "scan"),
    "torch_eager": ("gpu_torch", "eager"),
    "torch_compile": ("gpu_torch", "compile"),
}


class Contender(workers.Worker):
    """A contender in its own process; see `workers.Worker`."""

    def __init__(self, name: str, threads: int, python: str = sys.executable) -> None:
        self.name, self.failure, self.idle_seconds = name, None, 0.0
        self._process = subprocess.Popen(
            [python, str(Path(__file__).resolve()), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=common.child_environment(threads),
            text=True,
            bufsize=1,
        )

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None and self._process.stdin is not None and not self._process.stdin.closed

    def close(self) -> None:
        """End it at once if it is in the middle of something."""
        if self.failure is not None:
            self._process.kill()
        super().close()


class Session:
    """What the worker keeps between requests."""

    def __init__(self, name: str) -> None:
        module, self.kind = CONTENDERS[name]
        self.module = importlib.import_module(module)
        self.case: dict[str, Any] = {}
        self.trial: gpu_problem.Trial | None = None

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        """Keep the fastest of the forms that work."""
        self.trial = None
        gc.collect()
        self.case, self.problem = case, gpu_problem.make_problem(case)
        begin, best, tried = time.perf_counter(), float("inf"), dict[str, Any]()
        chosen = ""
        for name, build in self.module.forms(self.kind, case, self.problem).items():
            if self.trial is not None and time.perf_counter() - begin > case["prepare_seconds"]:
                tried[name] = "not tried: no time left"
                continue
            try:
                trial = build()
                seconds = _seconds_a_step(trial, case)
            except Exception as error:  # whatever a form raises is its reason for being left out
                tried[name] = _reason(error)
                continue
            finally:
                gc.collect()
            tried[name] = {"us": 1e6 * seconds, "peak_bytes": trial.memory()}
            if seconds < best:
                self.trial, best, chosen = trial, seconds, name
            del trial
        if self.trial is None:
            raise workers.Unavailable("; ".join(f"{name}: {reason}" for name, reason in tried.items()))
        return {
            "form": chosen,
            "tried": tried,
            "peak_bytes": tried[chosen]["peak_bytes"],
            "details": self.trial.details,
            "prepare_seconds": time.perf_counter() - begin,
        }

    @property
    def _ready(self) -> gpu_problem.Trial:
        if self.trial is None:
            raise RuntimeError("nothing is prepared")
        return self.trial

    def reset(self) -> dict[str, Any]:
        """Go back to the initial weights."""
        self._ready.reset()
        return {}

    def round(self, number: int) -> dict[str, Any]:
        """Seconds of a round's epochs, the shorter first."""
        staged = [self._ready.stage(order) for order in gpu_problem.orders(self.case, number)]
        return {"seconds": [_timed(self._ready, order) for order in staged]}

    def losses(self) -> dict[str, Any]:
        """Losses of the layers on rows held out."""
        noise, seed = self.case["noise"], self.case["seed"]
        layers = self._ready.layers()
        return {"losses": gpu_problem.reconstruction_losses(layers, self.problem.held_out, noise, seed)}


def _timed(trial: gpu_problem.Trial, staged: Any) -> float:
    begin = time.perf_counter()
    trial.run(staged)
    return time.perf_counter() - begin


def _seconds_a_step(trial: gpu_problem.Trial, case: dict[str, Any]) -> float:
    """Warm up, then the difference of the case's two lengths, each the better of two."""
    trial.reset()
    staged = [trial.stage(order) for order in gpu_problem.orders(case, case["rounds"])]
    _timed(trial, staged[0])
    short, long = (min(_timed(trial, order) for _ in range(2)) for order in staged)
    n_short, n_long = case["steps"]
    return (long - short) / (n_long - n_short)


def _reason(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:300]


def main() -> None:
    """Answer until the pipe closes."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the contender's own prints must not get between the answers
    session: Session | None = None
    missing = ""
    try:
        session = Session(sys.argv[1])  # imports the library before anybody asks
    except Exception as error:
        missing = _reason(error)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if session is None:
                raise workers.Unavailable(missing)
            operation = request.pop("op")
            if operation not in ("prepare", "reset", "round", "losses"):
                raise ValueError(f"unknown request {operation!r}")
            answer = getattr(session, operation)(**request)
        except Exception as error:
            answer = {"error": _reason(error)}
        answers.write(json.dumps(common.plain(answer)) + "\n")


if __name__ == "__main__":
    main()
