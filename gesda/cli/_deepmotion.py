"""``gesda deepmotion train``, ``evaluate``, ``teach`` and ``serve``; ``stream`` has a file of its own."""

from __future__ import annotations

import argparse
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gesda.callbacks import Callback, JsonLinesLog, Progress, Run
from gesda.cli._common import UsageError, check_output, emit, note, warnings_as_notes

if TYPE_CHECKING:
    from gesda.deepmotion.data.sequences import MotionDataset

SYNTHETIC = "synthetic"
_COLUMNS = ("time", "labels", "sequences", "groups", "time_unit")
#: Pairs of gestures that are shown as confused.
_PAIRS = 5
#: Motion may become so many times as long by interpolation to the model's rate.
_MAX_GROWTH = 100


# ---- reading --------------------------------------------------------------------------------------
def read_recognizer(path: str) -> Any:
    """Load a recogniser from its file."""
    from gesda.deepmotion import GestureRecognizer

    return GestureRecognizer.load(path)


def _check_sources(arguments: argparse.Namespace, *more: Sequence[str]) -> None:
    """Refuse options that go with none of the sources."""
    sources = [list(names) for names in (arguments.sources, *more)]
    for names in sources:
        if SYNTHETIC in names and len(names) > 1:
            raise UsageError("synthetic motion goes with no other source; a file of that name is ./synthetic.")
    simulated = [names == [SYNTHETIC] for names in sources]
    if not any(simulated) and (arguments.kind is not None or arguments.per_class is not None):
        raise UsageError("--kind and --per-class are of synthetic motion; they do not go with files.")
    files_only = [name for name in (*_COLUMNS, "unlabeled") if getattr(arguments, name) is not None]
    if all(simulated) and files_only:
        raise UsageError(f"--{files_only[0].replace('_', '-')} is of files; it does not go with synthetic motion.")


def _read(arguments: argparse.Namespace, sources: Sequence[str], seed: int) -> MotionDataset:
    """Read the motion that the arguments name, or simulate it."""
    from gesda.deepmotion.data.readers import load_motion
    from gesda.deepmotion.data.synthetic import make_gestures

    if list(sources) == [SYNTHETIC]:
        per_class = 20 if arguments.per_class is None else arguments.per_class
        rate = 100.0 if arguments.rate is None else arguments.rate
        return make_gestures(per_class, kind=arguments.kind or "accelerometer", rate=rate, random_state=seed)
    options = {name: getattr(arguments, name) for name in (*_COLUMNS, "rate", "unlabeled")}
    return load_motion(sources[0] if len(sources) == 1 else list(sources), **options)


def _like(data: MotionDataset, n_channels: int, rate: float | None, of: str) -> MotionDataset:
    """Check the channels, and interpolate to the rate where both are known and differ."""
    if data.n_channels != n_channels:
        raise ValueError(
            f"{data.name!r} has {data.n_channels} channel(s) and {of} {n_channels}; give motion of the same sensors."
        )
    if rate is None or data.rate is None or abs(data.rate / rate - 1.0) < 1e-3:
        return data
    if rate / data.rate > _MAX_GROWTH:
        raise ValueError(f"{data.name!r} is at {data.rate:g} Hz and {of} at {rate:g}; give motion at a rate like that.")
    from gesda.deepmotion.data.sequences import MotionDataset

    ratio = data.rate / rate
    sequences = tuple(_interpolated(sequence, ratio) for sequence in data.sequences)
    return MotionDataset(sequences, data.labels, rate, data.channels, data.groups, data.name)


def _interpolated(sequence: NDArray[np.float32], ratio: float) -> NDArray[np.float32]:
    """The sequence at steps of `ratio` samples, on straight lines."""
    at = np.arange(int((len(sequence) - 1) / ratio + 1e-6) + 1) * ratio
    steps = np.arange(len(sequence))
    return np.stack([np.interp(at, steps, channel) for channel in sequence.T], axis=1).astype(np.float32)


