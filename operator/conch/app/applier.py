"""Carries out actions. Decides nothing: what it meets is noted as a fact for the next plan."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, assert_never

from conch.api import names
from conch.api.model_deployment import ModelDeployment
from conch.app.agent_orders import AgentOrder, tell_agents
from conch.app.cluster_view import ClusterView
from conch.app.facts import Facts
from conch.app.projections import CHILD_RESOURCES, controller_of
from conch.app.sample_book import SampleBook
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
from conch.kube import resources
from conch.kube.client import KubeClient
from conch.kube.errors import ApiError

_ORDERS_SECONDS: Final = 2.0


class Applier:
    """Writes children. `fence` is asked before every write: it says within how many seconds, or raises."""

    def __init__(
        self,
        client: KubeClient,
        view: ClusterView,
        samples: SampleBook,
        *,
        installation_key: bytes,
        fence: Callable[[], float],
    ) -> None:
        self._client = client
        self._view = view
        self._samples = samples
        self._installation_key = installation_key
        self._fence = fence

    async def carry_out(self, action: Action, owner: ModelDeployment, facts: Facts) -> None:
        """Carry out one action; raises ApiError for what may pass, notes in `facts` what will not."""
        match action:
            case Apply():
                await self._apply(action, owner, facts)
            case EnsureAdminKey():
                await self._ensure_admin_key(action, owner, facts)
            case Delete():
                await self._delete(action, owner)
            case MarkForRemoval():
                annotations = {names.ANNOTATION_DELETION_COST: names.DELETION_COST_LEAVING}
                await self._annotate(action.pod, action.uid, annotations, owner, field_manager=names.FIELD_MANAGER)
            case ShowChange():
                # Of a manager of its own: an apply takes back what its manager does not name again.
                manager = f"{names.FIELD_MANAGER}-change"
                annotations = {names.ANNOTATION_CHANGE: action.change}
                await self._annotate(action.pod, action.uid, annotations, owner, field_manager=manager)
            case DeleteEndpoints():
                await self._delete_endpoints(action, owner)
            case TellPin() | TellTurn():
                await self.tell_agents([action], owner)
            case OpenWindow():
                self._samples.open(owner.uid, action.name)
            case _:
                assert_never(action)

    async def tell_agents(self, orders: Sequence[AgentOrder], owner: ModelDeployment) -> None:
        """Give the orders all at once, and for two seconds at most: an agent that is silent holds nobody up."""
        if orders:
            within = min(_ORDERS_SECONDS, self._fence())
            await tell_agents(orders, owner, installation_key=self._installation_key, within_seconds=within)

    async def _apply(self, action: Apply, owner: ModelDeployment, facts: Facts) -> None:
        """Write a child if it is absent or controlled by its owner: a forced apply alone takes over a stranger's."""
        child = action.desired.id
        uid = action.uid
        if uid is None:
            try:
                met = (await self._client.get_metadata(CHILD_RESOURCES[child.kind], owner.namespace, child.name))[
                    "metadata"
                ]
            except ApiError as error:
                if not error.not_found:
                    raise
            else:
                controller = controller_of(met)
                if controller is None or controller.uid != owner.uid:
                    facts.strangers[child] = controller
                    return
                uid = met["uid"]
        body: dict[str, Any] = dict(action.desired.body)
        if uid is not None:
            body["metadata"] = {**body["metadata"], "uid": uid}
        within = self._fence()
        try:
            live = await self._client.apply(
                CHILD_RESOURCES[child.kind], body, field_manager=names.FIELD_MANAGER, within_seconds=within
            )
        except ApiError as error:
            if not error.permanent:
                raise
            facts.refusals[child] = error.message
            return
        facts.accepted(child)
        self._view.put_child(child.kind, live)

    async def _ensure_admin_key(self, action: EnsureAdminKey, owner: ModelDeployment, facts: Facts) -> None:
        key = names.admin_key(self._installation_key, owner.uid).encode()
        body = {
            **action.desired.body,
            "data": {names.ADMIN_KEY_SECRET_KEY: base64.b64encode(key).decode()},
        }
        child = action.desired.id
        within = self._fence()
        try:
            await self._client.create(
                CHILD_RESOURCES[child.kind], body, field_manager=names.FIELD_MANAGER, within_seconds=within
            )
        except ApiError as error:
            if error.permanent:
                facts.refusals[child] = error.message
                return
            if not error.conflict:
                raise
        facts.accepted(child)
        facts.secret_known = True

    async def _delete(self, action: Delete, owner: ModelDeployment) -> None:
        within = self._fence()
        try:
            await self._client.delete(
                CHILD_RESOURCES[action.id.kind],
                owner.namespace,
                action.id.name,
                uid=action.uid,
                resource_version=action.resource_version,
                within_seconds=within,
            )
        except ApiError as error:
            # Gone, or changed since: the next plan looks at what is there then.
            if not (error.not_found or error.conflict):
                raise

    async def _annotate(
        self, pod: str, uid: str, annotations: Mapping[str, str], owner: ModelDeployment, *, field_manager: str
    ) -> None:
        metadata = {"name": pod, "namespace": owner.namespace, "uid": uid, "annotations": dict(annotations)}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        within = self._fence()
        try:
            await self._client.apply(resources.PODS, body, field_manager=field_manager, within_seconds=within)
        except ApiError as error:
            # Gone meanwhile: there is no such pod any more, and another of its name is another uid.
            if not (error.not_found or error.conflict):
                raise

    async def _delete_endpoints(self, action: DeleteEndpoints, owner: ModelDeployment) -> None:
        try:
            live = await self._client.get_metadata(resources.ENDPOINTS, owner.namespace, action.service)
            within = self._fence()
            await self._client.delete(
                resources.ENDPOINTS,
                owner.namespace,
                action.service,
                uid=live["metadata"]["uid"],
                resource_version=live["metadata"]["resourceVersion"],
                within_seconds=within,
            )
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
