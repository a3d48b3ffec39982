/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_rig.h -- a scripted agent for tests of the library: included by test_client*.c.
 *
 * The agent is a listening socket in a temporary directory. Calls that do not block (all but sbx_open() and sbx_ask()) are
 * tested with both sides in one thread: the test plays the agent between the calls. For the blocking ones the agent's part
 * runs in a thread of its own.
 */
#ifndef SBX_TESTS_UNIT_CLIENT_RIG_H
#define SBX_TESTS_UNIT_CLIENT_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <signalbox.h>

#include "client/client.h"

/* No test file needs all of it. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"

#define PATIENCE_MS 5000

#define MUST(condition)                                                                                                        \
	do {                                                                                                                   \
		if (!(condition)) {                                                                                            \
			fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);                      \
			abort();                                                                                               \
		}                                                                                                              \
	} while (0)

/* ---- the agent ---- */

static char dir[64], path[96];
static int listener = -1;

struct peer {
	int fd;
	struct sbx_buf in;
	size_t consumed; /* the frame that was returned last */
	struct sbx_frame frame;
};

static void
listen_here(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	(void)snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	(void)unlink(path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	MUST(listener >= 0);
	MUST(bind(listener, (struct sockaddr *)&a, sizeof a) == 0);
	MUST(listen(listener, 8) == 0);
}

static void
stop_listening(void)
{
	if (listener >= 0)
		(void)close(listener);
	listener = -1;
	(void)unlink(path);
}

static void
wait_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	MUST(poll(&p, 1, PATIENCE_MS) == 1);
}

static void
peer_accept(struct peer *p)
{
	memset(p, 0, sizeof *p);
	sbx_buf_init(&p->in, 80u << 20);
	wait_readable(listener);
	p->fd = accept(listener, NULL, NULL);
	MUST(p->fd >= 0);
}

static void
peer_close(struct peer *p)
{
	if (p->fd >= 0)
		(void)close(p->fd);
	p->fd = -1;
	sbx_buf_fini(&p->in);
	p->consumed = 0;
}

static void
peer_write(struct peer *p, const void *bytes, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t w = send(p->fd, (const char *)bytes + done, n - done, MSG_NOSIGNAL);
		MUST(w > 0);
		done += (size_t)w;
	}
}

/* The next frame from the client; NULL when it has closed. */
static struct sbx_frame *
peer_read(struct peer *p)
{
	char why[128];
	sbx_buf_consume(&p->in, p->consumed);
	p->consumed = 0;
	for (;;) {
		int64_t size = sbx_frame_size(p->in.data, p->in.n, SBX_FRAME_MAX_BYTES);
		MUST(size >= 0);
		if (size > 0) {
			MUST(sbx_frame_check(p->in.data + 4, (size_t)size - 4, &p->frame, why, sizeof why) == 0);
			p->consumed = (size_t)size;
			return &p->frame;
		}
		uint8_t *room = sbx_buf_reserve(&p->in, 65536);
		MUST(room);
		wait_readable(p->fd);
		ssize_t n = recv(p->fd, room, 65536, 0);
		if (n <= 0)
			return NULL;
		sbx_buf_commit(&p->in, (size_t)n);
	}
}

static struct sbx_frame *
peer_expect(struct peer *p, enum sbx_frame_kind kind)
{
	struct sbx_frame *f = peer_read(p);
	MUST(f);
	if (f->kind != kind)
		fprintf(stderr, "wanted kind %u, got %u\n", kind, f->kind);
	MUST(f->kind == kind);
	return f;
}

static bool
peer_has_nothing(struct peer *p)
{
	struct pollfd q = { .fd = p->fd, .events = POLLIN };
	return p->in.n == p->consumed && poll(&q, 1, 0) == 0;
}

/* "u:key", uint64_t | "i:key", int64_t | "s:key", char * | "b:key", int | "d:key" (bin), char * | "n:key" ... NULL */
static void
pack_frame(struct sbx_buf *out, enum sbx_frame_kind kind, uint64_t id, va_list ap)
{
	struct sbx_packer p;
	va_list count;
	uint32_t n = 0;
	va_copy(count, ap);
	for (const char *key; (key = va_arg(count, const char *)); n++) {
		if (*key == 'u' || *key == 'i')
			(void)va_arg(count, uint64_t);
		else if (*key == 'b')
			(void)va_arg(count, int);
		else if (*key != 'n')
			(void)va_arg(count, const char *);
	}
	va_end(count);
	sbx_frame_begin(&p, out, kind, id, n);
	for (const char *key; (key = va_arg(ap, const char *));) {
		switch (*key) {
		case 'u': sbx_pack_uint(&p, key + 2, va_arg(ap, uint64_t)); break;
		case 'i': sbx_pack_int(&p, key + 2, va_arg(ap, int64_t)); break;
		case 's': sbx_pack_str(&p, key + 2, sbx_span_of(va_arg(ap, const char *))); break;
		case 'd': sbx_pack_bin(&p, key + 2, sbx_span_of(va_arg(ap, const char *))); break;
		case 'b': sbx_pack_bool(&p, key + 2, va_arg(ap, int)); break;
		case 'n': sbx_pack_nil(&p, key + 2); break;
		default: abort(); /* no such type of key */
		}
	}
	MUST(sbx_frame_end(&p) == 0);
}

static void
pack(struct sbx_buf *out, enum sbx_frame_kind kind, uint64_t id, ...)
{
	va_list ap;
	va_start(ap, id);
	pack_frame(out, kind, id, ap);
	va_end(ap);
}

static void
say(struct peer *p, enum sbx_frame_kind kind, uint64_t id, ...)
{
	struct sbx_buf b;
	va_list ap;
	sbx_buf_init(&b, 40u << 20);
	va_start(ap, id);
	pack_frame(&b, kind, id, ap);
	va_end(ap);
	peer_write(p, b.data, b.n);
	sbx_buf_fini(&b);
}

