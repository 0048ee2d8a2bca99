from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.jose.strict_json import read_object

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "raw",
    [b"", b"1", b"[]", b"null", b'{"a":1,"a":1}', b'{"a":{"b":1,"b":2}}', b'{"a":NaN}', b'{"a":-Infinity}',
     b'{"a":1e999}', b"\xef\xbb\xbf{}", b'{"a":"\xff"}', b'{"a":"\\udc00"}', b'{"\\udc00":1}', b"{} {}", b'{"a":1}x',
     b"[" * 100_000, b'{"a":' + b"9" * 5_000 + b"}"],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_not_read(raw: bytes) -> None:
    assert read_object(raw) is None


def test_depth_and_members_are_bounded_exactly() -> None:
    assert read_object(b'{"a":{"b":1}}', depth=2) == {"a": {"b": 1}}
    assert read_object(b'{"a":{"b":{}}}', depth=2) is None
    assert read_object(b'{"a":{"b":[]}}', depth=2) is None
    assert read_object(b'{"a":[1,2],"b":3}', members=4) == {"a": [1, 2], "b": 3}
    assert read_object(b'{"a":[1,2],"b":3}', members=3) is None


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_object_or_nothing(raw: bytes) -> None:
    found = read_object(raw)
    assert found is None or isinstance(found, dict)
    if found is not None:
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
