"""What the index proxy serves: which request means which path, what may be kept, and what must be said differently.

Pure. A tool follows the URLs in the pages that it is given, so those of packages are turned towards the proxy; a page
where that fails only names places that the sandbox cannot reach.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote, urljoin, urlsplit

from sekisho.errors import Refusal
from stages.build.indexes import ECOSYSTEMS, Indexes, check_path
from stages.build.language import Ecosystem

Kind = Literal["file", "page", "settings"]
"""A file, which is given on as it is; a page whose URLs are turned; cargo's settings, which the line itself writes."""

_SCOPE = re.compile(r"(@[^/]+)%2f(?=[^/]+$)", re.IGNORECASE)
_CARGO_SETTINGS = "index/config.json"
_NPM_FILE = "/-/"
_TARBALL = re.compile(rb'("tarball"\s*:\s*")(https?:[^"\s]{1,2000})(")')
_HREF = re.compile(r"""(<a\s(?:(?!<a\s)[^>])*?\bhref\s*=\s*)(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_PYPI_JSON = "application/vnd.pypi.simple.v1+json"
_NPM_SHORT = "application/vnd.npm.install-v1+json"
_JAVA_MOVES = re.compile(r"(.*/)?(maven-metadata[^/]*\.xml|[^/]*-SNAPSHOT/.*)(\.(sha1|md5|sha256|sha512))?")


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    ecosystem: Ecosystem
    path: str
    kind: Kind
    fixed: bool
    """Whether the ecosystem promises that these bytes never change, so that a copy may be given."""

    @property
    def key(self) -> str:
        """Name under which it is recorded."""
        return f"{self.ecosystem}/{self.path}"


def parse(target: str, served: Collection[str] = ECOSYSTEMS) -> Request:
    """Return what a request's target asks for.

    Args:
        target: the target as it came.
        served: the ecosystems that are served.

    Raises:
        Refusal: anything but a plain path of an index: another host, an escape, a query.
    """
    if not target.startswith("/") or len(target) > 2048 or not target.isascii():  # noqa: PLR2004
        raise Refusal("Only plain paths are served.")
    name, _, rest = target[1:].partition("/")
    ecosystem = next((item for item in ECOSYSTEMS if item == name and item in served), None)
    if ecosystem is None:
        raise Refusal("There is no such index.")
    if ecosystem == "npm":
        rest = _SCOPE.sub(r"\1/", rest)
    if "%2f" in rest.lower() or "?" in rest or "#" in rest:
        raise Refusal("Only plain paths are served.")
    path = unquote(rest)
    check_path(path)
    if path == "simple/":
        raise Refusal("The list of all packages is not served.")
    return Request(ecosystem, path, _kind(ecosystem, path), _fixed(ecosystem, path))


def _kind(ecosystem: Ecosystem, path: str) -> Kind:
    if ecosystem == "crates" and path == _CARGO_SETTINGS:
        return "settings"
    if ecosystem == "pypi" and path.startswith("simple/"):
        return "page"
    return "page" if ecosystem == "npm" and _NPM_FILE not in f"/{path}" else "file"


def _fixed(ecosystem: Ecosystem, path: str) -> bool:
    if ecosystem == "maven":
        return _JAVA_MOVES.fullmatch(path) is None
    if ecosystem == "go":
        return "/@v/" in path and path.endswith((".zip", ".mod", ".info"))
    if ecosystem == "npm":
        return _NPM_FILE in path and path.endswith(".tgz")
    return path.startswith("crates/" if ecosystem == "crates" else "files/")


def accept(request: Request, said: str) -> str:
    """Return the content types to ask the index for; of what the sandbox says, only known words go on."""
    if request.kind == "page" and request.ecosystem == "npm" and _NPM_SHORT in said:
        return f"{_NPM_SHORT}, application/json;q=0.8"
    if request.kind == "page" and request.ecosystem == "pypi" and _PYPI_JSON in said:
        return f"{_PYPI_JSON}, text/html;q=0.1"
    return "text/html" if request.kind == "page" and request.ecosystem == "pypi" else "*/*"


def cargo_settings(seen_as: str) -> str:
    """Return the settings of the sparse index: where the crates are; nowhere to publish."""
    return json.dumps({"dl": f"{seen_as}/crates/crates/{{crate}}/{{crate}}-{{version}}.crate"})


def turned(request: Request, data: bytes, content_type: str, indexes: Indexes, seen_as: str) -> bytes:
    """Return a page whose URLs of packages lead to the proxy.

    Raises:
        Refusal: the page cannot be read.
    """
    if request.ecosystem == "npm":
        return _turned_npm(request, data, indexes.roots["npm"].url, seen_as)
    here = indexes.locate("pypi", request.path)
    try:
        if "json" in content_type:
            return _turned_json(json.loads(data), here, indexes, seen_as)
        return _HREF.sub(lambda found: _turned_link(found, here, indexes, seen_as), data.decode("utf-8")).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Refusal("The package index gave a page that cannot be read.", where=here) from error


def _turned_npm(request: Request, data: bytes, root: str, seen_as: str) -> bytes:
    """The path of a tarball is the registry's convention, whichever host and folder a mirror names."""
    package = request.path.rstrip("/")

    def turn(found: re.Match[bytes]) -> bytes:
        url = found[2].decode("utf-8", "replace").replace("\\/", "/")
        if url.startswith(root):
            path = unquote(url.removeprefix(root))
        else:
            _, sign, file = unquote(urlsplit(url).path).rpartition(f"/{package}{_NPM_FILE}")
            path = f"{package}{_NPM_FILE}{file}" if sign else ""
        try:
            check_path(path)
        except Refusal:
            return found[0]
        return found[1] + f"{seen_as}/npm/{quote(path, safe='/@+')}".encode() + found[3]

    return _TARBALL.sub(turn, data)


def _turned_json(page: dict[str, list[dict[str, str]]], here: str, indexes: Indexes, seen_as: str) -> bytes:
    for file in page["files"]:
        file["url"] = _through(file["url"], here, indexes, seen_as)
    return json.dumps(page, separators=(",", ":")).encode()


def _turned_link(found: re.Match[str], here: str, indexes: Indexes, seen_as: str) -> str:
    url = html.unescape(found[2] if found[2] is not None else found[3])
    return f'{found[1]}"{html.escape(_through(url, here, indexes, seen_as))}"'


def _through(url: str, here: str, indexes: Indexes, seen_as: str) -> str:
    there = urlsplit(urljoin(here, url))
    path = indexes.file_path("pypi", there._replace(fragment="").geturl())
    if not path:
        return url
    return f"{seen_as}/pypi/{quote(path, safe='/@!~+:=,')}" + (f"#{there.fragment}" if there.fragment else "")
