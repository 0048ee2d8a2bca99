"""`gateway check` finds each fault, at its line, with its fix."""

from __future__ import annotations

import base64
import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.cli.check.report import Report, examine
from gateway.config import Problem
from gateway.identity.devices.ca import issue_crl
from gateway.identity.devices.ca_files import PkiFiles, load_authority, renew_server, write_file
from tests.support.cli_world import Answers, change, gateway, line_of, serving

ISSUER = """\
issuers:
  - issuer: {base}
    audiences: [a]
    introspection:
      client_id: gateway
      key: {{file: api.json}}
policy:
"""


async def look(site: Path, **options: Any) -> Report:
    steps: list[str] = []
    report = await examine(site / "gateway.yaml", environ={}, progress=steps.append, **options)
    assert steps
    assert all(found.message and found.fix for found in (*report.problems, *report.warnings))
    return report


async def only(site: Path, **options: Any) -> Problem:
    report = await look(site, **options)
    assert len(report.problems) == 1, report.problems
    return report.problems[0]


async def test_a_fresh_folder_has_no_problem(site: Path) -> None:
    report = await look(site)
    assert report.problems == []
    assert [found.key for found in report.warnings] == ["services.app.allow"]


async def test_a_bad_file_is_all_that_is_told(site: Path) -> None:
    change(site, lambda text: text + "servces: {}\n")
    problem = await only(site)
    assert (problem.key, problem.line) == ("servces", line_of(site, "servces"))


async def test_a_dead_upstream_is_found_and_offline_does_not_ask(site: Path, upstream: str, closed_port: int) -> None:
    change(site, lambda text: text.replace(upstream, f"http://127.0.0.1:{closed_port}"))
    problem = await only(site)
    assert (problem.key, problem.line) == ("services.app.upstream", line_of(site, "upstream:"))
    assert (await look(site, offline=True)).problems == []


async def test_an_upstream_without_tls_is_found(site: Path, upstream: str) -> None:
    change(site, lambda text: text.replace(upstream, upstream.replace("http:", "https:")))
    assert (await only(site)).key == "services.app.upstream"


async def test_missing_files_are_found(site: Path) -> None:
    (site / "pki/server.pem").unlink()
    (site / "pki/device-ca.pem").unlink()
    report = await look(site, offline=True)
    assert [(found.key, found.line) for found in report.problems] == [
        ("tls[0].certificate", line_of(site, "certificate:")),
        ("devices.ca", line_of(site, "  ca:")),
    ]


async def test_a_key_of_another_certificate_and_one_that_others_may_read_are_found(site: Path) -> None:
    key = site / "pki/server.key"
    key.write_bytes((site / "pki/server-ca.key").read_bytes())
    key.chmod(0o644)
    report = await look(site, offline=True)
    assert [found.key for found in report.problems] == ["tls[0].key", "tls[0].key"]
    assert any("chmod 600" in found.fix for found in report.problems)


async def test_a_host_that_no_certificate_covers_is_found(site: Path) -> None:
    change(site, lambda text: text.replace("host: app.localhost", "host: shop.localhost"))
    problem = await only(site, offline=True)
    assert (problem.key, problem.line) == ("services.app.host", line_of(site, "shop.localhost"))
    assert gateway("pki", "server", "-c", site / "gateway.yaml").exit_code == 0
    assert (await look(site, offline=True)).problems == []


async def test_an_expired_certificate_is_a_problem_and_one_that_soon_is_a_warning(site: Path) -> None:
    files, names = PkiFiles(site / "pki"), ["gateway.localhost", "app.localhost"]
    renew_server(files, names, now=time.time() - 100_000, life_s=50_000)
    assert "expired" in (await only(site, offline=True)).message
    renew_server(files, names, now=time.time(), life_s=3 * 86_400)
    report = await look(site, offline=True)
    assert report.problems == []
    assert "tls[0].certificate" in [found.key for found in report.warnings]
    renew_server(files, names, now=time.time() + 86_400)
    assert "clock" in (await only(site, offline=True)).fix


