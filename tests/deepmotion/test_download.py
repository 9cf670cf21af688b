"""fetch_motion: what is read has the checksum of the register; without a network it says so. Nothing is downloaded."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pooch", reason="pooch is not installed")

from gesda.datasets import DataError
from gesda.deepmotion.data import download
from gesda.deepmotion.data.download import MOTION_SETS, fetch_motion

DATA = Path(os.environ.get("GESDA_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def real(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is in neither $GESDA_DATA nor ../shared/data")
    return path


class Network:
    """Stands in for the network: serves what it has by address, and counts."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.asked = files, list[str]()

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        self.asked.append(url)
        if url not in self.files:
            raise ConnectionError(f"no route to {url}")
        Path(output_file).write_bytes(self.files[url])


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    train, test = b"1\t1\t2\n2\t3\t4\n", b"2\t5\t6\n"
    root = "http://example.invalid"
    served = Network({f"{root}/A_TRAIN.tsv": train, f"{root}/A_TEST.tsv": test})
    splits = {
        name: (download._File(f"{root}/A_{name.upper()}.tsv", hashlib.sha256(content).hexdigest()),)
        for name, content in (("train", train), ("test", test))
    }
    monkeypatch.setitem(download._REGISTER, "a", download._Set(splits, rate=20.0, channels=("x",)))
    monkeypatch.setattr(download, "_download", served)
    return served


def test_a_set_is_fetched_once(network: Network, tmp_path: Path) -> None:
    for _ in range(2):
        data = fetch_motion("a", cache=tmp_path)
        assert data.labels is not None and data.labels.tolist() == [1, 2, 2]
        assert data.groups is not None and data.groups.tolist() == ["train", "train", "test"]
        assert (data.name, data.rate, data.channels) == ("a", 20.0, ("x",))
    assert len(network.asked) == 2


def test_one_split_is_fetched_alone(network: Network, tmp_path: Path) -> None:
    assert fetch_motion("a", split="test", cache=tmp_path).sequences[0][:, 0].tolist() == [5, 6]
    assert network.asked == ["http://example.invalid/A_TEST.tsv"]


def test_the_cache_may_be_told_by_the_environment(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GESDA_CACHE", str(tmp_path / "here"))
    fetch_motion("a")
    assert sorted(path.name for path in (tmp_path / "here").rglob("*.tsv")) == ["A_TEST.tsv", "A_TRAIN.tsv"]


def test_a_file_that_was_changed_in_the_cache_is_fetched_again(network: Network, tmp_path: Path) -> None:
    fetch_motion("a", cache=tmp_path)
    (tmp_path / "a" / "A_TEST.tsv").write_bytes(b"9\t9\n")
    assert fetch_motion("a", split="test", cache=tmp_path).classes.tolist() == [2]


def test_a_wrong_file_is_refused_and_not_kept(network: Network, tmp_path: Path) -> None:
    network.files["http://example.invalid/A_TEST.tsv"] = b"2\t5\t7\n"
    with pytest.raises(DataError, match=r"A_TEST\.tsv is not the file that is known by its checksum"):
        fetch_motion("a", cache=tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["A_TRAIN.tsv"]


def test_without_a_network_one_sentence_says_so(network: Network, tmp_path: Path) -> None:
    network.files.clear()
    with pytest.raises(
        DataError, match=r"cannot be fetched \(ConnectionError: no route.*check the network, or put"
    ) as e:
        fetch_motion("a", cache=tmp_path)
    assert "\n" not in str(e.value) and not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_real_downloader_says_when_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    file = download._File("http://127.0.0.1:9/A.tsv", "0" * 64)
    monkeypatch.setitem(download._REGISTER, "a", download._Set({"train": (file,)}))
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch_motion("a", cache=tmp_path)


def test_an_unknown_set_or_split_is_refused() -> None:
    with pytest.raises(DataError, match="there is no set 'b'; the sets are basicmotions"):
        fetch_motion("b")
    with pytest.raises(DataError, match="'uwave_ucr' has no split 'test'; it has train"):
        fetch_motion("uwave_ucr", split="test")
    with pytest.raises(DataError, match="'utd_mhad' has no split 'train'; it has none"):
        fetch_motion("utd_mhad", split="train")


def test_without_pooch_the_error_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install 'gesda\[deepmotion\]'"):
        fetch_motion("gunpoint")


def test_every_address_names_a_commit_and_has_a_checksum() -> None:
    for name in MOTION_SETS:
        entry = download._REGISTER[name]
        files = [file for files in entry.splits.values() for file in files]
        for url, sha256 in [(file.url, file.sha256) for file in [*files, *entry.folders]]:
            assert url.startswith("https://") and len(url.split("/")[5]) == 40
            assert len(sha256) == 64 and int(sha256, 16)


# ---- the register against the real files ------------------------------------------------------------
LOCAL = {
    "basicmotions": "basicmotions",
    "gunpoint": "gunpoint",
    "uwave_uea": "uwave_uea",
    "uwave_ucr": "uwave_ucr",
}


@pytest.mark.data
@pytest.mark.parametrize("name", LOCAL)
def test_the_register_has_the_checksums_of_the_real_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [file for files in download._REGISTER[name].splits.values() for file in files]
    contents = {
        file.url: gzip.decompress(real(LOCAL[name], file.name.replace("Gestrue", "Gesture") + ".gz").read_bytes())
        for file in files
    }
    monkeypatch.setattr(download, "_download", Network(contents))
    data = fetch_motion(name, cache=tmp_path)
    assert len(data) == {"basicmotions": 80, "gunpoint": 200, "uwave_uea": 440, "uwave_ucr": 896}[name]


@pytest.mark.data
def test_utd_mhad_is_checked_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {}
    for folder in download._REGISTER["utd_mhad"].folders:
        with zipfile.ZipFile(real("utd_mhad", folder.url.rpartition("/")[2] + ".zip")) as archive:
            for member in archive.namelist():
                contents[f"{folder.url}/{member.rpartition('/')[2]}"] = archive.read(member)
    network = Network(contents)
    monkeypatch.setattr(download, "_download", network)
    data = fetch_motion("utd_mhad", cache=tmp_path)
    assert len(data) == 861 and data.n_channels == 66 and len(network.asked) == 2 * 861
    assert fetch_motion("utd_mhad_inertial", cache=tmp_path).n_channels == 6 and len(network.asked) == 2 * 861

    # Any file that differs, and nothing is kept.
    name = download._INERTIAL.names[int(np.random.default_rng().integers(861))]
    (tmp_path / "utd_mhad" / "Inertial" / name).write_bytes(b"changed")
    with pytest.raises(DataError, match="Inertial does not hold the files that are known by their checksum"):
        fetch_motion("utd_mhad_inertial", cache=tmp_path)
    assert not list((tmp_path / "utd_mhad" / "Inertial").iterdir())
