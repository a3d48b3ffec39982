/* SPDX-License-Identifier: Apache-2.0 */
/* control.c -- asking doubles what they saw, and the agent what it counted. */
#include "tests/e2e/control.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>
#include <jansson.h>

#include "client/buf.h"
#include "tests/e2e/harness.h"

char *
http_call(int port, const char *method, const char *path, const char *body, int *ret_status)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct timeval limit = { 60, 0 };
	struct sbx_buf b;
	char *answer = NULL;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	sbx_buf_init(&b, 256u << 20);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	if (connect(fd, (struct sockaddr *)&to, sizeof to))
		goto out;
	(void)sbx_buf_printf(&b, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", method, path, body ? strlen(body) : 0,
	                     body ? body : "");
	for (size_t at = 0; at < b.n;) {
		ssize_t n = send(fd, b.data + at, b.n - at, MSG_NOSIGNAL);
		if (n <= 0)
			goto out;
		at += (size_t)n;
	}
	sbx_buf_clear(&b);
	for (;;) {
		uint8_t *room = sbx_buf_reserve(&b, 65536);
		ssize_t n = room ? recv(fd, room, 65535, 0) : -1;
		if (n <= 0)
			break;
		sbx_buf_commit(&b, (size_t)n);
	}
	(void)sbx_buf_append(&b, "", 1);
	char *text = (char *)b.data, *head_end = text ? strstr(text, "\r\n\r\n") : NULL;
	if (!head_end || strncmp(text, "HTTP/1.1 ", 9) != 0)
		goto out;
	if (ret_status)
		*ret_status = (int)strtol(text + 9, NULL, 10);
	answer = strdup(head_end + 4);
out:
	(void)close(fd);
	sbx_buf_fini(&b);
	return answer;
}

char *
double_get(struct world *w, int n, const char *method, const char *path, const char *body, int *ret_status)
{
	int status = 0;
	char *answer = http_call(w->dbl[n].control_port, method, path, body, &status);
	if (!answer)
		fail_msg("double %s does not answer %s %s", w->dbl[n].name, method, path);
	if (ret_status)
		*ret_status = status;
	return answer;
}

void
double_rules(struct world *w, int n, const char *text)
{
	int status;
	char *answer = double_get(w, n, "PUT", "/mock/rules", text, &status);
	if (status / 100 != 2)
		fail_msg("double %s refuses the rules %s: %s", w->dbl[n].name, text, answer);
	free(answer);
}

static json_t *
log_of(struct world *w, int n)
{
	char *text = double_get(w, n, "GET", "/mock/log?bodies=1", NULL, NULL);
	json_t *j = json_loads(text, 0, NULL);
	if (!json_is_array(j))
		fail_msg("double %s: no log in %s", w->dbl[n].name, text);
	free(text);
	return j;
}

int
double_requests(struct world *w, int n)
{
	json_t *log = log_of(w, n), *e;
	size_t i;
	int posts = 0;
	json_array_foreach(log, i, e) posts += strcmp(json_string_value(json_object_get(e, "method")), "POST") == 0;
	json_decref(log);
	return posts;
}

void
double_wait(struct world *w, int n, int count, const char *state, int timeout_ms)
{
	char path[160];
	int status;
	(void)snprintf(path, sizeof path, "/mock/wait?requests=%d&timeout_ms=%d%s%s", count, timeout_ms, state ? "&state=" : "", state ? state : "");
	char *answer = double_get(w, n, "GET", path, NULL, &status);
	if (status != 200) {
		char *log = double_get(w, n, "GET", "/mock/log", NULL, NULL);
		fail_msg("double %s had not %d request(s) %s after %d ms; its log: %s", w->dbl[n].name, count, state ? state : "", timeout_ms, log);
	}
	free(answer);
}

int64_t
double_log_number(struct world *w, int n, int i, const char *field)
{
	json_t *log = log_of(w, n), *v = json_object_get(json_array_get(log, (size_t)i), field);
	int64_t number = json_is_integer(v) ? json_integer_value(v) : json_is_boolean(v) ? json_is_true(v) : -1;
	json_decref(log);
	return number;
}

char *
double_log_string(struct world *w, int n, int i, const char *field)
{
	json_t *log = log_of(w, n);
	const char *s = json_string_value(json_object_get(json_array_get(log, (size_t)i), field));
	char *copy = s ? strdup(s) : NULL;
	json_decref(log);
	return copy;
}

