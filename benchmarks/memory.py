"""Peak resident memory of training beyond the data, beside what it has to hold and beside PyTorch.

Each case runs in a fresh process: load the libraries and the data, train something tiny (which loads
what loads late), give freed memory back, note the resident size, build the network, reset the kernel's
high-water mark, train, and read the mark (VmHWM). For the estimators the mark is reset before they
start, so that all they do counts. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import common  # first: frees OpenBLAS before NumPy loads
from workers import find_peer_python

BENCHMARK = "memory"
MIB = 2.0**20
CONTENDERS = ("gesda", "estimator", "torch")
TITLES = {"gesda": "GeSdA engine", "estimator": "GeSdA estimator", "torch": "PyTorch autograd"}


def case(layers: list[int], batch: int, phase: str, **changes: Any) -> dict[str, Any]:
    """A case as a dictionary that travels as JSON."""
    return {"layers": layers, "batch": batch, "phase": phase, "optimizer": "sgd", "rows": 8000, "n_outputs": 10,
            "density": 1.0, "epochs": 2} | changes  # fmt: skip


MNIST_NET, PYRAMID, WIDE = [784, 1000, 1000, 1000], [945, 256, 128, 64], [20000, 500, 250]
CASES = (
    case(MNIST_NET, 32, "pretrain"),
    case(MNIST_NET, 100, "pretrain"),
    case(MNIST_NET, 1024, "pretrain"),
    case(MNIST_NET, 100, "pretrain", optimizer="adam"),
    case(MNIST_NET, 100, "finetune", optimizer="momentum"),
    case(MNIST_NET, 1024, "finetune", optimizer="adam"),
    case(PYRAMID, 100, "pretrain"),
    case(PYRAMID, 100, "finetune", optimizer="momentum", n_outputs=8),
    case(WIDE, 100, "pretrain", rows=3000),
    case(WIDE, 100, "finetune", rows=3000, optimizer="momentum"),
    case(WIDE, 100, "pretrain", rows=20000, density=0.01),
    case(WIDE, 100, "finetune", rows=20000, density=0.01, optimizer="momentum"),
)
QUICK = (
    case([64, 48, 32], 16, "pretrain", rows=200),
    case([64, 48, 32], 16, "finetune", rows=200, optimizer="momentum"),
    case([256, 32], 16, "pretrain", rows=200, density=0.05),
)


def allowance(job: dict[str, Any]) -> dict[str, int]:
    """Bytes of parameters, optimiser state, and two minibatches (input and all encodings), float32."""
    widths = job["layers"]
    pairs = list(itertools.pairwise(widths))
    encoder = sum(n * m + m for n, m in pairs)
    head = widths[-1] * job["n_outputs"] + job["n_outputs"] if job["phase"] == "finetune" else 0
    visible = sum(widths[:-1])
    slots = {"sgd": 0, "momentum": 1, "adam": 2}[job["optimizer"]]
    trained = encoder + head if job["phase"] == "finetune" else encoder + visible
    rows = job["batch"] * (sum(widths) + (job["n_outputs"] if head else 0))
    return {
        "parameters": 4 * (encoder + visible + head),
        "optimiser_state": 4 * slots * trained,
        "two_minibatches": 2 * 4 * rows,
    }


# ---- in the fresh process -------------------------------------------------------------------------
def status_bytes(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    with open("/proc/self/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def settle() -> int:
    """Give freed memory back, reset the high-water mark where the kernel allows, return the resident size."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return status_bytes("VmRSS")


