"""`sekisho keys` on zones' folders: order, crashes, modes, and what the trust roots say afterwards."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sekisho.cli import main as cli
from sekisho.cli.moments import moment_of
from sekisho.embedded import keyring, owners, trust
from sekisho.embedded.owners import Owner
from sekisho.errors import PermanentError, Refusal, UsageError
from sekisho.keys import FileSigner, TrustedKey, TrustRoot, load_trust
from sekisho.zones import Zone, ZoneHome

NOW = 1_790_000_000
DAY = 86_400

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def zones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders, keys and trust roots of all zones, all of them this user's."""
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path))
    me = Owner(os.geteuid(), os.getegid())
    monkeypatch.setattr(Owner, "of", classmethod(lambda *_: me))
    monkeypatch.setattr(trust, "Owner", lambda *_: me)
    monkeypatch.setattr(trust.Owner, "of", lambda *_: me, raising=False)
    for zone in Zone:
        home = ZoneHome(zone)
        for folder in (home.keys, home.trust):
            owners.ensure_folder(folder, 0o700, me)
    trust.provision_trust()


@pytest.fixture
def sekisho(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(["keys", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def signer(role: str = "verifier", zone: Zone = Zone.BUILD) -> FileSigner:
    return FileSigner.load(ZoneHome(zone).keys / f"{role}.pem", role)  # type: ignore[arg-type]


def root(zone: Zone) -> TrustRoot:
    return load_trust(ZoneHome(zone).trust / "root.json")


def entry(key_id: str, zone: Zone = Zone.PRODUCTION) -> TrustedKey:
    (found,) = [key for key in root(zone).keys if key.key_id == key_id]
    return found


def rotate(role: str = "verifier", zone: Zone = Zone.BUILD) -> keyring.KeyChange:
    return keyring.rotate(role, zone, now=NOW, overlap=30 * DAY, by="tester")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("role", "zone"),
    [("builder", Zone.BUILD), ("scanner", Zone.BUILD), ("verifier", Zone.BUILD), ("zone", Zone.STAGING)],
)
def test_a_rotated_key_is_trusted_everywhere_and_the_old_one_ends(role: str, zone: Zone) -> None:
    before = signer(role, zone)
    change = rotate(role, zone)
    after = signer(role, zone)

    assert (change.key_id, change.successor) == (before.key_id, after.key_id)
    assert before.key_id != after.key_id
    for where in Zone:
        assert entry(before.key_id, where).not_after == NOW + 30 * DAY
        assert entry(after.key_id, where).not_after is None
        assert entry(after.key_id, where).zone == (str(zone) if role == "zone" else "")
    path = ZoneHome(zone).keys / f"{role}.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(item.name for item in path.parent.iterdir() if role in item.name) == [path.name]


def test_a_zone_that_starts_anew_changes_nothing_of_a_rotation() -> None:
    rotate()
    keyring.revoke(signer("scanner").key_id, keyring.root_paths(), revoked_from=0, reason="lost", now=NOW, by="tester")
    told = [root(zone) for zone in Zone]
    trust.provision_trust()
    assert [root(zone) for zone in Zone] == told


@pytest.mark.parametrize("written", range(len(Zone)))
def test_a_rotation_that_was_cut_off_goes_on(monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    """Killed after some of the roots: nobody signs with a key that a root lacks, and the same key is taken up."""
    before = signer()
    write, left = trust.write_root, iter(range(written))

    def cut(*arguments: object) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(trust, "write_root", cut)
        with pytest.raises(KeyboardInterrupt):
            rotate()
    assert signer().key_id == before.key_id
    assert {key.key_id for zone in Zone for key in root(zone).keys} >= {before.key_id}

    first, second = keyring.changes()[0], rotate()
    assert first.successor == second.successor == signer().key_id
    for zone in Zone:
        assert entry(signer().key_id, zone).not_after is None
        assert len(root(zone).for_role("verifier")) == 2


def test_a_revocation_is_in_every_root_and_never_lessened() -> None:
    key_id = signer().key_id
    for moment, expected in ((NOW, NOW), (NOW + DAY, NOW), (NOW - DAY, NOW - DAY), (0, 0), (NOW, 0)):
        keyring.revoke(
            key_id[:8], keyring.root_paths(), revoked_from=moment, reason=f"at {moment}", now=NOW, by="tester"
        )
        assert [entry(key_id, zone).revoked_from for zone in Zone] == [expected] * len(Zone)
    assert entry(key_id).revoked_because == "at 0"
    rotate()
    assert entry(key_id).revoked_from == 0
    assert not entry(key_id).valid_at(NOW - 100 * DAY)


def test_every_change_is_in_the_audit_file() -> None:
    key_id = signer().key_id
    rotate()
    keyring.revoke(key_id, keyring.root_paths(), revoked_from=NOW, reason="stolen", now=NOW + 1, by="ann")
    first, second = keyring.changes()
    assert (first.action, first.by, first.key_id, first.until) == ("rotate", "tester", key_id, NOW + 30 * DAY)
    assert (second.action, second.by, second.reason, second.revoked_from) == ("revoke", "ann", "stolen", NOW)
    assert len(second.roots) == len(Zone)
    assert "PRIVATE" not in (trust.console() / keyring.AUDIT_FILE).read_text()


def test_what_cannot_be_written_down_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    told, before = [root(zone) for zone in Zone], signer().key_id
    (trust.console() / keyring.AUDIT_FILE).mkdir(parents=True)
    with pytest.raises(Exception, match="journal"):
        rotate()
    with pytest.raises(Exception, match="journal"):
        keyring.revoke(before, keyring.root_paths(), revoked_from=0, reason="x", now=NOW, by="tester")
    assert [root(zone) for zone in Zone] == told
    assert signer().key_id == before


def test_nobody_and_several_are_not_revoked(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="No key"):
        keyring.revoke("0" * 64, keyring.root_paths(), revoked_from=0, reason="x", now=NOW, by="tester")
    with pytest.raises(Refusal, match="keys here begin"):
        keyring.revoke("", keyring.root_paths(), revoked_from=0, reason="x", now=NOW, by="tester")
    with pytest.raises(PermanentError, match="no trust root"):
        keyring.revoke("0" * 64, (), revoked_from=0, reason="x", now=NOW, by="tester")
    with pytest.raises(PermanentError, match="holds no builder key"):
        rotate("builder", Zone.STAGING)


def test_one_file_of_another_installation(sekisho: Run, tmp_path: Path) -> None:
    """A trust root that was handed over is changed alone, with its owner and mode."""
    key_id = signer().key_id
    copy = tmp_path / "elsewhere.json"
    copy.write_bytes((ZoneHome(Zone.OPS).trust / "root.json").read_bytes())
    copy.chmod(0o644)
    code, out, _ = sekisho("revoke", key_id[:12], "--from", "always", "--reason", "stolen", "--trust", str(copy))
    assert (code, "Nothing that it signed counts" in out) == (0, True)
    assert not [key for key in load_trust(copy).keys if key.key_id == key_id and key.valid_at(0)]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o644
    assert entry(key_id).revoked_from is None


# -- the command line --------------------------------------------------------------------------------------------


def test_the_list_says_who_counts_until_when(sekisho: Run) -> None:
    old = signer().key_id
    code, out, _ = sekisho("rotate", "verifier", "--overlap", "12h", "--json")
    change = json.loads(out)
    assert (code, change["key_id"]) == (0, old)
    assert change["until"] - change["at"] == 12 * 3600

    sekisho("revoke", signer("scanner").key_id[:10], "--from", "2026-11-20", "--reason", "lost")
    code, out, _ = sekisho("list")
    rows = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert code == 0
    assert "until 20" in rows[old[:16]]
    assert rows[old[:16]].split()[-2:] == ["-", "all"]
    assert "signs" in rows[signer().key_id[:16]]
    assert "before 2026-11-20T00:00:00Z, revoked" in rows[signer("scanner").key_id[:16]]

    code, out, _ = sekisho("list", "--json")
    found = {item["key_id"]: item for item in json.loads(out)}
    assert found[old]["signs_here"] is False
    assert found[signer().key_id]["public_key"].startswith("-----BEGIN PUBLIC KEY-----")
    assert "PRIVATE" not in out


def test_a_revoked_key_that_still_signs_is_told(sekisho: Run) -> None:
    _, _, said = sekisho("revoke", signer().key_id, "--from", "now", "--reason", "stolen")
    assert "sekisho keys rotate verifier" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("rotate", "judge"),
        ("rotate", "zone"),
        ("rotate", "zone", "--zone", "moon"),
        ("rotate", "verifier", "--overlap", "soon"),
        ("revoke", "xyz", "--from", "now", "--reason", "r"),
        ("revoke", "0" * 64, "--from", "yesterday", "--reason", "r"),
        ("revoke", "0" * 64, "--from", "now", "--reason", " "),
        ("revoke", "0" * 64, "--reason", "r"),
    ],
)
def test_wrong_use(sekisho: Run, arguments: tuple[str, ...]) -> None:
    told = [root(zone) for zone in Zone]
    assert sekisho(*arguments)[0] == 2
    assert [root(zone) for zone in Zone] == told


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("0", 0),
        ("1790000000", NOW),
        ("1970-01-02", DAY),
        ("1970-01-02T00:00:00Z", DAY),
        ("1970-01-02T01:00:00+01:00", DAY),
    ],
)
def test_times_as_people_write_them(text: str, moment: int) -> None:
    assert moment_of(text) == moment


@pytest.mark.parametrize("text", ["", "soon", "-1", "1970-01-02T00:00:00", "9" * 30, "2026-13-01", "٣"])
def test_what_is_no_time_is_wrong_use(text: str) -> None:
    with pytest.raises(UsageError):
        moment_of(text)
