"""Pictures of a training and of what it learned. Needs Matplotlib, which is imported on first use.

Both functions draw on axes that are given or make their own, change no global setting and show no window,
so they work in notebooks, in scripts and on machines without a display.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def plot_learning_curve(estimator_or_history: Any, ax: Axes | Sequence[Axes] | None = None) -> list[Axes]:
    """Draw loss against epoch: pretraining, one line for each layer, then fine-tuning with its validation score.

    Parameters
    ----------
    estimator_or_history : estimator or list of dict
        A fitted estimator, or its ``history_``.
    ax : Axes or sequence of Axes, optional
        One for each phase in the history; new ones, side by side, if not given.

    Returns
    -------
    list of Axes
        One for each phase, pretraining first.

    Raises
    ------
    ValueError
        When the history is empty, or the number of axes is not that of the phases.
    ImportError
        Without Matplotlib.

    Examples
    --------
    >>> record = {"phase": "pretrain", "layer": 0, "loss": 3.0}
    >>> history = [record | {"epoch": epoch, "loss": 3.0 / (epoch + 1)} for epoch in range(5)]
    >>> axes = plot_learning_curve(history)
    >>> axes[0].get_xlabel()
    'epoch'
    """
    history = list(getattr(estimator_or_history, "history_", estimator_or_history))
    phases = [phase for phase in ("pretrain", "finetune") if any(record["phase"] == phase for record in history)]
    if not phases:
        raise ValueError("the history has no epochs to draw; fit the estimator first.")
    axes = _axes(ax, len(phases))
    for phase, axis in zip(phases, axes, strict=True):
        records = [record for record in history if record["phase"] == phase]
        (_draw_pretraining if phase == "pretrain" else _draw_finetuning)(records, axis)
        axis.set_xlabel("epoch")
        axis.margins(x=0.02)
    return axes


def _draw_pretraining(records: list[dict[str, Any]], axis: Axes) -> None:
    layers = sorted({record["layer"] for record in records})
    for layer in layers:
        own = [record for record in records if record["layer"] == layer]
        _draw_line(axis, own, "loss", f"layer {layer}", _COLOURS[layer % len(_COLOURS)])
    axis.set_title("Pretraining")
    axis.set_ylabel("reconstruction loss per sample")
    # Layers of different widths have losses of different sizes.
    if len(layers) > 1:
        _set_log_scale(axis, records)
    _finish(axis)


def _draw_finetuning(records: list[dict[str, Any]], axis: Axes) -> None:
    _draw_line(axis, records, "loss", "training loss", _COLOURS[0])
    axis.set_title("Fine-tuning")
    axis.set_ylabel("training loss per sample")
    _set_log_scale(axis, records)
    scored = [record for record in records if record.get("validation_score") is not None]
    if scored:
        right = axis.twinx()
        _draw_line(right, scored, "validation_score", "validation score", _COLOURS[1])
        best = max(scored, key=lambda record: record["validation_score"])
        right.plot(best["epoch"] + 1, best["validation_score"], "o", color=_COLOURS[1], markersize=6)
        right.annotate(
            f"{best['validation_score']:.4g}",
            (best["epoch"] + 1, best["validation_score"]),
            xytext=(0, -14),
            textcoords="offset points",
            ha="center",
            color=_COLOURS[1],
        )
        right.set_ylabel("validation score")
        right.spines["top"].set_visible(False)
        _finish(axis, extra=right)
    else:
        _finish(axis)


def _set_log_scale(axis: Axes, records: list[dict[str, Any]]) -> None:
    """Scale the losses logarithmically if all are above 0, with plain numbers at 1, 2 and 5."""
    from matplotlib import ticker

    if all(record["loss"] > 0 for record in records):
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(ticker.NullFormatter())


def _draw_line(axis: Axes, records: list[dict[str, Any]], key: str, label: str, colour: str) -> None:
    epochs = [record["epoch"] + 1 for record in records]
    marker = "o" if len(records) <= 30 else None
    axis.plot(epochs, [record[key] for record in records], marker=marker, markersize=3, color=colour, label=label)


def _finish(axis: Axes, extra: Axes | None = None) -> None:
    axis.spines["top"].set_visible(False)
    axis.spines["right"].set_visible(extra is not None)
    axis.grid(True, alpha=0.25, linewidth=0.6)
    axis.locator_params(axis="x", integer=True)
    lines: list[Any] = list(axis.get_lines())
    lines += extra.get_lines()[:1] if extra is not None else []
    if len(lines) > 1:
        # Matplotlib's "best" sees one axes only; between a falling loss and a rising score the right is free.
        place: Any = "best" if extra is None else "center right"
        axis.legend(lines, [line.get_label() for line in lines], frameon=False, loc=place)


def plot_filters(
    estimator: Any,
    shape: tuple[int, int],
    layer: int = 0,
    n: int = 100,
    ax: Axes | None = None,
) -> Axes:
    """Draw what a layer's hidden units look for: their weights as pictures of the input.

    The units with the largest weights come first. Each picture is scaled on its own, blue negative and red
    positive. Filters of upper layers are shown through the layers below, taken as linear.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    shape : tuple of two int
        Height and width of a sample, in pixels; their product is the number of features.
    layer : int, default=0
    n : int, default=100
        Units to show at most.
    ax : Axes, optional
        Where to draw; new ones if not given.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        When the shape does not fit the features, or there is no such layer.
    ImportError
        Without Matplotlib.
    """
    n_layers = int(np.size(estimator.hidden_layer_sizes))
    weights = estimator.coefs_
    height, width = shape
    if height * width != weights[0].shape[0]:
        raise ValueError(f"shape {shape} has {height * width} pixels, the estimator {weights[0].shape[0]} features.")
    if not 0 <= layer < n_layers:
        raise ValueError(f"layer must lie in [0, {n_layers - 1}]; got {layer!r}.")
    if n < 1:
        raise ValueError(f"n must be at least 1; got {n!r}.")
    filters: NDArray[Any] = weights[0]  # (n_features, n_hidden)
    for above in weights[1 : layer + 1]:
        filters = filters @ above
    strongest = np.argsort(-np.linalg.norm(filters, axis=0), kind="stable")[:n]
    mosaic = _mosaic(filters[:, strongest].T.reshape(-1, height, width))
    axis = _axes(ax, 1, size=(5.0, 5.0 * mosaic.shape[0] / mosaic.shape[1] + 0.4))[0]
    axis.imshow(mosaic, cmap="RdBu_r", vmin=-1.0, vmax=1.0, interpolation="nearest")
    axis.set_title(f"Layer {layer}: {len(strongest)} of {filters.shape[1]} filters, {height} x {width} pixels")
    axis.set_axis_off()
    return axis


def _mosaic(pictures: NDArray[Any]) -> NDArray[np.float64]:
    """Lay pictures (n, height, width) side by side, a blank pixel between; each scaled to [-1, 1], blank is NaN."""
    n, height, width = pictures.shape
    columns = math.ceil(math.sqrt(n * height / width))
    rows = math.ceil(n / columns)
    mosaic = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        largest = np.abs(picture).max()
        mosaic[top : top + height, left : left + width] = picture / largest if largest else 0.0
    return mosaic


def _axes(ax: Any, count: int, size: tuple[float, float] | None = None) -> list[Axes]:
    if ax is not None:
        axes = [ax] if hasattr(ax, "plot") else list(np.ravel(np.asarray(ax, dtype=object)))
        if len(axes) != count:
            raise ValueError(f"{count} axes are needed, one for each phase of the training; got {len(axes)}.")
        return axes
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError("plotting needs Matplotlib; install it with: pip install 'gesda[plot]'") from error
    _, made = plt.subplots(1, count, figsize=size or (5.5 * count, 3.8), layout="constrained", squeeze=False)
    return list(made[0])
