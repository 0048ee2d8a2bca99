"""The folder that the command line's tests share."""

from tests.unit.cli.conftest import _made, no_surprises, site, upstream

__all__ = ["_made", "no_surprises", "site", "upstream"]
