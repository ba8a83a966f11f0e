"""A packaged text service on the real Triton: a string in, a label and a score out, and clear refusals."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto
from tritonclient.utils import InferenceServerException

from conch.packaging.graph.clean import clean, to_bytes
from conch.packaging.graph.head import add_head
from conch.packaging.graph.session import Runner
from conch.packaging.output.config import model_config
from conch.packaging.output.tree import ModelFiles, write_model
from conch.packaging.request import Head
from conch.packaging.text.ensemble import text_models
from conch.packaging.text.fit import text_inputs
from conch.packaging.text.tokenizer import encode
from conch.packaging.text.triton_model import tokenise_files
from tests.contract.served_repository import ServedRepository, texts
from tests.support.text_models import LABELS, text_classifier, word_tokenizer

pytestmark = pytest.mark.contract

MAX_LENGTH = 40  # no multiple of 16
TEXTS = ["Good day", "a BAD day", "very odd", "", "unheard-of", "good " * 20, "bad bad good", "ödd odd"]


def graph() -> ModelProto:
    return clean(add_head(text_classifier(positions=MAX_LENGTH), head=Head.SOFTMAX, labels=LABELS))


def written(repository: Path, *, frame: bool = True, name: str = "mood") -> None:
    """Write the service as `conch package --tokenizer` does."""
    model, tokenizer = graph(), word_tokenizer(frame=frame)
    files = tokenise_files(tokenizer, MAX_LENGTH, text_inputs(model, tokenizer, MAX_LENGTH), version=1)
    configs = text_models(name, model_config(model, name=name, max_batch_size=8, labels_file=False))
    contents: dict[str, dict[str, bytes | Path]] = {
        f"{name}_tokenize": files,
        f"{name}_model": {"1/model.onnx": to_bytes(model)},
        name: {},
    }
    write_model(
        repository, {each: ModelFiles(config=configs[each], version=1, files=contents[each]) for each in configs}
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedRepository]:
    folder = tmp_path_factory.mktemp("texts")
    repository = folder / "repository"
    written(repository)
    written(repository, frame=False, name="bare")
    # What an image has under this name comes first on the stub's path, and must not be taken.
    (folder / "packages" / "tokenizers").mkdir(parents=True)
    (folder / "packages" / "tokenizers" / "__init__.py").write_text("raise RuntimeError('not this one')")
    served = ServedRepository(folder, repository)
    served.packages = folder / "packages"
    served.start()
    try:
        served.load("mood")
        served.load("bare")
        yield served
    finally:
        served.stop(9)


def expected(values: list[str]) -> dict[str, np.ndarray]:
    """What the graph answers on this machine to what was tokenised on this machine, each text alone."""
    model, tokenizer = graph(), word_tokenizer()
    runner, inputs = Runner(to_bytes(model)), text_inputs(model, tokenizer, MAX_LENGTH)
    answers = [runner.run(encode(tokenizer, [value], MAX_LENGTH, inputs)) for value in values]
    return {name: np.concatenate([each[name] for each in answers]) for name in answers[0]}


def test_strings_become_labels_and_scores(server: ServedRepository) -> None:
    right = expected(TEXTS)
    assert right["LABEL"][:3, 0].tolist() == ["praise", "blame", "wonder"]
    assert right["SCORE"].min() == pytest.approx(1 / 3)
    assert 0.9 < right["SCORE"].max() < 1
    batch = server.ask_grpc("mood", {"TEXT": texts(*TEXTS)})
    assert batch.keys() == {"LABEL", "SCORE"}
    assert [each.decode() for each in batch["LABEL"][:, 0]] == right["LABEL"][:, 0].tolist()
    np.testing.assert_allclose(batch["SCORE"], right["SCORE"], rtol=1e-6)
    for number, text in enumerate(TEXTS):
        alone = server.ask_http("mood", {"TEXT": [[text]]}, {"TEXT": "BYTES"})
        assert (alone.status, alone.outputs["LABEL"].tolist()) == (200, [[right["LABEL"][number, 0]]])
        np.testing.assert_allclose(alone.outputs["SCORE"], right["SCORE"][[number]], rtol=1e-6)


def test_a_long_text_is_cut(server: ServedRepository) -> None:
    long = "bad " * (MAX_LENGTH - 2) + "good " * 3000
    cut = "bad " * (MAX_LENGTH - 2)
    answer = server.ask_grpc("mood", {"TEXT": texts(long, cut)})
    assert answer["LABEL"][:, 0].tolist() == [b"blame", b"blame"]
    assert answer["SCORE"][0] == answer["SCORE"][1]


def test_what_is_no_text_is_refused_and_the_others_go_on(server: ServedRepository) -> None:
    with pytest.raises(
        InferenceServerException, match=r"TEXT: text 1 is not UTF-8 \(byte 0xff at position 5\)"
    ) as told:
        server.ask_grpc("mood", {"TEXT": texts("good", b"good \xff")})
    assert told.value.status() == "StatusCode.INVALID_ARGUMENT"
    huge = server.ask_http("mood", {"TEXT": [["good " * 300_000]]}, {"TEXT": "BYTES"})
    assert huge.status == 400
    assert "TEXT: text 0 has 1500000 bytes; at most 1048576 are read" in huge.error
    empty = server.ask_http("bare", {"TEXT": [["good"], [""]]}, {"TEXT": "BYTES"})
    assert (empty.status, "TEXT: text 1 has no tokens" in empty.error) == (400, True)
    many = server.ask_http("mood", {"TEXT": [["good"]] * 9}, {"TEXT": "BYTES"})
    assert (many.status, "batch-size" in many.error) == (400, True)
    assert server.ask_http("mood", {"TEXT": [["good"]]}, {"TEXT": "BYTES"}).outputs["LABEL"] == [["praise"]]


def test_the_library_is_the_copied_one_and_the_model_stays_as_it_was_written(server: ServedRepository) -> None:
    assert server.ask_http("mood", {"TEXT": [["good"]]}, {"TEXT": "BYTES"}).status == 200
    maps = "".join(stub.joinpath("maps").read_text() for stub in server.stubs())
    loaded = {Path(line.split()[-1]) for line in maps.splitlines() if "/tokenizers.abi3.so" in line}
    repository = server.log.parent / "repository"
    assert loaded == {
        repository / name / "1" / "tokenizers" / "tokenizers.abi3.so" for name in ("mood_tokenize", "bare_tokenize")
    }
    written_there = {path.parent.relative_to(repository).as_posix() for path in repository.rglob("__pycache__")}
    assert not {name for name in written_there if "tokenizers" in name}, "bytecode of the library"
