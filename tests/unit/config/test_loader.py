"""Every refusal of the loader names a line and a fix, and shows no secret."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path

import pytest

from gateway.config import Config, ConfigError, Problem, Upstream, load

BASE = """\
tls: [{certificate: pki/server.pem, key: pki/server.key}]
services:
  wiki:
    host: wiki.corp.example
    upstream: http://127.0.0.1:8080
"""
INTROSPECTION = "    introspection: {client_id: gateway, key: {file: zitadel.json}}\n"
ISSUER = f"""\
issuers:
  - issuer: https://id.corp.example
    audiences: ["1"]
{INTROSPECTION}"""


def problems(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[Problem]:
    file = folder / "gateway.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, environ=environ or {})
    found = list(caught.value.problems)
    assert all(problem.message and problem.fix and problem.file == file for problem in found)
    return found


def loaded(folder: Path, text: str) -> Config:
    file = folder / "gateway.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ={})


def test_the_smallest_file_loads_with_the_safe_defaults(tmp_path: Path) -> None:
    config = loaded(tmp_path, BASE)
    service = config.services["wiki"]
    assert (service.plane, service.device, service.allow.public) == ("staff", "required", False)
    assert config.admin.address == "127.0.0.1"
    assert service.backend == Upstream(urls=("http://127.0.0.1:8080",))


def test_nine_lines_protect_a_service(tmp_path: Path) -> None:
    text = """\
tls: [{certificate: pki/server.pem, key: pki/server.key}]
devices: {ca: pki/device-ca.pem}
issuers:
  - issuer: https://id.corp.example
    profile: zitadel
    audiences: ["123456789012345678"]
    introspection: {client_id: "123456789012345679", key: {file: secrets/zitadel.json}}
services:
  wiki: {host: wiki.corp.example, upstream: "http://127.0.0.1:8080", allow: {roles: [staff]}}
