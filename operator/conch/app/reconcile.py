"""observe -> plan -> status and actions -> Events: the one way in which anything ever happens to an object."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from time import perf_counter
from typing import Any

import structlog

from conch.api import names
from conch.api.gateway import GatewayMode
from conch.api.model_deployment import ModelDeployment
from conch.api.status import ModelDeploymentStatus
from conch.app import metrics
from conch.app.agent_orders import AgentOrder
from conch.app.agent_reports import AgentReports
from conch.app.applier import Applier
from conch.app.autoscaler import Autoscaler
from conch.app.cluster_view import ClusterView
from conch.app.copy_book import CopyBook
from conch.app.facts import Facts
from conch.app.gateway_reports import GatewayReports
from conch.app.happenings import happenings
from conch.app.rollout_metrics import count_changes
from conch.app.sample_book import SampleBook
from conch.core.actions import Delete
from conch.core.exposure import mode_of
from conch.core.in_place import as_they_serve
from conch.core.observed import Observed
from conch.core.plan import plan
from conch.core.policy import InstallationPolicy
from conch.core.rollout.phases import UNDER_WAY
from conch.kube import resources
from conch.kube.client import KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.events import event
from conch.kube.reflector import ObjectKey
from conch.runtime.leadership import NotLeadingError
from conch.runtime.work_queue import WorkQueue

_EVENT_SECONDS = 2.0
_EVENT_ATTEMPTS = 3

_log = structlog.get_logger(__name__)


class Reconciler:
    """Brings one object after the other to what its spec says."""

    def __init__(
        self,
        *,
        client: KubeClient,
        view: ClusterView,
        reports: AgentReports,
        gateways: GatewayReports,
        autoscaler: Autoscaler,
        samples: SampleBook,
        applier: Applier,
        policy: InstallationPolicy,
        queue: WorkQueue[ObjectKey],
        fence: Callable[[], float],
        now: Callable[[], datetime],
        instance: str,
    ) -> None:
        self._client = client
        self._view = view
        self._reports = reports
        self._gateways = gateways
        self._autoscaler = autoscaler
        self._samples = samples
        self._applier = applier
        self._policy = policy
        self._queue = queue
        self._fence = fence
        self._now = now
        self._instance = instance
        self._copies = CopyBook()
        self._facts: dict[ObjectKey, Facts] = {}

    async def work(self) -> None:
        """Take objects from the queue until cancelled. A fault of one object never reaches another."""
        while True:
            key = await self._queue.take()
            metrics.QUEUE_LENGTH.set(len(self._queue))
            started = perf_counter()
            try:
                await self._reconcile(key)
            except Exception as error:  # logged once, here, and tried again
                seconds = self._queue.add_after_failure(key)
                metrics.RECONCILES.labels("failed").inc()
                expected = isinstance(error, ApiError | ApiUnavailableError)
                _log.warning(
                    "not reconciled",
                    namespace=key[0],
                    name=key[1],
                    error=str(error) or repr(error),
                    retry_seconds=round(seconds, 1),
                    exc_info=not expected,
                )
            else:
                self._queue.forget_failures(key)
                metrics.RECONCILES.labels("done").inc()
            finally:
                self._queue.done(key)
                metrics.RECONCILE_SECONDS.observe(perf_counter() - started)

    async def _reconcile(self, key: ObjectKey) -> None:
        owner = self._view.model_deployment(key)
        if owner is None:
            if (gone := self._facts.pop(key, None)) is not None:
                self._forget(gone.uid)
            return
        facts = self._facts.setdefault(key, Facts(uid=owner.uid))
        if facts.uid != owner.uid:
            self._forget(facts.uid)
            facts = self._facts[key] = Facts(uid=owner.uid)
        decided = plan(owner=owner, observed=self._observe(key, owner, facts), policy=self._policy, now=self._now())
        changed = decided.status != owner.status
        # Before a delete the status is written even if it stays: that proves that no newer object asks for the child.
        deletes = any(isinstance(action, Delete) for action in decided.actions)
        first = decided.status_first and (changed or deletes)
        if first and not await self._write_status(key, owner, decided.status):
            return
        known = facts.obstacles
        failure: Exception | None = None
        try:
            for action in decided.actions:
                if isinstance(action, AgentOrder):
                    continue
                await self._applier.carry_out(action, owner, facts)
                metrics.ACTIONS.labels(type(action).__name__, _child_kind(action)).inc()
            orders = [action for action in decided.actions if isinstance(action, AgentOrder)]
            await self._applier.tell_agents(orders, owner)
        except NotLeadingError:
            raise
        except Exception as error:
            failure = error
        if first or not changed or await self._write_status(key, owner, decided.status):
            # Last, for nobody's model waits for an Event.
            await self._tell(owner, decided.status)
        if decided.status.rollout is None or decided.status.rollout.phase not in UNDER_WAY:
            self._forget(owner.uid)
        if failure is not None:
            raise failure
        # By name: a refusal whose words differ each time (a request's id in them) is no news.
        if known != facts.obstacles:
            self._queue.add(key)
        if decided.requeue_after:
            self._queue.add_after(key, decided.requeue_after.total_seconds())

    def _forget(self, uid: str) -> None:
        self._samples.forget(uid)
        self._copies.forget(uid)

    def _observe(self, key: ObjectKey, owner: ModelDeployment, facts: Facts) -> Observed:
        pods = []
        for pod in self._view.pods(key):
            answer = self._reports.answer(pod.uid)
            pods.append(
                replace(pod, report=answer.report, key_refused=answer.key_refused, agent_unreachable=answer.unreachable)
            )
        gateways, mode = self._gateways.seen(key), mode_of(owner)
        seen = Observed(
            children=self._view.children(key),
            pods=tuple(pods),
            strangers=dict(facts.strangers),
            refusals=dict(facts.refusals),
            secret_known=facts.secret_known,
            gateways=gateways,
            port=self._view.ports.port_of(owner) if mode is GatewayMode.GATEWAY else None,
            copies=self._copies.read(owner.uid, owner.status, gateways),
            scaling=self._autoscaler.scaling(owner),
            absent_kinds=self._view.gateway_api.absent_kinds,
        )
        observed = as_they_serve(seen, owner.status)
        by_pods = mode is GatewayMode.GATEWAY_API
        return replace(observed, window=self._samples.read(owner.uid, gateways, observed.pods, by_pods=by_pods))

    async def _write_status(self, key: ObjectKey, owner: ModelDeployment, status: ModelDeploymentStatus) -> bool:
        """Write the status this plan was made from and for; False when the object has moved on meanwhile."""
        within = self._fence()
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {
                "name": owner.name,
                "namespace": owner.namespace,
                "uid": owner.uid,
                "resourceVersion": owner.resource_version,
            },
            "status": status.to_wire(),
        }
        try:
            live = await self._client.apply(
                resources.MODEL_DEPLOYMENTS,
                body,
                field_manager=names.STATUS_FIELD_MANAGER,
                subresource="status",
                within_seconds=within,
            )
        except ApiError as error:
            if error.not_found:
                self._view.drop_model_deployment(key, owner.uid)
                return False
            if error.conflict:
                await self._read_again(key, owner)
                return False
            raise
        self._view.put_model_deployment(live)
        metrics.STATUS_WRITES.inc()
        count_changes(owner.status, status)
        return True

    async def _read_again(self, key: ObjectKey, owner: ModelDeployment) -> None:
        try:
            self._view.put_model_deployment(await self._client.get(resources.MODEL_DEPLOYMENTS, *key))
        except ApiError as error:
            if not error.not_found:
                raise
            self._view.drop_model_deployment(key, owner.uid)
        # What was read may be an edit, and the watch's word of it is no news any more.
        self._queue.add(key, urgent=True)

    async def _tell(self, owner: ModelDeployment, status: ModelDeploymentStatus) -> None:
        for happening in happenings(owner.status, status):
            _log.info(
                "status",
                namespace=owner.namespace,
                name=owner.name,
                revision=status.candidate.revision if status.candidate else status.stable and status.stable.revision,
                reason=happening.reason,
                message=happening.message,
            )
            body = event(
                namespace=owner.namespace,
                name=owner.name,
                uid=owner.uid,
                reason=happening.reason,
                message=happening.message,
                warning=happening.warning,
                now=self._now(),
                instance=self._instance,
            )
            await self._write_event(body)

    async def _write_event(self, body: dict[str, Any]) -> None:
        """A few times at most: an Event is a courtesy, and the status says the same."""
        for attempt in range(1, _EVENT_ATTEMPTS + 1):
            within = min(self._fence(), _EVENT_SECONDS)
            try:
                await self._client.create(
                    resources.EVENTS, body, field_manager=names.FIELD_MANAGER, within_seconds=within
                )
            except (ApiError, ApiUnavailableError) as error:
                is_refused = isinstance(error, ApiError)
                if is_refused or attempt == _EVENT_ATTEMPTS:
                    # A conflict: an attempt that nobody answered was carried out.
                    _log.info("event not written", name=body["regarding"]["name"], error=str(error))
                    return
            else:
                return


def _child_kind(action: object) -> str:
    desired = getattr(action, "desired", None)
    child = desired.id if desired is not None else getattr(action, "id", None)
    return str(child.kind) if child is not None else ""
