/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_transport.c -- the way to the provider: TLS, HTTP/2, egress proxies, large bodies both ways, kept connections, and many
 * streams at once.
 */
#include "tests/e2e/fault.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "client/buf.h"
#include "tests/e2e/control.h"
#include "tests/e2e/proxy.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const char *const tls[] = { "--tls-listen", "127.0.0.1:0", NULL };
static const char *const tls_h2[] = { "--tls-listen", "127.0.0.1:0", "--http2", NULL };

/* A number in the double's own statistics. */
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
assert_line(struct sbx_client *c, bool stream, const char *line)
{
	struct answer a = answer_of(c, &(struct question){ .route = "r", .stream = stream });
	if (strcmp(a.attempts, line) != 0)
		fail_msg("%s, not %s; %s", a.attempts, line, a.message);
	answer_free(&a);
}

/* n streams of route r at once; the test fails unless all are answered by a. */
static void
ask_at_once(struct sbx_client *c, size_t n)
{
	struct question q[16];
	struct answer a[16];
	assert_true(n <= COUNT(q));
	for (size_t i = 0; i < n; i++)
		q[i] = (struct question){ .route = "r", .stream = true };
	answers_of(c, q, a, n);
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(a[i].attempts, "a/m OK");
		answer_free(&a[i]);
	}
}

/* ---- TLS ---- */

static void
tls_with_a_ca_of_its_own_and_one_handshake(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	(void)world_double(&w, "a", tls);
	world_agent(&w, "{ \"warm\": false, \"providers\": { \"a\": { \"base_url\": \"$T0\", \"ca_file\": \"$CA0\", \"key\": \"$KEY\" } }, \"routes\": { \"r\": { \"targets\": [\"a/m\"] } } }",
	            NULL);
	struct sbx_client *c = client_up(&w);
	for (int i = 0; i < 6; i++)
		assert_line(c, i & 1, "a/m OK");
	assert_int_equal(double_requests(&w, 0), 6);
	assert_int_equal(double_stat(&w, 0, "tls_handshakes"), 1);
	sbx_close(c);
	world_down(&w);
}

/* A provider that cannot prove who it is gets nothing: no key, no prompt. The next one answers. */
static void
tls_with_a_wrong_ca_sends_nothing_and_fails_over(void **state)
{
	(void)state;
	static const char *const ca[] = { "\"ca_file\": \"$CA1\",", "" /* the system's own, which does not know it either */ };
	for (size_t i = 0; i < COUNT(ca); i++) {
		struct world w;
		char config[600];
		world_up(&w);
		(void)world_double(&w, "a", tls);
		(void)world_double(&w, "b", tls);
		(void)snprintf(config, sizeof config,
		               "{ \"warm\": false, \"providers\": { \"a\": { \"base_url\": \"$T0\", %s \"key\": \"$KEY\" }, \"b\": { \"base_url\": \"$T1\", \"ca_file\": \"$CA1\", \"key\": \"$KEY\" } },"
		               " \"routes\": { \"r\": { \"targets\": [\"a/m\", \"b/m\"] }, \"only\": { \"targets\": [\"a/m\"] } } }",
		               ca[i]);
		world_agent(&w, config, NULL);
		struct sbx_client *c = client_up(&w);
		assert_line(c, false, "a/m NOT_SENT, a/m NOT_SENT, b/m OK");
		struct answer a = answer_of(c, &(struct question){ .route = "only" });
		assert_int_equal(a.code, SBX_CODE_UNREACHABLE);
		if (!strstr(a.message, "certificate"))
			fail_msg("the message does not say why: %s", a.message);
		assert_int_equal(double_requests(&w, 0), 0);
		assert_int_equal(double_requests(&w, 1), 1);
		answer_free(&a);
		sbx_close(c);
		world_down(&w);
	}
}

