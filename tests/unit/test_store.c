/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_store.c -- what goes in comes out, what was acknowledged stays, and every way in which a file can be unusable has its state.
 *
 * The disk fails by a shim between SQLite and its own VFS, and by a tiny tmpfs in a mount namespace of the test's own (skipped
 * where that is not permitted). Power is not cut here: kill -9 is.
 */
#include "agent/io/store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include <signalbox/errors.h>

#include "agent/log.h"

#define DEADLINE_MS 20000
#define DAY_MS 86400000
#define T0 1770000000000 /* a time in unix ms */

static char dir[64], path[96];

/* ==== a disk that fails when it is told to ==== */

static _Atomic int syncs_left = -1; /* that still work; -1 = all */
static _Atomic int syncs_done;
static sqlite3_vfs shim_vfs;
static sqlite3_vfs *real_vfs;
struct shim_file {
	sqlite3_file base;
	sqlite3_file *real;
};

static int
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
static int shim_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at) { return REAL(f)->pMethods->xRead(REAL(f), to, n, at); }
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

static int
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

static void
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

static uint64_t
now_ms(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "/tmp/sbx-store-XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof path, "%s/s.db", dir);
	syncs_left = -1;
	return 0;
}

static int
teardown(void **state)
{
	char cmd[160];
	(void)state;
	(void)snprintf(cmd, sizeof cmd, "umount %s/disk 2>/dev/null; rm -rf %s", dir, dir);
	return system(cmd) < 0;
}

static struct sbx_store_row
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

static void
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
static int64_t
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

static struct sbx_store *
open_store(const char *file)
{
	struct sbx_store *s;
	assert_int_equal(sbx_store_new(file, &s), 0);
	return s;
}

/* ==== rows ==== */

static void
rows_in_are_rows_out(void **state)
{
	(void)state;
	struct sbx_store *s = open_store(path);
	struct stat st;
	char text[512];
	for (uint64_t i = 1; i <= 1000; i++)
		put(s, i);
	struct sbx_store_row odd = row_of(1001);
	odd.route = odd.usage_raw = odd.connection = NULL;
	odd.prompt_tokens = odd.completion_tokens = odd.cost_nanousd = odd.first_content_unix_ms = -1;
	odd.cost_status = "unpriced";
	odd.price_row = NULL;
	odd.status = 0;
	assert_int_equal(sbx_store_put(s, &odd), 0);
	WAIT(s, v.committed == 1001 && v.queued == 0 && v.state == SBX_STORE_READY);
	sbx_store_free(s);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(ask_file(path, "SELECT count(*) FROM attempt"), 1001);
	assert_int_equal(ask_file(path, "PRAGMA user_version"), 1);
	assert_int_equal(ask_file(path, "SELECT count(*) FROM migration"), 1);
	for (uint64_t i = 1; i <= 1000; i += 37) {
		struct sbx_store_row r = row_of(i);
		(void)snprintf(text, sizeof text,
		               "SELECT count(*) FROM attempt WHERE agent=7 AND request=%llu AND attempt=0 AND uid=1000 AND route='chat' AND target='%s'"
		               " AND class='%s' AND connection='%s' AND wasted=%d AND start_unix_ms=%lld AND end_unix_ms=%lld AND status=200"
		               " AND cached_tokens IS NULL AND reasoning_tokens=0 AND prompt_tokens=10 AND cost_nanousd IS %s AND price_row='m@2026-01-01'"
		               " AND cost_status IS %s AND first_content_unix_ms=%lld AND usage_raw='{\"prompt_tokens\":10}'",
		               (unsigned long long)i, r.target, r.class, r.connection, r.wasted, (long long)r.start_unix_ms, (long long)r.end_unix_ms,
		               i % 4 ? "50" : "NULL", i % 4 ? "NULL" : "'no_usage'", (long long)r.first_content_unix_ms);
		assert_int_equal(ask_file(path, text), 1);
	}
	assert_int_equal(ask_file(path, "SELECT count(*) FROM attempt WHERE request=1001 AND route IS NULL AND usage_raw IS NULL AND status IS NULL"
	                                " AND connection IS NULL AND prompt_tokens IS NULL AND first_content_unix_ms IS NULL"
	                                " AND cost_nanousd IS NULL AND cost_status='unpriced' AND price_row IS NULL"), 1);
}

