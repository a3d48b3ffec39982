/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control interface, under /mock/ on every HTTP/1.1 listener:
 *
 *   GET    /mock/log[?bodies=1]          DELETE /mock/log
 *   GET    /mock/rules                   PUT    /mock/rules (all)   POST /mock/rules (one in front)
 *   GET    /mock/stats
 *   GET    /mock/wait?requests=N[&state=S][&timeout_ms=T]
 *   POST   /mock/close-idle[?how=rst]    POST   /mock/stop-accept   POST /mock/start-accept
 *
 * Its requests are neither logged nor touched by rules, and need no key: the
 * double listens on loopback, for tests.
 */
#include "tools/mock/mock.h"

#include <stdlib.h>

#define WAIT_DEFAULT_MS 5000
#define WAIT_MAX_MS 600000

/* A long poll; at most one per connection. */
struct mock_waiter {
	struct mock_waiter *next;
	struct mock_conn *conn;
	struct mock_timer timer;
	uint64_t requests;     /* wanted */
	enum mock_state state; /* MOCK_STATE__COUNT = any */
};

static bool span_is(struct mock_span span, const char *word)
{
	return span.n == strlen(word) && memcmp(span.at, word, span.n) == 0;
}

/* The value of a query parameter; an empty span when it is not there. */
static struct mock_span parameter(struct mock_span query, const char *name)
{
	size_t n_name = strlen(name);

	while (query.n > 0) {
		const char *amp = memchr(query.at, '&', query.n);
		size_t n = amp == NULL ? query.n : (size_t)(amp - query.at);

		if (n > n_name && memcmp(query.at, name, n_name) == 0 && query.at[n_name] == '=')
			return (struct mock_span){ query.at + n_name + 1, n - n_name - 1 };
		query.at += amp == NULL ? n : n + 1;
		query.n -= amp == NULL ? n : n + 1;
	}
	return (struct mock_span){ 0 };
}

static uint64_t number(struct mock_span text, uint64_t otherwise)
{
	uint64_t v = 0;

	if (text.n == 0 || text.n > 12)
		return otherwise;
	for (size_t i = 0; i < text.n; i++) {
		if (text.at[i] < '0' || text.at[i] > '9')
			return otherwise;
		v = v * 10 + (uint64_t)(text.at[i] - '0');
	}
	return v;
}

static void reply(struct mock_conn *conn, int status, struct mock_bytes *body)
{
	mock_http1_reply(conn, status, "application/json", mock_bytes_at(body), body->n);
	mock_bytes_fini(body);
}

static void reply_ok(struct mock_conn *conn)
{
	mock_http1_reply(conn, 200, "application/json", "{\"ok\":true}\n", 12);
}

static void reply_error(struct mock_conn *conn, int status, const char *message)
{
	struct mock_bytes body = { 0 };

	mock_answer_fmt_error(&body, status, message);
	mock_bytes_putc(&body, '\n');
	reply(conn, status, &body);
}

/* ---- long polls --------------------------------------------------------------- */

static void answer_waiter(struct mock_waiter *waiter, int status)
{
	struct mock_conn *conn = waiter->conn;
	struct mock *mock = conn->mock;
	struct mock_bytes body = { 0 };

	mock_control_forget(conn);
	mock_bytes_lit(&body, "{\"requests\":");
	mock_bytes_u64(&body, mock_log_count(mock->log, MOCK_STATE__COUNT));
	for (int i = 0; i < MOCK_STATE__COUNT; i++)
		mock_bytes_fmt(&body, ",\"%s\":%llu", mock_state_name((enum mock_state)i),
		    (unsigned long long)mock_log_count(mock->log, (enum mock_state)i));
	mock_bytes_lit(&body, "}\n");
	reply(conn, status, &body);
}

static void on_timeout(struct mock_timer *timer)
{
	answer_waiter(mock_owner_of(timer, struct mock_waiter, timer), 408);
}

static void wait_for(struct mock_conn *conn, struct mock_span query)
{
	struct mock *mock = conn->mock;
	struct mock_span state = parameter(query, "state");
	uint64_t timeout_ms = number(parameter(query, "timeout_ms"), WAIT_DEFAULT_MS);
	struct mock_waiter *waiter;

	if (state.n > 0 && mock_state_of(state.at, state.n) == MOCK_STATE__COUNT) {
		reply_error(conn, 400, "state is one of open, answered, client-closed, cut");
		return;
	}
	waiter = calloc(1, sizeof(*waiter));
	if (waiter == NULL) {
		reply_error(conn, 503, NULL);
		return;
	}
	waiter->conn = conn;
	waiter->requests = number(parameter(query, "requests"), 1);
	waiter->state = mock_state_of(state.at, state.n);
	waiter->timer.on_due = on_timeout;
	waiter->next = mock->waiters;
	mock->waiters = waiter;
	mock_http1_hold(conn);
	mock_timer_arm(&mock->loop, &waiter->timer,
	    mock_loop_clock(&mock->loop) +
	    (timeout_ms < WAIT_MAX_MS ? timeout_ms : WAIT_MAX_MS) * 1000000ull);
	mock_control_on_change(mock);
}

