"""Everything that comes and goes around a served model, one after the other, while a load runs."""

from typing import Any, Final

from tests.e2e.conftest import Namespace
from tests.load import Load
from tests.support.gateways import DEPLOYMENT, wait_rolled
from tests.support.installation import NAMESPACE as CONCH_NAMESPACE
from tests.support.waiting import until

NAME: Final = "digits"


class Course:
    """The sample model of two replicas in a namespace, without GPUs, and what happens to it."""

    def __init__(self, namespace: Namespace, uri: str, **spec: Any) -> None:
        self._namespace = namespace
        self._uri = uri
        self._spec = {"gpu": {"count": 0}, **spec}
        self._version = 1
        self._rounds = 0

    def begin(self) -> None:
        """Deploy it and wait until it answers."""
        self._deploy()
        self._namespace.wait_ready(NAME, replicas=2)
        self._namespace.wait_answers(NAME)

    def run(self, load: Load) -> None:
        """Let everything happen once, each in a phase of the load."""
        self._rounds += 1
        for phase in (
            self.scale_up,
            self.scale_down,
            self.a_pod_is_deleted,
            self.new_version,
            self.operator_restarted,
            self.gateways_rolled,
            self.direct,
            self.gateway_again,
        ):
            load.mark(f"{phase.__name__} {self._rounds}")
            phase()
        load.mark(f"end {self._rounds}")

    def scale_up(self) -> None:
        """Three replicas."""
        self._deploy(replicas=3)
        self._namespace.wait_ready(NAME, replicas=3)

    def scale_down(self) -> None:
        """Two again."""
        self._deploy()
        self._two_pods()

    def a_pod_is_deleted(self) -> None:
        """By hand, as an eviction would."""
        victim = self._namespace.pods(NAME)[0]["metadata"]["name"]
        self._namespace.cluster.kubectl("delete", "pod", victim, "-n", self._namespace.name)
        self._namespace.wait_ready(NAME, replicas=2)

    def new_version(self) -> None:
        """Brought up beside, takes over, the old one goes."""
        self._version += 1
        self._deploy()
        until(lambda: self._status()["stable"]["version"] == self._version, "the new version", seconds=120)
        self._two_pods()

    def operator_restarted(self) -> None:
        """Both operators are replaced, as by an upgrade."""
        for what in (["restart"], ["status", "--timeout=120s"]):
            command = ["rollout", what[0], "deployment/conch-operator", "-n", CONCH_NAMESPACE, *what[1:]]
            self._namespace.cluster.kubectl(*command)

    def gateways_rolled(self) -> None:
        """Every gateway is replaced, as by an upgrade."""
        self._namespace.cluster.kubectl("rollout", "restart", DEPLOYMENT, "-n", CONCH_NAMESPACE)
        wait_rolled(self._namespace.cluster)

    def direct(self) -> None:
        """The Service sends to the pods by itself."""
        self._change_mode("Direct")

    def gateway_again(self) -> None:
        """And to the gateways again; nothing that Kubernetes listed meanwhile is left."""
        self._change_mode("Gateway")
        until(lambda: len(self._namespace.slices(NAME)) == 1, "nothing stale to be left")
        left = self._namespace.cluster.kubectl("get", "endpoints", "-n", self._namespace.name).stdout.split()
        assert NAME not in left

    def _change_mode(self, mode: str) -> None:
        self._deploy(gateway={"mode": mode})

        def changed() -> bool:
            routed = self._namespace.condition(NAME, "RoutingSynced")
            return routed.get("status") == "True" and ("gateway" in self._status()) == (mode == "Gateway")

        # Into Direct, clients that keep their connections may use the gateways for as long as pods may drain.
        until(changed, f"mode {mode}", seconds=180)
        ours = [each for each in self._namespace.slices(NAME) if each["metadata"]["name"] == f"{NAME}-gateways"]
        assert bool(ours) == (mode == "Gateway")

    def _deploy(self, **spec: Any) -> None:
        wanted = {"replicas": 2, **self._spec, **spec}
        self._namespace.deploy(NAME, self._uri, model={"version": self._version}, **wanted)

    def _two_pods(self) -> None:
        until(lambda: len(self._namespace.pods(NAME)) == 2, "two pods", seconds=120)

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = self._namespace.mdep(NAME)["status"]
        return status
