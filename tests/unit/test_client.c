/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_client.c -- the library against a scripted agent.
 *
 * The agent is a listening socket in a temporary directory. Calls that do not block (all but sbx_open() and sbx_ask()) are
 * tested with both sides in one thread: the test plays the agent between the calls. For the blocking ones the agent's part
 * runs in a thread of its own.
 */
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

/* ---- opening ---- */

static void
test_version(void **state)
{
	char want[16];
	(void)state;
	(void)snprintf(want, sizeof want, "%d.%d.%d", SBX_VERSION_MAJOR, SBX_VERSION_MINOR, SBX_VERSION_PATCH);
	assert_string_equal(sbx_version(), want);
}

static void *
script_version_2(void *peer)
{
	peer_accept(peer);
	(void)peer_expect(peer, SBX_FRAME_HELLO);
	say(peer, SBX_FRAME_WELCOME, 0, "u:version", U(2), END);
	return NULL;
}

static void
refuse(struct peer *p, const char *code)
{
	peer_accept(p);
	(void)peer_expect(p, SBX_FRAME_HELLO);
	say(p, SBX_FRAME_ERROR, 0, "s:code", code, "s:message", "not you", END);
	(void)shutdown(p->fd, SHUT_WR);
}

static void *
script_unsupported(void *peer)
{
	refuse(peer, "unsupported");
	return NULL;
}

static void *
script_forbidden(void *peer)
{
	refuse(peer, "forbidden");
	return NULL;
}

static void *
script_busy(void *peer)
{
	refuse(peer, "busy");
	return NULL;
}

