"""Readers: what is in the file comes back as float32 rows; anything else is named by its place."""

from __future__ import annotations

import contextlib
import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gesda.datasets import BUILTIN, DataError, Dataset, load_dataset, make_anomalies, make_bars, read_idx

DATA = Path(os.environ.get("GESDA_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
ONE_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def real(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is in neither $GESDA_DATA nor ../shared/data")
    return path


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def idx(array: np.ndarray, code: int = 0x08) -> bytes:
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


# ---- CSV ------------------------------------------------------------------------------------------
def test_csv_with_header_and_named_target(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path / "a.csv", "w,h,label\n1,2.5,0\n3,4,1\n"), target="label")
    np.testing.assert_array_equal(data.X, [[1, 2.5], [3, 4]])
    assert data.X.dtype == np.float32 and data.X.flags.c_contiguous
    assert data.y is not None and data.y.dtype == np.int64 and data.y.tolist() == [0, 1]
    assert data.feature_names == ("w", "h")


@pytest.mark.parametrize("target", [-1, "2", 2])
def test_csv_without_header_and_numbered_target(tmp_path: Path, target: int | str) -> None:
    data = load_dataset(write(tmp_path / "a.csv", "1,2,7\n3,4,8\n"), target=target)
    np.testing.assert_array_equal(data.X, [[1, 2], [3, 4]])
    assert data.y is not None and data.y.tolist() == [7, 8] and data.feature_names is None


def test_csv_without_target_has_no_labels(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path / "a.csv", "1,2\n3,4\n"))
    assert data.y is None and data.X.shape == (2, 2)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_finds_its_delimiter(tmp_path: Path, delimiter: str) -> None:
    text = "\n".join(delimiter.join(row) for row in [["a", "b", "c"], ["1", "2", "3"]])
    assert load_dataset(write(tmp_path / "a.csv", text)).X.tolist() == [[1, 2, 3]]


def test_csv_text_labels_quotes_blank_lines_and_byte_order_mark(tmp_path: Path) -> None:
    text = '\ufeff"width, cm","kind"\n\n"1.5","a, b"\n 2 ,c\n\n'
    data = load_dataset(write(tmp_path / "a.csv", text), target="kind")
    assert data.feature_names == ("width, cm",)
    assert data.X.tolist() == [[1.5], [2]]
    assert data.y is not None and data.y.tolist() == ["a, b", "c"]


def test_csv_text_labels_without_header_are_no_header(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path / "a.csv", "1,2,cat\n3,4,dog\n"), target=2)
    assert data.y is not None and data.y.tolist() == ["cat", "dog"] and len(data.X) == 2


def test_csv_header_can_be_forced(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "0,1\n5,6\n")
    assert load_dataset(path, header=True).feature_names == ("0", "1")
    assert len(load_dataset(path, header=False).X) == 2


def test_csv_regression_targets_keep_their_fraction_and_precision(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path / "a.csv", "x,y\n1,0.1234567890123\n2,3\n"), target="y")
    assert data.y is not None and data.y.tolist() == [0.1234567890123, 3.0]


