/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link.c -- the connection of a handle: where the agent is, the greeting, bytes in and out, loss and return. See client.h.
 *
 * Nothing here blocks but sbx_link_wait(). connect() on a Unix socket is immediate: it succeeds, fails, or says EAGAIN when the
 * agent's backlog is full. One descriptor at a time is accepted along with bytes, that of a board; the kernel discards the others.
 */
#include "client/client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKOFF_FIRST_MS 10
#define BACKOFF_MAX_MS 1000

static bool
usable(const char *text)
{
	return text && *text;
}

int
sbx_link_find(struct sbx_client *c, const char *socket)
{
	static const char system_path[] = "/run/signalbox/agent.sock";
	char runtime_path[sizeof c->address.sun_path];
	const char *path = socket ? socket : secure_getenv("SIGNALBOX_SOCKET");
	const char *runtime_dir = secure_getenv("XDG_RUNTIME_DIR");
	if (!usable(path) && !socket && usable(runtime_dir)) {
		int n = snprintf(runtime_path, sizeof runtime_path, "%s/signalbox/agent.sock", runtime_dir);
		if (n > 0 && (size_t)n < sizeof runtime_path && access(runtime_path, F_OK) == 0)
			path = runtime_path;
	}
	if (!usable(path) && !socket)
		path = system_path;
	size_t n = strlen(path);
	if (n == 0 || n >= sizeof c->address.sun_path)
		return sbx_fail(c, -SBX_EINVAL, "the path of a socket has 1 to %zu bytes, this one %zu", sizeof c->address.sun_path - 1,
		                n);
	c->address.sun_family = AF_UNIX;
	memcpy(c->address.sun_path, path, n + 1);
	return 0;
}

/* HELLO fits in any fresh socket's buffer, so it goes in one piece or not at all. One who hangs up at once may have said why: that is
 * read, as his answer. */
