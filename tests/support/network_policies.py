"""Whom NetworkPolicies let in, decided on rendered objects: the local cluster's network enforces none.

As Kubernetes defines it, for what Conch renders. Whatever else is in a policy is refused, not taken for something.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

Policy = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod as policies see it."""

    namespace: str
    labels: dict[str, str]
    ports: frozenset[int] = frozenset()
    """On which its containers say that they listen."""

    @classmethod
    def of(cls, deployment: Mapping[str, Any]) -> Self:
        """A pod of a rendered Deployment."""
        template = deployment["spec"]["template"]
        containers = (*template["spec"].get("initContainers", ()), *template["spec"]["containers"])
        return cls(
            namespace=deployment["metadata"]["namespace"],
            labels=template["metadata"]["labels"],
            ports=frozenset(port["containerPort"] for each in containers for port in each.get("ports", ())),
        )

    @property
    def namespace_labels(self) -> Mapping[str, str]:
        """What the API server gives to every namespace."""
        return {"kubernetes.io/metadata.name": self.namespace}


@dataclass(frozen=True, kw_only=True)
class Address:
    """Somebody outside of the pods' network."""

    address: str


def lets_in(policies: Iterable[Policy], source: Pod | Address, target: Pod, port: int) -> bool:
    """Whether a connection from `source` to this TCP port of `target` is let in. The kubelet's always is."""
    selecting = [policy for policy in policies if _selects_pod(policy, target)]
    return not selecting or any(
        _has_port(rule, port) and _has_peer(rule, source, policy["metadata"]["namespace"])
        for policy in selecting
        for rule in policy["spec"]["ingress"]
    )


def _selects_pod(policy: Policy, pod: Pod) -> bool:
    spec = policy["spec"]
    _only(spec, "podSelector", "policyTypes", "ingress")
    assert spec["policyTypes"] == ["Ingress"]
    return policy["metadata"]["namespace"] == pod.namespace and _selects(spec["podSelector"], pod.labels)


def _has_port(rule: Mapping[str, Any], port: int) -> bool:
    _only(rule, "from", "ports")
    if not rule:
        return True
    # Left out beside peers, as an empty list, it would mean every port.
    assert rule["ports"]
    for each in rule["ports"]:
        _only(each, "protocol", "port", "endPort")
        assert each["protocol"] == "TCP"
        if each["port"] <= port <= each.get("endPort", each["port"]):
            return True
    return False


def _has_peer(rule: Mapping[str, Any], source: Pod | Address, own_namespace: str) -> bool:
    if "from" not in rule:
        return True
    assert rule["from"], "an empty list means everyone"
    return any(_is_peer(peer, source, own_namespace) for peer in rule["from"])


def _is_peer(peer: Mapping[str, Any], source: Pod | Address, own_namespace: str) -> bool:
    _only(peer, "namespaceSelector", "podSelector", "ipBlock")
    assert peer
    if isinstance(source, Address):
        return "ipBlock" in peer and _is_in(peer["ipBlock"], source.address)
    if "ipBlock" in peer:
        return False
    if "namespaceSelector" not in peer:
        return source.namespace == own_namespace and _selects(peer["podSelector"], source.labels)
    return _selects(peer["namespaceSelector"], source.namespace_labels) and _selects(
        peer.get("podSelector", {}), source.labels
    )


def _is_in(block: Mapping[str, Any], address: str) -> bool:
    _only(block, "cidr", "except")
    inside = [ipaddress.ip_address(address) in ipaddress.ip_network(each) for each in block.get("except", ())]
    return ipaddress.ip_address(address) in ipaddress.ip_network(block["cidr"]) and not any(inside)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    _only(selector, "matchLabels")
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def _only(given: Mapping[str, Any], *known: str) -> None:
    assert given.keys() <= set(known), f"not understood here: {sorted(given.keys() - set(known))}"