def test_csv_gzipped(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert load_dataset(tmp_path / "a.csv.gz").X.tolist() == [[1, 2]]


@pytest.mark.parametrize("cell", ["", "NaN", "NA", "?", "null"])
@pytest.mark.parametrize("target", [None, "kind"])
def test_csv_missing_value_is_named_by_line_and_column(tmp_path: Path, cell: str, target: str | None) -> None:
    last = "x" if target else "7"
    path = write(tmp_path / "a.csv", f"w,age,kind\n1,2,{last}\n3,{cell},{last}\n")
    with pytest.raises(DataError, match="line 3, column 'age': the value is missing"):
        load_dataset(path, target=target)


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("a,b\n1,2\n3,red\n", None, "line 3, column 'b': the value is not a number \\('red'\\)"),
        ("a,b\n1,2\n3,1_0\n", None, "line 3, column 'b': the value is not a number"),
        ("1,2\n3,red\n", None, "line 2, column 1 \\(from 0\\)"),
        ("a,b\n1,inf\n", None, "line 2, column 'b': the value is 'inf'"),
        ("a,b\n1,1e300\n", None, "row 0, column 1 .* is inf as float32"),
        ("a,b\n1,2\n3\n", None, "line 3: 1 values where the first line has 2"),
        ("a,b\n1,\n", "b", "line 2, column 'b': the value is missing; label it"),
        ("a,b\n1,2\n", "c", "no column 'c'; its columns are 'a', 'b'"),
        ("1,2\n3,4\n", "c", "it has no header"),
        ("a,b\n1,2\n", 5, "has 2 columns; there is no column number 5"),
        ("a,b,a\n1,2,3\n", "a", "2 columns named 'a'"),
        ("a\n1\n", "a", "no column besides the target"),
        ("", None, "is empty"),
        ("\n\n", None, "is empty"),
        ("a,b\n", None, "no samples"),
    ],
)
def test_csv_errors_name_the_place(tmp_path: Path, text: str, target: str | int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(write(tmp_path / "a.csv", text), target=target)


def test_csv_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("größe,b\n1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        load_dataset(tmp_path / "a.csv")


@ONE_FOLDER
@given(content=st.binary(max_size=200) | st.text('01.,;"\n\ra- e\t', max_size=80).map(str.encode))
def test_any_csv_gives_a_dataset_or_a_data_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    try:
        data = load_dataset(tmp_path / "a.csv", target=0)
    except DataError:
        return
    assert np.isfinite(data.X).all() and data.y is not None and len(data.y) == len(data.X)


@ONE_FOLDER
@given(
    rows=st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=n, max_size=n), min_size=1
        )
    )
)
def test_any_numbers_written_as_csv_come_back(tmp_path: Path, rows: list[list[float]]) -> None:
    write(tmp_path / "a.csv", "\n".join(",".join(map(repr, row)) for row in rows))
    np.testing.assert_array_equal(load_dataset(tmp_path / "a.csv", header=False).X, np.float32(rows))


# ---- UCR .tsv -------------------------------------------------------------------------------------
def test_ucr_label_comes_first_and_becomes_whole(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path / "Gun_TRAIN.tsv", "1.0\t0.5\t-2\n2.0\t3e-1\t4\n"))
    np.testing.assert_array_equal(data.X, np.float32([[0.5, -2], [0.3, 4]]))
    assert data.y is not None and data.y.dtype == np.int64 and data.y.tolist() == [1, 2]


# ---- NumPy ----------------------------------------------------------------------------------------
def test_npy_images_become_rows_and_labels_come_from_a_file(tmp_path: Path) -> None:
    images = np.random.default_rng().random((5, 3, 4))
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", np.arange(5))
    data = load_dataset(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    np.testing.assert_array_equal(data.X, images.reshape(5, 12).astype(np.float32))
    assert data.y is not None and data.y.tolist() == [0, 1, 2, 3, 4]


def test_npy_target_column(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.0, 2, 0], [3, 4, 1]]))
    data = load_dataset(tmp_path / "x.npy", target=-1)
    assert data.X.tolist() == [[1, 2], [3, 4]] and data.y is not None and data.y.tolist() == [0, 1]


def test_npz_arrays_x_and_y(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", X=np.ones((2, 3)), y=np.array(["a", "b"]), other=np.array([0.5, 1.5]))
    data = load_dataset(tmp_path / "d.npz")
    assert data.y is not None and data.y.tolist() == ["a", "b"]
    other = load_dataset(tmp_path / "d.npz", target="other")
    assert other.y is not None and other.y.tolist() == [0.5, 1.5]


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> object:
            return (os.mkdir, (str(tmp_path / "exploded"),))

    np.save(tmp_path / "x.npy", np.array([[Bomb()]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", X=np.array([[Bomb()]], dtype=object))
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Bomb()))
    for name in ("x.npy", "x.npz", "raw.npy"):
        with pytest.raises(DataError):
            load_dataset(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(3), "1 dimension"),
        (np.ones((0, 3)), "nothing to learn"),
        (np.array([["a"]]), "not real numbers"),
        (np.array([[1j]]), "not real numbers"),
        (np.array([[1.0, 2], [3, np.nan]]), "row 1, column 1 .* is nan"),
        (np.array([[np.inf]]), "row 0, column 0 .* is inf"),
    ],
)
def test_npy_errors_say_what_was_found(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / "x.npy")


def test_labels_have_to_fit_the_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    for bad, message in [
        (np.arange(4), "4 labels for 3 samples"),
        (np.ones((3, 2)), "shape"),
        (np.array([1, np.nan, 2]), "label 1 .* missing"),
    ]:
        np.save(tmp_path / "y.npy", bad)
        with pytest.raises(DataError, match=message):
            load_dataset(tmp_path / "x.npy", labels=tmp_path / "y.npy")


