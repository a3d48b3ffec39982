/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_store.c -- what goes in comes out, is added up, and what was acknowledged stays. Power is not cut here: kill -9 is.
 */
#include "tests/unit/store_rig.h"

#include "agent/io/store_db.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <signalbox/errors.h>

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
	odd.tenant = "acme";
	odd.key_id = "k1";
	odd.end_user = "u";
	odd.tags = "[\"a\"]";
	assert_int_equal(sbx_store_put(s, &odd), 0);
	WAIT(s, v.committed == 1001 && v.queued == 0 && v.state == SBX_STORE_READY);
	sbx_store_free(s);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(ask_file(path, "SELECT count(*) FROM attempt"), 1001);
	assert_int_equal(ask_file(path, "PRAGMA user_version"), SBX_STORE_SCHEMA);
	assert_int_equal(ask_file(path, "SELECT count(*) FROM migration"), SBX_STORE_SCHEMA);
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
	                                " AND cost_nanousd IS NULL AND cost_status='unpriced' AND price_row IS NULL"
	                                " AND tenant='acme' AND key_id='k1' AND end_user='u' AND tags='[\"a\"]'"), 1);
	assert_int_equal(ask_file(path, "SELECT count(*) FROM attempt WHERE tenant IS NULL AND key_id IS NULL AND end_user IS NULL AND tags IS NULL"), 1000);
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
	};
	rig_up();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
