"""Fills the marked places of README.md with tables from benchmarks/results/*.json, so that every figure has a file.

A place is what stands between ``<!-- table: NAME -->`` and ``<!-- end table: NAME -->``; NAME is one of
TABLES. A result file that is not there gives "not measured yet". Run it after a benchmark:

    python benchmarks/fill_readme.py            rewrites README.md
    python benchmarks/fill_readme.py --check    status 1 if that would change anything (tests/test_readme.py does this)
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import common  # first: frees OpenBLAS before NumPy loads
import crosspre_vs_sequential
import deepmotion_accuracy
import deepmotion_speed
import deployment
import memory
import mnist_accuracy
import speed
from contenders import TITLES

README = common.ROOT / "README.md"
PLACE = re.compile(r"(<!-- table: (?P<name>\w+) -->\n)(?P<content>.*?)(<!-- end table: (?P=name) -->)", re.DOTALL)
MARK = re.compile(r"<!-- (?:end )?table: (\w+) -->")


# ---- the tables ---------------------------------------------------------------------------------
def speed_table(document: dict[str, Any]) -> str:
    """GeSdA's milliseconds and share of the peak, then everyone else's time in multiples of GeSdA's."""
    entries = [entry for entry in document["results"] if "gesda" in entry["contenders"]]
    others = [name for name in TITLES if name != "gesda" and any(name in entry["contenders"] for entry in entries)]
    several = len({entry["case"]["optimizer"] for entry in entries}) > 1
    rows = []
    for entry in entries:
        case, results = entry["case"], entry["contenders"]
        mine = results["gesda"]
        row = [speed.shape_name(case["layers"]), case["batch"], *([case["optimizer"]] if several else [])]
        row += [mine["ms_per_step"]["median"], 100.0 * (_median(mine, "fraction_of_peak") or math.nan)]
        rows.append([*row, *(_median(results.get(name, {}), "times_gesda") for name in others)])
    header = ["net", "batch", *(["optimiser"] if several else []), "GeSdA ms", "% of FMA peak"]
    return common.markdown_table([*header, *(TITLES[name] for name in others)], rows)


def _median(result: dict[str, Any], name: str) -> float | None:
    value: float | None = result.get(name, {}).get("median")
    return value


class Table(NamedTuple):
    """Where a table comes from, how it is made, and what a reader has to know."""

    script: str
    make: Callable[[dict[str, Any]], str]
    legend: str


_TIMES = (
    "the libraries' columns: their time as a multiple of GeSdA's, median over interleaved rounds, above 1 is slower"
)
_CONTENDERS = list(memory.CONTENDERS)
TABLES = {
    "step_speed": Table("step_speed", speed_table, _TIMES),
    "finetune_speed": Table("finetune_speed", speed_table, _TIMES),
    "memory": Table(
        "memory",
        lambda document: memory.table(document["results"], _CONTENDERS),
        "MiB of resident memory beyond the data, at the peak; sum: parameters, optimiser state and two minibatches",
    ),
    "mnist_accuracy": Table(
        "mnist_accuracy",
        lambda document: mnist_accuracy.table(document["results"]),
        "rates: of pretraining / of fine-tuning; sd: standard deviation over the runs' seeds",
    ),
    "crosspre_speed": Table(
        "crosspre_vs_sequential",
        lambda document: crosspre_vs_sequential.speed_table(document["results"]),
        "microseconds per step of all layers; above 1 in the last two columns, CrossPre is faster",
    ),
    "crosspre_error": Table(
        "crosspre_vs_sequential",
        lambda document: crosspre_vs_sequential.error_table([e for e in document["results"] if e["runs"]]),
        "the target of the last column: the best validation error that every schedule reaches",
    ),
    "deepmotion_sets": Table(
        "deepmotion_accuracy",
        lambda document: deepmotion_accuracy.sets_table(document["results"]),
        "accuracy on the test set, mean and standard deviation over the seeds; sources of what is published are in "
        "`benchmarks/deepmotion_baselines.py`",
    ),
    "deepmotion_few": Table(
        "deepmotion_accuracy",
        lambda document: deepmotion_accuracy.few_table(document["results"]),
        "accuracy on the test set, mean and standard deviation over the seeds; encodings: 64 numbers of a network that "
        "was pretrained, or not, and has seen no label",
    ),
    "deepmotion_rejection": Table(
        "deepmotion_accuracy",
        lambda document: deepmotion_accuracy.rejection_table(document["results"]),
        "AUROC: area under the curve of the familiarity, known gestures of the test set against the two left out",
    ),
    "deployment": Table(
        "deployment",
        lambda document: deployment.table(document["results"]),
        "one row, one thread, called from Python (from C: the median by gesda-infer); of ONNX Runtime's: the median of "
        "the ratios within rounds; start: of a process, to the first answer",
    ),
    "deepmotion_speed": Table(
        "deepmotion_speed",
        lambda document: deepmotion_speed.table(document["results"][0]),
        "milliseconds; by the clock of a shared machine",
    ),
}


