"""The only composition root: a configuration becomes a gateway. One generation is built whole, or not at all."""

from gateway.wiring.generation import Generation, watched_paths
from gateway.wiring.resources import MASTER_KEY, Housekeeping, ProcessResources, State, enrolment_of, open_state

__all__ = [
    "MASTER_KEY",
    "Generation",
    "Housekeeping",
    "ProcessResources",
    "State",
    "enrolment_of",
    "open_state",
    "watched_paths",
]
