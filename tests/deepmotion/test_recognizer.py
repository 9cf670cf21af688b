"""GestureRecognizer: learns, learns one more, rejects, comes back from a file, and says what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import gesda
from gesda.deepmotion import Augmentation, GestureRecognizer, MotionDataset, make_gestures, make_scribbles
from gesda.deepmotion.recognition.committee import choose_folds
from gesda.deepmotion.recognition.labels import Labels, as_name, read_labels
from gesda.model_io import ModelFileError, read_tensors, write_tensors

NAMES = ("circle_cw", "check", "zigzag", "line_right")
SMALL = {"n_members": 3, "hidden_layer_sizes": (48, 24), "pretrain_epochs": 2, "max_iter": 6, "n_jobs": 1}

#: Large enough to learn from four examples.
ABLE = SMALL | {"n_members": 5, "hidden_layer_sizes": (128, 64), "pretrain_epochs": 5}


def drawings(rng: np.random.Generator, n: int, names: tuple[str, ...] = NAMES) -> MotionDataset:
    return make_gestures(n, kind="pointer", gestures=names, n_users=4, random_state=int(rng.integers(2**31)))


@pytest.fixture(scope="module")
def taught() -> GestureRecognizer:
    """A recogniser of four drawn gestures; tests that teach it take a copy."""
    data = drawings(np.random.default_rng(), 24)
    return GestureRecognizer(normalization="centered", random_state=0, **ABLE).fit(data)


@pytest.fixture
def copy(taught: GestureRecognizer, tmp_path: Path) -> GestureRecognizer:
    taught.save(tmp_path / "copy.gesda")
    return GestureRecognizer.load(tmp_path / "copy.gesda")


# ---- learning -------------------------------------------------------------------------------------
def test_it_learns_drawn_gestures(taught, rng):
    test = drawings(rng, 15)
    assert taught.score(test, test.labels) > 0.75
    assert taught.classes_.tolist() == sorted(NAMES)
    probabilities = taught.predict_proba(test)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    np.testing.assert_array_equal(taught.classes_[probabilities.argmax(axis=1)], taught.predict(test))


def test_one_motion_gets_the_answer_that_it_gets_among_many(taught, rng):
    test = drawings(rng, 3)
    probabilities, familiarity = taught.predict_proba(test), taught.familiarity(test)
    for sequence, expected, familiar in zip(test.sequences, probabilities, familiarity, strict=True):
        answer = taught.recognize(sequence)
        np.testing.assert_allclose(list(answer.probabilities.values()), expected, rtol=1e-5, atol=1e-7)
        assert answer.familiarity == pytest.approx(familiar, abs=1e-3)
        assert answer.best == taught.classes_[expected.argmax()]
        assert answer.label == (answer.best if answer.familiarity >= taught.threshold_ else None)


def test_many_motions_get_the_answers_that_they_get_one_by_one(taught, rng):
    test = drawings(rng, 6)
    for sequence, together in zip(test.sequences, taught.recognize_all(test), strict=True):
        alone = taught.recognize(sequence)
        assert (together.best, together.confidence) == (alone.best, pytest.approx(alone.confidence, abs=1e-4))
        assert together.familiarity == pytest.approx(alone.familiarity, abs=1e-3)


def test_the_same_seed_gives_the_same_bits_whatever_the_threads(rng):
    data = drawings(rng, 6)
    options = SMALL | {"random_state": 5, "normalization": "centered"}
    one, two = (GestureRecognizer(**options | {"n_jobs": n}).fit(data) for n in (1, 2))
    np.testing.assert_array_equal(one.predict_proba(data), two.predict_proba(data))
    assert one.threshold_ == two.threshold_


def test_unlabelled_motion_and_lists_of_arrays_are_taken(rng):
    data = drawings(rng, 5)
    labels = data.labels.copy()
    labels[rng.permutation(len(data))[: len(data) // 2]] = None
    labels[:4] = NAMES
    model = GestureRecognizer(random_state=0, **SMALL).fit(list(data.sequences), labels)
    assert set(model.predict(data)) <= set(labels) - {None}
    whole = np.stack([np.resize(sequence, (30, 2)) for sequence in data.sequences])
    assert GestureRecognizer(random_state=0, **SMALL).fit(whole, np.arange(len(whole)) % 3).classes_.tolist() == [
        0,
        1,
        2,
    ]


def test_members_learn_from_the_guesses_that_they_are_sure_of(rng):
    data = drawings(rng, 16)
    labels = np.full(len(data), None, dtype=object)
    for name in NAMES:
        labels[np.flatnonzero(data.labels == name)[:4]] = name
    options = ABLE | {"random_state": 0, "normalization": "centered", "max_iter": 20}
    alone, together = (GestureRecognizer(**options, self_training=rounds).fit(data, labels) for rounds in (0, 1))
    assert len(together.history_) == len(alone.history_)  # of the last round
    assert not np.array_equal(together.predict_proba(data), alone.predict_proba(data))
    assert together.score(data, data.labels) > alone.score(data, data.labels) - 0.1
    labelled = data[labels != None]  # noqa: E711  element by element
    every, none = (
        GestureRecognizer(random_state=0, **SMALL | {"self_training": rounds}).fit(labelled) for rounds in (3, 0)
    )
    np.testing.assert_array_equal(every.predict_proba(data), none.predict_proba(data))  # nothing to guess


def test_it_clones_and_tells_its_parameters():
    model = GestureRecognizer(n_members=7, augmentation=Augmentation(jitter=0.5))
    assert clone(model).get_params() == model.get_params()


# ---- rejection ------------------------------------------------------------------------------------
def test_known_gestures_are_more_familiar_than_scribbles(taught, rng):
    test = drawings(rng, 15)
    scribbles = make_scribbles(40, kind="pointer", random_state=int(rng.integers(2**31)))
    known, unknown = taught.familiarity(test), taught.familiarity(scribbles)
    assert np.median(known) > np.median(unknown)
    assert (known >= taught.threshold_).mean() > 0.4
    assert (unknown < taught.threshold_).mean() > 0.6


def test_a_higher_rejection_rate_rejects_more(rng):
    data = drawings(rng, 20)
    low, high = (
        GestureRecognizer(random_state=0, rejection_rate=rate, **SMALL).fit(data).threshold_ for rate in (0.02, 0.4)
    )
    assert low < high


# ---- teaching one more ----------------------------------------------------------------------------
def test_a_gesture_is_learnt_from_four_examples_and_the_others_are_kept(copy, rng):
    old = drawings(rng, 12)
    before = copy.score(old, old.labels)
    new = drawings(rng, 16, ("figure_eight",))
    shown = np.arange(len(new)) % 4 == 0  # of all users
    copy.add_gesture("figure_eight", new[shown])
    assert copy.classes_[-1] == "figure_eight" and len(copy.classes_) == 5
    assert copy.score(new[~shown], new.labels[~shown]) > 0.5
    assert copy.score(old, old.labels) > before - 0.15


def test_gestures_can_be_taught_from_nothing_and_forgotten(rng):
    motion = make_gestures(0, kind="pointer", n_unlabeled=40, random_state=int(rng.integers(2**31)))
    model = GestureRecognizer(normalization="centered", random_state=0, **ABLE).fit(motion)
    assert len(model.classes_) == 0
    answer = model.recognize(motion.sequences[0])
    assert answer.label is None and answer.best is None and answer.confidence == 0.0
    with pytest.raises(ValueError, match="no gesture is known"):
        model.predict(motion)
    for name in ("circle_cw", "zigzag", "check"):
        model.add_gesture(name, drawings(rng, 4, (name,)).sequences)
    test = drawings(rng, 8, ("circle_cw", "zigzag"))
    assert model.score(test, test.labels) > 0.6
    model.remove_gesture("check")
    assert model.classes_.tolist() == ["circle_cw", "zigzag"]
    assert model.score(test, test.labels) > 0.7
    model.add_gesture("wave", drawings(rng, 4, ("line_right",)).sequences)
    assert model.classes_.tolist() == ["circle_cw", "zigzag", "wave"]
    assert model.predict_proba(test).shape == (16, 3)
    for name in ("circle_cw", "zigzag", "wave"):
        model.remove_gesture(name)
    assert model.recognize(test.sequences[0]).best is None


def test_more_examples_of_a_known_gesture_are_learnt(copy, rng):
    mirrored = [sequence * [-1, 1] for sequence in drawings(rng, 16, ("check",)).sequences]
    before = (copy.predict(mirrored[1::2]) == "check").mean()
    copy.add_gesture("check", mirrored[::2])
    assert len(copy.classes_) == 4
    assert (copy.predict(mirrored[1::2]) == "check").mean() >= max(before, 0.6)


def test_a_failed_lesson_changes_nothing(copy, rng):
    data = drawings(rng, 3)
    before = copy.predict_proba(data)
    for name, examples in (("new", [np.full((4, 2), np.nan)]), ("new", []), ("", data.sequences), (3, data.sequences)):
        with pytest.raises(ValueError):
            copy.add_gesture(name, examples)
    np.testing.assert_array_equal(copy.predict_proba(data), before)
    assert len(copy.classes_) == 4


@pytest.mark.parametrize("lesson", ["add", "remove"])
def test_a_lesson_that_is_interrupted_changes_nothing(copy, rng, monkeypatch, lesson):
    data = drawings(rng, 3)
    before, familiar = copy.predict_proba(data), copy.familiarity(data)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(copy, "_calibrate", interrupted)  # the last thing that a lesson does
    with pytest.raises(KeyboardInterrupt):
        copy.add_gesture("new", data.sequences[:3]) if lesson == "add" else copy.remove_gesture("check")
    monkeypatch.undo()
    assert copy.classes_.tolist() == sorted(NAMES)
    np.testing.assert_array_equal(copy.predict_proba(data), before)
    np.testing.assert_array_equal(copy.familiarity(data), familiar)


# ---- files ----------------------------------------------------------------------------------------
def test_it_comes_back_from_its_file_and_learns_on(taught, copy, rng):
    test = drawings(rng, 5)
    np.testing.assert_array_equal(copy.predict_proba(test), taught.predict_proba(test))
    np.testing.assert_array_equal(copy.familiarity(test), taught.familiarity(test))
    np.testing.assert_array_equal(copy.reconstruct(test), taught.reconstruct(test))
    assert copy.threshold_ == taught.threshold_ and copy.duration_range_ == taught.duration_range_
    assert copy.rate_ == taught.rate_ and copy.get_params() == taught.get_params()
    assert repr(copy.history_[-1]) == repr(dict(sorted(taught.history_[-1].items())))


def test_numbers_as_labels_come_back_as_numbers(rng, tmp_path):
    data = drawings(rng, 4)
    model = GestureRecognizer(random_state=0, **SMALL).fit(list(data.sequences), np.arange(16) % 2 + 3)
    model.save(tmp_path / "n.gesda")
    back = GestureRecognizer.load(tmp_path / "n.gesda")
    assert back.classes_.dtype == np.int64 and back.classes_.tolist() == [3, 4]


def test_a_file_of_another_kind_is_refused_in_a_sentence(tmp_path, taught, rng):
    gesda.StackedDenoisingAutoencoder(3, pretrain_epochs=1).fit(rng.random((9, 4))).save(tmp_path / "stack.gesda")
    with pytest.raises(ModelFileError, match=r"load it with gesda\.load"):
        GestureRecognizer.load(tmp_path / "stack.gesda")
    taught.save(tmp_path / "gestures.gesda")
    with pytest.raises(ModelFileError, match=r"GestureRecognizer\.load"):
        gesda.load(tmp_path / "gestures.gesda")


def test_altered_files_end_in_one_error(tmp_path, taught, rng):
    path = tmp_path / "model.gesda"
    taught.save(path)
    tensors, metadata = read_tensors(path)
    for _ in range(60):
        changed, described = dict(tensors), {**metadata, "state": dict(metadata["state"])}
        match rng.integers(4):
            case 0:
                del changed[rng.choice(list(changed))]
            case 1:
                name = str(rng.choice(list(changed)))
                changed[name] = np.zeros((2, *changed[name].shape), changed[name].dtype)
            case 2:
                key = str(rng.choice(["names", "outputs", "n_channels", "rate", "normalization", "seed", "history"]))
                described["state"][key] = [None, -1, "x", {}, [1, 1], 1e300][rng.integers(6)]
                if key == "rate" and described["state"][key] is None:
                    continue
                if key == "rate" and described["state"][key] == 1e300:
                    continue
            case 3:
                changed["more"] = np.zeros(3)
        write_tensors(path, changed, described)
        with pytest.raises(ModelFileError):
            GestureRecognizer.load(path)


def test_every_cut_of_the_file_is_refused(tmp_path, taught, rng):
    path = tmp_path / "model.gesda"
    taught.save(path)
    content = path.read_bytes()
    for size in rng.integers(0, len(content), 30):
        path.write_bytes(content[:size])
        with pytest.raises(ModelFileError):
            GestureRecognizer.load(path)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".gesda-")]


# ---- what it shows --------------------------------------------------------------------------------
def test_embeddings_and_reconstructions_have_their_shapes(taught, rng):
    test = drawings(rng, 2)
    assert taught.embed(test).shape == (8, 5 * 64)
    assert taught.trajectory(test).shape == taught.reconstruct(test).shape == (8, 32, 2)


def test_the_reconstruction_is_nearer_to_the_motion_than_the_mean_motion_is(rng):
    data = drawings(rng, 20)
    model = GestureRecognizer(random_state=0, normalization="centered", **SMALL | {"pretrain_epochs": 15}).fit(data)
    test = drawings(rng, 5)
    motion = model.trajectory(test)
    error = np.square(model.reconstruct(test) - motion).mean()
    assert error < np.square(model.trajectory(data).mean(axis=0) - motion).mean()


def test_durations_are_in_seconds_where_the_rate_is_known(taught, rng):
    data = drawings(rng, 4)
    model = GestureRecognizer(random_state=0, **SMALL).fit(data)
    assert model.rate_ == data.rate
    assert model.duration_range_ == pytest.approx((data.lengths.min() / data.rate, data.lengths.max() / data.rate))
    unknown = GestureRecognizer(random_state=0, **SMALL).fit(list(data.sequences), data.labels)
    assert unknown.rate_ is None and unknown.duration_range_[1] == data.lengths.max()


def test_training_reports_to_callbacks(rng):
    from gesda.callbacks import Callback

    class Listener(Callback):
        def __init__(self):
            self.phases = []

        def on_epoch_end(self, run, record):
            self.phases.append(record["phase"])

    listener = Listener()
    model = GestureRecognizer(random_state=0, **SMALL).fit(drawings(rng, 4), callbacks=[listener])
    assert set(listener.phases) == {"pretrain", "finetune"} and len(listener.phases) == len(model.history_)


# ---- errors ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_members": 0}, "n_members must be an integer"),
        ({"max_iter": 0}, "max_iter must be an integer"),
        ({"self_training": -1}, "self_training must be an integer"),
        ({"rejection_rate": 1.5}, "rejection_rate must be a number"),
        ({"rate": -1}, "rate must be None"),
        ({"normalization": "best"}, "normalization must be one of"),
        ({"orientation": "up"}, "orientation must be one of"),
        ({"augmentation": 3}, "augmentation must be None"),
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes must be"),
        ({"orientation": "gravity"}, "triples"),
    ],
)
def test_a_wrong_parameter_is_named_before_any_training(parameters, message, rng):
    with pytest.raises(ValueError, match=message):
        GestureRecognizer(**SMALL | parameters).fit(drawings(rng, 3))


def test_wrong_data_are_named(taught, rng):
    data = drawings(rng, 2)
    for sequences, labels, message in (
        (data.sequences[:1], ["a"], "one sequence is too few"),
        (data.sequences, ["a"], "labels have shape"),
        (data.sequences, ["a", 1] * 4, "all text or all whole numbers"),
        ([np.zeros((3, 2)), np.zeros((3, 3))], None, "channel"),
    ):
        with pytest.raises(ValueError, match=message):
            GestureRecognizer(**SMALL).fit(sequences, labels)
    with pytest.raises(ValueError, match="groups have shape"):
        GestureRecognizer(**SMALL).fit(data, groups=[1, 2])
    with pytest.raises(ValueError, match="channel"):
        taught.recognize(np.zeros((10, 3)))
    with pytest.raises(ValueError, match="there is no gesture"):
        taught.remove_gesture("nothing")
    with pytest.raises(NotFittedError):
        GestureRecognizer().recognize(np.zeros((10, 2)))


def test_labels_and_names():
    numbers, labels = read_labels(np.array(["b", None, "a"], dtype=object), 3)
    assert numbers.tolist() == [1, -1, 0] and labels.names == ("a", "b")
    assert read_labels([2.0, -1, 5], 3)[0].tolist() == [0, -1, 1]
    assert as_name(np.int64(3), Labels((1, 2))) == 3
    for bad in (True, 1.5, None, -1, " ", "x" * 300, b"x"):
        with pytest.raises(ValueError):
            as_name(bad, Labels())


def test_folds_leave_out_whole_groups_and_never_a_whole_class(rng):
    labels = np.repeat(np.arange(3), 20)
    groups = np.tile(np.arange(5), 12)
    folds = choose_folds(labels, groups, 3, rng)
    assert all(len(set(folds[groups == group])) == 1 for group in range(5))
    folds = choose_folds(np.array([0] * 20 + [1] * 2 + [-1] * 5), None, 4, rng)
    assert (folds[20:] == -1).all() and np.bincount(folds[:20]).tolist() == [5] * 4
    assert (choose_folds(labels, labels, 3, rng) == -1).all()  # every class one group: none can be spared
