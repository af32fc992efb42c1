"""Links factorised where they lie: the same products and factors as a sparse matrix made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from model_store.csr import Csr
from model_store.features import link_weight
from training.factorise import idf, right_factors, unit_rows
from training.link_matrix import LinkMatrix

ROWS, COLUMNS = 120, 150


def links(seed: int, *, weighted: bool, columns: int = COLUMNS, twice: bool = False) -> Csr:
    """Random neighbours, ascending; some rows have none; ``twice``: some neighbours come more than once."""
    rng = np.random.default_rng(seed)
    rows = [
        np.sort(rng.choice(columns, size=int(rng.integers(0, 20)), replace=twice)).astype(np.int32) for _ in range(ROWS)
    ]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    indices = np.concatenate(rows)
    weight = rng.exponential(2.0, len(indices)).astype(np.float32) if weighted else None
    return Csr(indptr=indptr, indices=indices, weight=weight)


def sparse(parts: list[Csr], medians: list[float], columns: int = COLUMNS) -> sp.csr_matrix:
    total = sp.csr_matrix((ROWS, columns))
    for csr, median in zip(parts, medians, strict=True):
        data = link_weight(csr, median).astype(np.float64)
        total = (total + sp.csr_matrix((data, csr.indices, csr.indptr), shape=total.shape)).tocsr()
    total.sum_duplicates()
    return total


CASES = {
    "ones": ([links(1, weighted=False)], [0.0]),
    "weights": ([links(2, weighted=True)], [1.5]),
    "a neighbour twice": ([links(3, weighted=True, twice=True)], [1.5]),
    "two relations": ([links(4, weighted=True), links(5, weighted=False)], [2.0, 0.0]),
}


@pytest.mark.parametrize("case", CASES)
def test_products_are_those_of_the_sparse_matrix(case: str) -> None:
    parts, medians = CASES[case]
    found, expected = LinkMatrix.of(parts, medians, COLUMNS), sparse(parts, medians)
    assert found.shape == expected.shape
    assert found.nnz == expected.nnz
    assert np.array_equal(found.toarray(), expected.toarray())
    rng = np.random.default_rng(0)
    for kind in (np.float32, np.float64):
        right, left = (rng.standard_normal((size, 7)).astype(kind) for size in (COLUMNS, ROWS))
        single = expected.astype(kind)
        assert np.array_equal(found.times(right), single @ right)
        assert np.array_equal(found.times(right, 30, 50), (single @ right)[30:50])
        assert np.array_equal(found.transposed_times(left), single.T.tocsr() @ left)


@pytest.mark.parametrize("case", CASES)
def test_factors_of_scaled_links_are_those_of_the_sparse_matrix(case: str) -> None:
    parts, medians = CASES[case]
    found, expected = LinkMatrix.of(parts, medians, COLUMNS), sparse(parts, medians)
    scale = np.sqrt(idf(expected))
    assert np.array_equal(np.sqrt(idf(found)), scale)
    found, expected = replace(found, column_scale=scale).of_unit_rows(), unit_rows(expected @ sp.diags(scale))
    assert found.toarray() == pytest.approx(expected.toarray(), abs=1e-12)
    assert right_factors(found, 10, 3) == pytest.approx(right_factors(expected, 10, 3), abs=1e-5)


def test_a_diagonal_is_added_in_its_place() -> None:
    square = links(6, weighted=True, columns=ROWS)
    found, expected = LinkMatrix.of([square], [1.0], ROWS), sparse([square], [1.0], ROWS)
    assert (expected.diagonal() > 0).any()
    scale = np.linspace(0.5, 2.0, ROWS)
    whole = (expected + sp.identity(ROWS)) @ sp.diags(scale)
    assert replace(found, diagonal=True, column_scale=scale).toarray() == pytest.approx(whole.toarray(), abs=1e-12)


def test_ascending_links_are_not_copied() -> None:
    csr = links(1, weighted=False)
    assert np.shares_memory(LinkMatrix.of([csr], [0.0], COLUMNS).indices, csr.indices)


def test_links_that_weigh_nothing_are_left_out() -> None:
    csr = Csr(
        indptr=np.array([0, 2, 3]), indices=np.array([0, 1, 1], np.int32), weight=np.array([0.0, 2.0, 3.0], np.float32)
    )
    found = LinkMatrix.of([csr], [2.0], 2, weighted=False)
    assert found.toarray().tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert found.column_counts().tolist() == [0, 2]


def test_chosen_columns_stand_as_rows() -> None:
    parts, medians = CASES["ones"]
    chosen = np.array([3, 20, 149])
    found = LinkMatrix.of(parts, medians, COLUMNS).chosen_columns(chosen)
    assert np.array_equal(found.toarray(), sparse(parts, medians).toarray()[:, chosen].T)
    assert found.has_sorted_indices
