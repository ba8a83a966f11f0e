"""Ports for stores: below the range from which the kernel gives ports to connections, so that they stay free."""

import itertools
import os
import socket
from contextlib import suppress

_candidates = itertools.count(29000 + os.getpid() % 3000)


def free_port(address: str) -> int:
    """A port of `address` that nobody listens on, each time another one."""
    for port in _candidates:
        with socket.socket() as probe, suppress(OSError):
            # As servers do: a port whose last connections are only just over is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            return port
    raise AssertionError("unreachable")
