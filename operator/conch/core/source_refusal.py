"""Whether the installation's policy lets the sources of an object be used."""

from conch.api.source_policy import SourcePolicy
from conch.api.spec import ModelDeploymentSpec


def source_refusal(spec: ModelDeploymentSpec, policy: SourcePolicy) -> str | None:
    """Which source is refused, and why; None where all may be used."""
    for field, source in spec.sources.items():
        if refusal := policy.refusal(source.place):
            return f"{field}: {refusal}"
    return None
