"""MNIST test error of GeSdA's estimators: CrossPre, sequential, no pretraining; all or few labels.

784-1000-1000-1000 with softmax. With all labels, 50,000 images train and 10,000 validate (early
stopping, best weights kept); with few labels, all 60,000 images pretrain, the labelled ones train for
a fixed number of epochs and nothing stops early, for there is nothing to spare for validation. The
test set is looked at once, at the end of a run. Compare: Vincent et al., JMLR 11, 2010, table 3.

Each finished run is written at once; a run that the result file has already is not repeated, so an
interrupted benchmark continues where it was.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import math
import sys
import time
from pathlib import Path
from typing import Any

import bench_data
import common  # first: frees OpenBLAS before NumPy loads
import numpy as np

BENCHMARK = "mnist_accuracy"

#: Constructor parameters of SdAClassifier, by name of the setting. Learning rates: see --search.
COMMON: dict[str, Any] = {
    "hidden_layer_sizes": (1000, 1000, 1000),
    "activation": "sigmoid",
    "noise": "masking",
    "noise_level": 0.25,
    "stagger": 1,
    "validation_fraction": 1 / 6,
    "probe_size": 0,
}
SETTINGS: dict[str, dict[str, Any]] = {
    # After Vincent et al. 2010: masking noise of 25 %, plain SGD in small minibatches, no other regulariser.
    "vincent": COMMON
    | {
        "batch_size": 20,
        "pretrain_epochs": 30,
        "pretrain_learning_rate": 0.02,
        "solver": "sgd",
        "momentum": 0.0,
        "learning_rate_init": 0.05,
        "max_iter": 60,
        "n_iter_no_change": 10,
    },
    # The same in minibatches of 100, which a machine with more cores fills better.
    "batch100": COMMON
    | {
        "batch_size": 100,
        "pretrain_epochs": 30,
        "pretrain_learning_rate": 0.1,
        "solver": "sgd",
        "momentum": 0.9,
        "learning_rate_init": 0.02,
        "max_iter": 60,
        "n_iter_no_change": 10,
    },
    # Dropout (Srivastava et al., JMLR 15, 2014), Nesterov momentum in both phases, cosine decay; few epochs.
    "modern": COMMON
    | {
        "batch_size": 100,
        "pretrain_epochs": 8,
        "pretrain_learning_rate": 0.05,
        "pretrain_momentum": 0.9,
        "solver": "sgd",
        "momentum": 0.9,
        "nesterovs_momentum": True,
        "learning_rate": "cosine",
        "learning_rate_init": 0.5,
        "dropout": 0.25,
        "input_dropout": 0.2,
        "max_iter": 60,
        "n_iter_no_change": 60,
    },
    # The same with Adam.
    "modern_adam": COMMON
    | {
        "batch_size": 100,
        "pretrain_epochs": 30,
        "pretrain_learning_rate": 0.1,
        "solver": "adam",
        "learning_rate": "cosine",
        "learning_rate_init": 5e-4,
        "dropout": 0.4,
        "input_dropout": 0.2,
        "max_iter": 120,
        "n_iter_no_change": 30,
    },
}

#: Epochs of fine-tuning with so many labels: about as many updates for each.
FEW_LABELS_EPOCHS = {100: 400, 1000: 150, 3000: 80}
QUICK = {"hidden_layer_sizes": (32, 24), "pretrain_epochs": 1, "max_iter": 2, "batch_size": 50}
ARMS = ("crosspre", "sequential", "none")


def parameters(setting: str, arm: str, labels: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Constructor parameters of a run: the setting, what the arm and the labels ask for, what was given."""
    chosen = dict(SETTINGS[setting]) | {"random_state": seed, "early_stopping": labels == "all"}
    if labels != "all":
        chosen["max_iter"] = FEW_LABELS_EPOCHS.get(int(labels), chosen["max_iter"])
        chosen["n_iter_no_change"] = chosen["max_iter"]
        del chosen["validation_fraction"]
    given = ("pretrain_epochs", "pretrain_learning_rate", "learning_rate_init", "max_iter", "batch_size", "dropout")
    chosen |= {name: getattr(arguments, name) for name in given if getattr(arguments, name) is not None}
    chosen |= {"stagger": arguments.stagger} if arguments.stagger is not None else {}
    if arguments.quick:
        chosen |= QUICK
    if arm == "none":
        chosen["pretrain_epochs"] = 0
    else:
        chosen["schedule"] = arm
    return chosen


def run_key(chosen: dict[str, Any], setting: str, arm: str, labels: str, rows: int) -> dict[str, Any]:
    """What makes two runs the same run."""
    return common.plain({"setting": setting, "arm": arm, "labels": labels, "rows": rows, "parameters": chosen})  # type: ignore[no-any-return]


