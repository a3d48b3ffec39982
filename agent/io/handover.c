/* SPDX-License-Identifier: Apache-2.0 */
/* handover.c -- see handover.h. */
#include "agent/io/handover.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agent/io/ending.h"
#include "agent/io/session.h"
#include "agent/log.h"
#include "agent/sdnotify.h"
#include "client/wire.h"

#define TAKEOVER_ID 1
#define ALONE_FOR_NS 1000000000ull    /* before the next handover: the predecessor's store is taken over within a quarter of it */
#define BUSY_PAUSE_MS 100
#define BUSY_MAX_NS 60000000000ull    /* twice the time that an agent usually has to end */
#define DESCRIPTORS_MAX 4             /* two sockets, two locks */
#define ANSWER_MAX_BYTES (64u << 10)  /* of one frame of the running agent: a few paths, an error */

/* ==== the running agent ==== */

static void
refuse(struct sbx_session *session, uint64_t id, enum sbx_code code, const char *why)
{
	struct sbx_agent *agent = sbx_session_agent(session);
	struct sbx_refusal r = { .code = code, .retry_after_ms = -1 };
	(void)snprintf(r.why, sizeof r.why, "%s", why);
	sbx_ending_refusal(agent, id, false, &r);
	sbx_session_send(session);
	sbx_log(code == SBX_CODE_BUSY ? SBX_LOG_DEBUG : SBX_LOG_WARNING, "handover_refused", SBX_INT("pid", sbx_session_pid(session)), SBX_STR("why", why));
}

static void
pack_text(struct sbx_packer *p, const char *key, const char *text)
{
	if (text && *text)
		sbx_pack_str(p, key, sbx_span_of(text));
	else
		sbx_pack_nil(p, key);
}

static int
give(struct sbx_session *session, uint64_t id, const char *what, int fd, const char *path, uint32_t left)
{
	struct sbx_packer p;
	sbx_frame_begin(&p, &sbx_session_agent(session)->frame, SBX_FRAME_INHERIT, id, left ? 3 : 5);
	sbx_pack_str(&p, "what", sbx_span_of(what));
	pack_text(&p, "path", path);
	sbx_pack_uint(&p, "left", left);
	if (!left) {
		pack_text(&p, "notify_socket", getenv("NOTIFY_SOCKET"));
		sbx_pack_uint(&p, "watchdog_us", sbx_sd_watchdog_ns() / 1000);
	}
	return sbx_frame_end(&p) ? -SBX_ENOMEM : sbx_session_send_fd(session, fd);
}

void
sbx_handover_on_takeover(struct sbx_session *session, uint64_t id)
{
	struct sbx_agent *agent = sbx_session_agent(session);
	const struct sbx_listen_socket *client = agent->client_socket, *admin = agent->admin_socket;
	const struct {
		const char *what, *path;
		int fd;
	} row[DESCRIPTORS_MAX] = {
		{ "client", client->path, client->fd }, { "admin", admin->path, admin->fd },
		{ "client.lock", NULL, client->lock_fd }, { "admin.lock", NULL, admin->lock_fd },
	};
	uint32_t left = 0;
	if (agent->draining) {
		refuse(session, id, SBX_CODE_DRAINING, "the agent is stopping already");
		return;
	}
	/* One generation after the other: there are never more than three, and each finds its predecessor's store let go. */
	if (agent->heir || agent->alone_ns == UINT64_MAX || sbx_loop_now_ns(agent->loop) < agent->alone_ns + (agent->predecessor ? ALONE_FOR_NS : 0)) {
		refuse(session, id, SBX_CODE_BUSY, agent->heir ? "another agent is taking over at this moment" : "the agent that it replaced has not ended yet");
		return;
	}
	for (size_t i = 0; i < DESCRIPTORS_MAX; i++)
		left += row[i].fd >= 0;
	for (size_t i = 0; i < DESCRIPTORS_MAX; i++)
		if (row[i].fd >= 0 && give(session, id, row[i].what, row[i].fd, row[i].path, --left)) {
			refuse(session, id, SBX_CODE_INTERNAL, "the sockets cannot be passed on: no memory or descriptors");
			return;
		}
	agent->heir = session;
	sbx_log(SBX_LOG_NOTICE, "handing_over", SBX_INT("to", sbx_session_pid(session)));
}

