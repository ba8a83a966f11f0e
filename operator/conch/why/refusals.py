"""The API server's refusals in plain words, for a person without rights."""

import re
from typing import Final

from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.resources import Resource

_USER: Final = re.compile(r'User "([^"]*)"')
_ANONYMOUS: Final = "system:anonymous"
_READS: Final = ("get", "list")


def in_plain_words(error: ApiError | ApiUnavailableError, *, verb: str, resource: Resource, namespace: str) -> str:
    """What to tell, and what to do, when a call failed."""
    if isinstance(error, ApiUnavailableError):
        return f"The API server cannot be reached ({error}). Check the kubeconfig's context and the network."
    user = found.group(1) if (found := _USER.search(error.message)) else ""
    if error.status == 401 or user == _ANONYMOUS:
        return "The API server does not know you: log in again, or choose another --context."
    kind = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    if error.status == 403:
        who = f"You ({user})" if user else "You"
        role = "view" if verb in _READS else "edit"
        return (
            f"{who} may not {verb} {kind} in namespace {namespace}. "
            f"Who runs that namespace can let you, with the ClusterRole {role}."
        )
    return f"The API server does not {verb} {kind}: {error.status} {error.message}"
