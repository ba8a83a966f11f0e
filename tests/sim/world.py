"""A simulated cluster for the planner: carries out plans on plain objects as the API server and the kubelets would."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never

from conch.api import names
from conch.api.assignment import AgentPhase, AgentReport
from conch.api.model_deployment import ModelDeployment, parse_spec
from conch.api.status import ModelDeploymentStatus
from conch.core.actions import Action, Apply, Delete, EnsureAdminKey, TellPin
from conch.core.desired.object import DesiredObject
from conch.core.desired.workload_record import read_record
from conch.core.observed import (
    ChildId,
    ChildKind,
    Controller,
    Observed,
    ObservedChild,
    ObservedDeployment,
    ObservedPod,
    ObservedRecord,
)
from conch.core.plan import Plan, plan
from conch.core.policy import InstallationPolicy

POLICY = InstallationPolicy(triton_image="triton:1", agent_image="conch:1")
START = datetime(2026, 1, 1, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"
DIGEST = "sha256:" + "ab" * 32


@dataclass
class World:
    """One ModelDeployment and everything around it. Only what a real cluster could hold is representable."""

    spec: Mapping[str, Any]
    name: str = "sentiment"
    policy: InstallationPolicy = POLICY
    status: ModelDeploymentStatus = field(default_factory=ModelDeploymentStatus)
    generation: int = 1
    children: dict[ChildId, ObservedChild] = field(default_factory=dict)
    pods: dict[str, ObservedPod] = field(default_factory=dict)
    strangers: dict[ChildId, Controller | None] = field(default_factory=dict)
    met_strangers: dict[ChildId, Controller | None] = field(default_factory=dict)
    refusals: dict[ChildId, str] = field(default_factory=dict)
    secret_known: bool = False
    now: datetime = START
    replicas: dict[str, int] = field(default_factory=dict)
    """By workload, what its Deployment asks for."""
    content: str = DIGEST
    """Digest of what the source holds now."""
    written_strangers: list[ChildId] = field(default_factory=list)
    _uids: int = 0

    @property
    def owner(self) -> ModelDeployment:
        """The object as the operator reads it."""
        return ModelDeployment(
            namespace="default",
            name=self.name,
            uid=UID,
            generation=self.generation,
            resource_version="1",
            deleting=False,
            spec=parse_spec(self.spec),
            status=self.status,
        )

    def edit(self, **spec: Any) -> None:
        """Change the spec as a user would."""
        self.spec = {**self.spec, **spec}
        self.generation += 1

    def plan(self) -> Plan:
        """What the operator would do now."""
        observed = Observed(
            children=dict(self.children),
            pods=tuple(self.pods.values()),
            strangers=dict(self.met_strangers),
            refusals=dict(self.refusals),
            secret_known=self.secret_known,
        )
        return plan(owner=self.owner, observed=observed, policy=self.policy, now=self.now)

    def step(self, *, crash_after: int | None = None) -> Plan:
        """Plan once and carry the plan out; with `crash_after`, only its first so many writes (the status is one)."""
        planned = self.plan()
        writes: list[Action | None] = list(planned.actions)
        if planned.status != self.status:
            writes.insert(0 if planned.status_first else len(writes), None)
        for action in writes[:crash_after]:
            if action is None:
                self.status = planned.status
            else:
                self.carry_out(action)
        if crash_after is None or crash_after >= len(writes):
            self.now += timedelta(seconds=1)
        return planned

    def settle(self, rounds: int = 12) -> None:
        """Step until nothing is left to do; fails when that never comes."""
        for _ in range(rounds):
            before = self.status
            if not self.step().actions and self.status == before:
                return
        raise AssertionError(f"still acting after {rounds} rounds: {self.plan().actions}")

    def run_pods(self) -> None:
        """Give every Deployment its pods, not started yet."""
        for child in list(self.children.values()):
            if isinstance(child, ObservedDeployment):
                mine = [pod for pod in self.pods.values() if pod.workload == child.workload]
                replicas = self.replicas[child.workload]
                for number in range(len(mine), replicas):
                    pod_name = f"{child.id.name}-{number}"
                    self.pods[pod_name] = ObservedPod(
                        name=pod_name, uid=self._uid(), workload=child.workload, ip="10.0.0.1"
                    )
                for surplus in mine[replicas:]:
                    del self.pods[surplus.name]
        workloads = {child.workload for child in self.children.values() if isinstance(child, ObservedDeployment)}
        self.pods = {name: pod for name, pod in self.pods.items() if pod.workload in workloads}

    def fetch(self) -> None:
        """Let every pod fetch what its source holds now; it waits to be told that these are its revision's files."""
        self.run_pods()
        for name, pod in self.pods.items():
            if pod.report is None or pod.report.digest is None:
                revision = self._revision_of(pod.workload)
                report = AgentReport(phase=AgentPhase.FETCHED, revision=revision, digest=self.content)
                self.pods[name] = replace(pod, scheduled=True, phase="Running", report=report)

    def load(self) -> None:
        """Let every pod that holds its revision's files load them and become ready."""
        for name, pod in self.pods.items():
            report = pod.report
            if report and report.pin and report.pin.digest == report.digest:
                ready = report.model_copy(update={"phase": AgentPhase.READY})
                self.pods[name] = replace(pod, ready=True, report=ready)

    def serve(self) -> None:
        """Let every pod fetch and load what its workload is assigned and become ready."""
        self.fetch()
        if any(pod.report and pod.report.pin is None for pod in self.pods.values()):
            self.step()
        self.load()

    def _revision_of(self, workload: str) -> str:
        record = self.children[
            ChildId(kind=ChildKind.CONTROLLER_REVISION, name=names.workload_object(self.name, workload))
        ]
        assert isinstance(record, ObservedRecord)
        return record.record.revision

    def carry_out(self, action: Action) -> None:
        """What the operator's applier would make of one action."""
        match action:
            case Apply():
                self._apply(action)
            case EnsureAdminKey():
                self.secret_known = True
            case Delete():
                live = self.children.get(action.id)
                if live is not None and live.uid == action.uid:
                    del self.children[action.id]
            case TellPin():
                told = self.pods[action.pod]
                assert told.report
                self.pods[action.pod] = replace(told, report=told.report.model_copy(update={"pin": action.pin}))
            case _:
                assert_never(action)

    def _apply(self, action: Apply) -> None:
        child = action.desired.id
        if action.uid is None and child in self.strangers:
            self.met_strangers[child] = self.strangers[child]
            return
        self.met_strangers.pop(child, None)
        live = self.children.get(child)
        if live is not None and not live.belongs_to(UID):
            self.written_strangers.append(child)
        if child.kind is ChildKind.DEPLOYMENT:
            body = action.desired.body
            self.replicas[body["metadata"]["labels"][names.LABEL_WORKLOAD]] = body["spec"]["replicas"]
        self.children[child] = self._observed(action.desired, live.uid if live else self._uid())

    def _observed(self, desired: DesiredObject, uid: str) -> ObservedChild:
        common: dict[str, Any] = {
            "id": desired.id,
            "uid": uid,
            "resource_version": str(self._uids),
            "controller": Controller(kind=names.KIND, name=self.name, uid=UID),
            "owned_hash": desired.hash,
        }
        match desired.id.kind:
            case ChildKind.DEPLOYMENT:
                return ObservedDeployment(
                    **common,
                    workload=desired.body["metadata"]["labels"][names.LABEL_WORKLOAD],
                    replicas=desired.body["spec"]["replicas"],
                )
            case ChildKind.CONTROLLER_REVISION:
                return ObservedRecord(**common, record=read_record(desired.body["data"]))
            case _:
                return ObservedChild(**common)

    def _uid(self) -> str:
        self._uids += 1
        return f"uid-{self._uids}"
