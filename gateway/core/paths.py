"""Own URLs of the gateway: every path that it serves itself stands here, and nowhere else.

A name that ends in a slash is a prefix: one more segment follows, which is a slug (of an issuer, of an SSF peer).
"""

from __future__ import annotations

OWN = "/.gateway/"

# Keys and certificates.
JWKS = OWN + "jwks.json"
CRL = OWN + "crl"
DEVICE_CA = OWN + "ca.pem"
ENROL = OWN + "enrol"
RENEW = OWN + "renew"
POSTURE = OWN + "posture"

HEALTH = OWN + "health"

# Login, session, account.
LOGIN = OWN + "login"
CALLBACK = OWN + "callback/"
SESSION = OWN + "session"
ME = OWN + "me"
LOGOUT = OWN + "logout"
STEP_UP = OWN + "step-up"
FACTORS = OWN + "factors"
FACTORS_SCRIPT = OWN + "factors.js"

# Device bound session credentials (W3C draft).
DBSC = OWN + "dbsc/"
DBSC_REGISTER = DBSC + "register"
DBSC_REFRESH = DBSC + "refresh"

# Back channels: OpenID Connect back-channel logout, Zitadel webhooks, shared signals (RFC 8935, RFC 8936).
BACKCHANNEL_LOGOUT = OWN + "backchannel/"
ZITADEL_WEBHOOK = OWN + "hooks/zitadel/"
SSF_PUSH = OWN + "ssf/push/"
SSF_POLL = OWN + "ssf/poll/"

# Well-known URIs (RFC 8615): RFC 9728, and OpenID Shared Signals Framework 1.0 section 7.2.1.
PROTECTED_RESOURCE = "/.well-known/oauth-protected-resource"
SSF_CONFIGURATION = "/.well-known/ssf-configuration"

# On every host these belong to the gateway, whatever service stands behind it.
RESERVED = (OWN, PROTECTED_RESOURCE)
