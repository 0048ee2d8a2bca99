"""Section `devices`: the device PKI."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from gateway.config.models.values import Host, Model, Seconds


class Devices(Model):
    """The internal PKI that knows the company's devices."""

    trust_domain: Host = Field("gateway.internal", description="The SPIFFE trust domain of device certificates.")
    ca: Path | None = Field(None, description="PEM: the device root and issuing CA.")
    issuing_key: Path | None = Field(None, description="PEM: the issuing CA's key; without it nobody can enrol here.")
    crl: Path | None = Field(None, description="The CRL file; by default crl.pem beside the CA.")
    crl_max_age_s: Seconds = Field(86_400, description="A CRL older than this is stale, and every device is refused.")
    certificate_life_s: Seconds = Field(86_400, description="How long a device certificate lives.")
    enrolment_life_s: Seconds = Field(600, description="How long a one-time enrolment token lives.")

    @property
    def crl_file(self) -> Path | None:
        """Where the CRL is; None without a device PKI."""
        return self.crl or (self.ca.with_name("crl.pem") if self.ca else None)
