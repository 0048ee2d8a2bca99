"""Operational log (structlog): JSON on stderr, or coloured lines at a terminal.

Its subject is the gateway (started, reloaded, a worker died), never a request. A bug is logged by its kind of error
and its place. Law: secrets are cut out by name and by shape; of a third-party library only the place is logged, because
its message may hold an address, a URL or a token.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_CUT = "[cut out]"
_SECRET_NAME = re.compile(
    r"authorization|cookie|token|secret|password|passwd|passphrase|assertion|dpop|private|credential|api.?key"
    r"|(?:^|_)(?:pin|otp|query|body|csr)$"
)
_SECRET_SHAPE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\beyJ[\w-]{4,}\.[\w-]*\.?[\w-]*"
    r"|\b(?:bearer|basic|dpop)\s+[\w.~+/=-]{8,}",
    re.IGNORECASE | re.DOTALL,
)
_OURS = ("gateway", "plugins", "__main__")


def configure(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Set up logging for this process, on stderr by default. Other libraries speak from WARNING on."""
    out = sys.stderr if stream is None else stream
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Both renderers get the traceback as text: the ones that show local variables would show secrets.
    render: Processor = structlog.dev.ConsoleRenderer() if out.isatty() else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                _only_the_place,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                cut_secrets,
                render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    # A line that cannot be written is lost; the standard complaint on stderr would quote it.
    logging.raiseExceptions = False
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a part of the gateway: `get("supervisor").info("reloaded", policy=...)`.

    Modules that may not import this one use `logging.getLogger(__name__)`; their lines come out the same way.
    """
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"gateway.{name}")
    return bound


def cut_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Cut out the values of secret names and whatever has the shape of a secret, at any depth."""
    return {name: _CUT if _SECRET_NAME.search(name.lower()) else _clean(value) for name, value in event.items()}


def _clean(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {
            str(name): _CUT if _SECRET_NAME.search(str(name).lower()) else _clean(below)
            for name, below in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(below) for below in value]
    return _SECRET_SHAPE.sub(_CUT, value if isinstance(value, str) else repr(value))


def _only_the_place(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    record: logging.LogRecord | None = event.get("_record")
    if record is None or record.name.split(".", 1)[0] in _OURS:
        return event
    problem = event.get("exc_info")
    kind = f": {problem[0].__name__}" if isinstance(problem, tuple) and problem[0] else ""
    return {
        "event": f"{record.name} at {record.module}:{record.lineno}{kind}",
        **{
            name: event[name]
            for name in ("level", "logger", "timestamp", "_record", "_from_structlog")
            if name in event
        },
    }
