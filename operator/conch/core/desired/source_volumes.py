"""What a pod mounts of its models' sources: the claims that they lie on, and the Secrets that open others."""

from typing import Any, Final

from conch.api import pod
from conch.api.spec import ModelDeploymentSpec

_CLAIM_VOLUME: Final = "source"
_CREDENTIALS_VOLUME: Final = "source-credentials"


def claims(spec: ModelDeploymentSpec) -> dict[str, tuple[str, str]]:
    """Volume and folder of each claim that a source lies on, by its name."""
    found: dict[str, tuple[str, str]] = {}
    first = spec.model.source.claim
    if first is not None:
        found[first] = (_CLAIM_VOLUME, pod.SOURCE_CLAIM_FOLDER)
    for index, source in enumerate(spec.sources.values()):
        if (claim := source.claim) is not None and claim not in found:
            found[claim] = (f"{_CLAIM_VOLUME}-{index}", f"{pod.FURTHER_CLAIMS_FOLDER}/{claim}")
    return found


def claim_mounts(spec: ModelDeploymentSpec) -> list[dict[str, Any]]:
    """The agent verifies a claim's files, and Triton reads them where they are."""
    return [_read_only(volume, folder) for volume, folder in claims(spec).values()]


def claim_volumes(spec: ModelDeploymentSpec) -> list[dict[str, Any]]:
    """Read-only, for all of the pod."""
    return [
        {"name": volume, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for claim, (volume, _) in claims(spec).items()
    ]


def _credentials(spec: ModelDeploymentSpec) -> dict[str, tuple[str, str]]:
    """Volume and folder of each Secret with a source's credentials, by its name."""
    found: dict[str, tuple[str, str]] = {}
    first = spec.model.source.credentials_secret_ref
    if first is not None:
        found[first.name] = (_CREDENTIALS_VOLUME, pod.CREDENTIALS_FOLDER)
    for index, source in enumerate(spec.sources.values()):
        secret = source.credentials_secret_ref
        if secret is not None and secret.name not in found:
            found[secret.name] = (
                f"{_CREDENTIALS_VOLUME}-{index}",
                f"{pod.FURTHER_CREDENTIALS_FOLDER}/{secret.name}",
            )
    return found


def credentials_mounts(spec: ModelDeploymentSpec) -> list[dict[str, Any]]:
    """For the agent alone: nobody else fetches."""
    return [_read_only(volume, folder) for volume, folder in _credentials(spec).values()]


def credentials_volumes(spec: ModelDeploymentSpec) -> list[dict[str, Any]]:
    """Optional: without the Secret the pod would hang unexplained; so its agent says what is missing."""
    return [
        {"name": volume, "secret": {"secretName": secret, "optional": True}}
        for secret, (volume, _) in _credentials(spec).items()
    ]


def _read_only(volume: str, folder: str) -> dict[str, Any]:
    return {"name": volume, "mountPath": folder, "readOnly": True}
