"""The model cache in a workload's pod template: how it is mounted, and how a template that has it is made one without.

The claim is the platform team's, one of the same name in each namespace. Where it is missing, or binds pods to a node
that is gone, no pod of the workload could start: so a template can be had without it, as if it had been made so.
"""

from collections.abc import Mapping
from typing import Any, Final

from conch.api import pod
from conch.api.canonical import quantity
from conch.core.policy import InstallationPolicy

CACHE_VOLUME: Final = "model-cache"

Template = Mapping[str, Any]


def cache_volumes(policy: InstallationPolicy) -> list[dict[str, Any]]:
    """The volume, where the installation has a cache."""
    cache = policy.model_cache
    return [{"name": CACHE_VOLUME, "persistentVolumeClaim": {"claimName": cache.claim}}] if cache else []


def cache_mounts(policy: InstallationPolicy, *, read_only: bool) -> list[dict[str, Any]]:
    """Its mount: the agent fills it, Triton only reads it."""
    mount = {"name": CACHE_VOLUME, "mountPath": pod.CACHE_FOLDER, **({"readOnly": True} if read_only else {})}
    return [mount] if policy.model_cache else []


def cache_env(policy: InstallationPolicy) -> list[dict[str, Any]]:
    """What tells the agent that there is one."""
    cache = policy.model_cache
    return [{"name": pod.CACHE_BYTES_ENV, "value": str(int(quantity(cache.limit)))}] if cache else []


def cache_group(policy: InstallationPolicy) -> dict[str, Any]:
    """Group of the volume's files. Changed where it is another one, and not file by file at the start of every pod."""
    return {"fsGroup": pod.USER_ID, "fsGroupChangePolicy": "OnRootMismatch"} if policy.model_cache else {}


def cache_claim(template: Template) -> str | None:
    """The cache's claim in a pod template; None where that has no cache."""
    volumes = template.get("spec", {}).get("volumes", ())
    found = (volume.get("persistentVolumeClaim", {}) for volume in volumes if volume.get("name") == CACHE_VOLUME)
    return next((claim.get("claimName") for claim in found), None)


def has_other_volumes(template: Template, claim: str) -> bool:
    """Whether its pods wait for volumes besides the cache, too."""
    return any(
        "ephemeral" in volume or volume.get("persistentVolumeClaim", {}).get("claimName", claim) != claim
        for volume in template["spec"]["volumes"]
    )


def without_cache(template: Template) -> dict[str, Any]:
    """The template as it would be in an installation without a cache, but for the group of the volumes' files."""
    spec = template["spec"]
    return {
        **template,
        "spec": {
            **spec,
            **{kind: [_without(container) for container in spec[kind]] for kind in ("initContainers", "containers")},
            "volumes": [volume for volume in spec["volumes"] if volume["name"] != CACHE_VOLUME],
        },
    }


def _without(container: Template) -> dict[str, Any]:
    kept = {"env": [each for each in container["env"] if each["name"] != pod.CACHE_BYTES_ENV]}
    mounts = [each for each in container["volumeMounts"] if each["name"] != CACHE_VOLUME]
    return {**container, **kept, "volumeMounts": mounts}
