/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_deadlines.c -- providers that are silent or slow, at each phase of a call: the limit of the phase fires, not before its
 * time and at most 250 ms after, and the next target answers.
 *
 * T4   silence and drip in connect, TLS, request, head, body; and a name server that never answers
 * T5   comments for ever: they show that the connection lives, and are no answer
 */
#include "tests/e2e/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/buf.h"
#include "tests/e2e/fault.h"

/* Each phase has a limit of its own, so that the time tells which one fired. They lie further apart than the window is wide. */
#define CONNECT_MS 400
#define FIRST_MS 700
#define WHOLE_MS 1000
#define IDLE_BYTES_MS 400
#define IDLE_CONTENT_MS 700
#define TIMEOUTS                                                                                                               \
	"\"timeouts\": { \"connect_ms\": 400, \"first_content_ms\": 700, \"first_content_max_ms\": 700, \"whole_ms\": 1000,"   \
	" \"idle_bytes_ms\": 400, \"idle_content_ms\": 700 }"

/* ---- T4: after the connection stands ---- */

struct phase {
	const char *faults;   /* of a/m */
	bool stream;
	uint32_t limit_ms;
	const char *class;
};

/* All rows at once, each with a model of its own: the agent serves them side by side, and one does not wait for another. False
 * if a limit fired late. */
static bool
try_phases(const struct phase *row, size_t n)
{
	bool in_time = true;
	struct world w;
	char (*name)[256] = calloc(n, sizeof *name);
	struct question *q = calloc(n, sizeof *q);
	struct answer *a = calloc(n, sizeof *a);
	world_simple(&w, 2, NULL, TIMEOUTS ", \"attempts\": { \"per_target\": 1 }");
	for (size_t i = 0; i < n; i++) {
		(void)snprintf(name[i], sizeof name[i], "a/m%zu@%s", i, row[i].faults);
		q[i] = (struct question){ .targets = { name[i], "b/m" }, .stream = row[i].stream };
	}
	struct sbx_client *c = client_up(&w);
	answers_of(c, q, a, n);
	for (size_t i = 0; i < n; i++) {
		char line[400];
		(void)snprintf(line, sizeof line, "%s %s, b/m OK", name[i], row[i].class);
		assert_string_equal(a[i].attempts, line);
		assert_string_equal(a[i].text, "hello from b");
		uint32_t took_ms = a[i].attempt[0].ended_ms - a[i].attempt[0].started_ms;
		if (took_ms + 2 < row[i].limit_ms)
			fail_msg("%s%s: ended after %u ms already, its limit is %u ms", row[i].faults, row[i].stream ? ", stream" : "", took_ms, row[i].limit_ms);
		if (took_ms > row[i].limit_ms + LATE_MS) {
			print_message("%s%s: ended after %u ms only, its limit is %u ms\n", row[i].faults, row[i].stream ? ", stream" : "", took_ms, row[i].limit_ms);
			in_time = false;
		}
		answer_free(&a[i]);
	}
	/* Given up means hung up: nothing runs on at the provider. */
	double_wait(&w, 0, (int)n, "client-closed", 5000);
	agent_wait_at_rest(&w, 5000);
	sbx_close(c);
	world_down(&w);
	free(name);
	free(q);
	free(a);	return in_time;
}

/* Nothing may fire early. What fires late on a machine that is busy with other things has two more tries. */
static void
run_phases(const struct phase *row, size_t n)
{
	for (int i = 0; i < 3; i++)
		if (try_phases(row, n))
			return;
	fail();
}

