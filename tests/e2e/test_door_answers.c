/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_door_answers.c -- what an SDK gets from the HTTP door: whole answers and streams as the provider gave them, statuses and
 * headers that make it raise what it should, and models.
 */
#include "tests/e2e/door.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <curl/curl.h>
#include <jansson.h>

#include "tests/e2e/control.h"

#define HEALTHY NULL
#define STREAM(model, more) "{\"model\":\"" model "\",\"stream\":true," more MESSAGES "}"
#define WHOLE(model) "{\"model\":\"" model "\"," MESSAGES "}"

static struct world w;
static struct door d;

static void
up(int n, const char *const *rules, const char *extra, const char *const *args)
{
	world_simple(&w, n, rules, extra);
	door_up(&w, &d, args);
}

static void
down(void)
{
	door_down(&d);
	world_down(&w);
}

static char *
error_field(const struct http_answer *a, const char *field)
{
	static char text[512];
	json_t *j = json_loads(a->body, 0, NULL), *error = json_object_get(j, "error");
	if (!json_is_object(error))
		fail_msg("not an error in OpenAI's shape: %s", a->body);
	json_t *value = json_object_get(error, field);
	assert_non_null(value);
	(void)snprintf(text, sizeof text, "%s", json_is_null(value) ? "null" : json_string_value(value));
	json_decref(j);
	return text;
}

/* The same request, straight to the double. */
static void
ask_directly(int dbl, const char *path, const char *body, struct http_answer *a)
{
	struct door direct = { .port = w.dbl[dbl].http_port, .key = WORLD_KEY };
	door_ask(&direct, path, "", body, a);
}

/* What differs from request to request: the double's count of them, and the second. */
static void
blank_out(char *text, const char *after)
{
	for (char *at = text; (at = strstr(at, after));)
		for (at += strlen(after); *at >= '0' && *at <= '9'; at++)
			*at = '#';
}

static void
squeeze(char *text) /* runs of '#' to one */
{
	char *to = text;
	for (char *at = text; *at; at++)
		if (*at != '#' || to == text || to[-1] != '#')
			*to++ = *at;
	*to = 0;
}

static void
cut_out(char *text, const char *what)
{
	size_t n = strlen(what);
	for (char *at = text; (at = strstr(at, what));)
		memmove(at, at + n, strlen(at + n) + 1);
}

static void
same_bytes(struct http_answer *door, struct http_answer *direct)
{
	struct http_answer *const both[] = { door, direct };
	for (int i = 0; i < 2; i++) {
		blank_out(both[i]->body, "chatcmpl-mock-");
		blank_out(both[i]->body, "cmpl-mock-");
		blank_out(both[i]->body, "\"created\":");
		squeeze(both[i]->body);
		cut_out(both[i]->body, ",\"usage\":null"); /* of a usage that the agent asked for */
	}
	assert_string_equal(door->body, direct->body);
}

/* ---- answers ---- */

static void
test_whole(void **state)
{
	struct http_answer a, direct;
	(void)state;
	up(1, NULL, NULL, NULL);
	door_ask(&d, CHAT, "", WHOLE("r"), &a);
	assert_int_equal(a.status, 200);
	assert_true(a.whole);
	assert_string_equal(http_header(&a, "Content-Type"), "application/json");
	assert_string_equal(http_header(&a, "x-signalbox-target"), "a/m");
	assert_string_equal(http_header(&a, "x-signalbox-attempts"), "1");
	assert_non_null(http_header(&a, "x-signalbox-overhead"));
	assert_int_equal(strncmp(http_header(&a, "x-request-id"), "req_", 4), 0);
	assert_null(http_header(&a, "x-litellm-call-id"));
	assert_null(http_header(&a, "Access-Control-Allow-Origin"));
	ask_directly(0, "/v1/chat/completions", WHOLE("m"), &direct);
	same_bytes(&a, &direct);
	http_free(&a);
	http_free(&direct);
	down();
}

