"""A fitted recogniser of gestures as a graph: its features, its committee, how familiar a motion is to it.

Duck-typed: nothing of gesda.deepmotion is imported. What is written there too, tests/deepmotion/test_recognizer_onnx.py
holds equal.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from gesda.export.onnx_motion import add_rows
from gesda.export.onnx_nodes import Layers, Nodes, Output, storable

NETWORK_SHARE = 0.6
TINY, MOST_MERIT = 1e-12, 2.0


class RecognizerGraph:
    """What a recogniser answers; parts are made once, as outputs ask for them.

    Parameters
    ----------
    nodes : Nodes
    recognizer : GestureRecognizer
        Fitted.

    Raises
    ------
    ValueError
        If it knows no gesture.
    """

    kind = "recognizer"
    usual = ("labels", "probabilities", "familiarity", "accepted")

    def __init__(self, nodes: Nodes, recognizer: Any) -> None:
        classes = recognizer.classes_
        if not len(classes):
            raise ValueError("the recognizer knows no gesture yet, so there is nothing to export; teach it one first.")
        self._nodes, self._committee = nodes, recognizer._committee
        self._familiarity, self._threshold = recognizer._familiarity, recognizer.threshold_
        self._features, self._classes = recognizer._features, storable(classes)
        self.shape: list[str | int] = ["n", "length", int(recognizer.n_channels_)]
        self.facts = {
            "estimator": type(recognizer).__name__,
            "classes": classes,
            "rate": recognizer.rate_,
            "n_channels": recognizer.n_channels_,
            "threshold": recognizer.threshold_,
        }

    def output(self, name: str) -> Output:
        """Make what an output needs."""
        nodes = self._nodes
        if name == "probabilities":
            return Output(nodes.cast(self._probabilities, np.float32), np.float32, ("n", len(self._classes)))
        if name == "labels":
            labels = nodes("Gather", nodes.constant(self._classes, "classes"), self._best)
            return Output(labels, self._classes.dtype, ("n",))
        if name == "familiarity":
            return Output(nodes.cast(self._score, np.float32), np.float32, ("n",))
        return Output(nodes("GreaterOrEqual", self._score, np.float64(self._threshold)), np.bool_, ("n",))

    # ---- the committee ----------------------------------------------------------------------------
    @cached_property
    def _rows(self) -> str:
        return add_rows(self._nodes, self._features)  # (n, n_features)

    @cached_property
    def _first_sums(self) -> tuple[str, str]:
        """What enters the members' first layers, side by side, and the logits of their linear readers."""
        nodes, committee = self._nodes, self._committee
        weights = nodes.constant(committee._first, "members.first.W")
        sums = nodes("Gemm", self._rows, weights, nodes.constant(committee._first_bias, "members.first.b"))
        n_readers = len(committee.members) * len(self._classes)
        parts = np.array([len(committee._first_bias) - n_readers, n_readers], dtype=np.int64)
        layers, readers = nodes.several(2, "Split", sums, parts, axis=1)
        return layers, readers

    @cached_property
    def _encodings(self) -> str:
        """Encodings by each member, (n_members, n, n_hidden)."""
        nodes = self._nodes
        value = self._of_members(nodes("Tanh", self._first_sums[0]))
        for k, (weights, bias) in enumerate(self._committee._upper, 1):
            product = nodes("MatMul", value, nodes.constant(weights, f"members.layers.{k}.W"))
            value = nodes("Tanh", nodes("Add", product, nodes.constant(bias, f"members.layers.{k}.b")))
        return value

    @cached_property
    def _probabilities(self) -> str:
        """Means over the members, of what a member's network and its linear reader say: (n, n_classes), float64."""
        nodes, committee = self._nodes, self._committee
        product = nodes("MatMul", self._encodings, nodes.constant(committee._heads, "members.head.W"))
        logits = nodes("Add", product, nodes.constant(committee._head_biases, "members.head.b"))
        readers = self._of_members(self._first_sums[1])
        network, reader = (nodes("Softmax", nodes.cast(each, np.float64), axis=2) for each in (logits, readers))
        network, reader = (
            nodes("Mul", each, np.float64(share))
            for each, share in ((network, NETWORK_SHARE), (reader, 1.0 - NETWORK_SHARE))
        )
        return nodes("ReduceMean", nodes("Add", network, reader), axes=[0], keepdims=0)

    @cached_property
    def _best(self) -> str:
        return self._nodes("ArgMax", self._probabilities, axis=1, keepdims=0)  # (n,)

    def _of_members(self, value: str) -> str:
        """What lies side by side, apart: (n, n_members * width) to (n_members, n, width)."""
        apart = np.array([0, len(self._committee.members), -1], dtype=np.int64)
        return self._nodes("Transpose", self._nodes("Reshape", value, apart), perm=[1, 0, 2])

    # ---- familiarity ------------------------------------------------------------------------------
    @cached_property
    def _score(self) -> str:
        """Familiarity, (n,) of float64."""
        nodes, familiarity = self._nodes, self._familiarity
        measures = nodes("Concat", self._confidence(), self._likeness(), self._closeness(), axis=1)  # (n, 3)
        merits = nodes("Div", nodes("Sub", measures, familiarity.center), familiarity.spread)
        merit = nodes("ReduceMean", nodes("Min", merits, np.float64(MOST_MERIT)), axes=[1], keepdims=0)
        center = nodes("Gather", familiarity.class_center, self._best)
        return nodes("Div", nodes("Sub", merit, center), nodes("Gather", familiarity.class_spread, self._best))

    def _confidence(self) -> str:
        return self._logarithm(self._nodes("ReduceMax", self._probabilities, axes=[1]))

    def _likeness(self) -> str:
        """Minus the logarithm of the stack's mean squared reconstruction error, (n, 1)."""
        nodes = self._nodes
        restored = Layers(nodes, self._committee.stack, self._rows, "stack.").reconstructions
        difference = nodes("Sub", restored, self._rows)
        squares = nodes.cast(nodes("Mul", difference, difference), np.float64)
        return nodes("Neg", self._logarithm(nodes("ReduceMean", squares, axes=[1])))

    def _closeness(self) -> str:
        """Minus the logarithm of the squared distance to the nearest class's mean, (n, 1)."""
        nodes, familiarity = self._nodes, self._familiarity
        whitened = familiarity._whitened  # (n_members, n_classes, n_hidden)
        white = nodes("MatMul", nodes.cast(self._encodings, np.float64), familiarity.whitening)
        own = nodes("ReduceSum", nodes("Mul", white, white), np.array([2], dtype=np.int64))
        products = nodes("MatMul", white, 2.0 * whitened.transpose(0, 2, 1))
        squared = nodes("Sub", nodes("Add", own, familiarity._squares[:, None]), products)
        squared = nodes("Div", nodes("Max", squared, np.float64(0.0)), np.float64(whitened.shape[2]))
        nearest = nodes("ReduceMin", nodes("ReduceMean", squared, axes=[0], keepdims=0), axes=[1])
        return nodes("Neg", self._logarithm(nearest))

    def _logarithm(self, value: str) -> str:
        return self._nodes("Log", self._nodes("Add", value, np.float64(TINY)))