void
sbx_handover_on_serving(struct sbx_session *session, uint64_t id)
{
	struct sbx_agent *agent = sbx_session_agent(session);
	if (agent->heir != session)
		refuse(session, id, SBX_CODE_INVALID_REQUEST, "SERVING without TAKEOVER");
	else if (!agent->draining) /* else it was told already */
		agent->leave(agent);
}

void
sbx_handover_forget(struct sbx_agent *agent, const struct sbx_session *session)
{
	if (agent->heir != session)
		return;
	agent->heir = NULL;
	if (!agent->draining)
		sbx_log(SBX_LOG_WARNING, "handover_failed", SBX_INT("to", sbx_session_pid(session)), SBX_STR("says", "it went away before it served; this agent goes on"));
}

/* ==== the one that takes over ==== */

static uint64_t
clock_ns(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail */
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int __attribute__((format(printf, 4, 5)))
fail(const struct sbx_inheritance *in, char *why, size_t why_bytes, const char *fmt, ...)
{
	char what[384];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	(void)snprintf(why, why_bytes, "the running agent (pid %ld%s%s) %s; stop it, and start without --replace", (long)in->pid, *in->agent ? ", " : "", in->agent, what);
	return -SBX_EAGENT;
}

enum heard { HEARD_FRAME, HEARD_END, HEARD_NOTHING };

/* n bytes, and with them at most one descriptor. */
static enum heard
read_bytes(int fd, uint8_t *to, size_t n, uint64_t until_ns, int *ret_fd)
{
	for (size_t have = 0; have < n;) {
		union {
			struct cmsghdr head;
			char bytes[CMSG_SPACE(sizeof(int))];
		} control;
		struct iovec iov = { to + have, n - have };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CMSG_LEN(sizeof(int)) };
		const ssize_t got = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		const struct cmsghdr *h = got > 0 ? CMSG_FIRSTHDR(&m) : NULL;
		if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int))) {
			if (*ret_fd >= 0)
				(void)close(*ret_fd); /* a second one with the same frame: nonsense */
			memcpy(ret_fd, CMSG_DATA(h), sizeof *ret_fd);
		}
		if (got > 0) {
			have += (size_t)got;
		} else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
			return HEARD_END;
		} else {
			const uint64_t now_ns = clock_ns();
			struct pollfd p = { .fd = fd, .events = POLLIN };
			if (now_ns >= until_ns)
				return HEARD_NOTHING;
			(void)poll(&p, 1, (int)((until_ns - now_ns) / 1000000) + 1); /* whatever it says, the next look tells */
		}
	}
	return HEARD_FRAME;
}

/* One frame, whose bytes are in `buf` until the next call. The head is read alone, so that a descriptor is of this frame. */
static enum heard
read_frame(const struct sbx_inheritance *in, struct sbx_buf *buf, uint64_t until_ns, struct sbx_frame *ret_frame, int *ret_fd)
{
	uint8_t head[SBX_FRAME_HEAD_BYTES];
	char why[128];
	enum heard heard = read_bytes(in->fd, head, sizeof head, until_ns, ret_fd);
	if (heard != HEARD_FRAME)
		return heard;
	const size_t n = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
	sbx_buf_clear(buf);
	uint8_t *room = n > 0 && n <= ANSWER_MAX_BYTES ? sbx_buf_reserve(buf, n) : NULL;
	if (!room)
		return HEARD_END; /* whatever this is, it is no agent */
	heard = read_bytes(in->fd, room, n, until_ns, ret_fd);
	return heard == HEARD_FRAME && sbx_frame_check(room, n, ret_frame, why, sizeof why) ? HEARD_END : heard;
}

