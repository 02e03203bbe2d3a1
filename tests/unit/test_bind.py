import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.model import Image, Manifests, Need, Release, Revision, SealedRelease, StandardImage
from sekisho.profile import Capability, Profile
from sekisho.vault import FileVault, fingerprint
from stages.bind import Services, bind
from stages.bind.contract import identifier

D = "sha256:" + "a" * 64


class Standard:
    def get(self, name):
        if name != "postgres":
            raise Refusal(f"no image {name}")
        return StandardImage(name=name, digest=D, repository="standard/postgres")


def sealed(app="shop"):
    image = Image(repository=f"apps/{app}", digest=D, language="python", base="python", base_digest=D, layers=())
    revision = Revision(app=app, commit="a" * 40, tree="b" * 40, branch="main", author="a", committed_at=0)
    release = Release(app=app, revision=revision, image=image, manifests=D, policy=D, evidence=())
    return SealedRelease(repository=f"releases/{app}", digest=D, summary=D, release=release)


def profile(*capabilities):
    return Profile(zone="staging", description="x", capabilities=capabilities)


POSTGRES = Capability(type="postgres", provider="postgres-in-cluster", options={"storage": "ephemeral"})
ROUTE = Capability(type="route", provider="node-port")
VOLUME = Capability(type="volume", provider="volume", options={"size": "2Gi", "storage_class": "fast"})
OBJECTS = (
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "shop"},
        "spec": {
            "selector": {"app": "shop"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "admin", "port": 81}],
        },
    },
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {
            "template": {
                "metadata": {"labels": {"app": "shop"}},
                "spec": {
                    "containers": [{"name": "web"}],
                    "volumes": [{"name": "b", "secret": {"secretName": "shop-db-binding"}}],
                },
            }
        },
    },
)


def manifests(*needs, objects=OBJECTS, app="shop"):
    return Manifests(app=app, objects=objects, needs=needs)


@pytest.fixture
def vault(tmp_path):
    return FileVault(tmp_path / "vault")


@pytest.fixture
def services(tmp_path):
    (tmp_path / "secrets").mkdir()
    return Services(standard=Standard(), secrets=tmp_path / "secrets")


def named(bound, kind, name):
    return next(obj for obj in bound.objects if (obj["kind"], obj["metadata"]["name"]) == (kind, name))


def test_without_needs_the_objects_stay_as_they_are(vault, services):
    bound = bind(manifests(), sealed(), profile(), vault, services)
    assert bound.objects == OBJECTS
    assert (bound.zone, bound.release, bound.bindings, bound.explained) == ("staging", D, (), ())


def test_an_unmet_need_is_refused_with_need_zone_and_offers_and_no_effect(vault, services, tmp_path):
    needs = (Need(name="db", type="postgres"), Need(name="cache", type="redis"))
    with pytest.raises(Refusal) as refused:
        bind(manifests(*needs), sealed(), profile(POSTGRES, ROUTE), vault, services)
    text = str(refused.value)
    assert "'cache'" in text
    assert "redis/default" in text
    assert "zone staging" in text
    assert "postgres/default, route/default" in text
    assert list((tmp_path / "vault").iterdir()) == []


def test_a_class_that_is_not_offered_is_unmet(vault, services):
    with pytest.raises(Refusal, match="postgres/large"):
        bind(
            manifests(Need(name="db", type="postgres", resource_class="large")),
            sealed(),
            profile(POSTGRES),
            vault,
            services,
        )


