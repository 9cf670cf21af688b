"""CrossPre against sequential pretraining on the CPU: time per step, time to the same validation error.

Fair to both: the sequential schedule caches the encodings of the layers that are done, both run on the
same engine, weights and order of the samples. The table stands as measured, wins and losses.

Two parts. *Speed*: one epoch of all layers, in interleaved rounds, microseconds per step of all layers;
what sequential spends on encoding its cache is shared out over its epochs. *Error*: whole trainings;
validation error against seconds of pretraining plus fine-tuning (validation itself not counted).
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import bench_data
import common  # first: frees OpenBLAS before NumPy loads
import numpy as np

from gesda.engine import Engine, select
from gesda.schedule import PretrainSchedule
from gesda.spec import HeadSpec, LayerSpec, NetworkSpec, OptimizerSpec, PretrainPlan
from gesda.trainer import Trainer

BENCHMARK = "crosspre_vs_sequential"
#: Arms: kind of schedule, stagger, handoff.
ARMS = {
    "sequential": ("sequential", 1, "clean"),
    "crosspre": ("crosspre", 0, "clean"),
    "crosspre, stagger 1": ("crosspre", 1, "clean"),
    "crosspre, noisy handoff": ("crosspre", 0, "noisy"),
}


@dataclass
class Net:
    """A network, its data, and how it is trained."""

    data: str
    hidden: tuple[int, ...]
    batch: int
    rate: float
    finetune_rate: float
    epochs: tuple[int, ...] = (5, 15)
    finetune_epochs: int = 30
    momentum: float = 0.0
    name: str = field(default="")


NETS = (
    Net("mnist", (500, 500), 20, 0.02, 0.05),
    Net("mnist", (1000, 1000, 1000), 20, 0.02, 0.05),
    Net("mnist", (1000, 1000, 1000), 100, 0.1, 0.1),
    Net("uwave", (256, 128, 64), 32, 0.1, 0.05, epochs=(20, 60), finetune_epochs=150, momentum=0.9),
    Net("mnist", (128,) * 8, 32, 0.05, 0.05),
)
QUICK_NETS = (Net("synthetic", (24, 16, 12), 16, 0.1, 0.1, epochs=(1, 2), finetune_epochs=20, momentum=0.9),)


def load(net: Net, quick: bool, loaded: dict[str, bench_data.Split]) -> bench_data.Split:
    """The net's data; each set is read once."""
    if net.data not in loaded:
        makers: dict[str, Callable[[], bench_data.Split]] = {
            "mnist": bench_data.mnist,
            "uwave": bench_data.uwave,
            "synthetic": lambda: bench_data.synthetic(40, 300),
        }
        loaded[net.data] = makers[net.data]()
    return bench_data.reduced(loaded[net.data], 300) if quick else loaded[net.data]


def make_engine(net: Net, data: bench_data.Split, seed: int, arguments: argparse.Namespace) -> Engine:
    """An engine with initial weights that depend on the seed only."""
    widths = (data.train.shape[1], *net.hidden)
    kind = "momentum" if net.momentum else "sgd"
    spec = NetworkSpec(
        layers=tuple(LayerSpec(n, m, noise_level=0.25) for n, m in itertools.pairwise(widths)),
        head=HeadSpec("softmax", data.n_classes, OptimizerSpec(kind, momentum=net.momentum)),
        seed=seed,
    )
    engine = select(arguments.engine, spec, n_jobs=arguments.threads)
    rng = np.random.default_rng(seed)
    for name, shape in spec.parameter_shapes().items():
        # Zeros for the head: it starts from no opinion, whatever the stack is.
        if len(shape) == 2 and not name.startswith("head"):
            limit = 4.0 * math.sqrt(6.0 / sum(shape))  # Glorot and Bengio 2010, for the logistic sigmoid
            engine.set_state({name: rng.uniform(-limit, limit, shape).astype(np.float32)})
    return engine


