"""An open-loop load: requests go out at the times of a schedule, whatever the answers do.

A closed loop (N clients that wait for their answers) sends less while a server is slow or away, and so hides just what
these tests look for. `python -m tests.load --plan plan.json --out result.json`, or `Load` in a test.

Nothing is repeated on the client's side. aiohttp sends a POST once. gRPC's retries are switched off
(`grpc.enable_retries=0`), and the transparent ones (a request that a server refused unseen) with them. What gRPC still
does: a call waits while its channel connects, and fails with the attempt; and a call whose connection turns out to be
closed before anything of the call was written takes another one. No server has seen anything of it until then.
"""

from tests.load.plan import Plan, Protocol, Stream, Tensor
from tests.load.process import Load
from tests.load.result import Failure, Result, Span

__all__ = ["Failure", "Load", "Plan", "Protocol", "Result", "Span", "Stream", "Tensor"]
