"""DPoP: the proof that a client holds the key its token is bound to, made for one request (RFC 9449).

Laws: a proof is good once, for one method, one address, one token, one minute. It is verified when a request arrives
and never again: whoever judges an open connection anew asks whether its session is good, not for its proof.

Nonces are kept nowhere: each is the MAC of a step of time under a secret that all workers share.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

from gateway.core.canonical import canonical_url
from gateway.core.ports.stores import ReplayStore, SecretStore
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.identity.jose.jws import b64url_encode
from gateway.identity.jose.key_proof import ClaimedProof, read_proof, thumbprint

ALGORITHMS = ("ES256", "EdDSA", "RS256")
HEADER = "dpop"
PURPOSE = "gateway/v1/dpop-nonce"
MAX_AGE_S, AHEAD_S = 60.0, 10.0
NONCE_STEP_S = 60  # a nonce is good in the step it was given out in and in the next
_TYP = "dpop+jwt"
_MAX_TEXT = 512
_MAX_URL = 16_384
_SECRET_BYTES, _NONCE_BYTES = 32, 16


class Dpop:
    """Verifies proofs. `origin` is the web origin of one of our hosts, with the port browsers use. Raises StoreDown."""

    def __init__(
        self,
        replay: ReplayStore,
        secret_store: SecretStore,
        clock: Callable[[], float] = time.time,
        *,
        origin: Callable[[str], str],
    ) -> None:
        self._replay = replay
        self._secret_store = secret_store
        self._origin = origin
        self._clock = clock
        self._secret: bytes | None = None

    def __repr__(self) -> str:
        return "Dpop()"

    async def verify(self, facts: RequestFacts, token: str, jkt: str) -> Refusal | None:
        """Whether this request proves the key with thumbprint `jkt` for `token`; the proof is then used up.

        Refusals: `dpop_proof_invalid`, `dpop_nonce_required`; `binding_mismatch` for a good proof of another key.
        """
        secret = await self._shared_secret()
        sent = facts.header_values(HEADER)
        if len(sent) != 1:
            return _bad("no proof" if not sent else "several proofs")
        proof = read_proof(sent[0], typ=_TYP, algorithms=ALGORITHMS, reason="dpop_proof_invalid")
        if isinstance(proof, Refusal):
            return proof
        made_with = thumbprint(proof.jwk) if proof.jwk is not None else None
        if proof.jwk is None or made_with is None or not proof.is_signed_by(proof.jwk):
            return _bad("key or signature")
        now = self._clock()
        if refusal := self._flaw(proof, facts, token, secret, now):
            return refusal
        if not hmac.compare_digest(made_with.encode("ascii"), jkt.encode("utf-8", "replace")):
            return Refusal("binding_mismatch", "the proof is made with another key than the token's")
        used = hashlib.sha256(f"{made_with}|{proof.claims['jti']}".encode()).hexdigest()
        fresh = await self._replay.first_use(f"dpop|{used}", now, now + MAX_AGE_S + 2 * AHEAD_S)
        return None if fresh else _bad("used before")

    def answer_headers(self, facts: RequestFacts) -> tuple[tuple[str, str], ...]:
        """Header fields for the answer, whatever it is: a client that speaks DPoP learns the nonce to use next."""
        if self._secret is None or not speaks_dpop(facts):
            return ()
        return (("dpop-nonce", _nonce(self._secret, self._step())),)

    def _flaw(self, proof: ClaimedProof, facts: RequestFacts, token: str, secret: bytes, now: float) -> Refusal | None:
        """What is wrong with the claims (RFC 9449 section 4.3)."""
        claims = proof.claims
        jti, htu, ath, nonce, at = (claims.get(name) for name in ("jti", "htu", "ath", "nonce", "iat"))
        if not isinstance(jti, str) or not 0 < len(jti) <= _MAX_TEXT:
            return _bad("jti")
        if claims.get("htm") != facts.method:
            return _bad("htm")
        if not isinstance(htu, str) or len(htu) > _MAX_URL or not self._is_address_of(facts, canonical_url(htu)):
            return _bad("htu")
        if not isinstance(ath, str) or not _equal(ath, b64url_encode(hashlib.sha256(token.encode()).digest())):
            return _bad("ath")
        if not isinstance(nonce, str) or not self._is_current(nonce, secret):
            return Refusal("dpop_nonce_required")
        if isinstance(at, bool) or not isinstance(at, (int, float)) or not now - MAX_AGE_S <= at <= now + AHEAD_S:
            return _bad("iat")
        return None

    def _is_address_of(self, facts: RequestFacts, url: str | None) -> bool:
        """Whether a proof's URL is the request's. A Host without a port does not make it one for port 443."""
        origins = {self._origin(facts.host), *((facts.origin,) if facts.authority != facts.host else ())}
        return url in {origin + facts.path for origin in origins}

    def _step(self) -> int:
        return int(self._clock()) // NONCE_STEP_S

    def _is_current(self, nonce: str, secret: bytes) -> bool:
        step = self._step()
        return any(_equal(nonce, _nonce(secret, one)) for one in (step, step - 1))

    async def _shared_secret(self) -> bytes:
        if self._secret is None:
            stored = await self._secret_store.secrets(PURPOSE)
            if not stored:
                # Whoever is first wins: every worker writes under the same name, then reads.
                await self._secret_store.put_secret(PURPOSE, "1", self._clock(), secrets.token_bytes(_SECRET_BYTES))
                stored = await self._secret_store.secrets(PURPOSE)
            self._secret = stored[0][2]
        return self._secret


def speaks_dpop(facts: RequestFacts) -> bool:
    """Whether the client uses DPoP with this request, rightly or not."""
    if facts.header(HEADER) is not None:
        return True
    return any(value[:5].lower() == "dpop " for value in facts.header_values("authorization"))


def _nonce(secret: bytes, step: int) -> str:
    mac = hmac.digest(secret, PURPOSE.encode() + step.to_bytes(8), "sha256")
    return b64url_encode(mac[:_NONCE_BYTES])


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("ascii"))


def _bad(detail: str) -> Refusal:
    return Refusal("dpop_proof_invalid", detail)
