"""Django's conventions: manage.py, its settings, the WSGI or ASGI module, static files.

Settings are read as text and never run. What they need of the environment without a default gets a stand-in while
static files are collected, as hosted builders do: nothing of it reaches the image.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from stages.build.languages import python_source as source
from stages.build.languages.python_project import OwnStep
from stages.build.project import Project

MANAGE = "manage.py"
SETTINGS = "DJANGO_SETTINGS_MODULE"
STAND_IN = "only-while-static-files-are-collected"

_DEPTH = 2
_STATIC_FILES = "django.contrib.staticfiles"
_STATIC_ROOT = re.compile(r"^[ \t]*STATIC_ROOT[ \t]*(?::[^=\n]+)?=", re.MULTILINE)
_READERS = {"env", "config", "getenv", "get_env_variable", "get_env", "require_env", "env_var"}
"""Functions that settings read the environment with (django-environ, python-decouple, and home-made ones)."""
_KINDS = {"int": "1", "float": "1", "bool": "False", "url": "http://localhost", "db": "sqlite:////tmp/stand-in.sqlite3",
          "db_url": "sqlite:////tmp/stand-in.sqlite3", "cache": "locmemcache://", "cache_url": "locmemcache://",
          "email": "consolemail://", "email_url": "consolemail://", "json": "{}", "list": "localhost"}  # fmt: skip
_COLLECT = """\
python3 "$MANAGE" collectstatic --noinput >/tmp/collected.txt || {
  tail -n 3 /tmp/collected.txt
  echo "Django's collectstatic failed. Variables that the settings need must have a default while static files are \
collected; or set collectstatic = false in pyproject.toml [tool.sekisho.build]."
  exit 1
}
tail -n 1 /tmp/collected.txt
"""


@dataclass(frozen=True)
class Django:
    """A Django site."""

    folder: str
    """Of manage.py; empty for the top."""
    settings: str
    """Settings module in production; empty if unknown."""
    wsgi: str
    """Module with `application`; empty for none."""
    asgi: str
    collects: bool
    """Whether static files are to be collected."""
    stand_ins: dict[str, str] = field(default_factory=dict)
    """Variables that the settings need."""

    @property
    def manage(self) -> str:
        """Path of manage.py."""
        return f"{self.folder}/{MANAGE}" if self.folder else MANAGE


def find_django(project: Project) -> Django | None:
    """Return the Django site of a workload, None if it is none."""
    found = [path for path in project.files(MANAGE) if path.count("/") < _DEPTH]
    at_top = [path for path in found if "/" not in path]
    if len(at_top or found) != 1:
        return None
    path = (at_top or found)[0]
    tree = source.parse(project, path)
    folder = str(PurePosixPath(path).parent).removeprefix(".")
    default = _default_settings(tree) if tree else ""
    if not default and "django" not in (project.read(path) or b"").decode("utf-8", "replace").lower():
        return None
    wsgi, asgi = (_module(project, folder, default, name) for name in ("wsgi.py", "asgi.py"))
    of_wsgi = source.parse(project, _path(folder, wsgi)) if wsgi else None
    settings = (_default_settings(of_wsgi) if of_wsgi else "") or default
    texts = _settings_files(project, folder, settings)
    return Django(
        folder,
        settings,
        wsgi,
        asgi,
        collects=any(_STATIC_FILES in text for text in texts) and any(_STATIC_ROOT.search(text) for text in texts),
        stand_ins=stand_ins(texts),
    )


def collect_script(django: Django, own: OwnStep) -> str:
    """Return the shell script that collects static files, empty where none are to be collected."""
    return _COLLECT if django.collects and own.collectstatic else ""


def collect_environment(django: Django) -> dict[str, str]:
    """Return the variables for that script."""
    found = {"SECRET_KEY": STAND_IN, "DJANGO_SECRET_KEY": STAND_IN, **django.stand_ins, "MANAGE": django.manage}
    if django.settings:
        found[SETTINGS] = django.settings
    return found


def stand_ins(texts: tuple[str, ...]) -> dict[str, str]:
    """Return the variables that settings read without a default, each with a value that they can read."""
    found: dict[str, str] = {}
    for text in texts:
        tree = source.parse_bytes(text.encode())
        for node in ast.walk(tree) if tree else ():
            name, kind = _needed(node)
            if re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
                found.setdefault(name, _value(name, kind))
    return dict(sorted(found.items()))


def _needed(node: ast.AST) -> tuple[str, str]:
    """Return the variable that an expression cannot do without, and how it is read."""
    if isinstance(node, ast.Subscript) and _is_environ(node.value):
        return source.text_of(node.slice), ""
    if not isinstance(node, ast.Call) or len(node.args) != 1:
        return "", ""
    names = {keyword.arg for keyword in node.keywords}
    if names & {"default", None}:
        return "", ""
    function: ast.expr = node.func
    kind = ""
    if isinstance(function, ast.Attribute):
        kind, function = function.attr, function.value
    if not isinstance(function, ast.Name) or function.id not in _READERS:
        return "", ""
    cast = next((keyword.value for keyword in node.keywords if keyword.arg == "cast"), None)
    if isinstance(cast, ast.Name):
        kind = cast.id
    return source.text_of(node.args[0]), kind


def _is_environ(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id == "environ"
    )


def _value(name: str, kind: str) -> str:
    if kind in _KINDS:
        return _KINDS[kind]
    if name.endswith("DATABASE_URL"):
        return _KINDS["db"]
    if name.endswith(("_PORT", "_TIMEOUT", "_SIZE", "_COUNT")):
        return "1"
    return "redis://localhost" if name == "REDIS_URL" else STAND_IN


def _default_settings(tree: ast.Module) -> str:
    """Return the settings module that manage.py or wsgi.py sets, by `os.environ.setdefault` or an assignment."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and source.called(node) == "setdefault" and len(node.args) > 1:
            if source.text_of(node.args[0]) == SETTINGS:
                return _dotted(source.text_of(node.args[1]))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            target = node.targets[0]
            if _is_environ(target.value) and source.text_of(target.slice) == SETTINGS:
                return _dotted(source.text_of(node.value))
    return ""