async def test_a_stale_crl_is_a_warning_with_the_key_and_a_problem_without(site: Path) -> None:
    files = PkiFiles(site / "pki")
    authority = load_authority(files.device_ca, files.device_key)
    old = issue_crl(authority, (), number=1, now=time.time() - 200_000, life_s=100_000)
    write_file(files.crl, old, 0o644)
    report = await look(site, offline=True)
    assert report.problems == []
    assert "devices.crl" in [found.key for found in report.warnings]
    change(site, lambda text: text.replace("  issuing_key: pki/device-ca.key\n", ""))
    assert (await only(site, offline=True)).key == "devices.crl"
    files.crl.unlink()
    assert "pki crl" in (await only(site, offline=True)).fix


async def test_a_foreign_issuing_key_is_found(site: Path) -> None:
    (site / "pki/device-ca.key").write_bytes((site / "pki/server-ca.key").read_bytes())
    assert (await only(site, offline=True)).key == "devices.issuing_key"


async def test_a_shared_state_folder_and_one_that_is_a_file_are_found(site: Path) -> None:
    (site / "state").chmod(0o755)
    assert "chmod 700" in (await only(site, offline=True)).fix
    (site / "state").rmdir()
    assert (await look(site, offline=True)).problems == []
    (site / "state").write_text("")
    assert "state" in [found.key for found in (await look(site, offline=True)).problems]


async def test_bad_rego_is_found_in_its_own_file(site: Path) -> None:
    file = site / "policies/gateway/mine.rego"
    file.write_text("package gateway.mine\n\nallow if {\n")
    problem = await only(site, offline=True)
    assert problem.file == file
    assert problem.line >= 3


async def test_a_missing_policy_folder_is_found(site: Path) -> None:
    (site / "policies").rename(site / "elsewhere")
    assert (await only(site, offline=True)).key == "policy.path"


def _with_issuer(site: Path, base: str) -> None:
    change(site, lambda text: text.replace("policy:\n", ISSUER.format(base=base), 1))
    (site / "api.json").write_text('{"keyId": "1", "key": "x"}')
    (site / "api.json").chmod(0o600)


def _jwks() -> dict[str, Any]:
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    x, y = (base64.urlsafe_b64encode(n.to_bytes(32)).rstrip(b"=").decode() for n in (numbers.x, numbers.y))
    return {"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "use": "sig", "alg": "ES256", "x": x, "y": y}]}


DISCOVERY = {"issuer": "{base}", "jwks_uri": "{base}/keys", "introspection_endpoint": "{base}/introspect"}


async def test_a_good_issuer_is_taken_and_nothing_is_left_to_warn_of(site: Path) -> None:
    answers: Answers = {"/.well-known/openid-configuration": (200, DISCOVERY), "/keys": (200, _jwks())}
    with serving(answers) as base:
        _with_issuer(site, base)
        report = await look(site)
    assert (report.problems, report.warnings) == ([], [])


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"/.well-known/openid-configuration": (200, DISCOVERY | {"issuer": "https://other"})},
        {"/.well-known/openid-configuration": (200, DISCOVERY), "/keys": (200, {"keys": []})},
        {"/.well-known/openid-configuration": (200, DISCOVERY), "/keys": (500, {})},
    ],
)
async def test_an_issuer_that_cannot_be_used_is_found(site: Path, answers: Answers) -> None:
    with serving(answers) as base:
        _with_issuer(site, base)
        problem = await only(site)
    assert (problem.key, problem.line) == ("issuers[0].issuer", line_of(site, f"issuer: {base}"))


async def test_an_issuer_without_introspection_is_found(site: Path) -> None:
    bare = {name: value for name, value in DISCOVERY.items() if name != "introspection_endpoint"}
    with serving({"/.well-known/openid-configuration": (200, bare), "/keys": (200, _jwks())}) as base:
        _with_issuer(site, base)
        assert (await only(site)).key == "issuers[0].introspection"


async def test_a_secret_that_others_may_read_is_found_and_not_shown(site: Path) -> None:
    _with_issuer(site, "http://127.0.0.1:1")
    (site / "api.json").write_text("hunter2")
    (site / "api.json").chmod(0o644)
    problem = await only(site, offline=True)
    assert (problem.key, problem.line) == ("issuers[0].introspection.key", line_of(site, "api.json"))
    assert "hunter2" not in str(problem)


