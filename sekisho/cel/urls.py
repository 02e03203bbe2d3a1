"""URLs: `url('https://example.com:8080/a?b=c')` and its parts.

Source: k8s.io/apiserver pkg/cel/library/urls.go, which stands on Go's net/url (parse, EscapedPath, Query, String), of
Go 1.26. A URL is read twice there: once as the target of a request, which decides whether it is one, and once with its
fragment, which decides what its parts are. Text is read as its UTF-8 bytes.
"""

# ruff: noqa: PLR2004 -- codes of characters

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sekisho.cel.declared import BOOL, STRING, Library, Overload, list_of
from sekisho.cel.opaque import EvaluationError, Kind, string, text_of, wrapped

_URL = Kind.URL.value
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
_SAFE = {
    "path": _UNRESERVED | frozenset(b"$&+,/:;=@"),
    "user": _UNRESERVED | frozenset(b"$&+,;="),
    "host": _UNRESERVED | frozenset(b"!$&'()*+,;=:[]<>\""),
    "fragment": _UNRESERVED | frozenset(b"$&+,/:;=?@!()*"),
    "query": _UNRESERVED,
}
"""What needs no percent sign in which part; Go's shouldEscape."""
_SUBDELIMS = frozenset(b"!$&'()*+,;=:@[]%")
_USERINFO = re.compile(rb"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")
_PORT = re.compile(rb"(:[0-9]*)?")
_MAX_PARAMETERS = 10_000
_ESCAPES = dict(zip('\a\b\f\n\r\t\v\\"', (f"\\{letter}" for letter in 'abfnrtv\\"'), strict=True))


class BadUrl(EvaluationError):
    """The text is no URL."""


@dataclass(frozen=True)
class Url:
    """The parts of a URL, as Go holds them."""

    scheme: bytes = b""
    opaque: bytes = b""
    user: tuple[bytes, bytes | None] | None = None
    host: bytes = b""
    path: bytes = b""
    raw_path: bytes = b""
    query: bytes = b""
    force_query: bool = False
    omit_host: bool = False
    fragment: bytes = b""
    raw_fragment: bytes = b""


def _unescaped(text: bytes, part: str) -> bytes:
    found = bytearray()
    place = 0
    while place < len(text):
        byte = text[place]
        if byte == ord("%"):
            code = text[place + 1 : place + 3]
            if not re.fullmatch(rb"[0-9A-Fa-f]{2}", code):
                raise BadUrl(f"invalid URL escape {_quoted(text[place : place + 3])}")
            value = int(code, 16)
            if part == "host" and value < 0x80 and code != b"25":
                raise BadUrl(f"invalid URL escape {_quoted(text[place : place + 3])}")
            if part == "zone" and code != b"25" and value != ord(" ") and value not in _SAFE["host"]:
                raise BadUrl(f"invalid URL escape {_quoted(text[place : place + 3])}")
            found.append(value)
            place += 3
            continue
        if part in {"host", "zone"} and byte < 0x80 and byte not in _SAFE["host"]:
            raise BadUrl(f"invalid character {_quoted(text[place : place + 1])} in host name")
        found.append(ord(" ") if byte == ord("+") and part == "query" else byte)
        place += 1
    return bytes(found)


def _quoted(text: bytes) -> str:
    """Return text as Go's %q prints it."""
    return '"' + "".join(map(_quoted_character, text.decode(errors="surrogateescape"))) + '"'


def _quoted_character(character: str) -> str:
    code = ord(character)
    if character in _ESCAPES:
        return _ESCAPES[character]
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character == " " or character.isprintable():
        return character
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escaped(text: bytes, part: str) -> bytes:
    safe = _SAFE[part]
    return b"".join(bytes([byte]) if byte in safe else b"%%%02X" % byte for byte in text)


def _raw(text: bytes, part: str) -> tuple[bytes, bytes]:
    """Return a part without percent signs, and as it was written where that cannot be told from it."""
    plain = _unescaped(text, part)
    return plain, b"" if _escaped(plain, part) == text else text


