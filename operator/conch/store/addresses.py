"""Connections only to addresses that the installation's policy allows, whatever a name resolves to.

The resolver's answer is checked and is what aiohttp dials: no second look-up, so a name that changes its answer between
check and connection (rebinding) gains nothing. aiohttp does not ask the resolver for literal addresses, hence
`check_literal` before every hop.
"""

import ipaddress
import socket
from collections.abc import Iterator

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from conch.api.reasons import Reason
from conch.api.source_policy import SourcePolicy
from conch.store.errors import StoreError

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")


class PolicyResolver(AbstractResolver):
    """Resolves names and refuses those with any address that the policy does not allow."""

    def __init__(self, policy: SourcePolicy, upstream: AbstractResolver | None = None) -> None:
        self._policy = policy
        self._upstream = upstream or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of `host`; raises StoreError (SourceNotAllowed) if one of them is not allowed, OSError else."""
        results = await self._upstream.resolve(host, port, family)
        for result in results:
            check_address(self._policy, host, result["host"])
        return results

    async def close(self) -> None:
        await self._upstream.close()


def check_literal(policy: SourcePolicy, host: str) -> None:
    """Raise StoreError if `host` is an IP address that the policy does not allow; names pass (the resolver's task)."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return
    check_address(policy, host, host.strip("[]"))


def check_address(policy: SourcePolicy, host: str, address: str) -> None:
    """Raise StoreError (SourceNotAllowed) if no connection for `host` may be made to `address`."""
    if all(policy.allows_address(host, meant) for meant in _meant_addresses(address)):
        return
    raise StoreError(
        Reason.SOURCE_NOT_ALLOWED,
        f"host {host} has the address {address}, which is not public; use a public host, or have it named in the "
        "chart's policy.sources.privateHosts",
    )


def _meant_addresses(address: str) -> Iterator[str]:
    """The address, and any IPv4 address that a translator on the way would make of it (NAT64, 6to4, Teredo)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    yield str(ip)
    if not isinstance(ip, ipaddress.IPv6Address):
        return
    if ip in _NAT64 or ip in _NAT64_LOCAL:
        yield str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if ip.sixtofour:
        yield str(ip.sixtofour)
    if ip.teredo:
        yield from map(str, ip.teredo)
