"""The SQL of the embedded store: its schema, and what is too long to stand beside its use."""

from __future__ import annotations

_RECORDS = """
CREATE TABLE devices (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, owner TEXT NOT NULL, department TEXT NOT NULL, status TEXT NOT NULL,
    created_at REAL NOT NULL, enrolled_at REAL, revoked_at REAL, revoked_why TEXT NOT NULL, posture TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE enrolments (
    token_sha256 TEXT PRIMARY KEY, device_id TEXT NOT NULL, expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE certificates (
    serial TEXT PRIMARY KEY, device_id TEXT NOT NULL, not_before REAL NOT NULL, not_after REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, issuer TEXT NOT NULL, subject TEXT NOT NULL, identity TEXT NOT NULL, device_id TEXT NOT NULL,
    created_at REAL NOT NULL, last_seen_at REAL NOT NULL, expires_at REAL NOT NULL,
    revoked_at REAL, revoked_why TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE used (key TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE secrets (
    purpose TEXT NOT NULL, name TEXT NOT NULL, created_at REAL NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (purpose, name)
) WITHOUT ROWID;
CREATE TABLE heartbeat (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL);
CREATE INDEX enrolments_by_expiry ON enrolments (expires_at);
CREATE INDEX certificates_by_expiry ON certificates (not_after);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
CREATE INDEX used_by_expiry ON used (expires_at);
"""
# A rowid is never given twice, so a version stands for one write of one document, even when others came and went.
_DOCUMENTS = """
CREATE TABLE documents (
    version INTEGER PRIMARY KEY AUTOINCREMENT, collection TEXT NOT NULL, key TEXT NOT NULL, kin TEXT NOT NULL,
    first_version INTEGER, expires_at REAL NOT NULL, sealed BLOB NOT NULL, UNIQUE (collection, key)
);
CREATE INDEX documents_by_kin ON documents (collection, kin) WHERE kin <> '';
CREATE INDEX documents_by_expiry ON documents (expires_at);
"""
# A number is given once and none is left out: whoever has seen the last one has seen them all.
_CHANGES = """
CREATE TABLE changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL
);
"""
SCHEMAS = (
    _RECORDS,
    _DOCUMENTS,
    _CHANGES,
)  # in the order in which they came; what a file may have already is never changed
DEVICE = "id, name, owner, department, status, created_at, enrolled_at, revoked_at, revoked_why, posture"
SESSION = "id, issuer, subject, identity, device_id, created_at, last_seen_at, expires_at, revoked_at, revoked_why"
GET_DEVICE = f"SELECT {DEVICE} FROM devices WHERE id = ?"  # noqa: S608  (constants only)
GET_SESSION = f"SELECT {SESSION} FROM sessions WHERE id = ?"  # noqa: S608  (constants only)
LIST_DEVICES = f"SELECT {DEVICE} FROM devices ORDER BY created_at DESC, id"  # noqa: S608  (constants only)
LIST_SESSIONS = (
    f"SELECT {SESSION} FROM sessions WHERE expires_at > :now AND (:subject IS NULL OR subject = :subject)"  # noqa: S608
    " ORDER BY created_at DESC, id"
)
ADD_DEVICE = f"INSERT INTO devices ({DEVICE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"  # noqa: S608
CHANGE_DEVICE = f"UPDATE devices SET ({DEVICE}) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE id = ?"  # noqa: S608
PUT_SESSION = f"""
INSERT INTO sessions ({SESSION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET last_seen_at = max(last_seen_at, excluded.last_seen_at),
    expires_at = max(expires_at, excluded.expires_at)
"""  # noqa: S608  (constants only)
FIRST_USE = """
INSERT INTO used (key, expires_at) VALUES (:key, :expires_at)
ON CONFLICT (key) DO UPDATE SET expires_at = excluded.expires_at WHERE used.expires_at <= :now
"""
REVOKED_CERTIFICATES = """
SELECT c.serial, c.device_id, c.not_before, c.not_after, d.revoked_at
FROM certificates c JOIN devices d ON d.id = c.device_id
WHERE d.status = 'revoked' AND c.not_after > ? ORDER BY c.serial
"""
GET_DOCUMENT = "SELECT version, expires_at, sealed FROM documents WHERE collection = ? AND key = ? AND expires_at > ?"
LIST_DOCUMENTS = """
SELECT key, version, expires_at, sealed FROM documents WHERE collection = ? AND kin = ? AND kin <> '' AND expires_at > ?
ORDER BY coalesce(first_version, version)
"""
FIND_DOCUMENT = """
SELECT version, coalesce(first_version, version) FROM documents WHERE collection = ? AND key = ? AND expires_at > ?
"""
PUT_DOCUMENT = """
INSERT OR REPLACE INTO documents (collection, key, kin, first_version, expires_at, sealed) VALUES (?, ?, ?, ?, ?, ?)
"""
TAKE_DOCUMENT = "DELETE FROM documents WHERE collection = ? AND key = ? RETURNING version, expires_at, sealed"
PRUNE_DOCUMENTS = """
DELETE FROM documents WHERE version IN (SELECT version FROM documents WHERE expires_at <= ? LIMIT 32)
"""
ADD_CHANGE = "INSERT INTO changes (at, kind, key) VALUES (?, ?, ?)"
LAST_CHANGE = "SELECT seq FROM sqlite_sequence WHERE name = 'changes'"
LIST_CHANGES = "SELECT seq, kind, key FROM changes WHERE seq > ? ORDER BY seq"
PRUNE_CHANGES = "DELETE FROM changes WHERE seq <= ? AND at < ?"
