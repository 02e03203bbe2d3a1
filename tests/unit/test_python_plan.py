"""What is to be done for a Python workload: how it starts, what is built, what goes into the image."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.errors import Refusal
from stages.build.language import SOURCE, Plan, Unlocked, Wheels
from stages.build.languages import python_source
from stages.build.languages.python import Python, choose
from stages.build.languages.python_django import STAND_IN, find_django, stand_ins
from stages.build.languages.python_launch import LAUNCHER
from stages.build.languages.python_project import PyProject
from stages.build.project import Project

A = "a" * 64
ANY = "0.0.0.0"  # noqa: S104  (what servers in an image listen on)
HOST_PORT = ("--host", ANY, "--port", "${PORT}")
OFFERED = ("3.11",)
EXAMPLES = Path(__file__).parents[2] / "examples"


def lock(*names: str) -> str:
    return "".join(f"{name}==1.0 --hash=sha256:{A}\n" for name in names)


def tree(folder: Path, files: dict[str, str]) -> Project:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return Project(folder)


def planned(folder: Path, files: dict[str, str], offered: tuple[str, ...] = OFFERED) -> Plan:
    plan = Python().plan(tree(folder, files), offered)
    assert isinstance(plan, Plan)
    return plan


def launched(plan: Plan) -> tuple[str, ...]:
    assert plan.runtime.command[:3] == ("/usr/bin/python3", "-ISc", LAUNCHER)
    return plan.runtime.command[3:]


def test_the_guestbook_is_planned_as_it_always_was() -> None:
    plan = Python().plan(Project(EXAMPLES / "guestbook"), OFFERED)
    assert isinstance(plan, Plan)
    assert plan.runtime.command == ("python3", "-m", "guestbook")
    assert plan.runtime.directory == "/app"
    assert plan.runtime.environment["PYTHONPATH"] == "/app:/opt/deps"
    assert plan.runtime.environment["PORT"] == "8080"
    assert [step.name for step in plan.steps] == ["dependencies"]
    assert plan.steps[0].keep
    assert plan.steps[0].source is None
    assert isinstance(plan.artifacts, Wheels)
    assert "pkg:pypi/waitress" in "".join(plan.locked)
    assert [(take.kind, take.source, take.into) for take in plan.takes] == [
        ("dependencies", "dependencies", "opt/deps"),
        ("application", SOURCE, "app"),
    ]
    assert plan.no_command is None


@pytest.mark.parametrize(
    "files",
    [
        {"requirements.txt": ""},
        {"uv.lock": ""},
        {"Pipfile": ""},
        {"setup.py": ""},
        {"manage.py": ""},
        {"requirements/production.txt": ""},
        {"pyproject.toml": "[project]\nname='x'\n"},
        {"pyproject.toml": "[tool.poetry]\nname='x'\n"},
        {"pyproject.toml": "[build-system]\nrequires=[]\n"},
    ],
)
def test_python_is_recognised(tmp_path: Path, files: dict[str, str]) -> None:
    assert Python().recognise(tree(tmp_path, files)) == next(iter(files))


@pytest.mark.parametrize("files", [{}, {"pyproject.toml": "[tool.ruff]\nx=1\n"}, {"app.js": ""}, {"main.py": ""}])
def test_python_is_not_seen_in_everything(tmp_path: Path, files: dict[str, str]) -> None:
    assert Python().recognise(tree(tmp_path, files)) == ""


# -- how it starts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("web: gunicorn app:app", ("gunicorn", "app:app")),
        ("web:python manage.py runserver 0.0.0.0:8080", ("python3", "manage.py", "runserver", "0.0.0.0:8080")),
        ("web: python3.12 -m x", ("python3", "-m", "x")),
        ("web: waitress-serve --port=8080 app:app", ("waitress-serve", "--port=8080", "app:app")),
    ],
)
def test_a_plain_line_of_a_procfile_is_run_as_it_stands(tmp_path: Path, line: str, command: tuple[str, ...]) -> None:
    plan = planned(tmp_path, {"requirements.txt": "", "Procfile": f"worker: x\n{line}\n"})
    assert plan.runtime.command == command
    assert "Procfile:2" in plan.why


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("gunicorn app:app --bind 0.0.0.0:$PORT", ("gunicorn", "app:app", "--bind", f"{ANY}:${{PORT}}")),
        ("uvicorn main:app", ("uvicorn", *HOST_PORT, "main:app")),
        (
            "python -m uvicorn main:app",
            ("python3", "-m", "uvicorn", *HOST_PORT, "main:app"),
        ),
        ("uvicorn main:app --port ${PORT:-5000}", ("uvicorn", "main:app", "--port", "${PORT...}")),
        ("uvicorn $OPTIONS main:app", ("uvicorn", "${OPTIONS...}", "main:app")),
        ("daphne x.asgi:application", ("daphne", "--bind", ANY, "--port", "${PORT}", "x.asgi:application")),
        ("hypercorn main:app", ("hypercorn", "--bind", f"{ANY}:${{PORT}}", "main:app")),
        ("waitress-serve app:app", ("waitress-serve", "--listen=*:${PORT}", "app:app")),
        ("flask db upgrade; gunicorn m:app", ("flask", "db", "upgrade", "$;", "gunicorn", "m:app")),
        ("python manage.py migrate && gunicorn m", ("python3", "manage.py", "migrate", "$&&", "gunicorn", "m")),
    ],
)
def test_a_line_with_variables_or_several_commands_is_launched(
    tmp_path: Path, line: str, words: tuple[str, ...]
) -> None:
    plan = planned(tmp_path, {"requirements.txt": "", "Procfile": f"web: {line}\n"})
    assert launched(plan) == words
    assert plan.runtime.environment["PORT"] == "8080"


def test_variables_and_folders_of_a_procfile(tmp_path: Path) -> None:
    procfile = "web: cd backend && DJANGO_SETTINGS_MODULE=x.prod gunicorn -w ${WEB_CONCURRENCY:-2} x.wsgi\n"
    plan = planned(tmp_path, {"requirements.txt": "", "Procfile": procfile, "backend/src/x.py": ""})
    assert plan.runtime.directory == "/app/backend"
    assert plan.runtime.environment["DJANGO_SETTINGS_MODULE"] == "x.prod"
    assert plan.runtime.environment["WEB_CONCURRENCY"] == "2"
    assert plan.runtime.environment["PYTHONPATH"] == "/app/backend/src:/app/backend:/opt/deps"


@pytest.mark.parametrize(
    ("procfile", "says", "where"),
    [
        ("web: a\nweb: b\n", "2 `web` lines", "Procfile:2"),
        ("\nweb: a | b\n", "a pipe", "Procfile:2"),
        ("web:\n", "an empty command", "Procfile:1"),
        ("web: cd ../.. && a\n", "no folder", "Procfile:1"),
        ("web: cd /etc && a\n", "no folder", "Procfile:1"),
    ],
)
def test_a_procfile_that_cannot_be_run_is_refused(tmp_path: Path, procfile: str, says: str, where: str) -> None:
    with pytest.raises(Refusal, match=says) as caught:
        planned(tmp_path, {"requirements.txt": "", "Procfile": procfile})
    assert caught.value.where == where
    assert caught.value.remedy


FLASK = "from flask import Flask\napp = Flask(__name__)\n"
FASTAPI = "import fastapi\n\napp: fastapi.FastAPI = fastapi.FastAPI()\n"
FACTORY = "from flask import Flask\n\ndef create_app(config=None):\n    app = Flask(__name__)\n    return app\n"


@pytest.mark.parametrize(
    ("files", "packages", "words"),
    [
        ({"app.py": FLASK}, ["flask", "gunicorn"], ("gunicorn", "app:app")),
        ({"wsgi.py": "from x import create_app\napp = create_app()\n", "app.py": FLASK}, ["flask", "gunicorn"],
         ("gunicorn", "wsgi:app")),
        ({"shop/__init__.py": FACTORY}, ["flask", "gunicorn"], ("gunicorn", "shop:create_app()")),
        ({"src/shop/__init__.py": FACTORY}, ["flask", "waitress"],
         ("waitress-serve", "--listen=*:${PORT}", "--call", "shop:create_app")),
        ({"app/__init__.py": "", "app/main.py": FASTAPI}, ["fastapi", "uvicorn"],
         ("uvicorn", *HOST_PORT, "app.main:app")),
        ({"src/main.py": FASTAPI}, ["fastapi", "hypercorn"], ("hypercorn", "--bind", f"{ANY}:${{PORT}}", "main:app")),
        ({"src/main.py": f"from src.x import y\n{FASTAPI}"}, ["fastapi", "uvicorn"],
         ("uvicorn", *HOST_PORT, "src.main:app")),
        ({"main.py": "from x import get_app\napp = get_app()\n"}, ["fastapi", "uvicorn"],
         ("uvicorn", *HOST_PORT, "main:app")),
        ({"microblog.py": "from app import create_app\napp = create_app()\n", "app/__init__.py": FACTORY,
          ".flaskenv": "FLASK_APP=microblog.py\n"}, ["flask", "gunicorn"], ("gunicorn", "microblog:app")),
        ({"blog.py": FLASK}, ["flask", "gunicorn"], ("gunicorn", "blog:app")),
        ({"x.py": "", "pyproject.toml": "[tool.fastapi]\nentrypoint = 'app.main:api'\n"}, ["uvicorn"],
         ("uvicorn", *HOST_PORT, "app.main:api")),
    ],
)  # fmt: skip
def test_an_application_object_is_found_and_served(
    tmp_path: Path, files: dict[str, str], packages: list[str], words: tuple[str, ...]
) -> None:
    plan = planned(tmp_path, {"requirements.txt": lock(*packages), **files})
    found = plan.runtime.command if "${PORT}" not in "".join(words) else launched(plan)
    assert found == words
    assert plan.no_command is None


def test_the_one_script_of_a_project_is_run_without_installing_it(tmp_path: Path) -> None:
    text = "[project]\nname='shop'\n[project.scripts]\nshop = 'shop.cli:app.run'\n"
    plan = planned(tmp_path, {"requirements.txt": lock("flask"), "pyproject.toml": text, "src/shop/cli.py": ""})
    assert plan.runtime.command[:2] == ("python3", "-c")
    code = plan.runtime.command[2]
    compile(code, "x", "exec")
    assert code == "import sys; from shop.cli import app; sys.argv[0] = 'shop'; sys.exit(app.run())"
    assert plan.runtime.environment["PYTHONPATH"].startswith("/app/src:")


@pytest.mark.parametrize(
    ("files", "says", "remedy"),
    [
        ({}, "Nothing says how", "score.yaml"),
        ({"Procfile": "worker: a\n"}, "Nothing says how", "Procfile"),
        ({"app.py": FLASK}, "no server for it", "Add gunicorn"),
        ({"app.py": FASTAPI}, "no server for it", "Add uvicorn"),
        ({"pyproject.toml": "[project.scripts]\na='x:y'\nb='x:z'\n"}, "has 2 scripts", "Procfile"),
        ({"pyproject.toml": "[project.scripts]\na='x; import os:y'\n"}, "is not `module:function`", "Correct"),
        ({"app.py": "app = Flask('x'\n"}, "Nothing says how", "Procfile"),
        ({"app.py": f"x = {'-' * 200_000}1\n{FLASK}"}, "Nothing says how", "Procfile"),
        ({"app.py": f"x = a{'.b' * 200_000}\n{FLASK}"}, "Nothing says how|no server", "Procfile|gunicorn"),
    ],
)
def test_what_cannot_be_started_is_asked_for(tmp_path: Path, files: dict[str, str], says: str, remedy: str) -> None:
    plan = planned(tmp_path, {"requirements.txt": "", **files})
    assert plan.no_command is not None
    assert plan.runtime.command == ()
    with pytest.raises(Refusal, match=says) as caught:
        raise plan.no_command
    assert any(word in caught.value.remedy for word in remedy.split("|"))


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_source_makes_the_reader_fail(data: bytes) -> None:
    python_source.parse_bytes(data)


# -- Django ----------------------------------------------------------------------------------------------------------

MANAGE = 'import os\ndef main():\n    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n'
STATIC = 'INSTALLED_APPS = ["django.contrib.staticfiles"]\nSTATIC_ROOT = BASE_DIR / "static"\n'
SITE = {
    "manage.py": MANAGE,
    "shop/settings.py": STATIC,
    "shop/wsgi.py": 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n',
    "shop/asgi.py": "",
}


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        (["django", "gunicorn"], ("gunicorn", "shop.wsgi:application")),
        (["django", "uvicorn"], ("uvicorn", *HOST_PORT, "shop.asgi:application")),
        (["django", "channels", "daphne", "gunicorn"],
         ("daphne", "--bind", ANY, "--port", "${PORT}", "shop.asgi:application")),
        (["django", "waitress"], ("waitress-serve", "--listen=*:${PORT}", "shop.wsgi:application")),
    ],
)  # fmt: skip
def test_a_django_site_is_served_and_its_static_files_are_collected(
    tmp_path: Path, packages: list[str], words: tuple[str, ...]
) -> None:
    plan = planned(tmp_path, {"requirements.txt": lock(*packages), **SITE})
    assert (plan.runtime.command if words[0] == "gunicorn" else launched(plan)) == words
    build = plan.steps[-1]
    assert build.name == "build"
    assert "collectstatic" in build.command[3]
    assert build.environment["DJANGO_SETTINGS_MODULE"] == "shop.settings"
    assert build.environment["SECRET_KEY"] == STAND_IN
    assert not build.keep
    assert (plan.takes[-1].source, plan.takes[-1].below) == ("build", "work")
    # Nothing that only the collection needs is in the image.
    assert STAND_IN not in str(plan.runtime)


def test_a_site_in_a_folder_runs_there(tmp_path: Path) -> None:
    files = {f"site/{name}": text for name, text in SITE.items()}
    plan = planned(tmp_path, {"requirements.txt": lock("django", "gunicorn"), **files})
    assert plan.runtime.directory == "/app/site"
    assert plan.runtime.environment["PYTHONPATH"] == "/app/site:/opt/deps"
    assert plan.steps[-1].environment["MANAGE"] == "site/manage.py"


def test_settings_of_production_are_those_of_wsgi(tmp_path: Path) -> None:
    files = {
        "manage.py": MANAGE.replace("shop.settings", "config.settings.local"),
        "config/wsgi.py": 'os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings.production"\n',
        "config/settings/base.py": STATIC,
        "config/settings/production.py": 'from .base import *\nSECRET_KEY = env("APP_KEY")\n',
    }
    django = find_django(tree(tmp_path, files))
    assert django is not None
    assert (django.settings, django.wsgi, django.collects) == ("config.settings.production", "config.wsgi", True)
    assert django.stand_ins == {"APP_KEY": STAND_IN}


def test_collecting_in_a_procfile_is_done_once_while_the_image_is_made(tmp_path: Path) -> None:
    line = "web: python manage.py migrate && python manage.py collectstatic --no-input && gunicorn shop.wsgi\n"
    plan = planned(tmp_path, {"requirements.txt": lock("django", "gunicorn"), **SITE, "Procfile": line})
    assert launched(plan) == ("python3", "manage.py", "migrate", "$&&", "gunicorn", "shop.wsgi")
    assert any("collected while the image is made" in note for note in plan.notes)
    other = planned(tmp_path / "x", {"requirements.txt": "", "Procfile": line})
    assert "collectstatic" in launched(other)


@pytest.mark.parametrize(
    ("more", "steps"),
    [
        ({"shop/settings.py": "STATIC_ROOT = 'x'\n"}, ["dependencies"]),
        ({"shop/settings.py": STATIC.replace("STATIC_ROOT", "# STATIC_ROOT")}, ["dependencies"]),
        ({"pyproject.toml": "[tool.sekisho.build]\ncollectstatic = false\n"}, ["dependencies"]),
        ({"pyproject.toml": "[tool.sekisho.build]\ncommand = ['make']\n"}, ["dependencies", "build"]),
    ],
)
def test_static_files_are_collected_where_they_are_used(tmp_path: Path, more: dict[str, str], steps: list[str]) -> None:
    plan = planned(tmp_path, {"requirements.txt": lock("django", "gunicorn"), **SITE, **more})
    assert [step.name for step in plan.steps] == steps
    if "build" in steps:  # the workload's own step comes first
        assert plan.steps[-1].command[-1] == "make"
        assert plan.steps[-1].command[3].startswith('"$@"\n')


def test_what_settings_need_has_a_stand_in() -> None:
    text = """
