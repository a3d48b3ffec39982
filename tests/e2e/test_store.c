/* SPDX-License-Identifier: Apache-2.0 */
/* test_store.c -- what the agent remembers: a row for each attempt, asked for through it, and kept over its death. */
#include "tests/e2e/harness.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define STORE "\"store\": \"$DIR/s.db\""

/* A number of a report by `by`; -1 when it is not there. */
static int64_t
report_number(struct world *w, const char *by, const char *name)
{
	struct sbx_report_options o = SBX_REPORT_INIT;
	struct sbx_client *c = client_up(w);
	struct sbx_event ev;
	uint64_t id;
	int64_t n = -1;
	o.by = by;
	assert_int_equal(sbx_report(c, &o, &id), 0);
	assert_int_equal(sbx_next(c, 10000, &ev), 0);
	assert_int_equal(ev.id, id);
	assert_int_equal(ev.note, SBX_NOTE_STATS);
	(void)sbx_reply_number(ev.reply, name, &n);
	sbx_close(c);
	return n;
}

static void
ask_times(struct world *w, int n)
{
	struct sbx_client *c = client_up(w);
	for (int i = 0; i < n; i++) {
		struct sbx_reply *r = ask(c, i % 2, 10000);
		assert_true(sbx_reply_ok(r));
		sbx_reply_free(r);
	}
	sbx_close(c);
}

static void
each_attempt_leaves_a_row(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, (const char *[]){ "m: status=503", NULL }, STORE);
	ask_times(&w, 6);
	agent_wait_number(&w, "store.committed", agent_number(&w, "attempts"), 10000);
	int64_t attempts = agent_number(&w, "attempts");
	assert_true(attempts >= 6);
	assert_int_equal(report_number(&w, "target", "total.attempts"), attempts);
	assert_int_equal(report_number(&w, "class", "row.OK.attempts"), 6);
	assert_int_equal(report_number(&w, "route", "row.r.attempts"), attempts);
	assert_int_equal(report_number(&w, "model", "row.m.attempts"), attempts);
	assert_int_equal(report_number(&w, "target", "total.ok"), 6);
	assert_int_equal(report_number(&w, "target", "total.wasted"), attempts - 6);
	assert_true(report_number(&w, "target", "total.prompt_tokens") > 0);
	assert_true(report_number(&w, "user", "total.completion_tokens") > 0);
	assert_int_equal(agent_number(&w, "store.queued"), 0);
	assert_int_equal(agent_number(&w, "store.lost"), 0);
	world_down(&w);
}

/* What the rows say is what the replies said: priced, void (0), and not known, which is counted apart and never 0. */
static void
costs_are_kept(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	world_double(&w, "groq", (const char *[]){ "--rule", "*: status=503", NULL });
	world_double(&w, "openai", (const char *[]){ "--rule", "gpt-4o-mini: prompt-tokens=1001, cached-tokens=400", NULL });
	world_agent(&w, "{\"providers\":{\"groq\":{\"base_url\":\"$0\",\"key\":\"$KEY\"},"
	            "\"openai\":{\"base_url\":\"$1\",\"key\":\"$KEY\",\"models\":{\"gpt-4o-mini\":{},\"m\":{}}}},"
	            "\"routes\":{\"r\":{\"targets\":[\"groq/openai/gpt-oss-120b\",\"openai/gpt-4o-mini\"]}}," STORE "}", NULL);
	struct sbx_client *c = client_up(&w);
	int64_t priced = 0;
	for (int i = 0; i < 3; i++) {
		struct sbx_reply *r = ask(c, i % 2, 10000);
		assert_true(sbx_reply_ok(r));
		assert_true(sbx_reply_cost_nanousd(r) > 0);
		priced += sbx_reply_cost_nanousd(r);
		sbx_reply_free(r);
	}
	struct sbx_reply *r = ask_body(c, NULL, "openai/m", BODY, false, 10000); /* not in the catalog */
	assert_true(sbx_reply_ok(r));
	assert_int_equal(sbx_reply_cost_nanousd(r), -1);
	sbx_reply_free(r);
	sbx_close(c);
	int64_t attempts = agent_number(&w, "attempts");
	assert_true(attempts >= 5);
	agent_wait_number(&w, "store.committed", attempts, 10000);
	assert_int_equal(report_number(&w, "target", "total.cost_nanousd"), priced);
	assert_int_equal(report_number(&w, "target", "total.unpriced"), 1);
	assert_int_equal(report_number(&w, "target", "total.wasted_cost_nanousd"), 0); /* a 503 is not billed */
	assert_int_equal(report_number(&w, "target", "row.openai/gpt-4o-mini.cost_nanousd"), priced);
	assert_int_equal(report_number(&w, "target", "row.groq/openai/gpt-oss-120b.cost_nanousd"), 0);
	assert_int_equal(report_number(&w, "target", "row.groq/openai/gpt-oss-120b.unpriced"), 0);
	assert_int_equal(report_number(&w, "target", "row.openai/m.unpriced"), 1);
	assert_int_equal(report_number(&w, "target", "row.openai/m.cost_nanousd"), -1); /* absent */
	world_down(&w);
}

