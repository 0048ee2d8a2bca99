import runpy
from pathlib import Path

from gateway.core.reasons import REASONS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_reasons_is_the_table_of_reasons():
    page = (DOCS / "reasons.md").read_text(encoding="utf-8")
    for entry in REASONS.values():
        assert f"| `{entry.code}` | {entry.status} | {entry.what} | {entry.fix} |" in page
    assert page == runpy.run_path(str(DOCS / "make_reasons.py"))["page"](), "run: python docs/make_reasons.py"
