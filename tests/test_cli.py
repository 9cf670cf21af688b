"""The command line: what it prints where, what it writes, and how it fails."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gesda
from gesda import cli
from gesda.cli import _arguments, _bench, main
from gesda.model_io import read_header, write_tensors

FAST = ["--hidden", "12,6", "--device", "reference", "--pretrain-epochs", "2", "--epochs", "12", "--batch-size", "16"]


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in argv])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out, err


def run_json(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    status, out, err = run(capsys, *argv, "--json")
    assert status == 0, err
    result: dict[str, Any] = json.loads(out)
    return result


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model of each task, trained by the command."""
    folder = tmp_path_factory.mktemp("models")
    for task, data in (("classify", "iris"), ("regress", "diabetes"), ("encode", "wine")):
        path = str(folder / f"{task}.gesda")
        assert main(["train", data, "--task", task, "--output", path, "--quiet", *_for(task)]) == 0
    return {task: folder / f"{task}.gesda" for task in ("classify", "regress", "encode")}


def _for(task: str) -> list[str]:
    if task != "encode":
        return FAST
    at = FAST.index("--epochs")
    return FAST[:at] + FAST[at + 2 :]


# ---- train ----------------------------------------------------------------------------------------
def test_train_writes_a_model_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "train", "iris", "--output", tmp_path / "m", "--test-fraction", "0.3", *FAST)
    model = gesda.load(tmp_path / "m")
    assert isinstance(model, gesda.SdAClassifier)
    assert result["n_samples"] == 105 and result["test"]["n_samples"] == 45
    assert result["epochs"]["pretrain"] == 3 and 1 <= result["epochs"]["finetune"] <= 12
    assert not result["interrupted"]


def test_train_is_reproducible_by_its_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(np.random.default_rng().integers(2**31))
    weights = []
    for name, number in (("a", seed), ("b", seed), ("c", seed + 1)):
        run_json(capsys, "train", "iris", "--output", tmp_path / name, "--seed", number, *FAST)
        weights.append(gesda.load(tmp_path / name).coefs_[0])
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


def test_train_takes_every_option_to_the_estimator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--noise", "swap,none", "--noise-level", "0.1,0", "--schedule", "sequential", "--solver", "adam"]
    options += ["--learning-rate", "0.01", "--dropout", "0.1", "--alpha", "1e-4", "--activation", "tanh"]
    options += ["--set", "tied_weights=true,false", "--set", "probe-size=8", "--validation", "0.25", "--jobs", "1"]
    run_json(capsys, "train", "iris", "--output", tmp_path / "m", *FAST, *options)
    params = gesda.load(tmp_path / "m").get_params()
    assert list(params["noise"]) == ["swap", "none"] and list(params["tied_weights"]) == [True, False]
    assert params["schedule"] == "sequential" and params["probe_size"] == 8 and params["n_jobs"] == 1
    assert params["early_stopping"] is True and params["validation_fraction"] == 0.25
    assert params["learning_rate_init"] == 0.01 and params["callbacks"] is None


def test_train_reads_named_targets_and_unlabelled_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng()
    rows = [f"{a:.3f},{b:.3f},{'red' if a > b else 'blue'}" for a, b in rng.random((60, 2))]
    (tmp_path / "d.csv").write_text("\n".join(["a,b,colour", *rows]))
    np.save(tmp_path / "more.npy", rng.random((30, 2)))
    run_json(
        capsys, "train", tmp_path / "d.csv", "--target", "colour", "-o", tmp_path / "m", "--set", "epsilon=1e-7", *FAST
    )
    assert gesda.load(tmp_path / "m").classes_.tolist() == ["blue", "red"]
    np.savez(tmp_path / "d.npz", X=rng.random((40, 2)), y=rng.integers(2, size=40))
    argv = ["train", tmp_path / "d.npz", "--unlabeled", tmp_path / "more.npy", "-o", tmp_path / "m", *FAST]
    run_json(capsys, *argv)
    argv = ["train", tmp_path / "d.npz", "--task", "encode", "--unlabeled", tmp_path / "more.npy", "-o", tmp_path / "m"]
    run_json(capsys, *argv, *_for("encode"))


def test_train_tests_on_other_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng()
    for name, count in (("a.npz", 50), ("b.npz", 20)):
        np.savez(tmp_path / name, X=rng.random((count, 3)), y=rng.integers(2, size=count))
    argv = ["train", tmp_path / "a.npz", "--test-data", tmp_path / "b.npz", "-o", tmp_path / "m", *FAST]
    assert run_json(capsys, *argv)["test"]["n_samples"] == 20


