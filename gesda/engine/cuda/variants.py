"""Which kernels pretrain: tiles, panels of one of some shapes, or persistent panels; by the device and the shapes.

May import `gesda.spec` and its own package.
"""

from __future__ import annotations

from typing import NamedTuple

from gesda.engine.cuda.device import Device, Kernel, tile_kernel
from gesda.engine.cuda.records import PANEL_CHUNK, WARPS, round_up

KINDS = ("tiles", "panels", "persistent")
#: Shapes of panels: tiles of 16 rows of a minibatch, and columns. More of both would need too many registers.
SHAPES = tuple((rows, columns) for rows in (1, 2, 4, 7) for columns in (8, 16, 24, 32) if rows * columns <= 112)
_MOST_PERSISTENT = 64  # of rows times columns: the loop over ticks needs registers too


class Variant(NamedTuple):
    """A way to run the ticks of pretraining."""

    kind: str
    panel: tuple[int, int] = (0, 0)

    def kernel(self, device: Device, widths: list[tuple[int, int]]) -> Kernel:
        """Its kernel, for layers of these numbers of visible and hidden units.

        A panel of W stays on chip between its uses where a block alone on a multiprocessor has room for it, and always
        with persistent panels.
        """
        if self.kind == "tiles":
            return tile_kernel("tiles")
        shared, resident = panel_bytes(*self.panel), resident_bytes(self.panel[1], max(n for n, _ in widths))
        alone = _panels([hidden for _, hidden in widths], self.panel[1]) <= device.multiprocessors
        if self.kind == "persistent" or (alone and shared + resident <= device.most_shared_bytes):
            shared += resident
        return Kernel(self.kind, self.kind, shared, self.panel, cooperative=self.kind == "persistent")

    def has_resident(self, kernel: Kernel) -> bool:
        """Whether blocks of its kernel have room for a whole panel of W."""
        return self.kind != "tiles" and kernel.shared_bytes > panel_bytes(*self.panel)


def panel_stride(columns: int) -> int:
    """As `PanelShape::kStride`."""
    return columns if columns // 8 % 2 else columns + 8


def panel_bytes(row_tiles: int, columns: int) -> int:
    """Shared memory of a block of kernels/panel.cuh."""
    rows, stride = 16 * row_tiles, panel_stride(columns)
    weights = max(PANEL_CHUNK * stride, columns * (PANEL_CHUNK + 4))
    matrices = 4 if row_tiles <= 2 else 2
    stage = max(matrices * rows * (PANEL_CHUNK + 4), WARPS * rows * columns)
    return 4 * (2 * rows * stride + 2 * weights + stage)


def resident_bytes(columns: int, visible: int) -> int:
    """Shared memory of a panel of W that stays on chip."""
    return 4 * round_up(visible, PANEL_CHUNK) * panel_stride(columns)


def candidates(device: Device, widths: list[tuple[int, int]], rows: int) -> list[Variant]:
    """All variants that a device can run for minibatches of so many rows."""
    found = [Variant("tiles")]
    fitting = [shape for shape in device.panels if 16 * shape[0] >= rows]
    least = min((tiles for tiles, _ in fitting), default=0)
    for panel in (shape for shape in fitting if shape[0] == least):
        for kind in ("panels", "persistent"):
            variant = Variant(kind, panel)
            owned = _panels([hidden for _, hidden in widths], panel[1])
            if variant.kernel(device, widths).shared_bytes > device.most_shared_bytes:
                continue
            if kind == "persistent" and (owned > device.multiprocessors or panel[0] * panel[1] > _MOST_PERSISTENT):
                continue
            found.append(variant)
    return found


def choose(device: Device, widths: list[tuple[int, int]], rows: int, kind: str = "auto") -> Variant:
    """The variant that should be fastest.

    A panel's time goes with its columns, and panels wait for one another where there are more than multiprocessors.
    Persistent panels are taken only where they are asked for, or measured to be faster (`tune`).

    Raises
    ------
    ValueError
        Where the device cannot run what is asked for.
    """
    if kind == "tiles":
        return Variant(kind)
    able = candidates(device, widths, rows)
    wanted = [variant for variant in able if variant.kind == kind or (kind == "auto" and variant.kind == "panels")]
    if not wanted and kind != "auto":
        raise ValueError(
            f"variant={kind!r} cannot run minibatches of {rows} rows of this network on this device: its shared "
            f"memory or its number of multiprocessors is too small; use variant='auto'."
        )

    def waves(variant: Variant) -> int:
        columns = variant.panel[1]
        phases = ([hidden for _, hidden in widths], [visible for visible, _ in widths])
        return sum(-(-_panels(phase, columns) // device.multiprocessors) * columns for phase in phases)

    return min(wanted, key=lambda variant: (waves(variant), -variant.panel[1])) if wanted else Variant("tiles")


def _panels(units: list[int], columns: int) -> int:
    return sum(-(-count // columns) for count in units)
