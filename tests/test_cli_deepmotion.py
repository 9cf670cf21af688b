"""``gesda deepmotion``: what it prints where, what it writes, how it streams, and how it fails."""

from __future__ import annotations

import io
import json
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="gesda.deepmotion needs numba: pip install 'gesda[deepmotion]'")

from gesda.cli import _deepmotion, _deepmotion_arguments, _deepmotion_stream, main
from gesda.deepmotion import GestureRecognizer, GestureStream, make_gesture_stream, make_gestures

FAST = ["--members", "1", "--pretrain-epochs", "1", "--epochs", "2", "--jobs", "1"]
RATE = 100.0


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    status = main(["deepmotion", *map(str, argv)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out, err


def run_json(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    status, out, err = run(capsys, *argv, "--json")
    assert status == 0, err
    result: dict[str, Any] = json.loads(out)
    return result


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser of simulated pointers, trained by the command."""
    path = tmp_path_factory.mktemp("models") / "pointer.gesda"
    argv = ["train", "synthetic", "--kind", "pointer", "--per-class", "4", "--seed", str(secrets.randbelow(1000))]
    assert main(["deepmotion", *argv, "-o", str(path), "-q", *FAST]) == 0
    return path


@pytest.fixture(scope="module")
def recognizer(trained: Path) -> GestureRecognizer:
    return GestureRecognizer.load(trained)


def write_csv(path: Path, rng: np.random.Generator, labels: list[str], *, rate: float = 50.0, people: int = 2) -> Path:
    """Two channels: turns of one sense for ``a``, a shaking for anything else."""
    lines = ["time,x,y,gesture,sequence,person"]
    for number, label in enumerate(labels):
        at = np.arange(40)
        phase = at * (0.2 if label == "a" else 0.9)
        for t, x, y in zip(at / rate, np.cos(phase), np.sin(phase), strict=True):
            noise = rng.normal(0, 0.02, 2)
            lines.append(f"{t:.4f},{x + noise[0]:.4f},{y + noise[1]:.4f},{label},{number},p{number % people}")
    path.write_text("\n".join(lines) + "\n")
    return path


# ---- train ----------------------------------------------------------------------------------------
def test_train_writes_a_recogniser_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", "synthetic", "--per-class", "3", "--rate", "50", "--spectrum", "--rejection-rate", "0.1"]
    argv += ["--normalization", "centered", "--orientation", "gravity", "--resampling", "arc"]
    result = run_json(capsys, *argv, "-o", tmp_path / "m", *FAST)
    model = GestureRecognizer.load(tmp_path / "m")
    assert model.n_channels_ == result["n_channels"] == 3 and model.rate_ == result["rate"] == 50
    assert model.classes_.tolist() == result["gestures"] and result["n_sequences"] == 3 * len(model.classes_)
    params = model.get_params()
    assert (params["normalization"], params["orientation"], params["resampling"]) == ("centered", "gravity", "arc")
    assert params["n_members"] == 1 and params["max_iter"] == 2 and params["pretrain_epochs"] == 1
    assert params["spectrum"] is True and params["rejection_rate"] == 0.1 and params["n_jobs"] == 1


def test_train_shows_progress_on_standard_error_unless_quiet(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", write_csv(tmp_path / "d.csv", rng, ["a", "b"] * 4), "-o", tmp_path / "m", *FAST]
    _, out, err = run(capsys, *argv, "--members", "2", "--log", tmp_path / "log")
    assert "pretrain 1/1" in err and "fine-tuning network 2 of 2" in err and "finetune 2/2" in err
    assert "pretrain" not in out and "saved to" in out
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [record["phase"] for record in records] == ["pretrain"] * 2 + ["finetune"] * 4
    assert run(capsys, *argv, "--quiet")[2] == ""


def test_train_reads_the_columns_it_is_told(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(tmp_path / "d.csv", rng, ["a", "b", "nothing"] * 3)
    path.write_text(path.read_text().replace("time,x,y,gesture,sequence,person", "when,x,y,what,piece,who", 1))
    argv = ["--time", "when", "--labels", "what", "--sequences", "4", "--groups", "who", "--unlabeled", "nothing"]
    result = run_json(capsys, "train", path, *argv, "--time-unit", "s", "-o", tmp_path / "m", *FAST)
    assert result["gestures"] == ["a", "b"] and (result["n_sequences"], result["n_labeled"]) == (9, 6)
    assert result["rate"] == pytest.approx(50)


def test_train_takes_several_files_as_channels(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    names = []
    for axis in "XYZ":
        rows = np.column_stack([np.arange(8) % 2, rng.normal(size=(8, 30))])
        np.savetxt(tmp_path / f"{axis}.tsv", rows, delimiter="\t")
        names.append(tmp_path / f"{axis}.tsv")
    result = run_json(capsys, "train", *names, "--test", *names, "-o", tmp_path / "m", *FAST)
    assert result["n_channels"] == 3 and result["gestures"] == [0, 1]
    assert result["test"]["n_known"] == 8


def test_test_fraction_keeps_whole_groups_apart(rng: np.random.Generator) -> None:
    data = make_gestures(int(rng.integers(4, 9)), kind="pointer", gestures=3, n_unlabeled=6, n_users=4, rate=30.0)
    training, test = _deepmotion._split(data, float(rng.uniform(0.1, 0.9)), int(rng.integers(1000)))
    assert training.groups is not None and test.groups is not None
    assert not set(training.groups.tolist()) & set(test.groups.tolist())
    assert test.labeled.all() and training.labeled.any()


def test_test_fraction_without_groups_takes_its_share_of_every_gesture(rng: np.random.Generator) -> None:
    data = make_gestures(8, kind="pointer", gestures=3, n_users=1, n_unlabeled=5, rate=30.0)
    training, test = _deepmotion._split(data, 0.25, int(rng.integers(1000)))
    assert test.labels is not None
    assert sorted(test.labels.tolist()) == sorted(data.classes.tolist() * 2)
    assert len(training) + len(test) == len(data) and not training.labeled.all()


def test_train_without_labels_prepares_for_teaching(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(tmp_path / "d.csv", rng, ["?"] * 6)
    status, out, err = run(capsys, "train", path, "-o", tmp_path / "m", *FAST)
    assert status == 0 and "0 gestures" in out and "none of the sequences has a label" in err
    for name in "ab":
        examples = write_csv(tmp_path / f"{name}.csv", rng, [name] * 3)
        result = run_json(capsys, "teach", tmp_path / "m", name, examples, "-o", tmp_path / "m")
    assert result["gestures"] == ["a", "b"]
    assert GestureRecognizer.load(tmp_path / "m").classes_.tolist() == ["a", "b"]


def test_helps_defaults_are_the_recognisers() -> None:
    defaults = GestureRecognizer().get_params()
    for _, parameter, default, reader, _ in _deepmotion_arguments.TRAINING:
        assert reader(default) == defaults[parameter], parameter


# ---- evaluate -------------------------------------------------------------------------------------
def test_evaluate_tells_what_the_recogniser_says(
    trained: Path, recognizer: GestureRecognizer, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = secrets.randbelow(1000) + 1000
    argv = ["evaluate", trained, "synthetic", "--kind", "pointer", "--per-class", "2", "--seed", seed]
    scores = run_json(capsys, *argv)
    data = make_gestures(2, kind="pointer", random_state=seed)
    answers = [recognizer.recognize(sequence) for sequence in data.sequences]
    assert data.labels is not None
    right = [answer.best == label for answer, label in zip(answers, data.labels, strict=True)]
    assert scores["accuracy"] == pytest.approx(np.mean(right))
    assert scores["accepted"] == pytest.approx(np.mean([answer.label is not None for answer in answers]))
    assert scores["recall"]["wave"] == np.mean([ok for ok, label in zip(right, data.labels, strict=True)
                                                if label == "wave"])  # fmt: skip
    assert scores["n_known"] == len(data) and scores["n_unknown"] == 0 and "unknown_rejected" not in scores
    assert sum(pair["count"] for pair in scores["confusions"]) <= len(data) - sum(right)
    _, out, _ = run(capsys, *argv)
    assert "accuracy: " in out and "share accepted: " in out and "recall of wave: " in out


def test_labels_that_the_model_lacks_are_motion_to_reject(
    tmp_path: Path, recognizer: GestureRecognizer, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = GestureRecognizer.load(trained).remove_gesture("wave").remove_gesture("spiral")
    model.save(tmp_path / "m")
    argv = ["evaluate", tmp_path / "m", "synthetic", "--kind", "pointer", "--per-class", "3"]
    scores = run_json(capsys, *argv)
    data = make_gestures(3, kind="pointer", gestures=["wave", "spiral"], random_state=1)
    rejected = np.mean([model.recognize(sequence).label is None for sequence in data.sequences])
    assert scores["n_unknown"] == 6 and scores["unknown_rejected"] == pytest.approx(rejected)
    assert "wave" not in scores["recall"] and 0 <= scores["auroc"] <= 1
    assert "unknown motion rejected" in run(capsys, *argv)[1]


def test_auroc_is_the_share_of_ordered_pairs(rng: np.random.Generator) -> None:
    known, unknown = rng.integers(5, size=20).astype(float), rng.integers(4, size=13).astype(float)
    pairs = [(k > u) + 0.5 * (k == u) for k in known for u in unknown]
    assert _deepmotion._auroc(known, unknown) == pytest.approx(np.mean(pairs))


def test_motion_at_another_rate_is_interpolated_to_the_models(rng: np.random.Generator) -> None:
    data = make_gestures(1, kind="pointer", gestures=2, rate=50.0, random_state=int(rng.integers(1000)))
    twice = _deepmotion._like(data, 2, 100.0, "the model")
    assert twice.rate == 100.0
    for before, after in zip(data.sequences, twice.sequences, strict=True):
        np.testing.assert_allclose(after[::2], before, atol=1e-6)
        np.testing.assert_allclose(after[1::2], (before[1:] + before[:-1]) / 2, atol=1e-6)
    assert _deepmotion._like(data, 2, 50.01, "the model") is data
    assert _deepmotion._like(data, 2, None, "the model") is data


# ---- teach ----------------------------------------------------------------------------------------
def test_teach_adds_a_gesture_and_leaves_the_model_it_began_with(
    tmp_path: Path, trained: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trained.read_bytes()
    examples = []
    for i in range(3):
        examples.append(tmp_path / f"shake_{i}.csv")
        write_csv(examples[-1], rng, ["shake"], rate=RATE)
    argv = ["teach", trained, "shake", *examples, "--labels", "gesture", "--output", tmp_path / "n"]
    result = run_json(capsys, *argv)
    assert result["n_examples"] == 3 and result["gestures"][-1] == "shake"
    assert GestureRecognizer.load(tmp_path / "n").classes_[-1] == "shake"
    assert trained.read_bytes() == before


def test_teach_takes_the_sequences_of_that_name(
    tmp_path: Path, trained: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(tmp_path / "d.csv", rng, ["a", "b", "a", "b", "b"])
    assert run_json(capsys, "teach", trained, "b", path, "-o", tmp_path / "n")["n_examples"] == 3
    status, _, err = run(capsys, "teach", trained, "c", path, "-o", tmp_path / "x")
    assert status == 1 and "several gestures (a, b), none labelled 'c'" in err and not (tmp_path / "x").exists()


# ---- stream ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def recording(recognizer: GestureRecognizer) -> np.ndarray:
    """Three gestures with rests between, of a user whom the recogniser has not seen."""
    samples, _ = make_gesture_stream(
        3, kind="pointer", n_users=1, rate=RATE, gap=(0.6, 0.8), random_state=secrets.randbelow(10**6)
    )
    return samples.astype(np.float64).round(5)


def expected(recognizer: GestureRecognizer, samples: np.ndarray, times: np.ndarray | None = None) -> list[Any]:
    stream = GestureStream(recognizer, unknown=True)
    events = stream.push(samples, times) + stream.flush()
    return [(event.label, pytest.approx(event.start), pytest.approx(event.end)) for event in events]


def shown(out: str) -> list[Any]:
    events = [json.loads(line) for line in out.splitlines()]
    return [(event["gesture"], event["start"], event["end"]) for event in events if "report" not in event]


def as_csv(samples: np.ndarray) -> str:
    return "".join(",".join(f"{value:.5f}" for value in row) + "\n" for row in samples)


def as_json(samples: np.ndarray, times: np.ndarray) -> str:
    rows = zip(times.tolist(), samples.tolist(), strict=True)
    return "".join(json.dumps({"t": t, "v": values}) + "\n" for t, values in rows)


def stream(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: Path, text: str | bytes, *argv: str
) -> tuple[int, str, str]:
    data = text.encode() if isinstance(text, str) else text
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return run(capsys, "stream", model, *argv)


@pytest.mark.parametrize("form", ["csv", "csv with names", "csv with times", "json", "json lists", "semicolons"])
def test_every_form_of_samples_gives_the_streams_events(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    trained: Path,
    recognizer: GestureRecognizer,
    recording: np.ndarray,
    form: str,
) -> None:
    times = 1.7e5 + np.arange(len(recording)) / RATE
    argv, timed = ["--unknown"], form in ("json", "csv with times")
    if form == "json":
        text = as_json(recording, times)
    elif form == "json lists":
        text = "".join(f"{row}\r\n" for row in recording.tolist())
    elif form == "csv with times":
        text, argv = as_csv(np.column_stack([times, recording])), [*argv, "--time"]
    else:
        text = {"csv": "", "csv with names": "\ufeffx,y\n", "semicolons": "\n"}[form] + as_csv(recording)
        text = text.replace(",", ";") if form == "semicolons" else text
    status, out, err = stream(capsys, monkeypatch, trained, text, *argv)
    assert (status, err) == (0, "")
    events = expected(recognizer, recording, times if timed else None)
    assert events and shown(out) == events


def test_unknown_motion_is_an_event_only_if_asked_for(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    trained: Path,
    recognizer: GestureRecognizer,
    recording: np.ndarray,
    tmp_path: Path,
) -> None:
    ignorant = GestureRecognizer.load(trained)
    for name in ignorant.classes_.tolist():
        ignorant.remove_gesture(name)
    ignorant.save(tmp_path / "m")
    status, out, err = stream(capsys, monkeypatch, tmp_path / "m", as_csv(recording))
    assert (status, out) == (0, "") and "knows no gesture" in err
    _, out, _ = stream(capsys, monkeypatch, tmp_path / "m", as_csv(recording), "--unknown")
    assert {gesture for gesture, *_ in shown(out)} == {None}


MALFORMED = [
    b"1,2,3", b"1", b"one,two", b"0.1,0x2", b"1_0,2", b"[1,2", b"[1]", b"[1,true]", b"[1,[2]]",
    b'{"t":"now","v":[1,2]}',
    b'{"v":3}', b"{}", b"[" * 3000, b"[1," + b"9" * 400 + b"]", b"[1," + b"9" * 4500 + b"]", b"1,2" + b" " * 10**5,
    b"\xff\xfe,1", b"\0,\0", b'{"t":1e0,"v":"12"}', b"[" + b"9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("line", MALFORMED, ids=[repr(line[:22]) for line in MALFORMED])
def test_a_malformed_line_is_told_counted_and_left_out(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    trained: Path,
    recognizer: GestureRecognizer,
    recording: np.ndarray,
    line: bytes,
) -> None:
    rows = as_csv(recording).encode().splitlines()
    rows[40:40] = [line]
    rows[70:70] = [line]
    _, out, err = stream(capsys, monkeypatch, trained, b"\n".join(rows), "--unknown", "--report")
    assert shown(out) == expected(recognizer, recording)
    first, last = err.strip().splitlines()
    assert first.startswith("gesda: line 41: ") and first.endswith("malformed lines are counted and left out.")
    assert last == f"gesda: 2 of {len(recording) + 2} lines were malformed and left out."
    report = json.loads(out.splitlines()[-1])["report"]
    assert report["malformed"] == 2 and report["lines"] == len(recording) + 2
    assert report["received"] == len(recording)


def test_missing_values_and_infinities_are_the_streams_to_repair(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    text = "0,0\n,1\n1,nan\n[null,2]\n[1e999,NaN]\n"
    status, out, err = stream(capsys, monkeypatch, trained, text, "--report")
    report = json.loads(out)["report"]
    assert (status, err) == (0, "") and (report["received"], report["not_finite"]) == (5, 5)


def test_random_bytes_end_in_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trained: Path, rng: np.random.Generator
) -> None:
    alphabet = np.frombuffer(b'[]{},;\t\n\n\r0123456789.-+eE"tv:nulainf \xff\0', dtype=np.uint8)
    data = rng.choice(alphabet, 200_000).tobytes()
    status, out, _ = stream(capsys, monkeypatch, trained, data, "--report", *rng.choice(["--time", "--unknown"], 1))
    assert status == 0 and json.loads(out.splitlines()[-1])["report"]["lines"] > 1000


def test_lines_are_the_same_however_the_bytes_come(rng: np.random.Generator) -> None:
    lines = [bytes(rng.choice(np.frombuffer(b"ab", np.uint8), int(n))) for n in rng.integers(0, 12, 200)]
    data = b"\n".join(lines)
    cutter, got = _deepmotion_stream._Lines(8), []
    at = 0
    while at < len(data):
        size = int(rng.integers(1, 20))
        got += cutter.cut(data[at : at + size])
        at += size
        assert len(cutter._kept) <= 8
    got += cutter.last()
    wanted = [line if len(line) <= 8 else None for line in lines]
    assert got == (wanted if lines[-1] else wanted[:-1])


# ---- stream as a process --------------------------------------------------------------------------
class Process:
    """The command with a pipe to write to, and what it prints as it comes."""

    def __init__(self, *argv: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gesda.cli", "deepmotion", "stream", *map(str, argv)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.out: queue.Queue[bytes] = queue.Queue()
        self.err: queue.Queue[bytes] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._follow, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _follow(pipe: IO[bytes], lines: queue.Queue[bytes]) -> None:
        for line in pipe:
            lines.put(line)

    def write(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def end(self) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None and self.process.stderr is not None
        self.process.stdin.close()
        status = self.process.wait(60)
        for thread in self._threads:
            thread.join(10)
        return status

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for thread in self._threads:
            thread.join(10)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.stop()


def rest_of(lines: queue.Queue[bytes]) -> str:
    return b"".join(lines.get() for _ in range(lines.qsize())).decode()


def test_an_event_is_written_before_the_input_ends(
    processes: list[Process], trained: Path, recognizer: GestureRecognizer, recording: np.ndarray
) -> None:
    processes.append(process := Process(trained, "--unknown"))
    events = expected(recognizer, recording)
    text = as_csv(recording)
    half = len(text) // 3
    process.write(text[:half])  # ends within a line
    process.write(text[half:])
    first = process.out.get(timeout=60)  # the pipe is still open
    assert process.process.poll() is None
    assert process.end() == 0
    assert shown(first.decode() + rest_of(process.out)) == events
    assert rest_of(process.err) == ""


def test_a_malformed_line_is_told_at_once(processes: list[Process], trained: Path) -> None:
    processes.append(process := Process(trained))
    process.write("nonsense\n1,2,nonsense\n")
    assert b"line 2: 3 value(s) where the model has 2 channel(s)" in process.err.get(timeout=60)
    assert process.end() == 0


def test_ctrl_c_ends_the_stream_like_the_end_of_its_input(
    processes: list[Process], trained: Path, recognizer: GestureRecognizer, recording: np.ndarray
) -> None:
    processes.append(process := Process(trained, "--unknown", "--report"))
    process.write("x,y\nno\n" + as_csv(recording))
    process.err.get(timeout=60)
    events = [process.out.get(timeout=60)]
    process.process.send_signal(signal.SIGINT)
    assert process.process.wait(60) == 130
    process.end()
    out = b"".join(events).decode() + rest_of(process.out)
    err = rest_of(process.err)
    assert "malformed" in err and "Traceback" not in err and "nothing was written" not in err
    assert json.loads(out.splitlines()[-1])["report"]["malformed"] == 1
    assert shown(out)[:1] == expected(recognizer, recording)[:1]


def test_a_reader_that_goes_away_ends_it_quietly(trained: Path, recording: np.ndarray) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gesda.cli", "deepmotion", "stream", str(trained), "--unknown"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(as_csv(recording).encode(), timeout=60)
    assert process.returncode == 141 and err == b""


def test_datagrams_on_loopback_give_the_streams_events(
    processes: list[Process], trained: Path, recognizer: GestureRecognizer, recording: np.ndarray
) -> None:
    processes.append(process := Process(trained, "--unknown", "--udp", "0", "--report"))
    told = process.err.get(timeout=60).decode()
    assert "listening on 127.0.0.1" in told
    port = int(told.split()[-1])
    lines = as_json(recording, np.arange(len(recording)) / RATE).splitlines()
    events = expected(recognizer, recording, np.arange(len(recording)) / RATE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for at in range(0, len(lines), 5):  # some with, some without the end of their last line
            sender.sendto("\n".join(lines[at : at + 5]).encode() + b"\n" * (at % 2), ("127.0.0.1", port))
        sender.sendto(b"\xff\n[1]", ("127.0.0.1", port))
    first = process.out.get(timeout=60)
    assert b"line " in process.err.get(timeout=60)  # all before it has been read
    process.process.send_signal(signal.SIGINT)
    assert process.process.wait(60) == 130
    process.end()
    out = first.decode() + rest_of(process.out)
    assert shown(out) == events
    report = json.loads(out.splitlines()[-1])["report"]
    assert report["received"] == len(recording) and report["lines"] == len(recording) + report["malformed"]


def test_a_port_that_is_taken_is_one_sentence(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        status, _, err = run(capsys, "stream", trained, "--udp", other.getsockname()[1])
    assert status == 1 and "cannot listen on 127.0.0.1, UDP port" in err and "choose another port" in err


# ---- serve ----------------------------------------------------------------------------------------
@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr("gesda.deepmotion.serve.run", lambda *args, **options: calls.append((args, options)))
    return calls


def test_serve_hands_its_options_over(
    capsys: pytest.CaptureFixture[str], served: list[tuple[tuple[Any, ...], dict[str, Any]]]
) -> None:
    assert run(capsys, "serve")[0] == 0
    options = {"token": None, "model": None, "allowed_hosts": [], "certificate": None, "key": None}
    assert served == [(("127.0.0.1", 8321), options)]
    argv = ["serve", "m", "--host", "0.0.0.0", "--port", "9", "--token", "t" * 20, "--allow-host", "a", "--allow-host"]
    assert run(capsys, *argv, "b", "--certificate", "c", "--key", "k")[0] == 0
    options = {"token": "t" * 20, "model": "m", "allowed_hosts": ["a", "b"], "certificate": "c", "key": "k"}
    assert served[1] == (("0.0.0.0", 9), options)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_open_opens_the_page_once_the_server_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    opened: queue.Queue[str] = queue.Queue()
    tokens = []

    def answer(host: str, port: int, **options: Any) -> None:
        tokens.append(options["token"])
        with socket.create_server(("127.0.0.1", port)):
            opened.put(opened.get(timeout=20))

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr("webbrowser.open", opened.put)
    monkeypatch.setattr("gesda.deepmotion.serve.run", answer)
    assert run(capsys, "serve", "--open", "--host", host, "--port", port)[0] == 0
    fragment = f"#token={tokens[0]}" if host == "0.0.0.0" else ""
    assert (tokens[0] is None) == (host == "127.0.0.1")
    assert opened.get(timeout=20) == f"http://127.0.0.1:{port}/{fragment}"


# ---- failures -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["unknown"],
        ["train", "synthetic"],
        ["train", "synthetic", "-o", "m", "--members", "one"],
        ["train", "synthetic", "-o", "m", "--rejection-rate", "1"],
        ["train", "synthetic", "-o", "m", "--kind", "hat"],
        ["train", "synthetic", "-o", "m", "--rate", "nan"],
        ["train", "synthetic", "-o", "m", "--test-fraction", "0.5", "--test", "synthetic"],
        ["train", "synthetic", "-o", "m", "--labels", "x"],
        ["train", "synthetic", "d.csv", "-o", "m"],
        ["train", "d.csv", "-o", "m", "--kind", "pointer"],
        ["train", "d.csv", "-o", "m", "--per-class", "3"],
        ["evaluate", "m"],
        ["stream"],
        ["stream", "m", "--udp", "70000"],
        ["stream", "m", "--rate", "0"],
        ["stream", "m", "--format", "xml"],
        ["serve", "--certificate", "c"],
        ["serve", "--open", "--port", "0"],
    ],
)
def test_wrong_usage_exits_with_2_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *argv)
    assert status == 2 and out == "" and "error: " in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "absent.csv", "-o", "m"], "'absent.csv'"),
        (["train", "motion.xyz", "-o", "m"], "whose kind is known by its name"),
        (["train", "synthetic", "-o", "absent/m"], "does not exist; create it first"),
        (["train", "synthetic", "-o", "m", "--log", "."], "is a folder"),
        (["train", "synthetic", "--per-class", "2", "-o", "m", "--members", "0"], "n_members must be"),
        (["train", "synthetic", "--per-class", "2", "-o", "m", "--normalization", "odd"], "odd"),
        (["train", "synthetic", "--per-class", "-1", "-o", "m"], "must not be negative"),
        (["train", "one.csv", "-o", "m"], "one sequence is too few"),
        (["train", "ab.csv", "-o", "m", "--labels", "what"], "has no label column 'what'"),
        (["train", "one.csv", "-o", "m", "--test-fraction", "0.5"], "too few to keep 0.5 of them"),
        (["train", "ab.csv", "-o", "m", "--test", "none.csv"], "has no labels to compare with"),
        (["train", "ab.csv", "-o", "m", "--test", "synthetic"], "3 channel(s) and 'ab.csv' 2"),
        (["evaluate", "absent.gesda", "synthetic"], "'absent.gesda'"),
        (["evaluate", "ab.csv", "synthetic"], "not a GeSdA"),
        (["stream", "absent.gesda"], "'absent.gesda'"),
        (["teach", "absent.gesda", "wave", "ab.csv", "-o", "n"], "'absent.gesda'"),
        (["serve", "absent.gesda"], "no model file 'absent.gesda'"),
    ],
)
def test_users_mistakes_exit_with_1_and_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rng: np.random.Generator,
    argv: list[str],
    message: str,
) -> None:
    if argv[0] == "serve":
        for package in ("starlette", "uvicorn", "websockets"):
            pytest.importorskip(package, reason="the web page needs it: pip install 'gesda[deepmotion]'")
    monkeypatch.chdir(tmp_path)
    for name, labels in (("ab.csv", ["a", "b"] * 2), ("one.csv", ["a"]), ("none.csv", ["?", "?"])):
        write_csv(tmp_path / name, rng, labels)
    before = sorted(p.name for p in tmp_path.iterdir())
    status, out, err = run(capsys, *argv)
    assert status == 1 and out == "" and message in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_evaluate_compares_kinds_of_labels_and_channels(
    trained: Path, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, "evaluate", trained, write_csv(tmp_path / "n.csv", rng, ["1", "2"]))
    assert status == 1 and "one is text and the other numbers" in err
    status, _, err = run(capsys, "evaluate", trained, "synthetic", "--kind", "accelerometer")
    assert status == 1 and "3 channel(s) and the model 2" in err


def test_a_model_that_knows_no_rate_asks_for_one(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savetxt(tmp_path / "d.tsv", np.column_stack([np.arange(6) % 2, rng.normal(size=(6, 30))]), delimiter="\t")
    run_json(capsys, "train", tmp_path / "d.tsv", "-o", tmp_path / "m", *FAST)
    status, _, err = stream(capsys, monkeypatch, tmp_path / "m", "1\n")
    assert status == 1 and "give --rate HZ" in err
    assert stream(capsys, monkeypatch, tmp_path / "m", "1\n", "--rate", "20")[0] == 0


def test_ctrl_c_in_a_training_writes_nothing(tmp_path: Path) -> None:
    argv = ["deepmotion", "train", "synthetic", "--per-class", "4", "--members", "2", "--epochs", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gesda.cli", *argv, "-o", str(tmp_path / "m"), "--pretrain-epochs", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(b"finetune 2/"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == b"" and not list(tmp_path.iterdir())
    assert b"interrupted; nothing was written" in err and b"Traceback" not in err and b"network 2" not in err


def test_a_failed_training_leaves_the_old_model(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = trained.read_bytes()
    argv = ["train", "synthetic", "--per-class", "2", "-o", trained, *FAST]
    assert run(capsys, *argv, "--orientation", "upright")[0] == 1
    assert trained.read_bytes() == before


def test_a_missing_numba_is_one_sentence(trained: Path) -> None:
    code = "import sys; sys.modules['numba'] = None; from gesda.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "deepmotion", "stream", str(trained)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "needs numba; install it with: pip install 'gesda[deepmotion]'" in done.stderr


def test_help_shows_examples_everywhere_and_is_quick() -> None:
    code = (
        "import sys; from gesda.cli import main\n"
        "for name in ([], ['train'], ['evaluate'], ['teach'], ['stream'], ['serve']):\n"
        "    main(['deepmotion', *name, '--help'])\n"
        "print([m for m in sys.modules if m in ('numba', 'sklearn', 'scipy', 'uvicorn', 'gesda.deepmotion')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.count("examples:\n  ") == 6


# ---- info -----------------------------------------------------------------------------------------
def test_info_describes_a_recognizer_from_its_header(trained, recognizer, capsys):
    assert main(["info", str(trained)]) == 0
    text = capsys.readouterr().out
    assert all(str(name) in text for name in recognizer.classes_)
    assert "2 channels" in text and "taught or forgotten after training: 0 gestures" in text
    assert main(["info", str(trained), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["gestures"] == recognizer.classes_.tolist()
    assert result["n_members"] == recognizer.n_members and "stack.layers.0.W" in " ".join(result["arrays"])
