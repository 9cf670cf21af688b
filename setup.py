"""What pyproject.toml cannot say: the package list, in which ``kernels/`` becomes ``gesda.kernels``; compiled kernels.

The metadata are in pyproject.toml; the C++ build is in CMakeLists.txt, which scikit-build-core's setuptools
plugin finds through ``[tool.scikit-build]`` there (naming the folder here as well is an error).

``GESDA_EMBED_KERNELS="sm_75 sm_87" pip install --no-build-isolation .`` puts the GPU's kernels compiled for these
targets (or for ``all``) into the package, so that a device needs no compiler; ``GESDA_EMBED_PRECISIONS="fp16"`` only
those of a precision. It needs NVRTC (nvidia-cuda-nvrtc).
"""

import importlib.util
import os
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

CUDA = Path(__file__).parent / "gesda" / "engine" / "cuda"


def engine_file(name):
    """A module of gesda.engine.cuda that needs nothing but the standard library; gesda is not installed yet."""
    spec = importlib.util.spec_from_file_location(name, CUDA / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildPython(build_py):
    """Also compiles the GPU's kernels, where that is asked for."""

    def run(self):
        super().run()
        targets = os.environ.get("GESDA_EMBED_KERNELS", "").split()
        if targets and not self.editable_mode:
            folder = Path(self.build_lib) / "gesda" / "kernels" / "compiled"
            precisions = os.environ.get("GESDA_EMBED_PRECISIONS", "fp32 tf32 fp16").split()
            for path in engine_file("compile").compile_ahead(engine_file("source"), targets, precisions, folder):
                print(f"compiled {path.name}", flush=True)


setup(
    cmdclass={"build_py": BuildPython},
    packages=[*find_packages(include=["gesda", "gesda.*"]), "gesda.kernels"],
    package_dir={"gesda.kernels": "kernels"},
    package_data={
        "gesda": ["py.typed", "*.pyi"],
        "gesda.deepmotion.serve": ["static/*"],
        "gesda.export": ["*.c"],
        "gesda.kernels": ["*.hpp", "*.cuh", "*.cu"],
    },
    include_package_data=False,
    zip_safe=False,
)
