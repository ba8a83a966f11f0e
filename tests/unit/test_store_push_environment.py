"""Where a person's credentials, endpoints and regions come from; none of them is ever shown."""

import base64
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conch.api.reasons import Reason
from conch.api.source import parse_source_uri
from conch.cli import app
from conch.store.credentials import Credentials
from conch.store.errors import StoreError
from conch.store.push.environment import from_environment, source_of
from conch.store.push.meter import Meter, readable
from conch.store.source_digest import source_digest

AUTH = {"auth": base64.b64encode(b"ann:s3cret").decode()}


def entries(uri: str, **environment: str) -> dict[str, str]:
    return dict(from_environment(parse_source_uri(uri), environment={"HOME": "/nowhere", **environment}))


def docker(folder: Path, config: object) -> str:
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def login(uri: str, folder: Path, config: object) -> object:
    found = entries(uri, DOCKER_CONFIG=docker(folder, config))
    return json.loads(found[".dockerconfigjson"])["auths"] if found else None


def helper(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_buckets() -> None:
    assert entries("s3://models/m", AWS_ACCESS_KEY_ID="a", GOOGLE_X="b", OTHER="c") == {
        "AWS_ACCESS_KEY_ID": "a",
        "GOOGLE_X": "b",
    }
    assert entries("az://account/models/m", AZURE_STORAGE_KEY="k")["AZURE_STORAGE_ACCOUNT_KEY"] == "k"


def test_the_login_of_gcloud(tmp_path: Path) -> None:
    path = tmp_path / ".config" / "gcloud" / "application_default_credentials.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert entries("gs://models/m", HOME=str(tmp_path)) == {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}
    own = entries("gs://models/m", HOME=str(tmp_path), GOOGLE_APPLICATION_CREDENTIALS="/own.json")
    assert own == {"GOOGLE_APPLICATION_CREDENTIALS": "/own.json"}


def test_the_login_of_hugging_face(tmp_path: Path) -> None:
    assert entries("hf://acme/m") == {}
    (tmp_path / "token").write_text("hf_stored\n")
    assert entries("hf://acme/m", HF_HOME=str(tmp_path)) == {"HF_TOKEN": "hf_stored"}
    assert entries("hf://acme/m", HF_TOKEN_PATH=str(tmp_path / "token")) == {"HF_TOKEN": "hf_stored"}
    assert entries("hf://acme/m", HF_HOME=str(tmp_path), HF_TOKEN="hf_own") == {"HF_TOKEN": "hf_own"}


def test_the_login_of_docker(tmp_path: Path) -> None:
    uri = "oci://registry.example.com/team/m:v1"
    auths = {"https://registry.example.com/v2/": AUTH, "other.example.com": {"auth": "x"}}
    assert login(uri, tmp_path, {"auths": auths}) == {"registry.example.com": AUTH}
    assert login("oci://third.example.com/m", tmp_path, {"auths": auths}) is None
    assert login(uri, tmp_path, {"auths": {"registry.example.com": {}}}) is None
    assert login(uri, tmp_path, {}) is None
    assert entries(uri) == {}


def test_the_programs_that_keep_logins_for_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, "own", """read server; echo '{"Username": "'$server'", "Secret": "s"}'""", monkeypatch)
    helper(tmp_path, "none", "exit 1", monkeypatch)
    uri, host = "oci://registry.example.com/team/m:v1", "registry.example.com"
    by_host = {"credsStore": "none", "credHelpers": {host: "own"}, "auths": {host: {}}}
    assert login(uri, tmp_path, by_host) == {host: {"username": host, "password": "s"}}
    assert login(uri, tmp_path, {"credsStore": "none", "auths": {host: {}}}) is None
    assert login(uri, tmp_path, {"credsStore": "none", "auths": {host: AUTH}}) == {host: AUTH}
    hub = login("oci://docker.io/team/m", tmp_path, {"credsStore": "own"})
    assert hub == {"docker.io": {"username": "https://index.docker.io/v1/", "password": "s"}}
    with pytest.raises(StoreError, match="docker-credential-missing"):
        login(uri, tmp_path, {"credsStore": "missing"})
    helper(tmp_path, "odd", "echo s3cret", monkeypatch)
    with pytest.raises(StoreError) as failed:
        login(uri, tmp_path, {"credsStore": "odd"})
    assert "s3cret" not in str(failed.value)


