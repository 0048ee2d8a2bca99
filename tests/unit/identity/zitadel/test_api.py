from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jwt
import pytest

from gateway.adapters.http import HttpxClient
from gateway.demo.idp.token_issuer import Key
from gateway.identity.zitadel.access import AccessToken, ApiFailure, ServiceAccount
from gateway.identity.zitadel.api import Zitadel, number, seconds
from tests.support.zitadel_world import NOW, TOKEN, Clock, FakeZitadel, zitadel


@pytest.fixture
def server() -> Iterator[FakeZitadel]:
    with zitadel() as fake:
        yield fake


@pytest.fixture
async def http() -> AsyncIterator[HttpxClient]:
    client = HttpxClient(timeout_s=3)
    yield client
    await client.close()


@pytest.fixture
def api(server: FakeZitadel, http: HttpxClient) -> Zitadel:
    return Zitadel("https://id.example.com", http, AccessToken(TOKEN), server.url)


async def test_an_internal_address_is_asked_in_the_name_of_the_public_host(server: FakeZitadel, api: Zitadel) -> None:
    server.session("1")
    await api.session("1")
    asked = server.asked[0]
    assert asked.headers["x-zitadel-instance-host"] == "id.example.com"
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"


async def test_at_its_public_address_no_host_is_named(server: FakeZitadel, http: HttpxClient) -> None:
    await Zitadel(server.url, http, AccessToken(TOKEN)).user("1")
    assert "x-zitadel-instance-host" not in server.asked[0].headers


async def test_a_session_is_read_searched_and_ended(server: FakeZitadel, api: Zitadel) -> None:
    server.session("a", "42", NOW + 60)
    server.session("b", "43")
    found = await api.session("a")
    assert not isinstance(found, ApiFailure)
    assert found is not None
    assert (found.id, found.user_id, found.expires_at) == ("a", "42", NOW + 60)
    mine = await api.sessions_of("43")
    assert not isinstance(mine, ApiFailure)
    assert [(one.id, one.expires_at) for one in mine] == [("b", None)]
    among = await api.sessions_among(["a", "b", "c"])
    assert not isinstance(among, ApiFailure)
    assert {one.id for one in among} == {"a", "b"}
    assert await api.delete_session("a") is None
    assert await api.delete_session("a") is None
    assert await api.session("a") is None


async def test_a_search_goes_through_every_page(server: FakeZitadel, api: Zitadel) -> None:
    for count in range(250):
        server.session(f"s{count}")
    found = await api.sessions_of("42")
    assert not isinstance(found, ApiFailure)
    assert len(found) == 250
    assert [asked.body["query"]["offset"] for asked in server.asked] == ["0", "100", "200"]


async def test_an_id_cannot_leave_its_path_segment(server: FakeZitadel, api: Zitadel) -> None:
    await api.session("../users/42?x=1")
    assert server.asked[0].path == "/v2/sessions/..%2Fusers%2F42%3Fx%3D1"


async def test_a_user_is_read_locked_and_deactivated(server: FakeZitadel, api: Zitadel) -> None:
    server.answers["GET", "/v2/users/42"] = 200, {"user": {"userId": "42", "state": "USER_STATE_LOCKED"}}
    for action in ("lock", "unlock", "deactivate"):
        server.answers["POST", f"/v2/users/42/{action}"] = 200, {"details": {}}
    user = await api.user("42")
    assert user is not None
    assert not isinstance(user, ApiFailure)
    assert (user.id, user.state) == ("42", "locked")
    assert await api.user("nobody") is None
    assert [await api.lock("42"), await api.unlock("42"), await api.deactivate("42")] == [None] * 3
    server.answers["GET", "/v2/users/42/authentication_methods"] = (
        200,
        {"authMethodTypes": ["AUTHENTICATION_METHOD_TYPE_PASSWORD", "AUTHENTICATION_METHOD_TYPE_TOTP"]},
    )
    assert await api.authentication_methods("42") == ("password", "totp")


