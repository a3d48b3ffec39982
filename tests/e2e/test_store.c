/* SPDX-License-Identifier: Apache-2.0 */
/* test_store.c -- what the agent remembers: a row for each attempt, asked for through it, and kept over its death. */
#include "tests/e2e/harness.h"

#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
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

/* What `signalbox status` shows, and its exit status. */
static int
status_says(struct world *w, const char *const *words)
{
	char *said;
	int status = world_run(w, "signalbox", &(struct start){ .bare = true, .args = (const char *[]){ "status", "--socket", w->socket, NULL } }, &said);
	for (size_t i = 0; words[i]; i++)
		if (!strstr(said, words[i]))
			fail_msg("status does not say \"%s\": %s", words[i], said);
	free(said);
	return status;
}

/* Two agents, one file: the second runs without it, says so, and takes it over when the first has gone; however it went. */
static void
the_file_of_another_agent_is_taken_over(void **state)
{
	(void)state;
	struct world first, second;
	char extra[256];
	world_simple(&first, 1, NULL, STORE);
	agent_wait_number(&first, "store.opens", 1, 10000);
	ask_times(&first, 2);
	agent_wait_number(&first, "store.committed", 2, 10000);
	(void)snprintf(extra, sizeof extra, "\"store\": \"%s/s.db\"", first.dir);
	world_simple(&second, 1, NULL, extra);
	ask_times(&second, 3);
	assert_true(log_has(&second, "another agent uses this database"));
	assert_int_equal(status_says(&second, (const char *[]){ "store: degraded, locked", "3 waiting", "another agent uses this database", NULL }), 1);
	assert_int_equal(status_says(&first, (const char *[]){ "store: healthy", "2 written, 0 waiting", NULL }), 0);
	world_agent_signal(&first, SIGKILL);
	assert_int_not_equal(world_agent_wait(&first, 5000), -1);
	agent_wait_number(&second, "store.committed", 3, 15000);
	assert_int_equal(report_number(&second, "target", "total.attempts"), 5);
	assert_int_equal(status_says(&second, (const char *[]){ "store: healthy", "3 written, 0 waiting", NULL }), 0);
	world_down(&second);
	world_down(&first);
}

static void
a_damaged_file_is_replaced(void **state)
{
	(void)state;
	struct world w;
	char path[200];
	world_simple(&w, 1, NULL, STORE);
	ask_times(&w, 4);
	agent_wait_number(&w, "store.committed", 4, 10000);
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	(void)snprintf(path, sizeof path, "%s/s.db", w.dir);
	assert_int_equal(truncate(path, 5000), 0);
	world_agent_start(&w, NULL, &(struct start){ .bare = false });
	ask_times(&w, 1);
	agent_wait_number(&w, "store.committed", 1, 10000);
	assert_int_equal(report_number(&w, "target", "total.attempts"), 1);
	assert_true(log_has(&w, "store_damaged"));
	assert_true(log_has(&w, "s.db.damaged-2"));
	assert_int_equal(status_says(&w, (const char *[]){ "store: healthy", "found damaged", NULL }), 0);
	world_down(&w);
}

/* On a disk of the test's own, where it may have one. */
static void
a_full_disk_stops_nobody(void **state)
{
	(void)state;
	struct world w;
	char disk[200], path[220], zero[4096] = { 0 };
	world_up(&w);
	(void)snprintf(disk, sizeof disk, "%s/disk", w.dir);
	(void)snprintf(path, sizeof path, "%s/ballast", disk);
	if (mkdir(disk, 0700) || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("tmpfs", disk, "tmpfs", 0, "size=1m")) {
		world_down(&w);
		skip();
	}
	world_double(&w, "a", NULL);
	world_agent(&w, "{\"providers\":{\"a\":{\"base_url\":\"$0\",\"key\":\"$KEY\",\"models\":{\"m\":{}}}},"
	            "\"routes\":{\"r\":{\"targets\":[\"a/m\"]}},\"store\":\"$DIR/disk/s.db\"}", NULL);
	agent_wait_number(&w, "store.opens", 1, 10000);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	while (write(fd, zero, sizeof zero) > 0)
		;
	(void)close(fd);
	int64_t asked = 0;
	for (uint64_t until = now_ms() + 20000; !log_has(&w, "state=\"disk full\"") && now_ms() < until; asked += 20)
		ask_times(&w, 20);
	assert_true(log_has(&w, "state=\"disk full\""));
	ask_times(&w, 5);
	asked += 5;
	assert_int_equal(status_says(&w, (const char *[]){ "store: degraded, disk full", "make room", " waiting", NULL }), 1);
	assert_int_equal(unlink(path), 0);
	agent_wait_number(&w, "store.committed", asked, 15000);
	assert_int_equal(report_number(&w, "target", "total.attempts"), asked);
	assert_int_equal(agent_number(&w, "store.lost"), 0);
	assert_int_equal(status_says(&w, (const char *[]){ "store: healthy", NULL }), 0);
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	assert_int_equal(umount(disk), 0);
	world_down(&w);
}

/* false wins over the directory of the service manager, which wins over nothing. */
static void
where_the_file_is_by_default(void **state)
{
	(void)state;
	struct world w;
	char env[200];
	world_simple(&w, 1, NULL, NULL);
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	world_agent_start(&w, NULL, &(struct start){ .env = (const char *[]){ "STATE_DIRECTORY", NULL } });
	assert_int_equal(status_says(&w, (const char *[]){ "store: off", NULL }), 0);
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	(void)snprintf(env, sizeof env, "STATE_DIRECTORY=%s:/elsewhere", w.dir);
	world_agent_start(&w, NULL, &(struct start){ .env = (const char *[]){ env, NULL } });
	ask_times(&w, 1);
	agent_wait_number(&w, "store.committed", 1, 10000);
	assert_int_equal(status_says(&w, (const char *[]){ "store: healthy", "/signalbox.db", NULL }), 0);
	world_down(&w);
	world_simple(&w, 1, NULL, "\"store\": false");
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	(void)snprintf(env, sizeof env, "STATE_DIRECTORY=%s", w.dir);
	world_agent_start(&w, NULL, &(struct start){ .env = (const char *[]){ env, NULL } });
	assert_int_equal(status_says(&w, (const char *[]){ "store: off", NULL }), 0);
	world_down(&w);
}

static void
without_a_store_a_report_is_not_supported(void **state)
{
	(void)state;
	struct world w;
	struct sbx_event ev;
	uint64_t id;
	world_simple(&w, 1, NULL, "\"store\": false");
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
		cmocka_unit_test(where_the_file_is_by_default),
		cmocka_unit_test(the_file_of_another_agent_is_taken_over),
		cmocka_unit_test(a_damaged_file_is_replaced),
		cmocka_unit_test(a_full_disk_stops_nobody), /* last: from there on in a mount namespace of its own */
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
