/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.c -- the part of the event loop that both backends share: slots, the turn, listeners and watches.
 *
 * A turn, in this order:
 *   sync      each dirty object: operations are armed or given up, queued bytes are sent
 *   wait      one system call, until an event, the caller's deadline, or one of ours (linger, starved)
 *   dispatch  kernel events, then the ready list; every callback runs here
 *   reap      objects that are dead and that the kernel let go of: descriptors closed, memory freed. Once before the wait
 *             too, for those that were closed between turns; such a turn does not block
 *
 * loop_internal.h explains the lists; loop_stream.c is the stream half; loop_uring.c and loop_epoll.c are the backends.
 */
#include "agent/io/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "agent/io/loop_internal.h"

/* Doubling from here; 16 bytes each. */
#define SLOTS_FIRST 64u

uint64_t sbx_loop_clock_ns(void)
{
	struct timespec ts;
	(void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail for this clock */
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- slots ---- */

static int grow_slots(struct sbx_loop *loop)
{
	uint32_t n = loop->n_slots ? loop->n_slots * 2 : SLOTS_FIRST;
	if (n > SBX_SLOT_MAX)
		return -ENOMEM;
	struct sbx_loop_slot *slots = realloc(loop->slots, n * sizeof *slots);
	if (!slots)
		return -ENOMEM;
	for (uint32_t i = loop->n_slots; i < n; i++)
		slots[i] = (struct sbx_loop_slot){ .generation = 1, .next_free = i + 1 < n ? i + 1 : SBX_SLOT_NONE };
	loop->slots = slots;
	loop->free_slot = loop->n_slots;
	loop->n_slots = n;
	return 0;
}

int sbx_loop_add(struct sbx_loop *loop, struct sbx_loop_obj *o, enum sbx_loop_obj_kind kind, int fd)
{
	if (loop->free_slot == SBX_SLOT_NONE) {
		int rc = grow_slots(loop);
		if (rc < 0)
			return rc;
	}
	uint32_t slot = loop->free_slot;
	loop->free_slot = loop->slots[slot].next_free;
	loop->slots[slot].obj = o;
	loop->n_objects++;
	o->loop = loop;
	o->fd = fd;
	o->slot = slot;
	o->kind = (uint8_t)kind;
	sbx_loop_dirty(o);
	return 0;
}

uint64_t sbx_loop_name(const struct sbx_loop_obj *o)
{
	return (uint64_t)o->slot << 32 | o->loop->slots[o->slot].generation;
}

struct sbx_loop_obj *sbx_loop_lookup(const struct sbx_loop *loop, uint64_t name)
{
	uint32_t slot = (uint32_t)(name >> 32) & (SBX_SLOT_MAX - 1);
	if (slot >= loop->n_slots || loop->slots[slot].generation != (uint32_t)name)
		return NULL;
	return loop->slots[slot].obj;
}

/* ---- lists ---- */

void sbx_loop_dirty(struct sbx_loop_obj *o)
{
	if (o->dirty || o->starved)
		return;
	o->dirty = true;
	TAILQ_INSERT_TAIL(&o->loop->dirty, o, dirty_link);
}

static void undirty(struct sbx_loop_obj *o)
{
	if (!o->dirty)
		return;
	o->dirty = false;
	TAILQ_REMOVE(&o->loop->dirty, o, dirty_link);
}

void sbx_loop_ready(struct sbx_loop_obj *o)
{
	if (o->ready || o->dead)
		return;
	o->ready = true;
	TAILQ_INSERT_TAIL(&o->loop->ready, o, ready_link);
}

static void unready(struct sbx_loop_obj *o)
{
	if (!o->ready)
		return;
	o->ready = false;
	TAILQ_REMOVE(&o->loop->ready, o, ready_link);
}

void sbx_loop_starve(struct sbx_loop_obj *o)
{
	struct sbx_loop *loop = o->loop;
	if (o->starved || o->dead)
		return;
	undirty(o);
	if (TAILQ_EMPTY(&loop->starved))
		loop->starved_until_ns = sbx_loop_clock_ns() + SBX_STARVED_NS;
	o->starved = true;
	TAILQ_INSERT_TAIL(&loop->starved, o, starved_link);
}

static void unstarve(struct sbx_loop_obj *o)
{
	if (!o->starved)
		return;
	o->starved = false;
	TAILQ_REMOVE(&o->loop->starved, o, starved_link);
}

static void feed_starved(struct sbx_loop *loop)
{
	struct sbx_loop_obj *o;
	while ((o = TAILQ_FIRST(&loop->starved))) {
		unstarve(o);
		sbx_loop_dirty(o);
	}
}

void sbx_loop_kill(struct sbx_loop_obj *o)
{
	assert(!o->dead);
	o->loop->backend->detach(o);
	o->dead = true;
	unready(o);
	unstarve(o);
	undirty(o);
	if (o->in_flight > 0)
		sbx_loop_dirty(o); /* sync gives the operations up */
	TAILQ_INSERT_TAIL(&o->loop->dead, o, dead_link);
}

/* ---- the turn ---- */

/* True if anything was freed. */
static bool reap(struct sbx_loop *loop)
{
	uint32_t before = loop->n_objects;
	struct sbx_loop_obj *o = TAILQ_FIRST(&loop->dead);
	while (o) {
		struct sbx_loop_obj *next = TAILQ_NEXT(o, dead_link);
		if (o->in_flight == 0) {
			TAILQ_REMOVE(&loop->dead, o, dead_link);
			undirty(o);
			if (o->kind == SBX_OBJ_STREAM) {
				sbx_stream_fini((struct sbx_stream *)o);
				feed_starved(loop); /* a descriptor came free */
			}
			struct sbx_loop_slot *slot = &loop->slots[o->slot];
			slot->obj = NULL;
			slot->generation++;
			slot->next_free = loop->free_slot;
			loop->free_slot = o->slot;
			loop->n_objects--;
			free(o); /* obj is the first member of each kind */
		}
		o = next;
	}
	return loop->n_objects != before;
}

/* False when the backend had no room for all: the wait must not block then. */
static bool sync_dirty(struct sbx_loop *loop)
{
	struct sbx_loop_obj *o;
	while ((o = TAILQ_FIRST(&loop->dirty))) {
		undirty(o);
		if (!loop->backend->sync(o)) {
			sbx_loop_dirty(o);
			return false;
		}
	}
	return true;
}

static void expire_lingering(struct sbx_loop *loop, uint64_t now_ns)
{
	struct sbx_stream *s;
	while ((s = TAILQ_FIRST(&loop->lingering)) && s->linger_until_ns <= now_ns)
		sbx_stream_expire(s);
}

/* Only those that are ready now: what becomes ready meanwhile waits for the next turn, so that kernel events get theirs. */
static void dispatch_ready(struct sbx_loop *loop)
{
	struct sbx_loop_obj *o, *last = TAILQ_LAST(&loop->ready, sbx_loop_list);
	unsigned n = 0;
	TAILQ_FOREACH(o, &loop->ready, ready_link) {
		n++;
		if (o == last)
			break;
	}
	while (n-- > 0 && (o = TAILQ_FIRST(&loop->ready))) {
		unready(o);
		if (o->kind == SBX_OBJ_STREAM)
			sbx_stream_tell((struct sbx_stream *)o);
		else
			sbx_watch_on_events((struct sbx_watch *)o, SBX_WATCH_ERR);
	}
}

static uint64_t wait_limit(const struct sbx_loop *loop, uint64_t until_ns)
{
	uint64_t t = until_ns;
	if (!TAILQ_EMPTY(&loop->starved) && loop->starved_until_ns < t)
		t = loop->starved_until_ns;
	const struct sbx_stream *s = TAILQ_FIRST(&loop->lingering);
	if (s && s->linger_until_ns < t)
		t = s->linger_until_ns;
	if (t == 0 || t == SBX_NEVER_NS)
		return t;
	uint64_t now_ns = sbx_loop_clock_ns();
	return t > now_ns ? t - now_ns : 0;
}

int sbx_loop_turn(struct sbx_loop *loop, uint64_t until_ns)
{
	assert(!loop->in_turn); /* a callback must not turn the loop */
	loop->in_turn = true;
	bool done = sync_dirty(loop);
	done &= !reap(loop); /* closed between turns: their peers shall not wait for our next event */
	uint64_t timeout_ns = done && TAILQ_EMPTY(&loop->ready) ? wait_limit(loop, until_ns) : 0;
	int rc = loop->backend->wait(loop, timeout_ns);
	loop->now_ns = sbx_loop_clock_ns();
	loop->stats.turns++;
	loop->backend->dispatch(loop);
	dispatch_ready(loop);
	expire_lingering(loop, loop->now_ns);
	if (!TAILQ_EMPTY(&loop->starved) && loop->starved_until_ns <= loop->now_ns)
		feed_starved(loop);
	(void)reap(loop);
	loop->in_turn = false;
	return rc;
}

uint64_t sbx_loop_now_ns(const struct sbx_loop *loop)
{
	return loop->now_ns;
}

/* ---- the loop itself ---- */

int sbx_loop_new(enum sbx_loop_kind kind, char *why, size_t why_bytes, struct sbx_loop **ret_loop)
{
	struct sbx_loop *loop = calloc(1, sizeof *loop);
	if (!loop) {
		(void)snprintf(why, why_bytes, "out of memory");
		return -ENOMEM;
	}
	TAILQ_INIT(&loop->dirty);
	TAILQ_INIT(&loop->ready);
	TAILQ_INIT(&loop->starved);
	TAILQ_INIT(&loop->dead);
	TAILQ_INIT(&loop->lingering);
	TAILQ_INIT(&loop->spare);
	loop->free_slot = SBX_SLOT_NONE;
	loop->now_ns = sbx_loop_clock_ns();

	int rc = -EINVAL;
	if (kind != SBX_LOOP_EPOLL) {
		loop->backend = &sbx_loop_uring;
		rc = loop->backend->open(loop, why, why_bytes);
	} else {
		(void)snprintf(why, why_bytes, "epoll: as asked");
	}
	if (kind == SBX_LOOP_EPOLL || (kind == SBX_LOOP_AUTO && rc < 0)) {
		loop->backend = &sbx_loop_epoll; /* keeps the sentence why, unless it fails itself */
		rc = loop->backend->open(loop, why, why_bytes);
	}
	if (rc < 0) {
		free(loop);
		return rc;
	}
	*ret_loop = loop;
	return 0;
}

void sbx_loop_free(struct sbx_loop *loop)
{
	if (!loop)
		return;
	loop->freeing = true;
	for (uint32_t i = 0; i < loop->n_slots; i++) {
		struct sbx_loop_obj *o = loop->slots[i].obj;
		if (!o || o->dead)
			continue;
		if (o->kind == SBX_OBJ_STREAM && ((struct sbx_stream *)o)->closing)
			continue; /* has its own deadline */
		if (o->kind == SBX_OBJ_STREAM)
			sbx_stream_close((struct sbx_stream *)o, false, 0);
		else
			sbx_loop_kill(o);
	}
	while (loop->n_objects > 0)
		if (sbx_loop_turn(loop, SBX_NEVER_NS) < 0)
			break; /* a dead kernel: better a leak than a hang */
	loop->backend->close(loop);
	sbx_stream_fini_spare(loop);
	free(loop->slots);
	free(loop);
}

enum sbx_loop_kind sbx_loop_kind(const struct sbx_loop *loop)
{
	return loop->backend->kind;
}

const struct sbx_loop_stats *sbx_loop_stats(const struct sbx_loop *loop)
{
	return &loop->stats;
}

/* ---- listeners ---- */

int sbx_listener_new(struct sbx_loop *loop, int fd, sbx_accept_fn *on_accept, void *arg, struct sbx_listener **ret)
{
	struct sbx_listener *l = calloc(1, sizeof *l);
	if (!l)
		return -ENOMEM;
	l->on_accept = on_accept;
	l->arg = arg;
	int rc = sbx_loop_add(loop, &l->obj, SBX_OBJ_LISTENER, fd);
	if (rc < 0) {
		free(l);
		return rc;
	}
	*ret = l;
	return 0;
}

void sbx_listener_pause(struct sbx_listener *l, bool paused)
{
	if (l->paused == paused)
		return;
	l->paused = paused;
	sbx_loop_dirty(&l->obj);
}

void sbx_listener_free(struct sbx_listener *l)
{
	if (!l || l->freeing)
		return;
	l->freeing = true; /* on_accept may be called once more from here, and free it again */
	sbx_loop_kill(&l->obj);
}

void sbx_listener_on_result(struct sbx_listener *l, int fd_or_err)
{
	struct sbx_loop *loop = l->obj.loop;
	if (fd_or_err >= 0) {
		loop->stats.accepts++;
		if (loop->freeing)
			(void)close(fd_or_err);
		else
			l->on_accept(l->arg, fd_or_err);
		return;
	}
	switch (-fd_or_err) {
	case EAGAIN: case EINTR: case ECANCELED: /* nothing there; or taken back by ourselves */
	case ECONNABORTED: case EPROTO:          /* it left before we came */
		break;
	default: /* EMFILE, ENFILE, ENOBUFS, ENOMEM; and whatever else would come back at once */
		loop->stats.accept_pauses++;
		sbx_loop_starve(&l->obj);
	}
}

/* ---- watches ---- */

int sbx_watch_new(struct sbx_loop *loop, int fd, unsigned events, sbx_watch_fn *fn, void *arg, struct sbx_watch **ret)
{
	struct sbx_watch *w = calloc(1, sizeof *w);
	if (!w)
		return -ENOMEM;
	w->fn = fn;
	w->arg = arg;
	w->want = events & (SBX_WATCH_IN | SBX_WATCH_OUT);
	int rc = sbx_loop_add(loop, &w->obj, SBX_OBJ_WATCH, fd);
	if (rc < 0) {
		free(w);
		return rc;
	}
	*ret = w;
	return 0;
}

void sbx_watch_set(struct sbx_watch *w, unsigned events)
{
	events &= SBX_WATCH_IN | SBX_WATCH_OUT;
	if (w->want == events)
		return;
	w->want = events;
	w->failed = false;
	sbx_loop_dirty(&w->obj);
}

void sbx_watch_on_failure(struct sbx_watch *w)
{
	w->failed = true;
	sbx_loop_ready(&w->obj);
}

void sbx_watch_on_events(struct sbx_watch *w, unsigned events)
{
	if (events & SBX_WATCH_ERR)
		events |= w->want;
	events &= w->want | SBX_WATCH_ERR;
	if (w->want && events)
		w->fn(w->arg, w->obj.fd, events);
}

void sbx_watch_free(struct sbx_watch *w)
{
	if (w)
		sbx_loop_kill(&w->obj);
}
