/* SPDX-License-Identifier: Apache-2.0 */
/* raw.c -- see raw.h. */
#include "tests/e2e/raw.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define FDS_MAX 253 /* SCM_MAX_FD of the kernel */

void
raw_open(struct raw *r, struct world *w)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	memset(r, 0, sizeof *r);
	sbx_buf_init(&r->in, 256u << 20);
	sbx_buf_init(&r->out, 64u << 20);
	memcpy(to.sun_path, w->socket, strnlen(w->socket, sizeof to.sun_path - 1)); /* a shorter one than the field: see world_up() */
	r->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (r->fd < 0 || connect(r->fd, (struct sockaddr *)&to, sizeof to))
		fail_msg("%s: %s", w->socket, strerror(errno));
}

void
raw_up(struct raw *r, struct world *w)
{
	struct sbx_frame f;
	raw_open(r, w);
	raw_hello(r);
	raw_expect(r, SBX_FRAME_WELCOME, 0, 20000, &f);
}

void
raw_close(struct raw *r)
{
	if (r->fd >= 0)
		(void)close(r->fd);
	r->fd = -1;
	sbx_buf_fini(&r->in);
	sbx_buf_fini(&r->out);
}

bool
raw_send(struct raw *r, const void *bytes, size_t n)
{
	const uint8_t *at = bytes;
	while (n) {
		ssize_t did = send(r->fd, at, n, MSG_NOSIGNAL);
		if (did < 0 && errno == EINTR)
			continue;
		if (did <= 0)
			return false;
		at += did;
		n -= (size_t)did;
	}
	return true;
}

