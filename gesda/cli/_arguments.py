"""The arguments of every command, with help and examples."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gesda import __version__
from gesda.datasets import BUILTIN
from gesda.spec import PRECISIONS

_DATA_HELP = """data:
  a built-in set or a file, its kind known by its name (all but .npy and .npz also gzipped):
    {builtin}
    *.csv          comma, semicolon or tab separated, with or without a line of names
    *.tsv          UCR archive: the label comes first
    *-idx3-ubyte   MNIST's format, scaled to [0, 1]; the labels from the idx1 file beside it
    *.npz          arrays X and y
    *.npy          one array; the labels from a column (--target) or a file (--labels)
"""


def build_parser() -> argparse.ArgumentParser:
    """Make the parser; each command's ``run`` is set to the function that does it."""
    parser = _Parser(
        prog="gesda",
        description="Train and use stacked denoising autoencoders.",
        epilog="examples:\n"
        "  gesda train digits --hidden 256,128 --output digits.gesda --test-fraction 0.2\n"
        "  gesda evaluate digits.gesda digits\n"
        "  gesda COMMAND --help   shows the options of a command and more examples",
    )
    parser.add_argument("--version", action="version", version=f"gesda {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_transform(commands)
    _add_info(commands)
    _add_export(commands)
    _add_bench(commands)
    _add_warmup(commands)
    # Imported here because it uses the functions below.
    from gesda.cli._deepmotion_arguments import add_deepmotion

    add_deepmotion(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser that keeps the line breaks of its examples and takes no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)


# ---- values ---------------------------------------------------------------------------------------
def literal(text: str) -> Any:
    """Read a parameter's value: a number, true, false, none, a comma-separated list of these, or text."""
    if "," in text:
        return tuple(literal(part.strip()) for part in text.split(",") if part.strip())
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(",") if part.strip())
    if not sizes or min(sizes) < 1:
        raise ValueError
    return sizes


def _shapes(text: str) -> tuple[tuple[int, int], ...]:
    pairs = [tuple(int(size) for size in part.lower().split("x")) for part in text.split(",")]
    if any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
        raise ValueError
    return tuple((pair[0], pair[1]) for pair in pairs)


GPU_PRECISIONS = ("fp32", "tf32", "fp16")


