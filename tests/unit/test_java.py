"""Java: which Maven build, which steps, what starts; pure plans from a folder."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from build_cases import Make
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.canonical import canonical
from sekisho.errors import Refusal
from stages.build.language import Artifact, Plan, Unlocked
from stages.build.languages.java import Java
from stages.build.languages.java_pom import MAX_MODULES, parse_pom, read_poms
from stages.build.locks_maven import FORMAT
from stages.build.project import Project

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "chaya"
OFFERED = ("17",)
SUM = "ab" * 32


def pom(inner: str = "", *, start: str = "") -> str:
    return f'{start}<project xmlns="http://maven.apache.org/POM/4.0.0"><artifactId>a</artifactId>{inner}</project>'


def lock(*paths: str) -> str:
    files = {f"maven/{path}": f"sha256:{SUM}" for path in ("g/a/1/a-1.jar", *paths)}
    return canonical({"format": FORMAT, "files": files}).decode()


def plan(project: Project) -> Plan:
    found = Java().plan(project, OFFERED)
    assert isinstance(found, Plan)
    return found


def artifacts(found: Plan) -> tuple[Artifact, ...]:
    assert isinstance(found.artifacts, tuple)
    return found.artifacts


def arguments(found: Plan) -> list[str]:
    return list(json.loads(found.steps[0].files["settings.json"])["arguments"])


def test_the_example_is_planned() -> None:
    found = plan(Project(EXAMPLE))
    assert found.runtime.command[0] == "java"
    assert found.runtime.command[-2:] == ("-jar", "/app/app.jar")
    assert found.runtime.environment == {"SERVER_PORT": "${PORT:8080}"}
    assert [step.name for step in found.steps] == ["build", "assemble"]
    assert found.listed_by == "assemble"
    assert {artifact.ecosystem for artifact in artifacts(found)} == {"maven"}


def test_what_lists_the_packages_runs_no_code_of_the_workload(make: Make) -> None:
    found = plan(make({"pom.xml": pom(), "maven.lock.json": lock()}))
    build, assemble = found.steps
    assert (build.source, build.packages) == ((), True)
    assert (assemble.source, assemble.packages, assemble.uses) == (None, False, ("build",))
    assert set(assemble.files) == {"java_assemble.py", "settings.json"}
    assert {take.source for take in found.takes} == {"assemble"}
    assert json.loads(assemble.files["settings.json"])["libraries"] == {SUM: "pkg:maven/g/a@1"}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("org/springframework/boot/spring-boot/3.2.0/spring-boot-3.2.0.jar", "SERVER_PORT"),
        ("io/quarkus/quarkus-core/3.8.0/quarkus-core-3.8.0.jar", "QUARKUS_HTTP_PORT"),
        ("io/micronaut/micronaut-http-server/4.0.0/micronaut-http-server-4.0.0.jar", "MICRONAUT_SERVER_PORT"),
    ],
)
def test_frameworks_read_the_port_without_a_shell(make: Make, path: str, name: str) -> None:
    found = plan(make({"pom.xml": pom(), "maven.lock.json": lock(path)}))
    assert found.runtime.environment == {name: "${PORT:8080}"}


def test_what_is_not_built_bit_for_bit_is_said(make: Make) -> None:
    path = "io/quarkus/quarkus-core/3.8.0/quarkus-core-3.8.0.jar"
    assert "digests" in plan(make({"pom.xml": pom(), "maven.lock.json": lock(path)})).notes[-1]


def test_a_program_without_framework_reads_port_itself(make: Make) -> None:
    assert plan(make({"pom.xml": pom(), "maven.lock.json": lock()})).runtime.environment == {}


def test_without_a_lock_the_build_is_resolved_and_recorded(make: Make) -> None:
    found = Java().plan(
        make(
            {
                "pom.xml": pom("<modules><module>web</module></modules>"),
                "web/pom.xml": pom(),
                ".mvn/extensions.xml": "<extensions/>",
                "src/main/java/A.java": "",
            }
        ),
        OFFERED,
    )
    assert isinstance(found, Unlocked)
    assert found.record_as == "maven.lock.json"
    assert found.produces == ()
    assert found.ecosystems == ("maven",)
    assert found.decided_by == (".mvn/extensions.xml", "pom.xml", "web/pom.xml")
    assert found.refusal.remedy


def test_resolving_and_building_run_the_same_build(make: Make) -> None:
    project = make({"pom.xml": pom()})
    unlocked = Java().plan(project, OFFERED)
    assert isinstance(unlocked, Unlocked)
    found = plan(project.with_files({"maven.lock.json": lock().encode()}))
    assert json.loads(unlocked.step.files["settings.json"])["arguments"] == arguments(found)
    assert unlocked.step.files["settings.xml"] == found.steps[0].files["settings.xml"]


def test_all_of_mavens_traffic_goes_to_the_lines_proxy(make: Make) -> None:
    text = plan(make({"pom.xml": pom(), "maven.lock.json": lock()})).steps[0].files["settings.xml"]
    (mirror,) = ET.fromstring(text).iter("mirror")  # noqa: S314  (the line's own)
    assert {child.tag: child.text for child in mirror} == {
        "id": "sekisho", "mirrorOf": "*", "url": "http://127.0.0.1:8001/maven/",
    }  # fmt: skip


def test_one_module_of_many_may_be_named(make: Make) -> None:
    inner = "<modules><module>web</module></modules><properties><sekisho.module>web</sekisho.module></properties>"
    found = plan(make({"pom.xml": pom(inner), "web/pom.xml": pom(), "maven.lock.json": lock()}))
    assert arguments(found)[-3:] == ["--projects", "web", "--also-make"]


def test_tests_are_compiled_only_where_a_module_needs_anothers(make: Make) -> None:
    plain = plan(make({"pom.xml": pom(), "maven.lock.json": lock()}))
    assert arguments(plain)[0] == "-Dmaven.test.skip=true"
    needs = pom("<dependencies><dependency><type>test-jar</type></dependency></dependencies>")
    assert arguments(plan(make({"pom.xml": needs, "maven.lock.json": lock()})))[0] == "-DskipTests=true"


def options(found: Plan) -> str:
    return str(json.loads(found.steps[0].files["settings.json"])["options"])


def test_a_jvm_config_of_the_workload_may_choose_its_collector(make: Make) -> None:
    files = {"pom.xml": pom(), "maven.lock.json": lock()}
    assert "-XX:+UseSerialGC" in options(plan(make(files)))
    assert "-XX:+UseSerialGC" not in options(plan(make(files | {".mvn/jvm.config": "-XX:+UseParallelGC"})))


def test_what_is_left_out_is_said(make: Make) -> None:
    found = plan(make({"pom.xml": pom(), "maven.lock.json": lock(), "build.gradle": "", "mvnw": ""}))
    assert len(found.notes) == 3
    assert "Gradle does not" in found.notes[0]
    assert "wrapper" in found.notes[1]
    assert "Tests" in found.notes[2]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"build.gradle.kts": ""}, "Gradle does not build here"),
        ({"pom.xml": pom("<packaging>war</packaging>")}, "packed as war"),
        ({"pom.xml": pom("<modules><module>gone</module></modules>")}, "There is no gone/pom.xml"),
        ({"pom.xml": pom("<modules><module>../other</module></modules>")}, "lies outside"),
        ({"pom.xml": pom("<modules><module>/etc</module></modules>")}, "lies outside"),
        ({"pom.xml": pom("<modules><module>a/../../b</module></modules>")}, "lies outside"),
        ({"pom.xml": "<html/>"}, "not a project of Maven"),
        ({"pom.xml": "<project>"}, "not XML"),
        ({"pom.xml": ""}, "not XML"),
        ({"pom.xml": "<project>" + "<a>" * 100_000}, "nested too deeply"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_sentence(make: Make, files: dict[str, str], said: str) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        Java().plan(make(files), OFFERED)
    assert caught.value.where
    assert caught.value.remedy


# -- version of Java -------------------------------------------------------------------------------------------------


def level(name: str, value: str) -> str:
    return pom(f"<properties><{name}>{value}</{name}></properties>")


@pytest.mark.parametrize(
    "text",
    [
        pom(), level("java.version", "17"), level("java.version", "1.8"), level("maven.compiler.release", "11"),
        level("maven.compiler.source", "${java.version}"), level("java.version", "${revision}"), level("other", "21"),
    ],
)  # fmt: skip
def test_an_offered_version_builds_it(make: Make, text: str) -> None:
    assert plan(make({"pom.xml": text, "maven.lock.json": lock()})).version == "17"


PLUGIN = """<build><plugins><plugin><artifactId>maven-compiler-plugin</artifactId>
<configuration><release>{}</release></configuration></plugin></plugins></build>"""


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (level("java.version", "21"), "pom.xml java.version"),
        (level("maven.compiler.release", "25"), "pom.xml maven.compiler.release"),
        (pom(PLUGIN.format("21")), "pom.xml maven-compiler-plugin"),
        (pom("<properties><v>21</v><java.version>${v}</java.version></properties>"), "pom.xml java.version"),
    ],
)
def test_a_newer_version_than_offered_is_refused(make: Make, text: str, where: str) -> None:
    with pytest.raises(Refusal, match=r"compiled for Java \d+; offered: 17") as caught:
        Java().plan(make({"pom.xml": text}), OFFERED)
    assert caught.value.where == where


def test_the_first_offered_version_that_is_new_enough_is_taken(make: Make) -> None:
    project = make({"pom.xml": level("java.version", "21"), "maven.lock.json": lock()})
    found = Java().plan(project, ("17", "21", "25"))
    assert found.version == "21"


def test_a_module_decides_as_well(make: Make) -> None:
    project = make(
        {"pom.xml": pom("<modules><module>web</module></modules>"), "web/pom.xml": level("java.version", "21")}
    )
    with pytest.raises(Refusal, match="Java 21") as caught:
        Java().plan(project, OFFERED)
    assert caught.value.where == "web/pom.xml java.version"


# -- strange documents -----------------------------------------------------------------------------------------------

BOMB = '<!DOCTYPE project [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
)


@pytest.mark.parametrize(
    "start",
    [
        BOMB + "]>",
        '<!DOCTYPE project SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE project [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE project [<!ENTITY % x SYSTEM "http://127.0.0.1/x"> %x;]>',
    ],
)
def test_a_document_type_is_refused_before_anything_is_expanded(start: str) -> None:
    with pytest.raises(Refusal, match="document type"):
        parse_pom(pom("<name>&j;</name>", start=start).encode())


def test_other_encodings_are_read_as_xml_says() -> None:
    start = '<?xml version="1.0" encoding="ISO-8859-1"?>'
    assert parse_pom(pom("<packaging>é</packaging>", start=start).encode("latin-1")).packaging == "é"
    assert parse_pom(pom(start='<?xml version="1.0" encoding="UTF-16"?>').encode("utf-16")).artifact == "a"
    with pytest.raises(Refusal, match="not XML"):
        parse_pom(pom(start='<?xml version="1.0" encoding="no-such"?>').encode())
    with pytest.raises(Refusal, match="not XML"):
        parse_pom(pom("<packaging>é</packaging>").encode("latin-1"))


def test_modules_without_end_are_refused(make: Make) -> None:
    many = "".join(f"<module>m{n}</module>" for n in range(MAX_MODULES + 1))
    files = {"pom.xml": pom(f"<modules>{many}</modules>")} | {f"m{n}/pom.xml": pom() for n in range(MAX_MODULES + 1)}
    with pytest.raises(Refusal, match=f"more than {MAX_MODULES} modules"):
        read_poms(make(files))


def test_modules_in_a_circle_are_read_once(make: Make) -> None:
    project = make(
        {
            "pom.xml": pom("<modules><module>a</module></modules>"),
            "a/pom.xml": pom("<modules><module>..</module><module>../b.xml</module></modules>"),
            "b.xml": pom(),
        }
    )
    assert [found.path for found in read_poms(project)] == ["pom.xml", "a/pom.xml", "b.xml"]


def test_a_pom_behind_a_link_is_not_read(make: Make, tmp_path: Path) -> None:
    (tmp_path / "secret.xml").write_text(pom())
    project = make({"pom.xml": pom("<modules><module>a</module></modules>"), "a/x": ""})
    (project.root / "a" / "pom.xml").symlink_to(tmp_path / "secret.xml")
    with pytest.raises(Refusal, match=r"There is no a/pom\.xml"):
        read_poms(project)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(Refusal):
        parse_pom(data)
