"""Every obligation plugin, and the example of docs/plugins.md, is held to the one contract."""

import ast
import copy
import json
import re
import sys
import types

import jsonschema
import pytest

from gateway.core.capabilities import ALL_BODIES, ALL_HEADS, EdgeCapabilities
from gateway.core.decision import Obligation
from gateway.core.obligations import BodyHandler, ObligationContext, RequestHeadHandler, ResponseHeadHandler
from gateway.core.reasons import REASONS, Refusal
from gateway.obligations.body import OpenBody
from gateway.obligations.plan import Obligations
from plugins.obligations import ALL, builtin
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


PLUGIN_SOURCE, TEST_SOURCE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def executed(source, name):
    """A module of our own page."""
    module = types.ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), module.__dict__)  # noqa: S102 - our own page
    return module


def example():
    return executed(PLUGIN_SOURCE, "plugins.obligations.watermark").Watermark


def test_the_pages_own_test_of_its_example_passes(monkeypatch):
    monkeypatch.setitem(sys.modules, "plugins.obligations.watermark", executed(PLUGIN_SOURCE, "watermark"))
    tests = [test for name, test in vars(executed(TEST_SOURCE, "test_watermark")).items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


PLUGINS = [*ALL, example()]
EDGE = EdgeCapabilities("probe", ALL_HEADS, ALL_BODIES)
CONTEXT = ObligationContext("14|https://id.test|ann", "sales")
BODIES = [("application/json", b'{"a":[1],"iban":"DE1"}'), ("text/html", b"<p>iban DE1</p>"), ("", b"")]
JUNK = [
    {"unknown": 1},
    {"set": []},
    {"set": {"x": 1}},
    {"remove": "server"},
    {"limit_bytes": "1"},
    {"limit_bytes": True},
    {"limit_bytes": -1},
    {"fields": "iban"},
    {"fields": [1]},
    {"fields": []},
    {"pointers": ["no"]},
    {"pointers": ["/a~2"]},
    {"pointers": [None]},
    {"fields": ["a"], "mask": None},
    {"fields": ["a"], "keep_last": 99},
    {"text": None},
    {"set": {"x": "a\nb"}},
    {"set": {"": "a"}},
]


@pytest.fixture(params=PLUGINS, ids=lambda plugin: plugin.kind)
def plugin(request):
    return request.param()


def test_a_plugin_has_a_kind_a_capability_a_docstring_and_a_sound_schema(plugin):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", plugin.kind)
    assert isinstance(plugin, RequestHeadHandler | ResponseHeadHandler | BodyHandler)
    assert type(plugin).__doc__
    jsonschema.Draft202012Validator.check_schema(plugin.schema)
    assert plugin.schema["examples"]
    assert plugin.schema["additionalProperties"] is False


def test_a_plugin_takes_the_examples_of_its_schema_and_leaves_them_as_they_are(plugin):
    for params in plugin.schema["examples"]:
        jsonschema.validate(params, plugin.schema)
        before = copy.deepcopy(params)
        plugin.parse(params)
        assert params == before


def test_a_plugin_refuses_what_its_schema_refuses_and_raises_nothing_but_valueerror(plugin):
    validator = jsonschema.Draft202012Validator(plugin.schema)
    for params in JUNK:
        if not validator.is_valid(params):
            with pytest.raises(ValueError, match=r".+"):
                plugin.parse(params)


def through(plan, kind, body, facts, step):
    """What a body becomes, in pieces of `step` bytes; a refusal, or None where the plan does not act on bodies."""
    headers = [("content-type", kind)] if kind else []
    request = facts(method="POST", headers=tuple(headers), content_length=len(body))
    opened = plan.open_request_body(request, CONTEXT) or plan.open_response_body(
        "GET", 200, headers, CONTEXT, has_body=True
    )
    if not isinstance(opened, OpenBody):
        return opened
    outcomes = [opened.feed(body[at : at + step]) for at in range(0, len(body), step)] + [opened.finish()]
    return outcomes[-1] if isinstance(outcomes[-1], Refusal) else b"".join(outcomes)


def test_a_plugin_survives_every_kind_of_request_and_answer(plugin, facts):
    known = Obligations([plugin])
    for params in plugin.schema["examples"]:
        for method, protocol, length in (("GET", "h2", 0), ("POST", "http/1.1", None), ("GET", "websocket", 0)):
            request = facts(method=method, protocol=protocol, content_length=length)
            plan = known.plan((Obligation(plugin.kind, params),), request, EDGE)
            if isinstance(plan, Refusal):
                assert (plan.reason, protocol) == ("obligation_unsupported", "websocket")
                continue
            enforced = plan.enforce_request([("cookie", "a=b"), ("accept", "*/*")], request)
            assert not isinstance(enforced, Refusal) or enforced.reason in REASONS
        plan = known.plan((Obligation(plugin.kind, params),), facts(), EDGE)
        for headers in ([], [("content-type", "application/json")]):
            plan.enforce_response(headers)
        for kind, body in BODIES:
            outcome = through(plan, kind, body, facts, 1 << 20)
            assert isinstance(outcome, bytes) or outcome is None or outcome.reason in REASONS


def test_a_plugin_does_the_same_thing_twice(plugin, facts):
    for params in plugin.schema["examples"]:
        plan = Obligations([plugin]).plan((Obligation(plugin.kind, params),), facts(), EDGE)
        once = plan.enforce_response([("server", "x"), ("content-type", "application/json")])
        twice = plan.enforce_response(once)
        assert sorted(set(once)) == sorted(set(twice))


@pytest.mark.parametrize("step", [1, 2, 7])
def test_the_cuts_of_the_network_change_nothing(plugin, step, facts):
    for params in plugin.schema["examples"]:
        plan = Obligations([plugin]).plan((Obligation(plugin.kind, params),), facts(), EDGE)
        for kind, body in BODIES:
            assert through(plan, kind, body, facts, step) == through(plan, kind, body, facts, 1 << 20)


@pytest.mark.parametrize("kind", [plugin.kind for plugin in ALL])
def test_a_plugin_is_one_file_with_one_class_that_imports_the_core_alone(kind):
    path = ROOT / "plugins" / "obligations" / f"{kind}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert len([name for name in classes if not name.startswith("_")]) == 1
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
    modules = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert all(not name.startswith(("gateway", "plugins")) or name.startswith("gateway.core.") for name in modules)


def test_every_plugin_file_is_in_the_list_and_on_the_page():
    files = {path.stem for path in (ROOT / "plugins" / "obligations").glob("*.py")} - {"__init__"}
    assert files == {plugin.kind for plugin in ALL}
    for kind in files:
        assert f"| `{kind}` |" in PAGE
    assert [plugin.kind for plugin in builtin()] == re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)


def test_params_as_policy_answers_them_survive_json(plugin, facts):
    for params in plugin.schema["examples"]:
        demanded = (Obligation(plugin.kind, json.loads(json.dumps(params))),)
        answer = Obligations([plugin]).plan(demanded, facts(), EDGE)
        assert not isinstance(answer, Refusal)
