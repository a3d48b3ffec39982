/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h -- what survives the agent: one row for each attempt, in one SQLite file, written by a thread of its own.
 *
 * The loop hands rows over and never waits. The writer takes what has gathered for at most SBX_STORE_BATCH_NS, commits it as
 * one transaction (WAL, synchronous=FULL) and only then takes it out of the queue: a row is acknowledged when its batch is on
 * the disk, and a row that is not acknowledged is still in the queue.
 *
 *   loop --put--> ring of SBX_STORE_ROWS_MAX --batch--> SQLite     `tail` is the loop's, `head` the writer's; no lock
 *   loop <-collect-- answers of reports <--query-- (the same thread, between two batches)
 *
 * When the file cannot be written (SBX_STORE_STATES) the rows wait in memory, the connection is closed and opened anew with a
 * growing pause until it works, and each change of state is logged once. A failed sync is never tried again on the same
 * descriptor: the kernel may have dropped the pages that it failed to write. What was recovered from the log on opening is
 * written through to the database file and synced before anything is acknowledged, and rows are keyed by (agent, request,
 * attempt), so that a row whose commit failed after it had reached the disk is not there twice. Beyond the maximum of the queue
 * new rows are lost, and counted.
 *
 * A file that is found damaged is renamed to PATH.damaged-DATE, with its log, and a new one begins; one that is not recognisably
 * ours is never touched.
 *
 * A row that SQLite refuses for itself goes to PATH.poison as a line of JSON, and the batch goes on without it.
 *
 * One connection: SQLite below 3.51.3 can damage a WAL database that two connections checkpoint at once. So PATH.lock keeps a
 * second agent out (it waits, its rows in memory), and the file itself is held in exclusive locking mode: nothing else, not
 * even a reader, can open it while the agent lives. Reports go through the agent.
 *
 * Virtual keys (agent/core/keyring.h) are kept here as well. A key is written by itself, and its change is acknowledged when it is
 * on the disk; where the file cannot be used the change is refused.
 *
 * Not here: budgets, leases and idempotency keys, and the deletion of old rows.
 */
#ifndef SBX_AGENT_IO_STORE_H
#define SBX_AGENT_IO_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/core/keyring.h"

#define SBX_STORE_ROWS_MAX 10000       /* about 10 MiB; half a minute of a busy host */
#define SBX_STORE_BATCH_ROWS 256       /* at which a batch waits for no more */
#define SBX_STORE_BATCH_NS 5000000ull  /* that a row waits for company: 200 syncs a second at most */
#define SBX_STORE_TEXT_MAX_BYTES 8192  /* of each text of a row; longer ones are cut */
#define SBX_STORE_QUERIES_MAX 16       /* reports, and changes of keys, that wait or run */
#define SBX_STORE_QUERY_NS 2000000000ull /* a report that takes longer is given up: rows wait behind it */
#define SBX_STORE_GROUPS_MAX 1000      /* lines of a report; the total counts all */

/* X(NAME, "word", ready or on its way there, "sentence") */
#define SBX_STORE_STATES(X)                                                                                                    \
	X(OPENING, "opening", true, "it is being opened and checked; rows wait in memory")                                     \
	X(READY, "ready", true, "every row is on the disk within milliseconds")                                                \
	X(DISK_FULL, "disk full", false, "its disk, or the allowed size of the file, is full; make room, and it goes on by itself")                        \
	X(IO_ERROR, "io error", false, "its disk fails to read or write; look at the kernel's log")                            \
	X(BUSY, "busy", false, "another program has the database open; close it: the live file is the agent's alone")          \
	X(CORRUPT, "corrupt", false, "the database is damaged and could not be put aside; move it away, and a new one is made") \
	X(READ_ONLY, "read-only", false, "the database, or its directory, cannot be written by this user, or is mounted read-only") \
	X(NO_DIRECTORY, "no directory", false, "the directory of the database does not exist; create it")                      \
	X(LOCKED, "locked", false, "another agent uses this database; it is taken over when that one ends")                    \
	X(FOREIGN, "foreign", false, "the file is no database of signalbox; move it away, or name another one in \"store\"")                    \
	X(NEWER, "newer", false, "the database was written by a newer signalbox; install that one, or move the file away")     \
	X(NO_MEMORY, "no memory", false, "there was no memory for it; it is tried again")                                      \
	X(STOPPED, "stopped", false, "it was closed")

