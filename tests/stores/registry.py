"""An OCI registry: Debian's docker-registry over TLS, with a password login or with tokens of a server of our own."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.cluster.ports import free_port
from tests.stores import programs
from tests.stores import tls as certificates
from tests.stores.store import ProcessStore, counted
from tests.stores.tls import Tls
from tests.stores.web import WebServer
from tests.support import archives

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_USER = "conch"
_FETCH_SECONDS = 3
_TOKEN_SECONDS = 300
_BCRYPT = "import crypt, sys; print(crypt.crypt(sys.stdin.read(), crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=1 << 5)))"
"""The registry knows no other hash of a password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One blob of an artefact."""

    media_type: str
    content: bytes
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactKind:
    """What a tool writes into the manifests it makes."""

    artifact_type: str
    config_media_type: str


ORAS = ArtifactKind(
    artifact_type="application/vnd.unknown.artifact.v1", config_media_type="application/vnd.oci.empty.v1+json"
)
MODEL_PACK = ArtifactKind(
    artifact_type="application/vnd.cncf.model.manifest.v1+json",
    config_media_type="application/vnd.cncf.model.config.v1+json",
)


def oras_file(name: str, content: bytes) -> Layer:
    """As `oras push REPOSITORY NAME` makes it of a file."""
    annotations = {"org.opencontainers.image.title": name}
    return Layer(media_type="application/vnd.oci.image.layer.v1.tar", content=content, annotations=annotations)


def oras_folder(name: str, files: Mapping[str, bytes]) -> Layer:
    """As `oras push REPOSITORY NAME` makes it of a folder."""
    content = archives.tar_gz({f"{name}/{path}": each for path, each in files.items()})
    annotations = {"org.opencontainers.image.title": name, "io.deis.oras.content.unpack": "true"}
    return Layer(media_type="application/vnd.oci.image.layer.v1.tar+gzip", content=content, annotations=annotations)


def model_pack_file(name: str, content: bytes) -> Layer:
    """As ModelPack's tools make it of weights."""
    annotations = {"org.cncf.model.filepath": name}
    return Layer(media_type="application/vnd.cncf.model.weight.v1.raw", content=content, annotations=annotations)


def model_pack_tar(name: str, files: Mapping[str, bytes]) -> Layer:
    """As ModelPack's tools make it of a folder: paths in the tar are those in the model."""
    content = gzip.decompress(archives.tar_gz({f"{name}/{path}": each for path, each in files.items()}))
    annotations = {"org.cncf.model.filepath": name}
    return Layer(media_type="application/vnd.cncf.model.weight.v1.tar", content=content, annotations=annotations)


class Registry(ProcessStore):
    """A path is a repository, or `REPOSITORY:TAG`; every manifest has the tag `latest` if it was given none."""

    def __init__(
        self,
        folder: Path,
        *,
        address: str = "127.0.0.1",
        host: str | None = None,
        tls: Tls | None = None,
        tokens: bool = False,
    ) -> None:
        self._tls = tls or certificates.issue(folder / "tls", *{host or address, address})
        super().__init__(folder, address=address, host=host, tls=self._tls)
        self._password = secrets.token_hex(12)
        self._tokens = _TokenServer(self, self._tls, self._password) if tokens else None

    def uri(self, path: str) -> str:
        return f"oci://{self.host}:{self.port}/{path}"

    @property
    def requests(self) -> Counter[str]:
        """Also those to the token server, `GET /token`."""
        return super().requests + (self._tokens.requests if self._tokens else Counter())

    def start(self) -> None:
        if self._tokens:
            self._tokens.start()
        super().start()

    def stop(self) -> None:
        super().stop()
        if self._tokens:
            self._tokens.stop()

    def command(self) -> list[str]:
        program = (
            programs.debian("docker-registry", expected_seconds=_FETCH_SECONDS) / "usr" / "bin" / "docker-registry"
        )
        configuration = self.folder / "config.yml"
        configuration.write_text(yaml.safe_dump(self._configuration()))
        return [str(program), "serve", str(configuration)]

    def put(self, path: str, content: bytes) -> None:
        """An artefact of one file, `model.onnx`."""
        self.put_tree(path, {"model.onnx": content})

    def put_tree(self, path: str, files: Mapping[str, bytes]) -> None:
        """An artefact of these files."""
        repository, _, tag = path.partition(":")
        self.put_artifact(repository, tag or "latest", [oras_file(name, each) for name, each in files.items()])

    def put_artifact(self, repository: str, tag: str, layers: Sequence[Layer], *, kind: ArtifactKind = ORAS) -> str:
        """Push the layers and a manifest with this tag; returns the manifest's digest."""
        config = Layer(media_type=kind.config_media_type, content=b"{}", annotations={})
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind.artifact_type,
            "config": _descriptor(config),
            "layers": [_descriptor(layer) for layer in layers],
        }
        with self._client(repository) as client:
            for blob in (config, *layers):
                _push(client, repository, blob.content)
            response = client.put(
                f"/v2/{repository}/manifests/{tag}",
                content=json.dumps(manifest).encode(),
                headers={"Content-Type": MANIFEST},
            ).raise_for_status()
        return str(response.headers["Docker-Content-Digest"])

    def delete(self, path: str) -> None:
        """The manifest that the tag stands for, and with it the tag."""
        repository, _, tag = path.partition(":")
        manifests = f"/v2/{repository}/manifests"
        with self._client(repository) as client:
            found = client.head(f"{manifests}/{tag or 'latest'}", headers={"Accept": MANIFEST}).raise_for_status()
            client.delete(f"{manifests}/{found.headers['Docker-Content-Digest']}").raise_for_status()

    def _login(self, *, right: bool) -> dict[str, str]:
        password = self._password if right else secrets.token_hex(12)
        login = base64.b64encode(f"{_USER}:{password}".encode()).decode()
        entry = {"username": _USER, "password": password, "auth": login}
        return {".dockerconfigjson": json.dumps({"auths": {f"{self.host}:{self.port}": entry}})}

    def _configuration(self) -> dict[str, Any]:
        return {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "storage")},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": {
                "addr": f"{self.address}:{self.port}",
                "secret": secrets.token_hex(16),
                "relativeurls": True,
                "tls": {"certificate": str(self._tls.pair.certificate), "key": str(self._tls.pair.key)},
            },
            "auth": self._tokens.configuration() if self._tokens else self._passwords(),
        }

    def _passwords(self) -> dict[str, Any]:
        # In a process of its own, because importing crypt warns, and a warning fails a test.
        hashed = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _BCRYPT],
            input=self._password,
            capture_output=True,
            text=True,
            check=True,
        )
        path = self.folder / "htpasswd"
        path.write_text(f"{_USER}:{hashed.stdout.strip()}\n")
        return {"htpasswd": {"realm": "conch", "path": str(path)}}

    def _client(self, repository: str) -> httpx.Client:
        client = httpx.Client(
            base_url=self.local_endpoint, verify=self._tls.client_context(), trust_env=False, timeout=60
        )
        if self._tokens:
            client.headers["Authorization"] = f"Bearer {self._tokens.token(repository, ('pull', 'push', 'delete'))}"
        else:
            client.auth = httpx.BasicAuth(_USER, self._password)
        return client