async def test_an_opa_that_is_not_there_or_not_well_is_found(site: Path, closed_port: int) -> None:
    change(site, lambda text: text.replace("policy:\n", "policy:\n  engine: opa\n  url: http://127.0.0.1:1\n", 1))
    change(site, lambda text: text.replace("http://127.0.0.1:1\n", f"http://127.0.0.1:{closed_port}\n"))
    assert (await only(site)).key == "policy.url"
    with serving({"/health": (500, {})}) as base:
        change(site, lambda text: text.replace(f"http://127.0.0.1:{closed_port}", base))
        assert "500" in (await only(site)).message
    with serving({"/health": (200, {})}) as other:
        change(site, lambda text: text.replace(base, other))
        assert (await look(site)).problems == []


def test_the_command_prints_problems_on_stderr_and_leaves_with_one(site: Path) -> None:
    good = gateway("check", "-c", site / "gateway.yaml")
    assert (good.exit_code, good.stdout) == (0, "check: 0 problems, 1 warning\n")
    assert "warning" in good.stderr
    change(site, lambda text: text + "servces: {}\n")
    bad = gateway("check", "-c", site / "gateway.yaml", "--json")
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)["problems"][0]["key"] == "servces"
    bad = gateway("check", "-c", site / "gateway.yaml")
    assert f"gateway.yaml:{line_of(site, 'servces')}:1" in bad.stderr
    assert "Did you mean `services`?" in bad.stderr


async def test_a_key_file_that_is_none_is_found(site: Path) -> None:
    _with_issuer(site, "http://127.0.0.1:1")
    (site / "api.json").write_text("notjson")
    (site / "api.json").chmod(0o600)
    assert (await only(site, offline=True)).message == "This is no key file."


@pytest.mark.parametrize(
    ("added", "key", "words"),
    [
        ("risk: {signals: {new_netwrk: {weight: 1}}}\n", "risk.signals", "new_netwrk"),
        ("risk: {signals: {new_device: {weigth: 1}}}\n", "risk.signals", "weigth"),
        ("listen: {port: 9443}\nadmin: {port: 9443}\n", "admin.port", "Both listeners"),
    ],
)
async def test_settings_that_nothing_takes_are_found(site: Path, added: str, key: str, words: str) -> None:
    keys = "|".join(line.partition(":")[0] for line in added.splitlines())
    change(site, lambda text: added + re.sub(rf"^({keys}):.*\n(?:[ #].*\n)*", "", text, flags=re.MULTILINE))
    problem = await only(site, offline=True)
    assert problem.key == key
    assert words in problem.message


async def test_country_data_that_are_not_there_are_a_warning(site: Path) -> None:
    change(site, lambda text: "networks: {databases: [nope.mmdb]}\n" + text)
    report = await examine(site / "gateway.yaml", environ={}, offline=True)
    assert not report.problems
    assert "networks.databases[0]" in [found.key for found in report.warnings]


async def test_a_country_that_is_none_is_found(site: Path) -> None:
    change(site, lambda text: text.replace("    allow:\n", "    allow:\n      countries: [UK]\n", 1))
    problem = await only(site, offline=True)
    assert (problem.key, problem.fix) == ("services.app.allow.countries[0]", "Write GB.")


@pytest.mark.parametrize(("days", "message"), [(-1, "The key has expired."), (5, "The key ends in 5 days."), (60, "")])
async def test_a_key_file_that_ends_soon_is_told(site: Path, days: int, message: str) -> None:
    _with_issuer(site, "http://127.0.0.1:1")
    ends = datetime.now(UTC) + timedelta(days=days, minutes=1)
    text = json.dumps({"keyId": "1", "key": "x", "expirationDate": ends.isoformat().replace("+00:00", "Z")})
    (site / "api.json").write_text(text)
    report = await examine(site / "gateway.yaml", environ={}, offline=True)
    found = [one.message for one in (*report.problems, *report.warnings) if "key" in one.key and "issuers" in one.key]
    assert found == ([message] if message else [])
