"""A sign-in world with second factors: a real store, the real plugins, a security key in software."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyotp

from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.core.decision import StepUp
from gateway.core.navigation import Redirect
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.identity.account.factors import FactorChanged, Overview, OwnFactors
from gateway.identity.account.step_up import StepUpPrompt, StepUps
from gateway.identity.factors.store import Factors
from plugins.factors import builtin
from tests.support.login_world import HOST, WIKI, WIKI_ROUTE, Browser, Worker, World, origin
from tests.support.webauthn_authenticator import Authenticator

STEP_UP_PAGE, FACTORS_PAGE = f"{origin(HOST)}/.gateway/step-up", f"{origin(HOST)}/.gateway/factors"
OWN = {"origin": origin(HOST), "sec_fetch_site": "same-origin", "content_type": "application/x-www-form-urlencoded"}
ANY = StepUp(("otp", "recovery", "user"), 900)


class StepUpWorld(World):
    """One worker."""

    def __init__(self, folder: Path, *, closed: tuple[str, ...] = (), **more: Any) -> None:
        super().__init__(folder, **more)
        self.documents = SqliteDocuments(self.store)
        Worker.__init__(self, self)
        self.factors = Factors(self.documents, builtin("Example", HOST, [origin(HOST)]), self.clock)
        self.step_ups = StepUps(
            self.factors,
            self.documents,
            self.logins,
            self.cookies,
            self.held,
            self.handover,
            self.own,
            host=HOST,
            clock=self.clock,
            closed=closed,
        )
        self.own_factors = OwnFactors(
            self.factors, self.step_ups, self.login, self.held, self.handover, self.own, self.clock
        )

    async def demand(
        self,
        browser: Browser,
        demand: StepUp = ANY,
        url: str = f"https://{WIKI}/export?x=1",
        route: Route = WIKI_ROUTE,
        body: bytes = b"",
        **request: str,
    ) -> str:
        """Policy answers `step_up`: where the browser is sent."""
        facts = browser.facts(url, **request)
        way = await self.login.start(facts, route, body, step_up=demand, reasons=("mfa_required",))
        assert isinstance(way, Redirect), way
        browser.keep(facts.host, way.cookies)
        return way.location


class Person:
    """Somebody with an app, a security key and paper, at a browser that is signed in."""

    def __init__(self, world: StepUpWorld, browser: Browser) -> None:
        self.world, self.browser = world, browser
        self.key = Authenticator(origin=origin(HOST))
        self.secret = ""
        self.codes: list[str] = []

    def code(self) -> str:
        return pyotp.TOTP(self.secret).at(int(self.world.clock()))

    def remember(self, show: dict[str, Any]) -> None:
        self.secret = show.get("secret", self.secret)
        self.codes = list(show.get("codes", self.codes))

    def facts(self, url: str, **request: str) -> RequestFacts:
        return self.browser.facts(url, **request)

    def kept(self, outcome: Any) -> Any:
        redirect = outcome if isinstance(outcome, Redirect) else getattr(outcome, "redirect", None)
        if redirect is not None:
            self.browser.keep(HOST, redirect.cookies)
        return outcome

    # ---- the page of one's own factors ----

    async def look(self, url: str = FACTORS_PAGE) -> Any:
        return await self.world.own_factors.look(self.facts(url), self.browser.device)

    async def act(self, action: str, *, csrf: str | None = None, **form: str) -> Any:
        if csrf is None:
            overview = await self.look()
            assert isinstance(overview, Overview), overview
            csrf = overview.csrf
        facts = self.facts(FACTORS_PAGE, method="POST", **OWN)
        form |= {"csrf": csrf, "action": action}
        return self.kept(await self.world.own_factors.act(facts, self.browser.device, form))

    async def enrol(self, kind: str, held: str = "", label: str = "") -> Any:
        begun = await self.act("begin", kind=kind, held=held)
        assert isinstance(begun, Overview), begun
        assert begun.begun is not None, begun.error
        show = begun.document()["enrolment"]["show"]
        self.remember(show)
        outcome = await self.act(
            "finish", kind=kind, held=held, step=begun.begun.id, label=label, **self.enrolled(kind, show)
        )
        self.world.clock.pass_(30)
        return outcome

    def enrolled(self, kind: str, show: dict[str, Any]) -> dict[str, str]:
        """The field of a form that answers an enrolment."""
        if kind == "recovery":
            return {"saved": "true"}
        return {"code": self.code()} if kind == "totp" else {"answer": as_json(self.key.create(show))}

    def proof(self, kind: str, show: dict[str, Any]) -> dict[str, str]:
        """The field of a form that answers a challenge."""
        if kind == "recovery":
            return {"code": self.codes.pop()}
        return {"code": self.code()} if kind == "totp" else {"answer": as_json(self.key.get(show))}

    # ---- the step-up ----

    async def asked(self, url: str) -> Any:
        return await self.world.step_ups.look(self.facts(url), self.browser.device)

    async def answer(self, question: StepUpPrompt, **form: str) -> Any:
        assert question.begun is not None, question.error
        facts = self.facts(STEP_UP_PAGE, method="POST", **OWN)
        sent = {"csrf": question.csrf, "held": question.held.id, "kind": question.kind, "step": question.begun.id}
        sent |= form or self.proof(question.kind, dict(question.begun.show))
        return self.kept(await self.world.step_ups.answer(facts, self.browser.device, sent))

    async def prove(self, url: str) -> Any:
        question = await self.asked(url)
        assert isinstance(question, StepUpPrompt), question
        return await self.answer(question)


def as_json(value: Any) -> str:
    return json.dumps(value)


def added(outcome: Any) -> FactorChanged:
    assert isinstance(outcome, FactorChanged), outcome
    assert outcome.what == "added"
    return outcome
