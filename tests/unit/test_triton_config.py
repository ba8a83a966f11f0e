"""The served configuration: the author's, overlaid field by field, without what would hurt the server."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig

from conch.api.batching import DynamicBatching, PriorityQueue, SequenceBatching, TimeoutAction
from conch.api.model import InstanceGroup, InstanceKind, ModelConfig
from conch.api.tensors import DataType, TensorSpec
from conch.triton.config_pbtxt import format_config, is_ensemble, loaded_layout, parse_config, served_config
from conch.triton.errors import InvalidModelError

AUTHOR = """
backend: "onnxruntime" max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 1 reshape { } label_filename: "labels.txt" }
version_policy { all { } }
instance_group { count: 4 kind: KIND_CPU }
model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { dims: 4 data_type: TYPE_FP32 random_data: true } } }
parameters { key: "a" value { string_value: "1" } }
"""


def served(author: str = AUTHOR, **overrides: object) -> TritonConfig:
    config = served_config(parse_config(author), ModelConfig(**overrides), name="mlp", version=3, layout="k")
    assert parse_config(format_config(config)) == config
    return config


def test_what_is_not_overridden_stays() -> None:
    config = served()
    expected = parse_config(AUTHOR)
    expected.name = "mlp"
    expected.version_policy.specific.versions[:] = [3]
    del expected.model_warmup[:]
    expected.parameters["conch_layout"].string_value = "k"
    assert config == expected
    assert loaded_layout(config) == "k"
    assert loaded_layout(expected.__class__()) is None


def test_overrides() -> None:
    config = served(
        max_batch_size=16,
        dynamic_batching=DynamicBatching(
            preferred_batch_sizes=(4, 8), max_queue_delay_microseconds=50, max_queue_size=9
        ),
        instance_groups=(InstanceGroup(count=2, kind=InstanceKind.GPU, gpus=(1, 3)), InstanceGroup()),
        parameters={"a": "2", "b": 'with "quotes" }'},
    )
    assert config.max_batch_size == 16
    batching = config.dynamic_batching
    assert list(batching.preferred_batch_size) == [4, 8]
    assert (batching.max_queue_delay_microseconds, batching.default_queue_policy.max_queue_size) == (50, 9)
    assert [(g.count, g.kind, list(g.gpus)) for g in config.instance_group] == [(2, 1, [1, 3]), (1, 0, [])]
    assert {k: v.string_value for k, v in config.parameters.items()} == {
        "a": "2",
        "b": 'with "quotes" }',
        "conch_layout": "k",
    }


@pytest.mark.parametrize(
    ("author", "size"),
    [
        ("dynamic_batching { }", 1000),
        ("dynamic_batching { default_queue_policy { max_queue_size: 5 } }", 5),
        ("max_batch_size: 4", None),
    ],
)
def test_a_queue_is_never_without_limit(author: str, size: int | None) -> None:
    config = served(author)
    assert config.HasField("dynamic_batching") is (size is not None)
    assert size is None or config.dynamic_batching.default_queue_policy.max_queue_size == size


def test_no_batches_means_no_batching() -> None:
    assert not served("max_batch_size: 4 dynamic_batching { }", max_batch_size=0).HasField("dynamic_batching")


def test_contradictions_are_said() -> None:
    with pytest.raises(InvalidModelError, match=r"set spec\.model\.name to 'other'"):
        served('name: "other"')
    with pytest.raises(InvalidModelError, match="uses sequence_batching"):
        served("sequence_batching { }", dynamic_batching=DynamicBatching())
    with pytest.raises(InvalidModelError, match=r"not valid: .*max_batch_sizes"):
        parse_config("max_batch_sizes: 3")


def test_ensembles() -> None:
    assert is_ensemble(parse_config('platform: "ensemble"'))
    assert is_ensemble(parse_config("ensemble_scheduling { }"))
    assert not is_ensemble(parse_config(AUTHOR))


def test_all_fields_survive_text_format() -> None:
    config = text_format.Parse(AUTHOR, TritonConfig())
    assert parse_config(format_config(config)) == config


def test_inputs_and_outputs_are_laid_over_by_name() -> None:
    config = served(
        inputs=(
            TensorSpec(name="x", data_type=DataType.FP16, dims=(-1, 4)),
            TensorSpec(name="words", data_type=DataType.BYTES, dims=(1,)),
        ),
        outputs=(TensorSpec(name="y", data_type=DataType.FP32, dims=(1,)),),
    )
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("x", 10, [-1, 4]), ("words", 13, [1])]
    (output,) = config.output
    assert (list(output.dims), output.HasField("reshape"), output.label_filename) == ([1], True, "labels.txt")
    changed = served(outputs=(TensorSpec(name="y", data_type=DataType.FP32, dims=(2,)),))
    assert not changed.output[0].HasField("reshape"), "it was made for other dims"


def test_how_requests_wait() -> None:
    config = served(
        "dynamic_batching { priority_queue_policy { key: 2 value { timeout_action: DELAY } } }",
        dynamic_batching=DynamicBatching(
            timeout_microseconds=500,
            timeout_action=TimeoutAction.DELAY,
            allow_timeout_override=True,
            preserve_ordering=False,
            priority_levels=3,
            default_priority_level=2,
            priority_queues=(
                PriorityQueue(level=1, max_queue_size=5, timeout_action=TimeoutAction.REJECT),
                PriorityQueue(level=3),
            ),
        ),
    )
    assert config == parse_config(
        """
        name: "mlp" version_policy { specific { versions: 3 } }
        parameters { key: "conch_layout" value { string_value: "k" } }
        dynamic_batching {
          preserve_ordering: false priority_levels: 3 default_priority_level: 2
          default_queue_policy {
            timeout_action: DELAY default_timeout_microseconds: 500 allow_timeout_override: true max_queue_size: 1000
          }
          priority_queue_policy { key: 1 value { max_queue_size: 5 } }
          priority_queue_policy { key: 2 value { timeout_action: DELAY max_queue_size: 1000 } }
          priority_queue_policy { key: 3 value { max_queue_size: 1000 } }
        }
        """
    )


def test_sequences() -> None:
    batching = SequenceBatching(max_sequence_idle_microseconds=7)
    assert served("max_batch_size: 4", sequence_batching=batching).sequence_batching.max_sequence_idle_microseconds == 7
    kept = served("sequence_batching { oldest { max_candidate_sequences: 4 } }", sequence_batching=batching)
    assert (
        kept.sequence_batching.oldest.max_candidate_sequences,
        kept.sequence_batching.max_sequence_idle_microseconds,
    ) == (
        4,
        7,
    )
    with pytest.raises(
        InvalidModelError, match=r"uses dynamic_batching, which excludes sequence batching; remove spec"
    ):
        served("dynamic_batching { }", sequence_batching=batching)


@pytest.mark.parametrize(
    ("author", "batching", "message"),
    [
        ("", DynamicBatching(priority_levels=2), "2 priority levels and requests without one get level 0; set"),
        ("dynamic_batching { priority_levels: 2 default_priority_level: 3 }", None, "get level 3"),
        (
            "dynamic_batching { priority_levels: 1 default_priority_level: 1 "
            "priority_queue_policy { key: 2 value { } } }",
            None,
            "a queue for priority level 2 and 1 priority levels",
        ),
        ("", DynamicBatching(priority_queues=(PriorityQueue(level=1),)), "has no priority levels, without which"),
    ],
)
def test_priorities_that_triton_would_refuse(author: str, batching: DynamicBatching | None, message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        served(author, dynamic_batching=batching)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'max_batch_size: 8\ninptu { name: "x" }\n',
            "line 2: Triton knows no field 'inptu' there; 'input' may be meant (in: inptu { name: \"x\" })",
        ),
        (
            'input {\n  name: "x"\n  datatype: TYPE_FP32\n}',
            "line 3: Triton knows no field 'datatype' there; 'data_type' may be meant (in: datatype: TYPE_FP32)",
        ),
        (
            'input {\n  name: "x"\n  data_type: TYPE_FLOAT32\n}',
            "line 3: Triton knows no TYPE_FLOAT32; 'TYPE_FP32' may be meant (in: data_type: TYPE_FLOAT32)",
        ),
        ('max_batch_size: "8"', 'line 1: Couldn\'t parse integer: "8" (in: max_batch_size: "8")'),
        ("\nmax_batch_size: 1\nmax_batch_size: 2", "line 3: 'max_batch_size' is there twice; remove one"),
        ('input { name: "x" ', 'line 1: Expected "}".'),
        (
            "max_batch_size: ${triton_max_batch_size}",
            "it looks like a template that was not filled in (in: max_batch_size: ${triton_max_batch_size})",
        ),
    ],
)
def test_a_mistake_in_the_text_is_told_with_its_line_and_field(text: str, message: str) -> None:
    with pytest.raises(InvalidModelError) as caught:
        parse_config(text)
    assert message in str(caught.value)


def test_a_step_without_a_version_means_the_highest() -> None:
    steps = 'step { model_name: "a" } step { model_name: "b" model_version: 3 }'
    author = parse_config(f'platform: "ensemble" ensemble_scheduling {{ {steps} }}')
    config = served_config(author, ModelConfig(), name="whole", version=1, layout="k")
    assert [step.model_version for step in config.ensemble_scheduling.step] == [-1, 3]
    assert not served_config(parse_config(""), ModelConfig(), name="a", version=1, layout="k").HasField(
        "ensemble_scheduling"
    )


def test_priorities_and_the_order_of_requests_exclude_each_other() -> None:
    both = "dynamic_batching { preserve_ordering: true priority_levels: 2 default_priority_level: 1 }"
    with pytest.raises(InvalidModelError, match="2 priority levels and is to keep the order of requests"):
        served(both)
    assert served(both.replace("priority_levels: 2", "priority_levels: 1")).dynamic_batching.preserve_ordering
