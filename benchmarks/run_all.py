"""Runs the benchmarks in order of worth, within a time budget, and says what was left out.

Each entry is a command of its own, so that one failure takes nothing else with it. Accuracy runs are
resumable: start this again to continue.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import common

HERE = Path(__file__).resolve().parent

#: Script, its arguments, and about how many minutes it takes on two cores; the worthiest first.
PLAN: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("step_speed.py", (), 25),
    ("finetune_speed.py", (), 20),
    ("memory.py", (), 15),
    ("mnist_accuracy.py", ("--settings", "vincent", "--schedule", "crosspre", "--seeds", "3"), 30),
    ("mnist_accuracy.py", ("--settings", "vincent", "--schedule", "sequential", "--seeds", "3"), 30),
    ("crosspre_vs_sequential.py", ("--seeds", "2"), 60),
    ("deepmotion_speed.py", (), 5),
    ("deepmotion_accuracy.py", ("--seeds", "1"), 12),
    ("deepmotion_accuracy.py", (), 45),
    ("mnist_accuracy.py", ("--settings", "modern", "--schedule", "crosspre", "--seeds", "1"), 15),
    ("mnist_accuracy.py", ("--settings", "batch100", "--schedule", "crosspre", "none",
                           "--labels", "100", "1000", "3000"), 40),
    ("mnist_accuracy.py", ("--settings", "vincent", "--schedule", "none", "--seeds", "3"), 20),
    ("mnist_accuracy.py", ("--settings", "modern", "--schedule", "crosspre", "none", "--seeds", "3"), 60),
)  # fmt: skip


def quick_plan() -> list[tuple[str, tuple[str, ...], float]]:
    """Every script once, as a trial."""
    scripts = list(dict.fromkeys(script for script, _, _ in PLAN))
    return [(script, ("--quick",), 1.0) for script in scripts]


def main(argv: list[str] | None = None) -> int:
    """Command line; the number of failures is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=240, help="start nothing that would end after so long")
    parser.add_argument("--quick", action="store_true", help="every script's quick mode")
    parser.add_argument("--engine", default="cpu", choices=("cpu", "reference"))
    arguments = parser.parse_args(argv)
    begin, failures = time.monotonic(), 0
    for script, options, minutes in quick_plan() if arguments.quick else PLAN:
        title = " ".join((script, *options))
        spent = (time.monotonic() - begin) / 60
        if spent + minutes > arguments.minutes:
            common.log(f"== left out, {spent:.0f} of {arguments.minutes:.0f} minutes are spent: {title}")
            continue
        common.log(f"== {title} (about {minutes:.0f} min)")
        command = [sys.executable, str(HERE / script), *options, "--engine", arguments.engine]
        status = subprocess.run(command, check=False).returncode
        if status:
            failures += 1
            common.log(f"== failed with status {status}: {title}")
    return failures


if __name__ == "__main__":
    sys.exit(main())
