/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_epoll.c -- the event loop on epoll, for where io_uring is denied.
 *
 * Level-triggered throughout: what a callback leaves unread comes back by itself, and nothing needs to be remembered.
 * Interest is changed in sync(), once per turn at most and only where it differs from what the set already has. Streams are
 * read into one buffer of the loop's, one recv() per event, so that a busy peer cannot starve the others; sends go out
 * directly in sync(), and only a socket that took less than it was given is watched for room.
 *
 * A listener that ran out of descriptors leaves the set until it may try again: level-triggered, it would spin.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "agent/io/loop_internal.h"

/* Events taken per wait. More would only lengthen the turn. */
#define EVENTS_MAX 256
/* Connections taken from a listener per event, so that a storm of them does not hold up the streams. */
#define ACCEPTS_MAX 64
/* What one recv() takes at most. */
#define RX_BYTES (64u * 1024)

struct epoll_impl {
	int fd;
	int n_events;
	struct epoll_event events[EVENTS_MAX];
	uint8_t rx[RX_BYTES];
};

/* Bring the set's mask for o from `have` to `want`; 0 = not in the set. */
static int set_mask(struct sbx_loop_obj *o, uint32_t have, uint32_t want)
{
	struct epoll_impl *ep = o->loop->impl;
	if (have == want)
		return 0;
	int op = !have ? EPOLL_CTL_ADD : !want ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
	struct epoll_event ev = { .events = want, .data.u64 = sbx_loop_name(o) };
	o->loop->stats.syscalls++;
	return epoll_ctl(ep->fd, op, o->fd, &ev) == 0 ? 0 : -errno;
}

/* ---- sync ---- */

static ssize_t send_chunk(struct sbx_stream *s, struct sbx_chunk *c)
{
	s->obj.loop->stats.syscalls++;
	size_t bytes = c->tail - c->head;
	if (!c->rights)
		return send(s->obj.fd, c->data + c->head, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
	c->rights->iov = (struct iovec){ c->data + c->head, bytes };
	return sendmsg(s->obj.fd, &c->rights->msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void send_queue(struct sbx_stream *s)
{
	while (!s->obj.dead && !s->send_blocked && s->unsent_bytes > 0 && !(s->ended && s->end_err < 0)) {
		ssize_t n = send_chunk(s, TAILQ_FIRST(&s->queue));
		if (n > 0)
			sbx_stream_on_sent(s, (size_t)n);
		else if (n < 0 && errno == EINTR)
			continue;
		else if (n == 0 || errno == EAGAIN)
			s->send_blocked = true;
		else if (errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS) {
			sbx_loop_starve(&s->obj);
			return;
		} else
			sbx_stream_on_end(s, -errno);
	}
}

static void sync_stream(struct sbx_stream *s)
{
	send_queue(s);
	if (s->obj.dead)
		return;
	uint32_t want = sbx_stream_wants_bytes(s) ? EPOLLIN : 0;
	if (!s->ended && !s->closing)
		want |= EPOLLRDHUP;
	if (s->send_blocked)
		want |= EPOLLOUT;
	int rc = set_mask(&s->obj, s->ep_events, want);
	if (rc == 0)
		s->ep_events = want;
	else if (rc == -ENOMEM || rc == -ENOSPC)
		sbx_loop_starve(&s->obj);
	else
		sbx_stream_on_end(s, rc);
}

static bool epoll_sync(struct sbx_loop_obj *o)
{
	if (o->dead)
		return true; /* detach() did all */
	if (o->kind == SBX_OBJ_STREAM) {
		sync_stream((struct sbx_stream *)o);
	} else if (o->kind == SBX_OBJ_LISTENER) {
		struct sbx_listener *l = (struct sbx_listener *)o;
		bool want = !l->paused;
		if (set_mask(o, l->armed ? EPOLLIN : 0, want ? EPOLLIN : 0) == 0)
			l->armed = want;
		else
			sbx_loop_starve(o); /* tried again in a while */
	} else {
		struct sbx_watch *w = (struct sbx_watch *)o;
		/* One that became quiet stays in the set until it disturbs: the socket of a kept connection mostly is wanted again
		 * before anything happens to it, which saves two system calls a request. */
		if (w->want == 0 || w->failed)
			return true;
		uint32_t want = (w->want & SBX_WATCH_IN ? EPOLLIN : 0u) | (w->want & SBX_WATCH_OUT ? EPOLLOUT : 0u);
		int rc = set_mask(o, w->installed, want);
		if (rc == 0)
			w->installed = want;
		else if (rc == -ENOMEM || rc == -ENOSPC)
			sbx_loop_starve(o);
		else
			sbx_watch_on_failure(w);
	}
	return true;
}

/* At once, since a descriptor number may soon mean another file; and a file kept open by somebody's duplicate would
 * otherwise send events for ever that could not be switched off any more. */
static void epoll_detach(struct sbx_loop_obj *o)
{
	uint32_t have = 0;
	if (o->kind == SBX_OBJ_STREAM)
		have = ((struct sbx_stream *)o)->ep_events;
	else if (o->kind == SBX_OBJ_LISTENER)
		have = ((struct sbx_listener *)o)->armed ? EPOLLIN : 0;
	else
		have = ((struct sbx_watch *)o)->installed;
	(void)set_mask(o, have, 0); /* fails where the user closed it first: the set has dropped it by itself */
}

/* ---- events ---- */

static void on_listener(struct sbx_listener *l)
{
	for (int i = 0; i < ACCEPTS_MAX && !l->obj.dead && !l->paused && !l->obj.starved; i++) {
		l->obj.loop->stats.syscalls++;
		int fd = accept4(l->obj.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		int rc = fd >= 0 ? fd : -errno;
		sbx_listener_on_result(l, rc);
		if (rc == -EAGAIN)
			return;
	}
	if (l->obj.starved && l->armed && set_mask(&l->obj, EPOLLIN, 0) == 0)
		l->armed = false;
}

static void on_stream(struct sbx_stream *s, uint32_t events)
{
	struct epoll_impl *ep = s->obj.loop->impl;
	if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP) && s->send_blocked) {
		s->send_blocked = false; /* room, or an error for send() to tell */
		sbx_loop_dirty(&s->obj);
	}
	if (!(events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)))
		return;
	if (sbx_stream_wants_bytes(s)) {
		s->obj.loop->stats.syscalls++;
		ssize_t n = recv(s->obj.fd, ep->rx, sizeof ep->rx, MSG_DONTWAIT);
		if (n > 0)
			sbx_stream_on_bytes(s, ep->rx, (size_t)n);
		else if (n == 0)
			sbx_stream_on_end(s, 0);
		else if (errno != EAGAIN && errno != EINTR)
			sbx_stream_on_end(s, -errno);
	} else if (!s->ended && events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)) {
		int err = 0;
		socklen_t bytes = sizeof err;
		(void)getsockopt(s->obj.fd, SOL_SOCKET, SO_ERROR, &err, &bytes);
		sbx_stream_on_end(s, -err);
	}
}

