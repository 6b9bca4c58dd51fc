/* The floor under the benchmarks: what SQLite itself costs when an event log is
 * written with the fewest rows it can do with, in C, with prepared statements
 * and one connection. No envelope, no codec, no threads, no recovery.
 *
 * Every function exits the process with a line on stderr when SQLite refuses. */
#ifndef SOURCED_BENCH_FLOOR_H
#define SOURCED_BENCH_FLOOR_H

#ifdef __cplusplus
extern "C" {
#endif

/* What a run took: by the wall, and of this process's CPU time. */
typedef struct floor_run {
    long operations;
    double seconds;
    double cpu_seconds;
} floor_run;

/* One open file. Its streams are named cart-000000 and so on; workloads pass
 * over them one after the other and go on where the last ended. */
typedef struct floor_log floor_log;

double floor_now(void); /* seconds, monotonic, the same clock in all processes */
double floor_cpu(void); /* CPU seconds of this process */

/* `sync` is NORMAL or FULL. An existing file is continued. */
floor_log* floor_open(const char* path, const char* sync, long streams);
void floor_close(floor_log* log);
/* From now on workloads pass over `count` streams from `first` on. */
void floor_turn_to(floor_log* log, long first, long count);

/* W1: `count` events, a transaction for each `group` of them. */
floor_run floor_append(floor_log* log, long count, long group);
/* W2: `appends` transactions with `each` events for one stream. */
floor_run floor_append_many(floor_log* log, long appends, long each);
/* W3 at once: head, command, event and offset in one transaction a command. */
floor_run floor_handle(floor_log* log, long count);
/* W3 asynchronously: all commands queued, then all handled, `group` in a transaction. */
floor_run floor_queue(floor_log* log, long count, long group);
/* W4: `count` commands to one stream; the time of each goes to `seconds`. */
floor_run floor_one_stream(floor_log* log, long count, double* seconds);
/* W5: a new reader passes all events and keeps a row per stream, 1,000 events a transaction. */
floor_run floor_project(floor_log* log);
/* W6: fills stream 0 with `count` events, one of another stream after each ... */
void floor_fill_one(floor_log* log, long count, long others);
/* ... and reads stream 0 on a fresh connection. */
floor_run floor_load(const char* path, const char* sync);
/* W7: a thread that sleeps until it is given a command; `samples` times from giving to committed. */
void floor_latency(floor_log* log, long samples, double* seconds);
/* W7-other: a child process looks at data_version every `poll_us`; from insert to committed there. */
void floor_latency_other(const char* path, const char* sync, long poll_us, long samples, double* seconds);
/* W8: the file as another process filled it: what the heads of the streams are. */
void floor_read_heads(floor_log* log);
/* W8: one command queued and handled, each in a transaction of its own. */
floor_run floor_claim(floor_log* log, long count);
/* W8: `each` further events in every stream, a stream after the other. */
void floor_fill(floor_log* log, long each);
/* W9: `count` messages that are due, and moving them into the log, 1,000 a transaction. */
void floor_schedule(floor_log* log, long count);
floor_run floor_promote(floor_log* log);

#ifdef __cplusplus
}
#endif

#endif
