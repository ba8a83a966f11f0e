"""A simulated cluster with an object whose count the autoscaler decides: here the test decides in its place."""

from dataclasses import dataclass
from typing import Any

from conch.api.autoscaling import ScalingReason
from conch.core.autoscaling import scaling_floor
from conch.core.observed import Observed
from conch.core.plan import Plan, plan
from conch.core.scaling.view import ScalingView
from tests.sim.world import World

URI = "https://models/a.onnx"


def spec(version: int = 1, *, minimum: int = 1, maximum: int = 5, **fields: Any) -> dict[str, Any]:
    """What a user asks for."""
    return {
        "model": {"version": version, "source": {"uri": URI}},
        "autoscaling": {"minReplicas": minimum, "maxReplicas": maximum, "objective": {"latencyMs": 200}},
        **fields,
    }


@dataclass
class AutoscaledWorld(World):
    """With the autoscaler's last word; None after a restart of the operator, until it looks."""

    scaling: ScalingView | None = None

    def plan(self) -> Plan:
        observed = Observed(
            children=dict(self.children),
            pods=tuple(self.pods.values()),
            strangers=dict(self.met_strangers),
            refusals=dict(self.refusals),
            secret_known=self.secret_known,
            gateways=tuple(self.gateways.values()),
            port=self.port,
            window=self.window,
            scaling=self.scaling,
        )
        return plan(owner=self.owner, observed=observed, policy=self.policy, now=self.now)

    def decide(self, desired: int, reason: ScalingReason = ScalingReason.LOAD, **figures: Any) -> None:
        """What the autoscaler says from now on."""
        self.scaling = ScalingView(desired=desired, reason=reason, message=f"{desired} it is", **figures)

    def decide_within_floor(self, desired: int) -> None:
        """As the real one does: never less than what the object's state needs."""
        self.decide(max(desired, scaling_floor(self.owner)))

    def restart_operator(self) -> None:
        """All that was in memory is lost."""
        self.scaling = None
        self.secret_known = False

    def live(self, rounds: int = 12) -> None:
        """Seconds in a cluster where everything works."""
        for _ in range(rounds):
            self.serve()
            self.step()

    @property
    def wanted(self) -> int:
        """What the Deployments ask for together."""
        return sum(self.replicas_alive().values())

    def carry(self, requests: int) -> None:
        """So many requests are in flight at each gateway, to whatever has traffic."""
        self.in_flight = {share.workload: requests for share in self.status.traffic}
        self.follow()


def serving(replicas: int = 1, **fields: Any) -> AutoscaledWorld:
    """A world in which version 1 serves with so many servers."""
    world = AutoscaledWorld(spec=spec(**fields))
    world.decide(replicas)
    world.live()
    assert world.status.stable is not None
    assert world.wanted == replicas
    return world
