"""Every reason code the gateway itself gives, as public facts.

A code is snake_case, belongs to a pass or a fail family, is documented in docs/reasons.md and never renamed. Policies
may answer with codes of their own (`is_code`); those are shown with a generic text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CODE = re.compile(r"[a-z][a-z0-9_]{1,63}\Z")


@dataclass(frozen=True, slots=True)
class Reason:
    """One fact about a request: its HTTP status when it refuses, and what to tell the person who meets it."""

    code: str
    status: int
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An expected "no". `detail` is for the operator's record only and never holds a secret or a query value."""

    reason: str
    detail: str = ""


def is_code(text: object) -> bool:
    """Whether `text` may stand as a reason code (lower snake_case, 2 to 64 characters)."""
    return isinstance(text, str) and _CODE.match(text) is not None


def _table(*rows: tuple[str, int, str, str]) -> dict[str, Reason]:
    return {code: Reason(code, status, what, fix) for code, status, what, fix in rows}


_ASK_OWNER = "Ask the owner of the service for access."
_OPERATOR = "Tell the operator of the gateway; the decision id below finds the record."
_RETRY = "Wait a moment and try again. If it goes on, tell the operator of the gateway."
_NEW_TOKEN = "Sign in again, or get a fresh access token from your identity provider."  # noqa: S105
_CLIENT = "Correct the client: the request breaks the HTTP standard or a limit of this gateway."
_AGAIN = "Open the page you wanted once more; the sign-in begins anew."
_FACTOR_AGAIN = "Confirm your second factor again."
_STOLEN = "Was it not you? Tell your security team at once. Then sign in again, on a device you trust."
_ENROL = "Use the device your company enrolled for you, or enrol this one with `gateway device enroll`."

