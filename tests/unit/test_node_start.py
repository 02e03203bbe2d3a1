"""How a Node.js workload starts, read from what people write into package.json."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.errors import Refusal
from stages.build.languages.node_start import Programs, Reader, Start

NEXT = ("node", "node_modules/next/dist/bin/next", "start")


def reader(scripts: dict[str, str] | None = None, *, listed: bool = True) -> Reader:
    return Reader(
        scripts or {},
        Programs({"tool": "node_modules/tool/cli.js"}, {"jest": "node_modules/jest/bin/jest.js"}, listed=listed),
        production=frozenset({"tool", "tsx", "express"}),
        development=frozenset({"jest", "ts-node", "nodemon"}),
    )


def read(text: str, scripts: dict[str, str] | None = None) -> Start:
    return reader({"start": text, **(scripts or {})}).script("start")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node server.js", ("node", "server.js")),
        ("node ./bin/www", ("node", "./bin/www")),
        ("node .", ("node", ".")),
        ("node -r dotenv/config dist/index.js --quiet", ("node", "-r", "dotenv/config", "dist/index.js", "--quiet")),
        ("node --max-old-space-size=512 a.js 'two words'", ("node", "--max-old-space-size=512", "a.js", "two words")),
        ("node --env-file=.env --watch server.js", ("node", "server.js")),
        ("node --env-file .env server.js", ("node", "server.js")),
        ("nodemon app.js", ("node", "app.js")),
        ("pm2-runtime start app.js", ("node", "app.js")),
        ("tool --fast", ("node", "node_modules/tool/cli.js", "--fast")),
        ("npx tool", ("node", "node_modules/tool/cli.js")),
        ("./node_modules/.bin/tool x", ("node", "node_modules/tool/cli.js", "x")),
        ("tsx src/server.ts", ("node", "--import", "tsx", "src/server.ts")),
        ("next start", NEXT),
        ("next start -p 3000 -H 127.0.0.1 --keepAliveTimeout 9", (*NEXT, "--keepAliveTimeout", "9")),
        ("next start --port=$PORT", NEXT),
        ("next start -p ${PORT:-3000}", NEXT),
        ("nest start", ("node", "dist/main.js")),
        ("nuxt start", ("node", ".output/server/index.mjs")),
    ],
)
def test_it_starts_as_npm_would_start_it(text: str, expected: tuple[str, ...]) -> None:
    assert read(text).words == expected


def test_variables_in_front_go_into_the_environment_but_the_port_is_the_platforms() -> None:
    start = read("cross-env NODE_ENV=production PORT=3000 LEVEL='a b' node x.js")
    assert (start.words, dict(start.environment)) == (("node", "x.js"), {"NODE_ENV": "production", "LEVEL": "a b"})


def test_other_scripts_are_followed() -> None:
    scripts = {"serve": "yarn run:it -- --more", "run:it": "A=1 node x.js"}
    start = read("npm run serve", scripts)
    assert (start.words, dict(start.environment)) == (("node", "x.js", "--more"), {"A": "1"})


def test_what_comes_first_belongs_to_the_build() -> None:
    start = read("npm run css && tsc -p . && node x.js", {"css": "sass a b", "prestart": "node tools/make.js"})
    assert start.words == ("node", "x.js")
    assert start.before == (("npm", "run", "prestart"), ("npm", "run", "css"), ("tsc", "-p", "."))


@pytest.mark.parametrize(
    "text",
    [
        "npm run migrate && node x.js", "knex migrate:latest && node x.js", "npm run up && node x.js",
        "wait-on tcp:5432 && node x.js",
    ],
)  # fmt: skip
def test_what_has_to_happen_at_each_start_needs_a_shell(text: str) -> None:
    with pytest.raises(Refusal, match="at each start"):
        read(text, {"migrate": "x", "up": "prisma migrate deploy"})


@pytest.mark.parametrize(
    "text",
    [
        "node x.js | pino-pretty", "node x.js > log", "node a.js & node b.js", "node x.js; node y.js",
        "node x.js || true", "(cd server && node x.js)", "node $FILE", "node `which x`", "node *.js",
        "node 'unfinished",
        "", "   ", "A=1", "cross-env A=1", "node", "node -e 'x'", "node --inspect", "A=$HOME node x.js", "&& node x.js",
        "node x.js &&", "bash start.sh", "python app.py", "npm install", "yarn", "npx", "docker compose up",
        "nodemon --exec ts-node src/index.ts", "pm2 start ecosystem.json", "node " + "x " * 100,
    ],
)  # fmt: skip
def test_what_needs_a_shell_or_starts_nothing_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(text)
    assert caught.value.remedy
    assert caught.value.where == "package.json (`scripts.start`)"


@pytest.mark.parametrize("text", ["jest --watch", "ts-node src/index.ts", "npx ts-node-dev x.ts"])
def test_what_only_development_has_is_refused_by_name(text: str) -> None:
    with pytest.raises(Refusal, match=r"development has|packages of production"):
        read(text)


def test_a_circle_of_scripts_ends() -> None:
    with pytest.raises(Refusal, match="circle"):
        read("npm run other", {"other": "npm start"})


@pytest.mark.parametrize(
    "text",
    [
        "vite", "vite --host", "react-scripts start", "PORT=3006 react-scripts start", "ng serve", "astro dev",
        "npx @11ty/eleventy --serve --quiet", "docusaurus start", "vitepress dev docs", "gatsby develop",
        "parcel index.html",
        "vue-cli-service serve", "webpack serve --open", "concurrently 'a' 'b'",
    ],
)  # fmt: skip
def test_a_server_for_development_starts_nothing(text: str) -> None:
    start = read(text)
    assert (bool(start.develops), start.words) == (True, ())


@pytest.mark.parametrize("text", ["serve -s build", "vite preview", "npx http-server dist", "astro preview"])
def test_a_server_of_plain_files_is_the_static_images(text: str) -> None:
    assert read(text).serves


def test_where_the_lock_names_no_programs_they_are_looked_for_in_bin() -> None:
    start = reader({"start": "remix-serve ./build"}, listed=False).script("start")
    assert start.words == ("node", "node_modules/.bin/remix-serve", "./build")


@given(st.text(max_size=60))
def test_whatever_is_written_no_command_needs_a_shell(text: str) -> None:
    try:
        start = read(text)
    except Refusal as error:
        assert error.remedy  # noqa: PT017  (either is an answer)
        return
    assert not start.words or start.words[0] == "node"
    assert all("$" not in word and "`" not in word for word in start.words)
