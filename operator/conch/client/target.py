"""Which pod a connection goes to. Choosing is pure; what there is to choose from is read with its user's rights."""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from conch.api import names
from conch.api.model_deployment import InvalidSpec, ModelDeployment, parse
from conch.api.pod import GRPC_PORT, HTTP_PORT
from conch.api.status import TrafficShare
from conch.app.projections import project_pod
from conch.client.errors import ClientError, NothingReadyError
from conch.core.observed_pod import ObservedPod
from conch.kube import resources
from conch.kube.client import Json, KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.why.gather import CannotTellError, gather
from conch.why.refusals import in_plain_words

GATEWAY_NAMESPACE: Final = "conch-system"
NOBODY: Final[Set[str]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A pod and the ports of it that speak HTTP and gRPC."""

    namespace: str
    pod: str
    uid: str
    http_port: int
    grpc_port: int
    detail: str
    """What answers there, for a person."""
    model: str
    """The model's name in the requests."""
    tls_server_name: str | None = None
    """What its certificate names; None where it speaks without TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a person asked for."""

    namespace: str
    name: str
    via_gateway: bool
    gateway_namespace: str = GATEWAY_NAMESPACE


async def find_target(client: KubeClient, wanted: Wanted, *, avoid: Set[str] = NOBODY) -> Target:
    """A pod that is ready now; those whose uid is in `avoid` only if there is no other. Raises ClientError."""
    try:
        seen = await gather(client, wanted.namespace, wanted.name)
    except CannotTellError as error:
        raise ClientError(str(error)) from error
    owner = parse(seen.body)
    if wanted.via_gateway:
        pods = await _gateway_pods(client, wanted.gateway_namespace)
        return choose_gateway(owner, pods, namespace=wanted.gateway_namespace, avoid=avoid)
    if seen.pods is None:
        raise ClientError(" ".join(seen.left_out))
    return choose_model_pod(owner, seen.pods, avoid=avoid)


async def has_gone(client: KubeClient, target: Target) -> bool:
    """Whether the pod is no more, or about to be. What cannot be read now is taken to be as it was."""
    try:
        pod = project_pod(await client.get(resources.PODS, target.namespace, target.pod))
    except ApiError as error:
        return error.not_found
    except ApiUnavailableError:
        return False
    return pod.deleting or pod.uid != target.uid


def choose_model_pod(owner: ModelDeployment, pods: Iterable[Json], *, avoid: Set[str] = NOBODY) -> Target:
    """A ready pod of the revision that has the traffic, else of the candidate. Raises NothingReadyError."""
    serving = [pod for pod in map(project_pod, pods) if _serves(pod)]
    shares = {share.workload: share for share in owner.status.traffic}
    for served in filter(None, (owner.status.stable, owner.status.candidate)):
        share = shares.get(served.workload)
        if theirs := [pod for pod in serving if pod.workload == served.home and _gets_requests(pod.name, share)]:
            pod = _first(theirs, avoid)
            return Target(
                namespace=owner.namespace,
                pod=pod.name,
                uid=pod.uid,
                http_port=HTTP_PORT,
                grpc_port=GRPC_PORT,
                detail=f"version {served.version}",
                model=model_name(owner),
            )
    held = " With --via-gateway a request waits for a replica." if owner.status.gateway else ""
    raise NothingReadyError(f"No pod of {owner.namespace}/{owner.name} is ready; {_why(owner)} tells why.{held}")


def _gets_requests(name: str, share: TrafficShare | None) -> bool:
    if share is None:
        return True
    return name not in share.draining and (share.pods is None or name in share.pods)


def choose_gateway(owner: ModelDeployment, pods: Iterable[Json], *, namespace: str, avoid: Set[str] = NOBODY) -> Target:
    """A ready gateway, and the object's port on it. Raises ClientError."""
    if owner.status.gateway is None:
        raise ClientError(
            f"{owner.namespace}/{owner.name} has no port on the gateways: its gateway.mode is not Gateway, or the "
            f"operator has not given it one yet ({_why(owner)} tells). Without --via-gateway a pod of it is asked."
        )
    serving = [pod for pod in map(project_pod, pods) if _serves(pod)]
    if not serving:
        raise NothingReadyError(
            f"No gateway is ready in namespace {namespace}. Conch's own namespace is chosen with --gateway-namespace."
        )
    pod, port = _first(serving, avoid), owner.status.gateway.port
    return Target(
        namespace=namespace,
        pod=pod.name,
        uid=pod.uid,
        http_port=port,
        grpc_port=port,
        detail="gateway",
        model=model_name(owner),
        tls_server_name=_tls_server_name(owner),
    )


def model_name(owner: ModelDeployment) -> str:
    """What requests call the model."""
    named = None if isinstance(owner.spec, InvalidSpec) else owner.spec.model.name
    return named or owner.name


def _tls_server_name(owner: ModelDeployment) -> str | None:
    """A gateway has one port per object, and shows a certificate for the object's address."""
    url = urlsplit(owner.status.url)
    return url.hostname if url.scheme == "https" else None


async def _gateway_pods(client: KubeClient, namespace: str) -> list[Json]:
    selector = ",".join(f"{key}={value}" for key, value in names.GATEWAY_LABELS.items())
    try:
        pages = client.pages(resources.PODS, namespace=namespace, label_selector=selector)
        return [pod async for page in pages for pod in page["items"]]
    except (ApiError, ApiUnavailableError) as error:
        raise ClientError(in_plain_words(error, verb="list", resource=resources.PODS, namespace=namespace)) from error


def _serves(pod: ObservedPod) -> bool:
    return pod.ready and not pod.deleting


def _first(pods: Iterable[ObservedPod], avoid: Set[str]) -> ObservedPod:
    return min(pods, key=lambda pod: (pod.uid in avoid, pod.name))


def _why(owner: ModelDeployment) -> str:
    return f"conch why {owner.name} -n {owner.namespace}"
