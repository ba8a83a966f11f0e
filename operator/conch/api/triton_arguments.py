"""The command line of Triton in a model pod: the operator renders it, the contract tests run it."""

from typing import Final

from conch.api.pod import ADMIN_KEY_HEADER, GRPC_PORT, HTTP_PORT, METRICS_PORT, RESTRICTED_APIS
from conch.api.runtime import LogLevel

MODEL_LOAD_THREADS: Final = 2


def triton_arguments(
    *,
    repository: str,
    admin_key: str,
    exit_timeout_seconds: int,
    log_level: LogLevel = LogLevel(),  # noqa: B008 - immutable
    http_port: int = HTTP_PORT,
    grpc_port: int = GRPC_PORT,
    metrics_port: int = METRICS_PORT,
    address: str | None = None,
) -> tuple[str, ...]:
    """Arguments of `tritonserver`; `admin_key` may be the kubelet's `$(VARIABLE)`. Default address: all interfaces.

    Explicit mode and no model: only so do Triton's HTTP server and its signal handlers start before the first load.
    The agent loads afterwards; only who has the key can use the APIs that read or change what is served.
    """
    restricted = f"{','.join(RESTRICTED_APIS)}:{ADMIN_KEY_HEADER}={admin_key}"
    return (
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        f"--model-load-thread-count={MODEL_LOAD_THREADS}",
        f"--exit-timeout-secs={exit_timeout_seconds}",
        f"--http-port={http_port}",
        f"--grpc-port={grpc_port}",
        f"--metrics-port={metrics_port}",
        *((f"--http-address={address}", f"--grpc-address={address}") if address else ()),
        f"--http-restricted-api={restricted}",
        f"--grpc-restricted-protocol={restricted}",
        "--allow-sagemaker=false",
        "--allow-vertex-ai=false",
        f"--log-verbose={log_level.verbose}",
        f"--log-info={str(log_level.info).lower()}",
    )
