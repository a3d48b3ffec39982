/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_clients.c -- clients that vanish (T20) or do not read (T21): the provider's call ends at once, or waits; nobody else
 * notices, and nothing is left over.
 *
 * When a call ended is what the double says, by the clock that all processes share.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/e2e/control.h"
#include "tests/e2e/harness.h"
#include "tests/e2e/raw.h"

#ifdef __SANITIZE_ADDRESS__
#define CANCEL_NS 250000000ll /* every allocation and access is checked */
#define RSS_SLACK (64ll << 20)
#else
#define CANCEL_NS 50000000ll
#define RSS_SLACK (4ll << 20)
#endif
#define WINDOW_NS 250000000ll /* a deadline is kept this exactly */
#define ENDLESS "tokens=10m,gap=1ms"

enum way { BY_CLOSE, BY_KILL, BY_STOP_AND_KILL, BY_HALF_CLOSE, BY_CANCEL, N_WAYS };
static const char *const way_word[N_WAYS] = { "close", "kill -9", "SIGSTOP, then kill -9", "shutdown of its writing half", "CANCEL" };

/* ---- a neighbour: another client, with a stream of its own that must not suffer ---- */

#define NEIGHBOUR_MODEL "b/m@tokens=80,gap=2ms"

struct neighbour {
	struct sbx_client *c;
	struct sbx_buf text;
};

static void
neighbour_up(struct neighbour *n, struct world *w)
{
	struct sbx_request_options q = SBX_REQUEST_INIT;
	uint64_t id;
	n->c = client_up(w);
	sbx_buf_init(&n->text, 1u << 20);
	q.model = NEIGHBOUR_MODEL;
	q.body = BODY;
	q.body_bytes = strlen(BODY);
	q.stream = true;
	assert_int_equal(sbx_submit(n->c, &q, &id), 0);
}

static void
neighbour_down(struct neighbour *n)
{
	struct sbx_event ev;
	do {
		assert_int_equal(sbx_next(n->c, 20000, &ev), 0);
		if (ev.note == SBX_NOTE_TEXT)
			(void)sbx_buf_append(&n->text, ev.text, ev.text_bytes);
	} while (!ev.last);
	if (ev.note != SBX_NOTE_DONE)
		fail_msg("the neighbour's stream ended with %s", sbx_reply_message(ev.reply));
	(void)sbx_buf_append(&n->text, "", 1);
	struct sbx_reply *r = ask_body(n->c, NULL, "b/m@tokens=80", BODY, false, 20000);
	assert_string_equal((char *)n->text.data, sbx_reply_text(r, 0, NULL));
	sbx_reply_free(r);
	sbx_buf_fini(&n->text);
	sbx_close(n->c);
}

/* ---- vanishing ---- */

/* From here on another process is the client: it only sits there, or hands on what comes (relay). */
static pid_t
give_away(struct raw *r, int relay)
{
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		char bytes[4096];
		for (;;) {
			ssize_t n = relay < 0 ? (ssize_t)pause() : recv(r->fd, bytes, sizeof bytes, 0);
			if (relay >= 0 && (n <= 0 || send(relay, bytes, (size_t)n, MSG_NOSIGNAL) != n))
				_exit(0);
		}
	}
	(void)close(r->fd);
	r->fd = -1;
	return pid;
}

/* The connection goes in that way; returns when. */
static int64_t
vanish(struct raw *r, enum way way, uint64_t first_id, uint64_t last_id)
{
	int64_t at;
	pid_t pid = 0;
	int status;
	if (way == BY_KILL || way == BY_STOP_AND_KILL)
		pid = give_away(r, -1);
	if (way == BY_STOP_AND_KILL) {
		assert_int_equal(kill(pid, SIGSTOP), 0);
		assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	}
	at = (int64_t)now_ns();
	switch (way) {
	case BY_KILL:
	case BY_STOP_AND_KILL:
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		break;
	case BY_HALF_CLOSE:
		assert_int_equal(shutdown(r->fd, SHUT_WR), 0);
		break;
	case BY_CANCEL:
		for (uint64_t id = first_id; id <= last_id; id++)
			raw_cancel(r, id);
		break;
	default:
		(void)close(r->fd);
		r->fd = -1;
	}
	return at;
}

