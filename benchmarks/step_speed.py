"""Speed of one pretraining step: a tied denoising autoencoder, by GeSdA and by its peers.

Masking noise, sigmoid, cross-entropy, plain SGD, float32; gathering the rows and drawing the noise
included; 10 B n m floating-point operations a step. All contenders run in turn within each round.
"""

from __future__ import annotations

import sys

import common  # first: frees OpenBLAS before NumPy loads
import speed
from contenders.problem import make_case

BENCHMARK = "step_speed"
SHAPES = ((784, 1000), (1000, 1000), (500, 2000), (945, 256), (256, 128), (128, 64))
BATCHES = (32, 100, 256, 1024)
CONTENDERS = (
    "gesda",
    "gesda_bf16",
    "jax",
    "torch_hand",
    "torch_compile",
    "torch_autograd",
    "numpy",
    "sklearn",
    "sklearn_rbm",
)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = common.argument_parser(BENCHMARK, __doc__)
    speed.add_arguments(parser, CONTENDERS)
    arguments = parser.parse_args(argv)
    if arguments.quick and arguments.contenders == list(CONTENDERS):
        arguments.contenders.remove("torch_compile")  # compiling takes longer than all the rest
    shapes, batches = (((256, 128),), (32,)) if arguments.quick and not arguments.only else (SHAPES, BATCHES)
    cases = [
        make_case("pretrain", list(shape), batch, quick=arguments.quick, noise=0.25)
        for shape in shapes
        for batch in batches
    ]
    speed.run(BENCHMARK, cases, arguments)


if __name__ == "__main__":
    sys.exit(main())
