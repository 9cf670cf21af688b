"""Networks that share one pretraining and learn the labels from different parts of the examples.

The pretrained stack restores motions from corrupted descriptions. Each member starts from it, grows a softmax head and
is fine-tuned on all labelled examples but those of its own fold. So every example has a member that was not taught by
it, which is what calibration needs, and the members differ, which makes their average better than any of them
(cross-validation committees: B. Parmanto, P. W. Munro, H. R. Doyle, "Reducing variance of committee prediction with
resampling techniques", Connection Science 8, 1996).

Unlabelled examples that the committee is sure of are learnt as if labelled, in further rounds that start from the
pretrained stack again (self-training: H. J. Scudder, IEEE Transactions on Information Theory 11, 1965; D.-H. Lee,
"Pseudo-label", ICML workshop, 2013).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from gesda.deepmotion.recognition.examples import Examples
from gesda.deepmotion.recognition.linear_reader import LinearReader, fit_linear
from gesda.estimators import SdAClassifier

#: Of a class of fewer examples no member can do without one.
LEAST_FOR_FOLDS = 3
#: Probability from which the committee's guess at an unlabelled example is taken for its label.
SURE = 0.8
#: The network's part in a member's probabilities; the rest is the linear reader's.
NETWORK_SHARE = 0.6
#: Up to so many rows come at a time when motion is live.
_FEW_ROWS = 16
#: Leaving out one of fewer groups leaves too little.
LEAST_GROUPS = 3


class Committee:
    """The pretrained stack and the members that were fine-tuned from it.

    Classes are their numbers here, from 0. A head has one output at least, so before the first class there is one
    that waits for it; the output of a class that was removed stays, and nothing asks for it.

    Parameters
    ----------
    stack : SdAClassifier
        Pretrained, not fine-tuned: encodes and reconstructs.
    members : sequence of SdAClassifier
    readers : sequence of LinearReader
        Of each member.
    outputs : sequence of int
        Which output of the heads each class has.
    """

    def __init__(
        self,
        stack: SdAClassifier,
        members: Sequence[SdAClassifier],
        readers: Sequence[LinearReader],
        outputs: Sequence[int],
    ) -> None:
        self.stack = stack
        self.members = list(members)
        self.readers = list(readers)
        self.outputs = list(outputs)
        # All members' first layers, and their readers, as one matrix: a motion passes through memory once.
        parts = [*((member.coefs_[0], member.intercepts_[0]) for member in self.members), *self.readers]
        self._first = np.concatenate([weights for weights, _ in parts], axis=1)
        self._first_bias = np.concatenate([bias for _, bias in parts])
        self._upper = [
            (np.stack([member.coefs_[layer] for member in members]), self._biases(layer))
            for layer in range(1, len(members[0].coefs_) - 1)
        ]
        self._heads = np.stack([member.coefs_[-1][:, self.outputs] for member in members])
        self._head_biases = self._biases(-1)[:, :, self.outputs]

    @property
    def n_classes(self) -> int:
        """How many classes the members tell apart."""
        return len(self.outputs)

    @property
    def n_hidden(self) -> int:
        """Width of an encoding."""
        return int(self.stack.coefs_[-2].shape[1])

    # ---- training ----------------------------------------------------------------------------------
    @classmethod
    def fit(
        cls,
        rows: NDArray[np.float32],
        labels: NDArray[np.int64],
        folds: NDArray[np.int64],
        *,
        n_members: int,
        max_iter: int,
        self_training: int,
        parameters: dict[str, Any],
        spared: NDArray[np.bool_],
        callbacks: Iterable[Any],
    ) -> Committee:
        """Pretrain on all rows, then fine-tune the members on the labelled ones.

        Parameters
        ----------
        rows : ndarray of float32, shape (n_copies * n, n_features)
            All examples, then augmented copies of all of them.
        labels : ndarray of int64, shape (n,)
            Class numbers; -1 is unlabelled.
        folds : ndarray of int64, shape (n,)
            The member that leaves an example out; -1 for none.
        n_members, max_iter, self_training : int
            How many members, their epochs of fine-tuning, and how often they learn from each other's guesses.
        parameters : dict
            More of `SdAClassifier`.
        spared : ndarray of bool, shape (n,)
            Examples that pretraining does without, with their copies.
        callbacks : iterable of gesda.callbacks.Callback

        Returns
        -------
        Committee
        """
        n_classes = int(labels.max(initial=-1)) + 1
        n_copies = len(rows) // len(labels)
        targets = np.tile(labels, n_copies)
        callbacks = list(callbacks)
        rng = np.random.default_rng(parameters["random_state"])
        used = ~np.tile(spared, n_copies)
        # A head needs one class; if there is none, its output waits for the first gesture.
        stack = SdAClassifier(max_iter=0, callbacks=callbacks, **parameters)
        stack.fit(rows[used], np.zeros(int(used.sum()), dtype=np.int64)).add_classes(np.arange(max(n_classes, 1)))
        stack.set_params(callbacks=None)
        start = _with_unit_activations(stack, rows[: len(labels)])
        blank = LinearReader(np.zeros((rows.shape[1], n_classes), np.float32), np.zeros(n_classes, np.float32))
        committee = cls(stack, n_members * [start], n_members * [blank], range(n_classes))
        for _ in range(1 + self_training if n_classes else 0):
            committee = committee._taught(
                start, rows, targets, np.tile(folds, n_copies), n_copies, max_iter, callbacks, rng
            )
            guessed = committee._guess(rows[: len(labels)], labels)
            if (guessed == targets[: len(labels)]).all():
                break
            targets = np.tile(guessed, n_copies)
        # A motion at a time is too little work to share.
        for network in (stack, *committee.members):
            network.set_params(n_jobs=1)
        return committee

    def _taught(
        self,
        start: SdAClassifier,
        rows: NDArray[np.float32],
        targets: NDArray[np.int64],
        folds: NDArray[np.int64],
        n_copies: int,
        max_iter: int,
        callbacks: list[Any],
        rng: np.random.Generator,
    ) -> Committee:
        """Members fine-tuned from `start`, each on the rows with a target that are not of its fold."""
        members, readers = [], []
        for number in range(len(self.members)):
            own = (folds != number) & (targets >= 0)
            member = copy.deepcopy(start).set_params(callbacks=callbacks)
            members.append(_fine_tune(member, rows[own], targets[own], max_iter).set_params(callbacks=None))
            own[len(own) // n_copies :] = False
            readers.append(fit_linear(rows[own], targets[own], self.n_classes, rng))
        return Committee(self.stack, members, readers, self.outputs)

    def _guess(self, rows: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The labels given and, for the unlabelled, what the committee is sure of."""
        unknown = np.flatnonzero(labels < 0)
        guessed = labels.copy()
        if len(unknown):
            _, probabilities = self.answer(rows[unknown])
            sure = probabilities.max(axis=1) >= SURE
            guessed[unknown[sure]] = probabilities[sure].argmax(axis=1)
        return guessed

    def learn(
        self,
        lesson: Examples,
        remembered: Examples,
        n_classes: int,
        *,
        max_iter: int,
        n_jobs: int | None,
        rng: np.random.Generator,
    ) -> Committee:
        """Fine-tune copies of all members a little further, on rows of old classes and new ones.

        Parameters
        ----------
        lesson : Examples
            What the networks learn.
        remembered : Examples
            What the linear readers learn, anew.
        n_classes : int
            How many there are now.
        max_iter : int
            Epochs.
        n_jobs : int, optional
            Members that learn side by side; all cores by default.
        rng : numpy.random.Generator

        Returns
        -------
        Committee
            A new one; this one stays as it is.
        """
        outputs = list(self.outputs)
        untaught = not any(record["phase"] == "finetune" for record in self.members[0].history_)
        free = 0 if untaught else self.members[0].n_outputs_
        outputs += range(free, free + n_classes - len(outputs))
        targets = np.array(outputs)[lesson.labels]

        def taught(number: int, own_rng: np.random.Generator) -> tuple[SdAClassifier, LinearReader]:
            member = copy.deepcopy(self.members[number]).add_classes(np.arange(max(outputs) + 1))
            own = lesson.folds != number
            _fine_tune(member, lesson.rows[own], targets[own], max_iter)
            own = remembered.folds != number
            return member, fit_linear(remembered.rows[own], remembered.labels[own], n_classes, own_rng)

        # Each member has a thread; those of the BLAS would only wait for each other.
        with (
            threadpool_limits(1, user_api="blas"),
            ThreadPoolExecutor(effective_n_jobs(-1 if n_jobs is None else n_jobs)) as threads,
        ):
            numbers = range(len(self.members))
            members, readers = zip(*threads.map(taught, numbers, rng.spawn(len(numbers))), strict=True)
        return Committee(self.stack, members, readers, outputs)

    def without_class(self, number: int) -> Committee:
        """The same networks, which no longer answer with a class; those above it move down by one."""
        readers = [LinearReader(*(np.delete(part, number, axis=-1) for part in reader)) for reader in self.readers]
        return Committee(self.stack, self.members, readers, self.outputs[:number] + self.outputs[number + 1 :])

    # ---- use ---------------------------------------------------------------------------------------
    def answer(
        self, rows: NDArray[np.float32], folds: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Encode rows and say what they are.

        Parameters
        ----------
        rows : ndarray of float32, shape (n, n_features)
        folds : ndarray of int64, shape (n,), optional
            The one member to ask about each row, -1 for all.

        Returns
        -------
        encodings : ndarray of float32, shape (n, n_members, n_hidden)
        probabilities : ndarray of float64, shape (n, n_classes)
            Means over the members, of what a member's network and its linear reader say.
        """
        n, n_members = len(rows), len(self.members)
        sums = _product(rows, self._first) + self._first_bias
        cut = n_members * self.members[0].coefs_[0].shape[1]
        values = np.tanh(sums[:, :cut]).reshape(n, n_members, -1).transpose(1, 0, 2)
        for weights, bias in self._upper:
            values = np.tanh(np.matmul(values, weights) + bias)
        encodings = values.transpose(1, 0, 2)
        if not self.outputs:
            return encodings, np.zeros((n, 0))
        network = _softmax(np.matmul(values, self._heads) + self._head_biases)  # (n_members, n, n_classes)
        reader = _softmax(sums[:, cut:].reshape(n, n_members, -1).transpose(1, 0, 2))
        each = NETWORK_SHARE * network + (1.0 - NETWORK_SHARE) * reader
        mean = each.mean(axis=0)
        if folds is not None:
            alone = np.flatnonzero(folds >= 0)
            mean[alone] = each[folds[alone], alone]
        return encodings, mean

    def _biases(self, layer: int) -> NDArray[np.float32]:
        return np.stack([member.intercepts_[layer][None] for member in self.members])

    def errors(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mean squared reconstruction errors of the pretrained stack, (n,)."""
        errors: NDArray[np.float64] = np.square(self.reconstruct(rows) - rows).mean(axis=1, dtype=np.float64)
        return errors

    def reconstruct(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the pretrained stack restores of rows."""
        return self.stack.infer(rows, "reconstructions")


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.exp(logits - logits.max(axis=2, keepdims=True), dtype=np.float64)
    powers /= powers.sum(axis=2, keepdims=True)
    return powers


def _with_unit_activations(stack: SdAClassifier, rows: NDArray[np.float32]) -> SdAClassifier:
    """Scale a copy of the pretrained layers, from below, so that what enters their activations has unit variance.

    Reconstruction drives the units far into saturation, where fine-tuning hardly moves them; the directions that they
    have found are kept (layer-sequential unit variance: D. Mishkin and J. Matas, "All you need is a good init",
    ICLR 2016).
    """
    scaled = copy.deepcopy(stack)
    values = rows
    for weights, bias in zip(scaled.coefs_[:-1], scaled.intercepts_[:-1], strict=True):  # not the head
        values = values @ weights + bias
        deviation = max(float(values.std()), 1e-6)
        weights /= deviation
        bias /= deviation
        values = np.tanh(values / deviation)
    return scaled


def choose_folds(
    labels: NDArray[np.int64], groups: ArrayLike | None, n_folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Deal labelled examples to folds: whole groups if they are known, else the examples of each class in turn.

    -1 where a class has too few examples to do without some, or would lose all of them to a fold.
    """
    folds = np.full(len(labels), -1, dtype=np.int64)
    if n_folds < 2:
        return folds
    if groups is not None:
        _, members = np.unique(np.asarray(groups), return_inverse=True)
        n_groups = int(members.max(initial=0)) + 1
        if n_groups >= LEAST_GROUPS:
            folds = (rng.permutation(n_groups) % n_folds)[members]
    if (folds < 0).all():
        for label in np.unique(labels[labels >= 0]):
            members = rng.permutation(np.flatnonzero(labels == label))
            folds[members] = (np.arange(len(members)) + rng.integers(n_folds)) % n_folds
    for label in np.unique(labels[labels >= 0]):
        own = labels == label
        if own.sum() < LEAST_FOR_FOLDS or np.bincount(folds[own], minlength=n_folds).max() == own.sum():
            folds[own] = -1
    folds[labels < 0] = -1
    return folds


def _fine_tune(
    member: SdAClassifier, rows: NDArray[np.float32], labels: NDArray[np.int64], max_iter: int
) -> SdAClassifier:
    """Continue from the member's weights, without pretraining."""
    kept = {name: getattr(member, name) for name in ("pretrain_epochs", "max_iter", "warm_start")}
    member.set_params(pretrain_epochs=0, max_iter=max_iter, warm_start=True).fit(rows, labels)
    member.set_params(**kept)
    return member


def _product(rows: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """rows @ weights; of a few rows without the threads of a BLAS, which would wait for each other longer than work."""
    if len(rows) > _FEW_ROWS:
        return rows @ weights
    out = np.zeros((len(rows), weights.shape[1]), dtype=np.float32)
    _add_product(np.ascontiguousarray(rows), weights, out)
    return out


@numba.njit(cache=True, nogil=True, fastmath=True)
def _add_product(rows, weights, out):  # type: ignore[no-untyped-def]  # numba infers the types
    n, n_inputs = rows.shape
    for begin in range(0, n_inputs - n_inputs % 4, 4):
        w0, w1, w2, w3 = weights[begin], weights[begin + 1], weights[begin + 2], weights[begin + 3]
        for i in range(n):
            x0, x1, x2, x3 = rows[i, begin], rows[i, begin + 1], rows[i, begin + 2], rows[i, begin + 3]
            sums = out[i]
            for j in range(weights.shape[1]):
                sums[j] += x0 * w0[j] + x1 * w1[j] + x2 * w2[j] + x3 * w3[j]
    for k in range(n_inputs - n_inputs % 4, n_inputs):
        for i in range(n):
            for j in range(weights.shape[1]):
                out[i, j] += rows[i, k] * weights[k, j]
