"""Pages (being drawn)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.core.request import RequestFacts
from gateway.replies import Reply


class Pages:
    """Pages."""

    def __init__(self, *, issuers: Sequence[str] = (), contact: str = "") -> None:
        self.issuers, self.contact = issuers, contact

    def __call__(
        self, name: str, facts: RequestFacts, model: Mapping[str, Any], *, status: int = 200, code: str = "local"
    ) -> Reply:
        """A page."""
        body = json.dumps([name, dict(model)]).encode()
        return Reply(status, (("content-type", "application/json"), ("x-gateway-reason", code)), body, code)
