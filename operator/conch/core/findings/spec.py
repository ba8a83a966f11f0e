"""Checks of what was asked for."""

from conch.api.model_deployment import InvalidSpec
from conch.api.reasons import Reason
from conch.api.spec import ModelDeploymentSpec
from conch.core.finding import Finding, stalled
from conch.core.situation import Situation
from conch.core.source_refusal import source_refusal


def spec_is_readable(situation: Situation) -> Finding | None:
    """The spec fits this version of the API."""
    if isinstance(situation.spec, InvalidSpec):
        return stalled(Reason.INVALID_SPEC, f"{situation.spec.message}. What runs is left as it is; correct the spec.")
    return None


def source_is_allowed(situation: Situation) -> Finding | None:
    """The installation's policy lets these sources be used."""
    assert isinstance(situation.spec, ModelDeploymentSpec)  # noqa: S101 - an earlier check's promise
    refusal = source_refusal(situation.spec, situation.policy.source_policy)
    return stalled(Reason.SOURCE_NOT_ALLOWED, f"{refusal}.") if refusal else None
