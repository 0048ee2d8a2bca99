"""Combinations that are well formed and unsafe. Each is refused with the place to change and the fix."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from gateway.config.models import Allow, Config, Issuer, Secret, Service, StateStore, Upstream
from gateway.config.problems import Loc

KEY_LOG_VARIABLES = ("SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE")


class Finding(NamedTuple):
    """Something to repair at a place of the configuration; an empty place means `key`, outside the file."""

    loc: Loc
    message: str
    fix: str
    key: str = ""


def environment(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that would make a TLS library write session keys to disk."""
    for name in KEY_LOG_VARIABLES:
        if name in environ:
            message = f"{name} is set: TLS session keys would be written to a file."
            yield Finding((), message, f"Unset it: `unset {name}`.", name)


def unsafe(config: Config) -> Iterator[Finding]:
    """Every unsafe combination of a configuration whose paths are absolute."""
    yield from _listeners(config)
    yield from _networks(config)
    yield from _policy(config)
    yield from _store(config.store)
    yield from _issuers(config)
    yield from _hosts(config)
    configured = {issuer.issuer: (number, issuer) for number, issuer in enumerate(config.issuers)}
    for name, service in config.services.items():
        loc: Loc = ("services", name)
        yield from _service(service, loc)
        yield from _tokens(service, configured, loc)
        yield from _upstream(service.backend, (*loc, "upstream"))


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _split(url: str) -> SplitResult | None:
    """The parts of a URL; None when it has no host, a bad port, or a name and password in it."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        return None
    return parts if usable else None


def _bad_url(loc: Loc) -> Finding:
    return Finding(loc, "This is no usable address.", "Write scheme://host:port, without a user name or password.")


def _secret(secret: Secret | None, loc: Loc) -> Iterator[Finding]:
    if secret is not None and (secret.file is None) == (secret.env is None):
        yield Finding(loc, "A secret has exactly one place.", "Write either `file` or `env`.")


def _listeners(config: Config) -> Iterator[Finding]:
    for section, address in (("listen", config.listen.address), ("admin", config.admin.address)):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            yield Finding((section, "address"), "This is no IP address.", "Write an address such as 127.0.0.1 or ::.")
            return
    if config.listen.port == config.admin.port != 0:
        yield Finding(("admin", "port"), "Both listeners have this port.", "Choose another one.")
    if not config.admin.expose and not is_loopback(config.admin.address):
        message = "Others can reach the operator's listener, and it has no sign-in."
        yield Finding(
            ("admin", "address"), message, "Write 127.0.0.1, or add `expose: true` when a firewall guards it."
        )
    for number, network in enumerate(config.trusted_proxies):
        if network.prefixlen == 0:
            message = f"{network} trusts everyone: each client could choose its own address."
            yield Finding(("trusted_proxies", number), message, "Name the networks of your own proxies.")
    if config.devices.issuing_key is not None and config.devices.ca is None:
        message = "There is an issuing key and no CA."
        yield Finding(("devices", "issuing_key"), message, "Add `devices.ca`: `gateway pki init` makes both.")


def _store(store: StateStore) -> Iterator[Finding]:
    if store.kind == "sqlite":
        if store.model_fields_set - {"kind"}:
            yield Finding(
                ("store", "kind"), "The other keys here are for Redis.", "Write `kind: redis`, or remove them."
            )
        return
    sentinel = store.sentinel
    if (store.address is None) == (sentinel is None):
        yield Finding(("store",), "One way to the Redis is needed.", "Write either `address` or `sentinel`.")
        return
    yield from _secret(store.password, ("store", "password"))
    if sentinel is not None:
        yield from _secret(sentinel.password, ("store", "sentinel", "password"))
        if store.replicas == 0:
            message = "A failover could lose what was acknowledged: no replica is waited for."
            yield Finding(("store", "replicas"), message, "Write `replicas: 1`, with two replicas or more.")
    addresses = sentinel.addresses if sentinel is not None else (store.address or "",)
    if store.tls is None and not all(is_loopback(address.rpartition(":")[0]) for address in addresses):
        yield Finding(("store", "tls"), "Sessions would travel in clear text.", "Add `tls: {ca: path}`.")
    if store.tls is not None:
        yield from _files(("store", "tls"), store.tls.ca, store.tls.certificate, store.tls.key)
    if (store.on_down == "read_only") != (store.grace_s > 0):
        yield Finding(("store", "on_down"), "A grace needs its length.", "Write `on_down: read_only` and `grace_s`.")


def _networks(config: Config) -> Iterator[Finding]:
    for kind, ranges in (("company", config.networks.company), ("vpn", config.networks.vpn)):
        for number, network in enumerate(ranges):
            if network.prefixlen == 0:
                message = f"{network} stands for everyone: no country would be looked at."
                yield Finding(("networks", kind, number), message, "Name the company's own addresses.")
    if config.networks.databases == ():
        message = "The list is empty: no country would be known."
        yield Finding(("networks", "databases"), message, "Name the files, or remove the key for the installed one.")
    if (risk := config.risk) is not None and not risk.low <= risk.medium <= risk.high:
        yield Finding(("risk",), "The levels are out of order.", "Write low <= medium <= high.")


def _policy(config: Config) -> Iterator[Finding]:
    policy = config.policy
    yield from _secret(policy.token, ("policy", "token"))
    if policy.engine == "opa" and policy.url is None:
        yield Finding(("policy", "engine"), "`engine: opa` needs the server's address.", "Add `policy.url`.")
    if policy.engine != "opa" and policy.url is not None:
        message = "An OPA server is named, and the embedded engine decides."
        yield Finding(("policy", "url"), message, "Write `engine: opa`, or remove `url`.")
    if policy.url is None:
        return
    url = _split(policy.url)
    if url is None or url.scheme not in {"http", "https"}:
        yield _bad_url(("policy", "url"))
    elif url.scheme == "http" and policy.token is not None and not is_loopback(url.hostname or ""):
        yield Finding(("policy", "url"), "The token for OPA would travel in clear text.", "Use https://.")


def _issuers(config: Config) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for number, issuer in enumerate(config.issuers):
        loc: Loc = ("issuers", number)
        first = seen.setdefault(issuer.issuer, number)
        if first != number:
            message = f"This issuer stands here twice (first as issuers[{first}])."
            yield Finding((*loc, "issuer"), message, "Keep one entry; list every audience there.")
        url = _split(issuer.issuer)
        if url is None:
            yield _bad_url((*loc, "issuer"))
        elif url.scheme == "http" and not is_loopback(url.hostname or ""):
            message = "The issuer's keys would be fetched without TLS."
            yield Finding((*loc, "issuer"), message, "Use https://; http:// is for loopback hosts only.")
        if issuer.opaque and issuer.introspection is None:
            yield Finding((*loc, "opaque"), "Opaque tokens can only be introspected.", "Add `introspection`.")
        yield from _introspection(issuer, loc)
        yield from _login(issuer, loc)
    slugs: dict[str, int] = {}
    for number, issuer in enumerate(config.issuers):
        if issuer.login is not None and (first := slugs.setdefault(issuer.slug, number)) != number:
            message = f"issuers[{first}] has the same redirect URI: answers of one could pass for the other's."
            yield Finding(("issuers", number, "login"), message, "Give it a `slug` of its own.")
    if config.sessions.idle_s > config.sessions.absolute_s:
        message = "The idle limit is longer than the whole session."
        yield Finding(("sessions", "idle_s"), message, "Write a number below `absolute_s`.")


def _login(issuer: Issuer, loc: Loc) -> Iterator[Finding]:
    login = issuer.login
    if login is None:
        return
    loc = (*loc, "login")
    yield from _secret(login.secret, (*loc, "secret"))
    yield from _secret(login.key, (*loc, "key"))
    if login.secret is not None and login.key is not None:
        yield Finding(loc, "A client authenticates in one way.", "Keep either `secret` or `key`.")
    if login.scopes is not None and "openid" not in login.scopes:
        yield Finding((*loc, "scopes"), "Without the scope openid nobody signs in.", "Add `openid`.")
    if not issuer.slug:
        yield Finding(loc, "The redirect URI needs a name for this issuer.", "Add `slug: name`.")


def _introspection(issuer: Issuer, loc: Loc) -> Iterator[Finding]:
    asked = issuer.introspection
    if asked is None:
        return
    loc = (*loc, "introspection")
    needed = "secret" if asked.method == "basic" else "key"
    if (asked.secret if needed == "secret" else asked.key) is None:
        fix = f"Add `{needed}: {{file: secrets/name}}`, or choose another `method`."
        yield Finding((*loc, "method"), f"`method: {asked.method}` needs `{needed}`.", fix)
    yield from _secret(asked.secret, (*loc, "secret"))
    yield from _secret(asked.key, (*loc, "key"))


def _hosts(config: Config) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name, service in config.services.items():
        loc: Loc = ("services", name, "host")
        host = service.host
        if any(not label or label[0] == "-" or label[-1] == "-" for label in host.split(".")):
            yield Finding(loc, "This is no host name.", "Write labels of letters, digits and inner hyphens.")
        if (first := seen.setdefault(host, name)) != name:
            message = f"Service `{first}` has the same host, so both would answer the same paths."
            yield Finding(loc, message, "Give it a host of its own, or make it one service with `paths`.")
        if config.host in {host, host.removeprefix("*.")}:
            continue_at = f"{config.host} is the gateway's own host (`host`)."
            yield Finding(loc, continue_at, "Choose another host for the service.")
        elif _covers(host, config.host):
            message = f"{host} would also stand for the gateway's own host, {config.host}."
            yield Finding(loc, message, "Move the gateway or the service to another domain.")
    if config.host.startswith("*."):
        yield Finding(("host",), "The gateway's own host cannot be a wildcard.", "Write one host name.")
    for name, service in config.services.items():
        wildcard = seen.get(f"*.{service.host.partition('.')[2]}")
        if wildcard is not None and not service.host.startswith("*."):
            message = f"Service `{wildcard}` covers this host too: without this entry its rules would apply here."
            fix = "Move the wildcard to a domain of its own, or list its hosts one by one."
            yield Finding(("services", name, "host"), message, fix)


def _covers(wildcard: str, host: str) -> bool:
    return wildcard.startswith("*.") and host.partition(".")[2] == wildcard[2:]


def _service(service: Service, loc: Loc) -> Iterator[Finding]:
    yield from _allow(service.allow, (*loc, "allow"))
    seen: dict[tuple[str, ...], str] = {}
    for path, rule in service.paths.items():
        at: Loc = (*loc, "paths", path)
        segments = segments_of(path)
        if any(part in {"", ".", ".."} or "\\" in part for part in segments):
            yield Finding(at, "No request has such a path.", "Remove empty, `.` and `..` parts and backslashes.")
        if seen.setdefault(segments, path) != path:
            yield Finding(at, f'"{seen[segments]}" is the same path.', "Keep one of them.")
        if rule.methods == ():
            yield Finding((*at, "methods"), "The list is empty: every method would be refused.", "Add or remove it.")
        if rule.allow is not None:
            yield from _allow(rule.allow, (*at, "allow"))


def segments_of(path: str) -> tuple[str, ...]:
    """The decoded segments of a path key; a slash at the end means nothing."""
    inner = path.removeprefix("/").removesuffix("/")
    return tuple(inner.split("/")) if inner else ()


def _allow(allow: Allow, loc: Loc) -> Iterator[Finding]:
    if allow.public and (allow.roles or allow.departments or allow.mfa or allow.read_only_roles):
        message = "`public: true` lets everyone in, so the other conditions on people mean nothing."
        yield Finding((*loc, "public"), message, "Remove `public`, or the roles, departments and mfa.")


def _tokens(service: Service, configured: Mapping[str, tuple[int, Issuer]], loc: Loc) -> Iterator[Finding]:
    for number, url in enumerate(service.issuers):
        if url not in configured:
            nearest = difflib.get_close_matches(url, configured, n=1)
            fix = "Add it under `issuers`, or remove it here."
            if nearest and "@" not in nearest[0]:
                fix = f"Did you mean {nearest[0]}?"
            yield Finding((*loc, "issuers", number), "This issuer is not configured.", fix)
    if service.introspect_cache_s is None:
        return
    for url in service.issuers or tuple(configured):
        number, issuer = configured.get(url, (0, None))
        if issuer is not None and issuer.introspection is None:
            message = f"A token could outlive its session here: issuers[{number}] has no `introspection`."
            fix = "Add `introspection` to the issuer, or write `introspect: never` here."
            yield Finding((*loc, "introspect"), message, fix)


def _upstream(upstream: Upstream, loc: Loc) -> Iterator[Finding]:
    if len(upstream.urls) > 1 and upstream.health is None:
        fix = "Add `health: {path: /healthz}`."
        yield Finding((*loc, "urls"), "Several addresses need health checks.", fix)
    for number, url in enumerate(upstream.urls):
        parts = _split(url)
        at: Loc = (*loc, "urls", number)
        if parts is None:
            yield _bad_url(at)
        elif parts.scheme == "http" and (upstream.ca or upstream.certificate or upstream.server_name):
            yield Finding(at, "TLS is configured, and this address does not use it.", "Write https://.")
    yield from _files(loc, upstream.ca, upstream.certificate, upstream.key)


def _files(loc: Loc, ca: Path | None, certificate: Path | None, client_key: Path | None) -> Iterator[Finding]:
    if (certificate is None) != (client_key is None):
        yield Finding(loc, "A client certificate needs both `certificate` and `key`.", "Add the other one.")
    for key, file in (("ca", ca), ("certificate", certificate), ("key", client_key)):
        if file is not None and not file.is_file():
            yield Finding(
                (*loc, key), f"There is no file {file}.", "Correct the path (it starts at this file's folder)."
            )
