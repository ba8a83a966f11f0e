"""The tests' own waits: as long as it may come true, and no longer."""

from collections.abc import Iterator

import pytest

from tests.support.waiting import until


def test_the_first_truthy_answer_is_what_was_waited_for() -> None:
    answers: Iterator[int] = iter([0, 7])
    assert until(lambda: next(answers), "seven") == 7


def test_what_cannot_come_any_more_is_told_at_once_in_words() -> None:
    with pytest.raises(
        AssertionError, match=r"waited in vain for: version 2; given up: CandidateFailed; last: 'version 1'"
    ):
        until(lambda: _none("version 1"), "version 2", seconds=3600, unless=lambda: "given up: CandidateFailed")


def _none(last: str) -> None:
    raise _Seen(last)


class _Seen(Exception):
    """An error that is shown as its words."""

    def __repr__(self) -> str:
        return repr(self.args[0])


def test_what_has_come_counts_whatever_else_is_said_and_errors_say_nothing() -> None:
    assert until(lambda: 1, "it", unless=lambda: "given up") == 1
    with pytest.raises(AssertionError, match="waited 0 s for: it; last: 0"):
        until(lambda: 0, "it", seconds=0, unless=_away)


def _away() -> str:
    raise ConnectionError("the API server is away")
