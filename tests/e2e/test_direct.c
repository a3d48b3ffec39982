/* SPDX-License-Identifier: Apache-2.0 */
/* test_direct.c -- `signalbox ask --direct`: an answer though the agent is dead, hung, or never was; and the key stays where it belongs. */
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

static const char *const clean[] = { "SIGNALBOX_SOCKET", "SSL_CERT_FILE", "http_proxy=http://127.0.0.1:1", NULL };

/* `signalbox ask --direct` with these arguments and "hi". Exit status; what it said, output and errors. */
static int
direct_env(const struct world *w, const char *const *env, char **ret_said, const char *const *args)
{
	const char *argv[24] = { "ask", "--direct", "--socket", w->socket, "hi" };
	for (int i = 0; args[i]; i++)
		argv[5 + i] = args[i];
	int status = tool_run("signalbox", argv, env, ret_said);
	assert_null(strstr(*ret_said, WORLD_KEY)); /* whatever happened */
	return status;
}
#define DIRECT(w, said, ...) direct_env(w, clean, said, (const char *[]){ __VA_ARGS__, NULL })

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
kill_agent(struct world *w)
{
	world_agent_signal(w, SIGKILL);
	(void)world_agent_wait(w, 5000);
	w->agent = 0;
}

static void
it_answers_without_an_agent(void **state)
{
	(void)state;
	static const struct {
		const char *args[6];
		const char *want;
	} cases[] = {
		{ { "-r", "r" }, "\nhello from a\n" },
		{ { "-r", "r", "--stream" }, "\nhello from a\n" },
		{ { "-m", "b/m" }, "\nhello from b\n" },
		{ { "-m", "m" }, "\nhello from a\n" },          /* all that have it, in their order */
		{ { "-m", "b/of-no-route" }, "\nhello from b\n" }, /* of a provider that is known */
		{ { "-t", "b/m", "-t", "a/m" }, "\nhello from b\n" },
		{ { "-r", "r", "-v" }, "not accounted for\n" },
	};
	struct world w;
	char *said;
	world_simple(&w, 2, NULL, NULL);
	kill_agent(&w);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(direct_env(&w, clean, &said, cases[i].args), 0);
		has(said, "past the agent, which is dead: whom to ask is from ");
		has(said, " old; nobody accounts for this\n");
		has(said, cases[i].want);
		free(said);
	}
	assert_int_equal(DIRECT(&w, &said, "-r", "r", "-q", "--json"), 0);
	json_t *j = json_loads(said, 0, NULL);
	assert_non_null(j);
	assert_string_equal(json_string_value(json_object_get(j, "text")), "hello from a");
	assert_string_equal(json_string_value(json_object_get(j, "finish")), "stop");
	assert_string_equal(json_string_value(json_object_get(j, "target")), "a/m");
	assert_true(json_is_true(json_object_get(j, "direct")) && json_is_null(json_object_get(j, "error")));
	assert_true(json_is_null(json_object_get(j, "cost_nanousd")) && json_array_size(json_object_get(j, "attempts")) == 1);
	assert_true(json_integer_value(json_object_get(json_object_get(j, "usage"), "completion_tokens")) > 0);
	json_decref(j);
	free(said);
	assert_int_equal(DIRECT(&w, &said, "-r", "r", "-q", "--json", "--stream"), 0);
	has(said, "{\"event\":\"target\",\"target\":\"a/m\"}\n");
	has(said, "{\"event\":\"text\",\"choice\":0,\"text\":\"");
	has(said, "{\"event\":\"done\",");
	free(said);
	assert_int_equal(DIRECT(&w, &said, "-r", "rr"), 64);
	has(said, "there is no route \"rr\"");
	free(said);
	assert_int_equal(DIRECT(&w, &said, "-m", "nobody/m"), 64);
	free(said);
	world_down(&w);
}

