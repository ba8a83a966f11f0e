"""A small tokenizer and a small text classifier, made in the test: nothing is trained or fetched."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = ("good", "bad", "odd", "very", "quite", "a", "day")
LABELS = ("praise", "blame", "wonder")
ROWS = len(SPECIAL) + len(WORDS)


def word_tokenizer(*, words: Sequence[str] = WORDS, special: Sequence[str] = SPECIAL, frame: bool = True) -> Tokenizer:
    """Lower-case words, as ids in the order of `special` and `words`; with `frame`, `[CLS] ... [SEP]` around them."""
    vocabulary = {token: number for number, token in enumerate((*special, *words))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(list(special))
    if frame:
        ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
        made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return made


def text_classifier(
    *,
    rows: int = ROWS,
    mask: bool = True,
    length: int | None = None,
    positions: int | None = None,
    ids: Sequence[NodeProto] = (),
    integer: int = TensorProto.INT64,
) -> ModelProto:
    """`input_ids, attention_mask [batch, length] -> logits [batch, 3]`: the mean of the words' embeddings.

    The three first words of WORDS each stand for one class. `ids` are nodes that make `looked_up` of `input_ids`;
    `positions` adds an embedding of the positions, of so many rows.
    """
    embedding = np.zeros((rows, 3), dtype=np.float32)
    embedding[len(SPECIAL) : len(SPECIAL) + 3] = np.eye(3, dtype=np.float32)[: max(0, rows - len(SPECIAL))] * 4
    weights: dict[str, npt.NDArray[Any]] = {
        "embedding": embedding,
        "turn": np.eye(3, dtype=np.float32),
        "axis_1": np.array([1], dtype=np.int64),
        "axis_2": np.array([2], dtype=np.int64),
    }
    nodes = [*ids, helper.make_node("Gather", ["embedding", "looked_up" if ids else "input_ids"], ["words"])]
    features = "words"
    if positions is not None:
        weights |= {
            "positions": np.zeros((positions, 3), dtype=np.float32),
            "zero": np.array(0, dtype=np.int64),
            "one": np.array(1, dtype=np.int64),
        }
        nodes += [
            helper.make_node("Shape", ["input_ids"], ["shape"]),
            helper.make_node("Gather", ["shape", "one"], ["tokens"]),
            helper.make_node("Range", ["zero", "tokens", "one"], ["places"]),
            helper.make_node("Gather", ["positions", "places"], ["placed"]),
            helper.make_node("Add", ["words", "placed"], ["words_and_places"]),
        ]
        features = "words_and_places"
    if mask:
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "axis_2"], ["wide_mask"]),
            helper.make_node("Mul", [features, "wide_mask"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "axis_1"], ["sum"], keepdims=0),
            helper.make_node("ReduceSum", ["mask", "axis_1"], ["count"], keepdims=1),
            helper.make_node("Div", ["sum", "count"], ["mean"]),
        ]
    else:
        nodes.append(helper.make_node("ReduceMean", [features, "axis_1"], ["mean"], keepdims=0))
    nodes.append(helper.make_node("MatMul", ["mean", "turn"], ["logits"]))
    names = ["input_ids", "attention_mask"][: 2 if mask else 1]
    graph = helper.make_graph(
        nodes,
        "texts",
        [helper.make_tensor_value_info(name, integer, ["batch", length or "seq"]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model
