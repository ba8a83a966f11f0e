"""The protocol over HTTP/1.1, with Triton's binary tensors: JSON has no FP16, BF16, NaN or bytes that are no text."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from conch.client.credentials import NOTHING, Credentials
from conch.client.metadata import ModelMetadata, Signature, signatures
from conch.client.server import Answer, ServerError
from conch.triton.answers import HEADER_LENGTH, AnswerError, http_answer
from conch.triton.tensors import Tensor, to_raw

OCTETS: Final = "application/octet-stream"


def infer_path(model: str) -> str:
    """The path that requests for a model go to."""
    return f"/v2/models/{quote(model, safe='')}/infer"


def infer_body(inputs: Sequence[Tensor]) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request that wants binary answers."""
    raw = [to_raw(tensor) for tensor in inputs]
    described = {
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": len(content)},
            }
            for tensor, content in zip(inputs, raw, strict=True)
        ],
        "parameters": {"binary_data_output": True},
    }
    head = json.dumps(described).encode()
    return {HEADER_LENGTH: str(len(head)), "Content-Type": OCTETS}, b"".join((head, *raw))


def parse_answer(headers: Mapping[str, str], body: bytes) -> Answer:
    """The answer that headers and body are. Raises ServerError for anything else."""
    try:
        version, outputs = http_answer(headers, body)
    except AnswerError as error:
        raise ServerError(f"The answer is not one of the Open Inference Protocol: {error}") from error
    return Answer(version=version, outputs=outputs)


class HttpServer:
    """A server at host:port."""

    def __init__(self, address: str, *, timeout_seconds: float, credentials: Credentials = NOTHING) -> None:
        tls = credentials.tls
        self._server_name = tls.server_name if tls else None
        # One connection, which the metadata have made when the request goes; the machine's proxies are for elsewhere.
        self._session = aiohttp.ClientSession(
            f"{'https' if tls else 'http'}://{address}",
            connector=aiohttp.TCPConnector(limit=1, ssl=tls.context() if tls else True),
            headers=credentials.headers,
            timeout=aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=10),
            trust_env=False,
        )

    async def metadata(self, model: str) -> ModelMetadata:
        """What the model takes and gives."""
        _, body = await self._ask("GET", infer_path(model).removesuffix("/infer"))
        try:
            told = json.loads(body)
            inputs, outputs = (
                signatures(
                    Signature(name=row["name"], datatype=row["datatype"], shape=tuple(map(int, row["shape"])))
                    for row in told[part]
                )
                for part in ("inputs", "outputs")
            )
            return ModelMetadata(name=told["name"], inputs=inputs, outputs=outputs)
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"The model's metadata are not those of the Open Inference Protocol: {error}") from error

    async def infer(self, model: str, inputs: Sequence[Tensor]) -> Answer:
        """Ask once; aiohttp repeats no POST by itself."""
        headers, content = infer_body(inputs)
        return parse_answer(*await self._ask("POST", infer_path(model), headers=headers, data=content))

    async def close(self) -> None:
        """End the connection."""
        await self._session.close()

    async def _ask(self, method: str, path: str, **request: Any) -> tuple[Mapping[str, str], bytes]:
        try:
            async with self._session.request(
                method, path, allow_redirects=False, server_hostname=self._server_name, **request
            ) as response:
                body = await response.read()
        except TimeoutError as error:
            raise ServerError("No answer within the time-out.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ServerError(str(error) or type(error).__name__) from error
        if response.status != 200:
            raise ServerError(f"{response.status} {response.reason}: {_words(body)}")
        return response.headers, body


def _words(body: bytes) -> str:
    """Triton's own words, or whatever a gateway said in its place."""
    text = body.decode(errors="backslashreplace")
    try:
        told = json.loads(text)
        return str(told["error"])
    except (ValueError, KeyError, TypeError):
        return text.strip()