@dataclass(slots=True)
class _TokenServer:
    """Gives tokens for what is asked for to whoever knows the password, as Docker's specification says."""

    registry: Registry
    tls: Tls
    password: str
    requests: Counter[str] = field(default_factory=Counter)
    port: int = 0
    server: WebServer | None = None

    def __post_init__(self) -> None:
        self.port = free_port(self.registry.address)
        self.server = WebServer(
            self._handle, address=self.registry.address, port=self.port, context=self.tls.server_context()
        )

    def start(self) -> None:
        assert self.server is not None
        self.server.start()

    def stop(self) -> None:
        assert self.server is not None
        self.server.stop()

    def configuration(self) -> dict[str, Any]:
        trusted = self.registry.folder / "token-ca.crt"
        trusted.write_text(self.tls.ca_certificate)
        realm = f"https://{self.registry.host}:{self.port}/token"
        return {
            "token": {
                "realm": realm,
                "service": self._service,
                "issuer": _USER,
                "rootcertbundle": str(trusted),
            }
        }

    def token(self, repository: str, actions: Sequence[str]) -> str:
        """A JSON Web Token; the registry checks the certificate in it against its bundle."""
        certificate = x509.load_pem_x509_certificate(self.tls.pair.certificate.read_bytes())
        key = serialization.load_pem_private_key(self.tls.pair.key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        der = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        now = int(time.time())
        claims = {
            "iss": _USER,
            "sub": _USER,
            "aud": self._service,
            "iat": now,
            "nbf": now - 10,
            "exp": now + _TOKEN_SECONDS,
            "jti": secrets.token_hex(8),
            "access": [{"type": "repository", "name": repository, "actions": list(actions)}],
        }
        parts = [
            _url_base64(json.dumps(each).encode()) for each in ({"typ": "JWT", "alg": "ES256", "x5c": [der]}, claims)
        ]
        r, s = decode_dss_signature(key.sign(".".join(parts).encode(), ec.ECDSA(hashes.SHA256())))
        return ".".join([*parts, _url_base64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))])

    @property
    def _service(self) -> str:
        return f"{self.registry.host}:{self.registry.port}"

    async def _handle(self, request: web.Request) -> web.Response:
        self.requests[counted(request.method, request.path)] += 1
        login = base64.b64encode(f"{_USER}:{self.password}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {login}":
            return web.json_response({"details": "incorrect username or password"}, status=HTTPStatus.UNAUTHORIZED)
        kind, _, rest = request.query.get("scope", "").partition(":")
        repository, _, actions = rest.rpartition(":")
        if kind != "repository" or request.query.get("service") != self._service:
            return web.json_response({"details": "no such service or scope"}, status=HTTPStatus.BAD_REQUEST)
        token = self.token(repository, actions.split(","))
        return web.json_response({"token": token, "expires_in": _TOKEN_SECONDS})


def _descriptor(layer: Layer) -> dict[str, Any]:
    descriptor = {"mediaType": layer.media_type, "digest": _digest(layer.content), "size": len(layer.content)}
    return descriptor | ({"annotations": dict(layer.annotations)} if layer.annotations else {})


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _push(client: httpx.Client, repository: str, content: bytes) -> None:
    begun = client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status()
    where = httpx.URL(begun.headers["Location"]).copy_merge_params({"digest": _digest(content)})
    client.put(where, content=content, headers={"Content-Type": "application/octet-stream"}).raise_for_status()


def _url_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
