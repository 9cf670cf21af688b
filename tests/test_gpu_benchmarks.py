"""The GPU benchmarks work as far as a CPU can tell: the peers do the reference engine's arithmetic, the scripts run.

Nothing here measures; nets have some hundred weights, GeSdA's kernels run on the tests' emulator.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SCRIPTS = ("gpu_speed", "gpu_crosspre", "gpu_mnist", "gpu_ncu")

if not BENCHMARKS.is_dir():
    pytest.skip("the benchmarks are not part of this distribution", allow_module_level=True)

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs a C++ compiler")


@pytest.fixture(scope="module", autouse=True)
def benchmark_folder():
    """The scripts import each other by bare name, as they do when run."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def problem(benchmark_folder):
    return importlib.import_module("gpu_problem")


@pytest.fixture
def seed():
    drawn = int(np.random.default_rng().integers(2**31))
    print(f"seed {drawn}")  # shown when the test fails
    return drawn


@pytest.fixture
def torch():
    """PyTorch on one thread: tiny products gain nothing by more."""
    found = pytest.importorskip("torch", reason="the peer needs PyTorch")
    threads = found.get_num_threads()
    found.set_num_threads(1)
    yield found
    found.set_num_threads(threads)


def small_case(problem, seed, precision="fp32", **changes):
    options = {"where": "cpu", "seed": seed, "noise": 0.0, "rate": 0.1} | changes
    return problem.make_case([30, 20, 15, 10], 8, precision, quick=True, **options)


def trained(problem, trial, case, rounds=2):
    trial.reset()
    for number in range(rounds):
        for order in problem.orders(case, number):
            trial.run(trial.stage(order))
    return trial.layers()


def reference(problem, case, rounds=2):
    gesda = importlib.import_module("gpu_gesda")
    return trained(problem, gesda.forms("auto", case, problem.make_problem(case))["auto"](), case, rounds)


def assert_close(found, expected, atol):
    for layer, wanted in zip(found, expected, strict=True):
        for name, values, target in zip("Wbc", layer, wanted, strict=True):
            np.testing.assert_allclose(values, target, atol=atol, err_msg=name)


# ---- the same training ----------------------------------------------------------------------------
def torch_forms(case, drawn):
    torch_peers, graph = importlib.import_module("gpu_torch"), importlib.import_module("gpu_torch_graph")
    forms = torch_peers.forms("eager", case, drawn)
    for stages in (graph.fused_stages, graph.whole_stages):
        # Uncompiled: a compiler takes half a minute.
        forms[stages.__name__] = lambda stages=stages: torch_peers._graph(stages, None, case, drawn)
    return forms


@pytest.mark.parametrize(("precision", "atol"), [("fp32", 2e-5), ("tf32", 2e-5), ("fp16", 2e-3)])
@pytest.mark.parametrize("form", ["by hand", "autograd", "fused_stages", "whole_stages"])
def test_pytorch_does_the_reference_engines_arithmetic(problem, torch, seed, form, precision, atol):
    case = small_case(problem, seed, precision)
    build = torch_forms(case, problem.make_problem(case))[form]
    if (form, precision) == ("autograd", "fp16"):
        with pytest.raises(problem.Impossible, match="other arithmetic"):
            build()
        return
    expected = reference(problem, case)
    assert abs(expected[0][0] - problem.make_problem(case).layers[0][0]).max() > 1e-2
    assert_close(trained(problem, build(), case), expected, atol)


@pytest.mark.parametrize(("precision", "atol"), [("fp32", 2e-5), ("fp16", 2e-3)])
@pytest.mark.parametrize("form", ["rbg", "rbg, unrolled 4 times", "threefry"])
def test_jax_does_the_reference_engines_arithmetic(problem, seed, form, precision, atol):
    pytest.importorskip("jax", reason="the peer needs JAX")
    case = small_case(problem, seed, precision)
    build = importlib.import_module("gpu_jax").forms("scan", case, problem.make_problem(case))[form]
    assert_close(trained(problem, build(), case), reference(problem, case), atol)


@needs_compiler
def test_gesdas_kernels_do_the_reference_engines_arithmetic(problem, seed):
    case = small_case(problem, seed)
    emulated = case | {"where": "emulated"}
    build = importlib.import_module("gpu_gesda").forms("auto", emulated, problem.make_problem(case))["auto"]
    assert_close(trained(problem, build(), emulated, rounds=1), reference(problem, case, rounds=1), 2e-5)