/* Not one byte of a request goes into a connection that the provider has taken leave of. */
static void
tls_closed_while_idle_is_replaced_unseen(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	(void)world_double(&w, "a", tls);
	world_agent(&w, "{ \"warm\": false, \"providers\": { \"a\": { \"base_url\": \"$T0\", \"ca_file\": \"$CA0\", \"key\": \"$KEY\" } }, \"routes\": { \"r\": { \"targets\": [\"a/m\"] } } }",
	            NULL);
	struct sbx_client *c = client_up(&w);
	for (int i = 0; i < 8; i++) {
		assert_line(c, i & 1, "a/m OK");
		agent_wait_at_rest(&w, 5000);
		free(double_get(&w, 0, "POST", i & 2 ? "/mock/close-idle?how=rst" : "/mock/close-idle", NULL, NULL));
	}
	assert_int_equal(double_requests(&w, 0), 8);
	assert_int_equal(double_stat(&w, 0, "tls_handshakes"), 8);
	sbx_close(c);
	world_down(&w);
}

/* ---- HTTP/2 ---- */

static void
h2_carries_streams_side_by_side_on_one_connection(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	(void)world_double(&w, "a", tls_h2);
	double_rules(&w, 0, "m: first=300ms,tokens=10,gap=10ms"); /* long enough for all of them to be there at once */
	world_agent(&w,
	            "{ \"warm\": false, \"providers\": { \"a\": { \"base_url\": \"$T0\", \"ca_file\": \"$CA0\", \"http\": \"2\", \"key\": \"$KEY\" } }, \"routes\": { \"r\": { \"targets\": [\"a/m\"] } } }",
	            NULL);
	struct sbx_client *c = client_up(&w);
	ask_at_once(c, 12);
	assert_int_equal(double_requests(&w, 0), 12);
	assert_int_equal(double_stat(&w, 0, "tls_handshakes"), 1);
	/* side by side: the last had come before the first was over */
	int64_t first_end = double_log_number(&w, 0, 0, "time_ns") + double_log_number(&w, 0, 0, "closed_after_ns");
	assert_true(double_log_number(&w, 0, 11, "time_ns") < first_end);
	for (int i = 1; i < 12; i++)
		assert_int_equal(double_log_number(&w, 0, i, "connection"), double_log_number(&w, 0, 0, "connection"));
	sbx_close(c);
	world_down(&w);
}

/* "auto" is HTTP/2 only with a libcurl that can cancel and pause its streams; which it is, the agent says. */
static void
http_auto_is_what_the_agent_says_it_is(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	(void)world_double(&w, "a", tls_h2);
	double_rules(&w, 0, "m: first=300ms");
	world_agent(&w,
	            "{ \"warm\": false, \"providers\": { \"a\": { \"base_url\": \"$T0\", \"ca_file\": \"$CA0\", \"http\": \"auto\", \"key\": \"$KEY\" } }, \"routes\": { \"r\": { \"targets\": [\"a/m\"] } } }",
	            NULL);
	struct sbx_client *c = client_up(&w);
	ask_at_once(c, 4);
	assert_int_equal(double_stat(&w, 0, "tls_handshakes"), log_has(&w, "http auto means 1.1") ? 4 : 1);
	sbx_close(c);
	world_down(&w);
}

/* ---- egress proxies ---- */

#define VIA_PROXY \
	"{ \"warm\": false, \"providers\": { \"a\": { \"base_url\": \"$T0\", \"ca_file\": \"$CA0\", \"proxy\": \"http://127.0.0.1:%d\", \"key\": \"$KEY\" }," \
	" \"plain\": { \"base_url\": \"$0\", \"proxy\": \"http://127.0.0.1:%d\", \"key\": \"$KEY\" }, \"b\": { \"base_url\": \"$1\", \"key\": \"$KEY\" } }," \
	" \"routes\": { \"r\": { \"targets\": [\"a/m\", \"b/m\"] } } }"