static void
drop(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

/* The next answer. *ret_fd is -1 or the caller's. */
static enum heard
hear(const struct sbx_inheritance *in, struct sbx_buf *buf, struct sbx_frame *ret_frame, int *ret_fd)
{
	const uint64_t until_ns = clock_ns() + SBX_HANDOVER_ANSWER_NS;
	enum heard heard;
	*ret_fd = -1;
	while ((heard = read_frame(in, buf, until_ns, ret_frame, ret_fd)) == HEARD_FRAME && ret_frame->kind == SBX_FRAME_BOARD)
		drop(ret_fd); /* it was reloaded at this very moment */
	return heard;
}

static int
say(const struct sbx_inheritance *in, enum sbx_frame_kind kind)
{
	struct sbx_packer p;
	struct sbx_buf out;
	sbx_buf_init(&out, 256);
	const bool hello = kind == SBX_FRAME_HELLO;
	sbx_frame_begin(&p, &out, kind, hello ? 0 : TAKEOVER_ID, hello ? 2 : 0);
	if (hello) {
		sbx_pack_uint(&p, "version", SBX_WIRE_VERSION);
		sbx_pack_str(&p, "client", SBX_SPAN("signalboxd --replace"));
	}
	int rc = sbx_frame_end(&p);
	if (rc == 0 && send(in->fd, out.data, out.n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)out.n)
		rc = -SBX_EAGENT; /* what it said before it hung up is read next */
	sbx_buf_fini(&out);
	return rc;
}

static void
copy_text(const struct sbx_frame *f, const char *key, char *to, size_t bytes)
{
	struct sbx_value v;
	if (sbx_map_get(&f->map, key, &v) && v.type == SBX_STR)
		(void)snprintf(to, bytes, "%.*s", (int)(v.bytes.n < bytes ? v.bytes.n : bytes - 1), v.bytes.at);
}

static uint64_t
number(const struct sbx_frame *f, const char *key)
{
	struct sbx_value v;
	return sbx_map_get(&f->map, key, &v) && v.type == SBX_UINT ? v.u : 0;
}

static int
fail_by(const struct sbx_inheritance *in, enum heard heard, const struct sbx_frame *f, char *why, size_t why_bytes)
{
	char code[32] = "", says[256] = "";
	if (heard == HEARD_NOTHING)
		return fail(in, why, why_bytes, "does not answer");
	if (heard == HEARD_END)
		return fail(in, why, why_bytes, "hung up");
	if (f->kind != SBX_FRAME_ERROR)
		return fail(in, why, why_bytes, "answers with a frame of kind %u", f->kind);
	copy_text(f, "code", code, sizeof code);
	copy_text(f, "message", says, sizeof says);
	if (strcmp(code, sbx_code_word(SBX_CODE_BUSY)) == 0) {
		(void)snprintf(why, why_bytes, "the running agent (pid %ld) cannot be replaced yet: %s", (long)in->pid, says);
		return -SBX_EBUSY;
	}
	if (f->id == 0 && strcmp(code, sbx_code_word(SBX_CODE_INVALID_REQUEST)) == 0)
		return fail(in, why, why_bytes, "does not know how to hand over (%s)", says);
	return fail(in, why, why_bytes, "refuses: %s", says);
}

static int
connect_to(struct sbx_inheritance *in, const char *path, char *why, size_t why_bytes)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct ucred cred;
	socklen_t len = sizeof cred;
	(void)snprintf(at.sun_path, sizeof at.sun_path, "%s", path); /* its length was checked with the configuration */
	in->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (in->fd < 0 || connect(in->fd, (struct sockaddr *)&at, sizeof at)) {
		const int error = errno;
		(void)snprintf(why, why_bytes, "cannot connect to %s: %s", path, strerror(error));
		drop(&in->fd);
		return error == ENOENT || error == ECONNREFUSED ? -SBX_ENOENT : -SBX_EAGENT;
	}
	if (getsockopt(in->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0)
		in->pid = cred.pid; /* who made the socket; WELCOME says who holds it now */
	return 0;
}

/* One descriptor: into its place, or closed. False: that is not what was said to be given. */
static bool
take(struct sbx_inheritance *in, const struct sbx_frame *f, int fd)
{
	char what[16] = "";
	copy_text(f, "what", what, sizeof what);
	const bool lock = strstr(what, ".lock") != NULL, admin = strncmp(what, "admin", 5) == 0;
	struct sbx_listen_socket *l = admin ? &in->admin : &in->client;
	int *place = lock ? &l->lock_fd : &l->fd;
	if (fd < 0)
		return false;
	if (*place >= 0 || (!admin && strncmp(what, "client", 6) != 0) || (!lock && !sbx_sd_is_unix_listener(fd))) {
		(void)close(fd);
		return false;
	}
	*place = fd;
	if (!lock)
		copy_text(f, "path", admin ? in->admin_path : in->client_path, sizeof in->client_path);
	return true;
}

static int
inherit(struct sbx_inheritance *in, struct sbx_buf *buf, char *why, size_t why_bytes)
{
	struct sbx_frame f;
	uint64_t left = DESCRIPTORS_MAX;
	for (int i = 0; i < DESCRIPTORS_MAX && left; i++) {
		int fd;
		const enum heard heard = hear(in, buf, &f, &fd);
		if (heard != HEARD_FRAME || f.kind != SBX_FRAME_INHERIT) {
			drop(&fd);
			return fail_by(in, heard, &f, why, why_bytes);
		}
		if (!take(in, &f, fd))
			return fail(in, why, why_bytes, "gave a descriptor that is none of its sockets");
		left = number(&f, "left");
	}
	if (left || in->client.fd < 0 || in->admin.fd < 0)
		return fail(in, why, why_bytes, "did not give both of its sockets");
	copy_text(&f, "notify_socket", in->notify_socket, sizeof in->notify_socket);
	in->watchdog_us = number(&f, "watchdog_us");
	return 0;
}

static int
ask_once(const char *admin_path, struct sbx_inheritance *ret, char *why, size_t why_bytes)
{
	struct sbx_inheritance *in = ret;
	struct sbx_frame f;
	struct sbx_buf buf;
	int board_fd;

	*in = (struct sbx_inheritance){ .fd = -1, .client = { -1, -1, NULL }, .admin = { -1, -1, NULL } };
	int rc = connect_to(in, admin_path, why, why_bytes);
	if (rc)
		return rc;
	sbx_buf_init(&buf, ANSWER_MAX_BYTES);
	(void)say(in, SBX_FRAME_HELLO); /* if it could not be said, the answer tells */
	const enum heard heard = hear(in, &buf, &f, &board_fd);
	if (heard != HEARD_FRAME || f.kind != SBX_FRAME_WELCOME) {
		rc = fail_by(in, heard, &f, why, why_bytes);
		goto out;
	}
	copy_text(&f, "agent", in->agent, sizeof in->agent);
	in->pid = (pid_t)number(&f, "pid");
	if (board_fd >= 0)
		(void)sbx_board_attach(board_fd, &in->board, NULL, 0); /* without it health is learned from the snapshot, or anew */
	(void)say(in, SBX_FRAME_TAKEOVER);
	rc = inherit(in, &buf, why, why_bytes);
out:
	drop(&board_fd);
	sbx_buf_fini(&buf);
	return rc;
}

int
sbx_handover_ask(const char *admin_path, struct sbx_inheritance *ret, char *why, size_t why_bytes)
{
	const uint64_t until_ns = clock_ns() + BUSY_MAX_NS;
	int rc;
	for (bool told = false; (rc = ask_once(admin_path, ret, why, why_bytes)) == -SBX_EBUSY && clock_ns() < until_ns; told = true) {
		if (!told)
			sbx_log(SBX_LOG_NOTICE, "waiting_to_replace", SBX_STR("why", why));
		sbx_handover_end(ret);
		(void)poll(NULL, 0, BUSY_PAUSE_MS);
	}
	return rc == -SBX_EBUSY ? -SBX_EAGENT : rc;
}

int
sbx_handover_serve(struct sbx_inheritance *in, struct sbx_listen_socket *client, struct sbx_listen_socket *admin, char *why, size_t why_bytes)
{
	struct sbx_frame f;
	struct sbx_buf buf;
	char code[32] = "";
	int rc = 0, fd;

	sbx_buf_init(&buf, ANSWER_MAX_BYTES);
	(void)say(in, SBX_FRAME_SERVING);
	const enum heard heard = hear(in, &buf, &f, &fd);
	if (heard == HEARD_FRAME)
		copy_text(&f, "code", code, sizeof code);
	if (heard == HEARD_FRAME && (f.kind != SBX_FRAME_ERROR || f.id != 0 || strcmp(code, sbx_code_word(SBX_CODE_DRAINING)) != 0)) {
		rc = fail_by(in, heard, &f, why, why_bytes);
		goto out;
	}
	if (heard != HEARD_FRAME)
		sbx_log(SBX_LOG_WARNING, "handover", SBX_INT("from", in->pid), SBX_STR("says", heard == HEARD_END ? "it ended without a word; this agent serves" : "it does not answer any more; this agent serves"));
	if ((*in->client_path && !(client->path = strdup(in->client_path))) || (*in->admin_path && !(admin->path = strdup(in->admin_path))))
		sbx_log(SBX_LOG_WARNING, "handover", SBX_STR("says", "out of memory: the sockets' files will stay at the end"));
out:
	drop(&fd);
	sbx_buf_fini(&buf);
	return rc;
}

void
sbx_handover_end(struct sbx_inheritance *in)
{
	sbx_listen_close(&in->client);
	sbx_listen_close(&in->admin);
	sbx_board_close(in->board);
	in->board = NULL;
	drop(&in->fd);
}
