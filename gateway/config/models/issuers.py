"""Section `issuers`: OpenID providers, how people sign in there, Zitadel's own APIs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from gateway.config.models.values import ADDRESS, Model, Name, Seconds, Secret


class Introspection(Model):
    """How to ask the issuer whether a token is active (RFC 7662)."""

    client_id: str = Field(description="The API application's client id.")
    method: Literal["basic", "private_key_jwt"] = Field("private_key_jwt", description="How to authenticate.")
    secret: Secret | None = Field(None, description="The client secret, for `basic`.")
    key: Secret | None = Field(None, description="The key file of the API application (JSON), for `private_key_jwt`.")
    cache_s: Seconds = Field(10, description="How long an answer may be used again.")


class Login(Model):
    """How people sign in at an issuer: OpenID Connect, authorization code and PKCE."""

    client_id: str = Field(min_length=1, description="The client id of the gateway's own web application.")
    secret: Secret | None = Field(None, description="Its secret; without secret and key it is a public client.")
    key: Secret | None = Field(None, description="Its key file (JSON), for private_key_jwt.")
    scopes: tuple[Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")], ...] | None = Field(
        None, description="What is asked for; by default what the issuer's profile needs."
    )
    slug: Name | None = Field(None, description="The issuer's part of the redirect URI; by default made of its host.")
    max_age_s: Seconds | None = Field(None, description="Ask for a sign-in no older than this, and refuse older ones.")
    empty_amr: Literal["refuse", "accept"] = Field(
        "refuse", description="A sign-in without `amr`; accepted, it proves no factor at all."
    )
    first_factor: bool = Field(True, description="Whoever has no second factor here yet may add the first one alone.")


class ZitadelApi(Model):
    """How Zitadel tells of ended logins beyond OpenID Connect: webhooks, and its events read in a loop."""

    url: str | None = Field(None, pattern=ADDRESS, description="An internal address of the instance.")
    token: Secret | None = Field(None, description="A personal access token of the gateway's machine user.")
    key: Secret | None = Field(None, description="A key file of that user (JSON), instead of the token.")
    webhook_keys: tuple[Secret, ...] = Field(
        (), description="Signing keys of the webhook target; two while one changes."
    )
    reconcile_s: Seconds = Field(2, description="Time between two looks at the events; needs `token` or `key`.")


ClaimPath = Annotated[str, Field(min_length=1, max_length=256)]


class ClaimPaths(Model):
    """Where the issuer's tokens say what: a claim's name, or nested members with dots between them; `*` is each one."""

    roles: tuple[ClaimPath, ...] = Field(
        (),
        max_length=16,
        description="Roles and groups: a list, one text, or a map's keys, such as `realm_access.roles`, "
        "`resource_access.*.roles`, `cognito:groups` or `groups`. By default `roles`; Zitadel's own come besides.",
    )
    name: tuple[ClaimPath, ...] = Field(
        ("name", "preferred_username"), max_length=16, description="The person's name; the first that there is."
    )
    email: ClaimPath = Field("email", description="The address; it counts where `email_verified` is true.")
    department: ClaimPath | None = Field(None, description="The department, instead of `department_claim`.")


class Assurance(Model):
    """What a sign-in must say about itself."""

    empty_amr: Literal["refuse", "accept"] | None = Field(
        None, description="A sign-in without `amr`; accepted, it proves no factor. By default as `login.empty_amr`."
    )
    missing_auth_time: Literal["refuse", "accept"] = Field(
        "refuse", description="A sign-in with neither `amr` nor `auth_time`, as of Dex and Google."
    )


class Issuer(Model):
    """An OpenID provider whose access tokens are accepted."""

    issuer: str = Field(pattern=r"^https?://[^\s?#]+$", description="The issuer, exactly as in its tokens.")
    profile: Literal["strict", "zitadel"] = Field("strict", description="RFC 9068 to the letter, or Zitadel's tokens.")
    audiences: tuple[str, ...] = Field(min_length=1, description="One of these must be in `aud` (a project id).")
    client_ids: tuple[str, ...] = Field((), description="Clients whose tokens are accepted; empty accepts every one.")
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA"], ...] = Field(
        ("RS256", "ES256", "EdDSA"), min_length=1, description="Signature algorithms this issuer may use."
    )
    introspection: Introspection | None = Field(None, description="Needed for opaque tokens and for staff JWTs.")
    leeway_s: float = Field(5, ge=0, le=60, description="Clock difference allowed in exp, iat and nbf.")
    ca: Path | None = Field(None, description="PEM: the CA of the issuer's own server certificate.")
    department_claim: str = Field(
        "urn:zitadel:iam:user:metadata/department", description="Claim (or claim/member) that names the department."
    )
    claims: ClaimPaths = Field(ClaimPaths(), description="Where its tokens keep roles, names and the department.")
    assurance: Assurance = Field(Assurance(), description="Sign-ins that say little about themselves.")
    opaque: bool = Field(False, description="Tokens that are no JWT are introspected here.")
    zitadel: ZitadelApi | None = Field(None, description="Zitadel's own APIs, for a quick end of sessions.")
    login: Login | None = Field(None, description="People sign in here with a browser.")

    @property
    def slug(self) -> str:
        """The issuer's part of the redirect URI."""
        if self.login is not None and self.login.slug is not None:
            return self.login.slug
        return re.sub(r"[^a-z0-9]+", "-", self.issuer.partition("://")[2].lower()).strip("-")[:63].strip("-")
