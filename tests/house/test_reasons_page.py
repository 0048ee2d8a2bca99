import runpy

from gateway.core.reasons import REASONS
from tests.support.paths import ROOT

DOCS = ROOT / "docs"


def test_the_page_of_reasons_is_the_table_of_reasons() -> None:
    page = (DOCS / "reasons.md").read_text(encoding="utf-8")
    for entry in REASONS.values():
        assert f"| `{entry.code}` | {entry.status} | {entry.what} | {entry.fix} |" in page
    assert page == runpy.run_path(str(DOCS / "make_reasons.py"))["page"](), "run: python docs/make_reasons.py"
