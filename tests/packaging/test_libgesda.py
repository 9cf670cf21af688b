"""What an engineer gets: libgesda and gesda-infer, built and installed by CMake, in programs of their own.

Slow (it compiles the runtime), so deselected by default: ``pytest tests/packaging -m packaging``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gesda import SdAClassifier, SdARegressor, StackedDenoisingAutoencoder
from gesda.deepmotion import GestureRecognizer, GestureStream, make_gestures
from gesda.runtime import Runtime

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "deployment"
QUICK = {"pretrain_epochs": 2, "batch_size": 16, "n_jobs": 1, "device": "cpu"}
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")


def run(*command, expected=0, **options):
    """Run a program; return what it printed, to standard output or, if it is to fail, to standard error."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=900, **options)
    assert done.returncode == expected, f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stderr if expected else done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Give the folder where the runtime is installed."""
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("installed")
    run(
        "cmake", "-S", ROOT, "-B", build, "-DGESDA_WERROR=ON", f"-DCMAKE_INSTALL_PREFIX={prefix}", "--log-level=WARNING"
    )
    run("cmake", "--build", build, "--target", "gesda_shared", "gesda_static", "gesda-infer", "-j2")
    run("cmake", "--install", build)
    return prefix


@pytest.fixture(scope="module")
def library_folder(installed):
    return next(installed.glob("lib*/libgesda.so")).parent


@pytest.fixture(scope="module")
def environment(library_folder):
    return os.environ | {
        "PKG_CONFIG_PATH": str(library_folder / "pkgconfig"),
        "LD_LIBRARY_PATH": str(library_folder),
    }


@pytest.fixture
def infer(installed):
    return installed / "bin" / "gesda-infer"


@pytest.fixture
def rng():
    return np.random.default_rng()


@pytest.fixture
def classifier(rng, tmp_path):
    X = rng.random((60, 5), dtype=np.float32)
    y = np.array(["left", 'a "quoted" one', "ä"])[(X[:, 0] * 3).astype(int)]
    model = SdAClassifier((8, 4), max_iter=5, **QUICK).fit(X, y)
    model.save(tmp_path / "classifier.gesda")
    return model, X, tmp_path / "classifier.gesda"


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    data = make_gestures(n_per_class=8, random_state=1)
    model = GestureRecognizer(n_members=1, pretrain_epochs=2, max_iter=4, random_state=0).fit(data)
    path = tmp_path_factory.mktemp("recognizer") / "gestures.gesda"
    model.save(path)
    rng = np.random.default_rng()
    rest = rng.normal(0, 0.01, (100, model.n_channels_))
    parts = [rest]
    for motion in data.sequences[:6]:
        parts += [motion, motion[-1] + rng.normal(0, 0.01, rest.shape)]
    return model, path, np.concatenate(parts).astype(np.float32)


def write_csv(path, rows, header=None):
    lines = [] if header is None else [",".join(header)]
    path.write_text("\n".join(lines + [",".join(f"{value:.9g}" for value in row) for row in rows]) + "\n")
    return path


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


# ---- what is installed ----------------------------------------------------------------------------
def test_nothing_is_needed_and_nothing_else_is_seen(library_folder, installed):
    library = library_folder / "libgesda.so"
    needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", library))
    assert {name.split(".")[0] for name in needed} <= {
        "libc",
        "libm",
        "libpthread",
        "ld-linux-x86-64",
        "ld-linux-aarch64",
    }
    symbols = run("nm", "-D", "--defined-only", "--with-symbol-versions", library).split("\n")
    names = [line.split()[-1] for line in symbols if line]
    assert len(names) > 20
    assert all(re.fullmatch(r"gesda_\w+@@GESDA_0|GESDA_0@@GESDA_0|GESDA_0", name) for name in names), names


def test_every_function_of_the_header_is_there(library_folder, installed):
    declared = set(
        re.findall(r"^GESDA_API .*?\b(gesda_\w+)\(", (installed / "include/gesda/gesda.h").read_text(), re.M)
    )
    defined = set(
        re.findall(r"\b(gesda_\w+)@@", run("nm", "-D", "--with-symbol-versions", library_folder / "libgesda.so"))
    )
    assert declared == defined


def test_gesda_infer_is_small(infer, tmp_path):
    run("strip", "-o", tmp_path / "stripped", infer)
    assert (tmp_path / "stripped").stat().st_size < 500_000


@pytest.mark.parametrize("standard", ["c99", "c11", "c++17"])
def test_the_header_is_clean(installed, tmp_path, standard):
    source = tmp_path / "header.c"
    source.write_text("#include <gesda/gesda.h>\n")
    compiler = "g++" if "++" in standard else "gcc"
    language = "c++" if "++" in standard else "c"
    run(
        compiler,
        f"-std={standard}",
        "-pedantic",
        *WARNINGS,
        f"-I{installed}/include",
        "-fsyntax-only",
        "-x",
        language,
        source,
    )


# ---- programs of users ----------------------------------------------------------------------------
@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="needs pkg-config")
def test_the_example_in_c(environment, classifier, tmp_path):
    model, X, path = classifier
    flags = run("pkg-config", "--cflags", "--libs", "gesda", env=environment).split()
    run(
        "gcc",
        "-std=c99",
        "-pedantic",
        "-Wall",
        "-Wextra",
        "-Werror",
        EXAMPLES / "classify.c",
        *flags,
        "-o",
        tmp_path / "classify",
    )
    rows = write_csv(tmp_path / "rows.csv", X)
    printed = run(tmp_path / "classify", path, env=environment, input=rows.read_text()).splitlines()
    assert [line.rsplit(" ", 1)[0] for line in printed] == model.predict(X).tolist()
    shown = [float(line.rsplit(" ", 1)[1]) for line in printed]
    np.testing.assert_allclose(shown, model.predict_proba(X).max(axis=1), atol=1e-4)
    assert "cannot be opened" in run(tmp_path / "classify", "nowhere", env=environment, expected=1)


def test_examples_build_with_the_cmake_package(installed, environment, recognizer, tmp_path):
    model, path, samples = recognizer
    run(
        "cmake",
        "-S",
        EXAMPLES,
        "-B",
        tmp_path / "build",
        f"-DCMAKE_PREFIX_PATH={installed}",
        "-DCMAKE_BUILD_TYPE=Release",
    )
    run("cmake", "--build", tmp_path / "build")
    rows = write_csv(tmp_path / "samples.csv", samples)
    printed = run(tmp_path / "build" / "gestures", path, env=environment, input=rows.read_text()).splitlines()
    stream = GestureStream(model)
    events = stream.push(samples) + stream.flush()
    assert [line.split(" from ")[0] for line in printed] == [str(event.label) for event in events]


def test_nothing_is_allocated_after_opening(installed, library_folder, classifier, recognizer, tmp_path):
    source = tmp_path / "count.c"
    source.write_text(COUNTING_PROGRAM)
    run("gcc", "-c", "-std=gnu11", f"-I{installed}/include", source, "-o", tmp_path / "count.o")
    run("g++", tmp_path / "count.o", library_folder / "libgesda.a", "-o", tmp_path / "count")
    _, X, path = classifier
    X.tofile(tmp_path / "rows.bin")
    assert run(tmp_path / "count", path, tmp_path / "rows.bin").split() == ["0"]
    _, path, samples = recognizer
    samples.tofile(tmp_path / "samples.bin")
    assert run(tmp_path / "count", path, tmp_path / "samples.bin").split() == ["0"]


#: Counts what is allocated between opening and closing.
COUNTING_PROGRAM = r"""
#include <gesda/gesda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
static int counting, count;
void *malloc(size_t n) { count += counting; return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { count += counting; return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { count += counting; return __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { count += counting; return __libc_memalign(a, n); }
static float in[1 << 20], out[1 << 20];
int main(int argc, char **argv) {
  gesda_model *model;
  gesda_stream *stream = NULL;
  gesda_info info;
  FILE *file = fopen(argv[2], "rb");
  size_t n = fread(in, 4, 1 << 20, file);
  gesda_info_init(&info);
  if (argc != 3 || gesda_open(argv[1], NULL, &model) || gesda_describe(model, &info)) return 1;
  n /= (size_t)info.n_features;
  if (info.kind == GESDA_RECOGNIZER && gesda_stream_open(model, NULL, &stream)) return 1;
  counting = 1;
  if (stream) {
    gesda_event event;
    gesda_recognition answer;
    size_t taken = 0;
    if (gesda_recognize(model, in, n / 4, &answer, out)) return 1;
    for (size_t i = 0; i < n; i += taken) {
      if (gesda_stream_push(stream, in + i * (size_t)info.n_features, NULL, n - i, &taken)) return 1;
      while (gesda_stream_next(stream, &event)) {}
    }
    if (gesda_stream_flush(stream)) return 1;
  } else {
    if (gesda_encode(model, in, n, out) || gesda_reconstruct(model, in, n, out) || gesda_score(model, in, n, out) ||
        gesda_probabilities(model, in, n, out) || gesda_classify(model, in, n, (int32_t *)(void *)out))
      return 1;
    in[3] = 1.0f / 0.0f;  /* an error allocates nothing either */
    if (gesda_encode(model, in, n, out) != GESDA_INVALID_ARGUMENT) return 1;
  }
  counting = 0;
  gesda_stream_close(stream);
  gesda_close(model);
  printf("%d\n", count);
  return 0;
}
"""


# ---- gesda-infer ----------------------------------------------------------------------------------
def test_infer_gives_labels_and_probabilities(infer, classifier, tmp_path):
    model, X, path = classifier
    rows = write_csv(tmp_path / "rows.csv", X, header=list("abcde"))
    for arguments, options in (((rows,), {}), ((), {"input": rows.read_text()}), (("-",), {"input": rows.read_text()})):
        lines = lines_of(run(infer, path, *arguments, **options))
        assert [line["row"] for line in lines] == list(range(len(X)))
        assert [line["label"] for line in lines] == model.predict(X).tolist()
        np.testing.assert_allclose([line["probabilities"] for line in lines], model.predict_proba(X), atol=1e-5)


def test_infer_takes_raw_floats_and_gives_what_is_asked_for(infer, classifier, tmp_path):
    model, X, path = classifier
    X.astype("<f4").tofile(tmp_path / "rows.bin")
    lines = lines_of(run(infer, path, tmp_path / "rows.bin", "--raw", "--output", "encodings,reconstructions,scores"))
    np.testing.assert_allclose([line["encodings"] for line in lines], model.transform(X), atol=1e-5)
    np.testing.assert_allclose([line["reconstructions"] for line in lines], model.reconstruct(X), atol=1e-5)
    np.testing.assert_allclose([line["score"] for line in lines], model.score_samples(X), atol=1e-5)


def test_infer_predicts_and_encodes_by_default(infer, rng, tmp_path):
    X = rng.random((30, 4), dtype=np.float32)
    rows = write_csv(tmp_path / "rows.csv", X)
    regressor = SdARegressor((5,), max_iter=3, **QUICK).fit(X, X[:, 0])
    regressor.save(tmp_path / "regressor.gesda")
    lines = lines_of(run(infer, tmp_path / "regressor.gesda", rows))
    np.testing.assert_allclose([line["predictions"][0] for line in lines], regressor.predict(X), atol=1e-5)
    stack = StackedDenoisingAutoencoder((3,), **QUICK).fit(X)
    stack.save(tmp_path / "stack.gesda")
    lines = lines_of(run(infer, tmp_path / "stack.gesda", rows))
    np.testing.assert_allclose([line["encodings"] for line in lines], stack.transform(X), atol=1e-5)


def test_infer_describes_and_measures(infer, classifier):
    _, _, path = classifier
    (facts,) = lines_of(run(infer, path, "--info", "--verify", "--variant", "baseline"))
    assert facts["kind"] == "classifier" and facts["variant"] == "baseline" and facts["n_outputs"] == 3
    (facts,) = lines_of(run(infer, path, "--bench", "200"))
    assert 0 < facts["median_us"] <= facts["p99_us"] <= facts["most_us"]
    assert run(infer, "--version").startswith("gesda-infer ")
    assert "usage" in run(infer, "--help")


def test_infer_follows_a_stream(infer, recognizer, tmp_path):
    model, path, samples = recognizer
    stream = GestureStream(model)
    events = stream.push(samples) + stream.flush()
    assert events
    rows = write_csv(tmp_path / "samples.csv", samples)
    times = write_csv(tmp_path / "times.csv", [[i / model.rate_, *row] for i, row in enumerate(samples)])
    for lines in (lines_of(run(infer, path, rows)), lines_of(run(infer, path, times, "--times"))):
        assert [line["label"] for line in lines] == [event.label for event in events]
        np.testing.assert_allclose([line["start"] for line in lines], [event.start for event in events], atol=1e-6)
        np.testing.assert_allclose([line["familiarity"] for line in lines], [e.familiarity for e in events], atol=1e-3)
    (whole,) = lines_of(run(infer, path, rows, "--whole"))
    assert whole["confidence"] == pytest.approx(Runtime(path).recognize(samples).confidence, abs=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2,3\n", "line 1: 3 numbers where the model takes 5"),
        ("1,2,3,4,5\n1,2,x,4,5\n", "line 2: 'x' is no number"),
        ("1,2,nan,4,5\n", "column 2 is not finite"),
        ("1,2,,4,5\n", "column 2 is not finite"),
    ],
)
def test_infer_says_what_is_wrong_with_rows(infer, classifier, tmp_path, content, message):
    (tmp_path / "rows.csv").write_text(content)
    assert message in run(infer, classifier[2], tmp_path / "rows.csv", expected=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a model file"),
        (("nowhere.gesda",), "cannot be opened"),
        (("MODEL", "nowhere.csv"), "cannot be opened"),
        (("MODEL", "--fast"), "no option --fast"),
        (("MODEL", "--output", "songs"), "no output 'songs'"),
        (("MODEL", "--rate", "100"), "are for gesture recognisers"),
        (("MODEL", "--variant", "mmx"), "cannot run here"),
        (("MODEL", "--bench", "x"), "needs a number"),
    ],
)
def test_infer_says_what_is_wrong_with_its_arguments(infer, classifier, arguments, message):
    given = [classifier[2] if argument == "MODEL" else argument for argument in arguments]
    assert message in run(infer, *given, expected=2, stdin=subprocess.DEVNULL)
