"""What an edge can enforce: heads and bodies, in which direction, streamed or whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

type Direction = Literal["request", "response"]
# A body is transformed as it streams, or at once when all of it is there.
type BodyMode = Literal["stream", "whole"]


@dataclass(frozen=True, slots=True)
class EdgeCapabilities:
    """What one edge can do, handed to the pipeline with each request; `edge` is its name in the decision log.

    An obligation that needs more than this is `obligation_unsupported`, before anything is forwarded.
    """

    edge: str
    heads: frozenset[Direction] = frozenset()
    bodies: frozenset[tuple[Direction, BodyMode]] = frozenset()


ALL_HEADS: frozenset[Direction] = frozenset({"request", "response"})
ALL_BODIES: frozenset[tuple[Direction, BodyMode]] = frozenset(
    {("request", "stream"), ("request", "whole"), ("response", "stream"), ("response", "whole")}
)
NO_CAPABILITIES = EdgeCapabilities(edge="")
