"""How much a motion is like the gestures that were learnt: the score by which the unknown is rejected.

Three things tell an unknown motion, each blind where another sees. The pretrained stack **reconstructs** it badly; the
members are not **confident** about any class; its encodings lie far, by Mahalanobis' **distance**, from the mean of
every class (K. Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial
attacks", NeurIPS 2018). Each is measured on known examples, as a logarithm, by its mean and deviation; familiarity is
the mean of the three, again by mean and deviation of the gesture that the motion is taken for: 0 is an average example
of it and -1 one deviation less alike.

Of a gesture with few examples, mean and deviation are guesses. Its deviation is stretched as the bound of a normal
distribution is that holds back no more than the share wanted with a probability of 90 % (a one-sided tolerance
interval: G. J. Hahn and W. Q. Meeker, "Statistical Intervals", 1991, section 4.6).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import nct, norm
from sklearn.covariance import ledoit_wolf

_TINY = 1e-12
#: Deviations of a measure below this are chance of a few examples.
_LEAST_DEVIATION = 0.05
#: From this many examples on, a quantile of their own scores says more than a normal distribution does.
_ENOUGH_FOR_QUANTILE = 60
_CONFIDENCE = 0.9
#: A measure far above the usual is no merit: it must not make up for another that is far below.
_MOST_MERIT = 2.0


class Familiarity:
    """Measures of known examples, and the threshold below which a motion is taken as unknown.

    Parameters
    ----------
    means : ndarray of float64, shape (n_members, n_classes, n_hidden)
        Mean encodings of the classes.
    whitening : ndarray of float64, shape (n_members, n_hidden, n_hidden)
        Turns differences of encodings into ones of covariance 1, the classes' common one.
    center, spread : ndarray of float64, shape (3,)
        Mean and deviation of each measure over known examples.
    class_center, class_spread : ndarray of float64, shape (n_classes,)
        The same of their mean over the known examples of each class.
    threshold : float
    """

    def __init__(
        self,
        means: NDArray[np.float64],
        whitening: NDArray[np.float64],
        center: NDArray[np.float64],
        spread: NDArray[np.float64],
        class_center: NDArray[np.float64],
        class_spread: NDArray[np.float64],
        threshold: float,
    ) -> None:
        self.means, self.whitening = means, whitening
        self.center, self.spread = center, spread
        self.class_center, self.class_spread = class_center, class_spread
        self.threshold = threshold
        self._whitened = np.matmul(means, whitening)  # (n_members, n_classes, n_hidden)
        self._squares = np.square(self._whitened).sum(axis=2)

    @classmethod
    def fit(
        cls, encodings: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int, folds: NDArray[np.int64]
    ) -> Familiarity:
        """Learn where the classes lie among encodings; measures and threshold come by `calibrate`.

        Parameters
        ----------
        encodings : ndarray of float32, shape (n, n_members, n_hidden)
            Of labelled examples, augmented copies among them.
        labels : ndarray of int64, shape (n,)
        n_classes : int
        folds : ndarray of int64, shape (n,)
            The member to which an example has to stay unknown, -1 for none.

        Returns
        -------
        Familiarity
        """
        _, n_members, n_hidden = encodings.shape
        means = np.zeros((n_members, n_classes, n_hidden))
        whitening = np.zeros((n_members, n_hidden, n_hidden))
        for member in range(n_members):
            taught = folds != member
            codes, numbers = encodings[taught, member].astype(np.float64), labels[taught]
            for label in range(n_classes):
                means[member, label] = codes[numbers == label].mean(axis=0)
            covariance, _ = ledoit_wolf(codes - means[member, numbers], assume_centered=True)
            values, vectors = np.linalg.eigh(covariance)
            # Directions in which nothing varied would make every distance infinite.
            floor = max(values[-1] * 1e-4, 1e-8)
            whitening[member] = vectors / np.sqrt(np.maximum(values, floor))
        return cls(
            means, whitening, np.zeros(3), np.ones(3), np.zeros(n_classes), np.ones(n_classes), threshold=-np.inf
        )

    def calibrate(
        self, measures: NDArray[np.float64], labels: NDArray[np.int64], copies: int, rejection_rate: float
    ) -> None:
        """Set the scales of the measures, and the threshold that rejects a share of known examples.

        Parameters
        ----------
        measures : ndarray of float64, shape (n, 3)
            `measure` of known examples that the members were not taught.
        labels : ndarray of int64, shape (n,)
            Their classes; one without examples here takes the scale of all.
        copies : int
            How many of the examples are variations of one.
        rejection_rate : float
            The share, in (0, 1).
        """
        self.center = measures.mean(axis=0)
        self.spread = np.maximum(measures.std(axis=0), _LEAST_DEVIATION)
        merits = self._merits(measures)
        pooled = max(float(merits.std()), _LEAST_DEVIATION)
        for label in range(len(self.class_center)):
            own = merits[labels == label]
            if len(own):
                stretched = _tolerance(len(own) // copies, rejection_rate) / _tolerance(10**6, rejection_rate)
                self.class_center[label] = own.mean()
                self.class_spread[label] = max(float(own.std()), pooled) * stretched
            else:
                self.class_center[label] = merits.mean()
                self.class_spread[label] = 2.0 * pooled
        scores = self.score(measures, labels)
        if len(scores) >= _ENOUGH_FOR_QUANTILE * copies:
            self.threshold = float(np.quantile(scores, rejection_rate))
        else:
            self.threshold = float(norm.ppf(rejection_rate))

    def measure(
        self,
        encodings: NDArray[np.float32],
        probabilities: NDArray[np.float64],
        errors: NDArray[np.float64],
        folds: NDArray[np.int64] | None = None,
    ) -> NDArray[np.float64]:
        """Take the three measures; larger is more familiar.

        Parameters
        ----------
        encodings : ndarray of float32, shape (n, n_members, n_hidden)
        probabilities : ndarray of float64, shape (n, n_classes)
        errors : ndarray of float64, shape (n,)
            Mean squared reconstruction errors.
        folds : ndarray of int64, shape (n,), optional
            The one member to ask about each example, -1 for all.

        Returns
        -------
        measures : ndarray of float64, shape (n, 3)
            Logarithms: of the greatest probability, minus that of the error, minus that of the distance.
        """
        white = np.matmul(encodings.transpose(1, 0, 2), self.whitening)  # (n_members, n, n_hidden)
        squared = np.square(white).sum(axis=2)[:, :, None] + self._squares[:, None]
        squared -= 2.0 * np.matmul(white, self._whitened.transpose(0, 2, 1))
        squared = np.maximum(squared, 0.0) / white.shape[2]  # (n_members, n, n_classes)
        mean = squared.mean(axis=0)
        if folds is not None:
            alone = np.flatnonzero(folds >= 0)
            mean[alone] = squared[folds[alone], alone]
        return np.stack(
            [
                np.log(probabilities.max(axis=1) + _TINY),
                -np.log(errors + _TINY),
                -np.log(mean.min(axis=1) + _TINY),
            ],
            axis=1,
        )

    def score(self, measures: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Familiarity from measures (n, 3) and from the classes that the motions are taken for: (n,)."""
        scores: NDArray[np.float64] = (self._merits(measures) - self.class_center[labels]) / self.class_spread[labels]
        return scores

    def _merits(self, measures: NDArray[np.float64]) -> NDArray[np.float64]:
        merits: NDArray[np.float64] = np.minimum((measures - self.center) / self.spread, _MOST_MERIT).mean(axis=1)
        return merits

    # ---- to and from a file ------------------------------------------------------------------------
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that was learnt, by name."""
        return {
            "means": self.means,
            "whitening": self.whitening,
            "center": self.center,
            "spread": self.spread,
            "class_center": self.class_center,
            "class_spread": self.class_spread,
            "threshold": np.array(self.threshold),
        }

    @classmethod
    def restore(cls, arrays: dict[str, NDArray[Any]], n_members: int, n_classes: int, n_hidden: int) -> Familiarity:
        """Take over what `arrays` gave; ValueError where shapes contradict each other."""
        shapes = {
            "means": (n_members, n_classes, n_hidden),
            "whitening": (n_members, n_hidden, n_hidden),
            "center": (3,),
            "spread": (3,),
            "class_center": (n_classes,),
            "class_spread": (n_classes,),
            "threshold": (),
        }
        for name, shape in shapes.items():
            if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
                raise ValueError(f"the array {name!r} of the rejection does not fit")
        if arrays["spread"].min() <= 0 or arrays["class_spread"].min() <= 0:
            raise ValueError("the spread of the rejection is not positive")
        fields = {name: arrays[name] for name in shapes if name != "threshold"}
        return cls(**fields, threshold=float(arrays["threshold"]))


def _tolerance(n: int, share: float) -> float:
    """How many deviations below the mean of n values at most a share of their distribution lies, at 90 % confidence."""
    distance = -float(norm.ppf(share))
    if n > 10**4:
        return distance
    n = max(n, 3)
    return float(nct.ppf(_CONFIDENCE, n - 1, distance * np.sqrt(n)) / np.sqrt(n))
