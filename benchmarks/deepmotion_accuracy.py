"""DeepMotion's accuracy on public gesture sets, all by one set of defaults; what pretraining and rejection give.

Parts:

    sets       the default splits: GestureRecognizer, the same without pretraining, and the baselines
    few        5 labelled examples a class, all other training sequences unlabelled: with and without pretraining
    codes      the same labels given to a linear classifier of the encodings that came without any label
    rejection  uWave with two gestures held out of training: area under the ROC curve of the familiarity

A run's test set is looked at once. Each finished run is written at once, and a run that the result file has already is
not repeated. Sets that are absent (GESDA_DATA, ../shared/data) are skipped with a message.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import bench_data
import common  # first: frees OpenBLAS before NumPy loads
import deepmotion_baselines as baselines
import numpy as np
from numpy.typing import NDArray

BENCHMARK = "deepmotion_accuracy"
PARTS = ("sets", "few", "codes", "rejection")
FEW = 5
#: Pairs of gestures that are held out in turn: every gesture of uWave once.
HELD_OUT = ((1, 2), (3, 4), (5, 6), (7, 8))
FEW_SETS = ("uWave", "uWave X", "UTD-MHAD inertial", "UTD-MHAD skeleton")
WITH, WITHOUT = "DeepMotion", "DeepMotion, no pretraining"

Split = tuple[Any, Any]


# ---- data -----------------------------------------------------------------------------------------
def _uwave(axes: str) -> Split:
    from gesda.deepmotion import load_motion

    folder = bench_data.find("uwave_ucr")
    train, test = (
        load_motion([folder / f"UWaveGestureLibrary{axis}_{part}.tsv.gz" for axis in axes])
        for part in ("TRAIN", "TEST")
    )
    return train, test


def _pair(name: str, stem: str, suffix: str) -> Split:
    from gesda.deepmotion import load_motion

    folder = bench_data.find(name)
    return load_motion(folder / f"{stem}_TRAIN{suffix}"), load_motion(folder / f"{stem}_TEST{suffix}")


def _utd(kind: str) -> Split:
    from gesda.deepmotion import load_motion, read_utd_mhad

    folder = bench_data.find("utd_mhad")
    if kind == "both":
        data = read_utd_mhad(folder / "Inertial.zip", folder / "Skeleton.zip")
    else:
        data = load_motion(folder / f"{kind.capitalize()}.zip")
    odd = data.groups % 2 == 1
    return data[odd], data[~odd]


SETS: dict[str, Callable[[], Split]] = {
    "uWave": lambda: _uwave("XYZ"),
    "uWave X": lambda: _uwave("X"),
    "uWave Y": lambda: _uwave("Y"),
    "uWave Z": lambda: _uwave("Z"),
    "uWave UEA": lambda: _pair("uwave_uea", "UWaveGestureLibrary", ".arff.gz"),
    "BasicMotions": lambda: _pair("basicmotions", "BasicMotions", ".ts.gz"),
    "GunPoint": lambda: _pair("gunpoint", "GunPoint", ".tsv.gz"),
    "UTD-MHAD inertial": lambda: _utd("inertial"),
    "UTD-MHAD skeleton": lambda: _utd("skeleton"),
    "UTD-MHAD both": lambda: _utd("both"),
}


# ---- runs -----------------------------------------------------------------------------------------
def recognizer(method: str, seed: int, arguments: argparse.Namespace) -> Any:
    """The product with its defaults; the other arm differs in the pretraining alone."""
    from gesda.deepmotion import GestureRecognizer

    options: dict[str, Any] = {"random_state": seed, "n_jobs": arguments.threads}
    if arguments.quick:
        options |= {"pretrain_epochs": 1, "max_iter": 1, "n_members": 2}
    if method == WITHOUT:
        options["pretrain_epochs"] = 0
    return GestureRecognizer(**options)


def accuracy(data: Split, method: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train on the training split, look at the test split once."""
    train, test = data
    begin = time.perf_counter()
    if method in baselines.BASELINES:
        predicted = baselines.BASELINES[method](train.sequences, train.labels, test.sequences, seed)
        return {"accuracy": float((predicted == test.labels).mean()), "seconds": time.perf_counter() - begin}
    model = recognizer(method, seed, arguments).fit(train)
    seconds = time.perf_counter() - begin
    known = model.familiarity(test) >= model.threshold_
    return {
        "accuracy": float((model.predict(test) == test.labels).mean()),
        "accepted": float(known.mean()),
        "normalization": model.normalization_,
        "seconds": seconds,
    }


