/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoll, timers and deferred work; see loop.h.
 *
 * Timers are a binary heap that knows each timer's place, so that stopping one
 * costs O(log n): a stream of 100 events a second arms and fires one timer per
 * event, and ten thousand of them share the heap.
 */
#include "tools/mock/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_PER_TURN 256 /* large enough to amortise epoll_wait, small on the stack */
#define NS_PER_S 1000000000ull

static void heap_set(struct mock_loop *loop, size_t at, struct mock_timer *timer)
{
	loop->heap[at] = timer;
	timer->place = at;
}

static void heap_up(struct mock_loop *loop, size_t at)
{
	struct mock_timer *timer = loop->heap[at];

	while (at > 1 && loop->heap[at / 2]->due_ns > timer->due_ns) {
		heap_set(loop, at, loop->heap[at / 2]);
		at /= 2;
	}
	heap_set(loop, at, timer);
}

static void heap_down(struct mock_loop *loop, size_t at)
{
	struct mock_timer *timer = loop->heap[at];

	for (;;) {
		size_t child = at * 2;

		if (child > loop->n_timers)
			break;
		if (child < loop->n_timers && loop->heap[child + 1]->due_ns < loop->heap[child]->due_ns)
			child++;
		if (loop->heap[child]->due_ns >= timer->due_ns)
			break;
		heap_set(loop, at, loop->heap[child]);
		at = child;
	}
	heap_set(loop, at, timer);
}

static void run_timers(struct mock_loop *loop)
{
	while (loop->n_timers > 0 && loop->heap[1]->due_ns <= loop->now_ns) {
		struct mock_timer *timer = loop->heap[1];

		mock_timer_stop(loop, timer);
		timer->on_due(timer);
	}
}

static void run_deferred(struct mock_loop *loop)
{
	while (loop->defer_head != NULL) {
		struct mock_defer *defer = loop->defer_head;

		loop->defer_head = defer->next;
		if (loop->defer_head == NULL)
			loop->defer_tail = &loop->defer_head;
		defer->queued = false;
		defer->run(defer);
	}
}

int mock_loop_init(struct mock_loop *loop)
{
	*loop = (struct mock_loop){ .epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
	if (loop->epoll_fd < 0)
		return -errno;
	loop->defer_tail = &loop->defer_head;
	(void)mock_loop_clock(loop);
	return 0;
}

void mock_loop_fini(struct mock_loop *loop)
{
	free(loop->heap);
	if (loop->epoll_fd >= 0)
		(void)close(loop->epoll_fd);
	*loop = (struct mock_loop){ .epoll_fd = -1 };
}

uint64_t mock_loop_clock(struct mock_loop *loop)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	loop->now_ns = (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
	return loop->now_ns;
}

/* epoll_pwait2 for its nanoseconds; valgrind 3.19 and old sandboxes lack it and get rounded-up milliseconds. */
static int wait_events(struct mock_loop *loop, struct epoll_event *events, const struct timespec *limit)
{
	static bool lacking;
	int64_t limit_ms = -1;

	if (!lacking) {
		int n = epoll_pwait2(loop->epoll_fd, events, EVENTS_PER_TURN, limit, NULL);

		if (n >= 0 || errno != ENOSYS)
			return n;
		lacking = true;
	}
	if (limit != NULL)
		limit_ms = (int64_t)limit->tv_sec * 1000 + (limit->tv_nsec + 999999) / 1000000;
	return epoll_wait(loop->epoll_fd, events, EVENTS_PER_TURN, limit_ms > INT32_MAX ? INT32_MAX : (int)limit_ms);
}

void mock_loop_run(struct mock_loop *loop)
{
	struct epoll_event events[EVENTS_PER_TURN];

	run_deferred(loop);
	while (!loop->stop) {
		struct timespec wait;
		struct timespec *limit = NULL;
		int n;

		if (loop->n_timers > 0) {
			uint64_t due_ns = loop->heap[1]->due_ns;
			uint64_t rest_ns = due_ns > loop->now_ns ? due_ns - loop->now_ns : 0;

    wait.tv_sec = (time_t)(rest_ns / NS_PER_S);
    wait.tv_nsec = (long)(rest_ns % NS_PER_S);
    limit = &wait;
		}
		n = wait_events(loop, events, limit);
		(void)mock_loop_clock(loop);
		if (n < 0 && errno != EINTR) {
			perror("signalbox-mock: epoll_wait");
			return;
		}
		for (int i = 0; i < n; i++) {
			struct mock_source *source = events[i].data.ptr;

    source->on_event(source, events[i].events);
		}
		run_timers(loop);
		run_deferred(loop);
	}
}

int mock_loop_watch(struct mock_loop *loop, struct mock_source *source, uint32_t epoll_events)
{
	struct epoll_event event = { .events = epoll_events, .data.ptr = source };

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

void mock_loop_unwatch(struct mock_loop *loop, struct mock_source *source)
{
	(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
}

void mock_timer_arm(struct mock_loop *loop, struct mock_timer *timer, uint64_t due_ns)
{
	mock_timer_stop(loop, timer);
	if (loop->n_timers + 1 >= loop->cap_timers) {
		size_t cap = loop->cap_timers == 0 ? 64 : loop->cap_timers * 2;
		struct mock_timer **heap = realloc(loop->heap, cap * sizeof(struct mock_timer *));

		if (heap == NULL) {
			fputs("signalbox-mock: out of memory\n", stderr);
			exit(70);
		}
		loop->heap = heap;
		loop->cap_timers = cap;
	}
	timer->due_ns = due_ns;
	loop->heap[++loop->n_timers] = timer;
	heap_up(loop, loop->n_timers);
}

void mock_timer_stop(struct mock_loop *loop, struct mock_timer *timer)
{
	size_t at = timer->place;
	struct mock_timer *last;

	if (at == 0)
		return;
	assert(at <= loop->n_timers && loop->heap[at] == timer);
	timer->place = 0;
	last = loop->heap[loop->n_timers--];
	if (last == timer)
		return;
	heap_set(loop, at, last);
	heap_up(loop, at);
	heap_down(loop, last->place);
}

void mock_loop_defer(struct mock_loop *loop, struct mock_defer *defer)
{
	if (defer->queued)
		return;
	defer->queued = true;
	defer->next = NULL;
	*loop->defer_tail = defer;
	loop->defer_tail = &defer->next;
}

void mock_loop_undefer(struct mock_loop *loop, struct mock_defer *defer)
{
	if (!defer->queued)
		return;
	for (struct mock_defer **at = &loop->defer_head; *at != NULL; at = &(*at)->next) {
		if (*at != defer)
			continue;
		*at = defer->next;
		if (*at == NULL)
			loop->defer_tail = at;
		break;
	}
	defer->queued = false;
}
