"""The server of the gestures' page against what is hostile: who may talk to it, and messages of every kind.

Every test but those of the parser talks to a real server over loopback, with a stand-in for the recogniser.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="the web page needs the deepmotion extra: starlette is absent")
pytest.importorskip("uvicorn", reason="the web page needs the deepmotion extra: uvicorn is absent")
pytest.importorskip("websockets", reason="the web page needs the deepmotion extra: websockets is absent")

from websockets.exceptions import ConnectionClosed, InvalidStatus

from gesda.deepmotion.serve import Limits
from gesda.deepmotion.serve.protocol import CLOSE_FAULTS, ProtocolError, parse
from gesda.deepmotion.serve.security import HostList, is_loopback, same_origin
from tests.deepmotion.live_server import LiveServer
from tests.deepmotion.visitor import Visitor, assert_alive, stroke

pytestmark = pytest.mark.timeout(120)
HOSTILE = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(limits=Limits(sessions=2000)) as live:
        yield live


@pytest.fixture
def visitor(server: LiveServer) -> Iterator[Visitor]:
    with Visitor(server) as one:
        yield one


# ---- who may talk --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "host", ["attacker.example", "127.0.0.1.attacker.example", "", "localhost/x", "a@localhost", "[::2]"]
)
def test_foreign_hosts_are_refused(server: LiveServer, host: str) -> None:
    one = Visitor(server).enter()
    status = one.request("GET", "/", Host=host or " ")[0]
    assert status in (400, 403)
    assert one.request("POST", "/session", Host=host or " ", Origin=f"http://{host}")[0] in (400, 403)


@pytest.mark.parametrize("origin", ["http://attacker.example", "null", "http://127.0.0.1:1", "https://localhost", None])
def test_foreign_origins_get_no_session_no_upload_and_no_socket(server: LiveServer, origin: str | None) -> None:
    one = Visitor(server).enter()
    assert one.request("POST", "/session", Origin=origin or "")[0] == 403
    assert one.request("POST", "/models", b"x", Origin=origin or "")[0] == 403
    with pytest.raises(InvalidStatus, match="403"), Visitor(server) as other:
        other.open(origin)


def test_another_sites_page_cannot_fetch_the_model(server: LiveServer) -> None:
    one = Visitor(server).enter()
    assert one.request("GET", "/models/pointer", Sec_Fetch_Site="cross-site")[0] == 403


def test_a_token_is_asked_for_and_never_guessed() -> None:
    token = secrets.token_urlsafe(24)
    with LiveServer(token=token) as server:
        stranger = Visitor(server)
        for given in ("", "Bearer", "Bearer " + token[:-1], "Basic " + token, "Bearer " + token.swapcase()):
            assert stranger.request("POST", "/session", Authorization=given)[0] == 401
        assert Visitor(server, token).enter().cookie


def test_every_answer_has_the_security_headers(server: LiveServer) -> None:
    one = Visitor(server).enter()
    for path in ("/", "/main.js", "/style.css", "/nothing", "/models/pointer"):
        headers = one.request("GET", path)[1]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src 'self'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_the_page_names_no_outside_resource() -> None:
    folder = Path(sys.modules["gesda.deepmotion.serve"].__file__ or "").parent / "static"
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"""(https?:)?//[a-z0-9-]+\.[a-z]|\binnerHTML|\beval\(""", text), path.name


@pytest.mark.parametrize(
    "path", ["/../app.py", "/%2e%2e/app.py", "/static/index.html", "/models/../session", "/index.html"]
)
def test_no_path_leads_out_of_the_page(server: LiveServer, path: str) -> None:
    assert Visitor(server).enter().request("GET", path)[0] == 404


def test_host_list_off_loopback_takes_addresses_and_given_names() -> None:
    hosts = HostList("0.0.0.0", ["gestures.example"])
    assert hosts.allows("192.168.1.7:80") and hosts.allows("gestures.example") and hosts.allows("[fe80::1]:80")
    assert not hosts.allows("attacker.example") and not hosts.allows("[fe80::1%a;b]") and not hosts.allows("a;b")
    assert not HostList("127.0.0.1").allows("192.168.1.7")


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_only_an_equal_origin_is_the_servers_own(host: bytes, origin: bytes) -> None:
    assert not same_origin({b"host": b"localhost:80" + host, b"origin": b"http://localhost:81" + origin})


@given(st.text(max_size=30))
def test_no_text_breaks_the_host_list(text: str) -> None:
    HostList("127.0.0.1").allows(text)
    is_loopback(text)


# ---- messages ------------------------------------------------------------------------------------
_KEYS = st.sampled_from(["type", "id", "input", "name", "stroke", "samples", "index", "x", "__proto__"])
_WORDS = st.sampled_from(
    ["use", "example", "undo", "forget", "recognize", "look", "train", "samples", "pointer", "phone"]
)
_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | _WORDS
    | st.sampled_from([1e308, -1e308, 10**400, 2**63, "\ud800", "__class__"])
)  # fmt: skip
_ANYTHING = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(_KEYS, inner, max_size=5), max_leaves=20
)


@given(_ANYTHING)
@settings(max_examples=400, deadline=None)
def test_any_json_is_a_message_or_a_clear_error(content: Any) -> None:
    sys.set_int_max_str_digits(0)
    try:
        parse(json.dumps(content), Limits())
    except ProtocolError as error:
        assert str(error).endswith(".") and len(str(error)) < 300 and error.code


