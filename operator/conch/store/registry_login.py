"""How a registry's client proves who it is: by a name and a password, or by a token that it gets for them."""

import base64
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import yarl

from conch.api.reasons import Reason
from conch.api.source import OciSource
from conch.store.errors import StoreError
from conch.store.http_client import basic, username_and_password
from conch.store.remote import Surroundings

DOCKER_CONFIG_ENTRY: Final = ".dockerconfigjson"

_DOCKER_HUB: Final = "registry-1.docker.io"
DOCKER_HUB_NAMES: Final = ("docker.io", "index.docker.io", _DOCKER_HUB)
_SCHEME: Final = re.compile(r"(?:^|,)\s*(bearer|basic)(?:\s+|$)", re.IGNORECASE)
_PARAMETER: Final = re.compile(r'(\w+)\s*=\s*"([^"]*)"')
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")

Ask = Callable[[str, str | None], Awaitable[bytes]]
"""Gets the answer to a GET of a URL with this Authorization; raises when there is none."""


def repository_url(source: OciSource) -> str:
    """Where the registry's API has the repository."""
    registry = _DOCKER_HUB if source.registry in DOCKER_HUB_NAMES else source.registry
    return f"https://{registry}/v2/{source.repository}"


class RegistryLogin:
    """Answers the challenges of one repository's registry with `.dockerconfigjson`, or `username` and `password`.

    `actions` is what a token is to allow, as in `pull,push`; without it, what the registry asks for.
    """

    def __init__(self, source: OciSource, surroundings: Surroundings, ask: Ask, *, actions: str = "") -> None:
        self._source = source
        self._surroundings = surroundings
        self._ask = ask
        self._actions = actions

    async def authorization(self, challenges: Iterable[str]) -> str | None:
        """The Authorization header that answers these WWW-Authenticate headers, or None. Raises StoreError."""
        offered = _offered(challenges)
        login = self.login()
        if "bearer" in offered:
            return f"Bearer {await self._token(offered['bearer'], login)}"
        return basic(*login) if "basic" in offered and login else None

    async def _token(self, parameters: Mapping[str, str], login: tuple[str, str] | None) -> str:
        own = f"repository:{self._source.repository}:{self._actions or 'pull'}"
        query = {"scope": own if self._actions else parameters.get("scope") or own}
        if "service" in parameters:
            query["service"] = parameters["service"]
        try:
            address = yarl.URL(parameters.get("realm", "")).update_query(query)
        except ValueError:
            address = yarl.URL()
        if address.scheme != "https":
            raise self._error(
                Reason.SOURCE_NOT_ALLOWED,
                f"{self._source.registry} wants a token from an address that is not https://; credentials are sent "
                "encrypted only",
            )
        content = await self._ask(str(address), basic(*login) if login else None)
        try:
            answer = json.loads(content)
            token = str(answer.get("token") or answer["access_token"])
        except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
            raise self._no_token() from error
        if not _TOKEN.fullmatch(token):
            raise self._no_token()
        return token

    def _no_token(self) -> StoreError:
        return self._error(
            Reason.SOURCE_UNREACHABLE, f"the token service of {self._source.registry} sent no token; check the registry"
        )

    def login(self) -> tuple[str, str] | None:
        """Name and password for the registry, if there are any."""
        config = self._surroundings.credentials.get(DOCKER_CONFIG_ENTRY)
        if config is not None:
            try:
                entry = docker_entry(self._source, json.loads(config)["auths"])
                if entry is not None:
                    return _username_and_password(entry)
            except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
                # Not chained: such errors quote what they could not read.
                raise self._error(
                    Reason.SOURCE_ACCESS_DENIED,
                    f"{DOCKER_CONFIG_ENTRY} in the Secret of model.source.credentialsSecretRef is not what kubectl "
                    "create secret docker-registry writes; create it anew",
                ) from None
        return username_and_password(self._surroundings)

    def _error(self, reason: Reason, message: str) -> StoreError:
        return StoreError(reason, f"{self._surroundings.shown}: {message}")


def docker_entry(source: OciSource, auths: Mapping[str, Any]) -> Any | None:
    """The entry of docker's `auths` for the registry, or for the longest folder of it that the repository is in."""
    registry, repository = source.registry.lower(), source.repository
    hosts = DOCKER_HUB_NAMES if registry in DOCKER_HUB_NAMES else (registry,)
    found = {}
    for key, entry in auths.items():
        host, _, path = re.sub("^https?://", "", key).partition("/")
        path = path.strip("/")
        path = "" if path in ("v1", "v2") else path
        if host.lower() in hosts and (not path or f"{repository}/".startswith(f"{path}/")):
            found[path] = entry
    return found[max(found, key=len)] if found else None


def _offered(challenges: Iterable[str]) -> dict[str, dict[str, str]]:
    """The parameters of each scheme in WWW-Authenticate headers, which may hold several schemes each."""
    offered: dict[str, dict[str, str]] = {}
    for challenge in challenges:
        _, *pieces = _SCHEME.split(challenge)
        for scheme, parameters in zip(pieces[::2], pieces[1::2], strict=True):
            offered.setdefault(scheme.lower(), dict(_PARAMETER.findall(parameters)))
    return offered


def _username_and_password(entry: Mapping[str, Any]) -> tuple[str, str]:
    if entry.get("auth"):
        username, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        if not colon:
            raise ValueError("no colon")
        return username, password
    return str(entry["username"]), str(entry["password"])
