/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_store_files.c -- every way in which the store's file can be unusable has its state, its sentence and its recovery.
 *
 * A disk that is full or read-only is a tiny tmpfs in a mount namespace of the test's own (skipped where that is not permitted),
 * and a limit on the size of files.
 */
#include "tests/unit/store_rig.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <signalbox/errors.h>

/* ==== files that cannot be used ==== */

static void
write_file(const char *file, const char *bytes, size_t n, off_t at)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, n, at), n);
	(void)close(fd);
}

static size_t
read_whole(const char *file, char *to, size_t max)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	ssize_t n = pread(fd, to, max, 0);
	(void)close(fd);
	assert_in_range(n, 1, max - 1);
	return (size_t)n;
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
	char junk[8192], back[sizeof junk + 1], old[128];
	memset(junk, 'x', sizeof junk);
	memcpy(junk, "Dear diary", 10);
	write_file(path, junk, sizeof junk, 0);
	expect_state_then_recovery(SBX_STORE_FOREIGN, move_away);
	(void)snprintf(old, sizeof old, "%s.old", path);
	assert_int_equal(read_whole(old, back, sizeof back), sizeof junk);
	assert_memory_equal(back, junk, sizeof junk);
}

static void
remove_the_directory(void)
{
	assert_int_equal(rmdir(path), 0);
}

static void
a_directory_in_its_place_is_left_alone(void **state)
{
	(void)state;
	assert_int_equal(mkdir(path, 0700), 0);
	expect_state_then_recovery(SBX_STORE_FOREIGN, remove_the_directory);
}

/* The name of the damaged file that was put aside, and of no other. */
static void
find_aside(char *name, size_t bytes)
{
	struct dirent *e;
	DIR *d = opendir(dir);
	int n = 0;
	assert_non_null(d);
	while ((e = readdir(d)))
		if (strncmp(e->d_name, "s.db.damaged-2", 14) == 0 && !strstr(e->d_name, "-wal")) {
			(void)snprintf(name, bytes, "%s/%s", dir, e->d_name);
			n++;
		}
	(void)closedir(d);
	assert_int_equal(n, 1);
}

/* Damaged while nobody had it open: found by the check at the start. What is there is kept, to the byte, and a new file begins. */
static void
a_damaged_file_is_put_aside(void **state)
{
	const struct {
		off_t at;      /* of a page of noise */
		off_t cut;     /* or where the file ends; 0 = no cut */
	} damage[] = { { 4096 * 12, 0 }, { 100, 0 }, { 0, 4096 * 9 + 77 } };
	char noise[4096], aside[400], before[400000], after[sizeof before];
	memset(noise, 0xa5, sizeof noise);
	for (size_t i = 0; i < sizeof damage / sizeof damage[0]; i++) {
		struct sbx_store *s = open_store(path);
		for (uint64_t r = 1; r <= 1000; r++)
			put(s, r);
		sbx_store_free(s);
		if (damage[i].cut)
			assert_int_equal(truncate(path, damage[i].cut), 0);
		else
			write_file(path, noise, damage[i].at % 4096 ? 3900 : sizeof noise, damage[i].at);
		size_t n = read_whole(path, before, sizeof before);
		s = open_store(path);
		put(s, 1);
		WAIT(s, v.state == SBX_STORE_READY && v.committed == 1 && v.put_aside == 1);
		sbx_store_free(s);
		assert_int_equal(ask_file(path, "SELECT count(*) FROM attempt"), 1);
		find_aside(aside, sizeof aside);
		assert_int_equal(read_whole(aside, after, sizeof after), n);
		assert_memory_equal(before, after, n);
		(void)teardown(state);
		(void)setup(state);
	}
}

