"""Signing in as it is configured: what is refused, what follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import Config, ConfigError, Issuer, Listen, Login, load

HEAD = "tls: [{certificate: server.pem, key: server.key}]\n"
WIKI = "services:\n  wiki: {host: wiki.corp, upstream: 'http://127.0.0.1:8080', introspect: never}\n"


def text(*logins: str, more: str = "") -> str:
    issuers = "".join(
        f"  - {{issuer: 'https://id{n}', audiences: [a], login: {one}}}\n" for n, one in enumerate(logins)
    )
    return f"{HEAD}{more}issuers:\n{issuers}{WIKI}"


@pytest.mark.parametrize(
    ("content", "key", "fix"),
    [
        (text("{client_id: c, secret: {env: A}, key: {env: B}}"), "issuers[0].login", "either"),
        (text("{client_id: c, secret: {env: A, file: b}}"), "issuers[0].login.secret", "either"),
        (text("{client_id: c, scopes: [profile]}"), "issuers[0].login.scopes", "openid"),
        (text("{client_id: c, slug: a}", "{client_id: d, slug: a}"), "issuers[1].login", "slug"),
        (text("{client_id: c}", more="sessions: {idle_s: 7200, absolute_s: 3600}\n"), "sessions.idle_s", "absolute_s"),
    ],
)
def test_an_unsafe_sign_in_is_refused_with_a_fix(tmp_path: Path, content: str, key: str, fix: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    (problem,) = caught.value.problems
    assert problem.key == key
    assert fix in problem.fix


def test_the_redirect_uri_of_an_issuer_has_a_name_made_of_its_host() -> None:
    def slug(url: str, **login: str) -> str:
        return Issuer(issuer=url, audiences=("a",), login=Login(client_id="c", **login)).slug  # type: ignore[arg-type]

    assert slug("https://id.example.com") == "id-example-com"
    assert slug("https://ID.example.com:8443/realms/Staff") == "id-example-com-8443-realms-staff"
    assert slug("https://id.example.com", slug="staff") == "staff"
    assert len(slug("https://" + "a." * 80 + "com")) <= 63


@pytest.mark.parametrize(
    ("listen", "origin"),
    [
        (Listen(port=8443), "https://wiki.corp:8443"),
        (Listen(port=443), "https://wiki.corp"),
        (Listen(port=8443, public_port=443), "https://wiki.corp"),
        (Listen(port=443, public_port=9443), "https://wiki.corp:9443"),
    ],
)
def test_a_hosts_origin_has_the_port_that_browsers_use(tmp_path: Path, listen: Listen, origin: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text("{client_id: c}"), encoding="utf-8")
    config: Config = load(file, environ={}).model_copy(update={"listen": listen})
    assert config.origin("wiki.corp") == origin
