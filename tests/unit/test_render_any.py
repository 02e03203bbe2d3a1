"""Any valid Score file, with all of its fields: what it renders to passes, can run, and holds no secret."""

import base64
import itertools
import json
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sekisho.canonical import canonical
from sekisho.kinds import resource_of
from sekisho.policy import PolicySet, load_policies
from sekisho.score.schema import schema
from sekisho.workloads import containers_of, pod_template
from stages.harden.restricted import violations
from stages.judge_schema import schema_reasons
from stages.render import render

ROOT = Path(__file__).parents[2]
IMAGE = f"registry.sekisho.internal/apps/shop@sha256:{'a' * 64}"
GUARD = f"registry.sekisho.internal/standard/guard@sha256:{'b' * 64}"
LINE = "workload.sekisho.dev"

NAMES = st.from_regex(r"[a-z][a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
LONG = st.sampled_from(["0-9", "a" * 63, "x" + "-" * 61 + "9"])
TEXT = st.text(alphabet=string.ascii_letters + string.digits + " $().:/@{-_é\n\t\"'#", max_size=20)
PLAIN = TEXT.map(lambda text: text.replace("$", "$$"))
PORTS = st.integers(1, 65535)
MEMORY = ["1", "16Mi", "64Mi", "100M", "0.5Gi", "1.5Gi", "2G", "8Gi"]
"""Up to what the platform's policy lets a container have: more is valid Score, and refused for its size."""
CPU = ["0.001", "1m", "250m", "0.5", "2", "4"]
SOURCES = {"conf/menu": b"for ${metadata.name}: $$5\n", "leaf": b"\xff\x00", "./empty": b""}
OUTPUTS = ("host", "port", "username", "password", "database", "name", "uri")


# -- what a valid file can say ----------------------------------------------------------------------------------------


@st.composite
def values(draw: st.DrawFn, resources: dict[str, Any], *, outputs: bool = True) -> str:
    """A text with placeholders that name something."""
    pieces = draw(st.lists(PLAIN, max_size=2))
    bound = [name for name, body in resources.items() if body["type"] not in {"route", "volume"}]
    if outputs and bound:
        names = st.tuples(st.sampled_from(bound), st.sampled_from(OUTPUTS))
        pieces += [f"${{resources.{name}.{output}}}" for name, output in draw(st.lists(names, max_size=3))]
    metadata = ["${metadata.name}", "${metadata.deep.er}", r"${metadata.annotations.example\.com/owner}", "$${kept}"]
    pieces += draw(st.lists(st.sampled_from(metadata), max_size=2))
    return "".join(draw(st.permutations(pieces)))


@st.composite
def probes(draw: st.DrawFn) -> dict[str, Any]:
    http: dict[str, Any] = {"path": draw(st.sampled_from(["/", "", "healthz", "/a?b=c"])), "port": draw(PORTS)}
    http |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "scheme": st.sampled_from(["HTTP", "HTTPS"]),
                "host": st.sampled_from(["shop.example", "127.0.0.1"]),
                "httpHeaders": st.lists(
                    st.fixed_dictionaries({"name": st.sampled_from(["X-A", "X-B", "9"]), "value": st.just("v")}),
                    max_size=2,
                ),
            },
        )
    )
    command = {"command": draw(st.lists(TEXT, min_size=1, max_size=2))}
    return draw(st.sampled_from([{"httpGet": http}, {"exec": command}, {"httpGet": http, "exec": command}]))


@st.composite
def files(draw: st.DrawFn, resources: dict[str, Any]) -> Any:
    found = {}
    for target in draw(st.lists(st.sampled_from(["/app/a.txt", "/app/b b", "/etc/x", "/tmp/y", "/ä"]), unique=True)):
        entry = draw(
            st.one_of(
                st.builds(lambda text: {"content": text}, values(resources, outputs=False)),
                st.builds(lambda text: {"content": text, "noExpand": True}, TEXT),
                st.builds(lambda data: {"binaryContent": base64.b64encode(data).decode()}, st.binary(max_size=9)),
                st.builds(lambda source: {"source": source}, st.sampled_from([*SOURCES])),
            )
        )
        found[target] = entry | draw(
            st.fixed_dictionaries({}, optional={"mode": st.sampled_from(["0644", "400", "0777", "000"])})
        )
    if draw(st.booleans()):
        return [{"target": target, **entry} for target, entry in found.items()]
    return found


