"""Every obligation plugin, and the example of docs/plugins.md, is held to the one contract."""

import ast
import copy
import json
import re

import jsonschema
import pytest

from gateway.core.decision import Obligation
from gateway.core.reasons import REASONS, Refusal
from gateway.obligations.plan import PHASES, ObligationFailed, Obligations
from plugins.obligations import ALL, builtin
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


def example():
    [source] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope = {"__name__": "watermark"}
    exec(compile(source, "watermark.py", "exec"), scope)  # noqa: S102 - our own page
    return scope["Watermark"]


PLUGINS = [*ALL, example()]
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


def test_a_plugin_has_a_kind_known_phases_a_docstring_and_a_sound_schema(plugin):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", plugin.kind)
    assert plugin.phases
    assert plugin.phases <= PHASES
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


def test_a_plugin_survives_every_kind_of_request_and_answer(plugin, facts):
    known = Obligations([plugin])
    for params in plugin.schema["examples"]:
        plan = known.plan((Obligation(plugin.kind, params),), PHASES)
        for method, protocol, length in (("GET", "h2", 0), ("POST", "http/1.1", None), ("GET", "websocket", 0)):
            refusal = plan.enforce_request(
                [("cookie", "a=b"), ("accept", "*/*")], facts(method=method, protocol=protocol, content_length=length)
            )
            assert refusal is None or refusal.reason in REASONS
        for headers in ([], [("content-type", "application/json")]):
            plan.enforce_response(headers)
        for kind, body in (("application/json", b'{"a":[1]}'), ("text/html", b"<p>"), ("", b"")):
            try:
                assert isinstance(plan.enforce_body(kind, body), bytes)
            except ObligationFailed:
                assert plan.needs_body


def test_a_plugin_does_the_same_thing_twice(plugin):
    for params in plugin.schema["examples"]:
        plan = Obligations([plugin]).plan((Obligation(plugin.kind, params),), PHASES)
        once = [("server", "x"), ("content-type", "application/json")]
        plan.enforce_response(once)
        twice = list(once)
        plan.enforce_response(twice)
        assert sorted(set(once)) == sorted(set(twice))


@pytest.mark.parametrize("kind", [plugin.kind for plugin in ALL])
def test_a_plugin_is_one_file_with_one_class_that_imports_the_core_alone(kind):
    path = ROOT / "plugins" / "obligations" / f"{kind}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert len([node for node in tree.body if isinstance(node, ast.ClassDef)]) == 1
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
    modules = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert all(not name.startswith(("gateway", "plugins")) or name.startswith("gateway.core.") for name in modules)


def test_every_plugin_file_is_in_the_list_and_on_the_page():
    files = {path.stem for path in (ROOT / "plugins" / "obligations").glob("*.py")} - {"__init__"}
    assert files == {plugin.kind for plugin in ALL}
    for kind in files:
        assert f"| `{kind}` |" in PAGE
    assert [plugin.kind for plugin in builtin()] == re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)


def test_params_as_policy_answers_them_survive_json(plugin):
    for params in plugin.schema["examples"]:
        answer = Obligations([plugin]).plan((Obligation(plugin.kind, json.loads(json.dumps(params))),), PHASES)
        assert not isinstance(answer, Refusal)
