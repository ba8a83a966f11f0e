"""What a model computes with where there is no GPU: so many threads as the container may use CPUs.

Triton and its backends look at the node, not at the container's limit: onnxruntime runs two instances by default, each
with a thread per core of the node. With a limit of two CPUs on a node of 64, that is 128 threads that take turns.
What the model's author says of instances or threads stands.

| backend | its parameters | each instance's threads |
| --- | --- | --- |
| onnxruntime | `intra_op_thread_count`, `inter_op_thread_count` | its own |
| pytorch | `INTRA_OP_THREAD_COUNT`, `INTER_OP_THREAD_COUNT` | its own |
| openvino | `INFERENCE_NUM_THREADS`, `NUM_STREAMS` | a stream of what all instances share |

Of other backends nothing is said: they have no such parameter, and one instance already.
"""

from decimal import Decimal
from typing import Any, Final

from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

_STREAMS: Final = "NUM_STREAMS"
_HINT: Final = "PERFORMANCE_HINT"
"""Of OpenVINO: it chooses the number of streams, too."""


def fit_to_cpus(config: Any, *, cpus: Decimal, instances: int | None) -> None:
    """Give the model one instance, and the instances their threads, where its configuration leaves that open.

    `config` names its backend; `instances` is how many each group has for now, None: as many as the configuration says.
    Threads are not changed with that number later: Triton would load the model again for them.
    """
    if config.backend not in ("onnxruntime", "pytorch", "openvino"):
        return
    if not config.instance_group:
        config.instance_group.add(kind=ModelInstanceGroup.KIND_CPU)
    for group in config.instance_group:
        group.count = group.count or 1
    at_once = sum(instances or group.count for group in config.instance_group if not group.passive)
    for key, number in _parameters(config, cpus=cpus, instances=max(1, at_once)).items():
        if key not in config.parameters:
            config.parameters[key].string_value = str(number)


def _parameters(config: Any, *, cpus: Decimal, instances: int) -> dict[str, int]:
    """
    >>> from tritonclient.grpc.model_config_pb2 import ModelConfig
    >>> _parameters(ModelConfig(backend="pytorch"), cpus=Decimal("7.5"), instances=2)
    {'INTRA_OP_THREAD_COUNT': 3, 'INTER_OP_THREAD_COUNT': 1}
    """
    each = max(1, int(cpus / instances))
    match config.backend:
        case "onnxruntime":
            return {"intra_op_thread_count": each, "inter_op_thread_count": 1}
        case "pytorch":
            return {"INTRA_OP_THREAD_COUNT": each, "INTER_OP_THREAD_COUNT": 1}
        case _:
            streams = {} if _HINT in config.parameters else {_STREAMS: instances}
            return {"INFERENCE_NUM_THREADS": max(1, int(cpus)), **streams}