def test_progress_goes_to_standard_error_and_quiet_is_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = run(capsys, "train", "iris", "-o", tmp_path / "m", *FAST)
    assert "pretrain 1/3: layer 0 loss" in err and "finetune" in err
    assert "pretrain 1/3" not in out and "saved to" in out
    _, _, err = run(capsys, "train", "iris", "-o", tmp_path / "m", "--quiet", *FAST)
    assert "pretrain" not in err


def test_log_holds_one_json_record_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_json(capsys, "train", "iris", "-o", tmp_path / "m", "--log", tmp_path / "log", *FAST)
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(records) == len(gesda.load(tmp_path / "m").history_)


def test_checkpoint_resumes_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", "iris", "-o", tmp_path / "m", "--checkpoint", tmp_path / "c", *FAST]
    run_json(capsys, *argv)
    first = gesda.load(tmp_path / "m").coefs_[0]
    run_json(capsys, *argv, "--resume")
    np.testing.assert_array_equal(gesda.load(tmp_path / "m").coefs_[0], first)


def test_helps_defaults_are_the_estimators() -> None:
    defaults = gesda.SdAClassifier().get_params()
    for _, parameter, default, _, _ in _arguments.TRAINING:
        assert _arguments.literal(default) == defaults[parameter], parameter


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("true", True), ("None", None), ("a,1", ("a", 1)), ("relu", "relu"), ("1e-3", 1e-3)],
)
def test_values_are_read_as_what_they_look_like(text: str, value: Any) -> None:
    assert _arguments.literal(text) == value and type(_arguments.literal(text)) is type(value)


