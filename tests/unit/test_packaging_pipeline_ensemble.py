"""The parts of a pipeline fit, tensor by tensor, or a message names the step and the tensor; then it is an ensemble."""

from collections.abc import Mapping
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig

from conch.packaging.errors import PackagingError
from conch.packaging.pipeline.ensemble import ensemble_config
from conch.packaging.pipeline.steps import Pipeline, TensorType, tensor_type
from conch.packaging.pipeline.wiring import check_wiring

Types = Mapping[str, str]
MODELS: dict[str, tuple[Types, Types]] = {
    "collect": ({"RECORD": "BYTES[1]"}, {"PIXELS": "FP32[-1, 28]", "ID": "INT64[1]"}),
    "scale": ({"raw": "FP32[14, -1]"}, {"scaled": "FP32[14, 28]"}),
    "infer": ({"x": "FP32[14, 28]"}, {"scores": "FP32[10]", "features": "FP32[64]"}),
    "decide": ({"s": "FP32[10]", "id": "INT64[1]"}, {"LABEL": "BYTES[1]", "DECISION": "BOOL[1]"}),
}
STEPS: dict[str, tuple[dict[str, str], dict[str, str | None]]] = {
    "collect": ({"RECORD": "RECORD"}, {"PIXELS": "pixels", "ID": "id"}),
    "scale": ({"raw": "pixels"}, {"scaled": "scaled"}),
    "infer": ({"x": "scaled"}, {"scores": "scores", "features": None}),
    "decide": ({"s": "scores", "id": "id"}, {"LABEL": "LABEL", "DECISION": "DECISION"}),
}


def pipeline(**changes: Any) -> Pipeline:
    steps = STEPS | changes.pop("steps", {})
    body = {
        "name": "inspection",
        "inputs": ["RECORD"],
        "outputs": ["LABEL", "DECISION"],
        "max_batch_size": 8,
        "steps": [
            {"name": name, "model": f"{name}.onnx", "inputs": inputs, "outputs": outputs}
            for name, (inputs, outputs) in steps.items()
        ],
    }
    return Pipeline.model_validate(body | changes)


def configs(sizes: Mapping[str, int] | None = None, **models: tuple[Types, Types]) -> dict[str, Any]:
    return {
        name: config(inputs, outputs, (sizes or {}).get(name, 8))
        for name, (inputs, outputs) in (MODELS | models).items()
    }


def config(inputs: Types, outputs: Types, max_batch_size: int = 8) -> Any:
    made = TritonConfig(max_batch_size=max_batch_size)
    for entries, types in ((made.input, inputs), (made.output, outputs)):
        for name, text in types.items():
            kind = tensor_type(text)
            enum = f"TYPE_{'STRING' if kind.datatype == 'BYTES' else kind.datatype}"
            entries.add(name=name, data_type=model_config_pb2.DataType.Value(enum), dims=kind.dims)
    return made


def test_a_pipeline_that_fits() -> None:
    wiring = check_wiring(pipeline(), configs())
    # Of what one knows of the first length and the other of the second, both.
    assert wiring.types["pixels"] == TensorType("FP32", (14, 28))
    assert set(wiring.types) == {"RECORD", "pixels", "id", "scaled", "scores", "LABEL", "DECISION"}
    ensemble = ensemble_config(pipeline(), wiring)
    assert (ensemble.name, ensemble.platform, ensemble.max_batch_size) == ("inspection", "ensemble", 8)
    name = model_config_pb2.DataType.Name
    assert [(each.name, name(each.data_type), list(each.dims)) for each in (*ensemble.input, *ensemble.output)] == [
        ("RECORD", "TYPE_STRING", [1]),
        ("LABEL", "TYPE_STRING", [1]),
        ("DECISION", "TYPE_BOOL", [1]),
    ]
    steps = ensemble.ensemble_scheduling.step
    assert [(each.model_name, each.model_version) for each in steps] == [
        (f"inspection_{step}", -1) for step in ("collect", "scale", "infer", "decide")
    ]
    assert dict(steps[0].output_map) == {"PIXELS": "pixels", "ID": "id"}
    assert (dict(steps[2].input_map), dict(steps[2].output_map)) == ({"x": "scaled"}, {"scores": "scores"})


def test_the_order_in_the_file_says_nothing_and_a_value_may_be_used_twice() -> None:
    backwards = pipeline(steps=dict(reversed(STEPS.items())))
    assert check_wiring(backwards, configs()).types == check_wiring(pipeline(), configs()).types
    both = pipeline(outputs=["LABEL", "DECISION", "id", "scores"])
    assert ensemble_config(both, check_wiring(both, configs())).output[2].name == "id"


def test_a_model_for_larger_batches_and_one_without_batches() -> None:
    check_wiring(pipeline(), configs({"infer": 64}))
    check_wiring(pipeline(max_batch_size=0), configs(dict.fromkeys(MODELS, 0)))


def test_an_input_that_the_model_can_do_without() -> None:
    found = configs(infer=({"x": "FP32[14, 28]", "mask": "FP32[1]"}, MODELS["infer"][1]))
    with pytest.raises(PackagingError, match=r"step 'infer': its model infer.onnx also takes mask; say which value"):
        check_wiring(pipeline(), found)
    found["infer"].input[1].optional = True
    assert "mask" not in check_wiring(pipeline(), found).types


