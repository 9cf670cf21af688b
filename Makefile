# A fresh machine needs Python 3.10 or newer, make and a C++ compiler; CMake and Ninja come from the package index.
#
#   make demo    train on real data in an environment of its own; leaves a model and two pictures in demo-output/
#   make test    set up .venv-test and run every test
#   make check   what CI runs: tests, lint, types, C++ tests under sanitizers, packaging
#
# PY chooses the interpreter, VENV the folder of the test environment, COVERAGE the percentage that gesda/ must
# reach (empty: not measured), PYTEST_ARGS what else pytest is told.
PY ?= python3
VENV ?= .venv-test
DEMO_VENV ?= .venv-demo
COVERAGE ?=
PYTEST_ARGS ?=
CPP_TESTS ?= release address,undefined thread
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)

export CMAKE_BUILD_PARALLEL_LEVEL ?= $(JOBS)
BIN = $(VENV)/bin
NATIVE := $(shell find cpp/src cpp/include cpp/python kernels -type f 2>/dev/null)
CPP_FILES = $(shell find cpp kernels tests -name '*.[ch]pp' -o -name '*.cuh')
CPP_UNITS = $(shell find cpp -name '*.cpp')
comma := ,

.PHONY: help demo test lint format types kernels cpp-test cpp-test-aarch64 cpp-test-armv7 fuzz packaging check clean distclean

help:
	@sed -n 's/^#   //p' Makefile

# ---- environments: a stamp file is newer than what it was made from ------------------------------
$(VENV)/pyvenv.cfg:
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "GeSdA needs Python 3.10 or newer; set PY.")'
	$(PY) -m venv $(VENV)

# Editable: the tests and the coverage see the checkout's own files.
$(VENV)/.test-stamp: $(VENV)/pyvenv.cfg pyproject.toml setup.py CMakeLists.txt $(NATIVE)
	@echo "Compiling GeSdA and installing the test tools into $(VENV); this takes some minutes, once."
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

# gesda is there already, so this adds the tools and builds nothing again.
$(VENV)/.dev-stamp: $(VENV)/.test-stamp
	$(BIN)/python -m pip install --quiet 'gesda[dev]'
	@touch $@

$(DEMO_VENV)/pyvenv.cfg:
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "GeSdA needs Python 3.10 or newer; set PY.")'
	$(PY) -m venv $(DEMO_VENV)

# setuptools would pack what an earlier version left in build/.
$(DEMO_VENV)/.demo-stamp: $(DEMO_VENV)/pyvenv.cfg pyproject.toml setup.py CMakeLists.txt $(NATIVE) \
		$(shell find gesda -name '*.py')
	@rm -rf build/lib* build/bdist*
	@echo "Compiling GeSdA and installing it into $(DEMO_VENV); this takes a minute or two, once."
	$(DEMO_VENV)/bin/python -m pip install --quiet '.[plot]'
	@touch $@

# ---- what a person runs --------------------------------------------------------------------------
demo: $(DEMO_VENV)/.demo-stamp
	$(DEMO_VENV)/bin/python examples/digits.py

test: $(VENV)/.test-stamp
	$(BIN)/python -m pytest $(if $(COVERAGE),--cov --cov-report=term --cov-fail-under=$(COVERAGE)) $(PYTEST_ARGS)

lint: $(VENV)/.dev-stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP_FILES)
# One variant is enough to analyse the source of all.
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B build-tidy -G Ninja --log-level=WARNING \
		-DGESDA_BUILD_TESTS=ON -DGESDA_BUILD_PYTHON=ON -DGESDA_VARIANTS=$(TIDY_VARIANT) \
		-DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
		-Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)"
	printf '%s\n' $(CPP_UNITS) | xargs -P $(JOBS) -n 1 $(BIN)/clang-tidy -p build-tidy --quiet
TIDY_VARIANT := $(if $(filter x86_64 amd64,$(shell uname -m)),avx2,$(if $(filter aarch64 arm64,$(shell uname -m)),neon,baseline))

format: $(VENV)/.dev-stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

types: $(VENV)/.dev-stamp
	$(BIN)/mypy

# The formulas must stay C++ and CUDA at once; NVRTC compiles the kernels for old and new targets; CuPy without a GPU.
kernels: $(VENV)/.dev-stamp
	$(CXX) -std=c++17 -Wall -Wextra -Werror -fsyntax-only -include kernels/math.hpp -x c++ /dev/null
	@if command -v nvcc >/dev/null; then set -x; \
		mkdir -p build-kernels && nvcc -std=c++17 -Werror all-warnings -arch=sm_75 -ptx \
			-include kernels/math.hpp -x cu /dev/null -o build-kernels/math.ptx; \
	else echo "kernels: no nvcc on the PATH, NVRTC compiles"; fi
	$(BIN)/python -m pytest tests/emulator/test_compilation.py tests/engines/test_cuda_device.py -k "test_compilation or test_cupy"