@st.composite
def mounts(draw: st.DrawFn, volumes: list[str]) -> Any:
    found = {}
    for target in draw(st.lists(st.sampled_from(["/data", "/data/deep", "/tmp", "/var/x"]), unique=True, max_size=3)):
        name = draw(st.sampled_from(volumes))
        found[target] = {"source": draw(st.sampled_from([name, f"${{resources.{name}}}"]))} | draw(
            st.fixed_dictionaries(
                {}, optional={"path": st.sampled_from(["", "/", "up", "/a/b/"]), "readOnly": st.booleans()}
            )
        )
    if "/data/deep" in found:
        found.get("/data", {}).pop("readOnly", None)
    if found.get("/tmp", {}).get("readOnly"):
        # A file stands in it, above.
        del found["/tmp"]["readOnly"]
    if draw(st.booleans()):
        return [{"target": target, **entry} for target, entry in found.items()]
    return found


@st.composite
def compute(draw: st.DrawFn) -> dict[str, Any]:
    """Requests and limits, of which the requests are never higher."""
    found: dict[str, Any] = {}
    for kind, amounts in (("memory", MEMORY), ("cpu", CPU)):
        low, high = sorted(draw(st.tuples(*[st.integers(0, len(amounts) - 1)] * 2)))
        for which, index in (("requests", low), ("limits", high)):
            if draw(st.booleans()):
                found.setdefault(which, {})[kind] = amounts[index]
    return found


@st.composite
def containers(draw: st.DrawFn, resources: dict[str, Any]) -> dict[str, Any]:
    volumes = [name for name, body in resources.items() if body["type"] == "volume"]
    variables = st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,5}", fullmatch=True), values(resources))
    optional: dict[str, st.SearchStrategy[Any]] = {
        "command": st.lists(TEXT, max_size=2),
        "args": st.lists(TEXT, max_size=2),
        "variables": variables,
        "files": files(resources),
        "resources": compute(),
        "livenessProbe": probes(),
    }
    if volumes:
        optional["volumes"] = mounts(volumes)
    needed = {"image": st.sampled_from([".", GUARD]), "readinessProbe": probes()}
    return draw(st.fixed_dictionaries(needed, optional=optional))


def kinds_of_resources() -> st.SearchStrategy[dict[str, Any]]:
    params = st.dictionaries(
        st.sampled_from(["note", "deep", "list"]),
        st.one_of(st.just("for ${metadata.name} at $$5"), st.just({"x": [1, None, "${metadata.deep.er}"]}), st.just(7)),
    )
    metadata = st.just({"annotations": {"example.com/a1": "b"}, "any": [1]})
    kept = st.fixed_dictionaries({"type": st.just("volume")}, optional={"metadata": metadata, "params": params})
    scratch = st.fixed_dictionaries(
        {"type": st.just("volume"), "class": st.just("ephemeral")},
        optional={"params": st.fixed_dictionaries({"size": st.sampled_from(["64Mi", "1024Mi"])})},
    )
    bound = st.fixed_dictionaries(
        {"type": st.sampled_from(["postgres", "redis", "Any-9"])},
        optional={"class": st.sampled_from(["Large-2", "small"]), "params": params, "metadata": metadata},
    )
    shared = st.just({"type": "redis", "id": "shop.cache"})
    route = st.fixed_dictionaries({"type": st.just("route")}, optional={"params": st.just({"path": "/"})})
    return st.one_of(kept, scratch, bound, shared, route)