static void
t04_silence_or_drip_before_the_first_content(void **state)
{
	(void)state;
	static const struct phase row[] = {
		{ "hang", true, FIRST_MS, "UNCERTAIN" },                       /* no byte at all */
		{ "drip-headers=100ms", true, FIRST_MS, "UNCERTAIN" },         /* a head that never ends */
		{ "stall=0", true, FIRST_MS, "UNCERTAIN" },                    /* a head, then silence */
		{ "drip=15ms", true, FIRST_MS, "UNCERTAIN" },                  /* a first event that never ends */
		{ "first=60s", true, FIRST_MS, "UNCERTAIN" },                  /* the role chunk, then silence */
		{ "stall=100", true, FIRST_MS, "UNCERTAIN" },                  /* silence in the middle of an event */
		{ "1xx=3,headers-delay=60s", true, FIRST_MS, "UNCERTAIN" },
		{ "hang", false, WHOLE_MS, "UNCERTAIN" },
		{ "drip-headers=100ms", false, WHOLE_MS, "UNCERTAIN" },
		{ "stall=0", false, WHOLE_MS, "UNCERTAIN" },
		{ "drip=15ms", false, WHOLE_MS, "UNCERTAIN" },
		{ "stall=100", false, WHOLE_MS, "UNCERTAIN" },
	};
	run_phases(row, sizeof row / sizeof row[0]);
}

static void
t05_comments_before_the_first_content_do_not_hold_the_limit_off(void **state)
{
	(void)state;
	static const struct phase row[] = {
		{ "comments=20ms", true, FIRST_MS, "UNCERTAIN" },
		{ "comments=300ms", true, FIRST_MS, "UNCERTAIN" },
		{ "comments=1ms", true, FIRST_MS, "UNCERTAIN" },
	};
	run_phases(row, sizeof row / sizeof row[0]);
}

/* A stream that has begun, and then what a row says: the text of the file, byte by byte at a pace if drip is given. */
struct later {
	const char *what, *faults, *after; /* what comes after the first content */
	uint32_t from_ms, to_ms;           /* when the attempt ends: the limit, and the time it took to come so far */
};

#define CONTENT "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n"
#define CONTENT_BYTES (sizeof CONTENT - 1)
_Static_assert(CONTENT_BYTES == 58, "the first row below falls silent right behind it");
#define COMMENTS_50 ":::::::::\n:::::::::\n:::::::::\n:::::::::\n:::::::::\n"
#define COMMENTS_500 COMMENTS_50 COMMENTS_50 COMMENTS_50 COMMENTS_50 COMMENTS_50 COMMENTS_50 COMMENTS_50 COMMENTS_50 COMMENTS_50 COMMENTS_50

static const struct later laters[] = {
	{ "silence", "stall=58", "", IDLE_BYTES_MS, IDLE_BYTES_MS },
	{ "silence in an event", "stall=80", CONTENT, IDLE_BYTES_MS, IDLE_BYTES_MS },
	{ "comments (t05)", "drip=2ms", COMMENTS_500, IDLE_CONTENT_MS, IDLE_CONTENT_MS + 2 * CONTENT_BYTES },
	{ "an event that drips", "drip=5ms", "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"there is no end to this, and so it goes on and on and on until the limit of the pause is over\"}}]}\n\n",
	  IDLE_CONTENT_MS, IDLE_CONTENT_MS + 5 * CONTENT_BYTES },
};

#define N_LATERS (sizeof laters / sizeof laters[0])

