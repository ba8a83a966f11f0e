"""Every reason that a condition, an Event or an agent's report may give: a closed set, in the words of who must act."""

from enum import StrEnum


class Reason(StrEnum):
    """Why an object is in the state it is in."""

    # Fine, or on the way.
    SERVING = "Serving"
    PROGRESSING = "Progressing"
    STARTING = "Starting"
    FETCHING = "Fetching"
    LOADING = "Loading"
    SCALING = "Scaling"
    SUSPENDED = "Suspended"
    AS_EXPECTED = "AsExpected"
    NOT_OBSERVED = "NotObserved"
    NO_REPLICAS = "NoReplicas"
    SCALED_TO_ZERO = "ScaledToZero"

    # The cluster has no room: will go on when it has.
    WAITING_FOR_GPU = "WaitingForGPU"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA_BLOCKED = "QuotaBlocked"

    # The model.
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_ACCESS_DENIED = "SourceAccessDenied"
    SOURCE_NOT_ALLOWED = "SourceNotAllowed"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    SOURCE_TOO_LARGE = "SourceTooLarge"
    SOURCE_CHANGED = "SourceChanged"
    DIGEST_MISMATCH = "DigestMismatch"
    INVALID_MODEL = "InvalidModel"
    MODEL_NOT_ALLOWED = "ModelNotAllowed"
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    OUT_OF_GPU_MEMORY = "OutOfGPUMemory"

    # The pod.
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CRASH_LOOPING = "CrashLooping"
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    POD_REFUSED = "PodRefused"
    POD_FAILED = "PodFailed"
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    MODEL_CACHE_UNAVAILABLE = "ModelCacheUnavailable"
    NODE_LOST = "NodeLost"
    AGENT_UNREACHABLE = "AgentUnreachable"

    # A new revision.
    ROLLING_OUT = "RollingOut"
    AWAITING_PROMOTION = "AwaitingPromotion"
    ROLLOUT_PAUSED = "RolloutPaused"
    ANALYSING = "Analysing"
    ROLLING_BACK = "RollingBack"
    CANDIDATE_FAILED = "CandidateFailed"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    GOLDEN_SET_FAILED = "GoldenSetFailed"
    GOLDEN_SET_ERROR = "GoldenSetError"
    ANALYSIS_FAILED = "AnalysisFailed"
    SHADOWING = "Shadowing"
    SHADOW_DISAGREED = "ShadowDisagreed"
    ROLLOUT_ABORTED = "RolloutAborted"
    COMMAND_ACCEPTED = "CommandAccepted"
    COMMAND_REFUSED = "CommandRefused"

    # The gateways.
    ROUTING = "Routing"
    ROUTED = "Routed"
    NO_GATEWAY = "NoGateway"
    GATEWAY_SILENT = "GatewaySilent"
    ROUTE_REJECTED = "RouteRejected"
    PORTS_EXHAUSTED = "PortsExhausted"
    GATEWAY_API_MISSING = "GatewayAPIMissing"

    # The object.
    INVALID_SPEC = "InvalidSpec"
    NAME_CONFLICT = "NameConflict"
