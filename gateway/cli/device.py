"""`gateway device ...`: thin over `gateway.operations.devices`, and on the device itself over `gateway.agent`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from gateway.cli import output
from gateway.cli.records import entry_of
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption, WhyOption, group, load_config
from gateway.operations.errors import ActionFailed

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.core.ports.stores import DeviceRecord

device_app = group("Devices: enrol them, look at them, put them out.")

DeviceFolder = Annotated[Path, typer.Option("--dir", help="Where the device keeps its key and certificate.")]
WantedDevice = Annotated[str, typer.Argument(help="The device's id, the start of it, or its name.")]
DEVICE_FOLDER = Path("device")
TOKEN_VARIABLE = "GATEWAY_ENROLMENT_TOKEN"  # noqa: S105  (a variable's name)


@device_app.command("add")
def device_add(
    name: Annotated[str, typer.Argument(help="What people call the device.")],
    owner: Annotated[str, typer.Option(help="Whose device it is.")],
    department: Annotated[str, typer.Option(help="The owner's department.")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    json_wanted: JsonOption = False,
) -> None:
    """Add a device; prints the one-time token it enrols with, once."""
    from gateway.operations import devices  # noqa: PLC0415

    loaded = load_config(config)
    _show_token(loaded, *asyncio.run(devices.add_device(loaded, name, owner, department)), json_wanted=json_wanted)


@device_app.command("token")
def device_token(device: WantedDevice, config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False) -> None:
    """Another one-time token, for a device whose token or certificate has expired."""
    from gateway.operations import devices  # noqa: PLC0415

    loaded = load_config(config)
    _show_token(loaded, *asyncio.run(devices.new_token(loaded, device)), json_wanted=json_wanted)


def _show_token(config: Config, record: DeviceRecord, token: str, *, json_wanted: bool) -> None:
    if json_wanted:
        output.as_json({"id": record.id, "name": record.name, "token": token})
        return
    from gateway.identity.devices.ca_files import PkiFiles  # noqa: PLC0415

    minutes = int(config.devices.enrolment_life_s // 60)
    root = PkiFiles(config.tls[0].certificate.parent).root if config.tls else None
    has_root = root is not None and root.exists()
    output.say(token)
    output.note(f"Device {record.id}. The token works once, for {minutes} minutes. On the device:")
    output.note(f"  gateway device enroll {config.origin(config.host)}{' --ca root.pem' if has_root else ''}")
    if has_root:
        output.note(f"Copy {escape(str(root))} to the device first: it is the CA of the gateway's certificate.")


@device_app.command("list")
def device_list(config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False) -> None:
    """Every device, newest first."""
    from gateway.operations import devices  # noqa: PLC0415

    records = asyncio.run(devices.list_devices(load_config(config)))
    columns = ("id", "name", "owner", "department", "status", "created")
    entries = [entry_of(record, json_wanted=json_wanted) for record in records]
    output.rows(columns, entries, json_wanted=json_wanted, empty="no devices yet")


@device_app.command("show")
def device_show(device: WantedDevice, config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False) -> None:
    """One device."""
    from gateway.operations import devices  # noqa: PLC0415

    record = asyncio.run(devices.find_device(load_config(config), device))
    output.facts(entry_of(record, json_wanted=json_wanted), json_wanted=json_wanted)


@device_app.command("revoke")
def device_revoke(
    device: WantedDevice, why: WhyOption = "by the operator", config: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Put a device out for good: at its next request, and on open connections."""
    from gateway.operations import devices  # noqa: PLC0415

    record = asyncio.run(devices.revoke_device(load_config(config), device, why))
    output.say(f"{record.name} ({record.id}) is {record.status}")


@device_app.command("enroll")
def device_enroll(
    gateway: Annotated[str, typer.Argument(help="The gateway, https://host:port.")],
    folder: DeviceFolder = DEVICE_FOLDER,
    ca: Annotated[Path | None, typer.Option(help="The CA of the gateway's certificate, if not the system's.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="A file with the one-time token.")] = None,
) -> None:
    """On the device: make a key here and have it certified. The token is asked for, or read from stdin."""
    from gateway.agent import enroll  # noqa: PLC0415

    token = _read_token(token_file)
    try:
        done = enroll.enrol(gateway, token, folder, ca)
    except (enroll.EnrolmentFailed, OSError, ValueError) as error:
        address = "Write the address like https://gateway.example.com."
        folder_fix = "Name a folder of yours with --dir, and with --ca a file that can be read."
        fix = getattr(error, "fix", folder_fix if isinstance(error, OSError) else address)
        raise ActionFailed(f"The device is not enrolled: {error}.", fix) from error
    output.say(f"device {done.device_id} until {output.moment(done.not_after)}")
    output.note(f"key {escape(str(done.key))}, certificate {escape(str(done.certificate))}")


def _read_token(file: Path | None) -> str:
    # Never an argument: every user of the machine can read those.
    try:
        if file is not None:
            return file.read_text(encoding="ascii").strip()
        if token := os.environ.get(TOKEN_VARIABLE):
            return token.strip()
        return typer.prompt("One-time token", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    except (OSError, ValueError) as error:
        raise ActionFailed("The token cannot be read.", "Paste it when asked, or name a file.") from error


@device_app.command("renew")
def device_renew(
    folder: DeviceFolder = DEVICE_FOLDER,
    force: Annotated[bool, typer.Option("--force", help="Even when the certificate is fresh.")] = False,
) -> None:
    """On the device: a new key and certificate, once two thirds of the present one's life are over."""
    from gateway.agent import enroll  # noqa: PLC0415

    try:
        done = enroll.renew(folder, force=force)
    except (enroll.EnrolmentFailed, OSError, ValueError) as error:
        fix = "Enrol the device anew with a token of the operator's, if it has expired or was revoked."
        raise ActionFailed(f"The certificate is not renewed: {error}.", fix) from error
    output.say(f"device {done.device_id} until {output.moment(done.not_after)}" if done else "not due yet")


@device_app.command("report")
def device_report(folder: DeviceFolder = DEVICE_FOLDER, json_wanted: JsonOption = False) -> None:
    """On the device: tell the gateway what this machine is like, signed with the device's key."""
    from gateway.agent import posture_report  # noqa: PLC0415
    from gateway.agent.enroll import EnrolmentFailed  # noqa: PLC0415

    try:
        posture = posture_report.send(folder, posture_report.collect())
    except (EnrolmentFailed, OSError, ValueError) as error:
        raise ActionFailed(
            f"Nothing is reported: {error}.", "Enrol the device if it is not, or its time is over."
        ) from error
    output.facts(posture, json_wanted=json_wanted)