static int
say_hello(struct sbx_client *c)
{
	struct sbx_buf hello;
	struct sbx_packer p;
	sbx_buf_init(&hello, 256);
	sbx_frame_begin(&p, &hello, SBX_FRAME_HELLO, 0, 2);
	sbx_pack_uint(&p, "version", SBX_WIRE_VERSION);
	sbx_pack_str(&p, "client", sbx_span_of(c->name));
	int rc = sbx_frame_end(&p);
	const ssize_t sent = rc ? 0 : send(c->fd, hello.data, hello.n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (rc)
		rc = sbx_fail(c, rc, "out of memory for a connection");
	else if (sent != (ssize_t)hello.n && (sent >= 0 || (errno != EPIPE && errno != ECONNRESET)))
		rc = sbx_fail(c, -SBX_EAGENT, "the agent at %s takes no greeting: %m", c->address.sun_path);
	sbx_buf_fini(&hello);
	return rc;
}

int
sbx_link_connect(struct sbx_client *c)
{
	const char *path = c->address.sun_path;
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		return sbx_fail(c, -SBX_EBUSY, "no socket to reach the agent with: %m");
	if (connect(c->fd, (const struct sockaddr *)&c->address, sizeof c->address) < 0) {
		int why = errno;
		sbx_link_close(c);
		errno = why;
		switch (why) {
		case EACCES:
		case EPERM:
			return sbx_fail(c, -SBX_EACCESS, "the agent's socket %s refuses this user; join its group", path);
		case EAGAIN:
			return sbx_fail(c, -SBX_EBUSY, "the agent at %s has too many connections waiting", path);
		case ENOENT:
			return sbx_fail(c, -SBX_EAGENT, "no agent: there is no socket %s; is signalboxd running?", path);
		case ECONNREFUSED:
			return sbx_fail(c, -SBX_EAGENT, "no agent: nobody listens on %s; start signalboxd", path);
		default:
			return sbx_fail(c, -SBX_EAGENT, "no agent: cannot connect to %s: %m", path);
		}
	}
	int rc = say_hello(c);
	if (rc) {
		sbx_link_close(c);
		return rc;
	}
	c->link = SBX_LINK_GREETING;
	c->retrying = false;
	c->leaving = false;
	c->farewell[0] = 0;
	c->drained = true; /* it cannot have answered yet */
	c->greet_by_ns = sbx_now_ns() + c->timeout_ms * 1000000ull;
	return 0;
}

void
sbx_link_close(struct sbx_client *c)
{
	if (c->fd >= 0)
		(void)close(c->fd); /* nothing to be done about a failing close of a socket */
	c->fd = -1;
	c->link = SBX_LINK_DOWN;
}

/* ---- loss ---- */

/* Puts what is left of its deadline into a SUBMIT: deadline_ms is its last member, in four bytes. False: nothing is left. */
static bool
shorten_deadline(const struct sbx_inflight *req, uint8_t *frame, size_t bytes)
{
	if (req->deadline_ns == 0)
		return true;
	uint64_t now_ns = sbx_now_ns();
	uint64_t left_ms = req->deadline_ns > now_ns ? (req->deadline_ns - now_ns) / 1000000 : 0;
	for (size_t i = 0; i < SBX_DEADLINE_TAIL_BYTES; i++)
		frame[bytes - 1 - i] = (uint8_t)(left_ms >> (8 * i));
	return left_ms > 0;
}

static bool
may_go_again(const struct sbx_inflight *req)
{
	return !req->cancelled && req->resubmits < SBX_RESUBMIT_MAX;
}

/* Leaves in `out` the frames that start a request, and marks those requests. Grants and cancels died with the connection; a
 * cancelled request is not submitted again. */
static void
keep_unsent(struct sbx_client *c)
{
	struct sbx_buf old = c->out;
	char why[128];
	sbx_buf_init(&c->out, old.max_bytes);
	c->out_sent = 0;
	for (int64_t size; (size = sbx_frame_size(old.data, old.n, SBX_FRAME_MAX_BYTES)) > 0; sbx_buf_consume(&old, (size_t)size)) {
		struct sbx_frame f;
		if (sbx_frame_check(old.data + SBX_FRAME_HEAD_BYTES, (size_t)size - SBX_FRAME_HEAD_BYTES, &f, why, sizeof why) < 0)
			continue; /* no memory: it counts as sent */
		if (f.kind == SBX_FRAME_CANCEL || f.kind == SBX_FRAME_CREDIT)
			continue;
		struct sbx_inflight *req = sbx_inflight_find(c, f.id);
		if (!req || req->ended)
			continue;
		req->unsent = true;
		req->kept = may_go_again(req) && shorten_deadline(req, old.data, (size_t)size) &&
		            sbx_buf_append(&c->out, old.data, (size_t)size) == 0;
	}
	sbx_buf_fini(&old);
}

static bool
submit_again(struct sbx_client *c, struct sbx_inflight *req, bool untouched)
{
	return req->again && (untouched || req->keyed) && may_go_again(req) && (!req->began || req->restart) &&
	       shorten_deadline(req, req->again, req->again_bytes) && sbx_buf_append(&c->out, req->again, req->again_bytes) == 0;
}

static void
end_as_lost(struct sbx_client *c, struct sbx_inflight *req)
{
	req->ended = true;
	if (!req->gather)
		sbx_due_add(c, req, SBX_DUE_LOST);
	else if (req->gather_rc == 0)
		req->gather_rc = sbx_reply_set_lost(req->gather, req->maybe_sent, c->lost_why);
}

/* The link is gone: what becomes of the requests that ran on it. */
static void
settle(struct sbx_client *c, bool was_up)
{
	for (uint32_t i = 0; i < c->n_slots; i++) {
		struct sbx_inflight *req = c->slots[i];
		if (!req || req->ended)
			continue;
		const bool untouched = req->unsent || req->postponed || (c->leaving && req->again && !req->taken);
		if (!untouched)
			req->maybe_sent = true;
		if (req->kept || (!req->unsent && submit_again(c, req, untouched))) {
			req->resubmits += was_up;
			req->consumed_bytes = 0;
			if (req->began && req->gather)
				sbx_reply_drop(req->gather);
			else if (req->began)
				sbx_due_add(c, req, SBX_DUE_RESET);
			req->began = false;
		} else {
			end_as_lost(c, req);
		}
		req->unsent = req->kept = req->postponed = req->taken = false;
	}
}

static void
schedule_retry(struct sbx_client *c, uint64_t now_ns)
{
	c->retry_ns = now_ns + c->backoff_ms * 1000000ull;
	c->backoff_ms = c->backoff_ms ? c->backoff_ms * 2 : BACKOFF_FIRST_MS;
	if (c->backoff_ms > BACKOFF_MAX_MS)
		c->backoff_ms = BACKOFF_MAX_MS;
}

void
sbx_link_lost(struct sbx_client *c, int rc, const char *why)
{
	char bad_frame[128];
	bool was_up = c->link == SBX_LINK_UP;
	sbx_link_close(c);
	if (was_up && rc != -SBX_EPROTO)
		(void)sbx_sort_frames(c, bad_frame, sizeof bad_frame); /* what came whole before the end still counts */
	sbx_buf_clear(&c->in);
	c->later_stale_bytes = c->later.n;
	c->lost_rc = rc;
	(void)snprintf(c->lost_why, sizeof c->lost_why, "%s", why);
	keep_unsent(c);
	settle(c, was_up);
	if (c->out.n == 0)
		return;
	uint64_t now_ns = sbx_now_ns();
	c->retrying = true;
	if (c->give_up_ns == 0) {
		c->give_up_ns = now_ns + c->timeout_ms * 1000000ull;
		c->backoff_ms = 0; /* the first try is at once */
	}
	if (!was_up && (rc == -SBX_EVERSION || rc == -SBX_EACCESS || rc == -SBX_EPROTO))
		c->give_up_ns = now_ns; /* waiting does not help */
	schedule_retry(c, now_ns);
}

/* Nobody came back: what waited to be submitted ends. */
static void
give_up(struct sbx_client *c)
{
	c->retrying = false;
	c->give_up_ns = 0;
	for (uint32_t i = 0; i < c->n_slots; i++) {
		if (c->slots[i] && !c->slots[i]->ended)
			end_as_lost(c, c->slots[i]);
	}
	sbx_buf_fini(&c->out);
	c->out_sent = 0;
}

/* ---- greeting ---- */

static void
on_refused(struct sbx_client *c, const struct sbx_frame *frame)
{
	struct sbx_value word = { 0 }, message = { 0 };
	char why[sizeof c->lost_why];
	(void)sbx_map_get(&frame->map, "code", &word);
	(void)sbx_map_get(&frame->map, "message", &message);
	enum sbx_code code = word.type == SBX_STR ? sbx_code_find(word.bytes) : SBX_CODE_NONE;
	int n = message.type == SBX_STR && message.bytes.n < sizeof why ? (int)message.bytes.n : 0;
	(void)snprintf(why, sizeof why, "the agent refuses this connection: %.*s", n, n ? message.bytes.at : "");
	c->leaving = code == SBX_CODE_DRAINING;
	sbx_link_lost(c,
	              code == SBX_CODE_UNSUPPORTED ? -SBX_EVERSION
	              : code == SBX_CODE_FORBIDDEN ? -SBX_EACCESS
	              : code == SBX_CODE_BUSY      ? -SBX_EBUSY
	              : code == SBX_CODE_DRAINING  ? -SBX_EAGENT
	                                           : -SBX_EPROTO,
	              why);
}

static bool
says_draining(const struct sbx_frame *frame)
{
	struct sbx_value word;
	return frame->kind == SBX_FRAME_ERROR && sbx_map_get(&frame->map, "code", &word) && word.type == SBX_STR &&
	       sbx_code_find(word.bytes) == SBX_CODE_DRAINING;
}

static void
greet(struct sbx_client *c)
{
	char why[160];
	struct sbx_frame frame;
	struct sbx_value version;
	int64_t size = sbx_frame_size(c->in.data, c->in.n, SBX_FRAME_MAX_BYTES);
	if (size == 0)
		return;
	if (size < 0) {
		sbx_link_lost(c, -SBX_EPROTO, "the agent sent bytes that are no frame; is it signalboxd?");
		return;
	}
	int rc = sbx_frame_check(c->in.data + SBX_FRAME_HEAD_BYTES, (size_t)size - SBX_FRAME_HEAD_BYTES, &frame, why, sizeof why);
	if (rc) {
		sbx_link_lost(c, rc, why);
	} else if (frame.kind == SBX_FRAME_ERROR && frame.id == 0) {
		on_refused(c, &frame);
	} else if (frame.kind != SBX_FRAME_WELCOME || frame.id != 0 || !sbx_map_get(&frame.map, "version", &version) ||
	           version.type != SBX_UINT) {
		sbx_link_lost(c, -SBX_EPROTO, "the agent's first frame is not WELCOME");
	} else if (version.u != SBX_WIRE_VERSION) {
		(void)snprintf(why, sizeof why, "the agent speaks version %llu of the protocol, this library version %d; update the older",
		               (unsigned long long)version.u, SBX_WIRE_VERSION);
		sbx_link_lost(c, -SBX_EVERSION, why);
	} else {
		sbx_buf_consume(&c->in, (size_t)size);
		c->link = SBX_LINK_UP;
		c->give_up_ns = 0;
		sbx_link_flush(c);
	}
}

/* After the greeting such a frame says why the agent is about to close. */
void
sbx_link_on_frame(struct sbx_client *c, const struct sbx_frame *frame)
{
	struct sbx_value message;
	if (frame->kind == SBX_FRAME_ERROR && sbx_map_get(&frame->map, "message", &message) && message.type == SBX_STR)
		(void)snprintf(c->farewell, sizeof c->farewell, "the agent closed the connection: %.*s",
		               message.bytes.n < 200 ? (int)message.bytes.n : 200, message.bytes.at);
	c->leaving = c->leaving || says_draining(frame);
}

void
sbx_link_taken(struct sbx_inflight *req)
{
	req->taken = true;
	if (req->keyed)
		return;
	free(req->again);
	req->again = NULL;
}

bool
sbx_link_turned_away(struct sbx_inflight *req, const struct sbx_frame *frame)
{
	if (req->taken || !req->again || req->cancelled || !says_draining(frame))
		return false;
	req->postponed = true;
	return true;
}

/* ---- bytes ---- */

static void
lost_by_errno(struct sbx_client *c, const char *what)
{
	char why[160];
	(void)snprintf(why, sizeof why, "%s: %m", what);
	sbx_link_lost(c, -SBX_EAGENT, why);
}

/* A descriptor came. The newest board is the current one, whatever else is still unread: its frame need not be looked at. */
static void
on_descriptor(struct sbx_client *c, int fd)
{
	struct sbx_board *board;
	int rc = sbx_board_attach(fd, &board, c->board_why, sizeof c->board_why);
	(void)close(fd); /* the map stays */
	if (rc) {
		c->board_rc = rc;
		return; /* the one before it, if any, says `replaced` */
	}
	sbx_board_close(c->board);
	c->board = board;
}

/* recv(), and at most one descriptor: -1 = none came. The control buffer ends where a second one would begin. */
static ssize_t
receive(int socket, void *to, size_t bytes, int *ret_fd)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { to, bytes };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CMSG_LEN(sizeof(int)) };
	ssize_t n;
	do
		n = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	*ret_fd = -1;
	const struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret_fd, CMSG_DATA(h), sizeof *ret_fd);
	return n;
}

