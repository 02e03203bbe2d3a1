"""The forms in which a verdict is given out: text for people, JSON as it is signed, SARIF for editors and CI."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from sekisho.model import Verdict
from sekisho.sarif import MEDIA_TYPE, to_sarif
from sekisho.verdict_rules import RULES, RuleText
from sekisho.verdict_text import verdict_lines

Form = Literal["text", "json", "sarif"]
FORMS: tuple[Form, ...] = ("text", "json", "sarif")
MEDIA_TYPES: Mapping[Form, str] = {
    "text": "text/plain; charset=utf-8",
    "json": "application/json",
    "sarif": MEDIA_TYPE,
}


def written(verdict: Verdict, form: Form, rules: Mapping[str, RuleText] = RULES, *, limit: int | None = None) -> bytes:
    """Return a verdict in one of its forms.

    Args:
        verdict: what the gate said.
        form: which form.
        rules: what the rules say of themselves, for SARIF.
        limit: the most lines of text; None for every rule.
    """
    match form:
        case "text":
            return "\n".join([*verdict_lines(verdict, limit=limit), ""]).encode()
        case "json":
            # Escaped: what strangers wrote must not steer the reader's terminal.
            return json.dumps(verdict.model_dump(mode="json"), indent=2, ensure_ascii=True).encode() + b"\n"
        case "sarif":
            return to_sarif(verdict, rules)
