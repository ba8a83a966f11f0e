"""`spec.model`: which model, which version, from where, and what to change in its Triton configuration."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from conch.api.canonical import quantity
from conch.api.source import URI_MAX_LENGTH, Source, parse_source_uri
from conch.api.types import ApiModel, Digest, DnsName, Quantity


class ModelFormat(StrEnum):
    """How the fetched files are to be understood."""

    AUTO = "Auto"
    REPOSITORY = "Repository"
    ONNX = "ONNX"


class SecretReference(ApiModel):
    """A Secret of the object's namespace."""

    name: DnsName


class ModelSource(ApiModel):
    """Where the model's files are and, optionally, which files exactly."""

    uri: Annotated[
        str,
        Field(
            min_length=8,
            max_length=URI_MAX_LENGTH,
            description="s3://BUCKET/PATH, gs://BUCKET/PATH, az://ACCOUNT/CONTAINER/PATH, https://HOST/PATH, "
            "hf://ORGANISATION/NAME[/PATH][@REVISION], oci://REGISTRY/REPOSITORY[:TAG|@sha256:DIGEST] or "
            "pvc://CLAIM/PATH: a folder, a bare model file, or a tar, tar.gz, tar.zst or .zip. http:// only for hosts "
            "that the installation allows.",
        ),
    ]
    digest: Annotated[
        Digest | None,
        Field(
            description="Digest of the artefact's file tree. When given, nothing is loaded unless it matches; without "
            "it, what the first pod fetches is what all pods of the revision must have. `conch digest PATH` prints it; "
            "so does find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
        ),
    ] = None
    credentials_secret_ref: Annotated[
        SecretReference | None,
        Field(
            description="Secret that is mounted into the agent. Its keys: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_SESSION_TOKEN (s3); GOOGLE_SERVICE_ACCOUNT_KEY (gs); AZURE_STORAGE_ACCOUNT_KEY, "
            "AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET (az); HF_TOKEN (hf); "
            ".dockerconfigjson (oci); username and password, or token (https, oci); ca.crt to trust a private "
            "authority (all). Naming one needs the right to read it."
        ),
    ] = None
    endpoint: Annotated[
        str | None,
        Field(
            min_length=8,
            max_length=512,
            description="https://HOST[:PORT] of the store where it is not the provider's own (s3, gs, az, hf).",
        ),
    ] = None
    region: Annotated[
        str | None,
        Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="Region of an s3 bucket."),
    ] = None
    path_style: Annotated[
        bool,
        Field(description="Whether an s3 bucket is in the path (HOST/BUCKET/KEY) or in the host's name (BUCKET.HOST)."),
    ] = True

    @model_validator(mode="after")
    def _supported(self) -> Self:
        _ = self.place
        return self

    @property
    def place(self) -> Source:
        """The parsed source; raises SourceUriError."""
        return parse_source_uri(self.uri, endpoint=self.endpoint, region=self.region, path_style=self.path_style)


class ModelStorage(ApiModel):
    """A volume of its own for each pod's model files, for what does not fit a node's ephemeral disk."""

    size: Quantity
    storage_class_name: Annotated[
        DnsName | None, Field(description="StorageClass; the cluster's default when not given.")
    ] = None

    @field_validator("size")
    @classmethod
    def _holds_something(cls, size: str) -> str:
        if quantity(size) <= 0:
            raise ValueError("a volume of 0 holds no model; give its size")
        return size


class DynamicBatching(ApiModel):
    """Triton's dynamic batcher: requests that arrive together are executed together."""

    preferred_batch_sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...] | None, Field(max_length=16)] = (
        None
    )
    max_queue_delay_microseconds: Annotated[int, Field(ge=0, le=60_000_000)] | None = None
    max_queue_size: Annotated[
        int | None, Field(ge=1, le=1_000_000, description="Requests waiting before Triton answers 503 / UNAVAILABLE.")
    ] = None


class InstanceKind(StrEnum):
    """What an instance of the model runs on."""

    AUTO = "Auto"
    CPU = "CPU"
    GPU = "GPU"


class InstanceGroup(ApiModel):
    """How many copies of the model one server runs, and on what."""

    count: Annotated[int, Field(ge=1, le=64)] = 1
    kind: InstanceKind = InstanceKind.AUTO


class ModelConfig(ApiModel):
    """Overrides of the model's `config.pbtxt`; what is not named here stays as the model's author wrote it."""

    max_batch_size: Annotated[int, Field(ge=0, le=65536)] | None = None
    dynamic_batching: DynamicBatching | None = None
    instance_groups: Annotated[tuple[InstanceGroup, ...] | None, Field(min_length=1, max_length=8)] = None
    parameters: Annotated[
        dict[Annotated[str, Field(max_length=128)], Annotated[str, Field(max_length=1024)]] | None, Field(max_length=64)
    ] = None


class Model(ApiModel):
    """The model that is served."""

    name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=63,
            pattern=r"^[a-z0-9]([-a-z0-9_]*)$",
            description="Triton's name of the model, as clients call it. Default: the object's name.",
        ),
    ] = None
    version: Annotated[int, Field(ge=1, le=2**31 - 1, description="The version served (Triton's version directory).")]
    source: ModelSource
    storage: ModelStorage | None = None
    format: ModelFormat = ModelFormat.AUTO
    config: ModelConfig | None = None

    def named(self, default: str) -> Self:
        """The same model with its name filled in."""
        return self if self.name else self.model_copy(update={"name": default})
