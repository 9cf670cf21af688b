"""Measures a list of cases with all contenders: shared by step_speed.py and finetune_speed.py."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any

import common
import workers as pool
from contenders import CONTENDERS, TITLES
from contenders.problem import flop_per_step

#: Longest wait for a contender to build a case; compiling takes its time.
PREPARE_TIMEOUT = 400.0


def add_arguments(parser: argparse.ArgumentParser, contenders: Sequence[str]) -> None:
    """Options of the speed benchmarks."""
    parser.add_argument("--contenders", nargs="+", choices=sorted(CONTENDERS), default=list(contenders))
    parser.add_argument("--rounds", type=int, help="rounds of interleaved slices (default 9; 2 with --quick)")
    parser.add_argument("--slice", type=float, help="seconds of a contender's slice (default 0.2; 0.02 with --quick)")
    parser.add_argument("--only", nargs="+", default=[], metavar="SHAPE", help="measure these shapes only, as 784x1000")
    parser.add_argument("--batches", nargs="+", type=int, help="measure these batch sizes only")
    parser.add_argument("--peer-python", help="interpreter with jax and torch (default: a .venv-bench, or this one)")


def shape_name(layers: Sequence[int]) -> str:
    """How a case's widths are written: 784x1000."""
    return "x".join(map(str, layers))


def start(arguments: argparse.Namespace) -> list[pool.Worker]:
    """Start one worker per contender, GeSdA's with this interpreter."""
    python = arguments.peer_python or pool.find_peer_python()
    return [
        pool.Worker(name, arguments.threads, sys.executable if name.startswith("gesda") else python)
        for name in arguments.contenders
    ]


def measure_case(
    case: dict[str, Any], workers: Sequence[pool.Worker], rounds: int, slice_seconds: float
) -> dict[str, Any]:
    """Prepare a case with everyone, run the rounds, and compute what the tables show."""
    ready, variants, missing, packages = [], {}, {}, {}
    for worker in workers:
        try:
            answer = worker.ask(PREPARE_TIMEOUT, op="prepare", case=case)
        except pool.Unavailable as error:
            missing[worker.name] = str(error)
            continue
        variants[worker.name] = {"chosen": answer["variant"], "seconds_per_epoch": answer["seconds_per_epoch"]}
        variants[worker.name] |= answer["details"]
        packages[worker.name] = answer["packages"]
        ready.append(worker)
    peak_wanted = bool(ready) and ready[0].name == "gesda"
    raw = pool.interleave(ready, rounds, slice_seconds, extra=("fma_peak",) if peak_wanted else ())
    peaks = [answer["gflops"] for answer in raw.pop("fma_peak", []) if answer["gflops"] is not None]
    flop = flop_per_step(case)
    entry: dict[str, Any] = {
        "case": case,
        "flop_per_step": flop,
        "fma_peak_gflops": common.summary(peaks),
        "missing": missing | {w.name: w.failure for w in ready if w.name not in raw and w.failure},
        "variants": variants,
        "packages": packages,
        "contenders": {},
    }
    times = {name: [1e3 * slice_["seconds"] / slice_["steps"] for slice_ in slices] for name, slices in raw.items()}
    for name, values in times.items():
        result: dict[str, Any] = {"ms_per_step": common.summary(values)}
        result["gflops"] = flop / result["ms_per_step"]["median"] / 1e6 if values else math.nan
        if len(peaks) == len(values):
            achieved = [flop / value / 1e6 for value in values]
            result["fraction_of_peak"] = common.ratio_per_round(achieved, peaks)
        if "gesda" in times and name != "gesda":
            result["times_gesda"] = common.ratio_per_round(values, times["gesda"])
        entry["contenders"][name] = result
    return entry


def best_peer(entry: dict[str, Any]) -> tuple[str | None, float]:
    """The fastest contender that is not GeSdA, and how many times GeSdA's time it takes."""
    peers = {
        name: result["ms_per_step"]["median"]
        for name, result in entry["contenders"].items()
        if not name.startswith("gesda")
    }
    if not peers:
        return None, math.nan
    name = min(peers, key=peers.__getitem__)
    return name, entry["contenders"][name].get("times_gesda", {}).get("median", math.nan)


def tables(entries: Sequence[dict[str, Any]], contenders: Sequence[str]) -> str:
    """Milliseconds of everyone, then GeSdA's speed against the peak and the peers."""
    shown = [name for name in contenders if any(name in entry["contenders"] for entry in entries)]
    times, against = [], []
    for entry in entries:
        case, results = entry["case"], entry["contenders"]
        head = [shape_name(case["layers"]), case["batch"], case["optimizer"]]
        row = [results[name]["ms_per_step"]["median"] if name in results else math.nan for name in shown]
        times.append([*head, *row])
        if "gesda" in results:
            mine = results["gesda"]
            peer, factor = best_peer(entry)
            share = mine.get("fraction_of_peak", {}).get("median", math.nan)
            ratios = [
                results[name]["times_gesda"]["median"] if name in results else math.nan
                for name in shown
                if name != "gesda"
            ]
            best = TITLES[peer] if peer else "-"
            against.append([*head, mine["gflops"], 100.0 * share, best, factor, *ratios])
    parts = [
        "Milliseconds per step, median of the rounds:",
        common.markdown_table(["net", "batch", "optimiser", *(TITLES[name] for name in shown)], times),
    ]
    if against:
        header = ["net", "batch", "optimiser", "GeSdA GFLOP/s", "% of FMA peak", "best peer", "times GeSdA's time"]
        header += [f"{TITLES[name]} / GeSdA" for name in shown if name != "gesda"]
        parts += [
            "\nGeSdA against the machine and the others (ratios: median over rounds):",
            common.markdown_table(header, against),
        ]
    return "\n".join(parts)


def run(benchmark: str, cases: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all cases, write the result file after each, print the tables last."""
    rounds = arguments.rounds or (2 if arguments.quick else 9)
    slice_seconds = arguments.slice or (0.02 if arguments.quick else 0.2)
    if arguments.only:
        cases = [case for case in cases if shape_name(case["layers"]) in arguments.only]
    if arguments.batches:
        cases = [case for case in cases if case["batch"] in arguments.batches]
    document = common.new_document(benchmark, arguments)
    path = common.output_path(benchmark, arguments)
    workers = start(arguments)
    try:
        for number, case in enumerate(cases, 1):
            case["engine"] = arguments.engine
            title = f"{shape_name(case['layers'])}, batch {case['batch']}, {case['optimizer']}"
            common.log(f"[{number}/{len(cases)}] {title}")
            entry = measure_case(case, workers, rounds, slice_seconds)
            for name, reason in entry["missing"].items():
                common.log(f"  without {name}: {reason}")
            document["results"].append(entry)
            document["idle_cpu_seconds"] = {worker.name: worker.idle_seconds for worker in workers}
            if path is not None:
                common.write_json(path, document)
    finally:
        pool.close_all(workers)
    print("\n".join(common.environment_report()))
    print(tables(document["results"], arguments.contenders))
    restless = {name: spent for name, spent in document.get("idle_cpu_seconds", {}).items() if spent > 0.5}
    if restless:
        print("Warning: used processor time while others were measured (s): ", restless)
    if path is not None:
        print(f"Results: {path}")
    return document
