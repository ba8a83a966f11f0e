"""A tokenizer is read, cuts texts to a length and pads them, the same while packaging as in Triton."""

import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from conch.packaging.errors import PackagingError
from conch.packaging.text.models.text_encoding import TEXT_BYTES_MOST, TextError, decode_texts, encode_texts
from conch.packaging.text.tokenizer import TextInputs, encode, fitted, from_content, read_tokenizer
from tests.support.text_models import WORDS, word_tokenizer

INT64 = np.dtype(np.int64)
IDS_ONLY = TextInputs(dtypes={"input_ids": INT64})
PAD, UNK, CLS, SEP, GOOD, BAD = range(6)


def test_a_file_and_a_folder_with_one(tmp_path: Path) -> None:
    word_tokenizer().save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        assert read_tokenizer(path).encode("good bad").ids == [CLS, GOOD, BAD, SEP]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff", "cannot be read: it is not UTF-8"),
        (b'{"do_lower_case": true}', "a tokenizer.json is wanted"),
        (Tokenizer(models.WordLevel({}, unk_token="[UNK]")).to_str().encode(), "empty vocabulary"),
        (Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]")).to_str().encode(), "give it a token for the unknown"),
    ],
)
def test_what_is_no_tokenizer(tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PackagingError, match=told) as caught:
        read_tokenizer(file)
    assert str(file) in str(caught.value)


def test_texts_are_padded_to_a_multiple_of_16() -> None:
    tensors = encode(word_tokenizer(), ["good", "bad " * 20], 128)
    assert {name: (array.shape, array.dtype) for name, array in tensors.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), ((2, 32), INT64)
    )
    assert tensors["input_ids"][0].tolist() == [CLS, GOOD, SEP] + [PAD] * 29
    assert tensors["attention_mask"].sum(axis=1).tolist() == [3, 22]
    assert encode(word_tokenizer(), ["good", "unheard"], 128)["input_ids"][:, :3].tolist() == [
        [CLS, GOOD, SEP],
        [CLS, UNK, SEP],
    ]


def test_texts_are_cut_to_the_length_and_never_padded_beyond_it() -> None:
    # 20 is no multiple of 16: the library pads to 32, where a model of 20 positions has none.
    ids = encode(word_tokenizer(), ["good " * 50, "bad"], 20)["input_ids"]
    assert ids.shape == (2, 20)
    assert ids[0].tolist() == [CLS] + [GOOD] * 18 + [SEP]
    assert ids[1].tolist() == [CLS, BAD, SEP] + [PAD] * 17


def test_it_goes_on_cutting_and_padding_on_the_side_where_it_did() -> None:
    tokenizer = word_tokenizer()
    tokenizer.enable_truncation(4, direction="left")
    tokenizer.enable_padding(direction="left", pad_id=UNK, pad_token="[UNK]", pad_type_id=1)
    tensors = encode(tokenizer, ["good " * 30 + "bad", "odd"], 20)
    assert tensors["input_ids"].shape == (2, 20)
    assert tensors["input_ids"][0, -3:].tolist() == [GOOD, BAD, SEP]
    assert tensors["input_ids"][1].tolist() == [UNK] * 17 + [CLS, 6, SEP]
    assert tensors["attention_mask"][1].tolist() == [0] * 17 + [1] * 3
    assert tensors["token_type_ids"][1, 0] == 1
    assert (tokenizer.truncation or {})["max_length"] == 4, "the caller's own tokenizer stays as it was"


def test_a_graph_of_fixed_length_and_of_other_types() -> None:
    inputs = TextInputs(dtypes={"attention_mask": np.dtype(np.int32), "input_ids": np.dtype(np.int32)}, fixed_length=10)
    tensors = encode(word_tokenizer(), ["good"], 10, inputs)
    assert [(name, array.shape, array.dtype) for name, array in tensors.items()] == [
        ("attention_mask", (1, 10), np.dtype(np.int32)),
        ("input_ids", (1, 10), np.dtype(np.int32)),
    ]


def test_the_written_tokenizer_encodes_alike() -> None:
    tokenizer, texts = word_tokenizer(), ["good day", "bad " * 90]
    written = from_content(fitted(tokenizer, 40).to_str().encode())
    expected = encode(tokenizer, texts, 40)
    found = encode_texts(written, texts, {name: array.dtype for name, array in expected.items()})
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert fitted(tokenizer, 40).to_str() == fitted(tokenizer, 40).to_str()


def test_an_empty_text_is_one_only_where_there_are_special_tokens() -> None:
    assert encode(word_tokenizer(), [""], 16)["attention_mask"].sum() == 2
    for texts in (["good", ""], ["good", " \n"], [""]):
        with pytest.raises(PackagingError, match=rf"text {len(texts) - 1} has no tokens"):
            encode(word_tokenizer(frame=False), texts, 16)


def test_a_length_without_room_for_a_word() -> None:
    # The library cuts to no tokens at all, or not at all.
    for length in (1, 2):
        with pytest.raises(PackagingError, match="beside the tokenizer's 2 special tokens"):
            encode(word_tokenizer(), ["good"], length)
    assert encode(word_tokenizer(), ["good bad"], 3)["input_ids"].tolist() == [[CLS, GOOD, SEP]]


def test_a_token_to_pad_with() -> None:
    bare = Tokenizer(models.WordLevel({"[UNK]": 3, "good": 5}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    masked = encode(bare, ["good"], 16)
    assert masked["input_ids"].tolist() == [[5] + [3] * 15], "behind a mask, any id of the vocabulary"
    with pytest.raises(PackagingError, match=r"no token to pad with.*the graph takes no attention_mask"):
        encode(bare, ["good"], 16, IDS_ONLY)
    assert encode(word_tokenizer(), ["good"], 16, IDS_ONLY).keys() == {"input_ids"}


def test_what_is_no_text() -> None:
    assert decode_texts(["grüße".encode(), b""]) == ["grüße", ""]
    with pytest.raises(TextError, match=r"text 1 is not UTF-8 \(byte 0xfc at position 2\)"):
        decode_texts([b"good", "grüße".encode("latin-1")])
    assert decode_texts([b"a" * TEXT_BYTES_MOST]) == ["a" * TEXT_BYTES_MOST]
    with pytest.raises(TextError, match="text 0 has 1048577 bytes; at most 1048576 are read"):
        decode_texts([b"a" * (TEXT_BYTES_MOST + 1)])


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word_tokenizer(words=WORDS[:1]).save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(PackagingError, match=r"pip install 'conch\[package\]'"):
        read_tokenizer(tmp_path)
