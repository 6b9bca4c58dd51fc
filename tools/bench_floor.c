#define _GNU_SOURCE
#include "bench_floor.h"

#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { name_size = 24, largest_group = 4096 };

static const char payload[] =
    "{\"product_id\":\"p123\",\"price\":1000,\"quantity\":2,\"at\":\"2026-11-21T09:00:00.000Z\"}";
static const sqlite3_int64 recorded_at = 1763715600000LL;

/* The position is the rowid; the one index is what keeps two writers from the same seq. */
static const char schema[] =
    "CREATE TABLE IF NOT EXISTS events("
    "  pos INTEGER PRIMARY KEY, stream TEXT NOT NULL, seq INTEGER NOT NULL,"
    "  type TEXT NOT NULL, data TEXT NOT NULL, at INTEGER NOT NULL);"
    "CREATE UNIQUE INDEX IF NOT EXISTS ev_ss ON events(stream, seq);"
    "CREATE TABLE IF NOT EXISTS commands("
    "  pos INTEGER PRIMARY KEY, stream TEXT NOT NULL, seq INTEGER NOT NULL,"
    "  type TEXT NOT NULL, data TEXT NOT NULL, at INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS offsets("
    "  grp TEXT NOT NULL, stream TEXT NOT NULL, pos INTEGER NOT NULL, PRIMARY KEY(grp, stream)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS ready(pos INTEGER PRIMARY KEY, stream TEXT NOT NULL, data TEXT NOT NULL);"
    "CREATE TABLE IF NOT EXISTS scheduled("
    "  pos INTEGER PRIMARY KEY, due_at INTEGER NOT NULL, stream TEXT NOT NULL, data TEXT NOT NULL);"
    "CREATE INDEX IF NOT EXISTS scheduled_due ON scheduled(due_at);"
    "CREATE TABLE IF NOT EXISTS proj(stream TEXT PRIMARY KEY, n INTEGER, total INTEGER) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS goff(grp TEXT PRIMARY KEY, pos INTEGER) WITHOUT ROWID;"
    "INSERT OR IGNORE INTO goff VALUES('p', 0);";

struct floor_log {
    sqlite3* db;
    long streams;
    long first; /* what workloads pass over: `turns` streams from here on */
    long turns;
    long passed; /* streams visited so far */
    long* heads; /* last seq of each stream */

    sqlite3_stmt* begin;
    sqlite3_stmt* commit;
    sqlite3_stmt* event;      /* stream, seq, data, at */
    sqlite3_stmt* command;    /* the same */
    sqlite3_stmt* head;       /* stream -> seq */
    sqlite3_stmt* offset;     /* stream, pos */
    sqlite3_stmt* ready;      /* stream, data */
    sqlite3_stmt* take_ready; /* limit -> pos, stream, data */
    sqlite3_stmt* drop_ready; /* pos */
    sqlite3_stmt* scheduled;  /* due_at, stream, data */
    sqlite3_stmt* take_due;   /* now, limit -> pos, stream, data */
    sqlite3_stmt* drop_due;   /* pos */
};

double floor_now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

double floor_cpu(void) {
    struct timespec at;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

/* ---- SQLite ------------------------------------------------------------------ */

static void fail(sqlite3* db, const char* tried) {
    fprintf(stderr, "bench: floor: %s: %s\n", tried, db ? sqlite3_errmsg(db) : strerror(errno));
    exit(1);
}

static void execute(sqlite3* db, const char* sql) {
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) fail(db, sql);
}

static sqlite3_stmt* prepare(sqlite3* db, const char* sql) {
    sqlite3_stmt* statement = NULL;
    if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) != SQLITE_OK) fail(db, sql);
    return statement;
}

/* True: the statement stands on a row. */
static bool next_row(sqlite3_stmt* statement) {
    const int result = sqlite3_step(statement);
    if (result != SQLITE_ROW && result != SQLITE_DONE) fail(sqlite3_db_handle(statement), sqlite3_sql(statement));
    return result == SQLITE_ROW;
}

static void run(sqlite3_stmt* statement) {
    next_row(statement);
    sqlite3_reset(statement);
}

static sqlite3* connect(const char* path, const char* sync) {
    sqlite3* db = NULL;
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &db, flags, NULL) != SQLITE_OK) fail(db, path);
    char pragma[64];
    snprintf(pragma, sizeof pragma, "PRAGMA synchronous=%s", sync);
    execute(db, "PRAGMA busy_timeout=5000");
    execute(db, "PRAGMA journal_mode=WAL");
    execute(db, pragma);
    return db;
}