/* Also where the environment says that no proxy is to be used for this host: the environment has no say in it. */
static void
an_egress_proxy_is_used_where_it_is_configured(void **state)
{
	(void)state;
	static const char *const env[] = { "no_proxy=127.0.0.1", "NO_PROXY=*", NULL };
	for (int with_env = 0; with_env < 2; with_env++) {
		struct world w;
		static struct proxy p; /* its threads outlive a test that fails */
		char config[1024];
		world_up(&w);
		(void)world_double(&w, "a", tls);
		(void)world_double(&w, "b", NULL);
		proxy_up(&p, 0);
		(void)snprintf(config, sizeof config, VIA_PROXY, p.port, p.port);
		world_agent_start(&w, config, &(struct start){ .env = with_env ? env : NULL });
		struct sbx_client *c = client_up(&w);
		assert_line(c, true, "a/m OK");
		assert_line(c, false, "a/m OK"); /* on the connection that stands */
		assert_int_equal(p.n_connects, 1);
		struct answer a = answer_of(c, &(struct question){ .targets = { "plain/m" }, .stream = true });
		assert_string_equal(a.text, "hello from a");
		answer_free(&a);
		assert_int_equal(p.n_absolute, 1);
		a = answer_of(c, &(struct question){ .targets = { "b/m" } });
		assert_true(a.ok);
		answer_free(&a);
		assert_int_equal(p.n_connects + p.n_absolute + p.n_other, 2); /* b has none */
		sbx_close(c);
		world_down(&w);
		proxy_down(&p);
	}
}

static void
a_proxy_that_refuses_is_not_sent(void **state)
{
	(void)state;
	struct world w;
	static struct proxy p; /* its threads outlive a test that fails */
	char config[1024];
	world_up(&w);
	(void)world_double(&w, "a", tls);
	(void)world_double(&w, "b", NULL);
	proxy_up(&p, 403);
	(void)snprintf(config, sizeof config, VIA_PROXY, p.port, p.port);
	world_agent(&w, config, NULL);
	struct sbx_client *c = client_up(&w);
	assert_line(c, false, "a/m NOT_SENT, a/m NOT_SENT, b/m OK");
	assert_int_equal(double_requests(&w, 0), 0);
	assert_int_equal(p.n_connects, 2);
	sbx_close(c);
	world_down(&w);
	proxy_down(&p);
}

static void
no_proxy_of_the_environment_is_used(void **state)
{
	(void)state;
	struct world w;
	static struct proxy p; /* its threads outlive a test that fails */
	char lower[64], upper[64], secure[64], all[64];
	world_up(&w);
	(void)world_double(&w, "a", tls);
	proxy_up(&p, 0);
	(void)snprintf(lower, sizeof lower, "http_proxy=http://127.0.0.1:%d", p.port);
	(void)snprintf(upper, sizeof upper, "HTTPS_PROXY=http://127.0.0.1:%d", p.port);
	(void)snprintf(secure, sizeof secure, "https_proxy=http://127.0.0.1:%d", p.port);
	(void)snprintf(all, sizeof all, "ALL_PROXY=http://127.0.0.1:%d", p.port);
	const char *const env[] = { lower, upper, secure, all, "no_proxy", "NO_PROXY", NULL };
	world_agent_start(&w,
	                  "{ \"warm\": false, \"providers\": { \"a\": { \"base_url\": \"$T0\", \"ca_file\": \"$CA0\", \"key\": \"$KEY\" }, \"plain\": { \"base_url\": \"$0\", \"key\": \"$KEY\" } },"
	                  " \"routes\": { \"r\": { \"targets\": [\"a/m\"] } } }",
	                  &(struct start){ .env = env });
	struct sbx_client *c = client_up(&w);
	assert_line(c, false, "a/m OK");
	struct answer a = answer_of(c, &(struct question){ .targets = { "plain/m" } });
	assert_true(a.ok);
	answer_free(&a);
	assert_int_equal(p.n_connects + p.n_absolute + p.n_other, 0);
	sbx_close(c);
	world_down(&w);
	proxy_down(&p);
}

/* ---- large bodies ---- */

