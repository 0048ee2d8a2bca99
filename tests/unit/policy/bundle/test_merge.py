from __future__ import annotations

import pytest

from gateway.policy.bundle.merge import merge
from gateway.policy.engines import embedded as rego


def test_files_of_a_package_become_one_module_and_packages_stay_apart() -> None:
    merged = merge(
        [
            ("a.rego", '# about a\npackage p["x-y"]\n\nimport data.lib as l\nimport rego.v1\n\nf := l.g(b)\n'),
            ("b.rego", 'package p["x-y"]\n\nimport data.lib as l\n\nb := "package p"\n'),
            ("c.rego", "package lib\n\ng(x) := x\n"),
        ]
    )
    assert merged.keys() == {"p/x-y", "lib"}
    text = merged["p/x-y"]
    assert text.count("package p[") == 1
    assert text.count("import data") == 1
    assert rego.syntax(("m", text))["rules"]
    assert 'b := "package p"' in text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("import data.a as x\n\nf := x.y\n", "import data.b as x\n\ng := x.y\n"),
        ("import data.a as x\n\nf := x.y\n", "x := 1\n"),
        ("import data.a as x\n\nf := x.y\n", "g := y if { x = input.z; y := x }\n"),
    ],
)
def test_an_import_that_would_touch_another_file_is_refused(one: str, other: str) -> None:
    with pytest.raises(ValueError, match="import"):
        merge([("one.rego", f"package p\n\n{one}"), ("other.rego", f"package p\n\n{other}")])


def test_a_rule_on_the_line_of_its_package_is_refused() -> None:
    with pytest.raises(ValueError, match="line"):
        merge([("one.rego", "package p x := 1\n")])
