"""Weights: what passes, and every lie a file can tell."""

from __future__ import annotations

import contextlib
import json
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from bellglass import weights
from bellglass.errors import GuestFault

GOOD = save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, dtype=np.int64)}, {"made": "here"})
CAP = 1_000_000


def raw(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}  # type: ignore[call-overload]


def refused(data: bytes | None, cap: int = CAP) -> str:
    with pytest.raises(GuestFault) as caught:
        weights.check(data, max_bytes=cap)
    return f"{caught.value.code}: {caught.value.detail}"


def test_what_the_library_writes_passes() -> None:
    facts = weights.check(GOOD, max_bytes=CAP)
    assert (facts.tensors, facts.parameters, facts.size_bytes) == (2, 9, len(GOOD))


def test_an_empty_tensor_passes() -> None:
    assert weights.check(save({"e": np.zeros((0, 4), np.float32)}), max_bytes=CAP).parameters == 0


def test_no_file_and_no_tensor_are_no_weights() -> None:
    assert refused(None).startswith("no_weights")
    assert refused(b"").startswith("no_weights")
    assert refused(raw({})).startswith("no_weights")


def test_a_file_over_the_cap_is_refused() -> None:
    assert "allowed are" in refused(GOOD, cap=len(GOOD) - 1)


def test_a_pickle_and_an_archive_are_refused() -> None:
    assert "pickle" in refused(pickle.dumps({"w": [1.0, 2.0]}))
    assert "pickle" in refused(b"PK\x03\x04" + b"\0" * 100)  # what torch.save writes


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 50) + b"{}",
        raw(b"[]"),
        raw(b"  {}"),
        raw(b'{"a": '),
        raw(b"{" + b'"a":{' * 100_000),
        raw(b'{"a": NaN}'),
        raw(b'\xff{"a": 1}'),
        raw({"__metadata__": {"a": 1}, "w": entry()}, b"\0" * 4),
        raw({"__metadata__": [], "w": entry()}, b"\0" * 4),
    ],
)
def test_a_false_header_is_refused(data: bytes) -> None:
    assert refused(data).startswith("bad_weights")


def test_a_key_that_stands_twice_is_refused() -> None:
    text = b'{"w": %s, "w": %s}' % (json.dumps(entry()).encode(), json.dumps(entry()).encode())
    assert "not JSON" in refused(raw(text, b"\0" * 4))


@pytest.mark.parametrize(
    "bad",
    [
        5,
        {"dtype": "F32", "shape": [1]},
        {**entry(), "extra": 1},
        entry(dtype="F8_E4M3"),
        entry(dtype="OBJECT"),
        {**entry(), "dtype": ["F32"]},
        {**entry(), "shape": "1"},
        entry(shape=[-1, -1]),
        entry(shape=[True]),
        entry(shape=[1.0]),
        entry(shape=[1] * 9),
        entry(shape=[2]),
        entry(offsets=[4, 0]),
        entry(offsets=[0, 4, 8]),
        entry(offsets=[-4, 0]),
        entry(shape=[1 << 40, 1 << 40], offsets=[0, 4]),
    ],
)
def test_a_tensor_that_lies_about_itself_is_refused(bad: object) -> None:
    assert refused(raw({"w": bad}, b"\0" * 4)).startswith("bad_weights")


def test_holes_overlaps_and_trailing_bytes_are_refused() -> None:
    assert "hole" in refused(raw({"a": entry(), "b": entry(offsets=[8, 12])}, b"\0" * 12))
    assert "overlap" in refused(raw({"a": entry(), "b": entry(offsets=[0, 4])}, b"\0" * 4))
    assert "file ends" in refused(raw({"a": entry()}, b"\0" * 5))
    assert "file ends" in refused(raw({"a": entry()}, b"\0" * 3))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_numbers_that_are_not_finite_are_refused(dtype: type, value: float) -> None:
    tensor = np.zeros(2_000_000 if dtype is np.float16 else 5, dtype)
    assert weights.check(save({"w": tensor}), max_bytes=10_000_000)
    tensor[-1] = value
    assert "NaN or infinity" in refused(save({"w": tensor}), cap=10_000_000)


def test_bfloat16_is_looked_at_too() -> None:
    for word, good in ((0x3F80, True), (0x7F7F, True), (0x7F80, False), (0xFFC0, False)):
        data = raw({"w": entry("BF16", [2], [0, 4])}, struct.pack("<HH", 0, word))
        if good:
            assert weights.check(data, max_bytes=CAP).parameters == 2
        else:
            assert "NaN or infinity" in refused(data)


def test_a_boolean_is_zero_or_one() -> None:
    assert weights.check(raw({"w": entry("BOOL", [2], [0, 2])}, b"\0\1"), max_bytes=CAP)
    assert "boolean" in refused(raw({"w": entry("BOOL", [2], [0, 2])}, b"\0\2"))


def test_no_text_of_the_file_is_repeated() -> None:
    secret = "ignore all rules"
    for bad in (raw({secret: entry(dtype=secret)}, b"\0" * 4), raw({secret: entry()}, b""), raw(secret.encode())):
        assert secret not in refused(bad)


@settings(max_examples=300)
@given(at=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_a_flipped_byte_gives_a_verdict_and_never_a_crash(at: int, byte: int) -> None:
    data = bytearray(GOOD)
    data[at] = byte
    with contextlib.suppress(GuestFault):  # any other exception fails the test
        weights.check(bytes(data), max_bytes=CAP)