# ---- train ----------------------------------------------------------------------------------------
class _Watch(Callback):
    """Tells which network is fine-tuned, and makes Ctrl-C the end of all of them."""

    def __init__(self, n_members: int, *, quiet: bool) -> None:
        self._n_members, self._quiet, self._member = n_members, quiet, 0

    def on_train_begin(self, run: Run) -> None:
        if run.phase == "finetune":
            self._member += 1
            if not self._quiet and self._n_members > 1:
                note(f"fine-tuning network {self._member} of {self._n_members}")

    def on_train_end(self, run: Run) -> None:
        # A trainer keeps the interruption to itself, and the next network would be trained.
        if run.interrupted:
            raise KeyboardInterrupt


def train(arguments: argparse.Namespace) -> int:
    """Train a recogniser and save it."""
    _check_sources(arguments, *([] if arguments.test is None else [arguments.test]))
    for path in (arguments.output, arguments.log):
        if path is not None:
            check_output(path)
    recognizer = _make_recognizer(arguments)
    data = _read(arguments, arguments.sources, arguments.seed)
    test = None
    if arguments.test is not None:
        test = _read(arguments, arguments.test, arguments.seed + 1)
        test = _like(test, data.n_channels, data.rate, repr(data.name))
    elif arguments.test_fraction is not None:
        data, test = _split(data, arguments.test_fraction, arguments.seed)
    if test is not None:
        _check_labels(test, data.classes)
    n_labeled = int(data.labeled.sum())

    callbacks: list[Callback] = []
    if not arguments.quiet:
        callbacks.append(Progress())
    if arguments.log is not None:
        # Every network has a training of its own, and the log would begin anew with each.
        Path(arguments.log).write_bytes(b"")
        callbacks.append(JsonLinesLog(arguments.log, append=True))
    # Last, because it raises where the others still have to close what they opened.
    callbacks.append(_Watch(recognizer.n_members, quiet=arguments.quiet))
    started = time.perf_counter()
    with warnings_as_notes():
        recognizer.fit(data, callbacks=callbacks)
        seconds = time.perf_counter() - started
        scores = None if test is None else measure(recognizer, test)
    recognizer.save(arguments.output)

    result: dict[str, Any] = {
        "command": "deepmotion train",
        "model": arguments.output,
        "data": data.name,
        "n_sequences": len(data),
        "n_labeled": n_labeled,
        "n_channels": data.n_channels,
        "rate": recognizer.rate_,
        "gestures": recognizer.classes_,
        "normalization": recognizer.normalization_,
        "threshold": recognizer.threshold_,
        "seconds": round(seconds, 3),
    }
    lines = [
        f"trained on {len(data)} sequences ({n_labeled} labelled, {len(recognizer.classes_)} gestures) of "
        f"{data.n_channels} channels in {seconds:.1f} s"
    ]
    if not len(recognizer.classes_):
        note("none of the sequences has a label; teach gestures with 'gesda deepmotion teach'.")
    if scores is not None:
        result["test"] = scores
        lines += [f"test {line}" for line in _summary(scores)]
    emit(arguments, result, [*lines, f"saved to {arguments.output}"])
    return 0


def _make_recognizer(arguments: argparse.Namespace) -> Any:
    from gesda.deepmotion import GestureRecognizer

    given = {
        name.removeprefix("set_"): value
        for name, value in vars(arguments).items()
        if name.startswith("set_") and value is not None
    }
    return GestureRecognizer(spectrum=arguments.spectrum, n_jobs=arguments.jobs, random_state=arguments.seed, **given)


def _split(data: MotionDataset, fraction: float, seed: int) -> tuple[MotionDataset, MotionDataset]:
    """Training and test data: whole groups apart if they are known, else a share of every gesture."""
    rng = np.random.default_rng(seed)
    held, labeled = np.zeros(len(data), dtype=bool), data.labeled
    groups = None if data.groups is None else np.unique(data.groups)
    if groups is not None and len(groups) > 1:
        assert data.groups is not None
        for group in rng.permutation(groups)[:-1]:
            held |= data.groups == group
            if (held & labeled).sum() >= fraction * labeled.sum():
                break
    elif data.labels is not None:
        for label in data.classes:
            own = rng.permutation(np.flatnonzero(data.labels == label))
            held[own[: round(fraction * len(own))]] = True
    if not (held & labeled).any() or not (labeled & ~held).any():
        raise ValueError(
            f"{data.name!r} has {labeled.sum()} labelled sequences of {len(data.classes)} gestures, too few to keep "
            f"{fraction:g} of them for a test."
        )
    return data[~held], data[held & labeled]


