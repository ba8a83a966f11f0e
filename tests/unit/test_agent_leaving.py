"""A pod ends when nobody uses it any more; and when it takes too long, or its server hangs."""

import socket
from collections.abc import Callable
from pathlib import Path

from conch.agent.connections import open_connections
from conch.agent.leaving import Leaving, LeavingTimes
from tests.support.virtual_time import run_virtually, virtual_now

TIMES = LeavingTimes(propagation_seconds=5, drain_seconds=30)

# As a little-endian machine's kernel writes it: a listener, 10.87.1.4 -> 8000, loopback -> 8000, another port, closing.
TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0
   1: 0301570A:1F40 0401570A:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 20 4 30 10 -1
   2: 0100007F:1F40 0100007F:9C41 01 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 20 4 30 10 -1
   3: 0301570A:1F42 0401570A:9C42 01 00000000:00000000 00:00000000 00000000  1000        0 4 1 0 20 4 30 10 -1
   4: 0301570A:1F40 0401570A:9C43 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0
"""
TABLE6 = """  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 0000000000000000FFFF00000301570A:1F41 0000000000000000FFFF00000401570A:9C40 01 00000000:00000000 00:00000000
   1: 0000000000000000FFFF00000100007F:1F41 0000000000000000FFFF00000100007F:9C41 01 00000000:00000000 00:00000000
   2: 00000000000000000000000001000000:1F41 00000000000000000000000001000000:9C41 01 00000000:00000000 00:00000000
"""


def test_only_what_others_have_open_to_the_servers_counts(tmp_path: Path) -> None:
    tables = (tmp_path / "tcp", tmp_path / "tcp6")
    for table, text in zip(tables, (TABLE, TABLE6), strict=True):
        table.write_text(text)
    assert open_connections((8000, 8001), tables) == 2
    assert open_connections((8000,), tables) == 1
    assert open_connections((8002,), tables) == 1
    assert open_connections((9999,), tables) == 0


def test_a_kernel_without_ipv6_has_no_table_for_it(tmp_path: Path) -> None:
    assert open_connections((8000,), (tmp_path / "none",)) == 0


def test_the_kernels_own_table_is_read() -> None:
    """A connection of this machine to itself is its own; that it is seen at all shows by the port of its other end."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        port = server.getsockname()[1]
        assert open_connections((port,)) == 0
        assert f":{port:04X}" in Path("/proc/net/tcp").read_text()


def _leave(connections: Callable[[float], int], *, live: bool = True) -> tuple[str, float]:
    """Why it left and after how many seconds, when so many connections are open at each time."""
    done: list[tuple[str, float]] = []

    async def is_live() -> bool:
        return live

    async def main() -> None:
        started = virtual_now()
        leaving = Leaving(
            connections=lambda: connections(virtual_now() - started), is_live=is_live, times=TIMES, clock=virtual_now
        )
        done.append((await leaving.wait(), virtual_now() - started))

    run_virtually(main)
    return done[0]


def test_proxies_get_their_time_also_where_nothing_is_open() -> None:
    assert _leave(lambda _: 0) == ("nothing is open", 5)


def test_a_stream_that_is_still_used_is_waited_for() -> None:
    why, seconds = _leave(lambda at: 1 if at < 17 else 0)
    assert why == "nothing is open"
    assert 17 <= seconds < 18


def test_what_never_ends_is_not_waited_for_without_end() -> None:
    why, seconds = _leave(lambda _: 3)
    assert why == "3 connections are still open, and the time is over"
    assert 35 <= seconds < 36


def test_a_server_that_hangs_is_not_waited_for() -> None:
    assert _leave(lambda _: 1, live=False) == ("Triton does not answer", 5)
