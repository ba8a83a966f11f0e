"""A revision: the identity of everything that needs other pods or other weights."""

import hashlib
import json

from conch.api.canonical import quantity
from conch.api.spec import ModelDeploymentSpec

_WITHOUT_NEW_PODS = {"replicas", "suspend", "gateway"}
_QUANTITIES = {"cpu", "memory", "sharedMemory", "size"}


def revision_of(spec: ModelDeploymentSpec) -> str:
    """The revision that this spec asks for.

    Only what differs from the defaults is hashed, so that a newer operator whose API has more fields computes the same
    revision for an old object and restarts nothing.
    """
    declared = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=_WITHOUT_NEW_PODS)
    runtime = declared.get("runtime", {})
    storage = declared.get("model", {}).get("storage") or {}
    for holder in (runtime, runtime.get("resources", {}), storage):
        for field in _QUANTITIES & holder.keys():
            # 1000m and 1 need no other pods.
            holder[field] = str(quantity(holder[field]).normalize())
    return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()[:10]