ENDS = {f"{LINE}/retries": st.sampled_from(["0", "7"]), f"{LINE}/timeout-seconds": st.sampled_from(["1", "86400"])}
CRON = {f"{LINE}/schedule": st.sampled_from(["*/5 * * * *", "@daily", "0 9 1-7 jan mon"])}
ZONE = {
    f"{LINE}/time-zone": st.sampled_from(["Asia/Tokyo", "Etc/GMT+5"]),
    f"{LINE}/concurrency": st.sampled_from(["Forbid", "Replace"]),
}
SETTINGS = {
    "Deployment": st.just({}),
    "StatefulSet": st.just({}),
    "Job": st.fixed_dictionaries({}, optional=ENDS),
    "CronJob": st.fixed_dictionaries(CRON, optional={**ENDS, **ZONE}),
}
SERVES = ("Deployment", "StatefulSet")


@st.composite
def orders(draw: st.DrawFn, found: dict[str, Any]) -> None:
    """Put containers in an order: each may be before any later one, so that there is no circle."""
    for (_, container), later in zip(found.items(), itertools.count(1), strict=False):
        others = [*found][later:]
        ahead = draw(st.lists(st.sampled_from(others), unique=True, max_size=2)) if others else []
        if not ahead:
            continue
        ends = draw(st.booleans())
        words = st.just("complete") if ends else st.sampled_from(["started", "healthy"])
        container["before"] = {other: {"ready": draw(words)} for other in ahead}
        if ends:
            container.pop("readinessProbe", None)
            container.pop("livenessProbe", None)


@st.composite
def scores(draw: st.DrawFn) -> dict[str, Any]:
    resources = draw(st.dictionaries(st.one_of(NAMES, LONG), kinds_of_resources(), max_size=4))
    found = draw(st.dictionaries(st.one_of(NAMES, LONG), containers(resources), min_size=1, max_size=3))
    draw(orders(found))
    routed = any(body["type"] == "route" for body in resources.values())
    kind = draw(st.sampled_from(SERVES if routed else [*SETTINGS]))
    annotations = {"example.com/owner": draw(TEXT), "k8s.score.dev/kind": kind} | draw(SETTINGS[kind])
    kept = [name for name, body in resources.items() if body["type"] == "volume" and "class" not in body]
    if kind in SERVES and not kept and draw(st.booleans()):
        annotations[f"{LINE}/replicas"] = draw(st.sampled_from(["1", "20"]))
    document: dict[str, Any] = {
        "apiVersion": "score.dev/v1b1",
        "metadata": {"name": "shop", "deep": {"er": [1, None]}, "annotations": annotations},
        "containers": found,
        "resources": resources,
    }
    if kind in SERVES:
        ports = st.fixed_dictionaries(
            {"port": PORTS}, optional={"targetPort": PORTS, "protocol": st.sampled_from(["TCP", "UDP"])}
        )
        given_ports = draw(st.dictionaries(st.one_of(NAMES, LONG), ports, max_size=3))
        published = {(body["port"], body.get("protocol", "TCP")): name for name, body in given_ports.items()}
        document["service"] = {"ports": {name: given_ports[name] for name in published.values()}}
    return document


# -- what holds for what it renders to --------------------------------------------------------------------------------


