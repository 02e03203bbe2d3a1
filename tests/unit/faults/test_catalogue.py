"""The page of faults says what the tests say."""

from __future__ import annotations

from fault_cases import CATALOGUE, CHAPTERS
from fault_page import PAGE, page


def test_the_page_is_what_the_tests_declare() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_chapter_has_faults_and_every_fault_says_its_reason() -> None:
    page()
    assert {fault.chapter for fault, _ in CATALOGUE.values()} == set(CHAPTERS)
    assert all(fault.what and fault.says and fault.mend for fault, _ in CATALOGUE.values())
    assert len(CATALOGUE) >= 30