static void *
script_http(void *peer)
{
	peer_accept(peer);
	peer_write(peer, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
	return NULL;
}

static void *
script_hang_up(void *peer)
{
	peer_accept(peer);
	(void)peer_expect(peer, SBX_FRAME_HELLO);
	peer_close(peer);
	return NULL;
}

static void *
script_event_first(void *peer)
{
	peer_accept(peer);
	SAY_TEXT((struct peer *)peer, 1, "hello?");
	return NULL;
}

static void *
script_silent(void *peer)
{
	peer_accept(peer);
	return NULL;
}

static void
test_open_failures(void **state)
{
	static const struct {
		const char *name;
		void *(*script)(void *);
		int want;
		const char *says;
	} cases[] = {
		{ "another version", script_version_2, -SBX_EVERSION, "version 2" },
		{ "refused: unsupported", script_unsupported, -SBX_EVERSION, "not you" },
		{ "refused: forbidden", script_forbidden, -SBX_EACCESS, "not you" },
		{ "refused: busy", script_busy, -SBX_EBUSY, "not you" },
		{ "a web server", script_http, -SBX_EPROTO, "no frame" },
		{ "hangs up", script_hang_up, -SBX_EAGENT, "closed" },
		{ "an event first", script_event_first, -SBX_EPROTO, "WELCOME" },
		{ "silent", script_silent, -SBX_ETIME, "no WELCOME within 80 ms" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_open_options o = at_path();
		struct sbx_client *c = NULL;
		o.timeout_ms = cases[i].script == script_silent ? 80 : PATIENCE_MS;
		run_agent(cases[i].script);
		int rc = sbx_open(&o, &c);
		join_agent();
		if (rc != cases[i].want || !strstr(sbx_client_error(c), cases[i].says))
			fail_msg("%s: %d, %s", cases[i].name, rc, sbx_client_error(c));
		sbx_close(c);
		peer_close(&agent);
	}
}

static void
test_open_nobody(void **state)
{
	struct sbx_open_options o = at_path();
	struct sbx_client *c = NULL;
	char long_path[300];
	(void)state;
	stop_listening();
	assert_int_equal(sbx_open(&o, &c), -SBX_EAGENT);
	assert_non_null(strstr(sbx_client_error(c), path));
	sbx_close(c);
	memset(long_path, 'x', sizeof long_path - 1);
	long_path[sizeof long_path - 1] = 0;
	o.socket = long_path;
	assert_int_equal(sbx_open(&o, &c), -SBX_EINVAL);
	sbx_close(c);
	o.socket = "";
	assert_int_equal(sbx_open(&o, &c), -SBX_EINVAL);
	sbx_close(c);
	o = at_path();
	o.size = 3;
	assert_int_equal(sbx_open(&o, &c), -SBX_EINVAL);
	sbx_close(c);
	sbx_close(NULL);
}

static void
test_path_order(void **state)
{
	struct sbx_client *c;
	char runtime[80], in_runtime[128];
	struct stat st;
	(void)state;
	stop_listening();
	(void)snprintf(runtime, sizeof runtime, "%s/run", dir);
	(void)snprintf(in_runtime, sizeof in_runtime, "%s/signalbox", runtime);
	MUST(mkdir(runtime, 0700) == 0 && mkdir(in_runtime, 0700) == 0);
	(void)snprintf(in_runtime, sizeof in_runtime, "%s/signalbox/agent.sock", runtime);
	const struct {
		const char *option, *variable, *runtime;
		bool exists;
		const char *want;
	} cases[] = {
		{ "/nowhere/a", "/nowhere/b", runtime, true, "/nowhere/a" },
		{ NULL, "/nowhere/b", runtime, true, "/nowhere/b" },
		{ NULL, "", runtime, true, in_runtime },
		{ NULL, NULL, runtime, true, in_runtime },
		{ NULL, NULL, runtime, false, "/run/signalbox/agent.sock" },
		{ NULL, NULL, NULL, true, "/run/signalbox/agent.sock" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
		o.socket = cases[i].option;
		o.timeout_ms = 1;
		MUST((cases[i].variable ? setenv("SIGNALBOX_SOCKET", cases[i].variable, 1) : unsetenv("SIGNALBOX_SOCKET")) == 0);
		MUST((cases[i].runtime ? setenv("XDG_RUNTIME_DIR", cases[i].runtime, 1) : unsetenv("XDG_RUNTIME_DIR")) == 0);
		(void)unlink(in_runtime);
		if (cases[i].exists)
			MUST(close(open(in_runtime, O_CREAT | O_WRONLY, 0600)) == 0);
		int rc = sbx_open(&o, &c);
		bool system_agent_runs = stat("/run/signalbox/agent.sock", &st) == 0;
		if (!system_agent_runs)
			assert_true(rc < 0);
		if (strcmp(c->address.sun_path, cases[i].want) != 0)
			fail_msg("case %zu: %s, want %s", i, c->address.sun_path, cases[i].want);
		sbx_close(c);
	}
	(void)unlink(in_runtime);
	(void)unsetenv("XDG_RUNTIME_DIR");
}

/* ---- submitting ---- */

static void
test_submit_frame(void **state)
{
	static const char *const targets[] = { "a/b", "c/d" };
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	struct sbx_value v;
	uint64_t id, id2;
	(void)state;

	assert_int_equal(sbx_submit(c, &o, &id), 0);
	struct sbx_frame *f = peer_expect(&p, SBX_FRAME_SUBMIT);
	assert_true(f->id == id && f->id <= SBX_ID_MAX);
	assert_int_equal(f->map.n_items, 3);
	assert_true(sbx_span_is(text_member(f, "model"), "openai/gpt"));
	assert_true(sbx_span_is(text_member(f, "body"), body));
	assert_true(sbx_map_get(&f->map, "stream", &v) && v.type == SBX_BOOL && v.truth);

	o.model = NULL;
	o.targets = targets;
	o.n_targets = 2;
	o.stream = false;
	o.data = o.restart = true;
	o.deadline_ms = 1500;
	o.idempotency_key = "k1";
	assert_int_equal(sbx_submit(c, &o, &id2), 0);
	assert_true(id2 != id);
	f = peer_expect(&p, SBX_FRAME_SUBMIT);
	assert_true(f->id == id2);
	assert_int_equal(f->map.n_items, 7);
	assert_true(sbx_map_get(&f->map, "targets", &v) && v.type == SBX_ARRAY && v.n_items == 2);
	struct sbx_cursor items = sbx_cursor_of(&v);
	struct sbx_value item;
	assert_true(sbx_next_item(&items, &item) && sbx_span_is(item.bytes, "a/b"));
	assert_true(sbx_next_item(&items, &item) && sbx_span_is(item.bytes, "c/d"));
	assert_false(sbx_next_item(&items, &item));
	assert_true(sbx_map_get(&f->map, "stream", &v) && v.type == SBX_BOOL && !v.truth);
	assert_true(sbx_map_get(&f->map, "restart", &v) && v.type == SBX_BOOL && v.truth);
	assert_true(sbx_span_is(text_member(f, "reply"), "data"));
	assert_true(sbx_span_is(text_member(f, "idempotency_key"), "k1"));
	assert_true(uint_member(f, "deadline_ms") == 1500);
	sbx_close(c);
	assert_null(peer_read(&p));
	peer_close(&p);
}

static void
test_submit_refused(void **state)
{
	static const char *const targets[] = { "a/b" };
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct { struct sbx_request_options o; char more[8]; } newer;
	struct sbx_request_options o;
	uint64_t id = 77;
	(void)state;
#define REFUSED(want, change)                                                                                                  \
	do {                                                                                                                   \
		o = request();                                                                                                 \
		change;                                                                                                        \
		assert_int_equal(sbx_submit(c, &o, &id), (want));                                                              \
		assert_true(*sbx_client_error(c));                                                                             \
	} while (0)
	REFUSED(-SBX_EINVAL, o.route = "r");
	REFUSED(-SBX_EINVAL, (o.targets = targets, o.n_targets = 1));
	REFUSED(-SBX_EINVAL, (o.model = NULL, o.n_targets = 1));
	REFUSED(-SBX_EINVAL, o.body = NULL);
	REFUSED(-SBX_EINVAL, o.body_bytes = 0);
	REFUSED(-SBX_ETOOBIG, o.body_bytes = SBX_BODY_IN_MAX_BYTES + 1u);
	REFUSED(-SBX_EINVAL, o.deadline_ms = SBX_DEADLINE_MAX_MS + 1u);
	REFUSED(-SBX_EINVAL, o.idempotency_key = "");
	REFUSED(-SBX_EINVAL, o.size = sizeof o - 1);
	assert_true(id == 77);

	memset(&newer, 0, sizeof newer);
	newer.o = request();
	newer.o.size = sizeof newer;
	assert_int_equal(sbx_submit(c, &newer.o, &id), 0); /* longer, but asks for nothing unknown */
	newer.more[3] = 1;
	assert_int_equal(sbx_submit(c, &newer.o, &id), -SBX_EINVAL);
	sbx_close(c);
	peer_close(&p);
}

static void
test_in_flight_limit(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	static uint64_t ids[SBX_INFLIGHT_MAX];
	uint64_t id;
	(void)state;
	for (uint32_t i = 0; i < SBX_INFLIGHT_MAX; i++) {
		assert_int_equal(sbx_submit(c, &o, &ids[i]), 0);
		assert_true(peer_expect(&p, SBX_FRAME_SUBMIT)->id == ids[i]);
	}
	assert_int_equal(sbx_submit(c, &o, &id), -SBX_EBUSY);
	SAY_DONE(&p, ids[1234]);
	struct sbx_event ev = next_event(c);
	assert_true(ev.last && ev.id == ids[1234]);
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	assert_true(id != ids[1234]); /* its slot, not its number */
	assert_int_equal(sbx_cancel(c, ids[1234]), -SBX_ENOENT);
	sbx_close(c);
	peer_close(&p);
}

static void
test_large_body(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	struct sbx_event ev;
	uint64_t id, id2, id3;
	char *large = malloc(SBX_BODY_IN_MAX_BYTES);
	(void)state;
	MUST(large);
	for (size_t i = 0; i < SBX_BODY_IN_MAX_BYTES; i++)
		large[i] = (char)('a' + i % 23);
	o.body = large;
	o.body_bytes = SBX_BODY_IN_MAX_BYTES;
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	assert_true(sbx_events(c) & POLLOUT);
	assert_int_equal(sbx_submit(c, &o, &id2), 0);
	assert_int_equal(sbx_submit(c, &o, &id3), -SBX_EBUSY); /* 64 MiB wait */
	/* Both sides in one thread: the agent reads what there is, the library sends more. */
	struct sbx_buf got;
	sbx_buf_init(&got, 80u << 20);
	while (sbx_events(c) & POLLOUT) {
		uint8_t *room = sbx_buf_reserve(&got, 1u << 20);
		ssize_t n = recv(p.fd, room, 1u << 20, MSG_DONTWAIT);
		if (n > 0)
			sbx_buf_commit(&got, (size_t)n);
		assert_int_equal(sbx_process(c, POLLOUT), 0);
	}
	sbx_buf_fini(&p.in);
	p.consumed = 0;
	p.in = got;
	struct sbx_frame *f = peer_expect(&p, SBX_FRAME_SUBMIT);
	assert_true(f->id == id && text_member(f, "body").n == SBX_BODY_IN_MAX_BYTES);
	assert_memory_equal(text_member(f, "body").at, large, SBX_BODY_IN_MAX_BYTES);
	assert_true(peer_expect(&p, SBX_FRAME_SUBMIT)->id == id2);
	SAY_DONE(&p, id);
	ev = next_event(c);
	assert_true(ev.last && ev.id == id);
	free(large);
	sbx_close(c);
	peer_close(&p);
}

/* ---- events ---- */

static void
pack_all_events(struct sbx_buf *b, uint64_t id)
{
	pack(b, SBX_FRAME_ACCEPTED, id, END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TARGET), "s:target", "openai/gpt", "u:attempt", U(1), END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_REASONING), "s:text", "hmm", END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), "u:choice", U(2), "s:text", "\xc3\xa9t\xc3\xa9", END);
	pack(b, SBX_FRAME_EVENT, id, "s:text", "", "u:type", U(SBX_EVENT_TEXT), "s:new_key", "ignored", END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_REFUSAL), "s:text", "no", END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(99), "s:text", "of a later version", END);
	pack(b, (enum sbx_frame_kind)77, id, "s:text", "of a later version", END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TOOL_CALL), "u:index", U(1), "s:id", "call_1", "s:name", "f", "s:arguments",
	     "{\"a\"", END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TOOL_CALL), "u:index", U(1), "s:arguments", ":1}", END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_DATA), "d:data", "data: {}\n\n", END);
	pack(b, SBX_FRAME_RESET, id, "u:attempt", U(2), END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_FINISH), "s:finish", "stop", END);
	pack(b, SBX_FRAME_DONE, id, "s:target", "openai/gpt", "s:finish", "stop", "n:usage", "i:cost_nanousd", (int64_t)55, END);
}