"""
    assert loaded(tmp_path, text).services["wiki"].introspect_cache_s == 10.0


def test_relative_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    config = loaded(tmp_path, BASE + "devices: {ca: pki/devices.pem}\nstate: /var/lib/gateway\n" + ISSUER)
    assert config.tls[0].key == tmp_path / "pki/server.key"
    assert config.devices.ca == tmp_path / "pki/devices.pem"
    assert config.devices.crl_file == tmp_path / "pki/crl.pem"
    assert config.policy.path == tmp_path / "policies"
    assert config.record.file == tmp_path / "state/decisions.jsonl"
    assert config.state == Path("/var/lib/gateway")
    introspection = config.issuers[0].introspection
    assert introspection is not None
    assert introspection.key is not None
    assert introspection.key.file == tmp_path / "zitadel.json"


def test_networks_numbers_and_both_upstream_forms_are_read(tmp_path: Path) -> None:
    text = BASE + "trusted_proxies: [10.0.0.0/8, 'fd00::/8']\nlisten: {drain_s: 5, port: 0}\n"
    text = text.replace("http://127.0.0.1:8080", "{urls: [http://a:1, http://b:1], health: {}, protocol: h2}")
    config = loaded(tmp_path, text)
    assert config.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
    assert config.listen.drain_s == 5.0
    assert config.services["wiki"].backend.urls == ("http://a:1", "http://b:1")


@pytest.mark.parametrize(
    ("addition", "line", "key", "fix"),
    [
        ("servces: {}\n", 6, "servces", "`services`"),
        ("policy:\n  enigne: opa\n", 7, "policy.enigne", "`engine`"),
        ("zzzzzz: 1\n", 6, "zzzzzz", "write one of: admin"),
        ("listen:\n  port: '8443'\n", 7, "listen.port", "a whole number"),
        ("listen:\n  port: 70000\n", 7, "listen.port", "port"),
        ("listen:\n", 6, "listen", "Give it one, or remove it"),
        ("listen: 5\n", 6, "listen", "mapping"),
        ("host: Gateway\n", 6, "host", "host name"),
        ("policy: {engine: magic}\n", 6, "policy.engine", "Write one of these"),
        ("policy: {push: 1}\n", 6, "policy.push", "true or false"),
        ("trusted_proxies: [10.0.0.1/8]\n", 6, "trusted_proxies[0]", "10.0.0.0/8"),
        ("issuers: [{issuer: 'https://x', audiences: [12]}]\n", 6, "issuers[0].audiences[0]", "quotes"),
        ("issuers: [{issuer: 'https://x'}]\n", 6, "issuers[0].audiences", "Add it"),
        ("issuers: [{issuer: 'https://x', audiences: []}]\n", 6, "issuers[0].audiences", "Add one"),
        ("issuers: {issuer: 'https://x'}\n", 6, "issuers", "a list"),
        ("  Shop: {host: b.c, upstream: 'http://b'}\n", 6, "services.Shop", "Correct it"),
        ("  shop: {host: b.c, upstream: 'ftp://b'}\n", 6, "services.shop.upstream", "Correct it"),
        ("  shop: {host: b.c, upstream: {url: 'http://b'}}\n", 6, "services.shop.upstream.url", "`urls`"),
        ("  shop: {host: b.c, upstream: 'http://b', introspect: 0}\n", 6, "services.shop.introspect", "Ask the issuer"),
        ("  shop: {host: b.c, upstream: 'http://b', introspect: x}\n", 6, "services.shop.introspect", "Write one"),
        ("  shop: {host: b.c, upstream: 'http://b', record: true}\n", 6, "services.shop.record", "never"),
        ("    paths: {admin: {}}\n", 6, "services.wiki.paths.admin", "Correct it"),
        ("    allow: {countries: [de]}\n", 6, "services.wiki.allow.countries[0]", "Correct it"),
        ("    upstreem: x\n", 6, "services.wiki.upstreem", "`upstream`"),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_its_line_and_a_fix(
    tmp_path: Path, addition: str, line: int, key: str, fix: str
) -> None:
    found = problems(tmp_path, BASE + addition)
    assert [(problem.line, problem.key) for problem in found if problem.key == key] == [(line, key)]
    assert fix in next(problem for problem in found if problem.key == key).fix


def test_every_problem_is_told_at_once_and_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = problems(tmp_path, "tls: []\nservices:\n  a: {host: A}\nlisten: {port: x}\n")
    assert [problem.key for problem in found] == ["tls", "services.a.upstream", "services.a.host", "listen.port"]
    assert [problem.line for problem in found] == [1, 3, 3, 4]


@pytest.mark.parametrize(
    "addition",
    [
        "policy: {engine: opa, url: 'http://127.0.0.1', token: hunter2}\n",
        "policy: {engine: opa, url: 'http://127.0.0.1', token: [hunter2]}\n",
        "policy: {engine: opa, url: 'http://127.0.0.1', token: {hunter2}}\n",
        "policy: {engine: opa, url: 'http://127.0.0.1', token: {value: hunter2}}\n",
        "policy: {engine: opa, url: 'http://127.0.0.1', token: {hunter2: 1, hunter2: 2}}\n",
        "policy: {engine: opa, url: 'http://127.0.0.1', token: {file: [hunter2]}}\n",
        "policy: {tokn: hunter2}\n",
        "policy: {engine: opa, url: 'http://admin:hunter2@127.0.0.1'}\n",
        'policy: {token: "hunter2\n',
        "policy: {token: *hunter2}\n",
        "policy: {token: 'hunter2' 'hunter2'}\n",
        "issuers: [{issuer: 'https://x:hunter2@y', audiences: ['1']}]\n",
        "issuers: [{issuer: 'https://y', audiences: ['1'], introspection: {client_id: a, secret: hunter2}}]\n",
        "issuers: [{issuer: 'https://y', audiences: ['1'], introspection: {client_id: a, key: {x: hunter2}}}]\n",
        "  shop: {host: b.c, upstream: 'http://u:hunter2@b'}\n",
    ],
)
def test_a_literal_secret_is_refused_and_never_shown(tmp_path: Path, addition: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(_write(tmp_path, BASE + addition), environ={})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.problems)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or "hunter2" not in str(caught.value.__context__)


def test_a_literal_secret_is_told_how_to_move(tmp_path: Path) -> None:
    found = problems(tmp_path, BASE + "policy: {engine: opa, url: 'http://127.0.0.1', token: hunter2}\n")
    assert [(p.line, p.key, p.fix) for p in found] == [
        (6, "policy.token", "Name its place: `{file: secrets/name}` or `{env: NAME}`.")
    ]


def test_a_missing_file_a_folder_and_a_bad_name_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path, Path("a\0b")):
        with pytest.raises(ConfigError) as caught:
            load(path, environ={})
        assert caught.value.problems[0].fix


@pytest.mark.parametrize("text", ["", "# nothing\n", "5", "[1]", "null"])
def test_a_file_without_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "gateway init" in problems(tmp_path, text)[0].fix


def test_five_thousand_services_load_in_seconds(tmp_path: Path) -> None:
    services = "".join(
        f"  svc-{n}:\n    host: s{n}.corp.example\n    upstream: http://10.0.0.1:{1000 + n}\n    department: sales\n"
        "    allow:\n      roles: [a, b]\n    paths:\n      /admin: {methods: [GET], sensitivity: high}\n"
        for n in range(5000)
    )
    file = _write(tmp_path, BASE + services)
    before = time.process_time()
    assert len(load(file, environ={}).services) == 5001
    assert time.process_time() - before < 10


def _write(folder: Path, text: str) -> Path:
    file = folder / "gateway.yaml"
    file.write_text(text, encoding="utf-8")
    return file
