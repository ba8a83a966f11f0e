"""`spec.model`: which model, which version, from where, and what to change in its Triton configuration."""

from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field, field_validator, model_validator

from conch.api.batching import DynamicBatching, SequenceBatching
from conch.api.canonical import quantity
from conch.api.cel import Rule, rules
from conch.api.source import URI_MAX_LENGTH, ClaimSource, Source, parse_source_uri
from conch.api.source_rules import SOURCE_RULES
from conch.api.tensors import Tensors
from conch.api.types import ApiModel, Digest, DnsName, Quantity

ModelName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9_]*)$")]
FURTHER_MODELS_MOST: Final = 7

_ONE_SCHEDULER: Final = (
    "a model has one scheduler: remove config.dynamicBatching, or config.sequenceBatching for a model that takes no "
    "sequences"
)
_TORCHSCRIPT_TELLS_NOTHING: Final = (
    "a TorchScript file does not tell what it takes and gives: give config.inputs and config.outputs, each with name, "
    "dataType and dims"
)


class ModelFormat(StrEnum):
    """How the fetched files are to be understood."""

    AUTO = "Auto"
    REPOSITORY = "Repository"
    ONNX = "ONNX"
    TORCHSCRIPT = "TorchScript"
    TENSORRT = "TensorRT"
    PYTHON = "Python"


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

    @property
    def claim(self) -> str | None:
        """The PersistentVolumeClaim that the files lie on, of a pvc:// source."""
        place = self.place
        return place.claim if isinstance(place, ClaimSource) else None


class ModelStorage(ApiModel):
    """A volume of its own for each pod's model files, for what does not fit a node's ephemeral disk."""

    size: Annotated[Quantity, Field(description="Of each pod's volume; models may take 95 % of it.")]
    storage_class_name: Annotated[
        DnsName | None, Field(description="StorageClass; the cluster's default when not given.")
    ] = None

    @field_validator("size")
    @classmethod
    def _holds_something(cls, size: str) -> str:
        if quantity(size) <= 0:
            raise ValueError("a volume of 0 holds no model; give its size")
        return size


class InstanceKind(StrEnum):
    """What an instance of the model runs on."""

    AUTO = "Auto"
    CPU = "CPU"
    GPU = "GPU"


GPUS_MOST: Final = 16
"""Of one replica."""
GPUS_NEED_KIND: Final = "gpus are those of a group of kind GPU; set kind: GPU, or remove gpus"


class InstanceGroup(ApiModel):
    """How many copies of the model one server runs, and on what."""

    count: Annotated[int, Field(ge=1, le=64, description="Copies; of a group on GPUs, on each of its GPUs.")] = 1
    kind: InstanceKind = InstanceKind.AUTO
    gpus: Annotated[
        tuple[Annotated[int, Field(ge=0, le=GPUS_MOST - 1)], ...] | None,
        Field(
            min_length=1,
            max_length=GPUS_MOST,
            description="Which of the pod's GPUs, from 0 on. All of them if not given.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None

    @model_validator(mode="after")
    def _on_gpus(self) -> Self:
        if self.gpus is not None and self.kind is not InstanceKind.GPU:
            raise ValueError(GPUS_NEED_KIND)
        return self


_GROUP_RULES: Final = rules(Rule(rule="!has(self.gpus) || self.kind == 'GPU'", message=GPUS_NEED_KIND))


class ModelConfig(
    ApiModel,
    json_schema_extra=rules(
        Rule(rule="!has(self.dynamicBatching) || !has(self.sequenceBatching)", message=_ONE_SCHEDULER),
    ),
):
    """Overrides of the model's `config.pbtxt`; what is not named here stays as the model's author wrote it."""

    max_batch_size: Annotated[
        int | None,
        Field(ge=0, le=65536, description="Most samples that are executed together; 0: the model takes no batches."),
    ] = None
    inputs: Annotated[
        Tensors | None,
        Field(description="Inputs that the model's files do not tell, or tell differently; the others stay."),
    ] = None
    outputs: Annotated[
        Tensors | None,
        Field(description="Outputs that the model's files do not tell, or tell differently; the others stay."),
    ] = None
    dynamic_batching: DynamicBatching | None = None
    sequence_batching: SequenceBatching | None = None
    instance_groups: Annotated[
        tuple[Annotated[InstanceGroup, Field(json_schema_extra=_GROUP_RULES)], ...] | None,
        Field(
            min_length=1, max_length=8, description="Copies of the model in one server, in the place of its author's."
        ),
    ] = None
    parameters: Annotated[
        dict[Annotated[str, Field(max_length=128)], Annotated[str, Field(max_length=1024)]] | None,
        Field(max_length=64, description="Of the backend, over those of config.pbtxt."),
    ] = None

    @model_validator(mode="after")
    def _has_one_scheduler(self) -> Self:
        if self.dynamic_batching is not None and self.sequence_batching is not None:
            raise ValueError(_ONE_SCHEDULER)
        return self


class ServedModel(
    ApiModel,
    json_schema_extra=rules(
        *SOURCE_RULES,
        Rule(
            rule="self.format != 'TorchScript'"
            " || (has(self.config) && has(self.config.inputs) && has(self.config.outputs))",
            message=_TORCHSCRIPT_TELLS_NOTHING,
        ),
    ),
):
    """What makes one model of a pod."""

    version: Annotated[int, Field(ge=1, le=2**31 - 1, description="The version served (Triton's version directory).")]
    source: ModelSource
    format: Annotated[
        ModelFormat,
        Field(
            description="What a file without a Triton configuration is: ONNX, TorchScript, TensorRT (a plan), or "
            "Python (model.py and its helper files). Repository: only a Triton model directory or repository. Auto: by "
            "the files' names."
        ),
    ] = ModelFormat.AUTO
    config: ModelConfig | None = None

    @model_validator(mode="after")
    def _tells_what_it_takes(self) -> Self:
        told = self.config is not None and self.config.inputs is not None and self.config.outputs is not None
        if self.format is ModelFormat.TORCHSCRIPT and not told:
            raise ValueError(_TORCHSCRIPT_TELLS_NOTHING)
        return self


class Model(ServedModel):
    """The model that is served."""

    name: Annotated[
        ModelName | None,
        Field(description="Triton's name of the model, as clients call it. Default: the object's name."),
    ] = None
    storage: ModelStorage | None = None
    gpu_memory: Annotated[
        Quantity | None,
        Field(description="What the model takes of its GPU, when known: whether it fits beside the one that serves."),
    ] = None

    def named(self, default: str) -> Self:
        """The same model with its name filled in."""
        return self if self.name else self.model_copy(update={"name": default})


class FurtherModel(ServedModel):
    """A model that every pod serves as well: a step of the ensemble that `model` is, or one of its own."""

    name: Annotated[ModelName, Field(description="Triton's name of the model, as clients and ensembles call it.")]
