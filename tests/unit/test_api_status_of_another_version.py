"""A status that a newer operator wrote: what is known in it stays."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from conch.api.model_deployment import parse_status
from conch.api.status import ConditionType

STABLE = {"revision": "a", "version": 1, "workload": "w"}
READY = {"type": "Ready", "status": "True", "reason": "Serving", "lastTransitionTime": "2026-01-01T00:00:00Z"}


def test_a_field_that_was_added_to_stable_does_not_lose_it() -> None:
    parsed = parse_status({"stable": {**STABLE, "weight": 10}, "workloadsCreated": 4})
    assert parsed.stable is not None
    assert parsed.stable.workload == "w"
    assert parsed.workloads_created == 4


def test_a_condition_of_an_unknown_type_does_not_lose_the_others() -> None:
    parsed = parse_status({"conditions": [{**READY, "type": "Paused"}, READY, {**READY, "reason": "Unheard"}]})
    assert [condition.type for condition in parsed.conditions] == [ConditionType.READY]


def test_a_part_without_a_needed_field_is_left_out() -> None:
    assert parse_status({"stable": {"revision": "a"}, "workloadsCreated": 2}).workloads_created == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["stable", "type", "x"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["stable", "candidate", "conditions", "pods", "url", "future"]), JSON))
def test_no_status_stops_the_operator(status: dict[str, Any]) -> None:
    assert parse_status({**status, "workloadsCreated": 3}).workloads_created == 3
