"""Interaction: the gateway's own answer to a request, a person who has something to do first, a held request's return.

Every edge hands a verdict that is not yet an answer to `answer`, with the request's body as a whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.core.capabilities import EdgeCapabilities
from gateway.core.navigation import Redirect, Resume
from gateway.core.ports.stores import StoreDown
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RawRequest, RequestFacts
from gateway.core.subject import Device
from gateway.pipeline.conclusion import Conclusion
from gateway.pipeline.headers import Forward
from gateway.pipeline.verdicts import InteractionRequired, InteractionStarter, LocalRequest, Verdict
from gateway.replies.replies import Reply, redirect


class LocalEndpoints(Protocol):
    """The gateway's own endpoints."""

    async def answer(self, facts: RequestFacts, device: Device | None, body: bytes) -> Reply | Resume:
        """The reply, or the held request that goes on in place of this one. Raises whatever an endpoint raises."""


class Judge(Protocol):
    """What this module asks of the pipeline."""

    @property
    def interaction(self) -> Interaction:
        """Starts interactions and bounds local answers."""

    async def judge(
        self, raw: RawRequest, peer: Peer, capabilities: EdgeCapabilities, flaw: Refusal | None = None
    ) -> Verdict:
        """The verdict on one request."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What becomes of a request: it goes on with `body`, or gets a reply. `is_resumed`: it is a held one by now."""

    verdict: Forward | Reply
    body: bytes
    is_resumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """Starts interactions, None of them where nobody can sign in, and bounds the gateway's own answers in time."""

    conclusion: Conclusion
    starter: InteractionStarter | None
    deadline_s: float

    async def start(self, required: InteractionRequired, body: bytes | None) -> Reply:
        """Send a person to do what is required, while the request waits; its own reply where it cannot. Never raises.

        `body` None: it is not there as a whole.
        """
        if self.starter is None:
            return required.reply
        return await self.answer_locally(self._start(self.starter, required, body), required.facts)

    async def answer_locally[T](self, work: Awaitable[T], facts: RequestFacts) -> T | Reply:
        """An answer of the gateway's own; whatever fails on the way to it is a denial. Never raises."""
        try:
            async with asyncio.timeout(self.deadline_s):
                return await work
        except StoreDown:
            return self.conclusion.refuse(facts, "store_down")
        except TimeoutError:  # an OSError as well, and not the record's
            return self.conclusion.refuse(facts, "gateway_error")
        except OSError:
            return self.conclusion.refuse(facts, "record_unavailable")
        except Exception:  # noqa: BLE001  (whatever an endpoint raises is a denial)
            return self.conclusion.refuse(facts, "gateway_error")

    async def _start(self, starter: InteractionStarter, required: InteractionRequired, body: bytes | None) -> Reply:
        facts, reasons = required.facts, required.reasons
        started = await starter.start(
            facts, required.route, body, fresh=required.fresh, step_up=required.step_up, reasons=reasons
        )
        if isinstance(started, Redirect):
            return redirect(started.location, reasons[0], required.decision_id, started.cookies)
        if started.reason == "login_required":
            return required.reply
        return self.conclusion.refuse(facts, started.reason, required.decision_id)


async def answer(
    pipeline: Judge,
    endpoints: LocalEndpoints,
    verdict: LocalRequest | InteractionRequired,
    body: bytes,
    peer: Peer,
    capabilities: EdgeCapabilities,
) -> Answered:
    """What becomes of a request whose body is there as a whole. A held request that returns is judged anew.

    Never raises.
    """
    interaction, outcome = pipeline.interaction, verdict
    added: tuple[tuple[str, str], ...] = ()
    is_resumed = False
    judged: Verdict = verdict
    if isinstance(outcome, LocalRequest):
        work = endpoints.answer(outcome.facts, outcome.device, body)
        local = await interaction.answer_locally(work, outcome.facts)
        if isinstance(local, Resume):
            is_resumed, body, added = True, local.body, local.added
            judged = await pipeline.judge(local.raw, peer, capabilities)
        else:
            judged = local
    if isinstance(judged, InteractionRequired):
        judged = await interaction.start(judged, body)
    if isinstance(judged, LocalRequest):
        # A held request is a service's: one that came back as ours has no service any more.
        judged = interaction.conclusion.refuse(judged.facts, "gateway_error")
    if isinstance(judged, Forward):
        return Answered(replace(judged, added=(*judged.added, *added)), body, is_resumed)
    return Answered(judged.with_fields(*added), body, is_resumed)
