"""Certificates and kubeconfigs of one cluster: its own CA, and a key pair for each part that speaks to another."""

from __future__ import annotations

import base64
import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = datetime.timedelta(days=365)
_CLOCK_SLACK = datetime.timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """Where a certificate and its key lie."""

    certificate: Path
    key: Path


class Authority:
    """A CA whose files lie in one folder; every certificate that it issues works as client and as server."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("conch-cluster-ca")
        certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pair = KeyPair(certificate=folder / "ca.crt", key=folder / "ca.key")
        _write(self.pair, certificate, self._key)

    def issue(self, file_name: str, user: str, *, groups: Iterable[str] = (), hosts: Iterable[str] = ()) -> KeyPair:
        """A key pair for the Kubernetes user `user`; `hosts` are the DNS names and addresses it may serve at."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(user, groups), self._name, key.public_key()).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        if names := [_host(host) for host in hosts]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        pair = KeyPair(certificate=self._folder / f"{file_name}.crt", key=self._folder / f"{file_name}.key")
        _write(pair, builder.sign(self._key, hashes.SHA256()), key)
        return pair

    def service_account_key(self) -> Path:
        """The key that signs service account tokens."""
        path = self._folder / "service-accounts.key"
        _write_private(path, _pem(ec.generate_private_key(ec.SECP256R1())))
        return path


def kubeconfig(*, server: str, authority: KeyPair, client: KeyPair) -> str:
    """A kubeconfig with everything inline, so that it can be copied."""
    data = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "conch",
        "contexts": [{"name": "conch", "context": {"cluster": "conch", "user": "conch"}}],
        "clusters": [
            {
                "name": "conch",
                "cluster": {"server": server, "certificate-authority-data": _base64(authority.certificate)},
            }
        ],
        "users": [
            {
                "name": "conch",
                "user": {
                    "client-certificate-data": _base64(client.certificate),
                    "client-key-data": _base64(client.key),
                },
            }
        ],
    }
    return yaml.safe_dump(data, sort_keys=False)


def write_kubeconfig(path: Path, text: str) -> Path:
    """Written beside and renamed: a test that reads it meanwhile sees the old or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    _write_private(temporary, text.encode())
    return temporary.replace(path)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _name(user: str, groups: Iterable[str] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + _LIFETIME)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # Not PKCS #8: the API server finds no EC public key in one ("does not contain any valid RSA or ECDSA public keys").
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _write(pair: KeyPair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_private(pair.key, _pem(key))


def _write_private(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