static void
rows_outlive_the_agent(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, NULL, STORE);
	ask_times(&w, 4);
	agent_wait_number(&w, "store.committed", 4, 10000);
	world_agent_signal(&w, SIGKILL);
	assert_int_not_equal(world_agent_wait(&w, 5000), -1);
	world_agent_start(&w, NULL, &(struct start){ .bare = false });
	agent_wait_number(&w, "store.opens", 1, 10000);
	assert_int_equal(report_number(&w, "target", "total.attempts"), 4);
	ask_times(&w, 2);
	agent_wait_number(&w, "store.committed", 2, 10000); /* of this start */
	assert_int_equal(report_number(&w, "target", "total.attempts"), 6);
	world_down(&w);
}

/* A store that cannot be used holds up nobody, and says what is wrong. */
static void
requests_go_on_without_the_disk(void **state)
{
	(void)state;
	struct world w;
	struct sbx_event ev;
	char none[200];
	uint64_t id;
	world_simple(&w, 1, NULL, "\"store\": \"$DIR/none/s.db\"");
	ask_times(&w, 3);
	assert_true(log_has(&w, "no directory"));
	struct sbx_client *c = client_up(&w);
	assert_int_equal(sbx_report(c, NULL, &id), 0);
	assert_int_equal(sbx_next(c, 10000, &ev), 0);
	assert_int_equal(ev.note, SBX_NOTE_ERROR);
	assert_int_equal(sbx_reply_code(ev.reply), SBX_CODE_BUSY);
	assert_non_null(strstr(sbx_reply_message(ev.reply), "directory"));
	sbx_close(c);
	assert_int_equal(agent_number(&w, "store.queued"), 3);
	(void)snprintf(none, sizeof none, "%s/none", w.dir);
	assert_int_equal(mkdir(none, 0700), 0);
	agent_wait_number(&w, "store.committed", 3, 15000);
	assert_int_equal(report_number(&w, "target", "total.attempts"), 3);
	world_down(&w);
}

static void
without_a_store_a_report_is_not_supported(void **state)
{
	(void)state;
	struct world w;
	struct sbx_event ev;
	uint64_t id;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	assert_int_equal(sbx_report(c, NULL, &id), 0);
	assert_int_equal(sbx_next(c, 10000, &ev), 0);
	assert_int_equal(ev.note, SBX_NOTE_ERROR);
	assert_int_equal(sbx_reply_code(ev.reply), SBX_CODE_UNSUPPORTED);
	struct sbx_report_options o = SBX_REPORT_INIT;
	o.by = "weather";
	assert_int_equal(sbx_report(c, &o, &id), 0);
	assert_int_equal(sbx_next(c, 10000, &ev), 0);
	assert_int_equal(sbx_reply_code(ev.reply), SBX_CODE_INVALID_REQUEST);
	sbx_close(c);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_attempt_leaves_a_row),
		cmocka_unit_test(costs_are_kept),
		cmocka_unit_test(rows_outlive_the_agent),
		cmocka_unit_test(requests_go_on_without_the_disk),
		cmocka_unit_test(without_a_store_a_report_is_not_supported),
	};
	(void)unsetenv("STATE_DIRECTORY"); /* of whoever runs the tests */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
