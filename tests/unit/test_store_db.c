/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_store_db.c -- a database of an older schema becomes one of the newest, step by step, or stays what it was.
 *
 * There is one version so far, so the steps after it are the test's own.
 */
#include "agent/io/store_db.c"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

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
steps_with(const char *second, const char *third)
{
	static struct migration step[3];
	step[0] = migrations[0];
	step[1] = (struct migration){ "region", second };
	step[2] = (struct migration){ "second region", third };
	return step;
}

/* A file of version 1 with one row in it, open. */
static struct sbx_store_db *
version_1(int *lock_fd)
{
	struct sbx_store_db *db;
	struct sbx_store_trouble t;
	struct sbx_store_item item = { .row = { .agent = 7, .request = 1, .target = "a/m", .class = "OK", .end_unix_ms = 5, .cost_nanousd = 3 } };
	struct sbx_store_item *const batch[] = { &item };
	size_t refused;
	assert_int_equal(sbx_store_db_open(path, lock_fd, true, &db, &t), 0);
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
an_older_file_is_brought_up(void **state)
{
	(void)state;
	int lock_fd = -1;
	struct sbx_store_trouble t;
	struct sbx_store_db *db = version_1(&lock_fd);
	const struct migration *step = steps_with("ALTER TABLE attempt ADD COLUMN region TEXT", "UPDATE attempt SET region = 'eu'");
	assert_int_equal(migrate(db->sql, step, 1, &t), 0); /* nothing to do */
	assert_int_equal(migrate(db->sql, step, 2, &t), 0);
	assert_int_equal(number(db, "PRAGMA user_version"), 2);
	assert_int_equal(number(db, "SELECT count(*) FROM attempt WHERE region IS NULL AND request = 1 AND cost_nanousd = 3"), 1);
	assert_int_equal(migrate(db->sql, step, 3, &t), 0); /* only what is new */
	assert_int_equal(number(db, "SELECT count(*) FROM attempt WHERE region = 'eu'"), 1);
	assert_int_equal(number(db, "SELECT count(*) FROM migration WHERE version IN (1, 2, 3) AND applied_unix_s > 1700000000"), 3);
	assert_int_equal(number(db, "SELECT count(*) FROM migration WHERE version = 2 AND what = 'region'"), 1);
	sbx_store_db_close(db, true);

	/* and this release, which knows of version 1 only, refuses it and says why */
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
	struct sbx_store_db *db = version_1(&lock_fd);
	const struct migration *step =
		steps_with("ALTER TABLE attempt ADD COLUMN region TEXT", "UPDATE attempt SET region = 'eu'; INSERT INTO no_such_table VALUES (1)");
	assert_int_equal(migrate(db->sql, step, 3, &t), -1);
	assert_non_null(strstr(t.says, "no_such_table"));
	sbx_store_db_close(db, false);
	assert_int_equal(sbx_store_db_open(path, &lock_fd, true, &db, &t), -1);
	assert_int_equal(t.state, SBX_STORE_NEWER); /* version 2: the good step holds */

	sqlite3 *sql;
	int64_t n = -1;
	assert_int_equal(sqlite3_open_v2(path, &sql, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(ask_one(sql, "PRAGMA user_version", &n, NULL, 0, &t), 0);
	assert_int_equal(n, 2);
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
	struct sbx_store_db *db = version_1(&lock_fd);
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
		T(an_older_file_is_brought_up),
		T(a_step_that_fails_leaves_the_version_before_it),
		T(a_file_without_its_tables_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
