/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_store_db.c -- a database of an older schema becomes one of the newest, step by step, or stays what it was.
 *
 * The steps to this release's version are taken from a file of version 1; what may go wrong is shown by steps of the test's own
 * that come after them.
 */
#include "agent/io/store_db.c"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#define NOW SBX_STORE_SCHEMA

static char dir[64], path[96];

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "/tmp/sbx-store-db-XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof path, "%s/s.db", dir);
	return 0;
}

static int
teardown(void **state)
{
	char cmd[160];
	(void)state;
	(void)snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	return system(cmd);
}

static const struct migration *
steps_with(const char *next, const char *last)
{
	static struct migration step[NOW + 2];
	memcpy(step, migrations, sizeof migrations);
	step[NOW] = (struct migration){ "region", next };
	step[NOW + 1] = (struct migration){ "second region", last };
	return step;
}

/* A file of this release with one row in it, open. */
static struct sbx_store_db *
version_now(int *lock_fd)
{
	struct sbx_store_db *db;
	struct sbx_store_trouble t;
	struct sbx_store_item item = { .row = { .agent = 7, .request = 1, .target = "a/m", .class = "OK", .end_unix_ms = 5, .cost_nanousd = 3 } };
	struct sbx_store_item *const batch[] = { &item };
	size_t refused;
	if (sbx_store_db_open(path, lock_fd, true, &db, &t))
		fail_msg("%s", t.says);
	assert_int_equal(sbx_store_db_commit(db, batch, 1, &refused, &t), 0);
	assert_int_equal(refused, 0);
	return db;
}

static int64_t
number(struct sbx_store_db *db, const char *sql)
{
	struct sbx_store_trouble t;
	int64_t n = -1;
	assert_int_equal(ask_one(db->sql, sql, &n, NULL, 0, &t), 0);
	return n;
}

static void
a_file_of_the_first_version_is_brought_up(void **state)
{
	(void)state;
	int lock_fd = -1;
	sqlite3 *sql;
	struct sbx_store_trouble t;
	struct sbx_store_db *db;
	assert_int_equal(sqlite3_open_v2(path, &sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL), SQLITE_OK);
	assert_int_equal(configure(sql, &t), 0);
	assert_int_equal(migrate(sql, migrations, 1, &t), 0);
	assert_int_equal(run(sql, "INSERT INTO attempt (agent, request, attempt, uid, target, class, wasted, start_unix_ms, end_unix_ms, estimated, cost_nanousd)"
	                          " VALUES (7, 1, 0, 1000, 'a/m', 'OK', 0, 1, 2, 0, 3)", &t), 0);
	assert_int_equal(sqlite3_close(sql), SQLITE_OK);
	if (sbx_store_db_open(path, &lock_fd, true, &db, &t))
		fail_msg("%s", t.says);
	assert_int_equal(number(db, "PRAGMA user_version"), NOW);
	assert_int_equal(number(db, "SELECT count(*) FROM attempt WHERE cost_nanousd = 3 AND tenant IS NULL AND key_id IS NULL AND end_user IS NULL AND tags IS NULL"), 1);
	sbx_store_db_close(db, true);
	(void)close(lock_fd);
}

static void
an_older_file_is_brought_up(void **state)
{
	(void)state;
	int lock_fd = -1;
	struct sbx_store_trouble t;
	struct sbx_store_db *db = version_now(&lock_fd);
	const struct migration *step = steps_with("ALTER TABLE attempt ADD COLUMN region TEXT", "UPDATE attempt SET region = 'eu'");
	assert_int_equal(migrate(db->sql, step, NOW, &t), 0); /* nothing to do */
	assert_int_equal(migrate(db->sql, step, NOW + 1, &t), 0);
	assert_int_equal(number(db, "PRAGMA user_version"), NOW + 1);
	assert_int_equal(number(db, "SELECT count(*) FROM attempt WHERE region IS NULL AND request = 1 AND cost_nanousd = 3"), 1);
	assert_int_equal(migrate(db->sql, step, NOW + 2, &t), 0); /* only what is new */
	assert_int_equal(number(db, "SELECT count(*) FROM attempt WHERE region = 'eu'"), 1);
	assert_int_equal(number(db, "SELECT count(*) FROM migration WHERE applied_unix_s > 1700000000"), NOW + 2);
	assert_int_equal(number(db, "SELECT version FROM migration WHERE what = 'region'"), NOW + 1);
	sbx_store_db_close(db, true);

	/* and this release, which knows nothing of that, refuses it and says why */
	assert_int_equal(sbx_store_db_open(path, &lock_fd, true, &db, &t), -1);
	assert_int_equal(t.state, SBX_STORE_NEWER);
	assert_non_null(strstr(sbx_store_says(t.state), "newer signalbox"));
	(void)close(lock_fd);
}

static void
a_step_that_fails_leaves_the_version_before_it(void **state)
{
	(void)state;
	int lock_fd = -1;
	struct sbx_store_trouble t;
	struct sbx_store_db *db = version_now(&lock_fd);
	const struct migration *step =
		steps_with("ALTER TABLE attempt ADD COLUMN region TEXT", "UPDATE attempt SET region = 'eu'; INSERT INTO no_such_table VALUES (1)");
	assert_int_equal(migrate(db->sql, step, NOW + 2, &t), -1);
	assert_non_null(strstr(t.says, "no_such_table"));
	sbx_store_db_close(db, false);
	assert_int_equal(sbx_store_db_open(path, &lock_fd, true, &db, &t), -1);
	assert_int_equal(t.state, SBX_STORE_NEWER); /* the good step holds */

	sqlite3 *sql;
	int64_t n = -1;
	assert_int_equal(sqlite3_open_v2(path, &sql, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(ask_one(sql, "PRAGMA user_version", &n, NULL, 0, &t), 0);
	assert_int_equal(n, NOW + 1);
	assert_int_equal(ask_one(sql, "SELECT count(*) FROM attempt WHERE region IS NULL", &n, NULL, 0, &t), 0); /* half of a step does not */
	assert_int_equal(n, 1);
	assert_int_equal(sqlite3_close(sql), SQLITE_OK);
	(void)close(lock_fd);
}

/* Ours by its header, but the tables are not there: told, and left alone. */
static void
a_file_without_its_tables_is_told(void **state)
{
	(void)state;
	int lock_fd = -1;
	struct sbx_store_trouble t;
	struct sbx_store_db *db = version_now(&lock_fd);
	assert_int_equal(run(db->sql, "DROP TABLE attempt", &t), 0);
	sbx_store_db_close(db, true);
	assert_int_equal(sbx_store_db_open(path, &lock_fd, true, &db, &t), -1);
	assert_int_equal(t.state, SBX_STORE_FOREIGN);
	assert_non_null(strstr(t.says, "attempt"));
	(void)close(lock_fd);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_file_of_the_first_version_is_brought_up), T(an_older_file_is_brought_up),
		T(a_step_that_fails_leaves_the_version_before_it),
		T(a_file_without_its_tables_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