def _written(plain: bytes, raw: bytes, part: str) -> bytes:
    valid = raw and all(byte in _SUBDELIMS or byte in _SAFE[part] for byte in raw)
    return raw if valid else _escaped(plain, part)


def _scheme(text: bytes) -> tuple[bytes, bytes]:
    match = re.match(rb"[A-Za-z][A-Za-z0-9+\-.]*:", text)
    if match is not None:
        return match[0][:-1].lower(), text[match.end() :]
    if text.startswith(b":"):
        raise BadUrl("missing protocol scheme")
    return b"", text


def _bracketed(host: bytes) -> bytes:
    close = host.rfind(b"]")
    if close < 0:
        raise BadUrl("missing ']' in host")
    port = host[close + 1 :]
    if not _PORT.fullmatch(port):
        raise BadUrl(f"invalid port {_quoted(port)} after host")
    inner = host[1:close]
    zone = inner.find(b"%25")
    if zone >= 0:
        name = _unescaped(inner[:zone], "host") + _unescaped(inner[zone:], "zone")
    else:
        name = _unescaped(inner, "host")
    try:
        found = ipaddress.ip_address(name.decode())
    except ValueError as error:
        raise BadUrl("invalid host: ParseAddr") from error
    if found.version == 4:
        raise BadUrl("invalid IP-literal")
    return b"[" + name + b"]" + _unescaped(port, "host")


def _host(scheme: bytes, host: bytes) -> bytes:
    bracket = host.rfind(b"[")
    if bracket > 0:
        raise BadUrl("invalid IP-literal")
    if bracket == 0:
        return _bracketed(host)
    colon = host.find(b":") if scheme in {b"http", b"https"} else host.rfind(b":")
    if colon >= 0 and not _PORT.fullmatch(host[colon:]):
        raise BadUrl(f"invalid port {_quoted(host[colon:])} after host")
    return _unescaped(host, "host")


def _authority(scheme: bytes, authority: bytes) -> tuple[tuple[bytes, bytes | None] | None, bytes]:
    info, at, host = authority.rpartition(b"@")
    found = _host(scheme, host)
    if not at:
        return None, found
    if not _USERINFO.fullmatch(info):
        raise BadUrl("net/url: invalid userinfo")
    name, colon, password = info.partition(b":")
    return (_unescaped(name, "user"), _unescaped(password, "user") if colon else None), found


def _parsed(text: bytes, *, request: bool) -> Url:
    if any(byte < 0x20 or byte == 0x7F for byte in text):
        raise BadUrl("net/url: invalid control character in URL")
    if not text and request:
        raise BadUrl("empty url")
    if text == b"*":
        return Url(path=b"*")
    scheme, rest = _scheme(text)
    force = rest.endswith(b"?") and rest.count(b"?") == 1
    rest, _, query = rest.partition(b"?")
    if not rest.startswith(b"/"):
        if scheme:
            return Url(scheme=scheme, opaque=rest, query=query, force_query=force)
        if request:
            raise BadUrl("invalid URI for request")
        if b":" in rest.partition(b"/")[0]:
            raise BadUrl("first path segment in URL cannot contain colon")
    user, host, omit = None, b"", False
    if (scheme or (not request and not rest.startswith(b"///"))) and rest.startswith(b"//"):
        authority, slash, rest = rest[2:].partition(b"/")
        rest = slash + rest
        user, host = _authority(scheme, authority)
    elif scheme and rest.startswith(b"/"):
        omit = True
    path, raw = _raw(rest, "path")
    return Url(scheme, b"", user, host, path, raw, query, force, omit)


def request_error(text: str) -> str:
    """Return what Go says of a text that is no URL of a request; nothing when it is one."""
    try:
        _parsed(text.encode(), request=True)
    except BadUrl as error:
        return f"parse {_quoted(text.encode())}: {error}"
    return ""


@lru_cache(maxsize=1024)
def parsed(text: str) -> Url:
    """Read a URL.

    Raises:
        EvaluationError: it is none.
    """
    if problem := request_error(text):
        raise EvaluationError(f"URL parse error during conversion from string: {problem}")
    before, _, fragment = text.encode().partition(b"#")
    found = _parsed(before, request=False)
    if not fragment:
        return found
    plain, raw = _raw(fragment, "fragment")
    return Url(**{**found.__dict__, "fragment": plain, "raw_fragment": raw})


