"""The inside of a model pod: ports, paths and environment that operator, agent and Triton agree on."""

from typing import Final

TRITON_CONTAINER: Final = "triton"
AGENT_CONTAINER: Final = "agent"

HTTP_PORT: Final = 8000
GRPC_PORT: Final = 8001
METRICS_PORT: Final = 8002
AGENT_PORT: Final = 8080

ASSIGNMENT_FOLDER: Final = "/etc/conch/assignment"
ASSIGNMENT_FILE: Final = "assignment.json"
MODEL_FOLDER: Final = "/var/lib/conch"
"""One volume: the agent fetches, verifies and lays out on it; Triton mounts it read-only."""
REPOSITORY_FOLDER: Final = f"{MODEL_FOLDER}/repository"
SOURCE_CLAIM_FOLDER: Final = "/source"
"""Where the claim of a pvc:// source lies, in both containers: the agent verifies it, Triton reads it in place."""
CACHE_FOLDER: Final = "/var/lib/conch-cache"
"""Where the model cache lies, in both containers: the agent fills it, Triton reads it in place."""
CREDENTIALS_FOLDER: Final = "/etc/conch/source-credentials"
FURTHER_CLAIMS_FOLDER: Final = "/further-sources"
"""Of further models: a folder for each claim that is not the first model's."""
FURTHER_CREDENTIALS_FOLDER: Final = "/etc/conch/further-credentials"
"""Of further models: a folder for each Secret that is not the first model's."""

MODEL_BYTES_ENV: Final = "CONCH_MODEL_BYTES_MOST"
"""Size of the model's volume: beyond it the kubelet evicts the pod, so the agent refuses to fill it."""
TRITON_IMAGE_ENV: Final = "CONCH_TRITON_IMAGE"
"""Tells the agent what Triton beside it runs from, so that it can say which image lacks a model's backend."""

POD_NAME_ENV: Final = "CONCH_POD_NAME"
"""Tells the agent which pod it is in: whose turn it is to change its model in place is told by name."""

TRITON_CPUS_ENV: Final = "CONCH_TRITON_CPUS"
"""How many CPUs the Triton container may use, where the pod has no GPU; an older operator's pods do not tell."""

CACHE_BYTES_ENV: Final = "CONCH_CACHE_BYTES_MOST"
"""What the model cache may take of its volume; without it there is none."""

LEAVE_PATH: Final = "/leave"
"""Of the agent: the kubelet asks it before it ends Triton, and the answer comes when nobody uses the pod any more."""
PROPAGATION_ENV: Final = "CONCH_ENDPOINT_PROPAGATION_SECONDS"
DRAIN_ENV: Final = "CONCH_DRAIN_TIMEOUT_SECONDS"

ADMIN_KEY_ENV: Final = "CONCH_ADMIN_KEY"
ADMIN_KEY_HEADER: Final = "conch-admin-key"
"""Header of Triton's restricted APIs: as it stands over HTTP, with `triton-grpc-protocol-` before it over gRPC."""
RESTRICTED_APIS: Final = ("model-repository", "model-config", "shared-memory", "trace", "logging")

USER_ID: Final = 1000