/* Byte for byte what the provider said, in its order. */
static void
test_stream_is_the_providers(void **state)
{
	static const char *const rule[] = { "*: tokens=40,reasoning=3" };
	static const char *const more[] = { "", "\"stream_options\":{\"include_usage\":true},", "\"tools\":[]," };
	(void)state;
	up(1, rule, NULL, NULL);
	for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
		char body[512], to_double[512];
		struct http_answer a, direct;
		(void)snprintf(body, sizeof body, "{\"model\":\"r\",\"stream\":true,%s%s}", more[i], MESSAGES);
		(void)snprintf(to_double, sizeof to_double, "{\"model\":\"m\",\"stream\":true,%s%s}", more[i], MESSAGES);
		door_ask(&d, CHAT, "", body, &a);
		assert_int_equal(a.status, 200);
		assert_true(a.whole);
		assert_string_equal(http_header(&a, "Content-Type"), "text/event-stream; charset=utf-8");
		assert_string_equal(http_header(&a, "x-signalbox-target"), "a/m");
		ask_directly(0, "/v1/chat/completions", to_double, &direct);
		assert_int_equal(strstr(direct.body, "\"prompt_tokens\":") != NULL, i == 1);
		same_bytes(&a, &direct);
		http_free(&a);
		http_free(&direct);
	}
	down();
}

/* Each piece leaves at once: the first is here while the second is still to come. */
static void
test_pieces_leave_at_once(void **state)
{
	static const char *const rule[] = { "*: text=one two three,gap=400ms" };
	char *all = NULL;
	size_t n = 0;
	(void)state;
	up(1, rule, NULL, NULL);
	int fd = door_connect(&d);
	door_post(&d, fd, CHAT, "", STREAM("r", ""));
	door_read_until(fd, "\"one\"", 5000, &all, &n);
	uint64_t first = now_ms();
	assert_null(strstr(all, "two"));
	door_read_until(fd, "two", 5000, &all, &n);
	uint64_t second = now_ms();
	assert_null(strstr(all, "three"));
	assert_in_range(second - first, 250, 900);
	door_read_until(fd, "data: [DONE]\n\n", 5000, &all, &n);
	free(all);
	(void)close(fd);
	down();
}

static void
test_other_operations(void **state)
{
	struct http_answer a, direct;
	(void)state;
	up(1, NULL, NULL, NULL);
	door_ask(&d, "/v1/embeddings", "", "{\"model\":\"a/m\",\"input\":\"hi\"}", &a);
	ask_directly(0, "/v1/embeddings", "{\"model\":\"m\",\"input\":\"hi\"}", &direct);
	assert_int_equal(a.status, 200);
	same_bytes(&a, &direct);
	http_free(&a);
	http_free(&direct);
	door_ask(&d, "/v1/completions", "", "{\"model\":\"a/m\",\"prompt\":\"hi\"}", &a);
	assert_int_equal(a.status, 200);
	assert_non_null(strstr(a.body, "\"text_completion\""));
	http_free(&a);
	down();
}

/* ---- failures ---- */

static void
test_failover_is_not_seen(void **state)
{
	static const char *const rule[] = { "*: status=500", "*: error-first", HEALTHY };
	struct http_answer a;
	(void)state;
	up(3, rule, NULL, NULL);
	door_ask(&d, CHAT, "", STREAM("r", ""), &a);
	assert_int_equal(a.status, 200);
	assert_string_equal(http_header(&a, "x-signalbox-target"), "c/m");
	assert_non_null(strstr(a.body, "data: [DONE]\n\n"));
	assert_null(strstr(a.body, "error"));
	http_free(&a);
	down();
}

