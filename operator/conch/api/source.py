"""Where a model comes from (`model.source.uri`), parsed once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

URI_MAX_LENGTH = 2048


class SourceUriError(ValueError):
    """A source that cannot be used; the message says what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSource:
    """A file or archive behind `https://` (or `http://`)."""

    url: str
    scheme: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketSource:
    """An object, or all objects below a prefix, in Amazon S3 (or a store like it), Google Cloud Storage or Azure."""

    scheme: str
    """`s3`, `gs` or `az`."""
    bucket: str
    """Bucket; of Azure, the container."""
    path: str
    """Key or prefix, without a slash at either end."""
    host: str
    """Where the store is asked: the endpoint's host, or the provider's own."""
    account: str = ""
    """Azure's storage account."""
    endpoint: str | None = None
    region: str | None = None
    path_style: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HuggingFaceSource:
    """A model repository of the Hugging Face Hub, or a folder or file in it."""

    scheme: str = "hf"
    repository: str
    """`organisation/name`."""
    path: str
    """Folder or file inside the repository; empty for all of it."""
    revision: str
    """Branch, tag or commit."""
    host: str
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OciSource:
    """An artefact in an OCI registry."""

    scheme: str = "oci"
    host: str
    registry: str
    """Host and port."""
    repository: str
    reference: str
    """Tag, or `sha256:...` of the manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSource:
    """A folder or file on a PersistentVolumeClaim of the object's namespace, mounted read-only."""

    claim: str
    path: str
    scheme: str = "pvc"


Source = HttpSource | BucketSource | HuggingFaceSource | OciSource | ClaimSource
SourceScheme = Literal["s3", "gs", "az", "https", "http", "hf", "oci", "pvc"]
SCHEMES: Final[tuple[SourceScheme, ...]] = get_args(SourceScheme)

_FORMS: Final = {
    "s3": "s3://BUCKET/PATH",
    "gs": "gs://BUCKET/PATH",
    "az": "az://ACCOUNT/CONTAINER/PATH",
    "https": "https://HOST/PATH",
    "hf": "hf://ORGANISATION/NAME[/PATH][@REVISION]",
    "oci": "oci://REGISTRY/REPOSITORY[:TAG|@sha256:DIGEST]",
    "pvc": "pvc://CLAIM/PATH",
}
_HUB: Final = "https://huggingface.co"


def _plain_path(other: str) -> str:
    """A slash before each part of dots and `other`; no part is empty, `.` or `..`."""
    return f"(/([.]*{other}([.]|{other})*|[.]{{3,}}))"


_HOST: Final = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
_PORT: Final = "(:(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5]?[0-9]{1,4}))?"
_BUCKET: Final = "[A-Za-z0-9][A-Za-z0-9._-]{1,221}"
_PATH: Final = _plain_path("[^./?#]")
_HF_NAME: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HF_PATH: Final = _plain_path("[^./?#@]")
_HF_REVISION: Final = f"[A-Za-z0-9][A-Za-z0-9._-]*{_plain_path('[A-Za-z0-9_-]')}*"
_OCI_FOLDER: Final = "[a-z0-9]+([._-]+[a-z0-9]+)*"
_DNS_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"

URI_PATTERNS: Final[Mapping[str, str]] = {
    "s3": f"s3://(?P<bucket>{_BUCKET})(?P<path>{_PATH}+)/?",
    "gs": f"gs://(?P<bucket>{_BUCKET})(?P<path>{_PATH}+)/?",
    "az": f"az://(?P<account>[a-z0-9]{{3,24}})/(?P<bucket>{_BUCKET})(?P<path>{_PATH}+)/?",
    "https": f"https://{_HOST}{_PORT}([/?].*)?",
    "http": f"http://{_HOST}{_PORT}([/?].*)?",
    "hf": f"hf://(?P<repository>{_HF_NAME}/{_HF_NAME})(?P<path>{_HF_PATH}*)(/|@(?P<revision>{_HF_REVISION}))?",
    "oci": f"oci://(?P<registry>(?P<host>[A-Za-z0-9.-]+){_PORT})/(?P<repository>{_OCI_FOLDER}(/{_OCI_FOLDER})*)"
    "(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?",
    "pvc": f"pvc://(?P<claim>{_DNS_LABEL}([.]{_DNS_LABEL})*)(?P<path>{_PATH}+)/?",
}
"""Of whole URIs, by scheme. The CRD's rules are made of them, so they must mean the same in Go (RE2: no lookahead).

Hosts are plain ASCII, so that no two parsers can read different ones from one URI.
"""
CONTROL_PATTERN: Final = r"[\x00-\x1f\x7f]"
CREDENTIALS_PATTERN: Final = "[a-z0-9]+://[^/?#]*@"
"""Matches the beginning of a URI with a user in it."""
ENDPOINT_PATTERN: Final = f"https?://{_HOST}{_PORT}(/[A-Za-z0-9._~%/-]*)?"
WITH_ENDPOINT: Final = ("s3", "gs", "az", "hf")