# ---- evaluate -------------------------------------------------------------------------------------
def evaluate(arguments: argparse.Namespace) -> int:
    """Measure a recogniser on labelled motion."""
    _check_sources(arguments)
    model = read_recognizer(arguments.model)
    if not len(model.classes_):
        raise ValueError(f"{arguments.model!r} knows no gesture; teach it one with 'gesda deepmotion teach'.")
    data = _like(_read(arguments, arguments.sources, arguments.seed), model.n_channels_, model.rate_, "the model")
    _check_labels(data, model.classes_)
    with warnings_as_notes():
        scores = measure(model, data)
    lines = _summary(scores)
    lines += [f"recall of {label}: {share:.4g}" for label, share in scores["recall"].items()]
    lines += [
        f"{pair['gesture']} taken for {pair['taken_for']}: {pair['count']} ({pair['share']:.1%})"
        for pair in scores["confusions"]
    ]
    emit(arguments, {"command": "deepmotion evaluate", "model": arguments.model, "data": data.name, **scores}, lines)
    return 0


def _check_labels(data: MotionDataset, classes: NDArray[Any]) -> None:
    """Check that there are labels, and that they are comparable with a model's: both numbers or both text."""
    if not data.labeled.any():
        raise ValueError(f"{data.name!r} has no labels to compare with; give labelled motion.")
    ours, theirs = data.classes, classes.tolist()
    if theirs and isinstance(ours.tolist()[0], str) != isinstance(theirs[0], str):
        raise ValueError(
            f"the labels of {data.name!r} are such as {ours[0]!s}, the model's gestures such as {theirs[0]!s}: one is "
            f"text and the other numbers; check which column is the label."
        )


def measure(model: Any, data: MotionDataset) -> dict[str, Any]:
    """Score a recogniser on labelled motion; labels that it does not know are motion that it should reject.

    ``accuracy`` is that of the most probable gesture, rejected or not; ``accepted`` the share of known gestures that
    is not rejected, ``accepted_accuracy`` the accuracy among these; ``auroc`` the probability that a known gesture
    is more familiar than unknown motion.
    """
    labeled = data[data.labeled]
    assert labeled.labels is not None
    labels, classes = labeled.labels.tolist(), model.classes_.tolist()
    known = np.array([label in set(classes) for label in labels])
    familiarity = model.familiarity(labeled)
    accepted = familiarity >= model.threshold_
    scores: dict[str, Any] = {
        "n_sequences": len(data),
        "n_unlabeled": len(data) - len(labeled),
        "n_known": int(known.sum()),
        "n_unknown": int((~known).sum()),
    }
    predicted = model.predict(labeled).tolist() if classes else [None] * len(labels)
    right = np.array([a == b for a, b in zip(labels, predicted, strict=True)])
    if known.any():
        scores["accuracy"] = float(right[known].mean())
        scores["accepted"] = float(accepted[known].mean())
        if (known & accepted).any():
            scores["accepted_accuracy"] = float(right[known & accepted].mean())
    if not known.all():
        scores["unknown_rejected"] = float((~accepted[~known]).mean())
    if known.any() and not known.all():
        scores["auroc"] = _auroc(familiarity[known], familiarity[~known])
    counts = {label: labels.count(label) for label in classes if label in set(labels)}
    scores["recall"] = {
        label: float(np.mean([right[i] for i, own in enumerate(labels) if own == label])) for label in counts
    }
    pairs: dict[tuple[Any, Any], int] = {}
    for true, guess, is_known in zip(labels, predicted, known, strict=True):
        if is_known and true != guess:
            pairs[true, guess] = pairs.get((true, guess), 0) + 1
    worst = sorted(pairs, key=lambda pair: (-pairs[pair], pair))[:_PAIRS]
    scores["confusions"] = [
        {"gesture": true, "taken_for": guess, "count": pairs[true, guess], "share": pairs[true, guess] / counts[true]}
        for true, guess in worst
    ]
    return scores


