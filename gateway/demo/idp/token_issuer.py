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

from gateway.demo.idp.accounts import APP_CLIENT, ORG_DOMAIN, OTHER_PROJECT, PEOPLE, PROJECT, SECOND_CLIENT, Person

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
        """A JWT. Zitadel C2: typ is "JWT" for id tokens, access tokens and logout tokens alike."""
        return jwt.encode(
            dict(claims), self.private, algorithm="RS256", headers={"kid": self.kid, "typ": "JWT", **(headers or {})}
        )


@dataclass(slots=True)
class LoginSession:
    """A person's login at a client; its end makes every token of it inactive. `auth_time` None: nobody knows."""

    person: Person
    id: str
    sid: str
    auth_time: int | None
    amr: tuple[str, ...] = ()
    client: str = APP_CLIENT
    scope: str = SCOPE
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Issued:
    """A token as the provider remembers it."""

    session: LoginSession
    claims: Mapping[str, Any]


class TokenIssuer:
    """Issues tokens for `people` in the name of `issuer`; `clock` answers seconds since the epoch."""

    def __init__(self, issuer: str, clock: Callable[[], float]) -> None:
        self.issuer = issuer
        self.people = {person.user: person for person in PEOPLE}
        # Zitadel C13: a new instance has two RSA keys, one of them active; both are published.
        self.keys = [Key(), Key()]
        self._clock = clock
        self._sessions: dict[str, LoginSession] = {}
        self._issued: dict[str, Issued] = {}
        # Zitadel C3: tokens carry every client of the project.
        self.clients = {APP_CLIENT: PROJECT, SECOND_CLIENT: PROJECT}
        # Zitadel C9: introspection is inactive for somebody locked, deactivated or removed; a JWT still verifies.
        self.barred: set[str] = set()

    # ---- issuing ----

    def access_token(
        self, user: str, *, headers: Mapping[str, Any] | None = None, key: Key | None = None, **overrides: Any
    ) -> str:
        """A JWT access token. `overrides` replace claims; None removes one.

        Zitadel C4: aud lists every client of the project and the project; there is no scope, sid, amr or acr.
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

    def issue(self, session: LoginSession, *, opaque: bool, life_s: float) -> tuple[str, str]:
        """An access token of this session and the name that `withdraw` knows it by."""
        claims = self._claims_of(session)
        claims["exp"] = claims["iat"] + int(life_s)
        token = secrets.token_urlsafe(48) if opaque else self.keys[0].sign(claims)
        name = token if opaque else str(claims["jti"])
        self._issued[name] = Issued(session, claims)
        return token, name

    def withdraw(self, name: str) -> None:
        """One access token is no longer active."""
        self._issued.pop(name, None)

    def issued(self, token: str) -> tuple[str, Issued] | None:
        """What this access token is, and the name it is known by; None unless it is active."""
        name = token if token in self._issued else str(self.own(token).get("jti"))
        issued = self._issued.get(name)
        if issued is None or issued.session.ended or issued.session.person.subject in self.barred:
            return None
        return (name, issued) if issued.claims.get("exp", 0) > self._clock() else None

    def audience(self, client: str) -> list[str]:
        """Zitadel C3: aud is an array of every client id of the project, and the project id."""
        project = self.clients.get(client, PROJECT)
        others = [name for name, owner in self.clients.items() if owner == project and name != client]
        return [client, *others, project]

    def id_token(self, user: str) -> str:
        """An id token."""
        session, now = self.session(user), int(self._clock())
        return self.keys[0].sign(
            {
                "iss": self.issuer,
                "sub": session.person.subject,
                "aud": self.audience(session.client),
                "exp": now + LIFE_S,
                "iat": now,
                "auth_time": session.auth_time,
                "nonce": secrets.token_urlsafe(16),
                "amr": list(session.amr),
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
            person, now = self.people[user], int(self._clock())
            session = LoginSession(person, f"V2_{snowflake()}", snowflake(), now if person.amr else None, person.amr)
            self._sessions[user] = session
        return session

    def end_session(self, user: str) -> None:
        """Zitadel C11: the session's tokens become inactive at once; its JWTs still verify."""
        if user in self._sessions:
            self._sessions[user].ended = True

    def rotate_keys(self) -> None:
        """Zitadel C13: the next key becomes active; the old one is inactive, and published until it is deleted."""
        self.keys = [self.keys[1], Key(), *self.keys[:1], *self.keys[2:]]

    def delete_old_keys(self) -> None:
        """Zitadel C13: what a deleted key signed is no longer valid."""
        del self.keys[2:]

    # ---- reading ----

    def introspect(self, token: str, client: str) -> dict[str, Any]:
        """What an introspecting client is told."""
        inactive = {"active": False}
        known = self.issued(token)
        if known is None:
            return inactive
        issued = known[1]
        # Zitadel C7: a token is inactive for a client whose own id and project are not in aud.
        if not {client, self.clients.get(client, PROJECT)} & set(issued.claims.get("aud", ())):
            return inactive
        person = issued.session.person
        answer = {
            "active": True,
            "scope": issued.session.scope,
            "token_type": "Bearer",
            "username": person.user,
            "name": person.name,
            "preferred_username": person.user,
            "email": person.email,
            "email_verified": True,
            **issued.claims,
        }
        # Zitadel C16: a login through an external provider, or a machine, has neither.
        if issued.session.amr:
            answer["amr"] = list(issued.session.amr)
        if issued.session.auth_time is not None:
            answer["auth_time"] = issued.session.auth_time
        # Zitadel C7: only the roles of the introspecting client's own project are told.
        answer.pop(_ROLES.format(OTHER_PROJECT), None)
        return answer

    def own(self, token: str) -> Mapping[str, Any]:
        """The claims of a JWT of this office, expired or not; empty for anything else."""
        options: Any = {"verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False}
        for key in self.keys:
            try:
                claims: dict[str, Any] = jwt.decode(token, key.private.public_key(), ["RS256"], options=options)
            except jwt.PyJWTError:
                continue
            return claims
        return {}

    def _claims(self, user: str) -> dict[str, Any]:
        return self._claims_of(self.session(user))

    def _claims_of(self, session: LoginSession) -> dict[str, Any]:
        person, now = session.person, int(self._clock())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": person.subject,
            "aud": self.audience(session.client),
            "exp": now + LIFE_S,
            "iat": now,
            "nbf": now,
            "client_id": session.client,
            # Zitadel C5: the token's name begins with its session's.
            "jti": f"{session.id}-at_{snowflake()}",
        }
        return claims | self.assertions(person)

    def assertions(self, person: Person) -> dict[str, Any]:
        """What Zitadel tells of a person beside the profile: organisation, metadata, roles."""
        claims: dict[str, Any] = {
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
