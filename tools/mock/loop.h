/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The double's own event loop: epoll, a heap of timers, and a list of things
 * to do at the end of the turn.  One thread.
 *
 * It is not the agent's loop on purpose: the two ends of a test must not share
 * a bug, and a double that breaks the protocol wants the bare descriptor.
 *
 * A turn: wait for events or the next timer, hand out events, run due timers,
 * then run everything deferred.  Objects are closed and freed only from
 * deferred work, so no callback has its object freed under it.
 */
#ifndef SIGNALBOX_TOOLS_MOCK_LOOP_H
#define SIGNALBOX_TOOLS_MOCK_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define mock_owner_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* A descriptor in the epoll set; embedded in its owner. */
struct mock_source {
	int fd;
	void (*on_event)(struct mock_source *source, uint32_t epoll_events);
};

/* One-shot timer; embedded in its owner; all zero = idle. */
struct mock_timer {
	uint64_t due_ns; /* CLOCK_MONOTONIC */
	size_t place;    /* 1-based place in the heap; 0 = not armed */
	void (*on_due)(struct mock_timer *timer);
};

/* Work for the end of the turn; embedded in its owner; all zero = idle. */
struct mock_defer {
	struct mock_defer *next;
	bool queued;
	void (*run)(struct mock_defer *defer);
};

struct mock_loop {
	int epoll_fd;
	uint64_t now_ns;            /* CLOCK_MONOTONIC at the start of the turn */
	bool stop;                  /* ends mock_loop_run() after this turn */
	struct mock_timer **heap;   /* heap[1..n_timers], owned array of borrowed timers */
	size_t n_timers;
	size_t cap_timers;
	struct mock_defer *defer_head;
	struct mock_defer **defer_tail;
};

/* Returns 0 or -errno. */
int mock_loop_init(struct mock_loop *loop);
void mock_loop_fini(struct mock_loop *loop);
void mock_loop_run(struct mock_loop *loop);

/* Reads the clock anew; also the value of loop->now_ns from here on. */
uint64_t mock_loop_clock(struct mock_loop *loop);

/* Puts a descriptor into the set, with `epoll_events` such as EPOLLIN | EPOLLET;
 * -errno on failure.  Closing the descriptor takes it out. */
int mock_loop_watch(struct mock_loop *loop, struct mock_source *source, uint32_t epoll_events);
void mock_loop_unwatch(struct mock_loop *loop, struct mock_source *source);

/* Arms or re-arms; a time in the past fires in this turn or the next. */
void mock_timer_arm(struct mock_loop *loop, struct mock_timer *timer, uint64_t due_ns);
void mock_timer_stop(struct mock_loop *loop, struct mock_timer *timer);

/* Queues once; a second call before it ran is a no-op.  The owner may free itself in run(). */
void mock_loop_defer(struct mock_loop *loop, struct mock_defer *defer);
/* Takes it out of the queue again (its owner is about to be freed). */
void mock_loop_undefer(struct mock_loop *loop, struct mock_defer *defer);

#endif
