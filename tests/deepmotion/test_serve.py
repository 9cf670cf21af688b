"""The server of the gestures' page: teaching, sessions, models, and the command.

Every test talks to a real server over loopback. The recogniser is a stand-in: the server alone is tested.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the web page needs the deepmotion extra: starlette is absent")
pytest.importorskip("uvicorn", reason="the web page needs the deepmotion extra: uvicorn is absent")
pytest.importorskip("websockets", reason="the web page needs the deepmotion extra: websockets is absent")

from websockets.exceptions import ConnectionClosed, InvalidStatus

from gesda.deepmotion.data.sequences import MotionDataset
from gesda.deepmotion.serve import Limits, run
from tests.deepmotion.live_server import LiveServer, make_standin
from tests.deepmotion.standin import StandIn
from tests.deepmotion.visitor import Visitor, assert_alive, stroke

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(limits=Limits(sessions=2000)) as live:
        yield live


@pytest.fixture
def visitor(server: LiveServer) -> Iterator[Visitor]:
    with Visitor(server) as one:
        yield one


# ---- teaching and recognising --------------------------------------------------------------------
def test_three_examples_are_learnt_and_recognised(visitor: Visitor) -> None:
    visitor.teach("circle", "circle")
    visitor.teach("zigzag", "zigzag")
    assert visitor.ask("recognize", input="pointer", stroke=stroke("zigzag"))["label"] == "zigzag"
    answer = visitor.ask("recognize", input="pointer", stroke=stroke("circle"))
    assert answer["label"] == "circle" and 0.5 < answer["confidence"] <= 1.0 and answer["latency_ms"] > 0.0
    assert len(answer["motion"]) == len(answer["reconstruction"]) and len(answer["place"]) == 2


def test_what_is_no_gesture_is_rejected(visitor: Visitor) -> None:
    visitor.teach("circle", "circle")
    assert visitor.ask("recognize", input="pointer", stroke=stroke("scribble"))["label"] is None


def test_two_examples_are_not_learnt_yet(visitor: Visitor) -> None:
    for _ in range(2):
        visitor.ask("example", input="pointer", name="circle", stroke=stroke("circle"))
    (gesture,) = visitor.ask("use", input="pointer")["gestures"]
    assert not gesture["learnt"] and len(gesture["examples"]) == 2
    assert visitor.ask("recognize", input="pointer", stroke=stroke("circle"))["code"] == "untaught"


def test_undo_takes_back_the_last_example_and_what_was_learnt_of_it(visitor: Visitor) -> None:
    visitor.teach("circle", "circle", n=4)
    visitor.send({"type": "undo", "input": "pointer", "name": "circle"})
    visitor.hear("learnt", name="circle", examples=3)
    visitor.send({"type": "undo", "input": "pointer", "name": "circle"})
    while gesture := visitor.hear("state")["gestures"][0]:
        if len(gesture["examples"]) == 2 and not gesture["pending"]:
            break
    assert not gesture["learnt"]
    assert visitor.ask("recognize", input="pointer", stroke=stroke("circle"))["code"] == "untaught"


def test_a_deleted_gesture_is_forgotten(visitor: Visitor) -> None:
    visitor.teach("circle", "circle")
    visitor.teach("zigzag", "zigzag")
    visitor.send({"type": "forget", "input": "pointer", "name": "circle"})
    while {row[0] for row in visitor.hear("map")["points"]} != {"zigzag"}:
        pass
    answer = visitor.ask("recognize", input="pointer", stroke=stroke("circle"))
    assert [name for name, _ in answer["probabilities"]] == ["zigzag"]


def test_the_map_has_a_point_for_each_example(visitor: Visitor) -> None:
    visitor.teach("circle", "circle", n=4)
    while len(points := visitor.hear("map")["points"]) < 4:
        pass
    assert [row[:2] for row in points] == [["circle", index] for index in range(4)]
    assert np.abs(np.array([row[2:] for row in points])).max() <= 1.0


def test_an_example_can_be_looked_at(visitor: Visitor) -> None:
    visitor.teach("circle", "circle")
    answer = visitor.ask("look", input="pointer", name="circle", index=2)
    assert answer["type"] == "shape" and np.shape(answer["motion"]) == np.shape(answer["reconstruction"])
    assert visitor.ask("look", input="pointer", name="circle", index=3)["code"] == "absent"


def test_training_anew_sends_curves_and_keeps_the_gestures(visitor: Visitor) -> None:
    visitor.teach("circle", "circle")
    visitor.teach("zigzag", "zigzag")
    visitor.send({"type": "train", "input": "pointer"})
    visitor.hear("trained")
    series = visitor.hear("curves")["series"]
    assert [one["name"] for one in series] == ["layer 1", "layer 2"] and len(series[0]["points"]) == 20
    assert visitor.ask("recognize", input="pointer", stroke=stroke("zigzag"))["label"] == "zigzag"


def test_training_anew_takes_the_background_along() -> None:
    seen: list[tuple[int, list[Any]]] = []

    class Watched(StandIn):
        def fit(self, sequences: Any, labels: Any = None, *, callbacks: Any = None) -> StandIn:
            seen.append((len(sequences), [label for label in labels if label is not None]))
            return super().fit(sequences, labels, callbacks=callbacks)

    sequences = MotionDataset([np.random.default_rng().normal(size=(20, 2)) for _ in range(5)])
    watched = LiveServer(make_recognizer=lambda kind: Watched(2), background=lambda kind: sequences)
    with watched as server, Visitor(server) as one:
        one.teach("circle", "circle")
        one.teach("zigzag", "zigzag")
        one.send({"type": "train", "input": "pointer"})
        one.hear("trained")
    assert seen == [(11, ["circle"] * 3 + ["zigzag"] * 3)]


def test_a_drawing_is_the_same_elsewhere_and_in_another_size(visitor: Visitor) -> None:
    visitor.teach("circle", "circle")
    rows = stroke("circle")
    small = [[t, 50 + 0.2 * x, 0.2 * y - 7] for t, x, y in rows]
    answers = [visitor.ask("recognize", input="pointer", stroke=given) for given in (rows, small)]
    assert answers[0]["label"] == answers[1]["label"] == "circle"
    assert answers[0]["familiarity"] == pytest.approx(answers[1]["familiarity"], abs=1e-3)


def test_training_needs_two_gestures(visitor: Visitor) -> None:
    visitor.teach("circle", "circle")
    assert visitor.ask("train", input="pointer")["code"] == "too-few"


def test_the_server_answers_others_while_it_learns() -> None:
    class Slow(StandIn):
        def add_gesture(self, name: Any, examples: Any) -> StandIn:
            time.sleep(1.0)
            return super().add_gesture(name, examples)

    slow = LiveServer(make_recognizer=lambda kind: Slow(2), load_recognizer=Slow.load)
    with slow as server, Visitor(server) as one, Visitor(server) as other:
        for _ in range(3):
            one.ask("example", input="pointer", name="circle", stroke=stroke("circle"))
        one.hear("state", busy="learning")
        started = time.monotonic()
        for _ in range(5):
            assert other.ask("ping")["type"] == one.ask("ping")["type"] == "pong"
        assert time.monotonic() - started < 0.8
        one.hear("learnt")


def test_one_training_at_a_time() -> None:
    def make(kind: str) -> StandIn:
        return StandIn(2, epoch_seconds=0.05)

    with LiveServer(make_recognizer=make) as server, Visitor(server) as one:
        one.teach("circle", "circle")
        one.teach("zigzag", "zigzag")
        one.send({"type": "train", "input": "pointer"})
        assert one.ask("train", input="pointer")["code"] == "busy"
        one.send({"type": "stop", "input": "pointer"})
        answer = one.hear("trained")
        assert answer["stopped"] and answer["seconds"] < 0.9  # all epochs take a second


def test_a_recogniser_that_is_not_fitted_is_pretrained_with_curves() -> None:
    class Bare(StandIn):
        def __init__(self, n_channels: int | None = None) -> None:
            if n_channels is not None:
                super().__init__(n_channels)

        def fit(self, sequences: Any, labels: Any = None, *, callbacks: Any = None) -> StandIn:
            assert len(sequences) == 5
            StandIn.__init__(self, 2)
            return super().fit(sequences, None, callbacks=callbacks)

    sequences = MotionDataset([np.random.default_rng().normal(size=(20, 2)) for _ in range(5)])
    with LiveServer(
        make_recognizer=lambda kind: Bare(), load_recognizer=Bare.load, background=lambda kind: sequences
    ) as server, Visitor(server) as one:  # fmt: skip
        one.send({"type": "use", "input": "pointer"})
        one.hear("state", busy="preparing")
        while not (series := one.hear("curves")["series"]):
            pass
        assert series[0]["phase"] == "pretrain"
        one.teach("circle", "circle")


def test_a_recogniser_that_fails_is_told_and_the_server_goes_on() -> None:
    class Broken(StandIn):
        def add_gesture(self, name: Any, examples: Any) -> StandIn:
            raise ValueError("it cannot learn that; try another gesture.")

    broken = LiveServer(make_recognizer=lambda kind: Broken(2), load_recognizer=Broken.load)
    with broken as server, Visitor(server) as one:
        for _ in range(3):
            one.ask("example", input="pointer", name="circle", stroke=stroke("circle"))
        assert "it cannot learn that" in one.hear("error")["message"]
        assert one.ask("ping")["type"] == "pong"


def test_a_phones_motion_is_spotted_as_it_comes(visitor: Visitor) -> None:
    for name in ("shake", "push"):
        for _ in range(3):
            visitor.ask(
                "example", input="phone", name=name, stroke=[[t, 9 * x, 9 * y, 9 * z] for t, x, y, z in stroke(name)]
            )
        visitor.hear("learnt", name=name)
    rows = [[t + 100.0, 9 * x, 9 * y, 9 * z] for t, x, y, z in stroke("shake")]
    for begin in range(0, len(rows), 10):
        visitor.send({"type": "samples", "input": "phone", "samples": rows[begin : begin + 10]})
    visitor.send({"type": "rest", "input": "phone"})
    assert visitor.hear("event")["label"] == "shake"


# ---- sessions ------------------------------------------------------------------------------------
def test_a_session_is_there_again_after_a_reconnect(server: LiveServer) -> None:
    with Visitor(server) as one:
        one.teach("circle", "circle")
        one.close()
        one.enter().open()
        assert [g["name"] for g in one.ask("use", input="pointer")["gestures"]] == ["circle"]


def test_sessions_do_not_see_each_other(server: LiveServer) -> None:
    with Visitor(server) as one, Visitor(server) as other:
        one.teach("mine", "circle")
        assert other.ask("use", input="pointer")["gestures"] == []
        assert other.ask("look", input="pointer", name="mine", index=0)["code"] == "absent"
        other.teach("mine", "zigzag")
        assert one.ask("recognize", input="pointer", stroke=stroke("zigzag"))["label"] is None


def test_the_cookie_is_hidden_from_scripts_and_other_sites(server: LiveServer) -> None:
    _, headers, _ = Visitor(server).request("POST", "/session")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and len(cookie.split(";")[0].split("=")[1]) >= 43


@pytest.mark.parametrize(
    "cookie", ["", "gesda-{port}=", "gesda-{port}=guess", "gesda-{port}=\udc80", "x=" + 4000 * "a"]
)
def test_without_a_session_there_is_no_conversation(server: LiveServer, cookie: str) -> None:
    one = Visitor(server)
    one.cookie = cookie.format(port=server.port).encode("utf-8", "surrogateescape").decode("latin-1")
    with pytest.raises(InvalidStatus, match="403"):
        one.open()
    assert one.request("GET", "/models/pointer")[0] == 401
    assert one.request("POST", "/models", b"model")[0] == 401


def test_sessions_are_of_bounded_number() -> None:
    with LiveServer(limits=Limits(sessions=3)) as server:
        visitors = [Visitor(server).enter() for _ in range(3)]
        status, _, body = Visitor(server).request("POST", "/session")
        assert status in (429, 503) and json.loads(body)["code"] in ("too-fast", "full")
        assert len(server.services.store) == 3
        assert visitors[0].request("POST", "/session")[0] == 200  # who is in stays in


def test_a_session_that_nobody_comes_back_to_goes_with_its_folder() -> None:
    with LiveServer(limits=Limits(session_seconds=0.2)) as server:
        one = Visitor(server).enter()
        (session,) = server.services.store
        assert session.folder.is_dir()
        time.sleep(0.3)
        server.services.store.sweep()
        assert not session.folder.exists() and len(server.services.store) == 0
        assert json.loads(one.request("POST", "/session")[2])["kept"] is False


def test_a_session_has_few_connections(server: LiveServer) -> None:
    with Visitor(server) as one:
        others = [Visitor(server) for _ in range(4)]
        for other in others:
            other.cookie = one.cookie
            other.open()
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(2):
                others[-1].socket.recv(5)
        assert closed.value.rcvd.code == 4429
        for other in others:
            other.close()


def test_an_idle_connection_is_closed_with_a_reason() -> None:
    with LiveServer(limits=Limits(idle_seconds=0.3)) as server, Visitor(server) as one:
        with pytest.raises(ConnectionClosed) as closed:
            one.socket.recv(5)
        assert closed.value.rcvd.code == 4408 and "long time" in closed.value.rcvd.reason


def test_nothing_is_left_when_the_server_ends() -> None:
    with LiveServer() as server:
        with Visitor(server) as one:
            one.teach("circle", "circle")
        folder = server.services.store.folder
        assert folder.is_dir()
    assert not folder.exists()


# ---- models --------------------------------------------------------------------------------------
def test_a_model_goes_down_and_up_into_another_session(server: LiveServer) -> None:
    with Visitor(server) as one, Visitor(server) as other:
        one.teach("circle", "circle")
        status, headers, content = one.request("GET", "/models/pointer")
        assert status == 200 and headers["content-disposition"] == 'attachment; filename="gestures-pointer.gesda"'
        other.ask("use", input="pointer")
        other.hear("state", ready=True)
        status, _, body = other.request("POST", "/models", content)
        assert (status, json.loads(body)) == (200, {"input": "pointer", "gestures": ["circle"]})
        assert other.ask("recognize", input="pointer", stroke=stroke("circle"))["label"] == "circle"


def test_an_uploaded_gesture_takes_examples_and_gives_them_back(server: LiveServer) -> None:
    with Visitor(server) as one, Visitor(server) as other:
        one.teach("circle", "circle")
        one.teach("zigzag", "zigzag")
        other.ask("use", input="pointer")
        other.hear("state", ready=True)
        other.request("POST", "/models", one.request("GET", "/models/pointer")[2])
        other.ask("example", input="pointer", name="circle", stroke=stroke("scribble"))
        other.hear("learnt", name="circle", examples=1)
        other.send({"type": "undo", "input": "pointer", "name": "circle"})
        other.hear("learnt", name="circle", examples=0)
        assert other.ask("recognize", input="pointer", stroke=stroke("scribble"))["label"] is None
        assert other.ask("recognize", input="pointer", stroke=stroke("circle"))["label"] == "circle"
        other.send({"type": "forget", "input": "pointer", "name": "circle"})
        other.hear("map")
        answer = other.ask("recognize", input="pointer", stroke=stroke("circle"))
        assert [name for name, _ in answer["probabilities"]] == ["zigzag"]


@pytest.mark.parametrize("content", [b"", b"no model", pickle.dumps({"n_channels": 2}), b'{"n_channels": 2}'])
def test_what_is_no_model_is_refused_and_not_kept(server: LiveServer, content: bytes) -> None:
    one = Visitor(server).enter()
    status, _, body = one.request("POST", "/models", content)
    assert status == 422 and "/" not in json.loads(body)["message"]
    assert not list(server.services.store.find(one.cookie.partition("=")[2]).folder.iterdir())


@pytest.mark.parametrize("names", [["a" * 41], ["\u202e"], ["a", " a"], [str(i) for i in range(25)]])
def test_a_model_with_names_that_the_page_cannot_show_is_refused(server: LiveServer, names: list[str]) -> None:
    model = {"n_channels": 2, "history": [], "gestures": [[name, []] for name in names]}
    assert Visitor(server).enter().request("POST", "/models", json.dumps(model))[0] == 422


def test_a_model_for_other_channels_is_refused(server: LiveServer) -> None:
    model = {"n_channels": 7, "history": [], "gestures": []}
    status, _, body = Visitor(server).enter().request("POST", "/models", json.dumps(model))
    assert status == 422 and "7 channels" in json.loads(body)["message"]


@pytest.mark.parametrize("announced", [True, False])
def test_a_large_upload_is_cut_off(announced: bool) -> None:
    with LiveServer(limits=Limits(upload_bytes=2**20)) as server:
        one = Visitor(server).enter()
        chunks = (b"x" * 65536 for _ in range(32))
        body = b"x" * 2**21 if announced else chunks
        try:
            status, _, _ = one.request("POST", "/models", body)
        except (BrokenPipeError, ConnectionResetError):  # answered and closed before all was sent
            status = 413
        assert status == 413
        assert_alive(server)


def test_the_server_can_begin_with_a_model(tmp_path: Path) -> None:
    model = StandIn(2).add_gesture("circle", [np.array(stroke("circle"))[:, 1:]])
    model.save(str(tmp_path / "model.gesda"))
    with LiveServer(model=str(tmp_path / "model.gesda")) as server, Visitor(server) as one:
        one.ask("use", input="pointer")
        one.hear("state", ready=True, busy="")
        assert one.ask("recognize", input="pointer", stroke=stroke("circle"))["label"] == "circle"


# ---- the command ---------------------------------------------------------------------------------
_RUN = """
import sys; sys.path.insert(0, {here!r})
from tests.deepmotion.standin import StandIn
from gesda.deepmotion.serve import run
run({arguments}, make_recognizer=lambda kind: StandIn(2))
print("ended", flush=True)
"""


def _started(arguments: str) -> tuple[subprocess.Popen[str], str]:
    code = _RUN.format(here=str(Path(__file__).parent), arguments=arguments)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline()


def test_run_prints_the_address_and_ctrl_c_ends_it_cleanly() -> None:
    process, line = _started("port=0")
    port = int(re.search(r"http://127\.0\.0\.1:(\d+)/\n", line)[1])  # type: ignore[index]
    deadline = time.monotonic() + 20.0
    while True:
        try:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                connection.request("GET", "/")
                assert connection.getresponse().read().startswith(b"<!doctype html>")
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=20)
    assert process.returncode == 0 and out.endswith("ended\n") and error == ""


def test_run_beyond_loopback_prints_a_token() -> None:
    process, line = _started("'0.0.0.0', 0")
    try:
        assert re.search(r"/#token=[\w-]{32,}\n", line)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def test_run_says_that_the_port_is_taken(server: LiveServer) -> None:
    with pytest.raises(OSError, match=f"port {server.port}: .*choose another"):
        run(port=server.port, make_recognizer=make_standin)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 70_000}, "from 0 to 65535"),
        ({"token": "short"}, "16 characters"),
        ({"model": "no/file"}, "no model file"),
    ],
)
def test_run_refuses_bad_options_in_a_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run(**{"make_recognizer": make_standin, **options})


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else real(name))
    with pytest.raises(ImportError, match=r"uvicorn; install it with: pip install 'gesda\[deepmotion\]'"):
        run()


def test_importing_the_package_loads_no_web_framework() -> None:
    code = "import sys, gesda.deepmotion.serve; print({'starlette', 'uvicorn', 'websockets'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
