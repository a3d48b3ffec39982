/* SPDX-License-Identifier: Apache-2.0 */
/* test_health.c -- `signalbox health` as a process, beside agents that are well, ill, hung, dead, stopped, or never were. */
#include "tests/e2e/tool.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/e2e/control.h"
#include "tests/e2e/fault.h"

/* `signalbox health` with these arguments. Exit status; what it said. */
static int
health(const struct world *w, char **ret_said, const char *const *args)
{
	const char *argv[24] = { "health", "--socket", w->socket };
	for (int i = 0; args[i]; i++)
		argv[3 + i] = args[i];
	return tool_run("signalbox", argv, (const char *[]){ "COLUMNS", "SIGNALBOX_SOCKET", NULL }, ret_said);
}
#define HEALTH(w, said, ...) health(w, said, (const char *[]){ __VA_ARGS__ __VA_OPT__(,) NULL })

static json_t *
parsed(const char *text)
{
	json_error_t error;
	json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	if (!j)
		fail_msg("%s: %s", error.text, text);
	return j;
}

static const char *
word(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text ? text : "";
}

/* The agent's state as `--json` tells it; checks the exit status and that the facts are of that kind, with an age. */
static void
agent_is(const struct world *w, const char *state, const char *facts, int want_status)
{
	char *said;
	int status = HEALTH(w, &said, "--json");
	json_t *j = parsed(said), *agent = json_object_get(j, "agent");
	if (status != want_status || strcmp(word(agent, "state"), state) != 0 || strcmp(word(agent, "facts"), facts) != 0)
		fail_msg("exit %d, not %d; wanted %s from %s: %s", status, want_status, state, facts, said);
	if (*facts)
		assert_true(json_integer_value(json_object_get(agent, "facts_age_ms")) >= 0 && json_array_size(json_object_get(j, "targets")) > 0);
	else
		assert_true(json_is_null(json_object_get(agent, "facts_age_ms")));
	json_decref(j);
	free(said);
}

static void
has(const char *said, const char *text)
{
	if (!strstr(said, text))
		fail_msg("there is no \"%s\" in:\n%s", text, said);
}

static void
has_not(const char *said, const char *text)
{
	if (strstr(said, text))
		fail_msg("there is \"%s\" in:\n%s", text, said);
}

static void
fits(const char *said, size_t columns)
{
	for (const char *end; (end = strchr(said, '\n')); said = end + 1)
		if ((size_t)(end - said) > columns + 2) /* an ellipsis is three bytes */
			fail_msg("%d columns: %.*s", (int)(end - said), (int)(end - said), said);
}

/* The double answers so, and the target's state is what it makes of that. */
static void
fail_until(struct world *w, int n, const char *rule, const char *state)
{
	struct sbx_client *c = client_up(w);
	double_rules(w, n, rule);
	for (uint64_t until = now_ms() + 20000;;) {
		char *said;
		sbx_reply_free(ask(c, false, 10000));
		(void)HEALTH(w, &said, "--state", state);
		bool there = strstr(said, "/m ") != NULL;
		free(said);
		if (there)
			break;
		assert_true(now_ms() < until);
	}
	sbx_close(c);
}

/* ---- a living agent ---- */