int
sbx_link_read(struct sbx_client *c)
{
	uint8_t *room = sbx_buf_reserve(&c->in, SBX_READ_BYTES);
	if (!room)
		return sbx_fail(c, -SBX_ENOMEM, "out of memory while receiving");
	/* One byte less, so that there is always one behind the last frame for the NUL of a string. */
	int fd;
	ssize_t n = receive(c->fd, room, SBX_READ_BYTES - 1, &fd);
	if (fd >= 0)
		on_descriptor(c, fd);
	if (n > 0) {
		sbx_buf_commit(&c->in, (size_t)n);
		c->drained = n < (ssize_t)SBX_READ_BYTES - 1 && fd < 0; /* a receive ends behind a descriptor */
		if (c->link == SBX_LINK_GREETING)
			greet(c);
		return 1;
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		c->drained = true;
		return 0;
	}
	if (n < 0)
		lost_by_errno(c, "the connection to the agent broke");
	else
		sbx_link_lost(c, -SBX_EAGENT, c->farewell[0] ? c->farewell : "the agent closed the connection");
	return 1;
}

/* send() failed for good. What the agent said before still lies in the socket and is worth having. */
static void
on_send_failed(struct sbx_client *c, int why)
{
	while (c->fd >= 0 && c->in.n <= SBX_FRAME_MAX_BYTES) {
		if (sbx_link_read(c) != 1)
			break;
	}
	errno = why;
	if (c->fd >= 0)
		lost_by_errno(c, "the agent takes no more bytes");
}

