"""ONNX graphs of recognisers give what the recognisers give, from the sequences on, run by ONNX Runtime."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from gesda.deepmotion import GestureRecognizer, make_gestures, make_scribbles
from gesda.deepmotion.features import channels, local, normalization, pipeline
from gesda.deepmotion.recognition import committee, familiarity
from gesda.export import OUTPUTS, save_onnx, to_onnx

pytest.importorskip("onnx", reason="exporting needs onnx: pip install 'gesda[onnx]'")
pytest.importorskip("onnxruntime", reason="running a graph needs onnxruntime")

import onnx
import onnxruntime as runtime

from gesda.export import onnx_motion, onnx_recognizer

SMALL = {"n_members": 2, "hidden_layer_sizes": (24, 12), "pretrain_epochs": 1, "max_iter": 3, "n_jobs": 1}
NAMES = ("circle_cw", "check", "zigzag")
LENGTHS = (1, 2, 3, 40, 128, 300)
#: Familiarity divides logarithms by small deviations; Python's own differs by 1e-5 between one motion and many.
FAMILIAR = 1e-3


def walks(rng: np.random.Generator, n: int, length: int, n_channels: int) -> np.ndarray:
    """Random walks; of triples of channels all but a fifth one are about one far place: gravity, or a body's."""
    walks = np.cumsum(rng.normal(size=(n, length, n_channels)), axis=1)
    if n_channels % 3 == 0:
        walks += np.tile(rng.normal(0.0, 20.0, (n, 1, 3)), n_channels // 3) * (np.arange(n_channels) < 12)
    return walks.astype(np.float32)


def with_pauses(motions: np.ndarray) -> np.ndarray:
    """Hold the motions for a third of the time, and in the end."""
    length = motions.shape[1]
    shown = np.arange(length)
    shown[length // 6 : length // 2] = length // 6
    shown[-length // 6 :] = length - length // 6
    return motions[:, shown]


def taught(
    rng: np.random.Generator, n_channels: int, labels=("a", "b", "c"), make=walks, **options
) -> GestureRecognizer:
    sequences = [make(rng, 1, int(length), n_channels)[0] for length in rng.integers(20, 90, 24)]
    seed = int(rng.integers(2**31))
    return GestureRecognizer(random_state=seed, **SMALL | options).fit(sequences, np.resize(labels, 24))


@pytest.fixture(scope="module")
def plain() -> GestureRecognizer:
    """Of two channels; tests that change it take a copy."""
    return taught(np.random.default_rng(), 2, rate=50)


def run(recognizer: GestureRecognizer, *motions: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs, and the rows that the networks read, of all motions; each array holds those of one length."""
    model = to_onnx(recognizer)
    rows = next(node.input[0] for node in model.graph.node if "members.first.W" in node.input)
    model.graph.output.append(onnx.helper.make_tensor_value_info(rows, onnx.TensorProto.FLOAT, None))
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers = zip(*(session.run(None, {"X": np.asarray(each, dtype=np.float32)}) for each in motions), strict=True)
    return dict(zip([*names[:-1], "rows"], map(np.concatenate, answers), strict=True))


def agrees(recognizer: GestureRecognizer, *motions: np.ndarray) -> dict[str, np.ndarray]:
    """Hold the graph's answers against the recogniser's; give them.

    The rows that the networks read have the same bits but for the logarithms, even where sums meet their thresholds.
    """
    given = run(recognizer, *motions)
    sequences = [motion for each in motions for motion in each]
    rows = recognizer._rows(sequences)
    n_shares = recognizer._features._patterns.n_features
    np.testing.assert_allclose(given["rows"][:, :-n_shares], rows[:, :-n_shares], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(given["rows"][:, -n_shares:], rows[:, -n_shares:])

    probabilities = recognizer.predict_proba(sequences)
    np.testing.assert_allclose(given["probabilities"], probabilities, atol=1e-5)
    best_two = np.sort(np.pad(probabilities, ((0, 0), (1, 0))), axis=1)[:, -2:]
    clear = best_two[:, 1] - best_two[:, 0] > 1e-4
    np.testing.assert_array_equal(given["labels"][clear], recognizer.predict(sequences)[clear])
    familiar = recognizer.familiarity(sequences)
    np.testing.assert_allclose(given["familiarity"], familiar, rtol=1e-4, atol=FAMILIAR)
    clear &= np.abs(familiar - recognizer.threshold_) > FAMILIAR
    np.testing.assert_array_equal(given["accepted"][clear], (familiar >= recognizer.threshold_)[clear])
    assert clear.mean() > 0.8
    return given


# ---- agreement ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("n_channels", "options"),
    [
        (1, {"normalization": "global"}),
        (3, {"normalization": "global"}),
        (11, {"normalization": "global", "spectrum": True}),
        (2, {"normalization": "centered", "resampling": "arc"}),
        (3, {"normalization": "centered", "spectrum": True}),
        (3, {"normalization": "sequence"}),
        (15, {"normalization": "relative"}),
        (12, {"normalization": "relative", "resampling": "arc"}),
        (6, {"normalization": "global", "orientation": "magnitude", "resampling": "arc"}),
        (3, {"normalization": "sequence", "orientation": "magnitude", "spectrum": True}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else str(value),
)
def test_a_graph_answers_as_the_recognizer_does(n_channels, options, rng):
    recognizer = taught(rng, n_channels, **options)
    given = agrees(recognizer, *(walks(rng, 8, length, n_channels) for length in LENGTHS))
    assert list(given) == ["labels", "probabilities", "familiarity", "accepted", "rows"]
    assert given["probabilities"].shape == (48, 3) and given["familiarity"].shape == (48,)
    assert len(np.unique(given["probabilities"][-24:, 0])) == 24  # not one answer for all


@pytest.mark.parametrize(("n_channels", "options"), [(3, {}), (9, {"normalization": "centered", "resampling": "arc"})])
def test_axes_turn_with_gravity(n_channels, options, rng):
    # Of one or two samples no heading stands out, and rounding decides; so from three on.
    recognizer = taught(rng, n_channels, orientation="gravity", **{"normalization": "global"} | options)
    agrees(recognizer, *(walks(rng, 8, length, n_channels) for length in LENGTHS[2:]))
    weightless = walks(rng, 8, 40, n_channels)
    weightless[:, 20:] = -weightless[:, :20]
    agrees(recognizer, weightless)
    lying = np.zeros((3, 30, n_channels))
    lying[np.arange(3), :, np.arange(3)] = rng.uniform(0.5, 10.0, (3, 1))
    agrees(recognizer, lying)


@pytest.mark.parametrize("resampling", ["time", "arc"])
@pytest.mark.parametrize("norm", ["global", "centered", "sequence"])
def test_motion_at_rest_or_far_beyond_training_gets_the_same_answer(resampling, norm, rng):
    recognizer = taught(rng, 3, normalization=norm, resampling=resampling)
    still = np.broadcast_to(walks(rng, 4, 1, 3), (4, 40, 3))
    flat = walks(rng, 4, 60, 3) * np.array([1.0, 0.0, 1e-30])
    agrees(
        recognizer,
        with_pauses(walks(rng, 20, 60, 3)),
        still,
        flat,
        np.zeros((1, 20, 3)),
        1e12 * walks(rng, 4, 40, 3),
        walks(rng, 7, 1, 3),
    )


def test_sums_that_are_rounding_alone_are_rounded_alike(rng):
    # Thresholds are responses to the training's motions: of those that rest, some are the rounding of a zero.
    recognizer = taught(rng, 6, make=lambda *sizes: with_pauses(walks(*sizes)), normalization="global")
    agrees(recognizer, with_pauses(walks(rng, 40, 60, 6)))


def test_what_meets_a_threshold_exactly_is_told_alike(rng):
    sequences = walks(rng, 24, 50, 3)  # whose own responses are the thresholds
    recognizer = GestureRecognizer(random_state=0, normalization="centered", **SMALL)
    agrees(recognizer.fit(sequences, np.arange(24) % 3), sequences)


def test_one_motion_gets_the_answer_that_it_gets_among_many(plain, rng):
    motions = walks(rng, 40, 64, 2)
    together, alone = run(plain, motions), run(plain, *motions[:, None])
    np.testing.assert_array_equal(alone["rows"], together["rows"])
    np.testing.assert_allclose(alone["probabilities"], together["probabilities"], atol=1e-5)
    np.testing.assert_allclose(alone["familiarity"], together["familiarity"], atol=FAMILIAR)


def test_recordings_are_recognized_and_scribbles_rejected_alike(rng):
    seeds = rng.integers(2**31, size=3).tolist()
    data, test = (make_gestures(n, kind="gyroscope", gestures=NAMES, random_state=seeds.pop()) for n in (12, 15))
    options = SMALL | {"hidden_layer_sizes": (64, 32), "pretrain_epochs": 3, "max_iter": 8, "rejection_rate": 0.2}
    recognizer = GestureRecognizer(random_state=0, **options).fit(data)
    given = agrees(recognizer, *(sequence[None] for sequence in test.sequences))
    assert given["accepted"].any()
    scribbles = make_scribbles(30, kind="gyroscope", random_state=seeds.pop())
    assert not agrees(recognizer, *(sequence[None] for sequence in scribbles.sequences))["accepted"].all()
    for answer, label, accepted in zip(recognizer.recognize_all(test), given["labels"], given["accepted"], strict=True):
        if abs(answer.familiarity - recognizer.threshold_) > 0.05 and answer.confidence > 0.6:
            assert (label if accepted else None) == answer.label


# ---- what a graph holds ---------------------------------------------------------------------------
@pytest.mark.parametrize("labels", [("ä", "left", "right"), (7, -3, 2**40)])
def test_labels_are_text_or_whole_numbers(labels, rng):
    recognizer = taught(rng, 2, labels)
    given = agrees(recognizer, walks(rng, 12, 50, 2))
    assert given["labels"].dtype == (np.int64 if isinstance(labels[0], int) else object)
    assert set(given["labels"].tolist()) <= set(labels)


def test_a_lesson_and_what_is_forgotten_show_in_the_graph(plain, rng, tmp_path: Path):
    recognizer = copy.deepcopy(plain)
    recognizer.add_gesture("d", walks(rng, 3, 40, 2)).remove_gesture("a")
    given = agrees(recognizer, walks(rng, 20, 45, 2))
    assert given["probabilities"].shape == (20, 3) and set(given["labels"]) <= {"b", "c", "d"}
    recognizer.save(tmp_path / "gestures.gesda")
    again = to_onnx(GestureRecognizer.load(tmp_path / "gestures.gesda"))
    assert again.SerializeToString() == to_onnx(recognizer).SerializeToString()


@pytest.mark.parametrize(
    "options", [{"n_members": 1}, {"hidden_layer_sizes": (16,)}, {"hidden_layer_sizes": (9, 8, 7)}]
)
def test_one_member_and_any_number_of_layers_will_do(options, rng):
    agrees(taught(rng, 2, **options), walks(rng, 10, 30, 2))


def test_one_gesture_alone_will_do(rng):
    recognizer = taught(rng, 2, ("only",))
    assert set(agrees(recognizer, walks(rng, 10, 30, 2))["labels"]) == {"only"}


def test_the_file_tells_what_it_takes_and_gives(plain, tmp_path: Path):
    save_onnx(plain, tmp_path / "gestures.onnx", ["accepted", "labels"])
    model = onnx.load(tmp_path / "gestures.onnx")
    facts = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    assert facts == {
        "estimator": "GestureRecognizer",
        "classes": ["a", "b", "c"],
        "rate": 50.0,
        "n_channels": 2,
        "threshold": plain.threshold_,
    }
    assert [output.name for output in model.graph.output] == ["accepted", "labels"]
    free = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert free == ["n", "length", 2]
    assert all(node.name for node in model.graph.node)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)


def test_only_what_is_asked_for_is_there(plain):
    whole, part = to_onnx(plain), to_onnx(plain, ["probabilities"])
    assert part.ByteSize() < whole.ByteSize() and len(part.graph.node) < len(whole.graph.node)
    assert not any(constant.name.startswith("stack.") for constant in part.graph.initializer)


def test_what_cannot_be_exported_is_said(plain):
    with pytest.raises(NotFittedError):
        to_onnx(GestureRecognizer())
    for outputs in (["predictions"], ["encodings"]):
        choices = "'probabilities', 'labels', 'familiarity', 'accepted'"
        with pytest.raises(ValueError, match=f"GestureRecognizer has no output .*; choose among {choices}"):
            to_onnx(plain, outputs)
    recognizer = copy.deepcopy(plain)
    for name in ("a", "b", "c"):
        recognizer.remove_gesture(name)
    with pytest.raises(ValueError, match="knows no gesture yet"):
        to_onnx(recognizer)


# ---- what is written twice ------------------------------------------------------------------------
def test_numbers_that_are_written_twice_are_equal():
    np.testing.assert_array_equal(onnx_motion.KERNELS, local.KERNELS)
    assert (onnx_motion.N_TAPS, onnx_motion.N_MIXTURES) == (local.N_TAPS, local.N_MIXTURES)
    assert onnx_motion.N_BANDS == channels.N_BANDS
    assert onnx_motion.ROUNDING == normalization._ROUNDING
    assert onnx_motion.BY_TRAINING == pipeline._BY_TRAINING
    assert onnx_recognizer.NETWORK_SHARE == committee.NETWORK_SHARE
    assert (onnx_recognizer.TINY, onnx_recognizer.MOST_MERIT) == (familiarity._TINY, familiarity._MOST_MERIT)


def test_a_recognizer_has_the_outputs_that_the_table_gives_it(plain):
    model = to_onnx(plain, [name for name, kinds in OUTPUTS.items() if "recognizer" in kinds])
    assert len(model.graph.output) == 4
