"""`python -m tests.load --plan plan.json --out result.json`: JSON lines of progress on stdout, one a second.

With --commands it reads JSON lines from stdin: {"mark": PHASE, "at": MONOTONIC_SECONDS} and {"stop": true}; the end of
stdin stops it too. SIGTERM and SIGINT stop it in any case.
"""

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.load.plan import Plan
from tests.load.result import Result
from tests.load.runner import Run

PROGRESS_SECONDS: Final = 1.0
_PRIORITY: Final = -10


async def run(plan: Plan, *, commands: bool) -> Result:
    """Send, and tell of it meanwhile."""
    run = Run(plan)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, run.stopped.set)
    beside = [asyncio.create_task(_tell_progress(run))]
    if commands:
        beside.append(asyncio.create_task(_obey(run)))
    # What is there now lives until the end; a collection need not look at it.
    gc.freeze()
    result = await run.run()
    for task in beside:
        task.cancel()
    await asyncio.wait(beside)
    return result


async def _tell_progress(run: Run) -> None:
    while True:
        account = run.recorder
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "scheduled": account.scheduled,
            "answered": account.answered,
            "failed": account.failed,
            "in_flight": account.in_flight,
            "recent": account.recent().model_dump(),
        }
        print(json.dumps(line), flush=True)
        await asyncio.sleep(PROGRESS_SECONDS)


async def _obey(run: Run) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        command = json.loads(line)
        if "mark" in command:
            run.recorder.mark(command["mark"], command["at"])
        if command.get("stop"):
            break
    run.stopped.set()


def _go_first() -> None:
    """Where that may be had (root): on a busy machine the schedule is kept first.

    With a better niceness alone, one request in a hundred is sent 60 ms late or more where ten processes want two
    processors.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    except PermissionError:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__.splitlines()[0])
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--commands", action="store_true", help="read marks and stop from stdin")
    options = parser.parse_args()
    _go_first()
    plan = Plan.model_validate_json(options.plan.read_text())
    result = asyncio.run(run(plan, commands=options.commands))
    options.out.write_text(result.model_dump_json(indent=2))
    print(result.summary(), file=sys.stderr)


if __name__ == "__main__":
    main()
