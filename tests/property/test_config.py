"""Whatever stands in the file: a configuration, or `ConfigError` and nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Config, ConfigError, load, routes_of
from gateway.core.routes import RouteTable

FOLDER = tempfile.TemporaryDirectory()
FILE = Path(FOLDER.name) / "gateway.yaml"
CANARY = "hunter2canary"

WORDS = sorted(
    {name for model in Config.model_json_schema()["$defs"].values() for name in model.get("properties", {})}
    | set(Config.model_fields)
    | {"wiki", "/a", "", "auto", "never", "https://id.corp", "http://a:1", "wiki.corp", "*.corp", "GET", "opa", "a"}
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS), st.text(max_size=8), st.dates()
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=5), st.integers()), inner, max_size=5),
    ),
    max_leaves=40,
)
GOOD: dict[str, Any] = {
    "tls": [{"certificate": "a", "key": "b"}],
    "issuers": [
        {
            "issuer": "https://id.corp",
            "audiences": ["a"],
            "introspection": {"client_id": "c", "key": {"file": "k"}},
        }
    ],
    "policy": {"engine": "opa", "url": "https://opa", "token": {"env": "T"}},
    "services": {
        "wiki": {"host": "wiki.corp", "upstream": {"urls": ["http://a:1"]}, "paths": {"/a": {"methods": ["GET"]}}}
    },
}


def outcome(data: bytes) -> Config | ConfigError:
    FILE.write_bytes(data)
    try:
        return load(FILE, environ={})
    except ConfigError as error:
        return error


def check(data: bytes) -> None:
    found = outcome(data)
    if isinstance(found, Config):
        RouteTable(routes_of(found))
        return
    assert found.problems
    lines = len(data.decode("utf-8", "replace").splitlines()) + 1
    for problem in found.problems:
        assert problem.message
        assert problem.fix
        assert 0 <= problem.line <= lines
    assert CANARY not in str(found)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_cleanly(data: bytes) -> None:
    check(data)


@given(st.text(alphabet=st.sampled_from("a:-[]{}&*!|>'\"%@`#,?\n \tno0123.<~\u2028\x85"), max_size=120))
def test_arbitrary_punctuation_is_refused_cleanly(text: str) -> None:
    check(text.encode())


@settings(deadline=None)
@given(TREES)
def test_arbitrary_trees_are_refused_cleanly(tree: Any) -> None:
    check(yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "replace"))


@st.composite
def mutations(draw: st.DrawFn) -> dict[str, Any]:
    """A good configuration with one place of it replaced."""

    def mutate(value: Any) -> Any:
        if draw(st.integers(0, 3)) == 0 or not value or not isinstance(value, (dict, list)):
            return draw(TREES)
        if isinstance(value, list):
            return [mutate(value[0]), *value[1:]]
        key = draw(st.sampled_from(sorted(value)))
        return {**value, draw(st.sampled_from([key, key, draw(st.sampled_from(WORDS))])): mutate(value[key])}

    mutated: Any = mutate(GOOD)
    return mutated if isinstance(mutated, dict) else GOOD


@settings(deadline=None)
@given(mutations())
def test_a_good_file_with_one_place_changed_loads_or_is_refused_cleanly(tree: dict[str, Any]) -> None:
    check(yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "replace"))


SECRETS = st.recursive(
    st.sampled_from([CANARY, [CANARY], {CANARY: 1}, {"value": CANARY}, {"file": [CANARY]}, {"env": {CANARY: CANARY}}]),
    lambda inner: st.one_of(st.lists(inner, min_size=1, max_size=2), st.builds(lambda part: {"file": [part]}, inner)),
    max_leaves=3,
)


@given(SECRETS, st.sampled_from(["token", "secret", "key", "tokn", "password"]), st.booleans())
def test_what_stands_where_a_secret_belongs_is_never_shown(value: Any, name: str, of_issuer: bool) -> None:
    part = {"client_id": "c", name: value} if of_issuer else {"engine": "opa", "url": "https://opa", name: value}
    tree = GOOD | ({"issuers": [GOOD["issuers"][0] | {"introspection": part}]} if of_issuer else {"policy": part})
    found = outcome(yaml.safe_dump(tree).encode())
    assert isinstance(found, ConfigError), "a literal was taken"
    assert CANARY not in str(found)
