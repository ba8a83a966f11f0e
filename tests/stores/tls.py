"""Certificates of stores."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.pki import Authority, KeyPair


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """A certificate with its key, and the certificate (PEM) of the CA that issued it."""

    pair: KeyPair
    ca_certificate: str

    def server_context(self) -> ssl.SSLContext:
        """For servers of our own."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pair.certificate, self.pair.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """For the tests' own requests, which go to an address instead of a name."""
        context = ssl.create_default_context(cadata=self.ca_certificate)
        context.check_hostname = False
        return context


def issue(folder: Path, *hosts: str) -> Tls:
    """A certificate for these names and addresses from a CA of its own."""
    authority = Authority(folder)
    pair = authority.issue("server", "server", hosts=hosts)
    return Tls(pair=pair, ca_certificate=authority.pair.certificate.read_text())
