"""Java: a Maven build, resolved once and then run without network, and an application jar beside its libraries."""

from __future__ import annotations

import json
from pathlib import Path

from sekisho.errors import Refusal
from stages.build.compose import Runtime
from stages.build.language import Ahead, Plan, Step, Take, Unlocked
from stages.build.languages.java_pom import POM, Pom, java_level, read_poms
from stages.build.locks_maven import LOCK_FILE, MIRROR, MavenFile, parse_maven_lock
from stages.build.project import Project

HOME = "app"
"""Folder of the application in the image."""
MODULE = "sekisho.module"
"""Property in pom.xml that names the module to run, where several can."""

_GRADLE = ("build.gradle", "build.gradle.kts")
_JVM = ".mvn/jvm.config"
"""A workload's own options of the virtual machine."""
_COLLECTOR = "-XX:+UseSerialGC"
_OPTIONS = f"-XX:TieredStopAtLevel=1 {_COLLECTOR} -Duser.home=/tmp"
"""The compiler that starts fast, and one collector: a build is short. A workload's own options may name another."""
_SECONDS = 1_800
_BUILD, _ASSEMBLE, _READY = "java_sandbox.py", "java_assemble.py", "java_ready.java"
_SKIPPED = (
    "maven.javadoc.skip", "maven.source.skip", "gpg.skip", "checkstyle.skip", "jacoco.skip", "pmd.skip", "cpd.skip",
    "spotbugs.skip", "spotless.check.skip", "spring-javaformat.skip", "enforcer.skip", "license.skip", "rat.skip",
    "sonar.skip", "dependency-check.skip", "skipITs",
)  # fmt: skip
"""What checks or describes the sources and does not change the jar: a developer's build and the line's scan do that."""
_QUARKUS = "io/quarkus/quarkus-core/"
_QUARKUS_NOTE = (
    "Quarkus generates classes in several threads: unless its release orders them, two builds of one commit differ in "
    "them, and so do the images' digests."
)
_FRAMEWORKS = (
    ("org/springframework/boot/spring-boot/", "SERVER_PORT"),
    (_QUARKUS, "QUARKUS_HTTP_PORT"),
    ("io/micronaut/micronaut-http-server/", "MICRONAUT_SERVER_PORT"),
)
"""Frameworks that replace `${PORT:8080}` in their own settings, and the variable that holds their port."""
_SETTINGS = f"""<?xml version="1.0" encoding="UTF-8"?>
<settings>
  <interactiveMode>false</interactiveMode>
  <mirrors>
    <mirror><id>{MIRROR}</id><mirrorOf>*</mirrorOf><url>http://127.0.0.1:8001/maven/</url></mirror>
  </mirrors>
  <profiles>
    <profile>
      <id>{MIRROR}</id>
      <repositories>
        <repository><id>central</id><url>https://repo.maven.apache.org/maven2</url>
          <releases><checksumPolicy>ignore</checksumPolicy></releases><snapshots><enabled>false</enabled></snapshots>
        </repository>
      </repositories>
      <pluginRepositories>
        <pluginRepository><id>central</id><url>https://repo.maven.apache.org/maven2</url>
          <releases><checksumPolicy>ignore</checksumPolicy></releases><snapshots><enabled>false</enabled></snapshots>
        </pluginRepository>
      </pluginRepositories>
    </profile>
  </profiles>
  <activeProfiles><activeProfile>{MIRROR}</activeProfile></activeProfiles>
</settings>
"""
"""Everything from the line's proxy. Checksums beside the files are not asked for: the lock has better ones."""


class Java:
    """Workloads that Maven builds."""

    name = "java"
    title = "Java"

    def recognise(self, project: Project) -> str:
        """Return pom.xml, or the file of Gradle, so that it can be said that it is not built."""
        return next((name for name in (POM, *_GRADLE) if project.has(name)), "")

    def plan(self, project: Project, offered: tuple[str, ...]) -> Plan | Unlocked:
        """Return how the workload is built.

        Raises:
            Refusal: Gradle, a war, a newer Java than is offered, or a pom.xml or lock that cannot be read.
        """
        if not project.has(POM):
            raise Refusal(
                "Gradle does not build here: its builds are programs that fetch what they like, without a lock.",
                where=self.recognise(project),
                remedy=f"Add a {POM} (Maven). Spring's and Quarkus' starters make one for the same dependencies.",
            )
        poms = read_poms(project)
        _no_war(poms)
        version, notes = _version(poms, offered)
        notes += _left_out(project)
        text = project.text(LOCK_FILE, limit=16 << 20)
        if text is None:
            return _unlocked(project, poms, version)
        files = parse_maven_lock(text)
        if any(file.path.startswith(_QUARKUS) for file in files):
            notes += (_QUARKUS_NOTE,)
        line = _files(project, poms, files)
        return Plan(
            language=self.name,
            version=version,
            why=f"Java, because there is {POM}.",
            runtime=_runtime(files),
            takes=(
                Take("dependencies", "assemble", below="dependencies", into=HOME),
                Take("application", "assemble", below="application", into=HOME),
            ),
            artifacts=tuple(file.artifact() for file in files),
            steps=(
                Step("build", _command(_BUILD, "build"), directory="work", source=(), packages=True,
                     files=line | _program(_BUILD), what="build (Maven)", seconds=_SECONDS, ahead=_ahead(project)),
                Step("assemble", _command(_ASSEMBLE), uses=("build",),
                     files={"settings.json": line["settings.json"]} | _program(_ASSEMBLE),
                     what="choice of the jar", ahead=Ahead()),
            ),
            listed_by="assemble",
            notes=notes,
        )  # fmt: skip


