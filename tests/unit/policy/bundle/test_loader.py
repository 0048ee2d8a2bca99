from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Service
from gateway.policy.bundle.loader import examine, load, service_data
from gateway.policy.bundle.model import BundleError
from gateway.policy.engines.embedded import EmbeddedEngine
from tests.support.paths import POLICIES

HEAD = "package gateway.authz\n\n"
GOOD = HEAD + "decision := data.x\n"


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_rego", ".rego").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def refused(folder: Path, services: dict[str, Any] | None = None) -> BundleError:
    with pytest.raises(BundleError) as error:
        load(folder, services or {})
    assert error.value.fix
    return error.value


async def test_data_stands_where_its_folder_says_beside_the_services(tmp_path: Path) -> None:
    files = {"data__a_json": '{"x": 1}', "data__geo__eu__b_json": '{"de": true}', "data__gateway__c_json": '{"s": 2}'}
    bundle = load(write(tmp_path, authz_rego=GOOD, **files), {"hr": {"plane": "staff"}})
    data = {"x": 1, "geo": {"eu": {"de": True}}, "gateway": {"s": 2, "services": {"hr": {"plane": "staff"}}}}
    assert bundle.data == data
    narrow = load(write(tmp_path, authz_rego=HEAD + "decision := [data.x, data.geo.eu.de, data.gateway.s]\n"), {})
    assert await EmbeddedEngine(narrow).evaluate({}) == [1, True, 2]


def test_tests_and_hidden_folders_are_left_out(tmp_path: Path) -> None:
    files = {"authz_test_rego": "nonsense", "..2024__authz_rego": "nonsense", "data__.x__a_json": "nonsense"}
    bundle = load(write(tmp_path, sub__authz_rego=HEAD + "decision := 1\n", **files), {})
    assert [name for name, _ in bundle.modules] == ["sub/authz.rego"]


def test_the_version_changes_with_every_policy_datum_and_service(tmp_path: Path) -> None:
    write(tmp_path, authz_rego=HEAD + "decision := 1\n", data__a_json='{"x": 1}')
    first = load(tmp_path, {}).version
    assert first == load(tmp_path, {}).version
    versions = {first, load(tmp_path, {"hr": {}}).version}
    versions.add(load(write(tmp_path, data__a_json='{"x": 2}'), {}).version)
    versions.add(load(write(tmp_path, authz_rego=HEAD + "decision := 2\n"), {}).version)
    assert len(versions) == 4
    assert all(len(version) == 12 and int(version, 16) >= 0 for version in versions)


@pytest.mark.parametrize(
    ("body", "line", "word"),
    [
        ("decision := {", 4, ""),
        ("other := 1", 0, "data.gateway.authz.decision"),
        ('decision := http.send({"method": "get", "url": "http://x"})', 3, "http.send"),
        ("decision := 1 if {\n\ttime.now_ns() > 3\n}", 4, "time.now_ns"),
        ('decision := rand.intn("x", 5)', 3, "rand.intn"),
        ('decision := uuid.rfc4122("x")', 3, "uuid.rfc4122"),
        ("decision := opa.runtime()", 3, "opa.runtime"),
        ('decision := net.lookup_ip_addr("x")', 3, "net.lookup_ip_addr"),
        ('decision := 1 if {\n\tprint("x")\n}', 4, "print"),
        ('decision := 1 if {\n\ttrace("x")\n}', 4, "trace"),
        ('decision := io.jwt.decode_verify("x", {})', 3, "io.jwt.decode_verify"),
        ("decision := no.such(1)", 3, "no.such"),
        ("decision := nothing(1)", 3, "nothing"),
        ("decision := data.lib.f(1)", 3, "data.lib.f"),
        ("import data.lib\n\ndecision := lib.f(1)", 5, "data.lib.f"),
        ("f(x) := x\n\ndecision := f(1, 2, 3)", 5, "f has arity 1"),
        ("f(x) := f(x)\n\ndecision := f(1)", 3, "recursive"),
        ("f(x) := g(x)\n\ng(x) := f(x)\n\ndecision := f(1)", 3, "recursive"),
        ("decision := x if { y > 1 }", 3, "unsafe"),
        ("decision := 1 if { every x in input.l { not f(x) } }\n\nf(x) if http.send(x)", 5, "http.send"),
    ],
)
def test_a_policy_that_is_not_pure_rego_is_refused_at_its_line(tmp_path: Path, body: str, line: int, word: str) -> None:
    error = refused(write(tmp_path, authz_rego=f"{HEAD}{body}\n"))
    assert error.line == line
    assert word in error.message
    assert error.file == ("authz.rego" if line else "policies")