def test_misnamed_numpy_files_are_told_apart(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(DataError, match=r"name it \.npy"):
        load_dataset(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", X=np.ones((2, 2)))
    (tmp_path / "y.npz").rename(tmp_path / "y.npy")
    with pytest.raises(DataError, match=r"name it \.npz"):
        load_dataset(tmp_path / "y.npy")


@pytest.mark.parametrize(("target", "labels"), [("name", None), (2, None), (0, "y.npy")])
def test_npy_targets_that_cannot_be_are_refused(tmp_path: Path, target: str | int, labels: str | None) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    with pytest.raises(DataError, match="target"):
        load_dataset(tmp_path / "x.npy", target=target, labels=labels)


def test_npz_without_the_array_lists_what_is_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.ones((2, 3)))
    with pytest.raises(DataError, match="no array named 'X'; found 'images'"):
        load_dataset(tmp_path / "d.npz")
    np.savez(tmp_path / "d.npz", X=np.ones((2, 3)))
    with pytest.raises(DataError, match="no array named 'label'"):
        load_dataset(tmp_path / "d.npz", target="label")


@ONE_FOLDER
@given(position=st.integers(0, 300), byte=st.integers(0, 255), cut=st.integers(0, 400))
def test_damaged_numpy_files_give_a_dataset_or_a_data_error(tmp_path: Path, position: int, byte: int, cut: int) -> None:
    np.savez(tmp_path / "d.npz", X=np.ones((2, 3)))
    np.save(tmp_path / "d.npy", np.ones((20, 3)))
    for name in ("d.npz", "d.npy"):
        content = bytearray((tmp_path / name).read_bytes())
        content[position % len(content)] = byte
        (tmp_path / name).write_bytes(content[: max(len(content) - cut, 0)] if cut < 200 else content)
        with contextlib.suppress(DataError):
            assert isinstance(load_dataset(tmp_path / name), Dataset)


# ---- IDX ------------------------------------------------------------------------------------------
def test_idx_images_are_scaled_and_find_their_labels(tmp_path: Path) -> None:
    images = np.random.default_rng().integers(0, 256, size=(4, 3, 2), dtype=np.uint8)
    (tmp_path / "t-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "t-labels-idx1-ubyte").write_bytes(idx(np.array([3, 1, 2, 0], np.uint8)))
    data = load_dataset(tmp_path / "t-images-idx3-ubyte")
    np.testing.assert_allclose(data.X, images.reshape(4, 6) / 255, rtol=1e-6)
    assert data.y is not None and data.y.tolist() == [3, 1, 2, 0]


def test_idx_without_labels_and_with_labels_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((2, 2, 2), np.uint8))))
    assert load_dataset(tmp_path / "a.idx3-ubyte.gz").y is None
    (tmp_path / "b.idx1-ubyte").write_bytes(idx(np.array([1, 0], np.uint8)))
    data = load_dataset(tmp_path / "a.idx3-ubyte.gz", labels=tmp_path / "b.idx1-ubyte")
    assert data.y is not None and data.y.tolist() == [1, 0]


