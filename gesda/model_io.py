"""Model files: named arrays and a JSON header in one safetensors file, written atomically, checked before use.

A model file is a safetensors file, which any safetensors reader opens::

    8 bytes   length N of the header, little-endian
    N bytes   JSON: {"__metadata__": {"format": "gesda", "format_version": "1", "sha256": ...,
              "metadata": JSON text}, tensor name: {"dtype", "shape", "data_offsets"}, ...}, padded with spaces
    the rest  the arrays, little-endian, row-major, without gaps

``sha256`` is that of the whole file with the 64 digits themselves set to ``0``: a change of any byte is
noticed. It guards against accidents, not against forgers; against these stand the checks of sizes, types
and shapes, which come before any array is made. There is no pickle. The few lines that read and write the
layout are ours because the writing has to be atomic and the same content has to give the same bytes (the
safetensors package orders its header at random), and because every bad file has to end in one exception.

Imports nothing of gesda.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

FORMAT = "gesda"
FORMAT_VERSION = 1

#: What the scales of an 8-bit array's columns are named, after the array.
SCALES = ".scales"

#: Bounds on what a header may ask of the reader; a model's header takes some ten thousand bytes.
MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_TENSORS = 100_000
MAX_JSON_DEPTH = 64
MAX_DIMENSIONS = 32

PathLike: TypeAlias = "str | os.PathLike[str]"

_DTYPES = {
    "F64": "<f8",
    "I64": "<i8",
    "U64": "<u8",
    "F32": "<f4",
    "I32": "<i4",
    "U32": "<u4",
    "F16": "<f2",
    "I16": "<i2",
    "U16": "<u2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
_CODES = {np.dtype(text): code for code, text in _DTYPES.items()}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/\-]{0,254}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_NO_DIGEST = "0" * 64
_CHUNK = 1 << 22
_DAMAGED = "the file is damaged or was altered; restore it from a copy or train the model again"


class ModelFileError(ValueError):
    """A model file cannot be written, read or trusted; the message names the file and the remedy."""


class TensorInfo(NamedTuple):
    """What the header says of one array: safetensors' dtype code, shape, and bytes in the data section."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


