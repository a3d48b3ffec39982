/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_door_keys.c -- the agent's virtual keys at the HTTP door: asked about before a body is read, remembered for a while, refused when
 * they are revoked, and good for what they may ask for.
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

#include "tests/e2e/key.h"

#define WHOLE(model) "{\"model\":\"" model "\"," MESSAGES "}"
#define STREAM(model) "{\"model\":\"" model "\",\"stream\":true," MESSAGES "}"

static struct world w;
static struct door d;
static struct key_made made;

/* A world, a door, and in d.key a key of the agent for `models`. */
static void
up(const char *models)
{
	world_simple(&w, 2, NULL, "\"store\": \"$DIR/s.db\"");
	key_make(&w, "acme", models, "30d", &made);
	door_up(&w, &d, NULL);
	(void)snprintf(d.key, sizeof d.key, "%s", made.secret);
}

static void
down(void)
{
	door_down(&d);
	world_down(&w);
}

static int
ask_status(const char *body)
{
	struct http_answer a;
	door_ask(&d, CHAT, "", body, &a);
	int status = a.status;
	http_free(&a);
	return status;
}

static int
get_status(const char *path)
{
	struct http_answer a;
	door_get(&d, path, &a);
	int status = a.status;
	http_free(&a);
	return status;
}

/* ==== */

/* Whatever the request looks like, it waits for the agent's word at its head, and goes on as if it had not. Each of these is the first
 * with its key. */
static void
a_request_waits_for_the_word_on_its_key(void **state)
{
	(void)state;
	static const char hello[] = WHOLE("r");
	struct http_answer a;
	up("");
	for (int kind = 0; kind < 8; kind++) {
		key_make(&w, "acme", "", "30d", &made);
		(void)snprintf(d.key, sizeof d.key, "%s", made.secret);
		int fd = kind == 7 ? door_connect_unix(&d) : door_connect(&d);
		switch (kind) {
		case 0: /* head and body at once */
		case 7:
			door_post(&d, fd, CHAT, "", hello);
			break;
		case 1: /* a stream */
			door_post(&d, fd, CHAT, "", STREAM("r"));
			break;
		case 2: /* chunked */
			door_say(fd, "POST " CHAT " HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
			         "Transfer-Encoding: chunked\r\n\r\n%zx\r\n%s\r\n0\r\n\r\n", d.port, d.key, strlen(hello), hello);
			break;
		case 3: /* no body */
			door_say(fd, "GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n\r\n", d.port, d.key);
			break;
		case 4: { /* a body that is larger than anything that is buffered */
			char *text = malloc(3 << 20);
			assert_non_null(text);
			memset(text, 'x', 3 << 20);
			memcpy(text, "{\"model\":\"r\",\"messages\":[{\"role\":\"user\",\"content\":\"", 51);
			memcpy(text + (3 << 20) - 6, "\"}]}\0", 5);
			door_post(&d, fd, CHAT, "", text);
			free(text);
			break;
		}
		case 5: /* the body when it is asked for */
			door_say(fd, "POST " CHAT " HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
			         "Expect: 100-continue\r\nContent-Length: %zu\r\n\r\n", d.port, d.key, strlen(hello));
			{
				char *all = NULL;
				size_t n = 0;
				door_read_until(fd, "100 Continue\r\n\r\n", 10000, &all, &n);
				free(all);
			}
			door_say(fd, "%s", hello);
			break;
		case 6: /* two at once */
			door_post(&d, fd, CHAT, "", hello);
			door_post(&d, fd, CHAT, "", hello);
			http_read(fd, 15000, &a);
			assert_int_equal(a.status, 200);
			http_free(&a);
			break;
		}
		http_read(fd, 15000, &a);
		if (a.status != 200 || !a.whole)
			fail_msg("kind %d: %d %s", kind, a.status, a.body);
		http_free(&a);
		(void)close(fd);
	}
	assert_int_equal(agent_number(&w, "key_checks"), 8);
	assert_int_equal(agent_number(&w, "key_checks_failed"), 0);
	down();
}

static void
what_was_said_is_remembered(void **state)
{
	(void)state;
	struct http_answer a;
	up("");
	for (int i = 0; i < 20; i++)
		assert_int_equal(ask_status(i % 2 ? WHOLE("r") : STREAM("r")), 200);
	assert_int_equal(agent_number(&w, "key_checks"), 1);
	struct sbx_client *c = client_up(&w);
	struct sbx_report_options o = SBX_REPORT_INIT;
	struct sbx_event ev;
	int64_t n = 0;
	uint64_t id;
	char field[64];
	agent_wait_number(&w, "store.committed", 20, 10000);
	o.by = "key"; /* the agent knows for whom */
	assert_int_equal(sbx_report(c, &o, &id), 0);
	assert_int_equal(sbx_next(c, 10000, &ev), 0);
	(void)snprintf(field, sizeof field, "row.%s.attempts", made.id);
	assert_true(sbx_reply_number(ev.reply, field, &n));
	assert_int_equal(n, 20);
	sbx_close(c);
	/* Bad ones too; and any number of them does not push out the good one. */
	for (int i = 0; i < 3000; i++) {
		(void)snprintf(d.key, sizeof d.key, "sk-sbx-%043d", i / 2);
		door_get(&d, "/v1/models", &a);
		assert_int_equal(a.status, 401);
		assert_non_null(strstr(a.body, "\"invalid_api_key\""));
		http_free(&a);
	}
	assert_int_equal(agent_number(&w, "key_checks_failed"), 1500);
	(void)snprintf(d.key, sizeof d.key, "sk-other-%043d", 1); /* none of the agent's: it is not asked */
	assert_int_equal(get_status("/v1/models"), 401);
	assert_int_equal(agent_number(&w, "key_checks_failed"), 1500);
	(void)snprintf(d.key, sizeof d.key, "%s", made.secret);
	assert_int_equal(get_status("/v1/models"), 200);
	assert_true(agent_number(&w, "key_checks") <= 1502); /* but time passes */
	down();
}

