"""Source URIs, and where their stores are."""

from functools import partial
from typing import Any

import pytest

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

SHA = "sha256:" + "0" * 64
HUB = {"host": "huggingface.co", "endpoint": "https://huggingface.co"}
FRAUD = partial(BucketSource, scheme="s3", bucket="models", path="fraud/7")
MINIO = "https://minio.example:9000"


def test_an_https_uri_names_scheme_and_host_and_stays_as_it_was_written() -> None:
    uri = "https://Models.Example.com:8443/a/b.onnx?version=3"
    assert parse_source_uri(uri) == HttpSource(url=uri, scheme="https", host="models.example.com")


def test_the_host_of_an_ipv6_uri_has_no_brackets() -> None:
    source = parse_source_uri("https://[2606:4700::1]:8443/a.onnx")
    assert isinstance(source, HttpSource)
    assert source.host == "2606:4700::1"


def test_a_claim_uri_names_claim_and_path() -> None:
    assert parse_source_uri("pvc://models/sentiment/3/") == ClaimSource(claim="models", path="sentiment/3")


@pytest.mark.parametrize(
    ("uri", "where", "source"),
    [
        ("s3://models/fraud/7/", {}, FRAUD(host="s3.us-east-1.amazonaws.com")),
        (
            "s3://models/fraud/7",
            {"region": "eu-west-1", "path_style": False},
            FRAUD(host="models.s3.eu-west-1.amazonaws.com", region="eu-west-1", path_style=False),
        ),
        ("s3://models/fraud/7", {"endpoint": MINIO}, FRAUD(host="minio.example", endpoint=MINIO)),
        (
            "s3://models/fraud/7",
            {"endpoint": f"{MINIO}/", "path_style": False},
            FRAUD(host="models.minio.example", endpoint=MINIO, path_style=False),
        ),
        (
            "gs://my_models.v1/a b/ü.onnx",
            {},
            BucketSource(scheme="gs", bucket="my_models.v1", path="a b/ü.onnx", host="storage.googleapis.com"),
        ),
        (
            "az://acme/models/a",
            {},
            BucketSource(scheme="az", account="acme", bucket="models", path="a", host="acme.blob.core.windows.net"),
        ),
        (
            "az://acme/models/a",
            {"endpoint": "http://azurite.example:10000/acme"},
            BucketSource(
                scheme="az",
                account="acme",
                bucket="models",
                path="a",
                host="azurite.example",
                endpoint="http://azurite.example:10000/acme",
            ),
        ),
        ("hf://acme/model", {}, HuggingFaceSource(repository="acme/model", path="", revision="main", **HUB)),
        (
            "hf://acme/model.v1/onnx/m.onnx",
            {},
            HuggingFaceSource(repository="acme/model.v1", path="onnx/m.onnx", revision="main", **HUB),
        ),
        (
            "hf://acme/model/onnx@refs/pr/1",
            {"endpoint": "https://hub.example/"},
            HuggingFaceSource(
                repository="acme/model",
                path="onnx",
                revision="refs/pr/1",
                host="hub.example",
                endpoint="https://hub.example",
            ),
        ),
        ("hf://acme/model@v1.0", {}, HuggingFaceSource(repository="acme/model", path="", revision="v1.0", **HUB)),
        (
            "oci://registry.example:5000/team/my-model:1.0",
            {},
            OciSource(
                host="registry.example",
                registry="registry.example:5000",
                repository="team/my-model",
                reference="1.0",
            ),
        ),
        (
            "oci://registry.example/model",
            {},
            OciSource(host="registry.example", registry="registry.example", repository="model", reference="latest"),
        ),
        (
            f"oci://registry.example/model:1@{SHA}",
            {},
            OciSource(host="registry.example", registry="registry.example", repository="model", reference=SHA),
        ),
    ],
)
def test_what_a_uri_names(uri: str, where: dict[str, Any], source: Source) -> None:
    assert parse_source_uri(uri, **where) == source