def written(document: dict[str, Any]) -> bytes:
    # JSON is YAML in which every text is in quotes: PyYAML would leave 1e5 without them, and it came back as a number.
    return json.dumps(document, ensure_ascii=False).encode()


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (key, *strings(item))]
    if isinstance(value, list | tuple):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def can_run(pod: dict[str, Any]) -> None:
    """Hold a pod against what the API server checks beyond its schema (pkg/apis/core/validation)."""
    volumes = [volume["name"] for volume in pod["volumes"]]
    names = [container["name"] for _, _, container in containers_of(pod)]
    used = set()
    assert len(set(volumes)) == len(volumes)
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for name in (*volumes, *names))
    for _, _, container in containers_of(pod):
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(set(paths)) == len(paths)
        # Sorted, so that what is mounted inside of another comes after it.
        assert sorted(paths) == paths
        closed = [mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly")]
        assert not [path for path in paths for outer in closed if path.startswith(f"{outer}/")]
        used |= {mount["name"] for mount in container["volumeMounts"]}
        seen: set[str] = set()
        for variable in container.get("env", []):
            assert variable["name"] not in seen
            # A $(NAME) that names no earlier variable would reach the program as it stands.
            for dollars, name in re.findall(r"(\$+)\((SEKISHO_REF_[^)]*)\)", variable.get("value", "")):
                assert len(dollars) % 2 == 0 or name in seen
            seen.add(variable["name"])
    assert used == set(volumes)
    for volume in pod["volumes"]:
        keys = [item["key"] for item in volume.get("configMap", {}).get("items", [])]
        assert len(set(keys)) == len(keys)
        assert all(re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) for key in keys)


def no_secret(objects: tuple[dict[str, Any], ...], needs: set[str]) -> None:
    """Hold objects against the one way in which a need's output may stand in them: the name of a key of a Secret."""
    assert "Secret" not in {obj["kind"] for obj in objects}
    secrets = {f"shop-{need}-binding" for need in needs}
    for obj in objects:
        for _, _, container in containers_of((pod_template(obj) or {}).get("spec") or {}):
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    assert set(variable) == {"name", "valueFrom"}
                    assert variable["valueFrom"]["secretKeyRef"]["name"] in secrets
        for volume in ((pod_template(obj) or {}).get("spec") or {}).get("volumes", []):
            assert volume.get("secret", {}).get("secretName", "") in secrets | {""}


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return load_policies(ROOT / "policies")


@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=60)
@given(document=scores(), order=st.randoms(use_true_random=False))
def test_any_valid_file_renders_to_objects_that_pass(policies: PolicySet, document: dict[str, Any], order: Any) -> None:
    manifests = render(written(document), app="shop", image=IMAGE, read=SOURCES.__getitem__)
    failed = [found for found in policies.check_objects(manifests.objects) if found.result != "pass"]
    assert failed == []
    assert [found.result for found in schema_reasons(manifests.objects)] == ["pass"]
    template = pod_template(manifests.objects[-1]) or {}
    assert violations(template) == ()
    can_run(template["spec"])
    no_secret(manifests.objects, {need.name for need in manifests.needs})
    assert {obj["kind"] for obj in manifests.objects} <= {"ServiceAccount", "ConfigMap", "Service", *SETTINGS}
    # Neutral: a zone adds its own namespace, and sharing is settled here.
    assert all(resource_of(obj) and "namespace" not in obj["metadata"] for obj in manifests.objects)
    assert all(not need.id for need in manifests.needs)
    assert not [text for text in strings(manifests.needs[0].params if manifests.needs else {}) if "${metadata" in text]
    # The order in which the file is written decides nothing, but which port is the first.
    keys = list(document)
    order.shuffle(keys)
    shuffled = {key: document[key] for key in keys}
    shuffled["containers"] = dict(reversed(document["containers"].items()))
    shuffled["resources"] = dict(reversed(document["resources"].items()))
    again = render(written(shuffled), app="shop", image=IMAGE, read=SOURCES.__getitem__)
    assert again.canonical() == manifests.canonical()
    # All of it survives JSON.
    assert canonical(json.loads(manifests.canonical())) == manifests.canonical()


def test_the_strategy_knows_every_field() -> None:
    """A field that the schema gains has to be drawn above, or the property says nothing about it."""
    said = Path(__file__).read_text(encoding="utf-8")
    fields: set[str] = set()
    waiting: list[Any] = [schema()]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            fields |= set(current.get("properties", {}))
            waiting += current.values()
        elif isinstance(current, list):
            waiting += current
    assert {field for field in fields if f'"{field}"' not in said} == set()
