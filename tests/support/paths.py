"""Where things stand in the source tree."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "policies"
TOOLS = ROOT / ".tools"
VECTORS = ROOT / "tests" / "vectors"
