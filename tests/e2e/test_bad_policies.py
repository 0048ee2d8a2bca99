"""A running gateway gets policies and data that cannot stand: the log names the file, the old ones go on deciding."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from gateway.demo.clients.http import Browser, DeviceFiles, enrol
from gateway.demo.world import ECHO, World

pytestmark = pytest.mark.xdist_group("bad policies")
HEAD = "package gateway.authz\n\n"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(workers=1) as world:
        world.start()
        yield world


@pytest.fixture(scope="module")
def browser(world: World) -> Iterator[Browser]:
    _, token = world.add_device("laptop", "alice")
    answer, files = enrol(world.port, world.pki.root, token, world.folder / "laptop")
    assert isinstance(files, DeviceFiles), answer.text
    browser = Browser(world.port, ECHO, world.pki.root, files)
    yield browser
    browser.close()


def until(happened: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def refusals(world: World) -> list[str]:
    """What the log says of each reload that was refused."""
    lines = (world.logs / "gateway.log").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines if '"reload_refused"' in line]
    return [str(event["error"]) for event in events]


BAD: dict[str, bytes] = {
    name: (HEAD + text).encode()
    for name, text in {
        "unclosed_brace": "x := {",
        "no_value": "x :=",
        "stray_bracket": "x := )",
        "unclosed_string": 'x := "abc',
        "bad_escape": r'x := "\q"',
        "no_if": "x := 1 { true }",
        "unsafe_variable": "blocks contains code if input.now > 1",
        "unsafe_negation": 'blocks contains "x" if not input.request.headers[name] == "y"',
        "undefined_function": 'blocks contains nothing("x")',
        "wrong_arity": 'blocks contains "x" if count(1, 2, 3, 4)',
        "wrong_type": 'blocks contains "x" if startswith(1, "a")',
        "impure_send": 'blocks contains "x" if http.send({"method": "get", "url": "http://127.0.0.1:1"})',
        "impure_clock": 'blocks contains "x" if time.now_ns() > 1',
        "impure_chance": 'blocks contains "x" if rand.intn("x", 2) == 1',
        "recursion": "f(x) := g(x)\n\ng(x) := f(x)\n\nblocks contains f(1)",
        "recursive_set": 'blocks contains "x" if count(blocks) > 1',
        "kinds_mixed": "blocks := 1",
        "two_defaults": 'default level := 1\n\ndefault level := 2\n\nblocks contains "x" if level == 3',
        "wrong_member": 'blocks contains "x" if input.servce.name == "x"',
        "wrong_rule": 'block contains "x" if input.now > 1',
        "entry_point_again": 'decision := {"effect": "allow", "reasons": ["policy_ok"]} if true\n\ndecision(x) := x',
        "unknown_import": "import data.gateway.authz as authz\nimport nowhere.at.all",
        "old_syntax": "blocks[code] { code := 1 }",
        "bidirectional": 'blocks contains "x" if input.now == 1 # \u202e',
        "separator": "# harmless\u2028",
    }.items()
} | {"no_utf8": HEAD.encode() + b"# \xff\xfe", "empty": b"", "zero_byte": HEAD.encode() + b"x := 1\0"}


@pytest.mark.parametrize("name", BAD)
def test_a_policy_that_cannot_stand_is_named_and_changes_nothing(world: World, browser: Browser, name: str) -> None:
    before, token = world.policy_version(), world.token("alice")
    file = world.policies / "gateway" / f"bad_{name}.rego"
    file.write_bytes(BAD[name])
    try:
        # OPA names the first of several files that define one rule.
        place = "authz.rego" if name == "entry_point_again" else file.name
        until(lambda: any(place in error for error in refusals(world)))
        assert browser.ask("/headers", token).status_code == 200
        assert world.policy_version() == before
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut_short", b'{"a": '),
        ("no_object", b"[1]"),
        ("no_number", b'{"a": NaN}'),
        ("deep", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("no_utf8", b'{"a": "\xff"}'),
        ("large", b'{"large": "' + b"x" * (100 << 20) + b'"}'),
    ],
)
def test_data_that_cannot_stand_are_named_and_change_nothing(
    world: World, browser: Browser, name: str, content: bytes
) -> None:
    before, token = world.policy_version(), world.token("alice")
    file = world.policies / "data" / f"bad_{name}.json"
    file.write_bytes(content)
    try:
        until(lambda: any(file.name in error for error in refusals(world)))
        assert browser.ask("/headers", token).status_code == 200
        assert world.policy_version() == before
    finally:
        file.unlink()


RUN_TIME = """package gateway.authz

asked(kind) if input.request.headers["x-kind"] == kind

numbers_of_all := numbers.range(1, 3000)

blocks contains "never_one" if {
	asked("product")
	count({[a, b] | some a in numbers_of_all; some b in numbers_of_all}) == 1
}

blocks contains "never_two" if {
	asked("walk")
	count([1 | walk([numbers_of_all, numbers_of_all], [_, one]); walk(numbers_of_all, [_, other]); one == other]) == 1
}

blocks contains "never_three" if {
	asked("expression")
	every n in numbers.range(1, 200000) { not regex.match("(x+x+)+y", sprintf("%s%d", ["xxxxxxxxxxxxxx", n])) == 1 }
	false
}

level := 1 if asked("contradiction")

level := 2 if {
	asked("contradiction")
	input.now > 1
}

blocks contains "never_four" if level > 5
"""


def test_what_goes_wrong_at_run_time_is_a_denial_and_the_next_request_is_served(world: World, browser: Browser) -> None:
    before, token = world.policy_version(), world.token("alice")
    file = world.policies / "gateway" / "run_time.rego"
    file.write_text(RUN_TIME, encoding="utf-8")
    try:
        until(lambda: world.policy_version() != before)
        reasons = {}
        for kind in ("product", "walk", "expression", "contradiction"):
            answer = browser.ask("/headers", token, headers={"x-kind": kind})
            reasons[kind] = answer.headers["x-gateway-reason"]
            assert answer.status_code >= 400
            assert browser.ask("/headers", token).status_code == 200
        late = dict.fromkeys(("product", "walk", "expression"), "policy_timeout")
        assert reasons == late | {"contradiction": "policy_error"}
    finally:
        file.unlink()
        until(lambda: world.policy_version() == before)
