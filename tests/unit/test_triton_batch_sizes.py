"""Telling batch sizes apart: all where they fit, and neighbours together where not."""

from hypothesis import given
from hypothesis import strategies as st

from conch.triton.batch_sizes import told_size

MOST = st.integers(2, 64)


@given(most=MOST, max_batch=st.integers(1, 64), size=st.integers(1, 64))
def test_sizes_that_fit_are_told_as_they_are(most: int, max_batch: int, size: int) -> None:
    if size <= max_batch <= most:
        assert told_size(size, max_batch=max_batch, most=most) == size


@given(most=MOST, max_batch=st.integers(1, 4096))
def test_there_are_never_more_than_may_be_told_and_they_keep_their_order(most: int, max_batch: int) -> None:
    told = [told_size(size, max_batch=max_batch, most=most) for size in range(1, max_batch + 1)]
    assert len(set(told)) <= most
    assert told == sorted(told)
    assert told[0] >= 1
    assert told[-1] <= max_batch


def test_neighbours_differ_by_little_and_small_sizes_not_at_all() -> None:
    for max_batch, error in ((65, 0.02), (128, 0.025), (1024, 0.06), (65536, 0.13)):
        for size in range(1, max_batch + 1):
            told = told_size(size, max_batch=max_batch, most=64)
            assert abs(told - size) <= (0 if size <= 32 else error * size + 0.5), (max_batch, size, told)


def test_a_size_that_cannot_be_is_told_as_one_that_can() -> None:
    assert told_size(0, max_batch=8, most=64) == 1
    assert told_size(3, max_batch=1, most=64) == 1
    assert told_size(2000, max_batch=1024, most=64) == told_size(1024, max_batch=1024, most=64)
