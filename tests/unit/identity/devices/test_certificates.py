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
    DeviceTrust,
    VerifiedPath,
    has_unique_id,
    parse_device_certificate,
    read_csr,
)
from tests.support.pki_world import DER, TRUST_DOMAIN, UUID, Clock, csr, new_key, reason_of, sha256

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
    name: x509.Name | None = None,
    by: Authority = DEVICES,
) -> x509.Certificate:
    """A certificate like GOOD, signed by `by`, but for one departure from the profile."""
    builder = x509.CertificateBuilder(
        by.certificate.subject,
        name or (x509.Name.from_rfc4514_string(subject) if subject is not None else GOOD.subject),
        key or GOOD.public_key(),
        GOOD.serial_number,
        GOOD.not_valid_before_utc,
        GOOD.not_valid_after_utc,
    )
    extensions = {type(one.value): (one.value, one.critical) for one in GOOD.extensions} | (replace or {})
    if key is not None:
        extensions[x509.SubjectKeyIdentifier] = (x509.SubjectKeyIdentifier.from_public_key(key), False)  # type: ignore[arg-type]
        extensions |= replace or {}
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
    "EKU, critical": variant(
        replace={x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), True)}
    ),
    "SAN, critical": variant(
        replace={
            x509.SubjectAlternativeName: (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(URI)]), True)
        }
    ),
    "a subject key identifier of another key": variant(
        replace={x509.SubjectKeyIdentifier: (x509.SubjectKeyIdentifier(b"x" * 20), False)}
    ),
    "an authority key identifier with an issuer": variant(
        replace={
            x509.AuthorityKeyIdentifier: (
                x509.AuthorityKeyIdentifier(b"x" * 20, [x509.DirectoryName(ROOT.certificate.subject)], 1),
                False,
            )
        }
    ),
    "a subject in another string type": variant(
        name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, UUID, x509.name._ASN1Type.PrintableString)])
    ),
    "RSA with exponent 3": variant(key=rsa.generate_private_key(3, 2048).public_key()),
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
    assert TRUST.verify(GOOD, NOW) == VerifiedPath(DEVICES.certificate, NOW - 60, NOW + 86_400)


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


# ---- the path ----


def issuing(
    *extensions: tuple[x509.ExtensionType, bool],
    without: tuple[type, ...] = (),
    root: Authority = ROOT,
    until: float = NOW + 86_400,
) -> Authority:
    """An issuing CA like DEVICES, but for this."""
    key = new_key()
    like = {type(one.value): (one.value, one.critical) for one in DEVICES.certificate.extensions}
    like[x509.SubjectKeyIdentifier] = (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    own = root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    like[x509.AuthorityKeyIdentifier] = (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), False)
    like |= {type(one): (one, critical) for one, critical in extensions}
    builder = x509.CertificateBuilder(
        root.certificate.subject, DEVICES.certificate.subject, key.public_key(), 9, utc(NOW - 60), utc(until)
    )
    for kind, (extension, critical) in like.items():
        if kind not in without:
            builder = builder.add_extension(extension, critical=critical)
    return Authority(builder.sign(root.key, hashes.SHA384()), key)


