"""`gateway init` writes a folder that works, and never overwrites one."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from gateway.config import SCHEMA_LINE, json_schema, load
from gateway.operations.errors import ActionFailed
from gateway.operations.starter import Provider, Site, hosts, issuer_example, start, starter_yaml
from tests.support.cli_world import gateway


def test_a_fresh_folder_has_everything_and_is_private(site: Path) -> None:
    config = load(site / "gateway.yaml", environ={})
    assert config.host == "gateway.localhost"
    assert [service.host for service in config.services.values()] == ["app.localhost"]
    assert (site / "policies/gateway/authz.rego").is_file()
    assert not (site / "policies/cases").exists()
    assert json.loads((site / "gateway.schema.json").read_text()) == json_schema()
    assert (site / "gateway.yaml").read_text().startswith(SCHEMA_LINE + "\n")
    for path in (site / "state", site / "pki"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    keys = list((site / "pki").glob("*.key"))
    assert keys
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


def test_the_commented_issuer_and_every_other_comment_load_when_they_are_uncommented(tmp_path: Path) -> None:
    text = starter_yaml(Site(hosts=["gateway.corp", "wiki.corp", "hr.corp"], upstreams=["http://127.0.0.1:1"]))
    commented = "".join(f"# {line}\n" for line in issuer_example().splitlines())
    assert commented in text
    text = text.replace(commented, issuer_example())
    for comment in ("# state:", "# record:", "# admin:", "# trusted_proxies:", "# engine:", "# url:", "# workers:"):
        assert comment in text
        text = text.replace(comment, comment.removeprefix("# "))
    text = text.replace("    # paths:", "    paths:").replace("    #   /admin", "      /admin")
    file = tmp_path / "gateway.yaml"
    file.write_text(text, encoding="utf-8")
    config = load(file, environ={})
    assert list(config.services) == ["wiki", "hr"]
    assert config.services["wiki"].paths["/admin"].sensitivity == "high"
    assert config.policy.engine == "opa"
    assert config.issuers[0].introspection is not None


@pytest.mark.parametrize("there", ["gateway.yaml", "policies", "pki", "state", "gateway.schema.json"])
def test_nothing_is_overwritten_and_nothing_is_begun(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    result = gateway("init", tmp_path)
    assert result.exit_code == 1
    assert there in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_hosts_have_sensible_defaults_and_bad_ones_are_refused() -> None:
    assert hosts([]) == ["gateway.localhost", "app.localhost"]
    assert hosts(["gw.corp.example"]) == ["gw.corp.example", "app.corp.example"]
    assert hosts(["gw", "a.b", "c.d"]) == ["gw", "a.b", "c.d"]
    for bad in (["Gateway"], ["a b"], ["a.b", "a.b"], ["a..b"], ["*.a"], [""]):
        with pytest.raises(ActionFailed):
            hosts(bad)


@pytest.mark.parametrize("upstream", ["", "127.0.0.1:80", "http://a/b", "http://a\nb: c", 'http://"'])
def test_a_strange_upstream_never_makes_a_strange_file(tmp_path: Path, upstream: str) -> None:
    try:
        made = start(tmp_path / "site", Site(hosts=["gateway.localhost", "no.localhost"], upstreams=[upstream]))
    except ActionFailed:
        assert not (tmp_path / "site").exists()
    else:
        assert load(made.config, environ={}).services["no"].backend.urls == (upstream,)


def test_a_folder_that_cannot_be_made_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = gateway("init", tmp_path / "file" / "site")
    assert result.exit_code == 1
    assert "error" in result.stderr
    assert isinstance(result.exception, SystemExit)


PROVIDER = Provider(issuer="https://id.corp.example", client_id="gw", secret="s3cret", audience="gw", slug="login")


@pytest.mark.parametrize("provider", [None, PROVIDER])
@pytest.mark.parametrize("device", ["required", "optional"])
@pytest.mark.parametrize("everybody", [False, True])
def test_whatever_is_written_loads_and_says_what_was_asked_for(tmp_path, provider, device, everybody):
    site = Site(
        hosts=["gateway.corp.example", "wiki.corp.example", "no.corp.example"],
        upstreams=["http://127.0.0.1:3000", "http://127.0.0.1:4000"],
        provider=provider,
        device=device,
        everybody=everybody,
        port=8444,
        admin_port=9444,
    )
    config = load(start(tmp_path / "site", site).config, environ={})
    assert [service.backend.urls[0] for service in config.services.values()] == [*site.upstreams]
    assert {service.device for service in config.services.values()} == {device}
    assert {service.allow.roles for service in config.services.values()} == {("*",) if everybody else ("staff",)}
    assert (config.listen.port, config.admin.port) == (8444, 9444)
    assert [issuer.issuer for issuer in config.issuers] == ([PROVIDER.issuer] if provider else [])
    assert (config.risk is None) == everybody
    assert site.redirect_uri == ("https://gateway.corp.example:8444/.gateway/callback/login" if provider else "")


def test_the_secret_is_in_a_file_of_its_own_that_nobody_else_reads(tmp_path):
    site = Site(hosts=["gateway.localhost", "a.localhost"], upstreams=["http://127.0.0.1:1"], provider=PROVIDER)
    started = start(tmp_path / "site", site)
    secret = tmp_path / "site/secrets/login"
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == ("s3cret", 0o600)
    assert "s3cret" not in started.config.read_text()
    assert "s3cret" not in repr(site)


@pytest.mark.parametrize("text", ['a"b', "a: b", "{x}", "\N{SNOWMAN}", "1234", "null", "a # b", "-"])
def test_odd_ids_stay_what_they_are(tmp_path, text):
    provider = Provider(issuer="https://id.corp.example", client_id=text, secret="s", audience=text, slug="login")
    site = Site(hosts=["gateway.localhost", "a.localhost"], upstreams=["http://127.0.0.1:1"], provider=provider)
    issuer = load(start(tmp_path / "site", site).config, environ={}).issuers[0]
    assert issuer.audiences == (text,)
    assert issuer.login is not None
    assert issuer.login.client_id == text
