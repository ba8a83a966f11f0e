"""The demo's two rollouts under load, a good version's and a bad one's, and what is left of them: a picture."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from conch.api.rollout import RollbackCause, Strategy
from conch.rollouts.progress import Progress
from conch.rollouts.screen import as_line
from tests.cluster.client import Cluster, existing
from tests.cluster.constants import CHECKOUT_STATE, REPOSITORY
from tests.cluster.errors import ClusterError
from tests.demo import picture
from tests.demo.model import BAD_VERSION, FIRST_VERSION, GOOD_VERSION, IN_PLACE_VERSION, NAME, NAMESPACE, deploy
from tests.demo.recording import Recording
from tests.demo.rollout_view import NotInTimeError, RolloutView
from tests.load import Load, Protocol, Result
from tests.support.gateways import digits_load

PICTURE: Final = CHECKOUT_STATE / "demo-rollout.png"
_RATE_PER_SECOND: Final = 40
_DURATION_SECONDS: Final = 900
"""More than the limits below together; it is stopped before."""
_ROLLOUT_LIMIT_SECONDS: Final = 240
_QUIET_LIMIT_SECONDS: Final = 60
_QUIET_REQUESTS: Final = 120
"""Answered before and after the rollouts, so that the picture shows how it is without any."""


def begin_load(host: str, folder: Path) -> Load:
    """Requests through the Service, over HTTP and gRPC."""
    return digits_load(
        host,
        NAME,
        folder,
        rate_per_second=_RATE_PER_SECOND,
        duration_seconds=_DURATION_SECONDS,
        protocols=(Protocol.HTTP, Protocol.GRPC),
    )


class Rollouts:
    """First `canary`, then `bad_version`, then `in_place`, then `finish`, while the load runs.

    On the local cluster the demo ends with a reason when something goes otherwise than it should; another cluster may
    have no room or other rules, so there it is said and the demo goes on.
    """

    def __init__(self, cluster: Cluster, load: Load, console: Console) -> None:
        self._cluster, self._load, self._console = cluster, load, console
        self._recording = Recording()
        self._view = RolloutView(cluster, NAMESPACE, NAME, load=load, recording=self._recording, console=console)
        self._serving = FIRST_VERSION

    def canary(self) -> None:
        """A version as good as the one before takes over, step by step."""
        self._go_on_for_a_while()
        self._roll(GOOD_VERSION)

    def in_place(self) -> None:
        """A version that the same pods change to, one after the other."""
        pods = self._pods()
        self._roll(IN_PLACE_VERSION)
        if self._pods() != pods:
            self._went_otherwise(f"version {IN_PLACE_VERSION} has other pods: {self._pods()}, before: {pods}")
        self._console.print(f"The same pods as before: {', '.join(pods)}", markup=False, soft_wrap=True)

    def bad_version(self) -> None:
        """A version that fails requests gives the traffic back; then the spec asks for what serves."""
        self._roll(BAD_VERSION)
        self._load.mark("afterwards")
        deploy(self._cluster, self._serving)
        self._go_on_for_a_while()

    def finish(self) -> None:
        """Stop the load, tell how the requests fared, and draw."""
        result = self._load.stop()
        for line in fates(result):
            self._console.print(line, markup=False, soft_wrap=True)
        picture.draw(self._recording, result, PICTURE)
        self._console.print(f"The picture: {PICTURE.relative_to(REPOSITORY)}", markup=False, soft_wrap=True)

    def _roll(self, version: int) -> None:
        phase = f"version {version}"
        self._load.mark(phase)
        self._recording.mark(f"{phase} applied", datetime.now(UTC))
        try:
            deploy(self._cluster, version)
            progress = self._view.watch(
                lambda seen, _: seen.exit_code is not None, limit_seconds=_ROLLOUT_LIMIT_SECONDS
            )
        except (NotInTimeError, ClusterError) as error:
            self._went_otherwise(f"{phase}: {error}")
            return
        if progress.owner.status.stable:
            self._serving = progress.owner.status.stable.version
        if progress.rollout and progress.rollout.strategy is not Strategy.SURGE:
            self._console.print(
                f"{progress.rollout.strategy}: {progress.rollout.strategy_reason}", markup=False, soft_wrap=True
            )
        if words := otherwise(progress, version):
            self._went_otherwise(words)

    def _pods(self) -> list[str]:
        selector = f"conch.dev/model-deployment={NAME}"
        items = self._cluster.get("pods", "-n", NAMESPACE, "-l", selector)["items"]
        return sorted(pod["metadata"]["name"] for pod in items if "deletionTimestamp" not in pod["metadata"])

    def _go_on_for_a_while(self) -> None:
        answered = self._load.progress()["answered"] + _QUIET_REQUESTS
        try:
            self._view.watch(
                lambda seen, account: account.answered >= answered and seen.observed and not seen.trouble,
                limit_seconds=_QUIET_LIMIT_SECONDS,
            )
        except NotInTimeError as error:
            self._went_otherwise(str(error))

    def _went_otherwise(self, words: str) -> None:
        if not existing():
            raise SystemExit(words)
        self._console.print(f"Not as on the local cluster: {words}", style="yellow", markup=False, soft_wrap=True)


def otherwise(progress: Progress, version: int) -> str:
    """What is not as this demo means to show it, of a rollout that is decided; empty if nothing is."""
    back = progress.exit_code != 0
    if version != BAD_VERSION and back:
        return f"version {version} did not take over: {as_line(progress)}"
    if version == IN_PLACE_VERSION:
        changed = progress.rollout is not None and progress.rollout.strategy is Strategy.IN_PLACE
        return "" if changed else f"version {version} did not take over in place: {as_line(progress)}"
    if version != BAD_VERSION:
        return ""
    if not back:
        return f"version {version} was not rolled back: {as_line(progress)}"
    judged = progress.rollout is not None and progress.rollout.cause is RollbackCause.ANALYSIS_FAILED
    return "" if judged else f"version {version} was not rolled back by its analysis: {as_line(progress)}"


def fates(result: Result) -> list[str]:
    """How the requests of each phase fared, a line each."""
    lines = []
    for phase in dict.fromkeys(group.phase for group in result.groups):
        groups = [group for group in result.groups if group.phase == phase]
        answered, sent = sum(group.answered for group in groups), sum(group.sent for group in groups)
        kinds: dict[str, int] = {}
        for group in groups:
            for kind, number in group.failed.items():
                kinds[kind] = kinds.get(kind, 0) + number
        failed = "".join(f"; {number} failed: {kind}" for kind, number in kinds.items())
        lines.append(f"{phase or 'before'}: {answered} of {sent} requests answered{failed}")
    if not result.on_schedule:
        lines.append(f"The machine was too busy to send on time: late by p99 {result.lateness.p99_ms:.0f} ms")
    return lines
