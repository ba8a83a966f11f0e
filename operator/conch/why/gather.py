"""Reads what `conch why` looks at. Only the object itself has to be readable; whatever else is not, is left out."""

import asyncio
import re
from dataclasses import dataclass
from typing import Final

from conch.api import names
from conch.kube import resources
from conch.kube.client import Json, KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.resources import Resource
from conch.why.refusals import in_plain_words

_OBJECT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMES_SHOWN: Final = 20


class CannotTellError(Exception):
    """The object could not be read; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The object and what is around it, as the API server gave it; None is what could not be read."""

    body: Json
    pods: tuple[Json, ...] | None = None
    deployments: tuple[Json, ...] | None = None
    warnings: tuple[Json, ...] | None = None
    """Every Warning event of the namespace."""
    left_out: tuple[str, ...] = ()


async def gather(client: KubeClient, namespace: str, name: str) -> Seen:
    """Read one object, its pods and Deployments, and the namespace's warnings. Raises CannotTellError."""
    body = await read_object(client, namespace, name)
    mine = f"{names.LABEL_MODEL_DEPLOYMENT}={name}"
    (pods, *no_pods), (deployments, *no_deployments), (warnings, *no_warnings) = await asyncio.gather(
        _list(client, resources.PODS, namespace, label_selector=mine),
        _list(client, resources.DEPLOYMENTS, namespace, label_selector=mine),
        # One list for all: the API server walks through the namespace's Events for each one that is asked for.
        _list(client, resources.CORE_EVENTS, namespace, field_selector="type=Warning"),
    )
    left_out = tuple(filter(None, (*no_pods, *no_deployments, *no_warnings)))
    return Seen(body=body, pods=pods, deployments=deployments, warnings=warnings, left_out=left_out)


async def read_object(client: KubeClient, namespace: str, name: str) -> Json:
    """Read one object alone. Raises CannotTellError."""
    for what, text in (("ModelDeployment", name), ("namespace", namespace)):
        # They become parts of a path.
        if not _OBJECT_NAME.fullmatch(text):
            raise CannotTellError(f"{text!r} is no name of a {what}.")
    try:
        return await client.get(resources.MODEL_DEPLOYMENTS, namespace, name)
    except (ApiError, ApiUnavailableError) as error:
        raise CannotTellError(await _why_not(client, namespace, name, error)) from error


async def _list(
    client: KubeClient, resource: Resource, namespace: str, *, label_selector: str = "", field_selector: str = ""
) -> tuple[tuple[Json, ...] | None, str]:
    """The objects, or why there are none to show."""
    found: list[Json] = []
    try:
        async for page in client.pages(
            resource, namespace=namespace, label_selector=label_selector, field_selector=field_selector
        ):
            found.extend(page["items"])
    except (ApiError, ApiUnavailableError) as error:
        return None, in_plain_words(error, verb="list", resource=resource, namespace=namespace)
    return tuple(found), ""


async def _why_not(client: KubeClient, namespace: str, name: str, error: ApiError | ApiUnavailableError) -> str:
    kind = resources.MODEL_DEPLOYMENTS
    if not isinstance(error, ApiError) or not error.not_found:
        return in_plain_words(error, verb="get", resource=kind, namespace=namespace)
    if error.reason != "NotFound":
        # Of an object the API server says so with a reason; of a path that it does not serve, without.
        return (
            "This cluster does not know ModelDeployments: Conch is not installed in it. Choose another --context, or "
            "install Conch."
        )
    there, _ = await _list(client, kind, namespace)
    if there is None:
        # May only get single objects; then their names are not for this person.
        return f"There is no ModelDeployment {name} in namespace {namespace}."
    known = sorted(each["metadata"]["name"] for each in there)
    shown = ", ".join(known[:_NAMES_SHOWN]) + (", …" if len(known) > _NAMES_SHOWN else "")
    return (
        f"There is no ModelDeployment {name} in namespace {namespace}; "
        f"{f'there are: {shown}' if known else 'there is none at all'}. Another namespace is chosen with -n."
    )
