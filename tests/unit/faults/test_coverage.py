"""What was not scanned has not passed: systems and packages that the real scanner does not see."""

from __future__ import annotations

from fault_cases import Fault, faults
from fault_line import BASE, INSTALLED, PINNED, GateLine

BASE_TEAM = "The platform team mends the standard image."
LOCK = "Bring the lock file up to date and push."
OLD = {**BASE, "etc/os-release": 'ID=debian\nVERSION_ID="9"\n', "etc/debian_version": "9.13\n"}
SCRATCH = {"app/nothing": "x"}
BARE = {name: text for name, text in BASE.items() if "dpkg" not in name}


@faults(
    Fault("coverage/unknown-system", "the scanner does not know the image's system", "FAILED",
          "the scanner does not know the system", BASE_TEAM, {"base": {"etc/os-release": "ID=weirdos\n"}}),
    Fault("coverage/no-system", "the image has no system at all", "FAILED", "the scanner does not know the system",
          BASE_TEAM, {"base": SCRATCH}),
    Fault("coverage/end-of-life", "the image's system is past its end of life", "FAILED", "os-end-of-life",
          BASE_TEAM, {"base": OLD}),
    Fault("coverage/no-packages", "the image has no packages", "FAILED", "the scanner saw no package of the system",
          BASE_TEAM, {"base": BARE}),
    Fault("coverage/not-installed", "a lock file pins what is not in the image", "FAILED",
          "1 locked packages were not seen in the image", LOCK, {"installed": {"opt/deps/empty": "x"}}),
    Fault("coverage/other-version", "another version than the locked one is installed", "FAILED",
          "1 locked packages were not seen in the image", LOCK,
          {"installed": {name: text.replace("2.0", "1.0") for name, text in INSTALLED.items()}}),
    Fault("coverage/lock-not-read", "the scanner does not read the whole lock file", "FAILED",
          "The scanner did not read the whole lock file.", LOCK,
          {"locked": (PINNED, "pkg:pypi/extra@1.0"), "installed": {
              **INSTALLED,
              "opt/deps/extra-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n",
          }}),
)  # fmt: skip
def test_what_the_scanner_does_not_see_has_not_passed(line: GateLine, fault: Fault) -> None:
    line.real_scanner()
    line.start()
    for name, value in fault.value.items():
        setattr(line.gate.build, name, value)
    line.check_fault(fault, line.push())
