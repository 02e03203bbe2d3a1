"""The package indexes as the line reads them: which URL a path has, what a redirect may lead to, who is asked how.

No effects but reading the environment and `.netrc`. Credentials are kept apart from URLs and show themselves nowhere;
they go to the index they were given for, and to no other place that it sends its readers to.
"""

from __future__ import annotations

import base64
import netrc
import os
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args
from urllib.parse import quote, unquote, urlsplit

from sekisho.errors import PermanentError, Refusal
from sekisho.package_indexes import Root, further_places, host_and_port, read_roots, valid_host
from stages.build.language import Ecosystem

ECOSYSTEMS: tuple[Ecosystem, ...] = get_args(Ecosystem)

_SEGMENT = re.compile(r"[A-Za-z0-9._~!$'()*+,;=:@-]+")
_SAFE = "/@!~$'()*,;=:"
_PLUS = "+"
_MAX_PATH = 2048
_SCOPED = re.compile(r"@[^/]+/[^/]+")
_INDEX = "index/"
_SIMPLE = "simple/"
_FILES = "files/"


@dataclass(frozen=True)
class Indexes:
    """The index of each ecosystem, and the way to it."""

    roots: Mapping[str, Root]
    """By name: each ecosystem's, and `crates-index`."""
    further: tuple[str, ...] = ()
    """URLs, each the beginning of what it permits, that an index may send its readers to."""
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    """HTTP proxy by scheme; may hold credentials."""
    bypass: bool = True
    """Whether no_proxy counts: for the machine's own proxies, not for the zone's only way out."""
    logins: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Authorization by host, from .netrc; secrets."""

    @classmethod
    def from_environment(cls, *, proxy: str | None = None, environment: Mapping[str, str] | None = None) -> Indexes:
        """Return the indexes that the platform team configured, else the public ones.

        Args:
            proxy: URL of the HTTP proxy that is the only way out; None takes the machine's own configuration.
            environment: variables; the process's own when None.

        Raises:
            PermanentError: a variable or `.netrc` cannot be read.
        """
        variables = os.environ if environment is None else environment
        roots = read_roots(variables)
        own = urllib.request.getproxies_environment()
        return cls(
            roots={root.name: root for root in roots},
            further=further_places(roots, variables),
            proxies={"http": proxy, "https": proxy} if proxy else own,
            bypass=proxy is None,
            logins=_logins(variables),
        )

    def locate(self, ecosystem: Ecosystem, path: str) -> str:
        """Return the URL of a path; it is below the ecosystem's root, whatever the path says.

        Raises:
            Refusal: the path is not a plain one, or names a host that the index does not use.
        """
        check_path(path)
        if ecosystem == "pypi":
            return self._locate_pypi(path)
        if ecosystem == "crates":
            name, path = ("crates-index", path[len(_INDEX) :]) if path.startswith(_INDEX) else ("crates", path)
            # A plus sign stands for itself in a path, but the stores behind this index read a space.
            return self.roots[name].url + quote(path, safe=_SAFE)
        if ecosystem == "npm" and _SCOPED.fullmatch(path):
            return self.roots["npm"].url + quote(path, safe="@")
        return self.roots[ecosystem].url + quote(path, safe=_SAFE + _PLUS)

    def _locate_pypi(self, path: str) -> str:
        if path.startswith(_SIMPLE):
            return self.roots["pypi"].url + quote(path[len(_SIMPLE) :], safe=_SAFE)
        host, _, rest = path.removeprefix(_FILES).partition("/")
        places = (self.roots["pypi"].url, *self.further)
        scheme = next((urlsplit(place).scheme for place in places if urlsplit(place).netloc == host), "")
        url = f"{scheme}://{host}/{quote(rest, safe=_SAFE)}"
        if not path.startswith(_FILES) or not rest or not scheme or not self.allows("pypi", url):
            raise Refusal(
                "This is not a place of the Python package index.",
                where=f"pypi/{path}",
                remedy="The platform team allows further hosts with SEKISHO_EGRESS_HOSTS.",
            )
        return url

    def file_path(self, ecosystem: Ecosystem, url: str) -> str:
        """Return the path that `locate` turns into this URL of a file; empty where there is none."""
        parts = urlsplit(url)
        if ecosystem != "pypi" or parts.query:
            return ""
        path = f"{_FILES}{parts.netloc}{unquote(parts.path)}"
        try:
            self.locate(ecosystem, path)
        except Refusal:
            return ""
        return path

    def allows(self, ecosystem: Ecosystem, url: str) -> bool:
        """Return whether an index may send its readers there: to itself or a place known for it."""
        parts = urlsplit(url)
        dots = {".", ".."} & set(unquote(parts.path).split("/"))
        if host_and_port(url) is None or "@" in parts.netloc or dots:
            return False
        names = (ecosystem, "crates-index") if ecosystem == "crates" else (ecosystem,)
        own = [self.roots[name].url for name in names]
        if any(_origin(url) == _origin(place) for place in own):
            return True
        return any(_origin(url) == _origin(place) and url.startswith(place) for place in self.further)

    def authorization(self, url: str) -> str:
        """Return the Authorization header's value for a URL; empty where there is none."""
        for root in self.roots.values():
            if root.authorization and _origin(url) == _origin(root.url):
                return root.authorization
        return self.logins.get(urlsplit(url).hostname or "", "")

    def proxy(self, url: str) -> str:
        """Return the proxy's URL for a URL; empty where it is reached straight."""
        parts = urlsplit(url)
        if self.bypass and urllib.request.proxy_bypass_environment(parts.hostname or ""):  # type: ignore[attr-defined]
            return ""
        return self.proxies.get(parts.scheme, "")


def check_path(path: str) -> None:
    """Refuse a path that could mean something else to a server than what it says.

    Raises:
        Refusal: empty, too long, `.`, `..`, an empty part, an escape, or a character that no index needs.
    """
    parts = (path.removesuffix("/") or "/").split("/")
    plain = all(_SEGMENT.fullmatch(part) and part not in {".", ".."} for part in parts)
    if not plain or len(path) > _MAX_PATH:
        raise Refusal("This is not a plain path of a package index.", where=repr(path[:200]))


def _origin(url: str) -> tuple[str, str, int] | None:
    found = host_and_port(url)
    return None if found is None else (urlsplit(url).scheme, *found)


def _logins(environment: Mapping[str, str]) -> dict[str, str]:
    named = environment.get("NETRC", "")
    path = Path(named) if named else Path(environment.get("HOME") or "/nonexistent") / ".netrc"
    try:
        hosts = netrc.netrc(str(path)).hosts
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, netrc.NetrcParseError) as error:
        # What it says may repeat a password, so only the place is told.
        line = getattr(error, "lineno", "")
        raise PermanentError(
            "The file with logins cannot be read.", where=f"{path}:{line}", remedy="See netrc(5) for its form."
        ) from None
    return {
        host.lower(): "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode("ascii")
        for host, (login, _, password) in hosts.items()
        if valid_host(host) and password and host != "default"
    }
