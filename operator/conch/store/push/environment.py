"""A store as a person's command line and environment name it, and what gives access, as that store's tools take it."""

import json
import netrc
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from conch.api.model import ModelSource
from conch.api.reasons import Reason
from conch.api.source import (
    BucketSource,
    ClaimSource,
    HttpSource,
    HuggingFaceSource,
    OciSource,
    Source,
    SourceUriError,
    parse_source_uri,
)
from conch.store.credentials import CA_CERTIFICATE, Credentials
from conch.store.errors import StoreError
from conch.store.registry_login import DOCKER_CONFIG_ENTRY, DOCKER_HUB_NAMES, docker_entry

_NETRC: Final = "username and password are taken from ~/.netrc (or the file that NETRC names), a token from CONCH_TOKEN"
ADVICE: Final[Mapping[str, str]] = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN) in the environment; profiles of "
    '~/.aws are not read, but eval "$(aws configure export-credentials --format env)" sets these',
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or GOOGLE_SERVICE_ACCOUNT_KEY to its content (for a push, "
    "gcloud auth application-default login does as well)",
    "az": "set AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and "
    "AZURE_CLIENT_SECRET in the environment",
    "hf": "set HF_TOKEN to a token that may write, or run hf auth login",
    "oci": "run docker login for the registry (its config.json is read, also where DOCKER_CONFIG says)",
    "https": _NETRC,
    "http": _NETRC,
}
"""What to do when a store says no, by scheme."""

_HELPER_SECONDS: Final = 60
_HUB_LOGIN: Final = "https://index.docker.io/v1/"


def from_environment(
    source: Source, *, ca_certificate: Path | None = None, environment: Mapping[str, str] = os.environ
) -> Credentials:
    """Entries as a Secret for this source has them; none where nothing is set. Raises StoreError."""
    match source:
        case BucketSource():
            entries = dict(Credentials.of_environment(environment))
            entries.update(_bucket_entries(source, environment))
        case HuggingFaceSource():
            entries = _hugging_face(environment)
        case OciSource():
            entries = _docker(source, environment)
        case HttpSource():
            entries = _http(source, environment)
        case ClaimSource():
            entries = {}
    if ca_certificate:
        try:
            entries[CA_CERTIFICATE] = ca_certificate.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(
                Reason.INVALID_SPEC, f"{ca_certificate} cannot be read as a certificate in PEM form; check the path"
            ) from error
    return Credentials(entries)


def source_of(
    uri: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    path_style: bool = True,
    environment: Mapping[str, str] = os.environ,
) -> ModelSource:
    """The source that a command line names, with endpoint and region from where the stores' tools take them, too.

    Raises StoreError, which does not repeat the URI: it may be signed.
    """
    scheme = uri.partition("://")[0]
    if scheme == "s3":
        endpoint = endpoint or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or None
        region = region or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or None
    elif scheme == "hf":
        endpoint = endpoint or environment.get("HF_ENDPOINT") or None
    try:
        # First by itself: its errors say what to do.
        parse_source_uri(uri, endpoint=endpoint, region=region, path_style=path_style)
        return ModelSource(uri=uri, endpoint=endpoint, region=region, path_style=path_style)
    except SourceUriError as error:
        raise StoreError(Reason.INVALID_SPEC, str(error)) from None
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False)
        )
        raise StoreError(Reason.INVALID_SPEC, f"this is not a usable source ({wrong}); correct it") from None


def _bucket_entries(source: BucketSource, environment: Mapping[str, str]) -> dict[str, str]:
    if source.scheme == "az" and (key := environment.get("AZURE_STORAGE_KEY")):
        # As Azure's own command line calls it.
        return {"AZURE_STORAGE_ACCOUNT_KEY": key}
    if source.scheme == "gs" and not environment.get("GOOGLE_APPLICATION_CREDENTIALS"):
        login = _home(environment) / ".config" / "gcloud" / "application_default_credentials.json"
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(login)} if login.exists() and not source.endpoint else {}
    return {}


def _hugging_face(environment: Mapping[str, str]) -> dict[str, str]:
    if token := environment.get("HF_TOKEN"):
        return {"HF_TOKEN": token}
    cache = Path(environment.get("XDG_CACHE_HOME") or _home(environment) / ".cache") / "huggingface"
    home = Path(environment.get("HF_HOME") or cache)
    stored = _text(Path(environment.get("HF_TOKEN_PATH") or home / "token"))
    return {"HF_TOKEN": stored.strip()} if stored else {}


def _http(source: HttpSource, environment: Mapping[str, str]) -> dict[str, str]:
    if token := environment.get("CONCH_TOKEN"):
        return {"token": token}
    path = Path(environment.get("NETRC") or _home(environment) / ".netrc")
    if not path.exists():
        return {}
    try:
        found = netrc.netrc(path).authenticators(source.host)
    except (OSError, netrc.NetrcParseError):
        # Not chained: such errors quote what they could not read.
        raise StoreError(
            Reason.SOURCE_ACCESS_DENIED, f"{path} cannot be read; correct it, or name another with NETRC"
        ) from None
    return {"username": found[0], "password": found[2] or ""} if found else {}


def _docker(source: OciSource, environment: Mapping[str, str]) -> dict[str, str]:
    path = Path(environment.get("DOCKER_CONFIG") or _home(environment) / ".docker") / "config.json"
    try:
        config = json.loads(_text(path) or "{}")
        helper = _helper(source, config)
        entry = dict(docker_entry(source, config.get("auths") or {}) or {})
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise StoreError(
            Reason.SOURCE_ACCESS_DENIED, f"{path} is not what docker login writes; run docker login anew"
        ) from None
    if helper and (login := _ask_helper(helper, source)):
        entry = login
    if not entry:
        # An empty entry is docker's note that a helper has the password.
        return {}
    if entry.get("identitytoken") or entry.get("username") == "<token>":
        raise StoreError(
            Reason.SOURCE_ACCESS_DENIED,
            f"docker has an identity token for {source.registry}, which is not supported; run docker login with a "
            "password or an access token",
        )
    return {DOCKER_CONFIG_ENTRY: json.dumps({"auths": {source.registry: entry}})}


def _helper(source: OciSource, config: Mapping[str, Any]) -> str | None:
    own = docker_entry(source, config.get("credHelpers") or {})
    helper = own or config.get("credsStore")
    return str(helper) if helper else None


def _ask_helper(helper: str, source: OciSource) -> dict[str, str] | None:
    """The login that a program of docker's protocol keeps, or None if it has none."""
    server = _HUB_LOGIN if source.registry in DOCKER_HUB_NAMES else source.registry
    program = f"docker-credential-{helper}"
    try:
        ran = subprocess.run(
            [program, "get"], input=server, capture_output=True, text=True, check=False, timeout=_HELPER_SECONDS
        )
        if ran.returncode:
            return None
        answer = json.loads(ran.stdout)
        return {"username": str(answer["Username"]), "password": str(answer["Secret"])}
    except (OSError, subprocess.TimeoutExpired, ValueError, LookupError, TypeError):
        raise StoreError(
            Reason.SOURCE_ACCESS_DENIED,
            f"{program}, which docker's config.json names, gives no login for {source.registry}; run docker login anew",
        ) from None


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _home(environment: Mapping[str, str]) -> Path:
    return Path(environment["HOME"]) if environment.get("HOME") else Path.home()
