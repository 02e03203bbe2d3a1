"""docs/faults.md, written from the faults as their tests declare them.

`PYTHONPATH=. python tests/unit/fault_page.py` writes it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from fault_cases import CATALOGUE, CHAPTERS

FOLDER = Path(__file__).parent / "faults"
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
HEAD = """\
# Faults

What breaks on the build zone, how the line ends, and what people read. A fault of the line is never a pass: nothing is
sealed, signed or offered until the same commit was judged whole. Each row is a test in `tests/unit/faults`, with a real
registry, the real judge, the project's policies and the real seal; the scanner is real where the fault is its own. This
page is written from them (`PYTHONPATH=. python tests/unit/fault_page.py`), and a test compares the two.

| ends | what the line does | who goes on |
|---|---|---|
| FAILED | a signed verdict that says NO, with the reason and a remedy; nothing is released | the owner that the reason names; for the age of advisories alone, the line itself when the mirror has others |
| retried | no verdict; nothing is offered. The stage is tried up to three times more for a temporary error, then the commit is judged again every 30 s, until it has a verdict or a newer commit of its branch takes its place | the line, by itself; the pusher reads "The line itself has a fault, which is neither a yes nor a no", with the reason |
| not started | the zone's process ends with the reason in its log; pushes are stored and wait | the platform team |
| goes on | the run, or the next one, completes by itself | nobody |

From the scan on, a refusal is a fault and no NO: there the stages work on the line's own documents, and what does not
verify among them is not the developer's doing. A fault in the seal comes after the judge's signed PASSED. It may leave
a release in the registry that nobody is offered: an outer zone takes offers of the feed only, and the feed is written
last. The next run takes up what it finds and completes it; it does not make a second one.

What somebody without a key writes into the zone's registry changes nothing: records that a stage goes on from are
signed over their content, place and name (`sekisho/records.py`), verdicts are judged again and never read, statements
count by key, role, type and subject.
"""  # noqa: E501  (rows of a table)


def load() -> None:
    """Import every test of faults, so that all are declared."""
    for path in sorted(FOLDER.glob("test_*.py")):
        name = f"declared_{path.stem}"
        if path.stem == "test_catalogue" or name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def page() -> str:
    """Return the page's text."""
    load()
    parts = [HEAD]
    for chapter, title in CHAPTERS.items():
        rows = [found for found in CATALOGUE.values() if found[0].chapter == chapter]
        parts.append(f"\n## {title}\n\n| fault | ends | people read | what to do | test |\n|---|---|---|---|---|\n")
        parts += [
            f"| {fault.what} | {fault.ends} | {_said(fault.says)} | {fault.mend} | `{test}` |\n"
            for fault, test in sorted(rows, key=lambda found: found[0].name)
        ]
    return "".join(parts)


def _said(text: str) -> str:
    return f"“{text}”"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
