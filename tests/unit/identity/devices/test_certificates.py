from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.reasons import Refusal
from gateway.identity.devices.ca import (
    Authority,
    issue_crl,
    issue_device,
    issue_server,
    key_usage,
    make_issuing,
    make_root,
    pem_of,
    utc,
)
from gateway.identity.devices.certificates import (
    ClaimedDevice,
    Crl,
    DeviceTrust,
    load_crl,
    parse_device_certificate,
    read_csr,
)
from tests.support.pki_world import DER, PEM, TRUST_DOMAIN, UUID, Clock, csr, new_key, reason_of, sha256

NOW = Clock()()
ROOT = make_root("root", NOW)
DEVICES = make_issuing(ROOT, "devices", "device", NOW)
SERVERS = make_issuing(ROOT, "servers", "server", NOW)
TRUST = DeviceTrust(pem_of(DEVICES.certificate, ROOT.certificate))
GOOD = issue_device(DEVICES, new_key().public_key(), UUID, TRUST_DOMAIN, now=NOW, life_s=86_400)
WEAK = rsa.generate_private_key(65_537, 1024)  # noqa: S505  (to be refused)
URI = f"spiffe://gateway.internal/device/{UUID}"


def variant(
    *,
    replace: dict[type, tuple[x509.ExtensionType, bool] | None] | None = None,
    subject: str | None = None,
    extra: list[tuple[x509.ExtensionType, bool]] | None = None,
    key: object = None,
    by: Authority = DEVICES,
) -> x509.Certificate:
    """A certificate like GOOD, signed by `by`, but for one departure from the profile."""
    builder = x509.CertificateBuilder(
        by.certificate.subject,
        x509.Name.from_rfc4514_string(subject) if subject is not None else GOOD.subject,
        key or GOOD.public_key(),
        GOOD.serial_number,
        GOOD.not_valid_before_utc,
        GOOD.not_valid_after_utc,
    )
    extensions = {type(one.value): (one.value, one.critical) for one in GOOD.extensions} | (replace or {})
    for extension in [*extensions.values(), *(extra or [])]:
        if extension is not None:
            builder = builder.add_extension(extension[0], critical=extension[1])
    return builder.sign(by.key, hashes.SHA256())


def san(*names: x509.GeneralName) -> dict[type, tuple[x509.ExtensionType, bool]]:
    return {x509.SubjectAlternativeName: (x509.SubjectAlternativeName(names), False)}


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def eku(*usages: x509.ObjectIdentifier) -> dict[type, tuple[x509.ExtensionType, bool]]:
    return {x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage(usages), False)}


DEPARTURES = {
    "no EKU": variant(replace={x509.ExtendedKeyUsage: None}),
    "EKU of servers": variant(replace=eku(ExtendedKeyUsageOID.SERVER_AUTH)),
    "EKU of both": variant(replace=eku(ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)),
    "EKU for anything": variant(replace=eku(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)),
    "no SAN": variant(replace={x509.SubjectAlternativeName: None}),
    "two URIs": variant(replace=san(uri(URI), uri(URI))),
    "a URI and a host": variant(replace=san(uri(URI), x509.DNSName("a.example"))),
    "a host": variant(replace=san(x509.DNSName("a.example"))),
    "another trust domain": variant(replace=san(uri(URI.replace("gateway.internal", "evil.internal")))),
    "a trust domain that looks alike": variant(replace=san(uri(URI.replace("gateway.internal", "gatewayxinternal")))),
    "another path": variant(replace=san(uri(URI.replace("/device/", "/service/")))),
    "a longer path": variant(replace=san(uri(f"{URI}/x"))),
    "an upper-case id": variant(replace=san(uri(URI.replace("abcd", "ABCD")))),
    "a line feed at the end": variant(replace=san(uri(f"{URI}\n"))),
    "a subject of another device": variant(subject=f"CN={UUID.replace('a', 'b')}"),
    "a subject with more in it": variant(subject=f"CN={UUID},O=x"),
    "a subject with two names in one": variant(subject=f"CN={UUID}+O=x"),
    "no subject": variant(subject=""),
    "a CA": variant(replace={x509.BasicConstraints: (x509.BasicConstraints(ca=True, path_length=None), True)}),
    "CA=false, not critical": variant(
        replace={x509.BasicConstraints: (x509.BasicConstraints(ca=False, path_length=None), False)}
    ),
    "no basic constraints": variant(replace={x509.BasicConstraints: None}),
    "no key usage": variant(replace={x509.KeyUsage: None}),
    "key usage, not critical": variant(replace={x509.KeyUsage: (key_usage(digital_signature=True), False)}),
    "key usage of a CA": variant(replace={x509.KeyUsage: (key_usage(digital_signature=True, ca=True), True)}),
    "no authority key identifier": variant(replace={x509.AuthorityKeyIdentifier: None}),
    "no subject key identifier": variant(replace={x509.SubjectKeyIdentifier: None}),
    "one extension more": variant(extra=[(x509.OCSPNoCheck(), False)]),
    "an unknown critical extension": variant(
        extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]
    ),
    "a weak RSA key": variant(key=WEAK.public_key()),
    "a curve that is not ours": variant(key=ec.generate_private_key(ec.SECP521R1()).public_key()),
}


