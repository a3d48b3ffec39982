/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_door_hostile.c -- what must not come in by the HTTP door: foreign pages, requests without a key, requests that are framed
 * to be read in two ways, bodies without end, and clients that take all the time in the world. None of it reaches a provider.
 */
#include "tests/e2e/door.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/e2e/control.h"

#define HELLO "{\"model\":\"r\"," MESSAGES "}"
#define JSON "Content-Type: application/json\r\n"
#define OURS "Host: 127.0.0.1:$P\r\nAuthorization: Bearer $K\r\n"
#define CL "Content-Length: $N\r\n"

static struct world w;
static struct door d;

static void
up(const char *const *args)
{
	world_simple(&w, 1, NULL, NULL);
	door_up(&w, &d, args);
}

static void
down(void)
{
	door_down(&d);
	world_down(&w);
}

/* $P the port, $K the key, $N the length of HELLO. */
static void
say(int fd, const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (text[i] != '$') {
			door_send(fd, text + i, 1);
			continue;
		}
		i++;
		if (text[i] == 'P')
			door_say(fd, "%d", d.port);
		else if (text[i] == 'K')
			door_say(fd, "%s", d.key);
		else
			door_say(fd, "%zu", strlen(HELLO));
	}
}

static const struct {
	const char *name, *head; /* to the empty line, without it */
	int status;              /* 0 = any error, or the end of the connection: libmicrohttpd's own business */
} hostile[] = {
	{ "no key", "POST " CHAT " HTTP/1.1\r\nHost: 127.0.0.1:$P\r\n" JSON CL, 401 },
	{ "wrong key", "POST " CHAT " HTTP/1.1\r\nHost: 127.0.0.1:$P\r\nAuthorization: Bearer sk-signalbox-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n" JSON CL, 401 },
	{ "empty key", "POST " CHAT " HTTP/1.1\r\nHost: 127.0.0.1:$P\r\nAuthorization: Bearer \r\n" JSON CL, 401 },
	{ "another scheme", "POST " CHAT " HTTP/1.1\r\nHost: 127.0.0.1:$P\r\nAuthorization: Basic $K\r\n" JSON CL, 401 },
	{ "part of the key", "POST " CHAT " HTTP/1.1\r\nHost: 127.0.0.1:$P\r\nAuthorization: Bearer sk-signalbox-\r\n" JSON CL, 401 },
	{ "two keys", "POST " CHAT " HTTP/1.1\r\n" OURS "Authorization: Bearer $K\r\n" JSON CL, 400 },
	{ "foreign host", "POST " CHAT " HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer $K\r\n" JSON CL, 403 },
	{ "rebound name", "POST " CHAT " HTTP/1.1\r\nHost: evil.example:$P\r\nAuthorization: Bearer $K\r\n" JSON CL, 403 },
	{ "no port", "POST " CHAT " HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer $K\r\n" JSON CL, 403 },
	{ "no host", "POST " CHAT " HTTP/1.1\r\nAuthorization: Bearer $K\r\n" JSON CL, 0 },
	{ "two hosts", "POST " CHAT " HTTP/1.1\r\n" OURS "Host: evil.example\r\n" JSON CL, 400 },
	{ "two equal hosts", "POST " CHAT " HTTP/1.1\r\n" OURS "Host: 127.0.0.1:$P\r\n" JSON CL, 400 },
	{ "host with a path", "POST " CHAT " HTTP/1.1\r\nHost: 127.0.0.1:$P/x\r\nAuthorization: Bearer $K\r\n" JSON CL, 400 },
	{ "origin", "POST " CHAT " HTTP/1.1\r\n" OURS "Origin: https://evil.example\r\n" JSON CL, 403 },
	{ "origin null", "POST " CHAT " HTTP/1.1\r\n" OURS "Origin: null\r\n" JSON CL, 403 },
	{ "origin of ours", "POST " CHAT " HTTP/1.1\r\n" OURS "Origin: http://127.0.0.1:$P\r\n" JSON CL, 403 },
	{ "preflight", "OPTIONS " CHAT " HTTP/1.1\r\nHost: 127.0.0.1:$P\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\nContent-Length: $N\r\n", 403 },
	{ "text/plain", "POST " CHAT " HTTP/1.1\r\n" OURS "Content-Type: text/plain\r\n" CL, 415 },
	{ "form", "POST " CHAT " HTTP/1.1\r\n" OURS "Content-Type: application/x-www-form-urlencoded\r\n" CL, 415 },
	{ "no type", "POST " CHAT " HTTP/1.1\r\n" OURS CL, 415 },
	{ "almost json", "POST " CHAT " HTTP/1.1\r\n" OURS "Content-Type: application/jsonp\r\n" CL, 415 },
	{ "TE and CL", "POST " CHAT " HTTP/1.1\r\n" OURS JSON CL "Transfer-Encoding: chunked\r\n", 400 },
	{ "two lengths", "POST " CHAT " HTTP/1.1\r\n" OURS JSON CL "Content-Length: 7\r\n", 0 },
	{ "length of nonsense", "POST " CHAT " HTTP/1.1\r\n" OURS JSON "Content-Length: -1\r\n", 0 },
	{ "absolute form", "POST http://evil.example" CHAT " HTTP/1.1\r\n" OURS JSON CL, 400 },
	{ "two slashes", "POST //v1/chat/completions HTTP/1.1\r\n" OURS JSON CL, 400 },
	{ "two slashes within", "POST /v1//chat/completions HTTP/1.1\r\n" OURS JSON CL, 400 },
	{ "encoded NUL", "POST " CHAT "%00 HTTP/1.1\r\n" OURS JSON CL, 400 },
	{ "dots", "POST /v1/%2e%2e/v1/chat/completions HTTP/1.1\r\n" OURS JSON CL, 400 },
	{ "another path", "POST /v1/chat/completions/ HTTP/1.1\r\n" OURS JSON CL, 404 },
	{ "admin", "POST /key/generate HTTP/1.1\r\n" OURS JSON CL, 404 },
	{ "no key, no path", "POST /key/generate HTTP/1.1\r\nHost: 127.0.0.1:$P\r\n" JSON CL, 401 },
	{ "GET of a POST", "GET " CHAT " HTTP/1.1\r\n" OURS, 405 },
	{ "DELETE", "DELETE /v1/models/r HTTP/1.1\r\n" OURS, 405 },
	{ "TRACE", "TRACE / HTTP/1.1\r\n" OURS, 404 },
	{ "empty idempotency key", "POST " CHAT " HTTP/1.1\r\n" OURS "Idempotency-Key: \r\n" JSON CL, 400 },
	{ "nonsense", "\x16\x03\x01\x02 TLS perhaps\r\n", 0 },
	{ "HTTP/2", "PRI * HTTP/2.0\r\n", 0 },
};

