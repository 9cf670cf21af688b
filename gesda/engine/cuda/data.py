"""Rows of samples for the kernels: kept in device memory, or streamed there while an epoch runs.

May import its own package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from gesda.engine import Array
from gesda.engine.cuda.device import Buffers, Device
from gesda.engine.cuda.records import STORAGES

#: A record of `Source`.
Source: TypeAlias = tuple[int, int, int, int, int, int, int]
#: The part of the memory left that data may take; the rest is for minibatches and encodings.
_SHARE = 0.6
#: The part of the memory left that the ring of streamed rows may take.
_RING_SHARE = 0.1
#: Bytes of rows that inference has on the device at a time, where they are not kept there.
_SLAB_BYTES = 1 << 28


class DeviceRows:
    """Samples in device memory; an epoch reads them as it reads a `Feed`, which has nothing to send.

    Parameters
    ----------
    shape : tuple of int
        (n_samples, n_columns)
    source : tuple
        A record of `Source`.
    owner : object
        What keeps the memory.
    """

    ndim = 2

    def __init__(self, shape: tuple[int, ...], source: Source, owner: Any) -> None:
        self.shape, self.owner, self._source = shape, owner, source

    def source(self, first: int = 0) -> Source:
        """A record of `Source` of the rows from `first` on."""
        values, starts, columns, stride, ring, storage, padding = self._source
        if starts:
            return values, starts + 8 * first, columns, stride, ring, storage, padding
        size = next(int(dtype.itemsize) for dtype, code in STORAGES.items() if code == storage)
        return values + size * first * stride, 0, 0, stride, ring, storage, padding

    def start(self, order: NDArray[np.uint32]) -> None:
        """Begin an epoch."""

    def launch(self, launch: Callable[[], None]) -> None:
        """Launch the next steps."""
        launch()


class HostRows:
    """Samples in host memory, of which the device gets what it works on."""

    ndim = 2

    def __init__(self, data: NDArray[Any] | scipy.sparse.csr_array) -> None:
        self.shape, self._sparse = data.shape, bool(scipy.sparse.issparse(data))
        self._data: Any = data
        self.dtype = np.dtype(np.float32) if self._sparse else np.dtype(data.dtype)

    @property
    def nbytes(self) -> int:
        """Memory that they take on the device."""
        data = self._data
        return int(data.data.nbytes + 8 * data.indptr.size + 4 * data.indices.size if self._sparse else data.nbytes)

    def take(self, ids: NDArray[np.integer[Any]], out: Array) -> None:
        """Copy rows."""
        if self._sparse:
            out[...] = self._data[ids].toarray()
        else:
            # Row numbers are checked before an epoch; any mode but "raise" fills `out` without a copy in between.
            np.take(self._data, ids, axis=0, out=out, mode="clip")

    def slab(self, device: Device, first: int, last: int) -> DeviceRows:
        """Rows `first` to `last` - 1 on the device."""
        part = self._data[first:last]
        buffers = Buffers(device)
        if self._sparse:
            starts, columns = buffers.put(part.indptr, np.int64), buffers.put(part.indices, np.int32)
            return DeviceRows(part.shape, (buffers.put(part.data, np.float32), starts, columns, 0, 0, 0, 0), buffers)
        source = (buffers.put(part), 0, 0, part.shape[1], 0, STORAGES[self.dtype], 0)
        return DeviceRows(part.shape, source, buffers)


Rows: TypeAlias = DeviceRows | HostRows


def place(device: Device, data: Any) -> Rows:
    """Bring rows to the device where they fit, else prepare them for streaming.

    Parameters
    ----------
    device : Device
    data : array of float32, float16 or uint8, CSR array of float32, or array in device memory
        The latter, by ``__cuda_array_interface__`` or DLPack, is used where it lies.
    """
    rows = rows_for_once(device, data)
    if isinstance(rows, HostRows) and has_room(device, rows.nbytes):
        with suppress(MemoryError):  # what is left may be in pieces
            return rows.slab(device, 0, rows.shape[0])
    return rows


def has_room(device: Device, nbytes: int) -> bool:
    """Whether data of this size may be kept on the device."""
    return nbytes <= _SHARE * device.available()


def ring_ticks(device: Device, rows: Rows, batch: int) -> int:
    """How many minibatches may be launched at a time so that a `Feed` takes a small part of the memory left."""
    if isinstance(rows, DeviceRows):
        return 1 << 30
    return max(1, int(_RING_SHARE * device.available() / (2 * batch * rows.shape[1] * rows.dtype.itemsize)))


def rows_for_once(device: Device, data: Any) -> Rows:
    """As `place`, but data on the host stay there."""
    if isinstance(data, DeviceRows | HostRows):
        return data
    if isinstance(data, np.ndarray):
        return HostRows(data if data.dtype in STORAGES else data.astype(np.float32))
    if scipy.sparse.issparse(data):
        matrix: Any = data
        return HostRows(scipy.sparse.csr_array(matrix))
    array, pointer = device.adopt(data)
    return DeviceRows(array.shape, (pointer, 0, 0, array.shape[1], 0, STORAGES[np.dtype(array.dtype)], 0), array)


def slabs(device: Device, rows: Rows, batch: int, columns: int) -> Iterator[tuple[int, int, Source]]:
    """Cut rows for inference into parts of whole minibatches: first row, last row + 1, record of `Source`.

    `columns` is the width of the widest matrix of which a row is on the device.
    """
    step = max(1, _SLAB_BYTES // (4 * batch * columns)) * batch
    for first in range(0, rows.shape[0], step):
        last = min(first + step, rows.shape[0])
        if isinstance(rows, DeviceRows):
            yield first, last, rows.source(first)
        else:
            part = rows.slab(device, first, last)  # lives until the caller asks for the next one
            yield first, last, part.source()


class Feed:
    """Streams an epoch's rows, in the order of their visits, through a ring in device memory.

    A launch of `stride` steps that begins with step s needs the rows of steps s + ahead to s + ahead + stride - 1.
    The ring has room for two such parts: while the device works on one, the next is gathered and copied.

    Parameters
    ----------
    device : Device
    rows : HostRows
    order : ndarray of uint32, (n_visits,)
        Sample id of each visit.
    batch, stride, ahead : int
    """

    def __init__(
        self, device: Device, rows: HostRows, order: NDArray[np.uint32], batch: int, stride: int, ahead: int
    ) -> None:
        self._device, self._rows, self._order = device, rows, order
        self._part, self._lead, self._columns = stride * batch, ahead * batch, rows.shape[1]
        size = max(self._part, self._lead)
        self._ring_rows = max(2 * self._part, self._part + self._lead)
        self._ring = device.zeros((self._ring_rows, self._columns), rows.dtype)
        self._pinned = [device.pinned((size, self._columns), rows.dtype) for _ in range(2)]
        self._copies: list[Any] = [[], []]
        self._visits, self._turn = 0, 0

    def source(self) -> Source:
        """A record of `Source`."""
        storage = STORAGES[self._rows.dtype]
        return self._device.pointer(self._ring), 0, 0, self._columns, self._ring_rows, storage, 0

    def start(self, order: NDArray[np.uint32]) -> None:
        """Begin an epoch: send what the first launch and those that prepare it need."""
        self._order, self._visits = order, 0
        self._device.fork()
        self._send(self._lead)
        self._send(self._part)
        self._device.join()

    def launch(self, launch: Callable[[], None]) -> None:
        """Launch the next steps, and send the rows of those after them."""
        self._device.join()
        self._device.fork()  # the part of the ring that is overwritten now was read by the launch before
        launch()
        self._send(self._part)

    def _send(self, visits: int) -> None:
        first, last = self._visits, min(self._visits + visits, len(self._order))
        if first >= last:
            return
        self._visits, self._turn = last, 1 - self._turn
        for copy in self._copies[self._turn]:
            self._device.wait(copy)
        staged = self._pinned[self._turn][: last - first]
        self._rows.take(self._order[first:last], staged)
        start = first % self._ring_rows
        fits = min(last - first, self._ring_rows - start)
        self._copies[self._turn] = [self._device.copy(self._ring, start, staged[:fits])]
        if fits < last - first:
            self._copies[self._turn].append(self._device.copy(self._ring, 0, staged[fits:]))


def feed(
    device: Device, rows: Rows, order: NDArray[np.uint32], batch: int, stride: int, ahead: int
) -> DeviceRows | Feed:
    """What an epoch reads its rows from: the device's memory, or a `Feed` with these parameters."""
    return rows if isinstance(rows, DeviceRows) else Feed(device, rows, order, batch, stride, ahead)
