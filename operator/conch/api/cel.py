"""CEL validation rules that are carried by the types and end up in the CRD."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A CEL rule over `self`, and what to do when it does not hold."""

    rule: str
    message: str


def rules(*given: Rule) -> dict[str, Any]:
    """The rules as a fragment of JSON schema."""
    return {"x-kubernetes-validations": [{"rule": rule.rule, "message": rule.message} for rule in given]}
