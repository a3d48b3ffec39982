/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_stream.c -- the streams of the event loop, as far as no kernel is involved: send queue, pausing, ends, closing.
 *
 * The send queue is a list of chunks that never move: the kernel may be reading one while more is appended behind. An idle
 * stream has none. A stream that sends little has one of 4 KiB, taken from a small store of spare ones and given back when
 * it is sent; one that lags behind gets bigger ones, so that a backlog costs few system calls. So memory follows what is
 * unsent, up and down, and is never above SBX_STREAM_UNSENT_MAX_BYTES a stream.
 *
 * Order of what a stream tells: bytes, drain, end. The end is the last thing told. If it is seen while the user has paused
 * reading it is told at once, and the bytes that were not read go with it: the peer is gone, who would need them?
 */
#include "agent/io/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/io/loop_internal.h"

/* The payload of a small chunk: with its header one page. */
#define CHUNK_SMALL_BYTES (4096 - sizeof(struct sbx_chunk))
/* The payload of a chunk for a stream that already has a small one unsent: a third of a Unix socket's default buffer. */
#define CHUNK_BIG_BYTES (64u * 1024)
/* Spare small chunks kept by the loop, for all streams: 256 KiB. */
#define SPARE_MAX 64u

/* ---- chunks ---- */

static struct sbx_chunk *chunk_new(struct sbx_stream *s, size_t bytes)
{
	struct sbx_loop *loop = s->obj.loop;
	size_t room = s->unsent_bytes < CHUNK_SMALL_BYTES / 2 ? CHUNK_SMALL_BYTES : CHUNK_BIG_BYTES;
	if (bytes > room)
		room = bytes;
	struct sbx_chunk *c = TAILQ_FIRST(&loop->spare);
	if (room == CHUNK_SMALL_BYTES && c) {
		TAILQ_REMOVE(&loop->spare, c, link);
		loop->n_spare--;
	} else {
		c = malloc(sizeof *c + room);
		if (!c)
			return NULL;
	}
	c->rights = NULL;
	c->room_bytes = room;
	c->head = c->tail = 0;
	return c;
}

static void rights_free(struct sbx_rights *r)
{
	if (!r)
		return;
	(void)close(r->fd);
	free(r);
}

static void chunk_free(struct sbx_loop *loop, struct sbx_chunk *c)
{
	rights_free(c->rights);
	if (c->room_bytes == CHUNK_SMALL_BYTES && loop->n_spare < SPARE_MAX) {
		TAILQ_INSERT_HEAD(&loop->spare, c, link);
		loop->n_spare++;
	} else {
		free(c);
	}
}

static void drop_queue(struct sbx_stream *s)
{
	struct sbx_chunk *c;
	while ((c = TAILQ_FIRST(&s->queue))) {
		TAILQ_REMOVE(&s->queue, c, link);
		chunk_free(s->obj.loop, c);
	}
	s->unsent_bytes = 0;
}

void sbx_stream_fini_spare(struct sbx_loop *loop)
{
	struct sbx_chunk *c;
	while ((c = TAILQ_FIRST(&loop->spare))) {
		TAILQ_REMOVE(&loop->spare, c, link);
		free(c);
	}
}

/* A duplicate of fd in a message ready to be sent; its iovec is filled in by the one who sends. */
static struct sbx_rights *rights_new(int fd)
{
	struct sbx_rights *r = calloc(1, sizeof *r);
	if (!r)
		return NULL;
	r->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (r->fd < 0) {
		free(r);
		return NULL;
	}
	r->msg = (struct msghdr){ .msg_iov = &r->iov, .msg_iovlen = 1, .msg_control = r->control,
	                          .msg_controllen = sizeof r->control };
	struct cmsghdr *cm = CMSG_FIRSTHDR(&r->msg);
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cm), &r->fd, sizeof(int));
	return r;
}

/* ---- what the backends report ---- */

static void finish_closing(struct sbx_stream *s)
{
	TAILQ_REMOVE(&s->obj.loop->lingering, s, linger_link);
	s->closing = false;
	sbx_loop_kill(&s->obj);
}