# ---- forked streams -------------------------------------------------------------------------------
class AnyOrder:
    """Lanes whose work runs in a random order that their events allow, as streams may."""

    def __init__(self, seed, heeds_events=True):
        self._rng, self._heeds = np.random.default_rng(seed), heeds_events
        self._queues = {}

    def begin(self):
        self._queues.clear()

    def submit(self, lane, work):
        self._queues.setdefault(lane, []).append(("work", work))

    def record(self, lane):
        event = {"happened": False}
        self._queues.setdefault(lane, []).append(("record", event))
        return event

    def wait(self, lane, event):
        self._queues.setdefault(lane, []).append(("wait", event))

    def end(self):
        while any(self._queues.values()):
            lanes = [lane for lane, queue in self._queues.items() if queue and self._may_go_on(*queue[0])]
            assert lanes, "the lanes wait for each other"
            kind, what = self._queues[self._rng.choice(lanes)].pop(0)
            if kind == "work":
                what()
            elif kind == "record":
                what["happened"] = True

    def _may_go_on(self, kind, what):
        return kind != "wait" or what["happened"] or not self._heeds


def piped(problem, torch, case, stages, lanes):
    torch_peers, graph = importlib.import_module("gpu_torch"), importlib.import_module("gpu_torch_graph")
    tensors = torch_peers.Tensors(case, problem.make_problem(case))
    pipeline = graph.Pipeline(tensors, getattr(graph, stages), lambda function: function, case["chunk"])
    pipeline.order.copy_(torch.from_numpy(problem.orders(case, 0)[1][: case["chunk"]].astype(np.int64)))
    pipeline.issue(lanes)
    return tensors.arrays()


@pytest.mark.parametrize("stages", ["fused_stages", "whole_stages"])
def test_streams_may_run_in_any_order_that_their_events_allow(problem, torch, seed, stages):
    graph = importlib.import_module("gpu_torch_graph")
    case = small_case(problem, seed, chunk=12, steps=[12, 24])
    expected = piped(problem, torch, case, stages, graph.InOrder())

    def differs(lanes):
        found = piped(problem, torch, case, stages, lanes)
        return not all(
            np.array_equal(a, b) for pair in zip(found, expected, strict=True) for a, b in zip(*pair, strict=True)
        )

    assert not any(differs(AnyOrder([seed, number])) for number in range(10))
    assert any(differs(AnyOrder([seed, number], heeds_events=False)) for number in range(10))


# ---- what makes a comparison fair -----------------------------------------------------------------
def test_equal_trainings_with_other_masks_are_fair_and_another_rate_is_not(problem, torch, seed):
    case = small_case(problem, seed, noise=0.25, steps=[100, 200], rows=256)
    drawn = problem.make_problem(case)

    def losses(case):
        trial = importlib.import_module("gpu_torch").forms("eager", case, drawn)["by hand"]()
        layers = trained(problem, trial, case, rounds=1)
        return problem.reconstruction_losses(layers, drawn.held_out, case["noise"], case["seed"])

    ours = losses(case)
    assert problem.same_training(problem.loss_differences(ours, losses(case | {"seed": seed + 1, "noise": 0.25})))
    assert not problem.same_training(problem.loss_differences(ours, losses(case | {"rate": 0.01})))


def test_a_loss_that_is_not_finite_is_never_fair(problem):
    for broken in (None, float("nan"), float("inf")):
        assert not problem.same_training(problem.loss_differences([1.0, broken], [1.0, 1.0]))


# ---- scripts --------------------------------------------------------------------------------------
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself(script, capsys):
    with pytest.raises(SystemExit) as end:
        importlib.import_module(script).main(["--help"])
    assert end.value.code == 0
    assert "--quick" in capsys.readouterr().out


def test_the_worthiest_pairs_come_first():
    speed, gpu_common = importlib.import_module("gpu_speed"), importlib.import_module("gpu_common")
    contenders = list(speed.CONTENDERS)
    assert set(speed.TITLES) == set(contenders)
    found = speed.pairs(list(gpu_common.NETS), [20, 100], ["fp32", "tf32"], contenders)
    assert len(found) == 3 * 2 * 2 * len(contenders) == len(set(found))
    assert found[0] == (gpu_common.NETS[0], 20, "tf32", "gesda")
    assert found.index((gpu_common.NETS[0], 20, "tf32", "torch_graph")) < 10
    for pair in found:  # the others of a case are set beside GeSdA
        assert found.index((*pair[:3], "gesda")) <= found.index(pair)


