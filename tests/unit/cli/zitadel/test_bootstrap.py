from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import Result

from gateway.config import Issuer
from gateway.core import paths as own
from gateway.identity.zitadel.events import EVENT_TYPES
from tests.support.cli_world import gateway
from tests.support.zitadel_instance import Instance, instance

TOKEN = "pat-of-the-gateway"


@pytest.fixture
def zitadel() -> Iterator[Instance]:
    with instance() as made:
        yield made


def bootstrap(zitadel: Instance, folder: Path, *more: str) -> Result:
    token = folder / "owner.pat"
    token.write_text(TOKEN)
    token.chmod(0o600)
    return gateway(
        *("zitadel", "bootstrap", "--issuer", zitadel.url, "--gateway", "https://gateway.example.com"),
        *("--token-file", token, "--dir", folder / "secrets", *more),
    )


def test_a_new_instance_is_set_up_whole(zitadel: Instance, tmp_path: Path) -> None:
    result = bootstrap(zitadel, tmp_path)
    assert result.exit_code == 0, result.output
    assert zitadel.projects[0]["projectRoleAssertion"] is True
    assert zitadel.roles == ["staff", "admin"]
    app = zitadel.applications[0]["oidcConfiguration"]
    assert app["redirectUris"] == ["https://gateway.example.com/.gateway/callback/zitadel"]
    assert app["postLogoutRedirectUris"] == [f"https://gateway.example.com{own.LOGOUT}"], (
        "where a sign-out comes back to"
    )
    assert app["backChannelLogoutUri"] == "https://gateway.example.com/.gateway/backchannel/zitadel"
    target = next(iter(zitadel.targets.values()))
    assert target["endpoint"] == "https://gateway.example.com/.gateway/hooks/zitadel/zitadel"
    assert set(zitadel.executions) == set(EVENT_TYPES)
    assert zitadel.administrators[0]["roles"] == ["IAM_OWNER_VIEWER", "IAM_USER_MANAGER"]
    assert zitadel.policies["policies/login"]["forceMfa"] is True
    assert zitadel.policies["policies/login"]["allowUsernamePassword"] is True
    assert zitadel.policies["policies/lockout"] == {"maxPasswordAttempts": 5, "maxOtpAttempts": 5}
    assert zitadel.policies["policies/password/age"]["maxAgeDays"] == 90
    assert zitadel.policies["policies/password/complexity"]["minLength"] == 12
    assert zitadel.policies["settings/oidc"]["accessTokenLifetime"] == "900s"


def test_secrets_go_into_private_files_and_nowhere_else(zitadel: Instance, tmp_path: Path) -> None:
    result = bootstrap(zitadel, tmp_path)
    files = {path.name: path for path in (tmp_path / "secrets").iterdir()}
    assert set(files) == {"client.secret", "api-key.json", "webhook.key", "gateway.pat"}
    for path in files.values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text() not in result.output
    assert files["webhook.key"].read_text() == "signing-key-one"
    assert TOKEN not in result.output


def test_what_it_prints_is_a_valid_issuer(zitadel: Instance, tmp_path: Path) -> None:
    result = bootstrap(zitadel, tmp_path)
    block = yaml.safe_load(result.stdout)
    issuer = Issuer.model_validate(block["issuers"][0])
    assert issuer.slug == "zitadel"
    assert issuer.audiences == (zitadel.projects[0]["projectId"],)
    assert issuer.login is not None
    assert issuer.login.client_id == zitadel.applications[0]["oidcConfiguration"]["clientId"]
    assert issuer.zitadel is not None
    assert issuer.zitadel.webhook_keys[0].file == tmp_path / "secrets" / "webhook.key"


def test_a_second_run_changes_nothing(zitadel: Instance, tmp_path: Path) -> None:
    first = bootstrap(zitadel, tmp_path)
    zitadel.fake.asked.clear()
    second = bootstrap(zitadel, tmp_path)
    assert second.exit_code == 0, second.output
    assert second.stdout == first.stdout
    # Executions are set as a whole, to what they are.
    assert {change for change in zitadel.changes if "SetExecution" not in change} == set()
    assert (len(zitadel.projects), len(zitadel.applications), len(zitadel.targets), zitadel.keys) == (1, 2, 1, 1)


def test_what_somebody_changed_is_set_right(zitadel: Instance, tmp_path: Path) -> None:
    bootstrap(zitadel, tmp_path)
    zitadel.applications[0]["oidcConfiguration"]["backChannelLogoutUri"] = ""
    zitadel.projects[0]["authorizationRequired"] = False
    zitadel.policies["policies/lockout"] = {"maxPasswordAttempts": "3"}
    assert bootstrap(zitadel, tmp_path).exit_code == 0
    assert zitadel.applications[0]["oidcConfiguration"]["backChannelLogoutUri"]
    assert zitadel.projects[0]["authorizationRequired"] is True
    assert zitadel.policies["policies/lockout"] == {"maxPasswordAttempts": 3, "maxOtpAttempts": 5}


