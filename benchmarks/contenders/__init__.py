"""The contenders: the same training step, each in the strongest honest form its library offers.

Each module has functions ``make(case) -> {variant: run}``, each run a `problem.Run` that trains epochs
of ``case["n_batches"]`` minibatches; the worker keeps the fastest variant. Modules import their
library when they are imported themselves, so a missing one only takes its own contender out.
"""

#: Contender -> module of this package and function that builds a case.
CONTENDERS = {
    "gesda": ("gesda_engine", "make_fp32"),
    "gesda_bf16": ("gesda_engine", "make_bf16"),
    "jax": ("jax_cpu", "make"),
    "torch_hand": ("torch_cpu", "make_hand"),
    "torch_compile": ("torch_cpu", "make_compiled"),
    "torch_autograd": ("torch_cpu", "make_autograd"),
    "numpy": ("numpy_blas", "make"),
    "sklearn": ("sklearn_mlp", "make_mlp"),
    "sklearn_rbm": ("sklearn_mlp", "make_rbm"),
}

#: What the tables and the documentation call them.
TITLES = {
    "gesda": "GeSdA",
    "gesda_bf16": "GeSdA bf16",
    "jax": "JAX jit + scan",
    "torch_hand": "PyTorch by hand",
    "torch_compile": "torch.compile",
    "torch_autograd": "PyTorch autograd",
    "numpy": "NumPy/SciPy",
    "sklearn": "scikit-learn MLP",
    "sklearn_rbm": "BernoulliRBM",
}
