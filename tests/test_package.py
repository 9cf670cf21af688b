"""The package as such: its version, its public names, and what `import gesda` costs."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gesda

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("sklearn", "scipy", "cupy", "torch", "pandas", "polars", "matplotlib", "numba", "tqdm", "safetensors")


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_gesda_loads_nothing_heavy():
    loaded = _run(f"import sys, gesda; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert loaded == "[]"


@pytest.mark.parametrize("module", ["spec", "schedule", "engine", "callbacks"])
def test_the_lower_modules_load_without_scikit_learn(module):
    loaded = _run(f"import sys, gesda.{module}; print([n for n in ('sklearn', 'cupy', 'torch') if n in sys.modules])")
    assert loaded == "[]"


def test_the_cupy_engine_is_not_imported_by_the_estimators():
    assert _run("import sys, gesda.estimators; print('cupy' in sys.modules, 'torch' in sys.modules)") == "False False"


def test_the_version_is_that_of_pyproject():
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared is not None
    assert gesda.__version__ == declared[1]
    assert importlib.metadata.version("gesda") == declared[1]


def test_the_changelog_speaks_of_this_version():
    assert f"[{gesda.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in gesda.__all__ if name != "__version__"])
def test_every_public_name_loads_and_is_documented(name):
    value = getattr(gesda, name)
    assert value.__doc__
    assert name in dir(gesda)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'gesda' has no attribute 'SdaClassifier'"):
        _ = gesda.SdaClassifier


def test_the_console_script_points_at_a_function():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="gesda")
    assert callable(script.load())


def test_the_package_is_typed_and_the_formulas_ship_with_it():
    assert importlib.resources.files("gesda").joinpath("py.typed").is_file()
    assert "Philox" in importlib.resources.files("gesda.kernels").joinpath("math.hpp").read_text(encoding="utf-8")


def test_the_formulas_need_no_header():
    text = importlib.resources.files("gesda.kernels").joinpath("math.hpp").read_text(encoding="utf-8")
    assert not re.search(r"^\s*#\s*include", text, re.MULTILINE)


def test_pre_commit_and_the_dev_extra_name_the_same_tool_versions():
    pattern = re.compile(r"\b(ruff|clang-format)==([0-9.]+)")
    declared = dict(pattern.findall((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    hooked = set(pattern.findall((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")))
    assert hooked == set(declared.items())
    assert set(declared) == {"ruff", "clang-format"}
