"""Write small models of every kind for the fuzzers to begin with: ``python cpp/fuzz/seeds.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from gesda import SdAClassifier, SdARegressor, StackedDenoisingAutoencoder
from gesda.deepmotion import GestureRecognizer, make_gestures
from gesda.export import WEIGHTS, save_model

QUICK = {"pretrain_epochs": 1, "random_state": 0, "device": "cpu"}


def main(folder: str) -> None:
    """Write the models, and a recogniser for the streams, ``recognizer.gesda``."""
    models = Path(folder) / "models"
    models.mkdir(parents=True, exist_ok=True)
    X = np.random.default_rng(0).random((12, 3), dtype=np.float32)
    estimators = {
        "stack": StackedDenoisingAutoencoder((2, 2), tied_weights=False, **QUICK).fit(X),
        "classifier": SdAClassifier((2,), max_iter=1, **QUICK).fit(X, np.where(X[:, 0] > 0.5, "a", "b")),
        "regressor": SdARegressor((2,), max_iter=1, **QUICK).fit(X, X[:, 0]),
    }
    for name, model in estimators.items():
        for weights in WEIGHTS:
            save_model(model, models / f"{name}-{weights}.gesda", weights=weights)
    data = make_gestures(2, random_state=0)
    recognizer = GestureRecognizer(n_members=1, hidden_layer_sizes=(4,), pretrain_epochs=1, max_iter=1, random_state=0)
    recognizer.fit(data)
    save_model(recognizer, Path(folder) / "recognizer.gesda")
    save_model(recognizer, models / "recognizer-int8.gesda", weights="int8")


if __name__ == "__main__":
    main(sys.argv[1])