static void
a_request_of_32_mib_arrives_whole(void **state)
{
	(void)state;
	static const char before[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"", after[] = "\"}]}";
	const size_t bytes = 32u << 20;
	struct world w;
	struct sbx_request_options o = SBX_REQUEST_INIT;
	struct sbx_reply *r = NULL;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	char *body = malloc(bytes + 1);
	assert_non_null(body);
	for (size_t i = 0; i < bytes; i++)
		body[i] = (char)('a' + i * 7 % 26);
	memcpy(body, before, sizeof before - 1);
	memcpy(body + bytes - (sizeof after - 1), after, sizeof after - 1);
	o.route = "r";
	o.body = body;
	o.body_bytes = bytes;
	o.deadline_ms = 60000;
	if (sbx_ask(c, &o, &r))
		fail_msg("%s", sbx_client_error(c));
	sbx_reply_free(r);
	char *seen = double_log_string(&w, 0, 0, "body");
	static const char model[] = "{\"model\":\"m\",";
	assert_int_equal(strlen(seen), bytes + sizeof model - 2);
	assert_memory_equal(seen, model, sizeof model - 1);
	assert_true(memcmp(seen + sizeof model - 1, body + 1, bytes - 1) == 0);
	free(seen);
	/* A byte more is refused at once, and the handle is good for more. */
	body = realloc(body, bytes + 1);
	o.body = body;
	o.body_bytes = bytes + 1;
	assert_int_equal(sbx_ask(c, &o, &r), -SBX_ETOOBIG);
	free(body);
	assert_line(c, false, "a/m OK");
	agent_wait_at_rest(&w, 5000);
	assert_int_equal(agent_number(&w, "body_bytes"), 0);
	sbx_close(c);
	world_down(&w);
}

/* 240 times the credit of a request: it goes on as fast as the client takes it, and not a byte is lost. */
static void
an_answer_of_60_mib_comes_whole_under_credit(void **state)
{
	(void)state;
	const size_t bytes = 60u << 20;
	struct world w;
	world_simple(&w, 1, (const char *[]){ "m: line=60m" }, NULL);
	struct sbx_client *c = client_up(&w);
	for (int data = 0; data < 2; data++) {
		struct sbx_request_options o = SBX_REQUEST_INIT;
		struct sbx_reply *r = NULL;
		size_t n;
		o.route = "r";
		o.body = BODY;
		o.body_bytes = strlen(BODY);
		o.deadline_ms = 60000;
		o.data = data;
		if (sbx_ask(c, &o, &r))
			fail_msg("%s", sbx_client_error(c));
		const char *text = data ? sbx_reply_data(r, &n) : sbx_reply_text(r, 0, &n);
		const char *from = data ? strstr(text, "hello from a") : text;
		assert_non_null(from);
		assert_memory_equal(from, "hello from axxx", 15);
		assert_int_equal(strspn(from + 12, "x"), bytes);
		if (!data)
			assert_int_equal(n, 12 + bytes);
		else
			assert_int_equal(text[n - 1], '}');
		sbx_reply_free(r);
	}
	sbx_close(c);
	world_down(&w);
}

/* ---- kept connections ---- */

static void
connections_are_kept_and_used_again(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, (const char *[]){ "m: first=300ms" }, NULL); /* long enough for all of them to be there at once */
	struct sbx_client *c = client_up(&w);
	ask_at_once(c, 8);
	assert_int_equal(agent_number(&w, "upstream.connections"), 8);
	agent_wait_at_rest(&w, 5000);
	ask_at_once(c, 8);
	assert_int_equal(agent_number(&w, "upstream.connections"), 8);
	struct sbx_reply *r = ask(c, true, 10000);
	struct sbx_attempt_info info;
	assert_true(sbx_reply_attempt(r, 0, &info));
	assert_string_equal(info.connection, "reused");
	sbx_reply_free(r);
	assert_int_equal(double_requests(&w, 0), 17);
	sbx_close(c);
	world_down(&w);
}

/* ---- many at once ---- */

#define STREAMS 1000
#define CLIENTS 2
#define EACH (STREAMS / CLIENTS)

struct stream {
	uint64_t id;
	char text[64];
	bool done;
};

struct many {
	struct sbx_client *c[CLIENTS];
	struct stream s[CLIENTS][EACH];
	int accepted, ended;
};

