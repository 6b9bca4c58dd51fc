-- A file as version 1 of the schema wrote it, before it was closed: two actors' streams, a projection, a message that
-- waits in the schedule and one that nobody has handled. Never changed.
PRAGMA application_id=0x53524344;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE sourced_meta(key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
INSERT INTO sourced_meta VALUES('schema_version',1);
INSERT INTO sourced_meta VALUES('store_id','022d011d2e0a3f3818ef2052af56bc27');
CREATE TABLE sourced_streams(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, seq INTEGER NOT NULL, updated_at INTEGER NOT NULL) STRICT;
INSERT INTO sourced_streams VALUES(1,'list-1',3,1735689602000000);
INSERT INTO sourced_streams VALUES(2,'list-2',2,1735689601000000);
CREATE TABLE sourced_types(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind INTEGER) STRICT;
INSERT INTO sourced_types VALUES(1,'list.add',0);
INSERT INTO sourced_types VALUES(2,'list.added',1);
CREATE TABLE sourced_messages(
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL, seq INTEGER NOT NULL, type INTEGER NOT NULL, schema INTEGER NOT NULL,
    id BLOB NOT NULL UNIQUE CHECK(length(id) = 16), causation BLOB, correlation BLOB,
    recorded_at INTEGER NOT NULL, occurred_at INTEGER, metadata TEXT, payload TEXT, erased_at INTEGER,
    checksum INTEGER NOT NULL,
    UNIQUE(stream, seq)) STRICT;
INSERT INTO sourced_messages VALUES(1,1,1,1,1,X'01a1fe794f367083ba27441aec134914',NULL,NULL,1735689600000000,NULL,NULL,'{"name":"apple"}',NULL,-9073932101506560830);
INSERT INTO sourced_messages VALUES(2,2,1,1,1,X'01a1fe794f367083ba27441d3ddbf204',NULL,NULL,1735689601000000,NULL,NULL,'{"name":"pear"}',NULL,-1006996044850044272);
INSERT INTO sourced_messages VALUES(3,1,2,2,1,X'01941f297fe87695a8efe333b266f103',X'01a1fe794f367083ba27441aec134914',X'01a1fe794f367083ba27441aec134914',1735689601000000,NULL,NULL,'{"name":"apple"}',NULL,-5959375946553492848);
INSERT INTO sourced_messages VALUES(4,2,2,2,1,X'01941f297fe87695a8efe334cfb08e60',X'01a1fe794f367083ba27441d3ddbf204',X'01a1fe794f367083ba27441d3ddbf204',1735689601000000,NULL,NULL,'{"name":"pear"}',NULL,-7563448489920419348);
INSERT INTO sourced_messages VALUES(5,1,3,1,1,X'01a1fe794f3975b18819f62bfee78434',NULL,NULL,1735689602000000,NULL,NULL,'{"name":"plum"}',NULL,-3913026725958183249);
CREATE TABLE sourced_scheduled(
    id INTEGER PRIMARY KEY, due_at INTEGER NOT NULL,
    stream TEXT NOT NULL, type INTEGER NOT NULL, schema INTEGER NOT NULL,
    message_id BLOB NOT NULL UNIQUE CHECK(length(message_id) = 16), causation BLOB, correlation BLOB,
    occurred_at INTEGER, metadata TEXT, payload TEXT NOT NULL) STRICT;
INSERT INTO sourced_scheduled VALUES(1,1735776001000000,'list-1',1,1,X'01941f297fe87695a8efe3363024165d',X'01941f297fe87695a8efe333b266f103',X'01a1fe794f367083ba27441aec134914',NULL,'{"producer":"list"}','{"name":"later"}');
CREATE TABLE sourced_groups(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, generation INTEGER NOT NULL, active INTEGER NOT NULL,
    handles TEXT NOT NULL, begins INTEGER NOT NULL, scanned INTEGER NOT NULL,
    status TEXT NOT NULL, reason TEXT, error_type TEXT, error_text TEXT, error_position INTEGER,
    created_at INTEGER NOT NULL, UNIQUE(name, generation)) STRICT;
INSERT INTO sourced_groups VALUES(1,'list',1,1,'{"list.add":1,"list.added":1}',0,4,'active',NULL,NULL,NULL,NULL,1735689600000000);
INSERT INTO sourced_groups VALUES(2,'names',1,1,'{"list.added":1}',0,4,'active',NULL,NULL,NULL,NULL,1735689600000000);
CREATE TABLE sourced_offsets(
    grp INTEGER NOT NULL, stream INTEGER NOT NULL,
    acked INTEGER NOT NULL, known INTEGER NOT NULL, highest INTEGER NOT NULL, pending INTEGER,
    state INTEGER NOT NULL, owner INTEGER, fence INTEGER NOT NULL,
    attempts INTEGER NOT NULL, attempted INTEGER, deaths INTEGER NOT NULL, retry_at INTEGER,
    error_type TEXT, error_text TEXT,
    PRIMARY KEY(grp, stream)) STRICT, WITHOUT ROWID;
INSERT INTO sourced_offsets VALUES(1,1,3,3,3,NULL,0,NULL,2,0,NULL,0,NULL,NULL,NULL);
INSERT INTO sourced_offsets VALUES(1,2,4,4,4,NULL,0,NULL,2,0,NULL,0,NULL,NULL,NULL);
INSERT INTO sourced_offsets VALUES(2,1,3,3,3,NULL,0,NULL,1,0,NULL,0,NULL,NULL,NULL);
INSERT INTO sourced_offsets VALUES(2,2,4,4,4,NULL,0,NULL,1,0,NULL,0,NULL,NULL,NULL);
CREATE TABLE sourced_workers(
    id INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL, host TEXT NOT NULL, boot_id TEXT NOT NULL,
    started_at INTEGER NOT NULL, beat INTEGER NOT NULL) STRICT;
CREATE TABLE "projection_names" (id text primary key, state text not null) strict, without rowid;
INSERT INTO projection_names VALUES('list-1','1');
INSERT INTO projection_names VALUES('list-2','1');
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('sourced_workers',1);
CREATE INDEX sourced_messages_correlation ON sourced_messages(correlation) WHERE correlation IS NOT NULL;
CREATE TRIGGER sourced_messages_no_delete BEFORE DELETE ON sourced_messages
    BEGIN SELECT raise(ABORT, 'sourced_messages is append-only'); END;
CREATE TRIGGER sourced_messages_no_update BEFORE UPDATE ON sourced_messages
    WHEN NOT (new.erased_at IS NOT NULL AND old.erased_at IS NULL AND new.payload IS NULL
              AND new.position = old.position AND new.stream = old.stream AND new.seq = old.seq
              AND new.type = old.type AND new.schema = old.schema AND new.id = old.id
              AND new.causation IS old.causation AND new.correlation IS old.correlation
              AND new.recorded_at = old.recorded_at AND new.occurred_at IS old.occurred_at)
    BEGIN SELECT raise(ABORT, 'sourced_messages is append-only'); END;
CREATE TRIGGER sourced_messages_no_replace BEFORE INSERT ON sourced_messages
    WHEN new.position <= (SELECT max(position) FROM sourced_messages)
    BEGIN SELECT raise(ABORT, 'sourced_messages is append-only'); END;
CREATE INDEX sourced_scheduled_due ON sourced_scheduled(due_at, id);
CREATE INDEX sourced_offsets_ready ON sourced_offsets(grp, pending) WHERE state = 1;
CREATE INDEX sourced_offsets_waiting ON sourced_offsets(grp, retry_at) WHERE state = 3;
CREATE INDEX sourced_offsets_claimed ON sourced_offsets(owner) WHERE state = 2;
CREATE VIEW sourced_log AS
    SELECT m.position, s.name AS stream, m.seq, t.name AS type,
           strftime('%Y-%m-%dT%H:%M:%fZ', m.recorded_at / 1e6, 'unixepoch') AS recorded_at,
           hex(m.id) AS id, hex(coalesce(m.causation, m.id)) AS causation,
           hex(coalesce(m.correlation, m.id)) AS correlation, m.metadata, m.payload
    FROM sourced_messages m JOIN sourced_streams s ON s.id = m.stream JOIN sourced_types t ON t.id = m.type;
CREATE VIEW sourced_lag AS
    SELECT g.name AS "group", g.status, s.name AS stream, o.acked, o.known, o.pending,
           CASE o.state WHEN 0 THEN 'idle' WHEN 1 THEN 'ready' WHEN 2 THEN 'claimed' WHEN 3 THEN 'waiting'
                        ELSE 'parked' END AS state,
           o.attempts, o.error_type, o.error_text
    FROM sourced_offsets o JOIN sourced_groups g ON g.id = o.grp JOIN sourced_streams s ON s.id = o.stream;
COMMIT;
