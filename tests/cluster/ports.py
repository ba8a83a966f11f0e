"""Ports for what tests start: below the range from which the kernel gives ports to connections, so that they stay free.

Each process has a block of them to itself: what tests at the same time never chooses the same port.
"""

import itertools
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Final

_FIRST: Final = 24000
_LAST: Final = 31999
_BLOCK: Final = 400


def free_port(address: str = "127.0.0.1") -> int:
    """A port of `address` that nobody listens on, each time another one until the block has been gone through."""
    candidates = _candidates()
    for port in itertools.islice(candidates, _BLOCK):
        with socket.socket() as probe, suppress(OSError):
            # As servers do: a port whose last connections are only just over is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            return port
    raise RuntimeError(f"All of the {_BLOCK} ports that this process may use are taken; end what listens on them.")


@cache
def _candidates() -> Iterator[int]:
    return itertools.cycle(_claim_block())


_claims: list[socket.socket] = []
"""Open for as long as this process lives."""


def _claim_block() -> range:
    """A block that no other process of this machine has, whichever checkout it runs in."""
    for first in range(_FIRST, _LAST, _BLOCK):
        claim = socket.socket(socket.AF_UNIX)
        try:
            # A name without a file, which the kernel frees when the process ends, however it does.
            claim.bind(f"\0conch-test-ports-{first}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return range(first, first + _BLOCK)
    raise RuntimeError(f"Too many processes on this machine use ports {_FIRST} to {_LAST} for tests; end some.")
