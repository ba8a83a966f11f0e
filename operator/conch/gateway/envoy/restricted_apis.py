"""Calls of Triton's restricted APIs over gRPC end at the gateway: nobody has a reason to make them through it.

They need the admin key in any case. But Triton refuses them with UNAVAILABLE, as if it could not serve: Envoy would try
each again with other servers, count them as failures of the version that serves, and leave servers out. So whoever
reaches a model's port could make its rollout fail. Over HTTP Triton says 403, which is taken for what it is.
"""

from typing import Any, Final

from conch.gateway.envoy.bootstrap import TYPE_PREFIX
from conch.gateway.envoy.hold_refusals import status_is

_NAME: Final = "restricted_apis"
_SERVICE: Final = "/inference.GRPCInferenceService"
RESTRICTED_METHODS: Final = (
    *("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "ModelConfig", "TraceSetting", "LogSettings"),
    *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
    *("CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
)
"""Of the service: all that conch.api.pod.RESTRICTED_APIS comprise."""
_BEGINNINGS: Final = ".*/(Repository|ModelConfig|Trace|Log|System|Cuda).*"
"""How they begin, and no other method of the service: Envoy takes no expression that names each."""
REFUSAL: Final = "this API of Triton is not served through the gateway"


def restricted_apis_filter() -> dict[str, Any]:
    """An HTTP filter that answers 403, over gRPC PERMISSION_DENIED; before the hold, so that they wake nothing."""
    paths = [f"{_SERVICE}/{method}" for method in RESTRICTED_METHODS]
    return {
        # Another name and other statistics than the filter of clients' namespaces has, which is of the same kind.
        "name": _NAME,
        "typed_config": {
            "@type": TYPE_PREFIX + "envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules_stat_prefix": f"{_NAME}.",
            "rules": {
                "action": "DENY",
                "policies": {
                    "restricted-apis": {
                        "permissions": [{"url_path": {"path": {"exact": path}}} for path in paths],
                        "principals": [{"any": True}],
                    }
                },
            },
        },
    }


def is_restricted() -> dict[str, Any]:
    """A filter of local replies by which this one ended a request."""
    of_its_paths = {"header": {"name": ":path", "string_match": {"safe_regex": {"regex": _BEGINNINGS}}}}
    return {"and_filter": {"filters": [status_is(403), {"header_filter": of_its_paths}]}}