static void
ends_idle(bool restart)
{
	struct world w;
	struct sbx_buf rules;
	struct question q[N_LATERS];
	struct answer a[N_LATERS];
	char name[N_LATERS][16];
	world_simple(&w, 2, NULL, "\"timeouts\": { \"first_content_ms\": 5000, \"idle_bytes_ms\": 400, \"idle_content_ms\": 700 }");
	sbx_buf_init(&rules, 65536);
	for (size_t i = 0; i < N_LATERS; i++) {
		char path[300], file[16], text[1024];
		int n = snprintf(text, sizeof text, "%s%s", CONTENT, laters[i].after);
		(void)snprintf(file, sizeof file, "late%zu.sse", i);
		write_file(&w, file, text, (size_t)n, path, sizeof path);
		(void)sbx_buf_printf(&rules, "late%zu: replay,file=%s,%s\n", i, path, laters[i].faults);
		(void)snprintf(name[i], sizeof name[i], "a/late%zu", i);
		q[i] = (struct question){ .targets = { name[i], "b/m" }, .stream = true, .restart = restart };
	}
	(void)sbx_buf_append(&rules, "", 1);
	double_rules(&w, 0, (const char *)rules.data);
	sbx_buf_fini(&rules);
	struct sbx_client *c = client_up(&w);
	answers_of(c, q, a, N_LATERS);
	for (size_t i = 0; i < N_LATERS; i++) {
		const struct later *l = &laters[i];
		uint32_t took_ms = a[i].attempt[0].ended_ms - a[i].attempt[0].started_ms;
		if (took_ms + 2 < l->from_ms || took_ms > l->to_ms + LATE_MS)
			fail_msg("%s: ended after %u ms, not between %u and %u", l->what, took_ms, l->from_ms, l->to_ms + LATE_MS);
		if (restart) {
			assert_non_null(strstr(a[i].attempts, "MIDSTREAM, b/m OK"));
			assert_string_equal(a[i].text, "hello from b");
			assert_int_equal(a[i].resets, 1);
		} else {
			assert_int_equal(a[i].n_attempts, 1);
			assert_int_equal(a[i].code, SBX_CODE_STREAM_BROKEN);
			assert_string_equal(a[i].text, "hi"); /* what was given stands */
			assert_int_equal(a[i].resets, 0);
		}
		answer_free(&a[i]);
	}
	sbx_close(c);
	world_down(&w);
}

static void
t04_t05_silence_drip_and_comments_after_content_end_in_an_error(void **state)
{
	(void)state;
	ends_idle(false);
}

static void
t04_t05_silence_drip_and_comments_after_content_restart_where_allowed(void **state)
{
	(void)state;
	ends_idle(true);
}

/* What only looks like silence: slow but steady content is never cut, comments between it neither. */
static void
t04_slow_but_steady_content_is_left_alone(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, (const char *[]){ "m: tokens=9,gap=150ms", NULL }, "\"timeouts\": { \"first_content_ms\": 700, \"idle_bytes_ms\": 450, \"idle_content_ms\": 500, \"whole_ms\": 700 }");
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r", .stream = true };
	struct answer a = answer_of(c, &q);
	assert_string_equal(a.attempts, "a/m OK");
	assert_true(a.total_ms >= 1190);
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
}

/* One hung provider must not eat the whole deadline: while another could follow, it gets half of what is left. */
static void
t04_silent_provider_leaves_half_of_the_deadline_to_the_next(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, (const char *[]){ "m: hang", NULL }, NULL);
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r", .deadline_ms = 1600 }, alone = { .targets = { "a/m" }, .deadline_ms = 800 };
	struct answer a = answer_of(c, &q);
	assert_string_equal(a.attempts, "a/m UNCERTAIN, b/m OK");
	assert_fired_at(a.attempt[0].ended_ms, 800);
	answer_free(&a);
	a = answer_of(c, &alone);
	assert_string_equal(a.attempts, "a/m CANCELLED");
	assert_int_equal(a.code, SBX_CODE_TIMEOUT);
	assert_fired_at(a.total_ms, 800);
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
}

/* ---- T4: before the request has left ---- */

/* A listener of the test's own that the kernel answers for, and nobody else: TCP stands, TLS does not. */
static int
listener_up(int *ret_port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t n = sizeof at;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&at, n) == 0 && listen(fd, 16) == 0 && getsockname(fd, (struct sockaddr *)&at, &n) == 0);
	*ret_port = ntohs(at.sin_port);
	return fd;
}

