"""The part of `gateway check` that looks at this machine: secrets, certificates, folders, policies.

A finding is a place in the configuration, what is wrong there and the fix; `is_warning` when the gateway would run.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gateway.adapters.geo import GeoNetworks, default_database
from gateway.config import Allow, Config, ConfigError, Secret, ServerCertificate, resolve_secret
from gateway.core.reasons import Refusal
from gateway.identity.devices.ca_files import load_authority
from gateway.identity.devices.certificates import DeviceTrust, load_crl
from gateway.operations.pki import hosts_of, names_of
from plugins.signals import builtin

Place = tuple[str | int, ...]
_DAY_S = 86_400
_SOON_S, _RENEW_S = 7 * _DAY_S, 14 * _DAY_S
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_UNREADABLE = (OSError, ValueError, TypeError)
# ISO 3166-1 alpha-2, and XK, which country data use as well.
_CODES = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD
CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF
GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN
KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA
NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI
SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI
VN VU WF WS XK YE YT ZA ZM ZW
"""
_COUNTRIES = frozenset(_CODES.split())


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `gateway check` found."""

    place: Place
    message: str
    fix: str
    is_warning: bool = False


def access(config: Config) -> Iterator[Finding]:
    """Services that nobody could open, and tokens that would travel in clear text."""
    for name, service in config.services.items():
        place: Place = ("services", name)
        if service.device == "required" and config.devices.ca is None:
            fix = "Run `gateway pki init` and name it under `devices`, or write `device: optional` here."
            yield Finding((*place, "device"), "No device can be enrolled, so nobody gets in.", fix, is_warning=True)
        if not config.issuers and not service.allow.public:
            message = "No issuer is configured, so nobody can sign in here."
            yield Finding((*place, "allow"), message, "Add your identity provider under `issuers`.", is_warning=True)
        if service.keep_bearer and any(url.startswith("http://") for url in service.backend.urls):
            message = "The caller's token goes to the service in clear text."
            yield Finding((*place, "keep_bearer"), message, "Use https:// upstream.", is_warning=True)


def risk(config: Config) -> Iterator[Finding]:
    """Country data that can be read, countries that there are, settings that a signal takes."""
    for number, path in enumerate(config.networks.databases or ()):
        place: Place = ("networks", "databases", number)
        said: list[str] = []
        if GeoNetworks([path], report=lambda _, what, said=said: said.append(what)).flaw:  # type: ignore[misc]
            message = f"Nothing is known of addresses, and sensitive services ask for a proof: {said[0]}."
            yield Finding(place, message, "Name a MaxMind DB file (.mmdb).", is_warning=True)
    for name, service in config.services.items():
        lists: list[tuple[Place, Allow | None]] = [((), service.allow)]
        lists += [(("paths", path), rule.allow) for path, rule in service.paths.items()]
        for below, allow in lists:
            for number, country in enumerate(allow.countries if allow is not None else ()):
                if country not in _COUNTRIES:
                    fix = "Write GB." if country == "UK" else "Write a code of ISO 3166-1 alpha-2."
                    place = ("services", name, *below, "allow", "countries", number)
                    yield Finding(place, f"There is no country {country}; nobody comes from there.", fix)
    if config.risk is not None:
        if config.networks.databases is None and default_database() is None:
            message = "No country data are installed: whoever comes from outside is asked for a proof."
            fix = "Install python-geoacumen beside the gateway, or name a file under `networks.databases`."
            yield Finding(("risk",), message, fix, is_warning=True)
        try:
            builtin(config.risk.signals)
        except ValueError as error:
            yield Finding(("risk", "signals"), f"{_why(error)}.", "docs/signals.md lists signals and their settings.")


def secrets(config: Config, now: float) -> Iterator[Finding]:
    """Every secret can be read, by this user alone."""
    wanted: list[tuple[Place, Secret | None]] = [(("policy", "token"), config.policy.token)]
    for number, issuer in enumerate(config.issuers):
        if issuer.introspection is not None:
            place: Place = ("issuers", number, "introspection")
            wanted += [((*place, "secret"), issuer.introspection.secret), ((*place, "key"), issuer.introspection.key)]
        if issuer.login is not None:
            place = ("issuers", number, "login")
            wanted += [((*place, "secret"), issuer.login.secret), ((*place, "key"), issuer.login.key)]
        if issuer.zitadel is not None:
            place = ("issuers", number, "zitadel")
            wanted += [((*place, "token"), issuer.zitadel.token), ((*place, "key"), issuer.zitadel.key)]
            wanted += [((*place, "webhook_keys", at), key) for at, key in enumerate(issuer.zitadel.webhook_keys)]
    wanted.append((("store", "password"), config.store.password))
    if config.store.sentinel is not None:
        wanted.append((("store", "sentinel", "password"), config.store.sentinel.password))
    for place, secret in wanted:
        if secret is None:
            continue
        try:
            text = resolve_secret(secret).reveal()
        except ConfigError as error:
            yield Finding(place, error.problems[0].message, error.problems[0].fix)
            continue
        if place[-1] == "key":
            yield from _key_file(text, place, now)


def _key_file(text: str, place: Place, now: float) -> Iterator[Finding]:
    try:
        document = json.loads(text)
        whole = all(isinstance(document[name], str) for name in ("keyId", "key"))
        ends = document.get("expirationDate")
        left = datetime.fromisoformat(ends).timestamp() - now if isinstance(ends, str) else float("inf")
    except (ValueError, TypeError, LookupError, AttributeError):
        whole, left = False, 0.0
    if not whole:
        yield Finding(place, "This is no key file.", "Name the JSON file with keyId and key that Zitadel handed out.")
    elif left < _RENEW_S:
        message = f"The key ends in {left / _DAY_S:.0f} days." if left > 0 else "The key has expired."
        yield Finding(place, message, "`gateway zitadel bootstrap` makes a new one.", is_warning=left > 0)


def certificates(config: Config, now: float) -> Iterator[Finding]:
    """Server certificates are current, fit their keys and cover every host; other CA files can be read."""
    covered: set[str] = set()
    usable = True
    for number, item in enumerate(config.tls):
        place: Place = ("tls", number)
        try:
            leaf = x509.load_pem_x509_certificates(item.certificate.read_bytes())[0]
        except _UNREADABLE as error:
            usable = False
            fix = "`gateway pki server` makes one."
            yield Finding((*place, "certificate"), f"The certificate cannot be read: {_why(error)}.", fix)
            continue
        covered.update(names_of(leaf))
        yield from _validity(leaf, (*place, "certificate"), now, "`gateway pki server` makes a new one.")
        yield from _key(item, leaf, (*place, "key"))
    for host in hosts_of(config):
        if usable and not covered & {host, f"*.{host.partition('.')[2]}"}:
            owner = next((name for name, service in config.services.items() if service.host == host), None)
            where: Place = ("host",) if owner is None else ("services", owner, "host")
            fix = "`gateway pki server` makes a certificate for every host in this file."
            yield Finding(where, f"No certificate under `tls` covers {host}.", fix)
    for where, path in _authorities(config):
        try:
            certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except _UNREADABLE as error:
            yield Finding(where, f"The CA file cannot be read: {_why(error)}.", "Name a PEM file of certificates.")
        else:
            for certificate in certificates:
                yield from _validity(certificate, where, now, "Get a new one from its owner.")


def _authorities(config: Config) -> Iterator[tuple[Place, Path]]:
    for number, issuer in enumerate(config.issuers):
        if issuer.ca is not None:
            yield ("issuers", number, "ca"), issuer.ca
    if config.policy.ca is not None:
        yield ("policy", "ca"), config.policy.ca
    if config.store.tls is not None and config.store.tls.ca is not None:
        yield ("store", "tls", "ca"), config.store.tls.ca
    for name, service in config.services.items():
        if service.backend.ca is not None:
            yield ("services", name, "upstream", "ca"), service.backend.ca


def _key(item: ServerCertificate, leaf: x509.Certificate, place: Place) -> Iterator[Finding]:
    try:
        mode = item.key.stat().st_mode
        key = serialization.load_pem_private_key(item.key.read_bytes(), password=None)
    except _UNREADABLE as error:
        yield Finding(place, f"The key cannot be read: {_why(error)}.", "Name the PEM file of the certificate's key.")
        return
    if mode & _OTHERS:
        yield Finding(place, "Others can use the key's file.", f"Run `chmod 600 {item.key}`.")
    if key.public_key() != leaf.public_key():
        yield Finding(place, "This key belongs to another certificate.", "Name the pair that was made together.")


def _validity(certificate: x509.Certificate, place: Place, now: float, fix: str) -> Iterator[Finding]:
    subject = certificate.subject.rfc4514_string()
    until = certificate.not_valid_after_utc.timestamp()
    if now >= until:
        yield Finding(place, f"The certificate {subject} has expired.", fix)
    elif now < certificate.not_valid_before_utc.timestamp():
        yield Finding(place, f"The certificate {subject} is not valid yet.", "Check this machine's clock.")
    elif until - now < _SOON_S:
        message = f"The certificate {subject} expires in {int((until - now) / _DAY_S)} days."
        yield Finding(place, message, fix, is_warning=True)


def device_pki(config: Config, now: float) -> Iterator[Finding]:
    """The device CA, its key and its CRL."""
    devices = config.devices
    if devices.ca is None or devices.crl_file is None:
        return
    make = "`gateway pki init` makes a device PKI."
    try:
        trust = DeviceTrust(devices.ca.read_bytes())
    except _UNREADABLE as error:
        yield Finding(("devices", "ca"), f"The device CA cannot be used: {_why(error)}.", make)
        return
    for certificate in (*trust.roots, *trust.issuing):
        yield from _validity(certificate, ("devices", "ca"), now, make)
    if devices.issuing_key is not None:
        try:
            authority = load_authority(devices.ca, devices.issuing_key)
        except _UNREADABLE as error:
            fix = "Name the key that was made together with this CA; only the gateway's user may read it."
            yield Finding(("devices", "issuing_key"), f"The issuing key cannot be used: {_why(error)}.", fix)
        else:
            if authority.certificate not in trust.issuing:
                yield Finding(("devices", "issuing_key"), "This key is not that of a device-issuing CA.", make)
    place: Place = ("devices", "crl") if devices.crl is not None else ("devices", "ca")
    try:
        listed = load_crl(devices.crl_file.read_bytes(), trust.issuing, now, devices.crl_max_age_s)
    except OSError as error:
        listed = Refusal("crl_stale", f"the CRL cannot be read: {_why(error)}")
    if isinstance(listed, Refusal):
        what = f"Every device would be refused: {listed.detail}."
        # With the issuing key here, `serve` makes a new list as it starts.
        yield Finding(place, what, "Run `gateway pki crl`.", is_warning=devices.issuing_key is not None)


def folders(config: Config) -> Iterator[Finding]:
    """The state folder is this user's alone, and the record can be written."""
    state = config.state
    if state.exists():
        if not state.is_dir():
            yield Finding(("state",), f"{state} is no folder.", "Name a folder.")
        elif stat.S_IMODE(state.stat().st_mode) & _OTHERS:
            yield Finding(("state",), f"Others can use {state}.", f"Run `chmod 700 {state}`.")
    master = state / "master.key"
    if master.exists() and stat.S_IMODE(master.stat().st_mode) & _OTHERS:
        yield Finding(("state",), f"Others can use {master}.", f"Run `chmod 600 {master}`.")
    for place, folder in ((("state",), state), (("record", "file"), config.record.file.parent)):
        nearest = next((path for path in (folder, *folder.parents) if path.exists()), folder)
        if not os.access(nearest, os.W_OK | os.X_OK):
            yield Finding(place, f"{nearest} cannot be written.", "Let the user who runs the gateway write there.")


def _why(error: BaseException) -> str:
    """An error's own words without file contents."""
    return getattr(error, "strerror", None) or str(error).rstrip(".") or type(error).__name__