# As shipped, and under the sanitizers.
cpp-test: $(CPP_TESTS:%=cpp-test-%)

cpp-test-%: $(VENV)/.dev-stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B build-$(subst $(comma),-,$*) -G Ninja --log-level=WARNING \
		-DGESDA_BUILD_TESTS=ON -DGESDA_WERROR=ON \
		-DCMAKE_BUILD_TYPE=$(if $(filter release,$*),Release,Debug) -DGESDA_SANITIZE=$(filter-out release,$*)
	$(BIN)/cmake --build build-$(subst $(comma),-,$*)
	$(BIN)/ctest --test-dir build-$(subst $(comma),-,$*) --output-on-failure

# The runtime's readers against whatever bytes, for a stated number of executions: needs Clang with its libFuzzer.
FUZZ_CXX ?= $(shell for name in clang++ clang++-19 clang++-16 clang++-14; do command -v $$name && break; done)
FUZZ_MODELS ?= 50000
FUZZ_STREAMS ?= 5000
FUZZ_OPTIONS ?= -max_len=20000 -len_control=0 -timeout=20 -rss_limit_mb=4096 -print_final_stats=1
fuzz: $(VENV)/.dev-stamp
	@if test -z "$(FUZZ_CXX)" || ! echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }' | \
			$(FUZZ_CXX) -xc++ - -fsanitize=fuzzer,address -o /dev/null 2>/dev/null; then \
		echo "fuzz: skipped, needs clang++ with libFuzzer"; exit 0; fi; \
	set -ex; PATH="$(CURDIR)/$(BIN):$$PATH"; \
	cmake -S . -B build-fuzz -G Ninja --log-level=WARNING -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_COMPILER=$(FUZZ_CXX) \
		-DGESDA_BUILD_RUNTIME=OFF -DGESDA_BUILD_FUZZERS=ON -DGESDA_SANITIZE=address,undefined; \
	cmake --build build-fuzz --target fuzz_model fuzz_stream; \
	$(BIN)/python cpp/fuzz/seeds.py build-fuzz; mkdir -p build-fuzz/corpus build-fuzz/streams; \
	build-fuzz/fuzz_model $(FUZZ_OPTIONS) -max_len=200000 -runs=$(FUZZ_MODELS) build-fuzz/corpus build-fuzz/models; \
	GESDA_FUZZ_RECOGNIZER=build-fuzz/recognizer.gesda \
		build-fuzz/fuzz_stream $(FUZZ_OPTIONS) -runs=$(FUZZ_STREAMS) build-fuzz/streams

# Cross-compiled and emulated, on machines that have both tools: make cpp-test-aarch64, make cpp-test-armv7.
CROSS_aarch64 = aarch64-linux-gnu aarch64 qemu-aarch64
CROSS_armv7 = arm-linux-gnueabihf armv7l qemu-arm
cpp-test-aarch64 cpp-test-armv7: cpp-test-%: $(VENV)/.dev-stamp
	@set -e; set -- $(CROSS_$*); triple=$$1 processor=$$2 emulator=$$3; \
	if ! command -v $$triple-g++ >/dev/null || ! command -v $$emulator >/dev/null; then \
		echo "cpp-test-$*: skipped, needs $$triple-g++ and $$emulator"; exit 0; fi; \
	set -x; PATH="$(CURDIR)/$(BIN):$$PATH"; \
	cmake -S . -B build-$* -G Ninja --log-level=WARNING -DGESDA_BUILD_TESTS=ON -DGESDA_WERROR=ON \
		-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=$$processor -DCMAKE_CXX_COMPILER=$$triple-g++ \
		-DCMAKE_CROSSCOMPILING_EMULATOR="$$emulator;-L;/usr/$$triple"; \
	cmake --build build-$*; ctest --test-dir build-$* --output-on-failure

packaging: $(VENV)/.dev-stamp
	$(BIN)/python -m pytest tests/packaging -m packaging

check: test lint types kernels cpp-test cpp-test-aarch64 cpp-test-armv7 fuzz packaging

clean:
	rm -rf build build-* dist wheelhouse *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	rm -rf demo-output
	rm -f gesda/_core*.so $(VENV)/.test-stamp $(VENV)/.dev-stamp $(DEMO_VENV)/.demo-stamp
	find gesda tests kernels examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(DEMO_VENV)
