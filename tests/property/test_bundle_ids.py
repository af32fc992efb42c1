"""Ids of a bundle are found where they are, and nowhere else."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.node_ids import NodeIds, first_disorder

IDS = st.lists(st.text(max_size=6), unique=True)


@settings(deadline=None)
@given(IDS, st.lists(st.text(max_size=3)), st.integers(0, 3))
def test_every_id_has_its_row_and_no_other_has_one(ids: list[str], others: list[str], skipped: int) -> None:
    ordered = sorted(ids, key=str.encode)
    # A slice too: Arrow keeps the offset of the first row.
    column = pa.chunked_array([pa.array(ordered, pa.string()).slice(skipped)])
    kept = ordered[skipped:]
    found = NodeIds(column)
    assert list(found) == kept
    assert found.rows(kept).tolist() == list(range(len(kept)))
    for other in others:
        assert found.row(other) == (kept.index(other) if other in kept else None)


@settings(deadline=None)
@given(IDS)
def test_disorder_is_found_where_it_begins(ids: list[str]) -> None:
    wanted = next((n for n in range(1, len(ids)) if ids[n].encode() <= ids[n - 1].encode()), None)
    assert first_disorder(pa.chunked_array([pa.array(ids, pa.string())])) == wanted
