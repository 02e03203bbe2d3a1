"""Where packages come from: one place for the line, the package proxy's allow-list and `sekisho doctor`.

Each ecosystem has the index that its own tools take by default. A platform team puts another one, a mirror say, in its
place by a variable: SEKISHO_INDEX_PYPI, SEKISHO_INDEX_NPM, SEKISHO_INDEX_GO, SEKISHO_INDEX_CRATES (the `.crate` files),
SEKISHO_INDEX_CRATES_INDEX (the sparse index), SEKISHO_INDEX_MAVEN. Without its variable PyPI's is pip's own
configuration. SEKISHO_EGRESS_HOSTS (names, comma-separated) are further hosts that an index may send its readers to.

A URL may hold a user and a password. They are taken out at once, into a field that shows itself nowhere; what is
logged, recorded and said in errors is the URL without them.
"""

from __future__ import annotations

import base64
import configparser
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sekisho.errors import PermanentError

HTTPS = 443
_PORTS = {"http": 80, "https": HTTPS}
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")

DEFAULTS: Mapping[str, str] = {
    "npm": "https://registry.npmjs.org/",
    "go": "https://proxy.golang.org/",
    "crates": "https://static.crates.io/",
    "crates-index": "https://index.crates.io/",
    "maven": "https://repo1.maven.org/maven2/",
}
"""Public indexes; PyPI's is pip's to say."""
ROOTS = ("pypi", *DEFAULTS)

_SENDS_TO: Mapping[str, tuple[str, ...]] = {
    DEFAULTS["go"]: ("https://storage.googleapis.com/proxy-golang-org-prod/",),
}
"""Where a public index is known to redirect for large files: a place as narrow as can be said."""


@dataclass(frozen=True)
class Root:
    """Root of one index."""

    name: str
    url: str
    """Ends with a slash; without credentials."""
    authorization: str = field(default="", repr=False)
    """Value of the Authorization header; a secret."""


def variable(name: str) -> str:
    """Return the name of the variable that sets an index."""
    return f"SEKISHO_INDEX_{name.upper().replace('-', '_')}"


def read_roots(environment: Mapping[str, str]) -> tuple[Root, ...]:
    """Return the indexes in force.

    Raises:
        PermanentError: a variable holds no URL of an index; the value is not repeated.
    """
    found = []
    for name in ROOTS:
        said = environment.get(variable(name), "").strip()
        if said or name in DEFAULTS:
            found.append(parse_root(name, said or DEFAULTS[name], where=variable(name)))
        else:
            url = _pip_index(environment) or f"https://{default_index()[0]}/simple/"
            found.append(parse_root(name, url, where="index-url in pip's configuration"))
    return tuple(found)


def parse_root(name: str, url: str, *, where: str) -> Root:
    """Return an index by its URL, with the credentials taken out.

    Raises:
        PermanentError: not such a URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _no_url(where) from error
    host = (parts.hostname or "").lower()
    legal = parts.scheme in _PORTS and _HOST.fullmatch(host) and _PATH.fullmatch(parts.path)
    if not legal or parts.query or parts.fragment or ".." in parts.path.split("/"):
        raise _no_url(where)
    at = f":{port}" if port not in (None, _PORTS[parts.scheme]) else ""
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    return Root(name, f"{parts.scheme}://{host}{at}{parts.path.rstrip('/')}/", authorization)


def _no_url(where: str) -> PermanentError:
    return PermanentError(
        "This is not the URL of a package index.", where=where, remedy="Write it as https://host/path/."
    )


def further_places(roots: Iterable[Root], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the URLs, each the beginning of what it permits, that an index may send its readers to."""
    urls = {root.url for root in roots}
    found = {place for url, places in _SENDS_TO.items() if url in urls for place in places}
    index, files = default_index()
    if any(urlsplit(url).hostname == index for url in urls):
        found.add(f"https://{files}/")
    names = (name.strip().lower() for name in environment.get("SEKISHO_EGRESS_HOSTS", "").split(","))
    found |= {f"https://{name}/" for name in names if _HOST.fullmatch(name)}
    return tuple(sorted(found))


def index_hosts(environment: Mapping[str, str] | None = None) -> tuple[tuple[str, int], ...]:
    """Return every host and port that fetching packages needs."""
    environment = os.environ if environment is None else environment
    roots = read_roots(environment)
    urls = {*(root.url for root in roots), *further_places(roots, environment)}
    if not environment.get(variable("pypi"), "").strip():
        urls |= set(_pip_extra(environment))
    return tuple(sorted({found for url in urls if (found := host_and_port(url))}))


def handed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a process which fetches packages is given."""
    further = {"SEKISHO_EGRESS_HOSTS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "SSL_CERT_FILE"}
    names = {variable(name) for name in ROOTS} | further
    return {name: environment[name] for name in sorted(names) if environment.get(name, "").strip()}


def valid_host(name: str) -> bool:
    """Return whether this is a host's name or IPv4 address."""
    return _HOST.fullmatch(name.lower()) is not None


def default_index() -> tuple[str, str]:
    """Return the hosts of pip's default index and of its files, as the pip that is installed knows them."""
    from pip._internal.models.index import PyPI  # noqa: PLC0415 -- slow, and few ask

    return PyPI.netloc, PyPI.file_storage_domain


def host_and_port(url: str) -> tuple[str, int] | None:
    """Return the host and port of a URL, None where it is none."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not _HOST.fullmatch(host):
        return None
    return host, port or _PORTS[parts.scheme]


def _pip_index(environment: Mapping[str, str]) -> str:
    found = [environment.get("PIP_INDEX_URL", ""), *_in_pip_files(environment, "index-url")]
    return next((url.strip() for url in found if url.strip()), "")


def _pip_extra(environment: Mapping[str, str]) -> list[str]:
    found = [environment.get("PIP_EXTRA_INDEX_URL", ""), *_in_pip_files(environment, "extra-index-url")]
    return [url for urls in found for url in urls.split()]


def _in_pip_files(environment: Mapping[str, str], key: str) -> list[str]:
    """Return a setting's values, what counts most first."""
    found = []
    for path in reversed(_pip_files(environment)):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        found += [parser.get(section, key, fallback="") for section in ("download", "install", "global")]
    return found


def _pip_files(environment: Mapping[str, str]) -> list[Path]:
    """Return pip's configuration files, what counts most last."""
    user = Path.home()
    named = environment.get("PIP_CONFIG_FILE", "")
    return [
        Path("/etc/pip.conf"),
        user / ".pip" / "pip.conf",
        user / ".config" / "pip" / "pip.conf",
        Path(sys.prefix) / "pip.conf",
        *([Path(named)] if named else []),
    ]
