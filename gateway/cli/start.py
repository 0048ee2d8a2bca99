"""`gateway quickstart` and `gateway init`: from nothing to a folder that serves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from gateway.cli import output
from gateway.cli.shell import DEFAULT_CONFIG
from gateway.operations.errors import ActionFailed

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.demo.quickstart import Shown
    from gateway.operations.starter import Provider, Site, Started

IssuerOption = Annotated[
    str | None, typer.Option(help="The OpenID provider's issuer, such as https://id.corp.example.")
]
ClientOption = Annotated[str | None, typer.Option(help="The client id of the gateway's web application there.")]
SecretOption = Annotated[
    Path | None, typer.Option("--secret-file", help="A file with the client's secret; it is copied to secrets/login.")
]
_QUICKSTART_FOLDER = Path("gateway-quickstart")
_SITE_FOLDER = Path("gateway-site")
_UPSTREAM = "http://127.0.0.1:8080"
_PORT = 8443
_SLUG = "login"


def quickstart(
    upstream: Annotated[str, typer.Argument(help="The service's own address, such as http://127.0.0.1:3000.")],
    directory: Annotated[Path, typer.Option("--dir", help="The folder; one that is there is served again.")] = (
        _QUICKSTART_FOLDER
    ),
    issuer: IssuerOption = None,
    client_id: ClientOption = None,
    secret_file: SecretOption = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; another free one when it is taken.")] = _PORT,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the address in the browser.")] = True,
) -> None:
    """Put a gateway in front of a service on this machine, at once: PKI, policies, sign-in, all in one folder."""
    from gateway.demo import quickstart as start  # noqa: PLC0415
    from gateway.operations.starter import Site  # noqa: PLC0415

    config = directory / "gateway.yaml"
    provider = _provider(issuer, client_id, secret_file)
    if config.exists():
        output.note(f"[dim]{escape(str(config))} is there already and is served as it is.[/]")
    else:
        site = Site(
            hosts=("gateway.localhost", "app.localhost"),
            upstreams=(upstream,),
            provider=provider,
            device="optional",
            everybody=True,
            address="127.0.0.1",
            port=_free_port(port),
            admin_port=_free_port(0),
        )
        start.write(directory, site)
        if provider is not None:
            output.note(f"The provider must know this redirect URI: [bold]{escape(site.redirect_uri)}[/]")
    with output.err.status("Starting"):
        code = start.serve(config, _show, browser=browser and sys.stdout.isatty())
    raise typer.Exit(code)


def _show(shown: Shown) -> None:
    output.say(f"address   {shown.address}")
    if shown.person:
        output.say(f"sign in   {shown.person}")
        output.say(f"password  {shown.password}")
    else:
        output.say(f"redirect  {shown.redirect_uri}")
    output.note(
        f"The browser does not know the certificate's CA yet: import {escape(str(shown.root))}, or accept the warning."
    )
    output.note(f"Edit {escape(str(shown.config))} and the policies beside it; each change is served within a second.")
    output.note(f"For production: gateway init --from {escape(str(shown.config.parent))}")
    output.note("Ctrl-C ends it.")
    sys.stdout.flush()  # a program that waits for the address reads a pipe


def init(
    directory: Annotated[
        Path | None, typer.Argument(help="The folder to write to; by default the current one, where it is free.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="First the gateway's own host name, then one for each service."),
    ] = None,
    upstream: Annotated[
        list[str] | None, typer.Option(help="The own address of each service, in the order of the hosts.")
    ] = None,
    issuer: IssuerOption = None,
    client_id: ClientOption = None,
    secret_file: SecretOption = None,
    devices: Annotated[
        bool, typer.Option("--devices/--devices-later", help="Whether only enrolled devices may enter from the start.")
    ] = True,
    old: Annotated[
        Path | None, typer.Option("--from", help="A folder of `gateway quickstart`: its services and policies go on.")
    ] = None,
) -> None:
    """Write a commented gateway.yaml, the starter policies, a device PKI and a server certificate."""
    from gateway.operations import starter  # noqa: PLC0415

    before = _before(old)
    provider = _provider(issuer, client_id, secret_file) or (_carried_over(old, before) if before else None)
    upstreams = list(upstream or ([service.backend.urls[0] for service in before.services.values()] if before else []))
    hosts = list(host or [])
    if not hosts and _at_terminal():
        hosts, upstreams, provider, devices = _asked(upstreams, provider, devices=devices)
    elif before and len(hosts) == 1:
        domain = hosts[0].partition(".")[2] or hosts[0]
        hosts += [f"{name}.{domain}" for name in before.services]
    site = starter.Site(
        hosts=starter.hosts(hosts),
        upstreams=upstreams or [_UPSTREAM],
        provider=provider,
        device="required" if devices else "optional",
    )
    folder = directory or _folder(starter.TOP_LEVEL)
    started = starter.start(folder, site, policies=old / "policies" if old else None)
    for part, path in (
        ("configuration", started.config),
        ("policies", started.policies),
        ("PKI", started.pki),
        ("state", started.state),
    ):
        output.note(f"[green]made[/] {part} in {escape(str(path))}")
    _next_steps(started, site)


def _next_steps(started: Started, site: Site) -> None:

    option = "" if started.config == DEFAULT_CONFIG else f" -c {started.config}"
    steps = [f"Look at everything it names: gateway check{option}", f"Start it: gateway serve{option}"]
    if site.provider is None:
        steps.insert(0, f"Nobody can sign in yet: name your identity provider in {started.config}.")
    else:
        steps.insert(0, f"Register this redirect URI at {site.provider.issuer}: {site.redirect_uri}")
    if site.device == "required":
        steps.append(f"Let a device in: gateway device add NAME --owner PERSON{option}")
    steps.append(f"Move {started.pki / 'root.key'} to a place that is offline.")
    output.say("What to do next:")
    for number, step in enumerate(steps, 1):
        output.say(f"  {number}. {step}")


def _provider(issuer: str | None, client_id: str | None, secret_file: Path | None) -> Provider | None:
    """The provider that the three options name; None without any. Raises ActionFailed where one is missing."""
    from gateway.operations.starter import Provider  # noqa: PLC0415

    given = {"--issuer": issuer, "--client-id": client_id, "--secret-file": secret_file}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(given):
        return None
    if issuer is None or client_id is None or secret_file is None:
        raise ActionFailed(
            f"{', '.join(missing)} is missing.", "A provider needs --issuer, --client-id, --secret-file."
        )
    if urlsplit(issuer).scheme not in {"https", "http"} or not urlsplit(issuer).hostname:
        raise ActionFailed(f"{issuer} is no issuer.", "Write it exactly as the provider does: https://id.corp.example.")
    try:
        secret = secret_file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ActionFailed(f"{secret_file} cannot be read: {why}.") from error
    if not secret:
        raise ActionFailed(f"{secret_file} is empty.", "Put the client's secret there.")
    return Provider(issuer=issuer, client_id=client_id, secret=secret, audience=client_id, slug=_SLUG)


def _before(old: Path | None) -> Config | None:
    """The configuration of the folder that goes on."""
    from gateway.config import load  # noqa: PLC0415

    return None if old is None else load(old / "gateway.yaml")


def _carried_over(old: Path | None, before: Config) -> Provider | None:
    """The provider of that folder, where it is not the development one."""
    from gateway.demo.quickstart import is_development  # noqa: PLC0415

    issuer = next(iter(before.issuers), None)
    if old is None or issuer is None or issuer.login is None or is_development(old):
        return None
    return _provider(issuer.issuer, issuer.login.client_id, old / "secrets" / "login")


def _folder(names: Sequence[str]) -> Path:
    """The current folder; another one where something of these names is there that is not ours to touch."""
    taken = [name for name in names if Path(name).exists()]
    if not taken or DEFAULT_CONFIG.exists():
        return Path()
    output.note(f"[dim]There is {', '.join(taken)} here already, so everything goes to {_SITE_FOLDER}.[/]")
    return _SITE_FOLDER


def _asked(
    upstreams: list[str], provider: Provider | None, *, devices: bool
) -> tuple[list[str], list[str], Provider | None, bool]:
    """Hosts, upstreams, provider and whether devices are needed, as the person at the terminal says."""
    from gateway.operations.listening import web_services  # noqa: PLC0415

    own = typer.prompt("Host name of the gateway itself", default="gateway.localhost")
    if not upstreams:
        offered = web_services()
        for number, address in enumerate(offered, 1):
            output.note(f"  {number}. {address} answers on this machine")
        answer = typer.prompt("Address of the service, or its number", default=offered[0] if offered else _UPSTREAM)
        chosen = int(answer) if answer.isdecimal() else 0
        upstreams = [offered[chosen - 1] if 0 < chosen <= len(offered) else answer]
    domain = own.partition(".")[2] or own
    hosts = [own, *(typer.prompt(f"Host name for {address}", default=f"app.{domain}") for address in upstreams)]
    if provider is None:
        issuer = typer.prompt("Issuer of your OpenID provider (empty: later)", default="", show_default=False)
        if issuer:
            client_id = typer.prompt("Client id of the gateway there")
            provider = _provider(issuer, client_id, Path(typer.prompt("File with the client's secret")))
    devices = typer.confirm("May only enrolled devices enter from the start?", default=devices)
    return hosts, upstreams, provider, devices


def _at_terminal() -> bool:
    return sys.stdin.isatty()


def _free_port(wanted: int) -> int:
    """The port, or another one where somebody listens there."""
    from gateway.operations.listening import free_port  # noqa: PLC0415

    port = free_port(wanted)
    if wanted and port != wanted:
        output.note(f"[dim]Port {wanted} is taken; {port} is used.[/]")
    return port
