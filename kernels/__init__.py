"""The native formulas as package data: ``importlib.resources.files("gesda.kernels") / "math.hpp"`` finds them.

Nothing is imported here, and nothing imports from here; the CUDA engine reads the text and hands it to NVRTC.
"""