static void
test_refused(void **state)
{
	(void)state;
	up(NULL);
	for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
		struct http_answer a;
		int fd = door_connect(&d);
		say(fd, hostile[i].head, strlen(hostile[i].head));
		door_say(fd, "\r\n%s", strncmp(hostile[i].head, "POST", 4) == 0 || strncmp(hostile[i].head, "OPTIONS", 7) == 0 ? HELLO : "");
		(void)shutdown(fd, SHUT_WR); /* for those that libmicrohttpd goes on waiting for */
		http_read(fd, 20000, &a);
		if (hostile[i].status ? a.status != hostile[i].status : a.status != 0 && a.status < 400)
			fail_msg("%s: %d, not %d: %s", hostile[i].name, a.status, hostile[i].status, a.body ? a.body : "");
		if (hostile[i].status) {
			assert_string_equal(http_header(&a, "Content-Type"), "application/json");
			assert_null(http_header(&a, "Access-Control-Allow-Origin"));
			assert_non_null(strstr(a.body, "\"error\""));
			assert_null(strstr(a.body, "evil"));
		}
		http_free(&a);
		http_read(fd, 20000, &a); /* and no second answer: what follows such a head is nobody's request */
		assert_int_equal(a.status, 0);
		http_free(&a);
		(void)close(fd);
	}
	assert_int_equal(double_requests(&w, 0), 0);
	down();
}

/* Names and origins that were allowed. */
static void
test_allowed(void **state)
{
	static const char *const args[] = { "--host", "box.lan", "--origin", "https://app.example", NULL };
	static const char *const good[] = {
		"POST " CHAT " HTTP/1.1\r\nHost: box.lan:$P\r\nAuthorization: Bearer $K\r\n" JSON CL,
		"POST " CHAT " HTTP/1.1\r\nHost: LOCALHOST:$P\r\nAuthorization: bearer $K\r\n" JSON CL,
		"POST " CHAT " HTTP/1.1\r\n" OURS "Origin: https://app.example\r\n" JSON CL,
		"POST " CHAT "?api-version=1 HTTP/1.1\r\n" OURS "content-type: application/json; charset=utf-8\r\n" CL,
		"POST " CHAT " HTTP/1.1\r\n" OURS "Idempotency-Key: 0123-abc\r\n" JSON CL,
	};
	(void)state;
	up(args);
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		struct http_answer a;
		int fd = door_connect(&d);
		say(fd, good[i], strlen(good[i]));
		door_say(fd, "\r\n" HELLO);
		http_read(fd, 20000, &a);
		if (a.status != 200)
			fail_msg("%zu: %d %s", i, a.status, a.body);
		assert_null(http_header(&a, "Access-Control-Allow-Origin"));
		http_free(&a);
		(void)close(fd);
	}
	down();
}

