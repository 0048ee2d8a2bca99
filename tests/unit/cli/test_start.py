"""`gateway init`: what it asks, what it is told, where it writes."""

from __future__ import annotations

import pytest

from gateway.cli import start
from gateway.config import load
from tests.support.cli_world import gateway


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(start, "_at_terminal", lambda: True)
    monkeypatch.setattr("gateway.operations.listening.web_services", lambda: ["http://127.0.0.1:3000"])


def test_an_empty_folder_is_filled_where_one_stands(here):
    result = gateway("init", "--host", "gateway.corp.example", "--host", "wiki.corp.example")
    assert result.exit_code == 0
    assert load(here / "gateway.yaml", environ={}).services["wiki"].host == "wiki.corp.example"
    assert "Nobody can sign in yet" in result.stdout


def test_a_folder_with_policies_of_its_own_is_left_alone_and_another_one_is_made(here):
    (here / "policies").mkdir()
    result = gateway("init", "--host", "gateway.corp.example")
    assert result.exit_code == 0
    assert load(here / "gateway-site/gateway.yaml", environ={}).host == "gateway.corp.example"
    assert "gateway check -c gateway-site/gateway.yaml" in result.stdout
    assert not list((here / "policies").iterdir())


def test_a_site_is_never_overwritten(here):
    assert gateway("init").exit_code == 0
    before = (here / "gateway.yaml").read_bytes()
    assert gateway("init").exit_code == 1
    assert (here / "gateway.yaml").read_bytes() == before
    assert not (here / "gateway-site").exists()


def test_the_provider_is_written_with_its_redirect_uri(here):
    (here / "s").write_text("a-secret")
    result = gateway("init", "--issuer", "https://id.example", "--client-id", "gw", "--secret-file", "s")
    assert result.exit_code == 0
    issuer = load(here / "gateway.yaml", environ={}).issuers[0]
    assert issuer.login is not None
    assert (issuer.issuer, issuer.login.client_id, issuer.audiences) == ("https://id.example", "gw", ("gw",))
    assert (here / "secrets/login").read_text() == "a-secret"
    assert "https://gateway.localhost:8443/.gateway/callback/login" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--issuer", "https://id.example"], "--client-id, --secret-file is missing"),
        (["--client-id", "gw", "--secret-file", "s"], "--issuer is missing"),
        (["--issuer", "id.example", "--client-id", "gw", "--secret-file", "s"], "is no issuer"),
        (["--issuer", "https://id.example", "--client-id", "gw", "--secret-file", "absent"], "absent cannot be read"),
        (["--issuer", "https://id.example", "--client-id", "gw", "--secret-file", "empty"], "empty is empty"),
        (["--issuer", "https://id.example", "--client-id", "gw", "--secret-file", "binary"], "it is no text"),
    ],
)
def test_half_a_provider_is_an_error_before_anything_is_written(here, options, message):
    (here / "s").write_text("a-secret")
    (here / "empty").write_text(" \n")
    (here / "binary").write_bytes(b"\xff\xfe")
    result = gateway("init", *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (here / "gateway.yaml").exists()


def test_a_person_at_a_terminal_is_asked_for_everything(here, terminal):
    (here / "s").write_text("a-secret")
    answers = "gateway.corp.example\n1\nwiki.corp.example\nhttps://id.example\ngw\ns\nn\n"
    result = gateway("init", stdin=answers)
    assert result.exit_code == 0, result.output
    config = load(here / "gateway.yaml", environ={})
    assert config.services["wiki"].backend.urls == ("http://127.0.0.1:3000",)
    assert config.services["wiki"].device == "optional"
    assert config.issuers[0].issuer == "https://id.example"
    assert "127.0.0.1:3000 answers on this machine" in result.stderr


def test_enter_takes_what_is_offered(here, terminal):
    result = gateway("init", stdin="\n\n\n\n\n")
    assert result.exit_code == 0, result.output
    config = load(here / "gateway.yaml", environ={})
    assert config.host == "gateway.localhost"
    assert config.services["app"].backend.urls == ("http://127.0.0.1:3000",)
    assert config.services["app"].device == "required"
    assert not config.issuers


@pytest.mark.parametrize("number", ["0", "2", "99"])
def test_a_number_that_was_not_offered_is_no_address(here, terminal, number):
    result = gateway("init", stdin=f"\n{number}\n\n\n\n")
    assert result.exit_code == 1
    assert "The upstream is no address." in result.stderr
    assert not (here / "gateway.yaml").exists()


def test_a_folder_to_go_on_from_must_be_one(here):
    result = gateway("init", "site", "--from", "absent", "--host", "gateway.corp.example")
    assert result.exit_code == 1
    assert "absent" in result.stderr
    assert not (here / "site").exists()