# ---- speed ----------------------------------------------------------------------------------------
def measure_speed(net: Net, data: bench_data.Split, rounds: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Microseconds per step of all layers, in interleaved rounds of one epoch each."""
    rows = min(len(data.train), 100 * net.batch if not arguments.quick else 4 * net.batch)
    x = np.ascontiguousarray(data.train[:rows])
    engine = make_engine(net, data, 0, arguments)
    depth = len(net.hidden)
    order = np.random.default_rng(0).permutation(rows).astype(np.uint32)
    steps = -(-rows // net.batch)
    cached = [x]
    for k in range(depth - 1):
        cached.append(engine.encode(cached[k], k + 1, first_layer=k))

    def plan(training: tuple[bool, ...], first: int, handoff: str = "clean") -> PretrainPlan:
        return PretrainPlan(0, order, net.batch, training, (net.rate / 100,) * depth, first, handoff)

    def sequential() -> None:
        for k in range(depth):
            engine.pretrain_epoch(cached[k], plan(tuple(j == k for j in range(depth)), k))

    def encoding() -> None:
        for k in range(depth - 1):
            engine.encode(cached[k], k + 1, first_layer=k)

    contenders: dict[str, Callable[[], Any]] = {
        "sequential": sequential,
        "crosspre": lambda: engine.pretrain_epoch(x, plan((True,) * depth, 0)),
        "crosspre, noisy handoff": lambda: engine.pretrain_epoch(x, plan((True,) * depth, 0, "noisy")),
        "encoding the cache once": encoding,
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, action in contenders.items():
            begin = time.perf_counter()
            action()
            if number:  # the first round warms up
                times[name].append(1e6 * (time.perf_counter() - begin) / steps)
    # Sequential encodes its cache once per layer, for all of its epochs.
    share = [spent / max(net.epochs) for spent in times["encoding the cache once"]]
    total = [spent + extra for spent, extra in zip(times["sequential"], share, strict=True)]
    return {
        "steps": steps,
        "us_per_step": {name: common.summary(values) for name, values in times.items()},
        "sequential_over_crosspre": common.ratio_per_round(total, times["crosspre"]),
        "sequential_over_noisy": common.ratio_per_round(total, times["crosspre, noisy handoff"]),
    }


# ---- error ----------------------------------------------------------------------------------------
def train(
    net: Net, data: bench_data.Split, arm: str, epochs: int, seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Pretrain and fine-tune once; validation errors and seconds after every epoch of fine-tuning."""
    kind, stagger, handoff = ARMS[arm]
    engine = make_engine(net, data, seed, arguments)
    trainer = Trainer(engine, probe_size=0)
    depth = len(net.hidden)
    schedule = PretrainSchedule(
        kind=kind,
        epochs=(epochs,) * depth,
        learning_rates=(net.rate,) * depth,
        batch_size=net.batch,
        stagger=stagger,
        handoff=handoff,
    )
    begin = time.perf_counter()
    trainer.pretrain(data.train, schedule, np.random.default_rng([seed, 1]))
    pretrain_seconds = time.perf_counter() - begin

    def score() -> float:
        return float(np.mean(engine.predict(data.validation).argmax(1) == data.validation_labels))

    trainer.finetune(
        data.train,
        data.train_labels,
        np.arange(len(data.train)),
        np.random.default_rng([seed, 2]),
        epochs=net.finetune_epochs,
        batch_size=net.batch,
        learning_rate=net.finetune_rate,
        score=score,
        early_stopping=True,
        n_iter_no_change=net.finetune_epochs,
    )
    tuning = [record for record in trainer.history if record["phase"] == "finetune"]
    seconds = np.cumsum([record["seconds"] for record in tuning]) + pretrain_seconds
    wrong = engine.predict(data.test).argmax(1) != data.test_labels
    return {
        "arm": arm,
        "epochs": epochs,
        "seed": seed,
        "pretrain_seconds": pretrain_seconds,
        "seconds": seconds.tolist(),
        "validation_error": [100 * (1 - record["validation_score"]) for record in tuning],
        "test_error": 100 * float(wrong.mean()),
    }


def time_to_target(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Seconds to the same validation error: for each seed the best one that every arm reaches.

    An arm may use any of its numbers of pretraining epochs: the fastest way there counts.
    """
    arms = sorted({run["arm"] for run in runs})
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    targets = []
    for seed in sorted({run["seed"] for run in runs}):
        own = {arm: [run for run in runs if run["arm"] == arm and run["seed"] == seed] for arm in arms}
        if not all(own.values()):
            continue
        target = max(min(min(run["validation_error"]) for run in own[arm]) for arm in arms)
        targets.append(target)
        for arm in arms:
            reached = [
                seconds
                for run in own[arm]
                for seconds, error in zip(run["seconds"], run["validation_error"], strict=True)
                if error <= target
            ]
            times[arm].append(min(reached))
    return {arm: {"seconds": common.summary(times[arm]), "targets": targets} for arm in arms}


# ---- tables ---------------------------------------------------------------------------------------
def speed_table(results: list[dict[str, Any]]) -> str:
    """Microseconds per step of all layers; above 1 in the ratios CrossPre is faster."""
    rows = []
    for entry in results:
        speed = entry["speed"]
        median = {name: summary["median"] for name, summary in speed["us_per_step"].items()}
        ratios = [speed[name]["median"] for name in ("sequential_over_crosspre", "sequential_over_noisy")]
        shown = ("sequential", "encoding the cache once", "crosspre", "crosspre, noisy handoff")
        rows.append([entry["name"], entry["batch"], *(median[name] for name in shown), *ratios])
    header = ["net", "batch", "sequential us", "cache once us", "CrossPre us", "noisy handoff us",
              "sequential / CrossPre", "sequential / noisy"]  # fmt: skip
    return common.markdown_table(header, rows)


def error_table(results: list[dict[str, Any]]) -> str:
    """Equal epochs: seconds and errors, mean and sd over the seeds; then time to the same error."""
    rows = []
    for entry in results:
        for arm, epochs in sorted({(run["arm"], run["epochs"]) for run in entry["runs"]}):
            runs = [run for run in entry["runs"] if (run["arm"], run["epochs"]) == (arm, epochs)]
            test, spread = common.mean_and_spread([run["test_error"] for run in runs])
            held = common.mean_and_spread([min(run["validation_error"]) for run in runs])[0]
            spent = common.mean_and_spread([run["pretrain_seconds"] for run in runs])[0]
            to_target = entry["time_to_target"].get(arm, {}).get("seconds", {}).get("median")
            rows.append([entry["name"], entry["batch"], arm, epochs, len(runs), spent, held, test, spread, to_target])
    header = ["net", "batch", "schedule", "epochs a layer", "seeds", "pretraining s", "validation error %",
              "test error %", "sd", "s to the same validation error"]  # fmt: skip
    return common.markdown_table(header, rows)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = common.argument_parser(BENCHMARK, __doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, help="rounds of the speed part (default 9; 2 with --quick)")
    parser.add_argument("--part", choices=("speed", "error", "both"), default="both")
    parser.add_argument("--nets", nargs="+", type=int, metavar="I", help=f"numbers of nets, 0 to {len(NETS) - 1}")
    parser.add_argument("--error-nets", nargs="+", type=int, metavar="I", help="of these, nets to train (default: all)")
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), default=list(ARMS))
    arguments = parser.parse_args(argv)
    nets = QUICK_NETS if arguments.quick else tuple(NETS[i] for i in arguments.nets or range(len(NETS)))
    trained = nets if arguments.quick or not arguments.error_nets else tuple(NETS[i] for i in arguments.error_nets)
    rounds = arguments.rounds or (2 if arguments.quick else 9)
    seeds = 1 if arguments.quick else arguments.seeds
    document = common.new_document(BENCHMARK, arguments)
    path = common.output_path(BENCHMARK, arguments)
    loaded: dict[str, bench_data.Split] = {}
    for net in nets:
        try:
            data = load(net, arguments.quick, loaded)
        except bench_data.DataMissing as reason:
            print(f"Skipped {net.data}: {reason}.")
            continue
        name = net.name or f"{net.data} {'-'.join(map(str, (data.train.shape[1], *net.hidden)))}"
        entry: dict[str, Any] = {
            "name": name,
            "batch": net.batch,
            "net": vars(net) | {},
            "runs": [],
            "time_to_target": {},
        }
        document["results"].append(entry)
        common.log(f"{name}, batch {net.batch}: speed")
        entry["speed"] = measure_speed(net, data, rounds if arguments.part != "error" else 1, arguments)
        # Seeds outermost and arms innermost: neighbours in time are what is compared.
        for seed, epochs, arm in itertools.product(range(seeds), net.epochs, arguments.arms):
            if arguments.part == "speed" or net not in trained:
                break
            result = train(net, data, arm, epochs, seed, arguments)
            entry["runs"].append(result)
            entry["time_to_target"] = time_to_target(entry["runs"])
            common.log(f"  {arm}, {epochs} epochs, seed {seed}: {result['pretrain_seconds']:.1f} s, "
                       f"test error {result['test_error']:.2f} %")  # fmt: skip
            if path is not None:
                common.write_json(path, document)
        if path is not None:
            common.write_json(path, document)
    print("\n".join(common.environment_report()))
    if document["results"]:
        print("Microseconds per step of all layers (medians; in the ratios the cache is shared out over the epochs):")
        print(speed_table(document["results"]))
    if any(entry["runs"] for entry in document["results"]):
        print("\nWhole trainings (the target: the best validation error that every schedule reaches):")
        print(error_table(document["results"]))
    if path is not None:
        print(f"Results: {path}")


if __name__ == "__main__":
    sys.exit(main())