@given(st.text(max_size=200))
def test_any_text_is_a_message_or_a_clear_error(text: str) -> None:
    with pytest.raises(ProtocolError, match=r"\.$"):
        parse(text, Limits())


def _example(rows: str) -> str:
    return f'{{"type": "example", "input": "pointer", "name": "a", "stroke": {rows}}}'


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (_example("[[0, 0, 0], [1, NaN, 0]]"), "malformed"),
        (_example("[[0, 0, 0], [1, Infinity, 0]]"), "malformed"),
        (_example("[[0, 0, 0], [1, 1e999, 0]]"), "malformed"),
        (_example(f"[[0, 0, 0], [1, 1{'0' * 5000}, 0]]"), "malformed"),
        (_example("[[0, 0, 0], [1, true, 0]]"), "malformed"),
        (_example('[[0, 0, 0], [1, "1", 0]]'), "malformed"),
        (_example("[[0, 0, 0], [1, 1]]"), "malformed"),
        (_example("[[1, 0, 0], [0, 1, 1]]"), "malformed"),
        (_example("[[0, 0, 0], [1e9, 1, 1]]"), "too-long"),
        (_example("[[0, 0, 0], [0, 1, 1]]"), "too-short"),
        (_example("[[0, 1, 1], [1, 1, 1]]"), "too-short"),
        (_example("[]"), "too-short"),
        (_example("[" * 10_000), "malformed"),
        (_example("[" * 50_000 + "]" * 50_000), "malformed"),
        (_example(json.dumps([[i, i, i] for i in range(4097)])), "too-large"),
        ('{"type": "ping", "type": "ping"}', "malformed"),
        ('{"type": "ping", "more": 1}', "malformed"),
        ('{"type": "ping", "id": -1}', "malformed"),
        ('{"type": "__class__"}', "unknown"),
        ("[]", "malformed"),
        ('"' + "a" * 300_000 + '"', "too-large"),
        ('{"type": "undo", "input": "pointer", "name": "' + "a" * 41 + '"}', "name"),
        ('{"type": "undo", "input": "pointer", "name": "\\ud800"}', "name"),
        ('{"type": "undo", "input": "pointer", "name": "a\\u0000"}', "name"),
        ('{"type": "undo", "input": "pointer", "name": " \\n "}', "name"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_hostile_messages_are_refused_by_name(text: str, code: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        parse(text, Limits())
    assert refused.value.code == code


@HOSTILE
@given(st.lists(_ANYTHING, min_size=1, max_size=8))
def test_hostile_messages_do_not_stop_the_server(server: LiveServer, contents: list[Any]) -> None:
    with Visitor(server) as bad:
        for content in contents:
            bad.send(json.dumps(content))
            assert bad.hear("error", "state", "pong")["type"] in ("error", "state", "pong")
        assert bad.ask("ping")["type"] == "pong"


def test_binary_messages_are_refused(visitor: Visitor) -> None:
    visitor.send(b'{"type": "ping"}')
    assert visitor.hear("error")["code"] == "malformed"


def test_too_many_faults_end_the_connection_with_a_reason(server: LiveServer) -> None:
    with Visitor(server) as bad:
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(60):
                bad.send("nonsense")
                bad.socket.recv(5)
        assert closed.value.rcvd.code == CLOSE_FAULTS and "no sense" in closed.value.rcvd.reason
    assert_alive(server)


def test_an_oversized_message_ends_the_connection_alone(server: LiveServer) -> None:
    with Visitor(server) as bad:
        with pytest.raises(ConnectionClosed) as closed:
            bad.send("x" * (Limits().message_bytes + 1))
            bad.socket.recv(5)
        assert closed.value.rcvd.code == 1009
    assert_alive(server)


def test_a_flood_is_slowed_and_ended_while_others_are_served(server: LiveServer) -> None:
    with Visitor(server) as calm, Visitor(server) as bad:
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(5_000):
                bad.send({"type": "ping"})
            while True:
                bad.socket.recv(10)
        assert closed.value.rcvd.code == CLOSE_FAULTS
        assert calm.ask("ping")["type"] == "pong"
    assert_alive(server)


def test_a_page_that_reads_nothing_does_not_fill_the_memory(server: LiveServer) -> None:
    with Visitor(server) as one:
        one.teach("circle", "circle")
        (session,) = [s for s in server.services.store if s.connections]
        (connection,) = session.connections
        for _ in range(2000):
            connection.post({"type": "pong"})
        assert connection.answers.qsize() <= 257 and connection.close_code is not None
        with pytest.raises(ConnectionClosed):
            while True:
                one.socket.recv(10)


@pytest.mark.parametrize("field", ["gestures", "examples"])
def test_gestures_and_examples_are_of_bounded_number(field: str) -> None:
    with LiveServer(limits=Limits(gestures=3, examples=3)) as server, Visitor(server) as one:
        for number in range(3):
            name = f"g{number}" if field == "gestures" else "g"
            assert one.ask("example", input="pointer", name=name, stroke=stroke("circle"))["type"] == "taken"
        name = "another" if field == "gestures" else "g"
        assert one.ask("example", input="pointer", name=name, stroke=stroke("circle"))["code"] == "full"


def test_a_broken_handshake_does_not_stop_the_server(server: LiveServer) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n" + os.urandom(64))
    assert_alive(server)
