"""The estimators: stacked denoising autoencoders as scikit-learn users expect them.

May import `gesda.trainer`, `gesda.schedule`, `gesda.callbacks`, `gesda.ingest`, `gesda.model_io`,
`gesda.engine` and `gesda.spec`. Data flow: parameters -> `_network` (specs, initial weights), samples ->
`gesda.ingest`, labels -> `_labels`; `_base` and `_supervised` hand them to the trainer and keep the result.
"""

from __future__ import annotations

from gesda.estimators._persistence import load, pack, unpack
from gesda.estimators.autoencoder import StackedDenoisingAutoencoder
from gesda.estimators.classifier import SdAClassifier
from gesda.estimators.regressor import SdARegressor

__all__ = ["SdAClassifier", "SdARegressor", "StackedDenoisingAutoencoder", "load", "pack", "unpack"]
