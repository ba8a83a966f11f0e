"""How fast a count may change, in the HorizontalPodAutoscaler's words.

The figures are worked out by hand from the algorithm that Kubernetes documents: a policy's value counts from the count
at the beginning of its period; of the counts wanted within a window, the one that changes the least is used.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.api.autoscaling import Behavior, PolicySelect, PolicyType, ScalingPolicy, ScalingRules
from conch.core.scaling.behavior import Change, Timed, with_wanted, within

PODS, PERCENT = PolicyType.PODS, PolicyType.PERCENT


def rules(*policies: tuple[PolicyType, int, int], window: int = 0, select: str = "Max") -> ScalingRules:
    return ScalingRules(
        stabilization_window_seconds=window,
        select_policy=PolicySelect(select),
        policies=tuple(
            ScalingPolicy(type=kind, value=value, period_seconds=period) for kind, value, period in policies
        ),
    )


def allowed(
    behavior: Behavior | None,
    wanted: int,
    current: int,
    *,
    before: tuple[tuple[float, int], ...] = (),
    changes: tuple[tuple[float, int, int], ...] = (),
) -> int:
    """At second 1000."""
    return within(
        behavior,
        wanted,
        current,
        now=1000.0,
        wanted_before=[Timed(at, count) for at, count in before],
        changes=[Change(at, old, new) for at, old, new in changes],
    )


UP_TABLE = [
    # policies, select, current, wanted, changes, allowed
    ([(PODS, 4, 60)], "Max", 10, 100, (), 14),
    ([(PODS, 4, 60)], "Max", 10, 12, (), 12),
    ([(PERCENT, 100, 15)], "Max", 10, 100, (), 20),
    ([(PERCENT, 10, 60)], "Max", 5, 100, (), 6),
    ([(PERCENT, 10, 60)], "Max", 100, 1000, (), 110),
    ([(PERCENT, 100, 15), (PODS, 4, 15)], "Max", 2, 100, (), 6),
    ([(PERCENT, 100, 15), (PODS, 4, 15)], "Min", 2, 100, (), 4),
    ([(PERCENT, 100, 15), (PODS, 4, 15)], "Max", 10, 100, (), 20),
    ([(PODS, 4, 60)], "Max", 13, 100, ((990.0, 10, 13),), 14),
    ([(PODS, 4, 60)], "Max", 14, 100, ((990.0, 10, 14),), 14),
    ([(PODS, 4, 60)], "Max", 14, 100, ((930.0, 10, 14),), 18),
    ([(PODS, 4, 60)], "Max", 16, 100, ((990.0, 10, 16),), 16),
    ([(PODS, 4, 60)], "Max", 8, 100, ((990.0, 10, 8),), 14),
    ([], "Disabled", 3, 9, (), 3),
    ([], "Max", 3, 9, (), 9),
]


DOWN_TABLE = [
    ([(PODS, 2, 60)], "Max", 10, 1, (), 8),
    ([(PODS, 2, 60)], "Max", 10, 9, (), 9),
    ([(PERCENT, 10, 60)], "Max", 100, 1, (), 90),
    ([(PERCENT, 10, 60)], "Max", 10, 1, (), 9),
    ([(PERCENT, 10, 60)], "Max", 15, 1, (), 13),
    ([(PERCENT, 100, 15)], "Max", 10, 0, (), 0),
    ([(PERCENT, 10, 60), (PODS, 4, 60)], "Max", 10, 1, (), 6),
    ([(PERCENT, 10, 60), (PODS, 4, 60)], "Min", 10, 1, (), 9),
    ([(PERCENT, 50, 60), (PODS, 4, 60)], "Max", 100, 1, (), 50),
    ([(PODS, 2, 60)], "Max", 9, 1, ((980.0, 10, 9),), 8),
    ([(PODS, 2, 60)], "Max", 8, 1, ((980.0, 10, 8),), 8),
    ([(PODS, 2, 60)], "Max", 8, 1, ((900.0, 10, 8),), 6),
    ([(PODS, 2, 60)], "Max", 12, 1, ((980.0, 10, 12),), 8),
    ([], "Disabled", 9, 3, (), 9),
    ([], "Max", 9, 3, (), 3),
]


@pytest.mark.parametrize(
    ("direction", "policies", "select", "current", "wanted", "changes", "expected"),
    [("scale_up", *row) for row in UP_TABLE] + [("scale_down", *row) for row in DOWN_TABLE],
)
def test_policies_limit_how_far_the_count_goes(
    direction: str,
    policies: list[tuple[PolicyType, int, int]],
    select: str,
    current: int,
    wanted: int,
    changes: tuple[tuple[float, int, int], ...],
    expected: int,
) -> None:
    behavior = Behavior(**{direction: rules(*policies, select=select)})
    assert allowed(behavior, wanted, current, changes=changes) == expected


@pytest.mark.parametrize(
    ("window", "current", "wanted", "before", "expected"),
    [
        # Up: the smallest of what was wanted within the window.
        (60, 4, 10, ((970.0, 6), (990.0, 8)), 6),
        (60, 4, 10, ((900.0, 2), (990.0, 8)), 8),
        (60, 4, 10, ((970.0, 3),), 4),
        (0, 4, 10, ((970.0, 6),), 10),
        # Down: the largest.
        (60, 10, 2, ((970.0, 6), (990.0, 4)), 6),
        (60, 10, 2, ((900.0, 9), (990.0, 4)), 4),
        (60, 10, 2, ((970.0, 12),), 10),
        (0, 10, 2, ((970.0, 6),), 2),
    ],
)
def test_of_what_was_wanted_within_the_window_the_one_that_changes_least_is_used(
    window: int, current: int, wanted: int, before: tuple[tuple[float, int], ...], expected: int
) -> None:
    behavior = Behavior(scale_up=rules(window=window), scale_down=rules(window=window))
    assert allowed(behavior, wanted, current, before=before) == expected


def test_without_rules_for_a_direction_it_is_free() -> None:
    only_up = Behavior(scale_up=rules(select="Disabled"))
    assert allowed(only_up, 1, 9) == 1
    assert allowed(only_up, 20, 9) == 9
    assert allowed(None, 20, 9) == 20


def test_what_was_wanted_is_remembered_for_the_longest_window_and_once_for_equal_counts() -> None:
    behavior = Behavior(scale_up=rules(window=10), scale_down=rules(window=60))
    known: tuple[Timed, ...] = ()
    for second in range(0, 200, 2):
        known = with_wanted(known, Timed(second, 5 if second < 150 else 3), behavior)
    assert known == (Timed(148, 5), Timed(198, 3))
    assert with_wanted(known, Timed(300, 3), behavior) == (Timed(300, 3),)


@given(
    st.integers(0, 50),
    st.integers(0, 50),
    st.lists(st.tuples(st.sampled_from([PODS, PERCENT]), st.integers(1, 200), st.integers(1, 120)), max_size=3),
    st.sampled_from(["Max", "Min", "Disabled"]),
    st.integers(0, 120),
    st.lists(st.tuples(st.floats(800, 999), st.integers(0, 50)), max_size=5),
)
@settings(max_examples=200, derandomize=True)
def test_it_never_goes_beyond_what_is_wanted_nor_the_other_way(
    wanted: int,
    current: int,
    policies: list[tuple[PolicyType, int, int]],
    select: str,
    window: int,
    before: list[tuple[float, int]],
) -> None:
    both = rules(*policies, window=window, select=select)
    count = allowed(Behavior(scale_up=both, scale_down=both), wanted, current, before=tuple(before))
    assert min(wanted, current) <= count <= max(wanted, current)