@pytest.mark.parametrize(
    ("files", "file", "word"),
    [
        ({"data__a_json": "{"}, "data/a.json", "Expecting"),
        ({"data__a_json": "[]"}, "data/a.json", "no JSON object"),
        ({"data__a_json": '{"x": NaN}'}, "data/a.json", "NaN"),
        ({"data__a_json": '{"x": 1e999}'}, "data", "JSON"),
        ({"data__a_json": '{"x": 1, "x": 2}'}, "data/a.json", "twice"),
        ({"data__a_json": '{"x": 1}', "data__b_json": '{"x": 1}'}, "data/b.json", "data.x"),
        ({"data__a_json": '{"x": 1}', "data__x__b_json": '{"y": 1}'}, "data/x/b.json", "data.x"),
        ({"data__a_json": '{"gateway": {"services": {}}}'}, "data/a.json", "gateway.services"),
        ({"data__gateway__services__a_json": '{"hr": {}}'}, "data/gateway/services/a.json", "gateway.services"),
        ({"data__a_json": '{"gateway_bundle": {"version": "x"}}'}, "data/a.json", "gateway_bundle"),
        ({"data__a_json": '{"gateway": {"authz": {"decision": {}}}}'}, "authz.rego", "gateway.authz.decision"),
        ({"s_rego": "package gateway\n\nservices := 1\n"}, "s.rego", "gateway.services"),
        ({"s_rego": "package gateway.services.hr\n\nallow := 1\n"}, "s.rego", "gateway.services"),
        ({"s_rego": "package gateway_served\n\nversion := 1\n"}, "s.rego", "gateway_served"),
    ],
)
def test_data_that_is_broken_or_in_the_way_is_refused(
    tmp_path: Path, files: dict[str, str], file: str, word: str
) -> None:
    error = refused(write(tmp_path, authz_rego=HEAD + "decision := 1\n", **files), {"hr": {"allow": {}}})
    assert error.file == file
    assert word in error.message


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "authz.rego").write_bytes(b"package \xff")
    assert "UTF-8" in refused(tmp_path).message


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "data.gateway.authz.decision" in refused(tmp_path).message
    assert "data.gateway.authz.decision" in refused(tmp_path / "nowhere").message


def test_every_problem_is_found_at_once(tmp_path: Path) -> None:
    body = "decision := http.send({})\n\nx := rand.intn(1, 2)\n"
    bundle, found = examine(write(tmp_path, authz_rego=HEAD + body, other_rego="package o\n\ny := trace(1)\n"), {})
    assert bundle is None
    assert {(error.file, error.line) for error in found} == {("authz.rego", 3), ("authz.rego", 5), ("other.rego", 3)}
    assert str(min(found, key=str)).startswith("authz.rego:3: undefined function http.send. Policies are pure")


def test_services_reach_policy_with_every_default_filled_in() -> None:
    service = Service.model_validate(
        {
            "host": "hr.corp.example",
            "upstream": "http://127.0.0.1:1",
            "department": "people",
            "sensitivity": "high",
            "allow": {"roles": ["staff"], "read_only_roles": ["viewer"], "countries": ["DE"]},
            "paths": {
                "/export": {"allow": {"roles": ["admin"], "departments": ["audit"], "mfa": False}},
                "/open": {"device": "optional"},
            },
        }
    )
    allow = {
        "public": False,
        "roles": ["staff"],
        "departments": ["people"],
        "countries": ["DE"],
        "mfa": True,
        "read_only_roles": ["viewer"],
    }
    narrow = {
        **allow,
        "roles": ["admin"],
        "departments": ["audit"],
        "countries": [],
        "mfa": False,
        "read_only_roles": [],
    }
    assert service_data({"hr": service}) == {
        "hr": {
            "plane": "staff",
            "department": "people",
            "sensitivity": "high",
            "device": "required",
            "allow": allow,
            "paths": {
                "": {"device": "required", "allow": allow},
                "/export": {"device": "required", "allow": narrow},
                "/open": {"device": "optional", "allow": allow},
            },
        }
    }


@pytest.mark.parametrize(
    ("plane", "public", "mfa"), [("staff", False, True), ("staff", True, False), ("user", False, False)]
)
def test_a_second_factor_is_the_default_of_the_staff_plane(plane: str, public: bool, mfa: bool) -> None:
    service = Service.model_validate({"host": "a", "upstream": "http://a", "plane": plane, "allow": {"public": public}})
    assert service_data({"a": service})["a"]["allow"]["mfa"] is mfa


def test_the_starter_policies_load_and_an_export_holds_all_of_them(tmp_path: Path) -> None:
    bundle = load(POLICIES, {"hr": {}})
    bundle.export(tmp_path / "out")
    assert json.loads((tmp_path / "out/data.json").read_text())["gateway"]["services"] == {"hr": {}}
    assert json.loads((tmp_path / "out/.manifest").read_text()) == {"revision": bundle.version}
    assert len(list((tmp_path / "out").rglob("*.rego"))) == len(bundle.modules) == 10


@pytest.mark.parametrize("name", ["authz.rego", "data/large.json"])
def test_a_file_that_is_too_large_is_refused_without_being_read(tmp_path: Path, name: str) -> None:
    write(tmp_path, authz_rego=GOOD, data__a_json='{"x": 1}')
    with (tmp_path / name).open("wb") as file:
        file.truncate((64 << 20) + 1)  # a hole: it takes no room
    _, problems = examine(tmp_path, {})
    assert ("too large", name.removeprefix("data/")) in [
        (error.message.removeprefix("the file is "), error.file) for error in problems
    ]