static void
many_rows_share_a_commit(void **state)
{
	(void)state;
	struct sbx_store *s = open_store(path);
	WAIT(s, v.state == SBX_STORE_READY);
	int before = syncs_done;
	for (uint64_t i = 1; i <= 5000; i++)
		put(s, i);
	WAIT(s, v.committed == 5000);
	struct sbx_store_view v = sbx_store_look(s);
	assert_in_range(v.commits, 20, 100); /* 256 rows at most in each; a few fewer where the writer is ahead */
	assert_true(syncs_done - before >= (int)v.commits);
	sbx_store_free(s);
}

static void
the_end_writes_what_is_queued(void **state)
{
	(void)state;
	struct sbx_store *s = open_store(path);
	for (uint64_t i = 1; i <= 700; i++)
		put(s, i);
	sbx_store_free(s); /* perhaps before it was even opened */
	assert_int_equal(ask_file(path, "SELECT count(*) FROM attempt"), 700);
	s = open_store(path);
	for (uint64_t i = 600; i <= 800; i++) /* rows that are there already are not there twice */
		put(s, i);
	sbx_store_free(s);
	assert_int_equal(ask_file(path, "SELECT count(*) FROM attempt"), 800);
}

static void
a_refused_row_goes_to_the_side_file(void **state)
{
	(void)state;
	struct sbx_store *s = open_store(path);
	char side[128], line[2048];
	for (uint64_t i = 1; i <= 20; i++) {
		struct sbx_store_row row = row_of(i);
		if (i == 10)
			row.cost_nanousd = -5;
		if (i == 11)
			row.target = NULL;
		assert_int_equal(sbx_store_put(s, &row), 0);
	}
	WAIT(s, v.queued == 0 && v.committed == 18 && v.poisoned == 2 && v.state == SBX_STORE_READY);
	sbx_store_free(s);
	assert_int_equal(ask_file(path, "SELECT count(*) FROM attempt"), 18);
	(void)snprintf(side, sizeof side, "%s.poison", path);
	FILE *f = fopen(side, "re");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof line, f));
	assert_non_null(strstr(line, "\"request\":10,"));
	assert_non_null(strstr(line, "\"cost_nanousd\":-5"));
	assert_non_null(strstr(line, "constraint"));
	assert_non_null(fgets(line, sizeof line, f));
	assert_null(fgets(side, sizeof side, f));
	(void)fclose(f);
}

/* ==== reports ==== */

struct answer {
	int n, rc;
	struct sbx_store_figures total;
	uint32_t n_groups, left_out;
	char first[64];
};

static void
on_report(void *arg, uint64_t id, const struct sbx_store_report *r)
{
	struct answer *a = arg;
	assert_int_equal(id, 42);
	a->n++;
	a->rc = r->rc;
	a->total = r->total;
	a->n_groups = r->n_groups;
	a->left_out = r->n_left_out;
	(void)snprintf(a->first, sizeof a->first, "%s", r->n_groups ? r->group[0].name : "");
}

static struct answer
report(struct sbx_store *s, enum sbx_store_grouping by, int64_t since, int64_t until)
{
	struct answer a = { .n = 0 };
	struct sbx_store_query q = { since, until, by };
	assert_int_equal(sbx_store_ask(s, &q, on_report, &a, 42), 0);
	while (!a.n) {
		struct pollfd p = { .fd = sbx_store_fd(s), .events = POLLIN };
		assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
		sbx_store_collect(s);
	}
	return a;
}