void
sbx_link_flush(struct sbx_client *c)
{
	if (c->link != SBX_LINK_UP)
		return;
	while (c->out_sent < c->out.n) {
		ssize_t n = send(c->fd, c->out.data + c->out_sent, c->out.n - c->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0) {
			c->out_sent += (size_t)n;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS || errno == ENOMEM) {
			break;
		} else if (errno != EINTR) {
			on_send_failed(c, errno);
			return;
		}
	}
	for (int64_t size; c->out_sent && (size = sbx_frame_size(c->out.data, c->out.n, SBX_FRAME_MAX_BYTES)) > 0 &&
	                   (size_t)size <= c->out_sent;) {
		sbx_buf_consume(&c->out, (size_t)size);
		c->out_sent -= (size_t)size;
	}
	sbx_buf_trim(&c->out, 2 * SBX_READ_BYTES);
}

/* ---- time ---- */

uint64_t
sbx_link_due_ns(const struct sbx_client *c)
{
	if (c->link == SBX_LINK_GREETING)
		return c->greet_by_ns;
	if (c->link == SBX_LINK_DOWN && c->retrying)
		return c->retry_ns < c->give_up_ns ? c->retry_ns : c->give_up_ns;
	return UINT64_MAX;
}

bool
sbx_link_tick(struct sbx_client *c)
{
	uint64_t due_ns = sbx_link_due_ns(c);
	if (due_ns == UINT64_MAX)
		return false;
	uint64_t now_ns = sbx_now_ns();
	if (now_ns < due_ns)
		return false;
	if (c->link == SBX_LINK_GREETING) {
		char why[96];
		(void)snprintf(why, sizeof why, "the agent accepted, but sent no WELCOME within %u ms", c->timeout_ms);
		sbx_link_lost(c, -SBX_ETIME, why);
	} else if (now_ns >= c->give_up_ns) {
		give_up(c);
	} else if (sbx_link_connect(c) < 0) {
		schedule_retry(c, now_ns);
	}
	return true;
}