# ---- writing --------------------------------------------------------------------------------------
@contextlib.contextmanager
def atomic_write(path: PathLike) -> Iterator[IO[bytes]]:
    """Open a file that takes its name only when it is complete.

    What is written goes to a temporary file in the same folder, which is synchronised to disk and then
    renamed. If anything goes wrong before, an older file of that name stays whole and nothing is left
    behind. An older file's permissions are kept; a symbolic link is followed.

    Parameters
    ----------
    path : str or path-like
        The file to write.

    Yields
    ------
    file : binary file, open for writing

    Raises
    ------
    OSError
        When the folder does not exist, is not writable, or the disk is full.
    """
    target = os.path.realpath(os.fspath(path))
    if os.path.isdir(target):
        raise IsADirectoryError(21, "Is a directory", target)
    folder = os.path.dirname(target)
    # Not tempfile: it makes files that their owner alone may read, and a model is often shared.
    temporary = os.path.join(folder, f".gesda-{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.path.exists(target):
                os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if os.name == "posix":  # the rename itself reaches the disk with its folder
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def write_tensors(path: PathLike, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write named arrays and a JSON description to one model file, atomically.

    The same content gives the same bytes, whatever the order of the names.

    Parameters
    ----------
    path : str or path-like
        The file; its folder must exist. An existing file is replaced, and stays whole if writing fails.
    tensors : mapping of str to ndarray
        Arrays of bool, 8 to 64 bit integers or 16 to 64 bit floats, of any shape, order and byte order;
        names of at most 255 letters, digits and ``_ . : / -``.
    metadata : mapping
        What JSON can hold, at most 64 levels deep; tuples come back as lists, NumPy scalars as numbers.

    Raises
    ------
    ModelFileError
        When a name, a dtype or the metadata cannot be stored, or the file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> folder = tempfile.mkdtemp()
    >>> path = os.path.join(folder, "model.gesda")
    >>> write_tensors(path, {"W": np.eye(2, dtype=np.float32)}, {"kind": "example"})
    >>> tensors, metadata = read_tensors(path)
    >>> tensors["W"].shape, metadata
    ((2, 2), {'kind': 'example'})
    """
    shown = _shown(path)
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in tensors.items():
        if not isinstance(name, str) or not _NAME.match(name) or name == "__metadata__":
            raise ModelFileError(f"{shown}: {name!r:.80} cannot name an array; use letters, digits and '_ . : / -'.")
        array = np.asarray(value)
        little = array.dtype.newbyteorder("<")
        if little not in _CODES:
            raise ModelFileError(
                f"{shown}: the array {name!r} has dtype {array.dtype}, which a model file cannot hold; "
                f"convert it to one of {', '.join(_DTYPES)}."
            )
        arrays[name] = np.asarray(array, dtype=little, order="C")
    # Wide types first: every array then starts at a multiple of its item size.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    text = _metadata_text(shown, metadata)
    header = _header(text, names, arrays, _NO_DIGEST)
    if len(header) > MAX_HEADER_BYTES:
        raise ModelFileError(
            f"{shown}: the metadata take {len(header)} bytes, more than {MAX_HEADER_BYTES}; shorten them."
        )

    length = len(header).to_bytes(8, "little")
    digest = hashlib.sha256(length + header)
    for name in names:
        digest.update(_bytes_of(arrays[name]))
    try:
        with atomic_write(path) as file:
            file.write(length)
            file.write(_header(text, names, arrays, digest.hexdigest()))
            for name in names:
                file.write(_bytes_of(arrays[name]))
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"{shown}: the model file cannot be written ({_reason(error)}); choose a folder that exists, "
            f"is writable and has room."
        ) from error


def _metadata_text(shown: str, metadata: Mapping[str, Any]) -> str:
    def plain(value: object) -> object:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{type(value).__name__} is not a JSON type")

    try:
        text = json.dumps(dict(metadata), default=plain, separators=(",", ":"), sort_keys=True)
        depth = _depth(json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{shown}: the metadata do not fit into JSON ({error}); use plain values.") from error
    if depth > MAX_JSON_DEPTH:
        raise ModelFileError(f"{shown}: the metadata are {depth} levels deep; use at most {MAX_JSON_DEPTH}.")
    return text


def _header(metadata: str, names: list[str], arrays: Mapping[str, NDArray[Any]], digest: str) -> bytes:
    content: dict[str, Any] = {
        "__metadata__": {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "sha256": digest,
            "metadata": metadata,
        }
    }
    offset = 0
    for name in names:
        array = arrays[name]
        content[name] = {
            "dtype": _CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(content, separators=(",", ":")).encode("ascii")
    return text + b" " * (-len(text) % 8)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


# ---- reading --------------------------------------------------------------------------------------
def read_tensors(path: PathLike) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read and check a model file.

    Everything is checked before it is used: the header's length and the arrays' places against the
    file's size, names, types and shapes, the format's version, and at the end the checksum. So memory
    is bounded by a small multiple of the file's size.

    Parameters
    ----------
    path : str or path-like
        A file written by `write_tensors`.

    Returns
    -------
    tensors : dict of str to ndarray
        The arrays, C-contiguous, writable, in the machine's byte order.
    metadata : dict
        What was given to `write_tensors`.

    Raises
    ------
    ModelFileError
        When the file cannot be opened, is no model file, is of a newer format, or was altered.
    """
    shown = _shown(path)
    with _opened(path, shown) as (file, size):
        length, header = _read_header(file, size, shown)
        info, fields = _parse_header(header, size - 8 - len(header), shown)
        digest = hashlib.sha256(length + _without_digest(header, fields["sha256"], shown))
        tensors: dict[str, NDArray[Any]] = {}
        for name, entry in sorted(info.items(), key=lambda item: (item[1].begin, item[1].end)):
            array = np.empty(entry.shape, dtype=_DTYPES[entry.dtype])
            content = _bytes_of(array)
            _read_into(file, content, digest, shown)
            if entry.dtype == "BOOL" and array.size and int(array.view(np.uint8).max()) > 1:
                raise ModelFileError(f"{shown}: the array {name!r} is not boolean: {_DAMAGED}.")
            tensors[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
        if digest.hexdigest() != fields["sha256"]:
            raise ModelFileError(f"{shown}: the checksum does not fit the content: {_DAMAGED}.")
        return tensors, _parse_metadata(fields["metadata"], shown)


def read_header(path: PathLike) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    """Read what a model file says of itself, without its arrays (and so without its checksum).

    Parameters
    ----------
    path : str or path-like
        A file written by `write_tensors`.

    Returns
    -------
    info : dict of str to TensorInfo
        Type, shape and place of every array.
    metadata : dict

    Raises
    ------
    ModelFileError
        As in `read_tensors`.
    """
    shown = _shown(path)
    with _opened(path, shown) as (file, size):
        _, header = _read_header(file, size, shown)
        info, fields = _parse_header(header, size - 8 - len(header), shown)
        return info, _parse_metadata(fields["metadata"], shown)


@contextlib.contextmanager
def _opened(path: PathLike, shown: str) -> Iterator[tuple[IO[bytes], int]]:
    """Yield the file and its size in bytes; failures of the system become `ModelFileError`."""
    try:
        # Before opening: a pipe would block, a device has no end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ModelFileError(f"{shown}: not a regular file; give the file that a model was saved to.")
        with open(path, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except ModelFileError:
        raise
    except MemoryError as error:
        raise ModelFileError(f"{shown}: the model does not fit into memory; use a machine with more.") from error
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"{shown}: the model file cannot be read ({_reason(error)}); check its name and permissions."
        ) from error


def _read_header(file: IO[bytes], size: int, shown: str) -> tuple[bytes, bytes]:
    length = file.read(8)
    if len(length) < 8:
        raise ModelFileError(f"{shown}: {size} bytes are too few for a model file: {_DAMAGED}.")
    count = int.from_bytes(length, "little")
    if not 2 <= count <= min(size - 8, MAX_HEADER_BYTES):
        raise ModelFileError(
            f"{shown}: not a GeSdA model, or cut off: its header would take {count} bytes of {size}; "
            f"give a file that a model was saved to."
        )
    header = file.read(count)
    if len(header) != count:
        raise ModelFileError(f"{shown}: the file ends inside its header: {_DAMAGED}.")
    return length, header


def _read_into(file: IO[bytes], view: memoryview, digest: Any, shown: str) -> None:
    """Fill a view from the file, a few megabytes at a time so that the bytes are hashed from the cache."""
    for start in range(0, len(view), _CHUNK):
        part = view[start : start + _CHUNK]
        filled = 0
        while filled < len(part):
            got = file.readinto(part[filled:])  # type: ignore[attr-defined]
            if not got:
                raise ModelFileError(f"{shown}: the file ends inside an array: {_DAMAGED}.")
            filled += got
        digest.update(part)


def _parse_json(text: str | bytes, what: str, shown: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            raise ValueError("a name occurs twice")
        return content

    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        content = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{shown}: its {what} is not valid JSON: {_DAMAGED}.") from error
    if not isinstance(content, dict):
        raise ModelFileError(f"{shown}: its {what} is not a JSON object: {_DAMAGED}.")
    if _depth(content) > MAX_JSON_DEPTH:
        raise ModelFileError(f"{shown}: its {what} is nested too deeply: {_DAMAGED}.")
    return content


def _parse_metadata(text: str, shown: str) -> dict[str, Any]:
    return _parse_json(text, "metadata", shown)


def _parse_header(header: bytes, data_bytes: int, shown: str) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Check the header against the bytes that follow it; return the arrays' entries and our own fields."""
    content = _parse_json(header, "header", shown)
    fields = content.pop("__metadata__", None)
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ModelFileError(f"{shown}: not a GeSdA model; give a file that a model was saved to.")
    version = fields.get("format_version")
    if version != str(FORMAT_VERSION):
        raise ModelFileError(
            f"{shown}: the file's format version is {version!r:.40}, this GeSdA reads {FORMAT_VERSION}; "
            f"upgrade GeSdA or save the model again."
        )
    if set(fields) != {"format", "format_version", "sha256", "metadata"} or not all(
        isinstance(value, str) for value in fields.values()
    ):
        raise ModelFileError(f"{shown}: its header's fields are not those of a GeSdA model: {_DAMAGED}.")
    if not _DIGEST.match(fields["sha256"]):
        raise ModelFileError(f"{shown}: its checksum is malformed: {_DAMAGED}.")
    if len(content) > MAX_TENSORS:
        raise ModelFileError(f"{shown}: it lists {len(content)} arrays, more than {MAX_TENSORS}: {_DAMAGED}.")
    info = {name: _parse_entry(name, entry, data_bytes, shown) for name, entry in content.items()}
    position = 0
    for entry in sorted(info.values(), key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != position:
            raise ModelFileError(f"{shown}: its arrays overlap or leave gaps: {_DAMAGED}.")
        position = entry.end
    if position != data_bytes:
        raise ModelFileError(f"{shown}: its arrays take {position} bytes, the file holds {data_bytes}: {_DAMAGED}.")
    return info, fields


def _parse_entry(name: str, entry: Any, data_bytes: int, shown: str) -> TensorInfo:
    def is_size(value: Any) -> bool:
        return type(value) is int and 0 <= value < 2**62

    if not _NAME.match(name):
        raise ModelFileError(f"{shown}: it has an array named {name!r:.80}: {_DAMAGED}.")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(f"{shown}: the description of its array {name!r} is malformed: {_DAMAGED}.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ModelFileError(f"{shown}: its array {name!r} has the unknown dtype {dtype!r:.40}: {_DAMAGED}.")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(map(is_size, shape)):
        raise ModelFileError(f"{shown}: its array {name!r} has an impossible shape: {_DAMAGED}.")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_size, offsets)):
        raise ModelFileError(f"{shown}: its array {name!r} has impossible offsets: {_DAMAGED}.")
    begin, end = offsets
    itemsize = np.dtype(_DTYPES[dtype]).itemsize
    if math.prod(size for size in shape if size) * itemsize >= 2**62:  # what NumPy can address
        raise ModelFileError(f"{shown}: its array {name!r} has an impossible shape: {_DAMAGED}.")
    if end > data_bytes or end - begin != math.prod(shape) * itemsize:
        raise ModelFileError(f"{shown}: its array {name!r} does not fit the file: {_DAMAGED}.")
    return TensorInfo(dtype, tuple(shape), begin, end)


def _without_digest(header: bytes, digest: str, shown: str) -> bytes:
    digits = digest.encode("ascii")
    if header.count(digits) != 1:
        raise ModelFileError(f"{shown}: its checksum is malformed: {_DAMAGED}.")
    return header.replace(digits, _NO_DIGEST.encode("ascii"))


def take_weights(tensors: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """Take a weight matrix out, as float32 if it was stored in 16 or 8 bits.

    Parameters
    ----------
    tensors : dict of str to ndarray
        Of `read_tensors`; the array goes, and its scales if it has any.
    name : str

    Returns
    -------
    ndarray

    Raises
    ------
    KeyError
        When it is not there.
    ValueError
        When scales do not fit.
    """
    array = tensors.pop(name)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype != np.int8:
        return array
    scales = tensors.pop(name + SCALES)
    if scales.dtype != np.float32 or scales.shape != array.shape[:-2] + array.shape[-1:]:
        raise ValueError(f"the scales of the array {name!r} do not fit it")
    weights: NDArray[np.float32] = array * scales[..., None, :]
    return weights


# ---- small helpers --------------------------------------------------------------------------------
def _depth(value: Any) -> int:
    """Levels of nested lists and dictionaries, counted without recursion."""
    depth, level = 0, [value]
    while level:
        level = [v for v in level if isinstance(v, dict | list)]
        depth += bool(level)
        level = [child for v in level for child in (v.values() if isinstance(v, dict) else v)]
    return depth


def _shown(path: PathLike) -> str:
    return repr(os.fspath(path))


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