static void
reports_add_up(void **state)
{
	(void)state;
	struct sbx_store *s = open_store(path);
	for (uint64_t i = 1; i <= 1000; i++)
		put(s, i);
	WAIT(s, v.committed == 1000);
	struct answer a = report(s, SBX_STORE_BY_TARGET, 0, T0 + DAY_MS);
	assert_int_equal(a.rc, 0);
	assert_int_equal(a.n_groups, 2);
	assert_int_equal(a.total.attempts, 1000);
	assert_int_equal(a.total.ok, 900);
	assert_int_equal(a.total.wasted, 100);
	assert_int_equal(a.total.unpriced, 250);
	assert_int_equal(a.total.cost_nanousd, 750 * 50);
	assert_int_equal(a.total.wasted_cost_nanousd, 50 * 50); /* of 10, 20 ... 1000 every second is priced */
	assert_int_equal(a.total.prompt_tokens, 10000);
	assert_int_equal(a.total.first_content_ms, 20000);
	assert_int_equal(a.total.total_ms, 100000);
	a = report(s, SBX_STORE_BY_MODEL, 0, T0 + DAY_MS);
	assert_int_equal(a.n_groups, 1);
	assert_string_equal(a.first, "m/x");
	a = report(s, SBX_STORE_BY_CLASS, 0, T0 + DAY_MS);
	assert_int_equal(a.n_groups, 2);
	assert_string_equal(a.first, "OK");
	a = report(s, SBX_STORE_BY_TARGET, T0 + 101, T0 + 111); /* the end is exclusive: requests 1 to 10 */
	assert_int_equal(a.total.attempts, 10);
	a = report(s, SBX_STORE_BY_USER, T0 + DAY_MS, T0 + DAY_MS);
	assert_int_equal(a.total.attempts, 0);
	sbx_store_free(s);
}

static void
a_provider_that_lies_does_not_spoil_the_sums(void **state)
{
	(void)state;
	struct sbx_store *s = open_store(path);
	for (uint64_t i = 1; i <= 3000; i++) {
		struct sbx_store_row row = row_of(i);
		char target[32];
		(void)snprintf(target, sizeof target, "p/m%llu", (unsigned long long)(i % 1500));
		row.target = target;
		row.prompt_tokens = INT64_MAX;
		assert_int_equal(sbx_store_put(s, &row), 0);
	}
	WAIT(s, v.committed == 3000);
	struct answer a = report(s, SBX_STORE_BY_TARGET, 0, T0 + DAY_MS);
	assert_int_equal(a.rc, 0);
	assert_int_equal(a.total.prompt_tokens, 3000 * 1000000000000);
	assert_int_equal(a.n_groups, SBX_STORE_GROUPS_MAX);
	assert_int_equal(a.left_out, 500);
	sbx_store_free(s);
}

static void
questions_have_a_limit_and_can_be_forgotten(void **state)
{
	(void)state;
	(void)snprintf(path, sizeof path, "%s/none/s.db", dir); /* its answers: it cannot be read */
	struct sbx_store *s = open_store(path);
	struct answer a = { .n = 0 }, b = { .n = 0 };
	struct sbx_store_query q = { 0, 1, SBX_STORE_BY_TARGET };
	for (int i = 0; i < SBX_STORE_QUERIES_MAX; i++)
		assert_int_equal(sbx_store_ask(s, &q, on_report, i % 2 ? &a : &b, 42), 0);
	assert_int_equal(sbx_store_ask(s, &q, on_report, &a, 42), -SBX_EBUSY);
	sbx_store_forget(s, &b);
	while (a.n < SBX_STORE_QUERIES_MAX / 2) {
		struct pollfd p = { .fd = sbx_store_fd(s), .events = POLLIN };
		assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
		sbx_store_collect(s);
	}
	assert_int_equal(b.n, 0);
	assert_int_equal(a.rc, -SBX_EBUSY);
	assert_int_equal(sbx_store_look(s).state, SBX_STORE_NO_DIRECTORY);
	sbx_store_free(s);
}

static void
rows_and_reports_at_once(void **state)
{
	(void)state;
	struct sbx_store *s = open_store(path);
	struct answer a = { .n = 0 };
	struct sbx_store_query q = { 0, T0 + DAY_MS, SBX_STORE_BY_TARGET };
	int asked = 0;
	for (uint64_t i = 1; i <= 6000; i++) {
		put(s, i);
		if (i % 20 == 0 && sbx_store_ask(s, &q, on_report, &a, 42) == 0)
			asked++;
		if (i % 100 == 0) {
			(void)poll(NULL, 0, 1);
			int64_t before = a.total.attempts;
			sbx_store_collect(s);
			assert_true(a.total.attempts >= before); /* a report sees all that was committed before it */
		}
	}
	for (uint64_t until = now_ms() + DEADLINE_MS; a.n < asked && now_ms() < until; (void)poll(NULL, 0, 1))
		sbx_store_collect(s);
	assert_int_equal(a.n, asked);
	assert_true(asked > 10);
	WAIT(s, v.committed == 6000);
	sbx_store_free(s);
	assert_int_equal(ask_file(path, "SELECT count(*) FROM attempt"), 6000);
}

