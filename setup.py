"""What pyproject.toml cannot say: the package list, in which ``kernels/`` becomes ``gesda.kernels``.

The metadata are in pyproject.toml; the C++ build is in CMakeLists.txt, which scikit-build-core's setuptools
plugin finds through ``[tool.scikit-build]`` there (naming the folder here as well is an error).
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["gesda", "gesda.*"]), "gesda.kernels"],
    package_dir={"gesda.kernels": "kernels"},
    package_data={
        "gesda": ["py.typed", "*.pyi"],
        "gesda.kernels": ["*.hpp", "*.cuh", "*.cu"],
    },
    include_package_data=False,
    zip_safe=False,
)
