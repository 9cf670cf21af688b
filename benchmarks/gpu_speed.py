"""A pretraining step of all layers on a GPU: GeSdA's kernels and their peers, microseconds and memory.

All do the same training (gpu_problem.py): CrossPre, tied weights, masking, cross-entropy, SGD. An epoch is timed
at two lengths, synchronised; their difference, by the difference in steps, is a step. Each contender runs in a
process of its own, its rounds in turn with GeSdA's, ratios within each round. After the timed steps, the same for
all, the losses on rows held out have to agree within 2 % (each layer's, 5 %), or it is no fair comparison.

Pairs of a case and a contender are done in order of worth, each result is written at once. --cpu and --emulated
try the plumbing and measure nothing.
"""

from __future__ import annotations

import argparse
import itertools
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import common  # first: frees OpenBLAS before NumPy loads
import gpu_common
import gpu_problem
import workers
from gpu_worker import CONTENDERS, Contender

BENCHMARK = "gpu_speed"
TITLES = {
    "gesda": "GeSdA",
    "gesda_persistent": "persistent",
    "gesda_panels": "panels",
    "gesda_tiles": "tiles",
    "gesda_tuned": "tuned",
    "torch_graph": "PyTorch graph",
    "jax": "JAX scan",
    "torch_eager": "PyTorch eager",
    "torch_compile": "torch.compile",
}
#: The smaller the sum of a case's and a contender's ranks, the earlier it is measured.
RANKS: dict[Any, float] = {
    **dict(zip(gpu_common.NETS, (0, 4, 5), strict=True)),
    **dict(zip(gpu_common.PRECISIONS, (0, 2, 5), strict=True)),
    **dict(zip(gpu_common.BATCHES, (0, 0.5, 3, 3.5), strict=True)),
    **dict(zip(CONTENDERS, (0, 0.3, 0.3, 0.3, 3, 1, 1.5, 2.5, 4.5), strict=True)),
}


def pairs(
    nets: list[tuple[int, ...]], batches: list[int], precisions: list[str], contenders: list[str]
) -> list[tuple[tuple[int, ...], int, str, str]]:
    """Nets, batches, precisions and contenders in order of worth."""
    everything = itertools.product(nets, batches, precisions, contenders)
    return sorted(everything, key=lambda pair: sum(RANKS.get(part, 0) for part in pair))