void mock_control_on_change(struct mock *mock)
{
	struct mock_waiter *next;

	for (struct mock_waiter *waiter = mock->waiters; waiter != NULL; waiter = next) {
		next = waiter->next;
		if (mock_log_count(mock->log, waiter->state) >= waiter->requests)
			answer_waiter(waiter, 200);
	}
}

void mock_control_forget(struct mock_conn *conn)
{
	for (struct mock_waiter **at = &conn->mock->waiters; *at != NULL; at = &(*at)->next) {
		struct mock_waiter *waiter = *at;

		if (waiter->conn != conn)
			continue;
		*at = waiter->next;
		mock_timer_stop(&conn->mock->loop, &waiter->timer);
		free(waiter);
		return;
	}
}

/* ---- requests ------------------------------------------------------------------- */

static void on_rules(struct mock_conn *conn, const struct mock_request *request)
{
	struct mock_rules *rules = conn->mock->rules;
	char error[512];
	int rc;

	if (span_is(request->method, "GET")) {
		struct mock_bytes body = { 0 };

		mock_rules_fmt(rules, &body);
		mock_http1_reply(conn, 200, "text/plain", mock_bytes_at(&body), body.n);
		mock_bytes_fini(&body);
		return;
	}
	if (span_is(request->method, "PUT")) {
		rc = mock_rules_replace(rules, request->body.at, request->body.n, error, sizeof(error));
	} else if (span_is(request->method, "POST")) {
		rc = mock_rules_add(rules, request->body.at, request->body.n, /* in_front= */ true, error,
		    sizeof(error));
	} else {
		reply_error(conn, 405, NULL);
		return;
	}
	if (rc < 0)
		reply_error(conn, 400, error);
	else
		reply_ok(conn);
}

static void on_log(struct mock_conn *conn, const struct mock_request *request, struct mock_span query)
{
	if (span_is(request->method, "DELETE")) {
		mock_log_clear(conn->mock->log);
		reply_ok(conn);
	} else if (span_is(request->method, "GET")) {
		struct mock_bytes body = { 0 };

		mock_log_fmt(conn->mock->log, number(parameter(query, "bodies"), 0) != 0, &body);
		reply(conn, 200, &body);
	} else {
		reply_error(conn, 405, NULL);
	}
}

bool mock_control(struct mock_conn *conn, const struct mock_request *request)
{
	struct mock *mock = conn->mock;
	struct mock_span path = request->path;
	struct mock_span query = { 0 };
	const char *mark;

	if (path.n < 6 || memcmp(path.at, "/mock/", 6) != 0)
		return false;
	mark = memchr(path.at, '?', path.n);
	if (mark != NULL) {
		query = (struct mock_span){ mark + 1, path.n - (size_t)(mark - path.at) - 1 };
		path.n = (size_t)(mark - path.at);
	}
	if (span_is(path, "/mock/log")) {
		on_log(conn, request, query);
	} else if (span_is(path, "/mock/rules")) {
		on_rules(conn, request);
	} else if (span_is(path, "/mock/stats") && span_is(request->method, "GET")) {
		struct mock_bytes body = { 0 };

		mock_log_fmt_stats(mock->log, &body);
		reply(conn, 200, &body);
	} else if (span_is(path, "/mock/wait") && span_is(request->method, "GET")) {
		wait_for(conn, query);
	} else if (span_is(path, "/mock/close-idle") && span_is(request->method, "POST")) {
		struct mock_bytes body = { 0 };
		bool rst = span_is(parameter(query, "how"), "rst");
		size_t n = mock_conn_close_idle(mock, rst ? MOCK_CLOSE_RST : MOCK_CLOSE_FIN, conn);

		mock_bytes_fmt(&body, "{\"closed\":%zu}\n", n);
		reply(conn, 200, &body);
	} else if (span_is(path, "/mock/stop-accept") && span_is(request->method, "POST")) {
		mock_listeners_watch(mock, false);
		reply_ok(conn);
	} else if (span_is(path, "/mock/start-accept") && span_is(request->method, "POST")) {
		mock_listeners_watch(mock, true);
		reply_ok(conn);
	} else {
		reply_error(conn, 404, "Unknown control path or method.");
	}
	return true;
}
