"""Inputs from a person's file: JSON in the protocol's shape or as plain lists, or npz."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from conch.client.errors import ClientError
from conch.client.metadata import ModelMetadata
from conch.client.object_arrays import read_npy
from conch.client.tensors import from_array, from_values
from conch.triton.tensors import Array, Tensor

_OF_AN_INPUT: Final = frozenset({"name", "shape", "datatype", "data"})


def read_inputs(path: Path, metadata: ModelMetadata) -> tuple[Tensor, ...]:
    """The tensors of a .json or .npz file. Raises ClientError."""
    match path.suffix:
        case ".json":
            return from_json(read_json(path), metadata)
        case ".npz":
            return tuple(from_array(name, array) for name, array in _read_npz(path).items())
        case _:
            raise ClientError(f"{path}: inputs are read from .json or .npz files.")


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises ClientError."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ClientError(f"{path} cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise ClientError(f"{path} is nested too deeply.") from error
    except ValueError as error:
        raise ClientError(f"{path} is not JSON: {error}") from error


def from_json(body: Any, metadata: ModelMetadata) -> tuple[Tensor, ...]:
    """Inputs of the form {"inputs": [{"name", "shape", "datatype", "data"}]} or {"name": values}.

    The short form's datatypes are the model's. Raises ClientError.
    """
    if not isinstance(body, dict):
        raise ClientError(f'Inputs are {{"inputs": [...]}} or {{"name": values}}. {metadata.signature}')
    rows = body.get("inputs")
    if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
        if unknown := sorted(body.keys() - {"inputs"}):
            raise ClientError(f"conch infer sends inputs and nothing else; remove {', '.join(unknown)} from the file.")
        return tuple(_input(row) for row in rows)
    return tuple(from_values(name, metadata.input(name).datatype, values) for name, values in body.items())


def _input(row: Mapping[str, Any]) -> Tensor:
    if missing := sorted(_OF_AN_INPUT - row.keys()):
        raise ClientError(f"The input {row.get('name', '')!r} has no {', '.join(missing)}.")
    if unknown := sorted(row.keys() - _OF_AN_INPUT):
        raise ClientError(f"The input {row['name']!r} has {', '.join(unknown)}, which conch infer does not send.")
    shape = row["shape"]
    if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
        raise ClientError(f"The input {row['name']!r} has the shape {shape!r}; it is a list of lengths.")
    return from_values(str(row["name"]), str(row["datatype"]), row["data"], shape)


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): read_npy(archive.read(name)) for name in archive.namelist()}
    except OSError as error:
        raise ClientError(f"{path} cannot be read: {error.strerror}") from error
    except (zipfile.BadZipFile, ValueError) as error:
        raise ClientError(f"{path} is no npz file of arrays: {error}") from error


def write_npz(path: Path, tensors: tuple[Tensor, ...]) -> None:
    """Write tensors under their names; BYTES become object arrays. Raises ClientError."""
    try:
        with zipfile.ZipFile(path, "w") as archive:
            for tensor in tensors:
                with archive.open(f"{tensor.name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, tensor.array)
    except OSError as error:
        raise ClientError(f"{path} cannot be written: {error.strerror}") from error
