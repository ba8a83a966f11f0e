"""Why Triton has refused a load, in the API's words."""

import re
from typing import Final

from conch.api.reasons import Reason

_OUT_OF_GPU_MEMORY: Final = re.compile(
    r"CUDA(?: error:)? out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|CUDA failure 2\b"
    r"|OutOfMemory|Failed to allocate memory for requested buffer|unable to allocate [a-z ]*GPU memory",
    re.IGNORECASE,
)
"""What CUDA, onnxruntime, TensorRT and PyTorch say when the GPU is full; Triton hands it on."""
_NO_BACKEND: Final = re.compile(r"unable to find backend library for backend '([^']*)'")


def load_failure(said: str, image: str) -> tuple[Reason, str]:
    """Why Triton refused, in its own words; two cases have a remedy that Triton cannot know."""
    if match := _NO_BACKEND.search(said):
        return (
            Reason.MODEL_LOAD_FAILED,
            f"the image {image} has no backend {match[1]!r}: set runtime.image to one that has it, or export the model "
            f"for another backend. Triton says: {said}",
        )
    if _OUT_OF_GPU_MEMORY.search(said):
        return (
            Reason.OUT_OF_GPU_MEMORY,
            f"{said.rstrip('. ')}. Use a GPU with more memory (gpu.products, gpu.resource), fewer instances, or a "
            "smaller model",
        )
    return Reason.MODEL_LOAD_FAILED, said