def test_a_certificate_of_the_profile_is_read() -> None:
    der = GOOD.public_bytes(DER)
    claimed = parse_device_certificate(der, TRUST_DOMAIN)
    assert isinstance(claimed, ClaimedDevice)
    assert claimed.id == UUID
    assert claimed.serial == f"{GOOD.serial_number:032x}"
    assert claimed.not_after == NOW + 86_400
    assert claimed.cert_sha256 == sha256(der)


@pytest.mark.parametrize("name", DEPARTURES)
def test_every_departure_from_the_profile_is_refused(name: str) -> None:
    assert (
        reason_of(parse_device_certificate(DEPARTURES[name].public_bytes(DER), TRUST_DOMAIN)) == "certificate_malformed"
    )


@pytest.mark.parametrize("name", ["no EKU", "EKU of servers", "EKU for anything", "no SAN", "no key usage", "a CA"])
def test_the_second_line_refuses_the_gravest_departures_by_itself(name: str) -> None:
    assert reason_of(TRUST.verify(DEPARTURES[name], NOW)) == "certificate_malformed"


@given(st.integers(0, len(GOOD.public_bytes(DER)) - 1), st.integers(1, 255))
def test_no_changed_byte_gets_through(at: int, flip: int) -> None:
    der = bytearray(GOOD.public_bytes(DER))
    der[at] ^= flip
    claimed = parse_device_certificate(bytes(der), TRUST_DOMAIN)
    assert isinstance(claimed, Refusal) or isinstance(TRUST.verify(claimed.certificate, NOW), Refusal)


@given(st.binary(max_size=200))
def test_garbage_is_refused(der: bytes) -> None:
    assert reason_of(parse_device_certificate(der, TRUST_DOMAIN)) == "certificate_malformed"
    assert reason_of(parse_device_certificate(GOOD.public_bytes(DER) + der + b"\0", TRUST_DOMAIN))


# ---- the way up to the root ----


def test_the_window_is_that_of_the_shortest_lived() -> None:
    assert TRUST.verify(GOOD, NOW) == (NOW - 60, NOW + 86_400)


@pytest.mark.parametrize("offset_s", [-120, 86_500, 3 * 365 * 86_400])
def test_there_is_no_way_up_outside_of_the_window(offset_s: float) -> None:
    at = NOW + offset_s
    assert reason_of(TRUST.verify(GOOD, at)) == "certificate_malformed"


def test_a_foreign_certificate_finds_no_way_up() -> None:
    other_root = make_root("root", NOW)
    other = make_issuing(other_root, "devices", "device", NOW)
    leaf = issue_device(other, new_key().public_key(), UUID, TRUST_DOMAIN, now=NOW, life_s=60)
    assert reason_of(TRUST.verify(leaf, NOW)) == "certificate_malformed"


def test_a_certificate_below_the_server_authority_or_the_root_finds_no_way_up() -> None:
    for by in (SERVERS, ROOT):
        assert reason_of(TRUST.verify(variant(by=by), NOW)) == "certificate_malformed"


def test_a_server_certificate_is_no_device() -> None:
    leaf = issue_server(SERVERS, new_key().public_key(), ["a.example"], now=NOW)
    assert reason_of(parse_device_certificate(leaf.public_bytes(DER), TRUST_DOMAIN)) == "certificate_malformed"
    assert reason_of(TRUST.verify(leaf, NOW)) == "certificate_malformed"


