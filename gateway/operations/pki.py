"""What an operator can do to the PKI: certificate authorities, server certificates, the CRL. No printing here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509

from gateway.config import Config
from gateway.identity.devices.ca_files import PkiFiles, found_pki, renew_server
from gateway.operations.devices import enrolment_of
from gateway.operations.errors import ActionFailed
from gateway.operations.opened_state import opened

CRL_LIFE_S = 86_400.0


def hosts_of(config: Config) -> list[str]:
    """Every host name a server certificate has to cover: the gateway's own, then the services'."""
    return list(dict.fromkeys([config.host, *(service.host for service in config.services.values())]))


def make_pki(folder: Path, hosts: Sequence[str], crl_life_s: float) -> PkiFiles:
    """Found a PKI in a folder that holds none."""
    try:
        return found_pki(folder, hosts, now=time.time(), crl_life_s=crl_life_s)
    except FileExistsError as error:
        raise ActionFailed(str(error), "Choose another folder; a PKI is never overwritten.") from error
    except (OSError, ValueError) as error:
        raise ActionFailed(f"The PKI cannot be made: {error}") from error


def new_server_certificate(folder: Path, hosts: Sequence[str]) -> PkiFiles:
    """A new server certificate and key beside the PKI in `folder`."""
    files = PkiFiles(folder)
    try:
        renew_server(files, hosts, now=time.time())
    except (OSError, ValueError) as error:
        raise ActionFailed(
            f"The server certificate cannot be made: {error}", "`gateway pki init` comes first."
        ) from error
    return files


async def renew_crl(config: Config) -> bool:
    """Make a new CRL if the present one is past half its life or unusable; whether one was made."""
    async with opened(config) as state:
        return await enrolment_of(config, state.store).refresh_crl()


def certificates(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What stands in certificate files, one entry for each certificate. `not_after` in seconds since the epoch."""
    entries = []
    for path in paths:
        try:
            chain = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ActionFailed(f"{path} cannot be read as certificates: {error}") from error
        entries += [
            {
                "file": str(path),
                "subject": certificate.subject.rfc4514_string(),
                "names": names_of(certificate),
                "serial": f"{certificate.serial_number:032x}",
                "not_after": certificate.not_valid_after_utc.timestamp(),
            }
            for certificate in chain
        ]
    return entries


def names_of(certificate: x509.Certificate) -> list[str]:
    """The DNS names, addresses and URIs of a certificate's subjectAltName."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]