#define U(n) ((uint64_t)(n))
#define END ((const char *)NULL)
#define SAY_WELCOME(p) say((p), SBX_FRAME_WELCOME, 0, "u:version", U(1), "s:agent", "fake", "u:pid", U(7), "u:generation", U(9), END)
#define SAY_TEXT(p, id, t) say((p), SBX_FRAME_EVENT, (id), "u:type", U(SBX_EVENT_TEXT), "s:text", (t), END)
#define SAY_DONE(p, id) say((p), SBX_FRAME_DONE, (id), "s:target", "openai/gpt", "s:finish", "stop", END)
#define SAY_ACCEPTED(p, id) say((p), SBX_FRAME_ACCEPTED, (id), END)

static struct sbx_span
text_member(const struct sbx_frame *f, const char *key)
{
	struct sbx_value v;
	return sbx_map_get(&f->map, key, &v) && (v.type == SBX_STR || v.type == SBX_BIN) ? v.bytes : (struct sbx_span){ NULL, 0 };
}

static uint64_t
uint_member(const struct sbx_frame *f, const char *key)
{
	struct sbx_value v;
	return sbx_map_get(&f->map, key, &v) && v.type == SBX_UINT ? v.u : UINT64_MAX;
}

static void
greet(struct peer *p)
{
	peer_accept(p);
	struct sbx_frame *f = peer_expect(p, SBX_FRAME_HELLO);
	MUST(f->id == 0 && uint_member(f, "version") == 1);
	MUST(text_member(f, "client").n > 0 && text_member(f, "client").n <= 64);
	SAY_WELCOME(p);
}

/* ---- the agent in a thread ---- */

static pthread_t agent_thread;
static struct peer agent; /* of the thread until it is joined */

static void
run_agent(void *(*script)(void *))
{
	MUST(pthread_create(&agent_thread, NULL, script, &agent) == 0);
}

static void
join_agent(void)
{
	MUST(pthread_join(agent_thread, NULL) == 0);
}

static void *
script_greet(void *peer)
{
	greet(peer);
	return NULL;
}

static struct sbx_open_options
at_path(void)
{
	struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
	o.socket = path;
	o.name = "test";
	return o;
}

static struct sbx_client *
open_client(struct peer *p)
{
	struct sbx_open_options o = at_path();
	struct sbx_client *c = NULL;
	run_agent(script_greet);
	int rc = sbx_open(&o, &c);
	join_agent();
	if (rc)
		fprintf(stderr, "open: %s\n", sbx_client_error(c));
	assert_int_equal(rc, 0);
	*p = agent;
	return c;
}

static const char body[] = "{\"messages\":[]}";

static struct sbx_request_options
request(void)
{
	struct sbx_request_options o = SBX_REQUEST_INIT;
	o.model = "openai/gpt";
	o.body = body;
	o.body_bytes = sizeof body - 1;
	o.stream = true;
	return o;
}

static uint64_t
submit(struct sbx_client *c)
{
	struct sbx_request_options o = request();
	uint64_t id = 0;
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	assert_true(id != 0);
	return id;
}

static struct sbx_event
next_event(struct sbx_client *c)
{
	struct sbx_event ev;
	int rc = sbx_next(c, PATIENCE_MS, &ev);
	if (rc)
		fprintf(stderr, "next: %d %s\n", rc, sbx_client_error(c));
	assert_int_equal(rc, 0);
	return ev;
}

static void
expect_text(struct sbx_client *c, uint64_t id, const char *text)
{
	struct sbx_event ev = next_event(c);
	assert_int_equal(ev.note, SBX_NOTE_TEXT);
	assert_true(ev.id == id);
	assert_string_equal(ev.text, text);
	assert_int_equal(ev.text_bytes, strlen(text));
}

static void
expect_lost(struct sbx_client *c, uint64_t id, bool sent)
{
	struct sbx_event ev = next_event(c);
	assert_int_equal(ev.note, SBX_NOTE_ERROR);
	assert_true(ev.last && ev.id == id);
	assert_int_equal(sbx_reply_code(ev.reply), SBX_CODE_AGENT_LOST);
	assert_string_equal(sbx_reply_code_word(ev.reply), "agent_lost");
	assert_int_equal(sbx_reply_status(ev.reply), 503);
	assert_int_equal(sbx_reply_sent(ev.reply), sent);
	assert_true(*sbx_reply_message(ev.reply));
}

static void
expect_nothing(struct sbx_client *c)
{
	struct sbx_event ev;
	assert_int_equal(sbx_next(c, 0, &ev), -SBX_ETIME);
}

static int
fresh(void **state)
{
	(void)state;
	stop_listening();
	listen_here();
	return 0;
}

/* Runs a table of TEST() in a directory of its own. */
#define TEST(f) cmocka_unit_test_setup(f, fresh)
#define RUN(tests) (rig_up(), rig_down(cmocka_run_group_tests(tests, NULL, NULL)))

static void
rig_up(void)
{
	(void)snprintf(dir, sizeof dir, "/tmp/sbx-client-XXXXXX");
	MUST(mkdtemp(dir));
	(void)snprintf(path, sizeof path, "%s/agent.sock", dir);
	(void)unsetenv("SIGNALBOX_SOCKET");
}

static int
rig_down(int failed)
{
	char inner[128];
	stop_listening();
	(void)snprintf(inner, sizeof inner, "%s/run/signalbox", dir);
	(void)rmdir(inner);
	(void)snprintf(inner, sizeof inner, "%s/run", dir);
	(void)rmdir(inner);
	(void)rmdir(dir);
	return failed;
}

#endif
