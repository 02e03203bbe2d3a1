"""What is rendered for a zone's cluster and services."""

import io
import json
import os
import re
import stat
import tarfile
from pathlib import Path

import pytest

from sekisho.embedded import cluster_config, cluster_objects, content, doctor, pause, postgres, runtime, services
from sekisho.embedded.cleanup import mounts_below
from sekisho.embedded.cluster_home import ClusterHome
from sekisho.embedded.netns import as_user, in_zone, run
from sekisho.embedded.owners import Owner, ensure_folder, write_file
from sekisho.errors import PermanentError, TemporaryError
from sekisho.package_indexes import index_hosts
from sekisho.zones import CLUSTER_ZONES, Network, Zone


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path))
    monkeypatch.delenv("SEKISHO_NETWORK", raising=False)
    return tmp_path


@pytest.mark.parametrize("zone", CLUSTER_ZONES)
def test_images_come_from_the_zones_own_registry_for_reading(zone: Zone) -> None:
    text = cluster_config.registry_hosts(ClusterHome(zone))
    assert "push" not in text
    assert text.count(f"http://10.77.{ {'dev': 10, 'build': 20, 'staging': 40, 'production': 50}[zone] }.10:5000") == 2


def test_anonymous_users_see_health_and_nothing_else() -> None:
    anonymous = json.loads(cluster_config.authentication())["anonymous"]
    assert {item["path"] for item in anonymous["conditions"]} == {"/livez", "/readyz", "/healthz"}


def test_the_names_of_a_zone_are_not_asked_for_outside() -> None:
    assert "forward" not in cluster_config.corefile(ClusterHome(Zone.BUILD))


def test_secrets_are_encrypted_with_the_first_provider() -> None:
    resources = json.loads(cluster_config.encryption(b"k" * 32))["resources"][0]
    assert next(iter(resources["providers"][0])) == "secretbox"


def test_a_zones_process_cannot_grant_itself_more() -> None:
    verbs = {verb for rule in cluster_objects.zone_rules() for verb in rule["verbs"]}
    assert not verbs & {"*", "escalate", "bind", "impersonate"}
    assert not any("*" in rule["resources"] or "*" in rule["apiGroups"] for rule in cluster_objects.zone_rules())


def test_the_read_face_of_a_registry_cannot_write() -> None:
    read = json.loads(services._registry(Path("/r"), "10.77.20.10:5000", "s", read_only=True))
    write = json.loads(services._registry(Path("/r"), "127.0.0.1:5001", "s", read_only=False))
    assert read["storage"]["maintenance"]["readonly"]["enabled"] is True
    assert read["storage"]["filesystem"] == write["storage"]["filesystem"]
    assert read["storage"]["delete"]["enabled"] is write["storage"]["delete"]["enabled"] is False


@pytest.mark.parametrize("server", [postgres.zone_server(Zone.BUILD), postgres.external_server()])
def test_postgres_listens_on_one_address(server: postgres.Server) -> None:
    text = postgres._configuration(server)
    assert f"listen_addresses = '{server.listen}'" in text
    assert "0.0.0.0/0" not in server.networks


def test_the_package_proxy_lets_the_indexes_through_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(services, "proxy_folder", lambda: tmp_path / "proxy")
    monkeypatch.setattr(services.Owner, "of", lambda *_: Owner(os.getuid(), os.getgid()))
    monkeypatch.setattr("sekisho.package_indexes._pip_files", lambda _: [])
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEKISHO_INDEX_NPM", "https://me:secret@npm.example.com:8443/npm/")
    monkeypatch.setenv("SEKISHO_EGRESS_HOSTS", "cdn.example.com")
    services.write_proxy()
    hosts = (tmp_path / "proxy/hosts").read_text().splitlines()
    assert hosts == [f"^{re.escape(host)}$".replace("\\-", "-") for host in sorted({host for host, _ in index_hosts()})]
    assert "^npm\\.example\\.com$" in hosts
    assert "^cdn\\.example\\.com$" in hosts
    assert "^static\\.crates\\.io$" in hosts
    assert "^registry\\.npmjs\\.org$" not in hosts
    config = (tmp_path / "proxy/tinyproxy.conf").read_text().splitlines()
    assert [line for line in config if line.startswith("ConnectPort")] == ["ConnectPort 443", "ConnectPort 8443"]
    assert "FilterDefaultDeny Yes" in config
    assert "secret" not in "\n".join([*hosts, *config])
    (before,) = services.proxy_programs()
    assert services.proxy_programs() == (before,)
    monkeypatch.setenv("SEKISHO_EGRESS_HOSTS", "other.example.com")
    services.write_proxy()
    (after,) = services.proxy_programs()
    assert after != before, "the proxy reads its files once: it must be started anew"


def test_only_the_process_that_builds_is_told_of_the_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_INDEX_GO", "https://go.example.com/")
    python = runtime.Python(Path("/usr/bin/python3"), {}, ())
    told = [
        program.full_name
        for zone in Zone
        for program in services.line_programs(zone, python)
        if "SEKISHO_INDEX_GO" in program.environment
    ]
    assert told == ["build.zone"]


