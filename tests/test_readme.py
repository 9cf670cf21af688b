"""README.md keeps its word: its examples and commands run, its links lead somewhere, its tables are the files'."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import gesda
from gesda.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BEFORE, _HEADING, _SECTION = README.partition("## On a GPU\n")
ON_A_GPU, _, _AFTER = _SECTION.partition("\n## ")
_BEFORE, _, _SECTION = _BEFORE.partition("## DeepMotion: gestures\n")
DEEPMOTION, _, ON_A_BOARD = _SECTION.partition("## On a board, without Python\n")
BLOCKS = _BLOCK.findall(_BEFORE + _AFTER)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples write into the current folder."""
    monkeypatch.chdir(tmp_path)


# ---- examples and commands ------------------------------------------------------------------------
def test_the_python_example_is_short_and_learns_the_digits(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (text for language, text in BLOCKS if language == "python")
    assert sum(bool(line) for line in code.splitlines()) <= 15
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    (accuracy,) = re.findall(r"accuracy ([\d.]+)", capsys.readouterr().out)
    assert 0.93 < float(accuracy) < 1
    assert names["codes"].shape == (450, 128) and names["codes"].dtype == np.float32


def test_the_examples_with_results_give_these_results() -> None:
    (text,) = (text for language, text in BLOCKS if language == "pycon")
    test = doctest.DocTestParser().get_doctest(text, {}, "README.md", "README.md", 0)
    assert len(test.examples) > 5
    found = doctest.DocTestRunner().run(test)
    assert found.failed == 0


def test_the_command_lines_run(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for language, text in BLOCKS if not language for line in text.splitlines() if line[:6] == "gesda "]
    assert len(lines) == 3
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert Path("codes.npy").exists()
    (accuracy,) = re.findall(r"accuracy\D*([\d.]+)", capsys.readouterr().out)[-1:]
    assert float(accuracy) > 0.9


def test_deepmotions_command_lines_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("numba", reason="DeepMotion needs the deepmotion extra")
    ((_, text),) = _BLOCK.findall(DEEPMOTION)
    install, serve, train, stream = (shlex.split(line, comments=True) for line in text.splitlines())
    assert install == ["pip", "install", ".[deepmotion]"]
    assert main([*serve[1:], "--help"]) == 0
    assert main([*train[1:], "--members", "1", "--epochs", "1"]) == 0, capsys.readouterr().err
    assert stream[-2:] == ["<", "samples.csv"]
    samples = np.random.default_rng().normal(0, 0.01, (300, 3)).round(4)
    (tmp_path / "samples.csv").write_text("\n".join(",".join(map(str, row)) for row in samples))
    with open(tmp_path / "samples.csv") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert main(stream[1:-2]) == 0, capsys.readouterr().err


def test_the_export_for_a_board_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ((_, text),) = _BLOCK.findall(ON_A_BOARD)
    (line,) = (line for line in text.splitlines() if line.startswith("gesda "))
    assert main(["train", "digits", "--output", "digits.gesda", "--pretrain-epochs", "1", "--epochs", "2"]) == 0
    assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert (tmp_path / "small.gesda").exists() and "after" in capsys.readouterr().out


def test_what_a_gpu_is_asked_for_is_understood(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    blocks = _BLOCK.findall(ON_A_GPU)
    lines = [line for language, text in blocks if not language for line in text.splitlines() if line[:6] == "gesda "]
    assert len(lines) == 2
    for line in lines:
        assert main(shlex.split(line, comments=True)[1:]) == 1
        assert "device='cuda' needs CuPy: pip install 'gesda[cuda]'" in capsys.readouterr().err
    (code,) = (text for language, text in blocks if language == "python")
    names: dict[str, Any] = {"gesda": gesda}
    exec(compile(code, "README.md", "exec"), names)
    with pytest.raises(RuntimeError, match="device='cuda' needs CuPy"):
        names["model"].fit(np.eye(4), [0, 1, 0, 1])


@pytest.mark.parametrize("module", ["gesda", "gesda.cli"])
def test_python_m_is_the_same(module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gesda", "--version"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(module, run_name="__main__")
    assert stop.value.code == 0 and capsys.readouterr().out == f"gesda {gesda.__version__}\n"


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^make (\w+)", "".join(text for _, text in BLOCKS), re.MULTILINE))
    assert targets == {"demo", "test"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_links_lead_to_files_and_headings() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    headings = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", README, re.M)}
    assert links
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings
        elif not link.startswith("benchmarks/") or (ROOT / "benchmarks").is_dir():  # left out of the sdist
            assert (ROOT / link).exists(), link


# ---- tables ---------------------------------------------------------------------------------------
@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script that fills the tables; importing it must not change the environment of the other tests."""
    if not (ROOT / "benchmarks").is_dir():
        pytest.skip("the benchmarks are not part of this distribution")
    pins = {name: os.environ.get(name) for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("fill_readme")
    os.environ.update({name: value for name, value in pins.items() if value is not None})


def write(folder: Path, benchmark: str, results: list[dict[str, Any]], **arguments: Any) -> None:
    common = sys.modules["common"]
    document = common.new_document(benchmark, {"quick": False, "threads": 3, **arguments})
    common.write_json(folder / f"{benchmark}.json", document | {"results": results})


def place(name: str) -> str:
    return f"before\n<!-- table: {name} -->\nold\n<!-- end table: {name} -->\nafter\n"


def speed_entry(mine: float, theirs: float) -> dict[str, Any]:
    return {
        "case": {"layers": [784, 1000], "batch": 32, "optimizer": "sgd"},
        "contenders": {
            "gesda": {"ms_per_step": {"median": mine}, "gflops": 1.0, "fraction_of_peak": {"median": 0.875}},
            "jax": {"ms_per_step": {"median": theirs}, "gflops": 1.0, "times_gesda": {"median": theirs / mine}},
        },
    }


def test_the_tables_are_those_of_the_committed_files(fill: ModuleType) -> None:
    assert fill.filled(README) == README, "run: python benchmarks/fill_readme.py"
    assert set(fill.MARK.findall(README)) == set(fill.TABLES)


@pytest.mark.parametrize("name", ["step_speed", "finetune_speed", "memory", "mnist_accuracy", "crosspre_error"])
def test_what_was_not_measured_says_so_and_how_to_measure_it(fill: ModuleType, tmp_path: Path, name: str) -> None:
    text = fill.filled(place(name), tmp_path)
    assert "Not measured yet: `python benchmarks/" in text and "old" not in text
    assert text.startswith("before\n<!--") and text.endswith("-->\nafter\n")
    assert fill.filled(text, tmp_path) == text


def test_a_table_shows_the_files_figures_machine_and_command(fill: ModuleType, tmp_path: Path) -> None:
    mine, theirs = np.random.default_rng().uniform(0.1, 9, 2)
    write(tmp_path, "step_speed", [speed_entry(mine, theirs)], only=["784x1000"])
    show = fill.common.show
    lines = fill.filled(place("step_speed"), tmp_path).splitlines()
    header, _, row = lines[2:5]
    assert [c.strip() for c in header.split("|")[1:-1]] == [
        "net",
        "batch",
        "GeSdA ms",
        "% of FMA peak",
        "JAX jit + scan",
    ]
    assert [c.strip() for c in row.split("|")[1:-1]] == ["784x1000", "32", show(mine), "87.5", show(theirs / mine)]
    caption = lines[6]
    assert "`python benchmarks/step_speed.py --only 784x1000`" in caption and ", 3 threads" in caption
    assert fill.common.machine_info()["cpu"] in caption and "benchmarks/results/step_speed.json" in caption


def test_accuracy_names_the_settings_of_all_its_runs(fill: ModuleType, tmp_path: Path) -> None:
    errors = np.random.default_rng().uniform(1, 9, 2).tolist()
    parameters = {"pretrain_learning_rate": 0.02, "learning_rate_init": 0.05}
    results = [
        {
            "key": {"setting": "vincent", "arm": arm, "labels": "all", "rows": 60000, "parameters": parameters},
            "test_error": error,
            "validation_error": error,
            "seconds": 60.0,
        }
        for arm, error in zip(("crosspre", "none"), errors, strict=True)
    ]
    write(tmp_path, "mnist_accuracy", results)
    text = fill.filled(place("mnist_accuracy"), tmp_path)
    assert "--settings vincent --schedule crosspre none --labels all" in text
    assert all(fill.common.show(error) in text for error in errors)


def test_crosspre_has_a_table_of_speed_and_one_of_error(fill: ModuleType, tmp_path: Path) -> None:
    us = {name: {"median": 5.0} for name in ("sequential", "encoding the cache once", "crosspre")}
    speed = {"us_per_step": us | {"crosspre, noisy handoff": {"median": 4.0}}}
    speed |= {"sequential_over_crosspre": {"median": 0.95}, "sequential_over_noisy": {"median": 1.25}}
    entry: dict[str, Any] = {"name": "mnist 784-500", "batch": 20, "runs": [], "time_to_target": {}, "speed": speed}
    write(tmp_path, "crosspre_vs_sequential", [entry])
    assert "0.95" in fill.filled(place("crosspre_speed"), tmp_path).replace("0.950", "0.95")
    assert "Not measured yet" in fill.filled(place("crosspre_error"), tmp_path)
    run = {
        "arm": "sequential",
        "epochs": 5,
        "test_error": 2.5,
        "validation_error": [3.0, 2.75],
        "pretrain_seconds": 7.0,
    }
    write(tmp_path, "crosspre_vs_sequential", [entry | {"runs": [run]}])
    text = fill.filled(place("crosspre_error"), tmp_path)
    assert "2.75" in text and "2.50" in text


def test_memory_shows_the_allowance_and_each_contender(fill: ModuleType, tmp_path: Path) -> None:
    memory = sys.modules["memory"]
    job = memory.CASES[0]
    allowed = memory.allowance(job)
    taken = {"gesda": {"median": sum(allowed.values()) * 0.5}}
    write(tmp_path, "memory", [{"case": job, "allowance": allowed, "bytes": taken}])
    assert "| 784-1000-1000-1000 | pretrain |" in fill.filled(place("memory"), tmp_path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("<!-- table: step_speed -->\n", "lacks its counterpart"),
        ("<!-- end table: step_speed -->\n<!-- table: step_speed -->\n", "lacks its counterpart"),
        (place("speed_of_light"), "no table 'speed_of_light'"),
    ],
)
def test_marks_that_do_not_fit_are_refused(fill: ModuleType, tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        fill.filled(text, tmp_path)


def test_quick_runs_make_no_table(fill: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, "step_speed", [speed_entry(1.0, 2.0)], quick=True)
    with pytest.raises(ValueError, match="measures nothing"):
        fill.filled(place("step_speed"), tmp_path)
