"""What a gateway's sidecar is told by its pod, and nothing more."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from conch.api import gateway_pod
from conch.gateway.envoy.external_authorization import ExternalAuthorization
from conch.gateway.envoy.listener import HEADER_KIB_DEFAULT

POD_NAME_ENV: Final = "CONCH_POD_NAME"
POD_ADDRESS_ENV: Final = "CONCH_POD_IP"
NAMESPACE_ENV: Final = "CONCH_NAMESPACE"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """The sidecar's surroundings; the defaults are those of a gateway pod."""

    pod: str
    namespace: str
    address: str
    """The pod's IP address: by it public EndpointSlices name this gateway."""
    token_file: Path = Path(gateway_pod.TOKEN_FILE)
    config_folder: Path = Path(gateway_pod.CONFIG_FOLDER)
    bind_address: str = "0.0.0.0"  # noqa: S104 - operator, kubelet and clients come from outside of the pod
    report_port: int = gateway_pod.REPORT_PORT
    admin_port: int = gateway_pod.ADMIN_PORT
    hold_port: int = gateway_pod.HOLD_PORT
    access_log: bool = False
    header_kib_most: int = HEADER_KIB_DEFAULT
    """All headers of a request together."""
    tls_folder: Path | None = None
    """Where the certificate of the models' ports and its key are mounted; None without TLS."""
    api_keys_folder: Path | None = None
    """Where clients' API keys are mounted; None: everybody is let in."""
    authorization: ExternalAuthorization | None = None
    """Who is asked about every request; None for nobody."""
    envoy_memory_bytes: int | None = None
    """The memory limit of Envoy's container; None if it has none."""
    unlisted_seconds: float = 60.0
    """How long a gateway that leaves waits until no public slice names it any more."""
    drain_seconds: float = 600.0
    """How long it waits after that for the requests that it has."""
    idle_seconds: float = 5.0
    """How long nothing may have come since then; connections that are only kept open do not count."""
    log_format: Literal["json", "console"] = "json"
    log_level: str = "info"

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Settings of this process; raises SystemExit with what is missing or cannot be read."""
        needed = {name: env.get(name, "") for name in (POD_NAME_ENV, POD_ADDRESS_ENV, NAMESPACE_ENV)}
        if missing := [name for name, value in needed.items() if not value]:
            raise SystemExit(f"{', '.join(missing)} not set: the gateway runs in a pod of Conch's chart")
        default = cls(pod=needed[POD_NAME_ENV], namespace=needed[NAMESPACE_ENV], address=needed[POD_ADDRESS_ENV])
        try:
            return cls(
                pod=default.pod,
                namespace=default.namespace,
                address=default.address,
                token_file=Path(env.get("CONCH_GATEWAY_TOKEN_FILE", default.token_file)),
                config_folder=Path(env.get("CONCH_GATEWAY_CONFIG_FOLDER", default.config_folder)),
                bind_address=env.get("CONCH_GATEWAY_BIND_ADDRESS", default.bind_address),
                report_port=int(env.get("CONCH_GATEWAY_REPORT_PORT", default.report_port)),
                admin_port=int(env.get("CONCH_GATEWAY_ADMIN_PORT", default.admin_port)),
                hold_port=int(env.get("CONCH_GATEWAY_HOLD_PORT", default.hold_port)),
                header_kib_most=int(env.get("CONCH_GATEWAY_MAX_REQUEST_HEADERS_KIB", default.header_kib_most)),
                envoy_memory_bytes=int(env.get("CONCH_GATEWAY_ENVOY_HEAP_BYTES", 0)) or None,
                tls_folder=_folder(env.get("CONCH_GATEWAY_TLS_FOLDER", "")),
                api_keys_folder=_folder(env.get("CONCH_GATEWAY_API_KEYS_FOLDER", "")),
                authorization=_authorization(env),
                access_log=_flag(env, "CONCH_GATEWAY_ACCESS_LOG"),
                unlisted_seconds=float(env.get("CONCH_GATEWAY_UNLISTED_SECONDS", default.unlisted_seconds)),
                drain_seconds=float(env.get("CONCH_GATEWAY_DRAIN_SECONDS", default.drain_seconds)),
                idle_seconds=float(env.get("CONCH_GATEWAY_IDLE_SECONDS", default.idle_seconds)),
                log_format="console" if env.get("CONCH_LOG_FORMAT") == "console" else "json",
                log_level=env.get("CONCH_LOG_LEVEL", default.log_level),
            )
        except ValueError as error:
            raise SystemExit(f"the gateway's environment: {error}") from error

    @property
    def bootstrap_file(self) -> Path:
        """What Envoy is started with."""
        return self.config_folder / gateway_pod.BOOTSTRAP_FILE

    @property
    def dynamic_folder(self) -> Path:
        """What Envoy watches."""
        return self.config_folder / gateway_pod.DYNAMIC_FOLDER


def _folder(text: str) -> Path | None:
    return Path(text) if text else None


def _authorization(env: Mapping[str, str]) -> ExternalAuthorization | None:
    address = env.get("CONCH_GATEWAY_AUTHORIZATION_ADDRESS", "")
    if not address:
        return None
    host, _, port = address.rpartition(":")
    ca_file = env.get("CONCH_GATEWAY_AUTHORIZATION_CA_FILE", "")
    return ExternalAuthorization(
        host=host,
        port=int(port),
        timeout_milliseconds=int(env["CONCH_GATEWAY_AUTHORIZATION_TIMEOUT_MS"]),
        tls=_flag(env, "CONCH_GATEWAY_AUTHORIZATION_TLS"),
        ca_file=Path(ca_file) if ca_file else None,
    )


def _flag(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name, "false")
    if text not in ("true", "false"):
        raise ValueError(f"{name} is {text!r}: true or false is needed")
    return text == "true"
