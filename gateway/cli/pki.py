"""`gateway pki ...`: the internal PKI; thin over `gateway.operations.pki`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from gateway.cli import output
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption, group, load_config
from gateway.operations.errors import ActionFailed

if TYPE_CHECKING:
    from gateway.config import Config

pki_app = group("The internal PKI: certificate authorities, server certificates, the revocation list.")

HostsOption = Annotated[list[str] | None, typer.Option("--host", help="A host name; by default all of the file's.")]
FolderOption = Annotated[Path | None, typer.Option("--dir", help="The PKI's folder; by default that of devices.ca.")]


@pki_app.command("init")
def pki_init(
    host: Annotated[list[str], typer.Option("--host", help="A host name for the server certificate.")],
    folder: Annotated[Path, typer.Option("--dir", help="A folder without a PKI.")] = Path("pki"),
) -> None:
    """Make a root, a device CA, a server CA, a server certificate and an empty revocation list."""
    from gateway.operations import pki  # noqa: PLC0415

    files = pki.make_pki(folder, host, pki.CRL_LIFE_S)
    output.note(f"[green]made[/] a PKI in {escape(str(files.folder))}")
    output.say(f"tls: [{{certificate: {files.server}, key: {files.server_key}}}]")
    output.say(f"devices: {{ca: {files.device_ca}, issuing_key: {files.device_key}, crl: {files.crl}}}")


@pki_app.command("server")
def pki_server(host: HostsOption = None, folder: FolderOption = None, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Make a new server certificate, for every host in the configuration or for those given."""
    from gateway.operations import pki  # noqa: PLC0415

    loaded = load_config(config)
    files = pki.new_server_certificate(_folder(loaded, folder), host or pki.hosts_of(loaded))
    output.note(f"[green]made[/] {escape(str(files.server))}")
    if files.server not in {item.certificate for item in loaded.tls}:
        output.note(f"[yellow]warning[/] `tls` does not name {escape(str(files.server))}")


@pki_app.command("crl")
def pki_crl(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Make a new revocation list when the present one is past half its life, missing or unusable."""
    from gateway.operations import pki  # noqa: PLC0415

    is_new = asyncio.run(pki.renew_crl(load_config(config)))
    output.say("a new revocation list was made" if is_new else "the revocation list is fresh")


@pki_app.command("show")
def pki_show(config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False) -> None:
    """The certificates that the configuration names."""
    from gateway.operations import pki  # noqa: PLC0415

    loaded = load_config(config)
    named = [item.certificate for item in loaded.tls] + ([loaded.devices.ca] if loaded.devices.ca else [])
    entries = pki.certificates(named)
    if not json_wanted:
        entries = [
            {**entry, "names": ", ".join(entry["names"]), "until": output.moment(entry["not_after"])}
            for entry in entries
        ]
    output.rows(("file", "subject", "names", "until"), entries, json_wanted=json_wanted, empty="no certificates")


def _folder(config: Config, folder: Path | None) -> Path:
    if folder is not None:
        return folder
    if config.devices.ca is None:
        raise ActionFailed("The configuration names no device CA.", "Name the PKI's folder with --dir.")
    return config.devices.ca.parent
