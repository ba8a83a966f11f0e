"""Where a model comes from (`model.source.uri`), parsed once, and which places the installation allows."""

import ipaddress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field

from conch.api.types import ApiModel

URI_MAX_LENGTH = 2048


CODE_BACKENDS: Final = frozenset({"python", "pytorch"})
"""Backends whose models are code: a script, or a pickle-based archive."""


_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # a cloud's own services, at an address that looks public
        "fec0::/10",  # site-local, before there were unique local addresses
        "::/96",  # IPv4 inside IPv6, in two forms that nobody should send
        "::ffff:0:0:0/96",
    )
)


class SourceUriError(ValueError):
    """A source URI that cannot be used; the message says what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSource:
    """A file or archive behind `https://` (or `http://`)."""

    url: str
    scheme: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSource:
    """A folder or file on a PersistentVolumeClaim of the object's namespace, mounted read-only."""

    claim: str
    path: str


Source = HttpSource | ClaimSource


def parse_source_uri(uri: str) -> Source:
    """Parse `https://…`, `http://…` or `pvc://claim/path`; raises SourceUriError with what to do.

    The error never repeats the URI: it may be signed, and status, Events and logs are read by more people.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise SourceUriError("the source is not a URI; use https://HOST/PATH or pvc://CLAIM/PATH") from error
    match parts.scheme:
        case "https" | "http":
            if not parts.hostname:
                raise SourceUriError(f"the source URI names no host; write {parts.scheme}://HOST/PATH")
            if parts.username or parts.password:
                raise SourceUriError(
                    "a source URI must not carry credentials; everybody who reads the object sees them"
                )
            return HttpSource(url=uri, scheme=parts.scheme, host=parts.hostname)
        case "pvc":
            path = parts.path.strip("/")
            plain = not (parts.query or parts.fragment)
            if not plain or not parts.netloc or not path or any(part in ("", ".", "..") for part in path.split("/")):
                raise SourceUriError("the source URI is not pvc://CLAIM/PATH with a plain path")
            return ClaimSource(claim=parts.netloc, path=path)
        case _:
            raise SourceUriError("the source URI has no supported scheme; use https://HOST/PATH or pvc://CLAIM/PATH")


BackendName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9_]*$")]
HostPattern = Annotated[str, Field(min_length=1, max_length=253)]


class SourcePolicy(ApiModel):
    """Which models this installation accepts, from where and of what kind; set by the platform team in the chart.

    Host patterns are shell globs on the lower-case host name. A host that resolves to an address that is not public
    (private, loopback, link-local, cloud metadata) is refused unless `private_hosts` names it.
    """

    allowed_hosts: Annotated[tuple[HostPattern, ...], Field(max_length=256)] = ("*",)
    http_hosts: Annotated[tuple[HostPattern, ...], Field(max_length=256)] = ()
    backends: Annotated[tuple[BackendName, ...], Field(max_length=32)] = ("onnxruntime", "tensorrt", "openvino")
    """Triton backends that a model may name. `python` and `pytorch` run code that comes with the model; where one of
    them is named, models may also bring libraries and custom operators."""
    private_hosts: Annotated[tuple[HostPattern, ...], Field(max_length=256)] = ()

    def refusal(self, source: Source) -> str | None:
        """Why this source may not be used, or None. Never resolves a name."""
        if isinstance(source, ClaimSource):
            return None
        if not _matches(source.host, self.allowed_hosts):
            return (
                f"host {source.host} is not in this installation's list of allowed model hosts "
                "(chart: policy.sources.allowedHosts)"
            )
        if source.scheme == "http" and not _matches(source.host, self.http_hosts):
            return (
                f"plain http:// is not allowed for {source.host}; use https:// or ask for the host to be named in "
                "the chart's policy.sources.httpHosts"
            )
        return None

    @property
    def allows_code(self) -> bool:
        """Whether models may be programs."""
        return not CODE_BACKENDS.isdisjoint(self.backends)

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
