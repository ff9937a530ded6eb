-- Times are text, UTC, "2006-01-02T15:04:05.000000000Z", empty for none: they sort as they are.
-- Nested structures are JSON in the form of the API; what is searched has a column of its own.

-- The last version that a name ever had: it outlives the versions, so that no number is used twice.
CREATE TABLE model_names (
    name         TEXT PRIMARY KEY,
    last_version INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE models (
    name        TEXT    NOT NULL REFERENCES model_names (name),
    version     INTEGER NOT NULL,
    format      TEXT    NOT NULL,
    created     TEXT    NOT NULL,
    description TEXT    NOT NULL,
    tags        TEXT    NOT NULL,
    properties  TEXT    NOT NULL,
    content     TEXT    NOT NULL,
    signature   TEXT    NOT NULL,
    PRIMARY KEY (name, version)
);

CREATE TABLE endpoints (
    name       TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    deleting   INTEGER NOT NULL,
    created    TEXT    NOT NULL,
    updated    TEXT    NOT NULL,
    spec       TEXT    NOT NULL
);

CREATE TABLE keys (
    endpoint TEXT PRIMARY KEY,
    sealed   BLOB NOT NULL,
    updated  TEXT NOT NULL
);

CREATE TABLE deployments (
    endpoint       TEXT    NOT NULL,
    deployment     TEXT    NOT NULL,
    target         TEXT    NOT NULL,
    handle_version INTEGER NOT NULL,
    handle         BLOB,
    status         TEXT    NOT NULL,
    PRIMARY KEY (endpoint, deployment, target)
);

CREATE TABLE operations (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE,
    kind       TEXT    NOT NULL,
    endpoint   TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    revision   INTEGER NOT NULL,
    state      TEXT    NOT NULL,
    created    TEXT    NOT NULL,
    ended      TEXT    NOT NULL,
    phases     TEXT    NOT NULL,
    error      TEXT    NOT NULL
);
CREATE INDEX operations_by_endpoint ON operations (endpoint, sequence);
CREATE UNIQUE INDEX operations_one_running ON operations (endpoint) WHERE state = 'running';

CREATE TABLE targets (
    name    TEXT PRIMARY KEY,
    kind    TEXT NOT NULL,
    options TEXT NOT NULL,
    created TEXT NOT NULL
);
