-- Named values that replicas get as files, sealed by who stores them.
CREATE TABLE secrets (
    name    TEXT PRIMARY KEY,
    sealed  BLOB NOT NULL,
    created TEXT NOT NULL,
    updated TEXT NOT NULL
);
