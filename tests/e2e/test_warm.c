/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_warm.c -- connections opened ahead of need: there when they are wanted, and nowhere to be seen otherwise.
 *
 * The doubles speak TLS, and count handshakes and warm-ups apart from requests; a rule for "/warm" breaks warm-ups alone.
 */
#include "tests/e2e/harness.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/e2e/control.h"
#include "tests/e2e/fault.h"
#include "tests/e2e/proxy.h"

static const char *const tls[] = { "--tls-listen", "127.0.0.1:0", NULL };
static const char *const tls_h2[] = { "--tls-listen", "127.0.0.1:0", "--http2", NULL };

/* "warm_ups" and "tls_handshakes" of a double's stats. */
static int
double_stat(struct world *w, int n, const char *name)
{
	char *text = double_get(w, n, "GET", "/mock/stats", NULL, NULL);
	json_t *j = json_loads(text, 0, NULL), *v = json_object_get(j, name);
	if (!json_is_integer(v))
		fail_msg("no number %s in %s", name, text);
	int number = (int)json_integer_value(v);
	json_decref(j);
	free(text);
	return number;
}

static void
wait_stat(struct world *w, int n, const char *name, int at_least, int timeout_ms)
{
	uint64_t until = now_ms() + (uint64_t)timeout_ms;
	int number;
	while ((number = double_stat(w, n, name)) < at_least) {
		if (now_ms() > until)
			fail_msg("%s is %d after %d ms, not %d", name, number, timeout_ms, at_least);
		pause_ms(5);
	}
}

/* That something does not happen can only be seen by looking for a while. */
static void
assert_stays(struct world *w, int n, const char *name, int number, int for_ms)
{
	for (uint64_t until = now_ms() + (uint64_t)for_ms; now_ms() < until; pause_ms(20))
		assert_int_equal(double_stat(w, n, name), number);
}

/* Doubles a, b ... over TLS, each with the route of its name, and r over all of them. `warm`: the top level's, or "". */
static void
world_tls(struct world *w, int n, const char *const *args, const char *http, const char *warm)
{
	static const char *const names[] = { "a", "b", "c" };
	char config[2048], *at = config, *end = config + sizeof config;
	world_up(w);
	at += snprintf(at, (size_t)(end - at), "{ %s \"providers\": {", warm);
	for (int i = 0; i < n; i++) {
		(void)world_double(w, names[i], args);
		at += snprintf(at, (size_t)(end - at), "%s \"%s\": { \"base_url\": \"$T%d\", \"ca_file\": \"$CA%d\", \"http\": \"%s\", \"key\": \"$KEY\" }", i ? "," : "", names[i],
		               i, i, http);
	}
	at += snprintf(at, (size_t)(end - at), "}, \"routes\": {");
	for (int i = 0; i < n; i++)
		at += snprintf(at, (size_t)(end - at), " \"%s\": { \"targets\": [\"%s/m\"] },", names[i], names[i]);
	at += snprintf(at, (size_t)(end - at), " \"r\": { \"targets\": [");
	for (int i = 0; i < n; i++)
		at += snprintf(at, (size_t)(end - at), "%s\"%s/m\"", i ? ", " : "", names[i]);
	(void)snprintf(at, (size_t)(end - at), "] } } }");
	world_agent(w, config, NULL);
}

static void
assert_connection(struct sbx_client *c, const char *route, const char *want)
{
	struct sbx_attempt_info info;
	struct sbx_reply *r = ask_body(c, route, NULL, BODY, true, 10000);
	if (!sbx_reply_ok(r))
		fail_msg("%s", sbx_reply_message(r));
	assert_int_equal(sbx_reply_attempts(r), 1);
	assert_true(sbx_reply_attempt(r, 0, &info));
	assert_string_equal(info.connection, want);
	sbx_reply_free(r);
}

