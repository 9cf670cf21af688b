"""`GestureRecognizer`: motion in, gestures out; taught by `fit` or, a gesture at a time, by `add_gesture`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from gesda.deepmotion.data.sequences import MotionDataset, check_sequences
from gesda.deepmotion.features import Augmentation, MotionFeatures
from gesda.deepmotion.recognition.calibration import calibrate, optimism, spare
from gesda.deepmotion.recognition.committee import Committee, choose_folds
from gesda.deepmotion.recognition.examples import Examples
from gesda.deepmotion.recognition.familiarity import Familiarity
from gesda.deepmotion.recognition.labels import Labels, as_name, read_labels
from gesda.deepmotion.recognition.memory import Memory
from gesda.deepmotion.recognition.normalization_choice import choose_normalization

#: Rows that training aims at: few examples get many augmented copies, many examples get few.
_TRAINING_ROWS = 4500
_MOST_COPIES = 24
#: Learning a gesture: examples of it, copies included, and of each other gesture, to take part.
_NEW_ROWS, _REHEARSED = 60, 16
_LEARNING_EPOCHS = 8
#: Varied copies of each known example that tell how far apart repetitions of a gesture lie.
_CALIBRATION_COPIES = 2


@dataclass(frozen=True)
class Recognition:
    """What a recogniser says of one motion.

    Attributes
    ----------
    label : int, str or None
        The gesture; None where the motion is like none of them.
    confidence : float
        Probability of `best` among the known gestures, in [0, 1].
    familiarity : float
        How much the motion is like the known gestures; 0 is an average example of one. Below the recogniser's
        ``threshold_`` it is rejected.
    probabilities : mapping of label to float
        Of all gestures.
    best : int, str or None
        The most probable gesture, rejected or not; None if none is known.
    """

    label: Any
    confidence: float
    familiarity: float
    probabilities: Mapping[Any, float]
    best: Any


class GestureRecognizer(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Gesture recognition with stacked denoising autoencoders.

    Sequences of any length become rows of numbers: their resampled trajectory and how often they match local patterns.
    A stack of denoising autoencoders is pretrained on all of them, labelled or not, all layers at once (CrossPre);
    networks that start from it are fine-tuned on the labelled ones and their augmented copies. A linear classifier
    beside each network has a vote too, which is worth most where examples are few.

    Parameters
    ----------
    normalization : {"auto", "global", "centered", "sequence", "relative"}, default="auto"
        What of a motion's place and size is kept, see `gesda.deepmotion.features.normalization`. ``"auto"`` takes
        what separates the labelled examples best in cross-validation; ``"global"`` where there are too few.
    orientation : {"keep", "gravity", "magnitude"}, default="keep"
        How triples of channels are made independent of how a device is held, see
        `gesda.deepmotion.features.orientation`.
    resampling : {"time", "arc"}, default="time"
        To equal steps of time, or of the path's length (for drawn shapes).
    spectrum : bool, default=False
        Add each channel's power in eight bands, for repetitive motion.
    augmentation : Augmentation, optional
        How copies of examples are varied; those of `Augmentation` by default.
    n_members : int, default=5
        Networks, and linear classifiers beside them, whose probabilities are averaged.
    hidden_layer_sizes : tuple of int, default=(128, 64)
    noise_level : float, default=0.5
        Share of a row that pretraining masks.
    pretrain_epochs : int, default=30
        Epochs of pretraining; 0 for none.
    max_iter : int, default=20
        Epochs of fine-tuning.
    self_training : int, default=2
        How many more times the networks are fine-tuned, each time with those unlabelled sequences that they agree on
        taken as labelled. Only where there are both.
    rejection_rate : float, default=0.05
        Share of known gestures that the threshold may reject.
    rate : float, optional
        Samples a second (Hz) of the sequences; a `MotionDataset` brings its own.
    device : {"auto", "cpu", "cuda", "cuda:N"}, default="cpu"
        Where the networks are trained. Motions are recognised on the CPU but for their reconstruction.
    n_jobs : int, optional
        Threads; all cores by default.
    random_state : int or numpy.random.RandomState, optional
    callbacks : list of gesda.callbacks.Callback, optional

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The gestures: those of `fit` sorted, those of `add_gesture` after them.
    n_channels_ : int
    rate_ : float or None
        Hz.
    threshold_ : float
        Least familiarity of what is not rejected.
    duration_range_ : tuple of two floats
        Shortest and longest labelled example, in seconds if the rate is known, in samples otherwise.
    normalization_ : str
        What ``normalization="auto"`` took.
    history_ : list of dict
        Records of the training, as `gesda.callbacks` describes them.

    Notes
    -----
    One object may be used by several threads as long as none of them teaches it.

    Examples
    --------
    >>> import numpy as np
    >>> from gesda.deepmotion import GestureRecognizer
    >>> rng = np.random.default_rng(0)
    >>> turns = np.linspace(0, 2 * np.pi, 40)
    >>> def draw(name):
    ...     path = {"circle": (np.cos(turns), np.sin(turns)), "wave": (turns, np.sin(3 * turns))}[name]
    ...     return np.stack(path, axis=1) * rng.uniform(0.5, 2) + rng.normal(0, 0.05, (40, 2))
    >>> labels = ["circle", "wave"] * 4
    >>> recognizer = GestureRecognizer(n_members=1, pretrain_epochs=1, normalization="centered", random_state=0)
    >>> recognizer = recognizer.fit([draw(name) for name in labels], labels)
    >>> str(recognizer.recognize(draw("circle")).best)
    'circle'
    """

    def __init__(
        self,
        *,
        normalization: str = "auto",
        orientation: str = "keep",
        resampling: str = "time",
        spectrum: bool = False,
        augmentation: Augmentation | None = None,
        n_members: int = 5,
        hidden_layer_sizes: Any = (128, 64),
        noise_level: float = 0.5,
        pretrain_epochs: int = 30,
        max_iter: int = 20,
        self_training: int = 2,
        rejection_rate: float = 0.05,
        rate: float | None = None,
        device: str = "cpu",
        n_jobs: int | None = None,
        random_state: Any = None,
        callbacks: Any = None,
    ) -> None:
        self.normalization = normalization
        self.orientation = orientation
        self.resampling = resampling
        self.spectrum = spectrum
        self.augmentation = augmentation
        self.n_members = n_members
        self.hidden_layer_sizes = hidden_layer_sizes
        self.noise_level = noise_level
        self.pretrain_epochs = pretrain_epochs
        self.max_iter = max_iter
        self.self_training = self_training
        self.rejection_rate = rejection_rate
        self.rate = rate
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.callbacks = callbacks

    _familiarity: Familiarity | None

    # ---- teaching ----------------------------------------------------------------------------------
    def fit(
        self,
        sequences: Any,
        labels: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        callbacks: Iterable[Any] = (),
    ) -> GestureRecognizer:
        """Pretrain on all sequences, fine-tune on the labelled ones, set the threshold of rejection.

        Parameters
        ----------
        sequences : MotionDataset, sequence of ndarray (length, n_channels), or ndarray (n, length, n_channels)
            At least two.
        labels : array-like of shape (n,), optional
            Whole numbers, of which -1 means unlabelled, or text, of which None means unlabelled; by default those of
            the data set, or none: `add_gesture` then teaches the gestures.
        groups : array-like of shape (n,), optional
            The person or session that each sequence comes from; by default those of the data set. Calibration then
            asks about people that a network has not seen.
        callbacks : iterable of gesda.callbacks.Callback, optional
            More of them, for this training.

        Returns
        -------
        GestureRecognizer
            Itself.

        Raises
        ------
        ValueError
            For parameters, sequences or labels that do not fit, before any training.
        """
        self._check()
        if isinstance(sequences, MotionDataset) and labels is None:
            labels = sequences.labels
        if isinstance(sequences, MotionDataset) and groups is None:
            groups = sequences.groups
        rate = sequences.rate if isinstance(sequences, MotionDataset) and self.rate is None else self.rate
        checked = check_sequences(sequences)
        if len(checked) < 2:
            raise ValueError("one sequence is too few to learn from; give two or more.")
        numbers, classes = read_labels(labels, len(checked))
        if groups is not None and np.shape(groups) != (len(checked),):
            raise ValueError(f"groups have shape {np.shape(groups)}; {len(checked)} sequences need ({len(checked)},).")
        seed = int(check_random_state(self.random_state).randint(2**31))
        rng = np.random.default_rng(seed)

        chosen = self.normalization
        if chosen == "auto":
            chosen = choose_normalization(checked, numbers, groups, self._feature_options(), rng)
        features = MotionFeatures(normalization=chosen, **self._feature_options()).fit(checked, rng)
        motions, durations = features.motions(checked)
        rows = self._augmented(features, motions, durations, _copies(len(checked)), rng)
        folds = choose_folds(numbers, groups, self.n_members, rng)
        spared = spare(len(checked), groups, rng)
        committee = Committee.fit(
            rows,
            numbers,
            folds,
            n_members=self.n_members,
            max_iter=self.max_iter,
            self_training=self.self_training,
            parameters={
                "hidden_layer_sizes": self.hidden_layer_sizes,
                "activation": "tanh",
                "noise_level": self.noise_level,
                "schedule": "crosspre",
                "stagger": 0,
                "pretrain_epochs": self.pretrain_epochs,
                "pretrain_solver": "adam",
                "solver": "adam",
                "dropout": 0.3,
                "probe_size": 0,
                "device": self.device,
                "n_jobs": self.n_jobs,
                "random_state": seed,
            },
            spared=spared,
            callbacks=[*(self.callbacks or ()), *callbacks],
        )
        known = np.flatnonzero(numbers >= 0)
        everything = Memory(motions, durations, numbers, folds, ~spared)
        self._features, self._committee, self._seed, self._taught = features, committee, seed, 0
        self._labels = classes
        self._memory = everything[known].limited(rng)
        self._optimism = optimism(committee, rows[: len(checked)], spared)
        self.normalization_ = chosen
        self.rate_ = None if rate is None else float(rate)
        self.n_channels_ = checked[0].shape[1]
        self.history_ = [*committee.stack.history_]
        for member in committee.members:
            self.history_ += [record for record in member.history_ if record["phase"] == "finetune"]
        picked = (np.arange(1 + _CALIBRATION_COPIES)[:, None] * len(numbers) + known).ravel()
        self._calibrate(Examples(rows[picked], *everything[known].facts(1 + _CALIBRATION_COPIES)))
        return self

    def add_gesture(self, name: Any, examples: Any) -> GestureRecognizer:
        """Learn a new gesture from a few examples, or a known one better, and keep the others.

        The networks are fine-tuned for a few epochs on augmented copies of the examples and on remembered examples of
        every other gesture. An error leaves the recogniser as it was.

        Parameters
        ----------
        name : str or int
            Of the kind of the labels known already.
        examples : sequence of ndarray (length, n_channels), or ndarray (n, length, n_channels)
            At least one; three to five are enough for most gestures.

        Returns
        -------
        GestureRecognizer
            Itself.

        Raises
        ------
        ValueError
            For a name or examples that do not fit.
        sklearn.exceptions.NotFittedError
            Before fit.
        """
        self._check_is_fitted()
        name = as_name(name, self._labels)
        checked = check_sequences(examples, n_channels=self.n_channels_, name="examples")
        labels = self._labels if name in self._labels.names else self._labels.with_name(name)
        number = labels.names.index(name)
        rng = np.random.default_rng([self._seed, 1, self._taught])
        motions, durations = self._features.motions(checked)
        folds = choose_folds(np.zeros(len(motions), dtype=np.int64), None, self.n_members, rng)
        fresh = Memory(motions, durations, np.full(len(motions), number), folds, np.zeros(len(motions), dtype=np.bool_))
        memory = self._memory.with_examples(fresh, rng)
        with self._undone_by_errors():
            self._learn(labels, memory, rng, new=number)
        return self

    def remove_gesture(self, name: Any) -> GestureRecognizer:
        """Forget a gesture.

        Parameters
        ----------
        name : str or int
            One of ``classes_``.

        Returns
        -------
        GestureRecognizer
            Itself.

        Raises
        ------
        ValueError
            If there is no such gesture.
        """
        self._check_is_fitted()
        if name not in self._labels.names:
            raise ValueError(f"there is no gesture {name!r}; the known ones are {list(self._labels.names)!r}.")
        number = self._labels.names.index(name)
        with self._undone_by_errors():
            self._memory = self._memory.without_class(number)
            self._committee = self._committee.without_class(number)
            self._labels = self._labels.without_name(name)
            rng = np.random.default_rng([self._seed, 1, self._taught])
            self._taught += 1
            lesson = self._memory.lesson(-1, 0, _REHEARSED, rng)
            self._calibrate(self._rehearsal(lesson, _CALIBRATION_COPIES, rng))
        return self

    # ---- using -------------------------------------------------------------------------------------
    def recognize(self, sequence: Any) -> Recognition:
        """Say which gesture a motion is, or that it is none.

        Parameters
        ----------
        sequence : ndarray of shape (length, n_channels)
            From the beginning of the gesture to its end.

        Returns
        -------
        Recognition
        """
        return self.recognize_all([sequence])[0]

    def recognize_all(self, sequences: Any) -> list[Recognition]:
        """Say of each motion which gesture it is, or that it is none; a few together take less time than one by one.

        Parameters
        ----------
        sequences : MotionDataset, sequence of ndarray (length, n_channels), or ndarray (n, length, n_channels)

        Returns
        -------
        list of Recognition
        """
        rows = self._rows(sequences)
        encodings, probabilities = self._committee.answer(rows)
        familiarities = self._familiarity_of(rows, encodings, probabilities).tolist()
        names, threshold = self._labels.names, self.threshold_
        if not names:
            return [Recognition(None, 0.0, familiarity, {}, None) for familiarity in familiarities]
        answers = []
        for familiarity, shares in zip(familiarities, probabilities.tolist(), strict=True):
            confidence = max(shares)
            best = names[shares.index(confidence)]
            label = best if familiarity >= threshold else None
            answers.append(Recognition(label, confidence, familiarity, dict(zip(names, shares, strict=True)), best))
        return answers

    def predict(self, sequences: Any) -> NDArray[Any]:
        """The most probable gesture of each sequence; see `familiarity` for what to reject.

        Parameters
        ----------
        sequences : MotionDataset, sequence of ndarray (length, n_channels), or ndarray (n, length, n_channels)

        Returns
        -------
        labels : ndarray of shape (n,)

        Raises
        ------
        ValueError
            For sequences that do not fit, and if no gesture is known.
        """
        probabilities = self.predict_proba(sequences)
        if not len(self._labels.names):
            raise ValueError("no gesture is known yet; teach one with add_gesture.")
        labels: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def predict_proba(self, sequences: Any) -> NDArray[np.float64]:
        """Probabilities of the gestures, in the order of ``classes_``.

        Parameters
        ----------
        sequences : MotionDataset, sequence of ndarray (length, n_channels), or ndarray (n, length, n_channels)

        Returns
        -------
        probabilities : ndarray of float64, shape (n, n_classes)
        """
        return self._committee.answer(self._rows(sequences))[1]

    def familiarity(self, sequences: Any) -> NDArray[np.float64]:
        """How much each sequence is like the known gestures: by reconstruction, confidence and distance.

        Parameters
        ----------
        sequences : MotionDataset, sequence of ndarray (length, n_channels), or ndarray (n, length, n_channels)

        Returns
        -------
        familiarity : ndarray of float64, shape (n,)
            0 is an average example; `recognize` rejects what lies below ``threshold_``.
        """
        rows = self._rows(sequences)
        return self._familiarity_of(rows, *self._committee.answer(rows))

    def embed(self, sequences: Any) -> NDArray[np.float32]:
        """The networks' encodings of sequences.

        Parameters
        ----------
        sequences : MotionDataset, sequence of ndarray (length, n_channels), or ndarray (n, length, n_channels)

        Returns
        -------
        encodings : ndarray of float32, shape (n, n_members * n_hidden)
        """
        rows = self._rows(sequences)
        return self._committee.answer(rows)[0].reshape(len(rows), -1)

    def trajectory(self, sequences: Any) -> NDArray[np.float32]:
        """The motion as the networks see it: turned, resampled, normalised.

        Parameters
        ----------
        sequences : MotionDataset, sequence of ndarray (length, n_channels), or ndarray (n, length, n_channels)

        Returns
        -------
        trajectory : ndarray of float32, shape (n, 32, n_channels)
        """
        return self._features.trajectory_of(self._rows(sequences))

    def reconstruct(self, sequences: Any) -> NDArray[np.float32]:
        """What the pretrained stack restores of `trajectory`.

        Parameters
        ----------
        sequences : MotionDataset, sequence of ndarray (length, n_channels), or ndarray (n, length, n_channels)

        Returns
        -------
        reconstruction : ndarray of float32, shape (n, 32, n_channels)
        """
        return self._features.trajectory_of(self._committee.reconstruct(self._rows(sequences)))

    @property
    def classes_(self) -> NDArray[Any]:
        """The gestures' labels."""
        self._check_is_fitted()
        return self._labels.array

    @property
    def duration_range_(self) -> tuple[float, float]:
        """Shortest and longest remembered example, in seconds if the rate is known, else in samples."""
        self._check_is_fitted()
        unit = self.rate_ or 1.0
        shortest, longest = self._memory.duration_range
        return (shortest / unit, longest / unit)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recogniser to one file, atomically and without pickle.

        Callbacks, and a `random_state` that is a generator, are not saved.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before fit.
        gesda.model_io.ModelFileError
            When the file cannot be written.
        """
        self._check_is_fitted()
        from gesda.deepmotion.recognition.recognizer_file import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GestureRecognizer:
        """Read a recogniser from a file that `save` wrote; nothing in it is executed.

        Parameters
        ----------
        path : str or path-like

        Returns
        -------
        GestureRecognizer

        Raises
        ------
        gesda.model_io.ModelFileError
            A `ValueError`: when the file is damaged or holds something else.
        """
        from gesda.deepmotion.recognition.recognizer_file import load

        recognizer: GestureRecognizer = load(path, cls)
        return recognizer

    # ---- inside ------------------------------------------------------------------------------------
    def _check(self) -> None:
        """Refuse parameters that nothing below would refuse with their names."""
        for name, least in (("n_members", 1), ("pretrain_epochs", 0), ("max_iter", 1), ("self_training", 0)):
            value: Any = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")
        share: Any = self.rejection_rate
        if not isinstance(share, float | np.floating) or not 0.0 < share < 1.0:
            raise ValueError(f"rejection_rate must be a number in (0, 1); got {share!r}.")
        rate: Any = self.rate
        if rate is not None and not (isinstance(rate, int | float | np.number) and 0 < rate < np.inf):
            raise ValueError(f"rate must be None or a positive number of Hz; got {rate!r}.")
        if self.augmentation is not None and not isinstance(self.augmentation, Augmentation):
            raise ValueError(f"augmentation must be None or an Augmentation; got {self.augmentation!r}.")
        if self.normalization != "auto":
            MotionFeatures(normalization=self.normalization)
        MotionFeatures(**self._feature_options())

    def _feature_options(self) -> dict[str, Any]:
        return {"orientation": self.orientation, "resampling": self.resampling, "use_spectrum": self.spectrum}

    def _rows(self, sequences: Any) -> NDArray[np.float32]:
        self._check_is_fitted()
        checked = check_sequences(sequences, n_channels=self.n_channels_)
        return self._features.rows(*self._features.motions(checked))

    def _augmented(
        self,
        features: MotionFeatures,
        motions: NDArray[np.float32],
        durations: NDArray[np.float64],
        copies: int,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Rows of the motions, then those of their varied copies."""
        vary = self.augmentation or Augmentation()
        parts = [features.rows(motions, durations)]
        for _ in range(copies):
            paces = np.exp(rng.normal(0.0, 0.1, len(durations)))
            parts.append(features.rows(vary(motions, rng), durations * paces))
        return np.concatenate(parts)

    def _learn(self, labels: Labels, memory: Memory, rng: np.random.Generator, *, new: int) -> None:
        """Teach the members what is in the memory, most of all the class `new`."""
        lesson = memory.lesson(new, _NEW_ROWS, _REHEARSED, rng)
        fresh = lesson[lesson.labels == new]
        parts = [self._rehearsal(fresh, max(1, min(12, _NEW_ROWS // len(fresh) - 1)), rng)]
        if len(fresh) < len(lesson):
            parts.append(self._rehearsal(lesson[lesson.labels != new], 1, rng))
        self._committee = self._committee.learn(
            Examples(*(np.concatenate(pieces) for pieces in zip(*parts, strict=True))),
            self._rehearsal(memory, 0, rng),
            len(labels.names),
            max_iter=_LEARNING_EPOCHS,
            n_jobs=self.n_jobs,
            rng=rng,
        )
        self._labels, self._memory = labels, memory
        self._taught += 1
        self._calibrate(self._rehearsal(lesson, _CALIBRATION_COPIES, rng))

    @contextlib.contextmanager
    def _undone_by_errors(self) -> Iterator[None]:
        """Take back what a lesson has changed if it does not come to its end, by Ctrl-C too."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _rehearsal(self, memory: Memory, copies: int, rng: np.random.Generator) -> Examples:
        """Rows of remembered examples and of varied copies."""
        rows = self._augmented(self._features, memory.motions, memory.durations, copies, rng)
        return Examples(rows, *memory.facts(copies + 1))

    # ---- rejection ---------------------------------------------------------------------------------
    def _calibrate(self, examples: Examples) -> None:
        self._familiarity, self.threshold_ = None, -np.inf
        if self._labels.names:
            self._familiarity = calibrate(
                self._committee, examples, self._optimism, 1 + _CALIBRATION_COPIES, self.rejection_rate
            )
            self.threshold_ = self._familiarity.threshold

    def _familiarity_of(
        self, rows: NDArray[np.float32], encodings: NDArray[np.float32], probabilities: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        if self._familiarity is None:
            lonely: NDArray[np.float64] = -np.log(self._committee.errors(rows) + 1e-12)
            return lonely
        measures = self._familiarity.measure(encodings, probabilities, self._committee.errors(rows))
        return self._familiarity.score(measures, probabilities.argmax(axis=1))

    def _check_is_fitted(self) -> None:
        if "_committee" not in self.__dict__:  # scikit-learn's check alone takes 25 µs
            check_is_fitted(self)

    def __sklearn_is_fitted__(self) -> bool:
        return "_committee" in self.__dict__


def _copies(n_sequences: int) -> int:
    return int(min(max(round(_TRAINING_ROWS / n_sequences) - 1, _CALIBRATION_COPIES), _MOST_COPIES))
