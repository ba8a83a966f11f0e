"""What things are called in Envoy, and the way back from a statistic's name.

Envoy's statistics join names by dots and turn colons into underscores. Namespaces, names and workloads have neither
dots nor slashes, so a cluster is `<namespace>/<workload>/<protocol>` and a route `<namespace>.<name>`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from conch.gateway.routed import ObjectKey, RoutedObject

ROUTE_CONFIGURATION: Final = "conch"
"""All listeners share this one: a name for each would cost Envoy an inotify instance each."""
ROUTE_HEADER: Final = "x-conch-route"
"""Set by the listener, whatever a client sends: the object that the request is for."""
CLUSTER_HEADER: Final = "x-conch-cluster"
"""In the sidecar's permission to go on: the cluster that has servers now. The route was chosen before the request was
held, and may name one that never gets any."""
CLIENT_HEADER: Final = "x-conch-client"
"""Set by the listener where clients need API keys: the client's name, for model servers and the access log."""
AUTHORIZED_HEADER: Final = "x-conch-authorized"
"""Inside of Envoy: the installation's authorisation service has let the request in."""
CLIENTS: Final = "clients"
"""The part of the routes that says which clients are let in. Virtual hosts have a dot in their names."""
HOLD: Final = "hold"
"""The cluster of the sidecar, and the filter that asks it."""
SHADOW: Final = "shadow"
"""The cluster of the sidecar for copies of requests. Its own, so that these take no room from what is held."""

_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_IS_LABEL: Final = re.compile(_LABEL)
_CLUSTER: Final = re.compile(rf"({_LABEL})/({_LABEL})/(http|grpc)")
_CLUSTER_STAT: Final = re.compile(rf"cluster\.({_CLUSTER.pattern})\.(.+)", re.DOTALL)
_ROUTE_STAT: Final = re.compile(rf"http\.({_LABEL})\.({_LABEL})\.(.+)", re.DOTALL)


class Protocol(StrEnum):
    """What a cluster speaks with its servers."""

    HTTP = "http"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ClusterId:
    """What a cluster stands for."""

    namespace: str
    workload: str
    protocol: Protocol

    def __str__(self) -> str:
        """Its name in Envoy."""
        return f"{self.namespace}/{self.workload}/{self.protocol}"


def is_label(text: str) -> bool:
    """Whether it is a DNS label, and thus cannot be mistaken for anything else inside a name."""
    return _IS_LABEL.fullmatch(text) is not None


def unfit_name(object_: RoutedObject) -> str | None:
    """The first name of the object that is no DNS label; nobody but a stranger who writes its status gives such."""
    workloads = (name for share in object_.shares for name in (share.workload, share.home))
    return next((name for name in (*object_.key, *workloads) if not is_label(name)), None)


def parse_cluster(name: str) -> ClusterId | None:
    """What the cluster stands for; None for those that are not a workload's."""
    if found := _CLUSTER.fullmatch(name):
        return ClusterId(namespace=found[1], workload=found[2], protocol=Protocol(found[3]))
    return None


def parse_cluster_stat(stat: str) -> tuple[ClusterId, str] | None:
    """Cluster and the rest of `cluster.<cluster>.<rest>`; None for what is not a workload's."""
    if found := _CLUSTER_STAT.fullmatch(stat):
        return ClusterId(namespace=found[2], workload=found[3], protocol=Protocol(found[4])), found[5]
    return None


def parse_route_stat(stat: str) -> tuple[ObjectKey, str] | None:
    """Object and the rest of `http.<namespace>.<name>.<rest>`; None for what is not an object's."""
    if found := _ROUTE_STAT.fullmatch(stat):
        return (found[1], found[2]), found[3]
    return None