static void
expect_all_events(struct sbx_client *c, uint64_t id)
{
	static const struct {
		enum sbx_note note;
		uint32_t choice, index;
		const char *text, *call_id, *call_name;
	} want[] = {
		{ SBX_NOTE_ACCEPTED, 0, 0, "", NULL, NULL },
		{ SBX_NOTE_TARGET, 0, 0, "openai/gpt", NULL, NULL },
		{ SBX_NOTE_REASONING, 0, 0, "hmm", NULL, NULL },
		{ SBX_NOTE_TEXT, 2, 0, "\xc3\xa9t\xc3\xa9", NULL, NULL },
		{ SBX_NOTE_TEXT, 0, 0, "", NULL, NULL },
		{ SBX_NOTE_REFUSAL, 0, 0, "no", NULL, NULL },
		{ SBX_NOTE_TOOL_CALL, 0, 1, "{\"a\"", "call_1", "f" },
		{ SBX_NOTE_TOOL_CALL, 0, 1, ":1}", NULL, NULL },
		{ SBX_NOTE_DATA, 0, 0, "data: {}\n\n", NULL, NULL },
		{ SBX_NOTE_RESET, 0, 0, "", NULL, NULL },
		{ SBX_NOTE_FINISH, 0, 0, "stop", NULL, NULL },
	};
	struct sbx_event ev;
	for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
		ev = next_event(c);
		assert_true(ev.id == id && !ev.last && !ev.reply);
		assert_int_equal(ev.note, want[i].note);
		assert_int_equal(ev.choice, want[i].choice);
		assert_int_equal(ev.index, want[i].index);
		assert_string_equal(ev.text, want[i].text);
		assert_int_equal(ev.text_bytes, strlen(want[i].text));
		assert_int_equal(ev.call_id != NULL, want[i].call_id != NULL);
		if (ev.call_id) {
			assert_string_equal(ev.call_id, want[i].call_id);
			assert_string_equal(ev.call_name, want[i].call_name);
		}
	}
	ev = next_event(c);
	assert_int_equal(ev.note, SBX_NOTE_DONE);
	assert_true(ev.last && ev.id == id && sbx_reply_ok(ev.reply));
	assert_string_equal(sbx_reply_target(ev.reply), "openai/gpt");
	assert_string_equal(sbx_reply_finish(ev.reply, 0), "stop");
	assert_true(sbx_reply_cost_nanousd(ev.reply) == 55);
	assert_true(sbx_reply_tokens(ev.reply).prompt == -1);
	assert_int_equal(sbx_reply_status(ev.reply), 200);
	assert_null(sbx_reply_text(ev.reply, 0, NULL));
}

static void
test_events(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_event ev;
	struct sbx_buf b;
	(void)state;
	assert_int_equal(sbx_next(c, 0, &ev), -SBX_ENOENT);
	uint64_t id = submit(c);
	assert_int_equal(sbx_next(c, 10, &ev), -SBX_ETIME);
	sbx_buf_init(&b, 1u << 20);
	pack(&b, SBX_FRAME_EVENT, 12345, "u:type", U(SBX_EVENT_TEXT), "s:text", "for nobody", END);
	pack_all_events(&b, id);
	peer_write(&p, b.data, b.n);
	expect_all_events(c, id);
	assert_int_equal(sbx_next(c, 0, &ev), -SBX_ENOENT);

	/* Frames that arrive in two pieces, cut at every byte; and one byte at a time. */
	for (size_t cut = 0; cut <= b.n; cut++) {
		id = submit(c);
		sbx_buf_clear(&b);
		pack_all_events(&b, id);
		peer_write(&p, b.data, cut);
		int rc = sbx_process(c, POLLIN);
		assert_int_equal(rc, 0);
		peer_write(&p, b.data + cut, b.n - cut);
		expect_all_events(c, id);
	}
	id = submit(c);
	sbx_buf_clear(&b);
	pack_all_events(&b, id);
	for (size_t i = 0; i < b.n; i++) {
		peer_write(&p, b.data + i, 1);
		assert_int_equal(sbx_process(c, POLLIN), 0);
	}
	expect_all_events(c, id);
	sbx_buf_fini(&b);
	sbx_close(c);
	peer_close(&p);
}

static void
test_interleaving(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id[3];
	(void)state;
	for (int i = 0; i < 3; i++)
		id[i] = submit(c);
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 3; i++) {
			char text[16];
			(void)snprintf(text, sizeof text, "r%d-%d", i, round);
			SAY_TEXT(&p, id[i], text);
		}
	}
	SAY_DONE(&p, id[1]);
	SAY_TEXT(&p, id[2], "more");
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 3; i++) {
			char text[16];
			(void)snprintf(text, sizeof text, "r%d-%d", i, round);
			expect_text(c, id[i], text);
		}
	}
	struct sbx_event ev = next_event(c);
	assert_true(ev.last && ev.id == id[1]);
	expect_text(c, id[2], "more");
	expect_nothing(c);
	sbx_close(c);
	peer_close(&p);
}

/* A frame whose length has a first byte that is not 0 follows a string: the NUL of that string falls on it. */
static void
test_byte_behind_string(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id = submit(c);
	struct sbx_buf b;
	struct sbx_packer k;
	const size_t large_bytes = 20u << 20;
	char *large = calloc(1, large_bytes);
	(void)state;
	MUST(large);
	sbx_buf_init(&b, 40u << 20);
	pack(&b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), "s:text", "edge", END);
	sbx_frame_begin(&k, &b, SBX_FRAME_EVENT, id, 2);
	sbx_pack_uint(&k, "type", SBX_EVENT_DATA);
	sbx_pack_bin(&k, "data", (struct sbx_span){ large, large_bytes });
	MUST(sbx_frame_end(&k) == 0);
	peer_write(&p, b.data, 100); /* the large frame's head is there, its body is not */
	expect_text(c, id, "edge");
	assert_int_equal(sbx_timeout_ms(c), -1);
	assert_true(sbx_events(c) & POLLIN);
	for (size_t at = 100; at < b.n;) {
		size_t n = b.n - at < 65536 ? b.n - at : 65536;
		peer_write(&p, b.data + at, n);
		at += n;
		assert_int_equal(sbx_process(c, POLLIN), 0);
	}
	struct sbx_event ev = next_event(c);
	assert_int_equal(ev.note, SBX_NOTE_DATA);
	assert_int_equal(ev.text_bytes, large_bytes);
	free(large);
	sbx_buf_fini(&b);
	sbx_close(c);
	peer_close(&p);
}