floor_log* floor_open(const char* path, const char* sync, long streams) {
    floor_log* log = calloc(1, sizeof *log);
    long* heads = calloc((size_t)streams, sizeof *heads);
    if (!log || !heads) fail(NULL, path);
    sqlite3* db = connect(path, sync);
    execute(db, schema);
    *log = (floor_log){
        .db = db,
        .streams = streams,
        .turns = streams,
        .heads = heads,
        .begin = prepare(db, "BEGIN IMMEDIATE"),
        .commit = prepare(db, "COMMIT"),
        .event = prepare(db, "INSERT INTO events(stream, seq, type, data, at) VALUES(?1, ?2, 'item_added', ?3, ?4)"),
        .command = prepare(db, "INSERT INTO commands(stream, seq, type, data, at) VALUES(?1, ?2, 'add_item', ?3, ?4)"),
        .head = prepare(db, "SELECT seq FROM events WHERE stream = ?1 ORDER BY seq DESC LIMIT 1"),
        .offset = prepare(db,
                          "INSERT INTO offsets(grp, stream, pos) VALUES('cart', ?1, ?2)"
                          " ON CONFLICT(grp, stream) DO UPDATE SET pos = excluded.pos"),
        .ready = prepare(db, "INSERT INTO ready(stream, data) VALUES(?1, ?2)"),
        .take_ready = prepare(db, "SELECT pos, stream, data FROM ready ORDER BY pos LIMIT ?1"),
        .drop_ready = prepare(db, "DELETE FROM ready WHERE pos = ?1"),
        .scheduled = prepare(db, "INSERT INTO scheduled(due_at, stream, data) VALUES(?1, ?2, ?3)"),
        .take_due =
            prepare(db, "SELECT pos, stream, data FROM scheduled WHERE due_at <= ?1 ORDER BY due_at, pos LIMIT ?2"),
        .drop_due = prepare(db, "DELETE FROM scheduled WHERE pos = ?1"),
    };
    return log;
}

static void disconnect(sqlite3* db) {
    for (sqlite3_stmt* statement; (statement = sqlite3_next_stmt(db, NULL));) sqlite3_finalize(statement);
    sqlite3_close(db);
}

void floor_close(floor_log* log) {
    disconnect(log->db);
    free(log->heads);
    free(log);
}

void floor_turn_to(floor_log* log, long first, long count) {
    log->first = first;
    log->turns = count;
    log->passed = 0;
}

/* ---- rows -------------------------------------------------------------------- */

static long next_stream(floor_log* log) { return log->first + log->passed++ % log->turns; }

static void bind_stream(sqlite3_stmt* statement, int index, long stream) {
    char name[name_size];
    const int length = snprintf(name, sizeof name, "cart-%06ld", stream);
    sqlite3_bind_text(statement, index, name, length, SQLITE_TRANSIENT);
}

static void bind_message(sqlite3_stmt* statement, sqlite3_int64 seq) {
    sqlite3_bind_int64(statement, 2, seq);
    sqlite3_bind_text(statement, 3, payload, -1, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 4, recorded_at + seq);
}

static void insert_event(floor_log* log, long stream) {
    bind_stream(log->event, 1, stream);
    bind_message(log->event, ++log->heads[stream]);
    run(log->event);
}

static sqlite3_int64 bound_head(floor_log* log) {
    sqlite3_int64 seq = 0;
    if (next_row(log->head)) seq = sqlite3_column_int64(log->head, 0);
    sqlite3_reset(log->head);
    return seq;
}

/* A command that is handled where it arrives: both rows and the offset. */
static void insert_cycle(floor_log* log, long stream) {
    bind_stream(log->head, 1, stream);
    const sqlite3_int64 seq = bound_head(log) + 1;
    bind_stream(log->command, 1, stream);
    bind_message(log->command, seq);
    run(log->command);
    bind_stream(log->event, 1, stream);
    bind_message(log->event, seq);
    run(log->event);
    bind_stream(log->offset, 1, stream);
    sqlite3_bind_int64(log->offset, 2, sqlite3_last_insert_rowid(log->db));
    run(log->offset);
    log->heads[stream] = (long)seq;
}

static void enqueue(floor_log* log, long stream) {
    bind_stream(log->ready, 1, stream);
    sqlite3_bind_text(log->ready, 2, payload, -1, SQLITE_STATIC);
    run(log->ready);
}

