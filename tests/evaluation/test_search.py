"""Exact search against a full sort, over several chunks of the gallery."""

import numpy as np
import pytest
from evaluation_fakes import unit

from hf_audiolang.evaluation import search


@pytest.mark.parametrize("chunk_rows", [3, 7, 8192])
def test_neighbours_equal_a_full_sort_whatever_the_chunks(monkeypatch, chunk_rows):
    monkeypatch.setattr(search, "CHUNK_ROWS", chunk_rows)
    queries, gallery = unit(5, 9, seed=0), unit(23, 9, seed=1)
    similarities, positions = search.nearest(queries, gallery, 4)
    expected = np.argsort(-(queries @ gallery.T), axis=1)[:, :4]
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_allclose(similarities, np.take_along_axis(queries @ gallery.T, expected, 1), atol=1e-6)


def test_more_neighbours_than_rows_gives_all_rows():
    similarities, positions = search.nearest(unit(2, 5, seed=0), unit(3, 5, seed=1), 10)
    assert similarities.shape == (2, 3)
    assert sorted(positions[0]) == [0, 1, 2]


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="`k` must be at least 1, got 0"):
        search.nearest(unit(2, 5, seed=0), unit(3, 5, seed=1), 0)
    with pytest.raises(ValueError, match="same width, got 5 and 6"):
        search.nearest(unit(2, 5, seed=0), unit(3, 6, seed=1), 1)