/* Two workers that have only just come, at the same moment. */
static void
assert_both_reuse(struct world *w, const char *route)
{
	struct sbx_client *c[2] = { client_up(w), client_up(w) };
	struct sbx_request_options o = SBX_REQUEST_INIT;
	struct sbx_attempt_info info;
	struct sbx_event ev;
	uint64_t id;
	o.route = route;
	o.body = BODY;
	o.body_bytes = strlen(BODY);
	o.stream = true;
	for (int i = 0; i < 2; i++)
		assert_int_equal(sbx_submit(c[i], &o, &id), 0);
	for (int i = 0; i < 2; i++) {
		do
			assert_int_equal(sbx_next(c[i], 10000, &ev), 0);
		while (!ev.last);
		assert_true(sbx_reply_ok(ev.reply) && sbx_reply_attempt(ev.reply, 0, &info));
		assert_string_equal(info.connection, "reused");
		sbx_close(c[i]);
	}
}

static int
lines_with(struct world *w, const char *text)
{
	int n = 0;
	char *log = read_whole(w->log_path, NULL);
	for (const char *p = log; p && (p = strstr(p, text)); p++)
		n++;
	free(log);
	return n;
}

/* ---- there when wanted ---- */

static void
the_first_request_to_each_target_finds_a_connection(void **state)
{
	(void)state;
	struct world w;
	world_tls(&w, 3, tls, "1.1", "");
	agent_wait_number(&w, "warm_ups", 6, 10000);
	struct sbx_client *c = client_up(&w);
	assert_connection(c, "a", "reused");
	assert_connection(c, "b", "reused");
	assert_connection(c, "c", "reused");
	for (int i = 0; i < 3; i++) {
		assert_int_equal(double_stat(&w, i, "tls_handshakes"), 2);
		assert_int_equal(double_requests(&w, i), 1);
	}
	sbx_close(c);
	world_down(&w);
}

static void
two_fresh_workers_at_once_find_two(void **state)
{
	(void)state;
	struct world w;
	world_tls(&w, 1, tls, "1.1", "");
	double_rules(&w, 0, "m: first=300ms"); /* long enough for both to be there at once */
	agent_wait_number(&w, "warm_ups", 2, 10000);
	assert_both_reuse(&w, "a");
	assert_int_equal(double_stat(&w, 0, "tls_handshakes"), 2);
	world_down(&w);
}

static void
one_is_enough_for_many_where_it_multiplexes(void **state)
{
	(void)state;
	struct world w;
	world_tls(&w, 1, tls_h2, "2", "");
	double_rules(&w, 0, "m: first=300ms");
	agent_wait_number(&w, "warm_ups", 1, 10000);
	assert_both_reuse(&w, "a");
	assert_int_equal(double_stat(&w, 0, "tls_handshakes"), 1);
	assert_int_equal(double_stat(&w, 0, "warm_ups"), 1);
	world_down(&w);
}

static void
through_a_proxy_too(void **state)
{
	(void)state;
	struct world w;
	static struct proxy p; /* its threads outlive a test that fails */
	char config[600];
	world_up(&w);
	(void)world_double(&w, "a", tls);
	proxy_up(&p, 0);
	(void)snprintf(config, sizeof config,
	               "{ \"providers\": { \"a\": { \"base_url\": \"$T0\", \"ca_file\": \"$CA0\", \"proxy\": \"http://127.0.0.1:%d\", \"key\": \"$KEY\" } },"
	               " \"routes\": { \"r\": { \"targets\": [\"a/m\"] } } }",
	               p.port);
	world_agent(&w, config, NULL);
	agent_wait_number(&w, "warm_ups", 2, 10000);
	assert_int_equal(p.n_connects, 2);
	struct sbx_client *c = client_up(&w);
	assert_connection(c, "r", "reused");
	assert_int_equal(p.n_connects, 2);
	sbx_close(c);
	world_down(&w);
	proxy_down(&p);
}

#define RELOADED(route) \
	"{ \"providers\": { \"a\": { \"base_url\": \"$T0\", \"ca_file\": \"$CA0\", \"key\": \"$KEY\" }, \"b\": { \"base_url\": \"$T1\", \"ca_file\": \"$CA1\", \"key\": \"$KEY\" } }," \
	" \"routes\": { \"r\": { \"targets\": [\"" route "/m\"] } } }"

