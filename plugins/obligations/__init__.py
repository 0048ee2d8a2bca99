"""Obligations enforce what policy demands beside its effect."""

from gateway.core.obligations import ObligationHandler
from plugins.obligations.mask_json import MaskJson
from plugins.obligations.max_body import MaxBody
from plugins.obligations.no_store import NoStore
from plugins.obligations.read_only import ReadOnly
from plugins.obligations.redact_text import RedactText
from plugins.obligations.request_headers import RequestHeaders
from plugins.obligations.require_json_body import RequireJsonBody
from plugins.obligations.response_headers import ResponseHeaders

# In the order in which they are enforced: what refuses, what asks upstream, what changes the answer.
ALL: tuple[type[ObligationHandler], ...] = (
    ReadOnly,
    MaxBody,
    RequireJsonBody,
    RequestHeaders,
    MaskJson,
    RedactText,
    ResponseHeaders,
    NoStore,
)


def builtin() -> tuple[ObligationHandler, ...]:
    """One of each."""
    return tuple(plugin() for plugin in ALL)
