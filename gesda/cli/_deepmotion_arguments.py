"""The arguments of ``gesda deepmotion`` and its commands, with help and examples."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from gesda.cli._arguments import _add_command, _fraction, _kind, _late

_SOURCE_HELP = """source:
  recorded motion, its kind known by its name (text files also gzipped):
    *.tsv          UCR archive; several files are one a channel
    *.ts, *.arff   UEA archive
    *.csv          a line a sample: time, channels; perhaps label, sequence and group; or several files
    FOLDER         LABEL/NAME.csv or LABEL_NUMBER.csv, a sequence a file; or UTD-MHAD
    *.zip          UTD-MHAD
    synthetic      built-in: simulated hands that draw gestures, by four users ({seed})
"""

_WHOLE = _kind(int, "a whole number")
#: Option, parameter of the recogniser, its default (tests/test_cli_deepmotion.py compares), reader, help.
TRAINING: tuple[tuple[str, str, str, Callable[[str], Any], str], ...] = (
    ("--normalization", "normalization", "auto", str, "what of place and size is kept: auto, global, centered, "
     "sequence"),
    ("--orientation", "orientation", "keep", str, "how a device may be held: keep, gravity or magnitude"),
    ("--resampling", "resampling", "time", str, "to equal steps of time, or of the path: arc"),
    ("--members", "n_members", "5", _WHOLE, "networks whose probabilities are averaged"),
    ("--pretrain-epochs", "pretrain_epochs", "30", _WHOLE, "epochs of pretraining, 0 for none"),
    ("--epochs", "max_iter", "20", _WHOLE, "epochs of fine-tuning"),
    ("--rejection-rate", "rejection_rate", "0.05", _kind(_fraction, "a number between 0 and 1"),
     "share of known gestures that may be rejected as unknown"),
    ("--device", "device", "cpu", str, "what computes: auto, cpu, cuda or cuda:1"),
)  # fmt: skip


def add_deepmotion(commands: Any) -> None:
    """Add ``deepmotion`` and its commands to those of ``gesda``."""
    parser = commands.add_parser(
        "deepmotion",
        help="recognise gestures in motion: train, evaluate, teach, stream, serve",
        description="Recognise gestures in motion: of an accelerometer, gyroscope, skeleton or pointer.",
        epilog="examples:\n"
        "  gesda deepmotion train synthetic --output hands.gesda --test-fraction 0.25\n"
        "  gesda deepmotion stream hands.gesda < samples.jsonl\n"
        "  gesda deepmotion serve\n"
        "  gesda deepmotion COMMAND --help   shows the options of a command and more examples",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="COMMAND", parser_class=type(parser))
    _add_train(actions)
    _add_evaluate(actions)
    _add_teach(actions)
    _add_stream(actions)
    _add_serve(actions)


# ---- values ---------------------------------------------------------------------------------------
def _column(text: str) -> str | int:
    try:
        return int(text)
    except ValueError:
        return text


def _hertz(text: str) -> float:
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise ValueError
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 65536:
        raise ValueError
    return value


_RATE = _kind(_hertz, "a positive number of Hz")
_PORT = _kind(_port, "a number from 0 to 65535")


def _source_help(seed: str) -> str:
    return _SOURCE_HELP.format(seed=seed)


def _add_sources(parser: argparse.ArgumentParser, seed: int) -> None:
    """What is read and how."""
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="files, a folder, or synthetic; see below")
    reading = parser.add_argument_group("reading")
    reading.add_argument("--rate", type=_RATE, metavar="HZ", help="samples a second; CSV is interpolated to it")
    reading.add_argument("--unlabeled", metavar="LABEL", help="a label that means: not labelled")
    for flag, what in (
        ("--labels", "the labels"),
        ("--time", "the time"),
        ("--sequences", "what tells sequences apart"),
        ("--groups", "the person or session"),
    ):
        reading.add_argument(
            flag, type=_column, metavar="COLUMN", help=f"a CSV file's column of {what}: its name, or number from 0"
        )
    reading.add_argument("--time-unit", choices=("s", "ms", "us", "ns"), help="of a CSV file's time")
    reading.add_argument(
        "--kind", choices=("accelerometer", "gyroscope", "pointer"), help="of synthetic motion (accelerometer)"
    )
    reading.add_argument("--per-class", type=_WHOLE, metavar="N", help="synthetic examples of each gesture (20)")
    parser.add_argument("--seed", type=_WHOLE, default=seed, help=f"of whatever is random ({seed})")


# ---- the commands ---------------------------------------------------------------------------------
def _add_train(actions: Any) -> None:
    parser = _add_command(
        actions,
        "train",
        "train a recogniser of gestures and save it",
        _source_help("with --seed") + "\nexamples:\n"
        "  gesda deepmotion train synthetic --kind pointer --output pointer.gesda --test-fraction 0.25\n"
        "  gesda deepmotion train X_TRAIN.tsv Y_TRAIN.tsv Z_TRAIN.tsv \\\n"
        "      --test X_TEST.tsv Y_TEST.tsv Z_TEST.tsv --output wave.gesda\n"
        "  gesda deepmotion train recordings.csv --labels activity --groups person --unlabeled none -o m.gesda\n\n"
        "Sequences without a label are for pretraining; if none has one, 'gesda deepmotion teach' adds gestures.\n"
        "Ctrl-C ends the training; nothing is written then, and the exit status is 130.",
        "_deepmotion:train",
    )
    _add_sources(parser, 0)
    parser.add_argument("--output", "-o", required=True, metavar="FILE", help="the model file to write")
    held_out = parser.add_mutually_exclusive_group()
    held_out.add_argument(
        "--test", nargs="+", metavar="SOURCE", help="labelled motion to test on; synthetic is of other users"
    )
    held_out.add_argument(
        "--test-fraction",
        type=_kind(_fraction, "a number between 0 and 1"),
        metavar="F",
        help="share of the labelled sequences to keep for the test: whole groups if these are known",
    )
    training = parser.add_argument_group("recogniser and training", "defaults in parentheses")
    for flag, parameter, default, reader, text in TRAINING:
        training.add_argument(flag, dest=f"set_{parameter}", type=reader, metavar="V", help=f"{text} ({default})")
    training.add_argument("--spectrum", action="store_true", help="add each channel's spectrum, for repetitive motion")
    training.add_argument("--jobs", type=_WHOLE, metavar="N", help="threads (default: all)")
    watching = parser.add_argument_group("watching")
    watching.add_argument("--quiet", "-q", action="store_true", help="show no progress")
    watching.add_argument("--log", metavar="FILE", help="write each epoch as a line of JSON")


def _add_evaluate(actions: Any) -> None:
    parser = _add_command(
        actions,
        "evaluate",
        "measure a recogniser on labelled motion: accuracy, rejection, confusions",
        _source_help("others than train's") + "\nexamples:\n"
        "  gesda deepmotion evaluate wave.gesda X_TEST.tsv Y_TEST.tsv Z_TEST.tsv\n"
        "  gesda deepmotion evaluate hands.gesda synthetic --json\n\n"
        "Labels that the model does not know count as unknown motion, which it should reject.\n"
        "Motion at another rate than the model's is interpolated to it.",
        "_deepmotion:evaluate",
    )
    parser.add_argument("model", metavar="MODEL", help="a model file of a recogniser")
    _add_sources(parser, 1)


def _add_teach(actions: Any) -> None:
    parser = _add_command(
        actions,
        "teach",
        "teach a recogniser one more gesture from a few examples",
        _source_help("others than train's") + "\nexamples:\n"
        "  gesda deepmotion teach hands.gesda wave wave_1.csv wave_2.csv wave_3.csv --output mine.gesda\n\n"
        "Of motion with labels, those with the gesture's name are its examples; if all have one label, all are.\n"
        "A gesture that the model knows already gets more examples.",
        "_deepmotion:teach",
    )
    parser.add_argument("model", metavar="MODEL", help="a model file of a recogniser")
    parser.add_argument("name", metavar="NAME", help="the gesture's name; a number if the model's gestures are")
    _add_sources(parser, 1)
    parser.add_argument("--output", "-o", required=True, metavar="NEW", help="the model file to write; may be MODEL")


def _add_stream(actions: Any) -> None:
    parser = actions.add_parser(
        "stream",
        help="recognise gestures in samples as they come",
        description="Recognise gestures in samples as they come, from standard input or UDP; write events as JSON.",
        epilog='Samples are lines of JSON, {"t": 12.34, "v": [0.1, 0.2, 0.9]} or [0.1, 0.2, 0.9], or of CSV,\n'
        "0.1,0.2,0.9; t is the time in seconds. null, or nothing in CSV, stands for a value that is missing.\n"
        "Events are lines of JSON, each written when its gesture has ended:\n"
        '  {"gesture": "wave", "confidence": 0.98, "familiarity": -0.3, "start": 1.2, "end": 2.1}\n'
        "Malformed lines are counted and left out. A UDP datagram holds whole lines, one or more.\n\n"
        "examples:\n"
        "  sensor | gesda deepmotion stream hands.gesda --rate 100\n"
        "  gesda deepmotion stream hands.gesda --format csv --time --report < recording.csv\n"
        "  gesda deepmotion stream hands.gesda --udp 5005\n\n"
        "Ctrl-C ends it like the end of the input does, with exit status 130.",
    )
    parser.set_defaults(run=_late("_deepmotion_stream:run"), json=True)
    parser.add_argument("model", metavar="MODEL", help="a model file of a recogniser")
    parser.add_argument(
        "--rate", type=_RATE, metavar="HZ", help="of samples without times (default: that of the model's examples)"
    )
    parser.add_argument(
        "--udp", type=_PORT, metavar="PORT", help="take datagrams sent to this port of 127.0.0.1; 0: a free one"
    )
    parser.add_argument(
        "--format", choices=("auto", "csv", "json"), default="auto", help="of the lines (auto: what each looks like)"
    )
    parser.add_argument("--time", action="store_true", help="the first column of CSV is the time in seconds")
    parser.add_argument("--unknown", action="store_true", help="motion that is no known gesture is an event too: null")
    parser.add_argument("--report", action="store_true", help="write what was wrong with the samples as a last line")


def _add_serve(actions: Any) -> None:
    parser = actions.add_parser(
        "serve",
        help="serve the web page to teach and recognise gestures",
        description="Serve the web page to teach and recognise gestures, until Ctrl-C.",
        epilog="examples:\n"
        "  gesda deepmotion serve --open\n"
        "  gesda deepmotion serve hands.gesda --port 9000\n"
        "  gesda deepmotion serve --host 0.0.0.0 --certificate cert.pem --key key.pem   (for phones; makes a token)",
    )
    parser.set_defaults(run=_late("_deepmotion:serve"))
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a model file to begin with")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (127.0.0.1: this machine only)")
    parser.add_argument("--port", type=_PORT, default=8321, help="0 takes a free one (8321)")
    parser.add_argument("--token", help="what visitors must know; made where the address is not this machine's own")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="one more name of the server; may be repeated"
    )
    parser.add_argument("--certificate", metavar="FILE", help="PEM file, for https, which a phone's sensor asks for")
    parser.add_argument("--key", metavar="FILE", help="PEM file of the certificate's key")
    parser.add_argument("--open", action="store_true", help="open the page in this machine's browser")