/* What no route names is left alone until it is used; a reload that names it, or a use, changes that. */
static void
after_a_reload_and_after_a_use(void **state)
{
	(void)state;
	for (int reload = 0; reload < 2; reload++) {
		struct world w;
		world_up(&w);
		(void)world_double(&w, "a", tls);
		(void)world_double(&w, "b", tls);
		double_rules(&w, 1, "/warm: headers-delay=50ms"); /* as over a network; here one could be answered before the next begins */
		world_agent(&w, RELOADED("a"), NULL);
		agent_wait_number(&w, "warm_ups", 2, 10000);
		assert_int_equal(double_stat(&w, 1, "tls_handshakes"), 0);
		struct sbx_client *c = client_up(&w);
		if (reload) {
			world_reconfigure(&w, RELOADED("b"));
			world_agent_signal(&w, SIGHUP);
			agent_wait_number(&w, "warm_ups", 4, 10000);
			assert_connection(c, "r", "reused");
		} else {
			struct answer a = answer_of(c, &(struct question){ .targets = { "b/m" } });
			assert_true(a.ok);
			answer_free(&a);
			agent_wait_number(&w, "warm_ups", 4, 10000);
		}
		assert_int_equal(double_stat(&w, 1, "tls_handshakes"), 2); /* where it was used, the use's own is one of them */
		sbx_close(c);
		world_down(&w);
	}
}

/* ---- only while there is traffic ---- */

static void
closed_while_idle_is_opened_again_while_there_is_traffic(void **state)
{
	(void)state;
	struct world w;
	world_tls(&w, 1, tls, "1.1", "\"warm\": { \"every_ms\": 200, \"after_use_ms\": 2000 },");
	agent_wait_number(&w, "warm_ups", 2, 10000);
	free(double_get(&w, 0, "POST", "/mock/close-idle", NULL, NULL));
	assert_stays(&w, 0, "tls_handshakes", 2, 800); /* nobody has asked yet */

	struct sbx_client *c = client_up(&w);
	assert_connection(c, "a", "new");
	wait_stat(&w, 0, "tls_handshakes", 4, 5000);
	agent_wait_at_rest(&w, 5000);
	free(double_get(&w, 0, "POST", "/mock/close-idle", NULL, NULL));
	wait_stat(&w, 0, "tls_handshakes", 6, 5000); /* without another request */
	agent_wait_at_rest(&w, 5000);
	assert_connection(c, "a", "reused");
	assert_int_equal(double_requests(&w, 0), 2);

	/* And that was all: some time after the last use it ends. */
	uint64_t until = now_ms() + 20000;
	for (int last = -1, now; last != (now = double_stat(&w, 0, "warm_ups")); pause_ms(600)) {
		assert_true(now_ms() < until);
		last = now;
	}
	int handshakes = double_stat(&w, 0, "tls_handshakes");
	free(double_get(&w, 0, "POST", "/mock/close-idle", NULL, NULL));
	assert_stays(&w, 0, "tls_handshakes", handshakes, 800);
	sbx_close(c);
	world_down(&w);
}

/* ---- where it is not wanted ---- */