static void
t04_silence_in_the_tls_handshake_ends_at_the_connect_limit(void **state)
{
	(void)state;
	struct world w;
	char config[1024];
	int port, fd = listener_up(&port);
	world_up(&w);
	(void)world_double(&w, "b", NULL);
	(void)snprintf(config, sizeof config,
	               "{ " TIMEOUTS ", \"providers\": { \"mute\": { \"dialect\": \"openai-chat\", \"base_url\": \"https://127.0.0.1:%d/v1\", \"key\": \"none\" },"
	               " \"b\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\" } } }", port);
	world_agent(&w, config, NULL);
	struct sbx_client *c = client_up(&w);
	const struct question q = { .targets = { "mute/m", "b/m" } }, alone = { .targets = { "mute/m" } };
	struct answer a = answer_of(c, &q);
	assert_string_equal(a.attempts, "mute/m NOT_SENT, b/m OK"); /* a full limit of silence is not paid twice */
	assert_fired_at(a.attempt[0].ended_ms - a.attempt[0].started_ms, CONNECT_MS);
	answer_free(&a);
	a = answer_of(c, &alone);
	assert_string_equal(a.attempts, "mute/m NOT_SENT, mute/m NOT_SENT");
	assert_int_equal(a.code, SBX_CODE_UNREACHABLE);
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
	(void)close(fd);
}

/* The provider takes a megabyte of the request into its kernel's buffers, and never reads. */
static void
t04_request_that_is_not_read_ends_at_the_limit_of_a_whole_answer(void **state)
{
	(void)state;
	struct world w;
	struct sbx_buf body;
	world_simple(&w, 2, (const char *[]){ "*: no-read", NULL }, TIMEOUTS);
	sbx_buf_init(&body, 32u << 20);
	(void)sbx_buf_printf(&body, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
	uint8_t *room = sbx_buf_reserve(&body, 16u << 20);
	memset(room, 'x', 16u << 20);
	sbx_buf_commit(&body, 16u << 20);
	(void)sbx_buf_printf(&body, "\"}]}");
	(void)sbx_buf_append(&body, "", 1);
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r", .stream = true, .body = (const char *)body.data };
	struct answer a = answer_of(c, &q);
	assert_string_equal(a.attempts, "a/m NOT_SENT, b/m OK"); /* half a request cannot have been carried out */
	assert_fired_at(a.attempt[0].ended_ms - a.attempt[0].started_ms, WHOLE_MS);
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
	sbx_buf_fini(&body);
}

/* ---- T4: a name server that never answers ---- */

#define NAME_SERVER "127.66.0.53"

static bool
write_once(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (fd >= 0)
		(void)close(fd);
	return ok;
}

/* This process and its children get a network and a file tree of their own, in which all names are asked of `NAME_SERVER`. False where
 * that is not permitted. It is for good: the test that does it comes last. */
static bool
enter_namespace(const struct world *w)
{
	uid_t uid = getuid();
	gid_t gid = getgid();
	char map[64], resolv[300], nsswitch[300];
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	if (uid == 0 ? unshare(CLONE_NEWNS | CLONE_NEWNET) : unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET))
		return false;
	if (uid != 0) {
		(void)snprintf(map, sizeof map, "%u %u 1", uid, uid);
		if (!write_once("/proc/self/uid_map", map) || !write_once("/proc/self/setgroups", "deny"))
			return false;
		(void)snprintf(map, sizeof map, "%u %u 1", gid, gid);
		if (!write_once("/proc/self/gid_map", map))
			return false;
	}
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool up = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0;
	(void)close(fd);
	static const char resolv_text[] = "nameserver " NAME_SERVER "\noptions timeout:30 attempts:5\n", nsswitch_text[] = "hosts: files dns\n";
	write_file(w, "resolv.conf", resolv_text, sizeof resolv_text - 1, resolv, sizeof resolv);
	write_file(w, "nsswitch.conf", nsswitch_text, sizeof nsswitch_text - 1, nsswitch, sizeof nsswitch);
	return up && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount(resolv, "/etc/resolv.conf", NULL, MS_BIND, NULL) == 0 &&
	       mount(nsswitch, "/etc/nsswitch.conf", NULL, MS_BIND, NULL) == 0;
}

static int
name_server_up(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(53), .sin_addr = { htonl(0x7f420035) } };
	struct timeval limit = { 10, 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && (bind(fd, (struct sockaddr *)&at, sizeof at) || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit))) {
		(void)close(fd);
		fd = -1;
	}
	return fd;
}

/* The name is being asked for, so that the lookup hangs now. */
static void
wait_for_query(int fd)
{
	char query[512];
	if (recv(fd, query, sizeof query, 0) <= 0)
		fail_msg("no query came to the name server: %s", strerror(errno));
}

