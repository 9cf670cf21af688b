"""Train on real data with whatever gesda is installed. Run as a program, outside of a checkout's root.

cibuildwheel runs it on every wheel it builds; test_wheel.py runs it in an empty environment.
"""

from __future__ import annotations

import importlib.resources
import sys
import tempfile
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gesda


def main() -> None:
    here = Path(gesda.__file__).resolve()
    installed = "site-packages" in here.parts
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16.0, y, random_state=0, stratify=y)
    model = gesda.SdAClassifier((64, 32), pretrain_epochs=5, max_iter=60, batch_size=20, device="cpu", random_state=0)
    accuracy = model.fit(X_train, y_train).score(X_test, y_test)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.safetensors"
        model.save(path)
        assert (gesda.load(path).predict(X_test) == model.predict(X_test)).all(), "a reloaded model predicts otherwise"
    formulas = importlib.resources.files("gesda.kernels").joinpath("math.hpp").read_text(encoding="utf-8")
    assert "Philox" in formulas, "gesda.kernels came without math.hpp"
    print(f"gesda {gesda.__version__} installed={installed} device={model.device_} accuracy={accuracy:.3f}")
    if accuracy < 0.9:
        sys.exit(f"the installed package learns badly: accuracy {accuracy:.3f} on digits, expected 0.9 or more")


if __name__ == "__main__":
    main()
