"""What the development provider issues: keys, sessions and tokens in the shapes of Zitadel. In memory only."""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.dev.people import APP_CLIENT, ORG_DOMAIN, OTHER_PROJECT, PEOPLE, PROJECT, SECOND_CLIENT, Person

SCOPE = "openid profile email urn:zitadel:iam:org:projects:roles urn:zitadel:iam:user:metadata"
LIFE_S = 43_200
_ROLES = "urn:zitadel:iam:org:project:{}:roles"


def _b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def snowflake() -> str:
    """An id of eighteen digits."""
    return str(10**17 + secrets.randbelow(9 * 10**17))


class Key:
    """An RSA key with its kid."""

    def __init__(self, bits: int = 2048) -> None:
        self.kid = snowflake()
        self.private = rsa.generate_private_key(public_exponent=65_537, key_size=bits)

    def jwk(self) -> dict[str, Any]:
        """The public half as it is published."""
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {"use": "sig", "kty": "RSA", "kid": self.kid, "alg": "RS256", "n": public["n"], "e": public["e"]}

    def pem(self) -> str:
        """The private half, PKCS #1."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()

    def sign(self, claims: Mapping[str, Any], headers: Mapping[str, Any] | None = None) -> str:
        """A JWT. Zitadel: typ is "JWT" for id tokens, access tokens and logout tokens alike."""
        return jwt.encode(
            dict(claims), self.private, algorithm="RS256", headers={"kid": self.kid, "typ": "JWT", **(headers or {})}
        )


@dataclass(slots=True)
class LoginSession:
    """A person's login; its end makes every token of it inactive."""

    person: Person
    id: str
    sid: str
    auth_time: int
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Issued:
    """A token as the provider remembers it."""

    session: LoginSession
    claims: Mapping[str, Any]


