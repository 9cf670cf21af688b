"""What a user gets: sdist -> wheel from the sdist -> an empty environment -> a trained model.

Slow (it compiles the core twice), so deselected by default: ``pytest tests/packaging -m packaging``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from gesda.engine.cuda.compile import AHEAD, nvrtc

ROOT = Path(__file__).resolve().parents[2]
SMOKE = Path(__file__).with_name("smoke.py")

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(1500)]


def _run(*command: object, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def _new_environment(folder: Path) -> Path:
    _run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    return folder / "bin" / "python"


def _tracked_copy(folder: Path) -> Path:
    """Copy the files that git tracks: what a fresh clone has, without a working tree's leftovers."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git and a clone: the copy holds the tracked files only")
    for name in _run("git", "ls-files", cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = _tracked_copy(tmp_path_factory.mktemp("source"))
    # Leftovers of the kind that setuptools would pack if it were allowed to.
    (source / "gesda" / "leftover.txt").write_text("not for users")
    (source / "tests" / "leftover.bin").write_bytes(b"\0")
    out = tmp_path_factory.mktemp("sdist")
    _run(sys.executable, "-m", "build", "--sdist", "--outdir", out, source, cwd=source)
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    out = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "build", "--wheel", "--outdir", out, source, cwd=source)
    (path,) = out.iterdir()
    return path


def test_the_sdist_holds_the_sources_and_no_leftovers(sdist: Path):
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for needed in (
        "CMakeLists.txt",
        "pyproject.toml",
        "setup.py",
        "LICENSE",
        "README.md",
        "kernels/math.hpp",
        "cpp/python/module.cpp",
        "cpp/src/variants/kernels.cpp",
        "gesda/__init__.py",
        "gesda/py.typed",
        "tests/packaging/smoke.py",
    ):
        assert needed in names
    assert not [name for name in names if "leftover" in name]
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc", ".safetensors"))]
    assert not [name for name in names if name.startswith((".ci", "build/", "dist/", ".venv"))]


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert "none-any" not in wheel.name, "the wheel claims to be without native code"
    extensions = [name for name in names if name.startswith("gesda/_core") and name.endswith(".so")]
    assert len(extensions) == 1
    assert {"gesda/py.typed", "gesda/kernels/math.hpp", "gesda/kernels/__init__.py"} <= set(names)
    # Every Python file of the checkout's package, under the same name.
    tracked = _run("git", "ls-files", "gesda", cwd=ROOT).splitlines()
    assert {name for name in tracked if name.endswith((".py", ".pyi"))} <= set(names)
    top = {name.split("/")[0] for name in names}
    assert top == {"gesda", next(name.split("/")[0] for name in names if ".dist-info/" in name)}
    page = {name for name in tracked if name.startswith("gesda/deepmotion/serve/static/")}
    assert page and page <= set(names)
    assert "gesda/export/c_source_template.c" in names
    allowed = (".py", ".pyi", ".so", ".hpp", ".cuh", ".cu", ".c", "py.typed")
    own = {name for name in names if name.startswith("gesda/") and not name.endswith("/")} - page
    assert [name for name in own if not name.endswith(allowed)] == []
    assert "License-Expression: MIT" in metadata
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_wheel_trains(wheel: Path, tmp_path: Path):
    python = _new_environment(tmp_path / "env")
    _run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    printed = _run(python, SMOKE, cwd=tmp_path)
    assert "installed=True" in printed
    assert "gesda" in _run(tmp_path / "env" / "bin" / "gesda", "--help", cwd=tmp_path)


def test_an_editable_install_trains_and_follows_the_sources(tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    _tracked_copy(source)
    python = _new_environment(tmp_path / "env")
    _run(python, "-m", "pip", "install", "--quiet", "--editable", source, cwd=tmp_path)
    assert "installed=False" in _run(python, SMOKE, cwd=tmp_path)
    assert list((source / "gesda").glob("_core*.so")), "editable builds put the extension beside the sources"
    init = source / "gesda" / "__init__.py"
    init.write_text(init.read_text(encoding="utf-8") + "\nADDED_AFTER_INSTALL = True\n", encoding="utf-8")
    assert _run(python, "-c", "import gesda; print(gesda.ADDED_AFTER_INSTALL)", cwd=tmp_path).strip() == "True"


def test_a_wheel_holds_kernels_compiled_for_the_targets_asked_for(sdist: Path, tmp_path: Path):
    try:
        nvrtc()
    except RuntimeError as error:
        pytest.skip(str(error))
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    environment = {**os.environ, "GESDA_EMBED_KERNELS": "sm_87", "GESDA_EMBED_PRECISIONS": "fp16"}
    built = tmp_path / "built"
    _run(sys.executable, "setup.py", "build_py", "--build-lib", built, cwd=source, env=environment)
    names = sorted(path.name for path in (built / "gesda" / "kernels" / "compiled").iterdir())
    assert len(names) == len(AHEAD)
    assert all(name.endswith("-fp16-sm_87.cubin") for name in names)
