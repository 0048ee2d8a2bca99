"""`gateway pki …`, `gateway device …`, `gateway session …`: thin over `gateway.operations.actions` and `enrol`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from gateway.cli import output
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption, group
from gateway.operations.errors import ActionFailed

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.core.ports.stores import DeviceRecord, SessionRecord

pki_app = group("The internal PKI: certificate authorities, server certificates, the revocation list.")
device_app = group("Devices: enrol them, look at them, put them out.")
session_app = group("Sessions: look at them, end them.")

HostsOption = Annotated[list[str] | None, typer.Option("--host", help="A host name; by default all of the file's.")]
FolderOption = Annotated[Path | None, typer.Option("--dir", help="The PKI's folder; by default that of devices.ca.")]
DeviceFolder = Annotated[Path, typer.Option("--dir", help="Where the device keeps its key and certificate.")]
WantedDevice = Annotated[str, typer.Argument(help="The device's id, the start of it, or its name.")]
WantedSession = Annotated[str, typer.Argument(help="The session's id, or the start of it.")]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, for the record.")]
DEVICE_FOLDER = Path("device")
TOKEN_VARIABLE = "GATEWAY_ENROLMENT_TOKEN"  # noqa: S105  (a variable's name)


def _load(config: Path) -> Config:
    from gateway.config import load  # noqa: PLC0415

    return load(config)


def _folder(config: Config, folder: Path | None) -> Path:
    if folder is not None:
        return folder
    if config.devices.ca is None:
        raise ActionFailed("The configuration names no device CA.", "Name the PKI's folder with --dir.")
    return config.devices.ca.parent


@pki_app.command("init")
def pki_init(
    host: Annotated[list[str], typer.Option("--host", help="A host name for the server certificate.")],
    folder: Annotated[Path, typer.Option("--dir", help="A folder without a PKI.")] = Path("pki"),
) -> None:
    """Make a root, a device CA, a server CA, a server certificate and an empty revocation list."""
    from gateway.operations import actions  # noqa: PLC0415

    files = actions.make_pki(folder, host, actions.CRL_LIFE_S)
    output.note(f"[green]made[/] a PKI in {escape(str(files.folder))}")
    output.say(f"tls: [{{certificate: {files.server}, key: {files.server_key}}}]")
    output.say(f"devices: {{ca: {files.device_ca}, issuing_key: {files.device_key}, crl: {files.crl}}}")


@pki_app.command("server")
def pki_server(host: HostsOption = None, folder: FolderOption = None, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Make a new server certificate, for every host in the configuration or for those given."""
    from gateway.operations import actions  # noqa: PLC0415

    loaded = _load(config)
    files = actions.new_server_certificate(_folder(loaded, folder), host or actions.hosts_of(loaded))
    output.note(f"[green]made[/] {escape(str(files.server))}")
    if files.server not in {item.certificate for item in loaded.tls}:
        output.note(f"[yellow]warning[/] `tls` does not name {escape(str(files.server))}")


