# mypy: ignore-errors
"""A Python-based Triton backend named `onnxruntime`, so that repositories made for NVIDIA's image run on the stand-in.

Runs inside Triton's Python stub, one process per instance. Behaves as the native backend as far as Conch relies on it:
batches requests along axis 0, checks the graph against the configuration at load, refuses a broken file with
onnxruntime's own words, and honours `intra_op_thread_count` (here 1 by default: the native one takes all cores).
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

TYPES = {
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(double)": "TYPE_FP64",
    "tensor(bool)": "TYPE_BOOL",
    "tensor(string)": "TYPE_STRING",
    **{f"tensor({sign}int{bits})": f"TYPE_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class TritonPythonModel:
    """One instance of one model version."""

    def initialize(self, args):
        """Load the graph; raises with what is wrong with it."""
        # Only here: the stub that auto-completes configurations imports this module too, and has no need of it.
        import onnxruntime

        config = json.loads(args["model_config"])
        name, version = args["model_name"], args["model_version"]
        file = Path(args["model_repository"], version, config.get("default_model_filename") or "model.onnx")
        if not file.is_file():
            raise pb_utils.TritonModelException(f"unable to find '{file}' for model '{name}'")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(_parameter(config, "intra_op_thread_count", "1"))
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise pb_utils.TritonModelException(f"onnx runtime error: {error}") from None
        self.batching = int(config.get("max_batch_size", 0)) > 0
        self.inputs = [_Tensor(i, config["input"], name, self.batching) for i in self.session.get_inputs()]
        outputs = {o.name: o for o in self.session.get_outputs()}
        self.outputs = []
        for wanted in config["output"]:
            if wanted["name"] not in outputs:
                raise _unexpected(name, "output", wanted["name"], outputs)
            self.outputs.append(_Tensor(outputs[wanted["name"]], config["output"], name, self.batching))
        unknown = {i["name"] for i in config["input"]} - {i.name for i in self.inputs}
        if unknown:
            raise _unexpected(name, "input", min(unknown), [i.name for i in self.inputs])

    def execute(self, requests):
        """Answer requests: joined into batches where shapes allow, each alone where not or when the batch fails."""
        feeds = [
            {i.name: i.decode(pb_utils.get_input_tensor_by_name(r, i.name).as_numpy()) for i in self.inputs}
            for r in requests
        ]
        groups = {}
        for index, feed in enumerate(feeds):
            key = tuple(value.shape[1:] for value in feed.values()) if self.batching else index
            groups.setdefault(key, []).append(index)
        responses = [None] * len(requests)
        for members in groups.values():
            for index, response in zip(members, self._run([feeds[i] for i in members]), strict=True):
                responses[index] = response
        return responses

    def _run(self, feeds):
        names = [o.name for o in self.outputs]
        try:
            joined = feeds[0] if len(feeds) == 1 else {n: np.concatenate([f[n] for f in feeds]) for n in feeds[0]}
            results = self.session.run(names, joined)
        except Exception as error:
            if len(feeds) > 1:
                return [response for feed in feeds for response in self._run([feed])]
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(f"onnx runtime error: {error}"))]
        if len(feeds) == 1:
            return [self._response(results)]
        rows = [len(next(iter(feed.values()))) for feed in feeds]
        ends = np.cumsum(rows)
        return [self._response([r[end - n : end] for r in results]) for n, end in zip(rows, ends, strict=True)]

    def _response(self, results):
        tensors = [pb_utils.Tensor(o.name, o.encode(r)) for o, r in zip(self.outputs, results, strict=True)]
        return pb_utils.InferenceResponse(output_tensors=tensors)


class _Tensor:
    """An input or output of the graph, checked against its entry in the configuration."""

    def __init__(self, node, entries, model, batching):
        self.name = node.name
        self.is_text = node.type == "tensor(string)"
        entry = next((e for e in entries if e["name"] == node.name), None)
        if entry is None:
            known = ", ".join(e["name"] for e in entries)
            raise pb_utils.TritonModelException(
                f"model '{model}': the graph's '{node.name}' is not in the configuration ({known})"
            )
        expected = TYPES.get(node.type, node.type)
        if entry["data_type"] != expected:
            raise pb_utils.TritonModelException(
                f"model '{model}': '{node.name}' is {expected} in the graph, {entry['data_type']} in the configuration"
            )
        if batching and (not node.shape or isinstance(node.shape[0], int)):
            raise pb_utils.TritonModelException(
                f"model '{model}', tensor '{node.name}': for the model to support batching the shape should have at "
                f"least 1 dimension and the first dimension must be -1; but shape expected by the model is {node.shape}"
            )
        reshape = entry.get("reshape")
        dims = [int(d) for d in (reshape.get("shape", []) if reshape else entry["dims"])]
        graph = [d if isinstance(d, int) else -1 for d in node.shape][1 if batching else 0 :]
        if len(graph) != len(dims) or any(a != b for a, b in zip(graph, dims, strict=True) if -1 not in (a, b)):
            raise pb_utils.TritonModelException(
                f"model '{model}', tensor '{node.name}': the model expects {len(graph)} dimensions (shape {graph}) but "
                f"the model configuration specifies {len(dims)} dimensions (shape {dims})"
            )

    def decode(self, value):
        return np.vectorize(lambda b: b.decode(), otypes=[object])(value) if self.is_text and value.size else value

    def encode(self, value):
        if not self.is_text:
            return value
        return np.vectorize(lambda t: t.encode(), otypes=[object])(value) if value.size else value.astype(object)


def _unexpected(model, kind, name, allowed):
    return pb_utils.TritonModelException(
        f"model '{model}', unexpected inference {kind} '{name}', allowed {kind}s are: {', '.join(allowed)}"
    )


def _parameter(config, key, default):
    return config.get("parameters", {}).get(key, {}).get("string_value", default)