# ---- captions -----------------------------------------------------------------------------------
#: Options that say what was measured; the others say how it was run, or are in the table.
_SHOWN = ("only", "batches", "rounds", "slice", "repeats", "part", "nets", "error_nets")


def command(document: dict[str, Any]) -> str:
    """Return the command that measured this, as far as it was more than the script's name."""
    words = [f"python benchmarks/{document['benchmark']}.py"]
    arguments = document["arguments"]
    if document["benchmark"] == "mnist_accuracy":  # collected by several commands: ask the results
        keys = [result["key"] for result in document["results"]]
        for option, name in (("settings", "setting"), ("schedule", "arm"), ("labels", "labels")):
            words += [f"--{option}", *dict.fromkeys(str(key[name]) for key in keys)]
        return " ".join(words)
    for name in _SHOWN:
        value = arguments.get(name)
        if value not in (None, [], "both"):
            words += [f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return " ".join(words)


def caption(document: dict[str, Any], legend: str) -> str:
    """One paragraph under a table: legend, machine, date, command, file."""
    machine, name = document["machine"], document["benchmark"]
    threads = document["arguments"].get("threads", machine["cores"])
    # A peer may run in an environment of its own.
    found = [machine["packages"], *(own for e in document["results"] for own in e.get("packages", {}).values())]
    versions = {package: version for packages in found for package, version in packages.items() if version}
    shown = ("numpy", "scikit-learn", "torch", "jax", "onnxruntime")
    packages = ", ".join(f"{package} {versions[package]}" for package in shown if package in versions)
    commit, system = (document["commit"] or "unknown")[:9], machine["system"].split("-with")[0]
    return (
        f"*{legend[0].upper()}{legend[1:]}. {machine['cpu']}, {threads} threads; {system}; "
        f"{packages}; {document['date'][:10]}, commit {commit}. `{command(document)}`, raw data in "
        f"[benchmarks/results/{name}.json](benchmarks/results/{name}.json).*"
    )


def content(name: str, results: Path) -> str:
    """Return the text of one place: the table and its caption, or that there is none yet."""
    if name not in TABLES:
        raise ValueError(f"there is no table {name!r}; the tables are {', '.join(TABLES)}.")
    table = TABLES[name]
    path = results / f"{table.script}.json"
    missing = f"*Not measured yet: `python benchmarks/{table.script}.py`.*\n"
    if not path.exists():
        return missing
    document = common.read_json(path)
    if document["quick"]:
        raise ValueError(f"{path.name} is a --quick run, which measures nothing; measure it, or remove the file.")
    measured = [e for e in document["results"] if e["runs"]] if name == "crosspre_error" else document["results"]
    return f"{table.make(document)}\n\n{caption(document, table.legend)}\n" if measured else missing


def filled(text: str, results: Path = common.RESULTS) -> str:
    """Return the README with its tables made from the result files.

    Raises
    ------
    ValueError
        For a mark without its counterpart, an unknown table, or a result file that cannot be used.
    """
    new, count = PLACE.subn(lambda m: f"{m[1]}{content(m['name'], results)}{m[4]}", text)
    if 2 * count != len(MARK.findall(text)):
        raise ValueError("a table's mark in README.md lacks its counterpart; each needs both, in order.")
    return new


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if README.md is out of date")
    arguments = parser.parse_args(argv)
    old = README.read_text(encoding="utf-8")
    new = filled(old)
    if arguments.check:
        print("README.md is up to date." if new == old else "README.md is out of date: run benchmarks/fill_readme.py.")
        return int(new != old)
    README.write_text(new, encoding="utf-8")
    print("README.md was " + ("up to date." if new == old else "filled anew."))
    return 0


if __name__ == "__main__":
    sys.exit(main())
