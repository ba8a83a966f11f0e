"""Who may reach a port, in the words of a NetworkPolicy: the platform team names those that scrape metrics so."""

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from conch.api.types import ApiModel, LabelValue, QualifiedName

CidrText = Annotated[str, Field(min_length=1, max_length=43)]


class LabelExpression(ApiModel):
    """One requirement of a label selector."""

    key: QualifiedName
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[tuple[LabelValue, ...] | None, Field(min_length=1, max_length=32)] = None

    @model_validator(mode="after")
    def _values_where_they_count(self) -> Self:
        if (self.operator in ("In", "NotIn")) is (self.values is None):
            raise ValueError(f"operator {self.operator}: In and NotIn need values, the others have none")
        return self


class LabelSelector(ApiModel):
    """Selects by labels; without any requirement, everything.

    A requirement that is empty is refused: the API server leaves it out, and the policy would look edited for ever.
    """

    match_labels: Annotated[dict[QualifiedName, LabelValue] | None, Field(min_length=1, max_length=32)] = None
    match_expressions: Annotated[tuple[LabelExpression, ...] | None, Field(min_length=1, max_length=32)] = None


class IpBlock(ApiModel):
    """Addresses: of nodes, or from outside of the cluster."""

    cidr: CidrText
    except_: Annotated[tuple[CidrText, ...] | None, Field(alias="except", min_length=1, max_length=32)] = None

    @model_validator(mode="after")
    def _is_a_network_with_holes_in_it(self) -> Self:
        network = ipaddress.ip_network(self.cidr, strict=False)
        for text in self.except_ or ():
            hole = ipaddress.ip_network(text, strict=False)
            if hole.version != network.version or not _is_inside(hole, network):
                raise ValueError(f"except {text} is not within {self.cidr}")
        return self


class NetworkPeer(ApiModel):
    """Pods by their namespace and labels, or addresses."""

    namespace_selector: LabelSelector | None = None
    pod_selector: LabelSelector | None = None
    ip_block: IpBlock | None = None

    @model_validator(mode="after")
    def _means_the_same_in_every_namespace(self) -> Self:
        if self.ip_block is not None:
            if self.namespace_selector is not None or self.pod_selector is not None:
                raise ValueError("a peer is either an ipBlock or selectors")
        elif self.namespace_selector is None:
            # A podSelector alone means the policy's own namespace, of which there are as many as have models.
            raise ValueError("a peer needs a namespaceSelector or an ipBlock; {} selects every namespace")
        return self


def _is_inside(
    hole: ipaddress.IPv4Network | ipaddress.IPv6Network, network: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    return hole != network and hole.network_address in network and hole.broadcast_address in network
