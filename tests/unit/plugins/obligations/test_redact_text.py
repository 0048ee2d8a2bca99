"""Redaction while a response streams: the same whatever the cuts, with bounded look-behind."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.obligations import BodyInfo, ObligationContext
from plugins.obligations.redact_text import _PATTERNS, RedactText

PLUGIN = RedactText()


def opened(media_type="text/plain", charset="", **params):
    return PLUGIN.open(PLUGIN.parse(params), BodyInfo(media_type, charset, "GET", 200), ObligationContext())


def redacted(*chunks, **params):
    transform = opened(**params)
    return b"".join([*(transform.feed(chunk) for chunk in chunks), transform.finish()])


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("iban", b"pay DE89370400440532013000 now", b"pay *** now"),
        ("iban", b"pay DE89 3704 0044 0532 0130 00, now", b"pay ***, now"),
        ("iban", b"XDE89370400440532013000", b"XDE89370400440532013000"),
        ("card_number", b"card 4111 1111 1111 1111.", b"card ***."),
        ("card_number", b"card 4111-1111-1111-1111", b"card ***"),
        ("card_number", b"id 41111111111111111111111111", b"id 41111111111111111111111111"),
        ("card_number", b"year 2026", b"year 2026"),
        ("email", b"<a href='mailto:ann.b+c@mail.example.org'>", b"<a href='mailto:***'>"),
        ("email", b"a @ b", b"a @ b"),
        ("jwt", b'"token":"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1In0.c2ln"', b'"token":"***"'),
        ("jwt", b"eyJhbGciOiJFUzI1NiJ9", b"eyJhbGciOiJFUzI1NiJ9"),
    ],
)
def test_a_pattern_is_replaced_wherever_the_body_is_cut(pattern, text, expected):
    assert redacted(text, patterns=[pattern]) == expected
    for cut in range(len(text) + 1):
        assert redacted(text[:cut], text[cut:], patterns=[pattern]) == expected
    assert redacted(*(bytes([byte]) for byte in text), patterns=[pattern]) == expected


def test_of_two_texts_that_begin_alike_the_longer_one_counts():
    for cut in range(6):
        assert redacted(b"abcdef"[:cut], b"abcdef"[cut:], texts=["ab", "abcd"]) == b"***ef"
        assert redacted(b"abcxef"[:cut], b"abcxef"[cut:], texts=["ab", "abcd"]) == b"***cxef"


def test_a_text_of_any_script_is_replaced():
    assert redacted("sag Überweisung, sag".encode(), texts=["Überweisung"], mask="[x]") == b"sag [x], sag"


def test_an_empty_mask_removes():
    assert redacted(b"a secret b", texts=["secret "], mask="") == b"a b"


def test_a_removed_text_does_not_join_what_was_around_it():
    assert redacted(b"sesecretcret", texts=["secret"], mask="") == b"secret"


def test_an_event_goes_out_at_once_whatever_is_looked_for():
    event = b'data: {"mail":"ann@mail.example","n":1}\n\n'
    transform = opened("text/event-stream", texts=["Nightingale"], patterns=sorted(_PATTERNS))
    for _ in range(3):
        assert transform.feed(event) == b'data: {"mail":"***","n":1}\n\n'


@pytest.mark.parametrize("pattern", sorted(_PATTERNS))
def test_what_is_held_back_is_bounded(pattern):
    alphabet, longest = _PATTERNS[pattern].alphabet, _PATTERNS[pattern].longest
    transform = opened(patterns=[pattern])
    fed = sent = 0
    for _ in range(30):
        chunk = alphabet * 40
        fed += len(chunk)
        sent += len(transform.feed(chunk))
        assert len(transform._data) <= longest + 1


@pytest.mark.parametrize(
    ("media_type", "charset"),
    [("image/png", ""), ("application/octet-stream", ""), ("text/plain", "utf-16"), ("text/html", "utf-7")],
)
def test_what_cannot_be_read_is_not_sent(media_type, charset):
    with pytest.raises(ValueError, match="not text"):
        opened(media_type, charset, texts=["a"])


def test_a_body_without_a_type_may_be_empty_and_nothing_else():
    assert redacted(texts=["a"], media_type="") == b""
    with pytest.raises(ValueError, match="not text"):
        redacted(b"a", texts=["a"], media_type="")
    with pytest.raises(ValueError, match="not text"):
        PLUGIN.open(
            PLUGIN.parse({"texts": ["a"]}), BodyInfo("", "", "GET", 200, declared_length=1), ObligationContext()
        )


@pytest.mark.parametrize("body", ["secret".encode("utf-16"), "secret".encode("utf-16-be"), b"a\x00b", b"\xff"])
def test_bytes_that_utf8_text_does_not_have_are_refused_wherever_they_come(body):
    with pytest.raises(ValueError, match="not text"):
        redacted(b"fine so far ", *(bytes([byte]) for byte in body), texts=["secret"])


@pytest.mark.parametrize("mask", ['"', "<b>", "\\", "'", "a\nb", "\u20ac", "x" * 65, None, 1])
def test_a_mask_means_nothing_where_it_stands(mask):
    with pytest.raises(ValueError, match="mask"):
        PLUGIN.parse({"texts": ["a"], "mask": mask})


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"mask": "x"},
        {"texts": []},
        {"texts": [""]},
        {"texts": ["x" * 65]},
        {"texts": "abc"},
        {"texts": ["\ud800"]},
        {"patterns": ["phone"]},
        {"patterns": []},
        {"texts": ["a"], "fields": ["b"]},
    ],
)
def test_parameters_that_do_not_fit_are_refused(params):
    with pytest.raises(ValueError, match="redact_text"):
        PLUGIN.parse(params)


TEXTS = ["a", "ab", "aba", "bab b", "b@a"]
BODY = st.binary().map(lambda data: bytes(b"aab @1 .\n-EYeyJ0"[byte % 17 - 1] for byte in data))
PIECES = st.sampled_from(
    [
        *(b"DE89370400440532013000", b"DE89 3704 0044 0532 0130 00", b"4111 1111 1111 1111", b"ann@b.example"),
        *(b"eyJhbGci.eyJzdWI.c2ln", b"a", b"ab", b" ", b"\n", b"1", b"x", b"@", b"-", b"."),
    ]
)


@given(
    st.lists(PIECES | BODY, max_size=12),
    st.lists(st.integers(0, 400), max_size=12),
    st.lists(st.sampled_from(TEXTS), max_size=4),
    st.sets(st.sampled_from(sorted(_PATTERNS)), min_size=1),
)
def test_any_cuts_give_what_one_look_at_the_whole_gives(pieces, cuts, texts, patterns):
    body = b"".join(pieces)
    borders = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[start:end] for start, end in itertools.pairwise(borders)]
    params = {"patterns": sorted(patterns)} | ({"texts": texts} if texts else {})
    alternatives = [re.escape(text.encode()) for text in sorted(set(texts), key=lambda text: (-len(text), text))]
    whole = re.compile(b"|".join([*alternatives, *(_PATTERNS[name].regex for name in sorted(patterns))]))
    assert redacted(*chunks, **params) == whole.sub(b"***", body)