static void
all_is_well(void **state)
{
	(void)state;
	struct world w;
	char *said;
	world_simple(&w, 3, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	sbx_reply_free(ask(c, true, 10000));
	sbx_close(c);
	int64_t requests = agent_number(&w, "requests");
	assert_int_equal(HEALTH(&w, &said, "--route", "r"), 0);
	has(said, "signalboxd serving  pid ");
	has(said, "3 targets: 3 up\n");
	has(said, "\na/m ");
	has_not(said, "\033"); /* no terminal, no colour */
	has_not(said, "p95"); /* not at 80 columns */
	fits(said, 80);
	free(said);
	for (uint64_t until = now_ms() + 5000;;) { /* rows are published every 10 ms */
		assert_int_equal(HEALTH(&w, &said, "--wide", "a"), 0);
		if (strstr(said, "1 target: 1 up\n") && strstr(said, "p95") && strstr(said, "0 %") && strstr(said, " ms"))
			break;
		free(said);
		assert_true(now_ms() < until);
	}
	free(said);
	assert_int_equal(tool_run("signalbox", (const char *[]){ "health", "--socket", w.socket, NULL }, (const char *[]){ "COLUMNS=200", NULL }, &said), 0);
	has(said, "p95");
	free(said);
	agent_is(&w, "serving", "board", 0);
	assert_int_equal(agent_number(&w, "requests"), requests);
	world_down(&w);
}

static void
something_is_not(void **state)
{
	(void)state;
	struct world w;
	char *said;
	world_simple(&w, 3, NULL, NULL);
	fail_until(&w, 0, "m: status=500", "down");
	assert_int_equal(HEALTH(&w, &said), 1);
	has(said, "3 targets: 2 up, 1 down\n");
	has(said, "\n    provider fails; tried again in ");
	has(said, "100 %");
	fits(said, 80);
	free(said);
	fail_until(&w, 1, "m: status=401", "keys-shut");
	assert_int_equal(HEALTH(&w, &said), 1);
	has(said, "1 keys shut");
	has(said, "/key ");
	has(said, "key refused; tried again in ");
	has_not(said, WORLD_KEY);
	free(said);
	fail_until(&w, 2, "m: status=429,retry-after=100", "throttled");
	assert_int_equal(HEALTH(&w, &said, "--state", "throttled"), 1);
	has(said, "rate limit, for ");
	free(said);

	assert_int_equal(HEALTH(&w, &said, "--json"), 1);
	json_t *j = parsed(said), *a = json_array_get(json_object_get(j, "targets"), 0), *key = json_array_get(json_object_get(j, "shut_keys"), 0);
	assert_string_equal(word(j, "health"), "degraded");
	assert_string_equal(word(a, "name"), "a/m");
	assert_string_equal(word(a, "provider"), "a");
	assert_string_equal(word(a, "why"), "provider fails");
	assert_true(json_integer_value(json_object_get(a, "recent_bad")) >= 3);
	assert_true(json_is_object(json_object_get(a, "first_content")) && json_is_null(json_object_get(json_object_get(a, "price_nanousd_per_million"), "input")));
	assert_string_equal(word(key, "provider"), "b");
	assert_non_null(strstr(word(key, "key"), "file:/"));
	assert_int_equal(json_array_size(json_object_get(j, "shut_keys")), 1);
	json_decref(j);
	free(said);
	world_down(&w);
}

static void
what_is_shown_is_what_counts(void **state)
{
	(void)state;
	static const struct {
		const char *args[5];
		int status;
		const char *want, *not_;
	} cases[] = {
		{ { "b" }, 0, "\nb/m ", "\na/m " },
		{ { "a/*" }, 1, "\na/m ", "\nb/m " },
		{ { "m" }, 1, "\nb/m ", "\x01" },
		{ { "b", "c/m" }, 0, "2 targets: 2 up", "\na/m " },
		{ { "--route", "one" }, 0, "1 target: 1 up", "\na/m " },
		{ { "-r", "r" }, 1, "3 targets: 2 up, 1 down", "\x01" },
		{ { "--state", "down" }, 1, "1 target: 1 down", "\nb/m " },
		{ { "--state=up" }, 0, "2 targets: 2 up", "\na/m " },
		{ { "--state=trial,no-key" }, 0, "0 targets", "\na/m " },
		{ { "--state", "dwn" }, 64, "the nearest is down", "\na/m " },
		{ { "--route", "on" }, 64, "there is no route \"on\"; the nearest is \"one\"", "\na/m " },
		{ { "-r", "one", "a" }, 64, "no target of the route one matches a", "\na/m " },
		{ { "nobody*" }, 64, "no target matches nobody*", "\na/m " },
		{ { "--watch=x" }, 64, "--watch= takes seconds, not x", "\na/m " },
		{ { "--colour" }, 64, "see: signalbox health --help", "\na/m " },
		{ { "--help" }, 0, "usage: signalbox health", "\na/m " },
	};
	struct world w;
	world_up(&w);
	for (int i = 0; i < 3; i++)
		(void)world_double(&w, (const char *[]){ "a", "b", "c" }[i], NULL);
	world_agent(&w, "{\"providers\": {\"a\": {\"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\"}, \"b\": {\"dialect\": \"openai-chat\", \"base_url\": \"$1\", "
	                "\"key\": \"$KEY\"}, \"c\": {\"dialect\": \"openai-chat\", \"base_url\": \"$2\", \"key\": \"$KEY\"}}, "
	                "\"routes\": {\"r\": {\"targets\": [\"a/m\", \"b/m\", \"c/m\"]}, \"one\": {\"targets\": [\"b/m\"]}}}", NULL);
	fail_until(&w, 0, "m: status=500", "down");
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char *said;
		int status = health(&w, &said, cases[i].args);
		if (status != cases[i].status || !strstr(said, cases[i].want) || strstr(said, cases[i].not_))
			fail_msg("case %zu (%s): exit %d:\n%s", i, cases[i].args[0], status, said);
		free(said);
	}
	world_down(&w);
}

