"""The part of `gateway check` that looks at a Redis: it is there, keeps what it is given, and is the one we know."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from gateway.adapters.redis.opening import inspect_redis
from gateway.adapters.sealing import read_or_make_master_key
from gateway.cli.check.files import Finding
from gateway.config import Config, ConfigError
from gateway.core.ports.stores import StoreDown, StoreLost
from gateway.wiring import MASTER_KEY

_PLACE = ("store",)
_HOW = "docs/several-machines.md says what Redis needs"


async def store(config: Config) -> Sequence[Finding]:
    """The gateway could use the Redis; what could be lost there is a warning."""
    if config.store.kind != "redis":
        return []
    path = config.state / MASTER_KEY
    try:
        # A machine without a key makes one as it starts: no store that has begun takes it.
        key = read_or_make_master_key(path) if path.exists() else secrets.token_bytes(32)
        weaknesses = await inspect_redis(config.store, key, config.state)
    except StoreLost as error:
        return [Finding(_PLACE, f"Everything is refused: {error}.", "Restore it from a copy, or do as that file says.")]
    except StoreDown as error:
        return [Finding(_PLACE, f"The state cannot be used: {error}.", f"Start Redis, or correct this; {_HOW}.")]
    except (OSError, ValueError) as error:
        return [Finding(_PLACE, f"The state cannot be used: {error}.", f"Correct the file; {_HOW}.")]
    except ConfigError:
        return []  # told by the check of secrets
    return [Finding(_PLACE, weakness.what, weakness.fix, is_warning=True) for weakness in weaknesses]