def make_data(job: dict[str, Any]) -> tuple[Any, Any]:
    """Dense or CSR rows in [0, 1] and labels, made in pieces so that making them leaves no high mark."""
    import numpy as np
    import scipy.sparse

    rng = np.random.default_rng(5)
    rows, columns = job["rows"], job["layers"][0]
    labels = rng.integers(0, job["n_outputs"], rows).astype(np.int32)
    if job["density"] < 1.0:
        each = max(1, int(columns * job["density"]))
        starts = np.arange(each, dtype=np.int32) * (columns // each)
        indices = rng.integers(0, columns // each, (rows, each), dtype=np.int32) + starts
        values = rng.random(rows * each, dtype=np.float32)
        ends = np.arange(0, rows * each + 1, each, dtype=np.int32)
        return scipy.sparse.csr_array((values, indices.ravel(), ends), shape=(rows, columns)), labels
    x = np.empty((rows, columns), np.float32)
    for row in x:
        rng.random(out=row, dtype=np.float32)
    return x, labels


def train_engine(job: dict[str, Any], x: Any, labels: Any) -> None:
    """GeSdA's engine; initial weights are handed over one by one."""
    import numpy as np

    from gesda.engine import select
    from gesda.spec import FinetunePlan, HeadSpec, LayerSpec, NetworkSpec, OptimizerSpec, PretrainPlan

    tuning = job["phase"] == "finetune"
    optimizer = OptimizerSpec(job["optimizer"])
    layers = tuple(LayerSpec(n, m) for n, m in itertools.pairwise(job["layers"]))
    head = HeadSpec("softmax", job["n_outputs"], optimizer) if tuning else None
    spec = NetworkSpec(layers, OptimizerSpec() if tuning else optimizer, head, seed=1)
    engine = select(job["engine"], spec, n_jobs=job["threads"])
    rng = np.random.default_rng(2)
    for name, shape in spec.parameter_shapes().items():
        if len(shape) == 2:
            weights = rng.random(shape, dtype=np.float32)
            weights *= np.float32(0.05)
            engine.set_state({name: weights})
            del weights
    settle()  # the caller's initial weights are gone: what counts from here is training
    order = np.arange(job["rows"], dtype=np.uint32)
    for epoch in range(job["epochs"]):
        rng.shuffle(order)
        if tuning:
            engine.finetune_epoch(x, labels, FinetunePlan(epoch, order, job["batch"], 0.01))
        else:
            depth = len(layers)
            engine.pretrain_epoch(x, PretrainPlan(epoch, order, job["batch"], (True,) * depth, (0.01,) * depth))


def train_estimator(job: dict[str, Any], x: Any, labels: Any) -> None:
    """GeSdA's public estimators, with all that they keep and check."""
    from gesda import SdAClassifier, StackedDenoisingAutoencoder

    options: dict[str, Any] = {
        "hidden_layer_sizes": tuple(job["layers"][1:]),
        "batch_size": job["batch"],
        "n_jobs": job["threads"],
        "device": job["engine"],
        "random_state": 0,
    }
    if job["phase"] == "pretrain":
        solver = {"pretrain_solver": "adam"} if job["optimizer"] == "adam" else {"pretrain_momentum": 0.0}
        StackedDenoisingAutoencoder(**options, pretrain_epochs=job["epochs"], stagger=0, **solver).fit(x)
        return
    solver = {"solver": "adam"} if job["optimizer"] == "adam" else {"solver": "sgd"}
    momentum = 0.9 if job["optimizer"] == "momentum" else 0.0
    SdAClassifier(**options, pretrain_epochs=0, max_iter=job["epochs"], momentum=momentum, **solver).fit(x, labels)


def train_torch(job: dict[str, Any], x: Any, labels: Any) -> None:
    """The PyTorch equivalent: autograd, torch.optim, all layers pretrained at once."""
    import numpy as np
    import torch

    torch.set_num_threads(job["threads"])
    functional = torch.nn.functional
    pairs = list(itertools.pairwise(job["layers"]))
    tuning = job["phase"] == "finetune"
    weights = [torch.empty(n, m).uniform_(-0.05, 0.05).requires_grad_() for n, m in pairs]
    hidden = [torch.zeros(m, requires_grad=True) for _, m in pairs]
    visible = [torch.zeros(n, requires_grad=not tuning) for n, _ in pairs]
    trained = [*weights, *hidden, *([] if tuning else visible)]
    if tuning:
        head = torch.zeros(job["layers"][-1], job["n_outputs"], requires_grad=True)
        head_bias = torch.zeros(job["n_outputs"], requires_grad=True)
        trained += [head, head_bias]
    makers: dict[str, Any] = {
        "sgd": lambda: torch.optim.SGD(trained, lr=0.01),
        "momentum": lambda: torch.optim.SGD(trained, lr=0.01, momentum=0.9),
        "adam": lambda: torch.optim.Adam(trained, lr=0.001),
    }
    optimizer = makers[job["optimizer"]]()
    dense = torch.from_numpy(x) if job["density"] == 1.0 else None
    targets = torch.from_numpy(labels).long()
    rng = np.random.default_rng(2)
    for _ in range(job["epochs"]):
        order = rng.permutation(job["rows"])
        for start in range(0, job["rows"], job["batch"]):
            rows = order[start : start + job["batch"]]
            h = dense[torch.from_numpy(rows)] if dense is not None else torch.from_numpy(x[rows].toarray())
            optimizer.zero_grad(set_to_none=True)
            if tuning:
                for W, b in zip(weights, hidden, strict=True):
                    h = torch.sigmoid(torch.addmm(b, h, W))
                functional.cross_entropy(torch.addmm(head_bias, h, head), targets[torch.from_numpy(rows)]).backward()
            else:
                for W, b, c in zip(weights, hidden, visible, strict=True):
                    noisy = h * torch.empty_like(h).bernoulli_(0.75)
                    a = torch.addmm(c, torch.sigmoid(torch.addmm(b, noisy, W)), W.t())
                    loss = functional.binary_cross_entropy_with_logits(a, h, reduction="sum") / len(rows)
                    loss.backward()  # a layer at a time: the graph of one layer is alive
                    with torch.no_grad():
                        h = torch.sigmoid(torch.addmm(b, h, W))
            optimizer.step()


TRAINERS = {"gesda": train_engine, "estimator": train_estimator, "torch": train_torch}


def child(text: str) -> None:
    """Measure one case in this process; print the answer as JSON."""
    request = json.loads(text)
    job, train = request["case"], TRAINERS[request["contender"]]
    tiny = job | {"layers": [min(width, 24) for width in job["layers"]], "rows": 64, "batch": 16, "epochs": 1}
    if job["density"] < 1.0:
        tiny["density"] = 0.25
    x, labels = make_data(job)
    train(tiny, *make_data(tiny))
    before = settle()
    train(job, x, labels)
    print(json.dumps({"before": before, "peak": status_bytes("VmHWM")}))


# ---- in the script --------------------------------------------------------------------------------
def measure(job: dict[str, Any], contender: str, python: str) -> dict[str, Any]:
    """Run one case in a fresh process; the bytes beyond the data, or the reason for having none."""
    environment = common.child_environment(job["threads"])
    request = json.dumps({"case": job, "contender": contender})
    command = [python, str(Path(__file__).resolve()), "--child", request]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return {"error": "took longer than 900 s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:300]}
    answer = json.loads(done.stdout.splitlines()[-1])
    return {"beyond_data": answer["peak"] - answer["before"], **answer}


def table(results: list[dict[str, Any]], contenders: list[str]) -> str:
    """MiB of what is allowed and of what each contender took."""
    rows = []
    for entry in results:
        job, allowed = entry["case"], entry["allowance"]
        total = sum(allowed.values())
        name = "-".join(map(str, job["layers"])) + (" CSR" if job["density"] < 1 else "")
        row = [name, job["phase"], job["optimizer"], job["batch"], allowed["parameters"] / MIB,
               allowed["optimiser_state"] / MIB, allowed["two_minibatches"] / MIB, total / MIB]  # fmt: skip
        medians = [entry["bytes"].get(contender, {}).get("median") for contender in contenders]
        row += [None if median is None else median / MIB for median in medians]
        mine = entry["bytes"].get("gesda", {}).get("median")
        rows.append([*row, None if mine is None else mine / total])
    header = ["net", "phase", "optimiser", "batch", "parameters", "state", "2 minibatches", "sum"]
    return common.markdown_table([*header, *(TITLES[name] for name in contenders), "engine / sum"], rows)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = common.argument_parser(BENCHMARK, __doc__)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--repeats", type=int, help="fresh processes per contender (default 3; 1 with --quick)")
    parser.add_argument("--peer-python", help="interpreter with torch (default: a .venv-bench, or this one)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        child(arguments.child)
        return
    if not Path("/proc/self/status").exists():
        print("Skipped: /proc/self/status is needed to measure memory, and this system has none.")
        return
    repeats = arguments.repeats or (1 if arguments.quick else 3)
    document = common.new_document(BENCHMARK, arguments)
    path = common.output_path(BENCHMARK, arguments)
    peer = arguments.peer_python or find_peer_python()
    for job in QUICK if arguments.quick else CASES:
        job = job | {"threads": arguments.threads, "engine": arguments.engine}
        common.log(f"{'-'.join(map(str, job['layers']))} {job['phase']} {job['optimizer']} batch {job['batch']}")
        entry: dict[str, Any] = {"case": job, "allowance": allowance(job), "bytes": {}, "missing": {}, "raw": []}
        for contender in arguments.contenders:
            python = peer if contender == "torch" else sys.executable
            answers = [measure(job, contender, python) for _ in range(repeats)]
            entry["raw"].append({"contender": contender, "answers": answers})
            values = [answer["beyond_data"] for answer in answers if "beyond_data" in answer]
            if values:
                entry["bytes"][contender] = common.summary(values)
            else:
                entry["missing"][contender] = answers[0]["error"]
                common.log(f"  without {contender}: {answers[0]['error']}")
        document["results"].append(entry)
        if path is not None:
            common.write_json(path, document)
    print("\n".join(common.environment_report()))
    print("Peak resident memory beyond the data, MiB (two minibatches: rows of the input and of all encodings):")
    print(table(document["results"], arguments.contenders))
    if path is not None:
        print(f"Results: {path}")


if __name__ == "__main__":
    sys.exit(main())