void sbx_stream_on_bytes(struct sbx_stream *s, const uint8_t *data, size_t bytes)
{
	if (s->obj.dead || s->closing || s->ended)
		return;
	if (!s->paused && !s->held) {
		s->ops->on_data(s->arg, data, bytes);
		return;
	}
	uint8_t *more = realloc(s->held, s->held_bytes + bytes);
	if (!more) {
		sbx_stream_on_end(s, -ENOMEM); /* a stream with a hole in it is worth nothing */
		return;
	}
	memcpy(more + s->held_bytes, data, bytes);
	s->held = more;
	s->held_bytes += bytes;
}

void sbx_stream_on_sent(struct sbx_stream *s, size_t bytes)
{
	struct sbx_chunk *c = TAILQ_FIRST(&s->queue);
	s->unsent_bytes -= bytes;
	c->head += bytes;
	if (c->rights) { /* went with the first byte */
		rights_free(c->rights);
		c->rights = NULL;
	}
	if (c->head == c->tail) {
		TAILQ_REMOVE(&s->queue, c, link);
		chunk_free(s->obj.loop, c);
	}
	if (s->above_high && s->unsent_bytes <= s->high_bytes / 2) {
		s->above_high = false;
		s->tell_drain = true;
		sbx_loop_ready(&s->obj);
	}
	if (s->closing && s->unsent_bytes == 0)
		finish_closing(s);
}

void sbx_stream_on_end(struct sbx_stream *s, int err)
{
	if (s->obj.dead)
		return;
	if (err < 0 && !s->send_armed)
		drop_queue(s); /* nothing of it will ever be sent; with a send in flight, fini does it */
	if (s->closing) {
		if (err < 0)
			finish_closing(s);
		return;
	}
	if (s->ended)
		return;
	s->ended = true;
	s->end_err = err;
	sbx_loop_ready(&s->obj);
	sbx_loop_dirty(&s->obj);
}

void sbx_stream_tell(struct sbx_stream *s)
{
	if (s->held && !s->paused) {
		uint8_t *data = s->held;
		size_t bytes = s->held_bytes;
		s->held = NULL;
		s->held_bytes = 0;
		s->ops->on_data(s->arg, data, bytes);
		free(data);
		sbx_loop_dirty(&s->obj); /* receive again */
	}
	if (s->tell_drain && !s->obj.dead && !s->closing) {
		s->tell_drain = false;
		if (s->ops->on_drain)
			s->ops->on_drain(s->arg);
	}
	if (s->ended && !s->told_end && !s->obj.dead && !s->closing) {
		s->told_end = true;
		s->ops->on_end(s->arg, s->end_err);
	}
}

void sbx_stream_expire(struct sbx_stream *s)
{
	finish_closing(s);
}

void sbx_stream_fini(struct sbx_stream *s)
{
	drop_queue(s);
	free(s->held);
	(void)close(s->obj.fd);
}

/* ---- what the user calls ---- */

int sbx_stream_new(struct sbx_loop *loop, int fd, const struct sbx_stream_ops *ops, void *arg, size_t high_bytes,
                   struct sbx_stream **ret)
{
	struct sbx_stream *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	s->ops = ops;
	s->arg = arg;
	s->high_bytes = high_bytes;
	TAILQ_INIT(&s->queue);
	int rc = sbx_loop_add(loop, &s->obj, SBX_OBJ_STREAM, fd);
	if (rc < 0) {
		free(s);
		return rc;
	}
	*ret = s;
	return 0;
}

static bool writable(const struct sbx_stream *s)
{
	return !s->ended && !s->closing && !s->obj.dead;
}

/* The last chunk if it has room for that many bytes (own: and nothing in it yet), else a new one.
 * NULL: no memory, or over the limit. */