/* What libmicrohttpd's parser takes and nobody behind it can see. It is harmless here, since no framing is passed on; should it
 * change, this says so. */
static void
test_what_the_parser_takes(void **state)
{
	static const char with_nul[] = "POST " CHAT " HTTP/1.1\r\n" OURS "X-Nul: a\0b\r\n" JSON CL "\r\n" HELLO;
	static const struct {
		const char *text;
		size_t n;
		int least, most;
	} row[] = {
		{ "POST " CHAT " HTTP/1.1\n" "Host: 127.0.0.1:$P\nAuthorization: Bearer $K\nContent-Type: application/json\nContent-Length: $N\n\n" HELLO, 0, 200, 200 },
		{ "POST " CHAT " HTTP/1.1\r\n" OURS "X-Folded: a\r\n b\r\n" JSON CL "\r\n" HELLO, 0, 200, 200 },
		{ with_nul, sizeof with_nul - 1, 200, 400 },
	};
	(void)state;
	up(NULL);
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		struct http_answer a;
		int fd = door_connect(&d);
		say(fd, row[i].text, row[i].n ? row[i].n : strlen(row[i].text));
		http_read(fd, 20000, &a);
		if (a.status < row[i].least || a.status > row[i].most)
			fail_msg("%zu: %d %s", i, a.status, a.body);
		http_free(&a);
		(void)close(fd);
	}
	down();
}

/* ---- bodies ---- */

static void
send_filler(int fd, size_t n)
{
	static char filler[65536];
	memset(filler, 'x', sizeof filler);
	for (; n; n -= n < sizeof filler ? n : sizeof filler)
		door_send(fd, filler, n < sizeof filler ? n : sizeof filler);
}

static void
test_bodies_over_the_limit(void **state)
{
	struct http_answer a;
	const size_t over = (32u << 20) + 1;
	(void)state;
	up(NULL);
	/* Announced, and sent all the same: the client gets to read why. */
	int fd = door_connect(&d);
	say(fd, "POST " CHAT " HTTP/1.1\r\n" OURS JSON, strlen("POST " CHAT " HTTP/1.1\r\n" OURS JSON));
	door_say(fd, "Content-Length: %zu\r\n\r\n", over);
	send_filler(fd, over);
	http_read(fd, 30000, &a);
	assert_int_equal(a.status, 413);
	assert_non_null(strstr(a.body, "32 MiB"));
	http_free(&a);
	(void)close(fd);
	/* Announced, and the client asks first. */
	fd = door_connect(&d);
	say(fd, "POST " CHAT " HTTP/1.1\r\n" OURS JSON, strlen("POST " CHAT " HTTP/1.1\r\n" OURS JSON));
	door_say(fd, "Content-Length: %zu\r\nExpect: 100-continue\r\n\r\n", over);
	http_read(fd, 30000, &a);
	assert_int_equal(a.status, 413);
	http_free(&a);
	(void)close(fd);
	/* Not announced. */
	fd = door_connect(&d);
	say(fd, "POST " CHAT " HTTP/1.1\r\n" OURS JSON, strlen("POST " CHAT " HTTP/1.1\r\n" OURS JSON));
	door_say(fd, "Transfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 33; i++) {
		door_say(fd, "100000\r\n");
		send_filler(fd, 1u << 20);
		door_say(fd, "\r\n");
	}
	door_say(fd, "0\r\n\r\n");
	http_read(fd, 30000, &a);
	assert_int_equal(a.status, 413);
	http_free(&a);
	(void)close(fd);
	/* Without end. */
	fd = door_connect(&d);
	say(fd, "POST " CHAT " HTTP/1.1\r\n" OURS JSON, strlen("POST " CHAT " HTTP/1.1\r\n" OURS JSON));
	door_say(fd, "Content-Length: 99999999999\r\n\r\n");
	http_read(fd, 30000, &a);
	assert_int_equal(a.status, 413);
	http_free(&a);
	(void)close(fd);
	assert_true(door_rss_bytes(&d) < (getenv("SBX_BUILD") && strstr(getenv("SBX_BUILD"), "address") ? 1024ll << 20 : 200ll << 20));
	assert_int_equal(double_requests(&w, 0), 0);
	door_ask(&d, CHAT, "", HELLO, &a);
	assert_int_equal(a.status, 200);
	http_free(&a);
	down();
}

