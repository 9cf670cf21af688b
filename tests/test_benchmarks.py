"""The benchmarks' helpers work and every script's arguments parse, so that the scripts do not rot.

Nothing here measures; the only training is of networks of a few hundred weights.
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SCRIPTS = (
    "step_speed", "finetune_speed", "memory", "mnist_accuracy", "crosspre_vs_sequential", "deepmotion_speed",
    "deepmotion_accuracy",
)  # fmt: skip
PEERS = {"numpy": "scipy", "torch_hand": "torch", "torch_autograd": "torch", "jax": "jax"}

if not BENCHMARKS.is_dir():
    pytest.skip("the benchmarks are not part of this distribution", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def benchmark_folder():
    """The scripts import each other by bare name, as they do when run."""
    pins = {name: os.environ.get(name) for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))
    os.environ.update({name: value for name, value in pins.items() if value is not None})


@pytest.fixture(scope="module")
def common(benchmark_folder):
    return importlib.import_module("common")


@pytest.fixture
def rng():
    seed = int(np.random.default_rng().integers(2**31))
    print(f"seed {seed}")  # shown when the test fails
    return np.random.default_rng(seed)


# ---- statistics -----------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_quantiles_are_numpys(common, rng, count):
    values = rng.random(count).tolist()
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        assert common.quantile(values, fraction) == pytest.approx(np.quantile(values, fraction))
    found = common.summary(values)
    assert found["median"] == pytest.approx(np.median(values))
    assert found["rounds"] == values


def test_no_values_have_no_median(common):
    assert math.isnan(common.summary([])["median"])


def test_spread_is_the_sample_standard_deviation(common, rng):
    values = rng.random(6).tolist()
    mean, spread = common.mean_and_spread(values)
    assert mean == pytest.approx(statistics.mean(values))
    assert spread == pytest.approx(statistics.stdev(values))
    assert math.isnan(common.mean_and_spread([1.0])[1])


def test_ratios_are_taken_within_rounds(common, rng):
    clock = rng.uniform(0.5, 2.0, 9)  # what a round does to both
    ratio = common.ratio_per_round((3.0 * clock).tolist(), clock.tolist())
    assert ratio["lower_quartile"] == pytest.approx(3.0) and ratio["upper_quartile"] == pytest.approx(3.0)
    with pytest.raises(ValueError, match="rounds"):
        common.ratio_per_round([1.0], [1.0, 2.0])


# ---- tables and files -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.012345, "0.0123"), (1.0, "1.00"), (98.76, "98.8"), (12345.6, "12346"), (0.0, "0"), (7, "7"), (None, "-")],
)
def test_figures_have_three_significant_digits(common, value, shown):
    assert common.show(value) == shown


def test_tables_are_markdown_with_one_width_per_column(common):
    lines = common.markdown_table(["net", "ms"], [["784x1000", 0.5], ["8x4", math.nan]]).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert set(lines[1]) <= set("|-:") and lines[1].count(":") == 1
    assert lines[3].split("|")[2].strip() == "-"
    with pytest.raises(ValueError, match="2 cells"):
        common.markdown_table(["net"], [["784", 1.0]])


def test_result_files_survive_a_round_trip_as_strict_json(common, tmp_path):
    document = common.new_document("trial", {"quick": True, "output": tmp_path / "hidden"})
    document["results"].append({"ms": np.float32(0.5), "peak": math.nan, "raw": (1, 2)})
    path = tmp_path / "deep" / "trial.json"
    common.write_json(path, document)
    assert "NaN" not in path.read_text(encoding="utf-8")
    read = common.read_json(path)
    assert read["results"] == [{"ms": 0.5, "peak": None, "raw": [1, 2]}]
    assert "output" not in read["arguments"]
    assert [file.name for file in path.parent.iterdir()] == ["trial.json"]


@pytest.mark.parametrize("key", ["schema", "date", "machine", "results", "environment"])
def test_incomplete_result_files_are_refused(common, key):
    document = common.new_document("trial", {"quick": True})
    common.check_document(document)
    del document[key]
    with pytest.raises(ValueError, match=key):
        common.check_document(document)


def test_a_failed_write_leaves_the_old_file(common, tmp_path):
    path = tmp_path / "trial.json"
    document = common.new_document("trial", {"quick": True})
    common.write_json(path, document)
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError)):
        common.write_json(path, document | {"results": [object()]})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_committed_results_are_result_files(common):
    for path in (BENCHMARKS / "results").glob("*.json"):
        document = common.read_json(path)
        assert not document["quick"], f"{path.name} is of a quick run, which measures nothing"


def test_importing_common_unpins_openblas_and_says_so():
    code = "import common, os; print(*common.environment_report()); assert not set(common.PINS) & set(os.environ)"
    environment = os.environ | {"OPENBLAS_CORETYPE": "HASWELL", "PYTHONPATH": str(BENCHMARKS)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "unset OPENBLAS_CORETYPE=HASWELL" in done.stdout


# ---- scripts --------------------------------------------------------------------------------------
@pytest.mark.parametrize("script", [*SCRIPTS, "gpu_step", "run_all"])
def test_every_script_explains_itself(benchmark_folder, script, capsys):
    module = importlib.import_module(script)
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    assert end.value.code == 0
    assert "--quick" in capsys.readouterr().out


def test_run_all_covers_every_script_with_arguments_it_has(benchmark_folder):
    plan = importlib.import_module("run_all").PLAN
    assert {script for script, _, _ in plan} == {f"{script}.py" for script in SCRIPTS}
    accuracy = importlib.import_module("mnist_accuracy")
    parser = importlib.import_module("common").argument_parser("trial", None)
    accuracy.add_arguments(parser)
    for script, options, _ in plan:
        if script == "mnist_accuracy.py":
            assert accuracy.planned(parser.parse_args(list(options)))


@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs a C++ compiler")
def test_the_gpu_benchmark_runs_on_the_emulator(benchmark_folder, capsys):
    importlib.import_module("gpu_step").main(["--quick", "--emulated", "--precisions", "fp32"])
    assert "40-30-20" in capsys.readouterr().out


def test_settings_name_parameters_of_the_estimator(benchmark_folder):
    from gesda import SdAClassifier

    known = set(SdAClassifier().get_params())
    for name, setting in importlib.import_module("mnist_accuracy").SETTINGS.items():
        assert set(setting) <= known, f"setting {name!r}: {set(setting) - known}"


def test_few_labels_are_balanced_and_depend_on_the_seed(benchmark_folder, rng):
    accuracy = importlib.import_module("mnist_accuracy")
    labels = rng.permutation(np.repeat(np.arange(10), 40))
    first, again, other = (accuracy.hide_labels(labels, 100, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    shown = first >= 0
    assert np.array_equal(first[shown], labels[shown])
    assert np.bincount(first[shown]).tolist() == [10] * 10


def test_time_to_the_same_error_takes_an_error_that_all_reach(benchmark_folder):
    module = importlib.import_module("crosspre_vs_sequential")
    runs = [
        {"arm": "a", "seed": 0, "seconds": [1.0, 2.0, 3.0], "validation_error": [5.0, 3.0, 1.0]},
        {"arm": "b", "seed": 0, "seconds": [4.0, 5.0], "validation_error": [4.0, 3.0]},
        {"arm": "b", "seed": 0, "seconds": [2.5], "validation_error": [3.5]},
    ]
    found = module.time_to_target(runs)
    assert found["a"]["targets"] == [3.0]
    assert found["a"]["seconds"]["median"] == 2.0 and found["b"]["seconds"]["median"] == 5.0


def test_the_allowance_counts_parameters_state_and_minibatches(benchmark_folder):
    memory = importlib.import_module("memory")
    found = memory.allowance(memory.case([3, 2], 5, "finetune", optimizer="adam", n_outputs=4))
    encoder, head, visible = 3 * 2 + 2, 2 * 4 + 4, 3
    assert found["parameters"] == 4 * (encoder + visible + head)
    assert found["optimiser_state"] == 2 * 4 * (encoder + head)
    assert found["two_minibatches"] == 2 * 4 * 5 * (3 + 2 + 4)


# ---- contenders -----------------------------------------------------------------------------------
def small_case(kind, optimizer):
    problem = importlib.import_module("contenders.problem")
    layers = [30, 20] if kind == "pretrain" else [30, 20, 15]
    options = {"noise": 0.0, "rows": 64, "n_batches": 10, "rate": 0.1, "engine": "reference"}
    seed = int(np.random.default_rng().integers(2**31))
    print(f"seed {seed}")
    return problem.make_case(kind, layers, 8, optimizer=optimizer, seed=seed, **options) | {"threads": 1}


def build(name, case):
    module, function = importlib.import_module("contenders").CONTENDERS[name]
    return getattr(importlib.import_module(f"contenders.{module}"), function)(case)


@pytest.mark.parametrize(
    ("kind", "optimizer"), [("pretrain", "sgd"), ("finetune", "sgd"), ("finetune", "momentum")], ids="-".join
)
@pytest.mark.parametrize("peer", PEERS)
def test_peers_do_the_same_arithmetic(benchmark_folder, peer, kind, optimizer):
    pytest.importorskip(PEERS[peer], reason=f"the peer {peer} needs {PEERS[peer]}")
    case = small_case(kind, optimizer)
    (reference,) = build("gesda", case).values()
    start = [weights.copy() for weights in reference.weights()]
    reference(2)
    expected = reference.weights()
    assert max(abs(a - b).max() for a, b in zip(start, expected, strict=True)) > 1e-2
    for name, run in build(peer, case).items():
        run(2)
        for found, wanted in zip(run.weights(), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=2e-5, err_msg=f"{peer}, {name}")


def test_masks_have_the_asked_level(benchmark_folder):
    """With noise the peers' weights leave the noise-free ones; a mask that does nothing would not."""
    case = small_case("pretrain", "sgd")
    (clean, _), (noisy, _) = (build("numpy", case | {"noise": level}).values() for level in (0.0, 0.5))
    clean(1)
    noisy(1)
    assert abs(clean.weights()[0] - noisy.weights()[0]).max() > 1e-3