static void
test_credit(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id = submit(c), granted = 0;
	char kilobyte[1025];
	(void)state;
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	memset(kilobyte, 'k', 1024);
	kilobyte[1024] = 0;
	say(&p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TARGET), "s:target", kilobyte, END); /* costs nothing */
	assert_int_equal(next_event(c).note, SBX_NOTE_TARGET);
	for (int i = 0; i < 63; i++) {
		SAY_TEXT(&p, id, kilobyte);
		expect_text(c, id, kilobyte);
	}
	expect_nothing(c);
	assert_true(peer_has_nothing(&p)); /* 63 KiB consumed: not yet a quarter */
	say(&p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TOOL_CALL), "s:id", "12", "s:name", "345", "s:arguments", kilobyte, END);
	assert_int_equal(next_event(c).note, SBX_NOTE_TOOL_CALL);
	assert_true(peer_has_nothing(&p)); /* it is still out on loan */
	expect_nothing(c);
	struct sbx_frame *f = peer_expect(&p, SBX_FRAME_CREDIT);
	assert_true(f->id == id && f->map.n_items == 1);
	assert_int_equal(uint_member(f, "bytes"), 64 * 1024 + 5);

	/* Whatever the sizes, what the agent may send never runs out, and never exceeds the window. */
	uint64_t credit = SBX_CREDIT_BYTES, sent = 0;
	for (int i = 0; i < 400; i++) {
		size_t n = (size_t)(i * 37) % 1024;
		assert_true(credit >= n);
		SAY_TEXT(&p, id, kilobyte + 1024 - n);
		credit -= n;
		sent += n;
		assert_int_equal(next_event(c).note, SBX_NOTE_TEXT);
		expect_nothing(c);
		while (!peer_has_nothing(&p)) {
			f = peer_expect(&p, SBX_FRAME_CREDIT);
			granted += uint_member(f, "bytes");
			credit += uint_member(f, "bytes");
		}
		assert_true(credit <= SBX_CREDIT_BYTES && credit >= SBX_CREDIT_BYTES - SBX_GRANT_BYTES);
	}
	assert_true(granted <= sent && granted > sent - SBX_GRANT_BYTES);
	sbx_close(c);
	peer_close(&p);
}

static void
test_cancel(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id = submit(c);
	(void)state;
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	assert_int_equal(sbx_cancel(c, id + 1), -SBX_ENOENT);
	assert_int_equal(sbx_cancel(c, id), 0);
	assert_int_equal(sbx_cancel(c, id), 0); /* again: no second frame */
	struct sbx_frame *f = peer_expect(&p, SBX_FRAME_CANCEL);
	assert_true(f->id == id && f->map.n_items == 0);
	assert_true(peer_has_nothing(&p));
	say(&p, SBX_FRAME_ERROR, id, "s:code", "cancelled", "u:status", U(499), "s:message", "as you wish", END);
	struct sbx_event ev = next_event(c);
	assert_true(ev.last && ev.id == id);
	assert_int_equal(sbx_reply_code(ev.reply), SBX_CODE_CANCELLED);
	assert_string_equal(sbx_reply_message(ev.reply), "as you wish");
	assert_int_equal(sbx_cancel(c, id), -SBX_ENOENT);
	sbx_close(c);
	peer_close(&p);
}

/* ---- loss ---- */

static void
test_lost_after_sending(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_event ev;
	uint64_t id = submit(c), id2 = submit(c);
	(void)state;
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	SAY_TEXT(&p, id, "par");
	SAY_DONE(&p, id2);
	peer_close(&p);
	expect_text(c, id, "par"); /* what came whole is delivered first */
	ev = next_event(c);
	assert_true(ev.note == SBX_NOTE_DONE && ev.id == id2);
	expect_lost(c, id, /* sent */ true);
	assert_int_equal(sbx_next(c, 0, &ev), -SBX_EAGENT);
	assert_int_equal(sbx_fd(c), -1);
	assert_int_equal(sbx_process(c, 0), -SBX_EAGENT);

	/* The next submit connects again. */
	struct sbx_request_options o = request();
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	assert_true(sbx_timeout_ms(c) > 0); /* the greeting has a deadline */
	expect_nothing(c);
	greet(&p);
	expect_nothing(c);
	assert_true(peer_expect(&p, SBX_FRAME_SUBMIT)->id == id);
	SAY_TEXT(&p, id, "back");
	expect_text(c, id, "back");
	peer_close(&p);
	expect_lost(c, id, true);
	stop_listening();
	assert_int_equal(sbx_submit(c, &o, &id), -SBX_EAGENT);
	assert_non_null(strstr(sbx_client_error(c), path));
	sbx_close(c);
}

static void *
script_greet_and_answer(void *peer)
{
	greet(peer);
	uint64_t id = peer_expect(peer, SBX_FRAME_SUBMIT)->id;
	SAY_TEXT((struct peer *)peer, id, "from the new one");
	SAY_DONE((struct peer *)peer, id);
	return NULL;
}

/* The agent was replaced while nothing was in flight: the application does not notice, whichever call comes next. */
static void
test_replaced_while_idle(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	struct sbx_reply *r;
	uint64_t id;
	(void)state;
	peer_close(&p);
	run_agent(script_greet_and_answer);
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	expect_text(c, id, "from the new one");
	assert_int_equal(next_event(c).note, SBX_NOTE_DONE);
	join_agent();
	peer_close(&agent);
	run_agent(script_greet_and_answer);
	assert_int_equal(sbx_ask(c, &o, &r), 0);
	assert_string_equal(sbx_reply_text(r, 0, NULL), "from the new one");
	sbx_reply_free(r);
	join_agent();
	sbx_close(c);
	peer_close(&agent);
}

static void
test_farewell(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id = submit(c);
	(void)state;
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	say(&p, SBX_FRAME_ERROR, 0, "s:code", "invalid_request", "s:message", "byte 17 is wrong", END);
	peer_close(&p);
	struct sbx_event ev = next_event(c);
	assert_true(ev.last && ev.id == id);
	assert_int_equal(sbx_reply_code(ev.reply), SBX_CODE_AGENT_LOST);
	assert_non_null(strstr(sbx_reply_message(ev.reply), "byte 17 is wrong"));
	sbx_close(c);
}

/* A body that no socket buffer takes whole is certainly not sent when the agent never reads: it goes again by itself. */
static void
test_lost_before_sending(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	uint64_t small, large, cancelled;
	char *bytes = calloc(1, 4u << 20);
	struct sbx_event ev;
	(void)state;
	MUST(bytes);
	small = submit(c);
	o.body = bytes;
	o.body_bytes = 4u << 20;
	o.deadline_ms = 60000;
	assert_int_equal(sbx_submit(c, &o, &large), 0);
	assert_int_equal(sbx_submit(c, &o, &cancelled), 0);
	assert_int_equal(sbx_cancel(c, cancelled), 0);
	peer_close(&p);
	ev = next_event(c); /* the small one was taken by the kernel: unknown */
	assert_true(ev.id == small && sbx_reply_sent(ev.reply));
	expect_lost(c, cancelled, /* sent */ false);
	expect_nothing(c);
	run_agent(script_greet);
	while (c->link != SBX_LINK_UP) {
		struct pollfd q = { .fd = sbx_fd(c), .events = sbx_events(c) };
		(void)poll(&q, 1, sbx_timeout_ms(c));
		(void)sbx_process(c, q.revents);
	}
	join_agent();
	p = agent;
	struct sbx_buf got;
	sbx_buf_init(&got, 80u << 20);
	while (sbx_events(c) & POLLOUT) {
		ssize_t n = recv(p.fd, sbx_buf_reserve(&got, 1u << 20), 1u << 20, MSG_DONTWAIT);
		if (n > 0)
			sbx_buf_commit(&got, (size_t)n);
		assert_int_equal(sbx_process(c, POLLOUT), 0);
	}
	sbx_buf_fini(&p.in);
	p.consumed = 0;
	p.in = got;
	struct sbx_frame *f = peer_expect(&p, SBX_FRAME_SUBMIT);
	assert_true(f->id == large && text_member(f, "body").n == 4u << 20);
	assert_true(uint_member(f, "deadline_ms") <= 60000 && uint_member(f, "deadline_ms") > 50000);
	assert_true(peer_has_nothing(&p));
	SAY_DONE(&p, large);
	ev = next_event(c);
	assert_true(ev.note == SBX_NOTE_DONE && ev.id == large);
	free(bytes);
	sbx_close(c);
	peer_close(&p);
}

