"""The installation's policy about where models come from."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api.source import SCHEMES, parse_source_uri
from conch.api.source_policy import SourcePolicy, is_public

SHA = "0" * 64
OF_EACH_SCHEME = {
    "s3": "s3://models/a",
    "gs": "gs://models/a",
    "az": "az://acme/models/a",
    "https": "https://models.example/a",
    "http": "http://models.example/a",
    "hf": "hf://acme/model",
    "oci": "oci://registry.example/model",
    "pvc": "pvc://models/a",
}


def _refusal(uri: str, policy: SourcePolicy, **where: Any) -> str | None:
    return policy.refusal(parse_source_uri(uri, **where))


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


def test_multicast_behind_a_mapped_address_is_not_public() -> None:
    assert not is_public("::ffff:224.0.0.1")


def test_by_default_every_scheme_is_allowed() -> None:
    policy = SourcePolicy(http_hosts=("*",))
    assert OF_EACH_SCHEME.keys() == set(SCHEMES)
    assert [uri for uri in OF_EACH_SCHEME.values() if _refusal(uri, policy)] == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_off_the_list_is_refused_with_the_setting_to_change(scheme: str) -> None:
    others = tuple(each for each in SCHEMES if each != scheme)
    refusal = _refusal(OF_EACH_SCHEME[scheme], SourcePolicy(schemes=others, http_hosts=("*",)))
    assert refusal is not None
    assert refusal.startswith(f"{scheme}://")
    assert ", ".join(others) in refusal
    assert "policy.sources.schemes" in refusal


@pytest.mark.parametrize(
    ("uri", "where", "host"),
    [
        ("s3://models/a", {}, "s3.us-east-1.amazonaws.com"),
        ("s3://models/a", {"region": "eu-west-1"}, "s3.eu-west-1.amazonaws.com"),
        ("s3://models/a", {"path_style": False}, "models.s3.us-east-1.amazonaws.com"),
        ("s3://models/a", {"endpoint": "https://Store.example:9000"}, "store.example"),
        ("s3://models/a", {"endpoint": "https://store.example", "path_style": False}, "models.store.example"),
        ("gs://models/a", {}, "storage.googleapis.com"),
        ("gs://models/a", {"endpoint": "https://store.example"}, "store.example"),
        ("az://acme/models/a", {}, "acme.blob.core.windows.net"),
        ("az://acme/models/a", {"endpoint": "https://store.example/acme"}, "store.example"),
        ("hf://acme/model", {}, "huggingface.co"),
        ("hf://acme/model", {"endpoint": "https://hub.example"}, "hub.example"),
        ("oci://registry.example:5000/team/model:3", {}, "registry.example"),
        (f"oci://registry.example/model@sha256:{SHA}", {}, "registry.example"),
    ],
)
def test_the_host_that_must_be_allowed(uri: str, where: dict[str, Any], host: str) -> None:
    assert _refusal(uri, SourcePolicy(allowed_hosts=(host,)), **where) is None
    refusal = _refusal(uri, SourcePolicy(allowed_hosts=("elsewhere.example",)), **where)
    assert refusal is not None
    assert f"host {host} " in refusal


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "hf"])
def test_an_endpoint_without_tls_needs_its_host_to_be_named(scheme: str) -> None:
    where = {"endpoint": "http://store.example:9000"}
    refusal = _refusal(OF_EACH_SCHEME[scheme], SourcePolicy(), **where)
    assert refusal is not None
    assert "policy.sources.httpHosts" in refusal
    assert _refusal(OF_EACH_SCHEME[scheme], SourcePolicy(http_hosts=("store.example",)), **where) is None
