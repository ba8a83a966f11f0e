"""The verbs that Conch uses, on plain dictionaries.

`kubernetes.aio` gives authentication, TLS and the connection pool. Its typed models are not used: they cost three times
the memory and five to ten times the CPU.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.resources import Resource

Json = dict[str, Any]

_CALL_TIMEOUT_SECONDS = 30.0
_PAGE = 100
_WATCH_SECONDS = 300
_SILENCE_SECONDS = 120.0
"""A watch without even a bookmark for this long is dead: the API server sends one about every minute."""

_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class KubeClient:
    """A connection to one API server. Raises ApiError for a refusal, ApiUnavailableError when there is no answer."""

    def __init__(self, configuration: Any) -> None:
        # aiohttp would otherwise send the cluster's tokens through whatever HTTPS_PROXY names.
        configuration.client_session_kwargs = {"trust_env": False}
        configuration.connection_pool_maxsize = 64
        self._configuration = configuration
        self._client = kubernetes_client.ApiClient(configuration)

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None) -> Self:
        """Connect as the pod's service account, or as `kubeconfig` (default: the environment's KUBECONFIG) says."""
        configuration = kubernetes_client.Configuration()
        path = kubeconfig or (Path(value) if (value := os.environ.get("KUBECONFIG")) else None)
        if path is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            kubernetes_config.load_incluster_config(client_configuration=configuration)
        else:
            await kubernetes_config.load_kube_config(
                config_file=str(path) if path else None, client_configuration=configuration, persist_config=False
            )
        return cls(configuration)

    async def authorization(self) -> str | None:
        """The current value of the Authorization header; tokens of a service account are renewed on the way."""
        settings = await self._configuration.auth_settings()
        token = settings.get("BearerToken")
        return token["value"] if token else None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """Read one object."""
        return await self._json("GET", resource.path(namespace=namespace, name=name))

    async def get_metadata(self, resource: Resource, namespace: str, name: str) -> Json:
        """Read one object's metadata and nothing else."""
        return await self._json("GET", resource.path(namespace=namespace, name=name), accept=_METADATA_ONLY)

    async def pages(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> AsyncIterator[Json]:
        """List a namespace's or the whole cluster's objects, page by page: all of them at once may be a gigabyte.

        All pages show the same resource version. Raises ApiError (410) when the list took so long that the API server
        forgot it.
        """
        query = {"limit": str(_PAGE)}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        accept = _METADATA_ONLY.replace("Metadata;", "MetadataList;") if metadata_only else "application/json"
        while True:
            page = await self._json("GET", resource.path(namespace=namespace), query=query, accept=accept)
            yield page
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            query["continue"] = token

    async def watch(
        self, resource: Resource, *, resource_version: str, label_selector: str = ""
    ) -> AsyncIterator[tuple[str, Json]]:
        """Yield (type, object) from a resource version on, until the server ends the watch.

        Raises ApiError for an ERROR event (410: list again) and ApiUnavailableError when the connection dies, which
        includes a line that is not JSON.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        if label_selector:
            query["labelSelector"] = label_selector
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CALL_TIMEOUT_SECONDS, sock_read=_SILENCE_SECONDS)
        response = await self._send("GET", resource.path(), query=query, limits=limits)
        try:
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _refusal(event["object"].get("code", 500), event["object"], f"watch {resource.plural}")
                yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ApiUnavailableError(f"watch {resource.plural}: {error or type(error).__name__}") from error
        finally:
            response.close()

    async def create(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        *,
        field_manager: str,
        within_seconds: float = _CALL_TIMEOUT_SECONDS,
    ) -> Json:
        """Create an object that must not exist."""
        return await self._json(
            "POST",
            resource.path(namespace=body["metadata"]["namespace"]),
            query={"fieldManager": field_manager},
            body=body,
            within_seconds=within_seconds,
        )

    async def apply(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        *,
        field_manager: str,
        subresource: str | None = None,
        within_seconds: float = _CALL_TIMEOUT_SECONDS,
    ) -> Json:
        """Server-side apply. A uid or resourceVersion in the body's metadata is a precondition (409 when it fails)."""
        metadata = body["metadata"]
        return await self._json(
            "PATCH",
            resource.path(namespace=metadata["namespace"], name=metadata["name"], subresource=subresource),
            query={"fieldManager": field_manager, "force": "true"},
            body=body,
            content_type="application/apply-patch+yaml",
            within_seconds=within_seconds,
        )

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any], *, field_manager: str
    ) -> Json:
        """Change some fields of an object that must exist; a resourceVersion in the body is a precondition (409)."""
        return await self._json(
            "PATCH",
            resource.path(namespace=namespace, name=name),
            query={"fieldManager": field_manager},
            body=body,
            content_type="application/merge-patch+json",
        )

    async def replace(self, resource: Resource, body: Mapping[str, Any]) -> Json:
        """Replace an object; its resourceVersion is the precondition."""
        metadata = body["metadata"]
        return await self._json("PUT", resource.path(namespace=metadata["namespace"], name=metadata["name"]), body=body)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str,
        resource_version: str,
        within_seconds: float = _CALL_TIMEOUT_SECONDS,
    ) -> None:
        """Delete exactly the object that was seen; its own dependants follow in the background."""
        await self._json(
            "DELETE",
            resource.path(namespace=namespace, name=name),
            body={
                "propagationPolicy": "Background",
                "preconditions": {"uid": uid, "resourceVersion": resource_version},
            },
            within_seconds=within_seconds,
        )

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        within_seconds: float = _CALL_TIMEOUT_SECONDS,
    ) -> Json:
        limits = aiohttp.ClientTimeout(total=min(within_seconds, _CALL_TIMEOUT_SECONDS))
        response = await self._send(
            method, path, query=query or {}, body=body, content_type=content_type, accept=accept, limits=limits
        )
        try:
            answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiUnavailableError(f"{method} {path}: {error or type(error).__name__}") from error
        if not isinstance(answer, dict):
            raise ApiUnavailableError(f"{method} {path}: the answer is not an object")
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        limits: aiohttp.ClientTimeout,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": accept, "Content-Type": content_type}
        if authorization := await self.authorization():
            headers["Authorization"] = authorization
        url = f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            answer = await self._client.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=limits
            )
            response: aiohttp.ClientResponse = answer.response
            if response.status < 400:
                return response
            text = await response.text(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            raise ApiUnavailableError(f"{method} {path}: {error or type(error).__name__}") from error
        raise _refusal(response.status, _status_object(text), f"{method} {path}")


def _status_object(text: str) -> Json:
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"message": text[:512]}


def _refusal(status: int, answer: Mapping[str, Any], what: str) -> ApiError:
    return ApiError(status, str(answer.get("reason", "")), str(answer.get("message", "")), what=what)
