"""How a server proves to a person's command who it is, and the command to the server."""

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from conch.client.errors import ClientError

API_KEY_ENV: Final = "CONCH_API_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The server must show a certificate that names it."""

    ca_file: Path | None = None
    """Certificates (PEM) of the authorities to trust; None: those of this machine."""
    server_name: str | None = None
    """What the certificate must name; None: the host that is connected to."""

    def context(self) -> ssl.SSLContext:
        """For HTTP. Raises ClientError for a file without certificates."""
        try:
            return ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        except (OSError, ValueError) as error:
            raise ClientError(f"--ca-certificate {self.ca_file} holds no certificates in PEM: {error}") from error

    def channel_credentials(self) -> Any:
        """For gRPC, which comes with authorities of its own in place of the machine's. Raises ClientError."""
        trusted = self.context().get_ca_certs(binary_form=True)
        if self.ca_file:
            return grpc.ssl_channel_credentials(self.ca_file.read_bytes())
        # Where the machine keeps its own in a folder none is listed: then gRPC's.
        return grpc.ssl_channel_credentials("".join(map(ssl.DER_cert_to_PEM_cert, trusted)).encode() or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Both; nothing of it without TLS and keys."""

    tls: Tls | None = None
    api_key: str | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What goes with each request."""
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}


NOTHING: Final = Credentials()


def read_api_key(file: Path | None) -> str | None:
    """The key in the file's first line, else of the environment; None for none.

    What follows in the file are limits, as gateways read them. Raises ClientError for a key that cannot be sent.
    """
    try:
        key = (file.read_text() if file else os.environ.get(API_KEY_ENV, "")).strip().partition("\n")[0].strip()
    except (OSError, ValueError) as error:
        raise ClientError(f"--api-key-file {file} cannot be read: {error}") from error
    origin = f"--api-key-file {file}" if file else API_KEY_ENV
    if file and not key:
        raise ClientError(f"{origin} is empty.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ClientError(f"{origin} holds characters that no key has.")
    return key or None