@pytest.mark.parametrize("config", [["s3cret"], {"auths": ["s3cret"]}, {"auths": {"registry.example.com": "s3cret"}}])
def test_a_docker_config_that_makes_no_sense(config: object, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="docker login") as failed:
        login("oci://registry.example.com/m", tmp_path, config)
    assert "s3cret" not in str(failed.value)


def test_an_identity_token_of_docker(tmp_path: Path) -> None:
    entry = {"auth": "PHRva2VuPjo=", "identitytoken": "s3cret"}
    with pytest.raises(StoreError, match="identity token") as failed:
        login("oci://registry.example.com/m", tmp_path, {"auths": {"registry.example.com": entry}})
    assert "s3cret" not in str(failed.value)


def test_web_servers(tmp_path: Path) -> None:
    path = tmp_path / ".netrc"
    path.write_text("machine example.com login ann password s3cret\n")
    path.chmod(0o600)
    assert entries("https://example.com/m", HOME=str(tmp_path)) == {"username": "ann", "password": "s3cret"}
    assert entries("https://example.org/m", HOME=str(tmp_path)) == {}
    assert entries("https://example.com/m", HOME=str(tmp_path), CONCH_TOKEN="t") == {"token": "t"}
    path.write_text("machina example.com login ann password s3cret\n")
    with pytest.raises(StoreError, match="NETRC") as failed:
        entries("https://example.com/m", HOME=str(tmp_path))
    assert "s3cret" not in str(failed.value)


def test_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("PEM")
    source = parse_source_uri("https://example.com/m")
    trusted = from_environment(source, ca_certificate=tmp_path / "ca.pem", environment={"HOME": "/nowhere"})
    assert dict(trusted) == {"ca.crt": "PEM"}
    with pytest.raises(StoreError, match=r"none\.pem"):
        from_environment(source, ca_certificate=tmp_path / "none.pem", environment={"HOME": "/nowhere"})


def test_endpoints_and_regions() -> None:
    environment = {
        "AWS_ENDPOINT_URL": "https://a.example.com",
        "AWS_DEFAULT_REGION": "eu-1",
        "HF_ENDPOINT": "https://h",
    }
    source = source_of("s3://models/m", environment=environment)
    assert (source.endpoint, source.region) == ("https://a.example.com", "eu-1")
    own = source_of("s3://models/m", endpoint="https://b.example.com", region="eu-2", environment=environment)
    assert (own.endpoint, own.region) == ("https://b.example.com", "eu-2")
    assert source_of("hf://acme/m", environment=environment).endpoint == "https://h"
    assert source_of("gs://models/m", environment=environment).endpoint is None


@pytest.mark.parametrize(
    "uri", ["https://ann:s3cret@example.com/m", "ftp://s3cret", "https://example.com/" + 3000 * "s3cret"]
)
def test_a_uri_that_is_refused_is_not_shown(uri: str) -> None:
    with pytest.raises(StoreError) as failed:
        source_of(uri, environment={})
    assert (failed.value.reason, "s3cret" in str(failed.value)) == (Reason.INVALID_SPEC, False)


def test_a_claim_is_digested_where_it_is_mounted() -> None:
    with pytest.raises(StoreError, match="where it is mounted"):
        source_digest(source_of("pvc://models/m", environment={}), Credentials(), Meter(terminal=False))


@pytest.mark.parametrize("command", ["push", "digest"])
def test_help_has_an_example_of_each_kind(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    for scheme in ("s3", "gs", "az", "hf", "oci", "https"):
        assert f" {scheme}://" in shown.stdout


def test_the_command_digests_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"1")
    shown = CliRunner().invoke(app, ["digest", str(tmp_path)])
    assert (shown.exit_code, shown.stdout.startswith("sha256:"), shown.stdout.count("\n")) == (0, True, 1)
    assert "is no URI" in CliRunner().invoke(app, ["digest", str(tmp_path / "none")]).stderr


def test_sizes_are_readable() -> None:
    assert [readable(count) for count in (0, 1023, 1024, 3 << 30, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "3.0 GiB",
        "5.0 TiB",
    ]


def test_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conch.store.push.meter._LINE_SECONDS", 0.0)
    with Meter(terminal=False).step("uploading", 2048) as step:
        step.advance(1024)
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[:2]) == ("", ["uploading (2.0 KiB)", "uploading: 1.0 KiB of 2.0 KiB (50 %)"])


def test_progress_is_a_bar_at_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(terminal=True).step("uploading [3] files", 2048) as step:
        step.advance(1024)
        step.show(2048, 2048)
    out, err = capsys.readouterr()
    assert (out, "uploading [3] files" in err) == ("", True)
