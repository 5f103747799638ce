"""Events that hang together: a body is read only as it can have been written."""

from __future__ import annotations

import json
import math

import pytest

from bellglass.store.chain import body_from, canonical


@pytest.mark.parametrize("text", ['{"a": 1' + "0" * 400 + "}", '{"a": 1e400}', '{"a": NaN}', '{"a": -Infinity}'])
def test_a_number_that_nobody_can_count_with_is_refused(text: str) -> None:
    taken = json.loads(text)["a"]  # as it was read before
    with pytest.raises((OverflowError, ValueError)):
        math.floor(float(taken))
    with pytest.raises(ValueError, match=r"too large|NaN|Infinity"):
        body_from(text)


@pytest.mark.parametrize("body", [{"a": [1.5, None, "\x00\ud800"], "b": 2**64, "c": -0.0, "d": 1e308}, {}])
def test_what_was_written_comes_back(body: dict[str, object]) -> None:
    assert body_from(canonical(body)) == body
