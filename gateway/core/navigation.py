"""Where a browser goes next: a redirect, or a request that waited and is resumed."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core.request import RawRequest


@dataclass(frozen=True, slots=True)
class Redirect:
    """Send the browser to `location`, a path of this host or a whole https address; `cookies` are Set-Cookie values."""

    location: str = field(repr=False)
    cookies: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Resume:
    """A held request goes on here and now, in place of the visit: `raw` and `body` are to be judged like any other.

    `cookies` are Set-Cookie values for the answer, whatever it is; `fields` further header fields.
    """

    raw: RawRequest = field(repr=False)
    body: bytes = field(repr=False)
    cookies: tuple[str, ...] = field(repr=False)
    fields: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def added(self) -> tuple[tuple[str, str], ...]:
        """Everything that the answer gets."""
        return (*(("set-cookie", value) for value in self.cookies), *self.fields)
