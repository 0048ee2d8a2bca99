"""The request of an own endpoint, with the replies to it that are alike everywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from gateway.core.navigation import Redirect
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.subject import Device
from gateway.replies.rendering import NO_BRANDING, Branding
from gateway.replies.replies import Reply, deny, redirect

FORM = "application/x-www-form-urlencoded"
_FIELDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRequest:
    """A whole request for the gateway itself.

    `device` is the peer's: verified and in good standing. `slug` is the last part of a path whose endpoint takes one.
    """

    facts: RequestFacts
    device: Device | None
    body: bytes
    decision_id: str
    branding: Branding = NO_BRANDING
    slug: str = ""

    @property
    def host(self) -> str:
        """The host that was asked, with its port where the client named one."""
        return self.facts.authority or self.facts.host

    @property
    def media_type(self) -> str:
        """The media type of the body, lower case and without parameters."""
        return (self.facts.header("content-type") or "").partition(";")[0].strip().lower()

    def refuse(self, refusal: Refusal) -> Reply:
        """A denial: a page for a person, a problem document for a program."""
        return deny(self.facts, (refusal.reason,), self.decision_id, branding=self.branding)

    def problem(self, code: str) -> Reply:
        """A denial for a program (RFC 9457), whoever asks."""
        return deny(None, (code,), self.decision_id)

    def go(self, target: Redirect, code: str = "local") -> Reply:
        """A redirect (302)."""
        return redirect(target.location, code, self.decision_id, target.cookies)

    def form(self) -> dict[str, str] | Refusal:
        """The fields of a form, each once (application/x-www-form-urlencoded). Refusal `malformed_request`."""
        if self.media_type != FORM:
            return Refusal("malformed_request", "content type")
        try:
            pairs = parse_qsl(
                self.body.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=True,
                errors="strict",
                max_num_fields=_FIELDS,
            )
        except ValueError:
            return Refusal("malformed_request", "form")
        fields = dict(pairs)
        return fields if len(fields) == len(pairs) else Refusal("malformed_request", "a field that stands twice")

    def json_strings(self, limits: Mapping[str, int]) -> dict[str, str] | Refusal:
        """The members of a JSON object: exactly these, each a string of 1 to so many characters."""
        if self.media_type != "application/json":
            return Refusal("malformed_request", "content type")
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return Refusal("malformed_request", "not JSON")
        if not isinstance(document, dict) or document.keys() != limits.keys():
            return Refusal("malformed_request", "members")
        if not all(isinstance(document[name], str) and 0 < len(document[name]) <= limits[name] for name in limits):
            return Refusal("malformed_request", "values")
        return document