def test_both_issuing_authorities_are_trusted_while_one_follows_the_other() -> None:
    later = make_issuing(ROOT, "devices 2", "device", NOW)
    both = DeviceTrust(pem_of(later.certificate, DEVICES.certificate, ROOT.certificate))
    leaf = issue_device(later, new_key().public_key(), UUID, TRUST_DOMAIN, now=NOW, life_s=60)
    for one in (leaf, GOOD):
        assert not isinstance(both.verify(one, NOW), Refusal)
    assert isinstance(TRUST.verify(leaf, NOW), Refusal)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"garbage",
        pem_of(ROOT.certificate),
        pem_of(DEVICES.certificate),
        pem_of(SERVERS.certificate, ROOT.certificate),
        pem_of(DEVICES.certificate, make_root("root", NOW).certificate),
    ],
    ids=["empty", "garbage", "no issuing CA", "no root", "a server CA", "another root"],
)
def test_a_bundle_that_does_not_fit_together_is_refused(pem: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        DeviceTrust(pem)


# ---- requests ----


def test_a_request_without_proof_of_possession_is_refused() -> None:
    lines = csr(new_key()).strip().split("\n")
    raw = bytearray(x509.load_pem_x509_csr("\n".join(lines).encode()).public_bytes(DER))
    raw[-1] ^= 1
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{base64.encodebytes(raw).decode()}-----END CERTIFICATE REQUEST-----\n"
    assert reason_of(read_csr(pem)) == "csr_malformed"


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "garbage",
        "\u00e9",
        pem_of(GOOD).decode(),
        csr(new_key()) + "x" * 20_000,
        csr(ec.generate_private_key(ec.SECP521R1())),
        csr(WEAK),
    ],
    ids=["empty", "garbage", "not ASCII", "a certificate", "too long", "P-521", "RSA-1024"],
)
def test_a_request_that_will_not_do_is_refused(pem: str) -> None:
    assert reason_of(read_csr(pem)) == "csr_malformed"


@given(st.text(max_size=200))
def test_any_text_is_refused_and_never_raises(text: str) -> None:
    assert reason_of(read_csr(text)) == "csr_malformed"
    body = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"
    assert reason_of(read_csr(body)) == "csr_malformed"


# ---- the list of revoked certificates ----


def crl(**changes: object) -> bytes:
    values: dict[str, object] = {"number": 7, "now": NOW, "life_s": 3600.0}
    return issue_crl(DEVICES, [("0a" * 16, NOW - 5)], **(values | changes))  # type: ignore[arg-type]


def test_a_list_is_read() -> None:
    found = load_crl(crl(), TRUST.issuing, NOW, 86_400)
    assert found == Crl(7, NOW, NOW + 3600, frozenset({"0a" * 16}))


@pytest.mark.parametrize(
    ("pem", "at", "max_age_s"),
    [
        (b"", NOW, 86_400.0),
        (b"garbage", NOW, 86_400.0),
        (pem_of(GOOD), NOW, 86_400.0),
        (crl(), NOW + 3600, 86_400.0),
        (crl(), NOW + 61, 60.0),
        (crl(), NOW - 61, 86_400.0),
        (issue_crl(SERVERS, [], number=7, now=NOW, life_s=60), NOW, 86_400.0),
        (issue_crl(make_issuing(ROOT, "devices", "device", NOW), [], number=7, now=NOW, life_s=60), NOW, 86_400.0),
    ],
    ids=["empty", "garbage", "a certificate", "past nextUpdate", "too old", "of the future", "server CA", "forged"],
)
def test_a_list_that_cannot_be_relied_on_is_stale(pem: bytes, at: float, max_age_s: float) -> None:
    assert reason_of(load_crl(pem, TRUST.issuing, at, max_age_s)) == "crl_stale"


def test_a_list_that_speaks_for_a_part_only_is_stale() -> None:
    scope = x509.IssuingDistributionPoint(
        full_name=[x509.UniformResourceIdentifier("http://crl.example/")],
        relative_name=None,
        only_contains_user_certs=False,
        only_contains_ca_certs=True,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
    builder = x509.CertificateRevocationListBuilder(DEVICES.certificate.subject, utc(NOW), utc(NOW + 60))
    builder = builder.add_extension(x509.CRLNumber(7), critical=False).add_extension(scope, critical=True)
    pem = builder.sign(DEVICES.key, hashes.SHA256()).public_bytes(PEM)
    assert reason_of(load_crl(pem, TRUST.issuing, NOW, 86_400)) == "crl_stale"


def test_a_list_without_a_number_is_stale() -> None:
    builder = x509.CertificateRevocationListBuilder(DEVICES.certificate.subject, utc(NOW), utc(NOW + 60))
    pem = builder.sign(DEVICES.key, hashes.SHA256()).public_bytes(PEM)
    assert reason_of(load_crl(pem, TRUST.issuing, NOW, 86_400)) == "crl_stale"
