"""Five labels a digit: what pretraining on unlabelled images is worth.

Scikit-learn's digits (1797 images of 8 x 8 pixels) are split into training and test images. Of the training
images five of each digit keep their label; all of them serve for pretraining. The same network is trained
twice, with and without pretraining, for several splits. Written are the model of the first split, its
learning curve and the filters of its first layer.

    python examples/digits.py [--output FOLDER] [--splits N] [--device auto|cpu|reference]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from gesda import SdAClassifier
from gesda.callbacks import Progress
from gesda.plotting import plot_filters, plot_learning_curve

LABELS_PER_DIGIT = 5
TEST_IMAGES = 500


def keep_few_labels(y: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The labels of a few images of each digit; -1, unlabelled, for all others."""
    rng = np.random.default_rng(seed)
    few = np.full_like(y, -1)
    for digit in range(10):
        kept = rng.permutation(np.flatnonzero(y == digit))[:LABELS_PER_DIGIT]
        few[kept] = digit
    return few


def compare(split: int, pretrain_epochs: int, device: str) -> tuple[float, float, SdAClassifier]:
    """Test accuracy without and with pretraining for one split of the images, and the pretrained model."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16.0).astype(np.float32)  # pixels are 0 to 16; in [0, 1] the reconstruction loss is cross-entropy
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=TEST_IMAGES, stratify=y, random_state=split)
    y_few = keep_few_labels(y_train, seed=split)
    options = {"max_iter": 200, "batch_size": 20, "device": device, "random_state": split}
    sizes = (256, 128, 64)
    plain = SdAClassifier(sizes, pretrain_epochs=0, **options).fit(X_train, y_few)
    pretrained = SdAClassifier(sizes, pretrain_epochs=pretrain_epochs, callbacks=[Progress(every=20)], **options)
    pretrained.fit(X_train, y_few)
    return plain.score(X_test, y_test), pretrained.score(X_test, y_test), pretrained


def draw(model: SdAClassifier, folder: Path) -> None:
    """Write the learning curve and the first layer's filters as pictures."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    plot_learning_curve(model, ax=figure.subplots(1, 2))
    figure.savefig(folder / "learning_curve.png", dpi=120)
    figure = Figure(figsize=(6, 6.3), layout="constrained")
    plot_filters(model, shape=(8, 8), n=100, ax=figure.subplots())
    figure.savefig(folder / "filters.png", dpi=120)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What pretraining is worth when few images have labels.")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder to write to (demo-output)")
    parser.add_argument("--splits", type=int, default=3, help="splits into training and test images (3)")
    parser.add_argument("--pretrain-epochs", type=int, default=40, help="epochs of pretraining of each layer (40)")
    parser.add_argument("--device", default="auto", help="auto, cpu or reference (auto)")
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)

    print(
        f"digits: {1797 - TEST_IMAGES} training images, {10 * LABELS_PER_DIGIT} of them labelled, "
        f"{TEST_IMAGES} test images; network 64-256-128-64-10",
        flush=True,
    )
    print(
        "pretraining: an upper layer's loss may rise while the layers under it still learn, for its input changes",
        flush=True,
    )
    started = time.perf_counter()
    accuracies = []
    for split in range(arguments.splits):
        plain, pretrained, model = compare(split, arguments.pretrain_epochs, arguments.device)
        accuracies.append((plain, pretrained))
        print(
            f"split {split + 1}: test accuracy {plain:.3f} without pretraining, {pretrained:.3f} with it",
            flush=True,
        )
        if split == 0:
            model.save(arguments.output / "model.gesda")
            draw(model, arguments.output)
    mean, spread = np.mean(accuracies, axis=0), np.std(accuracies, axis=0)
    print(f"mean of {arguments.splits} splits (standard deviation), {time.perf_counter() - started:.0f} s in all:")
    print(f"    without pretraining  {100 * mean[0]:.1f} % ({100 * spread[0]:.1f})")
    print(f"    with pretraining     {100 * mean[1]:.1f} % ({100 * spread[1]:.1f})")
    print(
        f"written: {', '.join(str(arguments.output / n) for n in ('model.gesda', 'learning_curve.png', 'filters.png'))}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