def few_labels(data: Split, method: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The same with few labels; which ones depends on the seed alone."""
    train, test = data
    labels = np.full(len(train), -1, dtype=np.int64)
    labelled = draw_labels(train, seed)
    labels[labelled] = train.labels[labelled]
    begin = time.perf_counter()
    model = recognizer(method, seed, arguments).fit(train, labels)
    seconds = time.perf_counter() - begin
    return {"accuracy": float((model.predict(test) == test.labels).mean()), "seconds": seconds}


def codes(data: Split, method: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Encode by networks that have seen no label, and read the encodings linearly."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = data
    labelled = draw_labels(train, seed)
    begin = time.perf_counter()
    model = recognizer(method, seed, arguments).set_params(n_members=1).fit(list(train.sequences))
    reader = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-2, 4, 13)))
    reader.fit(model.embed(train[labelled]), train.labels[labelled])
    seconds = time.perf_counter() - begin
    return {"accuracy": float(reader.score(model.embed(test), test.labels)), "seconds": seconds}


def draw_labels(train: Any, seed: int) -> NDArray[np.intp]:
    """Choose a few examples of each class; by the seed alone."""
    rng = np.random.default_rng([FEW, seed])
    chosen = [rng.permutation(np.flatnonzero(train.labels == label))[:FEW] for label in train.classes]
    return np.concatenate(chosen)


def rejection(data: Split, held_out: tuple[int, ...], seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train without some gestures; tell them from the others by familiarity."""
    from sklearn.metrics import roc_auc_score

    train, test = data
    begin = time.perf_counter()
    model = recognizer(WITH, seed, arguments).fit(train[~np.isin(train.labels, held_out)])
    seconds = time.perf_counter() - begin
    known: NDArray[np.bool_] = ~np.isin(test.labels, held_out)
    familiarity = model.familiarity(test)
    accepted = familiarity >= model.threshold_
    return {
        "auroc": float(roc_auc_score(known, familiarity)),
        "known_accepted": float(accepted[known].mean()),
        "unknown_rejected": float((~accepted[~known]).mean()),
        "accuracy": float((model.predict(test) == test.labels)[known].mean()),
        "seconds": seconds,
    }


def planned(arguments: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Callable[[Split], dict[str, Any]]]]:
    """Keys and runs, seeds outermost, so that an early end leaves complete comparisons."""
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        if "sets" in arguments.part:
            for name in arguments.only or SETS:
                for method in (WITH, WITHOUT, *baselines.BASELINES):
                    if method in baselines.DETERMINISTIC and seed:
                        continue
                    key = {"part": "sets", "set": name, "method": method, "seed": seed}
                    yield key, lambda data, m=method, s=seed: accuracy(data, m, s, arguments)
        for part, work in (("few", few_labels), ("codes", codes)):
            for name in (arguments.only or FEW_SETS) if part in arguments.part else ():
                for method in (WITH, WITHOUT):
                    key = {"part": part, "set": name, "method": method, "seed": seed}
                    yield key, lambda data, w=work, m=method, s=seed: w(data, m, s, arguments)
        if "rejection" in arguments.part:
            for pair in HELD_OUT:
                key = {"part": "rejection", "set": "uWave", "method": f"without {pair[0]}, {pair[1]}", "seed": seed}
                yield key, lambda data, p=pair, s=seed: rejection(data, p, s, arguments)


# ---- tables ---------------------------------------------------------------------------------------
def _of(results: list[dict[str, Any]], measure: str, **wanted: Any) -> list[float]:
    return [
        float(result[measure])
        for result in results
        if all(result["key"][name] == value for name, value in wanted.items())
    ]