enum sbx_store_state {
#define X(name, word, well, says) SBX_STORE_##name,
	SBX_STORE_STATES(X)
#undef X
	SBX_STORE__COUNT
};
const char *sbx_store_word(enum sbx_store_state state);
const char *sbx_store_says(enum sbx_store_state state); /* the sentence: what is wrong, and what to do */
bool sbx_store_well(enum sbx_store_state state);

/* One attempt. Texts are UTF-8, borrowed for the call of put; NULL = not known. */
struct sbx_store_row {
	uint64_t agent;              /* generation of the agent's start, at most 2^53 */
	uint64_t request;            /* its number within that start */
	uint32_t attempt;            /* its number within the request */
	uint32_t uid;                /* of the client */
	const char *route;           /* NULL = a model was asked for */
	const char *target;          /* "provider/model" */
	const char *class;           /* agent/core/class.h */
	const char *connection;      /* "reused", "new", NULL */
	const char *usage_raw;       /* the provider's own object */
	int status;                  /* HTTP; 0 = none */
	bool wasted;                 /* no client got an answer by it */
	bool estimated;              /* tokens: counted by us */
	int64_t start_unix_ms, end_unix_ms;
	int64_t first_content_unix_ms; /* -1 = none */
	int64_t prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens; /* -1 = not said */
	int64_t cost_nanousd;        /* -1 = not known, which is not 0 */
	const char *cost_status;     /* why not: "unpriced", "no_usage" ...; NULL = it is known */
	const char *price_row;       /* the catalog's, by which it was reckoned; NULL = none was needed, or there is none */
	const char *tenant, *key_id, *end_user; /* as a client said whom the agent trusts (whom.h) */
	const char *tags;            /* a JSON list of texts, at most SBX_STORE_TEXT_MAX_BYTES */
};

struct sbx_store;

/* sbx_store_new() -- start the writer; it opens the file by itself.
 *  path       of the database, absolute; made when it is not there, its directory is not
 *  ret_store  end with sbx_store_free()
 * 0 or -SBX_ENOMEM (no memory, descriptor or thread). A file that cannot be used is no failure here but a state. */
int sbx_store_new(const char *path, struct sbx_store **ret_store);
/* Commits what is queued, if the file can be written, and closes it. Reports that were not collected are dropped. NULL is fine. */
void sbx_store_free(struct sbx_store *store);

/* ---- for the loop's thread; nothing here blocks ---- */

/* Copies. 0; -SBX_EBUSY the queue is full; -SBX_ENOMEM: in both cases the row is lost and counted. */
int sbx_store_put(struct sbx_store *store, const struct sbx_store_row *row);

struct sbx_store_view {
	enum sbx_store_state state;
	uint64_t queued;             /* rows not acknowledged yet */
	uint64_t committed;          /* rows acknowledged, since start */
	uint64_t lost;               /* the queue was full, there was no memory, or the end came before the disk was well */
	uint64_t poisoned;           /* in PATH.poison, or told in the log */
	uint64_t commits, opens;     /* transactions; times the file was opened well */
	uint64_t put_aside;          /* damaged files that were replaced by new ones */
	uint64_t last_commit_ns;     /* how long the last commit took */
};
struct sbx_store_view sbx_store_look(const struct sbx_store *store); /* from any thread */
const char *sbx_store_path(const struct sbx_store *store);

/* ---- reports ---- */

