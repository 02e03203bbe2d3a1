"""Environment of the engine: its one credential, and no database but PostgreSQL."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from flows.settings import auth_string, client_environment, server_environment
from sekisho.errors import PermanentError
from sekisho.zones import Zone, ZoneHome


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ZoneHome:
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_DATABASE_CONNECTION_URL", raising=False)
    return ZoneHome(Zone.STAGING)


def test_the_credential_is_made_once_and_is_its_owners_alone(home: ZoneHome) -> None:
    first = auth_string(home)
    assert auth_string(home) == first
    user, _, secret = first.partition(":")
    assert user
    assert len(secret) >= 32
    path = home.secrets / "prefect-auth"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in home.secrets.iterdir()] == ["prefect-auth"]


def test_zones_share_no_credential(home: ZoneHome) -> None:
    assert auth_string(home) != auth_string(ZoneHome(Zone.PRODUCTION))


def test_the_client_knows_the_zone_and_no_database(home: ZoneHome) -> None:
    found = client_environment(Zone.STAGING)
    assert found["SEKISHO_ZONE"] == "staging"
    assert found["PREFECT_API_AUTH_STRING"] == auth_string(home)
    assert found["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] == "false"
    assert "DATABASE" not in " ".join(found)
    # A client of the engine trusts no server's certificate.
    context = ssl.create_default_context(cafile=found["PREFECT_API_SSL_CERT_FILE"])
    assert [dict(*item["subject"])["commonName"] for item in context.get_ca_certs()] == ["nobody"]


def test_the_server_takes_the_zones_password(home: ZoneHome) -> None:
    with pytest.raises(PermanentError, match="no password") as caught:
        server_environment(Zone.STAGING)
    assert "sekisho up" in caught.value.remedy
    home.secrets.mkdir(parents=True, exist_ok=True)
    (home.secrets / "postgres-prefect").write_text("pass-word\n")
    found = server_environment(Zone.STAGING)
    url = found["PREFECT_API_DATABASE_CONNECTION_URL"]
    assert url.startswith("postgresql+asyncpg://prefect:pass-word@127.0.0.1:")
    assert found["PREFECT_SERVER_API_AUTH_STRING"] == found["PREFECT_API_AUTH_STRING"]


def test_sqlite_is_refused(home: ZoneHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "sqlite+aiosqlite:////secret/path.db")
    with pytest.raises(PermanentError, match="PostgreSQL only") as caught:
        server_environment(Zone.STAGING)
    assert "secret" not in str(caught.value)
