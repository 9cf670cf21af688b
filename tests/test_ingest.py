"""What users have becomes what engines read, or one clear error."""

from __future__ import annotations

import warnings

import hypothesis.extra.numpy as arrays
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from gesda.ingest import as_data, concatenate_rows, data_range, dense_rows, mean_square_norm, row_chunks

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=7)
TYPES = ["float16", "float32", "float64", "int8", "uint8", "int64", "bool", ">f8"]
MATRICES = st.sampled_from(TYPES).flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        SHAPES,
        elements=arrays.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False, min_value=-99, max_value=99)
        if dtype not in ("bool", "uint8")
        else None,
    )
)


@given(MATRICES, st.sampled_from(["C", "F", "reversed"]))
def test_numbers_of_every_type_and_order_become_contiguous_float32(X, order):
    X = X[::-1, ::-1] if order == "reversed" else np.asarray(X, order=order)
    data = as_data(X)
    assert data.dtype == np.float32 and data.flags.c_contiguous and data.dtype.isnative
    np.testing.assert_array_equal(data, X.astype(np.float32))
    assert data_range(data) == (data.min(), data.max())
    assert mean_square_norm(data) == pytest.approx(np.square(X.astype(np.float64)).sum(axis=1).mean(), rel=1e-3)


@given(MATRICES)
def test_sparse_matrices_stay_sparse_and_keep_their_values(X):
    X = X.astype(np.float32)
    dense = as_data(X)
    data = as_data(scipy.sparse.csr_array(X))
    assert isinstance(data, scipy.sparse.csr_array) and data.dtype == np.float32 and data.has_canonical_format
    np.testing.assert_array_equal(data.toarray(), dense)
    assert data_range(data) == data_range(dense)
    assert mean_square_norm(data) == pytest.approx(mean_square_norm(dense), rel=1e-6)
    for stacked in (concatenate_rows(data, dense), concatenate_rows(dense, data), concatenate_rows(data, data)):
        assert isinstance(stacked, scipy.sparse.csr_array) and stacked.dtype == np.float32
        np.testing.assert_array_equal(stacked.toarray(), np.concatenate([dense, dense]))
    np.testing.assert_array_equal(dense_rows(data, slice(0, 1)), dense_rows(dense, slice(0, 1)))


def test_data_that_fit_are_not_copied():
    X = np.random.default_rng().random((5, 3), dtype=np.float32)
    assert np.shares_memory(as_data(X), X)
    sparse = scipy.sparse.csr_array(X)
    assert np.shares_memory(as_data(sparse).data, sparse.data)


def test_duplicates_in_a_sparse_matrix_are_added_and_the_callers_matrix_stays():
    duplicated = scipy.sparse.csr_array((np.ones(3, dtype=np.float32), [1, 0, 1], [0, 3]), shape=(1, 2))
    assert as_data(duplicated).toarray().tolist() == [[1, 2]]
    assert duplicated.nnz == 3


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_data_frames_are_read(frame):
    data = as_data(frame({"a": [1, 2], "b": [0.5, 0.25]}))
    np.testing.assert_array_equal(data, np.array([[1, 0.5], [2, 0.25]], dtype=np.float32))


@pytest.mark.parametrize("convert", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "samples contains NaN"), (np.inf, "infinity"), (1e39, r"too large for dtype\('float32'\)")],
)
def test_values_that_are_no_float32_are_refused_without_further_noise(convert, value, message):
    X = np.ones((4, 3))
    X[2, 1] = value
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        warnings.simplefilter("error")
        as_data(convert(X), name="samples")


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([1.0, 2.0], ValueError, "Expected 2D array"),
        (np.zeros((0, 3)), ValueError, "0 sample"),
        (np.zeros((3, 0)), ValueError, "0 feature"),
        (np.zeros((2, 2, 2)), ValueError, "dim 3"),
        ([["a", "b"]], ValueError, "could not convert"),
        (np.ones((2, 2), dtype=complex), ValueError, "Complex"),
        (None, ValueError, "Expected 2D array"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(X, error, message):
    with pytest.raises(error, match=message):
        as_data(X)


def test_rows_of_other_widths_do_not_join():
    with pytest.raises(ValueError, match="3 features, X_unlabeled has 2"):
        concatenate_rows(as_data(np.ones((2, 3))), as_data(np.ones((2, 2))))


@given(st.integers(0, 50), st.integers(0, 20), st.integers(1, 60))
def test_chunks_cover_the_rows_once_within_the_limit(n_rows, n_columns, values):
    chunks = list(row_chunks(n_rows, n_columns, values))
    assert [row for chunk in chunks for row in range(n_rows)[chunk]] == list(range(n_rows))
    assert all((c.stop - c.start) * n_columns <= values or c.stop - c.start == 1 for c in chunks)


def test_a_sparse_array_of_zeros_has_the_range_zero():
    assert data_range(scipy.sparse.csr_array((3, 2), dtype=np.float32)) == (0.0, 0.0)