def _mean(values: list[float]) -> str:
    if not values:
        return "-"
    mean, spread = common.mean_and_spread(values)
    return f"{mean:.4f} ± {spread:.4f}" if len(values) > 1 else f"{mean:.4f}"


def sets_table(results: list[dict[str, Any]]) -> str:
    """Accuracy on the default splits, mean and spread over the seeds."""
    rows = []
    for name in SETS:
        found = [_mean(_of(results, "accuracy", part="sets", set=name, method=m)) for m in (WITH, WITHOUT)]
        found += [_mean(_of(results, "accuracy", part="sets", set=name, method=m)) for m in baselines.BASELINES]
        published = ", ".join(f"{who} {value:.3f}" for who, value in baselines.PUBLISHED.get(name, {}).items())
        if set(found) != {"-"}:
            rows.append([name, *found, published or "-"])
    return common.markdown_table(["set", WITH, "no pretraining", *baselines.BASELINES, "published"], rows)


def few_table(results: list[dict[str, Any]]) -> str:
    """Accuracy with few labels, of the recogniser and of a linear classifier of encodings."""
    rows = []
    for name in SETS:
        row = [name]
        for part in ("few", "codes"):
            each = [_of(results, "accuracy", part=part, set=name, method=m) for m in (WITH, WITHOUT)]
            gains = [a - b for a, b in zip(*each, strict=False)]
            row += [*map(_mean, each), f"{100 * common.mean_and_spread(gains)[0]:+.1f}" if gains else "-"]
        if set(row[1:]) != {"-"}:
            rows.append(row)
    return common.markdown_table(
        [
            "set",
            "recogniser",
            "no pretraining",
            "gain, points",
            "encodings, read linearly",
            "no pretraining",
            "gain, points",
        ],
        rows,
    )


def rejection_table(results: list[dict[str, Any]]) -> str:
    """Area under the curve for each pair held out, and over all."""
    rows = []
    methods = [f"without {pair[0]}, {pair[1]}" for pair in HELD_OUT]
    measures = ("auroc", "known_accepted", "unknown_rejected")
    for method in methods:
        values = [_of(results, m, part="rejection", method=method) for m in measures]
        if values[0]:
            rows.append([method, *map(_mean, values)])
    if rows:
        rows.append(["all", *(_mean(_of(results, m, part="rejection")) for m in measures)])
    return common.markdown_table(["uWave", "AUROC", "known accepted", "unknown rejected"], rows)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = common.argument_parser(BENCHMARK, __doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only", nargs="+", choices=list(SETS), metavar="SET", help="these sets only")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.seeds, arguments.only = 1, arguments.only or ["GunPoint"]
        arguments.part = [part for part in arguments.part if part != "rejection"]
    path = common.output_path(BENCHMARK, arguments)
    fresh = path is None or not path.exists()
    document = common.new_document(BENCHMARK, arguments) if fresh else common.read_json(path)  # type: ignore[arg-type]
    done = [result["key"] for result in document["results"]]
    loaded: dict[str, Split] = {}
    missing: set[str] = set()
    for key, run in planned(arguments):
        if key in done or key["set"] in missing:
            continue
        try:
            if key["set"] not in loaded:
                loaded[key["set"]] = SETS[key["set"]]()
        except bench_data.DataMissing as reason:
            missing.add(key["set"])
            print(f"Skipped {key['set']}: {reason}.")
            continue
        date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        result = {"key": key, "date": date, "commit": common.git_commit(), **run(loaded[key["set"]])}
        document["results"].append(result)
        if path is not None:
            common.write_json(path, document)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in result.items() if isinstance(value, float))
        common.log(f"{key['part']}: {key['set']}, {key['method']}, seed {key['seed']}: {shown}")
    print("\n".join(common.environment_report()))
    for table in (sets_table, few_table, rejection_table):
        print(f"\n{table(document['results'])}")
    if path is not None:
        print(f"Results: {path}")


if __name__ == "__main__":
    sys.exit(main())
