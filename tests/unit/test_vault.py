import os
import threading

import pytest

from sekisho.errors import PermanentError, Refusal
from sekisho.vault import FileVault, fingerprint


@pytest.fixture
def vault(tmp_path):
    return FileVault(tmp_path / "vault")


def test_what_is_put_is_got_and_survives(vault, tmp_path):
    assert vault.get("shop", "db") is None
    vault.put("shop", "db", {"password": "a"})
    vault.put("shop", "db", {"password": "b"})
    assert FileVault(tmp_path / "vault").get("shop", "db") == {"password": "b"}
    assert vault.get("shop", "d") is None


def test_modes_are_tight_and_no_draft_stays(vault, tmp_path):
    vault.put("shop", "db", {"password": "a"})
    vault.key()
    assert (tmp_path / "vault").stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "vault").iterdir()} == {
        "shop.db.json": 0o600,
        "fingerprint.key": 0o600,
    }


def test_an_open_folder_or_file_is_refused(vault, tmp_path):
    vault.put("shop", "db", {"password": "a"})
    (tmp_path / "vault" / "shop.db.json").chmod(0o640)
    with pytest.raises(PermanentError, match="open to others"):
        vault.get("shop", "db")
    (tmp_path / "vault").chmod(0o750)
    with pytest.raises(PermanentError, match="open to others"):
        FileVault(tmp_path / "vault")


def test_a_link_is_not_followed(vault, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("{}")
    elsewhere.chmod(0o600)
    (tmp_path / "vault" / "shop.db.json").symlink_to(elsewhere)
    with pytest.raises(PermanentError):
        vault.get("shop", "db")
    (tmp_path / "other").symlink_to(tmp_path / "vault")
    with pytest.raises(PermanentError):
        FileVault(tmp_path / "other")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(tmp_path):
    (tmp_path / "vault").mkdir(mode=0o700)
    os.chown(tmp_path / "vault", 12345, 12345)
    with pytest.raises(PermanentError, match="another user"):
        FileVault(tmp_path / "vault")


@pytest.mark.parametrize("name", ["../x", "", "a/b", "a.b", "A", "a" * 64, "-a", "a\n"])
def test_a_name_that_is_none_is_refused(vault, name):
    with pytest.raises(Refusal):
        vault.put(name, "db", {})
    with pytest.raises(Refusal):
        vault.get("shop", name)


def test_a_damaged_file_is_said_and_not_guessed(vault, tmp_path):
    vault.put("shop", "db", {"password": "a"})
    for content in ("{", "[]", '{"a": 1}'):
        (tmp_path / "vault" / "shop.db.json").write_text(content)
        with pytest.raises(PermanentError, match="damaged"):
            vault.get("shop", "db")


def test_two_at_once_get_one_key(tmp_path):
    FileVault(tmp_path / "vault")
    keys, start = [], threading.Barrier(8)

    def make():
        start.wait()
        keys.append(FileVault(tmp_path / "vault").key())

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32


def test_a_fingerprint_depends_on_credentials_and_on_the_vault(vault, tmp_path):
    one = fingerprint(vault, {"password": "a", "host": "h"})
    assert one == fingerprint(vault, {"host": "h", "password": "a"})
    assert one != fingerprint(vault, {"password": "b", "host": "h"})
    assert one != fingerprint(FileVault(tmp_path / "second"), {"password": "a", "host": "h"})
