"""Environment of a zone's Prefect server and of the processes that talk to it.

Imports no Prefect: these variables must stand before its first import. Pins and traps: Prefect 3.8.8 reads its
settings once; SQLite answers 'database is locked' at two writers, so only PostgreSQL is accepted; the auth string is
the one credential of a server and never leaves its zone.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from sekisho.embedded.pki import nobody
from sekisho.errors import PermanentError
from sekisho.zones import Port, Zone, ZoneHome, address

_AUTH_USER = "sekisho"


def auth_string(home: ZoneHome) -> str:
    """Return the zone's Prefect credential, made at first use (file mode 0600)."""
    path = home.secrets / "prefect-auth"
    if not path.exists():
        _write_private(path, f"{_AUTH_USER}:{secrets.token_urlsafe(24)}")
    return path.read_text(encoding="utf-8").strip()


def _no_authority(home: ZoneHome) -> Path:
    path = home.secrets / "no-authority.pem"
    if not path.exists():
        _write_private(path, nobody())
    return path


def client_environment(zone: Zone) -> dict[str, str]:
    """Return the variables of a process that runs flows in a zone."""
    home = ZoneHome(zone)
    return {
        "SEKISHO_ZONE": zone,
        "PREFECT_HOME": str(home.state / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{Port.PREFECT}/api",
        "PREFECT_API_AUTH_STRING": auth_string(home),
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "503",
        # A client is made for each run, and each would ask for a token that the server does not give, and read some
        # 140 authorities from a file. The engine is on the loopback, without TLS: no authority is needed.
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
        "PREFECT_API_SSL_CERT_FILE": str(_no_authority(home)),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_RUNNER_POLL_FREQUENCY": "5",
        "DO_NOT_TRACK": "1",
    }


def server_environment(zone: Zone) -> dict[str, str]:
    """Return the variables of a zone's Prefect server.

    Raises:
        PermanentError: the zone has no PostgreSQL password yet, or somebody configured another database.
    """
    home = ZoneHome(zone)
    configured = os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL", "")
    if configured and not configured.startswith("postgresql+asyncpg://"):
        raise PermanentError(
            "The engine runs on PostgreSQL only; another database is configured.",
            where="PREFECT_API_DATABASE_CONNECTION_URL",
            remedy="Unset it, or give a postgresql+asyncpg:// URL: SQLite answers 'database is locked' at two writers.",
        )
    password_file = home.secrets / "postgres-prefect"
    if not configured and not password_file.exists():
        raise PermanentError(
            "The zone's PostgreSQL has no password for the engine.",
            where=str(password_file),
            remedy="Run `sekisho up`: it makes the zone's databases before the engine starts.",
        )
    url = configured or (
        f"postgresql+asyncpg://prefect:{password_file.read_text(encoding='utf-8').strip()}"
        f"@127.0.0.1:{Port.POSTGRES}/prefect"
    )
    return client_environment(zone) | {
        "PREFECT_API_DATABASE_CONNECTION_URL": url,
        "PREFECT_SERVER_API_AUTH_STRING": auth_string(home),
        "PREFECT_SERVER_UI_API_URL": f"http://{address(zone)}:{Port.PREFECT}/api",
        # Unpacked at start, for the address above; the packages' own folder is not the zone's to write.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home.state / "prefect-ui"),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # Version 2 of the UI asks a tracker for its configuration, whatever the analytics settings say.
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        # Suspended automations and schedules are not used; a loop less is CPU less on a laptop with three servers.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "30",
        "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "60",
        "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "30",
        "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_LOOP_SECONDS": "30",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    part = Path(name)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    try:
        # Two processes may start at once: the first link wins and both read the same file.
        os.link(part, path)
    except FileExistsError:
        pass
    finally:
        part.unlink()
