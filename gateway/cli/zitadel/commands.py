"""`gateway zitadel bootstrap` and `gateway zitadel check`: thin over `zitadel_setup` and `zitadel_check`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from gateway.cli import output
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption, group
from gateway.core import paths
from gateway.operations.errors import ActionFailed

if TYPE_CHECKING:
    from gateway.config import Issuer, SecretText
    from gateway.identity.zitadel.access import ApiToken
    from gateway.identity.zitadel.api import Zitadel

zitadel_app = group("Zitadel: set an instance up for the gateway, and see what is weaker there than promised.")

TOKEN_VARIABLE = "ZITADEL_TOKEN"  # noqa: S105  (a variable's name)
_TIMEOUT_S = 10.0
IssuerOption = Annotated[str, typer.Option("--issuer", help="The instance's public address; else from the file.")]
UrlOption = Annotated[str, typer.Option("--url", help="An internal address of the instance.")]
TokenOption = Annotated[
    Path | None, typer.Option("--token-file", help=f"A file with an access token; else ${TOKEN_VARIABLE}, or stdin.")
]
CaOption = Annotated[Path | None, typer.Option("--ca", help="The CA of the instance's certificate.")]


@zitadel_app.command("bootstrap")
def zitadel_bootstrap(
    origin: Annotated[str, typer.Option("--gateway", help="The gateway's own origin, such as https://gateway.corp.")],
    issuer: Annotated[str, typer.Option("--issuer", help="The instance's public address.")],
    url: UrlOption = "",
    token_file: TokenOption = None,
    ca: CaOption = None,
    folder: Annotated[Path, typer.Option("--dir", help="Where secrets are written.")] = Path("secrets"),
    organization: Annotated[str, typer.Option("--org", help="The organisation that owns the project.")] = "",
    slug: Annotated[str, typer.Option("--slug", help="The issuer's name in the gateway's own paths.")] = "zitadel",
    role: Annotated[list[str] | None, typer.Option("--role", help="A role of the project.")] = None,
) -> None:
    """Set an instance up: project, roles, applications, webhooks, policies, a machine user. Can be run again."""
    from gateway.cli.zitadel.bootstrap import Bootstrap, Wanted  # noqa: PLC0415

    origin, issuer = _address(origin, "--gateway"), _address(issuer, "--issuer")
    wanted = Wanted(origin, slug, folder.resolve(), role or ("staff", "admin"), organization=organization)

    def told(what: str, how: str) -> None:
        style = {"kept": "dim", "failed": "bold red", "skipped": "yellow"}.get(how, "green")
        output.note(f"[{style}]{how:<7}[/] {escape(what)}")

    async def run(api: Zitadel) -> None:
        bootstrapped = await Bootstrap(api, wanted, told).run()
        for path in bootstrapped.files:
            output.note(f"[green]made[/]    {escape(str(path))} (mode 0600)")
        if bootstrapped.project_id and bootstrapped.client_id:
            output.note("Put this into gateway.yaml, then delete the token you ran this with:")
            output.say(bootstrapped.yaml(issuer, url, ca, wanted).rstrip("\n"))
        if bootstrapped.failures:
            fixes = dict.fromkeys(failure.fix for failure in bootstrapped.failures if failure.fix)
            steps = "1 step" if len(bootstrapped.failures) == 1 else f"{len(bootstrapped.failures)} steps"
            again = "Run it again: what is done is kept, what failed is tried again."
            raise ActionFailed(f"{steps} failed, the others are done.", " ".join([*fixes, again]))

    _with_api(issuer, url, _read_token(token_file), ca, run)


@zitadel_app.command("check")
def zitadel_check(
    config: ConfigOption = DEFAULT_CONFIG,
    issuer: IssuerOption = "",
    url: UrlOption = "",
    token_file: TokenOption = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Save and delete a webhook target, to learn of the deny list.")
    ] = True,
    json_wanted: JsonOption = False,
) -> None:
    """Look at a live instance: everything that is weaker than promised, with its fix. Exit code 1 when there is any."""
    from dataclasses import asdict  # noqa: PLC0415

    from gateway.cli.zitadel.bootstrap import failed  # noqa: PLC0415
    from gateway.cli.zitadel.check import HASHING_NOTE, Expected, Seen, judge, look  # noqa: PLC0415
    from gateway.config import load, resolve_secret  # noqa: PLC0415

    loaded = load(config)
    chosen = _chosen(loaded.issuers, issuer)
    access = chosen.zitadel
    token = resolve_secret(access.token) if token_file is None and access and access.token else _read_token(token_file)
    origin = loaded.origin(loaded.host)
    expected = Expected(
        client_id=chosen.login.client_id if chosen.login else "",
        project_id=chosen.audiences[0],
        logout_uri=f"{origin}{paths.BACKCHANNEL_LOGOUT}{chosen.slug}",
        hook_uri=f"{origin}{paths.ZITADEL_WEBHOOK}{chosen.slug}",
    )
    reports: list[Seen] = []

    async def run(api: Zitadel) -> None:
        seen = await look(api, expected, probe=probe)
        if not isinstance(seen, Seen):
            failed(seen, "reading its settings")
        reports.append(seen)

    _with_api(chosen.issuer, url or (access.url if access and access.url else ""), token, chosen.ca, run)
    weak = judge(reports[0], expected)
    if json_wanted:
        output.as_json({"weaknesses": [asdict(weakness) for weakness in weak], "notes": [HASHING_NOTE]})
    else:
        for weakness in weak:
            style, word = ("yellow", "unknown") if weakness.is_unknown else ("red", "weak")
            output.note(f"[bold {style}]{word}[/] {escape(weakness.what)}")
            output.note(f"  {escape(weakness.message)}")
            output.note(f"  [dim]fix[/] {escape(weakness.fix)}")
        output.note(f"[dim]note[/] {HASHING_NOTE}")
        output.say(f"check: {len(weak)} {'thing' if len(weak) == 1 else 'things'} weaker than promised, or not known")
    if weak:
        raise typer.Exit(1)


def _chosen(issuers: tuple[Issuer, ...], wanted: str) -> Issuer:
    fitting = [one for one in issuers if (one.issuer == wanted if wanted else one.profile == "zitadel")]
    if len(fitting) != 1:
        raise ActionFailed("Not exactly one issuer of the configuration is meant.", "Name it with --issuer.")
    return fitting[0]


def _address(given: str, option: str) -> str:
    parts = urlsplit(given)
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ActionFailed(f"{option} is no address.", "Write it like https://id.corp.example.")
    return given.rstrip("/")


def _read_token(file: Path | None) -> SecretText:
    # Never an argument: every user of the machine can read those.
    from gateway.config import Secret, SecretText, resolve_secret  # noqa: PLC0415

    if file is not None:
        return resolve_secret(Secret(file=file, env=None))
    if held := os.environ.get(TOKEN_VARIABLE):
        return SecretText(held.strip())
    asked = typer.prompt("Access token", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    return SecretText(asked.strip())


def _with_api(
    issuer: str, url: str, token: SecretText, ca: Path | None, run: Callable[[Zitadel], Awaitable[None]]
) -> None:
    from gateway.adapters.http import HttpxClient  # noqa: PLC0415
    from gateway.identity.zitadel.access import AccessToken, ServiceAccount  # noqa: PLC0415
    from gateway.identity.zitadel.api import Zitadel  # noqa: PLC0415

    async def go() -> None:
        try:
            http = HttpxClient(ca=ca, timeout_s=_TIMEOUT_S)
        except OSError as error:
            raise ActionFailed(f"The CA cannot be used: {error.strerror or error}.", "Name a PEM file.") from error
        try:
            await run(Zitadel(issuer, http, credential(http), url))
        finally:
            await http.close()

    def credential(http: HttpxClient) -> ApiToken:
        text = token.reveal()
        try:
            if text.startswith("{"):
                return ServiceAccount(text.encode(), issuer, url or issuer, http, time.time)
            return AccessToken(text)
        except ValueError as error:
            raise ActionFailed(f"The token cannot be used: {error}.", "Give an access token, or a key file.") from error

    asyncio.run(go())