def test_a_secret_that_was_lost_is_made_anew(zitadel: Instance, tmp_path: Path) -> None:
    bootstrap(zitadel, tmp_path)
    for name in ("client.secret", "webhook.key", "gateway.pat"):
        (tmp_path / "secrets" / name).unlink()
    assert bootstrap(zitadel, tmp_path).exit_code == 0
    assert (tmp_path / "secrets" / "client.secret").read_text() == "secret-two"
    assert (tmp_path / "secrets" / "webhook.key").read_text() == "signing-key-two"
    assert (tmp_path / "secrets" / "gateway.pat").read_text() == "pat-2"


@pytest.mark.parametrize(("days", "renewed"), [(60, False), (77, True), (400, True)])
def test_a_token_is_renewed_before_it_ends(zitadel: Instance, tmp_path: Path, days: int, renewed: bool) -> None:
    bootstrap(zitadel, tmp_path)
    token = tmp_path / "secrets" / "gateway.pat"
    then = time.time() - days * 86_400
    os.utime(token, (then, then))
    assert bootstrap(zitadel, tmp_path).exit_code == 0
    assert token.read_text() == ("pat-2" if renewed else "pat-1")


def test_a_webhook_that_somebody_made_another_kind_is_set_right(zitadel: Instance, tmp_path: Path) -> None:
    bootstrap(zitadel, tmp_path)
    [target] = zitadel.targets.values()
    target.pop("restAsync", None)
    target["restCall"] = {"interruptOnError": True}
    zitadel.fake.asked.clear()
    assert bootstrap(zitadel, tmp_path).exit_code == 0
    assert any("UpdateTarget" in change for change in zitadel.changes)


def test_what_is_stricter_already_stays(zitadel: Instance, tmp_path: Path) -> None:
    zitadel.policies["policies/password/age"] = {"maxAgeDays": "30", "expireWarnDays": "5"}
    zitadel.policies["policies/password/complexity"] = {"minLength": "16"}
    zitadel.policies["settings/oidc"]["accessTokenLifetime"] = "300s"
    bootstrap(zitadel, tmp_path)
    assert zitadel.policies["policies/password/age"] == {"maxAgeDays": "30", "expireWarnDays": "5"}
    assert zitadel.policies["policies/password/complexity"]["minLength"] == 16
    assert zitadel.policies["settings/oidc"]["accessTokenLifetime"] == "300s"


def test_a_blocked_webhook_is_told_in_zitadels_words_with_the_fix(zitadel: Instance, tmp_path: Path) -> None:
    zitadel.blocked = True
    result = bootstrap(zitadel, tmp_path)
    assert result.exit_code == 1
    assert "Errors.Target.DeniedURL" in result.output
    assert "ZITADEL_HTTPCLIENT_DENYLIST" in result.output


def test_a_step_that_is_refused_is_named_and_the_others_go_on(zitadel: Instance, tmp_path: Path) -> None:
    zitadel.forbidden = {"CreateUser"}
    zitadel.unknown_events = {"user.human.mfa.recoverycode.removed"}
    result = bootstrap(zitadel, tmp_path)
    assert result.exit_code == 1
    assert "failed  machine user" in result.output
    assert "failed  webhook for user.human.mfa.recoverycode.removed" in result.output
    assert "2 steps failed, the others are done." in " ".join(result.output.split())
    assert set(zitadel.executions) == set(EVENT_TYPES) - zitadel.unknown_events
    assert zitadel.policies["policies/lockout"] == {"maxPasswordAttempts": 5, "maxOtpAttempts": 5}
    assert "issuers:" in result.stdout
    zitadel.forbidden, zitadel.unknown_events = set(), set()
    second = bootstrap(zitadel, tmp_path)
    assert second.exit_code == 0, second.output
    assert set(zitadel.executions) == set(EVENT_TYPES)
    assert len(zitadel.users) == 1


def test_applications_wait_for_a_project_that_was_refused(zitadel: Instance, tmp_path: Path) -> None:
    zitadel.forbidden = {"CreateProject"}
    result = bootstrap(zitadel, tmp_path)
    assert result.exit_code == 1
    assert "skipped application Gateway login" in result.output
    assert zitadel.applications == []
    assert "issuers:" not in result.stdout


def test_a_wrong_token_and_a_server_that_is_not_there_are_told(zitadel: Instance, tmp_path: Path) -> None:
    zitadel.fake.tokens = set()
    result = bootstrap(zitadel, tmp_path)
    assert result.exit_code == 1
    assert "unauthenticated" in result.output
    result = bootstrap(zitadel, tmp_path, "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "unreachable" in result.output


def test_a_token_in_a_file_others_may_read_is_refused(zitadel: Instance, tmp_path: Path) -> None:
    token = tmp_path / "open.pat"
    token.write_text(TOKEN)
    token.chmod(0o644)
    result = gateway(
        *("zitadel", "bootstrap", "--issuer", zitadel.url, "--gateway", "https://g.example.com"),
        *("--token-file", token, "--dir", tmp_path / "secrets"),
    )
    assert result.exit_code == 1
    assert zitadel.fake.asked == []
