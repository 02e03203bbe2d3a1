"""Rendering: the whole output against a golden file, the single rules, and what holds for any valid file."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sekisho.errors import Refusal
from sekisho.score import Problems
from stages.render import render

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
IMAGE = f"registry.sekisho.internal/apps/shop@sha256:{'a' * 64}"
GUARD = f"registry.sekisho.internal/standard/guard@sha256:{'b' * 64}"
PROBE = {"httpGet": {"path": "/", "port": 8080}}


def score(container: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "apiVersion": "score.dev/v1b1",
        "metadata": {"name": "shop", "team": "blue"},
        "containers": {"web": {"image": ".", "readinessProbe": PROBE} | (container or {})},
        "resources": {"db": {"type": "postgres"}, "data": {"type": "volume"}, "way": {"type": "route"}},
    }
    return base | more


def written(document: dict[str, Any]) -> bytes:
    # Through JSON, so that YAML does not write anchors for what stands in the document twice.
    return yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False, allow_unicode=True).encode()


def rendered(document: dict[str, Any], **kwargs: Any) -> dict[str, dict[str, Any]]:
    manifests = render(written(document), **({"app": "shop", "image": IMAGE} | kwargs))
    return {f"{obj['kind']}/{obj['metadata']['name']}": obj for obj in manifests.objects}


def pod(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = rendered(document)["Deployment/shop"]["spec"]["template"]["spec"]
    return found


def web(container: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod(score(container))["containers"][0]
    return found


def env(variables: dict[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = web({"variables": variables})["env"]
    return found


def refused(document: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(Problems) as caught:
        rendered(document)
    assert all(problem.line for problem in caught.value.problems)
    return [(problem.pointer, problem.remedy) for problem in caught.value.problems]


def test_a_command_of_the_workloads_own_stands_behind_the_launcher_of_its_image() -> None:
    """Kubernetes' command replaces an image's entrypoint: without this the program would be process 1 again."""
    launcher = ("/usr/bin/catatonit", "--")
    document = score({"command": ["serve"], "args": ["--port", "80"]})
    document["containers"]["proxy"] = {"image": GUARD, "command": ["guard"]}
    spec = rendered(document, launcher=launcher)["Deployment/shop"]["spec"]["template"]["spec"]
    said = {container["name"]: (container.get("command"), container.get("args")) for container in spec["containers"]}
    assert said == {"web": ([*launcher, "serve"], ["--port", "80"]), "proxy": (["guard"], None)}
    (plain,) = rendered(score(), launcher=launcher)["Deployment/shop"]["spec"]["template"]["spec"]["containers"]
    assert "command" not in plain


# -- the whole ------------------------------------------------------------------------------------------------------


def test_golden() -> None:
    """Everything at once. To accept a wanted change, run this file with SEKISHO_GOLDEN=write."""
    manifests = render((HERE / "golden/full.score.yaml").read_bytes(), app="orders", image=IMAGE)
    found = json.dumps(manifests.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
    path = HERE / "golden/full.manifests.json"
    if os.environ.get("SEKISHO_GOLDEN") == "write":
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


def test_same_bytes_a_hundred_times_for_any_hash_seed() -> None:
    program = (
        "import sys; from stages.render import render; data = open(sys.argv[1], 'rb').read(); "
        f"print(*(render(data, app='orders', image='{IMAGE}').identity() for _ in range(20)))"
    )
    command = [sys.executable, "-c", program, str(HERE / "golden/full.score.yaml")]
    seen = [
        identity
        for seed in ("0", "1", "42", "4242", "random")
        for identity in subprocess.run(
            command, env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True, text=True
        ).stdout.split()
    ]
    assert len(seen) == 100
    assert set(seen) == {render((HERE / "golden/full.score.yaml").read_bytes(), app="orders", image=IMAGE).identity()}


# -- environment ----------------------------------------------------------------------------------------------------


def secret(name: str, key: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "shop-db-binding", "key": key}}}


ROOT_VARIABLE = {"name": "SERVICE_BINDING_ROOT", "value": "/bindings"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", [{"name": "V", "value": "x"}]),
        ("", [{"name": "V", "value": ""}]),
        ("${metadata.name}-${metadata.team}", [{"name": "V", "value": "shop-blue"}]),
        ("${resources.db.host}", [secret("V", "host")]),
        ("${resources.db.name}", [secret("V", "database")]),
        (
            "a${resources.db.host}",
            [secret("SEKISHO_REF_DB_HOST", "host"), {"name": "V", "value": "a$(SEKISHO_REF_DB_HOST)"}],
        ),
        (
            "${resources.db.name}/${resources.db.database}${metadata.team}",
            [
                secret("SEKISHO_REF_DB_DATABASE", "database"),
                {"name": "V", "value": "$(SEKISHO_REF_DB_DATABASE)/$(SEKISHO_REF_DB_DATABASE)blue"},
            ],
        ),
        # Kubernetes would expand $(X) and halve $$: literal text arrives as it was written.
        ("$HOME", [{"name": "V", "value": "$HOME"}]),
        ("$(HOME)", [{"name": "V", "value": "$$(HOME)"}]),
        ("$$$$", [{"name": "V", "value": "$$$$"}]),
        (
            "$5${resources.db.host}",
            [secret("SEKISHO_REF_DB_HOST", "host"), {"name": "V", "value": "$$5$(SEKISHO_REF_DB_HOST)"}],
        ),
        (
            "$$${resources.db.host}",
            [secret("SEKISHO_REF_DB_HOST", "host"), {"name": "V", "value": "$$$(SEKISHO_REF_DB_HOST)"}],
        ),
    ],
)
def test_variables(value: str, expected: list[dict[str, Any]]) -> None:
    assert env({"V": value}) == [ROOT_VARIABLE, *expected]


def kubelet(variables: list[dict[str, Any]], secrets: dict[str, str]) -> dict[str, str]:
    """Expand as Kubernetes does (third_party/forked/golang/expansion): in order, $$ is $, $(X) is an earlier X."""
    known: dict[str, str] = {}
    for variable in variables:
        if "value" not in variable:
            known[variable["name"]] = secrets[variable["valueFrom"]["secretKeyRef"]["key"]]
            continue
        known[variable["name"]] = re.sub(
            r"\$(\$|\(([^)]*)\))",
            lambda match: "$" if match[1] == "$" else known.get(match[2], match[0]),
            variable["value"],
        )
    return known


PIECES = [
    "$",
    "$$",
    "a",
    "(X)",
    "$(X)",
    "${metadata.team}",
    "${resources.db.host}",
    "${resources.db.password}",
    "{",
    "}",
]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=80)
@given(st.lists(st.sampled_from(PIECES), max_size=6))
def test_what_the_container_sees_is_what_score_says(pieces: list[str]) -> None:
    secrets = {"host": "h$(X)$$", "password": "p"}
    text = "".join(pieces)
    wanted = re.sub(
        r"\$(?:(\$?)\{([^}]*)\}|\$)",
        lambda match: (
            match[0][1:]
            if match[2] is None or match[1]
            else {"metadata.team": "blue", "resources.db.host": "h$(X)$$", "resources.db.password": "p"}.get(
                match[2], "?"
            )
        ),
        text,
    )
    try:
        variables = env({"V": text, "X": "an earlier or later variable"})
    except Problems:
        # The pieces happened to make a placeholder that names nothing.
        assert "?" in wanted
        return
    assert kubelet(variables, secrets)["V"] == wanted


def test_generated_names_never_stand_for_two_things() -> None:
    document = score({"variables": {"V": "x${resources.a-b.c}${resources.a.b-c}"}})
    document["resources"] |= {"a-b": {"type": "redis"}, "aa": {"type": "redis"}}
    document["containers"]["web"]["variables"] = {
        "V": "x${resources.a-b.cc}${resources.aa.x}${resources.a-b.c-c}${resources.a-b.c_c}"
    }
    variables = pod(document)["containers"][0]["env"]
    names = [variable["name"] for variable in variables]
    assert len(set(names)) == len(names) == 6
    assert variables == pod(document)["containers"][0]["env"]


@pytest.mark.parametrize(
    ("variables", "remedy"),
    [
        ({"V": "${resources.db.hots}"}, "Its outputs: type, provider, host, port, username, password, database, uri."),
        ({"V": "${resources.db}"}, "Write ${resources.db.OUTPUT}."),
        ({"V": r"${resources.more.\.\.}"}, "Name one output, such as host."),
        ({"V": "${resources.more.}"}, "Name one output, such as host."),
        ({"V": "${resources.way.host}"}, "Leave it out."),
        ({"V": "${resources.data.path}"}, "Leave it out."),
        ({"SEKISHO_ZONE": "x"}, "SEKISHO_* and SERVICE_BINDING_ROOT are set by the platform; choose another name."),
        (
            {"SERVICE_BINDING_ROOT": "/x"},
            "SEKISHO_* and SERVICE_BINDING_ROOT are set by the platform; choose another name.",
        ),
        ({"1ST": "x"}, "Use A-Z, a-z, 0-9, '_', '-' and '.', not beginning with a digit."),
    ],
)
def test_variables_that_cannot_be(variables: dict[str, str], remedy: str) -> None:
    document = score({"variables": variables})
    document["resources"]["more"] = {"type": "redis"}
    assert [found[1] for found in refused(document)] == [remedy]


@pytest.mark.parametrize(
    ("container", "pointer"),
    [
        ({"volumes": {"/d": {"source": "${resources.data.path}"}}}, "/containers/web/volumes/~1d/source"),
        ({"volumes": {"/d": {"source": "$$data"}}}, "/containers/web/volumes/~1d/source"),
        ({"volumes": {"/d": {"source": "x${resources.data}"}}}, "/containers/web/volumes/~1d/source"),
        ({"volumes": {"/d": {"source": "data", "path": "a/../b"}}}, "/containers/web/volumes/~1d/path"),
        (
            {"livenessProbe": {"httpGet": {"path": "/", "port": 1, "host": "a\nb"}}},
            "/containers/web/livenessProbe/httpGet/host",
        ),
        (
            {"livenessProbe": {"httpGet": {"path": "/", "port": 1, "httpHeaders": [{"name": "A", "value": "a\n"}]}}},
            "/containers/web/livenessProbe/httpGet/httpHeaders/0/value",
        ),
        (
            {"livenessProbe": {"httpGet": {"path": "/", "port": 1, "httpHeaders": [{"name": "A_B", "value": "a"}]}}},
            "/containers/web/livenessProbe/httpGet/httpHeaders/0/name",
        ),
        ({"livenessProbe": {"exec": {"command": []}}}, "/containers/web/livenessProbe/exec/command"),
    ],
)
def test_what_a_cluster_or_a_node_would_not_take(container: dict[str, Any], pointer: str) -> None:
    assert [found[0] for found in refused(score(container))] == [pointer]


def test_secrets_stay_out_of_files_and_parameters() -> None:
    in_file = refused(score({"files": {"/a": {"content": "x ${resources.db.password}"}}}))
    assert in_file == [
        ("/containers/web/files/~1a/content", "Read /bindings/db/password when the program starts, or use a variable.")
    ]
    document = score()
    document["resources"]["way"]["params"] = {"host": "${resources.db.host}"}
    assert refused(document) == [("/resources/way/params/host", "Write the value itself.")]


# -- containers, volumes, order --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        "nginx:1.27",
        "docker.io/library/nginx@sha256:" + "c" * 64,
        "registry.sekisho.internal/standard/guard:1",
        "registry.sekisho.internal.evil.org/x@sha256:" + "c" * 64,
        "evil@registry.sekisho.internal/x@sha256:" + "c" * 64,
        "registry.sekisho.internal/../x@sha256:" + "c" * 64,
        "registry.sekisho.internal/x@sha256:" + "C" * 64,
        GUARD + "\n",
    ],
)
def test_foreign_images_are_refused(image: str) -> None:
    assert [pointer for pointer, _ in refused(score({"image": image}))] == ["/containers/web/image"]


def test_standard_images_by_digest() -> None:
    assert web({"image": GUARD})["image"] == GUARD
    with pytest.raises(Refusal):
        rendered(score(), image="apps/shop:latest")


def test_the_repository_and_the_file_agree_on_the_name() -> None:
    with pytest.raises(Problems, match="the repository is 'other'"):
        rendered(score(), app="other")
    for name in ("1shop", "s" * 51):
        with pytest.raises(Problems, match="does not fit"):
            rendered(score(metadata={"name": name}), app=name)


def test_order_becomes_init_containers_and_native_sidecars() -> None:
    document = score()
    document["containers"] |= {
        "zz-first": {"image": ".", "before": {"aa-second": {"ready": "complete"}}},
        "aa-second": {"image": ".", "before": {"web": {"ready": "started"}}},
        "bb-third": {"image": ".", "before": {"web": {"ready": "healthy"}}, "livenessProbe": PROBE},
    }
    found = pod(document)
    assert [container["name"] for container in found["containers"]] == ["web"]
    assert [(c["name"], c.get("restartPolicy"), "startupProbe" in c) for c in found["initContainers"]] == [
        ("bb-third", "Always", True),
        ("zz-first", None, False),
        ("aa-second", "Always", False),
    ]


@pytest.mark.parametrize(
    ("container", "pointer"),
    [
        ({"before": {"web": {"ready": "healthy"}}}, "/containers/side/before"),
        ({"before": {"web": {"ready": "complete"}}, "livenessProbe": PROBE}, "/containers/side"),
        ({"before": {"web": {"ready": "complete"}, "more": {"ready": "healthy"}}}, "/containers/side/before"),
    ],
)
def test_orders_that_cannot_be(container: dict[str, Any], pointer: str) -> None:
    document = score()
    document["containers"] |= {"side": {"image": "."} | container, "more": {"image": "."}}
    assert [found[0] for found in refused(document)] == [pointer]


def test_probes() -> None:
    probes = web(
        {
            "livenessProbe": {"httpGet": {"path": "live", "port": 1, "host": "h.example"}},
            "readinessProbe": {"httpGet": {"path": "/r", "port": 2}, "exec": {"command": ["/bin/ready"]}},
        }
    )
    handler = {"path": "/live", "port": 1, "scheme": "HTTP", "httpHeaders": [{"name": "Host", "value": "h.example"}]}
    # `host` as a field would let the kubelet be pointed anywhere; Score means the header.
    assert probes["livenessProbe"]["httpGet"] == handler
    assert probes["startupProbe"]["httpGet"] == handler
    assert probes["readinessProbe"]["exec"] == {"command": ["/bin/ready"]}
    assert "httpGet" not in probes["readinessProbe"]
    double = {"httpGet": {"path": "/", "port": 1, "host": "a", "httpHeaders": [{"name": "HOST", "value": "b"}]}}
    assert refused(score({"livenessProbe": double}))[0][0] == "/containers/web/livenessProbe/httpGet"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({}, {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}}),
        (
            {"limits": {"memory": "32Mi", "cpu": "10m"}},
            {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "10m", "memory": "32Mi"}},
        ),
        (
            {"requests": {"memory": "1Gi", "cpu": "2"}},
            {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
        ),
        (
            {"requests": {"memory": "100M"}, "limits": {"cpu": "0.75"}},
            {"requests": {"cpu": "50m", "memory": "100M"}, "limits": {"cpu": "750m", "memory": "268435456"}},
        ),
    ],
)
def test_resources_get_defaults_that_fit(written: dict[str, Any], expected: dict[str, Any]) -> None:
    assert web({"resources": written})["resources"] == expected


def test_volumes() -> None:
    document = score({"volumes": {"/data": {"source": "${resources.data}"}, "/tmp": {"source": "scratch"}}})
    document["resources"]["scratch"] = {"type": "volume", "class": "ephemeral", "params": {"size": "1024Mi"}}
    found = rendered(document)
    volumes = {volume["name"]: volume for volume in pod(document)["volumes"]}
    assert volumes["volume-data"]["persistentVolumeClaim"] == {"claimName": "shop-data"}
    assert volumes["volume-scratch"]["emptyDir"] == {"sizeLimit": "1Gi"}
    assert "tmp" not in volumes
    assert found["Deployment/shop"]["spec"]["strategy"] == {"type": "Recreate"}
    needs = render(written(document), app="shop", image=IMAGE).needs
    assert [(need.name, need.type) for need in needs] == [("data", "volume"), ("db", "postgres"), ("way", "route")]


@pytest.mark.parametrize("source", ["db", "nothing", "${resources.db}", "x${resources.data}", "/var/run/docker.sock"])
def test_volumes_come_from_resources(source: str) -> None:
    assert refused(score({"volumes": {"/data": {"source": source}}}))[0][0] == "/containers/web/volumes/~1data/source"


def test_volume_paths_stay_inside() -> None:
    volume = {"source": "data", "path": "a/../../b"}
    assert refused(score({"volumes": {"/data": volume}}))[0][0] == "/containers/web/volumes/~1data/path"


def test_a_changed_file_starts_new_pods() -> None:
    def annotations(content: str) -> dict[str, str]:
        objects = rendered(score({"files": {"/a": {"content": content}}}))
        found: dict[str, str] = objects["Deployment/shop"]["spec"]["template"]["metadata"]["annotations"]
        return found

    assert annotations("one") == annotations("one") != annotations("two")


def test_bindings_reach_every_container() -> None:
    document = score()
    document["containers"]["first"] = {"image": ".", "before": {"web": {"ready": "complete"}}}
    found = pod(document)
    mount = {"name": "binding-db", "mountPath": "/bindings/db", "readOnly": True}
    assert all(mount in container["volumeMounts"] for container in [*found["containers"], *found["initContainers"]])
    assert {"name": "binding-db", "secret": {"secretName": "shop-db-binding", "defaultMode": 0o440}} in found["volumes"]


@pytest.mark.parametrize(
    ("annotations", "pointer"),
    [
        ({"k8s.score.dev/kind": "DaemonSet"}, "/metadata/annotations/k8s.score.dev~1kind"),
        ({"k8s.score.dev/service-name": "other"}, "/metadata/annotations/k8s.score.dev~1service-name"),
        (
            {"container.apparmor.security.beta.kubernetes.io/web": "unconfined"},
            "/metadata/annotations/container.apparmor.security.beta.kubernetes.io~1web",
        ),
        ({"sekisho.dev/files": "x"}, "/metadata/annotations/sekisho.dev~1files"),
        (
            {("a" * 63 + ".") * 3 + "a" * 62 + "/x1": "x"},
            f"/metadata/annotations/{('a' * 63 + '.') * 3}{'a' * 62}~1x1",
        ),
    ],
)
def test_annotations_of_the_platform_are_its_own(annotations: dict[str, str], pointer: str) -> None:
    assert refused(score(metadata={"name": "shop", "annotations": annotations}))[0][0] == pointer


def test_the_language_may_be_named_and_is_for_the_build_alone() -> None:
    document = score(
        metadata={"name": "shop", "annotations": {"build.sekisho.dev/language": "go", "example.com/owner": "b"}}
    )
    found = rendered(document)["Deployment/shop"]["spec"]["template"]["metadata"]["annotations"]
    assert found == {"example.com/owner": "b"}


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ({"web": {"port": 80, "targetPort": 3000}}, ["3000"]),
        ({"web": {"port": 80}}, ["80"]),
        ({"zebra": {"port": 80, "targetPort": 1}, "api": {"port": 81, "targetPort": 2}}, ["1"]),
        ({"stats": {"port": 9, "protocol": "UDP"}, "web": {"port": 80, "targetPort": 3}}, ["3"]),
        ({"stats": {"port": 9, "protocol": "UDP"}}, []),
        ({}, []),
    ],
)
def test_what_is_built_here_is_told_the_port(ports: dict[str, Any], expected: list[str]) -> None:
    document = score({"image": "."}, **({"service": {"ports": ports}} if ports else {}))
    named = [item["value"] for item in pod(document)["containers"][0].get("env", []) if item["name"] == "PORT"]
    assert named == expected


def test_a_port_of_the_developers_own_counts_and_other_images_are_left_alone() -> None:
    ports = {"service": {"ports": {"web": {"port": 80, "targetPort": 3000}}}}
    env = pod(score({"variables": {"PORT": "5"}}, **ports))["containers"][0]["env"]
    assert [item for item in env if item["name"] == "PORT"] == [{"name": "PORT", "value": "5"}]
    other = f"registry.sekisho.internal/standard/guard@sha256:{'c' * 64}"
    assert "PORT" not in {item["name"] for item in pod(score({"image": other}, **ports))["containers"][0]["env"]}


def test_stateful_set() -> None:
    document = score(
        metadata={"name": "shop", "annotations": {"k8s.score.dev/kind": "StatefulSet", "team.example/owner": "c"}}
    )
    found = rendered(document)["StatefulSet/shop"]["spec"]
    assert found["serviceName"] == "shop"
    assert found["template"]["metadata"]["annotations"] == {"team.example/owner": "c"}
