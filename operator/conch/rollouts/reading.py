"""Reads the object with its user's rights: once, or again and again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from conch.client.errors import ClientError
from conch.kube import resources
from conch.kube.client import Json, KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.kubeconfig import connect_as_user
from conch.why.gather import CannotTellError, read_object
from conch.why.refusals import in_plain_words

_UNAUTHORIZED: Final = 401


@asynccontextmanager
async def connected(context: str | None, namespace: str | None) -> AsyncIterator[tuple[KubeClient, str]]:
    """A connection while the block runs, and the namespace that is meant. Raises KubeconfigError."""
    client, default_namespace = await connect_as_user(context)
    try:
        yield client, namespace or default_namespace
    finally:
        await client.close()


async def read(client: KubeClient, namespace: str, name: str) -> Json:
    """The object. Raises ClientError, with the names that there are instead."""
    try:
        return await read_object(client, namespace, name)
    except CannotTellError as error:
        raise ClientError(str(error)) from error


async def read_again(client: KubeClient, namespace: str, name: str) -> Json | None:
    """The object that was there a moment ago; None if the API server does not answer now, but may soon.

    Raises ClientError.
    """
    kind = resources.MODEL_DEPLOYMENTS
    try:
        return await client.get(kind, namespace, name)
    except ApiUnavailableError:
        return None
    except ApiError as error:
        if error.not_found:
            raise ClientError(f"ModelDeployment {namespace}/{name} has been deleted meanwhile.") from error
        if error.permanent or error.status == _UNAUTHORIZED:
            raise ClientError(in_plain_words(error, verb="get", resource=kind, namespace=namespace)) from error
        return None