/* A key that was not found is no illness; a name that is too long keeps its ends. */
static void
names_and_missing_keys(void **state)
{
	(void)state;
	struct world w;
	char *said;
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	world_agent(&w, "{\"providers\": {\"a\": {\"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\"}, "
	                "\"fireworks\": {\"key\": \"env:NO_SUCH_VARIABLE\"}}, \"routes\": {\"r\": {\"targets\": "
	                "[\"a/m\", \"fireworks/accounts/fireworks/models/an-uncommonly-long-name-of-a-model-405b-instruct\"]}}}", NULL);
	assert_int_equal(HEALTH(&w, &said), 0);
	has(said, "1 no key");
	has(said, "none of its provider's keys was found");
	has(said, "…");
	has(said, "405b-instruct ");
	fits(said, 80);
	free(said);
	assert_int_equal(HEALTH(&w, &said, "--wide"), 0);
	has(said, "fireworks/accounts/fireworks/models/an-uncommonly-long-name-of-a-model-405b-instruct  no key");
	free(said);
	world_down(&w);
}

static void
what_it_costs(void **state)
{
	(void)state;
	struct world w;
	char *said;
	world_up(&w);
	(void)world_double(&w, "openai", NULL);
	world_agent(&w, "{\"providers\": {\"openai\": {\"base_url\": \"$0\", \"key\": \"$KEY\"}}, "
	                "\"routes\": {\"r\": {\"targets\": [\"openai/gpt-4o-mini\", \"openai/nobody-knows\"]}}}", NULL);
	assert_int_equal(HEALTH(&w, &said), 0);
	has(said, "USD/M\n");
	has(said, "   0.15   0.60\n");
	has(said, "      -      -\n");
	free(said);
	assert_int_equal(HEALTH(&w, &said, "--json"), 0);
	json_t *j = parsed(said), *targets = json_object_get(j, "targets");
	json_t *mini = json_object_get(json_array_get(targets, 0), "price_nanousd_per_million");
	assert_int_equal(json_integer_value(json_object_get(mini, "input")), 150000000);
	assert_int_equal(json_integer_value(json_object_get(mini, "output")), 600000000);
	assert_true(json_is_null(json_object_get(json_object_get(json_array_get(targets, 1), "price_nanousd_per_million"), "output")));
	json_decref(j);
	free(said);
	world_down(&w);
}

/* ---- an agent that does not answer ---- */

static void
hung_then_dead(void **state)
{
	(void)state;
	struct world w;
	char *said;
	world_simple(&w, 2, NULL, NULL);
	fail_until(&w, 0, "m: status=500", "down");
	world_agent_signal(&w, SIGSTOP);
	agent_is(&w, "hung", "snapshot", 2); /* at once, not when the heartbeat is old */
	assert_int_equal(HEALTH(&w, &said, "b"), 2); /* whatever is asked of it */
	has(said, "signalboxd hung  pid ");
	has(said, "facts of ");
	has(said, "board.snapshot\n");
	has(said, "accepted, but sent no WELCOME");
	free(said);
	world_agent_signal(&w, SIGKILL);
	(void)world_agent_wait(&w, 5000);
	agent_is(&w, "dead", "snapshot", 2);
	assert_int_equal(HEALTH(&w, &said), 2);
	has(said, "signalboxd dead  pid ");
	has(said, "\nb/m ");
	free(said);
	w.agent = 0; /* killed on purpose */
	world_down(&w);
}

static void
stopped_in_order(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, NULL, NULL);
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	agent_is(&w, "stopped", "snapshot", 2);
	world_down(&w);
}

/* Nothing is believed of a file that is no whole board; and its absence is said. */
static void
no_facts(void **state)
{
	(void)state;
	struct world w;
	char *said, *whole, path[200], snapshot[200];
	size_t n;
	world_up(&w);
	agent_is(&w, "unreachable", "", 2);
	assert_int_equal(HEALTH(&w, &said), 2);
	has(said, "signalboxd unreachable\n");
	has(said, "no snapshot in ");
	free(said);
	world_down(&w);

	world_simple(&w, 1, NULL, NULL);
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	(void)snprintf(snapshot, sizeof snapshot, "%s/board.snapshot", w.dir);
	whole = read_whole(snapshot, &n);
	assert_non_null(whole);
	for (size_t i = 0; i < 5; i++) {
		static const char *const want[] = { "is no snapshot of a board", "cut short", "this is not a board", "refers to what is not there", NULL };
		char bad[65536];
		const size_t lengths[] = { 100, n - 1, n, n, n };
		assert_true(n <= sizeof bad);
		memcpy(bad, whole, n);
		if (i == 2)
			memset(bad, 'x', n);
		if (i == 3) /* the one target is of a provider that there is not */
			memset(bad + ((struct sbx_board_header *)(void *)whole)->target.offset, 0x7f, 4);
		write_file(&w, "other.snapshot", bad, lengths[i], path, sizeof path);
		assert_int_equal(HEALTH(&w, &said, "--snapshot", path), 2);
		if (want[i]) {
			has(said, want[i]);
			has_not(said, "a/m");
		} else {
			has(said, "\na/m ");
		}
		free(said);
	}
	free(whole);
	assert_int_equal(HEALTH(&w, &said, "--snapshot", "/nonexistent/snapshot"), 2);
	has(said, "no snapshot in /nonexistent/snapshot");
	free(said);
	world_down(&w);
}

