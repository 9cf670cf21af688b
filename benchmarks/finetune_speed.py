"""Speed of one fine-tuning step of a whole classifier, by GeSdA and by its peers.

Sigmoid layers and softmax with cross-entropy, all weights updated, float32, SGD and momentum 0.9;
gathering the rows included.
"""

from __future__ import annotations

import sys

import common  # first: frees OpenBLAS before NumPy loads
import speed
from contenders.problem import make_case

BENCHMARK = "finetune_speed"
NETS = (((784, 1000, 1000, 1000), 10), ((945, 256, 128, 64), 8))
BATCHES = (32, 100, 256, 1024)
OPTIMIZERS = ("sgd", "momentum")
CONTENDERS = ("gesda", "gesda_bf16", "jax", "torch_hand", "torch_compile", "torch_autograd", "numpy", "sklearn")


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = common.argument_parser(BENCHMARK, __doc__)
    speed.add_arguments(parser, CONTENDERS)
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    arguments = parser.parse_args(argv)
    if arguments.quick and arguments.contenders == list(CONTENDERS):
        arguments.contenders.remove("torch_compile")  # compiling takes longer than all the rest
    nets, batches = ((NETS[1],), (32,)) if arguments.quick and not arguments.only else (NETS, BATCHES)
    cases = [
        make_case("finetune", list(layers), batch, quick=arguments.quick, n_outputs=outputs, optimizer=optimizer)
        for layers, outputs in nets
        for optimizer in arguments.optimizers
        for batch in batches
    ]
    speed.run(BENCHMARK, cases, arguments)


if __name__ == "__main__":
    sys.exit(main())