static void
t04_hanging_resolver_does_not_stop_the_loop(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	int fd = enter_namespace(&w) ? name_server_up() : -1;
	if (fd < 0) {
		print_message("skipped: network and mount namespaces are not permitted here (%s)\n", strerror(errno));
		world_down(&w);
		skip();
	}
	(void)world_double(&w, "b", NULL);
	world_agent(&w,
	            "{ \"warm\": false, \"timeouts\": { \"connect_ms\": 1000 }, \"providers\": {"
	            " \"lost\": { \"dialect\": \"openai-chat\", \"base_url\": \"https://nobody.knows.this.test/v1\", \"key\": \"none\" },"
	            " \"lost2\": { \"dialect\": \"openai-chat\", \"base_url\": \"https://nor.this.test/v1\", \"key\": \"none\", \"timeouts\": { \"connect_ms\": 20000 } },"
	            " \"b\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\" } } }",
	            NULL);
	struct sbx_client *c = client_up(&w), *other = client_up(&w);

	/* The lookup counts as connecting: its limit ends it, in time, and the next target answers. */
	const struct question q = { .targets = { "lost/m", "b/m" } };
	struct answer a = answer_of(c, &q);
	wait_for_query(fd);
	assert_string_equal(a.attempts, "lost/m NOT_SENT, b/m OK");
	assert_fired_at(a.attempt[0].ended_ms - a.attempt[0].started_ms, 1000);
	answer_free(&a);

	/* While one hangs, and when it is cancelled, the others are served. */
	struct sbx_request_options o;
	struct sbx_event ev;
	uint64_t id;
	const struct question hanging = { .targets = { "lost2/m" } }, quick = { .targets = { "b/m" }, .stream = true };
	question_fill(&hanging, &o);
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	assert_int_equal(sbx_next(c, 5000, &ev), 0);
	assert_int_equal(ev.note, SBX_NOTE_ACCEPTED);
	wait_for_query(fd);
	uint64_t from_ms = now_ms();
	for (int i = 0; i < 10; i++) {
		a = answer_of(other, &quick);
		assert_string_equal(a.attempts, "b/m OK");
		answer_free(&a);
	}
	assert_true(now_ms() - from_ms < 2000); /* a stopped loop would stop for 20 s */
	from_ms = now_ms();
	assert_int_equal(sbx_cancel(c, id), 0);
	do
		assert_int_equal(sbx_next(c, 15000, &ev), 0);
	while (!ev.last);
	assert_int_equal(sbx_reply_code(ev.reply), SBX_CODE_CANCELLED);
	a = answer_of(other, &quick); /* taking the transfer out of libcurl is what used to wait for the lookup */
	assert_true(a.ok);
	assert_true(now_ms() - from_ms < 1000);
	answer_free(&a);
	agent_wait_at_rest(&w, 5000);
	sbx_close(other);
	sbx_close(c);
	from_ms = now_ms();
	world_down(&w); /* nor does the agent wait for it at its end */
	assert_true(now_ms() - from_ms < 8000);
	(void)close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(t04_silence_or_drip_before_the_first_content),
		cmocka_unit_test(t05_comments_before_the_first_content_do_not_hold_the_limit_off),
		cmocka_unit_test(t04_t05_silence_drip_and_comments_after_content_end_in_an_error),
		cmocka_unit_test(t04_t05_silence_drip_and_comments_after_content_restart_where_allowed),
		cmocka_unit_test(t04_slow_but_steady_content_is_left_alone),
		cmocka_unit_test(t04_silent_provider_leaves_half_of_the_deadline_to_the_next),
		cmocka_unit_test(t04_silence_in_the_tls_handshake_ends_at_the_connect_limit),
		cmocka_unit_test(t04_request_that_is_not_read_ends_at_the_limit_of_a_whole_answer),
		cmocka_unit_test(t04_hanging_resolver_does_not_stop_the_loop), /* last: see enter_namespace() */
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
