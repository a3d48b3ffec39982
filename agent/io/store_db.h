/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_db.h -- the store's SQLite half: schema, statements, one transaction per batch, and what each error means.
 *
 * Everything here belongs to the store's thread and may block. A failure that is the file's or the disk's is told as a state;
 * the caller closes, waits and opens again.
 */
#ifndef SBX_AGENT_IO_STORE_DB_H
#define SBX_AGENT_IO_STORE_DB_H

#include "agent/io/store.h"

#define SBX_STORE_SCHEMA 3 /* user_version of what this release writes; the steps to it are in store_db.c */

struct sbx_store_db;

/* What went wrong, for the log. */
struct sbx_store_trouble {
	enum sbx_store_state state;
	int code;                    /* SQLite's extended result code */
	int err;                     /* errno; 0 = none */
	char says[200];              /* SQLite's words */
};

/* A row in the queue. */
struct sbx_store_item {
	struct sbx_store_row row;    /* its texts lie behind it */
	bool poison;                 /* refused for itself; not to be tried again */
	char text[];
};

/* sbx_store_db_open() -- lock, open, check, migrate, recover.
 *  lock_fd  -1, or the lock that an earlier call took; it is kept by the caller over reopening, and closed by him
 *  check    run quick_check first, which reads the whole file
 * CORRUPT is told of a database of ours only; what is none is FOREIGN, and is not touched.
 * 0, or -1 with the trouble. */
int sbx_store_db_open(const char *path, int *lock_fd, bool check, struct sbx_store_db **ret_db, struct sbx_store_trouble *ret_trouble);
/* well: the last thing that was done with it did not fail; else the log is left for the next opening to recover. NULL is fine. */
void sbx_store_db_close(struct sbx_store_db *db, bool well);

/* One transaction of n rows; those marked poison are left out. 0: it is on the disk, and rows that were refused are marked now
 * (their number in *ret_refused, their reason in the trouble). -1: nothing is, or it is not known; the trouble says why. */
int sbx_store_db_commit(struct sbx_store_db *db, struct sbx_store_item *const *item, size_t n, size_t *ret_refused,
                        struct sbx_store_trouble *ret_trouble);

/* Fills in all but the query. stop() is asked now and then: true gives up. -1: the file has failed, with the trouble; the
 * report has a code in any case. */
typedef bool sbx_store_stop_fn(void *arg);
int sbx_store_db_report(struct sbx_store_db *db, struct sbx_store_report *report, sbx_store_stop_fn *stop, void *arg,
                        struct sbx_store_trouble *ret_trouble);
void sbx_store_report_fini(struct sbx_store_report *report);

/* One key, as it is now, in a transaction of its own. 0: it is on the disk. -1, with the trouble and *ret_rc: -SBX_EBUSY the file has
 * failed; -SBX_EINVAL SQLite refuses this key for itself. */
int sbx_store_db_key_put(struct sbx_store_db *db, const struct sbx_vkey *key, int *ret_rc, struct sbx_store_trouble *ret_trouble);
/* All that are not revoked. 0 or -1 as above; the keys have a code in any case. */
int sbx_store_db_keys(struct sbx_store_db *db, struct sbx_store_keys *keys, struct sbx_store_trouble *ret_trouble);
void sbx_store_keys_fini(struct sbx_store_keys *keys);

#endif