/* Tool calls, reasoning, choices: the same as the agent's client shows. */
static void
the_same_is_shown(void **state)
{
	(void)state;
	static const char *const rules[] = { "m: tool=2", "m: reasoning=3", "m: choices=2", "m: tokens=50" };
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
		for (int stream = 0; stream < 2; stream++) {
			char *said[2];
			double_rules(&w, 0, rules[i]);
			for (int d = 0; d < 2; d++)
				assert_int_equal(tool_run("signalbox", (const char *[]){ "ask", "-r", "r", "-q", "--reasoning", "--socket", w.socket, "hi",
				                                                         stream ? "--stream" : "--no-stream", d ? "--direct" : NULL, NULL }, clean, &said[d]), 0);
			if (i == 0) /* ids of calls are new each time; their names and arguments are not */
				assert_non_null(strchr(said[1], '('));
			assert_string_equal(said[0], said[1]);
			free(said[0]);
			free(said[1]);
		}
	}
	world_down(&w);
}

static void
failing_over(void **state)
{
	(void)state;
	static const struct {
		const char *rule;
		bool stream;
		int status;           /* of the command */
		const char *want;
		int seen_by_b;
	} cases[] = {
		{ "m: status=429", false, 0, "\nhello from b\n", 1 },
		{ "m: status=503", true, 0, "\nhello from b\n", 1 },
		{ "m: status=500", false, 0, "a/m: HTTP 500", 1 },
		{ "m: status=401", false, 0, "a/m: HTTP 401", 1 },
		{ "m: status=404", false, 0, "\nhello from b\n", 1 },
		{ "m: accept-close", false, 0, "\nhello from b\n", 1 },
		{ "m: close-before", true, 0, "a/m may have carried it out, and bill it", 1 },
		{ "m: empty", false, 0, "\nhello from b\n", 1 },
		{ "m: html", true, 0, "the provider's answer is not JSON", 1 },
		{ "m: status=400", false, 1, "rejected (400): HTTP 400", 0 },
		{ "m: tokens=20,cut-tokens=5", true, 1, "stream_broken (502): ", 0 },
		{ NULL, false, 0, "a/m: HTTP 307", 1 }, /* a redirect to b would take the key of a there */
	};
	struct world w;
	char *said, redirect[128];
	world_simple(&w, 2, NULL, NULL);
	kill_agent(&w);
	(void)snprintf(redirect, sizeof redirect, "m: status=307,header=Location:http://127.0.0.1:%d/v1/chat/completions", w.dbl[1].http_port);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		int before = double_requests(&w, 1);
		double_rules(&w, 0, cases[i].rule ? cases[i].rule : redirect);
		int status = DIRECT(&w, &said, "-r", "r", cases[i].stream ? "--stream" : "--no-stream");
		if (status != cases[i].status || !strstr(said, cases[i].want) || double_requests(&w, 1) - before != cases[i].seen_by_b)
			fail_msg("case %zu: exit %d:\n%s", i, status, said);
		free(said);
	}
	double_rules(&w, 0, "m: status=500");
	double_rules(&w, 1, "m: status=429,retry-after=7");
	assert_int_equal(DIRECT(&w, &said, "-r", "r", "--json", "-q"), 1);
	json_t *j = json_loads(said, 0, NULL), *error = json_object_get(j, "error"); /* of all failures the one that waiting mends */
	assert_string_equal(json_string_value(json_object_get(error, "code")), "rate_limited");
	assert_int_equal(json_integer_value(json_object_get(error, "retry_after_ms")), 7000);
	assert_int_equal(json_array_size(json_object_get(j, "attempts")), 2);
	json_decref(j);
	free(said);
	double_rules(&w, 1, "m: hang");
	assert_int_equal(DIRECT(&w, &said, "-r", "r", "--deadline", "0.5"), 1);
	has(said, "timeout (504): the deadline passed");
	free(said);
	world_down(&w);
}

