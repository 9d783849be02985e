"""Safetensors files that are written a parameter at a time, and read back the same way.

The shapes of all parameters are known before the first value. So every parameter has its place in a file from the
beginning, values may come in any order, and memory holds one of them. The format (a JSON header, then the values) is
that of https://github.com/huggingface/safetensors; names of files and index are those of transformers and vLLM.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

#: Most bytes of a file. A parameter that is larger has a file for itself.
MAX_FILE_BYTES = 4 << 30
#: Names of data types in the header.
_TYPES = {
    "bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64", "bool": "BOOL", "uint8": "U8",
    "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
}  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """Where a parameter's bytes are."""

    path: Path
    begin: int


class ParameterFiles:
    """The files of named parameters in a folder: ``model.safetensors``, or several with an index."""

    def __init__(
        self, folder: Path, parameters: "Mapping[str, Tensor]", stem: str = "model", max_bytes: int | None = None
    ) -> None:
        """Make the files, with room for the values. `parameters` says shapes and types; they may be on "meta".

        A file has at most `max_bytes`, by default MAX_FILE_BYTES.
        """
        self.num_bytes = sum(tensor.nbytes for tensor in parameters.values())
        self._expected, self._places = dict(parameters), dict[str, _Place]()
        self._digests: dict[str, bytes] = {}
        parts = list(_parts(self._expected, max_bytes or MAX_FILE_BYTES))
        folder.mkdir(parents=True, exist_ok=True)
        for number, part in enumerate(parts, 1):
            numbered = f"{stem}-{number:05}-of-{len(parts):05}" if len(parts) > 1 else stem
            self._make(folder / f"{numbered}.safetensors", part)
        self.paths = sorted({place.path for place in self._places.values()})
        if len(parts) > 1:
            total = {"total_parameters": sum(one.numel() for one in parameters.values()), "total_size": self.num_bytes}
            files = {name: place.path.name for name, place in self._places.items()}
            index = {"metadata": total, "weight_map": dict(sorted(files.items()))}
            (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")

    def _make(self, path: Path, part: "Mapping[str, Tensor]") -> None:
        """Write a file's header and make room for its values."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        ends: dict[str, int] = {}
        end = 0
        # Wide types come first, so that each value begins at a multiple of its type's size.
        for name, tensor in sorted(part.items(), key=lambda item: -item[1].itemsize):
            begin, end = end, end + tensor.nbytes
            kind = _TYPES[str(tensor.dtype).removeprefix("torch.")]
            header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
            ends[name] = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(file.tell() + end)
        for name, tensor in part.items():
            self._places[name] = _Place(path, 8 + len(text) + ends[name] - tensor.nbytes)

    def write(self, parameters: "Mapping[str, Tensor]") -> None:
        """Write values of parameters. Raises RuntimeError for another shape or type than was said."""
        for name, tensor in parameters.items():
            self._write(name, tensor)

    def _write(self, name: str, tensor: "Tensor") -> None:
        expected, place = self._expected[name], self._places[name]
        if (tensor.shape, tensor.dtype) != (expected.shape, expected.dtype):
            raise RuntimeError(
                f"{place.path}: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}, "
                f"not {expected.dtype} of shape {tuple(expected.shape)}"
            )
        content = _content(tensor)
        with place.path.open("r+b") as file:
            file.seek(place.begin)
            file.write(content)
        self._digests[name] = hashlib.blake2b(content).digest()

    def check(self) -> None:
        """Read every parameter back. Raises RuntimeError if a file has not the parameters that were written."""
        from safetensors import SafetensorError, safe_open

        for path in self.paths:
            _forget_cached(path)
            names = {name for name, place in self._places.items() if place.path == path}
            try:
                with safe_open(path, "pt") as file:
                    found = set(file.keys())
                # Opened for each, because what has been read stays in memory until the file is closed.
                differing = [name for name in sorted(names & found) if not self._is_as_written(path, name)]
            except SafetensorError as error:
                raise RuntimeError(f"{path}: cannot be read again ({error})") from error
            differing += sorted(names ^ found)
            if differing:
                raise RuntimeError(
                    f"{path}: {len(differing)} parameters differ from the trained ones, first {differing[0]}"
                )

    def _is_as_written(self, path: Path, name: str) -> bool:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            tensor, expected = file.get_tensor(name), self._expected[name]
            alike = (tensor.shape, tensor.dtype) == (expected.shape, expected.dtype)
            return alike and hashlib.blake2b(_content(tensor)).digest() == self._digests.get(name)


def _parts(parameters: "Mapping[str, Tensor]", max_bytes: int) -> "Iterator[dict[str, Tensor]]":
    """The parameters of each file, in their order."""
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in parameters.items():
        if part and size + tensor.nbytes > max_bytes:
            yield part
            part, size = {}, 0
        part[name] = tensor
        size += tensor.nbytes
    yield part


def _content(tensor: "Tensor") -> Any:
    """The bytes of a tensor; a copy only if it is not contiguous or not in this machine's memory."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _forget_cached(path: Path) -> None:
    """Let the system write a file to its disk and drop its copy in memory, so that reading it reads the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):  # Linux
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
