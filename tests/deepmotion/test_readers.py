"""Readers of motion: what is in a file comes back; anything else is one sentence that names the place."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from gesda.datasets import DataError
from gesda.deepmotion.data.readers import load_motion, read_utd_mhad
from gesda.deepmotion.data.sequences import MotionDataset

DATA = Path(os.environ.get("GESDA_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
ONE_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def real(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is in neither $GESDA_DATA nor ../shared/data")
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def cells(values: Any) -> list[str]:
    return [repr(float(value)) for value in values]


# ---- a set of each format, written by the rules of the format ---------------------------------------
def as_tsv(sequences: list[np.ndarray], labels: list[Any]) -> str:
    longest = max(map(len, sequences))
    rows = [cells(s[:, 0]) + ["NaN"] * (longest - len(s)) for s in sequences]
    return "".join("\t".join([str(label), *row]) + "\n" for label, row in zip(labels, rows, strict=True))


def as_ts(sequences: list[np.ndarray], labels: list[Any]) -> str:
    head = f"# made by a test\n@problemName P\n@timeStamps false\n@dimensions {sequences[0].shape[1]}\n"
    head += f"@classLabel true {' '.join(sorted(set(map(str, labels))))}\n@data\n"
    lines = (":".join([*(",".join(cells(c)) for c in s.T), str(y)]) for s, y in zip(sequences, labels, strict=True))
    return head + "\n".join(lines) + "\n"


def as_arff(sequences: list[np.ndarray], labels: list[Any]) -> str:
    head = "% made by a test\n@relation 'P'\n@attribute r relational\n@attribute a0 numeric\n@end r\n"
    head += f"@attribute class {{{','.join(sorted(set(map(str, labels))))}}}\n@data\n"
    longest = max(map(len, sequences))
    lines = []
    for s, y in zip(sequences, labels, strict=True):
        channels = [",".join(cells(c) + ["?"] * (longest - len(s))) for c in s.T]
        lines.append("'" + "\\n".join(channels) + f"',{y}")
    return head + "\n".join(lines) + "\n"


def as_csv(sequences: list[np.ndarray], labels: list[Any]) -> str:
    lines = ["time," + ",".join(f"ch{i}" for i in range(sequences[0].shape[1])) + ",label,sequence"]
    for i, (s, y) in enumerate(zip(sequences, labels, strict=True)):
        lines += [",".join([repr(j / 8), *cells(row), str(y), str(i)]) for j, row in enumerate(s)]
    return "\n".join(lines) + "\n"


WRITERS: dict[str, Callable[[list[np.ndarray], list[Any]], str]] = {
    "tsv": as_tsv,
    "ts": as_ts,
    "arff": as_arff,
    "csv": as_csv,
}


@st.composite
def sets(draw: st.DrawFn, n_channels: int | None = None) -> tuple[list[np.ndarray], list[Any]]:
    n = draw(st.integers(1, 6))
    n_channels = n_channels or draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([1e-6, 1.0, 1e6]))
    sequences = [scale * rng.normal(size=(draw(st.integers(2, 9)), n_channels)) for _ in range(n)]
    names = draw(st.sampled_from([[0, 1, 2], ["up", "down", "a-b"], [1, 20, 300]]))
    return sequences, [names[rng.integers(3)] for _ in range(n)]


@ONE_FOLDER
@given(drawn=sets(), kind=st.sampled_from(["ts", "arff", "csv"]), gz=st.booleans())
def test_what_was_written_comes_back(drawn: Any, kind: str, gz: bool, tmp_path: Path) -> None:
    sequences, labels = drawn
    data = load_motion(write(tmp_path / f"a.{kind}{'.gz' if gz else ''}", WRITERS[kind](sequences, labels)))
    assert data.labels is not None and data.labels.tolist() == labels
    assert data.rate == (8.0 if kind == "csv" else None)
    for one, other in zip(data.sequences, sequences, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@ONE_FOLDER
@given(drawn=sets())
def test_tsv_files_of_the_channels_come_back_side_by_side(drawn: Any, tmp_path: Path) -> None:
    sequences, labels = drawn
    paths = [
        write(tmp_path / f"{c}.tsv", as_tsv([s[:, c : c + 1] for s in sequences], labels))
        for c in range(sequences[0].shape[1])
    ]
    data = load_motion(paths)
    assert data.labels is not None and data.labels.tolist() == labels
    for one, other in zip(data.sequences, sequences, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def valid_or_data_error(path: Path) -> None:
    try:
        data = load_motion(path)
    except DataError as error:
        assert "\n" not in str(error) and str(error)[-1] in ".?", error
        return
    assert isinstance(data, MotionDataset) and all(np.isfinite(s).all() for s in data.sequences)


@ONE_FOLDER
@given(drawn=sets(), kind=st.sampled_from(list(WRITERS)), gz=st.booleans(), data=st.data())
def test_damage_is_a_valid_set_or_one_sentence(drawn: Any, kind: str, gz: bool, data: Any, tmp_path: Path) -> None:
    content = WRITERS[kind](*drawn).encode()
    damaged = bytearray(gzip.compress(content) if gz else content)
    if data.draw(st.booleans(), "cut"):
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    for _ in range(data.draw(st.integers(0, 8))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"a.{kind}{'.gz' if gz else ''}"
    path.write_bytes(bytes(damaged))
    valid_or_data_error(path)


@ONE_FOLDER
@given(
    kind=st.sampled_from([*WRITERS, "tsv.gz", "zip"]),
    content=st.one_of(st.binary(max_size=300), st.text().map(str.encode)),
)
def test_rubbish_is_one_sentence(kind: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"a.{kind}").write_bytes(content)
    valid_or_data_error(tmp_path / f"a.{kind}")


def test_a_file_that_decompresses_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tsv.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(100):
            file.write(b"1\t0" * (1 << 19))
    with pytest.raises(DataError, match="grows more than 200 times"):
        load_motion(path)


# ---- UCR .tsv -----------------------------------------------------------------------------------------
def test_tsv_missing_values_at_the_end_are_padding(tmp_path: Path) -> None:
    data = load_motion(write(tmp_path / "a.tsv", "1\t1\t2\t3\n2\t4\tNaN\tNaN\n"), rate=100)
    assert [s[:, 0].tolist() for s in data.sequences] == [[1, 2, 3], [4]] and data.rate == 100


def test_tsv_class_minus_one_is_a_class_and_no_mark_of_unlabelled(tmp_path: Path) -> None:
    data = load_motion(write(tmp_path / "a.tsv", "-1\t1\n1\t2\n?\t3\n"))
    assert data.labels is not None and data.labels.tolist() == ["-1", "1", None]


def test_tsv_without_a_label_is_unlabelled(tmp_path: Path) -> None:
    data = load_motion(write(tmp_path / "a.tsv", "\t1\t2\n5\t3\t4\t\n"))
    assert data.labels is not None and data.labels.tolist() == [-1, 5]
    assert [s[:, 0].tolist() for s in data.sequences] == [[1, 2], [3, 4]]


def test_csv_separated_by_tabs_may_end_with_an_empty_label(tmp_path: Path) -> None:
    data = load_motion(write(tmp_path / "a.csv", "time\tx\tlabel\n0\t1\t\n1\t2\t\n2\t3\tup\n"))
    assert data.labels is not None and data.labels.tolist() == [None, "up"]


def test_the_mark_of_unlabelled_can_be_told(tmp_path: Path) -> None:
    data = load_motion(write(tmp_path / "a.tsv", "-1.0\t1\n3\t2\n"), unlabeled=-1)
    assert data.labels is not None and data.labels.tolist() == [-1, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("1\t2\nx\n", "line 2: there is no value after the label"),
        ("1\t2\t3\n1\tNaN\t3\n", r"line 2: sample 0, channel 0 \(from 0\) is missing"),
        ("1\t2\n1\tNaN\n", "line 2: all values are missing"),
        ("1\t2\n1\tred\n", r"line 2, value 0 \(from 0\) is 'red'"),
        ("1\t2\n1\t1_0\n", "line 2, value 0"),
        ("1\t2\n1\tinf\n", "line 2, value 0 .* is 'inf'"),
        ("1\t2\n1\t1e300\n", "sequence 1, sample 0, channel 0"),
        ("1\t\0\n", "line 1: there are zero bytes"),
    ],
)
def test_tsv_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_motion(write(tmp_path / "a.tsv", text))


@pytest.mark.parametrize("other", ["1\t5\n", "1\t5\n3\t6\n", "1\t5\n2\t6\t7\n"])
def test_tsv_channels_that_do_not_belong_together_are_refused(tmp_path: Path, other: str) -> None:
    paths = [write(tmp_path / "x.tsv", "1\t1\n2\t2\n"), write(tmp_path / "y.tsv", other)]
    with pytest.raises(DataError, match=r"y\.tsv.* same sequences in the same order"):
        load_motion(paths)


# ---- UEA .ts and .arff ----------------------------------------------------------------------------------
TS = "@problemName P\n@timeStamps false\n@classLabel true a b\n@data\n"


def test_ts_without_labels(tmp_path: Path) -> None:
    data = load_motion(write(tmp_path / "a.ts", "@classLabel false\n@data\n1,2:3,4\n5:6\n"))
    assert data.labels is None and [s.tolist() for s in data.sequences] == [[[1, 3], [2, 4]], [[5, 6]]]


def test_ts_comments_may_be_in_any_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_bytes(b"# caf\xe9\n" + TS.encode() + b"1,2:a\n")
    assert load_motion(tmp_path / "a.ts").lengths.tolist() == [2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TS + "1,2:3,4:a\n1,?,3:1,2,3:a\n", r"line 6: sample 1, channel 0 \(from 0\) is missing"),
        (TS + "1,2:3,4:a\n1,2:a\n", r"line 6: 1 channel\(s\) where 2"),
        (TS + "1,2:3:a\n", r"line 5: the channels have \[2, 1\] values"),
        (TS + "1,2:c\n", "line 5: label 'c' is none of the header's"),
        (TS + "1,2\n", "line 5: label '1,2' is none"),
        (TS + "a\n", "line 5: there is no ':'"),
        (TS + "(0,1),(1,2):a\n", "line 5: the values have time stamps"),
        (TS, "no sequences after its header"),
        (TS.replace("stamps false", "stamps true").replace("Stamps false", "Stamps true"), "are not read from .ts"),
        (TS.replace("@data\n", ""), "no @data line"),
        (TS.replace("@classLabel true", "@classLabel maybe"), "line 3: @classlabel needs true or false"),
        ("@targetLabel true\n@data\n1:2\n", "targets are numbers to predict"),
        ("@dimensions many\n@data\n1:2\n", "needs a whole number"),
        ("1,2:3\n", "line 1: '1,2:3' comes before @data"),
    ],
)
def test_ts_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_motion(write(tmp_path / "a.ts", text))


def test_arff_of_one_channel(tmp_path: Path) -> None:
    text = "@relation r\n@attribute t0 real\n@attribute t1 REAL\n@attribute target {1.0,2.0}\n@data\n5,6,1.0\n7,?,2.0\n"
    data = load_motion(write(tmp_path / "a.arff", text))
    assert [s[:, 0].tolist() for s in data.sequences] == [[5, 6], [7]]
    assert data.labels is not None and data.labels.tolist() == [1, 2]


ARFF = '@relation r\n@attribute "x y" relational\n@attribute t0 numeric\n@end r\n@attribute c {a,b}\n@data\n'


def test_arff_values_may_be_in_either_quotes(tmp_path: Path) -> None:
    data = load_motion(write(tmp_path / "a.arff", ARFF + "\"1,2\\n3,4\",'a'\n"))
    assert data.sequences[0].tolist() == [[1, 3], [2, 4]] and data.classes.tolist() == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ARFF + "'1,2\\n3,4\n", "line 7: a sequence is written"),
        (ARFF + "'1,2\\n3,4'\n", "line 7: a sequence is written"),
        (ARFF + "1,2,a\n", "line 7: a sequence is written"),
        (ARFF + "'1,?\\n3,4',a\n", r"line 7: sample 1, channel 0 \(from 0\) is missing"),
        (ARFF + "'1,2\\n3,4',c\n", "line 7: label 'c'"),
        (ARFF + "{0 1}\n", "line 7: sparse rows"),
        (ARFF, "no sequences"),
        (ARFF.replace("@data\n", ""), "no @data"),
        (ARFF.replace("{a,b}", "string"), "line 5: attributes of type 'string'"),
        (ARFF.replace("@data", "@attribute d {x}\n@data"), "line 6: there is a second attribute of names"),
        (ARFF.replace("@data", "@attribute d numeric\n@data"), "line 7: the header has 3 attribute"),
        ("@attribute a numeric\n@attribute c {a}\n@data\n1,2,a\n", "line 4: 3 values where the header has 2"),
        ("@attribute\n@data\n", "line 1: '@attribute' is no attribute"),
        ("hello\n", "line 1: 'hello' comes before @data"),
    ],
)
def test_arff_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_motion(write(tmp_path / "a.arff", text))


# ---- CSV ------------------------------------------------------------------------------------------------
@ONE_FOLDER
@given(seed=st.integers(0, 2**32), rate=st.floats(1, 1000), start=st.floats(-1e6, 1e6))
def test_csv_of_a_straight_line_is_that_line_at_any_rate(seed: int, rate: float, start: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.001, 0.1, 20))
    lines = [f"{float(start + t)!r},{float(3 * t + 1)!r}" for t in times]
    data = load_motion(write(tmp_path / "a.csv", "t,x\n" + "\n".join(lines)), rate=rate)
    line = data.sequences[0][:, 0]
    expected = 3 * (times[0] + np.arange(len(line)) / rate) + 1
    np.testing.assert_allclose(line, np.minimum(expected, 3 * times[-1] + 1), atol=1e-4)
    assert (times[-1] - times[0]) * rate - 1 <= len(line) - 1 <= (times[-1] - times[0]) * rate + 0.02


def test_csv_samples_of_one_time_are_averaged(tmp_path: Path) -> None:
    data = load_motion(write(tmp_path / "a.csv", "t,x\n0,1\n1,2\n1,4\n2,5\n"))
    assert data.sequences[0][:, 0].tolist() == [1, 3, 5] and data.rate == 1


@pytest.mark.parametrize(
    ("head", "times", "parameters", "rate"),
    [
        ("time_ms", ["0", "20", "40"], {}, 50),
        ("Timestamp (us)", ["0", "10000", "20000"], {}, 100),
        ("t [ns]", ["0", "1000000", "2000000"], {}, 1000),
        ("ms", ["0", "20", "40"], {}, 50),
        ("time", ["0", "20", "40"], {"time_unit": "ms"}, 50),
        ("when", ["0", "0.5", "1"], {"time": "when"}, 2),
        ("datetime", ["2024-02-28T23:59:59.5", "2024-02-29 00:00:00Z", "2024-02-29T00:00:00.500"], {}, 2),
    ],
)
def test_csv_time_units(tmp_path: Path, head: str, times: list[str], parameters: Any, rate: float) -> None:
    text = f"{head},x\n" + "".join(f"{t},{i}\n" for i, t in enumerate(times))
    data = load_motion(write(tmp_path / "a.csv", text), **parameters)
    assert data.rate == pytest.approx(rate, rel=1e-5) and data.lengths.tolist() == [3]


def test_csv_without_header_has_time_first(tmp_path: Path) -> None:
    data = load_motion(write(tmp_path / "a.csv", "0.0;1;up\n0.1;2;up\n0.2;3;down\n"), labels=2)
    assert data.labels is not None and data.labels.tolist() == ["up", "down"]
    assert data.lengths.tolist() == [2, 1] and data.channels == ("c0",)


def test_csv_without_times_takes_the_rate_given(tmp_path: Path) -> None:
    data = load_motion(write(tmp_path / "a.csv", "x,y\n1,2\n3,4\n"), rate=30)
    assert data.rate == 30 and data.sequences[0].tolist() == [[1, 2], [3, 4]] and data.channels == ("x", "y")


def test_csv_runs_of_one_label_are_sequences_and_empty_labels_are_unlabelled(tmp_path: Path) -> None:
    rows = [(0, "a"), (1, "a"), (2, ""), (3, ""), (4, "a")]
    text = "time,x,gesture\n" + "".join(f"{t},{10 * t},{label}\n" for t, label in rows)
    data = load_motion(write(tmp_path / "a.csv", text))
    assert data.labels is not None and data.labels.tolist() == ["a", None, "a"]
    assert [s[:, 0].tolist() for s in data.sequences] == [[0, 10], [20, 30], [40]]


def test_csv_sequences_may_be_interleaved_and_have_subjects(tmp_path: Path) -> None:
    text = "sequence,time,x,subject\nu,0,1,7\nv,0,5,8\nu,1,2,7\nv,1,6,8\n"
    data = load_motion(write(tmp_path / "a.csv", text))
    assert data.groups is not None and data.groups.tolist() == [7, 8] and data.labels is None
    assert [s[:, 0].tolist() for s in data.sequences] == [[1, 2], [5, 6]]


def test_a_folder_of_csv_is_labelled_by_folders_and_names(tmp_path: Path) -> None:
    for name in ("circle/1.csv", "circle/2.csv.gz", "wave/x.csv", "check_01.csv", "03.csv", ".hidden.csv", "notes.txt"):
        write(tmp_path / name, f"time,x\n0,{len(name)}\n0.5,0\n")
    data = load_motion(tmp_path)
    assert data.labels is not None and data.labels.tolist() == [None, "check", "circle", "circle", "wave"]
    assert [int(s[0, 0]) for s in data.sequences] == [6, 12, 12, 15, 10]


def test_a_list_of_csv_is_labelled_by_names(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, "time,x\n0,1\n1,2\n") for name in ("up-1.csv", "down (2).csv")]
    data = load_motion(paths)
    assert data.labels is not None and data.labels.tolist() == ["up", "down"]


@pytest.mark.parametrize(
    ("text", "parameters", "message"),
    [
        ("", {}, "is empty"),
        ("time,x\n", {}, "has no sequences"),
        ("time,x\n0,1\n1,2\n0.5,3\n", {}, "line 4: time '0.5' is before that of line 3"),
        ("time,x\n0,1\n1\n", {}, "line 3: 1 values where the first line has 2"),
        ("time,x\n0,1\n1,\n", {}, "line 3, channel 'x': the value is missing"),
        ("time,x\n0,1\n1,red\n", {}, "line 3, channel 'x': the value is 'red'"),
        ("time,x\n0,1\nnoon,3\n", {}, "line 3: time 'noon' is neither"),
        ("time,x\n0,1\nnan,3\n", {}, "line 3: time 'nan' is neither"),
        ("time,x\n5,1\n", {}, "no sequence has two time stamps"),
        ("time,x\n0,1\n1,2\n2,3\n1e9,4\n", {}, "cut it at its gaps"),
        ("time,x\n0,1\n1e300,2\n", {"rate": 1e10}, "cut it at its gaps"),
        ("time,x\n-1e308,1\n1e308,2\n", {}, "tell no rate"),
        ("time,x\n0,1\n5e-324,2\n", {}, "tell no rate"),
        ("x,y\n0,1\n1,2\n", {}, "no column named like a time among 'x', 'y'"),
        ("time,x\n0,1\n1,2\n", {"labels": "z"}, "no label column 'z'; its columns are 'time', 'x'"),
        ("0,1\n1,2\n", {"time": 4}, "no time column 4; it has 2 without names"),
        ("time,x\n0,1\n1,2\n", {"labels": "time"}, "named for two purposes"),
        ("time\n0\n1\n", {}, "no channels besides"),
        ("time,x,x\n0,1,1\n1,2,2\n", {}, "two channels of one name"),
        ("time,x\n0,1\n1,2\n", {"time_unit": "h"}, "time_unit 'h' is unknown"),
        ("time,x\n0,1\n1,2\n", {"rate": -1}, "rate must be a positive"),
        ("time,x,label,trial\n0,1,a,1\n1,2,b,1\n", {}, "line 3: label 'b'"),
        ('time,x\n0,"1\n1,2\n', {}, "line 2: .*check the quotes"),
        ("time,x\n0,1\n1,1e300\n", {}, "sequence 0, sample 1, channel 0"),
    ],
)
def test_csv_errors_name_the_line(tmp_path: Path, text: str, parameters: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_motion(write(tmp_path / "a.csv", text), **parameters)


def test_csv_files_of_different_channels_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.csv", "time,x\n0,1\n")
    write(tmp_path / "b" / "1.csv", "time,y\n0,1\n")
    with pytest.raises(DataError, match=r"channels \['y'\] where the files before have \['x'\]"):
        load_motion(tmp_path, rate=1)


# ---- UTD-MHAD -------------------------------------------------------------------------------------------
def mat(array: Any, key: str) -> bytes:
    file = io.BytesIO()
    savemat(file, {key: array}, do_compression=True)
    return file.getvalue()


def utd(rng: np.random.Generator, keys: list[tuple[int, int, int]], modality: str) -> dict[str, np.ndarray]:
    return {
        f"a{a}_s{s}_t{t}_{modality}.mat": rng.normal(
            size=(int(rng.integers(2, 9)), 6) if modality == "inertial" else (20, 3, int(rng.integers(2, 9)))
        )
        for a, s, t in keys
    }


def zipped(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("M/readme.txt", "hello")
        for name, array in arrays.items():
            archive.writestr("M/" + name, mat(array, "d_iner" if "inertial" in name else "d_skel"))
    return path


KEYS = [(10, 1, 1), (2, 8, 1), (2, 1, 2), (2, 1, 1)]


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.default_rng().integers(2**32))
    print(f"seed {seed}")
    return np.random.default_rng(seed)


@pytest.mark.parametrize("modality", ["inertial", "skeleton"])
@pytest.mark.parametrize("form", ["zip", "folder"])
def test_utd_is_ordered_by_action_subject_and_trial(
    tmp_path: Path, rng: np.random.Generator, modality: str, form: str
) -> None:
    arrays = utd(rng, KEYS, modality)
    path = zipped(tmp_path / "a.zip", arrays)
    if form == "folder":
        path = tmp_path / "folder"
        with zipfile.ZipFile(tmp_path / "a.zip") as archive:
            archive.extractall(path)
    data = load_motion(path)
    assert data.labels is not None and data.labels.tolist() == [2, 2, 2, 10]
    assert data.groups is not None and data.groups.tolist() == [1, 1, 8, 1]
    for sequence, (a, s, t) in zip(data.sequences, sorted(KEYS), strict=True):
        array = arrays[f"a{a}_s{s}_t{t}_{modality}.mat"]
        rows = array if modality == "inertial" else [array[:, :, i].ravel() for i in range(array.shape[2])]
        np.testing.assert_allclose(sequence, rows, rtol=1e-6)
    assert data.rate == (50 if modality == "inertial" else 30)
    if modality == "skeleton":
        assert data.channels[:4] == ("head_x", "head_y", "head_z", "shoulder_center_x")
        assert data.channels[-1] == "right_foot_z"


def test_both_modalities_are_matched_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    inertial, skeleton = (utd(rng, keys, m) for keys, m in ((KEYS, "inertial"), (KEYS[::-1], "skeleton")))
    data = read_utd_mhad(zipped(tmp_path / "i.zip", inertial), zipped(tmp_path / "s.zip", skeleton))
    assert data.n_channels == 66 and data.rate == 50 and data.channels[5:7] == ("gyro_z", "head_x")
    for sequence, (a, s, t) in zip(data.sequences, sorted(KEYS), strict=True):
        motion, joints = inertial[f"a{a}_s{s}_t{t}_inertial.mat"], skeleton[f"a{a}_s{s}_t{t}_skeleton.mat"]
        np.testing.assert_allclose(sequence[:, :6], motion, rtol=1e-6)
        np.testing.assert_allclose(sequence[0, 6:], joints[:, :, 0].ravel(), rtol=1e-5)
        np.testing.assert_allclose(sequence[-1, 6:], joints[:, :, -1].ravel(), rtol=1e-5)


def test_a_recording_of_one_modality_only_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    one = zipped(tmp_path / "i.zip", utd(rng, KEYS, "inertial"))
    other = zipped(tmp_path / "s.zip", utd(rng, KEYS[1:], "skeleton"))
    with pytest.raises(DataError, match=r"s\.zip' lacks a10_s1_t1_skeleton\.mat"):
        read_utd_mhad(one, other)
    with pytest.raises(DataError, match="holds skeleton recordings where inertial ones"):
        read_utd_mhad(other, one)


def test_both_modalities_in_one_place_are_told_apart(tmp_path: Path, rng: np.random.Generator) -> None:
    both = zipped(tmp_path / "b.zip", utd(rng, KEYS, "inertial") | utd(rng, KEYS, "skeleton"))
    assert read_utd_mhad(both, both).n_channels == 66
    with pytest.raises(DataError, match="holds both modalities"):
        load_motion(both)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (mat(np.zeros((5, 5)), "d_iner"), r"d_iner has shape \(5, 5\); numbers of length x 6"),
        (mat(np.zeros((0, 6)), "d_iner"), r"d_iner has shape \(0, 6\)"),
        (mat(np.zeros((4, 6, 2)), "d_iner"), "d_iner has shape"),
        (mat(np.zeros((4, 6)), "other"), "there is no d_iner"),
        (mat(np.array(["abcdef"] * 6, dtype=object)[None], "d_iner"), "d_iner has shape"),
        (mat(np.full((4, 6), np.nan), "d_iner"), "sample 0, acc_x is not finite"),
        (mat(np.zeros((1_000_000, 6)), "d_iner")[:80_000], "numbers of length x 6"),
        (b"rubbish", "does not start as a MATLAB 5 file"),
        (b"", "does not start as a MATLAB 5 file"),
        (bytes(1 << 20), "too large for one recording"),
    ],
)
def test_utd_files_that_are_something_else_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a1_s1_t1_inertial.mat").write_bytes(content)
    with pytest.raises(DataError, match="a1_s1_t1_inertial.mat: .*" + message):
        load_motion(tmp_path)


@ONE_FOLDER
@given(seed=st.integers(0, 2**32), inside=st.booleans(), n=st.integers(0, 8), cut=st.booleans())
def test_damaged_utd_files_are_a_valid_set_or_one_sentence(
    seed: int, inside: bool, n: int, cut: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)

    def damage(content: bytes) -> bytes:
        damaged = bytearray(content)
        for place in rng.integers(len(damaged), size=n):
            damaged[place] = rng.integers(256)
        return bytes(damaged[: rng.integers(len(damaged))] if cut else damaged)

    matrix = mat(rng.normal(size=(5, 6)), "d_iner")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a1_s1_t1_inertial.mat", damage(matrix) if inside else matrix)
    content = buffer.getvalue()
    (tmp_path / "a.zip").write_bytes(content if inside else damage(content))
    valid_or_data_error(tmp_path / "a.zip")


def test_a_zip_that_decompresses_to_too_much_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a1_s1_t1_inertial.mat", bytes(1 << 26))
    with pytest.raises(DataError, match="too large for one recording"):
        load_motion(tmp_path / "a.zip")


# ---- what to read ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["a.xyz", "a", "a.zip.gz", "a.mat"])
def test_unknown_kinds_of_file_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="whose kind is known by its name"):
        load_motion(write(tmp_path / name, "1"))


@pytest.mark.parametrize("name", ["a.tsv", "a.ts", "a.arff", "a.csv", "a.csv.gz", "a.zip"])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_motion(tmp_path / name)


def test_lists_of_what_makes_no_set_are_refused(tmp_path: Path) -> None:
    for names in (["a.ts", "b.ts"], ["a.tsv", "a.csv"], []):
        with pytest.raises(DataError):
            load_motion([tmp_path / name for name in names])


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "hello")
    with pytest.raises(DataError, match="holds neither CSV files"):
        load_motion(tmp_path)


def test_parameters_of_csv_are_refused_elsewhere(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(DataError, match="is no CSV file"):
        load_motion(write(tmp_path / "a.tsv", "1\t2\n"), labels="x")
    with pytest.raises(DataError, match="its own rate"):
        load_motion(zipped(tmp_path / "a.zip", utd(rng, KEYS, "inertial")), rate=10)


# ---- real files -----------------------------------------------------------------------------------------
def counts(data: MotionDataset) -> list[int]:
    assert data.labels is not None
    return np.unique(data.labels, return_counts=True)[1].tolist()


@pytest.mark.data
@pytest.mark.parametrize(("split", "expected"), [("TRAIN", [24, 26]), ("TEST", [76, 74])])
def test_gunpoint(split: str, expected: list[int]) -> None:
    data = load_motion(real("gunpoint", f"GunPoint_{split}.tsv.gz"))
    assert counts(data) == expected and set(data.lengths) == {150} and data.classes.tolist() == [1, 2]
    values = np.stack(data.sequences)[:, :, 0].astype(float)
    np.testing.assert_allclose(values.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(values.std(1, ddof=1), 1, atol=1e-4)


@pytest.mark.data
@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("TRAIN", [122, 108, 106, 110, 127, 111, 112, 100]),
        ("TEST", [437, 452, 454, 450, 433, 449, 447, 460]),
    ],
)
def test_uwave_of_the_ucr_archive(split: str, expected: list[int]) -> None:
    data = load_motion([real("uwave_ucr", f"UWaveGestureLibrary{axis}_{split}.tsv.gz") for axis in "XYZ"])
    assert counts(data) == expected and set(data.lengths) == {315} and data.channels == ("x", "y", "z")
    values = np.stack(data.sequences).astype(float)
    np.testing.assert_allclose(values.mean(1), 0, atol=1e-4)
    deviation = values.std(1, ddof=1)
    # One Z series of the test set is constant.
    assert (deviation < 1e-3).sum() == (split == "TEST")
    np.testing.assert_allclose(deviation[deviation >= 1e-3], 1, atol=1e-4)


@pytest.mark.data
@pytest.mark.parametrize(("split", "each"), [("TRAIN", 15), ("TEST", 40)])
def test_uwave_of_the_uea_archive(split: str, each: int) -> None:
    data = load_motion(real("uwave_uea", f"UWaveGestureLibrary_{split}.arff.gz"))
    assert counts(data) == [each] * 8 and data.classes.tolist() == list(range(1, 9))
    values = np.stack(data.sequences).astype(float)
    assert values.shape == (8 * each, 315, 3)
    np.testing.assert_allclose(values.mean(1), 0, atol=1e-4)


@pytest.mark.data
def test_both_archives_hold_the_same_recordings() -> None:
    import csv

    with gzip.open(real("uwave_ucr", "index.csv.gz"), "rt") as file:
        rows = [r for r in csv.DictReader(file) if r["ucr_split"] == "train" and r["uea_split"] == "train"]
    ucr = load_motion([real("uwave_ucr", f"UWaveGestureLibrary{axis}_TRAIN.tsv.gz") for axis in "XYZ"])
    uea = load_motion(real("uwave_uea", "UWaveGestureLibrary_TRAIN.arff.gz"))
    assert len(rows) == 22
    for row in rows:
        one, other = ucr.sequences[int(row["ucr_row"])], uea.sequences[int(row["uea_row"])]
        np.testing.assert_allclose(one, other, atol=2e-3)


@pytest.mark.data
@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_basic_motions(split: str) -> None:
    data = load_motion(real("basicmotions", f"BasicMotions_{split}.ts.gz"))
    assert counts(data) == [10] * 4 and set(data.lengths) == {100} and data.n_channels == 6
    assert data.classes.tolist() == ["Badminton", "Running", "Standing", "Walking"]
    if split == "TRAIN":
        assert data.sequences[0][:3, 0].tolist() == np.float32([0.079106, 0.079106, -0.903497]).tolist()


@pytest.mark.data
def test_utd_mhad() -> None:
    paths = real("utd_mhad", "Inertial.zip"), real("utd_mhad", "Skeleton.zip")
    inertial, skeleton = map(load_motion, paths)
    both = read_utd_mhad(*paths)
    expected = [31 if action in (8, 23, 27) else 32 for action in range(1, 28)]
    for data, n_channels in ((inertial, 6), (skeleton, 60), (both, 66)):
        assert len(data) == 861 and counts(data) == expected and data.n_channels == n_channels
        assert data.groups is not None and int((data.groups % 2 == 1).sum()) == 431
    assert (inertial.lengths.min(), inertial.lengths.max()) == (107, 326)
    assert (skeleton.lengths.min(), skeleton.lengths.max()) == (41, 125)
    assert (both.lengths == inertial.lengths).all()
    # Heads are above feet: the joints are where their names say.
    head, foot = (skeleton.channels.index(name) for name in ("head_y", "left_foot_y"))
    assert all((sequence[:, head] > sequence[:, foot]).mean() > 0.9 for sequence in skeleton.sequences)
