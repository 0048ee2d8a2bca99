"""Every signal plugin, and the example of docs/signals.md, is held to the one contract."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import math
import re
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.ports.pipeline import Network
from gateway.core.signals import Observation, Signal
from plugins.signals import ALL, builtin
from tests.support.observations import CHROME, JA4, NOW, SCRIPT_JA4, seen
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "signals.md").read_text(encoding="utf-8")


def example() -> type[Signal]:
    [source] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(source.splitlines()) <= 40
    scope: dict[str, Any] = {"__name__": "night_shift"}
    exec(compile(source, "night_shift.py", "exec"), scope)  # noqa: S102 - our own page
    return scope["NightShift"]  # type: ignore[no-any-return]


SIGNALS = [*ALL, example()]
NETWORKS = st.sampled_from(
    [
        Network(),
        Network("DE"),
        Network("AU", 64500, "x", -33.0, 151.0, 10.0),
        Network("DE", 64501, "x", 52.0, 13.0),
        Network("US", 1, "x", 90.0, -180.0, 0.0),
        Network(company=True),
        Network(vpn=True, flaw="broken"),
        Network(flaw="absent"),
    ]
)
MOMENTS = st.builds(
    Observation,
    now=st.floats(NOW - 4000, NOW + 4000),
    subject=st.sampled_from(["ann", "bob"]),
    session=st.sampled_from(["s1", "s2", ""]),
    kind=st.sampled_from(["session", "jwt", "opaque"]),
    bound=st.booleans(),
    device_id=st.sampled_from(["", "d1"]),
    ip=st.sampled_from(["", "192.0.2.7", "2001:db8::1", "10.0.0.1"]),
    network=NETWORKS,
    ja4=st.sampled_from(["", JA4, SCRIPT_JA4, "junk"]),
    agent=st.sampled_from(["", CHROME, "curl/8.0", "\x00é" * 500]),
    hints=st.text(max_size=20),
    protocol=st.sampled_from(["h2", "websocket", "grpc"]),
    failed=st.sampled_from(["", "", "", "factor_invalid", "factor_replayed"]),
    account=st.text(max_size=5),
)


@pytest.fixture(params=SIGNALS, ids=lambda plugin: plugin.name)
def plugin(request: pytest.FixtureRequest) -> type[Signal]:
    return request.param  # type: ignore[no-any-return]


def test_a_signal_says_what_it_is(plugin: type[Signal]) -> None:
    signal = plugin()
    assert re.fullmatch(r"[a-z][a-z0-9_]*", signal.name)
    assert signal.scope in {"session", "subject", "network"}
    assert 0 < signal.bound < math.inf
    assert plugin.__doc__


def test_the_schema_is_that_of_the_constructor_which_needs_nothing(plugin: type[Signal]) -> None:
    schema = plugin.schema
    jsonschema.Draft202012Validator.check_schema(dict(schema))
    assert schema["additionalProperties"] is False
    assert list(inspect.signature(plugin).parameters) == list(schema["properties"])
    assert {} in schema["examples"]
    for example_settings in schema["examples"]:
        jsonschema.validate(example_settings, dict(schema))
        plugin(**example_settings)


@settings(max_examples=60, deadline=None)
@given(moments=st.lists(MOMENTS, min_size=1, max_size=25), believed=st.booleans())
def test_whatever_it_sees_its_terms_are_named_bounded_and_no_relief(moments: list[Observation], believed: bool) -> None:
    for plugin in SIGNALS:
        for given_settings in plugin.schema["examples"]:
            signal = plugin(**given_settings)
            memory: dict[str, Any] = {}
            for moment in moments:
                if moment.failed and not signal.failures:
                    continue
                before = copy.deepcopy(memory)
                sighting = signal.assess(moment, memory)
                assert memory == before, "it changed what it was given"
                assert sighting == signal.assess(moment, memory), "it is not pure"
                assert (
                    math.fsum(term.value for term in sighting.terms) <= signal.bound + 1e-9 or len(sighting.terms) > 1
                )
                for term in sighting.terms:
                    assert term.name == signal.name or term.name.startswith(f"{signal.name}_")
                    assert 0 <= term.value <= signal.bound
                    assert len(term.why) < 200
                memory = json.loads(json.dumps(sighting.learned if believed else sighting.memory))
            assert len(json.dumps(memory)) < 16_384


def test_a_steady_person_raises_nothing_and_is_seldom_written_down(plugin: type[Signal]) -> None:
    signal = plugin()
    memory: Any = {}
    writes = 0
    for minute in range(0, 600, 5):
        sighting = signal.assess(replace(seen(), now=NOW + 60 * minute), memory)
        assert sighting.terms == ()
        writes += sighting.learned is not memory
        memory = sighting.learned
    assert writes <= 125


@pytest.mark.parametrize("name", [plugin.name for plugin in ALL])
def test_a_signal_is_one_file_with_one_class_that_imports_the_core_alone(name: str) -> None:
    path = ROOT / "plugins" / "signals" / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert len([node for node in tree.body if isinstance(node, ast.ClassDef)]) == 1
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
    modules = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert all(not name.startswith(("gateway", "plugins")) or name.startswith("gateway.core.") for name in modules)
    assert modules & {"time", "random", "os", "datetime", "secrets"} == set()


def test_every_signal_file_is_in_the_list_and_on_the_page() -> None:
    files = {path.stem for path in (ROOT / "plugins" / "signals").glob("*.py")} - {"__init__"}
    assert files == {plugin.name for plugin in ALL}
    for name in files:
        assert f"| `{name}` |" in PAGE


def test_settings_reach_the_signal_of_their_name_and_no_other() -> None:
    by_name = {signal.name: signal for signal in builtin({"new_network": {"weight": 3.5}})}
    assert by_name["new_network"].bound == 3.5
    assert by_name["new_device"].bound == 1.5
    with pytest.raises(ValueError, match="no such signal: telepathy"):
        builtin({"telepathy": {}})
    for bad in ({"wait": 1}, {"weight": -1}, {"weight": math.nan}, {"days": 1.5}, {"days": 1e9}):
        with pytest.raises(ValueError, match="new_network does not take"):
            builtin({"new_network": bad})
    assert builtin({"new_network": {"days": 30.0, "most": 5.0}})