static void
test_lost_with_key(void **state)
{
	static const struct {
		bool restart, content;
		bool again; /* is submitted again */
	} cases[] = { { false, false, true }, { true, false, true }, { true, true, true }, { false, true, false } };
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct peer p;
		struct sbx_client *c = open_client(&p);
		struct sbx_request_options o = request();
		uint64_t id;
		o.restart = cases[i].restart;
		o.idempotency_key = "once";
		o.deadline_ms = 30000;
		assert_int_equal(sbx_submit(c, &o, &id), 0);
		(void)peer_expect(&p, SBX_FRAME_SUBMIT);
		SAY_ACCEPTED(&p, id);
		assert_int_equal(next_event(c).note, SBX_NOTE_ACCEPTED);
		if (cases[i].content) {
			SAY_TEXT(&p, id, "half");
			expect_text(c, id, "half");
		}
		peer_close(&p);
		if (!cases[i].again) {
			expect_lost(c, id, true);
			sbx_close(c);
			continue;
		}
		if (cases[i].content) {
			struct sbx_event ev = next_event(c);
			assert_true(ev.note == SBX_NOTE_RESET && ev.id == id && !ev.last);
		}
		expect_nothing(c);
		expect_nothing(c); /* connects */
		greet(&p);
		expect_nothing(c);
		struct sbx_frame *f = peer_expect(&p, SBX_FRAME_SUBMIT);
		assert_true(f->id == id && sbx_span_is(text_member(f, "idempotency_key"), "once"));
		assert_true(uint_member(f, "deadline_ms") <= 30000 && uint_member(f, "deadline_ms") > 20000);
		SAY_ACCEPTED(&p, id); /* not told twice */
		SAY_TEXT(&p, id, "whole");
		expect_text(c, id, "whole");
		SAY_DONE(&p, id);
		assert_int_equal(next_event(c).note, SBX_NOTE_DONE);
		sbx_close(c);
		peer_close(&p);
	}
}

/* A request that takes the agent down every time is not submitted for ever. */
static void
test_poison(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	struct sbx_event ev;
	uint64_t id;
	int seen = 0;
	(void)state;
	o.idempotency_key = "once";
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	for (;;) {
		(void)peer_expect(&p, SBX_FRAME_SUBMIT);
		seen++;
		peer_close(&p);
		if (seen > SBX_RESUBMIT_MAX)
			break;
		run_agent(script_greet);
		assert_int_equal(sbx_next(c, 300, &ev), -SBX_ETIME);
		join_agent();
		p = agent;
	}
	expect_lost(c, id, true);
	assert_int_equal(seen, 1 + SBX_RESUBMIT_MAX);
	sbx_close(c);
}

static void
test_nobody_comes_back(void **state)
{
	struct sbx_open_options oo = at_path();
	struct sbx_client *c;
	struct sbx_request_options o = request();
	uint64_t id, id2;
	(void)state;
	oo.timeout_ms = 300;
	run_agent(script_greet);
	assert_int_equal(sbx_open(&oo, &c), 0);
	join_agent();
	o.idempotency_key = "once";
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	(void)peer_expect(&agent, SBX_FRAME_SUBMIT);
	peer_close(&agent);
	stop_listening();
	expect_lost(c, id, true);
	/* Somebody accepts, and then says nothing: never sent, and said so. */
	listen_here();
	o.idempotency_key = NULL;
	assert_int_equal(sbx_submit(c, &o, &id2), 0);
	stop_listening();
	expect_lost(c, id2, false);
	sbx_close(c);
}

static void
test_junk(void **state)
{
	static const struct {
		const char *name;
		const char *bytes;
		size_t n;
	} cases[] = {
		{ "a length beyond the limit", "\xff\xff\xff\xff", 4 },
		{ "a length of zero", "\0\0\0\0", 4 },
		{ "no MessagePack", "\0\0\0\4\xc1\xc1\xc1\xc1", 8 },
		{ "an array of two", "\0\0\0\4\x92\x22\x01\x80", 8 },
		{ "a huge array", "\0\0\0\5\xdd\xff\xff\xff\xff", 9 },
		{ "a length that lies", "\0\0\0\xa\x93\x22\x01\x81\xa1k\xdb\xff\xff\xff", 14 },
	};
	struct peer p;
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_client *c = open_client(&p);
		uint64_t id = submit(c);
		(void)peer_expect(&p, SBX_FRAME_SUBMIT);
		SAY_TEXT(&p, id, "good");
		peer_write(&p, cases[i].bytes, cases[i].n);
		SAY_TEXT(&p, id, "never seen");
		expect_text(c, id, "good");
		expect_lost(c, id, true);
		sbx_close(c);
		peer_close(&p);
	}
	for (int i = 0; i < 6; i++) {
		struct sbx_client *c = open_client(&p);
		uint64_t id = submit(c);
		(void)peer_expect(&p, SBX_FRAME_SUBMIT);
		switch (i) {
		case 0: say(&p, SBX_FRAME_EVENT, id, "s:text", "no type", END); break;
		case 1: say(&p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), "u:text", U(5), END); break;
		case 2: say(&p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), END); break;
		case 3: say(&p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), "s:text", "x", "i:choice", (int64_t)-1, END); break;
		case 4: say(&p, SBX_FRAME_DONE, id, "s:usage", "many", END); break;
		default: say(&p, SBX_FRAME_ERROR, id, "u:code", U(1), END); break;
		}
		expect_lost(c, id, true);
		sbx_close(c);
		peer_close(&p);
	}
}

static void
test_fork(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id = submit(c);
	(void)state;
	for (int by_pid = 0; by_pid < 2; by_pid++) { /* with the page, and where the kernel has no such page */
		uint8_t *page = c->owner_page;
		if (by_pid)
			c->owner_page = NULL;
		pid_t child = fork();
		MUST(child >= 0);
		if (child == 0) {
			struct sbx_request_options o = request();
			struct sbx_reply *reply = NULL;
			struct sbx_event ev;
			uint64_t other = 0;
			bool good = sbx_submit(c, &o, &other) == -SBX_EFORK && sbx_next(c, 0, &ev) == -SBX_EFORK &&
			            sbx_ask(c, &o, &reply) == -SBX_EFORK && sbx_cancel(c, id) == -SBX_EFORK &&
			            sbx_stats(c, &other) == -SBX_EFORK && sbx_process(c, 0) == -SBX_EFORK && sbx_fd(c) == -1 &&
			            sbx_events(c) == 0 && sbx_timeout_ms(c) == -1 && !reply && *sbx_client_error(c);
			sbx_close(c);
			_exit(good ? 0 : 1);
		}
		int status;
		MUST(waitpid(child, &status, 0) == child);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		c->owner_page = page;
	}
	SAY_TEXT(&p, id, "still here");
	expect_text(c, id, "still here");

	/* A child that merely lives on does not keep the connection alive. */
	int hold[2];
	MUST(pipe(hold) == 0);
	pid_t child = fork();
	MUST(child >= 0);
	if (child == 0) {
		char byte;
		(void)close(hold[1]);
		_exit(read(hold[0], &byte, 1) == 0 ? 0 : 1);
	}
	(void)close(hold[0]);
	sbx_close(c);
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	assert_null(peer_read(&p));
	(void)close(hold[1]);
	MUST(waitpid(child, NULL, 0) == child);
	peer_close(&p);
}