class TokenOffice:
    """Issues tokens for `people` in the name of `issuer`; `clock` answers seconds since the epoch."""

    def __init__(self, issuer: str, clock: Callable[[], float]) -> None:
        self.issuer = issuer
        self.people = {person.user: person for person in PEOPLE}
        # Zitadel: a new instance has two RSA keys, one of them active; both are published.
        self.keys = [Key(), Key()]
        self._clock = clock
        self._sessions: dict[str, LoginSession] = {}
        self._issued: dict[str, Issued] = {}

    # ---- issuing ----

    def access_token(
        self, user: str, *, headers: Mapping[str, Any] | None = None, key: Key | None = None, **overrides: Any
    ) -> str:
        """A JWT access token. `overrides` replace claims; None removes one.

        Zitadel: aud lists every client of the project and the project; there is no scope, sid, amr or acr.
        """
        claims = self._claims(user)
        claims.update(overrides)
        claims = {name: value for name, value in claims.items() if value is not None}
        if isinstance(claims.get("jti"), str):
            self._issued[claims["jti"]] = Issued(self.session(user), claims)
        return (key or self.keys[0]).sign(claims, headers)

    def opaque_token(self, user: str, **overrides: Any) -> str:
        """An access token that only this provider can read."""
        token = secrets.token_urlsafe(48)
        claims = {name: value for name, value in (self._claims(user) | overrides).items() if value is not None}
        self._issued[token] = Issued(self.session(user), claims)
        return token

    def id_token(self, user: str) -> str:
        """An id token."""
        session, now = self.session(user), int(self._clock())
        return self.keys[0].sign(
            {
                "iss": self.issuer,
                "sub": session.person.subject,
                "aud": [APP_CLIENT, SECOND_CLIENT, PROJECT],
                "exp": now + LIFE_S,
                "iat": now,
                "auth_time": session.auth_time,
                "nonce": secrets.token_urlsafe(16),
                "amr": list(session.person.amr),
                "azp": APP_CLIENT,
                "client_id": APP_CLIENT,
                "at_hash": secrets.token_urlsafe(16),
                "sid": session.sid,
            }
        )

    def logout_token(self, user: str) -> str:
        """A back-channel logout token."""
        session, now = self.session(user), int(self._clock())
        events: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}
        return self.keys[0].sign(
            {
                "iss": self.issuer,
                "sub": session.person.subject,
                "aud": [APP_CLIENT, PROJECT],
                "exp": now + 900,
                "iat": now,
                "jti": snowflake(),
                "sid": session.sid,
                "events": events,
            }
        )

    def expired_token(self, user: str) -> str:
        """A JWT access token whose time is over."""
        now = int(self._clock())
        return self.access_token(user, exp=now - 3_600, iat=now - 7_200, nbf=now - 7_200)

    def unsigned_token(self, user: str) -> str:
        """A JWT with alg none."""
        head = {"alg": "none", "typ": "JWT"}
        return ".".join((*(_b64(json.dumps(part).encode()) for part in (head, self._claims(user))), ""))

    def foreign_token(self, user: str) -> str:
        """A JWT of an issuer that nobody knows, well signed by its key."""
        return Key().sign(self._claims(user) | {"iss": "https://elsewhere.invalid"})

    # ---- what happens to sessions and keys ----

    def session(self, user: str) -> LoginSession:
        """The person's running session, a new one if need be. Raises KeyError for somebody unknown."""
        session = self._sessions.get(user)
        if session is None or session.ended:
            session = LoginSession(self.people[user], f"V2_{snowflake()}", snowflake(), int(self._clock()))
            self._sessions[user] = session
        return session

    def end_session(self, user: str) -> None:
        """Zitadel: the session's tokens become inactive at once; its JWTs still verify."""
        if user in self._sessions:
            self._sessions[user].ended = True

    def rotate_keys(self) -> None:
        """Zitadel: the next key becomes active; the old one is inactive, and published until it is deleted."""
        self.keys = [self.keys[1], Key(), *self.keys[:1], *self.keys[2:]]

    def delete_old_keys(self) -> None:
        """Zitadel: what a deleted key signed is no longer valid."""
        del self.keys[2:]

    # ---- reading ----

    def introspect(self, token: str, client: str) -> dict[str, Any]:
        """What an introspecting client is told."""
        inactive = {"active": False}
        issued = self._issued.get(token)
        if issued is None and token.count(".") == 2:  # noqa: PLR2004  (a JWT has two dots)
            issued = self._issued.get(str(self._own_claims(token).get("jti")))
        if issued is None or issued.session.ended or issued.claims.get("exp", 0) <= self._clock():
            return inactive
        # Zitadel: a token is inactive for a client whose own id and project are not in aud.
        if not {client, PROJECT} & set(issued.claims.get("aud", ())):
            return inactive
        person = issued.session.person
        answer = {
            "active": True,
            "scope": SCOPE,
            "token_type": "Bearer",
            "username": person.user,
            "name": person.name,
            "preferred_username": person.user,
            "email": person.email,
            "email_verified": True,
            **issued.claims,
        }
        if person.amr:
            # Zitadel: a login through an external provider, or a machine, has neither.
            answer |= {"auth_time": issued.session.auth_time, "amr": list(person.amr)}
        # Zitadel: only the roles of the introspecting client's own project are told.
        answer.pop(_ROLES.format(OTHER_PROJECT), None)
        return answer

    def _own_claims(self, token: str) -> Mapping[str, Any]:
        options: Any = {"verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False}
        for key in self.keys:
            try:
                found: dict[str, Any] = jwt.decode(token, key.private.public_key(), ["RS256"], options=options)
            except jwt.PyJWTError:
                continue
            return found
        return {}

    def _claims(self, user: str) -> dict[str, Any]:
        session, now = self.session(user), int(self._clock())
        person = session.person
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": person.subject,
            "aud": [APP_CLIENT, SECOND_CLIENT, PROJECT],
            "exp": now + LIFE_S,
            "iat": now,
            "nbf": now,
            "client_id": APP_CLIENT,
            "jti": f"{session.id}-at_{snowflake()}",
            "urn:zitadel:iam:user:resourceowner:id": person.org,
            "urn:zitadel:iam:user:resourceowner:name": "Acme",
            "urn:zitadel:iam:user:resourceowner:primary_domain": ORG_DOMAIN,
        }
        if person.department:
            claims["urn:zitadel:iam:user:metadata"] = {"department": _b64(person.department.encode())}
        if person.roles:
            granted = {role: dict.fromkeys(orgs, ORG_DOMAIN) for role, orgs in person.roles.items()}
            claims["urn:zitadel:iam:org:project:roles"] = granted
            claims[_ROLES.format(PROJECT)] = granted
        if person.other_roles:
            others = {role: dict.fromkeys(orgs, ORG_DOMAIN) for role, orgs in person.other_roles.items()}
            claims[_ROLES.format(OTHER_PROJECT)] = others
        return claims