/* ---- watching ---- */

/* The next line that says this of the agent. */
static size_t
wait_line(struct tool *t, size_t from, const char *state, int edition)
{
	char text[64];
	(void)snprintf(text, sizeof text, "\"state\":\"%s\"", state);
	size_t at = tool_wait(t, from, text, 20000);
	if (edition) {
		(void)snprintf(text, sizeof text, "\"edition\":%d", edition);
		at = tool_wait(t, at, text, 20000);
	}
	return at;
}

static void
watching_follows_the_agent(void **state)
{
	(void)state;
	struct world w;
	struct tool t;
	world_simple(&w, 2, NULL, NULL);
	tool_up(&t, "signalbox", (const char *[]){ "health", "--json", "--watch=0.05", "--socket", w.socket, NULL }, NULL, 0);
	size_t at = wait_line(&t, 0, "serving", 1);
	world_agent_signal(&w, SIGHUP);
	at = wait_line(&t, at, "serving", 2);
	int64_t accepts = agent_number(&w, "loop.accepts");
	at = wait_line(&t, at, "serving", 2);
	at = wait_line(&t, at, "serving", 2);
	assert_int_equal(agent_number(&w, "loop.accepts"), accepts + 1); /* ours: the tool does not connect to look */
	world_agent_signal(&w, SIGKILL);
	(void)world_agent_wait(&w, 5000);
	at = wait_line(&t, at, "dead", 2);
	world_agent_start(&w, NULL, &(struct start){ 0 });
	at = wait_line(&t, at, "serving", 1);
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	at = wait_line(&t, at, "stopped", 1);
	assert_int_equal(kill(t.pid, SIGINT), 0);
	assert_int_equal(tool_down(&t, 10000), 130);
	for (const char *line = t.said, *end; (end = strchr(line, '\n')); line = end + 1) { /* each is an object by itself */
		json_t *j = json_loadb(line, (size_t)(end - line), 0, NULL);
		assert_non_null(j);
		json_decref(j);
	}
	free(t.said);
	world_down(&w);
}

static void
watching_on_a_terminal(void **state)
{
	(void)state;
	struct world w;
	struct tool t;
	world_simple(&w, 2, NULL, NULL);
	for (int colour = 0; colour < 2; colour++) {
		const char *const env[] = { "COLUMNS", "TERM=xterm", colour ? "NO_COLOR" : "NO_COLOR=1", NULL };
		tool_up(&t, "signalbox", (const char *[]){ "health", "--watch", "0.05", "--socket", w.socket, NULL }, env, 60);
		size_t at = tool_wait(&t, 0, "\033[H", 20000);
		at = tool_wait(&t, at, "2 targets", 20000);
		at = tool_wait(&t, at, "\033[J", 20000);
		at = tool_wait(&t, at, "\033[H", 20000); /* again, over the first */
		(void)tool_wait(&t, at, "\033[J", 20000);
		assert_int_equal(write(t.fd, "\003", 1), 1); /* Ctrl-C */
		assert_int_equal(tool_down(&t, 10000), 130);
		has(t.said, "\033[K\r\n");
		if (colour)
			has(t.said, "\033[32mserving");
		else
			has_not(t.said, "\033[32m");
		has_not(t.said, "p99"); /* not at 60 columns */
		free(t.said);
	}
	tool_up(&t, "signalbox", (const char *[]){ "health", "--watch=0.05", "--socket", w.socket, NULL }, NULL, 0); /* one table after another */
	size_t at = tool_wait(&t, 0, "signalboxd serving", 20000);
	(void)tool_wait(&t, at, "\n\nsignalboxd serving", 20000);
	assert_int_equal(kill(t.pid, SIGINT), 0);
	assert_int_equal(tool_down(&t, 10000), 130);
	has_not(t.said, "\033");
	free(t.said);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_is_well),
		cmocka_unit_test(something_is_not),
		cmocka_unit_test(what_is_shown_is_what_counts),
		cmocka_unit_test(names_and_missing_keys),
		cmocka_unit_test(what_it_costs),
		cmocka_unit_test(hung_then_dead),
		cmocka_unit_test(stopped_in_order),
		cmocka_unit_test(no_facts),
		cmocka_unit_test(watching_follows_the_agent),
		cmocka_unit_test(watching_on_a_terminal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
