"""A pipeline of ports that a test names one by one."""

from __future__ import annotations

import dataclasses
from typing import Any

from gateway.pipeline.conclusion import Conclusion
from gateway.pipeline.pipeline import Admission, Pipeline
from gateway.pipeline.stages import StagePorts


def _names(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def pipeline_of(**settings: Any) -> Pipeline:
    """The real pipeline; each setting is a field of it, or of its stage ports, admission or conclusion."""

    def settings_of(kind: Any) -> dict[str, Any]:
        return {name: settings.pop(name) for name in _names(kind) & settings.keys()}

    ports = StagePorts(**settings_of(StagePorts))
    admission = Admission(**settings_of(Admission))
    conclusion = Conclusion(ports=ports, is_interactive=settings.get("starter") is not None, **settings_of(Conclusion))
    return Pipeline(ports=ports, admission=admission, conclusion=conclusion, **settings)