/* Each of `n` calls of double a ended because the agent closed it, soon after `at`. */
static void
assert_cancelled(struct world *w, int n, int64_t at, const char *how)
{
	double_wait(w, 0, n, "client-closed", 5000);
	for (int i = 0; i < n; i++) {
		int64_t late = double_log_number(w, 0, i, "time_ns") + double_log_number(w, 0, i, "closed_after_ns") - at;
		if (late > CANCEL_NS)
			fail_msg("by %s: call %d was closed %.1f ms after the client went", how, i, (double)late / 1e6);
	}
	free(double_get(w, 0, "DELETE", "/mock/log", NULL, NULL));
}

static void
t20_client_vanishes_before_sending(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	world_simple(&w, 2, NULL, NULL);
	struct neighbour n;
	struct sbx_client *c = client_up(&w);
	sbx_reply_free(ask_body(c, NULL, "b/m", BODY, false, 10000)); /* what is opened once, as the store's files, is open then */
	sbx_close(c);
	agent_wait_at_rest(&w, 5000);
	neighbour_up(&n, &w);
	agent_wait_number(&w, "attempts", 2, 5000);
	int fds = agent_fds(&w);
	for (int i = 0; i < 100; i++) { /* after accept, after HELLO, after half a frame */
		if (i % 3)
			raw_up(&r, &w);
		else
			raw_open(&r, &w);
		if (i % 3 == 2)
			assert_true(raw_send(&r, "\0\0\1\0\x93", 5));
		raw_close(&r);
	}
	agent_wait_number(&w, "connections", 100, 5000);
	neighbour_down(&n);
	assert_int_equal(double_requests(&w, 0), 0);
	agent_wait_at_rest(&w, 5000);
	assert_true(agent_fds(&w) <= fds);
	assert_int_equal(agent_number(&w, "frames_bad"), 0);
	assert_int_equal(agent_number(&w, "sessions"), 1); /* that of this question */
	world_down(&w);
}

static void
t20_client_vanishes_before_the_first_byte(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct neighbour n;
	world_simple(&w, 2, NULL, NULL);
	for (int i = 0; i < 2 * N_WAYS; i++) {
		enum way way = (enum way)(i / 2);
		neighbour_up(&n, &w);
		raw_up(&r, &w);
		raw_submit(&r, 1, "a/m@hang", i % 2, 60000);
		double_wait(&w, 0, 1, "open", 5000);
		assert_cancelled(&w, 1, vanish(&r, way, 1, 1), way_word[way]);
		if (way == BY_CANCEL)
			(void)raw_expect_error(&r, 1, "cancelled", 5000);
		raw_close(&r);
		neighbour_down(&n);
	}
	agent_wait_at_rest(&w, 5000);
	assert_int_equal(agent_number(&w, "requests_cancelled"), 2 * N_WAYS);
	world_down(&w);
}

static void
t20_client_vanishes_mid_stream(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	struct neighbour n;
	world_simple(&w, 2, NULL, NULL);
	for (enum way way = 0; way < N_WAYS; way++) {
		neighbour_up(&n, &w);
		raw_up(&r, &w);
		raw_submit(&r, 1, "a/m@" ENDLESS, true, 60000);
		for (int i = 0; i < 20; i++)
			raw_expect(&r, SBX_FRAME_EVENT, 1, 5000, &f);
		assert_cancelled(&w, 1, vanish(&r, way, 1, 1), way_word[way]);
		raw_close(&r);
		neighbour_down(&n);
	}
	agent_wait_at_rest(&w, 5000);
	assert_int_equal(agent_number(&w, "target.a/m@" ENDLESS ".failures"), 0); /* the provider is not to blame */
	world_down(&w);
}

static void
t20_client_vanishes_with_1_mib_unread(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct neighbour n;
	enum { STREAMS = 8 };
	world_simple(&w, 2, NULL, NULL);
	for (enum way way = 0; way < BY_CANCEL; way++) {
		neighbour_up(&n, &w);
		raw_up(&r, &w);
		int64_t stalls = agent_number(&w, "credit_stalls");
		for (uint64_t id = 1; id <= STREAMS; id++) /* the socket and the session's queue together hold over 1 MiB; then all wait */
			raw_submit(&r, id, "a/m@tokens=10m", true, 60000);
		agent_wait_number(&w, "credit_stalls", stalls + STREAMS, 20000);
		assert_cancelled(&w, STREAMS, vanish(&r, way, 1, STREAMS), way_word[way]);
		raw_close(&r);
		neighbour_down(&n);
	}
	agent_wait_at_rest(&w, 5000);
	world_down(&w);
}

