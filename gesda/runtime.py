"""`Runtime`: a model file as a board runs it, through the C ABI of libgesda.

The extension module contains the runtime (cpp/include/gesda/gesda.h) besides the training engine; here it is called
with ctypes, as any program would. Estimators and recognisers do not use it: it is for measuring and testing what will
be deployed, and for programs that only ever ask.

Imports NumPy and the extension module only.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Number = TypeVar("Number", np.float32, np.int32)

_KINDS = ("autoencoder", "classifier", "regressor", "recognizer")
_WEIGHTS = ("fp32", "fp16", "int8")
_REPORT_COUNTS = (
    "received", "used", "missing", "late", "duplicated", "not_finite", "out_of_range", "gaps", "events", "rejected",
)  # fmt: skip


class _Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("verify", ctypes.c_int), ("variant", ctypes.c_char_p)]


class _Info(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("kind", ctypes.c_int),
        ("weights", ctypes.c_int),
        *((name, ctypes.c_int32) for name in ("n_features", "n_layers", "n_hidden", "n_outputs")),
        ("weight_bytes", ctypes.c_uint64),
        ("rate", ctypes.c_double),
        ("threshold", ctypes.c_double),
        ("variant", ctypes.c_char * 16),
    ]


class _Recognition(ctypes.Structure):
    _fields_ = [
        ("gesture", ctypes.c_int32),
        ("best", ctypes.c_int32),
        ("confidence", ctypes.c_float),
        ("familiarity", ctypes.c_float),
    ]


class _StreamOptions(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        *((name, ctypes.c_double) for name in ("rate", "pause", "max_gap")),
        *((name, ctypes.c_void_p) for name in ("low", "high")),
        *((name, ctypes.c_int) for name in ("unknown", "continuous", "candidates")),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("gesture", ctypes.c_int32),
        ("confidence", ctypes.c_float),
        ("familiarity", ctypes.c_float),
        ("start", ctypes.c_double),
        ("end", ctypes.c_double),
    ]


class _Report(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        *((name, ctypes.c_uint64) for name in _REPORT_COUNTS),
        ("rate", ctypes.c_double),
        ("n_lost_channels", ctypes.c_int32),
        ("in_motion", ctypes.c_int),
    ]


class Recognition(NamedTuple):
    """What a recogniser says of one motion; gestures are numbers, -1 for none.

    Attributes
    ----------
    gesture, best : int
    confidence, familiarity : float
    probabilities : ndarray of float32, shape (n_gestures,)
    """

    gesture: int
    best: int
    confidence: float
    familiarity: float
    probabilities: NDArray[np.float32]


class Event(NamedTuple):
    """A gesture in a stream; the number -1 is a motion that is no known gesture.

    Attributes
    ----------
    gesture : int
    confidence, familiarity : float
    start, end : float
        Seconds.
    """

    gesture: int
    confidence: float
    familiarity: float
    start: float
    end: float


class Runtime:
    """A model file, opened by libgesda.

    Parameters
    ----------
    path : str or path-like
        A file that an estimator or a recogniser has saved, or that `gesda.export.save_model` wrote.
    variant : {"avx512", "avx2", "neon", "baseline"}, optional
        SIMD variant; by default the fastest that runs here.
    verify : bool, default=False
        Compare the file with its checksum first.

    Attributes
    ----------
    kind : {"autoencoder", "classifier", "regressor", "recognizer"}
    weights : {"fp32", "fp16", "int8"}
    n_features, n_layers, n_hidden, n_outputs : int
    weight_bytes : int
        Of weights, biases and scales in memory.
    variant : str
    class_names : list of str

    Raises
    ------
    ValueError
        When the file is no model, or the variant does not run here.
    OSError
        When the file cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from gesda import SdAClassifier
    >>> X = np.random.default_rng(0).random((40, 4), dtype=np.float32)
    >>> model = SdAClassifier((3,), pretrain_epochs=1, max_iter=1, random_state=0).fit(X, X[:, 0] > 0.5)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.gesda")
    >>> model.save(path)
    >>> runtime = Runtime(path)
    >>> bool(np.allclose(runtime.probabilities(X), model.predict_proba(X), atol=1e-5)), runtime.class_names
    (True, ['False', 'True'])
    """

    def __init__(self, path: str | os.PathLike[str], variant: str | None = None, *, verify: bool = False) -> None:
        self._library = _library()
        options = _Options(ctypes.sizeof(_Options), int(verify), None if variant is None else variant.encode())
        self._model = ctypes.c_void_p()
        self._check(
            self._library.gesda_open(os.fsencode(path), ctypes.byref(options), ctypes.byref(self._model)),
            os.fspath(path),
        )
        info = _Info(size=ctypes.sizeof(_Info))
        self._check(self._library.gesda_describe(self._model, ctypes.byref(info)))
        self.kind, self.weights = _KINDS[info.kind], _WEIGHTS[info.weights]
        self.n_features, self.n_layers = int(info.n_features), int(info.n_layers)
        self.n_hidden, self.n_outputs = int(info.n_hidden), int(info.n_outputs)
        self.weight_bytes, self.variant = int(info.weight_bytes), info.variant.decode()
        self.rate, self.threshold = float(info.rate), float(info.threshold)
        names = (self._library.gesda_class_name(self._model, number) for number in range(self.n_outputs))
        self.class_names = [name.decode() for name in names if name is not None]

    # ---- estimators -------------------------------------------------------------------------------
    def encode(self, X: ArrayLike) -> NDArray[np.float32]:
        """Encode rows (n, n_features): (n, n_hidden)."""
        return self._rows_to(self._library.gesda_encode, X, (self.n_hidden,), np.float32)

    def reconstruct(self, X: ArrayLike) -> NDArray[np.float32]:
        """Reconstruct rows (n, n_features)."""
        return self._rows_to(self._library.gesda_reconstruct, X, (self.n_features,), np.float32)

    def score(self, X: ArrayLike) -> NDArray[np.float32]:
        """Minus the mean squared errors of the reconstructions, (n,)."""
        return self._rows_to(self._library.gesda_score, X, (), np.float32)

    def probabilities(self, X: ArrayLike) -> NDArray[np.float32]:
        """Probabilities of the classes, (n, n_outputs)."""
        return self._rows_to(self._library.gesda_probabilities, X, (self.n_outputs,), np.float32)

    def classify(self, X: ArrayLike) -> NDArray[np.int32]:
        """Numbers of the most probable classes, (n,)."""
        return self._rows_to(self._library.gesda_classify, X, (), np.int32)

    def predict(self, X: ArrayLike) -> NDArray[np.float32]:
        """Numbers predicted, (n, n_outputs)."""
        return self._rows_to(self._library.gesda_predict, X, (self.n_outputs,), np.float32)

    # ---- recognisers ------------------------------------------------------------------------------
    def recognize(self, samples: ArrayLike) -> Recognition:
        """Recognise one motion (length, n_features)."""
        motion = self._matrix(samples)
        answer, probabilities = _Recognition(), np.zeros(self.n_outputs, dtype=np.float32)
        self._check(
            self._library.gesda_recognize(
                self._model, _address(motion), len(motion), ctypes.byref(answer), _address(probabilities)
            )
        )
        return Recognition(answer.gesture, answer.best, answer.confidence, answer.familiarity, probabilities)

    def stream(self, **options: Any) -> RuntimeStream:
        """Open a stream; options as for `gesda.deepmotion.GestureStream`."""
        return RuntimeStream(self, **options)

    def close(self) -> None:
        """Free the model; nothing may be asked afterwards."""
        if self._model:
            self._library.gesda_close(self._model)
            self._model = ctypes.c_void_p()

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self.close()

    # ---- inside -----------------------------------------------------------------------------------
    def _rows_to(
        self, function: Callable[..., int], X: ArrayLike, shape: tuple[int, ...], dtype: type[Number]
    ) -> NDArray[Number]:
        rows = self._matrix(X)
        out = np.zeros((len(rows), *shape), dtype=dtype)
        self._check(function(self._model, _address(rows), len(rows), _address(out)))
        return out

    def _matrix(self, X: ArrayLike) -> NDArray[np.float32]:
        rows = np.ascontiguousarray(X, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise ValueError(f"expected an array (n, {self.n_features}), got one of shape {rows.shape}.")
        return rows

    def _check(self, status: int, path: str | None = None) -> None:
        if status == 0:
            return
        message = self._library.gesda_last_error().decode(errors="replace")
        kind = {2: OSError, 4: TypeError, 5: MemoryError, 7: RuntimeError}.get(status, ValueError)
        raise kind(message if path is None else f"{path!r}: {message}")


class RuntimeStream:
    """Gestures in a stream, by libgesda.

    Parameters
    ----------
    runtime : Runtime
        Of a recogniser.
    rate, pause, max_gap, limits, unknown, continuous, candidates
        As for `gesda.deepmotion.GestureStream`.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        rate: float | None = None,
        pause: float = 0.25,
        max_gap: float | None = None,
        limits: tuple[ArrayLike, ArrayLike] | None = None,
        unknown: bool = False,
        continuous: bool = True,
        candidates: int = 4,
    ) -> None:
        self._runtime, self._library = runtime, runtime._library
        bounds: list[Any] = [None, None]
        if limits is not None:
            self._bounds = [
                np.array(np.broadcast_to(np.asarray(bound, dtype=np.float32), runtime.n_features)) for bound in limits
            ]
            bounds = [_address(bound) for bound in self._bounds]
        options = _StreamOptions(
            ctypes.sizeof(_StreamOptions), rate or 0.0, pause, max_gap or 0.0, *bounds, unknown, continuous, candidates
        )
        self._stream = ctypes.c_void_p()
        runtime._check(
            self._library.gesda_stream_open(runtime._model, ctypes.byref(options), ctypes.byref(self._stream))
        )

    def push(self, samples: ArrayLike, times: ArrayLike | None = None) -> list[Event]:
        """Take samples (n, n_features); return the gestures that have ended."""
        rows = np.atleast_2d(np.asarray(samples, dtype=np.float32))
        rows = self._runtime._matrix(rows)
        stamps = None if times is None else np.ascontiguousarray(np.atleast_1d(times), dtype=np.float64)
        if stamps is not None and stamps.shape != (len(rows),):
            raise ValueError(f"times have the shape {stamps.shape}; give one for each of the {len(rows)} samples.")
        events: list[Event] = []
        begin = 0
        while begin < len(rows):
            taken = ctypes.c_size_t()
            self._runtime._check(
                self._library.gesda_stream_push(
                    self._stream,
                    _address(rows[begin:]),
                    None if stamps is None else _address(stamps[begin:]),
                    len(rows) - begin,
                    ctypes.byref(taken),
                )
            )
            begin += taken.value
            events += self._events()
        return events

    def flush(self) -> list[Event]:
        """End the gesture that is going on."""
        self._runtime._check(self._library.gesda_stream_flush(self._stream))
        return self._events()

    def reset(self) -> None:
        """Forget all samples and counts."""
        self._runtime._check(self._library.gesda_stream_reset(self._stream))

    def report(self) -> dict[str, Any]:
        """Counts of what came and what was wrong with it."""
        report = _Report(size=ctypes.sizeof(_Report))
        self._runtime._check(self._library.gesda_stream_report(self._stream, ctypes.byref(report)))
        return {name: getattr(report, name) for name, *_ in _Report._fields_ if name != "size"}

    def close(self) -> None:
        """Free the stream; nothing may be pushed afterwards."""
        if self._stream:
            self._library.gesda_stream_close(self._stream)
            self._stream = ctypes.c_void_p()

    def __del__(self) -> None:
        if getattr(self, "_stream", None):
            self.close()

    def _events(self) -> list[Event]:
        events, event = [], _Event()
        while self._library.gesda_stream_next(self._stream, ctypes.byref(event)):
            events.append(Event(event.gesture, event.confidence, event.familiarity, event.start, event.end))
        return events


def _address(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _library() -> ctypes.CDLL:
    from gesda import _core

    library = ctypes.CDLL(os.environ.get("GESDA_LIBRARY", _core.__file__))
    library.gesda_last_error.restype = ctypes.c_char_p
    library.gesda_class_name.restype = ctypes.c_char_p
    library.gesda_class_name.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    for name in ("encode", "reconstruct", "score", "probabilities", "classify", "predict"):
        function = getattr(library, f"gesda_{name}")
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    library.gesda_recognize.argtypes = [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    if hasattr(library, "gesda_stream_push"):
        library.gesda_stream_push.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p,
        ]  # fmt: skip
    for name in ("gesda_close", "gesda_stream_close"):
        if hasattr(library, name):
            getattr(library, name).restype = None
            getattr(library, name).argtypes = [ctypes.c_void_p]
    return library
