import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.obligations import BodyInfo, ObligationContext
from plugins.obligations import MaskJson

PLUGIN = MaskJson()


def masked(body, media_type="application/json", charset="", **params):
    """A body as the plugin gives it."""
    info = BodyInfo(media_type, charset, "GET", 200)
    transform = PLUGIN.open(PLUGIN.parse(params), info, ObligationContext())
    return transform.feed(body) + transform.finish()


def mask(document, **params):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return json.loads(masked(body, **params))


def test_a_field_is_masked_at_any_depth():
    document = {"iban": "DE1", "people": [{"iban": "DE2", "name": "Ann"}, [{"iban": {"deep": "DE3"}}]]}
    assert mask(document, fields=["iban"]) == {
        "iban": "***",
        "people": [{"iban": "***", "name": "Ann"}, [{"iban": "***"}]],
    }


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("/a/0/b", {"a": [{"b": "***"}, {"b": 2}], "x/y": 3, "m~n": 4}),
        ("/a/*/b", {"a": [{"b": "***"}, {"b": "***"}], "x/y": 3, "m~n": 4}),
        ("/a", {"a": "***", "x/y": 3, "m~n": 4}),
        ("/x~1y", {"a": [{"b": 1}, {"b": 2}], "x/y": "***", "m~n": 4}),
        ("/m~0n", {"a": [{"b": 1}, {"b": 2}], "x/y": 3, "m~n": "***"}),
        ("/*", {"a": "***", "x/y": "***", "m~n": "***"}),
        ("/a/9/b", {"a": [{"b": 1}, {"b": 2}], "x/y": 3, "m~n": 4}),
        ("/nowhere/b", {"a": [{"b": 1}, {"b": 2}], "x/y": 3, "m~n": 4}),
    ],
)
def test_a_pointer_is_followed(pointer, expected):
    assert mask({"a": [{"b": 1}, {"b": 2}], "x/y": 3, "m~n": 4}, pointers=[pointer]) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("DE89370400440532013000", "***3000"),
        ("12345678", "***5678"),
        ("1234567", "***"),
        (1234567890, "***7890"),
        (True, "***"),
        (None, "***"),
        ([1], "***"),
    ],
)
def test_the_last_characters_stay_only_when_the_value_is_long_enough(value, expected):
    assert mask({"v": value}, fields=["v"], keep_last=4) == {"v": expected}


def test_of_two_members_with_one_name_neither_gets_through():
    assert b"secret" not in masked(b'{"v":"secret1","v":"secret2"}', fields=["v"])


def test_an_escaped_name_is_the_same_name():
    assert mask(b'{"\\u0076":"secret"}', fields=["v"]) == {"v": "***"}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"{}"),
        ("", b"{}"),
        ("application/x-ndjson", b"{}\n{}"),
        ("application/json;utf-16", b"{}"),
        ("application/json", b"{"),
        ("application/json", b"{}{}"),
        ("application/json", b"NaN"),
        ("application/json", b"1e999"),
        ("application/json", b"\xff\xfe{}"),
        ("application/json", b'"\\ud800"'),
        ("application/json", b"[" * 100_000 + b"]" * 100_000),
    ],
)
def test_what_cannot_be_read_in_full_is_dropped(kind, body):
    with pytest.raises((ValueError, RecursionError)):
        masked(body, *kind.split(";"), fields=["v"])


def test_an_empty_body_stays_empty():
    assert masked(b"", "", fields=["v"]) == b""


@pytest.mark.parametrize("kind", ["application/json", "application/json;utf-8", "application/hal+json"])
def test_every_spelling_of_json_is_read(kind):
    assert masked(b'{"v":1}', *kind.split(";"), fields=["v"]) == b'{"v":"***"}'
    PLUGIN.response_head([("content-type", kind.replace(";", "; Charset=").upper())], {})


@pytest.mark.parametrize("name", ["content-type", "Content-Type", "content_type"])
def test_an_answer_that_cannot_be_masked_is_refused_at_its_head(name):
    with pytest.raises(ValueError, match="the response is"):
        PLUGIN.response_head([(name, "text/event-stream")], {})


def test_the_head_of_a_document_stays_as_it_is():
    headers = [("content-type", "application/json"), ("date", "now")]
    assert PLUGIN.response_head(headers, {}) == headers


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.sampled_from(["v", "w", "*", "0"]), below),
    max_leaves=20,
)


def left(document):
    if isinstance(document, dict):
        return [value for key, below in document.items() for value in ([below] if key == "v" else left(below))]
    return [value for below in document for value in left(below)] if isinstance(document, list) else []


@given(JSON)
def test_no_value_of_a_masked_field_is_left_in_any_document(document):
    try:
        masked = mask(document, fields=["v"])
    except UnicodeEncodeError:
        return
    assert all(value == "***" for value in left(masked))


@given(st.binary(max_size=200))
def test_garbage_raises_valueerror_or_is_json(body):
    try:
        answer = masked(body, fields=["v"])
    except ValueError:
        return
    assert answer == b"" or json.loads(answer) is not ...