/* The log holds what the file does not yet: it goes with it. */
static void
the_log_of_a_damaged_file_goes_with_it(void **state)
{
	(void)state;
	char wal[128], aside[400], aside_wal[420];
	struct stat st;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) { /* dies with rows in the log */
		struct sbx_store *s;
		struct sbx_store_row row = row_of(1);
		if (sbx_store_new(path, &s) || sbx_store_put(s, &row))
			_exit(1);
		while (!sbx_store_look(s).committed)
			(void)poll(NULL, 0, 1);
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	(void)snprintf(wal, sizeof wal, "%s-wal", path);
	assert_int_equal(stat(wal, &st), 0);
	off_t logged = st.st_size;
	assert_true(logged > 0);
	damaged_reads = 1;
	struct sbx_store *s = open_store(path);
	WAIT(s, v.put_aside == 1 && v.state == SBX_STORE_READY);
	sbx_store_free(s);
	find_aside(aside, sizeof aside);
	(void)snprintf(aside_wal, sizeof aside_wal, "%s-wal", aside);
	assert_int_equal(stat(aside_wal, &st), 0);
	assert_int_equal(st.st_size, logged);
}

/* A disk that spoils whatever is written must not be filled with spoiled files. */
static void
not_without_end(void **state)
{
	(void)state;
	make_store();
	damaged_reads = -1;
	struct sbx_store *s = open_store(path);
	put(s, 1);
	WAIT(s, v.state == SBX_STORE_CORRUPT);
	assert_int_equal(sbx_store_look(s).put_aside, 8);
	damaged_reads = 0;
	WAIT(s, v.state == SBX_STORE_READY && v.committed == 1);
	sbx_store_free(s);
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
	char before[65536], after[sizeof before], old[128];
	exec_file("CREATE TABLE recipes (name TEXT)");
	size_t n = read_whole(path, before, sizeof before);
	expect_state_then_recovery(SBX_STORE_FOREIGN, move_away);
	(void)snprintf(old, sizeof old, "%s.old", path);
	assert_int_equal(read_whole(old, after, sizeof after), n);
	assert_memory_equal(before, after, n);
}

static void
a_newer_schema_is_left_alone(void **state)
{
	(void)state;
	make_store();
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

/* Files and directories that this user may only read; as another user, because root may write to all. */
static void
what_may_not_be_written_is_told(void **state)
{
	(void)state;
	make_store();
	for (int file = 0; file < 2; file++) {
		assert_int_equal(chmod(path, file ? 0444 : 0666), 0);
		assert_int_equal(chmod(dir, file ? 0777 : 0555), 0);
		char lock[128];
		(void)snprintf(lock, sizeof lock, "%s.lock", path);
		(void)unlink(lock);
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			struct sbx_store *s;
			if ((getuid() == 0 && setuid(65534)) || sbx_store_new(path, &s))
				_exit(1);
			while (sbx_store_look(s).state == SBX_STORE_OPENING)
				(void)poll(NULL, 0, 1);
			_exit(sbx_store_look(s).state == SBX_STORE_READ_ONLY ? 0 : 2);
		}
		int status;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	assert_int_equal(chmod(dir, 0700), 0);
}

/* ==== disks that fail ==== */

static void
lift_the_limit(void)
{
	struct rlimit l;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
	l.rlim_cur = l.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

/* No file of this process may grow beyond the limit: a full disk without a disk of one's own. */
static void
a_limit_of_size_is_a_full_disk(void **state)
{
	(void)state;
	make_store();
	struct rlimit l;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
	l.rlim_cur = 30000;
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
	expect_state_then_recovery(SBX_STORE_DISK_FULL, lift_the_limit);
}

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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_log_of_a_damaged_file_goes_with_it), /* these two first: they fork, and no thread of ours runs yet */
		T(what_may_not_be_written_is_told),
		T(a_file_of_another_kind_is_left_alone),
		T(a_directory_in_its_place_is_left_alone),
		T(a_damaged_file_is_put_aside),
		T(not_without_end),
		T(anothers_database_is_left_alone),
		T(a_newer_schema_is_left_alone),
		T(a_missing_directory_may_come_later),
		T(a_second_agent_waits_for_the_first),
		T(a_program_that_has_it_open_makes_it_busy),
		T(a_failed_sync_is_not_believed_again),
		T(a_limit_of_size_is_a_full_disk),
		T(the_queue_has_an_end_and_the_rest_is_counted),
		T(a_full_disk_degrades_and_recovers), /* last: in a mount namespace of their own */
		T(a_read_only_disk_is_told),
	};
	rig_up();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