A = os.environ["NEEDED"]
B = os.environ.get("OPTIONAL")
C = env("ALSO_NEEDED")
D = env("WITH_DEFAULT", default="x")
E = env.int("NUMBER")
F = config("FLAG", cast=bool)
G = env.db("DATABASE_URL")
H = os.getenv("MAY_BE_NONE")
I = getenv("X", "y")
J = environ["BARE"]
K = env("WITH_SECOND", "x")
L = config("KEY", **options)
M = env(name)
N = env("not a name")
"""
    found = stand_ins((text, "broken ("))
    assert found == {
        "ALSO_NEEDED": STAND_IN, "BARE": STAND_IN, "DATABASE_URL": "sqlite:////tmp/stand-in.sqlite3",
        "FLAG": "False", "NEEDED": STAND_IN, "NUMBER": "1",
    }  # fmt: skip


def test_a_file_called_manage_is_not_django(tmp_path: Path) -> None:
    assert find_django(tree(tmp_path, {"manage.py": "print('hello')\n"})) is None


# -- versions, build steps, documentation ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "offered", "version", "notes"),
    [
        ({}, ("3.11", "3.13"), "3.11", 0),
        ({".python-version": "3.13.1\n"}, ("3.11", "3.13"), "3.13", 0),
        ({"runtime.txt": "python-3.10.2"}, ("3.11", "3.13"), "3.11", 1),
        ({".python-version": "# as of today\n\n3.14\n"}, ("3.11", "3.13"), "3.13", 1),
        ({".python-version": "3.12"}, ("3.11", "3.13"), "3.13", 1),
        ({".python-version": "3.15"}, ("3.13", "3.11"), "3.13", 1),
        ({"Pipfile": "[packages]\nx='*'\n[requires]\npython_version = \"3.13\"\n"}, ("3.11", "3.13"), "3.13", 0),
        ({"Pipfile": "[requires]\npython_full_version='3.13.2'\n"}, ("3.11", "3.13"), "3.13", 0),
        ({".python-version": "3.9"}, ("3.13", "3.11"), "3.11", 1),
        ({".python-version": "3."}, ("3.11", "3.13"), "3.11", 0),
        ({".python-version": "pypy"}, ("3.11",), "3.11", 0),
        ({"pyproject.toml": "[project]\nrequires-python='>=3.12'\n"}, ("3.11", "3.13"), "3.13", 0),
        ({"pyproject.toml": "[project]\nrequires-python='~=3.11'\n", ".python-version": "3.9"}, ("3.11",), "3.11", 1),
        ({"pyproject.toml": "[tool.poetry.dependencies]\npython='^3.12'\n"}, ("3.11", "3.13"), "3.13", 0),
        ({"pyproject.toml": "[tool.poetry.dependencies]\npython='~3.11'\n"}, ("3.13", "3.11"), "3.11", 0),
        ({"pyproject.toml": "[tool.poetry.dependencies]\npython='*'\n"}, ("3.11",), "3.11", 0),
        ({"pyproject.toml": "[project]\nrequires-python='nonsense'\n"}, ("3.11",), "3.11", 0),
    ],
)
def test_the_python_that_fits_is_chosen(
    tmp_path: Path, files: dict[str, str], offered: tuple[str, ...], version: str, notes: int
) -> None:
    project = tree(tmp_path, files)
    target, said = choose(project, PyProject.read(project), offered)
    assert (target.python, len(said)) == (version, notes)


def test_a_python_that_is_not_offered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"takes Python >=3\.14, offered is 3\.11"):
        planned(tmp_path, {"pyproject.toml": "[project]\nname='x'\nrequires-python='>=3.14'\n"})


def test_the_workloads_own_build_step_sees_its_files_and_packages(tmp_path: Path) -> None:
    text = "[tool.sekisho.build]\ncommand = ['python3', 'make.py']\n"
    plan = planned(tmp_path, {"requirements.txt": lock("flask"), "pyproject.toml": text, "Procfile": "web: a\n"})
    build = plan.steps[-1]
    assert build.command == ("python3", "make.py")
    assert build.source == ()
    assert build.uses == ("dependencies",)
    assert "/in/dependencies/opt/deps" in build.environment["PYTHONPATH"]
    assert (plan.takes[-1].source, plan.takes[-1].below) == ("build", "work")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("command = 'rm -rf /'", "not a list of words"),
        ("command = [1]", "not a list of words"),
        ("command = ['a']\nnetwork = true", "nothing else"),
        ("command = ['a']\noutput = '../..'", "output is"),
        ("output = 'dist'", "has no command"),
        ("command = ['a']\ncollectstatic = 3", "neither true nor false"),
    ],
)
def test_a_build_step_that_is_not_one_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(Refusal, match=says) as caught:
        planned(tmp_path, {"requirements.txt": "", "pyproject.toml": f"[tool.sekisho.build]\n{text}\n"})
    assert "tool.sekisho.build" in caught.value.where
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["[", "a = " + "[" * 5000, "\ud800"])
def test_a_pyproject_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(Refusal, match=r"pyproject\.toml"):
        PyProject.read(Project(tmp_path))


def test_own_packages_beside_the_workload_can_be_imported(tmp_path: Path) -> None:
    text = (
        'version = 1\n[[package]]\nname = "shop"\nversion = "1"\nsource = { virtual = "." }\n'
        'dependencies = [{ name = "core" }]\n[[package]]\nname = "core"\nversion = "1"\n'
        'source = { editable = "packages/core" }\n'
    )
    plan = planned(tmp_path, {"uv.lock": text, "packages/core/src/core.py": "", "Procfile": "web: a\n"})
    assert plan.runtime.environment["PYTHONPATH"] == "/app:/app/packages/core/src:/opt/deps"
    assert plan.artifacts == ()


def test_a_documentation_site_is_made_from_locked_packages(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"requirements.txt": lock("mkdocs"), "mkdocs.yml": "site_name: x\n"})
    assert (plan.language, plan.built_in, plan.version) == ("static", "python", "3.11")
    assert plan.steps[-1].command[:4] == ("python3", "-m", "mkdocs", "build")
    assert plan.steps[0].name == "dependencies"
    assert [(take.below, take.into) for take in plan.takes] == [("site", "srv/www")]
    assert plan.locked == ()


def test_strict_documentation_is_made_without_network(tmp_path: Path) -> None:
    files = {"requirements.txt": lock("mkdocs"), "mkdocs.yml": "strict: true\n"}
    assert "--no-strict" in planned(tmp_path, files).steps[-1].command
    assert "--no-strict" not in planned(tmp_path, {"mkdocs.yml": "strict: false\n"}).steps[-1].command


def test_a_program_with_documentation_stays_a_program(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"requirements.txt": lock("mkdocs"), "mkdocs.yml": "x: 1\n", "Procfile": "web: a\n"})
    assert plan.language == "python"


PROJECT = "[project]\nname='x'\n"
READTHEDOCS = (
    "sphinx:\n  configuration: doc/conf.py\npython:\n  install:\n    - requirements: doc/more.txt\n    - path: .\n"
)


@pytest.mark.parametrize(
    ("files", "arguments"),
    [
        ({"mkdocs.yml": "", "docs/requirements.txt": "mkdocs", "requirements.txt": "x"}, ("docs/requirements.txt",)),
        ({"docs/conf.py": "project = 'x'\n", "pyproject.toml": f"[dependency-groups]\ndocs=['sphinx']\n{PROJECT}"},
         ("--group", "pyproject.toml:docs", "pyproject.toml")),
        ({"mkdocs.yml": "", "pyproject.toml": f"{PROJECT}[project.optional-dependencies]\ndocs=['mkdocs']\n"},
         ("--extra", "docs", "pyproject.toml")),
        ({".readthedocs.yaml": READTHEDOCS, "doc/conf.py": "", "doc/more.txt": "sphinx\n",
          "pyproject.toml": "[project]\nname='x'\n"}, ("pyproject.toml", "doc/more.txt")),
        ({"mkdocs.yml": "", "requirements.txt": "mkdocs\n"}, ("requirements.txt",)),
    ],
)  # fmt: skip
def test_packages_of_a_documentation_site_are_found_where_people_put_them(
    tmp_path: Path, files: dict[str, str], arguments: tuple[str, ...]
) -> None:
    found = Python().plan(tree(tmp_path, files), OFFERED)
    assert isinstance(found, Unlocked)
    assert found.step.command[5:] == ("requirements.txt", *arguments)


@pytest.mark.parametrize("text", ["a: &x 1\nmkdocs: *x\n", "- a list\n", "a: b: c\n", ""])
def test_a_file_of_read_the_docs_that_does_not_count_is_named(tmp_path: Path, text: str) -> None:
    files = {"requirements.txt": lock("mkdocs"), "mkdocs.yml": ""}
    assert not any("readthedocs" in note for note in planned(tmp_path / "a", {**files}).notes)
    assert not any(
        "readthedocs" in note for note in planned(tmp_path / "b", {**files, ".readthedocs.yaml": "version: 2\n"}).notes
    )
    notes = planned(tmp_path / "c", {**files, ".readthedocs.yaml": text}).notes
    assert any(note.startswith(".readthedocs.yaml does not count") for note in notes)


def test_a_documentation_site_without_its_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="mkdocs is not among the packages") as caught:
        planned(tmp_path, {"requirements.txt": lock("flask"), "mkdocs.yml": ""})
    assert "docs/requirements.txt" in caught.value.remedy
