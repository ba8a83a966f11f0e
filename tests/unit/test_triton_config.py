"""The served configuration: the author's, overlaid field by field, without what would hurt the server."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig

from conch.api.model import DynamicBatching, InstanceGroup, InstanceKind, ModelConfig
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
        instance_groups=(InstanceGroup(count=2, kind=InstanceKind.GPU), InstanceGroup()),
        parameters={"a": "2", "b": 'with "quotes" }'},
    )
    assert config.max_batch_size == 16
    batching = config.dynamic_batching
    assert list(batching.preferred_batch_size) == [4, 8]
    assert (batching.max_queue_delay_microseconds, batching.default_queue_policy.max_queue_size) == (50, 9)
    assert [(g.count, g.kind) for g in config.instance_group] == [(2, 1), (1, 0)]
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
