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
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gesda.estimators import SdAClassifier

#: Of a class of fewer examples no member can do without one.
LEAST_FOR_FOLDS = 3
#: Probability from which the committee's guess at an unlabelled example is taken for its label.
SURE = 0.8
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
    outputs : sequence of int
        Which output of the heads each class has.
    """

    def __init__(self, stack: SdAClassifier, members: Sequence[SdAClassifier], outputs: Sequence[int]) -> None:
        self.stack = stack
        self.members = list(members)
        self.outputs = list(outputs)
        # All heads as two arrays, so that a single motion costs two operations instead of two a member.
        self._W = np.stack([member.coefs_[-1][:, self.outputs] for member in members]).astype(np.float64)
        self._b = np.stack([member.intercepts_[-1][self.outputs] for member in members]).astype(np.float64)

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
        callbacks : iterable of gesda.callbacks.Callback

        Returns
        -------
        Committee
        """
        n_classes = int(labels.max(initial=-1)) + 1
        n_copies = len(rows) // len(labels)
        targets = np.tile(labels, n_copies)
        if not n_classes:
            targets[0] = 0  # a head needs one class; its output waits for the first gesture
        callbacks = list(callbacks)
        stack = SdAClassifier(max_iter=0, callbacks=callbacks, **parameters).fit(rows, targets)
        stack.set_params(callbacks=None)
        committee = cls(stack, [copy.deepcopy(stack) for _ in range(n_members)], range(n_classes))
        for _ in range(1 + self_training if n_classes else 0):
            committee = committee._taught(rows, targets, np.tile(folds, n_copies), max_iter, callbacks)
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
        rows: NDArray[np.float32],
        targets: NDArray[np.int64],
        folds: NDArray[np.int64],
        max_iter: int,
        callbacks: list[Any],
    ) -> Committee:
        """Members fine-tuned from the pretrained stack, each on the rows with a target that are not of its fold."""
        members = []
        for number in range(len(self.members)):
            own = (folds != number) & (targets >= 0)
            member = copy.deepcopy(self.stack).set_params(callbacks=callbacks)
            members.append(_fine_tune(member, rows[own], targets[own], max_iter).set_params(callbacks=None))
        return Committee(self.stack, members, self.outputs)

    def _guess(self, rows: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The labels given and, for the unlabelled, what the committee is sure of."""
        unknown = np.flatnonzero(labels < 0)
        guessed = labels.copy()
        if len(unknown):
            probabilities = self.probabilities(self.encode(rows[unknown]))
            sure = probabilities.max(axis=1) >= SURE
            guessed[unknown[sure]] = probabilities[sure].argmax(axis=1)
        return guessed

    def learn(
        self,
        rows: NDArray[np.float32],
        labels: NDArray[np.int64],
        folds: NDArray[np.int64],
        n_classes: int,
        *,
        max_iter: int,
        n_jobs: int | None,
    ) -> Committee:
        """Fine-tune copies of all members a little further, on rows of old classes and new ones.

        Parameters
        ----------
        rows : ndarray of float32, shape (n, n_features)
        labels : ndarray of int64, shape (n,)
            Class numbers below `n_classes`.
        folds : ndarray of int64, shape (n,)
            The member that leaves a row out; -1 for none.
        n_classes : int
            How many there are now.
        max_iter : int
            Epochs.
        n_jobs : int, optional
            Members that learn side by side; all cores by default.

        Returns
        -------
        Committee
            A new one; this one stays as it is.
        """
        outputs = list(self.outputs)
        untaught = not any(record["phase"] == "finetune" for record in self.members[0].history_)
        free = 0 if untaught else self.members[0].n_outputs_
        outputs += range(free, free + n_classes - len(outputs))
        targets = np.array(outputs)[labels]

        def taught(number: int) -> SdAClassifier:
            member = copy.deepcopy(self.members[number]).add_classes(np.arange(max(outputs) + 1))
            own = folds != number
            return _fine_tune(member, rows[own], targets[own], max_iter)

        with ThreadPoolExecutor(n_jobs if n_jobs and n_jobs > 0 else os.cpu_count()) as threads:
            return Committee(self.stack, list(threads.map(taught, range(len(self.members)))), outputs)

    def without_class(self, number: int) -> Committee:
        """The same networks, which no longer answer with a class; those above it move down by one."""
        return Committee(self.stack, self.members, self.outputs[:number] + self.outputs[number + 1 :])

    # ---- use ---------------------------------------------------------------------------------------
    def encode(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The members' encodings, (n, n_members, n_hidden)."""
        return np.stack([member.infer(rows) for member in self.members], axis=1)

    def probabilities(
        self, encodings: NDArray[np.float32], folds: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Mean of the members' probabilities, (n, n_classes), from their encodings.

        With `folds`, an example's are those of the member alone that left it out (of all, if none did).
        """
        if not self.outputs:
            return np.zeros((len(encodings), 0))
        logits = np.matmul(encodings.transpose(1, 0, 2), self._W) + self._b[:, None]  # (n_members, n, n_classes)
        each = np.exp(logits - logits.max(axis=2, keepdims=True))
        each /= each.sum(axis=2, keepdims=True)
        mean: NDArray[np.float64] = each.mean(axis=0)
        if folds is not None:
            left_out = np.flatnonzero(folds >= 0)
            mean[left_out] = each[folds[left_out], left_out]
        return mean

    def reconstruct(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the pretrained stack restores of rows."""
        return self.stack.infer(rows, "reconstructions")


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