/* ---- a loop of the application's ---- */

static void
test_own_loop(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_event ev;
	uint64_t id = submit(c);
	int flags = fcntl(sbx_fd(c), F_GETFD);
	(void)state;
	assert_true(sbx_fd(c) >= 0 && (flags & FD_CLOEXEC));
	assert_int_equal(sbx_events(c), POLLIN);
	assert_int_equal(sbx_timeout_ms(c), -1);
	for (int i = 0; i < 3; i++)
		SAY_TEXT(&p, id, "x");
	wait_readable(sbx_fd(c));
	assert_int_equal(sbx_process(c, POLLIN), 0);
	assert_int_equal(sbx_timeout_ms(c), 0); /* events are there although the descriptor is silent */
	expect_text(c, id, "x");
	assert_int_equal(sbx_timeout_ms(c), 0);
	expect_text(c, id, "x");
	expect_text(c, id, "x");
	assert_int_equal(sbx_timeout_ms(c), -1); /* the last is on loan, and nothing is behind it */
	expect_nothing(c);

	/* An application that never takes its events stops the reading, not the memory. */
	char *kilobyte = calloc(1, 1025);
	MUST(kilobyte);
	memset(kilobyte, 'k', 1024);
	MUST(fcntl(p.fd, F_SETFL, O_NONBLOCK) == 0);
	struct sbx_buf b;
	sbx_buf_init(&b, 4096);
	pack(&b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), "s:text", kilobyte, END);
	size_t written = 0;
	while (sbx_events(c) & POLLIN) {
		if (send(p.fd, b.data, b.n, MSG_NOSIGNAL) == (ssize_t)b.n)
			written++;
		assert_int_equal(sbx_process(c, POLLIN), 0);
		assert_true(written < 4096);
	}
	assert_true(c->in.n >= SBX_IN_HIGH_BYTES && c->in.n < SBX_IN_HIGH_BYTES + 2 * SBX_READ_BYTES);
	for (size_t i = 0; i < written; i++) {
		ev = next_event(c);
		assert_int_equal(ev.text_bytes, 1024);
	}
	expect_nothing(c);
	assert_int_equal(sbx_events(c), POLLIN);
	peer_close(&p);
	assert_int_equal(sbx_process(c, POLLIN | POLLHUP), 0);
	assert_int_equal(sbx_timeout_ms(c), 0);
	expect_lost(c, id, true);
	assert_int_equal(sbx_process(c, 0), -SBX_EAGENT);
	free(kilobyte);
	sbx_buf_fini(&b);
	sbx_close(c);
}

/* ---- sbx_ask() ---- */

static void *
script_answer(void *peer)
{
	struct peer *p = peer;
	struct sbx_frame *f;
	uint64_t other = 0, id;
	while ((f = peer_expect(p, SBX_FRAME_SUBMIT)), !text_member(f, "idempotency_key").n)
		other = f->id;
	id = f->id;
	SAY_ACCEPTED(p, id);
	if (other)
		SAY_TEXT(p, other, "first");
	say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), "u:choice", U(1), "s:text", "lost by a reset", END);
	say(p, SBX_FRAME_RESET, id, "u:attempt", U(2), END);
	SAY_TEXT(p, id, "Hel");
	if (other) {
		SAY_TEXT(p, other, "second");
		SAY_DONE(p, other);
	}
	SAY_TEXT(p, id, "lo");
	say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_REASONING), "s:text", "why not", END);
	say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TOOL_CALL), "u:index", U(0), "s:id", "c1", "s:name", "f", "s:arguments", "{", END);
	say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TOOL_CALL), "u:index", U(1), "s:id", "c2", "s:name", "g", END);
	say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TOOL_CALL), "u:index", U(0), "s:arguments", "}", END);
	say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_FINISH), "s:finish", "tool_calls", END);
	struct sbx_buf b;
	struct sbx_packer k;
	sbx_buf_init(&b, 4096);
	sbx_frame_begin(&k, &b, SBX_FRAME_DONE, id, 9);
	sbx_pack_str(&k, "target", SBX_SPAN("b/m"));
	sbx_pack_str(&k, "finish", SBX_SPAN("tool_calls"));
	sbx_pack_map(&k, "usage", 4);
	sbx_pack_uint(&k, "prompt_tokens", 11);
	sbx_pack_uint(&k, "completion_tokens", 22);
	sbx_pack_bool(&k, "estimated", true);
	sbx_pack_str(&k, "of a later version", SBX_SPAN("?"));
	sbx_pack_str(&k, "usage_raw", SBX_SPAN("{\"x\":1}"));
	sbx_pack_uint(&k, "cost_nanousd", 1234567);
	sbx_pack_uint(&k, "total_ms", 90);
	sbx_pack_uint(&k, "first_content_ms", 40);
	sbx_pack_nil(&k, "cost_status");
	sbx_pack_array(&k, "attempts", 2);
	sbx_pack_map(&k, NULL, 5);
	sbx_pack_str(&k, "target", SBX_SPAN("a/m"));
	sbx_pack_str(&k, "class", SBX_SPAN("FAILED"));
	sbx_pack_uint(&k, "status", 503);
	sbx_pack_nil(&k, "first_content_ms");
	sbx_pack_str(&k, "message", SBX_SPAN("overloaded"));
	sbx_pack_map(&k, NULL, 6);
	sbx_pack_str(&k, "target", SBX_SPAN("b/m"));
	sbx_pack_str(&k, "class", SBX_SPAN("OK"));
	sbx_pack_uint(&k, "status", 200);
	sbx_pack_uint(&k, "first_content_ms", 40);
	sbx_pack_str(&k, "connection", SBX_SPAN("reused"));
	sbx_pack_uint(&k, "started_ms", 3);
	MUST(sbx_frame_end(&k) == 0);
	peer_write(p, b.data, b.n);
	sbx_buf_fini(&b);
	return NULL;
}