@pytest.mark.parametrize(("kind", "expected"), [("pretrain", 10 * 7 * 6), ("finetune", 4 * 7 * 6 + 6 * 7 * 20)])
def test_flop_counts(benchmark_folder, kind, expected):
    problem = importlib.import_module("contenders.problem")
    case = problem.make_case(kind, [3, 2], 7, n_outputs=10)
    assert problem.flop_per_step(case) == expected


def test_rounds_interleave_and_drop_who_fails(benchmark_folder, monkeypatch):
    workers = importlib.import_module("workers")
    calls = []

    class Fake:
        failure = None
        idle_seconds = 0.0

        def __init__(self, name, fails_after=99):
            self.name, self.left = name, fails_after

        def cpu_seconds(self):
            return 0.0

        def ask(self, timeout, **request):
            calls.append((self.name, request["op"]))
            self.left -= 1
            if self.left < 0:
                raise workers.Unavailable("gave up")
            return {"seconds": 1.0, "steps": 1}

    found = workers.interleave([Fake("a"), Fake("b", 1), Fake("c")], 3, 0.0, settle=0.0, extra=("fma_peak",))
    assert {name: len(answers) for name, answers in found.items()} == {"a": 3, "c": 3, "fma_peak": 3}
    first = [name for name, op in calls[:3] if op == "run"]
    assert first == ["a", "b", "c"]


