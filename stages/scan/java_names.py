"""The scanner's list of Java archives by their digest: an empty one, so that it does not go out for its own.

A jar says in META-INF/maven/**/pom.properties what it is; the list only names those that do not. It knows the public
ones of the world and is larger than all advisories, so the line does without: what a lock pins and the scanner does
not see is a finding of its own. Format: github.com/aquasecurity/trivy-java-db pkg/db, schema version 1.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

FOLDER = "java-db"
_SCHEMA = (
    "CREATE TABLE artifacts(id INTEGER PRIMARY KEY, group_id TEXT, artifact_id TEXT)",
    """CREATE TABLE indices(artifact_id INTEGER, version TEXT, sha1 BLOB, archive_type TEXT, license TEXT,
       foreign key (artifact_id) references artifacts(id))""",
    "CREATE UNIQUE INDEX artifacts_idx ON artifacts(artifact_id, group_id)",
    "CREATE INDEX indices_artifact_idx ON indices(artifact_id)",
    "CREATE UNIQUE INDEX indices_sha1_idx ON indices(sha1)",
)
_NEVER = "2000-01-01T00:00:00Z"
_METADATA = {"Version": 1, "NextUpdate": _NEVER, "UpdatedAt": _NEVER, "DownloadedAt": _NEVER}


def ensure_java_names(cache: Path) -> None:
    """Put an empty list into a cache folder of the scanner, once."""
    folder = cache / FOLDER
    if folder.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=cache, prefix=".java-") as scratch:
        made = Path(scratch) / FOLDER
        made.mkdir()
        with closing(sqlite3.connect(made / "trivy-java.db")) as database:
            for statement in _SCHEMA:
                database.execute(statement)
            database.commit()
        (made / "metadata.json").write_text(json.dumps(_METADATA), encoding="ascii")
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # another scan was first
                raise
