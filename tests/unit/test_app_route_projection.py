"""What controllers say of a route, in every way in which they do, and what its rules say."""

from typing import Any, Final

import pytest

from conch.app.route_projection import parent_verdicts, route_weights
from conch.core.observed_child import ParentVerdict


def _condition(type_: str, status: str = "True", generation: int = 3, **words: str) -> dict[str, Any]:
    return {"type": type_, "status": status, "observedGeneration": generation, **words}


def _live(*conditions: dict[str, Any], **ref: Any) -> dict[str, Any]:
    parent = {"parentRef": {"name": "public", **ref}, "controllerName": "c", "conditions": list(conditions)}
    return {"metadata": {"namespace": "team", "generation": 3}, "status": {"parents": [parent]}}


ACCEPTED: Final = _condition("Accepted")
RESOLVED: Final = _condition("ResolvedRefs")


@pytest.mark.parametrize(
    ("conditions", "accepts", "generation", "reason"),
    [
        ((ACCEPTED, RESOLVED), True, 3, ""),
        ((ACCEPTED, _condition("ResolvedRefs", generation=2)), True, 2, ""),
        ((_condition("Accepted", generation=2), RESOLVED), True, 2, ""),
        ((ACCEPTED,), False, 3, ""),
        ((RESOLVED,), False, 3, ""),
        ((), False, 0, ""),
        (
            (_condition("Accepted", "False", reason="NotAllowedByListeners"), RESOLVED),
            False,
            3,
            "NotAllowedByListeners",
        ),
        ((ACCEPTED, _condition("ResolvedRefs", "False", reason="RefNotPermitted")), False, 3, "RefNotPermitted"),
        ((_condition("Accepted", "Unknown", reason="Pending"), RESOLVED), False, 3, "Pending"),
        ((ACCEPTED, RESOLVED, _condition("PartiallyInvalid", reason="UnsupportedValue")), False, 3, "UnsupportedValue"),
        ((ACCEPTED, RESOLVED, _condition("PartiallyInvalid", "False")), True, 3, ""),
        ((ACCEPTED, RESOLVED, _condition("example.com/Own", "False", reason="Whatever")), True, 3, ""),
        (({"type": "Accepted", "status": "True"}, RESOLVED), True, 0, ""),
    ],
)
def test_a_verdict_is_made_of_both_conditions(
    conditions: tuple[dict[str, Any], ...], accepts: bool, generation: int, reason: str
) -> None:
    (verdict,) = parent_verdicts(_live(*conditions))
    assert (verdict.accepts, verdict.generation, verdict.reason) == (accepts, generation, reason)


def test_a_verdict_names_its_gateway() -> None:
    assert parent_verdicts(_live(ACCEPTED, RESOLVED, namespace="infra", sectionName="web", port=80)) == (
        ParentVerdict(name="public", namespace="infra", section_name="web", port=80, generation=3, accepts=True),
    )
    (without,) = parent_verdicts(_live(ACCEPTED, RESOLVED))
    assert (without.namespace, without.section_name, without.port) == ("team", None, None)


def test_words_of_others_become_one_line_of_bounded_length() -> None:
    refusal = _condition("Accepted", "False", reason="No", message="a\n b\t" + "c" * 9000)
    (verdict,) = parent_verdicts(_live(refusal, RESOLVED))
    assert verdict.message.startswith("a b ccc")
    assert len(verdict.message) == 500


def test_a_route_of_which_nobody_speaks_has_no_verdict() -> None:
    assert parent_verdicts({"metadata": {}}) == ()
    assert parent_verdicts({"metadata": {}, "status": {"parents": None}}) == ()


def _rule(**weights: int) -> dict[str, Any]:
    return {"backendRefs": [{"name": name, "weight": weight} for name, weight in weights.items()]}


@pytest.mark.parametrize(
    ("rules", "weights"),
    [
        ([_rule(a=90, b=10)], {"a": 90, "b": 10}),
        ([_rule(a=90, b=10), _rule(b=10, a=90)], {"a": 90, "b": 10}),
        ([_rule(a=90, b=10), _rule(a=100)], {}),
        ([{"backendRefs": [{"name": "a"}]}], {"a": 1}),
        ([{}], {}),
        ([], {}),
    ],
)
def test_weights_are_what_all_rules_agree_on(rules: list[dict[str, Any]], weights: dict[str, int]) -> None:
    assert route_weights({"spec": {"rules": rules}}) == weights
