"""Check stored weights on the host before any guest or person sees them.

The safetensors header is parsed here, by hand and strictly: a length, one JSON object, tensors that cover the buffer
exactly once. Nothing is unpickled and no tensor library is used; the numbers are only looked at through numpy views.

Not covered: what the numbers mean. Weights can hide data or code for a model.py that decodes them; the size cap bounds
how much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from bellglass import strict_json
from bellglass.errors import GuestFault
from bellglass.records import Json

WEIGHTS_FILE = "out/weights.safetensors"  # where a trainer leaves them, and where `predict` finds them
MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 10_000
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 1 << 40

_BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
# An IEEE number is infinite or NaN exactly when all its exponent bits are set.
_EXPONENT_OF = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
_FINITE_STEP = 1 << 20  # elements looked at in one go: bounds the memory that a check takes


@dataclass(frozen=True, slots=True)
class WeightsFacts:
    """What a checked file holds."""

    tensors: int
    parameters: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    dtype: str
    elements: int
    begin: int
    end: int


def check(data: bytes | memoryview | None, *, max_bytes: int) -> WeightsFacts:
    """Raises GuestFault 'no_weights' or 'bad_weights'; the detail is ours, never the guest's own text."""
    if data is None or len(data) == 0:
        raise GuestFault("no_weights", "no weights were written")
    if len(data) > max_bytes:
        _bad(f"{len(data)} bytes, allowed are {max_bytes}")
    header, buffer = _split(memoryview(data))
    tensors = [_tensor(name, entry) for name, entry in header.items() if name != "__metadata__"]
    if not tensors:
        raise GuestFault("no_weights", "the file holds no tensor")
    _check_cover(tensors, len(buffer))
    for tensor in tensors:
        _check_numbers(tensor, buffer)
    return WeightsFacts(len(tensors), sum(t.elements for t in tensors), len(data))


def _split(data: memoryview) -> tuple[dict[str, Json], memoryview]:
    start = bytes(data[:4])
    if start[:1] == b"\x80" or start == b"PK\x03\x04":
        _bad("a pickle or an archive; only safetensors are read")
    if len(data) < 10:
        _bad("too short for a header")
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        _bad("the header is longer than allowed or than the file")
    raw = bytes(data[8 : 8 + length])
    if raw[:1] != b"{":
        _bad("the header does not begin with an object")
    try:
        header = strict_json.loads(raw)
    except ValueError:
        _bad("the header is not JSON")
    if not isinstance(header, dict):
        _bad("the header is not an object")
    if len(header) > MAX_TENSORS:
        _bad(f"more than {MAX_TENSORS} tensors")
    _check_metadata(header.get("__metadata__", {}))
    return header, data[8 + length :]


def _check_metadata(metadata: Json) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _bad("metadata must map names to text")


def _tensor(name: str, entry: Json) -> _Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _bad("a tensor needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BYTES_OF:
        _bad("a tensor's dtype is not one of " + " ".join(_BYTES_OF))
    if not _counts(shape) or len(shape) > MAX_DIMENSIONS:
        _bad("a tensor's shape is not a short list of sizes")
    if not _counts(offsets) or len(offsets) != 2:
        _bad("a tensor's offsets are not two positions")
    elements = math.prod(shape)
    begin, end = offsets
    if elements > MAX_ELEMENTS or end - begin != elements * _BYTES_OF[dtype]:
        _bad("a tensor's offsets do not fit its shape and dtype")
    return _Tensor(name, dtype, elements, begin, end)


def _check_cover(tensors: list[_Tensor], buffer_bytes: int) -> None:
    """Holes could smuggle bytes past the numeric check, overlaps could be read two ways: neither is allowed."""
    at = 0
    for tensor in sorted(tensors, key=lambda t: (t.begin, t.end)):
        if tensor.begin != at:
            _bad("tensors overlap or leave a hole")
        at = tensor.end
    if at != buffer_bytes:
        _bad("the tensors do not end where the file ends")


def _check_numbers(tensor: _Tensor, buffer: memoryview) -> None:
    if tensor.dtype == "BOOL":
        if np.frombuffer(buffer[tensor.begin : tensor.end], dtype=np.uint8).max(initial=0) > 1:
            _bad("a boolean tensor holds other values than 0 and 1")
        return
    if tensor.dtype not in _EXPONENT_OF:
        return  # every integer is finite
    view, mask = _EXPONENT_OF[tensor.dtype]
    words = np.frombuffer(buffer[tensor.begin : tensor.end], dtype=view)
    exponent = words.dtype.type(mask)
    for at in range(0, len(words), _FINITE_STEP):
        if ((words[at : at + _FINITE_STEP] & exponent) == exponent).any():
            _bad("a tensor holds NaN or infinity")


def _counts(value: Json) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v <= MAX_ELEMENTS for v in value)


def _bad(detail: str) -> NoReturn:
    raise GuestFault("bad_weights", detail)