@pytest.mark.parametrize(("code", "dtype"), [(9, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")])
def test_idx_reads_every_type(tmp_path: Path, code: int, dtype: str) -> None:
    array = np.random.default_rng().integers(-100, 100, size=(3, 2)).astype(dtype)
    (tmp_path / "a-idx2-x").write_bytes(idx(array, code))
    np.testing.assert_array_equal(read_idx(tmp_path / "a-idx2-x"), array)
    np.testing.assert_array_equal(load_dataset(tmp_path / "a-idx2-x").X, array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no IDX file"),
        (b"\x1f\x8b\x08\x00", "no IDX file"),
        (b"\0\0\x08\x09", "no IDX file"),
        (b"\0\0\x08\x03\0\0", "ends inside its header"),
        (idx(np.zeros((2, 2), np.uint8))[:-1], "3 of the 4 bytes"),
        (idx(np.zeros((2, 2), np.uint8)) + b"x", "more than the 4 bytes"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"xyz", "3 of the"),
        (idx(np.zeros(5, np.uint8)), "so labels"),
    ],
)
def test_idx_errors_say_what_was_found(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / "a-idx3-ubyte")


# ---- whatever the kind ----------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.npy", "a.npz", "a-idx3-ubyte", "a.csv.gz", "b-idx3-ubyte.gz"])
def test_absent_files_and_folders_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name}.*No such file"):
        load_dataset(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=name):
        load_dataset(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv.gz", "b-idx3-ubyte.gz"])
def test_damaged_gzip_is_named(tmp_path: Path, name: str) -> None:
    whole = gzip.compress(os.urandom(2000))
    for content in (b"plain text", whole[:500], whole[:100] + b"\0" * 50 + whole[150:]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            load_dataset(tmp_path / name)


def test_unknown_names_list_what_is_known() -> None:
    with pytest.raises(DataError, match=r"neither a built-in set .*digits.*nor a file whose kind"):
        load_dataset("pictures.parquet")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("digits", {"target": 0}),
        ("a.csv", {"labels": "y.npy"}),
        ("a.npz", {"labels": "y.npy"}),
        ("a-idx3-ubyte", {"target": 1}),
    ],
)
def test_options_that_do_not_apply_are_refused(name: str, options: dict[str, str | int]) -> None:
    with pytest.raises(DataError):
        load_dataset(name, **options)  # type: ignore[arg-type]


# ---- built-in and synthetic sets ------------------------------------------------------------------
@pytest.mark.parametrize("name", list(BUILTIN))
def test_built_in_sets_are_in_the_unit_interval(name: str) -> None:
    data = load_dataset(name)
    assert data.X.dtype == np.float32 and data.X.min() >= 0 and data.X.max() <= 1
    assert data.name == name and data.feature_names is not None and len(data.feature_names) == data.X.shape[1]
    if data.target_names is not None and data.y is not None:
        assert len(data.target_names) == len(np.unique(data.y))


def test_generators_follow_their_seed() -> None:
    seed = int(np.random.default_rng().integers(2**31))
    for make in (make_bars, make_anomalies):
        np.testing.assert_array_equal(make(50, random_state=seed).X, make(50, random_state=seed).X)
        assert (make(50, random_state=seed).X != make(50, random_state=seed + 1).X).any()


def test_bars_are_whole_bars_as_often_as_asked() -> None:
    images = make_bars(4000, size=5, probability=0.3, random_state=1).X.reshape(-1, 5, 5)
    rows, columns = images.all(axis=2), images.all(axis=1)
    np.testing.assert_array_equal(images, rows[:, :, None] | columns[:, None, :])
    # a row is full if its bar is there, or if all five columns are
    expected = 0.3 + 0.7 * 0.3**5
    assert abs(rows.mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / 4000)


def test_bars_noise_flips_pixels() -> None:
    assert abs(make_bars(2000, size=6, probability=0.0, noise=0.1, random_state=2).X.mean() - 0.1) < 0.01


def test_anomalies_look_normal_feature_by_feature_only() -> None:
    data = make_anomalies(3000, anomaly_fraction=0.2, random_state=3)
    assert data.y is not None and data.y.sum() == 600
    normal, odd = data.X[data.y == 0], data.X[data.y == 1]
    assert np.abs(normal.mean(axis=0) - odd.mean(axis=0)).max() < 0.1

    # off the surface: the nearest other normal point is much farther
    def nearest(points: np.ndarray) -> float:
        distances = np.linalg.norm(points[:100, None] - normal[None, :1500], axis=2)
        return float(np.median(np.sort(distances, axis=1)[:, 1]))

    assert nearest(odd) > 2 * nearest(normal)


@pytest.mark.parametrize(
    "call",
    [
        lambda: make_bars(0),
        lambda: make_bars(size=0),
        lambda: make_bars(probability=1.5),
        lambda: make_bars(noise=-0.1),
        lambda: make_anomalies(0),
        lambda: make_anomalies(anomaly_fraction=2.0),
        lambda: make_anomalies(noise=-1.0),
    ],
)
def test_generators_refuse_impossible_wishes(call: object) -> None:
    with pytest.raises(DataError):
        call()  # type: ignore[operator]


# ---- real files -----------------------------------------------------------------------------------
@pytest.mark.data
def test_mnist_test_set() -> None:
    data = load_dataset(real("mnist", "t10k-images-idx3-ubyte.gz"))
    assert data.X.shape == (10000, 784) and data.X.max() == 1
    assert data.y is not None
    assert np.bincount(data.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.data
def test_gunpoint() -> None:
    data = load_dataset(real("gunpoint", "GunPoint_TRAIN.tsv.gz"))
    assert data.X.shape == (50, 150)
    assert data.y is not None and np.bincount(data.y).tolist() == [0, 24, 26]


@pytest.mark.data
def test_uwave() -> None:
    data = load_dataset(real("uwave_ucr", "UWaveGestureLibraryX_TRAIN.tsv.gz"))
    assert data.X.shape == (896, 315)
    assert data.y is not None and np.bincount(data.y)[1:].tolist() == [122, 108, 106, 110, 127, 111, 112, 100]