/* ==== files that cannot be used ==== */

static void
write_file(const char *file, const char *bytes, size_t n, off_t at)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, n, at), n);
	(void)close(fd);
}

/* The store is in that state, keeps its rows, and goes on by itself once the cause is gone. */
static void
expect_state_then_recovery(enum sbx_store_state want, void (*mend)(void))
{
	struct sbx_store *s = open_store(path);
	for (uint64_t i = 1; i <= 300; i++)
		put(s, i);
	WAIT(s, v.state == want);
	assert_int_equal(sbx_store_look(s).queued, 300);
	assert_false(sbx_store_well(want));
	assert_true(strlen(sbx_store_says(want)) > 20);
	mend();
	WAIT(s, v.state == SBX_STORE_READY && v.committed == 300 && v.queued == 0);
	assert_int_equal(sbx_store_look(s).lost, 0);
	sbx_store_free(s);
	assert_int_equal(ask_file(path, "SELECT count(*) FROM attempt"), 300);
}

static void
move_away(void)
{
	char to[128], wal[128];
	(void)snprintf(to, sizeof to, "%s.old", path);
	(void)snprintf(wal, sizeof wal, "%s-wal", path);
	assert_int_equal(rename(path, to), 0);
	(void)unlink(wal);
}

static void
a_file_of_another_kind_is_left_alone(void **state)
{
	(void)state;
	char junk[8192];
	memset(junk, 'x', sizeof junk);
	write_file(path, junk, sizeof junk, 0);
	expect_state_then_recovery(SBX_STORE_CORRUPT, move_away); /* for SQLite, what is no database is a broken one */
	char old[128];
	struct stat st;
	(void)snprintf(old, sizeof old, "%s.old", path);
	assert_int_equal(stat(old, &st), 0);
	assert_int_equal(st.st_size, sizeof junk);
}

static void
a_damaged_page_is_found_at_the_start(void **state)
{
	(void)state;
	char junk[4096];
	memset(junk, 0xa5, sizeof junk);
	struct sbx_store *s = open_store(path);
	for (uint64_t i = 1; i <= 1000; i++)
		put(s, i);
	sbx_store_free(s);
	write_file(path, junk, sizeof junk, 4096 * 12);
	expect_state_then_recovery(SBX_STORE_CORRUPT, move_away);
}

