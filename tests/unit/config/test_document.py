"""YAML is read in one way only, and bounded before it costs anything."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.config import ConfigError
from gateway.config.document import LIMIT_BYTES, Document, parse

FILE = Path("gateway.yaml")


def read(text: str | bytes) -> Document:
    return parse(text.encode() if isinstance(text, str) else text, FILE)


def refusal(text: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert all(problem.fix and problem.message for problem in caught.value.problems)
    return caught.value


def test_plain_values_have_the_types_that_every_reader_gives_them() -> None:
    document = read(
        "a: 1\nb: 1.5\nc: true\nd: ~\ne: text\nf: [x, '1']\ng: {}\nh: -3\ni: 1.5e+3\nj: \"no\"\nk: |\n  x\n"
    )
    assert document.root.data == {
        "a": 1, "b": 1.5, "c": True, "d": None, "e": "text", "f": ["x", "1"], "g": {}, "h": -3, "i": 1500.0,
        "j": "no", "k": "x\n",
    }  # fmt: skip


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "NO", "On"])
def test_a_word_that_yaml_11_takes_for_a_truth_value_is_refused(word: str) -> None:
    problem = refusal(f"a: 1\ncountries: [{word}]\n").problems[0]
    assert (problem.line, problem.column, problem.key) == (2, 13, "countries[0]")
    assert f'"{word}"' in problem.fix


@pytest.mark.parametrize(
    "text",
    ["0777", "0o17", "0x1f", "0b1", "1_000", "12:30", "1:30:00", "1e3", "1.5e3", ".5", ".inf", "-.inf", ".nan", "00",
     "2024-01-31", "2024-01-31T10:00:00Z", "="],
)  # fmt: skip
def test_a_number_or_date_that_yaml_readers_disagree_about_is_refused(text: str) -> None:
    problem = refusal(f"a: {text}\n").problems[0]
    assert (problem.line, problem.key) == (1, "a")
    assert "quotes" in problem.fix


@pytest.mark.parametrize("text", ["127.0.0.1:80", "10.0.0.0/8", "fd00::/8", "y", "n", "1.2.3", "v1", "http://a:1"])
def test_text_that_every_reader_takes_for_text_needs_no_quotes(text: str) -> None:
    assert read(f"a: {text}\n").root.data == {"a": text}


def test_a_key_that_stands_twice_is_refused_with_both_lines() -> None:
    problem = refusal("a:\n  b: 1\n  c: 2\n  b: 3\n").problems[0]
    assert (problem.line, problem.column) == (4, 3)
    assert "line 2" in problem.message


def test_anchors_aliases_and_merges_are_fine() -> None:
    document = read("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz: *x\nw:\n  <<: [*x, {c: 4}]\n")
    assert document.root.data["y"] == {"a": 1, "b": 3}
    assert document.root.data["z"] == {"a": 1, "b": 2}
    assert document.root.data["w"] == {"a": 1, "b": 2, "c": 4}
    assert document.problem(("y", "a"), "m", "f").line == 1


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: !!python/object/apply:os.system [x]\n", "tags"),
        ("a: !!str no\n", "tags"),
        ("a: !secret x\n", "tags"),
        ("a: &a [*a]\n", "inside itself"),
        ("a: *b\n", "before its anchor"),
        ("<<: 5\n", "mappings"),
        ("? [a]\n: 1\n", "key must be text"),
        ("1: 1\n", "key must be text"),
        ("a: 1\n---\nb: 2\n", "second document"),
        ('a: "x\\0y"\n', "control character"),
        ("a: [\n", "YAML"),
        ("a: 'x\n", "YAML"),
        ("\ta: 1\n", "YAML"),
        ("a: \x00\n", "control character"),
        ("%YAML 9.9\n---\na: 1\n", "YAML"),
        (b"a: 1\nb: \xff\n", "UTF-8"),
        (b"\xff\xfea\x00", "UTF-8"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(text: str | bytes, word: str) -> None:
    assert word in str(refusal(text))


def test_a_byte_order_mark_is_fine() -> None:
    assert read(b"\xef\xbb\xbfa: 1\n").root.data == {"a": 1}


@pytest.mark.parametrize("unit", ["[", "{", "- ", "? ", "a: &a [", "[{a: "])
def test_deep_nesting_is_refused_at_once(unit: str) -> None:
    before = time.process_time()
    refusal(unit * 500_000)
    assert time.process_time() - before < 2


def test_aliases_cannot_multiply_without_bound() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "too many values" in str(refusal("\n".join(lines)))
    chain = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100))]
    assert "nested deeper" in str(refusal("\n".join(chain)))


def test_a_file_that_is_too_large_is_refused() -> None:
    assert "8 MiB" in str(refusal(b"#" * (LIMIT_BYTES + 1)))


def test_a_problem_stands_at_the_nearest_place_the_file_has() -> None:
    document = read("a:\n  b:\n    - x\n    - y\n")
    assert (document.problem(("a", "b", 1), "m", "f").line, document.problem(("a", "z"), "m", "f").line) == (4, 1)
    assert str(document.problem(("a", "b", 1), "m", "f")) == "gateway.yaml:4:7: a.b[1]: m f"
