"""TLS of the models' ports: one certificate for all of them, which Envoy reads anew when its files change.

A listener only names the certificate (SDS), so another one changes no listener, and whoever is connected stays. Tried
on Envoy 1.40: all listeners share one subscription (two inotify instances in all), and files that Envoy cannot use are
logged and counted, while it goes on with the certificate that it has.
"""

import json
from pathlib import Path
from typing import Any, Final

CERTIFICATE: Final = "gateway-certificate"
"""What listeners call it."""
SDS_FILE: Final = "certificate/sds.json"
"""In the folder that Envoy watches; says where the certificate and its key are, and holds neither."""
CERTIFICATE_CHAIN: Final = "tls.crt"
PRIVATE_KEY: Final = "tls.key"
"""As Kubernetes' kind of Secret names them."""
SECRETS_TAKEN: Final = f"sds.{CERTIFICATE}.update_success"
"""A statistic: whether this Envoy has ever had a certificate that it could use."""
DAYS_LEFT: Final = "server.days_until_first_cert_expiring"

_TYPE: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_HANDSHAKE_TIMEOUT: Final = "15s"


def transport_socket(sds_config: dict[str, Any]) -> dict[str, Any]:
    """What a filter chain needs to speak TLS and nothing else; HTTP/2 and HTTP/1.1 are agreed on by ALPN."""
    return {
        "transport_socket_connect_timeout": _HANDSHAKE_TIMEOUT,
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TYPE}DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    "tls_certificate_sds_secret_configs": [{"name": CERTIFICATE, "sds_config": sds_config}],
                },
            },
        },
    }


def render_secret(folder: Path, version: str) -> str:
    """The file that listeners' certificate comes by. `folder` is a mounted Secret: it changes by a renamed link in it.

    Envoy follows that by itself, but for files that it could not use at its start; another `version` has it look again.
    """
    certificate = {
        "certificate_chain": {"filename": str(folder / CERTIFICATE_CHAIN)},
        "private_key": {"filename": str(folder / PRIVATE_KEY)},
        "watched_directory": {"path": str(folder)},
    }
    secret = {"@type": f"{_TYPE}Secret", "name": CERTIFICATE, "tls_certificate": certificate}
    return json.dumps({"version_info": version, "resources": [secret]}, indent=1) + "\n"