/* Before the first content a failure has a status, in a stream as well; SDKs are told not to repeat what the agent did. */
static void
test_errors_have_their_status(void **state)
{
	static const struct {
		const char *rule;
		int status;
		const char *code, *retry_after, *should_retry;
	} row[] = {
		{ "*: status=500", 500, NULL, NULL, "false" },
		{ "*: status=400", 400, NULL, NULL, "false" },
		{ "*: status=401", 401, "invalid_api_key", NULL, "false" },
		{ "*: status=429,retry-after=7", 429, "rate_limit_exceeded", "7", "false" },
		{ "*: close-before", 502, NULL, NULL, "false" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		up(1, &row[i].rule, NULL, NULL);
		for (int stream = 0; stream < 2; stream++) {
			char body[256];
			struct http_answer a;
			(void)snprintf(body, sizeof body, "{\"model\":\"r\",\"stream\":%s,%s}", stream ? "true" : "false", MESSAGES);
			door_ask(&d, CHAT, "", body, &a);
			if (stream == 0)
				assert_int_equal(a.status, row[i].status);
			assert_true(a.status >= 400 && a.whole);
			assert_string_equal(http_header(&a, "Content-Type"), "application/json");
			assert_true(strlen(error_field(&a, "message")) > 5 && strlen(error_field(&a, "type")) > 3);
			if (stream == 0 && row[i].code)
				assert_string_equal(error_field(&a, "code"), row[i].code);
			if (stream == 0 && row[i].retry_after)
				assert_string_equal(http_header(&a, "Retry-After"), row[i].retry_after);
			if (stream == 0)
				assert_string_equal(http_header(&a, "x-should-retry"), row[i].should_retry);
			http_free(&a);
		}
		down();
	}
}

/* After the first content: an event of the stream, and no [DONE]. */
static void
test_broken_stream_tells(void **state)
{
	static const char *const rule[] = { "*: tokens=20,cut-tokens=3" };
	struct http_answer a;
	(void)state;
	up(1, rule, NULL, NULL);
	door_ask(&d, CHAT, "", STREAM("r", ""), &a);
	assert_int_equal(a.status, 200);
	char *error = strstr(a.body, "data: {\"error\":{");
	assert_non_null(error);
	assert_null(strstr(a.body, "[DONE]"));
	char *end = strstr(error, "\n\n");
	assert_non_null(end);
	assert_string_equal(end, "\n\n"); /* it is the last event */
	*end = 0;
	json_t *j = json_loads(error + 6, 0, NULL);
	assert_non_null(json_object_get(json_object_get(j, "error"), "message"));
	json_decref(j);
	http_free(&a);
	down();
}

/* It costs no attempt. */
static void
test_what_cannot_be_asked(void **state)
{
	struct http_answer a;
	(void)state;
	up(1, NULL, NULL, NULL);
	door_ask(&d, CHAT, "", WHOLE("nobody/knows"), &a);
	assert_int_equal(a.status, 404);
	http_free(&a);
	door_ask(&d, CHAT, "", "{\"model\":\"r\",\"stream\":\"yes\"," MESSAGES "}", &a);
	assert_int_equal(a.status, 400);
	assert_non_null(strstr(a.body, "stream"));
	assert_string_equal(http_header(&a, "x-should-retry"), "false");
	http_free(&a);
	door_ask(&d, CHAT, "", "{\"model\":", &a);
	assert_int_equal(a.status, 400);
	assert_string_equal(error_field(&a, "param"), "null");
	http_free(&a);
	door_ask(&d, CHAT, "", "", &a);
	assert_int_equal(a.status, 400);
	http_free(&a);
	assert_int_equal(double_requests(&w, 0), 0);
	down();
}

/* ---- waiting ---- */

static void
test_commit_after(void **state)
{
	static const char *const rule[] = { "*: first=900ms,text=late", "*: headers-delay=700ms,status=400" };
	static const char *const args[] = { "--commit-after", "0.3", NULL };
	struct http_answer a;
	char *all = NULL;
	size_t n = 0;
	(void)state;
	up(2, rule, NULL, args);
	int fd = door_connect(&d);
	uint64_t began = now_ms();
	door_post(&d, fd, CHAT, "", STREAM("a/m", ""));
	door_read_until(fd, ": waiting\n\n", 3000, &all, &n);
	assert_in_range(now_ms() - began, 250, 800);
	assert_int_equal(strncmp(all, "HTTP/1.1 200", 12), 0);
	door_read_until(fd, "data: [DONE]\n\n", 5000, &all, &n);
	assert_non_null(strstr(all, "late"));
	free(all);
	(void)close(fd);
	/* From then on a failure is an event. */
	door_ask(&d, CHAT, "", STREAM("b/m", ""), &a);
	assert_int_equal(a.status, 200);
	assert_int_equal(strncmp(a.body, ": waiting\n\ndata: {\"error\":{", 27), 0);
	assert_null(strstr(a.body, "[DONE]"));
	http_free(&a);
	/* An answer in one piece keeps its status, however long it takes. */
	door_ask(&d, CHAT, "", WHOLE("b/m"), &a);
	assert_int_equal(a.status, 400);
	http_free(&a);
	down();
}

/* ---- connections ---- */

static void
test_keep_alive_and_pipelining(void **state)
{
	struct http_answer a;
	char three[4096];
	(void)state;
	up(1, NULL, NULL, NULL);
	int fd = door_connect(&d);
	for (int i = 0; i < 3; i++) {
		door_post(&d, fd, CHAT, "", i == 1 ? STREAM("r", "") : WHOLE("r"));
		http_read(fd, 10000, &a);
		assert_int_equal(a.status, 200);
		assert_true(a.whole && !a.closed);
		http_free(&a);
	}
	/* An error of ours does not cost the connection either. */
	door_say(fd, "GET /v1/nothing HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n\r\n", d.port, d.key);
	http_read(fd, 10000, &a);
	assert_int_equal(a.status, 404);
	http_free(&a);
	/* Three at once, the last one cut in two: each has its answer, in order. */
	int n = snprintf(three, sizeof three,
	                 "GET /healthz HTTP/1.1\r\nHost: localhost:%d\r\n\r\n"
	                 "POST " CHAT " HTTP/1.1\r\nHost: localhost:%d\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s"
	                 "GET /v1/models HTTP/1.1\r\nHost: localhost:%d\r\nAuthorization: Bearer %s\r\n\r\n",
	                 d.port, d.port, d.key, strlen(WHOLE("r")), WHOLE("r"), d.port, d.key);
	door_send(fd, three, (size_t)n - 20);
	for (int i = 0; i < 2; i++) {
		http_read(fd, 10000, &a);
		assert_int_equal(a.status, 200);
		assert_non_null(strstr(a.body, i == 0 ? "\"ok\"" : "hello from a"));
		http_free(&a);
	}
	door_send(fd, three + n - 20, 20);
	http_read(fd, 10000, &a);
	assert_non_null(strstr(a.body, "\"list\""));
	http_free(&a);
	(void)close(fd);
	down();
}

static void
test_unix_socket_and_trust(void **state)
{
	char uid[16];
	const char *args[] = { "--trust-uid", uid, NULL };
	struct http_answer a;
	(void)state;
	(void)snprintf(uid, sizeof uid, "%u", (unsigned)getuid());
	for (int trusted = 0; trusted < 2; trusted++) {
		up(1, NULL, NULL, trusted ? args : NULL);
		int fd = door_connect_unix(&d);
		door_say(fd, "POST " CHAT " HTTP/1.1\r\nHost: any.name\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(STREAM("r", "")),
		         STREAM("r", ""));
		http_read(fd, 10000, &a);
		assert_int_equal(a.status, trusted ? 200 : 401);
		http_free(&a);
		(void)close(fd);
		fd = door_connect_unix(&d);
		door_post(&d, fd, CHAT, "", WHOLE("r"));
		http_read(fd, 10000, &a);
		assert_int_equal(a.status, 200);
		http_free(&a);
		(void)close(fd);
		down();
	}
}

static int64_t
attempts_by(const char *by, const char *name)
{
	struct sbx_report_options o = SBX_REPORT_INIT;
	struct sbx_client *c = client_up(&w);
	struct sbx_event ev;
	uint64_t id;
	int64_t n = -1;
	o.by = by;
	assert_int_equal(sbx_report(c, &o, &id), 0);
	assert_int_equal(sbx_next(c, 10000, &ev), 0);
	assert_int_equal(ev.note, SBX_NOTE_STATS);
	(void)sbx_reply_number(ev.reply, name, &n);
	sbx_close(c);
	return n;
}

/* The agent is told for whom: by the key, or by the user behind the socket. */
static void
test_for_whom(void **state)
{
	char uid[16], row[64];
	const char *args[] = { "--trust-uid", uid, NULL };
	struct http_answer a;
	(void)state;
	(void)snprintf(uid, sizeof uid, "%u", (unsigned)getuid());
	up(1, NULL, "\"store\": \"$DIR/signalbox.db\"", args);
	door_ask(&d, CHAT, "", WHOLE("r"), &a);
	assert_int_equal(a.status, 200);
	http_free(&a);
	for (int i = 0; i < 2; i++) {
		int fd = door_connect_unix(&d);
		door_post(&d, fd, CHAT, "", STREAM("r", ""));
		http_read(fd, 10000, &a);
		assert_int_equal(a.status, 200);
		http_free(&a);
		(void)close(fd);
	}
	agent_wait_number(&w, "store.committed", 3, 10000);
	assert_int_equal(attempts_by("tenant", "row.local.attempts"), 1);
	(void)snprintf(row, sizeof row, "row.uid:%s.attempts", uid);
	assert_int_equal(attempts_by("tenant", row), 2);
	assert_int_equal(attempts_by("key", "row.local.attempts"), 1);
	down();
}

/* What other gateways take in a body means here what it means there, or is refused by name. */
static void
test_members_for_a_gateway(void **state)
{
	static const char *const rule[] = { "*: close-before", HEALTHY };
	struct http_answer a;
	(void)state;
	up(2, rule, NULL, NULL);
	door_ask(&d, CHAT, "", "{\"model\":\"a/m\",\"models\":[\"b/m\"]," MESSAGES "}", &a);
	assert_int_equal(a.status, 200);
	assert_string_equal(http_header(&a, "x-signalbox-target"), "b/m");
	http_free(&a);
	door_ask(&d, CHAT, "", "{\"model\":\"r\",\"mock_testing_fallbacks\":true," MESSAGES "}", &a);
	assert_int_equal(a.status, 400);
	assert_string_equal(error_field(&a, "param"), "mock_testing_fallbacks");
	http_free(&a);
	down();
}

/* ---- what else it says ---- */

static void
test_models(void **state)
{
	struct http_answer a;
	static const struct {
		const char *id;
		bool there;
	} row[] = { { "r", true }, { "a/m", true }, { "m", true }, { "b/m", true }, { "c/m", false }, { "x", false } };
	(void)state;
	up(2, NULL, NULL, NULL);
	door_get(&d, "/v1/models", &a);
	assert_int_equal(a.status, 200);
	json_t *j = json_loads(a.body, 0, NULL), *data = json_object_get(j, "data");
	assert_int_equal(json_array_size(data), 3);
	assert_string_equal(json_string_value(json_object_get(json_array_get(data, 0), "id")), "r");
	assert_string_equal(json_string_value(json_object_get(json_array_get(data, 1), "owned_by")), "a");
	assert_true(json_integer_value(json_object_get(json_array_get(data, 1), "created")) > 1600000000);
	json_decref(j);
	http_free(&a);
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		char path[64];
		(void)snprintf(path, sizeof path, "/v1/models/%s", row[i].id);
		door_get(&d, path, &a);
		assert_int_equal(a.status, row[i].there ? 200 : 404);
		if (!row[i].there)
			assert_string_equal(error_field(&a, "code"), "model_not_found");
		http_free(&a);
	}
	door_get(&d, "/v1/models/a%2fm", &a); /* as some SDKs write it */
	assert_int_equal(a.status, 200);
	http_free(&a);
	down();
}

