/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_file.h -- the store's file as a file: its lock, its making, and what stands beside it.
 *
 *   PATH                     the database; PATH-wal its log, SQLite's
 *   PATH.lock                held by flock() while an agent lives; never removed
 *   PATH.poison              rows that SQLite refused, a line of JSON each
 *   PATH.damaged-DATE        a database of ours that was found damaged, and beside it its log; kept for whoever wants to
 *                            recover rows from it (sqlite3 FILE .recover)
 *
 * Only what is recognisably ours is ever written to or moved: by SQLite's header and our application id in it. Everything here belongs to the
 * store's thread, may block, and returns 0 or -errno.
 */
#ifndef SBX_AGENT_IO_STORE_FILE_H
#define SBX_AGENT_IO_STORE_FILE_H

#include "agent/io/store.h"

#define SBX_STORE_APPLICATION_ID 0x73626f78 /* "sbox": what file(1) and we know the file by */
#define SBX_STORE_PATH_BYTES 4200           /* PATH_MAX and a suffix */

/* *lock_fd: -1, or the lock that an earlier call took; the caller's to close. -EWOULDBLOCK: another agent has it. */
int sbx_store_file_lock(const char *path, int *lock_fd);
/* Makes it, empty and for us alone, where there is none. -EISDIR, -EINVAL: what is there is neither empty nor a database of ours; it
 * was not touched. */
int sbx_store_file_make(const char *path);
/* Renames it and its log, under the lock and with no descriptor on it. ret_name: SBX_STORE_PATH_BYTES. */
int sbx_store_file_put_aside(const char *path, int64_t unix_ms, char *ret_name);
/* Appends a refused row to PATH.poison and syncs it. -EFBIG: the file has its maximum. */
int sbx_store_file_poison(const char *path, const struct sbx_store_row *row, const char *why);

#endif
