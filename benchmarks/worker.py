"""The process of one contender: answers requests, lines of JSON on standard input, until it closes.

Requests: ``{"op": "prepare", "case": {...}}`` builds the case, tries each variant of the contender and
keeps the fastest; ``{"op": "run", "seconds": s}`` runs whole epochs for at least so long and answers
with steps and seconds; ``{"op": "fma_peak", "seconds": s}`` measures the machine (GeSdA's worker).
Run as ``python worker.py CONTENDER THREADS``; `workers.Worker` does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from typing import Any

import common  # first: frees OpenBLAS before NumPy loads
from contenders import CONTENDERS
from contenders.problem import Run


def confine(threads: int) -> None:
    """Restrict this process to as many cores as threads: JAX sizes its pool by what it may use."""
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        if threads < len(usable):
            os.sched_setaffinity(0, usable[:threads])


def timed(run: Run, seconds: float) -> tuple[int, float]:
    """Run whole epochs until the time is over; epochs run and seconds spent."""
    epochs = 0
    begin = time.perf_counter()
    while True:
        run(1)
        epochs += 1
        elapsed = time.perf_counter() - begin
        if elapsed >= seconds:
            return epochs, elapsed


def fastest(variants: dict[str, Run], seconds: float) -> tuple[str, dict[str, float]]:
    """Warm every variant up, time it, and name the fastest; seconds per epoch of all."""
    spent: dict[str, float] = {}
    for name, run in variants.items():
        run(1)
        if len(variants) == 1:
            return name, {}
        best = float("inf")
        for _ in range(3):
            epochs, elapsed = timed(run, seconds / 3)
            best = min(best, elapsed / epochs)
        spent[name] = best
    return min(spent, key=spent.__getitem__), spent


class Session:
    """What the worker keeps between requests."""

    def __init__(self, contender: str, threads: int) -> None:
        self.contender = contender
        self.threads = threads
        self.run: Run | None = None
        self.n_batches = 1

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        self.run = None
        gc.collect()
        module, function = CONTENDERS[self.contender]
        make = getattr(importlib.import_module(f"contenders.{module}"), function)
        built: dict[str, Run] = make({**case, "threads": self.threads})
        chosen, spent = fastest(built, case.get("try_seconds", 0.15))
        self.run, self.n_batches = built[chosen], case["n_batches"]
        packages = common.package_versions()
        return {"variant": chosen, "seconds_per_epoch": spent, "packages": packages, "details": self.run.details}

    def measure(self, seconds: float) -> dict[str, Any]:
        if self.run is None:
            raise RuntimeError("nothing is prepared")
        epochs, elapsed = timed(self.run, seconds)
        return {"seconds": elapsed, "steps": epochs * self.n_batches}

    def fma_peak(self, seconds: float) -> dict[str, Any]:
        from contenders.gesda_engine import fma_peak

        return {"gflops": fma_peak(self.threads, seconds)}


def main() -> None:
    # The contender's own prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    session = Session(sys.argv[1], int(sys.argv[2]))
    confine(session.threads)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            match request["op"]:
                case "prepare":
                    answer = session.prepare(request["case"])
                case "run":
                    answer = session.measure(request["seconds"])
                case "fma_peak":
                    answer = session.fma_peak(request["seconds"])
                case other:
                    raise ValueError(f"unknown request {other!r}")
        except Exception as error:  # whatever a contender raises is its reason for being left out
            first = (str(error).strip().splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {first}"[:300]}
        answers.write(json.dumps(common.plain(answer)) + "\n")


if __name__ == "__main__":
    main()