class Runner:
    """Keeps the contenders' processes, and what GeSdA's has been prepared for."""

    def __init__(self, arguments: argparse.Namespace, contenders: list[str]) -> None:
        python = arguments.peer_python or workers.find_peer_python()
        self._pythons = {name: sys.executable if name.startswith("gesda") else python for name in contenders}
        self._threads, self._limit = arguments.threads, arguments.limit
        self._deadline = time.monotonic() + 60 * arguments.minutes
        self._processes: dict[str, Contender] = {}
        self._gesda_case: dict[str, Any] | None = None
        for name in contenders:  # all at once: their libraries load side by side
            self._start(name)

    def _start(self, name: str) -> Contender:
        self._processes[name] = Contender(name, self._threads, self._pythons[name])
        return self._processes[name]

    @property
    def seconds_left(self) -> float:
        """Until the time limit."""
        return self._deadline - time.monotonic()

    def _ask(self, name: str, **request: Any) -> dict[str, Any]:
        return self._processes[name].ask(max(5.0, min(self._limit, self.seconds_left)), **request)

    def _prepare(self, name: str, case: dict[str, Any]) -> dict[str, Any]:
        if not self._processes[name].alive:
            self._start(name)
        case = case | {"prepare_seconds": min(case["prepare_seconds"], self.seconds_left / 2)}
        return self._ask(name, op="prepare", case=case)

    def measure(self, name: str, case: dict[str, Any]) -> dict[str, Any]:
        """Prepare a contender and run its rounds, in turn with GeSdA's; alone where GeSdA fails.

        Raises
        ------
        workers.Unavailable
        """
        if name == "gesda":
            self._gesda_case = None
            prepared = self._prepare("gesda", case)
            self._gesda_case = case
            return self._rounds(["gesda"], case) | prepared
        prepared = self._prepare(name, case)
        if self._gesda_case != case:
            self._gesda_case = None
            try:
                self._prepare("gesda", case)
                self._gesda_case = case
            except workers.Unavailable as reason:
                return self._rounds([name], case) | prepared | {"alone": str(reason)}
        return self._rounds([name, "gesda"], case) | prepared

    def _rounds(self, names: list[str], case: dict[str, Any]) -> dict[str, Any]:
        for name in names:
            self._ask(name, op="reset")
        short, long = case["steps"]
        times: dict[str, list[float]] = {name: [] for name in names}
        for number in range(case["rounds"]):
            for name in names if number % 2 else names[::-1]:
                seconds = self._ask(name, op="round", number=number)["seconds"]
                times[name].append(1e6 * (seconds[1] - seconds[0]) / (long - short))
        losses = {name: self._ask(name, op="losses")["losses"] for name in names}
        found = summarised(times[names[0]], losses[names[0]], case)
        if "gesda" in names:
            found |= compared(times[names[0]], losses[names[0]], times["gesda"], losses["gesda"])
        return found

    def failed(self, name: str, reason: str) -> None:
        """End a process whose CUDA context an error may have broken; it is started anew when it is needed."""
        if "cuda" in reason.lower():
            for other in {name, "gesda"}:
                self._processes[other].close()
            self._gesda_case = None

    def close(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.close()


def summarised(times: list[float], losses: list[float], case: dict[str, Any]) -> dict[str, Any]:
    """A contender's own figures."""
    median = common.quantile(times, 0.5)
    tflops = gpu_problem.flop_per_step(case) / median * 1e-6 if median > 0 else None
    return {"us": common.summary(times), "tflops": tflops, "losses": losses}


def compared(times: list[float], losses: list[float], gesda: list[float], gesda_losses: list[float]) -> dict[str, Any]:
    """The same beside GeSdA's of the same minutes."""
    differences = gpu_problem.loss_differences(losses, gesda_losses)
    return {
        "gesda_us": common.summary(gesda),
        "times_gesda": common.ratio_per_round(times, gesda) if min(*times, *gesda) > 0 else None,
        "gesda_losses": gesda_losses,
        "loss_difference": {"mean": differences[0], "worst_layer": differences[1]},
        "fair": gpu_problem.same_training(differences),
    }


def told(found: dict[str, Any]) -> str:
    """A result in a line."""
    ratio = (found.get("times_gesda") or {}).get("median")
    text = f"{found['us']['median']:.1f} us, {common.show(ratio)} of GeSdA's, {found['form']}"
    if found.get("fair", True):
        return text
    difference = found["loss_difference"]
    return f"{text}; UNFAIR: losses differ by {difference['mean']:.1%}, a layer's by {difference['worst_layer']:.1%}"


def table(results: list[dict[str, Any]], contenders: list[str]) -> str:
    """Microseconds a step of each contender; with an asterisk where the losses disagree."""
    header = ["net", "batch", "precision", *(TITLES[name] for name in contenders), "best peer / GeSdA"]
    rows = []
    for entry in results:
        case, found = entry["case"], entry["contenders"]
        cells = [
            common.show(found[name]["us"]["median"]) + "*" * (not found[name].get("fair")) if name in found else "-"
            for name in contenders
        ]
        ratios = [
            result["times_gesda"]["median"]
            for name, result in found.items()
            if not name.startswith("gesda") and result.get("fair") and result["times_gesda"]
        ]
        rows.append(["-".join(map(str, case["widths"])), case["batch"], case["precision"],
                     *cells, min(ratios, default=None)])  # fmt: skip
    return common.markdown_table(header, rows)


def memory_table(results: list[dict[str, Any]], contenders: list[str]) -> str:
    """MiB of device memory beyond the data."""
    rows = []
    for entry in results:
        case, found = entry["case"], entry["contenders"]
        data = 4 * case["rows"] * case["widths"][0]
        peaks = [found.get(name, {}).get("peak_bytes") for name in contenders]
        if any(peaks):
            shown = [None if peak is None else (peak - data) / 2**20 for peak in peaks]
            rows.append(["-".join(map(str, case["widths"])), case["batch"], case["precision"], *shown])
    return common.markdown_table(["net", "batch", "precision", *(TITLES[name] for name in contenders)], rows)


def parse_net(text: str) -> tuple[int, ...]:
    """Widths from 784-1000-1000.

    >>> parse_net("784-1000")
    (784, 1000)
    """
    return tuple(int(width) for width in text.split("-"))


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = common.argument_parser(BENCHMARK, __doc__)
    parser.add_argument("--cpu", action="store_true", help="peers on the CPU, GeSdA by its reference engine; tiny nets")
    parser.add_argument("--emulated", action="store_true", help="the same, GeSdA by its kernels on the tests' emulator")
    parser.add_argument("--minutes", type=float, default=30, help="start nothing after so long (default 30)")
    parser.add_argument("--limit", type=float, default=240, help="seconds that one request may take (default 240)")
    parser.add_argument(
        "--prepare",
        type=float,
        default=45,
        help="try no further form of a contender after so many seconds (default 45)",
    )
    parser.add_argument("--rounds", type=int, help="(default 7; 3 with --quick)")
    parser.add_argument("--nets", nargs="+", type=parse_net, default=list(gpu_common.NETS))
    parser.add_argument("--batches", nargs="+", type=int, default=list(gpu_common.BATCHES))
    parser.add_argument("--precisions", nargs="+", choices=gpu_common.PRECISIONS, default=list(gpu_common.PRECISIONS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--peer-python", type=Path, help="interpreter of the peers")
    arguments = parser.parse_args(argv)
    arguments.where = "emulated" if arguments.emulated else "cpu" if arguments.cpu else "cuda"
    arguments.quick = arguments.quick or arguments.where != "cuda"
    if arguments.quick:
        arguments.nets, arguments.batches = [(40, 30, 20)], [8]
    return arguments


def main(argv: list[str] | None = None) -> None:
    """Measure in order of worth until the time is over."""
    arguments = arguments_of(argv)
    contenders = list(dict.fromkeys(["gesda", *arguments.contenders]))
    document = gpu_common.gpu_document(BENCHMARK, arguments, gpu=arguments.where == "cuda")
    path = common.output_path(BENCHMARK, arguments)
    changes: dict[str, Any] = {
        "where": arguments.where, "seed": secrets.randbits(31), "prepare_seconds": arguments.prepare,
    }  # fmt: skip
    if arguments.rounds:
        changes["rounds"] = arguments.rounds
    entries: dict[Any, dict[str, Any]] = {}
    left_out = []
    runner = Runner(arguments, contenders)
    try:
        for net, batch, precision, name in pairs(arguments.nets, arguments.batches, arguments.precisions, contenders):
            title = f"{'-'.join(map(str, net))}, batch {batch}, {precision}, {name}"
            if runner.seconds_left <= 0:
                left_out.append(title)
                continue
            if (net, batch, precision) not in entries:
                case = gpu_problem.make_case(net, batch, precision, quick=arguments.quick, **changes)
                entries[net, batch, precision] = {"case": case, "contenders": {}, "missing": {}}
                document["results"].append(entries[net, batch, precision])
            entry = entries[net, batch, precision]
            try:
                found = runner.measure(name, entry["case"])
                entry["contenders"][name] = found
                common.log(f"{title}: {told(found)}")
            except workers.Unavailable as reason:
                entry["missing"][name] = str(reason)
                common.log(f"{title}: {reason}")
                runner.failed(name, str(reason))
            if path is not None:
                common.write_json(path, document)
    finally:
        runner.close()
    document["left_out"] = left_out
    if path is not None:
        common.write_json(path, document)
    print(f"Microseconds a step{', of nothing: a trial of the plumbing' if arguments.quick else ''}:")
    print(table(document["results"], contenders))
    if arguments.where == "cuda":
        print("\nMiB of device memory beyond the data:")
        print(memory_table(document["results"], contenders))
    if left_out:
        print(f"\nLeft out after {arguments.minutes:g} minutes: {len(left_out)} of the pairs.")


if __name__ == "__main__":
    main()
