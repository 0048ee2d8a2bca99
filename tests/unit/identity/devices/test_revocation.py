"""Certificate revocation lists: each good for its issuer, and none that says less than it seems to."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from gateway.core.reasons import Refusal
from gateway.identity.devices.ca import (
    Authority,
    issue_crl,
    issue_device,
    key_usage,
    make_issuing,
    make_root,
    pem_of,
    utc,
)
from gateway.identity.devices.certificates import DeviceTrust
from gateway.identity.devices.revocation import Crl, issuer_id, read_crls
from tests.support.pki_world import PEM, TRUST_DOMAIN, UUID, Clock, load_crl, new_key, reason_of

NOW = Clock()()
ROOT = make_root("root", NOW)
DEVICES = make_issuing(ROOT, "devices", "device", NOW)
SERVERS = make_issuing(ROOT, "servers", "server", NOW)
TRUST = DeviceTrust(pem_of(DEVICES.certificate, ROOT.certificate))
GOOD = issue_device(DEVICES, new_key().public_key(), UUID, TRUST_DOMAIN, now=NOW, life_s=86_400)


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


# ---- two issuers ----

NEXT = make_issuing(ROOT, "the next", "device", NOW)
TWIN = make_issuing(ROOT, "devices", "device", NOW)  # the same name, another key


def listed(authority: Authority, *serials: str, number: int = 7) -> bytes:
    return issue_crl(authority, [(serial, NOW) for serial in serials], number=number, now=NOW, life_s=60)


@pytest.mark.parametrize("other", [NEXT, TWIN], ids=["another name", "the same name"])
def test_a_list_counts_for_its_issuer_alone(other: Authority) -> None:
    issuing = [DEVICES.certificate, other.certificate]
    lists = read_crls(listed(DEVICES, "0a" * 16), issuing)
    assert list(lists) == [issuer_id(DEVICES.certificate)]
    both = read_crls(listed(DEVICES, "0a" * 16) + b"\n# the other\n" + listed(other, "0b" * 16), issuing)
    assert not isinstance(both, Refusal)
    assert both[issuer_id(DEVICES.certificate)].serials == {"0a" * 16}
    assert both[issuer_id(other.certificate)].serials == {"0b" * 16}


def test_of_several_lists_of_one_issuer_the_newest_counts_wherever_it_stands() -> None:
    old, new = listed(DEVICES, number=7), listed(DEVICES, "0a" * 16, number=8)
    for file in (old + new, new + old):
        lists = read_crls(file, TRUST.issuing)
        assert not isinstance(lists, Refusal)
        assert [crl.number for crl in lists.values()] == [8]


def test_a_list_of_a_stranger_is_passed_over_and_one_in_our_name_is_not() -> None:
    lists = read_crls(listed(SERVERS) + listed(DEVICES), TRUST.issuing)
    assert list(lists) == [issuer_id(DEVICES.certificate)]
    assert reason_of(read_crls(listed(DEVICES) + listed(TWIN), TRUST.issuing)) == "crl_stale"


def test_a_file_with_a_list_that_is_cut_off_is_refused() -> None:
    assert reason_of(read_crls(listed(DEVICES) + listed(DEVICES, number=8)[:-40], TRUST.issuing)) == "crl_stale"


# ---- who may sign, and what a list may say ----


def authority(usage: x509.KeyUsage | None, *, ca: bool = True) -> Authority:
    """An issuing CA with this key usage."""
    key = new_key()
    builder = x509.CertificateBuilder(
        ROOT.certificate.subject,
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "devices")]),
        key.public_key(),
        7,
        utc(NOW - 60),
        utc(NOW + 3600),
    ).add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
    if usage is not None:
        builder = builder.add_extension(usage, critical=True)
    return Authority(builder.sign(ROOT.key, hashes.SHA256()), key)


def usage_of(*, crl_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def signed(
    by: Authority,
    *extensions: tuple[x509.ExtensionType, bool],
    entry: tuple[tuple[x509.ExtensionType, bool], ...] | None = None,
) -> bytes:
    builder = x509.CertificateRevocationListBuilder(by.certificate.subject, utc(NOW), utc(NOW + 60))
    for extension, critical in ((x509.CRLNumber(7), False), *extensions):
        builder = builder.add_extension(extension, critical=critical)
    if entry is not None:
        revoked = x509.RevokedCertificateBuilder(10, utc(NOW))
        for extension, critical in entry:
            revoked = revoked.add_extension(extension, critical=critical)
        builder = builder.add_revoked_certificate(revoked.build())
    return builder.sign(by.key, hashes.SHA256()).public_bytes(PEM)


@pytest.mark.parametrize(
    "issuer",
    [authority(usage_of(crl_sign=False)), authority(None), authority(key_usage(ca=True), ca=False)],
    ids=["no cRLSign", "no key usage", "no CA"],
)
def test_whoever_may_not_sign_lists_signs_none(issuer: Authority) -> None:
    assert reason_of(read_crls(signed(issuer), [issuer.certificate])) == "crl_stale"


def test_a_ca_that_may_sign_lists_signs_them() -> None:
    issuer = authority(usage_of(crl_sign=True))
    assert list(read_crls(signed(issuer), [issuer.certificate])) == [issuer_id(issuer.certificate)]


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
ELSEWHERE = x509.CertificateIssuer([x509.DirectoryName(ROOT.certificate.subject)])


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize(
    "extension",
    [UNKNOWN, x509.DeltaCRLIndicator(6), x509.AuthorityKeyIdentifier(b"x" * 20, None, None)],
    ids=["unknown", "a delta", "another key"],
)
def test_a_list_that_means_something_else_is_refused(extension: x509.ExtensionType, critical: bool) -> None:
    assert reason_of(read_crls(signed(DEVICES, (extension, critical)), TRUST.issuing)) == "crl_stale"


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize(
    "extension",
    [UNKNOWN, ELSEWHERE, x509.CRLReason(x509.ReasonFlags.remove_from_crl)],
    ids=["unknown", "another issuer", "taken off"],
)
def test_an_entry_that_means_something_else_is_refused(extension: x509.ExtensionType, critical: bool) -> None:
    assert reason_of(read_crls(signed(DEVICES, entry=((extension, critical),)), TRUST.issuing)) == "crl_stale"


def test_an_entry_may_say_why_and_since_when() -> None:
    since = x509.InvalidityDate(dt.datetime.fromtimestamp(NOW, dt.UTC).replace(tzinfo=None))
    entry = ((x509.CRLReason(x509.ReasonFlags.certificate_hold), True), (since, False))
    lists = read_crls(signed(DEVICES, entry=entry), TRUST.issuing)
    assert not isinstance(lists, Refusal)
    assert lists[issuer_id(DEVICES.certificate)].serials == {f"{10:032x}"}