/* X(NAME, "word", SQL expression): what the lines of a report are. */
#define SBX_STORE_GROUPINGS(X)                                                                                                 \
	X(TARGET, "target", "target")                                                                                          \
	X(MODEL, "model", "substr(target, instr(target, '/') + 1)")                                                            \
	X(CLASS, "class", "class")                                                                                             \
	X(ROUTE, "route", "coalesce(route, '')")                                                                               \
	X(USER, "user", "CAST(uid AS TEXT)")                                                                                   \
	X(TENANT, "tenant", "coalesce(tenant, '')")                                                                            \
	X(KEY, "key", "coalesce(key_id, '')")

enum sbx_store_grouping {
#define X(name, word, sql) SBX_STORE_BY_##name,
	SBX_STORE_GROUPINGS(X)
#undef X
	SBX_STORE_BY__COUNT
};
const char *sbx_store_grouping_word(enum sbx_store_grouping by);

/* Attempts that ended in [since, until). */
struct sbx_store_query {
	int64_t since_unix_ms, until_unix_ms;
	enum sbx_store_grouping by;
};

/* X(member): what is counted, all int64_t. Costs are sums of what is priced; unpriced = attempts whose cost is not known. */
#define SBX_STORE_FIGURES(X)                                                                                                   \
	X(attempts) X(ok) X(wasted) X(unpriced) X(cost_nanousd) X(wasted_cost_nanousd) X(prompt_tokens) X(completion_tokens)   \
	X(cached_tokens) X(cache_write_tokens) X(reasoning_tokens) X(first_content_ms) X(first_contents) X(total_ms)

struct sbx_store_figures {
#define X(member) int64_t member;
	SBX_STORE_FIGURES(X) /* first_content_ms and total_ms are sums; first_contents: attempts that had content */
#undef X
};

struct sbx_store_group {
	char *name;
	struct sbx_store_figures figures;
};

struct sbx_store_report {
	int rc;                      /* 0; -SBX_EBUSY the file cannot be used now; -SBX_ETIME it took too long; -SBX_ENOMEM; -SBX_ETOOBIG sums
	                              * beyond 64 bits */
	struct sbx_store_query query;
	struct sbx_store_figures total;
	struct sbx_store_group *group; /* by attempts, most first */
	uint32_t n_groups;
	uint32_t n_left_out;         /* groups beyond the maximum */
};

typedef void sbx_store_report_fn(void *arg, uint64_t id, const struct sbx_store_report *report);
/* Asks; `fn` is called from sbx_store_collect(). 0; -SBX_EBUSY too many are asked for already. */
int sbx_store_ask(struct sbx_store *store, const struct sbx_store_query *query, sbx_store_report_fn *fn, void *arg, uint64_t id);
int sbx_store_fd(const struct sbx_store *store);           /* readable when something is to be collected */
void sbx_store_collect(struct sbx_store *store);           /* hands out the reports that are done */
void sbx_store_forget(struct sbx_store *store, const void *arg); /* whoever asked with `arg` is gone: nobody is called */

/* ---- virtual keys ---- */

struct sbx_store_keys {
	int rc;                      /* 0; -SBX_EBUSY the file cannot be used now, or has failed: then it is not known whether the change is
	                              * there; -SBX_EINVAL it was refused; -SBX_ENOMEM */
	struct sbx_vkey **key;       /* of a load: each, and the list, on the heap */
	uint32_t n;
};
/* Called from sbx_store_collect(). Keys may be taken out: NULL is left in their place. */
typedef void sbx_store_keys_fn(void *arg, struct sbx_store_keys *keys);
/* Both copy, and return 0; -SBX_EBUSY too much is asked for already; -SBX_ENOMEM. */
int sbx_store_key_put(struct sbx_store *store, const struct sbx_vkey *key, sbx_store_keys_fn *fn, void *arg);
int sbx_store_key_load(struct sbx_store *store, sbx_store_keys_fn *fn, void *arg); /* all that are not revoked */

#endif
