"""MNIST on a GPU through the estimator: pretraining, then fine-tuning to a test error, seconds of each.

784-1000-1000-1000, 15 epochs of pretraining in minibatches of 20, the size of the Theano tutorial's; then fine-tuning
with the setting "modern" of mnist_accuracy.py until the test error is 1.3 %. 50,000 images train. The test set is
looked at after every epoch, for the tutorial's figure is a test error too; the time that takes is left out.

The tutorial's own times, on one core of a Xeon E5430 at 2.66 GHz: pretraining 585.01 minutes, fine-tuning 444.2
(deeplearning.net/tutorial/SdA.html). Other hardware, so no comparison of programs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import bench_data
import common  # first: frees OpenBLAS before NumPy loads
import gpu_common
import numpy as np
from mnist_accuracy import SETTINGS, curve

BENCHMARK = "gpu_mnist"
TUTORIAL_MINUTES = {"pretraining": 585.01, "fine-tuning": 444.2}
MODERN = SETTINGS["modern"]
BATCH = 20


def parameters(arguments: Any) -> dict[str, dict[str, Any]]:
    """Parameters of SdAClassifier for both parts: the setting, and minibatches of 20 at as much learning a sample."""
    shared = {name: value for name, value in MODERN.items() if name not in ("validation_fraction", "early_stopping")}
    shared |= {"device": arguments.device, "precision": arguments.precision, "n_jobs": arguments.threads}
    shared |= {"random_state": arguments.seed}
    if arguments.quick:
        shared |= {"hidden_layer_sizes": (64, 48)}
    pretraining = {
        "batch_size": BATCH,
        "pretrain_epochs": 1 if arguments.quick else 15,
        "pretrain_learning_rate": MODERN["pretrain_learning_rate"] * BATCH / MODERN["batch_size"],
        "max_iter": 0,
    }
    tuning = {"warm_start": True, "pretrain_epochs": 0} | ({"max_iter": 3} if arguments.quick else {})
    return {"pretraining": shared | pretraining, "fine-tuning": shared | tuning}


class UntilTestError:
    """A callback: stops fine-tuning at a test error; keeps the errors, and the time that looking took."""

    def __init__(self, data: bench_data.Split, target: float) -> None:
        self._data, self._target = data, target
        self.errors: list[float] = []
        self.spent = 0.0

    def on_epoch_end(self, run: Any, record: dict[str, Any]) -> bool:
        """Look at the test set after an epoch of fine-tuning."""
        if record["phase"] != "finetune":
            return False
        begin = time.perf_counter()
        wrong = run.engine.predict(self._data.test).argmax(1) != self._data.test_labels
        self.errors.append(100 * float(np.mean(wrong)))
        self.spent += time.perf_counter() - begin
        common.log(f"fine-tuning, epoch {len(self.errors)}: {self.errors[-1]:.2f} %")
        return self.errors[-1] <= self._target


def train(data: bench_data.Split, arguments: Any, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Both parts; seconds of each. What is known is kept after each part."""
    from gesda import SdAClassifier

    chosen, watch = parameters(arguments), UntilTestError(data, arguments.target)
    result: dict[str, Any] = {"rows": len(data.train), "target": arguments.target}
    # Compilation of the kernels and the device's start are once a machine: outside.
    SdAClassifier(**chosen["pretraining"] | {"pretrain_epochs": 1, "max_iter": 1}).fit(
        data.train[:200], data.train_labels[:200]
    )
    model = SdAClassifier(**chosen["pretraining"])
    for part, options in chosen.items():
        model.set_params(**options, callbacks=[watch])
        begin = time.perf_counter()
        model.fit(data.train, data.train_labels)
        result[part] = {"seconds": time.perf_counter() - begin - watch.spent, "parameters": options}
        progress = curve(model.history_)
        result |= {
            "device": model.device_,
            "test_errors": watch.errors,
            "reached": bool(watch.errors) and watch.errors[-1] <= arguments.target,
            "reconstruction_loss": progress["reconstruction_loss"],
            "engine_seconds": {name: progress[name] for name in ("pretrain_seconds", "finetune_seconds")},
        }
        common.log(f"{part}: {result[part]['seconds']:.1f} s")
        keep(result)
    return result


def table(result: dict[str, Any]) -> str:
    """Seconds, and how often the tutorial's go into them."""
    rows: list[list[Any]] = []
    for part, minutes in TUTORIAL_MINUTES.items():
        seconds = result[part]["seconds"]
        rows.append([part, seconds, minutes * 60, minutes * 60 / seconds])
    return common.markdown_table(["part", "GeSdA s", "Theano tutorial s", "times faster"], rows)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = common.argument_parser(BENCHMARK, __doc__)
    parser.add_argument("--device", default="cuda", help="of the estimator; cpu tries the plumbing")
    parser.add_argument("--precision", default="tf32")
    parser.add_argument("--target", type=float, default=1.3, help="test error in %% (default 1.3)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    try:
        data = bench_data.mnist()
    except bench_data.DataMissing as reason:
        print(f"Skipped: {reason}.")
        return
    if arguments.quick:
        data = bench_data.reduced(data, 500)
    document = gpu_common.gpu_document(BENCHMARK, arguments, gpu=arguments.device == "cuda")
    document["tutorial_minutes"] = TUTORIAL_MINUTES
    path = common.output_path(BENCHMARK, arguments)

    def keep(result: dict[str, Any]) -> None:
        document["results"] = [result]
        if path is not None:
            common.write_json(path, document)

    result = train(data, arguments, keep)
    print(table(result))
    ending = "reached" if result["reached"] else "NOT reached"
    print(f"Test error {result['test_errors'][-1]:.2f} % after {len(result['test_errors'])} epochs of fine-tuning; "
          f"{arguments.target:g} % {ending}.")  # fmt: skip


if __name__ == "__main__":
    main()