/* Not in the arguments of the process, not in what it prints, not behind a redirect; and a cancel ends the call. */
static void
the_key_stays_where_it_belongs(void **state)
{
	(void)state;
	struct world w;
	struct tool t;
	char *said, *cmdline, path[64];
	size_t n;
	world_simple(&w, 1, NULL, NULL);
	kill_agent(&w);
	double_rules(&w, 0, "m: status=401,body={\"error\":\"no such key: " WORLD_KEY "\"}");
	assert_int_equal(DIRECT(&w, &said, "-r", "r", "-v"), 1);
	has(said, "no such key: ****");
	free(said);
	double_rules(&w, 0, "m: hang");
	int before = double_requests(&w, 0);
	tool_up(&t, "signalbox", (const char *[]){ "ask", "--direct", "--socket", w.socket, "-r", "r", "hi", NULL }, clean, 0);
	for (uint64_t until = now_ms() + 20000; double_requests(&w, 0) == before; (void)usleep(2000))
		assert_true(now_ms() < until);
	(void)snprintf(path, sizeof path, "/proc/%d/cmdline", (int)t.pid);
	cmdline = read_whole(path, &n);
	assert_non_null(cmdline);
	assert_null(memmem(cmdline, n, WORLD_KEY, strlen(WORLD_KEY)));
	assert_non_null(memmem(cmdline, n, "--direct", 8));
	free(cmdline);
	assert_int_equal(kill(t.pid, SIGINT), 0);
	assert_int_equal(tool_down(&t, 10000), 130);
	assert_null(strstr(t.said, WORLD_KEY));
	free(t.said);
	world_down(&w);
}

static void
where_keys_are(void **state)
{
	(void)state;
	static const char *const with_env[] = { "SIGNALBOX_SOCKET", "SBX_TEST_KEY=" WORLD_KEY, NULL };
	static const char *const bad_env[] = { "SIGNALBOX_SOCKET", "SBX_TEST_KEY=two\nlines", NULL };
	struct world w;
	char *said, path[200], credentials[200];
	world_up(&w);
	write_file(&w, "one", WORLD_KEY, strlen(WORLD_KEY), path, sizeof path);
	assert_int_equal(chmod(path, 0400), 0);
	(void)snprintf(credentials, sizeof credentials, "CREDENTIALS_DIRECTORY=%s", w.dir);
	for (int i = 0; i < 4; i++)
		(void)world_double(&w, (const char *[]){ "a", "b", "c", "d" }[i], i == 3 ? (const char *[]){ DOUBLE_ANY_KEY, NULL } : NULL);
	world_agent_start(&w, "{\"providers\": {\"a\": {\"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"env:SBX_TEST_KEY\"}, "
	                      "\"b\": {\"dialect\": \"openai-chat\", \"base_url\": \"$1\", \"key\": \"cred:one\"}, "
	                      "\"c\": {\"dialect\": \"openai-chat\", \"base_url\": \"$2\", \"key\": \"$KEY\"}, "
	                      "\"d\": {\"dialect\": \"openai-chat\", \"base_url\": \"$3\", \"key\": \"none\"}}, "
	                      "\"routes\": {\"r\": {\"targets\": [\"a/m\", \"b/m\", \"c/m\"]}}}",
	                  &(struct start){ .env = (const char *[]){ "SBX_TEST_KEY=" WORLD_KEY, credentials, NULL } });
	kill_agent(&w);
	assert_int_equal(DIRECT(&w, &said, "-r", "r"), 0);
	has(said, "a/m: its key is not in your environment: set SBX_TEST_KEY\n");
	has(said, "b/m: its key is the systemd credential one, which only the agent's unit can read\n");
	has(said, "\nhello from c\n");
	free(said);
	assert_int_equal(direct_env(&w, with_env, &said, (const char *[]){ "-r", "r", NULL }), 0);
	has(said, "\nhello from a\n");
	free(said);
	assert_int_equal(direct_env(&w, bad_env, &said, (const char *[]){ "-m", "a/m", NULL }), 1);
	has(said, "what env:SBX_TEST_KEY holds is no key");
	free(said);
	assert_int_equal(DIRECT(&w, &said, "-m", "b/m"), 1);
	has(said, "unreachable (502): ");
	free(said);
	assert_int_equal(DIRECT(&w, &said, "-m", "d/m"), 0); /* it wants none */
	has(said, "\nhello from d\n");
	free(said);
	world_down(&w);
}