def test_a_worker_answers_over_its_pipe(benchmark_folder):
    workers = importlib.import_module("workers")
    worker = workers.Worker("gesda", 1)
    try:
        case = small_case("pretrain", "sgd") | {"n_batches": 2, "try_seconds": 0.01}
        assert worker.ask(120, op="prepare", case=case)["variant"] == "fp32"
        answer = worker.ask(60, op="run", seconds=0.0)
        assert answer["steps"] == 2 and answer["seconds"] > 0
        with pytest.raises(workers.Unavailable, match="unknown request"):
            worker.ask(60, op="nonsense")
    finally:
        worker.close()
    with pytest.raises(workers.Unavailable):
        worker.ask(60, op="run", seconds=0.0)


def test_documents_of_the_tables_are_json(benchmark_folder):
    speed = importlib.import_module("speed")
    problem = importlib.import_module("contenders.problem")
    common = importlib.import_module("common")
    times = {"gesda": [1.0, 1.1], "jax": [2.0, 2.2]}
    contenders = {}
    for name, values in times.items():
        ratio = common.ratio_per_round(values, times["gesda"])
        contenders[name] = {"ms_per_step": common.summary(values), "gflops": 1.0, "times_gesda": ratio}
    entry = {"case": problem.make_case("pretrain", [784, 1000], 32), "contenders": contenders}
    assert speed.best_peer(entry) == ("jax", pytest.approx(2.0))
    text = speed.tables([entry], ["gesda", "jax", "numpy"])
    assert "784x1000" in text and "NumPy" not in text
    json.dumps(common.plain(entry), allow_nan=False)


def test_the_issues_shapes_are_all_measured(benchmark_folder):
    step = importlib.import_module("step_speed")
    wanted = set(
        itertools.product(((784, 1000), (1000, 1000), (500, 2000), (945, 256), (256, 128)), (32, 100, 256, 1024))
    )
    assert wanted <= set(itertools.product(step.SHAPES, step.BATCHES))