REASONS: dict[str, Reason] = _table(
    # admit, guard, route
    ("malformed_request", 400, "The request is ambiguous or malformed.", _CLIENT),
    (
        "misdirected_request",
        421,
        "The host asked for is not the host of this TLS connection.",
        "Open a new connection.",
    ),
    ("headers_too_large", 431, "The request's header section is too large.", _CLIENT),
    ("body_too_large", 413, "The body is larger than this service accepts.", "Send less, or in parts."),
    (
        "body_type_unsupported",
        415,
        "The body has a type, or a compression, that cannot be checked as this service demands.",
        "Send it uncompressed, as the type that the service documents.",
    ),
    ("body_invalid", 400, "The body does not have the form that is demanded here.", "Correct the client."),
    ("request_timeout", 408, "The request did not arrive in time.", _RETRY),
    ("too_many_connections", 429, "This client has too many connections open.", "Close some, then try again."),
    ("too_many_attempts", 429, "Too many attempts came from this address.", _RETRY),
    ("node_quarantined", 503, "This gateway node has been taken out of service.", _RETRY),
    ("route_not_found", 404, "No service is published at this address.", "Check the address."),
    ("method_not_allowed", 405, "The service does not take this method here.", "Check the method."),
    # device
    ("device_ok", 200, "The device is enrolled and in good standing.", ""),
    ("device_required", 403, "This service is open to enrolled devices only.", _ENROL),
    ("device_unknown", 403, "The certificate names a device that is not enrolled here.", _ENROL),
    ("device_revoked", 403, "The device's enrolment has been revoked.", _ENROL),
    ("device_expired", 403, "The device's certificate has expired.", "Renew it with `gateway device renew`."),
    ("certificate_revoked", 403, "The device's certificate has been revoked.", _ENROL),
    ("certificate_malformed", 403, "The device certificate does not have the agreed profile.", _ENROL),
    ("crl_stale", 403, "The list of revoked certificates is missing, unverified or out of date.", _OPERATOR),
    (
        "enrolment_invalid",
        403,
        "The enrolment token is unknown, used or expired.",
        "Ask the operator of the gateway for a new one.",
    ),
    ("csr_malformed", 400, "The certificate request cannot be used.", "Send a PKCS#10 request with a key of its own."),
    ("key_reused", 400, "This key has had a certificate before.", "Make a new key for every certificate."),
    # identity
    ("token_ok", 200, "The access token is valid.", ""),
    ("login_required", 401, "You are not signed in.", "Sign in, or send an access token."),
    ("token_malformed", 401, "The credential cannot be read.", _NEW_TOKEN),
    ("token_ambiguous", 400, "More than one credential was sent.", "Send exactly one."),
    ("token_expired", 401, "The access token has expired.", _NEW_TOKEN),
    (
        "token_not_yet_valid",
        401,
        "The access token is not valid yet.",
        "Check the clock of the issuer and of this host.",
    ),
    ("token_signature_invalid", 401, "The access token's signature does not verify.", _NEW_TOKEN),
    ("token_algorithm_refused", 401, "The access token is signed in a way this issuer may not use.", _NEW_TOKEN),
    ("token_issuer_unknown", 401, "The access token comes from an issuer this gateway does not trust.", _NEW_TOKEN),
    ("token_audience_wrong", 401, "The access token was made for another service.", _NEW_TOKEN),
    ("token_client_wrong", 401, "The access token was given to a client that may not be used here.", _NEW_TOKEN),
    ("token_kind_wrong", 401, "The credential is not an access token.", "Send the access token, not the id token."),
    ("token_key_unknown", 401, "The access token is signed with a key its issuer does not publish.", _NEW_TOKEN),
    ("token_replayed", 401, "This was used before.", "Send a new one."),
    ("token_inactive", 401, "The issuer says that this token is no longer active.", _NEW_TOKEN),
    ("issuer_unavailable", 503, "The identity provider cannot be asked right now.", _RETRY),
    ("binding_mismatch", 401, "The credential belongs to another device or key.", "Use it where it was made."),
    (
        "binding_unproven",
        401,
        "Your browser did not prove the key that your session is bound to.",
        "Reload the page. If that does not help, sign in again.",
    ),
    ("key_proof_invalid", 400, "The proof of the browser's key cannot be used.", "Sign in again."),
    (
        "dpop_proof_invalid",
        401,
        "The DPoP proof does not fit this request.",
        "Make a new proof for every request, with the token's own key and this very address.",
    ),
    (
        "dpop_nonce_required",
        401,
        "The DPoP proof needs a nonce that this gateway gave out lately.",
        "Repeat the request with a new proof that holds the nonce in the DPoP-Nonce header.",
    ),
    ("session_revoked", 401, "The session has been ended.", "Sign in again."),
    ("session_expired", 401, "Your session is over: it was idle, or open, for too long.", "Sign in again."),
    (
        "cookie_ambiguous",
        400,
        "Your browser sent several cookies of this gateway under one name.",
        "Remove this site's cookies in your browser, then try again.",
    ),
    # signing in
    ("login_ok", 200, "The person signed in.", ""),
    ("login_expired", 400, "This sign-in is not known here, was used before, or took too long.", _AGAIN),
    ("login_other_browser", 400, "This sign-in was begun in another browser.", _AGAIN),
    ("login_failed", 400, "The sign-in could not be completed.", _AGAIN),
    ("login_denied", 403, "The identity provider did not let you sign in.", _ASK_OWNER),
    ("auth_stale", 403, "The identity provider signed you in too long ago.", "Sign out there, then sign in again."),
    ("amr_missing", 403, "The identity provider does not say how you signed in.", _OPERATOR),
    (
        "csrf_refused",
        403,
        "This was not sent from the gateway's own page.",
        "Open the page again and use its buttons.",
    ),
    # second factors
    ("factor_ok", 200, "The second factor was proven.", ""),
    ("factor_invalid", 403, "The second factor was not accepted.", "Try again with the present code or key."),
    ("factor_replayed", 403, "This code or key answer was used before.", "Wait for the next code, then try again."),
    ("factor_locked", 429, "There were too many attempts in a short time.", "Wait a few minutes, then try again."),
    ("factor_unknown", 403, "You have no second factor of this kind.", "Set one up, or choose another."),
    (
        "factor_expired",
        403,
        "This question was answered before, or too long ago.",
        "Ask for a new one and answer that.",
    ),
    (
        "factor_proof_missing",
        403,
        "Changing your second factors needs a fresh proof of one you have.",
        "Confirm one of your second factors first.",
    ),
    (
        "factor_insufficient",
        403,
        "This second factor is not strong enough for what you want to open.",
        "Choose another one.",
    ),
    (
        "factor_closed",
        403,
        "You cannot set up your first second factor here.",
        "Set one up at your identity provider, then sign in with it.",
    ),
    ("step_up_ok", 200, "The second factor was proven for this.", ""),
    ("factor_limit", 403, "You have as many second factors as one person may have.", "Remove one that you do not use."),
    # assess, decide, settle
    ("risk_unavailable", 403, "The risk of this request could not be judged.", _RETRY),
    ("policy_undefined", 403, "The policy gave no answer.", _OPERATOR),
    ("policy_malformed", 403, "The policy's answer does not fit the contract.", _OPERATOR),
    ("policy_timeout", 403, "The policy did not answer in time.", _RETRY),
    ("policy_error", 403, "The policy failed while it was evaluated.", _OPERATOR),
    ("policy_unavailable", 503, "The policy engine cannot be reached.", _RETRY),
    ("obligation_unsupported", 403, "The policy asks for something this gateway cannot enforce here.", _OPERATOR),
    (
        "obligations_changed",
        403,
        "Policy demands something of this answer that was not demanded when it began.",
        "Send the request again.",
    ),
    ("obligation_failed", 500, "Something the policy asked for could not be done.", _OPERATOR),
    # forward, record
    ("upstream_unreachable", 502, "The service behind the gateway cannot be reached.", _RETRY),
    ("upstream_timeout", 504, "The service behind the gateway did not answer in time.", _RETRY),
    ("upstream_broken", 502, "The service behind the gateway broke off its answer.", _RETRY),
    ("record_unavailable", 503, "The decision could not be recorded, so nothing was done.", _RETRY),
    ("store_down", 503, "The gateway's own state cannot be read.", _RETRY),
    ("overloaded", 503, "The gateway holds too many bodies at the moment.", _RETRY),
    ("draining", 503, "This gateway worker is shutting down.", "Try again at once."),
    ("gateway_error", 500, "The gateway failed; nothing was forwarded.", _OPERATOR),
    # the starter policies
    ("default_deny", 403, "No rule allows this.", _ASK_OWNER),
    ("policy_ok", 200, "Every rule of the policy is met.", ""),
    ("role_missing", 403, "None of your roles opens this service.", _ASK_OWNER),
    ("department_mismatch", 403, "This service belongs to another department.", _ASK_OWNER),
    ("country_blocked", 403, "Access from this country is not allowed.", "Connect from a country your policy allows."),
    ("plane_mismatch", 403, "Accounts of this kind may not use this service.", _ASK_OWNER),
    ("mfa_required", 401, "This needs a second factor.", "Sign in with a second factor, then try again."),
    ("mfa_stale", 401, "Your second factor was too long ago.", "Confirm your second factor again."),
    ("risk_high", 401, "This request looks unusual for you.", "Confirm your second factor again."),
    ("risk_medium", 401, "This request looks a little unusual, and this service is sensitive.", _FACTOR_AGAIN),
    ("account_doubtful", 401, "Too much about this session is unusual for you.", "Sign in again, with every factor."),
    ("session_stolen", 403, "This session is used by somebody else as well, so it has been ended.", _STOLEN),
    ("account_attacked", 403, "Somebody is using your account, so all of its sessions have been ended.", _STOLEN),
    ("account_locked", 403, "Your account has been locked: somebody else is using it.", _STOLEN),
    ("read_only", 403, "You may look at this, not change it.", _ASK_OWNER),
)


def reason(code: str) -> Reason:
    """The entry of `code`; a policy author's own code gets a generic one with status 403."""
    known = REASONS.get(code)
    return known if known is not None else Reason(code, 403, "A rule of this company does not allow this.", _ASK_OWNER)