static void
test_litellm_names(void **state)
{
	static const char *const rule[] = { "*: close-before", HEALTHY };
	static const char *const args[] = { "--compat", "litellm", NULL };
	struct http_answer a;
	char more[256];
	(void)state;
	up(2, rule, NULL, args);
	door_ask(&d, CHAT, "x-litellm-timeout: 20\r\n", WHOLE("r"), &a);
	assert_int_equal(a.status, 200);
	assert_string_equal(http_header(&a, "x-litellm-model-id"), http_header(&a, "x-signalbox-target") ? "b/m" : "");
	assert_string_equal(http_header(&a, "x-litellm-attempted-fallbacks"), "1");
	assert_string_equal(http_header(&a, "x-litellm-attempted-retries"), "0");
	assert_non_null(http_header(&a, "x-litellm-call-id"));
	assert_non_null(http_header(&a, "x-litellm-response-duration-ms"));
	assert_non_null(http_header(&a, "x-litellm-overhead-duration-ms"));
	http_free(&a);
	/* What would change the answer and cannot be done is refused by name. */
	door_ask(&d, CHAT, "x-litellm-tags: a,b\r\n", WHOLE("r"), &a);
	assert_int_equal(a.status, 400);
	assert_non_null(strstr(a.body, "x-litellm-tags"));
	http_free(&a);
	int fd = door_connect(&d);
	(void)snprintf(more, sizeof more, "Host: localhost:%d\r\nx-litellm-api-key: Bearer %s", d.port, d.key);
	door_say(fd, "GET /v1/models HTTP/1.1\r\n%s\r\n\r\n", more);
	http_read(fd, 10000, &a);
	assert_int_equal(a.status, 200);
	http_free(&a);
	(void)close(fd);
	down();
}

