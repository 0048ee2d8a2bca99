"""Identity: readers of tokens and cookies, login, sessions, and everything that ends a session."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.config import Config, resolve_secret
from gateway.core import paths
from gateway.core.ports.pipeline import IdentityReader, SessionBinder
from gateway.identity.account.factors import OwnFactors
from gateway.identity.account.sessions import OwnSessions
from gateway.identity.account.step_up import StepUps
from gateway.identity.bearer.access_tokens import TokenReader
from gateway.identity.bearer.dpop import Dpop
from gateway.identity.bearer.sessions import BearerSessions
from gateway.identity.factors.store import Factors
from gateway.identity.login.flow import Login
from gateway.identity.login.pending_requests import PendingRequests
from gateway.identity.login.return_ticket import ReturnTickets
from gateway.identity.oidc.backchannel_logout import LogoutReceiver
from gateway.identity.oidc.relying_party import RelyingParty, login_credential
from gateway.identity.reactions import Reactions
from gateway.identity.sessions.browser_sessions import BrowserSessions
from gateway.identity.sessions.cookies import BinderByKind, BrowserBinder, CookieReader
from gateway.identity.sessions.dbsc import Dbsc
from gateway.identity.sessions.login_sessions import LoginSessions
from gateway.identity.sessions.token_refresh import Refresher
from gateway.identity.ssf.events import EventSink
from gateway.identity.zitadel.reconcile import Reconciler, Round
from gateway.identity.zitadel.webhooks import EventActor, HookReceiver
from gateway.observability import log
from gateway.wiring.issuers import KnownIssuer, known_issuers
from gateway.wiring.resources import ProcessResources
from plugins.factors import builtin


@dataclass(frozen=True, slots=True)
class SignIns:
    """What the endpoints for a person with a browser need."""

    login: Login
    handover: ReturnTickets
    own: OwnSessions
    step_ups: StepUps
    factors: OwnFactors
    keys: Dbsc | None


@dataclass(frozen=True, slots=True)
class People:
    """Everything about people that a generation needs; `sign_ins` None: nobody can sign in with a browser."""

    readers: Sequence[IdentityReader]
    binder: SessionBinder
    logins: LoginSessions
    logouts: Mapping[str, LogoutReceiver]
    hooks: Mapping[str, HookReceiver]
    reactions: Reactions
    dpop: Dpop
    sign_ins: SignIns | None = None
    _reconcilers: Sequence[tuple[Reconciler, float]] = field(default=(), repr=False)

    def background(self) -> Sequence[Coroutine[Any, Any, None]]:
        """The loops that reconcile what pushes lose."""
        loops = [reconciler.run(_report, interval_s) for reconciler, interval_s in self._reconcilers]
        return [*loops, self.reactions.run()]


async def people_of(
    config: Config, shared: ProcessResources, tell: EventSink, undo: contextlib.AsyncExitStack
) -> People:
    """The people of a configuration. Raises ConfigError or ValueError; `undo` frees what they hold."""
    known = known_issuers(config, undo)
    tokens = TokenReader([issuer.trusted for issuer in known], time.time)
    undo.push_async_callback(tokens.close)
    logins = LoginSessions(
        shared.documents,
        shared.store,
        time.time,
        _random,
        idle_s=config.sessions.idle_s,
        absolute_s=config.sessions.absolute_s,
    )
    dpop = Dpop(shared.store, shared.store, origin=config.origin)
    bearer = BearerSessions(shared.store, dpop=dpop)
    logouts, hooks, reconcilers = _endings(known, logins, shared)
    locks = {issuer.config.issuer: issuer.api for issuer in known if issuer.api is not None}
    reactions = Reactions(logins, shared.store, shared.documents, locks, time.time, tell)
    parties = _parties(config, known)
    if not parties:
        return People((tokens,), bearer, logins, logouts, hooks, reactions, dpop, _reconcilers=reconcilers)
    by_issuer = {party.config.issuer: party for party in parties}
    cookies = BrowserSessions(shared.documents, time.time, _random)
    keys = None
    if config.sessions.dbsc:
        keys = Dbsc(
            shared.documents,
            cookies,
            logins,
            origin=config.origin,
            clock=time.time,
            random=_random,
            life_s=config.sessions.dbsc_s,
        )
    proofs = () if keys is None else (keys,)
    refresher = Refresher(logins, shared.documents, by_issuer, time.time, _random)
    undo.push_async_callback(refresher.close)
    return People(
        readers=(CookieReader(cookies, logins, refresher, by_issuer, time.time), tokens),
        binder=BinderByKind(BrowserBinder(logins, shared.store, time.time, proofs), bearer),
        logins=logins,
        logouts=logouts,
        hooks=hooks,
        reactions=reactions,
        dpop=dpop,
        sign_ins=_sign_ins(config, shared, parties, logins, cookies, keys),
        _reconcilers=reconcilers,
    )


def _sign_ins(
    config: Config,
    shared: ProcessResources,
    parties: Sequence[RelyingParty],
    logins: LoginSessions,
    cookies: BrowserSessions,
    keys: Dbsc | None,
) -> SignIns:
    """The parts of signing in, stepping up and looking after one's own sessions and factors."""
    host, own_origin, documents = config.host, config.origin(config.host), shared.documents
    pending = PendingRequests(documents, time.time, _random, config.origin)
    handover = ReturnTickets(
        documents, cookies, logins, pending, host=host, origin=config.origin, clock=time.time, random=_random
    )
    login = Login(
        parties,
        documents,
        pending,
        logins,
        cookies,
        handover,
        host=host,
        clock=time.time,
        random=_random,
        proofs=() if keys is None else (keys,),
    )
    by_issuer = {party.config.issuer: party for party in parties}
    own = OwnSessions(login, logins, cookies, by_issuer, shared.store, origin=own_origin, random=_random)
    factors = Factors(documents, builtin(config.name, host, [own_origin]), time.time)
    closed = [party.config.issuer for party in parties if not party.login.first_factor]
    step_ups = StepUps(
        factors, documents, logins, cookies, pending, handover, own, host=host, clock=time.time, closed=closed
    )
    own_factors = OwnFactors(factors, step_ups, login, pending, handover, own, time.time)
    return SignIns(login, handover, own, step_ups, own_factors, keys)