static void on_watch(struct sbx_watch *w, uint32_t events)
{
	if (w->want == 0 && set_mask(&w->obj, w->installed, 0) == 0)
		w->installed = 0;
	sbx_watch_on_events(w, (events & EPOLLIN ? SBX_WATCH_IN : 0u) | (events & EPOLLOUT ? SBX_WATCH_OUT : 0u) |
	                               (events & (EPOLLERR | EPOLLHUP) ? SBX_WATCH_ERR : 0u));
}

static void epoll_dispatch(struct sbx_loop *loop)
{
	struct epoll_impl *ep = loop->impl;
	for (int i = 0; i < ep->n_events; i++) {
		struct sbx_loop_obj *o = sbx_loop_lookup(loop, ep->events[i].data.u64);
		loop->stats.events++;
		if (!o || o->dead) {
			loop->stats.stale++;
			continue;
		}
		if (o->kind == SBX_OBJ_STREAM)
			on_stream((struct sbx_stream *)o, ep->events[i].events);
		else if (o->kind == SBX_OBJ_LISTENER)
			on_listener((struct sbx_listener *)o);
		else
			on_watch((struct sbx_watch *)o, ep->events[i].events);
	}
	ep->n_events = 0;
}

static int epoll_wait_ns(struct sbx_loop *loop, uint64_t timeout_ns)
{
	struct epoll_impl *ep = loop->impl;
	struct timespec ts = { (time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u) };
	loop->stats.syscalls++;
	int n = epoll_pwait2(ep->fd, ep->events, EVENTS_MAX, timeout_ns == SBX_NEVER_NS ? NULL : &ts, NULL);
	ep->n_events = n > 0 ? n : 0;
	return n >= 0 || errno == EINTR ? 0 : -errno;
}

/* ---- open and close ---- */

static int epoll_open(struct sbx_loop *loop, char *why, size_t why_bytes)
{
	struct epoll_impl *ep = malloc(sizeof *ep);
	if (!ep) {
		(void)snprintf(why, why_bytes, "epoll: out of memory");
		return -ENOMEM;
	}
	ep->n_events = 0;
	ep->fd = epoll_create1(EPOLL_CLOEXEC);
	if (ep->fd < 0) {
		int err = errno;
		(void)snprintf(why, why_bytes, "epoll: %s", strerror(err));
		free(ep);
		return -err;
	}
	loop->impl = ep;
	return 0;
}

static void epoll_close(struct sbx_loop *loop)
{
	struct epoll_impl *ep = loop->impl;
	(void)close(ep->fd);
	free(ep);
}

const struct sbx_loop_backend sbx_loop_epoll = {
	.kind = SBX_LOOP_EPOLL,
	.open = epoll_open,
	.close = epoll_close,
	.wait = epoll_wait_ns,
	.dispatch = epoll_dispatch,
	.sync = epoll_sync,
	.detach = epoll_detach,
};
