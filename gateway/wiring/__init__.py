"""The only composition root: a configuration becomes a gateway. One generation is built whole, or not at all."""

from gateway.wiring.generation import Gateway, watched_paths
from gateway.wiring.shared import Keeper, Shared, enrolment_of, open_store

__all__ = ["Gateway", "Keeper", "Shared", "enrolment_of", "open_store", "watched_paths"]
