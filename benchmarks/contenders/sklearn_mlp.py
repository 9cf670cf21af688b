"""scikit-learn as it comes: MLPRegressor to reconstruct, MLPClassifier to classify, BernoulliRBM.

The regressor is untied, has a linear output and squared error; its products cost the same as a tied
step's. `partial_fit` gets an epoch at once and cuts the minibatches itself, which is its fastest way.
The RBM makes one step of persistent contrastive divergence a minibatch.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import BernoulliRBM, MLPClassifier, MLPRegressor

from contenders.problem import Run, make_problem


def make_mlp(case: dict[str, Any]) -> dict[str, Run]:
    """One epoch of partial_fit."""
    problem = make_problem(case)
    rng = np.random.default_rng(case["seed"])
    chosen = problem.order.reshape(-1)
    x = problem.x[chosen]
    options: dict[str, Any] = {
        "hidden_layer_sizes": tuple(case["layers"][1:]),
        "activation": "logistic",
        "solver": "sgd",
        "alpha": 0.0,
        "batch_size": case["batch"],
        "learning_rate_init": case["rate"],
        "momentum": case["momentum"] if case["optimizer"] == "momentum" else 0.0,
        "nesterovs_momentum": False,
        "random_state": case["seed"],
    }
    warnings.simplefilter("ignore", ConvergenceWarning)
    if case["kind"] == "finetune":
        classifier = MLPClassifier(**options)
        labels, classes = problem.labels[chosen], np.arange(case["n_outputs"])

        def run(epochs: int) -> None:
            for _ in range(epochs):
                classifier.partial_fit(x, labels, classes=classes)

        return {"partial_fit": Run(run, lambda: classifier.coefs_)}
    regressor = MLPRegressor(**options)

    def run_pretraining(epochs: int) -> None:
        for _ in range(epochs):
            noisy = x * (rng.random(x.shape, dtype=np.float32) >= case["noise"])
            regressor.partial_fit(noisy, x)

    return {"partial_fit": Run(run_pretraining, lambda: regressor.coefs_)}


def make_rbm(case: dict[str, Any]) -> dict[str, Run]:
    """One partial_fit a minibatch."""
    problem = make_problem(case)
    machine = BernoulliRBM(
        n_components=case["layers"][1],
        learning_rate=case["rate"],
        batch_size=case["batch"],
        random_state=case["seed"],
    )

    def run(epochs: int) -> None:
        for _ in range(epochs):
            for rows in problem.order:
                machine.partial_fit(problem.x[rows])

    return {"partial_fit": Run(run, lambda: [machine.components_.T])}