def _auroc(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """How often a known one is larger than an unknown one; ties count half."""
    ordered = np.sort(unknown)
    below = np.searchsorted(ordered, known, side="left") + np.searchsorted(ordered, known, side="right")
    return float(below.mean() / (2 * len(ordered)))


def _summary(scores: dict[str, Any]) -> list[str]:
    words = {
        "accuracy": "accuracy: {:.4g}",
        "accepted": "share accepted: {:.4g}",
        "accepted_accuracy": "accuracy of those accepted: {:.4g}",
        "unknown_rejected": "share of unknown motion rejected: {:.4g}",
        "auroc": "AUROC of known against unknown: {:.4g}",
    }
    lines = [f"sequences: {scores['n_known']} of known gestures, {scores['n_unknown']} of others"]
    return lines + [text.format(scores[name]) for name, text in words.items() if name in scores]


# ---- teach ----------------------------------------------------------------------------------------
def teach(arguments: argparse.Namespace) -> int:
    """Teach a recogniser one more gesture."""
    _check_sources(arguments)
    check_output(arguments.output)
    model = read_recognizer(arguments.model)
    name: Any = arguments.name
    if model.classes_.dtype.kind == "i":
        try:
            name = int(name)
        except ValueError:
            raise ValueError(f"the model's gestures are numbers; {name!r} is none.") from None
    data = _like(_read(arguments, arguments.sources, arguments.seed), model.n_channels_, model.rate_, "the model")
    examples = _examples(data, arguments.name)
    started = time.perf_counter()
    with warnings_as_notes():
        model.add_gesture(name, examples.sequences)
    seconds = time.perf_counter() - started
    model.save(arguments.output)
    gestures = model.classes_.tolist()
    result = {
        "command": "deepmotion teach",
        "model": arguments.output,
        "gesture": name,
        "n_examples": len(examples),
        "gestures": gestures,
        "seconds": round(seconds, 3),
    }
    lines = [
        f"taught {arguments.name!r} from {len(examples)} example(s) in {seconds:.2f} s; {len(gestures)} gestures known",
        f"saved to {arguments.output}",
    ]
    emit(arguments, result, lines)
    return 0


def _examples(data: MotionDataset, name: str) -> MotionDataset:
    """The sequences that show the gesture: those with its label, or all if they have no more than one."""
    classes = [str(label) for label in data.classes.tolist()]
    if name in classes:
        assert data.labels is not None
        return data[np.array([str(label) == name for label in data.labels.tolist()])]
    if len(classes) > 1:
        shown = ", ".join(classes[:5])
        raise ValueError(
            f"{data.name!r} has sequences of several gestures ({shown}), none labelled {name!r}; give examples of one."
        )
    return data


# ---- serve ----------------------------------------------------------------------------------------
def serve(arguments: argparse.Namespace) -> int:
    """Serve the web page until Ctrl-C."""
    if (arguments.certificate is None) != (arguments.key is None):
        raise UsageError("--certificate and --key go together; give both files.")
    token = arguments.token
    if arguments.open and arguments.port == 0:
        raise UsageError("--open needs to know the port; give one with --port.")
    from gesda.deepmotion.serve import run

    if arguments.open:
        token = _open_when_ready(arguments)
    run(
        arguments.host,
        arguments.port,
        token=token,
        model=arguments.model,
        allowed_hosts=arguments.allow_host,
        certificate=arguments.certificate,
        key=arguments.key,
    )
    return 0


def _open_when_ready(arguments: argparse.Namespace) -> str | None:
    """Open the browser once the server answers; return the token, made here if one is needed."""
    import secrets
    import webbrowser
    from urllib.parse import quote

    from gesda.deepmotion.serve.security import is_loopback

    token: str | None = arguments.token
    if token is None and not is_loopback(arguments.host):
        token = secrets.token_urlsafe(24)
    everywhere = arguments.host in ("0.0.0.0", "::", "")
    host = "127.0.0.1" if everywhere else arguments.host.strip("[]")
    scheme = "https" if arguments.certificate is not None else "http"
    fragment = "" if token is None else f"#token={quote(token, safe='')}"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{arguments.port}/{fragment}"

    def answers() -> bool:
        try:
            with socket.create_connection((host, arguments.port), timeout=0.5):
                return True
        except OSError:
            return False

    def wait_and_open() -> None:
        for _ in range(300):
            if answers():
                webbrowser.open(url)
                return
            time.sleep(0.2)

    # Something that answers already is another server; ours will say that the port is taken.
    if not answers():
        threading.Thread(target=wait_and_open, daemon=True).start()
    return token
