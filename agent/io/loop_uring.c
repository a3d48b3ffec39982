/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_uring.c -- the event loop on io_uring (Linux 6.1 and up, liburing 2.3).
 *
 * One ring, one thread, one system call per turn: sync() only queues operations, and the wait submits them. DEFER_TASKRUN
 * makes the kernel do completion work inside that same call, so nothing completes behind our back between two waits.
 *
 *   listener  multishot accept
 *   stream    multishot receive into a ring of provided buffers, each copied out or parsed in the callback and given back
 *             at once; at most one send in flight; while paused a one-shot poll for the peer's end
 *   watch     one-shot poll, armed again in the next sync: multishot poll is edge-like, and libcurl needs level
 *
 * user_data is op (8 bits) | slot (24) | generation (32). An object counts its operations and lives until all came back, so a
 * buffer the kernel reads or writes is never freed under it. An armed operation keeps the open file alive after close():
 * whatever dies is cancelled in the next sync, before the wait, and its peer sees the end at once.
 *
 * Why watches are polls in the ring. A bare libcurl multi client over this loop, against a local keep-alive server that
 * answers after 100 us (300 bytes up, 700 down, 2 shared cores, kernel 6.18, libcurl 7.88.1; median of three interleaved
 * rounds; one watch made and freed per request; system calls are those of the loop, not libcurl's):
 *
 *                                              concurrency 1                      concurrency 32
 *                                     CPU us   round trip us   syscalls     CPU us   syscalls per request
 *   one-shot polls, batched (this)      49.5        256           1.0         26.9        0.07
 *   epoll set, its fd polled here       57.6        261           4.0         27.4        2.12
 *   epoll for everything                58.9        273           3.0         27.8        2.05
 *
 * At 32 the three differ by less than the noise between rounds; at 1 the batched polls win by a sixth of the CPU.
 *
 * The ring is restricted to the operations in the table below before it is enabled: what a bug or an attacker could queue
 * is what this file does anyway.
 */
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/io/loop_internal.h"

/* Submissions queued before they must be handed over early; 64 bytes each. */
#define SQ_ENTRIES 512u
/* Completions of one turn; 16 bytes each. The kernel keeps what does not fit (NODROP) and hands it over later. */
#define CQ_ENTRIES 4096u
/* Provided buffers: a whole socket buffer's worth of a Unix socket fits several times over. A page or two each, touched
 * only as far as data reaches. Both are powers of two, as the kernel wants it. */
#define N_BUFFERS 256u
#define BUFFER_BYTES 8192u
#define BUFFER_GROUP 0
/* POLLRDHUP tells the peer's end also while bytes wait unread. */
#define HUP_EVENTS (POLLRDHUP | POLLHUP | POLLERR)

const struct sbx_uring_test *sbx_uring_test;

struct uring_impl {
	struct io_uring ring;
	struct io_uring_buf_ring *buffer_ring; /* mapped, page aligned */
	uint8_t *buffers;                      /* mapped, n_buffers * buffer_bytes */
	unsigned n_buffers, buffer_bytes;
};

/* ---- queueing operations ---- */

static uint64_t user_data(const struct sbx_loop_obj *o, enum sbx_uring_op op)
{
	return (uint64_t)op << 56 | sbx_loop_name(o);
}

/* A free submission entry, submitting what is queued if there is none. NULL: the kernel takes no more before it has been
 * given time (its completion queue overflowed). */
static struct io_uring_sqe *loop_sqe(struct sbx_loop *loop)
{
	struct uring_impl *u = loop->impl;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
	if (!sqe) {
		loop->stats.syscalls++;
		(void)io_uring_submit(&u->ring); /* on failure there is still no room, which is answered below */
		sqe = io_uring_get_sqe(&u->ring);
	}
	return sqe;
}

/* Injected errors travel in user_data: op is 4 bits, then an index into this table, then the mark. */
static const int injectable[8] = { EINTR, EAGAIN, ECANCELED, ENOBUFS, ENOMEM, EMFILE, ECONNRESET, EINVAL };
#define INJECTED 0x80u

static uint64_t injected_user_data(const struct sbx_loop_obj *o, enum sbx_uring_op op, int err)
{
	unsigned i = 0;
	while (i < 8 && injectable[i] != -err)
		i++;
	assert(i < 8);
	return user_data(o, op) | (uint64_t)(INJECTED | i << 4) << 56;
}

/* Give the filled entry its name. In tests, perhaps make it fail or fall short; bytes 0 = it has no length. */
static void stamp(struct io_uring_sqe *sqe, struct sbx_loop_obj *o, enum sbx_uring_op op, unsigned bytes)
{
	sqe->user_data = user_data(o, op);
	if (op != SBX_UOP_CANCEL)
		o->in_flight++;
	if (!sbx_uring_test || !sbx_uring_test->fault)
		return;
	unsigned n = bytes;
	int err = sbx_uring_test->fault(sbx_uring_test->arg, op, &n);
	if (err < 0) {
		io_uring_prep_nop(sqe);
		sqe->user_data = injected_user_data(o, op, err);
	} else if (n < bytes) {
		sqe->len = n;
	}
}

/* Each of these queues one operation; false = no room now. */

static bool queue_cancel(struct sbx_loop_obj *o, enum sbx_uring_op op)
{
	struct io_uring_sqe *sqe = loop_sqe(o->loop);
	if (!sqe)
		return false;
	io_uring_prep_cancel64(sqe, user_data(o, op), 0);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS; /* the cancelled one tells */
	stamp(sqe, o, SBX_UOP_CANCEL, 0);
	return true;
}

static bool queue_accept(struct sbx_listener *l)
{
	struct io_uring_sqe *sqe = loop_sqe(l->obj.loop);
	if (!sqe)
		return false;
	io_uring_prep_multishot_accept(sqe, l->obj.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	stamp(sqe, &l->obj, SBX_UOP_ACCEPT, 0);
	l->armed = true;
	l->cancelling = false;
	return true;
}

static bool queue_recv(struct sbx_stream *s)
{
	struct io_uring_sqe *sqe = loop_sqe(s->obj.loop);
	if (!sqe)
		return false;
	/* Plain receive, no room for control messages: descriptors that a peer passes are never installed. */
	io_uring_prep_recv_multishot(sqe, s->obj.fd, NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = BUFFER_GROUP;
	if (s->recv_wait)
		sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
	stamp(sqe, &s->obj, SBX_UOP_RECV, 0);
	s->recv_armed = true;
	s->recv_wait = s->recv_cancelling = false;
	return true;
}

static bool queue_send(struct sbx_stream *s)
{
	struct sbx_chunk *c = TAILQ_FIRST(&s->queue);
	struct io_uring_sqe *sqe = loop_sqe(s->obj.loop);
	if (!sqe)
		return false;
	unsigned bytes = c->tail - c->head < UINT32_MAX / 2 ? (unsigned)(c->tail - c->head) : UINT32_MAX / 2;
	if (c->rights) {
		c->rights->iov = (struct iovec){ c->data + c->head, bytes };
		io_uring_prep_sendmsg(sqe, s->obj.fd, &c->rights->msg, MSG_NOSIGNAL);
		bytes = 0; /* its len is not a number of bytes */
	} else {
		io_uring_prep_send(sqe, s->obj.fd, c->data + c->head, bytes, MSG_NOSIGNAL);
	}
	if (s->send_blocked)
		sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
	stamp(sqe, &s->obj, SBX_UOP_SEND, bytes);
	s->send_armed = true;
	s->send_blocked = false;
	return true;
}

static bool queue_hup_poll(struct sbx_stream *s)
{
	struct io_uring_sqe *sqe = loop_sqe(s->obj.loop);
	if (!sqe)
		return false;
	io_uring_prep_poll_add(sqe, s->obj.fd, HUP_EVENTS);
	stamp(sqe, &s->obj, SBX_UOP_HUP, 0);
	s->hup_armed = true;
	return true;
}

static bool queue_poll(struct sbx_watch *w)
{
	struct io_uring_sqe *sqe = loop_sqe(w->obj.loop);
	if (!sqe)
		return false;
	io_uring_prep_poll_add(sqe, w->obj.fd, (w->want & SBX_WATCH_IN ? POLLIN : 0u) |
	                                       (w->want & SBX_WATCH_OUT ? POLLOUT : 0u));
	stamp(sqe, &w->obj, SBX_UOP_POLL, 0);
	w->armed = true;
	w->installed = w->want;
	return true;
}

/* ---- sync ---- */

static bool sync_listener(struct sbx_listener *l)
{
	bool want = !l->obj.dead && !l->paused;
	if (want && !l->armed)
		return queue_accept(l);
	if (!want && l->armed && !l->cancelling) {
		if (!queue_cancel(&l->obj, SBX_UOP_ACCEPT))
			return false;
		l->cancelling = true;
	}
	return true;
}

static bool sync_dead_stream(struct sbx_stream *s)
{
	return (!s->recv_armed || queue_cancel(&s->obj, SBX_UOP_RECV)) &&
	       (!s->send_armed || queue_cancel(&s->obj, SBX_UOP_SEND)) &&
	       (!s->hup_armed || queue_cancel(&s->obj, SBX_UOP_HUP));
}

static bool sync_stream(struct sbx_stream *s)
{
	if (s->obj.dead)
		return sync_dead_stream(s);
	bool want = sbx_stream_wants_bytes(s);
	if (want && !s->recv_armed && !queue_recv(s))
		return false;
	if (!want && s->recv_armed && !s->recv_cancelling && !s->ended) {
		if (!queue_cancel(&s->obj, SBX_UOP_RECV))
			return false;
		s->recv_cancelling = true;
	}
	/* Left armed after a resume: it costs nothing until the peer ends, and serves the next pause. */
	if (!want && !s->ended && !s->closing && !s->hup_armed && !queue_hup_poll(s))
		return false;
	bool broken = s->ended && s->end_err < 0;
	return s->send_armed || s->unsent_bytes == 0 || broken || queue_send(s);
}

static bool sync_watch(struct sbx_watch *w)
{
	if (w->obj.dead)
		return !w->armed || queue_cancel(&w->obj, SBX_UOP_POLL);
	if (w->failed)
		return true;
	if (!w->armed)
		return w->want == 0 || queue_poll(w);
	/* Another mask: take the old poll back, its completion brings us here again. Wanting nothing or less than is installed is
	 * left to the poll itself: it fires once at most, and libcurl soon wants the same again. */
	if (w->want & ~w->installed)
		return queue_cancel(&w->obj, SBX_UOP_POLL);
	return true;
}

static bool uring_sync(struct sbx_loop_obj *o)
{
	switch ((enum sbx_loop_obj_kind)o->kind) {
	case SBX_OBJ_LISTENER: return sync_listener((struct sbx_listener *)o);
	case SBX_OBJ_STREAM: return sync_stream((struct sbx_stream *)o);
	case SBX_OBJ_WATCH: return sync_watch((struct sbx_watch *)o);
	}
	return true;
}

/* A listener is about to die: connections that the kernel has already taken from the backlog must not be lost with it, so
 * that a listening socket can be handed over to another process without refusing anybody. */
static void uring_detach(struct sbx_loop_obj *o)
{
	struct uring_impl *u = o->loop->impl;
	if (o->kind != SBX_OBJ_LISTENER)
		return;
	unsigned head;
	struct io_uring_cqe *cqe;
	io_uring_for_each_cqe(&u->ring, head, cqe) {
		if (cqe->user_data != user_data(o, SBX_UOP_ACCEPT) || cqe->res < 0)
			continue;
		int fd = cqe->res;
		cqe->res = -ECANCELED; /* counted down, but not handed out again, when its turn comes */
		sbx_listener_on_result((struct sbx_listener *)o, fd);
	}
}

/* ---- completions: one handler per operation. `last` = the operation is over; data only with received bytes ---- */

struct completion {
	int res;
	bool last;
	const uint8_t *data;
};

static void on_accept(struct sbx_loop_obj *o, const struct completion *c)
{
	struct sbx_listener *l = (struct sbx_listener *)o;
	if (c->last) {
		l->armed = false;
		sbx_loop_dirty(o);
	}
	if (!o->dead)
		sbx_listener_on_result(l, c->res);
	else if (c->res >= 0)
		(void)close(c->res); /* taken between its death and the cancel */
}

static void on_recv(struct sbx_loop_obj *o, const struct completion *c)
{
	struct sbx_stream *s = (struct sbx_stream *)o;
	if (c->last)
		s->recv_armed = s->recv_cancelling = false;
	if (o->dead)
		return;
	if (c->res > 0)
		sbx_stream_on_bytes(s, c->data, (size_t)c->res);
	else if (c->res == 0)
		sbx_stream_on_end(s, 0);
	else switch (-c->res) {
	case ENOBUFS: /* all buffers were in this turn's completions; they are back when sync comes */
		o->loop->stats.enobufs++;
		break;
	case EAGAIN:
		s->recv_wait = true;
		break;
	case EINTR: case ECANCELED:
		break;
	case ENOMEM:
		sbx_loop_starve(o);
		break;
	default:
		sbx_stream_on_end(s, c->res);
	}
	if (o->dead)
		return;
	if (!c->last && !sbx_stream_wants_bytes(s))
		s->recv_cancelling = false; /* went on in spite of a cancel: once more */
	if (s->recv_armed != sbx_stream_wants_bytes(s))
		sbx_loop_dirty(o);
}

static void on_send(struct sbx_loop_obj *o, const struct completion *c)
{
	struct sbx_stream *s = (struct sbx_stream *)o;
	s->send_armed = false;
	if (o->dead)
		return;
	if (c->res > 0)
		sbx_stream_on_sent(s, (size_t)c->res); /* perhaps a part; may close it */
	else switch (-c->res) {
	case 0: case EAGAIN:
		s->send_blocked = true;
		break;
	case EINTR: case ECANCELED:
		break;
	case ENOBUFS: case ENOMEM: case ETOOMANYREFS:
		sbx_loop_starve(o);
		break;
	default:
		sbx_stream_on_end(s, c->res);
	}
	if (!o->dead && s->unsent_bytes > 0)
		sbx_loop_dirty(o);
}

static void on_hup(struct sbx_loop_obj *o, const struct completion *c)
{
	struct sbx_stream *s = (struct sbx_stream *)o;
	s->hup_armed = false;
	if (o->dead)
		return;
	if (c->res < 0) {
		if (c->res == -ENOMEM)
			sbx_loop_starve(o);
		sbx_loop_dirty(o);
	} else if (s->paused && !s->ended) { /* not paused: the receive tells, and in order */
		int err = 0;
		socklen_t bytes = sizeof err;
		(void)getsockopt(o->fd, SOL_SOCKET, SO_ERROR, &err, &bytes);
		sbx_stream_on_end(s, -err);
	}
}

static void on_poll(struct sbx_loop_obj *o, const struct completion *c)
{
	struct sbx_watch *w = (struct sbx_watch *)o;
	w->armed = false;
	if (o->dead)
		return;
	sbx_loop_dirty(o); /* armed again, if it is still wanted then */
	if (c->res >= 0)
		sbx_watch_on_events(w, (c->res & POLLIN ? SBX_WATCH_IN : 0u) | (c->res & POLLOUT ? SBX_WATCH_OUT : 0u) |
		                               (c->res & (POLLERR | POLLHUP) ? SBX_WATCH_ERR : 0u));
	else if (c->res == -ENOMEM)
		sbx_loop_starve(o);
	else if (c->res != -ECANCELED && c->res != -EINTR && c->res != -EAGAIN)
		sbx_watch_on_failure(w);
}

/* A cancel speaks only when it failed. Not found: the operation's own completion was faster. Else: once more. */
static void on_cancel(struct sbx_loop_obj *o, const struct completion *c)
{
	if (c->res == -ENOENT || c->res >= 0)
		return;
	if (o->kind == SBX_OBJ_LISTENER)
		((struct sbx_listener *)o)->cancelling = false;
	else if (o->kind == SBX_OBJ_STREAM)
		((struct sbx_stream *)o)->recv_cancelling = false;
	sbx_loop_dirty(o);
}

static const struct {
	const char *name;
	int opcode;
	void (*on_completion)(struct sbx_loop_obj *o, const struct completion *c);
} ops[SBX_UOP__COUNT] = {
	[SBX_UOP_ACCEPT] = { "accept", IORING_OP_ACCEPT, on_accept },
	[SBX_UOP_RECV] = { "receive", IORING_OP_RECV, on_recv },
	[SBX_UOP_SEND] = { "send", IORING_OP_SEND, on_send },
	[SBX_UOP_HUP] = { "poll", IORING_OP_POLL_ADD, on_hup },
	[SBX_UOP_POLL] = { "poll", IORING_OP_POLL_ADD, on_poll },
	[SBX_UOP_CANCEL] = { "cancel", IORING_OP_ASYNC_CANCEL, on_cancel },
};

static void give_buffer(struct uring_impl *u, unsigned id)
{
	io_uring_buf_ring_add(u->buffer_ring, u->buffers + (size_t)id * u->buffer_bytes, u->buffer_bytes,
	                      (unsigned short)id, io_uring_buf_ring_mask(u->n_buffers), 0);
	io_uring_buf_ring_advance(u->buffer_ring, 1);
}

static void on_cqe(struct sbx_loop *loop, const struct io_uring_cqe *cqe)
{
	struct uring_impl *u = loop->impl;
	unsigned buffer = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
	bool has_buffer = cqe->flags & IORING_CQE_F_BUFFER;
	struct completion c = {
		.res = cqe->res,
		.last = !(cqe->flags & IORING_CQE_F_MORE),
		.data = has_buffer ? u->buffers + (size_t)buffer * u->buffer_bytes : NULL,
	};
	unsigned op = (unsigned)(cqe->user_data >> 56);
	if (op & INJECTED) {
		c.res = -injectable[op >> 4 & 7];
		op &= 15;
	}
	assert(op > SBX_UOP_NONE && op < SBX_UOP__COUNT);
	struct sbx_loop_obj *o = sbx_loop_lookup(loop, cqe->user_data);
	loop->stats.events++;
	if (op != SBX_UOP_CANCEL) {
		assert(o); /* it lives until all its operations came back */
		if (c.last)
			o->in_flight--;
		else if (o->dead)
			sbx_loop_dirty(o); /* went on in spite of its cancel */
		if (o->dead)
			loop->stats.stale++;
	}
	if (o)
		ops[op].on_completion(o, &c);
	if (has_buffer)
		give_buffer(u, buffer); /* here and nowhere else: each goes back once */
}

static void uring_dispatch(struct sbx_loop *loop)
{
	struct uring_impl *u = loop->impl;
	struct io_uring_cqe *next;
	unsigned head;
	io_uring_for_each_cqe(&u->ring, head, next) {
		struct io_uring_cqe cqe = *next;
		io_uring_cq_advance(&u->ring, 1); /* first: detach() looks at those that are still to come */
		on_cqe(loop, &cqe);
	}
}

static int uring_wait(struct sbx_loop *loop, uint64_t timeout_ns)
{
	struct uring_impl *u = loop->impl;
	int rc;
	loop->stats.syscalls++;
	if (timeout_ns == 0) {
		rc = io_uring_submit_and_get_events(&u->ring);
	} else if (timeout_ns == SBX_NEVER_NS) {
		rc = io_uring_submit_and_wait(&u->ring, 1);
	} else {
		struct __kernel_timespec ts = { .tv_sec = (long long)(timeout_ns / 1000000000u),
		                                .tv_nsec = (long long)(timeout_ns % 1000000000u) };
		struct io_uring_cqe *cqe;
		rc = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
	}
	switch (rc < 0 ? -rc : 0) {
	case 0: case ETIME: case EINTR:
	case EAGAIN: case EBUSY: /* it wants us to take completions first; what was not submitted is still queued */
		return 0;
	default:
		return rc;
	}
}

/* ---- open and close ---- */

__attribute__((format(printf, 3, 4)))
static void say(char *why, size_t why_bytes, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(why, why_bytes, fmt, ap);
	va_end(ap);
}

static const char *setup_reason(int err)
{
	switch (err) {
	case EPERM: case EACCES: return "not permitted (seccomp profile, or sysctl kernel.io_uring_disabled)";
	case ENOSYS: return "this kernel has none";
	case EINVAL: return "this kernel is older than 6.1";
	case ENOMEM: return "not enough memory, or RLIMIT_MEMLOCK is too low";
	case EMFILE: case ENFILE: return "out of descriptors";
	default: return strerror(err);
	}
}

static int ring_init(struct uring_impl *u)
{
	const struct sbx_uring_test *t = sbx_uring_test;
	if (t && t->setup_err)
		return t->setup_err;
	struct io_uring_params p = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL |
		         IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED,
		.cq_entries = t && t->cq_entries ? t->cq_entries : CQ_ENTRIES,
	};
	return io_uring_queue_init_params(t && t->sq_entries ? t->sq_entries : SQ_ENTRIES, &u->ring, &p);
}

/* The name of an operation that this kernel lacks, or NULL. */
static const char *missing_op(struct uring_impl *u)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(&u->ring);
	if (!probe)
		return "the list of its operations";
	const char *missing = io_uring_opcode_supported(probe, IORING_OP_SENDMSG) ? NULL : "send";
	for (int i = SBX_UOP_NONE + 1; i < SBX_UOP__COUNT && !missing; i++)
		if (!io_uring_opcode_supported(probe, ops[i].opcode))
			missing = ops[i].name;
	io_uring_free_probe(probe);
	return missing;
}

static int buffers_init(struct uring_impl *u)
{
	const struct sbx_uring_test *t = sbx_uring_test;
	u->n_buffers = t && t->n_buffers ? t->n_buffers : N_BUFFERS;
	u->buffer_bytes = t && t->buffer_bytes ? t->buffer_bytes : BUFFER_BYTES;
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
	void *ring = mmap(NULL, u->n_buffers * sizeof(struct io_uring_buf), prot, flags, -1, 0);
	if (ring == MAP_FAILED)
		return -errno;
	u->buffer_ring = ring;
	void *buffers = mmap(NULL, (size_t)u->n_buffers * u->buffer_bytes, prot, flags, -1, 0);
	if (buffers == MAP_FAILED)
		return -errno;
	u->buffers = buffers;
	struct io_uring_buf_reg reg = { .ring_addr = (uintptr_t)ring, .ring_entries = u->n_buffers,
	                                .bgid = BUFFER_GROUP };
	int rc = io_uring_register_buf_ring(&u->ring, &reg, 0);
	if (rc < 0)
		return rc;
	io_uring_buf_ring_init(u->buffer_ring);
	for (unsigned i = 0; i < u->n_buffers; i++)
		give_buffer(u, i);
	return 0;
}

/* Allow what the table of operations has, and no registration but giving the ring's descriptor back. */
static int restrict_and_enable(struct uring_impl *u)
{
	struct io_uring_restriction r[SBX_UOP__COUNT + 4];
	unsigned n = 0;
	memset(r, 0, sizeof r);
	for (int i = SBX_UOP_NONE + 1; i < SBX_UOP__COUNT; i++, n++) {
		r[n].opcode = IORING_RESTRICTION_SQE_OP;
		r[n].sqe_op = (uint8_t)ops[i].opcode;
	}
	r[n].opcode = IORING_RESTRICTION_SQE_OP;
	r[n++].sqe_op = IORING_OP_SENDMSG;
	if (sbx_uring_test) {
		r[n].opcode = IORING_RESTRICTION_SQE_OP;
		r[n++].sqe_op = IORING_OP_NOP;
	}
	r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	r[n++].sqe_flags = IOSQE_BUFFER_SELECT | IOSQE_CQE_SKIP_SUCCESS;
	r[n].opcode = IORING_RESTRICTION_REGISTER_OP;
	r[n++].register_op = IORING_UNREGISTER_RING_FDS;
	(void)io_uring_register_ring_fd(&u->ring); /* saves a descriptor lookup per turn; not needed */
	/* liburing 2.3 declares functions for these two, but its shared library does not export them. */
	int rc = io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_RESTRICTIONS, r, n);
	return rc < 0 ? rc : io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

static void impl_free(struct uring_impl *u, bool ring)
{
	if (ring)
		io_uring_queue_exit(&u->ring);
	if (u->buffers)
		(void)munmap(u->buffers, (size_t)u->n_buffers * u->buffer_bytes);
	if (u->buffer_ring)
		(void)munmap(u->buffer_ring, u->n_buffers * sizeof(struct io_uring_buf));
	free(u);
}

static int uring_open(struct sbx_loop *loop, char *why, size_t why_bytes)
{
	const unsigned need = IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP;
	struct uring_impl *u = calloc(1, sizeof *u);
	if (!u) {
		say(why, why_bytes, "epoll, since io_uring: out of memory");
		return -ENOMEM;
	}
	const char *missing;
	int rc = ring_init(u);
	if (rc < 0) {
		say(why, why_bytes, "epoll, since io_uring: %s", setup_reason(-rc));
		impl_free(u, false);
		return rc;
	}
	if ((u->ring.features & need) != need) {
		say(why, why_bytes, "epoll, since io_uring: features 0x%x, 0x%x needed", u->ring.features, need);
		rc = -EOPNOTSUPP;
	} else if ((missing = missing_op(u))) {
		say(why, why_bytes, "epoll, since io_uring: this kernel lacks %s", missing);
		rc = -EOPNOTSUPP;
	} else if ((rc = buffers_init(u)) < 0) {
		say(why, why_bytes, "epoll, since io_uring: provided buffers: %s", strerror(-rc));
	} else if ((rc = restrict_and_enable(u)) < 0) {
		say(why, why_bytes, "epoll, since io_uring: restricting the ring: %s", strerror(-rc));
	}
	if (rc < 0) {
		impl_free(u, true);
		return rc;
	}
	say(why, why_bytes, "io_uring");
	loop->impl = u;
	return 0;
}

static void uring_close(struct sbx_loop *loop)
{
	impl_free(loop->impl, true);
}

const struct sbx_loop_backend sbx_loop_uring = {
	.kind = SBX_LOOP_URING,
	.open = uring_open,
	.close = uring_close,
	.wait = uring_wait,
	.dispatch = uring_dispatch,
	.sync = uring_sync,
	.detach = uring_detach,
};
