"""What an agent is told by its pod, and nothing more."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Self

from conch.api import pod


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """The agent's surroundings; the defaults are those of a model pod."""

    admin_key: str = field(repr=False)
    pod_name: str = ""
    """As the pod's hostname says it: a change names the pods that it is the turn of."""
    assignment_file: Path = Path(pod.ASSIGNMENT_FOLDER, pod.ASSIGNMENT_FILE)
    model_folder: Path = Path(pod.MODEL_FOLDER)
    claim_folder: Path = Path(pod.SOURCE_CLAIM_FOLDER)
    credentials_folder: Path = Path(pod.CREDENTIALS_FOLDER)
    further_claims_folder: Path = Path(pod.FURTHER_CLAIMS_FOLDER)
    further_credentials_folder: Path = Path(pod.FURTHER_CREDENTIALS_FOLDER)
    cache_folder: Path = Path(pod.CACHE_FOLDER)
    cache_bytes: int | None = None
    """What the model cache may take of its volume; None: there is none."""
    host: str = "0.0.0.0"  # noqa: S104 - the operator and the kubelet's probes come from outside of the pod
    port: int = pod.AGENT_PORT
    triton_address: str = f"127.0.0.1:{pod.GRPC_PORT}"
    triton_metrics_address: str = f"127.0.0.1:{pod.METRICS_PORT}"
    triton_image: str = "of this pod"
    """The image that Triton runs from, for messages."""
    propagation_seconds: float = 5.0
    drain_seconds: float = 60.0
    poll_seconds: float = 1.0
    load_timeout_seconds: float = 3600.0
    limit_bytes: int = 1 << 40
    """Bound on what one model takes on the volume, its archive included; the operator gives the volume's own limit."""
    triton_cpus: Decimal | None = None
    """How many CPUs Triton may use, where models compute on them; None on pods with a GPU and on older ones."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Settings of this process; raises SystemExit with what is missing."""
        key = env.get(pod.ADMIN_KEY_ENV, "")
        if not key:
            raise SystemExit(f"{pod.ADMIN_KEY_ENV} is not set: the agent runs in a model pod made by the operator")
        defaults = cls(admin_key=key)
        return cls(
            admin_key=key,
            pod_name=env.get(pod.POD_NAME_ENV, ""),
            assignment_file=Path(env.get("CONCH_ASSIGNMENT_FILE", defaults.assignment_file)),
            model_folder=Path(env.get("CONCH_MODEL_FOLDER", defaults.model_folder)),
            claim_folder=Path(env.get("CONCH_CLAIM_FOLDER", defaults.claim_folder)),
            credentials_folder=Path(env.get("CONCH_CREDENTIALS_FOLDER", defaults.credentials_folder)),
            further_claims_folder=Path(env.get("CONCH_FURTHER_CLAIMS_FOLDER", defaults.further_claims_folder)),
            further_credentials_folder=Path(
                env.get("CONCH_FURTHER_CREDENTIALS_FOLDER", defaults.further_credentials_folder)
            ),
            cache_folder=Path(env.get("CONCH_CACHE_FOLDER", defaults.cache_folder)),
            cache_bytes=int(env[pod.CACHE_BYTES_ENV]) if env.get(pod.CACHE_BYTES_ENV) else None,
            host=env.get("CONCH_AGENT_HOST", defaults.host),
            port=int(env.get("CONCH_AGENT_PORT", defaults.port)),
            triton_address=env.get("CONCH_TRITON_ADDRESS", defaults.triton_address),
            triton_metrics_address=env.get("CONCH_TRITON_METRICS_ADDRESS", defaults.triton_metrics_address),
            triton_image=env.get(pod.TRITON_IMAGE_ENV, defaults.triton_image),
            propagation_seconds=float(env.get(pod.PROPAGATION_ENV, defaults.propagation_seconds)),
            drain_seconds=float(env.get(pod.DRAIN_ENV, defaults.drain_seconds)),
            limit_bytes=int(env.get(pod.MODEL_BYTES_ENV, defaults.limit_bytes)),
            triton_cpus=Decimal(env[pod.TRITON_CPUS_ENV]) if pod.TRITON_CPUS_ENV in env else None,
        )

    @property
    def repository(self) -> Path:
        """Triton's model repository: one folder, the assigned model."""
        return self.model_folder / "repository"