/* ---- clients ---- */

struct sbx_client *
client_up(struct world *w)
{
	struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
	struct sbx_client *c = NULL;
	o.socket = w->socket;
	o.name = "e2e";
	if (sbx_open(&o, &c))
		fail_msg("sbx_open: %s", c ? sbx_client_error(c) : "no memory");
	return c;
}

struct sbx_reply *
ask_body(struct sbx_client *c, const char *route, const char *model, const char *body, bool stream, uint32_t deadline_ms)
{
	struct sbx_request_options q = SBX_REQUEST_INIT;
	struct sbx_reply *r = NULL;
	q.route = route;
	q.model = model;
	q.body = body;
	q.body_bytes = strlen(body);
	q.stream = stream;
	q.deadline_ms = deadline_ms;
	int rc = sbx_ask(c, &q, &r);
	if (!r)
		fail_msg("sbx_ask: %d, %s", rc, sbx_client_error(c));
	return r;
}

struct sbx_reply *
ask(struct sbx_client *c, bool stream, uint32_t deadline_ms)
{
	return ask_body(c, "r", NULL, BODY, stream, deadline_ms);
}

static bool
try_number(struct world *w, const char *name, int64_t *ret)
{
	struct sbx_client *c = client_up(w);
	struct sbx_event ev;
	uint64_t id;
	bool has = false;
	if (sbx_stats(c, &id) == 0 && sbx_next(c, 10000, &ev) == 0 && ev.note == SBX_NOTE_STATS)
		has = sbx_reply_number(ev.reply, name, ret);
	sbx_close(c);
	return has;
}

int64_t
agent_number(struct world *w, const char *name)
{
	int64_t number = 0;
	if (!try_number(w, name, &number))
		fail_msg("STATS has no number %s", name);
	return number;
}

void
agent_wait_number(struct world *w, const char *name, int64_t at_least, int timeout_ms)
{
	uint64_t until = now_ms() + (uint64_t)timeout_ms;
	int64_t number;
	while ((number = agent_number(w, name)) < at_least) {
		if (now_ms() > until)
			fail_msg("%s is %lld after %d ms, not %lld", name, (long long)number, timeout_ms, (long long)at_least);
		pause_ms(5);
	}
}

/* The rows of all that was are on disk; or there is no store. */
static bool
store_at_rest(struct world *w)
{
	int64_t queued = 0, opens = 1;
	(void)try_number(w, "store.queued", &queued);
	(void)try_number(w, "store.opens", &opens);
	return queued == 0 && opens > 0;
}

void
agent_wait_at_rest(struct world *w, int timeout_ms)
{
	uint64_t until = now_ms() + (uint64_t)timeout_ms;
	while (agent_number(w, "in_flight") || agent_number(w, "upstream.active") || !store_at_rest(w)) {
		if (now_ms() > until)
			fail_msg("after %d ms the agent still has %lld request(s) and %lld call(s)%s", timeout_ms, (long long)agent_number(w, "in_flight"),
			         (long long)agent_number(w, "upstream.active"), store_at_rest(w) ? "" : ", and rows that are not stored");
		pause_ms(5);
	}
}

int
agent_fds(struct world *w)
{
	char path[64];
	int n = 0;
	(void)snprintf(path, sizeof path, "/proc/%d/fd", (int)w->agent);
	DIR *d = opendir(path);
	if (!d)
		fail_msg("%s: %s", path, strerror(errno));
	while (readdir(d))
		n++;
	(void)closedir(d);
	return n - 2;
}

uint64_t
agent_cpu_ms(struct world *w)
{
	char path[64];
	unsigned long long user = 0, sys = 0;
	(void)snprintf(path, sizeof path, "/proc/%d/stat", (int)w->agent);
	char *text = read_whole(path, NULL), *after = text ? strrchr(text, ')') : NULL;
	if (!after || sscanf(after + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &sys) != 2)
		fail_msg("%s: %s", path, text ? text : strerror(errno));
	free(text);
	return (user + sys) * 1000u / (unsigned long long)sysconf(_SC_CLK_TCK);
}

int64_t
agent_rss_bytes(struct world *w)
{
	return agent_number(w, "rss_bytes");
}