def _dotted(text: str) -> str:
    return text if all(part.isidentifier() for part in text.split(".")) else ""


def _module(project: Project, folder: str, settings: str, name: str) -> str:
    """Return the module of wsgi.py or asgi.py: beside the settings, else the only one there is."""
    parts = settings.split(".")[:-1] if settings else []
    while parts:
        path = f"{'/'.join(parts)}/{name}"
        if project.has(_joined(folder, path)):
            return source.module_name(path)
        parts.pop()
    cut = len(folder) + 1 if folder else 0
    found = [path[cut:] for path in project.files(name, below=folder) if path[cut:].count("/") <= _DEPTH]
    return source.module_name(found[0]) if len(found) == 1 else ""


def _settings_files(project: Project, folder: str, settings: str) -> tuple[str, ...]:
    """Return the text of the settings module, and of those beside it in a package of settings."""
    if not settings:
        return ()
    own = _joined(folder, settings.replace(".", "/"))
    paths = {f"{own}.py", f"{own}/__init__.py"}
    package = str(PurePosixPath(own).parent)
    if PurePosixPath(package).name in ("settings", "conf", "config"):
        paths |= {f"{package}/{name}.py" for name in ("__init__", "base", "common", "defaults", "production", "prod")}
    texts = (project.read(path, limit=source.LIMIT) for path in sorted(paths) if project.has(path))
    return tuple(data.decode("utf-8", "replace") for data in texts if data is not None)


def _path(folder: str, module: str) -> str:
    return _joined(folder, f"{module.replace('.', '/')}.py")


def _joined(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder else path
