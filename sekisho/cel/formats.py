"""Named formats: `format.dns1123Label().validate(text)` gives nothing, or what is wrong with a text.

Source: k8s.io/apiserver pkg/cel/library/format.go, with the rules and the words of k8s.io/apimachinery
(pkg/api/validate/content, pkg/util/validation) and k8s.io/kube-openapi (pkg/validation/strfmt).
"""

# ruff: noqa: PLR2004 -- parts of a text

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

from sekisho.cel.declared import STRING, Library, Overload, list_of, optional
from sekisho.cel.opaque import Kind, string, text_of, wrapped
from sekisho.cel.urls import request_error

_FORMAT = Kind.FORMAT.value
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = _LABEL + "(\\." + _LABEL + ")*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_ENDS = "and must start and end with an alphanumeric character"
_KEY_WORDS = f"must consist of alphanumeric characters, '-', '_' or '.', {_ENDS}"
_UUID = re.compile(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.ASCII)
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_TIME = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))", re.ASCII)


def _pattern(words: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{words} (e.g. {shown}regex used for validation is '{pattern}')"


def _long(text: str, limit: int, unit: str) -> list[str]:
    return [f"must be no more than {limit} {unit}"] if len(text.encode()) > limit else []


def _is_label(text: str) -> bool:
    return re.fullmatch(r"[-a-z0-9]+", text, re.ASCII) is not None and text[0] != "-" != text[-1]


def _is_subdomain(text: str) -> bool:
    return all(map(_is_label, text.split(".")))


def _is_key(text: str) -> bool:
    return re.fullmatch(r"[-A-Za-z0-9_.]+", text, re.ASCII) is not None and not {text[0], text[-1]} & set("-_.")


def _label(text: str) -> list[str]:
    found = _long(text, 63, "characters")
    if _is_label(text):
        return found
    words = f"a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', {_ENDS}"
    dots = _is_subdomain(text)
    return [*found, "must not contain dots" if dots else _pattern(words, _LABEL, "my-name", "123-abc")]


def _subdomain(text: str, unit: str = "characters") -> list[str]:
    words = f"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', {_ENDS}"
    found = _long(text, 253, unit)
    return found if _is_subdomain(text) else [*found, _pattern(words, _SUBDOMAIN, "example.com")]


def _label_1035(text: str) -> list[str]:
    words = (
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
        "start with an alphabetic character, and end with an alphanumeric character"
    )
    found = _long(text, 63, "characters")
    good = _is_label(text) and not text[0].isdigit()
    return found if good else [*found, _pattern(words, _LABEL_1035, "my-name", "abc-123")]


def _qualified(text: str) -> list[str]:
    form = _pattern(_KEY_WORDS, _KEY, "MyName", "my.name", "123-abc")
    parts = text.split("/")
    if len(parts) > 2:
        return [f"a valid label key {form} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    name = parts[-1]
    found = []
    if len(parts) == 2:
        wrong = _subdomain(parts[0], "bytes") if parts[0] else ["must be non-empty"]
        found = [f"prefix part {word}" for word in wrong]
    if not name:
        found.append("name part must be non-empty")
    found += [f"name part {word}" for word in _long(name, 63, "bytes")]
    return found if _is_key(name) else [*found, f"name part {form}"]


def _label_value(text: str) -> list[str]:
    words = f"a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', {_ENDS}"
    found = _long(text, 63, "bytes")
    good = not text or _is_key(text)
    return found if good else [*found, _pattern(words, f"({_KEY})?", "MyValue", "my_value", "12345")]


def _prefix(check: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """Return a check of a text to which something will be added: a dash at its end does no harm."""

    def checked(text: str) -> list[str]:
        # The letter before the dash goes as well; that is how it is there, and it is about bytes.
        if len(text.encode()) > 1 and text.endswith("-"):
            text = text.encode()[:-2].decode(errors="replace") + "a"
        return check(text)

    return checked


def _is_date(text: str) -> bool:
    if _DATE.fullmatch(text) is None:
        return False
    year = int(text[:4])
    try:
        # A year of the same length stands for the year 0, which Python does not have.
        dt.date(year or 4, int(text[5:7]), int(text[8:]))
    except ValueError:
        return False
    return True


def _is_datetime(text: str) -> bool:
    parts = text.lower().split("t")
    if len(text.encode()) < 4 or len(parts) < 2 or not _is_date(parts[0]):
        return False
    match = _TIME.fullmatch(parts[1])
    return match is not None and match[1] <= "23" and match[2] <= "59" and match[3] <= "59"


def _unless(good: Callable[[str], bool], words: str) -> Callable[[str], list[str]]:
    return lambda text: [] if good(text) else [words]


FORMATS: dict[str, Callable[[str], list[str]]] = {
    "dns1123Label": _label,
    "dns1123Subdomain": _subdomain,
    "dns1035Label": _label_1035,
    "qualifiedName": _qualified,
    "dns1123LabelPrefix": _prefix(_label),
    "dns1123SubdomainPrefix": _prefix(_subdomain),
    "dns1035LabelPrefix": _prefix(_label_1035),
    "labelValue": _label_value,
    "uri": lambda text: [problem] if (problem := request_error(text)) else [],
    "uuid": _unless(lambda text: _UUID.fullmatch(text) is not None, "does not match the UUID format"),
    "byte": _unless(lambda text: _BASE64.fullmatch(text) is not None, "invalid base64"),
    "date": _unless(_is_date, "invalid date"),
    "datetime": _unless(_is_datetime, "invalid datetime"),
}


def _validated(value: Any, text: Any) -> list[str]:
    return FORMATS[text_of(value, Kind.FORMAT)](string(text))


def _named(name: Any) -> bytearray:
    """Return a format, and nothing for a name that there is not: of that the evaluator makes an optional value."""
    return wrapped(Kind.FORMAT, name) if string(name) in FORMATS else bytearray()


def _constant(name: str) -> Callable[[], bytearray]:
    return lambda: wrapped(Kind.FORMAT, name)


def equal(one: Any, other: Any) -> bool:
    """Tell whether two formats are the same."""
    return text_of(one, Kind.FORMAT) == text_of(other, Kind.FORMAT)


LIBRARY = Library(
    "formats",
    {
        "format.named": (Overload("format-named", (STRING,), optional(_FORMAT)),),
        "validate": (Overload("format-validate", (_FORMAT, STRING), optional(list_of(STRING)), member=True),),
        **{f"format.{name}": (Overload(f"format.{name}", (), _FORMAT),) for name in FORMATS},
    },
    {
        "format-named": _named,
        "format-validate": _validated,
        **{f"format.{name}": _constant(name) for name in FORMATS},
    },
)
OPTIONAL = frozenset({"format-named", "format-validate"})
"""Overloads whose empty result stands for no value."""
