/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_rig.h -- what the tests of the event loop share: a loop of either kind, and peers that check what they get.
 *
 * No case sleeps for luck: UNTIL() turns the loop until a condition holds, and fails after five seconds. Its turns are
 * short, since many conditions are about descriptors that the loop does not know. A turn may end early without an event
 * (EINTR: the ring of the previous case is still being taken down by the kernel), so quiet is measured by counting turns.
 */
#ifndef SBX_TESTS_UNIT_LOOP_RIG_H
#define SBX_TESTS_UNIT_LOOP_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/io/loop.h"
#include "agent/io/loop_internal.h"

#define MS 1000000ull
#define UNTIL(loop, cond)                                                            \
	do {                                                                         \
		uint64_t until_end_ns = sbx_loop_clock_ns() + 5000 * MS;             \
		while (!(cond)) {                                                    \
			assert_true(sbx_loop_clock_ns() < until_end_ns);             \
			assert_int_equal(sbx_loop_turn(loop, sbx_loop_clock_ns() + 5 * MS), 0); \
		}                                                                    \
	} while (0)
#define TURNS(loop, n)                                                               \
	for (int turns_left = (n); turns_left > 0; turns_left--)                     \
	assert_int_equal(sbx_loop_turn(loop, sbx_loop_clock_ns() + 1 * MS), 0)

struct world {
	enum sbx_loop_kind kind;
	struct sbx_loop *loop;
};

static inline int set_up(void **state)
{
	struct world *w = *state;
	char why[128];
	w->loop = NULL;
	int rc = sbx_loop_new(w->kind, why, sizeof why, &w->loop);
	if (rc < 0)
		print_message("no loop: %s\n", why);
	return rc < 0 && w->kind == SBX_LOOP_EPOLL ? -1 : 0;
}

static inline int tear_down(void **state)
{
	struct world *w = *state;
	sbx_loop_free(w->loop);
	w->loop = NULL;
	return 0;
}

static inline struct sbx_loop *loop_of(void **state)
{
	struct world *w = *state;
	if (!w->loop)
		skip();
	return w->loop;
}

static inline void pair(int fd[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd), 0);
}

static inline uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

static inline uint8_t *new_pattern(size_t bytes)
{
	uint8_t *p = malloc(bytes);
	assert_non_null(p);
	for (size_t i = 0; i < bytes; i++)
		p[i] = pattern(i);
	return p;
}

/* One end of a connection that checks what it gets against the pattern. */
struct end {
	struct sbx_stream *s;
	size_t got;
	int ends, end_err, drains, calls;
	bool echo, pause_at_once, close_at_once, wrong;
};

static inline void on_data(void *arg, const uint8_t *data, size_t bytes)
{
	struct end *e = arg;
	e->calls++;
	for (size_t i = 0; i < bytes; i++)
		e->wrong |= data[i] != pattern(e->got + i);
	e->got += bytes;
	if (e->echo)
		assert_int_equal(sbx_stream_send(e->s, data, bytes, -1), 0);
	if (e->pause_at_once)
		sbx_stream_pause(e->s, true);
	if (e->close_at_once)
		sbx_stream_close(e->s, false, 0);
}

static inline void on_end(void *arg, int err)
{
	struct end *e = arg;
	e->ends++;
	e->end_err = err;
}

static inline void on_drain(void *arg)
{
	struct end *e = arg;
	e->drains++;
}

static const struct sbx_stream_ops end_ops = { on_data, on_end, on_drain };

static inline void open_end(struct sbx_loop *loop, struct end *e, int fd)
{
	assert_int_equal(sbx_stream_new(loop, fd, &end_ops, e, 64 * 1024, &e->s), 0);
}

/* Bytes now readable from a plain descriptor; 0 = would block, -1 = end. */
static inline ssize_t drain_fd(int fd)
{
	static uint8_t buf[256 * 1024];
	ssize_t all = 0;
	for (;;) {
		ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
		if (n <= 0)
			return n < 0 && errno == EAGAIN ? all : all > 0 ? all : -1;
		all += n;
	}
}

static inline unsigned count_fds(void)
{
	unsigned n = 0;
	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* ---- a listening socket and who comes in ---- */

struct door {
	struct sbx_loop *loop;
	struct sbx_listener *l;
	int fds[64], n;
	bool free_at_once;
};

static inline void on_accept(void *arg, int fd)
{
	struct door *d = arg;
	d->fds[d->n++] = fd;
	if (d->free_at_once)
		sbx_listener_free(d->l);
}

static inline int listen_on(struct sockaddr_un *a)
{
	static int n;
	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	/* abstract: nothing to clean up */
	(void)snprintf(a->sun_path + 1, sizeof a->sun_path - 1, "signalbox-test-loop-%d-%d", (int)getpid(), n++);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)a, sizeof *a), 0);
	assert_int_equal(listen(fd, 64), 0);
	return fd;
}

static inline int connect_to(const struct sockaddr_un *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)a, sizeof *a), 0);
	return fd;
}

static inline void close_all(struct door *d)
{
	while (d->n > 0)
		close(d->fds[--d->n]);
}

/* ---- a watch and what it said ---- */

struct eye {
	struct sbx_watch *w;
	unsigned events;
	int calls;
	bool free_at_once;
};

static inline void on_watch(void *arg, int fd, unsigned events)
{
	struct eye *e = arg;
	(void)fd;
	e->calls++;
	e->events = events;
	if (e->free_at_once)
		sbx_watch_free(e->w);
}

/* ---- both kinds of loop ---- */

static struct world uring = { SBX_LOOP_URING, NULL }, epoll = { SBX_LOOP_EPOLL, NULL };
#define BOTH(test)                                                                         \
	{ #test " (io_uring)", test, set_up, tear_down, &uring },                          \
	{ #test " (epoll)", test, set_up, tear_down, &epoll }

#endif
