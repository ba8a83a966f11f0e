"""The inside of a gateway pod: ports, paths and environment that chart, operator, sidecar and Envoy agree on."""

from typing import Final

ENVOY_CONTAINER: Final = "envoy"
SIDECAR_CONTAINER: Final = "gateway"

REPORT_PORT: Final = 8080
"""The sidecar: health for the kubelet, metrics, and (with the gateways' token) traffic for the operator."""
ADMIN_PORT: Final = 9901
"""Envoy's administration, on loopback."""
HOLD_PORT: Final = 9902
"""Where Envoy asks the sidecar whether a request may go on, and sends it copies of requests; on loopback."""

CONFIG_FOLDER: Final = "/var/lib/conch-gateway"
"""The sidecar writes Envoy's files, Envoy reads them; one volume of the pod's own."""
BOOTSTRAP_FILE: Final = "bootstrap.json"
DYNAMIC_FOLDER: Final = "dynamic"
"""Inside of CONFIG_FOLDER: what Envoy watches."""

TOKEN_FILE: Final = "/etc/conch/gateway-token/token"  # noqa: S105 - a path, not a secret
"""In operator and gateway pods: what the operator shows to a gateway."""

TLS_FOLDER: Final = "/etc/conch/gateway-tls"
"""Where the Secret with the certificate of the models' ports is mounted, if there is one."""
API_KEYS_FOLDER: Final = "/etc/conch/gateway-api-keys"
"""Where the Secret with clients' API keys is mounted, if there is one; in the sidecar only."""
AUTHORIZATION_FOLDER: Final = "/etc/conch/gateway-authorization"
"""In Envoy's container: `ca.crt`, whom to trust as the authorisation service, if its authority is a private one."""

PORTS_FIRST: Final = 10_000
PORTS_LAST: Final = 19_999
"""Where models' ports are if the chart does not say otherwise: below what kernels give to clients (32768-60999)."""