static void
certificates_are_checked(void **state)
{
	(void)state;
	struct world w;
	char *said, ca[200];
	world_up(&w);
	(void)world_double(&w, "a", (const char *[]){ "--tls-listen", "127.0.0.1:0", NULL });
	world_agent(&w, "{\"providers\": {\"a\": {\"dialect\": \"openai-chat\", \"base_url\": \"$T0\", \"key\": \"$KEY\", \"ca_file\": \"$CA0\"}}, "
	                "\"routes\": {\"r\": {\"targets\": [\"a/m\"]}}}", NULL);
	kill_agent(&w);
	assert_int_equal(DIRECT(&w, &said, "-r", "r"), 1);
	has(said, "unreachable (502): ");
	has(said, "certificate");
	assert_int_equal(double_requests(&w, 0), 0);
	free(said);
	(void)snprintf(ca, sizeof ca, "SSL_CERT_FILE=%s/a-cert/ca.pem", w.dir);
	assert_int_equal(direct_env(&w, (const char *[]){ "SIGNALBOX_SOCKET", ca, NULL }, &said, (const char *[]){ "-r", "r", NULL }), 0);
	has(said, "\nhello from a\n");
	free(said);
	world_down(&w);
}

/* ---- where one learns whom to call ---- */

static void
hung_or_living_agents(void **state)
{
	(void)state;
	struct world w;
	char *said;
	world_simple(&w, 1, NULL, NULL);
	int64_t requests = agent_number(&w, "requests");
	assert_int_equal(DIRECT(&w, &said, "-r", "r"), 0);
	has(said, "past the agent, which is serving: nobody accounts for this\n"); /* from its memory, and no request of it */
	free(said);
	assert_int_equal(agent_number(&w, "requests"), requests);
	world_agent_signal(&w, SIGSTOP);
	assert_int_equal(DIRECT(&w, &said, "-r", "r"), 0);
	has(said, "past the agent, which is hung: ");
	has(said, "\nhello from a\n");
	free(said);
	world_agent_signal(&w, SIGCONT);
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	assert_int_equal(DIRECT(&w, &said, "-r", "r"), 0);
	has(said, "past the agent, which is stopped: ");
	free(said);
	world_down(&w);
}

static void
snapshots_good_and_bad(void **state)
{
	(void)state;
	struct world w;
	char *said, *whole, path[200];
	size_t n;
	world_up(&w);
	assert_int_equal(DIRECT(&w, &said, "-r", "r"), 2);
	has(said, "without the agent nobody knows whom to ask: ");
	has(said, "no snapshot in ");
	free(said);
	world_down(&w);

	world_simple(&w, 1, NULL, NULL);
	kill_agent(&w);
	(void)snprintf(path, sizeof path, "%s/board.snapshot", w.dir);
	whole = read_whole(path, &n);
	assert_non_null(whole);

	((struct sbx_board_header *)(void *)whole)->heartbeat_unix_ns -= 3ull * 86400 * 1000000000; /* of an earlier boot */
	((struct sbx_board_header *)(void *)whole)->boot_id[0]++;
	write_file(&w, "old", whole, n, path, sizeof path);
	assert_int_equal(chmod(path, 0400), 0);
	assert_int_equal(DIRECT(&w, &said, "-r", "r", "--snapshot", path), 0);
	has(said, ", 3 days old;");
	has(said, "\nhello from a\n");
	free(said);

	assert_int_equal(chmod(path, 0622), 0); /* who could have written it? */
	assert_int_equal(DIRECT(&w, &said, "-r", "r", "--snapshot", path), 2);
	has(said, "is open for others to write");
	has_not(said, "hello");
	free(said);

	write_file(&w, "short", whole, n / 2, path, sizeof path);
	assert_int_equal(DIRECT(&w, &said, "-r", "r", "--snapshot", path), 2);
	has(said, "cut short");
	free(said);

	char *dialect = memmem(whole, n, "openai-chat", 12);
	assert_non_null(dialect);
	memcpy(dialect, "other-words", 11);
	write_file(&w, "dialect", whole, n, path, sizeof path);
	assert_int_equal(chmod(path, 0400), 0);
	assert_int_equal(DIRECT(&w, &said, "-r", "r", "--snapshot", path), 1);
	has(said, "it speaks the dialect other-words; --direct speaks openai-chat only");
	free(said);
	free(whole);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_answers_without_an_agent),
		cmocka_unit_test(the_same_is_shown),
		cmocka_unit_test(failing_over),
		cmocka_unit_test(the_key_stays_where_it_belongs),
		cmocka_unit_test(where_keys_are),
		cmocka_unit_test(certificates_are_checked),
		cmocka_unit_test(hung_or_living_agents),
		cmocka_unit_test(snapshots_good_and_bad),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
