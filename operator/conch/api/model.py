"""`spec.model`: which model, which version, from where, and what to change in its Triton configuration."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, field_validator

from conch.api.source import URI_MAX_LENGTH, parse_source_uri
from conch.api.types import ApiModel, Digest


class ModelFormat(StrEnum):
    """How the fetched files are to be understood."""

    AUTO = "Auto"
    REPOSITORY = "Repository"
    ONNX = "ONNX"


class ModelSource(ApiModel):
    """Where the model's files are and, optionally, which files exactly."""

    uri: Annotated[
        str,
        Field(
            min_length=8,
            max_length=URI_MAX_LENGTH,
            description="https://HOST/PATH (a bare .onnx file, a tar, tar.gz or tar.zst, or a .zip) or "
            "pvc://CLAIM/PATH (also a folder); http:// only for hosts that the installation allows.",
        ),
    ]
    digest: Annotated[
        Digest | None,
        Field(
            description="Digest of the artefact's file tree. When given, nothing is loaded unless it matches: "
            "find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
        ),
    ] = None

    @field_validator("uri")
    @classmethod
    def _supported(cls, uri: str) -> str:
        parse_source_uri(uri)
        return uri


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
    format: ModelFormat = ModelFormat.AUTO
    config: ModelConfig | None = None

    def named(self, default: str) -> Self:
        """The same model with its name filled in."""
        return self if self.name else self.model_copy(update={"name": default})