/* ---- TLS, by a client that knows it ---- */

static size_t
gather(char *bytes, size_t size, size_t n, void *arg)
{
	struct http_answer *a = arg;
	char *body = realloc(a->body, a->body_bytes + size * n + 1);
	if (!body)
		return 0;
	a->body = body;
	memcpy(a->body + a->body_bytes, bytes, size * n);
	a->body_bytes += size * n;
	a->body[a->body_bytes] = 0;
	return size * n;
}

static void
test_tls(void **state)
{
	static const char *const tls[] = { "--tls-listen", "127.0.0.1:0", NULL };
	char cert[200], key[200], url[200], auth[200];
	const char *args[] = { "--tls-cert", cert, "--tls-key", key, "--listen", "tls:127.0.0.1:0", NULL };
	struct http_answer a = { 0 };
	long status = 0;
	(void)state;
	world_simple(&w, 1, NULL, NULL);
	(void)world_double(&w, "ca", tls); /* it makes a certificate of a CA of its own */
	(void)snprintf(cert, sizeof cert, "%s/ca-cert/cert.pem", w.dir);
	(void)snprintf(key, sizeof key, "%s/ca-cert/key.pem", w.dir);
	door_up(&w, &d, args);
	char *log = read_whole(d.log_path, NULL), *at = strstr(log, "tls=true");
	assert_non_null(at);
	while (strncmp(at, "127.0.0.1:", 10) != 0)
		at--;
	(void)snprintf(url, sizeof url, "https://127.0.0.1:%ld" CHAT, strtol(at + 10, NULL, 10));
	free(log);
	(void)snprintf(auth, sizeof auth, "Authorization: Bearer %s", d.key);
	CURL *c = curl_easy_init();
	struct curl_slist *headers = curl_slist_append(curl_slist_append(NULL, auth), "Content-Type: application/json");
	(void)curl_easy_setopt(c, CURLOPT_URL, url);
	(void)curl_easy_setopt(c, CURLOPT_CAINFO, strcat(strncpy(key, w.dir, sizeof key - 32), "/ca-cert/ca.pem"));
	(void)curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	(void)curl_easy_setopt(c, CURLOPT_POSTFIELDS, STREAM("r", ""));
	(void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, gather);
	(void)curl_easy_setopt(c, CURLOPT_WRITEDATA, &a);
	(void)curl_easy_setopt(c, CURLOPT_TIMEOUT, 20L);
	for (int i = 0; i < 2; i++) { /* the second on the same connection */
		CURLcode rc = curl_easy_perform(c);
		if (rc)
			fail_msg("%s", curl_easy_strerror(rc));
		(void)curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
		assert_int_equal(status, 200);
		assert_non_null(strstr(a.body, "data: [DONE]\n\n"));
		http_free(&a);
		a.body_bytes = 0;
	}
	curl_slist_free_all(headers);
	curl_easy_cleanup(c);
	down();
}

