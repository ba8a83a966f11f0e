# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "tritonclient[grpc,http]"]
# ///
"""Asks a served model over HTTP or gRPC, with NVIDIA's client.

Usage:
  python client.py localhost:8000 regression --npz packaged/regression/trained/test.npz
  python client.py localhost:8001 text --grpc --text "Compute the eigenvalues of a sparse matrix."
  python client.py localhost:8000 digits-cnn --npz packaged/digits-cnn/trained/test.npz --seconds 300
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import np_to_triton_dtype

TIMEOUT_SECONDS = 30.0
Tensors = dict[str, np.ndarray[Any, np.dtype[Any]]]


def ask(address: str, model: str, inputs: Mapping[str, Any], *, grpc: bool = False) -> Tensors:
    """The outputs by name. `inputs` have an array for each input, axis 0 is the batch; text is an array of str."""
    library: Any = triton_grpc if grpc else triton_http
    limits = {} if grpc else {"connection_timeout": TIMEOUT_SECONDS, "network_timeout": TIMEOUT_SECONDS}
    client = library.InferenceServerClient(address, **limits)
    try:
        tensors = []
        for name, given in inputs.items():
            array = np.asarray(given)
            if array.dtype.kind == "U":
                array = np.char.encode(array, "utf-8").astype(object)
            tensor = library.InferInput(name, list(array.shape), str(np_to_triton_dtype(array.dtype)))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        answer = client.infer(model, tensors, **({"client_timeout": TIMEOUT_SECONDS} if grpc else {}))
        outputs = answer.get_response().outputs if grpc else answer.get_response()["outputs"]
        names = [output.name if grpc else output["name"] for output in outputs]
        return {name: answer.as_numpy(name) for name in names}
    finally:
        client.close()


def main() -> None:
    """Read the arguments, ask, print."""
    parser = argparse.ArgumentParser(description="Ask a served model.")
    parser.add_argument("address", help="host:port, 8000 for HTTP, 8001 for gRPC")
    parser.add_argument("model")
    parser.add_argument("--grpc", action="store_true", help="gRPC instead of HTTP")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--npz", type=Path, help="arrays by the names of the model's inputs; `target` is left out")
    given.add_argument("--text", nargs="+", help="texts, for a model with the input TEXT")
    parser.add_argument("--count", type=int, default=3, help="samples of a request (3)")
    parser.add_argument("--seconds", type=float, default=0, help="go on asking, once every 50 ms")
    arguments = parser.parse_args()
    if arguments.text:
        inputs = {"TEXT": np.array(arguments.text)[:, None]}
    else:
        inputs = {name: array[: arguments.count] for name, array in np.load(arguments.npz).items() if name != "target"}
    end, asked = time.monotonic() + arguments.seconds, 0
    while True:
        outputs = ask(arguments.address, arguments.model, inputs, grpc=arguments.grpc)
        asked += 1
        if time.monotonic() >= end:
            break
        time.sleep(0.05)
    for name, array in outputs.items():
        print(f"{name} {list(array.shape)}")
        print(array)
    if asked > 1:
        print(f"{asked} requests answered")


if __name__ == "__main__":
    main()
