"""A revision: the identity of everything that needs other pods or other weights."""

import hashlib
import json
from typing import Any, Final

from conch.api.canonical import quantity
from conch.api.gpu import COUNT_DEFAULT
from conch.api.spec import ModelDeploymentSpec

_LIVE: Final = {"replicas", "autoscaling", "suspend", "gateway", "rollout"}
"""Fields that change what runs, and need no other pods."""
_LIVE_OF_RUNTIME: Final = "instances"
_LIVE_OF_MODEL: Final = "gpu_memory"

_QUANTITIES = {"cpu", "memory", "sharedMemory", "size"}


def revision_part(spec: ModelDeploymentSpec) -> dict[str, Any]:
    """What of a spec makes its revision, as in YAML without defaults; the rest may change without other pods."""
    exclude: dict[str, Any] = {**dict.fromkeys(_LIVE, True), "runtime": {_LIVE_OF_RUNTIME}, "model": {_LIVE_OF_MODEL}}
    part = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=exclude)
    gpu = part.get("gpu", {})
    if not spec.gpu.claims and gpu.get("count") == COUNT_DEFAULT:
        # Earlier versions of the CRD wrote the default into every object.
        del gpu["count"]
    for field in ("runtime", "gpu"):
        if not part.get(field, True):
            # Nothing else of it was given.
            del part[field]
    return part


def with_revision_part(spec: ModelDeploymentSpec, part: dict[str, Any]) -> ModelDeploymentSpec:
    """Another revision's model and pods, with this spec's replicas, gateway and rollout; raises ValidationError."""
    live = {field: value for field, value in spec.to_wire().items() if field in _LIVE}
    if spec.runtime.instances is not None:
        live["runtime"] = {**part.get("runtime", {}), _LIVE_OF_RUNTIME: spec.runtime.instances}
    return ModelDeploymentSpec.model_validate({**part, **live})


def revision_of(spec: ModelDeploymentSpec) -> str:
    """The revision that this spec asks for.

    Only what differs from the defaults is hashed, so that a newer operator whose API has more fields computes the same
    revision for an old object and restarts nothing.
    """
    declared = revision_part(spec)
    runtime = declared.get("runtime", {})
    storage = declared.get("model", {}).get("storage") or {}
    for holder in (runtime, runtime.get("resources", {}), storage):
        for field in _QUANTITIES & holder.keys():
            # 1000m and 1 need no other pods.
            holder[field] = str(quantity(holder[field]).normalize())
    return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()[:10]
