-- The share of the traffic in use, who asked for a change and what was before it; scaling, rollouts,
-- named tokens of the control API and the audit log.
ALTER TABLE deployments ADD COLUMN weight INTEGER NOT NULL DEFAULT 0;
ALTER TABLE operations ADD COLUMN who TEXT NOT NULL DEFAULT '';
ALTER TABLE operations ADD COLUMN before TEXT NOT NULL DEFAULT 'null';

CREATE TABLE scalings (
    endpoint   TEXT NOT NULL,
    deployment TEXT NOT NULL,
    scaling    TEXT NOT NULL,
    PRIMARY KEY (endpoint, deployment)
);

CREATE TABLE rollouts (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT    NOT NULL UNIQUE,
    endpoint TEXT    NOT NULL,
    version  INTEGER NOT NULL,
    over     INTEGER NOT NULL,
    rollout  TEXT    NOT NULL
);
CREATE INDEX rollouts_by_endpoint ON rollouts (endpoint, sequence);
CREATE UNIQUE INDEX rollouts_one_runs ON rollouts (endpoint) WHERE over = 0;

CREATE TABLE accesses (
    name    TEXT PRIMARY KEY,
    role    TEXT NOT NULL,
    digest  BLOB NOT NULL,
    created TEXT NOT NULL,
    expires TEXT NOT NULL,
    revoked TEXT NOT NULL
);

CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         TEXT NOT NULL,
    who        TEXT NOT NULL,
    role       TEXT NOT NULL,
    action     TEXT NOT NULL,
    object     TEXT NOT NULL,
    changes    TEXT NOT NULL,
    request_id TEXT NOT NULL,
    address    TEXT NOT NULL,
    refused    TEXT NOT NULL
);
CREATE INDEX audit_by_object ON audit (object, id);
CREATE INDEX audit_by_time ON audit (at);