def test_postgres_in_cluster_is_bound_without_a_credential_in_the_result(vault, services):
    need = Need(name="db", type="postgres")
    bound = bind(manifests(need), sealed(), profile(POSTGRES), vault, services)
    entries = vault.get("shop", "db")
    assert entries.keys() == {"type", "provider", "host", "port", "username", "password", "database", "uri"}
    assert (entries["type"], entries["host"], entries["port"]) == ("postgresql", "shop-db.app-shop.svc", "5432")
    assert entries["uri"] == f"postgresql://shop_db:{entries['password']}@shop-db.app-shop.svc:5432/shop_db"
    assert entries["password"] not in bound.canonical().decode()
    secret = named(bound, "Secret", "shop-db-binding")
    assert secret["type"] == "servicebinding.io/postgresql"
    assert "data" not in secret
    assert "stringData" not in secret
    mark = fingerprint(vault, entries)
    assert secret["metadata"]["annotations"]["sekisho.dev/binding-fingerprint"] == mark
    (binding,) = bound.bindings
    assert (binding.secret, binding.fingerprint, binding.address) == (
        "shop-db-binding",
        mark,
        "shop-db.app-shop.svc:5432",
    )
    database = named(bound, "StatefulSet", "shop-db")["spec"]["template"]["spec"]
    assert database["containers"][0]["image"] == f"registry.sekisho.internal/standard/postgres@{D}"
    assert {item["name"]: item["value"] for item in database["containers"][0]["env"]} == {
        "PGDATA": "/var/lib/postgresql/data",
        "POSTGRES_USER": "shop_db",
        "POSTGRES_DB": "shop_db",
        "POSTGRES_PASSWORD_FILE": "/run/secrets/postgres/password",
    }
    assert {volume["name"] for volume in database["volumes"]} == {"data", "tmp", "credentials"}
    assert {item.object for item in bound.explained} == {
        "Secret/shop-db-binding",
        "Service/shop-db",
        "StatefulSet/shop-db",
        "Deployment/shop",
    }


def test_binding_again_changes_nothing(vault, services):
    arguments = (manifests(Need(name="db", type="postgres")), sealed(), profile(POSTGRES), vault, services)
    assert bind(*arguments) == bind(*arguments)


def test_new_credentials_change_the_pods_that_use_them_and_only_those(vault, services):
    arguments = (manifests(Need(name="db", type="postgres")), sealed(), profile(POSTGRES), vault, services)
    first = bind(*arguments)
    entries = vault.get("shop", "db")
    vault.put("shop", "db", {**entries, "password": "other"})
    second = bind(*arguments)
    assert vault.get("shop", "db")["password"] == "other"
    key = "sekisho.dev/binding-fingerprint.db"
    marks = [
        named(bound, "Deployment", "shop")["spec"]["template"]["metadata"]["annotations"][key]
        for bound in (first, second)
    ]
    assert marks == [first.bindings[0].fingerprint, second.bindings[0].fingerprint]
    assert marks[0] != marks[1]
    assert "annotations" not in OBJECTS[1]["spec"]["template"]["metadata"]
    other = bind(manifests(Need(name="cache", type="postgres")), sealed(), profile(POSTGRES), vault, services)
    assert "annotations" not in named(other, "Deployment", "shop")["spec"]["template"]["metadata"]


