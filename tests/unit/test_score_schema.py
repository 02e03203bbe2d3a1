"""The Score schema, field by field: a document that has everything, changed in one place at a time."""

import json
from typing import Any

import pytest
import yaml

from sekisho.score import Problems, load_score
from sekisho.score.schema import schema

WHOLE: dict[str, Any] = {
    "apiVersion": "score.dev/v1b1",
    "metadata": {"name": "tea-shop", "annotations": {"example.com/team": "green"}, "region": "kyoto"},
    "service": {"ports": {"web": {"port": 80, "protocol": "TCP", "targetPort": 8080}}},
    "containers": {
        "first": {"image": ".", "before": {"main": {"ready": "complete"}}},
        "main": {
            "image": ".",
            "command": ["/bin/serve"],
            "args": ["--tea", "sencha"],
            "variables": {"CUP": "${metadata.name}"},
            "files": {
                "/etc/menu": {"content": "sencha", "mode": "0440", "noExpand": True},
                "/etc/leaf": {"binaryContent": "AAEC"},
            },
            "volumes": {"/var/tea": {"source": "${resources.leaves}", "path": "dry", "readOnly": True}},
            "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}, "requests": {"memory": "32Mi", "cpu": "0.1"}},
            "livenessProbe": {"exec": {"command": ["/bin/true"]}},
            "readinessProbe": {
                "httpGet": {
                    "path": "/",
                    "port": 8080,
                    "scheme": "HTTP",
                    "host": "tea.example",
                    "httpHeaders": [{"name": "X-Tea", "value": "1"}],
                }
            },
        },
    },
    "resources": {
        "leaves": {"type": "volume", "metadata": {"annotations": {"example.com/origin": "uji"}, "free": 1}},
        "pot": {"type": "postgres", "class": "large", "id": "tea-shop.pot", "params": {"any": [1, {"x": None}]}},
    },
}
GONE = object()
MAIN = "/containers/main"
GET = f"{MAIN}/readinessProbe/httpGet"
FILE = f"{MAIN}/files/~1etc~1menu"
MOUNT = f"{MAIN}/volumes/~1var~1tea"
PORT = "/service/ports/web"
LONG = "a" * 64


def changed(pointer: str, value: Any) -> bytes:
    """Return WHOLE as YAML, with the value at `pointer` replaced, added or (GONE) taken out."""
    document = json.loads(json.dumps(WHOLE))
    *path, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    place = document
    for part in path:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if value is GONE:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=10_000).encode()


def test_the_whole_document_is_valid() -> None:
    assert load_score(changed("/metadata/region", "uji")).name == "tea-shop"


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/metadata/anything", {"deep": [1, None]}),
        ("/metadata/annotations", {}),
        ("/metadata/annotations", {"a1": "", "a.b": "x", "a_b-c.D": "y", "ex-1.example.com/Ab": "z"}),
        ("/service", {}),
        ("/service/ports", {}),
        (PORT, {"port": 1}),
        (PORT, {"port": 65535, "protocol": "UDP", "targetPort": 65535}),
        ("/service/ports/second", {"port": 81}),
        (f"{MAIN}/command", []),
        (f"{MAIN}/args", []),
        (f"{MAIN}/args", ["", "$(X)", "${not.expanded}"]),
        (f"{MAIN}/variables", {}),
        (f"{MAIN}/variables/EMPTY", ""),
        (f"{MAIN}/variables/with.dots-and space", "x"),
        (f"{MAIN}/files", {}),
        (f"{MAIN}/files", []),
        (f"{MAIN}/files", [{"target": "/a", "content": "x"}, {"target": "/b", "content": "", "mode": "644"}]),
        (FILE, {"content": ""}),
        (FILE, {"content": "${metadata.nope}", "noExpand": True}),
        (FILE, {"content": "x", "noExpand": False}),
        (f"{FILE}/mode", "777"),
        (f"{MAIN}/volumes", {}),
        (f"{MAIN}/volumes", [{"target": "/a", "source": "leaves", "readOnly": False}]),
        (MOUNT, {"source": "leaves"}),
        (f"{MAIN}/resources", {}),
        (f"{MAIN}/resources", {"limits": {}, "requests": {}}),
        (f"{MAIN}/resources/limits/memory", "1.5Gi"),
        (f"{MAIN}/resources/limits/memory", "99999999"),
        (f"{MAIN}/resources/limits/memory", "1P"),
        (f"{MAIN}/resources/limits/cpu", "2"),
        (f"{MAIN}/resources/limits/cpu", "1.25"),
        (f"{MAIN}/livenessProbe", GONE),
        (f"{MAIN}/readinessProbe", {"exec": {"command": ["a", "b"]}}),
        (f"{MAIN}/readinessProbe/exec", {"command": []}),
        (GET, {"path": "/", "port": 1}),
        (f"{GET}/scheme", "HTTPS"),
        (f"{GET}/httpHeaders", []),
        ("/containers/first/before/main/ready", "started"),
        ("/containers/first/before", {}),
        ("/resources/cup", {"type": "Any-Type9"}),
        ("/resources/pot/params", {}),
        ("/resources/pot/id", "tea-shop.a--b.c9"),
        ("/resources/pot/class", "Large-2"),
        ("/resources/pot/metadata", {}),
    ],
)
def test_valid(pointer: str, value: Any) -> None:
    load_score(changed(pointer, value))


