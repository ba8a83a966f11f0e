"""The tokenise step as a Triton model of the Python backend that needs nothing of the image it runs in.

A stock image has no tokenizers library and no way to name one but to build an image, so the library's own files are
put beside `model.py` (11 MB; built for every CPython from 3.10 on). Each version brings its own: a version that is
served does not change with another.
"""

from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import triton_to_np_dtype

from conch.packaging.errors import PackagingError
from conch.packaging.tensors import Array
from conch.packaging.text.models.text_encoding import TextError, decode_texts, encode_texts
from conch.packaging.text.tokenizer import FILE, TextInputs, fitted, from_content

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEXT: Final = "TEXT"
"""Name of the input that takes the texts: BYTES [batch, 1], UTF-8."""
LIBRARY: Final = "tokenizers"
TOKENISE_FILES: Final = frozenset({"model.py", "text_encoding.py", FILE})
"""By them one knows a packaged tokenise step from a Python model of somebody else's."""
_MODELS: Final = "conch.packaging.text.models"
_PROGRAMS: Final = {"model.py": "tokenise_model.py", "text_encoding.py": "text_encoding.py"}
_NATIVE: Final = f"{LIBRARY}/{LIBRARY}.abi3.so"
_ELF: Final = b"\x7fELF"


def tokenise_files(
    tokenizer: "Tokenizer", max_length: int, inputs: TextInputs, *, version: int
) -> dict[str, bytes | Path]:
    """The files of the tokenise model, by path in its folder; its config.pbtxt is `tokenise_config` of ensemble.py.

    A Path is a file to copy. The content depends on the tokenizer and on the installed tokenizers library (its version
    and this machine's CPU architecture), on nothing else. Raises PackagingError.
    """
    own = resources.files(_MODELS)
    files: dict[str, bytes | Path] = {name: (own / source).read_bytes() for name, source in _PROGRAMS.items()}
    # Parsed and written by the library, so that the same tokenizer is the same bytes however it was laid out before.
    files[FILE] = fitted(tokenizer, max_length, inputs).to_str().encode()
    return {f"{version}/{name}": content for name, content in (files | library_files()).items()}


def library_files() -> dict[str, bytes | Path]:
    """The installed tokenizers library: what it takes to import it, by path. Raises PackagingError."""
    try:
        distribution = metadata.distribution(LIBRARY)
    except metadata.PackageNotFoundError as error:
        raise PackagingError("text models need the tokenizers library: pip install 'conch[package]'") from error
    files: dict[str, bytes | Path] = {}
    for entry in distribution.files or ():
        # Neither bytecode nor *.dist-info, which names the installer and its time.
        if entry.parts[0] == LIBRARY and entry.suffix in (".py", ".so"):
            files[entry.as_posix()] = Path(str(distribution.locate_file(entry)))
    native = files.get(_NATIVE)
    if not isinstance(native, Path) or not _is_elf(native):
        raise PackagingError(
            f"the installed tokenizers library {distribution.version} has no {_NATIVE} for Linux, which Triton's image "
            "needs; package on Linux, with the wheel from PyPI for CPython (not the free-threaded one)"
        )
    files[f"{LIBRARY}.txt"] = (
        f"{LIBRARY} {distribution.version}, unchanged; Apache License 2.0, "
        "https://www.apache.org/licenses/LICENSE-2.0; https://github.com/huggingface/tokenizers\n"
    ).encode()
    return files


def tokenise(config: Any, tokenizer_json: bytes, texts: Array) -> dict[str, Array]:
    """What a packaged tokenise model answers to TEXT [batch, 1], bytes or str. Raises PackagingError."""
    values = [each.encode() if isinstance(each, str) else each for each in texts.reshape(-1)]
    tokenizer = from_content(tokenizer_json)
    if tokenizer.truncation is None or tokenizer.padding is None:
        raise PackagingError(f"{config.name}: its {FILE} says not how to cut and pad; package it again")
    try:
        return encode_texts(tokenizer, decode_texts(values), _dtypes(config))
    except TextError as error:
        raise PackagingError(f"{config.name}: {TEXT}: {error}") from error


def _dtypes(config: Any) -> Mapping[str, np.dtype[Any]]:
    name = model_config_pb2.DataType.Name
    return {
        each.name: np.dtype(triton_to_np_dtype(name(each.data_type).removeprefix("TYPE_"))) for each in config.output
    }


def _is_elf(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(_ELF)) == _ELF