static void
test_ask(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	struct sbx_reply *r = NULL;
	struct sbx_attempt_info a;
	struct sbx_tool_call call;
	size_t n;
	uint64_t other = submit(c);
	(void)state;
	agent = p;
	run_agent(script_answer);
	o.idempotency_key = "marks it";
	assert_int_equal(sbx_ask(c, &o, &r), 0);
	join_agent();
	/* The other request's events waited. */
	expect_text(c, other, "first");
	expect_text(c, other, "second");
	assert_int_equal(next_event(c).note, SBX_NOTE_DONE);
	sbx_close(c);
	peer_close(&agent);

	assert_true(sbx_reply_ok(r) && sbx_reply_code(r) == SBX_CODE_NONE);
	assert_string_equal(sbx_reply_code_word(r), "");
	assert_string_equal(sbx_reply_text(r, 0, &n), "Hello");
	assert_int_equal(n, 5);
	assert_string_equal(sbx_reply_reasoning(r, 0, NULL), "why not");
	assert_string_equal(sbx_reply_refusal(r, 0, NULL), "");
	assert_int_equal(sbx_reply_choices(r), 1);
	assert_string_equal(sbx_reply_text(r, 7, &n), "");
	assert_int_equal(n, 0);
	assert_string_equal(sbx_reply_finish(r, 0), "tool_calls");
	assert_string_equal(sbx_reply_finish(r, 1), "");
	assert_int_equal(sbx_reply_tool_calls(r), 2);
	assert_true(sbx_reply_tool_call(r, 0, &call));
	assert_string_equal(call.id, "c1");
	assert_string_equal(call.arguments, "{}");
	assert_true(sbx_reply_tool_call(r, 1, &call));
	assert_string_equal(call.name, "g");
	assert_string_equal(call.arguments, "");
	assert_false(sbx_reply_tool_call(r, 2, &call));
	assert_string_equal(sbx_reply_target(r), "b/m");
	assert_string_equal(sbx_reply_usage_raw(r), "{\"x\":1}");
	assert_true(sbx_reply_tokens(r).prompt == 11 && sbx_reply_tokens(r).completion == 22 && sbx_reply_tokens(r).total == -1);
	assert_true(sbx_reply_tokens(r).estimated && !sbx_reply_tokens(r).clamped);
	assert_true(sbx_reply_cost_nanousd(r) == 1234567 && sbx_reply_total_ms(r) == 90 && sbx_reply_first_content_ms(r) == 40);
	assert_int_equal(sbx_reply_attempts(r), 2);
	assert_true(sbx_reply_attempt(r, 0, &a));
	assert_string_equal(a.target, "a/m");
	assert_string_equal(a.outcome, "FAILED");
	assert_string_equal(a.message, "overloaded");
	assert_string_equal(a.connection, "");
	assert_true(a.status == 503 && a.first_content_ms == -1 && a.tokens.prompt == -1 && a.cost_nanousd == -1);
	assert_true(sbx_reply_attempt(r, 1, &a));
	assert_string_equal(a.connection, "reused");
	assert_true(a.first_content_ms == 40 && a.started_ms == 3);
	assert_false(sbx_reply_attempt(r, 2, &a));
	sbx_reply_free(r);
	sbx_reply_free(NULL);
}

static void *
script_fail(void *peer)
{
	struct peer *p = peer;
	uint64_t id = peer_expect(p, SBX_FRAME_SUBMIT)->id;
	struct sbx_buf b;
	struct sbx_packer k;
	SAY_TEXT(p, id, "what was given stands");
	sbx_buf_init(&b, 4096);
	sbx_frame_begin(&k, &b, SBX_FRAME_ERROR, id, 7);
	sbx_pack_str(&k, "code", SBX_SPAN("rate_limited"));
	sbx_pack_uint(&k, "status", 429);
	sbx_pack_str(&k, "message", SBX_SPAN("slow down"));
	sbx_pack_uint(&k, "retry_after_ms", 2500);
	sbx_pack_bool(&k, "retryable", true);
	sbx_pack_map(&k, "provider_error", 4);
	sbx_pack_str(&k, "provider", SBX_SPAN("openai"));
	sbx_pack_str(&k, "type", SBX_SPAN("tokens"));
	sbx_pack_uint(&k, "status", 429);
	sbx_pack_nil(&k, "param");
	sbx_pack_bin(&k, "data", SBX_SPAN("{\"error\":{}}"));
	MUST(sbx_frame_end(&k) == 0);
	peer_write(p, b.data, b.n);
	sbx_buf_fini(&b);
	return NULL;
}

static void *
script_data(void *peer)
{
	struct peer *p = peer;
	struct sbx_frame *f = peer_expect(p, SBX_FRAME_SUBMIT);
	uint64_t id = f->id, granted = 0;
	char part[32769];
	MUST(sbx_span_is(text_member(f, "reply"), "data"));
	memset(part, 'd', sizeof part - 1);
	part[sizeof part - 1] = 0;
	for (int i = 0; i < 40; i++) /* 1.25 MiB: only credit that is granted while it gathers makes it possible */
		say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_DATA), "d:data", part, END);
	SAY_DONE(p, id);
	while (granted < 40u * 32768) {
		f = peer_expect(p, SBX_FRAME_CREDIT);
		MUST(f->id == id && uint_member(f, "bytes") >= SBX_GRANT_BYTES);
		granted += uint_member(f, "bytes");
	}
	return NULL;
}

static void *
script_lost_and_back(void *peer)
{
	struct peer *p = peer;
	uint64_t id = peer_expect(p, SBX_FRAME_SUBMIT)->id;
	SAY_TEXT(p, id, "half of ");
	peer_close(p);
	greet(p);
	MUST(peer_expect(p, SBX_FRAME_SUBMIT)->id == id);
	SAY_TEXT(p, id, "whole");
	SAY_DONE(p, id);
	return NULL;
}

static void *
script_lost(void *peer)
{
	struct peer *p = peer;
	SAY_TEXT(p, peer_expect(p, SBX_FRAME_SUBMIT)->id, "half");
	peer_close(p);
	return NULL;
}

static void *
script_never_answer(void *peer)
{
	struct peer *p = peer;
	uint64_t id = peer_expect(p, SBX_FRAME_SUBMIT)->id;
	MUST(peer_expect(p, SBX_FRAME_CANCEL)->id == id);
	SAY_TEXT(p, id, "too late");
	say(p, SBX_FRAME_ERROR, id, "s:code", "cancelled", END);
	return NULL;
}

static void *
script_bad_member(void *peer)
{
	struct peer *p = peer;
	say(p, SBX_FRAME_DONE, peer_expect(p, SBX_FRAME_SUBMIT)->id, "u:target", U(3), END);
	return NULL;
}

static struct sbx_reply *
ask(struct sbx_client *c, struct peer *p, void *(*script)(void *), const struct sbx_request_options *o, int want)
{
	struct sbx_reply *r = NULL;
	agent = *p;
	run_agent(script);
	int rc = sbx_ask(c, o, &r);
	join_agent();
	*p = agent;
	if (rc != want)
		fail_msg("ask: %d, %s", rc, sbx_client_error(c));
	assert_int_equal(r != NULL, want == 0 || want == -SBX_EFAILED);
	return r;
}

