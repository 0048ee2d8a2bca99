"""`gateway user …`: lock a person's account at Zitadel and end everything here; unlock it; reset second factors."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli import output
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption, WhyOption, group, load_config

if TYPE_CHECKING:
    from gateway.operations.accounts import AccountChange

user_app = group("People: lock an account and end its sessions, unlock it, reset its second factors.")

IssuerArgument = Annotated[str, typer.Argument(help="The person's issuer, as the configuration names it, or its slug.")]
SubjectArgument = Annotated[str, typer.Argument(help="The person's subject at this issuer (Zitadel's user id).")]


@user_app.command("lock")
def user_lock(
    issuer: IssuerArgument,
    subject: SubjectArgument,
    why: WhyOption,
    config: ConfigOption = DEFAULT_CONFIG,
    json_wanted: JsonOption = False,
) -> None:
    """End all of a person's sessions here, at once, and lock the account at Zitadel.

    The sessions end even when Zitadel cannot be asked; the exit code is 1 then, and a running gateway tries the lock
    again for a day.
    """
    from gateway.operations import accounts  # noqa: PLC0415

    _say(asyncio.run(accounts.lock(load_config(config), issuer, subject, why)), json_wanted=json_wanted, ended=True)


@user_app.command("unlock")
def user_unlock(
    issuer: IssuerArgument,
    subject: SubjectArgument,
    why: WhyOption,
    config: ConfigOption = DEFAULT_CONFIG,
    json_wanted: JsonOption = False,
) -> None:
    """Unlock an account at Zitadel; the person signs in anew."""
    from gateway.operations import accounts  # noqa: PLC0415

    _say(asyncio.run(accounts.unlock(load_config(config), issuer, subject, why)), json_wanted=json_wanted, ended=False)


@user_app.command("reset-factors")
def user_reset_factors(
    issuer: IssuerArgument,
    subject: SubjectArgument,
    why: WhyOption,
    config: ConfigOption = DEFAULT_CONFIG,
    json_wanted: JsonOption = False,
) -> None:
    """Remove all second factors of a person who has lost them, and end their sessions here.

    Make sure first that it is them: whoever signs in next as this person enrols the next factor.
    """
    from gateway.operations import accounts  # noqa: PLC0415

    done = asyncio.run(accounts.reset_factors(load_config(config), issuer, subject, why))
    _say(done, json_wanted=json_wanted, ended=True)


def _say(done: AccountChange, *, json_wanted: bool, ended: bool) -> None:
    if json_wanted:
        output.as_json(asdict(done))
    else:
        if ended:
            output.say(f"{done.sessions_ended} session{'' if done.sessions_ended == 1 else 's'} ended here")
        if done.account in {"reset", "unchanged"}:
            had = "are removed" if done.account == "reset" else "were none"
            output.say(f"the second factors of {done.subject} {had}")
        elif not done.trouble:
            output.say(f"the account {done.subject} is {done.account}")
    if done.trouble:
        fix = "A running gateway goes on trying; " if done.account == "pending" else ""
        output.fail(f"Zitadel did not do it: {done.trouble}", f"{fix}`gateway zitadel check` looks at the way there.")
    if done.unrecorded:
        output.fail(f"The record has no line of this: {done.unrecorded}")
    if not done.is_done:
        raise typer.Exit(1)