static void
a_provider_that_refuses_warm_ups_is_not_hammered(void **state)
{
	(void)state;
	static const char *const rule[] = { "/warm: status=503", "/warm: status=429", "/warm: close-before", "/warm: hang" };
	for (size_t i = 0; i < sizeof rule / sizeof rule[0]; i++) {
		struct world w;
		world_up(&w);
		(void)world_double(&w, "a", tls);
		double_rules(&w, 0, rule[i]);
		world_agent(&w,
		            "{ \"warm\": { \"every_ms\": 100 }, \"timeouts\": { \"connect_ms\": 500 },"
		            " \"providers\": { \"a\": { \"base_url\": \"$T0\", \"ca_file\": \"$CA0\", \"key\": \"$KEY\" } }, \"routes\": { \"r\": { \"targets\": [\"a/m\"] } } }",
		            NULL);
		struct sbx_client *c = client_up(&w);
		int asked = 0;
		agent_wait_number(&w, "warm_ups_failed", 2, 10000); /* hang: its time is over after a while */
		for (uint64_t until = now_ms() + 1500; now_ms() < until; asked++) { /* all the while it is in use, and well */
			struct sbx_reply *r = ask(c, false, 10000);
			assert_true(sbx_reply_ok(r) && sbx_reply_attempts(r) == 1);
			sbx_reply_free(r);
			pause_ms(20);
		}
		/* After 100, 200, 400, 800 ms: at most 5 rounds of 2 in that time; 15 without the doubling. */
		assert_in_range(double_stat(&w, 0, "warm_ups"), 2, 12);
		assert_int_equal(lines_with(&w, "warm_up_failed"), 1);
		assert_int_equal(agent_number(&w, "attempts"), asked);
		assert_int_equal(agent_number(&w, "attempts_failed"), 0);
		assert_int_equal(agent_number(&w, "target.a/m.failures"), 0);
		assert_int_equal(agent_number(&w, "target.a/m.refusals"), 0);
		assert_int_equal(double_requests(&w, 0), asked);
		double_rules(&w, 0, "");
		agent_wait_number(&w, "warm_ups", 2, 10000);
		assert_int_equal(lines_with(&w, "warm_up_failed"), 1);
		assert_int_equal(lines_with(&w, "warm_up_well"), 1);
		sbx_close(c);
		world_down(&w);
	}
}

static void
one_that_is_down_or_throttled_is_left_alone(void **state)
{
	(void)state;
	static const char *const rule[] = { "m: status=500", "m: status=429,retry-after=60" };
	for (size_t i = 0; i < sizeof rule / sizeof rule[0]; i++) {
		struct world w;
		world_tls(&w, 2, tls, "1.1", "\"warm\": { \"every_ms\": 100 },");
		struct sbx_client *c = client_up(&w);
		double_rules(&w, 0, rule[i]);
		for (int n = 0; n < 4; n++) {
			struct sbx_reply *r = ask(c, false, 10000);
			assert_true(sbx_reply_ok(r)); /* by b */
			sbx_reply_free(r);
		}
		agent_wait_at_rest(&w, 5000);
		int now = double_stat(&w, 0, "warm_ups"), other = double_stat(&w, 1, "warm_ups");
		wait_stat(&w, 1, "warm_ups", other + 6, 10000); /* its rounds go on meanwhile */
		assert_int_equal(double_stat(&w, 0, "warm_ups"), now);
		sbx_close(c);
		world_down(&w);
	}
}

static void
one_that_is_not_there_is_told_once(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	(void)world_double(&w, "a", tls);
	assert_int_equal(kill(w.dbl[0].pid, SIGSTOP), 0); /* keeps the port; its kernel takes connections, and nobody speaks TLS */
	world_agent(&w,
	            "{ \"warm\": { \"every_ms\": 100 }, \"timeouts\": { \"connect_ms\": 200 },"
	            " \"providers\": { \"a\": { \"base_url\": \"$T0\", \"ca_file\": \"$CA0\", \"key\": \"$KEY\" }, \"b\": { \"base_url\": \"https://127.0.0.1:1/v1\", \"key\": \"$KEY\" } },"
	            " \"routes\": { \"r\": { \"targets\": [\"a/m\", \"b/m\"] } } }",
	            NULL);
	for (uint64_t until = now_ms() + 20000; lines_with(&w, "warm_up_failed") < 2; pause_ms(20))
		assert_true(now_ms() < until);
	agent_wait_number(&w, "warm_ups_failed", agent_number(&w, "warm_ups_failed") + 4, 20000);
	assert_int_equal(lines_with(&w, "warm_up_failed"), 2); /* one for each */
	assert_int_equal(agent_number(&w, "attempts"), 0);
	assert_int_equal(agent_number(&w, "target.a/m.failures"), 0);
	assert_int_equal(kill(w.dbl[0].pid, SIGCONT), 0);
	agent_wait_number(&w, "warm_ups", 2, 20000); /* it was owed to it */
	world_down(&w);
}

