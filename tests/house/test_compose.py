"""The compose file and the Dockerfile: well formed by the Compose specification, and as safe as they say."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

import pytest
import yaml

from gateway.demo.compose import APP_HOST, HOST, ISSUER_HOST, LOGIN_HOST
from tests.support.paths import ROOT

TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
ONCE = {"init", "bootstrap"}
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def resolved() -> dict[str, Any]:
    """The file as Compose sees it: anchors merged, variables replaced by their defaults, `$$` by `$`."""
    text = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", json.dumps(COMPOSE)).replace("$$", "$")
    found: dict[str, Any] = json.loads(text)
    return found


def test_it_is_valid_by_the_compose_specification() -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="the Compose specification's parser is not installed")
    parsed = compose_spec.PyCompose.from_json(json.dumps(resolved()))
    parsed.validate()
    assert set(parsed.service_names()) == set(SERVICES)


def test_the_validation_sees_what_is_wrong() -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="the Compose specification's parser is not installed")
    for key, value in (("imagee", "x"), ("read_only", "sure"), ("healthcheck", {"interval": "10q"})):
        broken = resolved()
        broken["services"]["db"][key] = value
        with pytest.raises(ValueError, match="line 1"):
            compose_spec.PyCompose.from_json(json.dumps(broken))


def test_every_part_of_the_product_is_there() -> None:
    assert {"zitadel", "login", "db", "redis", "opa", "gateway", "demo"} <= set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "ipc", "userns_mode", "devices"} & set(service)
    assert service.get("network_mode", "none") == "none"


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONCE))
def test_every_service_that_stays_says_whether_it_is_well(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert len(check["test"]) > 1
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_ours_or_pinned_to_a_version(name: str) -> None:
    service = SERVICES[name]
    if service["image"] == "zero-trust-gateway:local":
        assert service["build"] == "."
    else:
        assert "build" not in service
        assert re.search(r":v?[0-9]+\.[0-9]+(\.[0-9]+)?(-[a-z]+)?$", service["image"])


def test_zitadel_and_its_login_have_the_same_version() -> None:
    assert SERVICES["zitadel"]["image"].partition(":")[2] == SERVICES["login"]["image"].partition(":")[2]


def test_every_volume_and_network_is_declared_and_used() -> None:
    volumes = {entry.partition(":")[0] for service in SERVICES.values() for entry in service.get("volumes", [])}
    assert volumes == set(COMPOSE["volumes"])
    networks = {name for service in SERVICES.values() for name in service.get("networks", [])}
    assert networks == set(COMPOSE["networks"])
    # Nothing of the host is mounted, the engine's socket least of all.
    assert not any(
        entry.startswith((".", "/", "~")) for service in SERVICES.values() for entry in service.get("volumes", [])
    )


def test_a_secret_is_mounted_where_it_is_made_and_where_it_is_read_and_nowhere_else() -> None:
    readers = {
        volume: {
            name for name, one in SERVICES.items() if any(e.partition(":")[0] == volume for e in one.get("volumes", []))
        }
        for volume in ("database-secret", "redis-secret", "zitadel-secret")
    }
    assert readers == {
        "database-secret": {"init", "db"},
        "redis-secret": {"init", "redis"},
        "zitadel-secret": {"init", "zitadel"},
    }


def test_no_secret_stands_in_a_file() -> None:
    text = TEXT + DOCKERFILE + (ROOT / ".env.example").read_text(encoding="utf-8")
    for service in SERVICES.values():
        for variable in service.get("environment", {}):
            allowed = variable.endswith("_FILE") or "PASSWORDHASHER" in variable
            assert allowed or not re.search(
                r"PASSWORD|SECRET|TOKEN(?!.*FILE)|MASTERKEY", variable.replace("LEGACYTOKEN", "")
            )
    assert not re.search(r"-----BEGIN|(?i:password|secret|masterkey)\s*[=:]\s*[A-Za-z0-9+]{8,}", text)


def test_only_the_gateway_is_published_and_on_loopback_by_default() -> None:
    published = {name: one["ports"] for name, one in resolved()["services"].items() if "ports" in one}
    assert published == {"gateway": ["127.0.0.1:8443:8443"]}


def test_state_and_decisions_are_on_networks_without_a_way_out() -> None:
    assert all(COMPOSE["networks"][name]["internal"] is True for name in ("data", "policy", "cache"))
    for name, network in (("db", "data"), ("redis", "cache"), ("opa", "policy")):
        assert SERVICES[name]["networks"] == [network]


def test_nothing_waits_in_a_circle() -> None:
    waits = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    started: set[str] = set()
    while ready := {name for name, needs in waits.items() if name not in started and needs <= started}:
        started |= ready
    assert started == set(SERVICES)
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if needed in ONCE else "service_healthy"
            assert how["condition"] == wanted, f"{name} -> {needed}"


def test_somebody_waits_for_whatever_ends_by_itself() -> None:
    """`up --wait` fails for a service that has ended and that nobody waits for (docker/compose#10596)."""
    waited_for = {needed for service in SERVICES.values() for needed in service.get("depends_on", {})}
    assert waited_for >= ONCE


def test_zitadel_may_call_the_gateway_and_no_other_private_address() -> None:
    gateway = ipaddress.ip_address(SERVICES["gateway"]["networks"]["front"]["ipv4_address"])
    denied = SERVICES["zitadel"]["environment"]["ZITADEL_HTTPCLIENT_DENYLIST"].split(",")
    assert denied.pop(0) == "localhost"
    networks = [ipaddress.ip_network(entry) for entry in denied]
    assert not any(gateway in network for network in networks)
    subnet = ipaddress.ip_network(COMPOSE["networks"]["front"]["ipam"]["config"][0]["subnet"])
    assert gateway in subnet
    assert all(any(host in network for network in networks) for host in subnet if host != gateway)
    for private in ("10.0.0.0/8", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "fc00::/7", "::1/128"):
        assert ipaddress.ip_network(private) in networks
    within = ipaddress.IPv4Network("172.16.0.0/12")
    inside = [part for part in networks if isinstance(part, ipaddress.IPv4Network) and part.subnet_of(within)]
    covered = sum(part.num_addresses for part in inside)
    assert covered == within.num_addresses - 1


def test_the_hosts_are_the_same_everywhere() -> None:
    assert SERVICES["gateway"]["networks"]["front"]["aliases"] == [HOST, ISSUER_HOST, LOGIN_HOST, APP_HOST]
    environment = SERVICES["zitadel"]["environment"]
    assert environment["ZITADEL_EXTERNALDOMAIN"] == ISSUER_HOST
    assert LOGIN_HOST in environment["ZITADEL_DEFAULTINSTANCE_FEATURES_LOGINV2_BASEURI"]


def test_the_image_is_built_by_hash_and_runs_without_root() -> None:
    stages = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(stages) == 2
    assert all(re.fullmatch(r"python:3\.\d+-slim-bookworm", stage) for stage in stages)
    assert "--require-hashes" in DOCKERFILE
    last = DOCKERFILE.rpartition("FROM ")[2]
    assert "USER 10001:10001" in last
    assert "HEALTHCHECK" in last
    assert "pip install" not in last
    assert not re.search(r"^(ADD|SHELL)\b|curl|wget|apt-get", DOCKERFILE, re.MULTILINE)


def test_only_what_is_copied_is_sent_to_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = set(re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILE, re.MULTILINE))
    assert let_in == copied
    assert {"**/*.key", "**/*.pem", "**/.env*"} <= set(rules)