def _parties(config: Config, known: Sequence[KnownIssuer]) -> list[RelyingParty]:
    origin = config.origin(config.host)
    return [
        RelyingParty(
            issuer.config,
            issuer.trusted.directory,
            issuer.http,
            login_credential(issuer.config.login),
            f"{origin}{paths.CALLBACK}{issuer.config.slug}",
            time.time,
        )
        for issuer in known
        if issuer.config.login is not None
    ]


def _endings(
    known: Sequence[KnownIssuer], logins: LoginSessions, shared: ProcessResources
) -> tuple[dict[str, LogoutReceiver], dict[str, HookReceiver], list[tuple[Reconciler, float]]]:
    """What ends the sessions of each issuer: back-channel logout, webhooks, reconciliation."""
    logouts, hooks, reconcilers = {}, {}, []
    for issuer in known:
        config, documents = issuer.config, shared.documents
        if config.login is not None:
            logouts[config.slug] = LogoutReceiver(
                config, config.login.client_id, issuer.trusted.directory, logins, documents, time.time
            )
        if config.zitadel is None:
            continue
        actor = EventActor(config.issuer, logins, documents, time.time, issuer.api)
        keys = [resolve_secret(key).reveal().encode() for key in config.zitadel.webhook_keys]
        if keys:
            hooks[config.slug] = HookReceiver(keys, actor, time.time)
        if issuer.api is not None:
            reconciler = Reconciler(issuer.api, actor, logins, documents, logins, time.time, shared.name)
            reconcilers.append((reconciler, config.zitadel.reconcile_s))
    return logouts, hooks, reconcilers


def _report(done: Round) -> None:
    if done.trouble:
        log.get("people").warning("reconcile_failed", trouble=done.trouble)


def _random() -> str:
    return secrets.token_urlsafe(32)