typedef struct taken {
    long count;
    sqlite3_int64 rows[largest_group];
    char streams[largest_group][name_size];
} taken;

static void take(sqlite3_stmt* statement, taken* out) {
    out->count = 0;
    while (next_row(statement)) {
        out->rows[out->count] = sqlite3_column_int64(statement, 0);
        snprintf(out->streams[out->count], name_size, "%s", (const char*)sqlite3_column_text(statement, 1));
        ++out->count;
    }
    sqlite3_reset(statement);
}

/* The event for what was taken, with the seq looked up. */
static void insert_taken(floor_log* log, const char* stream) {
    sqlite3_bind_text(log->head, 1, stream, -1, SQLITE_STATIC);
    const sqlite3_int64 seq = bound_head(log) + 1;
    sqlite3_bind_text(log->event, 1, stream, -1, SQLITE_STATIC);
    bind_message(log->event, seq);
    run(log->event);
    log->heads[atol(stream + strlen("cart-"))] = (long)seq;
}

/* Handles up to `group` queued commands in one transaction; gives how many. */
static long handle_ready(floor_log* log, long group) {
    static taken batch;
    run(log->begin);
    sqlite3_bind_int64(log->take_ready, 1, group);
    take(log->take_ready, &batch);
    for (long i = 0; i < batch.count; ++i) {
        insert_taken(log, batch.streams[i]);
        sqlite3_bind_text(log->offset, 1, batch.streams[i], -1, SQLITE_STATIC);
        sqlite3_bind_int64(log->offset, 2, sqlite3_last_insert_rowid(log->db));
        run(log->offset);
        sqlite3_bind_int64(log->drop_ready, 1, batch.rows[i]);
        run(log->drop_ready);
    }
    run(log->commit);
    return batch.count;
}

/* ---- workloads --------------------------------------------------------------- */

typedef struct stopwatch {
    double wall;
    double cpu;
} stopwatch;

static stopwatch begin_run(void) { return (stopwatch){floor_now(), floor_cpu()}; }

static floor_run end_run(stopwatch begun, long operations) {
    return (floor_run){operations, floor_now() - begun.wall, floor_cpu() - begun.cpu};
}

floor_run floor_append(floor_log* log, long count, long group) {
    const stopwatch begun = begin_run();
    for (long i = 0; i < count; ++i) {
        if (i % group == 0) run(log->begin);
        insert_event(log, next_stream(log));
        if ((i + 1) % group == 0 || i + 1 == count) run(log->commit);
    }
    return end_run(begun, count);
}

floor_run floor_append_many(floor_log* log, long appends, long each) {
    const stopwatch begun = begin_run();
    for (long i = 0; i < appends; ++i) {
        const long stream = next_stream(log);
        run(log->begin);
        for (long j = 0; j < each; ++j) insert_event(log, stream);
        run(log->commit);
    }
    return end_run(begun, appends * each);
}

floor_run floor_handle(floor_log* log, long count) {
    const stopwatch begun = begin_run();
    for (long i = 0; i < count; ++i) {
        run(log->begin);
        insert_cycle(log, next_stream(log));
        run(log->commit);
    }
    return end_run(begun, count);
}

floor_run floor_queue(floor_log* log, long count, long group) {
    const stopwatch begun = begin_run();
    for (long i = 0; i < count; ++i) {
        if (i % group == 0) run(log->begin);
        enqueue(log, next_stream(log));
        if ((i + 1) % group == 0 || i + 1 == count) run(log->commit);
    }
    for (long handled = 0; handled < count;) handled += handle_ready(log, group);
    return end_run(begun, count);
}

floor_run floor_claim(floor_log* log, long count) {
    const stopwatch begun = begin_run();
    for (long i = 0; i < count; ++i) {
        run(log->begin);
        enqueue(log, next_stream(log));
        run(log->commit);
        handle_ready(log, 1);
    }
    return end_run(begun, count);
}

floor_run floor_one_stream(floor_log* log, long count, double* seconds) {
    const stopwatch begun = begin_run();
    for (long i = 0; i < count; ++i) {
        const double from = floor_now();
        run(log->begin);
        insert_cycle(log, 0);
        run(log->commit);
        seconds[i] = floor_now() - from;
    }
    return end_run(begun, count);
}

/* The one field the readers want, found without decoding the rest. */
static int price_in(sqlite3_stmt* statement, int column) {
    const char* found = strstr((const char*)sqlite3_column_text(statement, column), "\"price\":");
    return found ? atoi(found + strlen("\"price\":")) : 0;
}