/* Not at all: as configured, at either level; and, unless it is asked for, over plain HTTP. */
static void
off_means_that_nothing_is_opened(void **state)
{
	(void)state;
	static const char provider[] = "\"ca_file\": \"$CA0\", \"key\": \"$KEY\"";
	static const struct { const char *top, *url, *own; int warm_ups; } cases[] = {
		{ "\"warm\": false,", "$T0", "", 0 },
		{ "", "$T0", "\"warm\": false,", 0 },
		{ "\"warm\": true,", "$T0", "\"warm\": false,", 0 },
		{ "\"warm\": true,", "$0", "", 0 },
		{ "\"warm\": false,", "$T0", "\"warm\": { \"connections\": 3 },", 3 },
		{ "", "$0", "\"warm\": true,", 2 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct world w;
		char config[600];
		world_up(&w);
		(void)world_double(&w, "a", tls);
		(void)snprintf(config, sizeof config, "{ %s \"providers\": { \"a\": { \"base_url\": \"%s\", %s %s } }, \"routes\": { \"r\": { \"targets\": [\"a/m\"] } } }", cases[i].top,
		               cases[i].url, cases[i].own, provider);
		world_agent(&w, config, NULL);
		if (cases[i].warm_ups)
			agent_wait_number(&w, "warm_ups", cases[i].warm_ups, 10000);
		assert_stays(&w, 0, "warm_ups", cases[i].warm_ups, 400);
		struct sbx_client *c = client_up(&w);
		assert_connection(c, "r", cases[i].warm_ups ? "reused" : "new");
		assert_connection(c, "r", "reused");
		assert_int_equal(agent_number(&w, "upstream.connections"), cases[i].warm_ups ? cases[i].warm_ups : 1);
		sbx_close(c);
		world_down(&w);
	}
}

/* ---- what it is not ---- */

static void
a_warm_up_carries_no_key_and_is_no_request(void **state)
{
	(void)state;
	struct world w;
	char said[200];
	world_up(&w);
	(void)snprintf(said, sizeof said, "%s/requests", w.dir);
	(void)world_double(&w, "a", (const char *const[]){ "--tls-listen", "127.0.0.1:0", "--log", said, NULL });
	world_agent(&w,
	            "{ \"store\": \"$DIR/store.db\", \"providers\": { \"a\": { \"base_url\": \"$T0\", \"ca_file\": \"$CA0\", \"key\": \"$KEY\" } },"
	            " \"routes\": { \"r\": { \"targets\": [\"a/m\"] } } }",
	            NULL);
	agent_wait_number(&w, "warm_ups", 2, 10000);
	char *log = read_whole(said, NULL);
	int lines = 0;
	for (char *line = strtok(log, "\n"); line; line = strtok(NULL, "\n"), lines++) {
		assert_non_null(strstr(line, "\"method\":\"HEAD\",\"path\":\"/v1/models\""));
		assert_non_null(strstr(line, "\"status\":401")); /* a stranger, but one whose connection stands */
		assert_non_null(strstr(line, "\"authorization\":null"));
	}
	assert_int_equal(lines, 2);
	free(log);
	static const char *const none[] = { "requests", "attempts", "attempts_failed", "upstream.calls", "target.a/m.attempts", "target.a/m.successes",
		                            "target.a/m.failures", "target.a/m.refusals", "target.a/m.first_content_p50_ms", "store.queued", "store.committed" };
	for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
		assert_int_equal(agent_number(&w, none[i]), 0);
	assert_int_equal(lines_with(&w, "event=attempt"), 0);
	assert_int_equal(double_requests(&w, 0), 0);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_request_to_each_target_finds_a_connection),
		cmocka_unit_test(two_fresh_workers_at_once_find_two),
		cmocka_unit_test(one_is_enough_for_many_where_it_multiplexes),
		cmocka_unit_test(through_a_proxy_too),
		cmocka_unit_test(after_a_reload_and_after_a_use),
		cmocka_unit_test(closed_while_idle_is_opened_again_while_there_is_traffic),
		cmocka_unit_test(a_provider_that_refuses_warm_ups_is_not_hammered),
		cmocka_unit_test(one_that_is_down_or_throttled_is_left_alone),
		cmocka_unit_test(one_that_is_not_there_is_told_once),
		cmocka_unit_test(off_means_that_nothing_is_opened),
		cmocka_unit_test(a_warm_up_carries_no_key_and_is_no_request),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
