/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kills.c -- kill -9 of the agent under load, again and again: what it said it had committed is there, and the sums agree.
 *
 * usage: kills [ROUNDS]   (default 50; $SEED replays)
 * Each round: 32 requests at once, the agent's own count of committed rows looked at all the while, SIGKILL at a random moment.
 * A copy of the files as the dead agent left them is checked by SQLite itself; the next agent opens the files and must report the
 * same. Rows that were never acknowledged may be there or not.
 */
#include "tests/e2e/harness.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#define IN_FLIGHT 32
#define LIFE_MIN_MS 60
#define LIFE_SPREAD_MS 500
#define LOOK_EVERY 16 /* ends of requests between two looks at the agent's count */

static int rounds = 50;
static unsigned seed;

struct load {
	uint64_t submitted, answered;
	int64_t committed; /* as last told, of this start */
};

/* Asks without end until the moment comes, and kills. */
static void
load_and_kill(struct world *w, uint64_t until_ms, struct load *l)
{
	struct sbx_client *c = client_up(w);
	struct sbx_request_options o = SBX_REQUEST_INIT;
	struct sbx_event ev;
	uint64_t id, look = 0;
	int in_flight = 0;
	o.route = "r";
	o.body = BODY;
	o.body_bytes = strlen(BODY);
	while (now_ms() < until_ms) {
		for (; in_flight < IN_FLIGHT; in_flight++, l->submitted++) {
			o.stream = l->submitted % 2;
			assert_int_equal(sbx_submit(c, &o, &id), 0);
		}
		if (sbx_next(c, 5, &ev))
			continue;
		if (ev.note == SBX_NOTE_STATS) {
			(void)sbx_reply_number(ev.reply, "store.committed", &l->committed);
		} else if (ev.last) {
			assert_true(ev.note == SBX_NOTE_DONE);
			in_flight--;
			if (++l->answered % LOOK_EVERY == 0)
				assert_int_equal(sbx_stats(c, &look), 0);
		}
	}
	world_agent_signal(w, SIGKILL);
	assert_int_not_equal(world_agent_wait(w, 5000), -1);
	sbx_close(c);
}

static int64_t
ask_copy(const char *file, const char *sql)
{
	sqlite3 *db;
	sqlite3_stmt *s;
	assert_int_equal(sqlite3_open_v2(file, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &s, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(s), SQLITE_ROW);
	int64_t n = sqlite3_column_int64(s, 0);
	(void)sqlite3_finalize(s);
	(void)sqlite3_close(db);
	return n;
}

static int64_t
report_number(struct world *w, const char *name)
{
	struct sbx_client *c = client_up(w);
	struct sbx_event ev;
	uint64_t id, until = now_ms() + 20000;
	int64_t n = -1;
	do { /* it may still be opening the file */
		assert_int_equal(sbx_report(c, NULL, &id), 0);
		assert_int_equal(sbx_next(c, 10000, &ev), 0);
		if (ev.note == SBX_NOTE_STATS)
			(void)sbx_reply_number(ev.reply, name, &n);
		else
			assert_int_equal(sbx_reply_code(ev.reply), SBX_CODE_BUSY);
	} while (ev.note != SBX_NOTE_STATS && now_ms() < until);
	sbx_close(c);
	return n;
}

static void
no_acknowledged_row_is_lost(void **state)
{
	(void)state;
	struct world w;
	int64_t rows = 0, acknowledged = 0;
	uint64_t requests = 0;
	char copy[192], cmd[768];
	world_simple(&w, 1, NULL, "\"store\": \"$DIR/s.db\"");
	(void)snprintf(copy, sizeof copy, "%s/copy/s.db", w.dir);
	for (int round = 0; round < rounds; round++) {
		struct load l = { .submitted = 0 };
		load_and_kill(&w, now_ms() + LIFE_MIN_MS + (uint64_t)rand_r(&seed) % LIFE_SPREAD_MS, &l);
		(void)snprintf(cmd, sizeof cmd, "rm -rf %s/copy && mkdir %s/copy && cp %s/s.db* %s/copy/", w.dir, w.dir, w.dir, w.dir);
		assert_int_equal(system(cmd), 0);
		assert_int_equal(ask_copy(copy, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
		int64_t now = ask_copy(copy, "SELECT count(*) FROM attempt"), sum = ask_copy(copy, "SELECT coalesce(sum(prompt_tokens), 0) FROM attempt");
		if (now < rows + l.committed || (uint64_t)now > (uint64_t)rows + l.submitted) {
			w.keep = true;
			fail_msg("round %d: %lld rows, of which %lld before; %lld acknowledged, %llu asked", round, (long long)now, (long long)rows,
			         (long long)l.committed, (unsigned long long)l.submitted);
		}
		assert_int_equal(ask_copy(copy, "SELECT count(*) - count(DISTINCT agent || '.' || request || '.' || attempt) FROM attempt"), 0);
		world_agent_start(&w, NULL, &(struct start){ .bare = false });
		assert_int_equal(report_number(&w, "total.attempts"), now);
		assert_int_equal(report_number(&w, "total.prompt_tokens"), sum);
		rows = now;
		acknowledged += l.committed;
		requests += l.answered;
	}
	(void)printf("kills: %d rounds, %llu requests answered, %lld rows acknowledged before their kill, %lld there, 0 lost\n", rounds,
	             (unsigned long long)requests, (long long)acknowledged, (long long)rows);
	assert_true(acknowledged > 0);
	world_down(&w);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(no_acknowledged_row_is_lost) };
	const char *replay = getenv("SEED");
	if (argc > 1)
		rounds = (int)strtol(argv[1], NULL, 10);
	seed = replay ? (unsigned)strtoul(replay, NULL, 10) : (unsigned)now_ms();
	(void)printf("kills: SEED=%u\n", seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