floor_run floor_project(floor_log* log) {
    enum { group = 1000 };
    execute(log->db, "PRAGMA wal_checkpoint(TRUNCATE)");
    sqlite3_stmt* read = prepare(log->db, "SELECT pos, stream, data FROM events WHERE pos > ?1 ORDER BY pos LIMIT ?2");
    sqlite3_stmt* save = prepare(log->db,
                                 "INSERT INTO proj(stream, n, total) VALUES(?1, 1, ?2) ON CONFLICT(stream)"
                                 " DO UPDATE SET n = n + excluded.n, total = total + excluded.total");
    sqlite3_stmt* advance = prepare(log->db, "UPDATE goff SET pos = ?1 WHERE grp = 'p'");
    const stopwatch begun = begin_run();
    sqlite3_int64 position = 0;
    long events = 0;
    for (int found = group; found == group;) {
        run(log->begin);
        sqlite3_bind_int64(read, 1, position);
        sqlite3_bind_int(read, 2, group);
        for (found = 0; next_row(read); ++found) {
            position = sqlite3_column_int64(read, 0);
            sqlite3_bind_text(save, 1, (const char*)sqlite3_column_text(read, 1), sqlite3_column_bytes(read, 1),
                              SQLITE_TRANSIENT);
            sqlite3_bind_int(save, 2, price_in(read, 2));
            run(save);
        }
        sqlite3_reset(read);
        sqlite3_bind_int64(advance, 1, position);
        run(advance);
        run(log->commit);
        events += found;
    }
    return end_run(begun, events);
}

void floor_fill_one(floor_log* log, long count, long others) {
    for (long i = 0; i < count; ++i) {
        if (i % 500 == 0) run(log->begin);
        insert_event(log, 0);
        for (long j = 0; j < others; ++j) insert_event(log, 1 + (i * others + j) % (log->streams - 1));
        if ((i + 1) % 500 == 0 || i + 1 == count) run(log->commit);
    }
    execute(log->db, "PRAGMA wal_checkpoint(TRUNCATE)");
}

floor_run floor_load(const char* path, const char* sync) {
    sqlite3* db = connect(path, sync);
    sqlite3_stmt* read = prepare(db, "SELECT pos, seq, type, data, at FROM events WHERE stream = ?1 ORDER BY seq");
    const stopwatch begun = begin_run();
    long events = 0;
    long total = 0;
    for (bind_stream(read, 1, 0); next_row(read); ++events) total += price_in(read, 3);
    const floor_run result = end_run(begun, events);
    if (total != events * 1000) fail(db, "load: a wrong total");
    disconnect(db);
    return result;
}

void floor_fill(floor_log* log, long each) {
    long written = 0;
    run(log->begin);
    for (long stream = 0; stream < log->streams; ++stream) {
        for (long i = 0; i < each; ++i) {
            insert_event(log, stream);
            if (++written % 1000 != 0) continue;
            run(log->commit);
            run(log->begin);
        }
    }
    run(log->commit);
}

void floor_read_heads(floor_log* log) {
    sqlite3_stmt* read = prepare(log->db, "SELECT stream, max(seq) FROM events GROUP BY stream");
    while (next_row(read)) {
        const long stream = atol((const char*)sqlite3_column_text(read, 0) + strlen("cart-"));
        log->heads[stream] = (long)sqlite3_column_int64(read, 1);
    }
    sqlite3_finalize(read);
}

void floor_schedule(floor_log* log, long count) {
    for (long i = 0; i < count; ++i) {
        if (i % 1000 == 0) run(log->begin);
        sqlite3_bind_int64(log->scheduled, 1, recorded_at);
        bind_stream(log->scheduled, 2, next_stream(log));
        sqlite3_bind_text(log->scheduled, 3, payload, -1, SQLITE_STATIC);
        run(log->scheduled);
        if ((i + 1) % 1000 == 0 || i + 1 == count) run(log->commit);
    }
}

floor_run floor_promote(floor_log* log) {
    static taken batch;
    const stopwatch begun = begin_run();
    long moved = 0;
    do {
        run(log->begin);
        sqlite3_bind_int64(log->take_due, 1, recorded_at);
        sqlite3_bind_int64(log->take_due, 2, 1000);
        take(log->take_due, &batch);
        for (long i = 0; i < batch.count; ++i) {
            insert_taken(log, batch.streams[i]);
            sqlite3_bind_int64(log->drop_due, 1, batch.rows[i]);
            run(log->drop_due);
        }
        run(log->commit);
        moved += batch.count;
    } while (batch.count > 0);
    return end_run(begun, moved);
}

