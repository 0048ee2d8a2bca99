"""Section `policy`: where decisions come from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from gateway.config.models.values import Model, Secret


class Policy(Model):
    """Where decisions come from."""

    engine: Literal["embedded", "opa"] = Field("embedded", description="OPA in process, or an OPA server.")
    path: Path = Field(Path("policies"), description="The folder with the Rego files and data/.")
    deadline_ms: int = Field(500, ge=1, le=10_000, description="No answer by then is a denial.")
    url: str | None = Field(None, description="The OPA server, for engine: opa.")
    push: bool = Field(True, description="Push this folder to the OPA server; false when it serves its own bundle.")
    token: Secret | None = Field(None, description="Bearer token for the OPA server.")
    ca: Path | None = Field(None, description="PEM: the CA of the OPA server's certificate.")
