"""Score files: what is read, what is refused, and how exactly an error points at its place."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.score import Problems, load_score, read_document, read_documents, reader, resolve
from sekisho.score.placeholders import PlaceholderError, Reference, scan
from sekisho.score.quantity import cpu_text, memory_bytes, memory_text, milli_cpus
from sekisho.score.source import MAX_BYTES, MAX_DEPTH

BASE = """\
apiVersion: score.dev/v1b1
metadata:
  name: shop
containers:
  web:
    image: .
"""


def problems(text: str) -> list[tuple[str, int]]:
    with pytest.raises(Problems) as caught:
        load_score(text.encode())
    return [(problem.pointer, problem.line) for problem in caught.value.problems]


def test_smallest_file() -> None:
    workload = load_score(BASE.encode())
    assert workload.name == "shop"
    assert [container.name for container in workload.containers] == ["web"]
    assert workload.ports == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BASE.replace("score.dev/v1b1", "score.dev/v2"), [("/apiVersion", 1)]),
        (BASE.replace("  name: shop", "  nam: shop"), [("/metadata", 2)]),
        (BASE.replace("name: shop", "name: Shop"), [("/metadata/name", 3)]),
        (BASE.replace("name: shop", "name: s"), [("/metadata/name", 3)]),
        (BASE.replace("name: shop", f"name: {'s' * 64}"), [("/metadata/name", 3)]),
        (BASE.replace("name: shop", "name: 42"), [("/metadata/name", 3)]),
        (BASE.replace("    image: .\n", "    imag: .\n"), [("/containers/web", 5), ("/containers/web/imag", 6)]),
        (BASE.replace("  web:\n    image: .\n", "  {}\n"), [("/containers", 4)]),
        (BASE + "extra: 1\n", [("/extra", 7)]),
        (
            BASE + "    variables:\n      A: 1\n      B: true\n",
            [("/containers/web/variables/A", 8), ("/containers/web/variables/B", 9)],
        ),
        (BASE + "    variables: {'A=B': x}\n", [("/containers/web/variables/A=B", 7)]),
        (BASE + "    command: [run, 3]\n", [("/containers/web/command/1", 7)]),
        (BASE + "    readinessProbe: {}\n", [("/containers/web/readinessProbe", 7)]),
        (BASE + "    readinessProbe: {httpGet: {port: 80}}\n", [("/containers/web/readinessProbe/httpGet", 7)]),
        (
            BASE + "    readinessProbe:\n      httpGet: {path: /, port: 0}\n",
            [("/containers/web/readinessProbe/httpGet/port", 8)],
        ),
        (BASE + "    files:\n      /a: {}\n", [("/containers/web/files/~1a", 8)]),
        (BASE + "    files:\n      /a: {content: x, source: y}\n", [("/containers/web/files/~1a", 8)]),
        (BASE + "    files:\n      /a: {content: x, mode: 0644}\n", [("/containers/web/files/~1a/mode", 8)]),
        (BASE + "    files:\n      /a: {content: x, target: /b}\n", [("/containers/web/files/~1a/target", 8)]),
        (BASE + "    files:\n    - content: x\n", [("/containers/web/files/0", 8)]),
        (BASE + "    volumes:\n      /a: {}\n", [("/containers/web/volumes/~1a", 8)]),
        (BASE + "    resources: {limits: {memory: 12Q}}\n", [("/containers/web/resources/limits/memory", 7)]),
        (BASE + "    resources: {limits: {cpu: half}}\n", [("/containers/web/resources/limits/cpu", 7)]),
        (BASE + "    before: {web2: {ready: soon}}\n", [("/containers/web/before/web2/ready", 7)]),
        (BASE + "service:\n  ports:\n    www: {port: 70000}\n", [("/service/ports/www/port", 9)]),
        (BASE + "service:\n  ports:\n    www: {port: 80, protocol: SCTP}\n", [("/service/ports/www/protocol", 9)]),
        (BASE + "resources:\n  db: {class: x1}\n", [("/resources/db", 8)]),
        (BASE + "resources:\n  db: {type: -x}\n", [("/resources/db/type", 8)]),
        (BASE + "resources:\n  db: {type: postgres, id: A.b}\n", [("/resources/db/id", 8)]),
        (BASE + "resources:\n  DB: {type: postgres}\n", [("/resources/DB", 8)]),
    ],
)
def test_schema_errors_point_at_their_place(text: str, expected: list[tuple[str, int]]) -> None:
    assert problems(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The schema allows these; their meaning does not hold.
        ("    variables: {A: '${resources.db.host}'}\n", [("/containers/web/variables/A", 7)]),
        ("    variables: {A: '${metadata.nope}'}\n", [("/containers/web/variables/A", 7)]),
        ("    variables: {A: '${metadata}'}\n", [("/containers/web/variables/A", 7)]),
        ("    variables: {A: '${env.HOME}'}\n", [("/containers/web/variables/A", 7)]),
        ("    before: {web: {ready: started}}\n", [("/containers/web/before/web", 7)]),
        ("    before: {db: {ready: started}}\n", [("/containers/web/before/db", 7)]),
        (
            "    before: {b2: {ready: started}}\n  b2: {image: ., before: {web: {ready: started}}}\n",
            [("/containers", 4)],
        ),
        ("    files: {/a: {source: ./secret.txt}}\n", [("/containers/web/files/~1a/source", 7)]),
        ("    files: {/a: {binaryContent: '???'}}\n", [("/containers/web/files/~1a/binaryContent", 7)]),
        ("    files: {a/b: {content: x}}\n", [("/containers/web/files/a~1b", 7)]),
        ("    files: {/a/../b: {content: x}}\n", [("/containers/web/files/~1a~1..~1b", 7)]),
        ("    files: {/proc/1: {content: x}}\n", [("/containers/web/files/~1proc~11", 7)]),
        ("    files: {/a/b: {content: x}, /a/b/c: {content: y}}\n", [("/containers/web/files/~1a~1b~1c", 7)]),
        ("    files: {/a/b: {content: x}, /a/bc: {content: y}, /a/b.c/d: {content: z}}\n", []),
        ("    files: {/tmp: {content: x}}\n", [("/containers/web/files/~1tmp", 7)]),
        ('    files: {"/a\\nb": {content: x}}\n', [("/containers/web/files/~1a\nb", 7)]),
        (
            "    files: {/d: {content: x}}\n    volumes: {/d/x/y: {source: v1}}\n",
            [("/containers/web/volumes/~1d~1x~1y", 8)],
        ),
        (
            "    files: {/d/x: {content: x}}\n    volumes: {/d: {source: v1, readOnly: true}, /d/y: {source: v1}}\n",
            [("/containers/web/files/~1d~1x", 7), ("/containers/web/volumes/~1d~1y", 8)],
        ),
        ("    files: {/d/x: {content: x}}\n    volumes: {/d: {source: v1}, /d/y: {source: v1}}\n", []),
        ("    files: {/bindings/db/host: {content: x}}\n", [("/containers/web/files/~1bindings~1db~1host", 7)]),
        (
            "    files:\n    - {target: /a, content: x}\n    - {target: /a, content: y}\n",
            [("/containers/web/files/1", 9)],
        ),
        ("    resources: {limits: {cpu: '0'}}\n", [("/containers/web/resources/limits/cpu", 7)]),
        (
            "    resources: {limits: {memory: 1G}, requests: {memory: 1Gi}}\n",
            [("/containers/web/resources/requests/memory", 7)],
        ),
        ("service:\n  ports:\n    p1: {port: 80}\n    p2: {port: 80}\n", [("/service/ports/p2", 10)]),
        (
            "resources:\n  db: {type: postgres, params: {a: [x, '${metadata.nope}']}}\n",
            [("/resources/db/params/a/1", 8)],
        ),
    ],
)
def test_meaning_is_checked(text: str, expected: list[tuple[str, int]]) -> None:
    if expected:
        assert problems(BASE + text) == expected
    else:
        load_score((BASE + text).encode())


def test_all_problems_are_told_at_once_with_remedies() -> None:
    with pytest.raises(Problems) as caught:
        load_score((BASE + "    imagge: x\n    livenesProbe: {}\nresource: {}\n").encode(), "web/score.yaml")
    error = caught.value
    assert [problem.remedy for problem in error.problems] == [
        "Did you mean 'image'?",
        "Did you mean 'livenessProbe'?",
        "Did you mean 'resources'?",
    ]
    assert error.where == "web/score.yaml:7"
    assert error.what == "/containers/web/imagge: This key is unknown here. (and 2 more)"


# -- YAML from strangers ------------------------------------------------------------------------------------------


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("data", "message", "line"),
    [
        (BOMB.encode(), "Anchors and aliases", 1),
        (b"a: 1\nb: *c\n", "Anchors and aliases", 2),
        (b"a: 1\nb: 2\na: 3\n", "twice", 3),
        (b"a: {b: 1,\n b: 2}\n", "twice", 2),
        (b"a: !!python/object/apply:os.system [id]\n", "tag", 1),
        (b"a: !!str 1\n", "tag", 1),
        (b"1: a\n", "not a string", 1),
        (b"? [a]\n: b\n", "not a string", 1),
        (b"a: .nan\n", "JSON", 1),
        (b"a: -.inf\n", "JSON", 1),
        (b"a: 9007199254740992\n", "too big", 1),
        (b"a: 1e999\n", "too big", 1),
        (b"a: 1e20\n", "too big", 1),
        (b"a: -9007199254740993.5\n", "too big", 1),
        (b'a: 1\nb: "x\\0y"\n', "control character", 2),
        (b'a: "\\x1b[31m"\n', "control character", 1),
        (b"a: \xff\n", "UTF-8", 1),
        (b"a: 1\nb: \xc3\x28\n", "UTF-8", 2),
        (b"a: [1\n", "not YAML", 2),
        (b"a: \x00\n", "not YAML", 0),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested", 1),
        (b"[" * 200_000, "nested", 1),
        (b"a: " + b"[x," * 5 + b"]" * 5 + b"\n" + b"- x\n" * 3, "not YAML", 2),
        (b"- x\n" * 20_001, "more than", 20_000),
        (b"a: 1\n---\nb: 2\n", "more than one", 0),
        (b"", "no document", 0),
        (b"x" * (MAX_BYTES + 1), "bigger", 0),
    ],
)
def test_hostile_yaml_is_refused(data: bytes, message: str, line: int) -> None:
    with pytest.raises(Problems) as caught:
        read_document(data, "f.yaml")
    assert message in caught.value.problems[0].message
    assert caught.value.problems[0].line == line


def test_scalars_follow_the_core_schema() -> None:
    text = "[yes, on, 0644, 0o17, 0x1f, 1_000, 1:30, 2026-01-01, 'true', true, ~, , 1.5, -3, +7, 1e3, .5, '1']"
    assert read_document(text.replace(", ,", ", ").encode(), "f").value == [
        "yes", "on", 644, 15, 31, "1_000", "1:30", "2026-01-01", "true", True, None, 1.5, -3, 7, 1000.0, 0.5, "1"
    ]  # fmt: skip


def test_lines_of_nested_values() -> None:
    source = read_document(b"a:\n  - b: 1\n    c/d: 2\n  - x\n", "f")
    assert {pointer: source.line(pointer) for pointer in ("", "/a", "/a/0/b", "/a/0/c~1d", "/a/1", "/a/0/b/none")} == {
        "": 1, "/a": 1, "/a/0/b": 2, "/a/0/c~1d": 3, "/a/1": 4, "/a/0/b/none": 2
    }  # fmt: skip
    assert [document.value for document in read_documents(b"a: 1\n---\n- 2\n", "f")] == [{"a": 1}, [2]]


@given(st.binary(max_size=200))
def test_bytes_are_read_or_refused_never_worse(data: bytes) -> None:
    try:
        read_documents(data, "f")
    except Problems as refused:
        assert refused.problems  # noqa: PT017


# -- placeholders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("plain", ("plain",)),
        ("$", ("$",)),
        ("$5", ("$5",)),
        ("$$", ("$",)),
        ("$$$", ("$$",)),
        ("$$$$", ("$$",)),
        ("a$b$", ("a$b$",)),
        ("$${x}", ("${x}",)),
        ("$$${metadata.k}", ("$", "v")),
        ("$$$${metadata.k}", ("$${metadata.k}",)),
        ("${metadata.k}", ("v",)),
        ("<${metadata.k}${metadata.k}>", ("<vv>",)),
        ("${metadata.deep.er}", ("down",)),
        ("${metadata.dot\\.ted}", ("d",)),
        ("${metadata.number}", ("3",)),
        ("${metadata.deep}", ('{"er":"down"}',)),
        ("${metadata.list}", ("[1,true]",)),
        ("${", ("${",)),
        ("${unclosed", ("${unclosed",)),
        ("{metadata.k}", ("{metadata.k}",)),
        ("${resources.db.host}", (("resources", "db", "host"),)),
        ("a ${resources.db.host} b", ("a ", ("resources", "db", "host"), " b")),
        ("${resources.db.tls\\.crt}", (("resources", "db", "tls.crt"),)),
        ("${resources.db}", (("resources", "db"),)),
        ("${resources.db.a.b.c}", (("resources", "db", "a", "b", "c"),)),
        ("$$$$${metadata.k}", ("$$v",)),
        ("$$$$$${metadata.k}", ("$$${metadata.k}",)),
        ("$ {metadata.k}", ("$ {metadata.k}",)),
        ("a $$ b", ("a $ b",)),
        ("$${}", ("${}",)),
        ("$${any .thing *(^& at all}", ("${any .thing *(^& at all}",)),
        ("${metadata.k}}", ("v}",)),
        ("{${metadata.k}}", ("{v}",)),
        ("${metadata.null}", ("null",)),
        ("${metadata.no}", ("false",)),
        ("${metadata.empty}", ()),
        ("${metadata.text}", ("${metadata.k}",)),
        ("${metadata.annotations.example\\.com/team}", ("green",)),
        (
            "pg://${resources.db.user}:${resources.db.pass}@h/${metadata.k}?x=$$1",
            ("pg://", ("resources", "db", "user"), ":", ("resources", "db", "pass"), "@h/v?x=$1"),
        ),
        ("${metadata.k}\n${metadata.k}\t", ("v\nv\t",)),
        ("\u00e4${metadata.k}\u00e4", ("\u00e4v\u00e4",)),
    ],
)
def test_placeholders(text: str, expected: tuple[object, ...]) -> None:
    metadata = {"k": "v", "deep": {"er": "down"}, "dot.ted": "d", "number": 3, "list": [1, True]}
    metadata |= {"null": None, "no": False, "empty": "", "text": "${metadata.k}"}
    metadata |= {"annotations": {"example.com/team": "green"}}
    parts = [part.parts if isinstance(part, Reference) else part for part in resolve(text, metadata)]
    flat: list[object] = []
    for part in expected:
        if isinstance(part, str) and flat and isinstance(flat[-1], str):
            flat[-1] += part
        else:
            flat.append(part)
    assert parts == flat


@pytest.mark.parametrize(
    "text",
    [
        "${}",
        "${metadata}",
        "${metadata.none}",
        "${metadata.k.more}",
        "${Metadata.k}",
        "${ metadata.k}",
        "${.}",
        "${metadata.}",
        "${metadata..k}",
        "${metadata.k }",
        "${k}",
        "${resource.db.host}",
        "$$${k}",
        "$$$$${k}",
        "fine ${metadata.k} and ${metadata.dot\\.ted}",
        "${${metadata.k}}",
        "${metadata.list.0}",
    ],
)
def test_placeholders_that_resolve_to_nothing(text: str) -> None:
    with pytest.raises(PlaceholderError):
        resolve(text, {"k": "v"})


@given(st.text(alphabet="a$", max_size=12))
def test_doubling_every_dollar_gives_the_text_back(text: str) -> None:
    assert "".join(str(part) for part in scan(text.replace("$", "$$"))) == text


# -- quantities -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "milli", "canonical"),
    [
        ("2", 2000, "2"),
        ("0.5", 500, "500m"),
        ("1000m", 1000, "1"),
        ("125m", 125, "125m"),
        ("0.0001", 1, "1m"),
        ("0", 0, "0"),
    ],
)
def test_cpu(text: str, milli: int, canonical: str) -> None:
    assert (milli_cpus(text), cpu_text(milli_cpus(text))) == (milli, canonical)


@pytest.mark.parametrize(
    ("text", "count", "canonical"),
    [
        ("128M", 128_000_000, "128M"),
        ("1000M", 10**9, "1G"),
        ("1.5Gi", 1536 * 2**20, "1536Mi"),
        ("1024Mi", 2**30, "1Gi"),
        ("7K", 7000, "7k"),
        ("1000", 1000, "1k"),
        ("1.5", 2, "2"),
        ("0.5Ki", 512, "512"),
        ("2Ei", 2**61, "2Ei"),
    ],
)
def test_memory(text: str, count: int, canonical: str) -> None:
    assert (memory_bytes(text), memory_text(memory_bytes(text), binary=text.endswith("i"))) == (count, canonical)


# -- files beside it ------------------------------------------------------------------------------------------------


def with_source(source: str) -> bytes:
    return (BASE + f"    files:\n      /etc/menu: {{source: {source}}}\n").encode()


def test_source_is_read_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/menu").write_bytes("sencha für ${metadata.name}".encode())
    (tmp_path / "leaf").write_bytes(b"\xff\x00")
    for source in ("conf/menu", "./conf/menu"):
        file = load_score(with_source(source), read=reader(tmp_path)).containers[0].files[0]
        assert (file.content, file.expand) == ("sencha für ${metadata.name}", True)
    leaf = load_score(with_source("leaf"), read=reader(tmp_path)).containers[0].files[0]
    assert (leaf.content, leaf.expand) == (b"\xff\x00", False)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/etc/passwd", "not a plain path"),
        ("../secret", "not a plain path"),
        ("conf/../../secret", "not a plain path"),
        ("conf//menu", "not a plain path"),
        ("nothing", "There is no file"),
        ("conf", "not a regular file"),
        ("link", "not a regular file"),
        ("out/secret", "not a regular file"),
        ("pipe", "not a regular file"),
        ("big", "bigger than"),
        ("menu/x", "not a regular file"),
    ],
)
def test_sources_that_are_refused(tmp_path: Path, source: str, message: str) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    (tree / "conf").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("s")
    (tree / "link").symlink_to(outside / "secret")
    (tree / "out").symlink_to(outside)
    (tree / "menu").write_text("m")
    (tree / "big").write_bytes(bytes((1 << 20) + 1))
    os.mkfifo(tree / "pipe")
    with pytest.raises(Problems) as caught:
        load_score(with_source(source), read=reader(tree))
    assert [(problem.pointer, problem.line) for problem in caught.value.problems] == [
        ("/containers/web/files/~1etc~1menu/source", 8)
    ]
    assert message in caught.value.problems[0].message
    assert caught.value.problems[0].remedy


def test_without_the_files_a_source_is_refused() -> None:
    with pytest.raises(Problems, match="alone here"):
        load_score(with_source("menu"))


# -- one thing under several names ----------------------------------------------------------------------------------


def test_the_same_type_class_and_id_are_one_resource() -> None:
    text = (
        "resources:\n  a1: {type: redis}\n  a2: {type: redis, id: shop.a1}\n"
        "  a3: {type: redis, class: big, id: shop.a1}\n"
        "  b1: {type: dns, id: shop.x}\n  b2: {type: dns, id: shop.x, params: {z: 1}}\n"
    )
    assert load_score((BASE + text).encode()).shared == {"a1": "a1", "a2": "a1", "a3": "a3", "b1": "b1", "b2": "b1"}


def test_one_resource_has_one_set_of_params() -> None:
    text = "resources:\n  b1: {type: dns, id: shop.x, params: {z: 1}}\n  b2: {type: dns, id: shop.x, params: {z: 2}}\n"
    assert problems(BASE + text) == [("/resources/b2/params", 9)]