/* ---- latency ----------------------------------------------------------------- */

typedef struct desk {
    floor_log* log;
    pthread_mutex_t mutex;
    pthread_cond_t given;
    long stream; /* -1: none waits, -2: the end */
    atomic_bool handled;
    double handled_at;
} desk;

static void* work_at(void* argument) {
    desk* at = argument;
    for (;;) {
        pthread_mutex_lock(&at->mutex);
        while (at->stream == -1) pthread_cond_wait(&at->given, &at->mutex);
        const long stream = at->stream;
        at->stream = -1;
        pthread_mutex_unlock(&at->mutex);
        if (stream == -2) return NULL;
        run(at->log->begin);
        insert_cycle(at->log, stream);
        run(at->log->commit);
        at->handled_at = floor_now();
        atomic_store(&at->handled, true);
    }
}

static void give(desk* at, long stream) {
    pthread_mutex_lock(&at->mutex);
    at->stream = stream;
    pthread_cond_signal(&at->given);
    pthread_mutex_unlock(&at->mutex);
}

void floor_latency(floor_log* log, long samples, double* seconds) {
    desk at = {.log = log, .mutex = PTHREAD_MUTEX_INITIALIZER, .given = PTHREAD_COND_INITIALIZER, .stream = -1};
    pthread_t worker;
    if (pthread_create(&worker, NULL, work_at, &at) != 0) fail(NULL, "start a thread");
    usleep(100000);
    for (long i = 0; i < samples; ++i) {
        usleep(5000);
        atomic_store(&at.handled, false);
        const double from = floor_now();
        give(&at, next_stream(log));
        while (!atomic_load(&at.handled)) usleep(1);
        seconds[i] = at.handled_at - from;
    }
    give(&at, -2);
    pthread_join(worker, NULL);
}

typedef struct shared {
    atomic_long handled; /* -1: the child is not ready yet */
    atomic_bool stop;
    double handled_at;
} shared;

static void work_elsewhere(const char* path, const char* sync, long poll_us, shared* with) {
    static taken batch;
    floor_log* log = floor_open(path, sync, 1000);
    sqlite3_stmt* version = prepare(log->db, "PRAGMA data_version");
    sqlite3_int64 known = -1;
    atomic_store(&with->handled, 0);
    while (!atomic_load(&with->stop)) {
        usleep((useconds_t)poll_us);
        next_row(version);
        const sqlite3_int64 found = sqlite3_column_int64(version, 0);
        sqlite3_reset(version);
        if (found == known) continue;
        known = found;
        sqlite3_bind_int64(log->take_ready, 1, 16);
        take(log->take_ready, &batch);
        for (long i = 0; i < batch.count; ++i) {
            run(log->begin);
            insert_cycle(log, atol(batch.streams[i] + strlen("cart-")));
            sqlite3_bind_int64(log->drop_ready, 1, batch.rows[i]);
            run(log->drop_ready);
            run(log->commit);
            with->handled_at = floor_now();
            atomic_fetch_add(&with->handled, 1);
        }
    }
    floor_close(log);
}

void floor_latency_other(const char* path, const char* sync, long poll_us, long samples, double* seconds) {
    shared* with = mmap(NULL, sizeof *with, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (with == MAP_FAILED) fail(NULL, "share memory");
    atomic_init(&with->handled, -1);
    const pid_t child = fork();
    if (child < 0) fail(NULL, "fork");
    if (child == 0) {
        work_elsewhere(path, sync, poll_us, with);
        _exit(0);
    }
    while (atomic_load(&with->handled) < 0) {
        if (waitpid(child, NULL, WNOHANG) == child) fail(NULL, "the child ended early");
        usleep(1000);
    }
    floor_log* log = floor_open(path, sync, 100);
    usleep(100000);
    for (long i = 0; i < samples; ++i) {
        usleep((useconds_t)(4000 + (i * 37) % 1000));
        const double from = floor_now();
        enqueue(log, next_stream(log));
        while (atomic_load(&with->handled) <= i) usleep(20);
        seconds[i] = with->handled_at - from;
    }
    atomic_store(&with->stop, true);
    waitpid(child, NULL, 0);
    munmap(with, sizeof *with);
    floor_close(log);
}
