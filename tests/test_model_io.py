"""Model files: what goes in comes out, and nothing else is ever believed."""

from __future__ import annotations

import json
import os
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gesda import model_io
from gesda.model_io import ModelFileError, atomic_write, read_header, read_tensors, write_tensors

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
ONE_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:/\-]{0,30}", fullmatch=True).filter(lambda s: s != "__metadata__")
json_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
json_values = st.recursive(
    json_leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
dtypes = st.sampled_from(["|b1", *(order + code for code in DTYPES for order in "<>")])
arrays = dtypes.flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


def small_file(path: Path, seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    tensors = {"layers.0.W": rng.normal(size=(4, 3)).astype(np.float32), "flags": rng.random(5) < 0.5, "n": np.int64(3)}
    write_tensors(path, tensors, {"kind": "SdAClassifier", "classes": ["a", "b"], "seed": seed})
    return path.read_bytes()


def compose(header: Any, data: bytes = b"") -> bytes:
    """A file with a header of the test's choosing."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def valid_header(**tensors: Any) -> dict[str, Any]:
    fields = {"format": "gesda", "format_version": "1", "sha256": "0123456789abcdef" * 4, "metadata": "{}"}
    return {"__metadata__": fields, **tensors}


# ---- round trips ----------------------------------------------------------------------------------
@ONE_FOLDER
@given(tensors=st.dictionaries(names, arrays, max_size=4), metadata=st.dictionaries(st.text(), json_values, max_size=4))
def test_any_arrays_and_metadata_come_back_equal(
    tmp_path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, Any]
) -> None:
    write_tensors(tmp_path / "m", tensors, metadata)
    back, described = read_tensors(tmp_path / "m")
    assert described == metadata
    assert set(back) == set(tensors)
    for name, array in tensors.items():
        assert back[name].dtype == array.dtype.newbyteorder("=")
        assert back[name].shape == array.shape
        assert back[name].tobytes() == np.ascontiguousarray(array).astype(back[name].dtype).tobytes()
        assert back[name].flags.c_contiguous and back[name].flags.writeable


def test_strided_and_fortran_arrays_come_back_equal(tmp_path: Path) -> None:
    base = np.random.default_rng().normal(size=(6, 8)).astype(np.float32)
    views = {"step": base[::2, ::-3], "transpose": base.T, "broadcast": np.broadcast_to(base[0], (3, 8))}
    write_tensors(tmp_path / "m", views, {})
    back, _ = read_tensors(tmp_path / "m")
    for name, view in views.items():
        np.testing.assert_array_equal(back[name], view)


def test_numpy_scalars_and_tuples_in_metadata_become_plain(tmp_path: Path) -> None:
    write_tensors(tmp_path / "m", {}, {"sizes": (2, 3), "rate": np.float32(0.5), "n": np.int64(7), "b": np.bool_(True)})
    assert read_tensors(tmp_path / "m")[1] == {"sizes": [2, 3], "rate": 0.5, "n": 7, "b": True}


def test_nan_and_infinity_in_metadata_come_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "m", {}, {"drift": [float("nan"), float("inf")]})
    drift = read_tensors(tmp_path / "m")[1]["drift"]
    assert np.isnan(drift[0]) and drift[1] == np.inf


def test_same_content_gives_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    tensors = {"a": np.arange(3.0), "b": np.ones(2, np.float32), "c": np.zeros((2, 2))}
    write_tensors(tmp_path / "one", tensors, {"x": 1, "y": 2})
    write_tensors(tmp_path / "two", dict(reversed(tensors.items())), {"y": 2, "x": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_safetensors_package_reads_our_files(tmp_path: Path) -> None:
    tensors = {"W": np.random.default_rng().normal(size=(5, 7)).astype(np.float32), "odd": np.arange(3, dtype=np.uint8)}
    write_tensors(tmp_path / "m", tensors, {"kind": "x"})
    for name, array in safetensors.numpy.load_file(tmp_path / "m").items():
        np.testing.assert_array_equal(array, tensors[name])


def test_arrays_start_at_multiples_of_their_item_size(tmp_path: Path) -> None:
    write_tensors(tmp_path / "m", {"a": np.ones(3, np.uint8), "b": np.ones(1), "c": np.ones(1, np.float32)}, {})
    header_bytes = int.from_bytes((tmp_path / "m").read_bytes()[:8], "little")
    assert header_bytes % 8 == 0
    info, _ = read_header(tmp_path / "m")
    assert info["b"].begin % 8 == 0 and info["c"].begin % 4 == 0


def test_header_is_read_without_the_arrays(tmp_path: Path) -> None:
    small_file(tmp_path / "m")
    info, metadata = read_header(tmp_path / "m")
    assert info["layers.0.W"].shape == (4, 3) and info["layers.0.W"].dtype == "F32"
    assert metadata["kind"] == "SdAClassifier"


# ---- what cannot be written -----------------------------------------------------------------------
@pytest.mark.parametrize("name", ["", "__metadata__", "a b", "é", "x" * 300, ".hidden", "a\n", "../W" * 100])
def test_insane_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFileError, match="cannot name an array"):
        write_tensors(tmp_path / "m", {name: np.zeros(1)}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([1j]), np.array([None]), np.array(["2020"], "M8[D]")])
def test_other_dtypes_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(ModelFileError, match="dtype"):
        write_tensors(tmp_path / "m", {"x": array}, {})


def test_metadata_outside_json_is_refused(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 0
    for _ in range(model_io.MAX_JSON_DEPTH + 1):
        deep = [deep]
    for bad in ({"x": object()}, {"x": np.zeros(2)}, {"x": loop}, {"x": deep}, {"x": {1, 2}}):
        with pytest.raises(ModelFileError, match="metadata"):
            write_tensors(tmp_path / "m", {}, bad)
    assert not list(tmp_path.iterdir())


def test_oversized_metadata_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_io, "MAX_HEADER_BYTES", 1000)
    with pytest.raises(ModelFileError, match="shorten"):
        write_tensors(tmp_path / "m", {}, {"x": "y" * 1000})


@pytest.mark.parametrize("path", ["missing/folder/m", "", "with\0null", "."])
def test_unwritable_places_are_named(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError, match="cannot be written"):
        write_tensors(path, {}, {})
    assert not list(tmp_path.iterdir())


# ---- damaged files --------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", [np.random.SeedSequence().entropy % 1000])
def test_truncated_at_any_byte_is_noticed(tmp_path: Path, seed: int) -> None:
    content = small_file(tmp_path / "m", seed)
    for length in range(len(content)):
        (tmp_path / "m").write_bytes(content[:length])
        with pytest.raises(ModelFileError):
            read_tensors(tmp_path / "m")


def test_any_byte_altered_is_noticed(tmp_path: Path) -> None:
    content = small_file(tmp_path / "m")
    flips = np.random.default_rng().integers(1, 256, size=len(content))
    for position, flip in enumerate(flips):
        altered = bytearray(content)
        altered[position] ^= int(flip)
        (tmp_path / "m").write_bytes(altered)
        with pytest.raises(ModelFileError, match=r"'.*m'"):
            read_tensors(tmp_path / "m")


def test_anything_appended_is_noticed(tmp_path: Path) -> None:
    content = small_file(tmp_path / "m")
    (tmp_path / "m").write_bytes(content + b"\0")
    with pytest.raises(ModelFileError):
        read_tensors(tmp_path / "m")


@ONE_FOLDER
@given(junk=st.binary(max_size=300))
def test_random_junk_is_refused(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "m").write_bytes(junk)
    with pytest.raises(ModelFileError):
        read_tensors(tmp_path / "m")


@ONE_FOLDER
@given(header=json_values, data=st.binary(max_size=20))
def test_random_json_headers_are_refused(tmp_path: Path, header: Any, data: bytes) -> None:
    (tmp_path / "m").write_bytes(compose(header, data))
    with pytest.raises(ModelFileError):
        read_tensors(tmp_path / "m")


@ONE_FOLDER
@given(
    entry=json_values | st.fixed_dictionaries({"dtype": json_values, "shape": json_values, "data_offsets": json_values})
)
def test_random_array_descriptions_are_refused(tmp_path: Path, entry: Any) -> None:
    (tmp_path / "m").write_bytes(compose(valid_header(W=entry), b"\0" * 8))
    with pytest.raises(ModelFileError):
        read_tensors(tmp_path / "m")


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HOSTILE: dict[str, bytes] = {
    "header longer than the file": (2**63).to_bytes(8, "little") + b"{}",
    "header of zero bytes": (0).to_bytes(8, "little"),
    "not utf-8": compose(b'{"\xff\xfe": 1}'),
    "lone surrogate": compose(b'{"\\ud800": 1}'),
    "deep json": compose(b"[" * 100_000 + b"]" * 100_000),
    "deep objects": compose(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "deep but parseable": compose(valid_header(W=json.loads("[" * 100 + "]" * 100))),
    "number of many digits": compose(b'{"__metadata__": ' + b"9" * 10_000 + b"}"),
    "another format": compose({"__metadata__": {"format": "pt"}}),
    "no metadata": compose({}),
    "metadata of a wrong type": compose({"__metadata__": ["gesda"]}),
    "extra field": compose({"__metadata__": {**valid_header()["__metadata__"], "more": "x"}}),
    "field of a wrong type": compose({"__metadata__": {**valid_header()["__metadata__"], "metadata": {}}}),
    "checksum of a wrong length": compose({"__metadata__": {**valid_header()["__metadata__"], "sha256": "00"}}),
    "checksum of zeros": compose({"__metadata__": {**valid_header()["__metadata__"], "sha256": "0" * 64}}),
    "checksum twice": compose(
        {"__metadata__": {**valid_header()["__metadata__"], "metadata": '"%s"' % ("0123456789abcdef" * 4)}}
    ),
    "inner metadata no object": compose({"__metadata__": {**valid_header()["__metadata__"], "metadata": "[]"}}),
    "duplicate arrays": compose(
        json.dumps(valid_header(W=entry()))[:-1].encode() + b', "W": ' + json.dumps(entry()).encode() + b"}", b"\0" * 8
    ),
    "huge shape": compose(valid_header(W=entry(shape=[2**40, 2**40], offsets=[0, 2**60]))),
    "huge shape of no bytes": compose(valid_header(W=entry(shape=[0, 2**61, 2**61], offsets=[0, 0]))),
    "negative shape": compose(valid_header(W=entry(shape=[-2], offsets=[0, 8])), b"\0" * 8),
    "two negative sizes": compose(valid_header(W=entry(shape=[-1, -2], offsets=[0, 8])), b"\0" * 8),
    "boolean size": compose(valid_header(W=entry(shape=[True, 2])), b"\0" * 8),
    "float size": compose(valid_header(W=entry(shape=[2.0])), b"\0" * 8),
    "too many dimensions": compose(valid_header(W=entry(shape=[1] * 70 + [2])), b"\0" * 8),
    "negative offsets": compose(valid_header(W=entry(offsets=[-8, 0])), b"\0" * 8),
    "reversed offsets": compose(valid_header(W=entry(offsets=[8, 0])), b"\0" * 8),
    "offsets past the end": compose(valid_header(W=entry(offsets=[0, 8])), b"\0" * 4),
    "three offsets": compose(valid_header(W=entry(offsets=[0, 8, 8])), b"\0" * 8),
    "overlapping arrays": compose(valid_header(W=entry(), b=entry()), b"\0" * 8),
    "gap between arrays": compose(valid_header(W=entry(), b=entry(offsets=[9, 17])), b"\0" * 17),
    "bytes after the arrays": compose(valid_header(W=entry()), b"\0" * 9),
    "unknown dtype": compose(valid_header(W=entry(dtype="BF16", shape=[4])), b"\0" * 8),
    "object dtype": compose(valid_header(W=entry(dtype="O", shape=[1])), b"\0" * 8),
    "dtype of a wrong type": compose(valid_header(W=entry(dtype=["F32"])), b"\0" * 8),
    "missing offsets": compose(valid_header(W={"dtype": "F32", "shape": [2]}), b"\0" * 8),
    "boolean of value two": compose(valid_header(W=entry(dtype="BOOL", shape=[2], offsets=[0, 2])), b"\1\2"),
    "insane name": compose(valid_header(**{"../../etc/passwd\0": entry()}), b"\0" * 8),
    "wrong checksum": compose(valid_header(W=entry()), b"\0" * 8),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused_within_little_memory(tmp_path: Path, case: str) -> None:
    (tmp_path / "m").write_bytes(HOSTILE[case])
    tracemalloc.start()
    try:
        for reader in (read_tensors, read_header):
            if reader is read_header and case in (
                "boolean of value two",
                "wrong checksum",
                "checksum twice",
                "checksum of zeros",
            ):
                continue  # seen only with the arrays
            with pytest.raises(ModelFileError, match=r"'.*m'"):
                reader(tmp_path / "m")
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_io, "MAX_TENSORS", 10)
    entries = {f"t{i}": entry(shape=[0], offsets=[0, 0]) for i in range(11)}
    (tmp_path / "m").write_bytes(compose(valid_header(**entries)))
    with pytest.raises(ModelFileError, match="11 arrays"):
        read_tensors(tmp_path / "m")


def test_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    fields = {**valid_header()["__metadata__"], "format_version": "2", "new": "field"}
    (tmp_path / "m").write_bytes(compose({"__metadata__": fields}))
    with pytest.raises(ModelFileError, match="upgrade GeSdA"):
        read_tensors(tmp_path / "m")


def test_missing_file_folder_and_pipe_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"nothing-here.*No such file"):
        read_tensors(tmp_path / "nothing-here")
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_tensors(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_tensors(tmp_path / "pipe")


def test_too_little_memory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_file(tmp_path / "m")

    def no_memory(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(model_io.np, "empty", no_memory)
    with pytest.raises(ModelFileError, match="memory"):
        read_tensors(tmp_path / "m")


# ---- crashes while writing ------------------------------------------------------------------------
class Crash(BaseException):
    """Stands for a power cut: nothing in the code catches it by name."""


@pytest.mark.parametrize("where", ["replace", "fsync", "chmod"])
@pytest.mark.parametrize("error", [Crash, OSError(28, "No space left on device"), KeyboardInterrupt])
def test_crash_keeps_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Any
) -> None:
    old = small_file(tmp_path / "m", seed=1)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(model_io.os, where, fail)
    with pytest.raises(ModelFileError if isinstance(error, OSError) else error):
        small_file(tmp_path / "m", seed=2)
    monkeypatch.undo()
    assert (tmp_path / "m").read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert read_tensors(tmp_path / "m")[1]["seed"] == 1


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_crash_inside_any_write_keeps_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    old = small_file(tmp_path / "m", seed=1)
    real, calls = os.fdopen, []

    def fdopen(*args: Any, **kwargs: Any) -> Any:
        file = real(*args, **kwargs)

        class Failing:
            def write(self, data: Any) -> int:
                calls.append(len(data))
                if len(calls) > after:
                    raise OSError(28, "No space left on device")
                return file.write(data)

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *args: Any) -> None:
                file.close()

        return Failing()

    monkeypatch.setattr(model_io.os, "fdopen", fdopen)
    with pytest.raises(ModelFileError, match="No space left"):
        small_file(tmp_path / "m", seed=2)
    assert len(calls) == after + 1
    assert (tmp_path / "m").read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


# ---- permissions and links ------------------------------------------------------------------------
def test_new_files_follow_the_umask_and_old_permissions_are_kept(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        small_file(tmp_path / "m")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o640
    (tmp_path / "m").chmod(0o604)
    small_file(tmp_path / "m", seed=2)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o604


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    small_file(tmp_path / "real" / "m", seed=1)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "m")
    small_file(tmp_path / "link", seed=2)
    assert (tmp_path / "link").is_symlink()
    assert read_tensors(tmp_path / "real" / "m")[1]["seed"] == 2


def test_atomic_write_shows_nothing_before_the_end(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "out") as file:
        file.write(b"half")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out").read_bytes() == b"half"