# ---- evaluate, predict, transform -----------------------------------------------------------------
def test_evaluate_tells_what_fits_the_task(models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    scores = run_json(capsys, "evaluate", models["classify"], "iris")
    model, data = gesda.load(models["classify"]), gesda.datasets.load_dataset("iris")
    assert scores["accuracy"] == model.score(data.X, data.y)
    assert scores["reconstruction_error"] == pytest.approx(-model.score_samples(data.X).mean(), rel=1e-5)
    scores = run_json(capsys, "evaluate", models["regress"], "diabetes")
    model, data = gesda.load(models["regress"]), gesda.datasets.load_dataset("diabetes")
    assert scores["r2"] == pytest.approx(model.score(data.X, data.y), rel=1e-5)
    assert set(run_json(capsys, "evaluate", models["encode"], "wine")) >= {"reconstruction_error"}
    _, out, _ = run(capsys, "evaluate", models["classify"], "iris")
    assert "accuracy: " in out


def test_evaluate_leaves_unlabelled_samples_out(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = gesda.datasets.load_dataset("iris")
    assert data.y is not None
    np.savez(tmp_path / "d.npz", X=data.X, y=np.where(np.arange(150) < 100, -1, data.y))
    assert run_json(capsys, "evaluate", models["classify"], tmp_path / "d.npz")["n_labelled"] == 50
    np.savez(tmp_path / "d.npz", X=data.X, y=np.full(150, -1))
    assert "none of the samples has a label" in run(capsys, "evaluate", models["classify"], tmp_path / "d.npz")[2]


def test_evaluate_compares_kinds_of_labels(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = gesda.datasets.load_dataset("iris")
    np.savez(tmp_path / "text.npz", X=data.X, y=np.full(150, "setosa"))
    status, _, err = run(capsys, "evaluate", models["classify"], tmp_path / "text.npz")
    assert status == 1 and "labels are text" in err
    np.savez(tmp_path / "new.npz", X=data.X, y=np.full(150, 7))
    status, out, err = run(capsys, "evaluate", models["classify"], tmp_path / "new.npz")
    assert status == 0 and "no classes of the model (7)" in err and "accuracy: 0" in out
    np.savez(tmp_path / "d.npz", X=np.random.default_rng().random((4, 10)), y=np.array(["a", "b", "c", "d"]))
    assert "the model predicts numbers" in run(capsys, "evaluate", models["regress"], tmp_path / "d.npz")[2]


@pytest.mark.parametrize("suffix", ["csv", "npy"])
def test_predictions_are_the_models(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    model, data = gesda.load(models["classify"]), gesda.datasets.load_dataset("iris")
    path = tmp_path / f"p.{suffix}"
    for options, expected in (([], model.predict(data.X)), (["--proba"], model.predict_proba(data.X))):
        assert run(capsys, "predict", models["classify"], "iris", "-o", path, *options)[0] == 0
        got = np.load(path) if suffix == "npy" else np.loadtxt(path, delimiter=",", skiprows=1, dtype=expected.dtype)
        np.testing.assert_array_equal(got, expected)


def test_predictions_go_to_standard_output(models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "predict", models["classify"], "iris", "--proba")
    assert status == 0 and out.splitlines()[0] == "p_0,p_1,p_2" and len(out.splitlines()) == 151
    values = run_json(capsys, "predict", models["regress"], "diabetes")["values"]
    model, data = gesda.load(models["regress"]), gesda.datasets.load_dataset("diabetes")
    np.testing.assert_allclose(values, model.predict(data.X))


@pytest.mark.parametrize("give", ["encodings", "reconstructions", "scores"])
def test_transform_gives_what_is_asked(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], give: str
) -> None:
    model, data = gesda.load(models["encode"]), gesda.datasets.load_dataset("wine")
    expected = {"encodings": model.transform, "reconstructions": model.reconstruct, "scores": model.score_samples}
    run_json(capsys, "transform", models["encode"], "wine", "--give", give, "-o", tmp_path / "t.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "t.npy"), expected[give](data.X))


def test_transform_by_a_lower_layer(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_json(capsys, "transform", models["encode"], "wine", "--layer", "0", "-o", tmp_path / "t.npy")
    assert result["shape"] == [178, 12]


# ---- info and bench -------------------------------------------------------------------------------
@pytest.mark.parametrize("task", ["classify", "regress", "encode"])
def test_info_describes_a_model(models: dict[str, Path], capsys: pytest.CaptureFixture[str], task: str) -> None:
    result = run_json(capsys, "info", models[task])
    model = gesda.load(models[task])
    assert result["estimator"] == type(model).__name__
    assert [layer["n_hidden"] for layer in result["layers"]] == [12, 6]
    arrays = [*model.coefs_, *model.intercepts_]
    biases = [np.zeros(layer["n_visible"]) for layer in result["layers"]]
    assert result["n_parameters"] == sum(array.size for array in [*arrays, *biases])
    assert [entry["epochs"] for entry in result["history"]["pretrain"]] == [2, 2]
    _, out, _ = run(capsys, "info", models[task])
    assert "-> 12 sigmoid, tied" in out and "parameters: " in out
    assert ("fine-tuning: " in out) == (task != "encode")


def test_info_needs_no_engine(models: dict[str, Path]) -> None:
    code = (
        "import sys; from gesda.cli import main; main(['info', sys.argv[1]]);"
        "print([m for m in sys.modules if m in ('gesda._core', 'gesda.estimators', 'sklearn', 'matplotlib')])"
    )
    done = subprocess.run([sys.executable, "-c", code, models["classify"]], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_info_without_a_file_shows_versions(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "info")
    assert status == 0 and gesda.__version__ in out and "numpy" in out
    assert run_json(capsys, "info")["GeSdA"]["version"] == gesda.__version__


def test_info_of_other_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tensors(tmp_path / "state", {}, {"something": "else"})
    status, _, err = run(capsys, "info", tmp_path / "state")
    assert status == 1 and "not one of a model" in err
    (tmp_path / "junk").write_bytes(os.urandom(100))
    assert run(capsys, "info", tmp_path / "junk")[0] == 1


def test_bench_counts_ten_operations_a_weight_and_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bench, "_EPOCH_SECONDS", 0.001)
    argv = ["bench", "--shapes", "20x10,8x4", "--batch", "4", "--seconds", "0.01", "--device", "reference"]
    rows = run_json(capsys, *argv)["results"]
    assert [(row["n_visible"], row["n_hidden"], row["batch"]) for row in rows] == [(20, 10, 4), (8, 4, 4)]
    for row in rows:
        flop = 10 * row["batch"] * row["n_visible"] * row["n_hidden"]
        assert row["gflops"] == pytest.approx(flop * row["steps_per_second"] / 1e9)
    _, out, _ = run(capsys, *argv)
    assert "GFLOP/s" in out and "reference engine" in out


# ---- failures -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["unknown"],
        ["train"],
        ["train", "iris"],
        ["train", "iris", "-o", "m", "--hidden", "ten"],
        ["train", "iris", "-o", "m", "--hidden", "0"],
        ["train", "iris", "-o", "m", "--validation", "2"],
        ["train", "iris", "-o", "m", "--set", "nothing"],
        ["train", "iris", "-o", "m", "--set", "noise_levle=3"],
        ["train", "iris", "-o", "m", "--set", "random_state=3"],
        ["train", "iris", "-o", "m", "--task", "encode", "--epochs", "3"],
        ["train", "iris", "-o", "m", "--task", "encode", "--validation", "0.1"],
        ["train", "iris", "-o", "m", "--resume"],
        ["train", "iris", "-o", "m", "--test-fraction", "0.1", "--test-data", "iris"],
        ["predict", "m", "iris", "-o", "p.txt"],
        ["transform", "m", "iris", "--give", "scores", "--layer", "1"],
        ["bench", "--shapes", "3"],
        ["bench", "--seconds", "0"],
    ],
)
def test_wrong_usage_exits_with_2_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *argv)
    assert status == 2 and out == "" and "error: " in err
    assert not list(tmp_path.iterdir())


def test_misspelt_parameters_are_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean noise_level?" in run(capsys, "train", "iris", "-o", "m", "--set", "noise_levle=3")[2]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "absent.csv", "-o", "m"], "'absent.csv' cannot be read"),
        (["train", "iris", "-o", "absent/m"], "does not exist; create it first"),
        (["train", "iris", "-o", "."], "is a folder"),
        (["train", "iris", "-o", "m", "--set", "noise_level=7"], "noise_level"),
        (["train", "bars", "-o", "m"], "has no labels"),
        (["train", "text.csv", "--target", "1", "--task", "regress", "-o", "m"], "text, and --task regress"),
        (["train", "one.csv", "--target", "1", "--test-fraction", "0.5", "-o", "m"], "too few"),
        (["train", "iris", "--test-data", "wine", "-o", "m"], "13 features, 'iris' 4"),
        (["train", "text.csv", "--target", "1", "--test-data", "wide.csv", "-o", "m"], "2 features, 'text.csv' 1"),
        (["evaluate", "absent.gesda", "iris"], "'absent.gesda'"),
        (["evaluate", "text.csv", "iris"], "not a GeSdA model"),
    ],
)
def test_users_mistakes_exit_with_1_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.csv").write_text("1,a\n2,b\n")
    (tmp_path / "one.csv").write_text("1,2\n")
    (tmp_path / "wide.csv").write_text("1,a,2\n2,b,3\n")
    before = sorted(p.name for p in tmp_path.iterdir())
    status, out, err = run(capsys, *argv)
    assert status == 1 and out == "" and message in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_wrong_features_come_with_a_hint(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for width, hint in ((5, "name it with --target"), (3, "taken for the label"), (9, "of the kind")):
        np.save(tmp_path / "x.npy", np.zeros((2, width)))
        status, _, err = run(capsys, "predict", models["classify"], tmp_path / "x.npy")
        assert status == 1 and hint in err


def test_models_that_cannot_predict_say_so(models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "predict", models["encode"], "wine")
    assert status == 1 and "use 'gesda transform'" in err
    status, _, err = run(capsys, "predict", models["regress"], "diabetes", "--proba")
    assert status == 2 and "needs a classifier" in err


def test_running_out_of_memory_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cli._common, "load_dataset", fail)
    status, _, err = run(capsys, "train", "iris", "-o", "m")
    assert status == 1 and "out of memory" in err