def test_every_zone_program_has_a_place_and_a_user(home: Path) -> None:
    python = runtime.Python(Path("/usr/bin/python3"), {}, ())
    programs = [program for zone in Zone for program in services.line_programs(zone, python)]
    assert {(program.full_name, program.user) for program in programs} == {
        ("build.receiver", "sekisho-git"),
        ("build.engine", "sekisho-build"),
        ("build.zone", "sekisho-build"),
        ("staging.engine", "sekisho-staging"),
        ("staging.zone", "sekisho-staging"),
        ("production.engine", "sekisho-production"),
        ("production.zone", "sekisho-production"),
        ("ops.ops", "sekisho-ops"),
    }
    assert all(program.environment["SEKISHO_HOME"] == str(home) for program in programs)


def test_the_console_needs_no_prefix_and_a_zone_enters_its_namespace() -> None:
    assert in_zone(Network.CONSOLE) == []
    assert in_zone("staging") == ["nsenter", "--net=/run/netns/sk-staging", "--"]
    assert "--bounding-set=-all" in as_user("sekisho-build")


def test_a_failing_program_is_named_without_its_arguments() -> None:
    with pytest.raises(PermanentError) as caught:
        run(["/bin/sh", "-c", "echo broken >&2; exit 4", "--password=hunter2"])
    assert "broken" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(PermanentError, match="not installed"):
        run(["/no/such/program"])
    with pytest.raises(TemporaryError):
        run(["/bin/sleep", "5"], timeout=0.05)


def test_files_keep_content_owner_and_mode(tmp_path: Path) -> None:
    owner = Owner(os.getuid(), os.getgid())
    path = tmp_path / "secret"
    assert write_file(path, "one", 0o600, owner)
    assert not write_file(path, "one", 0o600, owner)
    path.chmod(0o644)
    assert write_file(path, "one", 0o600, owner)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_in_the_place_of_a_folder_or_file_is_not_followed(tmp_path: Path) -> None:
    owner = Owner(os.getuid(), os.getgid())
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "folder").symlink_to(target)
    with pytest.raises(PermanentError, match="must be a folder"):
        ensure_folder(tmp_path / "folder", 0o700, owner)
    victim = tmp_path / "victim"
    victim.write_text("keep")
    (tmp_path / "file").symlink_to(victim)
    write_file(tmp_path / "file", "new", 0o600, owner)
    assert (victim.read_text(), (tmp_path / "file").is_symlink()) == ("keep", False)


def test_the_pause_image_is_named_in_its_archive(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / "a").write_bytes(b"blob")
    (tmp_path / "index.json").write_text(
        json.dumps({"manifests": [{"digest": "sha256:a", "size": 4, "mediaType": "m"}]})
    )
    with tarfile.open(fileobj=io.BytesIO(pause.layout_archive(tmp_path))) as tar:
        index = json.load(tar.extractfile("index.json"))
        assert tar.extractfile("blobs/sha256/a").read() == b"blob"
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == cluster_config.PAUSE_IMAGE


@pytest.mark.parametrize("text", ["", "[]", '{"manifests": []}', '{"manifests": 3}'])
def test_a_broken_pause_layout_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(PermanentError, match="not an OCI layout"):
        pause.layout_archive(tmp_path)


def test_a_zone_without_its_own_profile_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("owners need root")
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    with pytest.raises(PermanentError, match=r"no cluster profile|does not exist"):
        content.write_content(Zone.DEV, profiles, tmp_path)


def test_readable_by_all_looks_at_every_folder_above(tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    inner.chmod(0o755)
    for mode, expected in ((0o700, False), (0o711, True)):
        outer.chmod(mode)
        for parent in outer.parents:
            if parent.stat().st_mode & stat.S_IXOTH == 0:
                parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
        assert runtime.readable_by_all(inner) is expected


def test_mounts_below_a_folder_come_deepest_first() -> None:
    points = mounts_below(Path("/"))
    depths = [len(point.parts) for point in points]
    assert depths == sorted(depths, reverse=True)
    assert Path("/proc") in points


def test_doctor_names_the_index_of_each_ecosystem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_INDEX_MAVEN", "https://me:secret@maven.example.com/releases")
    (finding,) = doctor._egress()
    assert finding.result == "ok"
    assert "maven: https://maven.example.com/releases/" in finding.message
    assert "secret" not in finding.message
    monkeypatch.setenv("SEKISHO_INDEX_MAVEN", "no URL")
    with pytest.raises(PermanentError):
        doctor._egress()
    monkeypatch.setattr(doctor, "_CHECKS", (doctor._egress,))
    assert [(item.check, item.result) for item in doctor.doctor().findings] == [("egress", "fail")]


def test_a_zone_is_given_rules_lists_and_openvex_documents(tmp_path: Path) -> None:
    for name in ("limits.yaml", "admission/a.yaml", "vex.yaml", "vex/shop.json", "README.md", "keys.pem"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [path.relative_to(tmp_path).as_posix() for path in content.policy_files(tmp_path)] == [
        "admission/a.yaml", "limits.yaml", "vex/shop.json", "vex.yaml",
    ]  # fmt: skip
