"""Other libraries' containers and tools: pandas, polars, SciPy, pipelines, searches, threads."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import sklearn
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from gesda.estimators import SdAClassifier, SdARegressor, StackedDenoisingAutoencoder

NAMES = list("abcdef")


def sklearn_reads_names(table):
    """Not scikit-learn 1.7, the last for Python 3.10, of frames of polars 2."""
    is_old = tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8)
    return isinstance(table, pd.DataFrame) or hasattr(table, "__dataframe__") or not is_old


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_data_frames_give_what_arrays_give_and_name_the_features(samples, make, cls, frame, output):
    X, y = samples
    table = frame({name: X[:, j] for j, name in enumerate(NAMES)})
    model = make(cls).fit(table, pl.Series(y) if frame is pl.DataFrame else pd.Series(y))
    if sklearn_reads_names(table):
        assert model.feature_names_in_.tolist() == NAMES
    np.testing.assert_array_equal(output(model, table), output(make(cls).fit(X, y), X))


@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csc_matrix, scipy.sparse.coo_array])
def test_sparse_data_give_what_dense_data_give(samples, make, cls, container, output):
    X, y = samples
    X = np.where(X < 0.3, 0, X).astype(np.float32)
    dense, sparse = make(cls).fit(X, y), make(cls).fit(container(X), y)
    np.testing.assert_allclose(output(sparse, container(X)), output(dense, X), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sparse.reconstruct(container(X)), dense.reconstruct(X), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(sparse.score_samples(container(X)), dense.score_samples(X), rtol=1e-3, atol=1e-5)


def test_sparse_and_dense_samples_mix(samples, make):
    X, y = samples
    mixed = make(SdAClassifier).fit(X[:30], y[:30], X_unlabeled=scipy.sparse.csr_array(X[30:]))
    dense = make(SdAClassifier).fit(X[:30], y[:30], X_unlabeled=X[30:])
    np.testing.assert_allclose(mixed.predict_proba(X), dense.predict_proba(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_set_output_names_the_encodings(samples, make, cls, library):
    X, y = samples
    model = make(cls).set_output(transform=library).fit(X, y)
    prefix = cls.__name__.lower()
    assert list(model.transform(X).columns) == [f"{prefix}{j}" for j in range(5)]
    assert model.get_feature_names_out().tolist() == [f"{prefix}{j}" for j in range(5)]
    with pytest.raises(ValueError, match="last layer only"):
        model.transform(X, layer=0)


def test_pipelines_and_searches(samples, make):
    X, y = samples
    pipeline = make_pipeline(MinMaxScaler(), make(SdAClassifier))
    search = GridSearchCV(pipeline, {"sdaclassifier__hidden_layer_sizes": [(4,), (8, 4)]}, cv=2, n_jobs=2)
    assert search.fit(10 * X, y).best_score_ > 0.2
    features = make_pipeline(make(StackedDenoisingAutoencoder), make(SdARegressor)).fit(X, y)
    assert features.predict(X).shape == (60,)


def test_copies_predict_the_same_bits(samples, make, cls, output):
    X, y = samples
    model = make(cls).fit(X, y)
    expected = output(model, X)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        np.testing.assert_array_equal(output(twin, X), expected)


def test_threads_may_predict_with_one_estimator(samples, make, cls, output):
    X, y = samples
    model = make(cls).fit(X, y)
    expected = output(model, X)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: output(model, X), range(40)):
            np.testing.assert_array_equal(result, expected)


def test_it_shows_as_html(make, cls):
    assert cls.__name__ in make(cls)._repr_html_()


def test_float32_is_kept_and_float64_converted_once(samples, make, cls):
    X, y = samples
    model = make(cls).fit(X, y)
    assert model.transform(X).dtype == np.float32
    wide = make(cls).fit(X.astype(np.float64), y)
    assert wide.transform(X.astype(np.float64)).dtype == np.float32
    np.testing.assert_array_equal(model.coefs_[0], wide.coefs_[0])