def test_help_shows_examples_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["train"], ["evaluate"], ["predict"], ["transform"], ["info"], ["bench"]):
        status, out, _ = run(capsys, *command, "--help")
        assert status == 0 and "examples:" in out and "  gesda " in out
    status, out, _ = run(capsys, "--version")
    assert status == 0 and out.strip() == f"gesda {gesda.__version__}"


# ---- as a process ---------------------------------------------------------------------------------
def command(*argv: object) -> list[str]:
    return [sys.executable, "-m", "gesda.cli", *map(str, argv)]


def test_a_closed_pipe_ends_quietly(models: dict[str, Path]) -> None:
    data = Path(models["classify"]).with_name("many.npy")
    np.save(data, np.random.default_rng().random((20000, 4)))
    process = subprocess.Popen(
        command("predict", models["classify"], data, "--proba"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert err == b""


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_ctrl_c_saves_the_model_so_far(tmp_path: Path, phase: str) -> None:
    slow = ["--hidden", "64", "--device", "reference", "--set", "tol=0", "--set", "n_iter_no_change=100000"]
    slow += ["--pretrain-epochs", "100000" if phase == "pretrain" else "1", "--epochs", "100000"]
    process = subprocess.Popen(
        command("train", "digits", "-o", tmp_path / "m", "--json", *slow),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"{phase} 2/".encode()):
            break
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - started < 20
    assert b"the model trained so far is saved" in err and b"Traceback" not in err
    assert (b"not trained yet" in err) == (phase == "pretrain")
    assert json.loads(out)["interrupted"] is True
    model = gesda.load(tmp_path / "m")
    assert model.history_[-1]["phase"] == phase
    assert np.isfinite(model.transform(np.zeros((2, 64), np.float32))).all()


def test_ctrl_c_before_training_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli._common, "load_dataset", interrupt)
    status, _, err = run(capsys, "train", "iris", "-o", tmp_path / "m")
    assert status == 130 and "interrupted" in err and not list(tmp_path.iterdir())


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        command("train", "iris", "-o", tmp_path / "m", *FAST), stdout=subprocess.DEVNULL, stderr=slave
    )
    os.close(slave)
    shown = io.BytesIO()
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown.write(piece)
    os.close(master)
    assert process.wait(60) == 0
    assert b"pretrain |" in shown.getvalue() and b"finetune |" in shown.getvalue()


