"""HTML pages (Jinja templates) of the gateway: their strings, their one style, the Content-Security-Policy.

Laws: every value is escaped; a page loads nothing from anywhere but its own script, from this very host; a page that
cannot be rendered is None, never an exception. All strings of pages are in templates/en.toml, but the reasons' own
(core/reasons).
"""

from __future__ import annotations

import hashlib
import tomllib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, TemplateError

from gateway.core import paths

_TEMPLATES = Path(__file__).with_name("templates")
SCRIPT_FILE = _TEMPLATES / "factors.js"
# Whatever a template makes of a value it did not expect.
_FAILURES = (TemplateError, OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class Branding:
    """The company whose pages these are. `contact` is a mail address, an https address, or plain text.

    `home` is the address of the page of one's own sessions, "" where nobody can sign in.
    """

    name: str = "Gateway"
    contact: str = ""
    home: str = ""

    @property
    def contact_link(self) -> str:
        """Where the contact can be reached with a click, "" for plain text."""
        if self.contact.startswith("https://"):
            return self.contact
        plain = "@" in self.contact and not any(mark in self.contact for mark in " \t,;:?&#/")
        return f"mailto:{self.contact}" if plain else ""


NO_BRANDING = Branding()


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """A page and its Content-Security-Policy."""

    body: bytes
    policy: str


@cache
def strings() -> Mapping[str, Any]:
    """Every string of the pages. Raises OSError or ValueError."""
    return tomllib.loads((_TEMPLATES / "en.toml").read_text(encoding="utf-8"))


def render(
    name: str,
    model: Mapping[str, Any],
    branding: Branding = NO_BRANDING,
    *,
    script: bool = False,
    form_action: Sequence[str] = (),
) -> RenderedPage | None:
    """The page of the template `name` with the model's members, `t` (the strings) and `company` (the branding) in it.

    `form_action` are the CSP sources that its forms may be sent to, none for a page without forms; `script` allows the
    gateway's own script. None where it cannot be rendered.
    """
    try:
        template, style, digest = _parts(name)
        body = template.render(
            model, t=strings(), company=branding, style=style, script=paths.FACTORS_SCRIPT if script else ""
        )
        return RenderedPage(body.encode(), _policy(digest, script=script, form_action=form_action))
    except _FAILURES:
        return None


def _policy(digest: str, *, script: bool, form_action: Sequence[str]) -> str:
    parts = ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    if script:
        parts.append("script-src 'self'")
    parts += ["base-uri 'none'", f"form-action {' '.join(form_action) or "'none'"}", "frame-ancestors 'none'"]
    return "; ".join(parts)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["paths"] = paths
    return environment


@cache
def _parts(name: str) -> tuple[Template, str, str]:
    """A template, the style, and its SHA-256 as CSP wants it."""
    style = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    return _environment().get_template(f"{name}.html"), style, digest
