"""Which models an installation accepts: from where, and of what kind."""

import ipaddress
from fnmatch import fnmatchcase
from typing import Annotated, Final

from pydantic import Field

from conch.api.source import SCHEMES, ClaimSource, Source, SourceScheme
from conch.api.types import ApiModel

CODE_BACKENDS: Final = frozenset({"python", "pytorch"})
"""Backends whose models are code: a script; or TorchScript, which is a compiled one, whose operators read and write
files, in an archive with pickles."""


_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # a cloud's own services, at an address that looks public
        "fec0::/10",  # site-local, before there were unique local addresses
        "::/96",  # IPv4 inside IPv6, in two forms that nobody should send
        "::ffff:0:0:0/96",
    )
)


BackendName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9_]*$")]
HostPattern = Annotated[str, Field(min_length=1, max_length=253)]


class SourcePolicy(ApiModel):
    """Which models this installation accepts, from where and of what kind; set by the platform team in the chart.

    Host patterns are shell globs on the lower-case host name. A host that resolves to an address that is not public
    (private, loopback, link-local, cloud metadata) is refused unless `private_hosts` names it.
    """

    schemes: Annotated[tuple[SourceScheme, ...], Field(max_length=16)] = SCHEMES
    allowed_hosts: Annotated[tuple[HostPattern, ...], Field(max_length=256)] = ("*",)
    http_hosts: Annotated[tuple[HostPattern, ...], Field(max_length=256)] = ()
    backends: Annotated[tuple[BackendName, ...], Field(max_length=32)] = ("onnxruntime", "tensorrt", "openvino")
    """Triton backends that a model may name. `python` and `pytorch` run code that comes with the model; where one of
    them is named, models may also bring libraries and custom operators, and language models' engines may read and
    download what they name."""
    private_hosts: Annotated[tuple[HostPattern, ...], Field(max_length=256)] = ()
    cloud_metadata: bool = False
    """Whether agents may get credentials from the cloud's metadata address: the pod's identity, or even the node's."""

    def refusal(self, source: Source) -> str | None:
        """Why this source may not be used, or None. Never resolves a name."""
        if source.scheme not in self.schemes:
            return (
                f"{source.scheme}:// is not among this installation's kinds of model sources "
                f"({', '.join(self.schemes)}; chart: policy.sources.schemes)"
            )
        if isinstance(source, ClaimSource):
            return None
        if not self.allows_host(source.host):
            return (
                f"host {source.host} is not in this installation's list of allowed model hosts "
                "(chart: policy.sources.allowedHosts)"
            )
        endpoint = getattr(source, "endpoint", None) or ""
        if (source.scheme == "http" or endpoint.startswith("http:")) and not _matches(source.host, self.http_hosts):
            return (
                f"plain http:// is not allowed for {source.host}; use https:// or ask for the host to be named in "
                "the chart's policy.sources.httpHosts"
            )
        return None

    @property
    def allows_code(self) -> bool:
        """Whether models may be programs."""
        return not CODE_BACKENDS.isdisjoint(self.backends)

    def allows_host(self, host: str) -> bool:
        """Whether models, and the tokens for them, may come from this host."""
        return _matches(host, self.allowed_hosts)

    def allows_address(self, host: str, address: str) -> bool:
        """Whether a connection for `host` may be made to this IP address."""
        return is_public(address) or _matches(host, self.private_hosts)


def is_public(address: str) -> bool:
    """Whether an IP address is globally routable (an IPv4 address inside IPv6 counts as itself)."""
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    meant = mapped or ip
    return meant.is_global and not meant.is_multicast and not any(meant in network for network in _NOT_PUBLIC)


def _matches(host: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(host.lower(), pattern.lower()) for pattern in patterns)