CONTROL: Final = "the source URI has a line break or another control character; write it in one line"
NO_SCHEME: Final = f"the source URI has no supported scheme; use {', '.join(_FORMS.values())}"
CREDENTIALS: Final = (
    "a source URI must not carry credentials, since everybody who reads the object sees them; remove them, and name a "
    "Secret in credentialsSecretRef"
)
ENDPOINT_ELSEWHERE: Final = f"endpoint is only for {', '.join(WITH_ENDPOINT)}; remove it"
ENDPOINT_FORM: Final = "endpoint must be https://HOST[:PORT][/PATH] without credentials or a query; correct it"
REGION_ELSEWHERE: Final = "region is only for s3; remove it"
PATH_STYLE_ELSEWHERE: Final = "pathStyle: false is only for s3; remove it"


def wrong_form(scheme: str) -> str:
    """What to do about a URI that does not match its scheme's pattern."""
    if scheme in ("https", "http"):
        return f"the source URI is not {scheme}://HOST[:PORT]/PATH; write the host in plain ASCII letters"
    return f"the source URI is not {_FORMS[scheme]} with a plain path (no empty part, . or ..); correct it"


def parse_source_uri(
    uri: str, *, endpoint: str | None = None, region: str | None = None, path_style: bool = True
) -> Source:
    """Parse a source URI, and where its store is (`model.source`); raises SourceUriError with what to do.

    The error never repeats the URI: it may be signed, and status, Events and logs are read by more people.
    """
    if re.search(CONTROL_PATTERN, uri):
        raise SourceUriError(CONTROL)
    if re.match(CREDENTIALS_PATTERN, uri):
        raise SourceUriError(CREDENTIALS)
    scheme = uri.partition("://")[0]
    if scheme not in URI_PATTERNS:
        raise SourceUriError(NO_SCHEME)
    match = re.fullmatch(URI_PATTERNS[scheme], uri)
    if not match:
        raise SourceUriError(wrong_form(scheme))
    if endpoint is not None and scheme not in WITH_ENDPOINT:
        raise SourceUriError(ENDPOINT_ELSEWHERE)
    if region and scheme != "s3":
        raise SourceUriError(REGION_ELSEWHERE)
    if not path_style and scheme != "s3":
        raise SourceUriError(PATH_STYLE_ELSEWHERE)
    base = _endpoint(endpoint) if endpoint is not None else None
    host = _hostname(base, ENDPOINT_FORM) if base else None
    match scheme:
        case "https" | "http":
            return HttpSource(url=uri, scheme=scheme, host=_hostname(uri, wrong_form(scheme)))
        case "pvc":
            return ClaimSource(claim=match["claim"], path=match["path"].removeprefix("/"))
        case "s3" | "gs":
            bucket = match["bucket"]
            own = "storage.googleapis.com" if scheme == "gs" else f"s3.{region or 'us-east-1'}.amazonaws.com"
            asked = host or own
            return BucketSource(
                scheme=scheme,
                bucket=bucket,
                path=match["path"].removeprefix("/"),
                host=asked if path_style else f"{bucket}.{asked}",
                endpoint=base,
                region=region,
                path_style=path_style,
            )
        case "az":
            return BucketSource(
                scheme=scheme,
                account=match["account"],
                bucket=match["bucket"],
                path=match["path"].removeprefix("/"),
                host=host or f"{match['account']}.blob.core.windows.net",
                endpoint=base,
            )
        case "hf":
            return HuggingFaceSource(
                repository=match["repository"],
                path=match["path"].removeprefix("/"),
                revision=match["revision"] or "main",
                host=host or str(urlsplit(_HUB).hostname),
                endpoint=base or _HUB,
            )
        case _:
            return OciSource(
                host=match["host"],
                registry=match["registry"],
                repository=match["repository"],
                reference=match["digest"] or match["tag"] or "latest",
            )


def _endpoint(endpoint: str) -> str:
    if not re.fullmatch(ENDPOINT_PATTERN, endpoint):
        raise SourceUriError(ENDPOINT_FORM)
    return endpoint.rstrip("/")


def _hostname(url: str, refusal: str) -> str:
    try:
        return str(urlsplit(url).hostname)
    except ValueError as error:  # brackets around what is no IPv6 address, which a pattern cannot tell
        raise SourceUriError(refusal) from error
