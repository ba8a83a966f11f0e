"""A tokenizer that does not fit the graph is found while packaging, not by a text that ends the server."""

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph.session import Runner
from conch.packaging.text.fit import check_runs, embeddings, text_inputs
from tests.support.text_models import ROWS, WORDS, text_classifier, word_tokenizer

INT64, INT32 = np.dtype(np.int64), np.dtype(np.int32)


def renamed(graph: ModelProto, old: str, new: str) -> ModelProto:
    """The graph with another name for an input."""
    copy = ModelProto()
    copy.CopyFrom(graph)
    for value in copy.graph.input:
        value.name = new if value.name == old else value.name
    for node in copy.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    return copy


def test_what_the_graph_takes() -> None:
    both = text_inputs(text_classifier(), word_tokenizer(), 128)
    assert (dict(both.dtypes), both.fixed_length) == ({"input_ids": INT64, "attention_mask": INT64}, None)
    narrow = text_inputs(text_classifier(mask=False, integer=TensorProto.INT32), word_tokenizer(), 128)
    assert dict(narrow.dtypes) == {"input_ids": INT32}
    assert text_inputs(text_classifier(length=24), word_tokenizer(), 24).fixed_length == 24


@pytest.mark.parametrize(
    ("graph", "told"),
    [
        (renamed(text_classifier(), "attention_mask", "mask_in"), "the graph takes input_ids, mask_in; a text model"),
        (renamed(text_classifier(mask=False), "input_ids", "token_type_ids"), "the graph takes token_type_ids; a text"),
        (text_classifier(length=24), "takes exactly 24 tokens.*give --max-length 24"),
        (text_classifier(rows=ROWS - 1), r"'day' has the id 10, and the model's embedding embedding has 10 rows"),
    ],
)
def test_a_tokenizer_that_does_not_fit(graph: ModelProto, told: str) -> None:
    with pytest.raises(PackagingError, match=told):
        text_inputs(graph, word_tokenizer(), 128)


def test_inputs_that_are_no_tokens() -> None:
    floats = text_classifier()
    floats.graph.input[1].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(PackagingError, match="input attention_mask is FLOAT with 2 axes"):
        text_inputs(floats, word_tokenizer(), 128)
    flat = text_classifier()
    del flat.graph.input[0].type.tensor_type.shape.dim[1]
    with pytest.raises(PackagingError, match="input input_ids is INT64 with 1 axes"):
        text_inputs(flat, word_tokenizer(), 128)
    unequal = text_classifier()
    unequal.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 24
    with pytest.raises(PackagingError, match="input_ids any number, attention_mask 24"):
        text_inputs(unequal, word_tokenizer(), 128)


@pytest.mark.parametrize(
    "ids",
    [
        [helper.make_node("Cast", ["input_ids"], ["looked_up"], to=TensorProto.INT32)],
        [
            helper.make_node("Identity", ["input_ids"], ["same"]),
            helper.make_node("Identity", ["same"], ["looked_up"]),
        ],
    ],
)
def test_the_embedding_is_found_behind_what_only_carries_the_ids(ids: list[NodeProto]) -> None:
    assert embeddings(text_classifier(ids=ids), "input_ids") == {"embedding": ROWS}
    # The mask is no way to the embedding, and the positions' rows are no vocabulary.
    assert embeddings(text_classifier(ids=ids), "attention_mask") == {}
    assert embeddings(text_classifier(positions=4), "input_ids") == {"embedding": ROWS}


def test_an_embedding_that_is_quantised_or_a_constant() -> None:
    graph = text_classifier()
    table = numpy_helper.from_array(np.zeros((7, 3), dtype=np.int8), "table")
    graph.graph.initializer.append(table)
    gather = next(node for node in graph.graph.node if node.op_type == "Gather")
    gather.input[0] = "floats"
    graph.graph.node.insert(0, helper.make_node("DequantizeLinear", ["table", "scale"], ["floats"]))
    assert embeddings(graph, "input_ids") == {"floats": 7}
    constant = text_classifier()
    next(node for node in constant.graph.node if node.op_type == "Gather").input[0] = "made"
    constant.graph.node.insert(0, helper.make_node("Constant", [], ["made"], value=table))
    assert embeddings(constant, "input_ids") == {"made": 7}


def checked(graph: ModelProto, max_length: int = 64) -> None:
    tokenizer = word_tokenizer()
    inputs = text_inputs(graph, tokenizer, max_length)
    check_runs(Runner(graph.SerializeToString()), tokenizer, max_length, inputs)


def test_a_graph_that_runs_with_the_longest_text_and_the_last_id() -> None:
    checked(text_classifier())
    checked(text_classifier(length=24), 24)
    checked(text_classifier(positions=64))


def test_fewer_positions_than_tokens() -> None:
    with pytest.raises(PackagingError, match=r"does not run with a text of 64 tokens.*fewer positions"):
        checked(text_classifier(positions=32))
    checked(text_classifier(positions=32), 32)


def test_an_embedding_that_no_reading_of_the_graph_finds() -> None:
    doubled = [helper.make_node("Add", ["input_ids", "input_ids"], ["looked_up"])]
    checked(text_classifier(ids=doubled, rows=2 * ROWS))
    with pytest.raises(PackagingError, match="the tokenizer's highest id 10 among them"):
        checked(text_classifier(ids=doubled))


def test_an_answer_that_depends_on_the_padding() -> None:
    unmasked = text_classifier(mask=False)
    with pytest.raises(
        PackagingError, match=r"logits depends on how much padding.*\(the graph takes no attention_mask\)"
    ):
        checked(unmasked)
    # Of one length only there is nothing to depend on.
    checked(unmasked, 16)
    checked(text_classifier(mask=False, length=64), 64)


def test_a_vocabulary_of_special_tokens_only_is_checked_too() -> None:
    graph, tokenizer = text_classifier(), word_tokenizer(words=())
    check_runs(Runner(graph.SerializeToString()), tokenizer, 32, text_inputs(graph, tokenizer, 32))
    assert WORDS[0] not in tokenizer.get_vocab()


def test_padding_beyond_the_embedding() -> None:
    """The id to pad with is the file's to say, whatever is in the vocabulary."""
    tokenizer = word_tokenizer()
    tokenizer.enable_padding(pad_id=77, pad_token="[OTHER]")
    with pytest.raises(PackagingError, match=r"its token '\[OTHER\]' has the id 77"):
        text_inputs(text_classifier(), tokenizer, 128)
