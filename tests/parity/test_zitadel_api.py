"""Every call to Zitadel, held to the interface that Zitadel publishes; so is the emulator that answers here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.adapters.http import HttpxClient
from gateway.cli.zitadel.bootstrap import Bootstrap, Made, Wanted
from gateway.cli.zitadel.check import Expected, Seen, judge, look
from gateway.core import paths
from gateway.demo.idp.provider import DevProvider, serving
from gateway.identity.zitadel.access import AccessToken, ApiFailure
from gateway.identity.zitadel.api import Zitadel
from gateway.identity.zitadel.events import EVENT_TYPES
from tests.support.zitadel_api import Interface, Recorder
from tests.support.zitadel_instance import instance
from tests.support.zitadel_world import TOKEN

GATEWAY = "https://gateway.example.com"
# Zitadel's source, internal/repository/user, usergrant and session: the removal events of every factor it has.
PUBLISHED_EVENTS = {
    *("session.terminated", "user.locked", "user.deactivated", "user.removed", "user.human.signed.out"),
    *("user.human.password.changed", "user.human.mfa.otp.removed", "user.human.mfa.u2f.token.removed"),
    *("user.human.mfa.otp.sms.removed", "user.human.mfa.otp.email.removed", "user.human.mfa.recoverycode.removed"),
    *("user.human.passwordless.token.removed", "user.grant.added", "user.grant.changed", "user.grant.cascade.changed"),
    *("user.grant.removed", "user.grant.cascade.removed", "user.grant.deactivated"),
}


@pytest.fixture(scope="module")
def provider() -> Iterator[DevProvider]:
    with serving() as served:
        yield served


@pytest.fixture
async def recorder(provider: DevProvider) -> AsyncIterator[Recorder]:
    recorded = Recorder(HttpxClient(timeout_s=5), provider.issuer)
    yield recorded
    await recorded.close()


@pytest.fixture
def api(provider: DevProvider, recorder: Recorder) -> Zitadel:
    return Zitadel(provider.issuer, recorder, AccessToken(provider.instance.owner_token))


def faults(recorder: Recorder) -> list[str]:
    published = Interface()
    return sorted({fault for exchange in recorder.exchanges for fault in published.faults_of_exchange(*exchange)})


async def set_up(api: Zitadel, folder: Path) -> tuple[Made, list[tuple[str, str]]]:
    steps: list[tuple[str, str]] = []
    made = await Bootstrap(api, Wanted(GATEWAY, "zitadel", folder), lambda name, how: steps.append((name, how))).run()
    return made, steps


async def test_bootstrap_and_check_speak_as_published_and_the_emulator_answers_so(
    api: Zitadel, recorder: Recorder, tmp_path: Path
) -> None:
    made, steps = await set_up(api, tmp_path)
    assert made.failures == []
    assert {how for _, how in steps} <= {"made", "kept", "changed"}
    (tmp_path / "client.secret").unlink()
    (tmp_path / "webhook.key").unlink()
    again, _ = await set_up(api, tmp_path)
    assert (again.project_id, again.client_id) == (made.project_id, made.client_id)
    expected = Expected(
        client_id=made.client_id,
        project_id=made.project_id,
        logout_uri=f"{GATEWAY}{paths.BACKCHANNEL_LOGOUT}zitadel",
        hook_uri=f"{GATEWAY}{paths.ZITADEL_WEBHOOK}zitadel",
    )
    seen = await look(api, expected, probe=True)
    assert isinstance(seen, Seen)
    assert seen.unknown == {}
    assert {weakness.what for weakness in judge(seen, expected)} <= {"login.allowRegister"}
    assert faults(recorder) == []
    calls = {(method, path) for method, path, *_ in recorder.exchanges}
    assert ("PUT", "/admin/v1/policies/password/lockout") in calls
    assert len(recorder.exchanges) > 50


async def test_the_run_time_client_speaks_as_published(provider: DevProvider, api: Zitadel, recorder: Recorder) -> None:
    person = next(iter(provider.people.values())).subject
    created = await api.rest("POST", "/v2/sessions", {"checks": {"user": {"userId": person}}})
    assert isinstance(created, dict)
    session = str(created["sessionId"])
    assert not isinstance(await api.session(session), ApiFailure)
    assert not isinstance(await api.sessions_of(person), ApiFailure)
    assert not isinstance(await api.sessions_among([session]), ApiFailure)
    assert await api.delete_session(session) is None
    assert not isinstance(await api.user(person), ApiFailure)
    assert not isinstance(await api.authentication_methods(person), ApiFailure)
    assert await api.lock(person) is None
    assert await api.unlock(person) is None
    assert await api.deactivate(person) is None
    for name in ("login", "password/complexity", "password/expiry", "lockout", "security"):
        assert not isinstance(await api.settings(name), ApiFailure), name
    page = await api.events(EVENT_TYPES, since="2020-01-01T00:00:00Z", aggregate_id=person)
    assert not isinstance(page, ApiFailure)
    assert page.events
    assert faults(recorder) == []


async def test_the_other_instance_of_these_tests_answers_as_published(tmp_path: Path) -> None:
    with instance() as fake:
        recorder = Recorder(HttpxClient(timeout_s=5), fake.url)
        api = Zitadel(fake.url, recorder, AccessToken(TOKEN))
        await set_up(api, tmp_path)
        assert isinstance(await look(api, Expected(hook_uri=f"{GATEWAY}/hook"), probe=True), Seen)
        await recorder.close()
        assert faults(recorder) == []


def test_every_event_that_ends_something_has_zitadels_name() -> None:
    assert set(EVENT_TYPES) == PUBLISHED_EVENTS


def test_the_judge_finds_a_wrong_path_member_enumeration_and_type() -> None:
    published = Interface()
    assert published.faults_of_exchange("PUT", "/admin/v1/policies/lockout", {}, 200, {})
    judged = [
        ("POST", "/zitadel.project.v2.ProjectService/CreateProject", {"organisationId": "1"}),
        ("POST", "/zitadel.project.v2.ProjectService/CreateProject", {"projectRoleAssertion": "yes"}),
        ("POST", "/zitadel.action.v2.ActionService/CreateTarget", {"payloadType": "PAYLOAD_TYPE_XML"}),
        ("PUT", "/admin/v1/settings/oidc", {"accessTokenLifetime": 900}),
    ]
    for method, path, body in judged:
        assert len(published.faults_of_exchange(method, path, body, 200, {})) == 1, path