@pki_app.command("crl")
def pki_crl(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Make a new revocation list when the present one is past half its life, missing or unusable."""
    from gateway.operations import actions  # noqa: PLC0415

    made = asyncio.run(actions.renew_crl(_load(config)))
    output.say("a new revocation list was made" if made else "the revocation list is fresh")


@pki_app.command("show")
def pki_show(config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False) -> None:
    """The certificates that the configuration names."""
    from gateway.operations import actions  # noqa: PLC0415

    loaded = _load(config)
    named = [item.certificate for item in loaded.tls] + ([loaded.devices.ca] if loaded.devices.ca else [])
    entries = actions.certificates(named)
    if not json_wanted:
        entries = [
            {**entry, "names": ", ".join(entry["names"]), "until": output.moment(entry["not_after"])}
            for entry in entries
        ]
    output.rows(("file", "subject", "names", "until"), entries, json_wanted=json_wanted, empty="no certificates")


@device_app.command("add")
def device_add(
    name: Annotated[str, typer.Argument(help="What people call the device.")],
    owner: Annotated[str, typer.Option(help="Whose device it is.")],
    department: Annotated[str, typer.Option(help="The owner's department.")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    json_wanted: JsonOption = False,
) -> None:
    """Add a device; prints the one-time token it enrols with, once."""
    from gateway.operations import actions  # noqa: PLC0415

    loaded = _load(config)
    _show_token(loaded, *asyncio.run(actions.add_device(loaded, name, owner, department)), json_wanted=json_wanted)


@device_app.command("token")
def device_token(device: WantedDevice, config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False) -> None:
    """Another one-time token, for a device whose token or certificate has expired."""
    from gateway.operations import actions  # noqa: PLC0415

    loaded = _load(config)
    _show_token(loaded, *asyncio.run(actions.new_token(loaded, device)), json_wanted=json_wanted)


def _show_token(config: Config, record: DeviceRecord, token: str, *, json_wanted: bool) -> None:
    if json_wanted:
        output.as_json({"id": record.id, "name": record.name, "token": token})
        return
    from gateway.identity.devices.ca_files import PkiFiles  # noqa: PLC0415

    minutes = int(config.devices.enrolment_life_s // 60)
    root = PkiFiles(config.tls[0].certificate.parent).root if config.tls else None
    ours = root is not None and root.exists()
    output.say(token)
    output.note(f"Device {record.id}. The token works once, for {minutes} minutes. On the device:")
    output.note(f"  gateway device enroll {config.origin(config.host)}{' --ca root.pem' if ours else ''}")
    if ours:
        output.note(f"Copy {escape(str(root))} to the device first: it is the CA of the gateway's certificate.")


@device_app.command("list")
def device_list(config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False) -> None:
    """Every device, newest first."""
    from gateway.operations import actions  # noqa: PLC0415

    records = asyncio.run(actions.devices(_load(config)))
    _list(("id", "name", "owner", "department", "status", "created"), records, json_wanted, "no devices yet")


@device_app.command("show")
def device_show(device: WantedDevice, config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False) -> None:
    """One device."""
    from gateway.operations import actions  # noqa: PLC0415

    record = asyncio.run(actions.device(_load(config), device))
    output.facts(_entry(record, json_wanted), json_wanted=json_wanted)


@device_app.command("revoke")
def device_revoke(
    device: WantedDevice, why: WhyOption = "by the operator", config: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Put a device out for good: at its next request, and on open connections."""
    from gateway.operations import actions  # noqa: PLC0415

    record = asyncio.run(actions.revoke_device(_load(config), device, why))
    output.say(f"{record.name} ({record.id}) is {record.status}")


@device_app.command("enroll")
def device_enroll(
    gateway: Annotated[str, typer.Argument(help="The gateway, https://host:port.")],
    folder: DeviceFolder = DEVICE_FOLDER,
    ca: Annotated[Path | None, typer.Option(help="The CA of the gateway's certificate, if not the system's.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="A file with the one-time token.")] = None,
) -> None:
    """On the device: make a key here and have it certified. The token is asked for, or read from stdin."""
    from gateway.agent import enroll as enrol  # noqa: PLC0415

    token = _read_token(token_file)
    try:
        done = enrol.enrol(gateway, token, folder, ca)
    except (enrol.EnrolmentFailed, OSError, ValueError) as error:
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
    from gateway.agent import enroll as enrol  # noqa: PLC0415

    try:
        done = enrol.renew(folder, force=force)
    except (enrol.EnrolmentFailed, OSError, ValueError) as error:
        fix = "Enrol the device anew with a token of the operator's, if it has expired or was revoked."
        raise ActionFailed(f"The certificate is not renewed: {error}.", fix) from error
    output.say(f"device {done.device_id} until {output.moment(done.not_after)}" if done else "not due yet")


@device_app.command("report")
def device_report(folder: DeviceFolder = DEVICE_FOLDER, json_wanted: JsonOption = False) -> None:
    """On the device: tell the gateway what this machine is like, signed with the device's key."""
    from gateway.agent import posture_report as report  # noqa: PLC0415
    from gateway.agent.enroll import EnrolmentFailed  # noqa: PLC0415

    try:
        posture = report.send(folder, report.collect())
    except (EnrolmentFailed, OSError, ValueError) as error:
        raise ActionFailed(
            f"Nothing is reported: {error}.", "Enrol the device if it is not, or its time is over."
        ) from error
    output.facts(posture, json_wanted=json_wanted)


@session_app.command("list")
def session_list(
    subject: Annotated[str | None, typer.Option(help="Only those of one subject.")] = None,
    device: Annotated[str | None, typer.Option(help="Only those on the device with this id.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json_wanted: JsonOption = False,
) -> None:
    """Sessions that have not expired, newest first."""
    from gateway.operations import actions  # noqa: PLC0415

    loaded = _load(config)
    records = [
        record
        for record in asyncio.run(actions.sessions(loaded, subject))
        if device is None or record.device_id == device
    ]
    entries = _with_bindings(loaded, records, json_wanted=json_wanted)
    columns = ("id", "identity", "device_id", "bound_by", "created", "last_seen", "status")
    output.rows(columns, entries, json_wanted=json_wanted, empty="no sessions")


@session_app.command("show")
def session_show(
    session: WantedSession, config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False
) -> None:
    """One session."""
    from gateway.operations import actions  # noqa: PLC0415

    loaded = _load(config)
    record = asyncio.run(actions.session(loaded, session))
    output.facts(_with_bindings(loaded, [record], json_wanted=json_wanted)[0], json_wanted=json_wanted)


@session_app.command("revoke")
def session_revoke(
    session: WantedSession, why: WhyOption = "by the operator", config: ConfigOption = DEFAULT_CONFIG
) -> None:
    """End a session: at its next request, and on open connections."""
    from gateway.operations import actions  # noqa: PLC0415

    record = asyncio.run(actions.revoke_session(_load(config), session, why))
    output.say(f"session {record.id} of {record.identity or record.subject} is revoked")


def _with_bindings(config: Config, records: Sequence[SessionRecord], *, json_wanted: bool) -> list[dict[str, Any]]:
    """The records with what they are tied to; for people "token" where each token of a program says it anew."""
    from gateway.operations import actions  # noqa: PLC0415

    found = asyncio.run(actions.bindings(config, records))
    entries = []
    for record in records:
        bound: object = found[record.id]
        if not json_wanted:
            bound = "token" if found[record.id] is None else ", ".join(found[record.id] or ["nothing"])
        entries.append(_entry(record, json_wanted) | {"bound_by": bound})
    return entries


def _list(
    columns: Sequence[str], records: Sequence[DeviceRecord | SessionRecord], json_wanted: bool, empty: str
) -> None:
    output.rows(columns, [_entry(record, json_wanted) for record in records], json_wanted=json_wanted, empty=empty)


def _entry(record: DeviceRecord | SessionRecord, json_wanted: bool) -> dict[str, Any]:
    """A record for programs as it is; for people with readable times."""
    entry = asdict(record)
    if json_wanted:
        return entry
    entry.setdefault("status", "revoked" if record.revoked_at is not None else "active")
    times = [name for name in entry if name.endswith("_at")]
    return {name: value for name, value in entry.items() if name not in times} | {
        name.removesuffix("_at"): output.moment(entry[name]) for name in times
    }