def _ahead(project: Project) -> Ahead | None:
    """Maven itself, which needs longer to get going than to compile. Options of the workload are not known before."""
    if project.has(_JVM):
        return None
    settings = json.dumps({"options": _OPTIONS}).encode()
    command = ("python3", "-I", f"/in/ahead/{_BUILD}", "ready")
    return Ahead(command, {"settings.json": settings} | _program(_BUILD) | _program(_READY))


def _command(*words: str) -> tuple[str, ...]:
    return ("python3", "-I", f"/in/line/{words[0]}", *words[1:])


def _program(name: str) -> dict[str, bytes]:
    return {name: Path(__file__).with_name(name).read_bytes()}


def _runtime(files: tuple[MavenFile, ...]) -> Runtime:
    """How the workload starts. The heap follows the container's memory; out of memory ends the process, loudly."""
    used = [name for folder, name in _FRAMEWORKS if any(file.path.startswith(folder) for file in files)]
    command = ("java", "-XX:MaxRAMPercentage=75", "-XX:+ExitOnOutOfMemoryError", "-jar", f"/{HOME}/app.jar")
    return Runtime(command, f"/{HOME}", dict.fromkeys(used, "${PORT:8080}"))


def _files(project: Project, poms: tuple[Pom, ...], files: tuple[MavenFile, ...]) -> dict[str, bytes]:
    """What the line writes for the steps."""
    properties = poms[0].properties
    module = properties.get(MODULE, "").strip("/")
    skipped = [f"-D{name}=true" for name in _SKIPPED]
    tests = "skipTests" if any(pom.test_jars for pom in poms) else "maven.test.skip"
    chosen = ["--projects", module, "--also-make"] if module else []
    value = {
        "app": project.name,
        "module": module,
        "arguments": [f"-D{tests}=true", *skipped, *chosen],
        "options": _OPTIONS.replace(_COLLECTOR, "") if project.has(_JVM) else _OPTIONS,
        "libraries": {file.sha256: file.purl for file in files if file.purl},
    }
    return {
        "settings.xml": _SETTINGS.encode(),
        "settings.json": json.dumps(value, sort_keys=True, indent=1).encode(),
    }


def _unlocked(project: Project, poms: tuple[Pom, ...], version: str) -> Unlocked:
    decided = {pom.path for pom in poms}
    decided |= {path for path in project.files("*", below=".mvn") if not path.startswith(".mvn/wrapper/")}
    return Unlocked(
        language=Java.name,
        version=version,
        refusal=Refusal(
            f"There is no {LOCK_FILE}: nothing says which files exactly the Maven build takes.",
            where=POM,
            remedy=f"Run: sekisho lock .   and commit {LOCK_FILE}.",
        ),
        step=Step(
            "resolve", _command(_BUILD, "resolve"), directory="work", source=(),
            files=_files(project, poms, ()) | _program(_BUILD),
            environment={"SOURCE_DATE_EPOCH": "0"}, what="resolving of the Maven build", seconds=_SECONDS,
        ),
        ecosystems=("maven",),
        record_as=LOCK_FILE,
        tool="maven",
        decided_by=tuple(sorted(decided)),
    )  # fmt: skip


def _no_war(poms: tuple[Pom, ...]) -> None:
    for pom in poms:
        if pom.packaging in ("war", "ear"):
            raise Refusal(
                f"The module {pom.artifact or pom.path} is packed as {pom.packaging}, for an application server.",
                where=pom.path,
                remedy="Pack it as a jar with its server inside: <packaging>jar</packaging>, and Spring Boot, Quarkus "
                "or an embedded Jetty or Tomcat.",
            )


def _version(poms: tuple[Pom, ...], offered: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    need, where = java_level(poms)
    for version in offered:
        if int(version.partition(".")[0]) >= need:
            return version, ()
    raise Refusal(
        f"The workload is compiled for Java {need}; offered: {', '.join(offered)}.",
        where=where,
        remedy="Set an offered release there, or ask the platform team for a newer one.",
    )


def _left_out(project: Project) -> tuple[str, ...]:
    notes = [f"{name} is there, too: Maven builds, Gradle does not." for name in _GRADLE if project.has(name)][:1]
    if project.has(".mvn/wrapper/maven-wrapper.properties") or project.has("mvnw"):
        notes.append("Maven is the standard image's; the wrapper's version is not downloaded.")
    notes.append("Tests, and checks such as checkstyle, do not run in the line's build.")
    return tuple(notes)
