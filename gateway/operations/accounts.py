"""What an operator can do to a person's account: lock it and end everything, unlock it, take its second factors away.

Law: the sessions here end first, whatever Zitadel says. No printing here.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import dataclass

from gateway.audit.decision_log import FileRecorder
from gateway.config import Config, ConfigError, Issuer
from gateway.core.factors import FactorOwner
from gateway.identity.factors.store import Factors
from gateway.identity.reactions import Reactions
from gateway.identity.sessions.login_sessions import LoginSessions
from gateway.identity.zitadel.access import ApiFailure
from gateway.identity.zitadel.api import Zitadel
from gateway.operations.errors import ActionFailed
from gateway.operations.opened_state import opened
from gateway.wiring import State
from gateway.wiring.issuers import known_issuers

_TEXT_LIMIT = 256


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What was done. `account` is "locked", "unlocked" or, where Zitadel did not do it, "failed" or "pending".

    After a reset of the second factors it is "reset", or "unchanged" for somebody who had none. "pending": a gateway
    that runs goes on trying. `trouble` says why; `unrecorded` why the record has no line.
    """

    issuer: str
    subject: str
    account: str
    sessions_ended: int = 0
    trouble: str = ""
    unrecorded: str = ""

    @property
    def is_done(self) -> bool:
        """Whether everything that was asked for is done."""
        return self.account in {"locked", "unlocked", "reset", "unchanged"} and not self.unrecorded


async def lock(config: Config, issuer: str, subject: str, why: str) -> AccountChange:
    """End all of a person's sessions here, then lock the account at Zitadel. Raises ActionFailed and StoreDown."""
    provider = _issuer(config, issuer)
    async with opened(config) as state, contextlib.AsyncExitStack() as undo:
        logins = _logins(config, state)
        api = _api(config, provider, undo)
        if isinstance(api, str):
            ended = await logins.end_login_sessions(provider.issuer, subject=subject, why=why)
            done = AccountChange(provider.issuer, subject, "failed", ended, api)
        else:
            reactions = Reactions(logins, state.store, state.documents, {provider.issuer: api}, time.time)
            ended, failure = await reactions.lock(provider.issuer, subject, why)
            done = AccountChange(
                provider.issuer, subject, "locked" if failure is None else "pending", ended, _words(failure)
            )
        return _recorded(config, done, "user_lock", why)


async def unlock(config: Config, issuer: str, subject: str, why: str) -> AccountChange:
    """Unlock the account at Zitadel; what ended stays ended. Raises ActionFailed and StoreDown."""
    provider = _issuer(config, issuer)
    async with opened(config) as state, contextlib.AsyncExitStack() as undo:
        api = _api(config, provider, undo)
        if isinstance(api, str):
            raise ActionFailed(f"The account cannot be unlocked: {api}", "Unlock it in Zitadel's console.")
        reactions = Reactions(_logins(config, state), state.store, state.documents, {provider.issuer: api}, time.time)
        failure = await reactions.unlock(provider.issuer, subject)
        account = "unlocked" if failure is None else "failed"
        return _recorded(
            config, AccountChange(provider.issuer, subject, account, 0, _words(failure)), "user_unlock", why
        )


async def reset_factors(config: Config, issuer: str, subject: str, why: str) -> AccountChange:
    """Remove all second factors of a person who has lost them, and end their sessions here: they enrol anew.

    Raises ActionFailed and StoreDown.
    """
    provider = _issuer(config, issuer)
    async with opened(config) as state:
        had_factors = await Factors(state.documents, {}, time.time).forget(FactorOwner(provider.issuer, subject))
        ended = await _logins(config, state).end_login_sessions(provider.issuer, subject=subject, why=why)
        done = AccountChange(provider.issuer, subject, "reset" if had_factors else "unchanged", ended)
        return _recorded(config, done, "user_reset_factors", why)


def _issuer(config: Config, wanted: str) -> Issuer:
    providers = [provider for provider in config.issuers if wanted in {provider.issuer, provider.slug}]
    if len(providers) != 1:
        known = ", ".join(provider.issuer for provider in config.issuers) or "none"
        raise ActionFailed(f"There is no issuer `{wanted}`.", f"The configuration names: {known}.")
    return providers[0]


def _logins(config: Config, state: State) -> LoginSessions:
    sessions = config.sessions
    return LoginSessions(
        state.documents,
        state.store,
        time.time,
        secrets.token_urlsafe,
        idle_s=sessions.idle_s,
        absolute_s=sessions.absolute_s,
    )


def _api(config: Config, issuer: Issuer, undo: contextlib.AsyncExitStack) -> Zitadel | str:
    """The way into Zitadel's API, or why there is none. A secret that is gone must not keep the sessions alive."""
    try:
        api = next(one.api for one in known_issuers(config, undo) if one.config.issuer == issuer.issuer)
    except ConfigError as error:
        return "; ".join(problem.message for problem in error.problems)
    except (OSError, ValueError) as error:
        return str(error)
    return api if api is not None else "the configuration has no `zitadel` token or key for this issuer"


def _words(failure: ApiFailure | None) -> str:
    return "" if failure is None else f"{failure.kind}: {failure.detail}".removesuffix(": ")


def _recorded(config: Config, done: AccountChange, action: str, why: str) -> AccountChange:
    """The change, with its line in the record."""
    event = {
        "v": 1,
        "ts": time.time(),
        "operator": action,
        "issuer": done.issuer[:_TEXT_LIMIT],
        "subject": done.subject[:_TEXT_LIMIT],
        "why": why[:_TEXT_LIMIT],
        "account": done.account,
        "sessions_ended": done.sessions_ended,
    }
    try:
        recorder = FileRecorder(config.record.file)
        try:
            recorder.record(event | ({"detail": done.trouble[:_TEXT_LIMIT]} if done.trouble else {}))
        finally:
            recorder.close()
    except OSError as error:
        told = error.strerror or "it cannot be written"
        return AccountChange(done.issuer, done.subject, done.account, done.sessions_ended, done.trouble, told)
    return done