/* The library's client over both sockets: its bodies above 1 MiB wait for a 100. */
static void
test_curl_and_a_large_body(void **state)
{
	struct http_answer a = { 0 };
	char url[128], auth[200];
	size_t n = 8u << 20;
	long status = 0;
	(void)state;
	up(1, NULL, NULL, NULL);
	char *body = malloc(n + 256);
	assert_non_null(body);
	int head = sprintf(body, "{\"model\":\"r\",\"messages\":[{\"role\":\"user\",\"content\":\"");
	memset(body + head, 'x', n);
	(void)sprintf(body + head + n, "\"}]}");
	(void)snprintf(auth, sizeof auth, "Authorization: Bearer %s", d.key);
	for (int over_unix = 0; over_unix < 2; over_unix++) {
		CURL *c = curl_easy_init();
		struct curl_slist *headers = curl_slist_append(curl_slist_append(NULL, auth), "Content-Type: application/json");
		(void)snprintf(url, sizeof url, "http://127.0.0.1:%d" CHAT, d.port);
		(void)curl_easy_setopt(c, CURLOPT_URL, url);
		if (over_unix)
			(void)curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, d.path);
		(void)curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
		(void)curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
		(void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, gather);
		(void)curl_easy_setopt(c, CURLOPT_WRITEDATA, &a);
		(void)curl_easy_setopt(c, CURLOPT_TIMEOUT, 60L);
		CURLcode rc = curl_easy_perform(c);
		if (rc)
			fail_msg("%s", curl_easy_strerror(rc));
		(void)curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
		assert_int_equal(status, 200);
		assert_non_null(strstr(a.body, "hello from a"));
		http_free(&a);
		a.body_bytes = 0;
		curl_slist_free_all(headers);
		curl_easy_cleanup(c);
	}
	free(body);
	down();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_stream_is_the_providers),
		cmocka_unit_test(test_pieces_leave_at_once),
		cmocka_unit_test(test_other_operations),
		cmocka_unit_test(test_failover_is_not_seen),
		cmocka_unit_test(test_errors_have_their_status),
		cmocka_unit_test(test_broken_stream_tells),
		cmocka_unit_test(test_what_cannot_be_asked),
		cmocka_unit_test(test_commit_after),
		cmocka_unit_test(test_keep_alive_and_pipelining),
		cmocka_unit_test(test_unix_socket_and_trust),
		cmocka_unit_test(test_for_whom),
		cmocka_unit_test(test_members_for_a_gateway),
		cmocka_unit_test(test_models),
		cmocka_unit_test(test_litellm_names),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_curl_and_a_large_body),
	};
	(void)curl_global_init(CURL_GLOBAL_DEFAULT);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	curl_global_cleanup();
	return failed;
}
