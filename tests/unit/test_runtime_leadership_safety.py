"""Never two leaders, whatever the store, the network and the clocks do; and a leader again when they recover."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.virtual_time import run_virtually, virtual_now
from tests.unit.test_runtime_leadership import Elector, Server

FAULTS = st.lists(
    st.tuples(st.floats(0, 12), st.floats(0, 3), st.sampled_from(["", "", "request", "reply"])), max_size=25
)
STEPS = st.lists(st.tuples(st.floats(0, 30), st.integers(0, 1), st.floats(0, 20)), max_size=5)


@settings(deadline=None, max_examples=150)
@given(st.tuples(FAULTS, FAULTS), STEPS, st.tuples(st.floats(0, 10**6), st.floats(0, 10**6)))
def test_two_electors_never_lead_at_once_and_one_leads_in_the_end(
    faults: tuple[list[tuple[float, float, str]], list[tuple[float, float, str]]],
    steps: list[tuple[float, int, float]],
    clocks: tuple[float, float],
) -> None:
    async def main() -> None:
        server = Server()
        electors = [Elector(server, name, clock_at=at) for name, at in zip("ab", clocks, strict=True)]
        for elector, given_faults in zip(electors, faults, strict=True):
            elector.wire.faults = list(given_faults)
            elector.start()
        pending = sorted(steps)
        for _ in range(1200):
            await asyncio.sleep(0.1)
            while pending and pending[0][0] <= virtual_now():
                _, which, seconds = pending.pop(0)
                if electors[which].leadership.leads():
                    # A leader that stood still wakes up late. (Nobody can be safe from a standby whose clock is fast.)
                    electors[which].offset += seconds
            assert sum(elector.leadership.leads() for elector in electors) <= 1
        if not any(elector.wire.faults for elector in electors):
            assert any(elector.leadership.leads() for elector in electors)
        for elector in electors:
            await elector.stop()

    run_virtually(main)
