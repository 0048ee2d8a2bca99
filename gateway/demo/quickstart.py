"""`gateway quickstart URL`: a gateway in front of one service, with everything it needs in one folder.

The development provider runs beside it, unless the folder was made for a provider of the reader's own. A folder that is
there already is served again, as it is.
"""

from __future__ import annotations

import secrets
import signal
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import httpx

from gateway.config import Config, load
from gateway.core import paths
from gateway.demo.idp.accounts import APP_CLIENT, PROJECT
from gateway.demo.processes import Processes, ProcessFailed, reserve_port
from gateway.identity.devices.ca_files import write_file
from gateway.operations.errors import ActionFailed
from gateway.operations.starter import Provider, Site, start

PERSON = "alice"
SLUG = "dev"
_PROVIDER = "provider"
_GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the reader has to know. `person` and `password` are "" where people sign in at a provider of their own."""

    address: str
    config: Path
    root: Path
    redirect_uri: str
    person: str
    password: str


def write(folder: Path, site: Site) -> Path:
    """Write the folder; the path of its gateway.yaml. Without a provider in `site` it is the development one.

    Raises ActionFailed when something is there already.
    """
    password = ""
    if site.provider is None:
        with reserve_port() as reserved:
            issuer = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        password = secrets.token_urlsafe(9)
        provider = Provider(
            issuer=issuer,
            client_id=APP_CLIENT,
            secret=secrets.token_urlsafe(24),
            audience=PROJECT,
            slug=SLUG,
            profile="zitadel",
            knows_amr=True,
        )
        site = replace(site, provider=provider)
    started = start(folder, site)
    (folder / "logs").mkdir(mode=0o700)
    if password:
        write_file(_password_file(folder), password.encode(), 0o600)
    return started.config


def serve(config_path: Path, show: Callable[[Shown], None], *, browser: bool) -> int:
    """Serve the folder of this configuration until SIGINT, SIGTERM or SIGHUP; 0 then.

    `show` is called once everything answers. Raises ActionFailed when something does not start or ends.
    """
    folder, config = config_path.parent.resolve(), load(config_path)
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    processes = Processes(folder, folder / "logs")
    try:
        names = [_GATEWAY]
        if is_development(folder):
            processes.spawn(_PROVIDER, _provider_command(folder, config))
            processes.first_line(_PROVIDER)
            _introduce(folder, config)
            names.insert(0, _PROVIDER)
        processes.spawn(_GATEWAY, ["gateway", "serve", "-c", str(folder / config_path.name)])
        processes.wait_ready(_GATEWAY, config.admin.port)
        shown = _shown(folder, config_path, config)
        show(shown)
        if browser:
            webbrowser.open(shown.address)
        while not ended.wait(0.5):
            for name in names:
                processes.check(name)
    except ProcessFailed as error:
        raise ActionFailed(str(error), f"What it said stands in {folder / 'logs'}.") from error
    finally:
        processes.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def is_development(folder: Path) -> bool:
    """Whether the folder was made for the development provider."""
    return _password_file(folder).exists()


def _password_file(folder: Path) -> Path:
    return folder / "secrets" / PERSON


def _provider_command(folder: Path, config: Config) -> list[str]:
    port = config.issuers[0].issuer.rpartition(":")[2]
    return ["gateway.demo.idp.provider", "--port", port, "--ca", str(folder / "pki" / "root.pem")]


def _introduce(folder: Path, config: Config) -> None:
    """Tell the provider about the gateway and the person: it keeps nothing when it ends."""
    issuer, own = config.issuers[0].issuer, config.origin(config.host)
    app = {
        "redirect": own + paths.CALLBACK + SLUG,
        "post_logout": own + paths.LOGOUT,
        "logout_uri": own + paths.BACKCHANNEL_LOGOUT + SLUG,
        "secret": (folder / "secrets" / "login").read_text(encoding="ascii"),
    }
    password = {"user": PERSON, "password": _password_file(folder).read_text(encoding="ascii")}
    with httpx.Client(base_url=issuer, trust_env=False, timeout=10) as client:
        for action, order in (("app", app), ("password", password)):
            client.post(f"/dev/{action}", json=order).raise_for_status()


def _shown(folder: Path, config_path: Path, config: Config) -> Shown:
    service = next(iter(config.services.values()))
    issuer, is_dev = config.issuers[0], is_development(folder)
    return Shown(
        address=config.origin(service.host) + "/",
        config=config_path,
        root=folder / "pki" / "root.pem",
        redirect_uri="" if is_dev else config.origin(config.host) + paths.CALLBACK + issuer.slug,
        person=f"{PERSON}@acme.localhost" if is_dev else "",
        password=_password_file(folder).read_text(encoding="ascii") if is_dev else "",
    )