static struct sbx_chunk *tail_chunk(struct sbx_stream *s, size_t bytes, bool own)
{
	if (bytes > SBX_STREAM_UNSENT_MAX_BYTES - s->unsent_bytes)
		return NULL;
	struct sbx_chunk *c = TAILQ_LAST(&s->queue, sbx_chunk_list);
	bool empty = c && c->head == c->tail; /* reserved, and then nothing was committed */
	if (c && (!own || empty) && c->room_bytes - c->tail >= bytes)
		return c;
	if (empty) {
		TAILQ_REMOVE(&s->queue, c, link);
		chunk_free(s->obj.loop, c);
	}
	c = chunk_new(s, bytes);
	if (c)
		TAILQ_INSERT_TAIL(&s->queue, c, link);
	return c;
}

static void appended(struct sbx_stream *s, struct sbx_chunk *c, size_t bytes)
{
	c->tail += bytes;
	s->unsent_bytes += bytes;
	if (s->unsent_bytes >= s->high_bytes)
		s->above_high = true;
	sbx_loop_dirty(&s->obj);
}

/* The peer could not know that something is missing: a stream with a hole in it is worth nothing. */
static int give_up(struct sbx_stream *s, int err)
{
	sbx_stream_on_end(s, err);
	return err;
}

int sbx_stream_send(struct sbx_stream *s, const void *data, size_t bytes, int send_fd)
{
	if (!writable(s))
		return -EPIPE;
	if (bytes == 0)
		return send_fd < 0 ? 0 : -EINVAL; /* a descriptor needs a byte to travel with */
	if (bytes > SBX_STREAM_UNSENT_MAX_BYTES - s->unsent_bytes)
		return give_up(s, -ENOBUFS);
	struct sbx_rights *rights = NULL;
	if (send_fd >= 0) {
		rights = rights_new(send_fd);
		if (!rights)
			return -ENOMEM;
	}
	struct sbx_chunk *c = tail_chunk(s, bytes, rights != NULL);
	if (!c) {
		rights_free(rights);
		return give_up(s, -ENOMEM);
	}
	c->rights = rights ? rights : c->rights;
	memcpy(c->data + c->tail, data, bytes);
	appended(s, c, bytes);
	return 0;
}

uint8_t *sbx_stream_reserve(struct sbx_stream *s, size_t bytes)
{
	if (!writable(s))
		return NULL;
	struct sbx_chunk *c = tail_chunk(s, bytes, false);
	return c ? c->data + c->tail : NULL;
}

void sbx_stream_commit(struct sbx_stream *s, size_t bytes)
{
	if (bytes > 0)
		appended(s, TAILQ_LAST(&s->queue, sbx_chunk_list), bytes);
}

size_t sbx_stream_unsent_bytes(const struct sbx_stream *s)
{
	return s->unsent_bytes;
}

void sbx_stream_pause(struct sbx_stream *s, bool paused)
{
	if (s->paused == paused || s->closing || s->obj.dead)
		return;
	s->paused = paused;
	if (!paused && s->held)
		sbx_loop_ready(&s->obj); /* told in the next dispatch, never from within this call */
	sbx_loop_dirty(&s->obj);
}

/* Into the list of the lingering, by deadline. As a rule all linger equally long, so the place is at the tail. */
static void linger(struct sbx_stream *s, uint64_t until_ns)
{
	struct sbx_loop *loop = s->obj.loop;
	s->closing = true;
	s->linger_until_ns = until_ns;
	struct sbx_stream *before = TAILQ_LAST(&loop->lingering, sbx_lingering);
	while (before && before->linger_until_ns > until_ns)
		before = TAILQ_PREV(before, sbx_lingering, linger_link);
	if (before)
		TAILQ_INSERT_AFTER(&loop->lingering, before, s, linger_link);
	else
		TAILQ_INSERT_HEAD(&loop->lingering, s, linger_link);
	sbx_loop_dirty(&s->obj);
}

void sbx_stream_close(struct sbx_stream *s, bool flush, uint64_t linger_ns)
{
	if (!s)
		return;
	bool broken = s->ended && s->end_err < 0;
	if (flush && s->unsent_bytes > 0 && !broken)
		linger(s, sbx_loop_clock_ns() + linger_ns);
	else
		sbx_loop_kill(&s->obj);
}
