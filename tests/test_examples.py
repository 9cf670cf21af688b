"""The examples run, print what they promise and write what they name."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import gesda

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_digits_compares_and_writes_model_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = load_example("digits")
    assert digits.main(["--output", str(tmp_path / "out"), "--splits", "1", "--pretrain-epochs", "3"]) == 0
    out = capsys.readouterr().out
    accuracies = [float(number) for number in re.findall(r"with(?:out)? pretraining\s+([\d.]+) %", out)]
    assert len(accuracies) == 2 and all(50 < accuracy <= 100 for accuracy in accuracies)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["filters.png", "learning_curve.png", "model.gesda"]
    for picture in (tmp_path / "out").glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    model = gesda.load(tmp_path / "out" / "model.gesda")
    assert model.predict(np.zeros((1, 64), np.float32)).shape == (1,)


def test_digits_keeps_as_many_labels_as_it_says() -> None:
    digits = load_example("digits")
    y = np.repeat(np.arange(10), 30)
    few = digits.keep_few_labels(y, seed=3)
    labelled = few != -1
    np.testing.assert_array_equal(few[labelled], y[labelled])
    assert np.bincount(few[labelled]).tolist() == [digits.LABELS_PER_DIGIT] * 10
