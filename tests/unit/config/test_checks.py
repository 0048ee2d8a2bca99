"""Each unsafe combination is refused at the line to change, with the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import ConfigError, Problem, load
from gateway.config.checks import KEY_LOG_VARIABLES, is_loopback

HEAD = "tls: [{certificate: server.pem, key: server.key}]\n"
WIKI = "services:\n  wiki:\n    host: wiki.corp\n    upstream: http://127.0.0.1:8080\n"
ASKED = "introspection: {client_id: gateway, key: {file: zitadel.json}}"


def refused(folder: Path, text: str, **environ: str) -> list[Problem]:
    file = folder / "gateway.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, environ=environ)
    assert all(problem.fix for problem in caught.value.problems)
    return list(caught.value.problems)


def issuer(url: str, more: str = ASKED) -> str:
    return HEAD + f"issuers: [{{issuer: '{url}', audiences: [a], {more}}}]\n" + WIKI


def upstream(form: str) -> str:
    return HEAD + f"services:\n  wiki:\n    host: wiki.corp\n    upstream: {form}\n"


def two(second: str, host: str = "host: gw.corp\n") -> str:
    return HEAD + host + WIKI + f"  shop: {{host: '{second}', upstream: 'http://127.0.0.1:1'}}\n"


@pytest.mark.parametrize(
    ("text", "line", "key", "fix"),
    [
        # listeners
        (HEAD + "admin: {address: 0.0.0.0}\n" + WIKI, 2, "admin.address", "expose: true"),
        (HEAD + "admin: {address: '::'}\n" + WIKI, 2, "admin.address", "127.0.0.1"),
        (HEAD + "admin: {address: somewhere}\n" + WIKI, 2, "admin.address", "Write an address"),
        (HEAD + "listen: {address: x.y}\n" + WIKI, 2, "listen.address", "Write an address"),
        (HEAD + "trusted_proxies: [10.0.0.0/8, 0.0.0.0/0]\n" + WIKI, 2, "trusted_proxies[1]", "your own proxies"),
        (HEAD + "trusted_proxies: ['::/0']\n" + WIKI, 2, "trusted_proxies[0]", "your own proxies"),
        (HEAD + "devices: {issuing_key: a.key}\n" + WIKI, 2, "devices.issuing_key", "devices.ca"),
        # policy
        (HEAD + "policy: {engine: opa}\n" + WIKI, 2, "policy.engine", "policy.url"),
        (HEAD + "policy: {url: 'http://127.0.0.1:8181'}\n" + WIKI, 2, "policy.url", "engine: opa"),
        (HEAD + "policy: {engine: opa, url: 'redis://a'}\n" + WIKI, 2, "policy.url", "scheme://host:port"),
        (HEAD + "policy: {engine: opa, url: 'http://a:x'}\n" + WIKI, 2, "policy.url", "scheme://host:port"),
        (HEAD + "policy: {engine: opa, url: 'http://opa', token: {env: T}}\n" + WIKI, 2, "policy.url", "https://"),
        (HEAD + "policy: {engine: opa, url: 'https://opa', token: {}}\n" + WIKI, 2, "policy.token", "`file` or `env`"),
        (
            HEAD + "policy: {engine: opa, url: 'https://opa', token: {env: T, file: t}}\n" + WIKI,
            2,
            "policy.token",
            "either",
        ),
        # issuers
        (issuer("http://id.corp"), 2, "issuers[0].issuer", "https"),
        (issuer("https://u@id"), 2, "issuers[0].issuer", "user name"),
        (issuer("https://id:0"), 2, "issuers[0].issuer", "port"),
        (
            issuer("https://id", "opaque: true") + "    plane: user\n",
            2,
            "issuers[0].opaque",
            "Add `introspection`",
        ),
        (
            issuer("https://id", "introspection: {client_id: g, method: basic}"),
            2,
            "issuers[0].introspection.method",
            "Add `secret:",
        ),
        (
            issuer("https://id", "introspection: {client_id: g}"),
            2,
            "issuers[0].introspection.method",
            "Add `key:",
        ),
        (
            HEAD + "issuers:\n" + f"  - {{issuer: 'https://id', audiences: [a], {ASKED}}}\n" * 2 + WIKI,
            4,
            "issuers[1].issuer",
            "one entry",
        ),
        # tokens of a service
        (
            issuer("https://id", ""),
            4,
            "services.wiki.introspect",
            "introspect: never",
        ),
        (
            issuer("https://id", "") + "    plane: user\n    introspect: 5\n",
            8,
            "services.wiki.introspect",
            "introspect: never",
        ),
        (
            issuer("https://id") + "    issuers: ['https://ic']\n",
            7,
            "services.wiki.issuers[0]",
            "https://id",
        ),
        # hosts
        (two("wiki.corp"), 7, "services.shop.host", "`paths`"),
        (two("gw.corp"), 7, "services.shop.host", "another host"),
        (two("*.else", "host: gw.else\n"), 7, "services.shop.host", "another domain"),
        (two("*.corp", "host: gw.other\n"), 5, "services.wiki.host", "one by one"),
        (two("a..corp"), 7, "services.shop.host", "labels"),
        (two("b.corp", "host: '*.gw.corp'\n"), 2, "host", "one host name"),
        # paths and allow
        (HEAD + WIKI + "    paths:\n      /a/../b: {}\n", 7, 'services.wiki.paths["/a/../b"]', "`..`"),
        (HEAD + WIKI + "    paths:\n      /a//b: {}\n", 7, 'services.wiki.paths["/a//b"]', "empty"),
        (HEAD + WIKI + "    paths:\n      /a: {}\n      /a/: {}\n", 8, 'services.wiki.paths["/a/"]', "one of them"),
        (HEAD + WIKI + "    paths: {/a: {methods: []}}\n", 6, 'services.wiki.paths["/a"].methods', "remove"),
        (HEAD + WIKI + "    allow: {public: true, roles: [a]}\n", 6, "services.wiki.allow.public", "Remove `public`"),
        (
            HEAD + WIKI + "    paths: {/a: {allow: {public: true, mfa: true}}}\n",
            6,
            'services.wiki.paths["/a"].allow.public',
            "Remove `public`",
        ),
        # upstreams
        (upstream("{urls: ['http://a', 'http://b']}"), 5, "services.wiki.upstream.urls", "health"),
        (upstream("{urls: ['https://a'], ca: none.pem}"), 5, "services.wiki.upstream.ca", "Correct the path"),
        (upstream("{urls: ['http://a'], server_name: b}"), 5, "services.wiki.upstream.urls[0]", "https://"),
        (upstream("{urls: ['https://a'], certificate: gateway.yaml}"), 5, "services.wiki.upstream", "other one"),
        (upstream("http://u:p@a"), 5, "services.wiki.upstream.urls[0]", "user name"),
        (upstream("http://a:99999"), 5, "services.wiki.upstream.urls[0]", "port"),
    ],
)  # fmt: skip
def test_an_unsafe_combination_is_refused_with_its_line_and_a_fix(
    tmp_path: Path, text: str, line: int, key: str, fix: str
) -> None:
    found = refused(tmp_path, text)
    assert [(problem.line, problem.key) for problem in found] == [(line, key)]
    assert fix in found[0].fix


@pytest.mark.parametrize("name", KEY_LOG_VARIABLES)
def test_a_tls_key_log_in_the_environment_is_refused(tmp_path: Path, name: str) -> None:
    found = refused(tmp_path, HEAD + WIKI, **{name: ""})
    assert [(problem.key, problem.line) for problem in found] == [(name, 0)]
    assert f"unset {name}" in found[0].fix


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "admin: {address: 0.0.0.0, expose: true}\n" + WIKI,
        HEAD + "admin: {address: '::1'}\n" + WIKI,
        HEAD + "policy: {engine: opa, url: 'http://opa:8181'}\n" + WIKI,
        HEAD + "policy: {engine: opa, url: 'http://127.0.0.1', token: {env: T}}\n" + WIKI,
        issuer("http://id.localhost:8080"),
        issuer("https://id", "") + "    introspect: never\n",
        issuer("https://id", "") + "    plane: user\n",
        upstream("{urls: ['http://a', 'http://b'], health: {}}"),
        upstream("{urls: ['https://a'], ca: gateway.yaml}"),
        two("*.shop.corp"),
        HEAD + WIKI + "    allow: {public: true, countries: [DE]}\n    paths: {/: {methods: [GET]}, /a/b: {}}\n",
    ],
)
def test_the_safe_form_of_each_is_taken(tmp_path: Path, text: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text, encoding="utf-8")
    assert load(file, environ={}).services


def test_only_this_machine_is_loopback() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "id.localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "localhost.corp", "127.0.0.1.corp", ""]))  # noqa: S104