bool
raw_send_fds(struct raw *r, const void *bytes, size_t n, const int *fds, int n_fds)
{
	union {
		char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct iovec iov = { (void *)(uintptr_t)bytes, n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = CMSG_SPACE((size_t)n_fds * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN((size_t)n_fds * sizeof(int));
	memcpy(CMSG_DATA(c), fds, (size_t)n_fds * sizeof(int));
	return sendmsg(r->fd, &msg, MSG_NOSIGNAL) == (ssize_t)n;
}

/* One read into `in`. */
static enum raw_end
receive(struct raw *r, int timeout_ms)
{
	struct pollfd p = { r->fd, POLLIN, 0 };
	if (poll(&p, 1, timeout_ms) <= 0)
		return RAW_NOTHING;
	uint8_t *room = sbx_buf_reserve(&r->in, 65536);
	assert_non_null(room);
	ssize_t n = recv(r->fd, room, 65536, 0);
	if (n <= 0)
		return RAW_CLOSED;
	sbx_buf_commit(&r->in, (size_t)n);
	return RAW_FRAME;
}

static void
count_payload(struct raw *r, const struct sbx_frame *f)
{
	static const char *const keys[] = { "text", "arguments", "id", "name", "data" };
	struct sbx_value v;
	if (f->kind != SBX_FRAME_EVENT)
		return;
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
		if (sbx_map_get(&f->map, keys[i], &v))
			r->payload_bytes += v.bytes.n;
}

enum raw_end
raw_next(struct raw *r, int timeout_ms, struct sbx_frame *ret_frame)
{
	uint64_t until = now_ms() + (uint64_t)timeout_ms;
	char why[192];
	sbx_buf_consume(&r->in, r->taken);
	r->taken = 0;
	for (;;) {
		int64_t size = sbx_frame_size(r->in.data, r->in.n, SBX_FRAME_MAX_BYTES);
		if (size > 0) {
			if (sbx_frame_check(r->in.data + SBX_FRAME_HEAD_BYTES, (size_t)size - SBX_FRAME_HEAD_BYTES, ret_frame, why, sizeof why))
				fail_msg("the agent sent a bad frame: %s", why);
			r->taken = (size_t)size;
			count_payload(r, ret_frame);
			return RAW_FRAME;
		}
		assert_true(size == 0);
		uint64_t now = now_ms();
		enum raw_end end = receive(r, now < until ? (int)(until - now) : 0);
		if (end != RAW_FRAME)
			return end;
	}
}

void
raw_expect(struct raw *r, enum sbx_frame_kind kind, uint64_t id, int timeout_ms, struct sbx_frame *ret_frame)
{
	uint64_t until = now_ms() + (uint64_t)timeout_ms;
	for (;;) {
		uint64_t now = now_ms();
		enum raw_end end = raw_next(r, now < until ? (int)(until - now) : 0, ret_frame);
		if (end != RAW_FRAME)
			fail_msg("no frame of kind %d for request %llu: %s", (int)kind, (unsigned long long)id,
			         end == RAW_CLOSED ? "the agent closed" : "nothing came in time");
		if (ret_frame->kind == kind && ret_frame->id == id)
			return;
		if (ret_frame->kind == SBX_FRAME_ERROR && ret_frame->id == id) {
			struct sbx_value v = { 0 };
			(void)sbx_map_get(&ret_frame->map, "message", &v);
			fail_msg("request %llu ended with an error: %.*s", (unsigned long long)id, (int)v.bytes.n, v.bytes.at);
		}
	}
}

const char *
raw_expect_error(struct raw *r, uint64_t id, const char *code, int timeout_ms)
{
	static char message[2048];
	struct sbx_frame f;
	struct sbx_value v, word;
	uint64_t until = now_ms() + (uint64_t)timeout_ms;
	for (;;) {
		uint64_t now = now_ms();
		enum raw_end end = raw_next(r, now < until ? (int)(until - now) : 0, &f);
		if (end != RAW_FRAME)
			fail_msg("no error \"%s\" for request %llu: %s", code, (unsigned long long)id, end == RAW_CLOSED ? "the agent closed" : "nothing came in time");
		if (f.id != id || f.kind == SBX_FRAME_EVENT || f.kind == SBX_FRAME_ACCEPTED)
			continue;
		if (f.kind != SBX_FRAME_ERROR)
			fail_msg("request %llu ended with kind %u, not with the error \"%s\"", (unsigned long long)id, f.kind, code);
		assert_true(sbx_map_get(&f.map, "code", &word) && sbx_map_get(&f.map, "message", &v));
		(void)snprintf(message, sizeof message, "%.*s", (int)v.bytes.n, v.bytes.at);
		if (!sbx_span_is(word.bytes, code))
			fail_msg("request %llu: the error is \"%.*s\" (%s), not \"%s\"", (unsigned long long)id, (int)word.bytes.n, word.bytes.at, message, code);
		return message;
	}
}

void
raw_expect_close(struct raw *r, int timeout_ms)
{
	uint64_t until = now_ms() + (uint64_t)timeout_ms;
	struct sbx_frame f;
	for (;;) {
		uint64_t now = now_ms();
		enum raw_end end = raw_next(r, now < until ? (int)(until - now) : 0, &f);
		if (end == RAW_CLOSED)
			return;
		if (end == RAW_NOTHING)
			fail_msg("the agent did not close within %d ms", timeout_ms);
	}
}

/* ---- frames ---- */

static void
send_built(struct raw *r, struct sbx_packer *p)
{
	assert_int_equal(sbx_frame_end(p), 0);
	(void)raw_send(r, r->out.data, r->out.n);
	sbx_buf_clear(&r->out);
}

void
raw_hello(struct raw *r)
{
	struct sbx_packer p;
	sbx_frame_begin(&p, &r->out, SBX_FRAME_HELLO, 0, 2);
	sbx_pack_uint(&p, "version", SBX_WIRE_VERSION);
	sbx_pack_str(&p, "client", SBX_SPAN("raw"));
	send_built(r, &p);
}

void
raw_submit(struct raw *r, uint64_t id, const char *model, bool stream, uint32_t deadline_ms)
{
	struct sbx_packer p;
	sbx_frame_begin(&p, &r->out, SBX_FRAME_SUBMIT, id, 4);
	sbx_pack_str(&p, "model", sbx_span_of(model));
	sbx_pack_bool(&p, "stream", stream);
	sbx_pack_uint(&p, "deadline_ms", deadline_ms);
	sbx_pack_bin(&p, "body", SBX_SPAN(BODY));
	send_built(r, &p);
}

void
raw_credit(struct raw *r, uint64_t id, uint64_t bytes)
{
	struct sbx_packer p;
	sbx_frame_begin(&p, &r->out, SBX_FRAME_CREDIT, id, 1);
	sbx_pack_uint(&p, "bytes", bytes);
	send_built(r, &p);
}

void
raw_cancel(struct raw *r, uint64_t id)
{
	struct sbx_packer p;
	sbx_frame_begin(&p, &r->out, SBX_FRAME_CANCEL, id, 0);
	send_built(r, &p);
}
