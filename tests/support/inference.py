"""Asks a served model over HTTP and gRPC with NVIDIA's own client, as a user's program would."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from numpy.typing import NDArray

SAMPLE: Final = Path(__file__).parents[2] / "manifests" / "samples" / "digits"
_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Digit:
    """A drawing and what it shows."""

    digit: int
    pixels: NDArray[np.float32]

    def picture(self) -> list[str]:
        """The drawing as eight lines of text."""
        shades = " ░▒▓█"
        return ["".join(shades[min(4, int(value) * 5 // 17)] * 2 for value in row) for row in self.pixels.reshape(8, 8)]


@cache
def digits() -> tuple[Digit, ...]:
    """One drawing of each digit, none of which the model was trained on."""
    examples = json.loads((SAMPLE / "examples.json").read_text())
    return tuple(
        Digit(digit=example["digit"], pixels=np.array(example["pixels"], dtype=np.float32)) for example in examples
    )


def infer(
    address: str, model: str, pixels: NDArray[np.float32], *, protocol: Literal["http", "grpc"]
) -> NDArray[np.float32]:
    """Probabilities of the ten digits for each drawing [n, 64], from the server at `address` (host:port)."""
    library: Any = triton_http if protocol == "http" else triton_grpc
    options = {"connection_timeout": _TIMEOUT_SECONDS, "network_timeout": _TIMEOUT_SECONDS}
    client = library.InferenceServerClient(address, **(options if protocol == "http" else {}))
    try:
        tensor = library.InferInput("pixels", list(pixels.shape), "FP32")
        tensor.set_data_from_numpy(pixels)
        limit = {} if protocol == "http" else {"client_timeout": _TIMEOUT_SECONDS}
        answer = client.infer(model, [tensor], **limit).as_numpy("probabilities")
        return np.asarray(answer, dtype=np.float32)
    finally:
        client.close()