static void
take_events(struct many *m, int k)
{
	struct sbx_event ev;
	while (sbx_next(m->c[k], 0, &ev) == 0) {
		struct stream *s = m->s[k];
		while (s < m->s[k] + EACH && s->id != ev.id)
			s++;
		assert_true(s < m->s[k] + EACH && !s->done);
		if (ev.note == SBX_NOTE_TEXT)
			(void)strncat(s->text, ev.text, sizeof s->text - strlen(s->text) - 1);
		if (ev.last && ev.note != SBX_NOTE_DONE)
			fail_msg("a stream failed: %s", sbx_reply_message(ev.reply));
		s->done = ev.last;
		m->accepted += ev.note == SBX_NOTE_ACCEPTED;
		m->ended += ev.last;
	}
}

/* Serves both handles until *count has reached STREAMS. */
static void
serve_until_all(struct many *m, const int *count, const char *what)
{
	uint64_t until = now_ms() + 30000;
	while (*count < STREAMS) {
		struct pollfd look[CLIENTS];
		if (now_ms() > until)
			fail_msg("%d of %d streams %s", *count, STREAMS, what);
		for (int k = 0; k < CLIENTS; k++)
			look[k] = (struct pollfd){ sbx_fd(m->c[k]), sbx_events(m->c[k]), 0 };
		(void)poll(look, CLIENTS, 1000);
		for (int k = 0; k < CLIENTS; k++) {
			assert_int_equal(sbx_process(m->c[k], look[k].revents), 0);
			take_events(m, k);
		}
	}
}

static void
a_thousand_streams_at_once_over_two_connections(void **state)
{
	(void)state;
	static struct many m;
	struct world w;
	memset(&m, 0, sizeof m);
	world_simple(&w, 1, (const char *[]){ "m: tokens=8,gap=50ms" }, NULL);
	/* The double stands still until every call is under way: its kernel takes connections and requests meanwhile. */
	assert_int_equal(kill(w.dbl[0].pid, SIGSTOP), 0);
	for (int k = 0; k < CLIENTS; k++) {
		struct sbx_request_options o = SBX_REQUEST_INIT;
		m.c[k] = client_up(&w);
		o.route = "r";
		o.body = BODY;
		o.body_bytes = strlen(BODY);
		o.stream = true;
		for (int i = 0; i < EACH; i++)
			if (sbx_submit(m.c[k], &o, &m.s[k][i].id))
				fail_msg("%s", sbx_client_error(m.c[k]));
	}
	serve_until_all(&m, &m.accepted, "were accepted");
	agent_wait_number(&w, "upstream.active", STREAMS, 10000);
	assert_int_equal(agent_number(&w, "in_flight"), STREAMS);
	assert_int_equal(agent_number(&w, "sessions"), CLIENTS + 1); /* one asks for this number */
	assert_int_equal(kill(w.dbl[0].pid, SIGCONT), 0);
	serve_until_all(&m, &m.ended, "have ended");
	for (int k = 0; k < CLIENTS; k++) {
		for (int i = 0; i < EACH; i++)
			assert_string_equal(m.s[k][i].text, "hello from a t4 t5 t6 t7 t8");
		sbx_close(m.c[k]);
	}
	assert_int_equal(double_requests(&w, 0), STREAMS);
	agent_wait_at_rest(&w, 10000);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tls_with_a_ca_of_its_own_and_one_handshake),
		cmocka_unit_test(tls_with_a_wrong_ca_sends_nothing_and_fails_over),
		cmocka_unit_test(tls_closed_while_idle_is_replaced_unseen),
		cmocka_unit_test(h2_carries_streams_side_by_side_on_one_connection),
		cmocka_unit_test(http_auto_is_what_the_agent_says_it_is),
		cmocka_unit_test(an_egress_proxy_is_used_where_it_is_configured),
		cmocka_unit_test(a_proxy_that_refuses_is_not_sent),
		cmocka_unit_test(no_proxy_of_the_environment_is_used),
		cmocka_unit_test(a_request_of_32_mib_arrives_whole),
		cmocka_unit_test(an_answer_of_60_mib_comes_whole_under_credit),
		cmocka_unit_test(connections_are_kept_and_used_again),
		cmocka_unit_test(a_thousand_streams_at_once_over_two_connections),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