def test_a_peer_is_measured_beside_gesda_and_a_missing_one_is_no_failure(torch, tmp_path, capsys):
    path = tmp_path / "speed.json"
    options = ["--cpu", "--precisions", "fp32", "--rounds", "2", "--threads", "1", "--peer-python", sys.executable]
    contenders = ["--contenders", "gesda_tiles", "torch_eager"]
    importlib.import_module("gpu_speed").main([*options, *contenders, "--output", str(path)])
    (entry,) = importlib.import_module("common").read_json(path)["results"]
    assert "PyTorch eager" in capsys.readouterr().out
    assert "no variants" in entry["missing"]["gesda_tiles"]
    peer = entry["contenders"]["torch_eager"]
    assert set(peer["tried"]) == {"by hand", "autograd"} and peer["form"] in peer["tried"]
    assert len(peer["us"]["rounds"]) == len(peer["gesda_us"]["rounds"]) == 2
    assert peer["fair"], peer["loss_difference"]


@needs_compiler
def test_crosspre_and_sequential_run_on_the_emulator(tmp_path):
    path = tmp_path / "crosspre.json"
    options = ["--quick", "--emulated", "--rounds", "1", "--precision", "fp32", "--curves", "layers"]
    importlib.import_module("gpu_crosspre").main([*options, "--output", str(path)])
    document = importlib.import_module("common").read_json(path)
    assert "missing" not in document
    assert [len(point["widths"]) - 1 for point in document["results"]] == [2, 3]


def test_the_batch_where_crosspre_stops_to_pay_is_where_the_curve_crosses_one():
    crossing = importlib.import_module("gpu_crosspre").last_crossing
    assert crossing([10, 100, 1000], [3.0, 1.5, 0.5]) == pytest.approx(10**2.5, rel=1e-3)
    assert crossing([10, 20, 40, 80], [2.0, 0.9, 1.1, 0.9]) == pytest.approx(40 * 2**0.5, rel=1e-3)
    assert crossing([10, 100], [0.9, 0.8]) == 10
    assert crossing([10, 100], [0.9, 1.1]) is None


def test_nsight_computes_launches_are_put_together_by_grid():
    ncu = importlib.import_module("gpu_ncu")
    text = "\n".join(
        [
            "==PROF== Connected to process 1",
            '"ID","Kernel Name","Grid Size","dram__bytes_read.sum","gpu__time_duration.sum","sm__pipe_tensor.x"',
            '"","","","byte","ns","%"',
            '"0","panels","(132, 1, 1)","1,000","5,000","10"',
            '"1","panels","(200, 1, 1)","9","7","n/a"',
            '"2","panels","(132, 1, 1)","3,000","7,000","30"',
        ]
    )
    first, second = ncu.summarised(ncu.parse(text))
    assert (first["grid"], first["launches"]) == ("(132, 1, 1)", 2)
    assert first["median"] == {
        "dram__bytes_read.sum": 2000.0,
        "gpu__time_duration.sum": 6000.0,
        "sm__pipe_tensor.x": 20.0,
    }
    assert second["median"]["sm__pipe_tensor.x"] is None
    assert ncu.summarised(ncu.parse("==ERROR== no permission")) == []


def test_mnist_takes_the_settings_of_the_accuracy_benchmark():
    mnist, accuracy = importlib.import_module("gpu_mnist"), importlib.import_module("mnist_accuracy")
    from types import SimpleNamespace

    from gesda import SdAClassifier

    arguments = SimpleNamespace(device="cpu", precision="fp32", threads=1, seed=0, quick=False)
    chosen = mnist.parameters(arguments)
    known = set(SdAClassifier().get_params())
    assert all(set(options) <= known for options in chosen.values())
    assert chosen["pretraining"]["batch_size"] == 20 and chosen["pretraining"]["pretrain_epochs"] == 15
    for name in ("batch_size", "learning_rate_init", "dropout", "max_iter"):
        assert chosen["fine-tuning"][name] == accuracy.SETTINGS["modern"][name]