static void
t20_client_vanishes_while_its_request_waits_for_a_retry(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	world_simple(&w, 1, NULL, NULL);
	raw_up(&r, &w);
	raw_submit(&r, 1, "a/m@status=429,retry-after=1", true, 60000);
	double_wait(&w, 0, 1, "answered", 5000);
	raw_close(&r);
	agent_wait_at_rest(&w, 500); /* not only when the second is over */
	pause_ms(1300);              /* a request that were still there would be tried again in this time: its absence is the condition */
	assert_int_equal(double_requests(&w, 0), 1);
	world_down(&w);
}

static void
t20_a_stopped_client_gets_the_rest_when_it_goes_on(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	struct neighbour n;
	int pair[2], status;
	world_simple(&w, 2, NULL, NULL);
	neighbour_up(&n, &w);
	raw_up(&r, &w);
	raw_submit(&r, 1, "a/m@tokens=2000,gap=500us", true, 60000);
	raw_expect(&r, SBX_FRAME_EVENT, 1, 5000, &f);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	pid_t pid = give_away(&r, pair[1]);
	(void)close(pair[1]);
	r.fd = pair[0];
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	double_wait(&w, 0, 1, "answered", 10000); /* it fits into the credit: the provider is not held up */
	neighbour_down(&n);
	assert_int_equal(kill(pid, SIGCONT), 0);
	raw_expect(&r, SBX_FRAME_DONE, 1, 5000, &f);
	assert_true(r.payload_bytes > 2000 * 4);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	raw_close(&r);
	world_down(&w);
}

static void
t20_hundreds_of_vanishing_clients_leave_nothing(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	world_simple(&w, 1, NULL, NULL);
	int64_t rss = 0;
	int fds = 0;
	for (int i = 0; i < 400; i++) {
		raw_up(&r, &w);
		raw_submit(&r, 1, i % 2 ? "a/m@hang" : "a/m@" ENDLESS, true, 60000);
		raw_close(&r);
		if (i == 99) { /* pools have their size now */
			agent_wait_at_rest(&w, 10000);
			rss = agent_rss_bytes(&w);
			fds = agent_fds(&w);
		}
	}
	agent_wait_at_rest(&w, 10000);
	assert_true(agent_fds(&w) <= fds + 2);
	assert_true(agent_rss_bytes(&w) < rss + RSS_SLACK);
	/* Some may have gone before their request was read; all others were cancelled, and none failed. */
	assert_int_equal(agent_number(&w, "requests_cancelled"), agent_number(&w, "requests"));
	world_down(&w);
}

/* ---- T21 ---- */

static void
t21_the_provider_is_paused_at_256_kib_and_neighbours_of_the_connection_go_on(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	world_simple(&w, 2, NULL, NULL);
	raw_up(&r, &w);
	uint64_t began = now_ns();
	raw_submit(&r, 1, "a/m@tokens=10m", true, 2000);
	agent_wait_number(&w, "credit_stalls", 1, 20000);
	int64_t sent = double_log_number(&w, 0, 0, "body_bytes"), rss = agent_rss_bytes(&w);
	/* Neighbours: on the same connection, whole and streamed, while the first has no credit left. */
	for (uint64_t id = 2; id < 22; id++) {
		raw_submit(&r, id, id % 2 ? "b/m" : "b/m@tokens=50", id % 2, 10000);
		raw_expect(&r, SBX_FRAME_DONE, id, 2000, &f);
	}
	assert_true(r.payload_bytes <= SBX_CREDIT_BYTES + 20 * 300);
	assert_true(r.payload_bytes > SBX_CREDIT_BYTES - SBX_EVENT_MAX_BYTES);
	/* The provider stands: kernel buffers are full, and not a byte more leaves it. */
	for (int64_t now; (now = double_log_number(&w, 0, 0, "body_bytes")) != sent; sent = now)
		pause_ms(200);
	assert_true(sent < 32 << 20);
	assert_true(agent_rss_bytes(&w) < rss + RSS_SLACK);
	/* And the deadline cuts it, told although the client grants nothing. */
	(void)raw_expect_error(&r, 1, "timeout", 5000);
	int64_t took = (int64_t)(now_ns() - began), closed = double_log_number(&w, 0, 0, "closed_after_ns");
	assert_in_range(took, 2000000000ll - WINDOW_NS, 2000000000ll + WINDOW_NS);
	assert_in_range(closed, 2000000000ll - WINDOW_NS, 2000000000ll + WINDOW_NS);
	raw_close(&r);
	agent_wait_at_rest(&w, 5000);
	world_down(&w);
}