async def test_settings_that_are_all_zero_are_an_empty_object(server: FakeZitadel, api: Zitadel) -> None:
    server.answers["GET", "/v2/settings/lockout"] = 200, {"settings": {"maxPasswordAttempts": "5"}}
    server.answers["GET", "/v2/settings/login"] = 200, {}
    assert await api.settings("lockout") == {"maxPasswordAttempts": "5"}
    assert await api.settings("login") == {}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {"code": 5, "message": "User could not be found (QUERY-Dfbg2)"}, "not_found"),
        (403, {"code": "permission_denied", "message": "No matching permissions found"}, "forbidden"),
        (409, {"code": 6, "message": "already exists"}, "exists"),
        (400, {"code": 9, "message": "No changes (COMMAND-x)"}, "unchanged"),
        (400, {"code": "failed_precondition", "message": "something else"}, "precondition"),
        (400, {"code": 3, "message": "Errors.Target.DeniedURL"}, "blocked_url"),
        (
            400,
            {"code": 3, "message": "x", "details": [{"id": "A", "message": "Errors.Target.DeniedURL"}]},
            "blocked_url",
        ),
        (400, {"message": "Errors.Project.App.Blocked.BackchannelLogoutURL"}, "blocked_url"),
        (404, {"code": 5, "message": "Instance not found. Make sure you got the domain right."}, "wrong_host"),
        (401, {"code": 16, "message": "invalid"}, "unauthenticated"),
        (500, {}, "unreachable"),
        (302, {}, "unreachable"),
    ],
)
async def test_every_failure_has_a_kind(server: FakeZitadel, api: Zitadel, status: int, body: Any, kind: str) -> None:
    server.answers["POST", "/zitadel.project.v2.ProjectService/CreateProject"] = status, body
    answer = await api.connect("project.v2.ProjectService", "CreateProject", {"name": "x"})
    assert isinstance(answer, ApiFailure)
    assert answer.kind == kind
    assert TOKEN not in answer.detail


async def test_a_server_that_is_not_there_is_unreachable(http: HttpxClient) -> None:
    answer = await Zitadel("http://127.0.0.1:1", http, AccessToken(TOKEN)).user("1")
    assert isinstance(answer, ApiFailure)
    assert answer.kind == "unreachable"


def test_no_repr_shows_a_secret(server: FakeZitadel) -> None:
    assert TOKEN not in repr(AccessToken(TOKEN))
    with pytest.raises(ValueError, match="not an access token") as caught:
        AccessToken("two words")
    assert "two" not in str(caught.value)


async def test_a_service_account_signs_in_with_its_key_and_again_when_refused(
    server: FakeZitadel, http: HttpxClient
) -> None:
    key, clock = Key(), Clock()
    file = {"type": "serviceaccount", "keyId": key.kid, "key": key.pem(), "userId": "77"}
    account = ServiceAccount(json.dumps(file).encode(), "https://id.example.com", server.url, http, clock)
    forms: list[dict[str, str]] = []
    tokens = iter(("first", "second"))

    real = server.answer

    def answer(asked: Any) -> tuple[int, dict[str, Any]]:
        if asked.path == "/.well-known/openid-configuration":
            return 200, {"token_endpoint": "https://id.example.com/oauth/v2/token"}
        if asked.path == "/oauth/v2/token":
            forms.append(dict(part.split("=", 1) for part in asked.body.decode().split("&")))
            return 200, {"access_token": next(tokens), "expires_in": 600}
        return real(asked)

    server.answer = answer  # type: ignore[method-assign]
    server.tokens = {"first", "second"}
    server.session("1")
    api = Zitadel("https://id.example.com", http, account, server.url)
    assert not isinstance(await api.session("1"), ApiFailure)
    assert not isinstance(await api.session("1"), ApiFailure)
    assert len(forms) == 1
    server.tokens = {"second"}
    assert not isinstance(await api.session("1"), ApiFailure)
    assert len(forms) == 2
    claims = jwt.decode(
        forms[0]["assertion"],
        key.private.public_key(),
        ["RS256"],
        options={"verify_signature": True, "verify_exp": False, "verify_iat": False},
        audience="https://id.example.com",
    )
    assert (claims["iss"], claims["sub"], claims["iat"]) == ("77", "77", NOW - 1)
    assert key.pem() not in repr(account)


def test_protojson_numbers_and_durations() -> None:
    assert [number("12"), number(12), number("-1"), number(None), number(True)] == [12, 12, 0, 0, 0]
    assert [seconds("900s"), seconds("1.5s"), seconds("15m"), seconds(900), seconds(None)] == [900, 1.5, 0, 0, 0]