def root_of(*extensions: tuple[x509.ExtensionType, bool], path_length: int | None = 1, ca: bool = True) -> Authority:
    """A root like ROOT, but for this."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = ROOT.certificate.subject
    builder = x509.CertificateBuilder(name, name, key.public_key(), 9, utc(NOW - 60), utc(NOW + 86_400))
    like: dict[type, tuple[x509.ExtensionType, bool]] = {
        x509.BasicConstraints: (x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), True),
        x509.KeyUsage: (key_usage(ca=True), True),
        x509.SubjectKeyIdentifier: (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    }
    for extension, critical in (like | {type(one): (one, critical) for one, critical in extensions}).values():
        builder = builder.add_extension(extension, critical=critical)
    return Authority(builder.sign(key, hashes.SHA384()), key)


def uri_constraint(*, permitted: str | None = None, excluded: str | None = None) -> tuple[x509.ExtensionType, bool]:
    return x509.NameConstraints([uri(permitted)] if permitted else None, [uri(excluded)] if excluded else None), True


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
NO_SIGN = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
PATHS = {
    "an unknown critical extension in the issuing CA": (ROOT, issuing((UNKNOWN, True))),
    "no CA": (ROOT, issuing((x509.BasicConstraints(ca=False, path_length=None), True))),
    "no basic constraints": (ROOT, issuing(without=(x509.BasicConstraints,))),
    "no keyCertSign": (ROOT, issuing((NO_SIGN, True))),
    "no key usage": (ROOT, issuing(without=(x509.KeyUsage,))),
    "an issuing CA that has expired": (ROOT, issuing(until=NOW - 1)),
    "URIs of another domain alone": (ROOT, issuing(uri_constraint(permitted="other.internal"))),
    "no URIs of this domain": (ROOT, issuing(uri_constraint(excluded="gateway.internal"))),
    "URIs that no verifier understands": (ROOT, issuing(uri_constraint(permitted="*.internal"))),
    "a policy that is asked for": (ROOT, issuing((x509.PolicyConstraints(0, None), True))),
    "a root without room below it": ((short := root_of(path_length=0)), issuing(root=short)),
    "a root that is no CA": ((leafy := root_of(ca=False)), issuing(root=leafy)),
    "a root with an unknown critical extension": ((odd := root_of((UNKNOWN, True))), issuing(root=odd)),
    "a root that signs nothing": ((idle := root_of((NO_SIGN, True))), issuing(root=idle)),
}


@pytest.mark.parametrize("name", PATHS)
def test_a_path_with_a_flaw_leads_nowhere(name: str) -> None:
    root, authority = PATHS[name]
    leaf = issue_device(authority, new_key().public_key(), UUID, TRUST_DOMAIN, now=NOW, life_s=3600)
    trust = DeviceTrust(pem_of(authority.certificate, root.certificate))
    assert reason_of(trust.verify(leaf, NOW)) == "certificate_malformed"


def test_a_path_without_a_flaw_leads_to_the_root() -> None:
    root = root_of()
    authority = issuing(root=root)
    leaf = issue_device(authority, new_key().public_key(), UUID, TRUST_DOMAIN, now=NOW, life_s=3600)
    found = DeviceTrust(pem_of(authority.certificate, root.certificate)).verify(leaf, NOW)
    assert isinstance(found, VerifiedPath)
    assert found.issuing == authority.certificate


def test_an_issuer_of_the_same_name_is_known_by_its_key() -> None:
    twin = make_issuing(ROOT, "devices", "device", NOW)
    trust = DeviceTrust(pem_of(DEVICES.certificate, twin.certificate, ROOT.certificate))
    for authority in (DEVICES, twin):
        leaf = issue_device(authority, new_key().public_key(), UUID, TRUST_DOMAIN, now=NOW, life_s=3600)
        found = trust.verify(leaf, NOW)
        assert isinstance(found, VerifiedPath)
        assert found.issuing == authority.certificate


def test_a_leaf_that_names_another_key_of_its_issuer_leads_nowhere() -> None:
    other = {x509.AuthorityKeyIdentifier: (x509.AuthorityKeyIdentifier(b"x" * 20, None, None), False)}
    assert reason_of(TRUST.verify(variant(replace=other), NOW)) == "certificate_malformed"


def test_unique_identifiers_are_seen_in_the_der() -> None:
    tbs = GOOD.tbs_certificate_bytes
    assert not has_unique_id(tbs)
    at = tbs.rindex(b"\xa3", 0, tbs.index(b"\x55\x1d"))
    for tag in (b"\x81", b"\x82"):
        body = tbs[4:at] + tag + b"\x02\x00\x01" + tbs[at:]
        assert has_unique_id(b"\x30\x82" + len(body).to_bytes(2) + body)
    with pytest.raises(ValueError, match="DER"):
        has_unique_id(tbs[:-1])
