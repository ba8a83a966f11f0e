"""A simulated cluster for the planner: carries out plans on plain objects as the API server and the kubelets would."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never

from conch.api import names
from conch.api.agent_report import AgentPhase, AgentReport, ChangeReport, GoldenOutcome, GoldenReport
from conch.api.assignment import Pin
from conch.api.command import Command
from conch.api.gateway_report import ObjectTraffic, ShadowTraffic, WorkloadTraffic
from conch.api.model_deployment import ModelDeployment, parse_spec
from conch.api.pod import ASSIGNMENT_FILE
from conch.api.status import ModelDeploymentStatus
from conch.app.copy_book import CopyBook
from conch.app.route_projection import route_weights
from conch.core.actions import (
    Action,
    Apply,
    Delete,
    DeleteEndpoints,
    EnsureAdminKey,
    MarkForRemoval,
    OpenWindow,
    ShowChange,
    TellPin,
    TellTurn,
)
from conch.core.desired.model_cache import cache_claim
from conch.core.desired.object import DesiredObject
from conch.core.desired.workload_record import read_record
from conch.core.observed import Observed, ObservedGateway, ObservedWindow
from conch.core.observed_child import (
    ROUTE_KINDS,
    ChildId,
    ChildKind,
    Controller,
    ObservedAssignment,
    ObservedChild,
    ObservedDeployment,
    ObservedRecord,
    ObservedRoute,
    ObservedService,
    ObservedSlice,
    ParentVerdict,
)
from conch.core.observed_pod import ObservedPod
from conch.core.plan import Plan, plan
from conch.core.policy import InstallationPolicy, NetworkAccess

POLICY = InstallationPolicy(
    triton_image="triton:1", agent_image="conch:1", network_access=NetworkAccess(namespace="conch-system")
)
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
    budgets: dict[ChildId, dict[str, Any]] = field(default_factory=dict)
    """The specs of the PodDisruptionBudgets."""
    policies: dict[ChildId, dict[str, Any]] = field(default_factory=dict)
    """The NetworkPolicies, whole."""
    routes: dict[ChildId, dict[str, Any]] = field(default_factory=dict)
    """The HTTPRoute and the GRPCRoute, whole."""
    golden: GoldenReport = GoldenReport(outcome=GoldenOutcome.ABSENT)  # noqa: RUF009 - immutable
    """What pods say of the golden set once they have loaded the model."""
    golden_of: dict[str, GoldenReport | None] = field(default_factory=dict)
    """What single pods say in the place of that; None while they replay it."""
    golden_of_change: GoldenReport | None = None
    """What pods say of a model that they have loaded beside another one, if not what they say of every model."""
    content: str = DIGEST
    """Digest of what the source holds now."""
    written_strangers: list[ChildId] = field(default_factory=list)
    gateways: dict[str, ObservedGateway] = field(default_factory=lambda: {name: _gateway(name) for name in ("a", "b")})
    in_flight: dict[str, int] = field(default_factory=dict)
    """By workload, what each gateway has sent there that is not answered."""
    port: int | None = 10_000
    deaf: set[str] = field(default_factory=set)
    """Gateways that do not follow the status."""
    absent_kinds: frozenset[ChildKind] | None = frozenset()
    """Kinds of routes that the cluster does not know."""
    route_verdict: Callable[[ParentVerdict], ParentVerdict | None] = lambda verdict: verdict
    """What the platform's Gateways make of a route: from what they say if all is well to what they say."""
    endpoints: set[str] = field(default_factory=set)
    """Services that have an Endpoints object."""
    command: Command | None = None
    on_status: Callable[[ModelDeploymentStatus], None] = lambda _: None
    """Called with every status that is written."""
    window: ObservedWindow | None = None
    """In which a candidate is judged; a test fills in what is to be seen."""
    book: CopyBook = field(default_factory=CopyBook)
    copied: ShadowTraffic = ShadowTraffic()  # noqa: RUF009 - immutable
    """What each gateway has compared once a candidate gets copies; a test fills it in."""
    removed: list[ObservedPod] = field(default_factory=list)
    """Pods that the Deployments' controller removed, as they were then."""
    changes_in_place: bool = False
    """Whether agents can change their pods' model; those of before could not."""
    assignments: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the ConfigMaps say, by workload."""
    turns: dict[str, TellTurn] = field(default_factory=dict)
    """The last order that each pod was given."""
    brings_changes: bool = True
    """Whether kubelets bring the assignment with a change to the agents."""
    refuses_change: str = ""
    """What agents say that cannot change to what they are to prepare."""
    changed_with_traffic: bool = False
    """Whether a pod ever unloaded its model while gateways sent to it, and could have sent elsewhere."""
    _uids: int = 0
    _pods_made: int = 0

    @property
    def owner(self) -> ModelDeployment:
        """The object as the operator reads it."""
        return ModelDeployment(
            namespace="default",
            name=self.name,
            uid=UID,
            generation=self.generation,
            resource_version="1",
            created="2026-01-01T00:00:00Z",
            deleting=False,
            # Nothing is kept warm unless a test says so: settle() does not wait for what only comes with time.
            spec=parse_spec({"rollout": {"keepWarmSeconds": 0}, **self.spec}),
            status=self.status,
            command=self.command,
        )

    def edit(self, **spec: Any) -> None:
        """Change the spec as a user would."""
        self.spec = {**self.spec, **spec}
        self.generation += 1

    @property
    def observed(self) -> Observed:
        """What the operator sees."""
        return Observed(
            children=dict(self.children),
            pods=tuple(self.pods.values()),
            strangers=dict(self.met_strangers),
            refusals=dict(self.refusals),
            secret_known=self.secret_known,
            gateways=tuple(self.gateways.values()),
            port=self.port,
            window=self.window,
            absent_kinds=self.absent_kinds,
            copies=self.book.read(UID, self.status, self.gateways.values()),
        )

    def plan(self) -> Plan:
        """What the operator would do now."""
        return plan(owner=self.owner, observed=self.observed, policy=self.policy, now=self.now)

    def step(self, *, crash_after: int | None = None) -> Plan:
        """Plan once and carry the plan out; with `crash_after`, only its first so many writes (the status is one)."""
        planned = self.plan()
        writes: list[Action | None] = list(planned.actions)
        if planned.status != self.status:
            writes.insert(0 if planned.status_first else len(writes), None)
        for action in writes[:crash_after]:
            if action is None:
                self.status = planned.status
                self.on_status(self.status)
            else:
                self.carry_out(action)
        self.follow()
        if crash_after is None or crash_after >= len(writes):
            self.now += timedelta(seconds=1)
        return planned

    def follow(self) -> None:
        """Let the gateways do what the status says, and Kubernetes list the pods of Services that select some."""
        gateway = self.status.gateway
        for name in self.gateways.keys() - self.deaf:
            workloads = {
                share.workload: WorkloadTraffic(in_flight=self.in_flight.get(share.workload, 0))
                for share in self.status.traffic
            }
            shadows = {
                share.workload: self.copied.model_copy(update={"comparison": share.shadow.comparison})
                for share in self.status.traffic
                if share.shadow
            }
            traffic = (
                ObjectTraffic(generation=gateway.generation, workloads=workloads, shadows=shadows) if gateway else None
            )
            self.gateways[name] = replace(self.gateways[name], traffic=traffic)
        for route in [child for child in self.children.values() if isinstance(child, ObservedRoute)]:
            verdicts = (self.route_verdict(verdict) for verdict in self._all_well(route))
            self.children[route.id] = replace(route, verdicts=tuple(filter(None, verdicts)))
        for service in [child for child in self.children.values() if isinstance(child, ObservedService)]:
            if service.selects:
                self.endpoints.add(service.id.name)
                self._list_pods(service)

    def _all_well(self, route: ObservedRoute) -> list[ParentVerdict]:
        spec = self.routes[route.id]["spec"]
        return [
            ParentVerdict(
                name=parent["name"],
                namespace=parent.get("namespace", "default"),
                section_name=parent.get("sectionName"),
                port=parent.get("port"),
                generation=route.generation,
                accepts=True,
            )
            for parent in spec["parentRefs"]
        ]

    def _list_pods(self, service: ObservedService) -> None:
        """What the EndpointSlice controller would keep; it never takes anything back once the selector is gone."""
        id_ = ChildId(kind=ChildKind.ENDPOINT_SLICE, name=f"{service.id.name}-x7k2p")
        serving = self.status.traffic[0].home if self.status.traffic else ""
        self.children[id_] = ObservedSlice(
            id=id_,
            uid=f"slice-of-{service.id.name}",
            resource_version="1",
            controller=Controller(kind="Service", name=service.id.name, uid=service.uid),
            owned_hash="",
            service=service.id.name,
            managed_by="endpointslice-controller.k8s.io",
            ready=frozenset(pod.ip for pod in self.pods.values() if pod.ready and pod.workload == serving),
        )

    def settle(self, rounds: int = 24) -> None:
        """Step until nothing is left to do; fails when that never comes."""
        self.follow()
        for _ in range(rounds):
            before = self.status
            if not self.step().actions and self.status == before:
                return
        raise AssertionError(f"still acting after {rounds} rounds: {self.plan().actions}")

    def replicas_alive(self) -> dict[str, int]:
        """What the Deployments that are there ask for, by workload."""
        there = (child for child in self.children.values() if isinstance(child, ObservedDeployment))
        return {child.workload: self.replicas[child.workload] for child in there}

    def run_pods(self) -> None:
        """Give every Deployment its pods, not started yet."""
        for child in list(self.children.values()):
            if isinstance(child, ObservedDeployment):
                mine = [pod for pod in self.pods.values() if pod.workload == child.workload]
                replicas = self.replicas[child.workload]
                for number in range(len(mine), replicas):
                    self._pods_made += 1
                    pod_name = f"{child.id.name}-{number}"
                    while pod_name in self.pods:
                        pod_name += "x"
                    self.pods[pod_name] = ObservedPod(
                        name=pod_name,
                        uid=self._uid(),
                        workload=child.workload,
                        ip=f"10.0.{self._pods_made // 256}.{self._pods_made % 256}",
                        created=f"{self.now:%Y-%m-%dT%H:%M:%S}.{self._pods_made:06}Z",
                    )
                for surplus in _removed_first(mine)[: max(0, len(mine) - replicas)]:
                    del self.pods[surplus.name]
                    self.removed.append(surplus)
        workloads = {child.workload for child in self.children.values() if isinstance(child, ObservedDeployment)}
        self.pods = {name: pod for name, pod in self.pods.items() if pod.workload in workloads}

    def evict(self, name: str) -> bool:
        """Ask for a pod's eviction, as a node that is drained does; whether the budgets let it go.

        As the API server counts: the pods that the kubelet calls ready, against what the Deployment asks for.
        """
        pod = self.pods[name]
        for id_, spec in self.budgets.items():
            if not pod.ready or id_ not in self.children:
                continue
            if spec["selector"]["matchLabels"][names.LABEL_WORKLOAD] != pod.workload:
                continue
            expected = self.replicas[pod.workload]
            healthy = sum(other.ready for other in self.pods.values() if other.workload == pod.workload)
            wanted = spec["minAvailable"] if "minAvailable" in spec else expected - spec["maxUnavailable"]
            if healthy <= wanted:
                return False
        del self.pods[name]
        return True

    def fetch(self) -> None:
        """Let every pod fetch what its source holds now; it waits to be told that these are its revision's files."""
        self.run_pods()
        for name, pod in self.pods.items():
            revision = self._revision_for(pod)
            if revision is None:
                # Its record was deleted: whatever it fetches, nobody can tell whose files they are.
                continue
            if pod.report is None or pod.report.digest is None:
                report = AgentReport(
                    phase=AgentPhase.FETCHED,
                    revision=revision,
                    digest=self.content,
                    changes_in_place=self.changes_in_place,
                )
                self.pods[name] = replace(pod, scheduled=True, phase="Running", report=report)
            elif pod.report.revision != revision and self.changes_in_place:
                self.pods[name] = self._changed(pod, revision)
            elif self.changes_in_place:
                self.pods[name] = replace(pod, report=self._preparing(pod.report, pod.workload))

    def _revision_for(self, pod: ObservedPod) -> str | None:
        """What its assignment and the last order, whichever is later, have a pod serve."""
        assigned = self.assignments.get(pod.workload)
        if assigned is None:
            return None
        own: str = assigned["revision"]
        change = assigned.get("change")
        if change is None:
            return own
        told = self.turns.get(pod.name)
        if told and told.change == change["id"] and told.turn > change["turn"]:
            return told.revision
        other: str = change["assignment"]["revision"]
        return other if pod.name in change["pods"] else own

    def _changed(self, pod: ObservedPod, revision: str) -> ObservedPod:
        """A pod that begins to load another revision, from files that it holds."""
        assigned = self.assignments[pod.workload]
        change = assigned.get("change") or {}
        of_change = change.get("assignment", {}).get("revision") == revision
        pin = (change["assignment"] if of_change else assigned).get("pin")
        report = AgentReport(
            phase=AgentPhase.LOADING,
            revision=revision,
            digest=self.content if pin is None else pin["digest"],
            pin=Pin.model_validate(pin) if pin else None,
            changes_in_place=True,
            changed=(pod.report.changed if pod.report else 0) + 1,
        )
        others = (other for other in self.pods.values() if other.name != pod.name and other.ready)
        if pod.ready and not change.get("beside") and any(map(self._gets_requests, others)):
            self.changed_with_traffic |= self._gets_requests(pod)
        return replace(pod, report=report, ready=pod.ready and bool(change.get("beside")))

    def _gets_requests(self, pod: ObservedPod) -> bool:
        """Whether a gateway that follows the status sends anything new to this pod."""
        return any(
            share.weight and pod.name not in share.draining and (share.pods is None or pod.name in share.pods)
            for share in self.status.traffic
            if share.home == pod.workload
        )

    def _preparing(self, report: AgentReport, home: str) -> AgentReport:
        change = self.assignments[home].get("change")
        if change is None or change["assignment"]["revision"] == report.revision or not self.brings_changes:
            return report.model_copy(update={"change": None})
        if report.change and report.change.id == change["id"]:
            return report
        told = ChangeReport(
            id=change["id"],
            revision=change["assignment"]["revision"],
            phase=AgentPhase.FETCHED,
            digest=self.content,
            refused=self.refuses_change,
        )
        return report.model_copy(update={"change": told})

    def load(self) -> None:
        """Let every pod that holds its revision's files load them and become ready."""
        for name, pod in self.pods.items():
            report = pod.report
            change = self.assignments.get(pod.workload, {}).get("change")
            if change and report and report.change and report.change.pin and report.change.phase is AgentPhase.FETCHED:
                prepared = report.change.model_copy(update={"phase": AgentPhase.READY})
                if change["beside"]:
                    prepared = prepared.model_copy(update={"golden": self.golden_of_change or self.golden})
                report = report.model_copy(update={"change": prepared})
            if report and report.pin and report.pin.digest == report.digest:
                golden = self.golden_of.get(name, self.golden)
                ready = report.model_copy(
                    update={"phase": AgentPhase.READY, "golden": golden, "replays_golden_set": True}
                )
                self.pods[name] = replace(pod, ready=True, report=ready)

    def serve(self) -> None:
        """Let every pod fetch and load what its workload is assigned and become ready."""
        self.fetch()
        if any(pod.report and pod.report.pin is None for pod in self.pods.values()):
            self.step()
            self.run_pods()
        self.load()

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
            case MarkForRemoval():
                if action.pod in self.pods:
                    self.pods[action.pod] = replace(self.pods[action.pod], marked_for_removal=True)
            case OpenWindow():
                self.window = ObservedWindow(name=action.name, samples={})
            case DeleteEndpoints():
                self.endpoints.discard(action.service)
            case TellPin():
                told = self.pods[action.pod]
                assert told.report
                if told.report.revision == action.revision:
                    report = told.report.model_copy(update={"pin": action.pin})
                else:
                    assert told.report.change
                    change = told.report.change.model_copy(update={"pin": action.pin})
                    report = told.report.model_copy(update={"change": change})
                self.pods[action.pod] = replace(told, report=report)
            case TellTurn():
                self.turns[action.pod] = action
            case ShowChange():
                self.pods[action.pod] = replace(self.pods[action.pod], shown_change=action.change)
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
        if child.kind is ChildKind.CONFIG_MAP:
            workload = action.desired.body["metadata"]["labels"][names.LABEL_WORKLOAD]
            self.assignments[workload] = json.loads(action.desired.body["data"][ASSIGNMENT_FILE])
        if child.kind is ChildKind.POD_DISRUPTION_BUDGET:
            self.budgets[child] = action.desired.body["spec"]
        if child.kind is ChildKind.NETWORK_POLICY:
            self.policies[child] = dict(action.desired.body)
        if child.kind in ROUTE_KINDS:
            self.routes[child] = dict(action.desired.body)
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
            case ChildKind.CONFIG_MAP:
                assignment = json.loads(desired.body["data"][ASSIGNMENT_FILE])
                return ObservedAssignment(**common, instances=assignment.get("instances"))
            case ChildKind.DEPLOYMENT:
                return ObservedDeployment(
                    **common,
                    workload=desired.body["metadata"]["labels"][names.LABEL_WORKLOAD],
                    replicas=desired.body["spec"]["replicas"],
                    mounts_cache=cache_claim(desired.body["spec"]["template"]) is not None,
                )
            case ChildKind.CONTROLLER_REVISION:
                return ObservedRecord(**common, record=read_record(desired.body["data"]))
            case ChildKind.SERVICE:
                return ObservedService(**common, selects="selector" in desired.body["spec"])
            case ChildKind.HTTP_ROUTE | ChildKind.GRPC_ROUTE:
                before = self.children.get(desired.id)
                return ObservedRoute(
                    **common,
                    generation=before.generation + 1 if isinstance(before, ObservedRoute) else 1,
                    weights=route_weights(desired.body),
                    verdicts=before.verdicts if isinstance(before, ObservedRoute) else (),
                )
            case ChildKind.ENDPOINT_SLICE:
                return ObservedSlice(
                    **common,
                    service=desired.body["metadata"]["labels"][names.LABEL_SERVICE],
                    managed_by=names.SLICE_MANAGED_BY,
                    ready=frozenset(each["addresses"][0] for each in desired.body["endpoints"]),
                )
            case _:
                return ObservedChild(**common)

    def _uid(self) -> str:
        self._uids += 1
        return f"uid-{self._uids}"


def _gateway(name: str) -> ObservedGateway:
    return ObservedGateway(name=name, address=f"10.1.0.{ord(name)}", ready=True, heard=True)


def _removed_first(pods: list[ObservedPod]) -> list[ObservedPod]:
    """The order in which a ReplicaSet removes pods: not ready, then by cost, then the youngest."""
    youngest_first = sorted(pods, key=lambda pod: pod.created, reverse=True)
    return sorted(youngest_first, key=lambda pod: (pod.ready, not pod.marked_for_removal))