static void
t21_reading_1_kb_a_second_is_cut_at_the_deadline(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct neighbour n;
	char bytes[100];
	enum { STREAMS = 16 };
	world_simple(&w, 2, NULL, NULL);
	raw_up(&r, &w);
	for (uint64_t id = 1; id <= STREAMS; id++)
		raw_submit(&r, id, "a/m@tokens=10m", true, 1500);
	agent_wait_number(&w, "credit_stalls", STREAMS, 20000);
	neighbour_up(&n, &w);
	int64_t rss = agent_rss_bytes(&w);
	while (agent_number(&w, "in_flight") > 1) { /* the neighbour's may be the last; each look is a tenth of a second apart */
		(void)recv(r.fd, bytes, sizeof bytes, MSG_DONTWAIT);
		pause_ms(100);
	}
	assert_true(agent_rss_bytes(&w) < rss + RSS_SLACK);
	neighbour_down(&n);
	double_wait(&w, 0, STREAMS, "client-closed", 5000);
	for (int i = 0; i < STREAMS; i++) {
		int64_t closed = double_log_number(&w, 0, i, "closed_after_ns");
		assert_in_range(closed, 1500000000ll - 2 * WINDOW_NS, 1500000000ll + WINDOW_NS); /* the last one began a little later than its clock */
	}
	agent_wait_at_rest(&w, 5000);
	raw_close(&r);
	world_down(&w);
}

static void
t21_a_pause_of_the_client_is_not_the_providers_silence(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	enum { TOKENS = 60000 };
	world_simple(&w, 1, NULL, "\"timeouts\": { \"idle_bytes_ms\": 300, \"idle_content_ms\": 300 }");
	raw_up(&r, &w);
	raw_submit(&r, 1, "a/m@tokens=60000", true, 20000);
	agent_wait_number(&w, "credit_stalls", 1, 20000);
	pause_ms(1000); /* three idle limits: what is shown is that none of them fires */
	assert_int_equal(agent_number(&w, "in_flight"), 1);
	raw_credit(&r, 1, 16u << 20);
	raw_expect(&r, SBX_FRAME_DONE, 1, 20000, &f);
	/* All of it, once: " t4" up to " t60000" behind the first three words. */
	uint64_t want = strlen("hello from a");
	for (int i = 4; i <= TOKENS; i++)
		want += (uint64_t)snprintf(NULL, 0, " t%d", i);
	assert_int_equal(r.payload_bytes, want);
	raw_close(&r);
	world_down(&w);
}

static void
t21_a_client_that_grants_nothing_and_submits_much_is_bounded(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct neighbour n;
	enum { STREAMS = 300 };
	world_simple(&w, 2, NULL, NULL);
	raw_up(&r, &w);
	int64_t rss = agent_rss_bytes(&w);
	for (uint64_t id = 1; id <= STREAMS; id++) /* it never reads either */
		raw_submit(&r, id, "a/m@tokens=10m", true, 60000);
	agent_wait_number(&w, "credit_stalls", STREAMS, 30000);
	neighbour_up(&n, &w);
	/* A session may have 1 MiB unsent. Each request holds what one read brought beyond that, and its call. */
	int64_t grown = agent_rss_bytes(&w) - rss, most = (2ll << 20) + STREAMS * (128ll << 10);
#ifndef __SANITIZE_ADDRESS__
	assert_true(grown < most);
#else
	(void)grown;
	(void)most;
#endif
	neighbour_down(&n);
	raw_close(&r);
	double_wait(&w, 0, STREAMS, "client-closed", 5000); /* 300 at once keep the double itself busy: no time is asserted here */
	agent_wait_at_rest(&w, 5000);
	world_down(&w);
}

int
main(int argc, char **argv)
{
	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern: "t20*" */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(t20_client_vanishes_before_sending),
		cmocka_unit_test(t20_client_vanishes_before_the_first_byte),
		cmocka_unit_test(t20_client_vanishes_mid_stream),
		cmocka_unit_test(t20_client_vanishes_with_1_mib_unread),
		cmocka_unit_test(t20_client_vanishes_while_its_request_waits_for_a_retry),
		cmocka_unit_test(t20_a_stopped_client_gets_the_rest_when_it_goes_on),
		cmocka_unit_test(t20_hundreds_of_vanishing_clients_leave_nothing),
		cmocka_unit_test(t21_the_provider_is_paused_at_256_kib_and_neighbours_of_the_connection_go_on),
		cmocka_unit_test(t21_reading_1_kb_a_second_is_cut_at_the_deadline),
		cmocka_unit_test(t21_a_pause_of_the_client_is_not_the_providers_silence),
		cmocka_unit_test(t21_a_client_that_grants_nothing_and_submits_much_is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
