"""Replays the loaded model's golden set, and remembers what that has shown until something else is loaded.

The set is read from the fetched tree, of which the digest is known: what lies in the repository may be another model
by now, when one was laid out that Triton then refused.
"""

import asyncio
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from conch.agent.fetcher import Fetcher
from conch.agent.reporting import agent_log
from conch.agent.state import Golden
from conch.agent.volume import Volume
from conch.agent.wanted import Wanted
from conch.api.agent_report import GoldenOutcome, GoldenReport
from conch.store import in_thread
from conch.triton.client import TritonClient
from conch.triton.comparison import summary
from conch.triton.errors import InvalidModelError, TritonRefusedError, TritonUnavailableError
from conch.triton.golden_set import FILE_BYTES_MOST, GoldenSetError, read_golden_set
from conch.triton.layout import GOLDEN_SET, find_within, read_tree
from conch.triton.replay import replay

REPLAY_SECONDS: Final = 300.0
"""For the whole set: meanwhile the agent does nothing else with its model."""
ATTEMPTS: Final = 6
"""So often Triton may be too busy before that is reported; it is tried on after that."""
RETRY_FIRST_SECONDS: Final = 1.0
RETRY_MOST_SECONDS: Final = 30.0
_MESSAGE_MOST: Final = 1024


class GoldenCheck:
    """Of one volume and one Triton."""

    def __init__(self, volume: Volume, fetcher: Fetcher, triton: TritonClient, clock: Callable[[], float]) -> None:
        self._volume = volume
        self._fetcher = fetcher
        self._triton = triton
        self._clock = clock
        self._log = agent_log()
        self.known = Golden()

    def forget(self) -> None:
        """A load begins: what was shown is of another model, or of an earlier life of this one."""
        self.known = Golden()

    async def run(self, wanted: Wanted) -> None:
        """Replay the set once; never raises. What comes of it is in `known`."""
        started = self._clock()
        try:
            async with asyncio.timeout(REPLAY_SECONDS):
                report = await self._replay(wanted)
        except TritonUnavailableError as error:
            self._try_again(str(error))
            return
        except TimeoutError:
            report = _error(f"the model did not answer its golden set within {REPLAY_SECONDS:.0f} s; make it smaller")
        except (GoldenSetError, InvalidModelError) as error:
            report = _error(f"{GOLDEN_SET}: {error}")
        except TritonRefusedError as error:
            report = _error(f"Triton does not tell what the model takes: {error}")
        except OSError as error:
            report = _error(f"{GOLDEN_SET} cannot be read: {error.strerror or error}")
        except Exception as error:
            # A step that raises is tried again at once, for ever.
            self._log.exception("golden_set_crashed")
            report = _error(f"the agent failed in an unexpected way: {error!r}")
        self.known = Golden(report=report, due_at=None)
        self._log.info(
            "golden_set",
            outcome=report.outcome.value,
            samples=report.samples,
            mismatches=report.mismatches,
            message=report.message,
            seconds=round(self._clock() - started, 3),
        )

    async def _replay(self, wanted: Wanted) -> GoldenReport:
        content = await in_thread(lambda _checkpoint: self._read(wanted))
        if content is None:
            return GoldenReport(outcome=GoldenOutcome.ABSENT)
        name, version = wanted.name, wanted.assignment.version
        model = await self._triton.signature(name, version)
        samples = await in_thread(lambda _checkpoint: read_golden_set(content, model))
        differences = await replay(self._triton, name, version, model=model, samples=samples)
        mismatches, message = summary(len(samples), differences)
        outcome = GoldenOutcome.FAILED if mismatches else GoldenOutcome.PASSED
        return GoldenReport(outcome=outcome, samples=len(samples), mismatches=mismatches, message=message)

    def _read(self, wanted: Wanted) -> bytes | None:
        """The file's content, one byte more than is allowed at most; None where there is none."""
        record = self._volume.record(wanted.fetch_key)
        if record is None or record.digest != wanted.expected_digest:
            raise GoldenSetError("the files of the model that is loaded are no longer on the volume")
        if not self._fetcher.is_unchanged(wanted, record):
            raise GoldenSetError("the files on the claim were written to since they were verified")
        tree, assignment = self._volume.tree(wanted.fetch_key), wanted.assignment
        found = find_within(read_tree(tree), assignment.folder, name=assignment.name, format=assignment.format)
        file = found.golden_set
        return None if file is None else _content(tree / file)

    def _try_again(self, message: str) -> None:
        """With back-off; after some attempts that is reported, and tried on."""
        attempts = self.known.attempts + 1
        pause = min(RETRY_MOST_SECONDS, RETRY_FIRST_SECONDS * 2 ** min(attempts - 1, 8))
        pause *= random.uniform(0.75, 1.0)  # noqa: S311 - jitter
        report = _error(f"Triton did not answer {attempts} times: {message}") if attempts >= ATTEMPTS else None
        self.known = Golden(report=report, attempts=attempts, due_at=self._clock() + pause)
        self._log.warning("golden_set_unanswered", attempts=attempts, message=message[:_MESSAGE_MOST])


def _content(path: Path) -> bytes:
    # On a claim, the file may have become anything meanwhile: a pipe would never end.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise GoldenSetError("it is no file")
        return stream.read(FILE_BYTES_MOST + 1)


def _error(message: str) -> GoldenReport:
    shown = message if len(message) <= _MESSAGE_MOST else message[: _MESSAGE_MOST - 1] + "…"
    return GoldenReport(outcome=GoldenOutcome.ERROR, message=shown)
