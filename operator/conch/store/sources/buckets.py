"""Objects in Amazon S3 (and stores like it), Google Cloud Storage and Azure Blob Storage, by obstore."""

import asyncio
import hashlib
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from conch.api.reasons import Reason
from conch.api.source import BucketSource
from conch.api.source_policy import SourcePolicy
from conch.store.credentials import CA_CERTIFICATE, Credentials
from conch.store.errors import StoreError
from conch.store.listing_checks import FILES_MOST
from conch.store.remote import (
    RESOLVED_MOST,
    ChangedError,
    Chunk,
    Listing,
    RemoteFile,
    Surroundings,
    TransientError,
)

CHUNK_BYTES: Final = 1 << 18
LISTING_SECONDS: Final = 60.0
METADATA_HOSTS: Final = ",".join(
    (
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23", "fd00:ec2::254"),
        "metadata.google.internal",
    )
)
"""Where clouds give credentials to whoever asks from the right node."""
IDENTITY_FILES: Final = frozenset(
    {"AWS_WEB_IDENTITY_TOKEN_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_FEDERATED_TOKEN_FILE"}
)
"""Only a cloud's webhook may name files."""
_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_WORDS: Final = re.compile(r"<Message>([^<]{1,300})")
_DENIED_CODES: Final = frozenset(
    {
        *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
        *("AuthenticationFailed", "AuthorizationFailure", "NoAuthenticationInformation", "XAdminUserNotFound"),
        *("AuthorizationPermissionMismatch", "PublicAccessNotPermitted", "AllAccessDisabled", "TokenRefreshRequired"),
    }
)
_NO_BUCKET_CODES: Final = frozenset({"NoSuchBucket", "ContainerNotFound", "InvalidBucketName"})
_CERTIFICATE: Final = re.compile(r"[Cc]ertificate\(?:?\s*([A-Za-z ]+)")

AnyStore = S3Store | GCSStore | AzureStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedies:
    """What can be done about an error, which is not the same in a pod and at a terminal."""

    credentials: str
    """If they cannot be used."""
    denied: str
    """If they do not give access."""
    certificate: str
    """If the store's certificate is not trusted."""


IN_A_POD: Final = Remedies(
    credentials="check the entries of the Secret that model.source.credentialsSecretRef names against docs/sources.md",
    denied="check the Secret that model.source.credentialsSecretRef names, and what its owner may read",
    certificate="to trust a private authority put its certificate as ca.crt into the Secret that "
    "model.source.credentialsSecretRef names",
)
_UPLOAD_RETRIES: Final[Mapping[str, Any]] = {"max_retries": 6, "retry_timeout": timedelta(minutes=3)}


