"""Triton's Python model that turns texts into the token ids of the model behind it in the ensemble.

Written by `conch package --tokenizer`. It runs in a stock Triton image: the tokenizers library lies beside it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # Triton's stub has it

_FOLDER = Path(__file__).parent.absolute()


class TritonPythonModel:
    """TEXT [batch, 1] to whatever outputs its config.pbtxt names: input_ids, attention_mask, token_type_ids."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer; called by Triton once per instance."""
        sys.dont_write_bytecode = True  # the model's files are what was packaged, and nothing else
        # The stub has this folder at the end of its path, where the image's own packages would come first.
        sys.path.insert(0, str(_FOLDER))
        # Short texts are encoded faster than threads are told of them, and the CPUs belong to the model.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            import tokenizers
            from text_encoding import (  # type: ignore[import-not-found]  # it lies beside this file in the model's folder
                TextError,
                decode_texts,
                encode_texts,
            )
        except ImportError as error:
            raise pb_utils.TritonModelException(
                f"the tokenizers library beside {_FOLDER / 'model.py'} does not load here: {error}; package the model "
                "on the image's kind of machine (Linux with glibc, the same CPU architecture)"
            ) from error
        self._error, self._decode, self._encode = TextError, decode_texts, encode_texts
        self._tokenizer = tokenizers.Tokenizer.from_file(str(_FOLDER / "tokenizer.json"))
        outputs = json.loads(args["model_config"])["output"]
        self._dtypes = {each["name"]: pb_utils.triton_string_to_numpy(each["data_type"]) for each in outputs}

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer per request: a text that cannot be read spoils its own request only."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        values = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
        try:
            tensors = self._encode(self._tokenizer, self._decode(values.reshape(-1)), self._dtypes)
        except self._error as error:
            refusal = pb_utils.TritonError(f"TEXT: {error}", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refusal)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in tensors.items()])