@pytest.mark.parametrize(
    ("pointer", "value", "expected"),
    [
        # the root
        ("/apiVersion", GONE, ""),
        ("/apiVersion", None, "/apiVersion"),
        ("/apiVersion", 1, "/apiVersion"),
        ("/apiVersion", "score.dev/v1", "/apiVersion"),
        ("/apiVersion", "score.dev/v1b1\n", "/apiVersion"),
        ("/extra", {}, "/extra"),
        # metadata
        ("/metadata", GONE, ""),
        ("/metadata", None, "/metadata"),
        ("/metadata", [], "/metadata"),
        ("/metadata/name", GONE, "/metadata"),
        ("/metadata/name", None, "/metadata/name"),
        ("/metadata/name", 12, "/metadata/name"),
        ("/metadata/name", "", "/metadata/name"),
        ("/metadata/name", "a", "/metadata/name"),
        ("/metadata/name", LONG, "/metadata/name"),
        ("/metadata/name", "-tea", "/metadata/name"),
        ("/metadata/name", "tea-", "/metadata/name"),
        ("/metadata/name", "Tea", "/metadata/name"),
        ("/metadata/name", "te.a", "/metadata/name"),
        ("/metadata/name", "tea\n", "/metadata/name"),
        ("/metadata/annotations", None, "/metadata/annotations"),
        ("/metadata/annotations/k1", 1, "/metadata/annotations/k1"),
        ("/metadata/annotations/k1", None, "/metadata/annotations/k1"),
        ("/metadata/annotations/k", "v", "/metadata/annotations/k"),
        ("/metadata/annotations/a b", "v", "/metadata/annotations/a b"),
        ("/metadata/annotations/Example.com~1k1", "v", "/metadata/annotations/Example.com~1k1"),
        ("/metadata/annotations/example.com~1", "v", "/metadata/annotations/example.com~1"),
        ("/metadata/annotations/a~1b~1c", "v", "/metadata/annotations/a~1b~1c"),
        # service
        ("/service", None, "/service"),
        ("/service", [], "/service"),
        ("/service/port", 80, "/service/port"),
        ("/service/ports", None, "/service/ports"),
        ("/service/ports", [80], "/service/ports"),
        ("/service/ports/w", {"port": 1}, "/service/ports/w"),
        ("/service/ports/w_w", {"port": 1}, "/service/ports/w_w"),
        (PORT, None, PORT),
        (PORT, 80, PORT),
        (PORT, {}, PORT),
        (f"{PORT}/port", GONE, PORT),
        (f"{PORT}/port", "80", f"{PORT}/port"),
        (f"{PORT}/port", 0, f"{PORT}/port"),
        (f"{PORT}/port", -1, f"{PORT}/port"),
        (f"{PORT}/port", 65536, f"{PORT}/port"),
        (f"{PORT}/port", 80.5, f"{PORT}/port"),
        (f"{PORT}/port", True, f"{PORT}/port"),
        (f"{PORT}/targetPort", "web", f"{PORT}/targetPort"),
        (f"{PORT}/targetPort", 0, f"{PORT}/targetPort"),
        (f"{PORT}/targetPort", None, f"{PORT}/targetPort"),
        (f"{PORT}/protocol", "tcp", f"{PORT}/protocol"),
        (f"{PORT}/protocol", "SCTP", f"{PORT}/protocol"),
        (f"{PORT}/protocol", 6, f"{PORT}/protocol"),
        (f"{PORT}/nodePort", 30000, f"{PORT}/nodePort"),
        # containers
        ("/containers", GONE, ""),
        ("/containers", None, "/containers"),
        ("/containers", {}, "/containers"),
        ("/containers", [], "/containers"),
        ("/containers/Main", {"image": "."}, "/containers/Main"),
        ("/containers/m", {"image": "."}, "/containers/m"),
        (f"/containers/{LONG}", {"image": "."}, f"/containers/{LONG}"),
        (MAIN, None, MAIN),
        (MAIN, ".", MAIN),
        (f"{MAIN}/image", GONE, MAIN),
        (f"{MAIN}/image", None, f"{MAIN}/image"),
        (f"{MAIN}/image", "", f"{MAIN}/image"),
        (f"{MAIN}/image", 3, f"{MAIN}/image"),
        (f"{MAIN}/privileged", True, f"{MAIN}/privileged"),
        (f"{MAIN}/ports", [], f"{MAIN}/ports"),
        (f"{MAIN}/command", None, f"{MAIN}/command"),
        (f"{MAIN}/command", "/bin/serve", f"{MAIN}/command"),
        (f"{MAIN}/command", [1], f"{MAIN}/command/0"),
        (f"{MAIN}/args", None, f"{MAIN}/args"),
        (f"{MAIN}/args", {}, f"{MAIN}/args"),
        (f"{MAIN}/args", ["a", None], f"{MAIN}/args/1"),
        (f"{MAIN}/variables", None, f"{MAIN}/variables"),
        (f"{MAIN}/variables", ["A=b"], f"{MAIN}/variables"),
        (f"{MAIN}/variables/A", None, f"{MAIN}/variables/A"),
        (f"{MAIN}/variables/A", 1, f"{MAIN}/variables/A"),
        (f"{MAIN}/variables/A", {}, f"{MAIN}/variables/A"),
        (f"{MAIN}/variables/A=B", "x", f"{MAIN}/variables/A=B"),
        # files
        (f"{MAIN}/files", None, f"{MAIN}/files"),
        (f"{MAIN}/files", "x", f"{MAIN}/files"),
        (f"{MAIN}/files", [{"content": "x"}], f"{MAIN}/files/0"),
        (f"{MAIN}/files", [{"target": "", "content": "x"}], f"{MAIN}/files/0/target"),
        (f"{MAIN}/files", [{"target": 1, "content": "x"}], f"{MAIN}/files/0/target"),
        (f"{MAIN}/files", [{"target": "/a"}], f"{MAIN}/files/0"),
        (FILE, None, FILE),
        (FILE, {}, FILE),
        (FILE, {"mode": "644"}, FILE),
        (FILE, {"content": "x", "source": "y"}, FILE),
        (FILE, {"content": "x", "binaryContent": "AA=="}, FILE),
        (FILE, {"target": "/b", "content": "x"}, f"{FILE}/target"),
        (f"{FILE}/content", 1, f"{FILE}/content"),
        (f"{FILE}/content", None, f"{FILE}/content"),
        (f"{FILE}/mode", None, f"{FILE}/mode"),
        (f"{FILE}/mode", 420, f"{FILE}/mode"),
        (f"{FILE}/mode", "9999", f"{FILE}/mode"),
        (f"{FILE}/mode", "4755", f"{FILE}/mode"),
        (f"{FILE}/mode", "", f"{FILE}/mode"),
        (f"{FILE}/noExpand", "yes", f"{FILE}/noExpand"),
        (f"{FILE}/noExpand", None, f"{FILE}/noExpand"),
        (FILE, {"source": ""}, f"{FILE}/source"),
        (FILE, {"source": None}, f"{FILE}/source"),
        (FILE, {"source": 5}, f"{FILE}/source"),
        (FILE, {"binaryContent": {}}, f"{FILE}/binaryContent"),
        (FILE, {"binaryContent": "not base64"}, f"{FILE}/binaryContent"),
        (FILE, {"binaryContent": "AAE"}, f"{FILE}/binaryContent"),
        # volumes
        (f"{MAIN}/volumes", None, f"{MAIN}/volumes"),
        (f"{MAIN}/volumes", [{"source": "leaves"}], f"{MAIN}/volumes/0"),
        (f"{MAIN}/volumes", [{"target": "/a"}], f"{MAIN}/volumes/0"),
        (MOUNT, None, MOUNT),
        (MOUNT, {}, MOUNT),
        (f"{MOUNT}/source", 1, f"{MOUNT}/source"),
        (f"{MOUNT}/source", None, f"{MOUNT}/source"),
        (f"{MOUNT}/path", None, f"{MOUNT}/path"),
        (f"{MOUNT}/path", 1, f"{MOUNT}/path"),
        (f"{MOUNT}/readOnly", "true", f"{MOUNT}/readOnly"),
        (f"{MOUNT}/readOnly", None, f"{MOUNT}/readOnly"),
        (f"{MOUNT}/size", "1Gi", f"{MOUNT}/size"),
        # compute resources
        (f"{MAIN}/resources", None, f"{MAIN}/resources"),
        (f"{MAIN}/resources/claims", {}, f"{MAIN}/resources/claims"),
        (f"{MAIN}/resources/limits", None, f"{MAIN}/resources/limits"),
        (f"{MAIN}/resources/limits/gpu", "1", f"{MAIN}/resources/limits/gpu"),
        (f"{MAIN}/resources/limits/memory", None, f"{MAIN}/resources/limits/memory"),
        (f"{MAIN}/resources/limits/memory", 64, f"{MAIN}/resources/limits/memory"),
        (f"{MAIN}/resources/limits/memory", "64mi", f"{MAIN}/resources/limits/memory"),
        (f"{MAIN}/resources/limits/memory", "-1Mi", f"{MAIN}/resources/limits/memory"),
        (f"{MAIN}/resources/limits/memory", "1e6", f"{MAIN}/resources/limits/memory"),
        (f"{MAIN}/resources/limits/memory", "", f"{MAIN}/resources/limits/memory"),
        (f"{MAIN}/resources/limits/memory", "64E", f"{MAIN}/resources/limits/memory"),
        (f"{MAIN}/resources/limits/cpu", 1, f"{MAIN}/resources/limits/cpu"),
        (f"{MAIN}/resources/limits/cpu", "", f"{MAIN}/resources/limits/cpu"),
        (f"{MAIN}/resources/limits/cpu", "m", f"{MAIN}/resources/limits/cpu"),
        (f"{MAIN}/resources/limits/cpu", "0.5m", f"{MAIN}/resources/limits/cpu"),
        (f"{MAIN}/resources/limits/cpu", ".5", f"{MAIN}/resources/limits/cpu"),
        (f"{MAIN}/resources/limits/cpu", "5.", f"{MAIN}/resources/limits/cpu"),
        (f"{MAIN}/resources/limits/cpu", "\u0661", f"{MAIN}/resources/limits/cpu"),
        (f"{MAIN}/resources/limits/cpu", "0", f"{MAIN}/resources/limits/cpu"),
        (f"{MAIN}/resources/requests", None, f"{MAIN}/resources/requests"),
        (f"{MAIN}/resources/requests/cpu", "x", f"{MAIN}/resources/requests/cpu"),
        (f"{MAIN}/resources/requests/cpu", "2", f"{MAIN}/resources/requests/cpu"),
        (f"{MAIN}/resources/requests/memory", "65Mi", f"{MAIN}/resources/requests/memory"),
        # probes
        (f"{MAIN}/livenessProbe", None, f"{MAIN}/livenessProbe"),
        (f"{MAIN}/livenessProbe", {}, f"{MAIN}/livenessProbe"),
        (f"{MAIN}/livenessProbe/tcpSocket", {}, f"{MAIN}/livenessProbe/tcpSocket"),
        (f"{MAIN}/livenessProbe/exec", None, f"{MAIN}/livenessProbe/exec"),
        (f"{MAIN}/livenessProbe/exec", {}, f"{MAIN}/livenessProbe/exec"),
        (f"{MAIN}/livenessProbe/exec/command", "x", f"{MAIN}/livenessProbe/exec/command"),
        (f"{MAIN}/livenessProbe/exec/command", [1], f"{MAIN}/livenessProbe/exec/command/0"),
        (f"{MAIN}/readinessProbe", {}, f"{MAIN}/readinessProbe"),
        (f"{MAIN}/startupProbe", {}, f"{MAIN}/startupProbe"),
        (f"{MAIN}/readinessProbe/periodSeconds", 1, f"{MAIN}/readinessProbe/periodSeconds"),
        (GET, None, GET),
        (f"{GET}/path", GONE, GET),
        (f"{GET}/path", 1, f"{GET}/path"),
        (f"{GET}/port", GONE, GET),
        (f"{GET}/port", "web", f"{GET}/port"),
        (f"{GET}/port", 0, f"{GET}/port"),
        (f"{GET}/port", 65536, f"{GET}/port"),
        (f"{GET}/scheme", "http", f"{GET}/scheme"),
        (f"{GET}/host", "", f"{GET}/host"),
        (f"{GET}/host", None, f"{GET}/host"),
        (f"{GET}/httpHeaders", None, f"{GET}/httpHeaders"),
        (f"{GET}/httpHeaders", {}, f"{GET}/httpHeaders"),
        (f"{GET}/httpHeaders/0/name", GONE, f"{GET}/httpHeaders/0"),
        (f"{GET}/httpHeaders/0/name", "X Tea", f"{GET}/httpHeaders/0/name"),
        (f"{GET}/httpHeaders/0/name", "", f"{GET}/httpHeaders/0/name"),
        (f"{GET}/httpHeaders/0/value", GONE, f"{GET}/httpHeaders/0"),
        (f"{GET}/httpHeaders/0/value", "", f"{GET}/httpHeaders/0/value"),
        (f"{GET}/httpHeaders/0/value", 1, f"{GET}/httpHeaders/0/value"),
        # order
        ("/containers/first/before", None, "/containers/first/before"),
        ("/containers/first/before", ["main"], "/containers/first/before"),
        ("/containers/first/before/main", None, "/containers/first/before/main"),
        ("/containers/first/before/main", {}, "/containers/first/before/main"),
        ("/containers/first/before/main/ready", "done", "/containers/first/before/main/ready"),
        ("/containers/first/before/main/after", 1, "/containers/first/before/main/after"),
        ("/containers/first/before/other", {"ready": "complete"}, "/containers/first/before/other"),
        # resources
        ("/resources", None, "/resources"),
        ("/resources", [], "/resources"),
        ("/resources/Pot", {"type": "dns"}, "/resources/Pot"),
        ("/resources/pot", None, "/resources/pot"),
        ("/resources/pot/type", GONE, "/resources/pot"),
        ("/resources/pot/type", None, "/resources/pot/type"),
        ("/resources/pot/type", "a", "/resources/pot/type"),
        ("/resources/pot/type", "a_b", "/resources/pot/type"),
        ("/resources/pot/type", LONG, "/resources/pot/type"),
        ("/resources/pot/class", "", "/resources/pot/class"),
        ("/resources/pot/class", "a b", "/resources/pot/class"),
        ("/resources/pot/class", 1, "/resources/pot/class"),
        ("/resources/pot/id", "Tea", "/resources/pot/id"),
        ("/resources/pot/id", "a..b", "/resources/pot/id"),
        ("/resources/pot/id", ".a", "/resources/pot/id"),
        ("/resources/pot/id", "a-", "/resources/pot/id"),
        ("/resources/pot/id", LONG, "/resources/pot/id"),
        ("/resources/pot/id", "other.pot", "/resources/pot/id"),
        ("/resources/pot/params", None, "/resources/pot/params"),
        ("/resources/pot/params", [], "/resources/pot/params"),
        ("/resources/pot/metadata", None, "/resources/pot/metadata"),
        ("/resources/leaves/metadata/annotations", None, "/resources/leaves/metadata/annotations"),
        ("/resources/leaves/metadata/annotations/k1", 1, "/resources/leaves/metadata/annotations/k1"),
        ("/resources/leaves/metadata/annotations/k", "x", "/resources/leaves/metadata/annotations/k"),
        ("/resources/pot/size", 1, "/resources/pot/size"),
    ],
)
def test_invalid(pointer: str, value: Any, expected: str) -> None:
    data = changed(pointer, value)
    with pytest.raises(Problems) as caught:
        load_score(data, "tea/score.yaml")
    assert expected in [problem.pointer for problem in caught.value.problems]
    problem = next(problem for problem in caught.value.problems if problem.pointer == expected)
    # The line is the one where the key of the value stands; for the whole document and for lists, where it begins.
    key = expected.rpartition("/")[2].replace("~1", "/")
    line = data.decode().splitlines()[problem.line - 1]
    assert key.isdecimal() or not key or line.strip().removeprefix("- ").startswith((f"{key}:", f"'{key}':"))
    assert problem.message


def test_every_place_that_the_schema_closes_refuses_a_stranger() -> None:
    closed = [
        "", "/service", PORT, MAIN, f"{MAIN}/resources", f"{MAIN}/resources/limits", f"{MAIN}/resources/requests",
        FILE, MOUNT, f"{MAIN}/livenessProbe", f"{MAIN}/livenessProbe/exec", GET, f"{GET}/httpHeaders/0",
        "/containers/first/before/main", "/resources/pot",
    ]  # fmt: skip
    for place in closed:
        with pytest.raises(Problems) as caught:
            load_score(changed(f"{place}/x-stranger", 1))
        assert [problem.pointer for problem in caught.value.problems] == [f"{place}/x-stranger"]
    for free in ("/metadata", "/resources/leaves/metadata", "/resources/pot/params"):
        load_score(changed(f"{free}/x-stranger", 1))


def test_the_schema_is_a_schema() -> None:
    jsonschema_rs = pytest.importorskip("jsonschema_rs")
    jsonschema_rs.meta.validate(schema())