/* Who has no key learns nothing, reads nothing, and is not read. */
static void
a_bad_key_is_told_before_its_body(void **state)
{
	(void)state;
	struct http_answer a;
	up("");
	(void)snprintf(d.key, sizeof d.key, "sk-sbx-%043d", 7);
	int fd = door_connect(&d);
	door_say(fd, "POST " CHAT " HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
	         "Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n", d.port, d.key);
	http_read(fd, 10000, &a); /* no 100 */
	assert_int_equal(a.status, 401);
	http_free(&a);
	(void)close(fd);
	static const char *const paths[] = { "/v1/nothing", "/key/generate", "/v1/models/none" };
	for (size_t i = 0; i < 3; i++) {
		(void)snprintf(d.key, sizeof d.key, "sk-sbx-%043zu", i);
		assert_int_equal(get_status(paths[i]), 401);
	}
	down();
}

static void
a_revoked_key_opens_no_door(void **state)
{
	(void)state;
	uint64_t from;
	up("");
	assert_int_equal(ask_status(WHOLE("r")), 200);
	assert_int_equal(get_status("/v1/models"), 200);
	key_revoke(&w, made.id);
	from = now_ms();
	assert_int_equal(ask_status(WHOLE("r")), 401); /* the agent looks each time */
	while (get_status("/v1/models") != 401) { /* here only the door does */
		assert_true(now_ms() - from < 10500);
		(void)usleep(50000); /* a condition with a deadline */
	}
	assert_int_equal(double_requests(&w, 0) + double_requests(&w, 1), 1);
	down();
}

static void
a_limited_key_is_told_what_it_may_not(void **state)
{
	(void)state;
	struct http_answer a;
	up("r");
	assert_int_equal(ask_status(WHOLE("r")), 200);
	door_ask(&d, CHAT, "", "{\"model\":\"r\",\"fallbacks\":[\"b/m\"]," MESSAGES "}", &a);
	assert_int_equal(a.status, 403);
	assert_non_null(strstr(a.body, "\\\"b/m\\\""));
	assert_non_null(strstr(a.body, "\"permission_error\""));
	http_free(&a);
	assert_int_equal(ask_status(STREAM("a/m")), 403);
	down();
}

static void
without_the_agent_nobody_knows(void **state)
{
	(void)state;
	struct http_answer a;
	char good[128];
	up("");
	assert_int_equal(ask_status(WHOLE("r")), 200);
	(void)snprintf(good, sizeof good, "%s", d.key);
	world_agent_signal(&w, SIGSTOP); /* it hangs */
	uint64_t from = now_ms();
	(void)snprintf(d.key, sizeof d.key, "sk-sbx-%043d", 1);
	door_get(&d, "/v1/models", &a);
	assert_int_equal(a.status, 503);
	assert_non_null(http_header(&a, "Retry-After"));
	assert_in_range(now_ms() - from, 4500, 9000);
	http_free(&a);
	world_agent_signal(&w, SIGCONT);
	world_agent_signal(&w, SIGKILL);
	assert_int_not_equal(world_agent_wait(&w, 5000), -1);
	(void)snprintf(d.key, sizeof d.key, "sk-sbx-%043d", 2);
	assert_int_equal(get_status("/v1/models"), 503);
	world_agent_start(&w, NULL, &(struct start){ .bare = false });
	uint64_t until = now_ms() + 10000;
	while (get_status("/v1/models") != 401) { /* it reads its keys */
		assert_true(now_ms() < until);
		(void)usleep(20000);
	}
	(void)snprintf(d.key, sizeof d.key, "%s", good);
	assert_int_equal(ask_status(WHOLE("r")), 200);
	down();
}

/* A client that leaves while the agent is asked. */
static void
nobody_waits_for_a_word_that_nobody_wants(void **state)
{
	(void)state;
	up("");
	world_agent_signal(&w, SIGSTOP);
	const int fds = door_fds(&d);
	for (int i = 0; i < 50; i++) {
		(void)snprintf(d.key, sizeof d.key, "sk-sbx-%043d", i);
		int fd = door_connect(&d);
		door_post(&d, fd, CHAT, "", WHOLE("r"));
		(void)close(fd);
	}
	for (uint64_t until = now_ms() + 4000; door_fds(&d) > fds + 1;) { /* but for a link; well before CLOCK_CHECK */
		assert_true(now_ms() < until);
		(void)usleep(10000);
	}
	world_agent_signal(&w, SIGCONT);
	(void)snprintf(d.key, sizeof d.key, "%s", made.secret);
	assert_int_equal(ask_status(WHOLE("r")), 200);
	down();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_waits_for_the_word_on_its_key),
		cmocka_unit_test(what_was_said_is_remembered),
		cmocka_unit_test(a_bad_key_is_told_before_its_body),
		cmocka_unit_test(a_revoked_key_opens_no_door),
		cmocka_unit_test(a_limited_key_is_told_what_it_may_not),
		cmocka_unit_test(without_the_agent_nobody_knows),
		cmocka_unit_test(nobody_waits_for_a_word_that_nobody_wants),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