# -- parts -------------------------------------------------------------------------------------------------------------


def _split(host: bytes) -> tuple[bytes, bytes]:
    before, colon, port = host.rpartition(b":")
    name = host
    if colon and _PORT.fullmatch(b":" + port):
        name = before
    else:
        port = b""
    if name.startswith(b"[") and name.endswith(b"]"):
        name = name[1:-1]
    return name, port


def _path(url: Url) -> bytes:
    return b"*" if url.path == b"*" and not url.raw_path else _written(url.path, url.raw_path, "path")


def _query(url: Url) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if url.query.count(b"&") + 1 > _MAX_PARAMETERS:
        return found
    for pair in url.query.split(b"&"):
        key, _, value = pair.partition(b"=")
        if not pair or b";" in pair:
            continue
        try:
            name, text = _unescaped(key, "query"), _unescaped(value, "query")
        except BadUrl:
            continue
        found.setdefault(_decoded(name), []).append(_decoded(text))
    return found


def _decoded(text: bytes) -> str:
    """Return text that an expression can hold.

    Raises:
        EvaluationError: it is not Unicode, or has a zero byte; the API server would go on with bytes that are no text.
    """
    try:
        found = text.decode()
    except UnicodeDecodeError as error:
        raise EvaluationError("a part of the URL is not Unicode") from error
    if "\0" in found:
        raise EvaluationError("a part of the URL holds a zero byte")
    return found


def _text(url: Url) -> bytes:
    found = url.scheme + b":" if url.scheme else b""
    if url.opaque:
        found += url.opaque
    else:
        if (url.scheme or url.host or url.user) and not (url.omit_host and not url.host and url.user is None):
            if url.host or url.path or url.user is not None:
                found += b"//"
            if url.user is not None:
                name, password = url.user
                found += _escaped(name, "user")
                found += b"" if password is None else b":" + _escaped(password, "user")
                found += b"@"
            found += _escaped(url.host, "host")
        path = _path(url)
        found += b"/" if path and not path.startswith(b"/") and url.host else b""
        found += b"./" if not found and b":" in path.partition(b"/")[0] else b""
        found += path
    found += b"?" + url.query if url.force_query or url.query else b""
    return found + (b"#" + _written(url.fragment, url.raw_fragment, "fragment") if url.fragment else b"")


def _get(value: Any) -> Url:
    return parsed(text_of(value, Kind.URL))


def _read(value: Any) -> bytearray:
    parsed(string(value))
    return wrapped(Kind.URL, value)


def equal(one: Any, other: Any) -> bool:
    """Tell whether two URLs are written the same in Go's own form."""
    return _text(_get(one)) == _text(_get(other))


def _member(id_: str, result: str = STRING) -> tuple[Overload, ...]:
    return (Overload(id_, (_URL,), result, member=True),)


LIBRARY = Library(
    "urls",
    {
        "url": (Overload("string_to_url", (STRING,), _URL),),
        "isURL": (Overload("is_url_string", (STRING,), BOOL),),
        "getScheme": _member("url_get_scheme"),
        "getHost": _member("url_get_host"),
        "getHostname": _member("url_get_hostname"),
        "getPort": _member("url_get_port"),
        "getEscapedPath": _member("url_get_escaped_path"),
        "getQuery": _member("url_get_query", f"map({STRING}, {list_of(STRING)})"),
    },
    {
        "string_to_url": _read,
        "is_url_string": lambda text: not request_error(string(text)),
        "url_get_scheme": lambda one: _decoded(_get(one).scheme),
        "url_get_host": lambda one: _decoded(_get(one).host),
        "url_get_hostname": lambda one: _decoded(_split(_get(one).host)[0]),
        "url_get_port": lambda one: _decoded(_split(_get(one).host)[1]),
        "url_get_escaped_path": lambda one: _decoded(_path(_get(one))),
        "url_get_query": lambda one: _query(_get(one)),
    },
)