static void
exec_file(const char *sql)
{
	sqlite3 *db;
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix"), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void
anothers_database_is_left_alone(void **state)
{
	(void)state;
	exec_file("CREATE TABLE recipes (name TEXT)");
	expect_state_then_recovery(SBX_STORE_FOREIGN, move_away);
}

static void
a_newer_schema_is_left_alone(void **state)
{
	(void)state;
	sbx_store_free(open_store(path));
	struct sbx_store *s = open_store(path);
	WAIT(s, v.state == SBX_STORE_READY);
	sbx_store_free(s);
	exec_file("PRAGMA user_version = 99");
	expect_state_then_recovery(SBX_STORE_NEWER, move_away);
}

static void
make_directory(void)
{
	char sub[96];
	(void)snprintf(sub, sizeof sub, "%s/none", dir);
	assert_int_equal(mkdir(sub, 0700), 0);
}

static void
a_missing_directory_may_come_later(void **state)
{
	(void)state;
	(void)snprintf(path, sizeof path, "%s/none/s.db", dir);
	expect_state_then_recovery(SBX_STORE_NO_DIRECTORY, make_directory);
}

static struct sbx_store *other;
static void
other_ends(void)
{
	sbx_store_free(other);
}

static void
a_second_agent_waits_for_the_first(void **state)
{
	(void)state;
	other = open_store(path);
	WAIT(other, v.state == SBX_STORE_READY);
	expect_state_then_recovery(SBX_STORE_LOCKED, other_ends);
}

static sqlite3 *reader;
static void
reader_ends(void)
{
	assert_int_equal(sqlite3_close(reader), SQLITE_OK);
}

static void
a_program_that_has_it_open_makes_it_busy(void **state)
{
	(void)state;
	struct sbx_store *s = open_store(path);
	WAIT(s, v.state == SBX_STORE_READY);
	sqlite3 *late;
	assert_int_equal(sqlite3_open_v2(path, &late, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
	assert_int_equal(sqlite3_exec(late, "SELECT * FROM attempt", NULL, NULL, NULL), SQLITE_BUSY); /* the live file is ours alone */
	(void)sqlite3_close(late);
	sbx_store_free(s);
	assert_int_equal(sqlite3_open_v2(path, &reader, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
	assert_int_equal(sqlite3_exec(reader, "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; COMMIT", NULL, NULL, NULL), SQLITE_OK);
	expect_state_then_recovery(SBX_STORE_BUSY, reader_ends);
}

/* ==== disks that fail ==== */

static bool
mount_disk(const char *options)
{
	char at[96];
	(void)snprintf(at, sizeof at, "%s/disk", dir);
	(void)snprintf(path, sizeof path, "%s/disk/s.db", dir);
	return mkdir(at, 0700) == 0 && unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("tmpfs", at, "tmpfs", 0, options) == 0;
}

static char ballast[128];
static void
free_space(void)
{
	assert_int_equal(unlink(ballast), 0);
}

static void
fill_disk(void)
{
	char zero[4096] = { 0 };
	(void)snprintf(ballast, sizeof ballast, "%s/disk/ballast", dir);
	int fd = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	while (write(fd, zero, sizeof zero) > 0)
		;
	(void)close(fd);
}

static void
a_full_disk_degrades_and_recovers(void **state)
{
	(void)state;
	if (!mount_disk("size=4m"))
		skip();
	fill_disk();
	expect_state_then_recovery(SBX_STORE_DISK_FULL, free_space);
	/* and once more, in the middle of its life */
	struct sbx_store *s = open_store(path);
	WAIT(s, v.state == SBX_STORE_READY);
	fill_disk();
	uint64_t i = 300;
	while (sbx_store_look(s).state == SBX_STORE_READY && i < 9000)
		put(s, ++i);
	WAIT(s, v.state == SBX_STORE_DISK_FULL);
	free_space();
	WAIT(s, v.state == SBX_STORE_READY && v.queued == 0);
	assert_int_equal(sbx_store_look(s).lost, 0);
	sbx_store_free(s);
	assert_int_equal(ask_file(path, "SELECT count(*) FROM attempt"), i);
}

static void
remount_writable(void)
{
	char at[96];
	(void)snprintf(at, sizeof at, "%s/disk", dir);
	assert_int_equal(mount(NULL, at, NULL, MS_REMOUNT, NULL), 0);
}

static void
a_read_only_disk_is_told(void **state)
{
	(void)state;
	char at[96];
	if (!mount_disk("size=4m"))
		skip();
	(void)snprintf(at, sizeof at, "%s/disk", dir);
	assert_int_equal(mount(NULL, at, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	expect_state_then_recovery(SBX_STORE_READ_ONLY, remount_writable);
}

/* A sync that fails: what was not acknowledged is written again on a new descriptor, and nothing is there twice. */
static void
a_failed_sync_is_not_believed_again(void **state)
{
	(void)state;
	struct sbx_store *s = open_store(path);
	put(s, 1);
	WAIT(s, v.committed == 1);
	uint64_t opens = sbx_store_look(s).opens;
	syncs_left = 0;
	for (uint64_t i = 2; i <= 500; i++)
		put(s, i);
	WAIT(s, v.state == SBX_STORE_IO_ERROR);
	assert_int_equal(sbx_store_look(s).committed, 1);
	syncs_left = -1;
	WAIT(s, v.state == SBX_STORE_READY && v.committed == 500 && v.queued == 0);
	assert_true(sbx_store_look(s).opens > opens);
	sbx_store_free(s);
	assert_int_equal(ask_file(path, "SELECT count(*) FROM attempt"), 500);
}

static void
the_queue_has_an_end_and_the_rest_is_counted(void **state)
{
	(void)state;
	(void)snprintf(path, sizeof path, "%s/none/s.db", dir);
	struct sbx_store *s = open_store(path);
	struct sbx_store_row row = row_of(1);
	for (uint64_t i = 0; i < SBX_STORE_ROWS_MAX; i++) {
		row.request = i;
		assert_int_equal(sbx_store_put(s, &row), 0);
	}
	row.request = SBX_STORE_ROWS_MAX;
	for (int i = 0; i < 50; i++)
		assert_int_equal(sbx_store_put(s, &row), -SBX_EBUSY);
	assert_int_equal(sbx_store_look(s).lost, 50);
	make_directory();
	WAIT(s, v.state == SBX_STORE_READY && v.queued == 0);
	assert_int_equal(sbx_store_look(s).committed, SBX_STORE_ROWS_MAX);
	assert_int_equal(sbx_store_put(s, &row), 0);
	sbx_store_free(s);
	assert_int_equal(ask_file(path, "SELECT count(*) FROM attempt"), SBX_STORE_ROWS_MAX + 1);
}

/* ==== kill -9 ==== */

struct shared {
	_Atomic uint64_t put, acknowledged;
};

/* The child: rows without end, telling what was acknowledged. */
static _Noreturn void
be_killed(struct shared *m, uint64_t from)
{
	struct sbx_store *s;
	if (sbx_store_new(path, &s))
		_exit(1);
	for (uint64_t i = from;; i++) {
		struct sbx_store_row row = row_of(i);
		while (sbx_store_put(s, &row))
			(void)poll(NULL, 0, 1);
		m->put = i;
		m->acknowledged = from - 1 + sbx_store_look(s).committed;
		if (i % 64 == 0)
			(void)poll(NULL, 0, 1);
	}
}

static void
a_kill_loses_no_acknowledged_row(void **state)
{
	(void)state;
	struct shared *m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(m != MAP_FAILED);
	uint64_t rows = 0;
	for (int round = 0; round < 6; round++) {
		uint64_t from = rows + 1, wanted = rows + 500 + (uint64_t)(round * 311) % 700, until = now_ms() + DEADLINE_MS;
		m->put = m->acknowledged = 0;
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			be_killed(m, from);
		while (m->acknowledged < wanted && now_ms() < until)
			(void)poll(NULL, 0, 1);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		assert_true(m->acknowledged >= wanted);
		struct sbx_store *s = open_store(path);
		WAIT(s, v.state == SBX_STORE_READY); /* it opens clean, with its own check */
		sbx_store_free(s);
		assert_int_equal(ask_file(path, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
		rows = (uint64_t)ask_file(path, "SELECT count(*) FROM attempt");
		assert_in_range(rows, m->acknowledged, m->put + 1);
		assert_int_equal(ask_file(path, "SELECT max(request) FROM attempt"), rows); /* none is missing in between */
		assert_int_equal(ask_file(path, "SELECT sum(prompt_tokens) FROM attempt"), 10 * rows);
	}
	(void)munmap(m, sizeof *m);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_kill_loses_no_acknowledged_row), /* first: it forks, and no thread of ours runs yet */
		T(rows_in_are_rows_out),
		T(many_rows_share_a_commit),
		T(the_end_writes_what_is_queued),
		T(a_refused_row_goes_to_the_side_file),
		T(reports_add_up),
		T(a_provider_that_lies_does_not_spoil_the_sums),
		T(questions_have_a_limit_and_can_be_forgotten),
		T(rows_and_reports_at_once),
		T(a_file_of_another_kind_is_left_alone),
		T(a_damaged_page_is_found_at_the_start),
		T(anothers_database_is_left_alone),
		T(a_newer_schema_is_left_alone),
		T(a_missing_directory_may_come_later),
		T(a_second_agent_waits_for_the_first),
		T(a_program_that_has_it_open_makes_it_busy),
		T(a_failed_sync_is_not_believed_again),
		T(the_queue_has_an_end_and_the_rest_is_counted),
		T(a_full_disk_degrades_and_recovers), /* last: in a mount namespace of their own */
		T(a_read_only_disk_is_told),
	};
	struct sbx_log_opts log = sbx_log_default();
	log.fd = open("/dev/null", O_WRONLY | O_CLOEXEC); /* the alarms are meant here */
	sbx_log_init(&log);
	shim_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