def test_a_failed_training_leaves_the_old_model(models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = models["classify"].read_bytes()
    status, _, _ = run(capsys, "train", "iris", "-o", models["classify"], "--set", "noise_level=9")
    assert status == 1 and models["classify"].read_bytes() == before
    assert read_header(models["classify"])[1]["estimator"] == "SdAClassifier"


# ---- warmup ---------------------------------------------------------------------------------------
@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A GPU: the reference engine on a device without arithmetic."""
    from gesda.engine.cuda import engine, gpus
    from gesda.engine.reference import ReferenceEngine

    class Gpu:
        name = "a card"

    monkeypatch.setattr(gpus, "CupyDevice", lambda precision, index, limit: Gpu())
    monkeypatch.setattr(engine, "CudaEngine", lambda spec, device, **options: ReferenceEngine(spec))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_warmup_checks_a_gpu_and_keeps_that(capsys: pytest.CaptureFixture[str], gpu: None, tmp_path: Path) -> None:
    result = run_json(capsys, "warmup", "--precision", "fp32,tf32")
    assert [(row["device"], row["precision"]) for row in result["results"]] == [("a card", "fp32"), ("a card", "tf32")]
    assert set(result["results"][0]["differences"]) == {"panels", "tiles", "fine-tuning"}
    assert len(json.loads((tmp_path / "gesda" / "gpu.json").read_text())) == 2
    status, out, _ = run(capsys, "warmup")
    assert status == 0 and out.startswith("a card, fp32: compiled and checked in ")


def test_warmup_without_a_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    status, _, err = run(capsys, "warmup")
    assert status == 1 and "device='cuda' needs CuPy" in err
    status, _, err = run(capsys, "warmup", "--device", "cpu")
    assert status == 1 and "device must be 'cuda', or 'cuda:1' and so on; got 'cpu'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--precision", "bf16"), "expected precisions such as fp32,tf32"),
        (("--targets", "87"), "expected targets such as sm_75,sm_87, or all"),
        (("--output", "somewhere"), "--output goes with --targets"),
    ],
)
def test_warmup_used_wrongly(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    status, _, err = run(capsys, "warmup", *arguments)
    assert status == 2 and message in err


def test_warmup_compiles_for_other_machines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from gesda.engine.cuda import compile as ahead

    asked = []

    def compile_source(source: str, options: tuple[str, ...]) -> tuple[bytes, str]:
        asked.append(options[-1])
        return b"machine code", ""

    monkeypatch.setattr(ahead, "compile_source", compile_source)
    result = run_json(capsys, "warmup", "--targets", "sm_75,sm_87", "--precision", "fp32,tf32", "--output", tmp_path)
    # TF32 is not for sm_75.
    assert result["files"] == 3 * len(ahead.AHEAD) == len(list(tmp_path.iterdir()))
    assert result["bytes"] == 12 * result["files"] and result["folder"] == str(tmp_path)
    assert set(asked) == {"--gpu-architecture=sm_75", "--gpu-architecture=sm_87"}
    result = run_json(capsys, "warmup", "--targets", "all", "--output", tmp_path)
    assert result["files"] == len(ahead.TARGETS) * len(ahead.AHEAD)
