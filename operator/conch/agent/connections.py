"""How many connections others have open to this pod's servers, as the kernel counts them.

The agent shares Triton's network namespace, and Triton itself tells no number of open streams or requests.
"""

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from conch.api import pod

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED: Final = "01"


def open_connections(ports: Iterable[int], tables: Iterable[Path] = _TABLES) -> int:
    """Established connections to these local ports from outside of the pod."""
    wanted = frozenset(ports)
    return sum(1 for table in tables for port, peer in _established(table) if port in wanted and not _is_own(peer))


def client_connections() -> int:
    """Those to the ports at which clients ask the model."""
    return open_connections((pod.HTTP_PORT, pod.GRPC_PORT))


def _established(table: Path) -> Iterator[tuple[int, str]]:
    """(local port, peer's address in the kernel's notation) of every established connection."""
    try:
        lines = table.read_text().splitlines()[1:]
    except FileNotFoundError:
        # A kernel without IPv6.
        return
    for line in lines:
        _, local, peer, state = line.split(maxsplit=4)[:4]
        if state == _ESTABLISHED:
            yield int(local.rpartition(":")[2], 16), peer.rpartition(":")[0]


def _is_own(peer: str) -> bool:
    """Whether it is this pod's own loopback; addresses are words of 32 bits in the machine's byte order."""
    words = bytes.fromhex(peer)
    octets = struct.pack(f">{len(words) // 4}I", *struct.unpack(f"={len(words) // 4}I", words))
    address = ipaddress.ip_address(octets)
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
