/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_rig.h -- what the tests of the store share: a directory, rows, waiting, and a shim between SQLite and its own VFS by which
 * a disk fails when it is told to.
 */
#ifndef SBX_TESTS_UNIT_STORE_RIG_H
#define SBX_TESTS_UNIT_STORE_RIG_H

#include "agent/io/store.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "agent/log.h"

#define DEADLINE_MS 20000
#define DAY_MS 86400000
#define T0 1770000000000 /* a time in unix ms */
static char dir[64], path[96];

/* ==== a disk that fails when it is told to ==== */

static _Atomic int syncs_left = -1; /* that still work; -1 = all */
static _Atomic int syncs_done;
static _Atomic int damaged_reads; /* reads that find damage; -1 = all */
static sqlite3_vfs shim_vfs;
static sqlite3_vfs *real_vfs;
struct shim_file {
	sqlite3_file base;
	sqlite3_file *real;
};

static inline int
shim_sync(sqlite3_file *f, int flags)
{
	syncs_done++;
	if (syncs_left == 0)
		return SQLITE_IOERR_FSYNC;
	if (syncs_left > 0)
		syncs_left--;
	sqlite3_file *r = ((struct shim_file *)f)->real;
	return r->pMethods->xSync(r, flags);
}
#define REAL(f) ((struct shim_file *)(f))->real
static int shim_close(sqlite3_file *f) { return REAL(f)->pMethods->xClose(REAL(f)); }
static inline int
shim_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
	if (damaged_reads == 0)
		return REAL(f)->pMethods->xRead(REAL(f), to, n, at);
	if (damaged_reads > 0)
		damaged_reads--;
	return SQLITE_CORRUPT;
}
static int shim_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at) { return REAL(f)->pMethods->xWrite(REAL(f), from, n, at); }
static int shim_truncate(sqlite3_file *f, sqlite3_int64 n) { return REAL(f)->pMethods->xTruncate(REAL(f), n); }
static int shim_size(sqlite3_file *f, sqlite3_int64 *n) { return REAL(f)->pMethods->xFileSize(REAL(f), n); }
static int shim_lock(sqlite3_file *f, int l) { return REAL(f)->pMethods->xLock(REAL(f), l); }
static int shim_unlock(sqlite3_file *f, int l) { return REAL(f)->pMethods->xUnlock(REAL(f), l); }
static int shim_check(sqlite3_file *f, int *r) { return REAL(f)->pMethods->xCheckReservedLock(REAL(f), r); }
static int shim_control(sqlite3_file *f, int op, void *a) { return REAL(f)->pMethods->xFileControl(REAL(f), op, a); }
static int shim_sector(sqlite3_file *f) { return REAL(f)->pMethods->xSectorSize(REAL(f)); }
static int shim_traits(sqlite3_file *f) { return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f)); }
/* Version 1 has no shared memory: in exclusive mode a write-ahead log works without. */
static const sqlite3_io_methods shim_methods = { 1, shim_close, shim_read, shim_write, shim_truncate, shim_sync, shim_size, shim_lock,
	                                         shim_unlock, shim_check, shim_control, shim_sector, shim_traits,
	                                         NULL, NULL, NULL, NULL, NULL, NULL };

static inline int
shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
	struct shim_file *f = (struct shim_file *)file;
	(void)vfs;
	f->real = (sqlite3_file *)(f + 1);
	f->base.pMethods = NULL;
	int rc = real_vfs->xOpen(real_vfs, name, f->real, flags, out);
	if (f->real->pMethods)
		f->base.pMethods = &shim_methods;
	return rc;
}

static inline void
shim_install(void)
{
	real_vfs = sqlite3_vfs_find(NULL);
	shim_vfs = *real_vfs;
	shim_vfs.zName = "shim";
	shim_vfs.szOsFile += (int)sizeof(struct shim_file);
	shim_vfs.xOpen = shim_open;
	assert_int_equal(sqlite3_vfs_register(&shim_vfs, 1), SQLITE_OK);
}

/* ==== helpers ==== */

static inline uint64_t
now_ms(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static inline int
setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "/tmp/sbx-store-XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof path, "%s/s.db", dir);
	syncs_left = -1;
	return 0;
}

static inline int
teardown(void **state)
{
	char cmd[160];
	(void)state;
	(void)snprintf(cmd, sizeof cmd, "umount %s/disk 2>/dev/null; rm -rf %s", dir, dir);
	return system(cmd) < 0;
}

static inline struct sbx_store_row
row_of(uint64_t request)
{
	return (struct sbx_store_row){
		.agent = 7, .request = request, .uid = 1000, .route = "chat", .target = request % 2 ? "a/m/x" : "b/m/x",
		.class = request % 10 ? "OK" : "FAILED", .connection = request % 3 ? "reused" : "new", .usage_raw = "{\"prompt_tokens\":10}",
		.status = 200, .wasted = request % 10 == 0, .start_unix_ms = T0 + (int64_t)request, .end_unix_ms = T0 + (int64_t)request + 100,
		.first_content_unix_ms = T0 + (int64_t)request + 20, .prompt_tokens = 10, .completion_tokens = 3, .cached_tokens = -1,
		.cache_write_tokens = -1, .reasoning_tokens = 0, .cost_nanousd = request % 4 ? 50 : -1,
		.cost_status = request % 4 ? NULL : "no_usage", .price_row = "m@2026-01-01",
	};
}

static inline void
put(struct sbx_store *s, uint64_t request)
{
	struct sbx_store_row row = row_of(request);
	assert_int_equal(sbx_store_put(s, &row), 0);
}

/* Waits for a condition of the view; ends the test when it does not come. */
#define WAIT(s, what)                                                                                                          \
	do {                                                                                                                   \
		uint64_t until_ = now_ms() + DEADLINE_MS;                                                                      \
		for (;;) {                                                                                                     \
			struct sbx_store_view v = sbx_store_look(s);                                                           \
			if (what)                                                                                              \
				break;                                                                                         \
			if (now_ms() > until_)                                                                                 \
				fail_msg("%s: state %s, queued %llu, committed %llu", #what, sbx_store_word(v.state),          \
				         (unsigned long long)v.queued, (unsigned long long)v.committed);                       \
			(void)poll(NULL, 0, 1);                                                                                \
		}                                                                                                              \
	} while (0)

/* A number from the closed file. */
static inline int64_t
ask_file(const char *file, const char *sql)
{
	sqlite3 *db;
	sqlite3_stmt *st;
	assert_int_equal(sqlite3_open_v2(file, &db, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	int64_t n = sqlite3_column_int64(st, 0);
	(void)sqlite3_finalize(st);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return n;
}

static inline struct sbx_store *
open_store(const char *file)
{
	struct sbx_store *s;
	assert_int_equal(sbx_store_new(file, &s), 0);
	return s;
}

static inline void
make_store(void)
{
	struct sbx_store *s = open_store(path);
	WAIT(s, v.state == SBX_STORE_READY);
	sbx_store_free(s);
}

static inline void
rig_up(void)
{
	struct sbx_log_opts log = sbx_log_default();
	log.fd = open("/dev/null", O_WRONLY | O_CLOEXEC); /* the alarms are meant here */
	sbx_log_init(&log);
	shim_install();
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
