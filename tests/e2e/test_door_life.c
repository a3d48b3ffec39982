/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_door_life.c -- the HTTP door in time: clients that leave, read slowly or never speak, an agent that dies and comes back,
 * and the end of the door itself.
 */
#include "tests/e2e/door.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/e2e/control.h"

#if defined(__SANITIZE_ADDRESS__)
#define CANCEL_NS 250000000ll /* every allocation and access is checked */
#define CHECKED true
#else
#define CANCEL_NS 50000000ll
#define CHECKED false
#endif

#define STREAM(model) "{\"model\":\"" model "\",\"stream\":true," MESSAGES "}"
#define WHOLE(model) "{\"model\":\"" model "\"," MESSAGES "}"

static struct world w;
static struct door d;

static void
up(const char *rule, const char *const *args)
{
	world_simple(&w, 1, &rule, NULL);
	door_up(&w, &d, args);
}

static void
down(void)
{
	door_down(&d);
	world_down(&w);
}

/* ---- clients that leave ---- */

/* However it leaves, and wherever its request is: the provider's call ends at once. */
static void
test_client_leaves(void **state)
{
	static const struct {
		const char *rule, *body, *until; /* until: what it reads before it leaves; NULL = nothing */
		bool reset, over_unix;
	} row[] = {
		{ "*: hang", WHOLE("r"), NULL, false, false },
		{ "*: hang", WHOLE("r"), NULL, true, false },
		{ "*: hang", STREAM("r"), NULL, true, false },
		{ "*: hang", STREAM("r"), NULL, false, true },
		{ "*: hang", STREAM("r"), ": waiting", true, false },
		{ "*: tokens=1000,gap=20ms", STREAM("r"), "hello", false, false },
		{ "*: tokens=1000,gap=20ms", STREAM("r"), "hello", true, false },
		{ "*: stall-tokens=2", STREAM("r"), "hello", true, false },
		{ "*: stall-tokens=2", STREAM("r"), "hello", false, true },
	};
	static const char *const args[] = { "--commit-after", "0.2", NULL };
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		char *all = NULL;
		size_t n = 0;
		up(row[i].rule, args);
		int fd = row[i].over_unix ? door_connect_unix(&d) : door_connect(&d);
		door_post(&d, fd, CHAT, "", row[i].body);
		double_wait(&w, 0, 1, NULL, 5000);
		if (row[i].until)
			door_read_until(fd, row[i].until, 10000, &all, &n);
		free(all);
		if (row[i].reset) {
			struct linger now = { 1, 0 };
			assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
		}
		int64_t at = (int64_t)now_ns();
		(void)close(fd);
		double_wait(&w, 0, 1, "client-closed", 5000);
		int64_t late = double_log_number(&w, 0, 0, "time_ns") + double_log_number(&w, 0, 0, "closed_after_ns") - at;
		if (late > CANCEL_NS)
			fail_msg("case %zu: cancelled after %lld us", i, (long long)late / 1000);
		agent_wait_at_rest(&w, 5000);
		down();
	}
}

/* Who has closed before the request could begin does not want it. */
static void
test_client_left_before(void **state)
{
	struct http_answer a;
	(void)state;
	up("*: hang", NULL);
	int fd = door_connect(&d);
	door_say(fd, "POST " CHAT " HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", d.port,
	         d.key, strlen(WHOLE("r")));
	pause_ms(50);
	assert_int_equal(kill(d.pid, SIGSTOP), 0); /* so that the end of the body and of the connection come as one */
	door_say(fd, "%s", WHOLE("r"));
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	assert_int_equal(kill(d.pid, SIGCONT), 0);
	assert_true(door_closed(fd, 5000));
	(void)close(fd);
	door_get(&d, "/healthz", &a);
	assert_int_equal(a.status, 200);
	http_free(&a);
	assert_int_equal(double_requests(&w, 0), 0);
	down();
}

/* ---- clients that do not read, and that do not speak ---- */

