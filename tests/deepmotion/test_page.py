"""The gestures' page in headless Chromium: taught, asked, cut off, reloaded, by mouse, by keys and by a phone.

Chromium is that of $GESDA_CHROMIUM or the first one on PATH. With $GESDA_SCREENSHOTS set to a folder, pictures of the
page are left there.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("playwright", reason="the test of the page needs playwright, which is absent")
pytest.importorskip("starlette", reason="the web page needs the deepmotion extra: starlette is absent")
pytest.importorskip("uvicorn", reason="the web page needs the deepmotion extra: uvicorn is absent")
pytest.importorskip("websockets", reason="the web page needs the deepmotion extra: websockets is absent")

from playwright.sync_api import Browser, Page, expect, sync_playwright

from gesda.deepmotion.serve import Limits
from tests.deepmotion.live_server import LiveServer, tunnel

CHROMIUM = os.environ.get("GESDA_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: neither $GESDA_CHROMIUM nor PATH has one"),
]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOSSES = re.compile("layer 1: loss [0-9.]+ at first, [0-9.]+ after [0-9]+ epochs")
SHAPES = ("circle", "zigzag", "eight")
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(limits=Limits(sessions=500)) as live:
        yield live


class Visit:
    """A page of a visitor, and what went wrong in it."""

    def __init__(self, browser: Browser, port: int, fragment: str = "", **options: Any) -> None:
        options = {"viewport": DESKTOP, "reduced_motion": "no-preference", **options}
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(20_000)
        self.wrong: list[str] = []
        self.port = port
        self.page = self.new_page()
        self.page.goto(f"http://127.0.0.1:{port}/{fragment}")

    def new_page(self) -> Page:
        page = self.context.new_page()
        page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"
        )
        page.on("console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        return page

    def connected(self) -> Visit:
        expect(self.page.locator("#link")).to_have_attribute("data-state", "open")
        return self

    def draw(self, shape: str) -> None:
        box = self.page.locator("#pad").bounding_box()
        assert box is not None
        unit, x, y = min(box["width"], box["height"]), box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        points = [(x + unit * u, y + unit * v) for u, v in curve(shape)]
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point)
        self.page.mouse.up()

    def teach(self, name: str, shape: str, n: int = 4) -> None:
        self.page.fill("#name", name)
        self.page.keyboard.press("Enter")
        for number in range(1, n + 1):
            self.draw(shape)
            expect(self.row(name).locator(".example")).to_have_count(number)
        expect(self.row(name)).to_contain_text(f"learnt from {n}")

    def row(self, name: str) -> Any:
        return self.page.locator(".gesture", has=self.page.locator(".gesture-name", has_text=name))

    def recognize(self, shape: str, answer: str, tries: int = 1) -> None:
        """Draw until the answer is there, `tries` times at most."""
        self.page.locator("input[name=mode][value=recognize]").check(force=True)
        label = self.page.locator("#label")
        for _ in range(tries):
            # An answer that stood there before is no answer.
            self.page.evaluate("document.getElementById('label').textContent = ''")
            self.draw(shape)
            expect(label).not_to_have_text("")
            if label.inner_text() == answer:
                break
        expect(label).to_have_text(answer)

    def photograph(self, name: str, **options: Any) -> None:
        if folder := os.environ.get("GESDA_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"), **options)


@contextlib.contextmanager
def visit(browser: Browser, port: int, *, trouble: bool = False, **options: Any) -> Iterator[Visit]:
    """Open the page; at the end nothing may have gone wrong but, with `trouble`, the network."""
    one = Visit(browser, port, **options)
    try:
        yield one.connected()
        network = ("net::", "WebSocket connection to") if trouble else ()
        assert [text for text in one.wrong if not any(word in text for word in network)] == []
    finally:
        one.context.close()


def curve(shape: str) -> list[tuple[float, float]]:
    """A shape within the unit square around 0, of random size, place, aspect and roughness."""
    n = random.randint(40, 70)
    wide, high = random.uniform(0.85, 1.1), random.uniform(0.85, 1.1)
    right, down = random.uniform(-0.04, 0.04), random.uniform(-0.04, 0.04)
    start = random.uniform(-0.04, 0.04)
    points = []
    for t in (i / (n - 1) for i in range(n)):
        turn = 2 * math.pi * t
        x, y = {
            "circle": (0.3 * math.cos(turn + start + 1.6), -0.3 * math.sin(turn + start + 1.6)),
            "zigzag": (-0.36 + 0.72 * t, 0.2 - 0.4 * abs((4 * t) % 2 - 1)),
            "eight": (0.36 * math.sin(turn), -0.2 * math.sin(2 * turn)),
            "scribble": (0.34 * math.sin(18 * t + 1) * math.cos(23 * t), 0.34 * math.cos(17 * t) * math.sin(5 * t + 2)),
        }[shape]
        points.append((right + wide * x + random.gauss(0, 0.002), down + high * y + random.gauss(0, 0.002)))
    return points


# ---- teaching by drawing --------------------------------------------------------------------------
def test_two_drawn_gestures_are_learnt_recognised_and_kept(
    browser: Browser, server: LiveServer, tmp_path: Path
) -> None:
    with visit(browser, server.port, accept_downloads=True) as one:
        one.teach("circle", "circle")
        one.teach("zigzag", "zigzag")
        expect(one.page.locator("#coach")).to_contain_text("Learnt “zigzag” in")
        one.recognize("circle", "circle")
        one.recognize("zigzag", "zigzag")
        assert one.page.locator("#latency").inner_text().endswith("ms")
        one.recognize("scribble", "Unknown")

        one.page.reload()
        one.connected()
        expect(one.row("circle")).to_contain_text("learnt from 4")
        one.recognize("circle", "circle")

        with one.page.expect_download() as download:
            one.page.click("#download")
        download.value.save_as(tmp_path / "model.gesda")
        assert download.value.suggested_filename == "gestures-pointer.gesda"

    with visit(browser, server.port) as other:
        expect(other.page.locator("#gestures-empty")).to_be_visible()
        other.page.set_input_files("#file", tmp_path / "model.gesda")
        expect(other.page.locator("#keep-note")).to_have_text("The model knows circle and zigzag.")
        other.recognize("zigzag", "zigzag")
        other.recognize("circle", "circle")


def test_a_file_that_is_no_model_is_refused_in_words(browser: Browser, server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "x.gesda").write_bytes(b"nothing of use")
    with visit(browser, server.port, trouble=True) as one:
        one.wrong.clear()
        one.page.set_input_files("#file", tmp_path / "x.gesda")
        expect(one.page.locator("#keep-note")).to_contain_text("This is no model that can be used")
        one.wrong = [text for text in one.wrong if "422" not in text]


def test_who_draws_before_naming_has_given_an_example(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port) as one:
        one.draw("circle")
        expect(one.page.locator("#coach")).to_contain_text("What is it called?")
        expect(one.page.locator("#name")).to_be_focused()
        one.page.keyboard.type("ring")
        one.page.keyboard.press("Enter")
        expect(one.row("ring")).to_contain_text("1 of 3 examples")


def test_a_tap_is_no_stroke(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port) as one:
        one.page.click("#pad")
        expect(one.page.locator("#coach")).to_contain_text("That was a tap")


def test_examples_are_undone_and_gestures_deleted(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port) as one:
        one.teach("circle", "circle")
        one.row("circle").get_by_role("button", name="Undo the last example").click()
        expect(one.row("circle")).to_contain_text("learnt from 3")
        one.row("circle").get_by_role("button", name="Undo the last example").click()
        expect(one.row("circle")).to_contain_text("2 of 3 examples")
        delete = one.row("circle").get_by_role("button", name="Delete circle")
        delete.click()
        expect(delete).to_have_text("Really delete")
        delete.click()
        expect(one.page.locator("#gestures-empty")).to_be_visible()


def test_names_are_shown_as_text(browser: Browser, server: LiveServer) -> None:
    name = "<img src=x onerror=alert(1)>"
    with visit(browser, server.port) as one:
        one.teach(name, "circle", n=3)
        one.recognize("circle", name)
        assert one.page.locator("main img").count() == 0


def test_training_anew_draws_learning_curves(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port) as one:
        one.teach("circle", "circle")
        expect(one.page.locator("#train")).to_be_disabled()
        one.teach("zigzag", "zigzag")
        one.page.click("#train")
        expect(one.page.locator("#curves")).to_have_attribute("aria-label", LOSSES)
        one.recognize("zigzag", "zigzag")


# ---- without a mouse ------------------------------------------------------------------------------
def test_a_gesture_is_taught_and_recognised_by_keyboard_alone(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port) as one:
        press = one.page.keyboard.press

        def tab_to(selector: str, key: str = "Tab") -> None:
            for _ in range(60):
                if one.page.evaluate("s => document.activeElement.matches(s)", selector):
                    return
                press(key)
            raise AssertionError(f"the keyboard does not reach {selector}")

        def stroke(keys: str) -> None:
            press(" ")
            for letter in keys:
                press({"r": "ArrowRight", "l": "ArrowLeft", "u": "ArrowUp", "d": "ArrowDown"}[letter])
            press(" ")

        tab_to("#name")
        one.page.keyboard.type("step")
        press("Enter")
        expect(one.page.locator("#pad")).to_be_focused()
        expect(one.page.locator("#pad-help")).to_have_css("opacity", "1")
        for number in range(1, 4):
            sizes = [random.randint(4, 6) for _ in range(2)]
            stroke("r" * sizes[0] + "d" * sizes[1] + "l" * sizes[0])
            expect(one.row("step").locator(".example")).to_have_count(number)
        expect(one.row("step")).to_contain_text("learnt from 3")
        tab_to("input[name=mode]:checked", "Shift+Tab")
        press("ArrowRight")
        tab_to("#pad")
        stroke("rrrrrdddddlllll")
        expect(one.page.locator("#label")).to_have_text("step")
        stroke("uuuuulllllllluuuu")
        expect(one.page.locator("#label")).to_have_text("Unknown")
        for selector in (".example", "#train, #download", "#download", "#upload"):
            tab_to(selector)


def test_a_stroke_by_keyboard_can_be_discarded(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port) as one:
        one.page.fill("#name", "step")
        one.page.keyboard.press("Enter")
        for key in (" ", *["ArrowRight"] * 6, "Escape"):
            one.page.keyboard.press(key)
        assert one.page.locator(".gesture").count() == 0


def test_a_finger_draws(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port, viewport=PHONE, has_touch=True, is_mobile=True) as one:
        one.page.fill("#name", "circle")
        one.page.keyboard.press("Enter")
        one.page.locator("#pad").scroll_into_view_if_needed()
        box = one.page.locator("#pad").bounding_box()
        points = [
            {"x": box["x"] + box["width"] * (0.5 + u), "y": box["y"] + box["height"] * (0.5 + v)}
            for u, v in curve("circle")
        ]
        touch = one.context.new_cdp_session(one.page)
        for kind, at in [("touchStart", points[0]), *(("touchMove", at) for at in points[1:]), ("touchEnd", None)]:
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [at] if at else []})
        expect(one.row("circle")).to_contain_text("1 of 3 examples")


WAVING = """
([shape, seconds]) => new Promise((done) => {
  const from = performance.now();
  const timer = setInterval(() => {
    const t = (performance.now() - from) / 1000;
    const moving = t > 0.15 && t < seconds - 0.4;
    const turn = 2 * Math.PI * (t - 0.15) / (seconds - 0.55);
    const a = shape === "shake" ? [20 * Math.sin(3 * turn), 9 * Math.cos(3 * turn), 0] : [0, 6, 25 * Math.sin(turn)];
    const [x, y, z] = moving ? a : [0, 0, 0];
    dispatchEvent(new DeviceMotionEvent("devicemotion", {accelerationIncludingGravity: {x, y, z}, interval: 16}));
    if (t > seconds) { clearInterval(timer); done(); }
  }, 16);
})
"""


def test_a_phone_is_waved(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port, viewport=PHONE, has_touch=True, is_mobile=True) as one:
        one.page.locator("input[name=input][value=phone]").check(force=True)
        button = one.page.locator("#wave-button")
        button.click()
        expect(button).to_have_text("Hold to record")
        for name in ("shake", "push"):
            one.page.fill("#name", name)
            for number in range(1, 4):
                button.scroll_into_view_if_needed()
                button.hover()
                one.page.mouse.down()
                expect(button).to_have_text("Recording")
                one.page.evaluate(WAVING, [name, random.uniform(1.2, 1.5)])
                one.page.mouse.up()
                expect(one.row(name).locator(".example")).to_have_count(number)
            expect(one.row(name)).to_contain_text("learnt from 3")
        one.page.locator("input[name=mode][value=recognize]").check(force=True)
        button.click()
        expect(button).to_have_text("Stop listening")
        one.page.evaluate(WAVING, ["shake", 1.4])
        expect(one.page.locator("#label")).to_have_text("shake")
        one.photograph("wave", full_page=True)


def test_a_device_without_a_sensor_is_told(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port) as one:
        one.page.locator("input[name=input][value=phone]").check(force=True)
        one.page.locator("#wave-button").click()
        expect(one.page.locator("#wave-text")).to_contain_text("seems to have no sensor")


def test_a_denied_motion_sensor_is_told(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port) as one:
        one.page.evaluate("DeviceMotionEvent.requestPermission = async () => 'denied'")
        one.page.locator("input[name=input][value=phone]").check(force=True)
        one.page.locator("#wave-button").click()
        expect(one.page.locator("#wave-text")).to_contain_text("was not allowed")


# ---- connection and session -----------------------------------------------------------------------
def test_a_connection_that_breaks_is_told_and_comes_back_with_the_gestures(
    browser: Browser, server: LiveServer
) -> None:
    with tunnel(server.port) as line, visit(browser, line.port, trouble=True) as one:
        one.teach("circle", "circle")
        line.cut()
        expect(one.page.locator("#banner")).to_be_visible()
        expect(one.page.locator("#banner-text")).to_contain_text("connects again by itself")
        expect(one.page.locator("#link-text")).to_contain_text("Trying again in")
        one.photograph("disconnected")
        line.mend()
        one.connected()
        expect(one.page.locator("#banner")).to_be_hidden()
        expect(one.row("circle")).to_contain_text("learnt from 4")
        one.recognize("circle", "circle")


def test_a_device_that_is_offline_is_told(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port, trouble=True) as one:
        one.context.set_offline(True)
        expect(one.page.locator("#banner-text")).to_contain_text("offline")
        one.context.set_offline(False)
        one.connected()


def test_a_restarted_server_is_told_to_have_forgotten(browser: Browser) -> None:
    with LiveServer() as first:
        port = first.port
        one = Visit(browser, port).connected()
        one.teach("circle", "circle", n=3)
    try:
        expect(one.page.locator("#link")).to_have_attribute("data-state", "lost")
        with LiveServer(port):
            one.connected()
            expect(one.page.locator("#coach")).to_contain_text("has forgotten your gestures")
            expect(one.page.locator("#gestures-empty")).to_be_visible()
    finally:
        one.context.close()


def test_two_visitors_do_not_see_each_other(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port) as one, visit(browser, server.port) as other:
        one.teach("mine", "circle", n=3)
        other.page.reload()
        other.connected()
        expect(other.page.locator("#gestures-empty")).to_be_visible()


def test_two_tabs_of_one_visitor_show_the_same(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port) as one:
        tab = one.new_page()
        tab.goto(one.page.url)
        one.page.bring_to_front()
        one.teach("circle", "circle", n=3)
        expect(tab.locator(".gesture")).to_contain_text("learnt from 3")


def test_the_token_comes_from_the_address_and_leaves_it(browser: Browser) -> None:
    token = "a token / with & signs 123"
    with LiveServer(token=token) as server:
        with visit(browser, server.port, fragment=f"#token={quote(token, safe='')}") as one:
            assert "token" not in one.page.url
            one.page.reload()
            one.connected()
        stranger = Visit(browser, server.port)
        expect(stranger.page.locator("#banner-text")).to_contain_text("asks for its token")
        stranger.context.close()


# ---- looks ----------------------------------------------------------------------------------------
def test_no_width_scrolls_sideways(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port, viewport={"width": 320, "height": 740}) as one:
        one.teach("a gesture with rather a long name", "circle", n=3)
        one.recognize("circle", "a gesture with rather a long name")
        for width in (320, 360, 390, 720, 1080, 1280, 1920):
            one.page.set_viewport_size({"width": width, "height": 740})
            one.page.wait_for_timeout(100)
            wide = one.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert wide[0] <= wide[1], f"at a width of {width}"


CONTRAST = """
() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const box = element.getBoundingClientRect();
    if (!own || !box.width || element.disabled || element.closest("[hidden], .hidden, .skip, .steps")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(style.color)), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const wanted = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if (ratio < wanted) low.push(`${element.textContent.trim()} ${ratio.toFixed(2)}`);
  }
  return low;
}
"""


def test_text_is_readable_in_light_and_dark(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port) as one:
        for name, shape in zip("abc", SHAPES, strict=True):
            one.teach(name, shape, n=3)
        one.recognize("circle", "a")
        one.page.mouse.move(0, 0)
        for scheme in ("light", "dark"):
            one.page.emulate_media(color_scheme=scheme)
            one.page.wait_for_timeout(300)  # transitions
            assert one.page.evaluate(CONTRAST) == [], scheme


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_gesture_colours_stand_out_from_the_paper(browser: Browser, server: LiveServer, scheme: Any) -> None:
    with visit(browser, server.port, color_scheme=scheme) as one:
        names = [f"--g{number}" for number in range(12)] + ["--paper"]
        colours = one.page.evaluate(
            "names => names.map(name => getComputedStyle(document.documentElement).getPropertyValue(name).trim())",
            names,
        )
        *inks, paper = [luminance(text) for text in colours]
        assert len(set(colours)) == 13
        assert min((max(a, paper) + 0.05) / (min(a, paper) + 0.05) for a in inks) > 4.5


def luminance(text: str) -> float:
    parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_nothing_moves_by_itself_where_motion_is_to_be_reduced(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port, reduced_motion="reduce") as one:
        one.page.wait_for_timeout(300)
        pictures = [one.page.locator("#pad").screenshot()]
        one.page.wait_for_timeout(400)
        assert one.page.locator("#pad").screenshot() == pictures[0]


def test_the_picture_of_the_pad_moves_otherwise(browser: Browser, server: LiveServer) -> None:
    with visit(browser, server.port) as one:
        first = one.page.locator("#pad").screenshot()
        one.page.wait_for_timeout(400)
        assert one.page.locator("#pad").screenshot() != first


@pytest.mark.parametrize(
    ("name", "scheme", "size"), [("light", "light", DESKTOP), ("dark", "dark", DESKTOP), ("phone", "light", PHONE)]
)
@pytest.mark.skipif(not os.environ.get("GESDA_SCREENSHOTS"), reason="$GESDA_SCREENSHOTS is not set")
def test_pictures_of_the_page(browser: Browser, server: LiveServer, name: str, scheme: Any, size: Any) -> None:
    with visit(browser, server.port, color_scheme=scheme, viewport=size, device_scale_factor=2) as one:
        one.page.wait_for_timeout(1700)
        one.photograph(f"{name}-empty")
        for shape in SHAPES:
            one.teach(shape, shape)
        one.page.click("#train")
        expect(one.page.locator("#curves")).to_have_attribute("aria-label", LOSSES)
        expect(one.page.locator("#train")).to_have_text("Train anew")
        one.recognize("eight", "eight")
        one.page.mouse.move(2, 2)
        one.page.wait_for_timeout(400)
        one.photograph(f"{name}-recognised", full_page=size is PHONE)
        one.recognize("scribble", "Unknown")
        one.photograph(f"{name}-unknown")


def test_the_recogniser_of_the_project_is_taught_by_drawing(browser: Browser) -> None:
    from gesda.deepmotion.serve import defaults

    real = LiveServer(
        make_recognizer=defaults.make_recognizer, background=defaults.background, load_recognizer=None, make_stream=None
    )
    with real as server, visit(browser, server.port) as one:
        expect(one.page.locator("#coach")).not_to_contain_text("Preparing", timeout=120_000)
        for shape in SHAPES:
            one.teach(shape, shape)
        # Of four examples it does not know all that a drawing may look like: some are rejected.
        for shape in SHAPES:
            one.recognize(shape, shape, tries=6)
        one.recognize("scribble", "Unknown")
        one.page.click("#train")
        expect(one.page.locator("#coach")).to_contain_text("Trained anew in", timeout=120_000)
        one.recognize("eight", "eight", tries=6)
