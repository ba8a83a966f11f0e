"""An open-loop load of many requests through every kind of version change: none may be lost, whatever becomes of it."""

from typing import Annotated, Any, Final

import typer

from tests.cluster.client import Cluster
from tests.e2e.conftest import Namespace
from tests.e2e.versioned_model import NAME, Model
from tests.load import Load, Protocol
from tests.perf import courses
from tests.perf.namespaces import fresh_namespace
from tests.support import versions
from tests.support.gateways import digits_load
from tests.support.installation import install
from tests.support.model_store import ModelStore

NAMESPACE: Final = "perf-versions"
_LONGEST_SECONDS: Final = 1800
_PATIENT_SECONDS: Final = 150
"""Of a client: Recreate is a declared downtime, in which the gateways hold what comes."""
_SPEC: Final[dict[str, Any]] = {
    "runtime": {"resources": {"cpu": "500m", "memory": "768Mi"}, "sharedMemory": "64Mi"},
    # One node alone has no room for two versions.
    "scheduling": {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
    "gateway": {"hold": {"seconds": 300, "maxRequests": 20_000}},
}
_UNTIL_PROMOTED: Final = [{"weight": 50, "pause": "UntilPromoted"}]


class Course:
    """One version after the other: those that take over, and those that do not."""

    def __init__(self, namespace: Namespace, model: Model) -> None:
        self._namespace = namespace
        self._model = model
        self._version = 1

    def run(self, load: Load) -> None:
        """Each kind once, each in a phase of the load."""
        for phase in (self.canary, self.replace, self.recreate, self.aborted, self.superseded, self.slow, self.wrong):
            load.mark(phase.__name__)
            phase()
        load.mark("end")

    def canary(self) -> None:
        """Surge, step by step."""
        steps = [{"weight": 10, "pauseSeconds": 3}, {"weight": 50, "pauseSeconds": 3}]
        self._good(strategy="Surge", steps=steps, analysis=[{"successRate": {"minimumPercent": 99}}])

    def replace(self) -> None:
        """One pod after the other."""
        self._good(strategy="Replace")

    def recreate(self) -> None:
        """The old pods first."""
        self._good(strategy="Recreate")

    def aborted(self) -> None:
        """By a person, at half of the traffic."""
        self._deploy(versions.MODEL, steps=_UNTIL_PROMOTED)
        self._namespace.wait_reason(NAME, "AwaitingPromotion", seconds=120)
        self._model.conch("abort")
        self._model.wait_back("Aborted")

    def superseded(self) -> None:
        """By a third version, at half of the traffic."""
        self._deploy(versions.MODEL, steps=_UNTIL_PROMOTED)
        self._namespace.wait_reason(NAME, "AwaitingPromotion", seconds=120)
        self._good()

    def slow(self) -> None:
        """Withdrawn by its latency."""
        version = self._version + 1
        self._deploy(
            versions.slow(version, delay_seconds=0.05),
            steps=[{"weight": 10, "pauseSeconds": 600}],
            analysis=[{"latency": {"percentile": 95, "maxMilliseconds": 25}}],
        )
        self._model.wait_back("AnalysisFailed")

    def wrong(self) -> None:
        """Withdrawn by its golden set."""
        self._deploy(versions.not_as_recorded(self._version + 1))
        self._model.wait_back("GoldenSetFailed")

    def _good(self, **rollout: Any) -> None:
        self._deploy(versions.MODEL, **rollout)
        self._model.wait_served(self._version)

    def _deploy(self, content: bytes, **rollout: Any) -> None:
        self._version += 1
        self._model.deploy(self._version, content, **rollout)


def main(
    requests: Annotated[int, typer.Option(help="At least so many; the course that has begun is finished.")] = 50_000,
    rate_per_second: Annotated[float, typer.Option(help="Of HTTP and gRPC together.")] = 150,
) -> None:
    """Run the load, course after course, and print what became of it; exits with 1 if a request was lost.

    Example: python -m tests.perf.versions_lose_nothing --requests 50000
    """
    cluster = Cluster.current()
    install(cluster)
    namespace = fresh_namespace(cluster, NAMESPACE)
    store = ModelStore(cluster)
    try:
        model = Model(namespace, store, **_SPEC)
        model.begin()
        course = Course(namespace, model)
        results = courses.play(
            requests,
            lambda folder: digits_load(
                *(namespace.address(NAME), NAME, folder),
                rate_per_second=rate_per_second,
                duration_seconds=_LONGEST_SECONDS,
                timeout_seconds=_PATIENT_SECONDS,
                protocols=(Protocol.HTTP, Protocol.GRPC),
            ),
            course.run,
        )
    finally:
        store.close()
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    courses.judge(results)


if __name__ == "__main__":
    typer.run(main)
