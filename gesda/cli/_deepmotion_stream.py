"""``gesda deepmotion stream``: samples in, a line each; events out, a line each, as soon as they are known.

Bytes come in pieces from standard input or UDP, `_Lines` cuts them into lines of bounded length, `_Samples` reads a
line, and runs of samples are pushed to the stream together. Whatever a line holds, the worst is that it is counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import socket
import sys
from collections.abc import Iterator
from typing import Any, cast

from gesda.cli._common import INTERRUPTED, emit, note
from gesda.cli._deepmotion import read_recognizer

_PIECE = 1 << 16  # bytes; no datagram is longer
_NAN = float("nan")


def run(arguments: argparse.Namespace) -> int:
    """Recognise gestures until the input ends."""
    from gesda.deepmotion import GestureStream

    recognizer = read_recognizer(arguments.model)
    if arguments.rate is None and recognizer.rate_ is None:
        raise ValueError(f"{arguments.model!r} does not know the rate of its examples; give --rate HZ.")
    if not len(recognizer.classes_):
        note(f"warning: {arguments.model!r} knows no gesture; teach it one with 'gesda deepmotion teach'.")
    stream = GestureStream(recognizer, rate=arguments.rate, unknown=arguments.unknown)
    samples = _Samples(recognizer.n_channels_, arguments.format, timed=arguments.time)
    feeder = _Feeder(arguments, stream, samples)
    status = 0
    try:
        pieces = _standard_input() if arguments.udp is None else _datagrams(arguments.udp)
        for piece in pieces:
            feeder.take(piece)
    except KeyboardInterrupt:
        status = INTERRUPTED
    feeder.finish()
    return status


# ---- bytes ----------------------------------------------------------------------------------------
def _standard_input() -> Iterator[bytes]:
    """What standard input holds, as it comes: a read waits for the first byte, not for a full buffer."""
    if sys.stdin is None:
        raise ValueError("standard input is closed; pipe samples into it, or give --udp PORT.")
    buffer = cast(io.BufferedReader, sys.stdin.buffer)
    while piece := buffer.read1(_PIECE):
        yield piece


def _datagrams(port: int) -> Iterator[bytes]:
    """What is sent to a port of this machine by itself; a datagram's last line may lack its end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        try:
            receiver.bind(("127.0.0.1", port))
        except OSError as error:
            raise OSError(
                error.errno, f"cannot listen on 127.0.0.1, UDP port {port}: {error.strerror}; choose another port"
            ) from None
        note(f"listening on 127.0.0.1, UDP port {receiver.getsockname()[1]}")
        while True:
            yield receiver.recv(_PIECE).rstrip(b"\r\n") + b"\n"


