"""Imports point down only: each module of gesda/ imports no more than the table below gives it.

The sources are read, not run, so an import inside a function or under ``TYPE_CHECKING`` counts as well.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "gesda"

# Unit (a module or a subpackage directly under gesda/) -> the units it may import. A private unit `_x` is placed
# like any other: who adds a module places it here.
_BELOW_TRAINER = {"spec", "schedule", "callbacks", "engine", "model_io", "ingest"}
_BELOW_ESTIMATORS = _BELOW_TRAINER | {"trainer"}
_BELOW_TOP = _BELOW_ESTIMATORS | {"estimators", "datasets", "diagnostics"}
MAY_IMPORT: dict[str, set[str]] = {
    "spec": set(),
    "schedule": {"spec"},
    "engine": {"spec"},
    "model_io": {"spec"},
    "ingest": {"spec", "engine"},
    "callbacks": {"spec", "model_io"},
    "datasets": {"spec", "ingest"},
    "diagnostics": {"spec", "engine"},
    "_training_state": {"spec", "engine", "model_io"},
    "_divergence": set(),
    "_pretraining": {"spec", "schedule", "engine", "_divergence"},
    "trainer": _BELOW_TRAINER | {"_training_state", "_pretraining", "_divergence"},
    "estimators": _BELOW_ESTIMATORS,
    "plotting": _BELOW_TOP,
    "demo": _BELOW_TOP | {"plotting"},
    "deepmotion": _BELOW_TOP | {"plotting"},
    "runtime": set(),
    "export": _BELOW_TOP | {"runtime", "deepmotion"},
    "cli": _BELOW_TOP | {"plotting", "demo", "deepmotion", "export", "runtime"},
    # The package itself names its public objects as strings and imports them on first use.
    "__init__": set(),
    "__main__": {"cli"},
}

# Top-level name of a package -> prefixes of the modules (below gesda) that may import it.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "gesda._core": ("engine.cpu", "engine._cpu", "runtime"),
    "cupy": ("engine.cuda", "engine.gpu_matrix"),
    "cupyx": ("engine.cuda", "engine.gpu_matrix"),
    "sklearn": ("estimators", "ingest", "datasets", "deepmotion", "export"),
    "onnx": ("export",),
    "safetensors": ("model_io",),
    "matplotlib": ("plotting", "deepmotion"),
    "numba": ("deepmotion",),
    "pooch": ("deepmotion.data.download",),
    "starlette": ("deepmotion.serve",),
    "uvicorn": ("deepmotion.serve",),
    "torch": (),
    "jax": (),
}
# Exact modules that are allowed in addition: a warning class carries no machinery with it.
ALSO_ALLOWED = {("trainer", "sklearn.exceptions")}


def _imported_names(path: Path, module: str) -> set[str]:
    """Return the dotted names that a source file imports; relative ones are made absolute.

    ``from a.b import c`` yields ``a.b.c``; whether c is a module or an attribute is told apart by the caller.
    """
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                names.add(node.args[0].value)
    return names


def _is_under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith((f"{prefix}.", f"{prefix}_")) for prefix in prefixes)


def violations(package: Path) -> list[str]:
    """Return one sentence for each import of a source tree that the tables above do not allow."""
    found: list[str] = []
    files = sorted(package.rglob("*.py"))
    units = {path.relative_to(package).parts[0].removesuffix(".py") for path in files}
    for path in files:
        parts = path.relative_to(package).with_suffix("").parts
        inner = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        unit = parts[0]
        if unit not in MAY_IMPORT:
            found.append(f"gesda.{inner} has no place in the table MAY_IMPORT")
            continue
        module = "gesda" if inner == "__init__" else f"gesda.{inner}"
        for name in sorted(_imported_names(path, module)):
            where = f"gesda.{inner} imports {name}"
            for guarded, homes in ONLY_IN.items():
                if (name == guarded or name.startswith(f"{guarded}.")) and not _is_under(inner, homes):
                    if any(inner == m and name.startswith(f"{allowed}.") for m, allowed in ALSO_ALLOWED):
                        continue
                    found.append(f"{where}, which only {', '.join(homes) or 'no module'} may")
            if name.split(".")[0] != "gesda" or name.startswith("gesda._core"):
                continue
            target = name.split(".")[1] if "." in name else "__init__"
            if target.startswith("__") or target in {"kernels", unit}:
                continue  # gesda.__version__; data; a unit's own files
            if target not in units:
                found.append(f"{where}: a public name of the package, whose home is above")
            elif target not in MAY_IMPORT[unit]:
                found.append(f"{where}, and imports point down only")
    return found


def test_imports_point_down_only():
    assert violations(PACKAGE) == []


def test_the_table_itself_has_no_cycle():
    remaining = dict(MAY_IMPORT)
    while remaining:
        ready = [unit for unit, below in remaining.items() if not below & remaining.keys()]
        assert ready, f"these units import each other in a circle: {sorted(remaining)}"
        for unit in ready:
            del remaining[unit]


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("spec.py", "import gesda.schedule", "gesda.spec imports gesda.schedule"),
        ("schedule.py", "from gesda.trainer import Trainer", "gesda.schedule imports gesda.trainer.Trainer"),
        ("schedule.py", "from . import trainer", "gesda.schedule imports gesda.trainer"),
        ("schedule.py", "from .trainer import Trainer", "gesda.schedule imports gesda.trainer.Trainer"),
        ("schedule.py", "def f():\n    from gesda import trainer", "gesda.schedule imports gesda.trainer"),
        ("schedule.py", "import importlib\nimportlib.import_module('gesda.trainer')", "imports gesda.trainer"),
        ("trainer.py", "from gesda import SdAClassifier", "a public name of the package"),
        ("trainer.py", "import sklearn.base", "gesda.trainer imports sklearn.base"),
        ("engine/cpu.py", "from ..trainer import Trainer", "gesda.engine.cpu imports gesda.trainer.Trainer"),
        ("engine/cpu.py", "import cupy as cp", "gesda.engine.cpu imports cupy"),
        ("engine/reference.py", "from gesda import _core", "gesda.engine.reference imports gesda._core"),
        ("engine/__init__.py", "from ..estimators import x", "gesda.engine imports gesda.estimators.x"),
        ("novelty.py", "", "gesda.novelty has no place"),
    ],
)
def test_a_violation_is_found(tmp_path, module, source, expected):
    for name in ("__init__", "spec", "schedule", "trainer", "estimators"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text("")
    assert violations(tmp_path) == []
    (tmp_path / module).write_text(source)
    (sentence,) = violations(tmp_path)
    assert expected in sentence


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("trainer.py", "from .spec import LayerSpec\nfrom gesda import schedule, __version__\nimport gesda.engine.cpu"),
        ("trainer.py", "from sklearn.exceptions import ConvergenceWarning"),
        ("engine/cpu.py", "from gesda import _core\nfrom . import reference\nfrom ..spec import LayerSpec"),
        ("engine/cuda.py", "import cupy\nfrom importlib.resources import files\nfiles('gesda.kernels')"),
        ("estimators.py", "from sklearn.base import BaseEstimator\nfrom gesda.trainer import Trainer"),
    ],
)
def test_an_import_that_points_down_is_allowed(tmp_path, module, source):
    for name in ("__init__", "spec", "schedule", "trainer", "estimators"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "engine").mkdir()
    for name in ("__init__", "cpu", "reference"):
        (tmp_path / "engine" / f"{name}.py").write_text("")
    (tmp_path / module).write_text(source)
    assert violations(tmp_path) == []