@pytest.mark.parametrize("scheme", ["https", "s3", "gs", "az", "hf", "oci", "pvc"])
@pytest.mark.parametrize("user", ["user", "user:S3CRET", ":S3CRET"])
def test_credentials_in_a_uri_are_refused_and_not_repeated(scheme: str, user: str) -> None:
    with pytest.raises(SourceUriError, match="must not carry credentials") as caught:
        parse_source_uri(f"{scheme}://{user}@host/a")
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        *((uri, "not https://HOST[:PORT]/PATH") for uri in ("https:///a.onnx", "https://:8443/a.onnx", "https://")),
        ("http:///a.onnx", "not http://HOST[:PORT]/PATH"),
        *((f"https://{host}/a", "plain ASCII") for host in ("h:65536", "h:x", "ü.example", "%65vil", "a b", "a\\b")),
        *((f"https://{host}/a", "plain ASCII") for host in ("[::1", "[bad]", "[::::]", "[1.2.3.4]", "[fe80::1%eth0]")),
        *((uri, "use s3://BUCKET/PATH, gs://") for uri in ("ftp://h/a", "file:///etc/passwd", "models/a.onnx", "")),
        *((uri, "use s3://BUCKET/PATH, gs://") for uri in ("HTTPS://host/a", "PVC://claim/a", " s3://bucket/a")),
        *((f"{scheme}://bucket", f"not {scheme}://BUCKET/PATH") for scheme in ("s3", "gs")),
        *((f"s3://{bucket}/a", "not s3://BUCKET/PATH") for bucket in ("", "a", "-a", "a%62", "b" * 223)),
        *((f"az://{rest}", "not az://ACCOUNT/CONTAINER/PATH") for rest in ("acme/models", "Acme/models/a", "ac/b/c")),
        *((f"hf://{rest}", "not hf://ORGANISATION/NAME") for rest in ("gpt2", "acme/", "acme/-m", "acme/m@", "a/..")),
        *((f"hf://a/m@{revision}", "[@REVISION]") for revision in ("-x", "a@b", "a/../b", "a//b", "a/", "a b", "/a")),
        *((f"oci://{rest}", "[:TAG|@sha256:DIGEST]") for rest in ("host", "h/Upper", "h/m:", "h/m@sha256:1", "h/m:-a")),
        *((f"oci://{rest}", "[:TAG|@sha256:DIGEST]") for rest in ("h:65536/m", "h_h/m", f"h/m@{SHA}:1", "/m")),
        *((f"pvc://{claim}/a", "not pvc://CLAIM/PATH") for claim in ("", "Claim", "claim-", "a..b", "claim:80")),
    ],
)
def test_an_unusable_uri_is_refused_with_what_to_write(uri: str, advice: str) -> None:
    with pytest.raises(SourceUriError) as caught:
        parse_source_uri(uri)
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    "path", ["../other", "a/../b", "a/./b", "a//b", "..", "a/..", "/a", "a//", "a?x", "a#x", "a/."]
)
@pytest.mark.parametrize("base", ["s3://bucket", "gs://bucket", "az://acme/models", "hf://acme/model", "pvc://claim"])
def test_a_path_that_could_lead_elsewhere_is_refused(base: str, path: str) -> None:
    with pytest.raises(SourceUriError, match="plain path"):
        parse_source_uri(f"{base}/{path}")


@pytest.mark.parametrize("path", ["...", "a..b", ".hidden", "a./b", "..a", "...a/.b", "a b", "ü", "100%"])
@pytest.mark.parametrize("base", ["s3://bucket", "gs://bucket", "az://acme/models", "hf://acme/model", "pvc://claim"])
def test_unusual_names_of_files_are_names_like_others(base: str, path: str) -> None:
    source = parse_source_uri(f"{base}/{path}/")
    assert not isinstance(source, HttpSource | OciSource)
    assert source.path == path


@pytest.mark.parametrize("control", ["\n", "\t", "\r", "\0", "\x7f"])
@pytest.mark.parametrize("uri", ["pvc://mo{}dels/a", "s3://bucket/a{}", "{}https://host/a", "https://host/a?{}"])
def test_control_characters_are_refused_wherever_they_are(uri: str, control: str) -> None:
    with pytest.raises(SourceUriError, match="write it in one line"):
        parse_source_uri(uri.format(control))


@pytest.mark.parametrize(
    "uri",
    [
        *("https://[bad/x?X-Signature=S3CRET", "https:///x?S3CRET", "pvc://c/p?S3CRET", "S3CRET", "S3CRET://h/a"),
        *("s3://b/a?S3CRET", "hf://a/b@S3CRET@", "oci://S3CRET", "az://S3CRET/a/b", "https://h/a?S3CRET\n"),
    ],
)
def test_a_uri_that_may_be_signed_is_not_repeated(uri: str) -> None:
    with pytest.raises(SourceUriError) as caught:
        parse_source_uri(uri)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize("uri", ["https://host/a", "http://host/a", "oci://host/model", "pvc://claim/a"])
def test_an_endpoint_is_for_stores_that_have_one(uri: str) -> None:
    with pytest.raises(SourceUriError, match=r"endpoint is only for s3, gs, az, hf; remove it"):
        parse_source_uri(uri, endpoint=MINIO)


@pytest.mark.parametrize(
    "endpoint",
    [
        *("", "minio.example", "ftp://minio.example", "HTTPS://minio.example", " https://minio.example", "https://"),
        *("https://user:S3CRET@minio.example", "https://minio.example?S3CRET", "https://minio.example/?", "https:///a"),
        *("https://minio.example/#a", "https://minio.example:65536", "https://min\tio.example", "https://[bad]"),
    ],
)
def test_an_unusable_endpoint_is_refused_and_not_repeated(endpoint: str) -> None:
    with pytest.raises(SourceUriError, match=r"endpoint must be https://HOST") as caught:
        parse_source_uri("s3://bucket/a", endpoint=endpoint)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    ["https://host/a", "gs://bucket/a", "az://acme/models/a", "hf://acme/model", "oci://host/model", "pvc://claim/a"],
)
def test_region_and_virtual_hosts_are_for_s3(uri: str) -> None:
    with pytest.raises(SourceUriError, match="region is only for s3; remove it"):
        parse_source_uri(uri, region="eu-west-1")
    with pytest.raises(SourceUriError, match="pathStyle: false is only for s3; remove it"):
        parse_source_uri(uri, path_style=False)
