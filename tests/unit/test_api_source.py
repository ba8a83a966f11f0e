"""Source URIs and the installation's policy about them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api.source import ClaimSource, HttpSource, SourcePolicy, SourceUriError, is_public, parse_source_uri


def test_an_https_uri_names_scheme_and_host_and_stays_as_it_was_written() -> None:
    uri = "https://Models.Example.com:8443/a/b.onnx?version=3"
    assert parse_source_uri(uri) == HttpSource(url=uri, scheme="https", host="models.example.com")


def test_the_host_of_an_ipv6_uri_has_no_brackets() -> None:
    source = parse_source_uri("https://[2606:4700::1]:8443/a.onnx")
    assert isinstance(source, HttpSource)
    assert source.host == "2606:4700::1"


def test_a_claim_uri_names_claim_and_path() -> None:
    assert parse_source_uri("pvc://models/sentiment/3/") == ClaimSource(claim="models", path="sentiment/3")


@pytest.mark.parametrize("uri", ["https://user@host/a", "https://user:secret@host/a", "https://:secret@host/a"])
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(SourceUriError, match="must not carry credentials") as caught:
        parse_source_uri(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        ("https:///a.onnx", "write https://HOST/PATH"),
        ("http:///a.onnx", "write http://HOST/PATH"),
        ("https://:8443/a.onnx", "write https://HOST/PATH"),
        ("s3://bucket/a", "use https://HOST/PATH or pvc://CLAIM/PATH"),
        ("file:///etc/passwd", "use https://HOST/PATH or pvc://CLAIM/PATH"),
        ("models/a.onnx", "use https://HOST/PATH or pvc://CLAIM/PATH"),
    ],
)
def test_an_unusable_uri_is_refused_with_what_to_write(uri: str, advice: str) -> None:
    with pytest.raises(SourceUriError, match=r"supported scheme|names no host") as caught:
        parse_source_uri(uri)
    assert advice in str(caught.value)


@pytest.mark.parametrize("path", ["", "/", "../other", "a/../b", "a/./b", "a//b", "..", "a/.."])
def test_a_claim_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(SourceUriError, match="plain path"):
        parse_source_uri(f"pvc://claim/{path}")


def test_a_claim_uri_needs_a_claim() -> None:
    with pytest.raises(SourceUriError, match="CLAIM"):
        parse_source_uri("pvc:///a/b")


def _refusal(uri: str, policy: SourcePolicy) -> str | None:
    return policy.refusal(parse_source_uri(uri))


def test_by_default_any_https_host_is_allowed() -> None:
    assert _refusal("https://anything.example/a", SourcePolicy()) is None


def test_by_default_plain_http_is_refused_with_the_setting_to_change() -> None:
    refusal = _refusal("http://models.example/a", SourcePolicy())
    assert refusal is not None
    assert "models.example" in refusal
    assert "policy.sources.httpHosts" in refusal


def test_plain_http_is_allowed_for_named_hosts_only() -> None:
    policy = SourcePolicy(http_hosts=("models.example",))
    assert _refusal("http://models.example/a", policy) is None
    assert _refusal("http://other.example/a", policy) is not None


def test_a_host_off_the_list_is_refused_with_the_setting_to_change() -> None:
    refusal = _refusal("https://evil.example/a", SourcePolicy(allowed_hosts=("models.example",)))
    assert refusal is not None
    assert "evil.example" in refusal
    assert "policy.sources.allowedHosts" in refusal


def test_being_allowed_plain_http_does_not_make_a_host_allowed() -> None:
    policy = SourcePolicy(allowed_hosts=("models.example",), http_hosts=("*",))
    assert _refusal("http://evil.example/a", policy) is not None


def test_a_glob_matches_subdomains_and_not_the_bare_domain_or_a_longer_one() -> None:
    policy = SourcePolicy(allowed_hosts=("*.example.com",))
    assert _refusal("https://eu.models.example.com/a", policy) is None
    assert _refusal("https://example.com/a", policy) is not None
    assert _refusal("https://models.example.com.evil.org/a", policy) is not None


def test_hosts_match_whatever_their_case() -> None:
    policy = SourcePolicy(allowed_hosts=("Models.Example",))
    assert _refusal("https://MODELS.example/a", policy) is None


def test_the_port_cannot_smuggle_a_host_past_the_list() -> None:
    assert _refusal("https://evil.example:443/models.example", SourcePolicy(allowed_hosts=("models.example",)))


def test_an_empty_list_allows_no_host_and_still_every_claim() -> None:
    policy = SourcePolicy(allowed_hosts=())
    assert _refusal("https://models.example/a", policy) is not None
    assert _refusal("pvc://claim/a", policy) is None


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.1"),
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00:ec2::254", "ff02::1", "ff0e::1"),
        *("::ffff:10.0.0.1", "::ffff:169.254.169.254"),
        "168.63.129.16",
        "fec0::1",
        "::8.8.8.8",
        "::ffff:0:8.8.8.8",
    ],
)
def test_an_address_that_is_not_public_needs_a_host_that_is_named(address: str) -> None:
    assert not SourcePolicy().allows_address("models.example", address)
    policy = SourcePolicy(private_hosts=("models.example",))
    assert policy.allows_address("models.example", address)
    assert not policy.allows_address("other.example", address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_a_public_address_needs_no_naming(address: str) -> None:
    assert SourcePolicy().allows_address("models.example", address)


@given(st.ip_addresses(v=4).filter(lambda address: not address.is_multicast))
def test_an_ipv4_address_counts_the_same_inside_ipv6(address: object) -> None:
    assert is_public(f"::ffff:{address}") == is_public(str(address))


@pytest.mark.parametrize("uri", ["https://[::1/x", "pvc://claim/path?query", "pvc://claim/path#part"])
def test_a_uri_that_cannot_be_meant_is_refused_in_words(uri: str) -> None:
    with pytest.raises(SourceUriError):
        parse_source_uri(uri)


@pytest.mark.parametrize(
    "uri", ["https://[bad/x?X-Signature=S3CRET", "https:///x?S3CRET", "pvc://c/p?S3CRET", "S3CRET"]
)
def test_a_uri_that_may_be_signed_is_not_repeated(uri: str) -> None:
    with pytest.raises(SourceUriError) as caught:
        parse_source_uri(uri)
    assert "S3CRET" not in str(caught.value)


def test_multicast_behind_a_mapped_address_is_not_public() -> None:
    assert not is_public("::ffff:224.0.0.1")
