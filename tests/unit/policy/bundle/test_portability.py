from __future__ import annotations

import pytest

from gateway.policy.bundle.portability import BUILTINS, outline, problems, recursion
from gateway.policy.engines import embedded as rego


def found(source: str) -> list[str]:
    module = outline(rego.syntax(("m.rego", source)), source)
    functions = {(*module.package, name): arity for name, arity in module.functions.items()}
    return [problem.message for problem in problems(module, functions, module.rules)]


def test_an_outline_names_package_rules_functions_and_imports() -> None:
    imports = "import data.lib as l # größe\nimport input.o"
    source = f'# größe\npackage a.b["c-d"]\n\n{imports}\n\nf(x, y) := x\n\ndefault g(_) := 1\n\np.q := 1\n'
    module = outline(rego.syntax(("m.rego", source)), source)
    assert module.package == ("a", "b", "c-d")
    assert module.rules == {"f", "g", "p"}
    assert module.functions == {"f": 2, "g": 1}
    assert module.aliases == {"l": ("data", "lib"), "o": ("input", "o")}
    assert module.roots == {"l": 4, "o": 5}


@pytest.mark.parametrize(
    "pattern",
    ["^[a-z]{2,3}$", "a|b", "(?:a|b)+", "x*?", r"\.example\.com$", "[^/]+", "[a-zäöü_-]", "a{3}", "a.c", r"[\]\[]"],
)
def test_a_pattern_that_both_engines_read_alike_is_allowed(pattern: str) -> None:
    assert found(f"package p\n\nx := regex.match(`{pattern}`, input.x)\n") == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"\d",
        r"\w",
        r"\s",
        r"\b",
        r"\pL",
        "(?i)a",
        "(?P<n>a)",
        "a(?=b)",
        "[[:alpha:]]",
        "[a&&b]",
        "[a--b]",
        "[a~~b]",
        "[",
        "{",
    ],
)
def test_a_pattern_that_the_engines_could_read_in_two_ways_is_refused(pattern: str) -> None:
    assert found(f"package p\n\nx := regex.match(`{pattern}`, input.x)\n") != []


def test_functions_of_the_bundle_may_be_called_by_any_of_their_names() -> None:
    source = "package a.b\n\nimport data.a.b as me\n\nf(x) := x\n\ng := [f(1), data.a.b.f(2), me.f(3)]\n"
    assert found(source) == []


def test_nothing_impure_is_on_the_list() -> None:
    roots = ("http", "rand", "uuid", "opa", "crypto", "io", "rego", "trace", "print", "yaml", "internal", "providers")
    assert not [name for name in BUILTINS if name.startswith(roots)]
    assert not BUILTINS & {"time.now_ns", "net.lookup_ip_addr", "net.cidr_expand", "sprintf", "json.marshal"}


def test_recursion_through_another_package_is_seen() -> None:
    sources = ("package a\n\nf(x) := data.b.g(x)\n", "package b\n\nimport data.a\n\ng(x) := a.f(x)\n")
    modules = [(f"{i}.rego", outline(rego.syntax((f"{i}.rego", text)), text)) for i, text in enumerate(sources)]
    loop = recursion(modules)
    assert loop is not None
    assert loop[0] in {"0.rego", "1.rego"}
    assert recursion(modules[:1]) is None
