"""Second factors: what a person can prove beside the sign-in at the identity provider."""

from collections.abc import Sequence

from gateway.core.factors import Factor
from plugins.factors.recovery import Recovery
from plugins.factors.totp import Totp
from plugins.factors.webauthn import WebAuthn

ALL: tuple[type[Factor], ...] = (WebAuthn, Totp, Recovery)  # as they are offered, the strongest first


def builtin(name: str, rp_id: str, origins: Sequence[str]) -> dict[str, Factor]:
    """One of each by its kind. `name` is the company's, as apps and browsers show it. Raises ValueError."""
    return {factor.kind: factor for factor in (WebAuthn(rp_id, name, origins), Totp(name), Recovery())}
