from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from tests.support.cli_world import change, gateway
from tests.support.zitadel_instance import Instance, instance

TOKEN = "pat-of-the-gateway"


@pytest.fixture
def zitadel() -> Iterator[Instance]:
    with instance() as made:
        yield made


@pytest.fixture
def ready(zitadel: Instance, site: Path) -> Path:
    """A folder whose configuration names an instance that bootstrap has just set up."""
    token = site / "owner.pat"
    token.write_text(TOKEN)
    token.chmod(0o600)
    result = gateway(
        *("zitadel", "bootstrap", "--issuer", zitadel.url, "--gateway", "https://gateway.localhost:8443"),
        *("--token-file", token, "--dir", site / "secrets"),
    )
    assert result.exit_code == 0, result.output
    zitadel.policies["policies/login"]["allowRegister"] = False
    change(site, lambda text: text + "\n" + result.stdout)
    zitadel.fake.asked.clear()
    return site


def check(site: Path, *more: str) -> Result:
    return gateway(
        *("zitadel", "check", "-c", site / "gateway.yaml", "--token-file", site / "owner.pat", "--json", *more)
    )


def found(site: Path, *more: str) -> dict[str, Any]:
    result = check(site, *more)
    document = json.loads(result.stdout)
    assert result.exit_code == (1 if document["weaknesses"] else 0)
    assert all(one["message"] and one["fix"] for one in document["weaknesses"])
    assert "argon2id" in document["notes"][0]
    return {one["what"]: one for one in document["weaknesses"]}


def test_an_instance_that_bootstrap_set_up_keeps_the_promise(zitadel: Instance, ready: Path) -> None:
    assert found(ready) == {}
    assert [name for name, one in zitadel.targets.items() if "check" in one["name"]] == []


def test_a_new_instance_is_weak_in_many_ways(zitadel: Instance, ready: Path) -> None:
    zitadel.policies = Instance(zitadel.fake).policies
    weak = found(ready)
    assert {
        "login.forceMfa",
        "login.allowRegister",
        "login.passwordCheckLifetime",
        "lockout.maxPasswordAttempts",
        "lockout.maxOtpAttempts",
        "password.maxAgeDays",
        "password.minLength",
        "password.requires",
        "lifetimes.accessTokenLifetime",
        "lifetimes.refreshTokenExpiration",
    } <= set(weak)
    assert weak["password.maxAgeDays"]["message"] == "Passwords never expire."


@pytest.mark.parametrize(
    ("member", "value", "what"),
    [
        ("backChannelLogoutUri", "", "application.backChannelLogoutUri"),
        ("backChannelLogoutUri", "https://elsewhere.example.com/", "application.backChannelLogoutUri"),
        ("accessTokenRoleAssertion", False, "application.accessTokenRoleAssertion"),
        ("idTokenRoleAssertion", False, "application.idTokenRoleAssertion"),
        ("developmentMode", True, "application.developmentMode"),
        ("authMethodType", "OIDC_AUTH_METHOD_TYPE_NONE", "application.authMethodType"),
        ("grantTypes", ["OIDC_GRANT_TYPE_IMPLICIT"], "application.grantTypes"),
        ("clientId", "another", "application"),
    ],
)
def test_a_weak_application_is_found(zitadel: Instance, ready: Path, member: str, value: Any, what: str) -> None:
    zitadel.applications[0]["oidcConfiguration"][member] = value
    assert set(found(ready)) == {what}


def test_roles_that_are_not_asserted_are_found(zitadel: Instance, ready: Path) -> None:
    zitadel.projects[0] |= {"projectRoleAssertion": False, "authorizationRequired": False}
    assert set(found(ready)) == {"project.projectRoleAssertion", "project.authorizationRequired"}


def test_a_webhook_that_misses_events_is_found(zitadel: Instance, ready: Path) -> None:
    del zitadel.executions["user.locked"]
    assert "user.locked" in found(ready)["actions.executions"]["message"]
    zitadel.targets.clear()
    assert set(found(ready)) == {"actions.target"}


def test_an_action_for_everything_is_found(zitadel: Instance, ready: Path) -> None:
    zitadel.extra_executions = [{"condition": {"request": {"all": True}}, "targets": ["9"]}]
    assert set(found(ready)) == {"actions.request.all"}


def test_a_deny_list_that_blocks_the_webhook_is_told_with_the_exact_error(zitadel: Instance, ready: Path) -> None:
    zitadel.blocked = True
    weak = found(ready)["deny_list"]
    assert "Errors.Target.DeniedURL" in weak["message"]
    assert "ZITADEL_HTTPCLIENT_DENYLIST" in weak["fix"]
    assert found(ready, "--no-probe") == {}


def test_without_the_right_to_probe_the_deny_list_is_not_known(zitadel: Instance, ready: Path) -> None:
    zitadel.is_owner = False
    assert found(ready)["deny_list"]["is_unknown"] is True


def test_without_a_probe_nothing_is_changed(zitadel: Instance, ready: Path) -> None:
    found(ready, "--no-probe")
    assert zitadel.changes == []


def test_impersonation_and_settings_that_cannot_be_read_are_found(zitadel: Instance, ready: Path) -> None:
    zitadel.security = {"enableImpersonation": True}
    del zitadel.policies["settings/oidc"]
    weak = found(ready)
    assert set(weak) == {"security.enableImpersonation", "lifetimes"}
    assert weak["lifetimes"]["is_unknown"] is True


def test_people_get_each_finding_with_its_fix(zitadel: Instance, ready: Path) -> None:
    zitadel.policies["policies/lockout"] = {}
    result = gateway("zitadel", "check", "-c", ready / "gateway.yaml", "--token-file", ready / "owner.pat")
    assert result.exit_code == 1
    assert "Lockout is off" in result.output
    assert "2 things weaker than promised" in result.output


def test_the_configured_token_is_used_when_none_is_given(zitadel: Instance, ready: Path) -> None:
    zitadel.fake.tokens = {"pat-1"}
    result = gateway("zitadel", "check", "-c", ready / "gateway.yaml", "--json")
    assert json.loads(result.stdout)["weaknesses"] == []


def test_a_wrong_token_is_an_error_and_no_finding(zitadel: Instance, ready: Path) -> None:
    zitadel.fake.tokens = set()
    result = check(ready)
    assert result.exit_code == 1
    assert "unauthenticated" in result.output


def test_a_configuration_without_a_zitadel_is_an_error(site: Path) -> None:
    (site / "owner.pat").write_text(TOKEN)
    (site / "owner.pat").chmod(0o600)
    result = check(site)
    assert result.exit_code == 1
    assert "--issuer" in result.output
    assert "issuers" not in yaml.safe_load((site / "gateway.yaml").read_text())


@pytest.mark.usefixtures("zitadel")
@pytest.mark.parametrize("name", ["webhook.key", "gateway.pat", "client.secret"])
def test_gateway_check_looks_at_every_secret_that_bootstrap_made(ready: Path, name: str) -> None:
    (ready / "secrets" / name).chmod(0o644)
    result = gateway("check", "-c", ready / "gateway.yaml", "--offline", "--json")
    assert name in json.dumps(json.loads(result.stdout)["problems"])


def test_events_that_the_instance_does_not_know_are_named(zitadel: Instance, ready: Path) -> None:
    zitadel.unknown_events = {"user.human.mfa.recoverycode.removed"}
    assert "recoverycode" in found(ready)["events.types"]["message"]
