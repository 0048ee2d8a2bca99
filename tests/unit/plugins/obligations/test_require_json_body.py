"""A request's body that every parser reads alike, or a refusal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.obligations import BodyInfo, ObligationContext, WholeBody
from gateway.core.reasons import Refusal
from plugins.obligations.require_json_body import RequireJsonBody

PLUGIN = RequireJsonBody()


def checked(body, media_type="application/json", charset="", **params):
    """The body as it goes on, or the code of its refusal."""
    transform = PLUGIN.open(PLUGIN.parse(params), BodyInfo(media_type, charset, "POST"), ObligationContext())
    outcome = transform.feed(body) if isinstance(transform, WholeBody) else transform
    return outcome.reason if isinstance(outcome, Refusal) else outcome


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b" [1, 2.50, -0, 1e3]\n",
        b'"\\ud83d\\ude00"',
        '{"a":"\u20ac","b":{"a":[null,true]}}'.encode(),
        b"1",
        b"null",
    ],
)
def test_json_goes_on_byte_for_byte(body):
    assert checked(body) == body
    assert checked(body, "application/merge-patch+json", "utf-8") == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}{}",
        b"a=b",
        b'{"a":1,"a":2}',
        b'{"a":1,"\\u0061":2}',
        b'[{"b":{"a":1,"a":2}}]',
        b"NaN",
        b"[-Infinity]",
        b"1e999",
        b"[1,]",
        b"{'a':1}",
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        '"a"'.encode("utf-16"),
        b'"a\nb"',
        b"\x00",
        b"1" * 5000,
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(body):
    assert checked(body) == "body_invalid"


@pytest.mark.parametrize(
    ("body", "max_depth", "passes"),
    [
        (b"1", 1, True),
        (b"[]", 1, True),
        (b"[[]]", 1, False),
        (b'{"a":[{}]}', 3, True),
        (b'{"a":[{}]}', 2, False),
        (b'["[[[[", "{{{{\\"["]', 1, True),
        (b"[[],[],[[]]]", 3, True),
        (b"[[],[],[[]]]", 2, False),
    ],
)
def test_arrays_and_objects_nest_only_so_deep(body, max_depth, passes):
    assert checked(body, max_depth=max_depth) == (body if passes else "body_invalid")


def test_a_body_has_a_largest_size():
    assert checked(b'"1234567"', max_bytes=9) == b'"1234567"'
    assert checked(b'"12345678"', max_bytes=9) == "body_too_large"


@pytest.mark.parametrize(
    ("media_type", "charset"),
    [
        ("", ""),
        ("text/plain", ""),
        ("application/jsonp", ""),
        ("application/json", "utf-16"),
        ("multipart/form-data", ""),
    ],
)
def test_a_body_that_does_not_say_that_it_is_json_is_refused_unread(media_type, charset):
    assert checked(b"{}", media_type, charset) == "body_type_unsupported"


@pytest.mark.parametrize(
    ("method", "length", "reason"),
    [
        ("GET", 0, None),
        ("DELETE", 0, None),
        ("POST", 0, "body_invalid"),
        ("PUT", 0, "body_invalid"),
        ("PATCH", 0, "body_invalid"),
        ("POST", 5, None),
        ("POST", None, None),
        ("POST", 1 << 21, "body_too_large"),
    ],
)
def test_what_the_head_shows_is_refused_at_once(method, length, reason, facts):
    answer = PLUGIN.request_head([("a", "b")], PLUGIN.parse({}), facts(method=method, content_length=length))
    assert answer == [("a", "b")] if reason is None else answer.reason == reason


@pytest.mark.parametrize(
    "params",
    [{"max_depth": 0}, {"max_depth": True}, {"max_depth": 101}, {"max_bytes": 1}, {"max_bytes": 1 << 30}, {"x": 1}],
)
def test_parameters_that_do_not_fit_are_refused(params):
    with pytest.raises(ValueError, match="require_json_body"):
        PLUGIN.parse(params)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=20,
)


def depth(document):
    if not isinstance(document, dict | list):
        return 0
    return 1 + max(map(depth, document.values() if isinstance(document, dict) else document), default=0)


@given(JSON, st.integers(1, 6), st.booleans())
def test_every_document_of_bounded_depth_passes_and_no_deeper_one(document, max_depth, ascii_only):
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert checked(body, max_depth=max_depth) == (body if depth(document) <= max_depth else "body_invalid")


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_is_json(body):
    outcome = checked(body)
    assert outcome == "body_invalid" or json.loads(outcome) is not ...
