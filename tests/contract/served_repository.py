"""A written repository on the real Triton, asked over both protocols."""

import asyncio
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton_grpc
from tritonclient.utils import np_to_triton_dtype

from conch.api.pod import ADMIN_KEY_HEADER
from tests.contract.processes import ADMIN_KEY, Triton
from tests.support.async_waiting import until


class ServedRepository(Triton):
    """Triton as in the pod, but that its Python stub may write bytecode, as in any other container."""

    packages: Path | None = None
    """A folder of packages that the image would have: the stub ignores PYTHONPATH, and looks first where it runs."""

    def spawn(self, command: list[str], env: dict[str, str]) -> None:
        env = {key: value for key, value in env.items() if key != "PYTHONDONTWRITEBYTECODE"}
        super().spawn(command if self.packages is None else ["env", "-C", str(self.packages), *command], env)

    def load(self, name: str) -> None:
        """Load a model, and what it is made of, as soon as Triton lets itself be told; fails with Triton's reason."""

        async def ask() -> bool | None:
            async with aiohttp.ClientSession(headers={ADMIN_KEY_HEADER: ADMIN_KEY}) as session:
                try:
                    url = f"http://127.0.0.1:{self.http}/v2/repository/models/{name}/load"
                    async with session.post(url) as response:
                        assert response.status == 200, (await response.text(), self.log.read_text()[-3000:])
                        return True
                except aiohttp.ClientConnectionError:
                    return None

        asyncio.run(until("Triton", ask))

    def ask_http(self, model: str, inputs: Mapping[str, Sequence[Any]], datatypes: Mapping[str, str]) -> "Answer":
        """One request in JSON; `inputs` have one row per sample, each a list of values."""
        body = {
            "inputs": [
                {"name": name, "datatype": datatypes[name], "shape": list(np.shape(rows)), "data": rows}
                for name, rows in inputs.items()
            ]
        }

        async def ask() -> Answer:
            content = io.BytesIO(json.dumps(body).encode())
            url = f"http://127.0.0.1:{self.http}/v2/models/{model}/infer"
            async with aiohttp.ClientSession() as session, session.post(url, data=content) as response:
                told = json.loads(await response.text())  # errors are JSON called text/plain
            outputs = {each["name"]: np.reshape(each["data"], each["shape"]) for each in told.get("outputs", [])}
            return Answer(response.status, outputs, told.get("error", ""))

        return asyncio.run(ask())

    def ask_grpc(self, model: str, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """One request; raises tritonclient's InferenceServerException."""
        client = triton_grpc.InferenceServerClient(f"127.0.0.1:{self.grpc}")
        try:
            tensors = []
            for name, array in inputs.items():
                tensor = triton_grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
                tensor.set_data_from_numpy(array)
                tensors.append(tensor)
            result = client.infer(model, tensors)
            names = [each.name for each in result.get_response().outputs]
            return {name: result.as_numpy(name) for name in names}
        finally:
            client.close()

    def stubs(self) -> list[Path]:
        """The folders in /proc of its Python processes."""
        return [path for path in Path("/proc").iterdir() if path.name.isdecimal() and _parent(path) == self.pid]


class Answer:
    """Of an HTTP request."""

    def __init__(self, status: int, outputs: dict[str, npt.NDArray[Any]], error: str) -> None:
        self.status, self.outputs, self.error = status, outputs, error


def texts(*values: bytes | str) -> npt.NDArray[np.object_]:
    """BYTES [batch, 1]."""
    array = np.empty((len(values), 1), dtype=object)
    for number, value in enumerate(values):
        array[number, 0] = value.encode() if isinstance(value, str) else value
    return array


def _parent(process: Path) -> int | None:
    try:
        return int(process.joinpath("stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None  # it has ended since it was listed
