"""The kinds of value that a key of the configuration may have."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Seconds = Annotated[float, Field(gt=0, le=86_400 * 366)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Host = Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
HostPort = Annotated[str, Field(pattern=r"^([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}$")]
Method = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9-]{0,63}$")]
ADDRESS = r"^https?://[^\s/?#]+$"
Address = Annotated[str, Field(pattern=ADDRESS)]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]


class Model(BaseModel):
    """Strict and frozen: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Secret(Model):
    """Where a secret is found; exactly one of `file` and `env`."""

    file: Path | None = Field(None, description="A file that holds the secret; it must not be readable by others.")
    env: str | None = Field(None, description="The name of an environment variable that holds the secret.")