bool
sbx_frame_waits(const struct sbx_client *c)
{
	size_t loan = c->taken_from == &c->in ? c->taken_bytes : 0;
	uint8_t head[SBX_FRAME_HEAD_BYTES];
	if (c->in.n - loan < sizeof head)
		return false;
	memcpy(head, c->in.data + loan, sizeof head);
	if (loan)
		head[0] = c->taken_byte; /* a NUL stands there for now */
	return sbx_frame_size(head, c->in.n - loan, SBX_FRAME_MAX_BYTES) != 0;
}

bool
sbx_link_can_read(const struct sbx_client *c)
{
	return c->fd >= 0 && (c->in.n < SBX_IN_HIGH_BYTES || !sbx_frame_waits(c));
}

int
sbx_link_wait(struct sbx_client *c, uint64_t until_ns)
{
	if (sbx_link_tick(c))
		return 0;
	if (c->out_sent < c->out.n)
		sbx_link_flush(c); /* also for who never waits here: a timeout of 0 sends what is left too */
	if (c->fd >= 0 && (!c->drained || until_ns == 0)) {
		int rc = sbx_link_read(c);
		if (rc)
			return rc < 0 ? rc : 0;
	}
	if (until_ns == 0)
		return -SBX_ETIME;

	uint64_t due_ns = sbx_link_due_ns(c), now_ns = 0;
	uint64_t wake_ns = due_ns < until_ns ? due_ns : until_ns;
	struct timespec wait, *limit = NULL;
	if (wake_ns != UINT64_MAX) {
		now_ns = sbx_now_ns();
		if (now_ns >= until_ns)
			return -SBX_ETIME;
		uint64_t left_ns = wake_ns > now_ns ? wake_ns - now_ns : 0;
		wait = (struct timespec){ .tv_sec = (time_t)(left_ns / 1000000000), .tv_nsec = (long)(left_ns % 1000000000) };
		limit = &wait;
	}
	short want = c->link == SBX_LINK_UP && c->out_sent < c->out.n ? POLLIN | POLLOUT : POLLIN;
	struct pollfd p = { .fd = c->fd, .events = want }; /* fd -1: only the time */
	int n = ppoll(&p, 1, limit, NULL);
	if (n <= 0)
		return 0; /* the clock, or a signal: look again */
	if (p.revents & POLLOUT)
		sbx_link_flush(c);
	if (c->fd >= 0 && (p.revents & ~POLLOUT)) {
		int rc = sbx_link_read(c);
		return rc < 0 ? rc : 0;
	}
	return 0;
}