def test_storage_that_stays_is_a_claim_of_the_stateful_set(vault, services):
    kept = Capability(
        type="postgres", provider="postgres-in-cluster", options={"storage": "3Gi", "storage_class": "fast"}
    )
    bound = bind(manifests(Need(name="db", type="postgres")), sealed(), profile(kept), vault, services)
    spec = named(bound, "StatefulSet", "shop-db")["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "3Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    assert "data" not in {volume["name"] for volume in spec["template"]["spec"]["volumes"]}


def test_a_route_is_a_node_port_to_the_workloads_port(vault, services):
    need = Need(name="web", type="route", params={"path": "/start", "port": 81, "host": "shop.example"})
    bound = bind(manifests(need), sealed(), profile(ROUTE), vault, services)
    route = named(bound, "Service", "shop-route")
    assert route["metadata"]["labels"]["sekisho.dev/ingress"] == "platform"
    assert route["metadata"]["annotations"] == {"sekisho.dev/smoke-path": "/start", "sekisho.dev/host": "shop.example"}
    assert route["spec"]["type"] == "NodePort"
    assert route["spec"]["ports"] == [{"name": "admin", "port": 81, "targetPort": 81, "protocol": "TCP"}]
    assert bound.bindings[0].secret == ""
    assert list(Path(vault._root).iterdir()) == []


def test_a_volume_is_the_claim_that_the_pods_mount(vault, services):
    bound = bind(
        manifests(Need(name="files", type="volume", params={"size": "500Mi"})),
        sealed(),
        profile(VOLUME),
        vault,
        services,
    )
    claim = named(bound, "PersistentVolumeClaim", "shop-files-volume")
    assert claim["spec"]["resources"]["requests"]["storage"] == "500Mi"
    with pytest.raises(Refusal, match="more than the zone gives"):
        bind(
            manifests(Need(name="files", type="volume", params={"size": "3Gi"})),
            sealed(),
            profile(VOLUME),
            vault,
            services,
        )


@pytest.mark.parametrize(
    ("need", "match"),
    [
        (Need(name="DB", type="postgres"), "name of an object"),
        (Need(name="../x", type="postgres"), "name of an object"),
        (Need(name="d" * 60, type="postgres"), "name of an object"),
        (Need(name="db", type="postgres", id="shared"), "shared between workloads"),
        (Need(name="db", type="postgres", params={"superuser": True}), "superuser"),
        (Need(name="web", type="route", params={"port": 9999}), "no such TCP port"),
        (Need(name="web", type="route", params={"path": "//evil?x"}), "path"),
        (Need(name="web", type="route", params={"path": 3}), "path"),
        (Need(name="web", type="route", params={"host": ["x"]}), "host"),
        (Need(name="files", type="volume", params={"size": "lots"}), "not a size"),
    ],
)
def test_needs_that_cannot_be_met_as_asked_are_refused(vault, services, need, match):
    with pytest.raises(Refusal, match=match):
        bind(manifests(need), sealed(), profile(POSTGRES, ROUTE, VOLUME), vault, services)
    assert list(Path(vault._root).iterdir()) == []


def test_names_that_are_taken_are_refused(vault, services):
    extra = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop-db"}, "spec": {}}
    with pytest.raises(Refusal, match="already has one"):
        bind(
            manifests(Need(name="db", type="postgres"), objects=(*OBJECTS, extra)),
            sealed(),
            profile(POSTGRES),
            vault,
            services,
        )
    with pytest.raises(Refusal, match="already has one"):
        bind(
            manifests(Need(name="a", type="route"), Need(name="b", type="route")),
            sealed(),
            profile(ROUTE),
            vault,
            services,
        )


def test_manifests_of_another_app_are_refused(vault, services):
    with pytest.raises(Refusal):
        bind(manifests(app="other"), sealed("shop"), profile(), vault, services)


def test_identifiers_are_valid_short_and_never_collide():
    assert identifier("shop", "db") == "shop_db"
    names = {
        identifier("a-b", "c"),
        identifier("a", "b-c"),
        identifier("a", "b"),
        identifier("x" * 50, "y" * 13),
        identifier("x" * 50, "y" * 12 + "z"),
    }
    assert len(names) == 5
    assert all(len(name) <= 63 and name.replace("_", "a").isalnum() for name in names)


# -- postgres-external, against a real PostgreSQL ----------------------------------------------------------------------


def _programs():
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    return None


@pytest.fixture(scope="module")
def server():
    programs = _programs()
    if programs is None or os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs PostgreSQL's programs and root, to start it as another user")
    with tempfile.TemporaryDirectory(prefix="sekisho-pg-", dir="/tmp") as folder:
        os.chown(folder, 65534, 65534)
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        password_file = Path(folder) / "password"
        password_file.write_text("admin-password")
        password_file.chmod(0o644)
        data = f"{folder}/data"
        subprocess.run(
            [
                *as_nobody,
                str(programs / "initdb"),
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "scram-sha-256",
                "--no-sync",
                "--pwfile",
                str(password_file),
                "--locale=C.UTF-8",
                "-E",
                "UTF8",
            ],
            check=True,
            capture_output=True,
            cwd=folder,
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = (Path(folder) / "log").open("wb")
        process = subprocess.Popen(
            [
                *as_nobody,
                str(programs / "postgres"),
                "-D",
                data,
                "-p",
                str(port),
                "-h",
                "127.0.0.1",
                "-k",
                folder,
                "-c",
                "log_statement=all",
                "-c",
                "fsync=off",
            ],
            stderr=log,
            stdout=log,
            cwd=folder,
        )
        try:
            for _ in range(100):
                try:
                    psycopg.connect(host="127.0.0.1", port=port, user="postgres", password="admin-password").close()
                    break
                except psycopg.OperationalError:
                    time.sleep(0.1)
            yield port, Path(folder) / "log"
        finally:
            process.terminate()
            process.wait(20)


def external(number, **options):
    return Capability(
        type="postgres",
        provider="postgres-external",
        options={"host": "127.0.0.1", "port": number, "admin_secret": "admin", **options},
    )


def give(services, text="admin-password", mode=0o600):
    path = services.secrets / "admin"
    path.write_text(text)
    path.chmod(mode)


def connect(port, entries, database=None):
    return psycopg.connect(
        host=entries["host"],
        port=port,
        user=entries["username"],
        password=entries["password"],
        dbname=database or entries["database"],
    )


@pytest.mark.e2e
def test_an_external_postgres_is_bound_with_least_privilege(server, vault, services):
    port, log = server
    give(services)
    need = Need(name="db", type="postgres")
    arguments = (manifests(need), sealed(), profile(external(port)), vault, services)
    bound = bind(*arguments)
    assert bound == bind(*arguments)
    (binding,) = bound.bindings
    assert binding.address == f"127.0.0.1:{port}"
    assert [obj["kind"] for obj in binding.objects] == ["Secret"]
    entries = vault.get("shop", "db")
    assert entries["password"] not in bound.canonical().decode()
    with connect(port, entries) as own:
        own.execute("CREATE TABLE entries (id int)")
        own.execute("CREATE SCHEMA more")
        row = own.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles"
            " WHERE rolname = current_user"
        ).fetchone()
        assert row == (False, False, False, False, False)
    other = (manifests(need, app="other", objects=()), sealed("other"), profile(external(port)), vault, services)
    bind(*other)
    stranger = vault.get("other", "db")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        connect(port, stranger, "shop_db")
    text = log.read_text()
    assert entries["password"] not in text
    assert "SCRAM-SHA-256$" in text


@pytest.mark.e2e
def test_a_password_that_the_server_lost_is_set_again(server, vault, services):
    port, _ = server
    give(services, json.dumps({"username": "postgres", "password": "admin-password"}))
    arguments = (manifests(Need(name="db2", type="postgres")), sealed(), profile(external(port)), vault, services)
    bind(*arguments)
    entries = vault.get("shop", "db2")
    with psycopg.connect(
        host="127.0.0.1", port=port, user="postgres", password="admin-password", autocommit=True
    ) as admin:
        admin.execute("ALTER ROLE shop_db2 PASSWORD 'other' SUPERUSER")
    with pytest.raises(Refusal, match="superuser"):
        bind(*arguments)
    with psycopg.connect(
        host="127.0.0.1", port=port, user="postgres", password="admin-password", autocommit=True
    ) as admin:
        admin.execute("ALTER ROLE shop_db2 NOSUPERUSER CREATEDB")
    bind(*arguments)
    with connect(port, entries) as own:
        assert own.execute("SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)


@pytest.mark.e2e
def test_a_database_of_somebody_else_is_not_taken_over(server, vault, services):
    port, _ = server
    give(services)
    with psycopg.connect(
        host="127.0.0.1", port=port, user="postgres", password="admin-password", autocommit=True
    ) as admin:
        admin.execute("CREATE DATABASE shop_theirs")
    with pytest.raises(Refusal, match="somebody else"):
        bind(manifests(Need(name="theirs", type="postgres")), sealed(), profile(external(port)), vault, services)


@pytest.mark.e2e
def test_a_wrong_admin_password_is_permanent_and_not_shown(server, vault, services):
    port, _ = server
    give(services, "wrong-password")
    with pytest.raises(PermanentError, match="does not accept postgres") as failed:
        bind(manifests(Need(name="db", type="postgres")), sealed(), profile(external(port)), vault, services)
    assert "wrong-password" not in str(failed.value)


def test_a_server_that_is_away_is_temporary(vault, services):
    give(services)
    with pytest.raises(TemporaryError, match="cannot be reached"):
        bind(manifests(Need(name="db", type="postgres")), sealed(), profile(external(1)), vault, services)


def test_the_admin_credential_must_be_there_and_private(vault, services):
    arguments = (manifests(Need(name="db", type="postgres")), sealed(), profile(external(1)), vault, services)
    with pytest.raises(PermanentError, match="cannot be read"):
        bind(*arguments)
    give(services, mode=0o644)
    with pytest.raises(PermanentError, match="open to others"):
        bind(*arguments)
    give(services, "")
    with pytest.raises(PermanentError, match="empty"):
        bind(*arguments)
    give(services, "{broken")
    with pytest.raises(PermanentError, match="JSON"):
        bind(*arguments)


@pytest.mark.parametrize(
    "options", [{"host": "db.example"}, {"port": "x"}, {"admin_secret": "../../etc/shadow"}, {"what": 1}]
)
def test_options_that_nobody_can_honour_are_refused(vault, services, options):
    give(services)
    with pytest.raises(Refusal):
        bind(manifests(Need(name="db", type="postgres")), sealed(), profile(external(1, **options)), vault, services)