static void
test_ask_ends(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	size_t n;
	(void)state;
	struct sbx_reply *r = ask(c, &p, script_fail, &o, -SBX_EFAILED);
	assert_string_equal(sbx_client_error(c), "rate_limited: slow down");
	assert_false(sbx_reply_ok(r));
	assert_int_equal(sbx_reply_code(r), SBX_CODE_RATE_LIMITED);
	assert_int_equal(sbx_reply_status(r), 429);
	assert_true(sbx_reply_retry_after_ms(r) == 2500 && sbx_reply_retryable(r));
	assert_string_equal(sbx_reply_provider_error(r, "provider"), "openai");
	assert_string_equal(sbx_reply_provider_error(r, "status"), "429");
	assert_string_equal(sbx_reply_provider_error(r, "param"), "");
	assert_string_equal(sbx_reply_provider_error(r, "colour"), "");
	assert_string_equal(sbx_reply_data(r, &n), "{\"error\":{}}");
	assert_int_equal(n, 12);
	assert_string_equal(sbx_reply_text(r, 0, NULL), "what was given stands");
	sbx_reply_free(r);

	o.data = true;
	r = ask(c, &p, script_data, &o, 0);
	assert_non_null(sbx_reply_data(r, &n));
	assert_int_equal(n, 40 * 32768);
	sbx_reply_free(r);
	o.data = false;

	o.idempotency_key = "once";
	r = ask(c, &p, script_lost_and_back, &o, 0);
	assert_string_equal(sbx_reply_text(r, 0, NULL), "whole");
	sbx_reply_free(r);
	o.idempotency_key = NULL;

	r = ask(c, &p, script_lost, &o, -SBX_EFAILED);
	assert_int_equal(sbx_reply_code(r), SBX_CODE_AGENT_LOST);
	assert_true(sbx_reply_sent(r));
	assert_string_equal(sbx_reply_text(r, 0, NULL), "half");
	sbx_reply_free(r);
	sbx_close(c);

	c = open_client(&p);
	r = ask(c, &p, script_bad_member, &o, -SBX_EFAILED);
	assert_int_equal(sbx_reply_code(r), SBX_CODE_AGENT_LOST);
	sbx_reply_free(r);
	sbx_close(c);
	peer_close(&p);

	c = open_client(&p);
	o.deadline_ms = 50;
	uint64_t before = sbx_now_ns();
	(void)ask(c, &p, script_never_answer, &o, -SBX_ETIME);
	uint64_t took_ms = (sbx_now_ns() - before) / 1000000;
	assert_true(took_ms >= 1050 && took_ms < 1050 + PATIENCE_MS);
	struct sbx_event ev;
	assert_int_equal(sbx_next(c, 0, &ev), -SBX_ENOENT);
	uint64_t id = submit(c); /* what came too late is dropped */
	SAY_TEXT(&p, id, "fresh");
	expect_text(c, id, "fresh");
	sbx_close(c);
	peer_close(&p);
}

/* ---- the agent itself ---- */

static void
test_stats(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_buf b;
	struct sbx_packer k;
	uint64_t id;
	int64_t number;
	const char *text, *name;
	(void)state;
	assert_int_equal(sbx_stats(c, &id), 0);
	struct sbx_frame *f = peer_expect(&p, SBX_FRAME_STATS);
	assert_true(f->id == id && f->map.n_items == 0);
	sbx_buf_init(&b, 4096);
	sbx_frame_begin(&k, &b, SBX_FRAME_STATS, id, 5);
	sbx_pack_uint(&k, "requests", 12);
	sbx_pack_map(&k, "loop", 2);
	sbx_pack_uint(&k, "turns", UINT64_MAX);
	sbx_pack_int(&k, "drift", -4);
	sbx_pack_map(&k, "target", 1);
	sbx_pack_map(&k, "openai/gpt", 2);
	sbx_pack_str(&k, "state", SBX_SPAN("up"));
	sbx_pack_bool(&k, "throttled", true);
	sbx_pack_array(&k, "list", 2);
	sbx_pack_str(&k, NULL, SBX_SPAN("a"));
	sbx_pack_uint(&k, NULL, 8);
	sbx_pack_nil(&k, "nothing");
	MUST(sbx_frame_end(&k) == 0);
	peer_write(&p, b.data, b.n);
	struct sbx_event ev = next_event(c);
	assert_true(ev.note == SBX_NOTE_STATS && ev.last && ev.id == id);
	assert_true(sbx_reply_ok(ev.reply));
	static const struct {
		const char *name, *text;
		int64_t number;
	} want[] = {
		{ "requests", NULL, 12 },
		{ "loop.turns", NULL, INT64_MAX },
		{ "loop.drift", NULL, -4 },
		{ "target.openai/gpt.state", "up", 0 },
		{ "target.openai/gpt.throttled", NULL, 1 },
		{ "list.0", "a", 0 },
		{ "list.1", NULL, 8 },
	};
	uint32_t n = sizeof want / sizeof want[0];
	for (uint32_t i = 0; i < n; i++) {
		assert_true(sbx_reply_field(ev.reply, i, &name, &text, &number));
		assert_string_equal(name, want[i].name);
		if (want[i].text) {
			assert_string_equal(text, want[i].text);
			assert_true(sbx_reply_string(ev.reply, name, &text));
			assert_false(sbx_reply_number(ev.reply, name, &number));
		} else {
			assert_null(text);
			assert_true(number == want[i].number);
			assert_true(sbx_reply_number(ev.reply, name, &number) && number == want[i].number);
		}
	}
	assert_false(sbx_reply_field(ev.reply, n, &name, &text, &number));
	assert_false(sbx_reply_number(ev.reply, "loop", &number));

	assert_int_equal(sbx_reload(c, &id), 0);
	assert_true(peer_expect(&p, SBX_FRAME_RELOAD)->id == id);
	say(&p, SBX_FRAME_RELOADED, id, "s:notes", "1 provider", END);
	ev = next_event(c);
	assert_true(ev.note == SBX_NOTE_STATS && ev.id == id && sbx_reply_string(ev.reply, "notes", &text));
	assert_string_equal(text, "1 provider");
	assert_int_equal(sbx_reload(c, &id), 0);
	say(&p, SBX_FRAME_ERROR, id, "s:code", "forbidden", "s:message", "the admin socket only", END);
	ev = next_event(c);
	assert_true(ev.note == SBX_NOTE_ERROR && ev.last && sbx_reply_code(ev.reply) == SBX_CODE_FORBIDDEN);
	assert_int_equal(sbx_reply_status(ev.reply), 403);
	sbx_buf_fini(&b);
	sbx_close(c);
	peer_close(&p);
}

static int
fresh(void **state)
{
	(void)state;
	stop_listening();
	listen_here();
	return 0;
}

int
main(void)
{
	(void)snprintf(dir, sizeof dir, "/tmp/sbx-client-XXXXXX");
	MUST(mkdtemp(dir));
	(void)snprintf(path, sizeof path, "%s/agent.sock", dir);
	(void)unsetenv("SIGNALBOX_SOCKET");
#define TEST(f) cmocka_unit_test_setup(f, fresh)
	const struct CMUnitTest tests[] = {
		TEST(test_version), TEST(test_open_failures), TEST(test_open_nobody), TEST(test_path_order),
		TEST(test_submit_frame), TEST(test_submit_refused), TEST(test_in_flight_limit), TEST(test_large_body),
		TEST(test_events), TEST(test_interleaving), TEST(test_byte_behind_string), TEST(test_credit), TEST(test_cancel),
		TEST(test_lost_after_sending), TEST(test_replaced_while_idle), TEST(test_farewell), TEST(test_lost_before_sending), TEST(test_lost_with_key),
		TEST(test_poison), TEST(test_nobody_comes_back), TEST(test_junk), TEST(test_fork), TEST(test_own_loop),
		TEST(test_ask), TEST(test_ask_ends), TEST(test_stats),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	char inner[128];
	stop_listening();
	(void)snprintf(inner, sizeof inner, "%s/run/signalbox", dir);
	(void)rmdir(inner);
	(void)snprintf(inner, sizeof inner, "%s/run", dir);
	(void)rmdir(inner);
	(void)rmdir(dir);
	return failed;
}