def hide_labels(labels: np.ndarray, kept: int, seed: int) -> np.ndarray:
    """Labels of equally many samples of each class, -1 for the others."""
    rng = np.random.default_rng(1_000_003 * kept + seed)
    hidden = np.full_like(labels, -1)
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(labels == digit))[: kept // 10]
        hidden[rows] = digit
    return hidden


def curve(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Per epoch: reconstruction losses by layer, training losses, validation errors in %, seconds."""
    pretraining = [record for record in history if record.get("phase") == "pretrain"]
    tuning = [record for record in history if record.get("phase") == "finetune"]
    layers = sorted({record["layer"] for record in pretraining})
    scores = [record["validation_score"] for record in tuning if record.get("validation_score") is not None]
    return {
        "reconstruction_loss": [[r["loss"] for r in pretraining if r["layer"] == k] for k in layers],
        "pretrain_seconds": sum(record["seconds"] for record in pretraining),
        "finetune_loss": [record["loss"] for record in tuning],
        "finetune_seconds": sum(record["seconds"] for record in tuning),
        "validation_error": [100 * (1 - score) for score in scores],
    }


def run(key: dict[str, Any], chosen: dict[str, Any], data: bench_data.Split, seed: int, device: str) -> dict[str, Any]:
    """Fit one classifier and look at the test set once."""
    from gesda import SdAClassifier

    x = np.concatenate([data.train, data.validation])
    y = np.concatenate([data.train_labels, data.validation_labels])
    if key["labels"] != "all":
        y = hide_labels(y, int(key["labels"]), seed)
    model = SdAClassifier(**chosen, device=device)
    begin = time.perf_counter()
    model.fit(x, y)
    seconds = time.perf_counter() - begin
    progress = curve(model.history_)
    return {
        "key": key,
        "seed": seed,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": common.git_commit(),
        "seconds": seconds,
        "test_error": 100 * (1 - float(model.score(data.test, data.test_labels))),
        "validation_error": min(progress["validation_error"], default=math.nan),
        "curve": progress,
    }


def table(results: list[dict[str, Any]]) -> str:
    """Mean and spread over the seeds, per setting, arm, labels and parameters."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        shared = {name: value for name, value in result["key"]["parameters"].items() if name != "random_state"}
        groups.setdefault(str(result["key"] | {"parameters": shared}), []).append(result)
    rows = []
    for group in groups.values():
        key = group[0]["key"]
        mean, spread = common.mean_and_spread([result["test_error"] for result in group])
        held = [result["validation_error"] for result in group if result["validation_error"] is not None]
        chosen = key["parameters"]
        rates = f"{common.show(chosen['pretrain_learning_rate'])} / {common.show(chosen['learning_rate_init'])}"
        validation = common.mean_and_spread(held)[0]
        head = [key["setting"], key["arm"], key["labels"], rates]
        rows.append([*head, len(group), mean, spread, validation])
    header = [
        "setting",
        "pretraining",
        "labels",
        "rates",
        "runs",
        "test error %",
        "sd",
        "validation error %",
    ]
    return common.markdown_table(header, rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--settings", nargs="+", choices=sorted(SETTINGS), default=["vincent"])
    parser.add_argument("--schedule", nargs="+", choices=ARMS, default=["crosspre", "sequential", "none"])
    parser.add_argument("--labels", nargs="+", default=["all"], metavar="N", help="all, or a number: 100 1000 3000")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--stagger", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--pretrain-epochs", type=int)
    parser.add_argument("--pretrain-learning-rate", type=float)
    parser.add_argument("--learning-rate-init", type=float)
    parser.add_argument("--max-iter", type=int)
    parser.add_argument("--dropout", type=float)
    parser.add_argument("--train-rows", type=int, help="use only so many of the 60,000 training images")
    parser.add_argument(
        "--search",
        nargs=2,
        metavar=("PRETRAIN_RATES", "RATES"),
        help="try all pairs of these comma-separated learning rates with one seed, compare by VALIDATION error",
    )


def planned(arguments: argparse.Namespace) -> list[tuple[str, str, str, int, dict[str, Any]]]:
    """All runs that were asked for, seeds outermost, so that an early end leaves complete comparisons."""
    seeds = range(arguments.first_seed, arguments.first_seed + (1 if arguments.search else arguments.seeds))
    pairs: list[tuple[float | None, float | None]] = [(None, None)]
    if arguments.search:
        first, second = ([float(rate) for rate in text.split(",")] for text in arguments.search)
        pairs = list(itertools.product(first, second))
    runs = []
    for seed, setting, labels, arm, (low, high) in itertools.product(
        seeds, arguments.settings, arguments.labels, arguments.schedule, pairs
    ):
        chosen = parameters(setting, arm, labels, seed, arguments)
        if low is not None:
            chosen |= {"pretrain_learning_rate": low, "learning_rate_init": high}
        runs.append((setting, arm, labels, seed, chosen))
    return runs


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = common.argument_parser(BENCHMARK, __doc__)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        data = bench_data.mnist()
    except bench_data.DataMissing as reason:
        print(f"Skipped: {reason}.")
        return
    rows = arguments.train_rows or (600 if arguments.quick else 60000)
    if rows < 60000:
        data = bench_data.reduced(data, rows * 5 // 6)
    if arguments.quick:
        arguments.seeds = min(arguments.seeds, 1)
    path: Path | None = common.output_path(BENCHMARK, arguments)
    fresh = path is None or not path.exists()
    document = common.new_document(BENCHMARK, arguments) if fresh else common.read_json(path)  # type: ignore[arg-type]
    done = [result["key"] for result in document["results"]]
    runs = planned(arguments)
    mine = []
    for number, (setting, arm, labels, seed, chosen) in enumerate(runs, 1):
        chosen["n_jobs"] = arguments.threads
        key = run_key(chosen, setting, arm, labels, rows)
        mine.append(key)
        if key in done:
            common.log(f"[{number}/{len(runs)}] {setting}, {arm}, {labels} labels, seed {seed}: already there")
            continue
        result = run(key, chosen, data, seed, arguments.engine)
        document["results"].append(result)
        if path is not None:
            common.write_json(path, document)
        common.log(
            f"[{number}/{len(runs)}] {setting}, {arm}, {labels} labels, seed {seed}: "
            f"test error {result['test_error']:.2f} %, {result['seconds']:.0f} s"
        )
    print("\n".join(common.environment_report()))
    shown = common.plain([result for result in document["results"] if not arguments.search or result["key"] in mine])
    if arguments.search:
        shown.sort(key=lambda result: math.inf if result["validation_error"] is None else result["validation_error"])
    print(table(shown))
    if path is not None:
        print(f"Results: {path}")


if __name__ == "__main__":
    sys.exit(main())