static void
test_slow_reader_beside_a_fast_one(void **state)
{
	struct http_answer a;
	const int small = 131072;
	(void)state;
	up("*: tokens=100000", NULL); /* 20 MB of events: the kernel holds up to 10 between two sockets */
	door_ask(&d, CHAT, "", STREAM("a/m@tokens=10"), &a); /* what is allocated once is there */
	http_free(&a);
	int64_t before = door_rss_bytes(&d);
	int slow = door_connect(&d);
	assert_int_equal(setsockopt(slow, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
	door_post(&d, slow, CHAT, "", STREAM("r"));
	double_wait(&w, 0, 2, NULL, 5000); /* it is the second in the double's log */
	for (int i = 0; i < 5; i++) {
		uint64_t began = now_ms();
		door_ask(&d, CHAT, "", STREAM("a/m@tokens=100"), &a);
		assert_int_equal(a.status, 200);
		assert_true(a.whole && strstr(a.body, "data: [DONE]\n\n"));
		assert_true(now_ms() - began < (CHECKED ? 5000 : 1000));
		http_free(&a);
	}
	assert_true(double_log_number(&w, 0, 1, "closed_after_ns") <= 0); /* the provider is held up */
	assert_true(door_rss_bytes(&d) - before < (CHECKED ? 64 : 4) << 20);
	/* And it loses nothing. */
	http_read(slow, 60000, &a);
	assert_int_equal(a.status, 200);
	assert_true(a.whole);
	assert_non_null(strstr(a.body, "\" t100000\""));
	assert_string_equal(a.body + a.body_bytes - strlen("data: [DONE]\n\n"), "data: [DONE]\n\n");
	http_free(&a);
	(void)close(slow);
	down();
}

static void
more_files(void)
{
	struct rlimit files;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
}

#define IDLE 1000

static void
test_idle_connections(void **state)
{
	static int fd[IDLE];
	struct http_answer a;
	(void)state;
	more_files();
	up("*: tokens=5", NULL);
	door_ask(&d, CHAT, "", STREAM("r"), &a);
	http_free(&a);
	int64_t before = door_rss_bytes(&d);
	for (int i = 0; i < IDLE; i++) {
		fd[i] = door_connect(&d);
		if (i % 2)
			door_say(fd[i], "POST " CHAT " HTTP/1.1\r\nHost: ");
	}
	uint64_t began = now_ms();
	door_ask(&d, CHAT, "", STREAM("r"), &a);
	assert_int_equal(a.status, 200);
	assert_true(now_ms() - began < (CHECKED ? 3000 : 500));
	http_free(&a);
	uint64_t cpu = door_cpu_ms(&d);
	pause_ms(1000);
	assert_true(door_cpu_ms(&d) - cpu <= (CHECKED ? 200 : 50)); /* it does not look at them */
	if (!CHECKED)
		assert_true(door_rss_bytes(&d) - before < (int64_t)IDLE * 48 * 1024);
	for (int i = 0; i < IDLE; i++)
		(void)close(fd[i]);
	down();
}

/* When all places are taken, who waits without a request goes first. */
static void
test_places(void **state)
{
	static const char *const args[] = { "--max-connections", "20", NULL };
	int fd[40];
	struct http_answer a;
	char *all = NULL;
	size_t n = 0;
	(void)state;
	up("*: tokens=1000,gap=10ms", args);
	int busy = door_connect(&d);
	door_post(&d, busy, CHAT, "", STREAM("r"));
	door_read_until(busy, "hello", 5000, &all, &n);
	for (int i = 0; i < 40; i++)
		fd[i] = door_connect(&d);
	door_ask(&d, CHAT, "", STREAM("a/m@tokens=2"), &a);
	assert_int_equal(a.status, 200);
	http_free(&a);
	assert_true(door_closed(fd[0], 2000));
	door_read_until(busy, "t100", 10000, &all, &n); /* it goes on */
	free(all);
	for (int i = 0; i < 40; i++)
		(void)close(fd[i]);
	(void)close(busy);
	down();
}

/* While the agent works nothing spins, neither before the answer nor between its pieces. */
static void
test_waiting_costs_nothing(void **state)
{
	int fd[50];
	(void)state;
	up("*: stall-tokens=1", NULL);
	for (int i = 0; i < 50; i++) {
		fd[i] = door_connect(&d);
		door_post(&d, fd[i], CHAT, "", i % 2 ? STREAM("r") : STREAM("a/m@hang"));
	}
	double_wait(&w, 0, 50, NULL, 10000);
	pause_ms(100);
	uint64_t cpu = door_cpu_ms(&d);
	pause_ms(1000);
	assert_true(door_cpu_ms(&d) - cpu <= (CHECKED ? 100 : 30));
	for (int i = 0; i < 50; i++)
		(void)close(fd[i]);
	agent_wait_at_rest(&w, 5000);
	down();
}

static void
test_a_hundred_streams(void **state)
{
	int fd[100];
	struct http_answer a;
	(void)state;
	up("*: tokens=200,gap=1ms", NULL);
	for (int i = 0; i < 100; i++) {
		fd[i] = i % 3 ? door_connect(&d) : door_connect_unix(&d);
		door_post(&d, fd[i], CHAT, "", STREAM("r"));
	}
	for (int i = 0; i < 100; i++) {
		http_read(fd[i], 60000, &a);
		assert_int_equal(a.status, 200);
		assert_true(a.whole && strstr(a.body, "\" t200\"") && strstr(a.body, "data: [DONE]\n\n"));
		http_free(&a);
		(void)close(fd[i]);
	}
	down();
}

/* ---- the agent ---- */

/* Its sockets may outlive it by some milliseconds: the kernel takes an io_uring down behind its back. */
static void
kill_agent(void)
{
	uint64_t until = now_ms() + 5000;
	struct http_answer a;
	world_agent_signal(&w, SIGKILL);
	assert_true(world_agent_wait(&w, 5000) >= 0);
	do {
		door_get(&d, "/readyz", &a);
		http_free(&a);
	} while (a.status != 503 && now_ms() < until);
}

static void
restart_agent(void)
{
	world_agent_start(&w, NULL, &(struct start){ 0 });
}

static void
expect_no_agent(void)
{
	struct http_answer a;
	door_ask(&d, CHAT, "", STREAM("r"), &a);
	assert_int_equal(a.status, 503);
	assert_non_null(http_header(&a, "Retry-After"));
	assert_string_equal(http_header(&a, "x-should-retry"), "true");
	assert_non_null(strstr(a.body, "agent"));
	assert_non_null(strstr(a.body, "\"agent_unavailable\""));
	http_free(&a);
	door_get(&d, "/readyz", &a);
	assert_int_equal(a.status, 503);
	http_free(&a);
	door_get(&d, "/v1/models", &a);
	assert_int_equal(a.status, 503);
	http_free(&a);
	door_get(&d, "/healthz", &a);
	assert_int_equal(a.status, 200);
	http_free(&a);
}

static void
test_agent_down_and_back(void **state)
{
	struct http_answer a;
	(void)state;
	up("*: tokens=5", NULL);
	for (int i = 0; i < 3; i++) {
		door_ask(&d, CHAT, "", STREAM("r"), &a);
		assert_int_equal(a.status, 200);
		http_free(&a);
		door_get(&d, "/readyz", &a);
		assert_int_equal(a.status, 200);
		http_free(&a);
		kill_agent();
		expect_no_agent();
		restart_agent();
		if (i == 1) { /* the first question after it is the list */
			door_get(&d, "/v1/models", &a);
			assert_int_equal(a.status, 200);
			assert_non_null(strstr(a.body, "a/m"));
			http_free(&a);
		}
	}
	down();
}

/* A stream of the old agent runs on, and nobody waits for its end: new requests are answered by the new one. */
static void
test_agent_replaced(void **state)
{
	static const char *const args[] = { "--replace", NULL };
	struct http_answer a;
	char *all = NULL;
	size_t n = 0;
	int status;
	(void)state;
	up("m: tokens=600,gap=5ms", NULL);
	int fd = door_connect(&d);
	door_post(&d, fd, CHAT, "", STREAM("r"));
	door_read_until(fd, "hello", 10000, &all, &n);
	const pid_t old = w.agent;
	world_agent_start(&w, NULL, &(struct start){ .args = args });
	while (agent_number(&w, "pid") != w.agent)
		pause_ms(2);
	for (int i = 0; i < 3; i++) {
		door_ask(&d, CHAT, "", WHOLE("a/x"), &a);
		assert_int_equal(a.status, 200);
		http_free(&a);
		door_get(&d, i ? "/readyz" : "/v1/models", &a);
		assert_int_equal(a.status, 200);
		http_free(&a);
	}
	assert_int_equal(waitpid(old, &status, WNOHANG), 0); /* its stream still runs */
	door_read_until(fd, "[DONE]", 20000, &all, &n);
	free(all);
	(void)close(fd);
	assert_int_equal(waitpid(old, &status, 0), old);
	assert_int_equal(status, 0);
	door_ask(&d, CHAT, "", WHOLE("a/x"), &a);
	assert_int_equal(a.status, 200);
	http_free(&a);
	down();
}

static void
test_agent_dies_under_requests(void **state)
{
	struct http_answer a;
	char *all = NULL;
	size_t n = 0;
	(void)state;
	up("*: tokens=1000,gap=20ms", NULL);
	int stream = door_connect(&d), whole = door_connect(&d);
	door_post(&d, stream, CHAT, "", STREAM("r"));
	door_post(&d, whole, CHAT, "", WHOLE("r"));
	door_read_until(stream, "hello", 5000, &all, &n);
	double_wait(&w, 0, 2, NULL, 5000);
	kill_agent();
	door_read_until(stream, "data: {\"error\":{", 5000, &all, &n);
	door_read_until(stream, "\r\n0\r\n\r\n", 5000, &all, &n);
	assert_null(strstr(all, "[DONE]"));
	free(all);
	http_read(whole, 5000, &a);
	assert_int_equal(a.status, 503);
	assert_string_equal(http_header(&a, "x-should-retry"), "false"); /* it may have been carried out */
	assert_non_null(strstr(a.body, "agent_lost"));
	http_free(&a);
	(void)close(stream);
	(void)close(whole);
	restart_agent();
	door_ask(&d, CHAT, "", WHOLE("a/m@tokens=2"), &a);
	assert_int_equal(a.status, 200);
	http_free(&a);
	down();
}

/* ---- the end ---- */

static void
test_drain(void **state)
{
	struct http_answer a;
	(void)state;
	up("*: tokens=60,gap=20ms", NULL);
	int stream = door_connect(&d), idle = door_connect(&d);
	door_post(&d, stream, CHAT, "", STREAM("r"));
	double_wait(&w, 0, 1, NULL, 5000);
	assert_int_equal(kill(d.pid, SIGTERM), 0);
	assert_true(door_closed(idle, 2000));
	(void)close(idle);
	http_read(stream, 10000, &a);
	assert_true(a.whole && strstr(a.body, "data: [DONE]\n\n"));
	http_free(&a);
	(void)close(stream);
	assert_int_equal(door_wait(&d, 5000), 0);
	down();
}

static void
test_drain_has_an_end(void **state)
{
	static const char *const args[] = { "--drain", "0.5", NULL };
	(void)state;
	up("*: hang", args);
	int fd = door_connect(&d);
	door_post(&d, fd, CHAT, "", STREAM("r"));
	double_wait(&w, 0, 1, NULL, 5000);
	uint64_t began = now_ms();
	assert_int_equal(kill(d.pid, SIGTERM), 0);
	assert_int_equal(door_wait(&d, 5000), 0);
	assert_in_range(now_ms() - began, 400, 2500);
	assert_true(door_closed(fd, 1000));
	(void)close(fd);
	double_wait(&w, 0, 1, "client-closed", 5000);
	down();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_client_leaves),
		cmocka_unit_test(test_client_left_before),
		cmocka_unit_test(test_slow_reader_beside_a_fast_one),
		cmocka_unit_test(test_idle_connections),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_waiting_costs_nothing),
		cmocka_unit_test(test_a_hundred_streams),
		cmocka_unit_test(test_agent_down_and_back),
		cmocka_unit_test(test_agent_replaced),
		cmocka_unit_test(test_agent_dies_under_requests),
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_drain_has_an_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
