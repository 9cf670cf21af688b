"""Pictures: what is drawn is what was learned."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from gesda.plotting import plot_filters, plot_learning_curve


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def history(layers: int = 2, epochs: int = 5, finetune: int = 6, scores: bool = True) -> list[dict[str, Any]]:
    rng = np.random.default_rng()
    records: list[dict[str, Any]] = [
        {"phase": "pretrain", "epoch": e + k, "layer": k, "layer_epoch": e, "loss": float(rng.random() + 10)}
        for k in range(layers)
        for e in range(epochs)
    ]
    for e in range(finetune):
        score = float(rng.random()) if scores else None
        records.append({"phase": "finetune", "epoch": e, "loss": float(rng.random()), "validation_score": score})
    return records


def stack(n_features: int = 12, hidden: tuple[int, ...] = (7, 5), head: bool = True) -> SimpleNamespace:
    rng = np.random.default_rng()
    sizes = (n_features, *hidden, *((3,) if head else ()))
    weights = [rng.normal(size=pair).astype(np.float32) for pair in itertools.pairwise(sizes)]
    return SimpleNamespace(hidden_layer_sizes=hidden, coefs_=weights)


def test_each_layers_losses_are_drawn_against_their_epochs() -> None:
    records = history(layers=3)
    axes = plot_learning_curve(records)
    assert len(axes) == 2
    lines = axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["layer 0", "layer 1", "layer 2"]
    for k, line in enumerate(lines):
        own = [r for r in records if r.get("layer") == k]
        assert list(line.get_xdata()) == [r["epoch"] + 1 for r in own]
        assert list(line.get_ydata()) == [r["loss"] for r in own]


def test_axes_are_labelled() -> None:
    pretraining, finetuning = plot_learning_curve(history())
    assert pretraining.get_xlabel() == finetuning.get_xlabel() == "epoch"
    assert pretraining.get_ylabel() == "reconstruction loss per sample"
    assert finetuning.get_ylabel() == "training loss per sample"


def test_best_validation_score_is_marked() -> None:
    records = history()
    figure = plot_learning_curve(records)[1].figure
    right = figure.axes[-1]
    best = max(r["validation_score"] for r in records if r["phase"] == "finetune")
    assert right.get_ylabel() == "validation score"
    assert list(right.get_lines()[-1].get_ydata()) == [best]


@pytest.mark.parametrize(("layers", "finetune", "title"), [(2, 0, "Pretraining"), (0, 4, "Fine-tuning")])
def test_one_phase_alone_takes_one_axes(layers: int, finetune: int, title: str) -> None:
    axis = Figure().subplots()
    assert plot_learning_curve(history(layers, finetune=finetune, scores=False), ax=axis) == [axis]
    assert axis.get_title() == title


def test_an_estimators_history_is_taken() -> None:
    records = history()
    assert len(plot_learning_curve(SimpleNamespace(history_=records))) == 2


def test_wrong_number_of_axes_and_empty_history_are_refused() -> None:
    with pytest.raises(ValueError, match="2 axes are needed"):
        plot_learning_curve(history(), ax=Figure().subplots())
    with pytest.raises(ValueError, match="fit the estimator first"):
        plot_learning_curve([])


def test_filters_are_the_weights_of_the_strongest_units() -> None:
    model = stack()
    axis = plot_filters(model, (3, 4), n=1)
    image = np.ma.getdata(axis.images[0].get_array())
    strongest = model.coefs_[0][:, np.argmax(np.linalg.norm(model.coefs_[0], axis=0))].reshape(3, 4)
    np.testing.assert_allclose(image, strongest / np.abs(strongest).max(), rtol=1e-6)


def test_filters_of_upper_layers_are_shown_through_those_below() -> None:
    model = stack()
    image = np.ma.getdata(plot_filters(model, (3, 4), layer=1, n=1).images[0].get_array())
    product = model.coefs_[0] @ model.coefs_[1]
    strongest = product[:, np.argmax(np.linalg.norm(product, axis=0))].reshape(3, 4)
    np.testing.assert_allclose(image, strongest / np.abs(strongest).max(), rtol=1e-5)


def test_dead_units_are_drawn_blank() -> None:
    model = stack(hidden=(2,))
    model.coefs_[0][:] = 0
    image = np.ma.getdata(plot_filters(model, (3, 4)).images[0].get_array())
    assert set(np.unique(image[~np.isnan(image)])) == {0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (5, 5)}, "25 pixels, the estimator 12 features"),
        ({"layer": 2}, "layer must lie in \\[0, 1\\]"),
        ({"layer": -1}, "layer must lie"),
        ({"n": 0}, "n must be at least 1"),
    ],
)
def test_impossible_filters_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_filters(stack(), **{"shape": (3, 4), **options})


def test_pictures_are_written_without_a_display(tmp_path: Path) -> None:
    figure = Figure(figsize=(8, 3), layout="constrained")
    plot_learning_curve(history(), ax=figure.subplots(1, 2))
    figure.savefig(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_matplotlib_is_imported_on_use_only_and_its_absence_is_told() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; import gesda.plotting as p\n"
        "try: p.plot_learning_curve([{'phase': 'finetune', 'epoch': 0, 'loss': 1.0}])\n"
        "except ImportError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'gesda[plot]'" in done.stdout