static void
test_heads_over_the_limit(void **state)
{
	struct http_answer a;
	(void)state;
	up(NULL);
	int fd = door_connect(&d);
	door_say(fd, "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Big: ", d.port);
	send_filler(fd, 100000);
	door_say(fd, "\r\n\r\n");
	http_read(fd, 20000, &a);
	assert_true(a.status == 0 || a.status == 413 || a.status == 431 || a.status == 414);
	http_free(&a);
	(void)close(fd);
	down();
}

/* ---- time ---- */

/* A head that drips is given 10 s in all, not 10 s for each byte; a connection that rests between requests is given more. */
static void
test_slow_heads(void **state)
{
	struct http_answer a;
	(void)state;
	up(NULL);
	int silent = door_connect(&d), drip = door_connect(&d), rests = door_connect(&d);
	uint64_t began = now_ms();
	door_say(rests, "GET /healthz HTTP/1.1\r\nHost: localhost:%d\r\n\r\n", d.port);
	http_read(rests, 5000, &a);
	assert_int_equal(a.status, 200);
	http_free(&a);
	char text[4096] = "";
	size_t n = 0;
	while (now_ms() - began < 14000) {
		door_send(drip, "G", 1);
		pause_ms(200);
		ssize_t got = recv(drip, text + n, sizeof text - 1 - n, MSG_DONTWAIT);
		if (got > 0)
			n += (size_t)got;
		if (got == 0)
			break;
	}
	assert_in_range(now_ms() - began, 9500, 12000);
	assert_int_equal(strncmp(text, "HTTP/1.1 408 ", 13), 0);
	assert_true(door_closed(silent, 1000));
	door_say(rests, "GET /healthz HTTP/1.1\r\nHost: localhost:%d\r\n\r\n", d.port);
	http_read(rests, 5000, &a);
	assert_int_equal(a.status, 200);
	http_free(&a);
	(void)close(silent);
	(void)close(drip);
	(void)close(rests);
	down();
}

/* ---- starting ---- */

static void
test_will_not_start(void **state)
{
	char open_key[200], good_key[200], none[200];
	static const char text[] = "sk-signalbox-0123456789abcdef\n";
	(void)state;
	world_up(&w);
	(void)snprintf(open_key, sizeof open_key, "%s/open.key", w.dir);
	(void)snprintf(good_key, sizeof good_key, "%s/good.key", w.dir);
	(void)snprintf(none, sizeof none, "%s/none/none.key", w.dir);
	FILE *f = fopen(open_key, "we");
	assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0 && chmod(open_key, 0644) == 0);
	f = fopen(good_key, "we");
	assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0 && chmod(good_key, 0600) == 0);
	const struct {
		const char *args[7];
		int status;
		const char *says;
	} row[] = {
		{ { "--key-file", good_key, "--listen", "0.0.0.0:0" }, 1, "--tls-cert" },
		{ { "--key-file", good_key, "--listen", "[::]:0" }, 1, "--tls-cert" },
		{ { "--key-file", good_key, "--listen", "tls:127.0.0.1:0" }, 1, "--tls-cert" },
		{ { "--key-file", good_key, "--listen", "example.com:80" }, 1, "numeric" },
		{ { "--key-file", good_key, "--listen", "127.0.0.1" }, 1, "HOST:PORT" },
		{ { "--key-file", open_key, "--listen", "127.0.0.1:0" }, 1, "chmod 600" },
		{ { "--key-file", none, "--listen", "127.0.0.1:0" }, 1, "cannot be made" },
		{ { "--tls-cert", good_key }, 64, "belong together" },
		{ { "--compat", "portkey" }, 64, "--compat" },
		{ { "--commit-after", "soon" }, 64, "--commit-after" },
		{ { "--listne", "x" }, 64, "--help" },
		{ { "stray" }, 64, "stray" },
		{ { "--help" }, 0, "example:" },
		{ { "--version" }, 0, "signalbox-http 0." },
	};
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		char *said;
		int status = world_run(&w, "signalbox-http", &(struct start){ .args = row[i].args }, &said);
		if (status != row[i].status || !strstr(said, row[i].says))
			fail_msg("%zu: ended with %d: %s", i, status, said);
		assert_null(strstr(said, "0123456789abcdef"));
		free(said);
	}
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_what_the_parser_takes),
		cmocka_unit_test(test_bodies_over_the_limit),
		cmocka_unit_test(test_heads_over_the_limit),
		cmocka_unit_test(test_slow_heads),
		cmocka_unit_test(test_will_not_start),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
