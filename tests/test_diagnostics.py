"""show_versions: everything that a bug report needs, whatever is missing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gesda
from gesda import diagnostics


def test_own_version_and_versions_of_packages_are_told() -> None:
    info = diagnostics.version_info()
    assert info["GeSdA"]["version"] == gesda.__version__
    assert info["packages"]["numpy"] == np.__version__
    assert info["packages"]["scikit-learn"] == metadata.version("scikit-learn")
    assert info["system"]["python"].startswith(".".join(map(str, sys.version_info[:3])))


def test_usable_cores_follow_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    assert diagnostics.version_info()["system"]["usable cores"] == "3"
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert diagnostics.usable_cores() == 1


def test_show_versions_prints_every_entry() -> None:
    out = io.StringIO()
    gesda.show_versions(file=out)
    for section, entries in diagnostics.version_info().items():
        assert section in out.getvalue()
        for name, value in entries.items():
            assert f"{name}:" in out.getvalue() and value in out.getvalue()


def test_core_variants_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    core = SimpleNamespace(
        active_variant=lambda: "avx2", available_variants=lambda: ["scalar", "avx2"], has_bf16=lambda: False
    )
    monkeypatch.setattr(diagnostics.importlib, "import_module", lambda name: core)
    assert diagnostics.version_info()["GeSdA"]["core"] == "avx2"
    assert diagnostics.version_info()["GeSdA"]["core variants"] == "scalar, avx2"
    assert diagnostics.version_info()["GeSdA"]["core bf16"] == "no"


def test_missing_core_is_told_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError("no module named '_core'")

    monkeypatch.setattr(diagnostics.importlib, "import_module", missing)
    assert diagnostics.version_info()["GeSdA"]["core"] == "not available (no module named '_core')"


def test_missing_packages_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(diagnostics.metadata, "version", missing)
    assert set(diagnostics.version_info()["packages"].values()) == {"not installed"}


def test_cupy_is_found_under_its_distributions_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "cupy-cuda13x":
            return "14.2.0"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(diagnostics.metadata, "version", version)
    assert diagnostics.version_info()["packages"]["cupy"] == "14.2.0"


def test_cpu_and_gpu_names_come_from_the_systems_files(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n")
    assert diagnostics._cpu_name(tmp_path / "cpuinfo") == "Some CPU @ 3 GHz"
    assert diagnostics._cpu_name(tmp_path / "absent")
    assert diagnostics._gpu_names(tmp_path) == "none found"
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.12.01  Mon\n")
    assert diagnostics._gpu_names(tmp_path) == "none found"
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    (tmp_path / "gpus" / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA Card\nIRQ: 1\n")
    assert diagnostics._gpu_names(tmp_path) == "NVIDIA Card (driver 580.12.01)"


def test_no_heavy_package_is_imported() -> None:
    code = (
        "import sys, io; from gesda.diagnostics import show_versions; show_versions(io.StringIO());"
        "print([m for m in ('cupy', 'sklearn', 'matplotlib', 'torch', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
