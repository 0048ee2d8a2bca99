"""The section `store`: what is refused, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import Config, ConfigError, load

REST = """\
tls: [{certificate: server.pem, key: server.key}]
services: {wiki: {host: wiki.corp, upstream: "http://127.0.0.1:8080"}}
"""


def loaded(folder: Path, store: str) -> Config:
    file = folder / "gateway.yaml"
    file.write_text(f"store: {store}\n{REST}", encoding="utf-8")
    return load(file, environ={})


def test_without_the_section_the_state_is_in_a_file(tmp_path: Path) -> None:
    store = loaded(tmp_path, "{}").store
    assert (store.kind, store.on_down, store.timeout_ms) == ("sqlite", "deny", 250)


@pytest.mark.parametrize(
    "store",
    [
        "{kind: sqlite}",
        "{kind: redis, address: '127.0.0.1:6379'}",
        "{kind: redis, address: '[::1]:6379', password: {env: P}, username: gateway, database: 3}",
        "{kind: redis, address: 'redis.corp:6379', tls: {}}",
        "{kind: redis, address: 'redis.localhost:6379', on_down: read_only, grace_s: 60}",
        "{kind: redis, sentinel: {name: gw, addresses: ['a:1', 'b:2']}, replicas: 1, tls: {}}",
    ],
)
def test_what_is_whole_and_safe_is_taken(tmp_path: Path, store: str) -> None:
    loaded(tmp_path, store)


@pytest.mark.parametrize(
    ("store", "key", "fix"),
    [
        ("{address: '127.0.0.1:6379'}", "store.kind", "kind: redis"),
        ("{kind: redis}", "store", "address"),
        ("{kind: redis, address: '127.0.0.1:1', sentinel: {name: g, addresses: ['127.0.0.1:2']}}", "store", "either"),
        ("{kind: redis, address: '10.0.0.5:6379'}", "store.tls", "tls:"),
        (
            "{kind: redis, sentinel: {name: g, addresses: ['127.0.0.1:1', '10.0.0.5:1']}, replicas: 1}",
            "store.tls",
            "tls",
        ),
        ("{kind: redis, sentinel: {name: g, addresses: ['127.0.0.1:1']}}", "store.replicas", "replicas: 1"),
        ("{kind: redis, address: 'a:1', tls: {certificate: c.pem}}", "store.tls", "other one"),
        ("{kind: redis, address: 'a:1', tls: {ca: none.pem}}", "store.tls.ca", "path"),
        ("{kind: redis, address: '127.0.0.1:1', password: {}}", "store.password", "`file` or `env`"),
        ("{kind: redis, address: '127.0.0.1:1', on_down: read_only}", "store.on_down", "grace_s"),
        ("{kind: redis, address: '127.0.0.1:1', grace_s: 30}", "store.on_down", "grace_s"),
        ("{kind: redis, address: '127.0.0.1:1', on_down: read_only, grace_s: 301}", "store.grace_s", ""),
        ("{kind: redis, address: 'redis://127.0.0.1:1'}", "store.address", ""),
        ("{kind: redis, address: '127.0.0.1'}", "store.address", ""),
        ("{kind: redis, address: '127.0.0.1:1', password: swordfish}", "store.password", ""),
        ("{kind: memory}", "store.kind", ""),
    ],
)
def test_what_is_not_is_refused_at_its_place(tmp_path: Path, store: str, key: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, store)
    assert key in [problem.key for problem in caught.value.problems]
    assert any(fix in problem.fix for problem in caught.value.problems)
    assert "swordfish" not in str(caught.value)
