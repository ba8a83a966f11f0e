"""The NetworkPolicy of an object: who may connect to its pods, and to which port."""

from typing import Any

from conch.api import names, pod
from conch.api.model_deployment import ModelDeployment
from conch.api.network_peer import NetworkPeer
from conch.core.desired.object import DesiredObject, child
from conch.core.observed_child import ChildKind
from conch.core.policy import NetworkAccess


def network_policy(
    owner: ModelDeployment, access: NetworkAccess, *, to_all_clients: bool, clients: tuple[NetworkPeer, ...] = ()
) -> DesiredObject:
    """Of all pods of the object.

    Triton is for the gateways and the `clients` besides, or `to_all_clients`; the agent is for the operator. The
    kubelet is not named: what comes from a pod's own node is always let in. Nothing is said of what pods may connect
    to.
    """
    gateways = [_pods_of_conch(access, names.GATEWAY_LABELS), *(peer.to_wire() for peer in clients)]
    rules = [
        _rule(pod.HTTP_PORT, pod.GRPC_PORT, peers=[] if to_all_clients else gateways),
        _rule(pod.AGENT_PORT, peers=[_pods_of_conch(access, names.OPERATOR_LABELS)]),
    ]
    if access.metrics_from:
        rules.append(_rule(pod.METRICS_PORT, peers=[peer.to_wire() for peer in access.metrics_from]))
    return child(
        owner,
        ChildKind.NETWORK_POLICY,
        names.network_policy(owner.name),
        labels=names.object_labels(owner.name),
        fields={
            "spec": {
                "podSelector": {"matchLabels": names.pods_selector(owner.name)},
                "policyTypes": ["Ingress"],
                "ingress": rules,
            }
        },
    )


def _rule(*ports: int, peers: list[dict[str, Any]]) -> dict[str, Any]:
    """Without a peer, the ports are open to everyone."""
    return {**({"from": peers} if peers else {}), "ports": [{"protocol": "TCP", "port": port} for port in ports]}


def _pods_of_conch(access: NetworkAccess, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "namespaceSelector": {"matchLabels": {names.LABEL_NAMESPACE: access.namespace}},
        "podSelector": {"matchLabels": dict(labels)},
    }