class _Lines:
    """Cuts bytes into lines; what is kept of a line that has not ended is bounded."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._kept = b""
        self._too_long = False

    def cut(self, piece: bytes) -> Iterator[bytes | None]:
        """Lines that have ended; None for one that was too long."""
        *ended, rest = piece.split(b"\n")
        for part in ended:
            yield self._line(part)
        if len(self._kept) + len(rest) > self._longest:
            self._kept, self._too_long = b"", True
        elif not self._too_long:
            self._kept += rest

    def last(self) -> Iterator[bytes | None]:
        """The line that the input ended in, if there is one."""
        if self._kept or self._too_long:
            yield self._line(b"")

    def _line(self, part: bytes) -> bytes | None:
        fits = not self._too_long and len(self._kept) + len(part) <= self._longest
        line = self._kept + part if fits else None
        self._kept, self._too_long = b"", False
        return line


# ---- samples --------------------------------------------------------------------------------------
class _Samples:
    """Reads samples, each with its time if it has one."""

    def __init__(self, n_channels: int, form: str, *, timed: bool) -> None:
        self._n_channels, self._form, self._timed = n_channels, form, timed
        self.longest_line = max(4096, 64 * (n_channels + 1))

    def read(self, line: bytes) -> tuple[float | None, list[float]]:
        """Read a line; a ValueError says why it is no sample."""
        text = line.decode("utf-8").strip(" \r\n")  # a tab at an edge is an empty cell
        if self._form == "json" or (self._form == "auto" and text.startswith(("{", "["))):
            return self._json(text)
        return self._csv(text)

    def is_header(self, line: bytes) -> bool:
        """Whether a first line holds the names of columns."""
        cells = _cells(line.decode("utf-8", "replace"))
        return self._form != "json" and all(cell.strip()[:1].isalpha() and _number(cell) is None for cell in cells)

    def _json(self, text: str) -> tuple[float | None, list[float]]:
        try:
            value = json.loads(text)
        except RecursionError:
            raise ValueError("JSON that is nested too deeply") from None
        except ValueError as error:
            raise ValueError(f"no JSON ({error})") from None
        when = None
        if isinstance(value, dict):
            given = value.get("t")
            when = None if given is None else _real(given, "t")
            value = value.get("v")
        if not isinstance(value, list):
            raise ValueError('JSON that is neither a list of numbers nor {"t": seconds, "v": [numbers]}')
        self._check(len(value), 0)
        return when, [_NAN if item is None else _real(item, f"value {i}") for i, item in enumerate(value)]

    def _csv(self, text: str) -> tuple[float | None, list[float]]:
        cells = _cells(text)
        self._check(len(cells), int(self._timed))
        numbers = []
        for i, cell in enumerate(cells):
            value = _number(cell) if cell.strip() else _NAN
            if value is None:
                raise ValueError(f"value {i} (from 0) is {cell.strip()[:40]!r}, no number")
            numbers.append(value)
        return (numbers[0], numbers[1:]) if self._timed else (None, numbers)

    def _check(self, n: int, times: int) -> None:
        if n == self._n_channels + times:
            return
        hint = ", after the time" if times else ""
        if not times and n == self._n_channels + 1:
            hint = "; if the first is the time, give --time with CSV"
        raise ValueError(f"{n} value(s) where the model has {self._n_channels} channel(s){hint}")


def _cells(text: str) -> list[str]:
    delimiter = max((",", ";", "\t"), key=text.count)
    return text.split(delimiter)


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)  # Python reads 1_0 as 10
    except ValueError:
        return None


def _real(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{what} is {str(value)[:40]!r}, no number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{what} is too large a number") from None


# ---- the stream -----------------------------------------------------------------------------------
class _Feeder:
    """Pushes what lines hold and writes the events."""

    def __init__(self, arguments: argparse.Namespace, stream: Any, samples: _Samples) -> None:
        self._arguments, self._stream, self._samples = arguments, stream, samples
        self._lines = _Lines(samples.longest_line)
        self._line = self._filled = self._malformed = 0

    def take(self, piece: bytes) -> None:
        """Take bytes as they came."""
        self._push(self._lines.cut(piece))

    def finish(self) -> None:
        """End the gesture that is going on; tell what was wrong."""
        self._push(self._lines.last())
        self._write(self._stream.flush())
        if self._malformed:
            note(f"{self._malformed} of {self._filled} lines were malformed and left out.")
        if self._arguments.report:
            report = dataclasses.asdict(self._stream.report)
            self._print({"report": {**report, "lines": self._filled, "malformed": self._malformed}})

    def _push(self, lines: Iterator[bytes | None]) -> None:
        """Push runs of samples that all have a time, or all none."""
        times: list[float] = []
        values: list[list[float]] = []
        for line in lines:
            sample = self._read(line)
            if sample is None:
                continue
            when, row = sample
            if values and (when is None) == bool(times):
                self._push_run(values, times)
                times, values = [], []
            values.append(row)
            if when is not None:
                times.append(when)
        if values:
            self._push_run(values, times)

    def _push_run(self, values: list[list[float]], times: list[float]) -> None:
        self._write(self._stream.push(values, times or None))

    def _read(self, line: bytes | None) -> tuple[float | None, list[float]] | None:
        self._line += 1
        if line is not None and self._line == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line is not None and not line.strip():
            return None
        self._filled += 1
        try:
            if line is None:
                raise ValueError(f"longer than {self._samples.longest_line} bytes")
            if self._filled == 1 and self._samples.is_header(line):
                return None
            return self._samples.read(line)
        except ValueError as error:
            self._malformed += 1
            if self._malformed == 1:
                reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
                note(f"line {self._line}: {reason}; malformed lines are counted and left out.")
            return None

    def _write(self, events: list[Any]) -> None:
        for event in events:
            given = dataclasses.asdict(event)
            self._print({"gesture": given.pop("label"), **given})

    def _print(self, value: dict[str, Any]) -> None:
        emit(self._arguments, value, ())
        sys.stdout.flush()