def _precisions(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(GPU_PRECISIONS):
        raise ValueError
    return names


def _targets(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if text != "all" and not all(re.fullmatch(r"sm_\d+", name) for name in names):
        raise ValueError
    return names


def _fraction(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        raise ValueError
    return value


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError
    return name.strip().replace("-", "_"), literal(value.strip())


def _kind(reader: Callable[[str], Any], what: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return reader(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}") from None

    return read


# ---- options that several commands share ----------------------------------------------------------
def _add_command(commands: Any, name: str, summary: str, epilog: str, run: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=epilog
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.set_defaults(run=_late(run))
    return parser


def _late(name: str) -> Callable[[argparse.Namespace], int]:
    """The command's function, imported when it runs: help and errors stay quick."""

    def run(arguments: argparse.Namespace) -> int:
        import importlib

        module, function = name.split(":")
        return int(getattr(importlib.import_module(f"gesda.cli.{module}"), function)(arguments))

    return run


def _data_help() -> str:
    return _DATA_HELP.format(builtin=", ".join(BUILTIN))


def _add_data(parser: argparse.ArgumentParser, name: str = "data", what: str = "a built-in set or a file") -> None:
    parser.add_argument(name, metavar="DATA", help=f"{what}; see below")
    parser.add_argument("--target", help="the label column: its name, or its number from 0 (-1 the last)")
    parser.add_argument("--labels", metavar="FILE", help=".npy or IDX file with the labels")
    parser.add_argument(
        "--header", choices=("auto", "yes", "no"), default="auto", help="whether a table starts with a line of names"
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="DEVICE", help="what computes: auto, cpu, cuda, cuda:1 or reference (auto)")
    parser.add_argument("--jobs", type=_kind(int, "a whole number"), metavar="N", help="threads (default: all)")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", "-o", default="-", metavar="FILE", help=".csv or .npy file (default: CSV to standard output)"
    )


# ---- the commands ---------------------------------------------------------------------------------
#: Option, estimator parameter, its default (tests/test_cli.py compares), reader, help.
TRAINING: tuple[tuple[str, str, str, Callable[[str], Any], str], ...] = (
    (
        "--hidden",
        "hidden_layer_sizes",
        "256,128",
        _kind(_sizes, "sizes such as 256,128"),
        "hidden units of each layer",
    ),
    ("--activation", "activation", "sigmoid", literal, "sigmoid, tanh, relu or linear"),
    ("--noise", "noise", "masking", literal, "masking, gaussian, salt_and_pepper, swap or none"),
    ("--noise-level", "noise_level", "0.25", literal, "probability of corruption, or standard deviation"),
    ("--schedule", "schedule", "crosspre", literal, "crosspre (all layers at once) or sequential"),
    ("--stagger", "stagger", "1", literal, "epochs between the starts of two layers, or auto"),
    ("--pretrain-epochs", "pretrain_epochs", "15", literal, "epochs of pretraining of each layer, 0 for none"),
    ("--pretrain-learning-rate", "pretrain_learning_rate", "auto", literal, "learning rate of pretraining"),
    ("--epochs", "max_iter", "100", literal, "most epochs of fine-tuning"),
    ("--learning-rate", "learning_rate_init", "auto", literal, "learning rate of fine-tuning"),
    ("--solver", "solver", "sgd", literal, "sgd or adam, of fine-tuning"),
    ("--batch-size", "batch_size", "auto", literal, "rows of a minibatch, or auto (128, less on small data)"),
    ("--dropout", "dropout", "0", literal, "dropout rate of the hidden units while fine-tuning"),
    ("--alpha", "alpha", "0", literal, "weight of the L2 penalty while fine-tuning"),
    ("--precision", "precision", "fp32", literal, "fp32, bf16 (cpu), tf32 or fp16 (cuda)"),
)


def _add_train(commands: Any) -> None:
    parser = _add_command(
        commands,
        "train",
        "train a model and save it",
        _data_help() + "\nexamples:\n"
        "  gesda train digits --hidden 256,128 --output digits.gesda --test-fraction 0.2\n"
        "  gesda train flowers.csv --target species --validation 0.1 --output flowers.gesda\n"
        "  gesda train houses.csv --target price --task regress --epochs 200 --output houses.gesda\n"
        "  gesda train train-images-idx3-ubyte.gz --task encode --hidden 500,250 --output features.gesda\n"
        "  gesda train labelled.csv --target y --unlabeled more.csv --set emphasis=1,0.5 --output m.gesda\n\n"
        "Ctrl-C ends the training early; the model trained so far is saved, and the exit status is 130.",
        "_train:run",
    )
    _add_data(parser)
    parser.add_argument(
        "--task",
        choices=("classify", "regress", "encode"),
        default="classify",
        help="what to train: a classifier (default), a regressor, or the encoder alone",
    )
    parser.add_argument("--output", "-o", required=True, metavar="FILE", help="the model file to write")
    held_out = parser.add_mutually_exclusive_group()
    held_out.add_argument("--test-data", metavar="DATA", help="data to test the trained model on")
    held_out.add_argument(
        "--test-fraction",
        type=_kind(_fraction, "a number between 0 and 1"),
        metavar="F",
        help="share of the data, chosen at random, to keep for the test",
    )
    parser.add_argument(
        "--validation",
        type=_kind(_fraction, "a number between 0 and 1"),
        metavar="F",
        help="share of the labelled samples that decides when to stop",
    )
    parser.add_argument("--unlabeled", metavar="DATA", help="more samples, for pretraining only")
    network = parser.add_argument_group("network and training", "defaults in parentheses; lists have one value a layer")
    for flag, parameter, default, reader, text in TRAINING:
        network.add_argument(flag, dest=f"set_{parameter}", type=reader, metavar="V", help=f"{text} ({default})")
    network.add_argument(
        "--set",
        dest="assignments",
        type=_kind(_assignment, "NAME=VALUE"),
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other parameter of the estimator; may be repeated",
    )
    network.add_argument(
        "--seed", type=_kind(int, "a whole number"), default=0, help="of weights, shuffles and noise (0)"
    )
    _add_device(parser)
    watching = parser.add_argument_group("watching and resuming")
    watching.add_argument("--quiet", "-q", action="store_true", help="show no progress")
    watching.add_argument("--log", metavar="FILE", help="write each epoch as a line of JSON")
    watching.add_argument("--checkpoint", metavar="FILE", help="keep the state of the training here")
    watching.add_argument("--resume", action="store_true", help="continue from --checkpoint if it exists")


def _add_evaluate(commands: Any) -> None:
    parser = _add_command(
        commands,
        "evaluate",
        "measure a model on data: accuracy, R2, reconstruction error",
        _data_help() + "\nexamples:\n"
        "  gesda evaluate flowers.gesda test.csv --target species\n"
        "  gesda evaluate mnist.gesda t10k-images-idx3-ubyte.gz --json",
        "_apply:evaluate",
    )
    parser.add_argument("model", metavar="MODEL", help="a model file")
    _add_data(parser)
    _add_device(parser)


def _add_predict(commands: Any) -> None:
    parser = _add_command(
        commands,
        "predict",
        "predict classes, probabilities or numbers",
        _data_help() + "\nexamples:\n"
        "  gesda predict flowers.gesda new.csv --output classes.csv\n"
        "  gesda predict flowers.gesda test.csv --target species --proba --output p.npy\n\n"
        "A label column of the data has to be named, so that it is left out.",
        "_apply:predict",
    )
    parser.add_argument("model", metavar="MODEL", help="a model file of a classifier or regressor")
    _add_data(parser)
    parser.add_argument("--proba", action="store_true", help="the classes' probabilities instead of the class")
    _add_output(parser)
    _add_device(parser)


def _add_transform(commands: Any) -> None:
    parser = _add_command(
        commands,
        "transform",
        "encode, reconstruct or score samples",
        _data_help() + "\nexamples:\n"
        "  gesda transform features.gesda images.npy --output codes.npy\n"
        "  gesda transform features.gesda images.npy --layer 0 --output first.npy\n"
        "  gesda transform normal.gesda today.csv --give scores   (lower is more abnormal)",
        "_apply:transform",
    )
    parser.add_argument("model", metavar="MODEL", help="a model file")
    _add_data(parser)
    parser.add_argument(
        "--give",
        choices=("encodings", "reconstructions", "scores"),
        default="encodings",
        help="what to write (default: encodings); scores are minus the reconstruction errors",
    )
    parser.add_argument(
        "--layer", type=_kind(int, "a whole number"), help="whose encodings, from 0 (default: the last layer's)"
    )
    _add_output(parser)
    _add_device(parser)


def _add_info(commands: Any) -> None:
    parser = _add_command(
        commands,
        "info",
        "describe a model file, or this installation",
        "examples:\n  gesda info flowers.gesda\n  gesda info   (versions, for bug reports)",
        "_info:run",
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a model file")


def _add_export(commands: Any) -> None:
    parser = _add_command(
        commands,
        "export",
        "write a model for other programs and small machines",
        _data_help() + "\nexamples:\n"
        "  gesda export flowers.gesda --output small.gesda --weights int8 --data train.csv --target species --report\n"
        "  gesda export flowers.gesda --c flowers.c --weights int8\n"
        "  gesda export sensors.gesda --onnx sensors.onnx --outputs encodings,scores\n\n"
        "Models may be gesture recognisers, but for C source. ONNX needs an extra: pip install 'gesda[onnx]'.",
        "_export:run",
    )
    parser.add_argument("model", metavar="MODEL", help="a model file")
    forms = parser.add_argument_group("what to write; one or more")
    forms.add_argument("--output", "-o", metavar="FILE", help="a model file for libgesda, without what training needs")
    forms.add_argument("--c", metavar="FILE", help="C source for microcontrollers")
    forms.add_argument("--onnx", metavar="FILE", help="an ONNX file")
    parser.add_argument(
        "--weights",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="what weights are rounded to in model files, and in C source but for fp16 (default: fp32)",
    )
    parser.add_argument(
        "--prune", action="store_true", help="leave out hidden units that are constant over the data (needs --data)"
    )
    parser.add_argument(
        "--report", action="store_true", help="also print sizes, accuracy on the data before and after, and latency"
    )
    parser.add_argument(
        "--outputs",
        type=lambda text: text.split(","),
        metavar="NAMES",
        help="of ONNX and C: encodings, reconstructions, scores, probabilities, labels, predictions, by commas; of "
        "recognisers labels, probabilities, familiarity, accepted (default: what predict or transform give)",
    )
    _add_data(parser, "--data", "choose the scales of int8, and measure, on these: a built-in set or a file")


def _add_bench(commands: Any) -> None:
    parser = _add_command(
        commands,
        "bench",
        "measure the speed of one training step on this machine",
        "A step is one minibatch through one tied denoising autoencoder (cross-entropy, masking, SGD):\n"
        "10 x batch x visible x hidden floating-point operations, on random data.\n\n"
        "examples:\n  gesda bench\n  gesda bench --shapes 784x1000,256x128 --batch 32,100 --jobs 1 --json",
        "_bench:run",
    )
    parser.add_argument(
        "--shapes",
        type=_kind(_shapes, "shapes such as 784x1000,256x128"),
        default=((784, 1000), (500, 2000), (256, 128)),
        metavar="NxM",
        help="visible x hidden units (784x1000,500x2000,256x128)",
    )
    parser.add_argument(
        "--batch", type=_kind(_sizes, "sizes such as 32,100"), default=(32, 100), metavar="B", help="rows (32,100)"
    )
    parser.add_argument(
        "--seconds", type=_kind(float, "a number"), default=1.0, metavar="S", help="per measurement (1)"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the products (fp32)")
    _add_device(parser)


def _add_warmup(commands: Any) -> None:
    parser = _add_command(
        commands,
        "warmup",
        "compile the GPU's kernels ahead and check that it computes what it should",
        "Afterwards the first training starts at once, and device=auto takes the GPU.\n\n"
        "examples:\n  gesda warmup --precision fp32,tf32\n"
        "  gesda warmup --targets sm_87 --output kernels/   (for a board without a compiler; needs no GPU)",
        "_warmup:run",
    )
    parser.add_argument(
        "--precision", type=_kind(_precisions, "precisions such as fp32,tf32"), default=("fp32",), metavar="P",
        help="of the products: fp32, tf32, fp16 (fp32)",
    )  # fmt: skip
    parser.add_argument("--device", metavar="DEVICE", help="which GPU: cuda, cuda:1 and so on (cuda)")
    parser.add_argument(
        "--targets", type=_kind(_targets, "targets such as sm_75,sm_87, or all"), metavar="SM",
        help="write kernels for these GPUs instead: sm_75 to sm_120, or all",
    )  # fmt: skip
    parser.add_argument("--output", "-o", type=Path, metavar="FOLDER", help="where to (this installation)")