class BucketRemote:
    """An object, or all objects below a prefix."""

    def __init__(self, source: BucketSource, surroundings: Surroundings) -> None:
        self._source = source
        self._shown = surroundings.shown
        self._store = open_store(
            source, surroundings.credentials, proxy_url=surroundings.proxy_url, policy=surroundings.policy
        )

    async def list(self) -> Listing:
        """The object of exactly this key, or else everything below it."""
        path = self._source.path
        try:
            alone = await self._head(path)
            # Of no bytes are also some stores' folders.
            if alone is not None and alone["size"]:
                return self._alone(alone)
            found: list[Mapping[str, Any]] = []
            # A store may give pages without an object for ever, thousands a second.
            async with asyncio.timeout(LISTING_SECONDS):
                async for page in obstore.list(self._store, prefix=path, chunk_size=1000):
                    found += page
                    if len(found) > 2 * FILES_MOST:
                        break
        except TimeoutError as error:
            raise TransientError(f"{self._source.host} does not come to an end with its listing") from error
        except (BaseError, ValueError) as error:
            raise self._explained(error) from error
        if not found:
            if alone is not None:
                return self._alone(alone)
            raise StoreError(
                Reason.SOURCE_NOT_FOUND,
                f"{self._shown}: there is no object of this name in the bucket {self._source.bucket}, and none below "
                "it; check the URI",
            )
        paths = sorted(each["path"] for each in found)
        files = tuple(
            _file(each, each["path"].removeprefix(f"{path}/")) for each in found if not _is_folder(each, path, paths)
        )
        every = "".join(f"{file.path}\0{file.size}\0{file.version}\n" for file in sorted(files, key=lambda f: f.path))
        listed = hashlib.sha256(every.encode(errors="surrogateescape")).hexdigest()
        return Listing(files=files, resolved=f"listing sha256:{listed}", folder=True)

    async def _head(self, path: str) -> Mapping[str, Any] | None:
        """What is known of one object; None where there is none, or only a listing can tell why not."""
        try:
            return await obstore.head_async(self._store, path)
        except (BaseError, FileNotFoundError) as error:
            if _STATUS.search(str(error)):
                return None
            raise

    def _alone(self, meta: Mapping[str, Any]) -> Listing:
        file = _file(meta, self._source.path.rpartition("/")[2])
        return Listing(files=(file,), resolved=_resolved(file), folder=False)

    def read(self, file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        """Bytes of one object, as long as it is the one that was listed."""
        if file.size == 0:
            return
        options: dict[str, Any] = {"range": (start, end) if end is not None else {"offset": start}}
        if file.version:
            options["if_match"] = file.version
        try:
            result = obstore.get(self._store, file.key, options=options)  # type: ignore[arg-type]  # obstore's stubs name no plain dict
            for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                yield memoryview(chunk)
        except (PreconditionError, NotFoundError, FileNotFoundError) as error:
            raise ChangedError(f"{file.key} was changed or removed") from error
        except BaseError as error:
            raise self._explained(error) from error

    async def close(self) -> None:
        """Connections end with the store object."""

    def _explained(self, error: Exception) -> StoreError | TransientError:
        return explained(error, self._shown, self._source)


def open_store(
    source: BucketSource,
    credentials: Credentials,
    *,
    policy: SourcePolicy,
    proxy_url: str | None = None,
    upload: bool = False,
    remedies: Remedies = IN_A_POD,
) -> AnyStore:
    """The client of one bucket. Without any credentials it asks anonymously. Raises StoreError.

    One for an `upload` is a person's, so that the environment is theirs, too. It tries again by itself, and waits for
    the answer while a slow network takes a whole part.
    """
    plain = (source.endpoint or "").startswith("http:")
    client: dict[str, Any] = {
        "allow_http": plain,
        "connect_timeout": "4s",
        "read_timeout": "10min" if upload else "4s",
        "timeout": "1day",
        "user_agent": "conch",
    }
    if certificate := credentials.get(CA_CERTIFICATE):
        client["root_certificate"] = certificate
    if proxy_url:
        client["proxy_url"] = proxy_url
        if policy.cloud_metadata and not source.endpoint:
            # Only the clients of credentials may go to plain http then, so no redirect of the store leads there.
            client["proxy_excludes"] = METADATA_HOSTS
    # Every attempt to read is counted by the transfer, which also says when it gives up.
    reading = {"max_retries": 0, "retry_timeout": timedelta(seconds=4)}
    common: dict[str, Any] = {"client_options": client, "retry_config": _UPLOAD_RETRIES if upload else reading}
    # Never for an endpoint that was named: it would be sent the token of an identity that is not its author's.
    ambient = all(name == CA_CERTIFICATE for name in credentials) and not source.endpoint
    given = {name: value for name, value in credentials.items() if name not in IDENTITY_FILES}
    known = Credentials.of_environment() if ambient else credentials if upload else Credentials(given)
    identity = policy.cloud_metadata and not source.endpoint
    try:
        with nullcontext() if ambient or upload else _empty_environment():
            match source.scheme:
                case "s3":
                    return S3Store(source.bucket, config=_s3(source, known, identity), **common)
                case "gs":
                    return GCSStore(source.bucket, config=_gcs(source, known, identity), **common)
                case _:
                    return AzureStore(source.bucket, config=_azure(source, known, identity), **common)
    except (BaseError, ValueError) as error:
        raise StoreError(
            Reason.SOURCE_ACCESS_DENIED,
            f"{source.scheme}://{source.account or source.bucket}: the credentials are not usable; "
            f"{remedies.credentials}",
        ) from error


@contextmanager
def _empty_environment() -> Iterator[None]:
    """The clients take what they find in the environment and were not given, or even instead of what they were given.

    An ambient identity's token would go to an endpoint of a stranger's choice, beside a Secret's key.
    """
    hidden = Credentials.of_environment()
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _s3(source: BucketSource, known: Credentials, identity: bool) -> Any:
    config: dict[str, Any] = {
        "region": source.region or "us-east-1",
        "virtual_hosted_style_request": not source.path_style,
    }
    if source.endpoint:
        config["endpoint"] = _virtual(source) if not source.path_style else source.endpoint
    if known.get("AWS_ACCESS_KEY_ID"):
        config["access_key_id"] = known["AWS_ACCESS_KEY_ID"]
        config["secret_access_key"] = known.get("AWS_SECRET_ACCESS_KEY", "")
        if known.get("AWS_SESSION_TOKEN"):
            config["session_token"] = known["AWS_SESSION_TOKEN"]
    elif "AWS_WEB_IDENTITY_TOKEN_FILE" not in known and not identity:
        config["skip_signature"] = True
    return config


def _virtual(source: BucketSource) -> str:
    scheme, _, rest = str(source.endpoint).partition("://")
    return f"{scheme}://{source.bucket}.{rest}"


def _gcs(source: BucketSource, known: Credentials, identity: bool) -> Any:
    config: dict[str, Any] = {"base_url": source.endpoint} if source.endpoint else {}
    if known.get("GOOGLE_SERVICE_ACCOUNT_KEY"):
        config["service_account_key"] = known["GOOGLE_SERVICE_ACCOUNT_KEY"]
    elif "GOOGLE_APPLICATION_CREDENTIALS" not in known and not identity:
        config["skip_signature"] = True
    return config


def _azure(source: BucketSource, known: Credentials, identity: bool) -> Any:
    config: dict[str, Any] = {"account_name": source.account}
    if source.endpoint:
        config["endpoint"] = source.endpoint
    if known.get("AZURE_STORAGE_ACCOUNT_KEY"):
        config["account_key"] = known["AZURE_STORAGE_ACCOUNT_KEY"]
    elif known.get("AZURE_STORAGE_SAS_TOKEN"):
        config["sas_key"] = known["AZURE_STORAGE_SAS_TOKEN"]
    elif known.get("AZURE_CLIENT_SECRET"):
        for name in ("tenant_id", "client_id", "client_secret"):
            config[name] = known.get(f"AZURE_{name.upper()}", "")
    elif "AZURE_FEDERATED_TOKEN_FILE" not in known and not identity:
        config["skip_signature"] = True
    return config


def _file(meta: Mapping[str, Any], path: str) -> RemoteFile:
    return RemoteFile(path=path, key=meta["path"], size=meta["size"], version=meta.get("e_tag") or "")


def _is_folder(meta: Mapping[str, Any], top: str, paths: Sequence[str]) -> bool:
    """Whether it is some clients' way of having folders: empty, with a slash behind its key, which obstore drops."""
    key = meta["path"]
    if meta["size"]:
        return False
    below = bisect_right(paths, f"{key}/")
    return key == top or (below < len(paths) and paths[below].startswith(f"{key}/"))


def _resolved(file: RemoteFile) -> str:
    return f"etag {file.version}"[:RESOLVED_MOST] if file.version else ""


def explained(
    error: Exception, shown: str, source: BucketSource, remedies: Remedies = IN_A_POD
) -> StoreError | TransientError:
    """What obstore's error means for a person; its own text is a trace with whole URLs in it."""
    text = str(error)
    if isinstance(error, InvalidPathError):
        return StoreError(
            Reason.INVALID_MODEL, f"{shown}: an object's name has an empty part, . or .. in it; rename or remove it"
        )
    status = int(match[1]) if (match := _STATUS.search(text)) else 0
    code = match[1] if (match := _CODE.search(text)) else ""
    words = " ".join(match[1].split()).rstrip(".") if (match := _WORDS.search(text)) else ""
    said = ": ".join(filter(None, (code, words))) or (f"HTTP {status}" if status else "")
    if code in _NO_BUCKET_CODES:
        return StoreError(
            Reason.SOURCE_NOT_FOUND, f"{shown}: the bucket {source.bucket} does not exist ({said}); check the URI"
        )
    denied = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if denied or status in (401, 403) or code in _DENIED_CODES:
        return StoreError(
            Reason.SOURCE_ACCESS_DENIED,
            f"{shown}: access is denied ({said or 'no reason was given'}); {remedies.denied}",
        )
    if status in (404, 410):
        return StoreError(Reason.SOURCE_NOT_FOUND, f"{shown}: there is nothing ({said}); check the URI and endpoint")
    if match := _CERTIFICATE.search(text):
        return StoreError(
            Reason.SOURCE_UNREACHABLE,
            f"{shown}: the certificate of {source.host} is not valid ({match[1].strip()}); {remedies.certificate}",
        )
    if "redirect without LOCATION" in text:  # S3's, to who asks in another region than the bucket's
        said = "it redirects elsewhere"
        status = 301
    if 300 <= status < 500 and status not in (408, 425, 429):
        return StoreError(
            Reason.SOURCE_UNREACHABLE, f"{shown}: {source.host} refuses the request ({said}); check endpoint and region"
        )
    if status:
        return TransientError(f"{source.host} answered {said}")
    if "timed out" in text.lower() or "TimedOut" in text:
        return TransientError(f"{source.host} did not answer in time")
    if "token" in text.lower() and "error performing" not in text.lower():
        return StoreError(
            Reason.SOURCE_ACCESS_DENIED, f"{shown}: no token can be got with these credentials; check them"
        )
    return TransientError(f"the connection to {source.host} failed")
