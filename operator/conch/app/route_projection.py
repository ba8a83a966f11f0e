"""From a live HTTPRoute or GRPCRoute to what the planner is told of it."""

from collections.abc import Mapping
from typing import Any, Final

from conch.api.types import bounded
from conch.core.observed_child import ParentVerdict

_ACCEPTED: Final = "Accepted"
_RESOLVED: Final = "ResolvedRefs"
_PARTIALLY_INVALID: Final = "PartiallyInvalid"
_WORDS_MOST: Final = 500


def route_weights(live: Mapping[str, Any]) -> dict[str, int]:
    """What each Service gets by every rule of a route; nothing where the rules do not agree."""
    rules = [
        {ref["name"]: ref.get("weight", 1) for ref in rule.get("backendRefs") or ()}
        for rule in live.get("spec", {}).get("rules") or ()
    ]
    return rules[0] if rules and all(rule == rules[0] for rule in rules) else {}


def parent_verdicts(live: Mapping[str, Any]) -> tuple[ParentVerdict, ...]:
    """What controllers say of a route, one entry for each Gateway that one of them speaks for."""
    namespace = live["metadata"].get("namespace", "")
    return tuple(_verdict(parent, namespace) for parent in live.get("status", {}).get("parents") or ())


def _verdict(parent: Mapping[str, Any], route_namespace: str) -> ParentVerdict:
    ref = parent["parentRef"]
    conditions = {each["type"]: each for each in parent.get("conditions") or ()}
    wanted = [conditions[name] for name in (_ACCEPTED, _RESOLVED) if name in conditions]
    against = next((each for each in wanted if each["status"] != "True"), None)
    partly = conditions.get(_PARTIALLY_INVALID)
    if against is None and partly is not None and partly["status"] == "True":
        against = partly
    return ParentVerdict(
        name=ref["name"],
        namespace=ref.get("namespace") or route_namespace,
        section_name=ref.get("sectionName"),
        port=ref.get("port"),
        generation=min((each.get("observedGeneration", 0) for each in wanted), default=0),
        accepts=len(wanted) == 2 and against is None,
        reason=str(against.get("reason", "")) if against else "",
        message=bounded(" ".join(str(against.get("message", "")).split()), _WORDS_MOST) if against else "",
    )