COLLECT, SCALE, INFER, DECIDE = STEPS.values()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"steps": {"infer": ({"x": "scald"}, INFER[1])}},
            "step 'infer', tensor x takes the value 'scald', which nobody gives; 'scaled' is meant?",
        ),
        (
            {"steps": {"infer": ({"x": "zzz"}, INFER[1])}},
            "which nobody gives; there are RECORD, pixels, id, scaled, scores, LABEL, DECISION",
        ),
        (
            {"steps": {"infer": ({"input": "scaled"}, INFER[1])}},
            "step 'infer': its model infer.onnx has no input input; it has x",
        ),
        (
            {"steps": {"infer": (INFER[0], {"scores": "scores", "logits": None})}},
            "step 'infer': its model infer.onnx has no output logits; it has scores, features",
        ),
        (
            {"steps": {"infer": (INFER[0], {"scores": "scores"})}},
            "step 'infer': its model infer.onnx also gives features; name the value, or write `features: ~`",
        ),
        (
            {"steps": {"decide": ({"s": "scores"}, DECIDE[1])}},
            "step 'decide': its model decide.onnx also takes id; say which value that is",
        ),
        (
            {"steps": {"scale": (SCALE[0], {"scaled": "pixels"})}},
            "step 'scale', tensor scaled gives the value 'pixels', as step 'collect', tensor PIXELS does",
        ),
        (
            {"steps": {"scale": (SCALE[0], {"scaled": "RECORD"})}},
            "step 'scale', tensor scaled gives the value 'RECORD', which the client sends",
        ),
        (
            {"steps": {"infer": (INFER[0], {"scores": "scores", "features": "features"})}},
            "step 'infer', tensor features gives the value 'features', which nobody takes; write `features: ~`",
        ),
        ({"outputs": ["LABEL"]}, "step 'decide', tensor DECISION gives the value 'DECISION', which nobody takes"),
        ({"outputs": ["LABEL", "DECISIONS"]}, "no step gives the pipeline's output 'DECISIONS'; 'DECISION' is meant?"),
        ({"outputs": ["LABEL", "DECISION", "RECORD"]}, "the pipeline's output 'RECORD' is what the client has sent"),
        ({"inputs": ["RECORD", "USER"]}, "no step takes the pipeline's input 'USER'; remove it, or give it to a step"),
        ({"inputs": ["RECORD", "RECORD"]}, "the pipeline has two inputs 'RECORD'"),
        ({"outputs": ["LABEL", "DECISION", "LABEL"]}, "the pipeline has two outputs 'LABEL'"),
        (
            {"steps": {"scale": ({"raw": "scores"}, SCALE[1]), "collect": (COLLECT[0], {"PIXELS": None, "ID": "id"})}},
            "the steps wait for each other: 'scale' waits for 'infer' waits for 'scale'; a pipeline has no circles",
        ),
        ({"max_batch_size": 9}, "step 'collect': its model collect.onnx takes batches of 8 at most, and the pipeline"),
        ({"max_batch_size": 0}, "step 'collect': its model collect.onnx takes batches, and the pipeline does not"),
    ],
)
def test_steps_that_do_not_fit(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(PackagingError) as caught:
        check_wiring(pipeline(**changes), configs())
    assert told in str(caught.value)


def test_two_steps_of_one_name() -> None:
    twice = pipeline()
    doubled = twice.model_copy(update={"steps": (*twice.steps, twice.steps[1])})
    with pytest.raises(PackagingError, match="the pipeline has two steps 'scale'"):
        check_wiring(doubled, configs())


def test_a_step_that_takes_no_batches() -> None:
    with pytest.raises(
        PackagingError, match=r"step 'infer': its model infer.onnx takes no batches, and the pipeline ba"
    ):
        check_wiring(pipeline(), configs({"infer": 0}))


@pytest.mark.parametrize(
    ("model", "types", "told"),
    [
        (
            "infer",
            ({"x": "FP64[14, 28]"}, MODELS["infer"][1]),
            "step 'infer', tensor x takes FP64[14, 28], but the value 'scaled' is FP32[14, 28], as step 'scale', "
            "tensor scaled gives it",
        ),
        (
            "decide",
            ({"s": "FP32[10, 1]", "id": "INT64[1]"}, MODELS["decide"][1]),
            "step 'decide', tensor s takes FP32[10, 1], but the value 'scores' is FP32[10]",
        ),
        (
            "scale",
            ({"raw": "FP32[14, 27]"}, MODELS["scale"][1]),
            "step 'scale', tensor raw takes FP32[14, 27], but the value 'pixels' is FP32[-1, 28]",
        ),
    ],
)
def test_types_that_disagree(model: str, types: tuple[Types, Types], told: str) -> None:
    with pytest.raises(PackagingError) as caught:
        check_wiring(pipeline(), configs() | {model: config(*types)})
    assert told in str(caught.value)


def test_steps_that_take_the_clients_input_for_different_things() -> None:
    shared = pipeline(
        steps={
            "decide": ({"s": "scores", "id": "RECORD"}, DECIDE[1]),
            "collect": (COLLECT[0], {"PIXELS": "pixels", "ID": None}),
        }
    )
    with pytest.raises(PackagingError) as caught:
        check_wiring(shared, configs())
    assert str(caught.value) == (
        "step 'decide', tensor id takes INT64[1], but the value 'RECORD' is BYTES[1], as step 'collect', tensor RECORD "
        "takes it"
    )


def test_two_takers_that_agree_with_the_giver_and_not_with_each_other() -> None:
    found = configs(
        collect=(MODELS["collect"][0], {"PIXELS": "FP32[-1, 28]", "ID": "INT64[-1]"}),
        scale=({"raw": "FP32[14, -1]", "id": "INT64[2]"}, MODELS["scale"][1]),
    )
    both = pipeline(steps={"scale": ({"raw": "pixels", "id": "id"}, SCALE[1])})
    with pytest.raises(PackagingError) as caught:
        check_wiring(both, found)
    assert str(caught.value) == (
        "step 'decide', tensor id takes INT64[1], but the value 'id' is INT64[2], as step 'scale', tensor id takes it"
    )
