/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_loop.c -- the event loop, every case over io_uring and over epoll (io_uring is skipped where the kernel refuses it).
 *
 * No case sleeps for luck: UNTIL() turns the loop until a condition holds, and fails after five seconds. Its turns are
 * short, since many conditions are about descriptors that the loop does not know. A turn may end early without an event
 * (EINTR: the ring of the previous case is still being taken down by the kernel), so quiet is measured by counting turns.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
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

static int set_up(void **state)
{
	struct world *w = *state;
	char why[128];
	w->loop = NULL;
	int rc = sbx_loop_new(w->kind, why, sizeof why, &w->loop);
	if (rc < 0)
		print_message("no loop: %s\n", why);
	return rc < 0 && w->kind == SBX_LOOP_EPOLL ? -1 : 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	sbx_loop_free(w->loop);
	w->loop = NULL;
	return 0;
}

static struct sbx_loop *loop_of(void **state)
{
	struct world *w = *state;
	if (!w->loop)
		skip();
	return w->loop;
}

static void pair(int fd[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd), 0);
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

static uint8_t *new_pattern(size_t bytes)
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

static void on_data(void *arg, const uint8_t *data, size_t bytes)
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

static void on_end(void *arg, int err)
{
	struct end *e = arg;
	e->ends++;
	e->end_err = err;
}

static void on_drain(void *arg)
{
	struct end *e = arg;
	e->drains++;
}

static const struct sbx_stream_ops end_ops = { on_data, on_end, on_drain };

static void open_end(struct sbx_loop *loop, struct end *e, int fd)
{
	assert_int_equal(sbx_stream_new(loop, fd, &end_ops, e, 64 * 1024, &e->s), 0);
}

/* Bytes now readable from a plain descriptor; 0 = would block, -1 = end. */
static ssize_t drain_fd(int fd)
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

static unsigned count_fds(void)
{
	unsigned n = 0;
	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* ---- streams ---- */

static void test_echo(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	static const size_t sizes[] = { 1, 2, 4000, 4095, 4096, 4097, 8192, 65536, 65537, 300000, 1024 * 1024 };
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		int fd[2];
		struct end client = { 0 }, server = { .echo = true };
		uint8_t *data = new_pattern(sizes[i]);
		pair(fd);
		open_end(loop, &client, fd[0]);
		open_end(loop, &server, fd[1]);
		assert_int_equal(sbx_stream_send(client.s, data, sizes[i], -1), 0);
		UNTIL(loop, client.got == sizes[i]);
		assert_false(client.wrong || server.wrong);
		sbx_stream_close(client.s, false, 0);
		UNTIL(loop, server.ends == 1);
		assert_int_equal(server.end_err, 0);
		assert_int_equal(sbx_stream_send(server.s, "x", 1, -1), -EPIPE);
		sbx_stream_close(server.s, true, 1000 * MS);
		free(data);
	}
	UNTIL(loop, loop->n_objects == 0);
}

static void test_reserve(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	struct end peer = { 0 }, e = { 0 };
	pair(fd);
	open_end(loop, &e, fd[0]);
	open_end(loop, &peer, fd[1]);
	size_t sent = 0;
	for (size_t n = 1; n < 40000; n = n * 3 + 1) {
		assert_non_null(sbx_stream_reserve(e.s, 10)); /* and thought better of it */
		uint8_t *p = sbx_stream_reserve(e.s, n);
		assert_non_null(p);
		for (size_t i = 0; i < n; i++)
			p[i] = pattern(sent + i);
		sbx_stream_commit(e.s, n);
		sent += n;
	}
	assert_int_equal(sbx_stream_unsent_bytes(e.s), sent);
	UNTIL(loop, peer.got == sent);
	assert_false(peer.wrong);
	assert_int_equal(sbx_stream_unsent_bytes(e.s), 0);
	assert_null(sbx_stream_reserve(e.s, SBX_STREAM_UNSENT_MAX_BYTES + 1));
	sbx_stream_close(e.s, false, 0);
	sbx_stream_close(peer.s, false, 0);
}

static void test_many_streams(void **state)
{
	enum { N = 300, BYTES = 3000 };
	struct sbx_loop *loop = loop_of(state);
	struct end *e = calloc(2 * N, sizeof *e);
	uint8_t *data = new_pattern(BYTES);
	for (int i = 0; i < N; i++) {
		int fd[2];
		pair(fd);
		e[2 * i + 1].echo = true;
		open_end(loop, &e[2 * i], fd[0]);
		open_end(loop, &e[2 * i + 1], fd[1]);
		assert_int_equal(sbx_stream_send(e[2 * i].s, data, BYTES, -1), 0);
	}
	int done;
	do {
		done = 0;
		assert_int_equal(sbx_loop_turn(loop, sbx_loop_clock_ns() + 1000 * MS), 0);
		for (int i = 0; i < N; i++)
			done += e[2 * i].got == BYTES && !e[2 * i].wrong;
	} while (done < N);
	for (int i = 0; i < 2 * N; i++)
		sbx_stream_close(e[i].s, false, 0);
	UNTIL(loop, loop->n_objects == 0);
	free(data);
	free(e);
}

static void test_pause_and_resume(void **state)
{
	enum { BYTES = 700000 };
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	struct end peer = { 0 }, e = { .pause_at_once = true };
	uint8_t *data = new_pattern(BYTES);
	pair(fd);
	open_end(loop, &e, fd[0]);
	open_end(loop, &peer, fd[1]);
	assert_int_equal(sbx_stream_send(peer.s, data, BYTES, -1), 0);
	while (e.got < BYTES) {
		int calls = e.calls;
		UNTIL(loop, e.calls == calls + 1);
		TURNS(loop, 3);
		assert_int_equal(e.calls, calls + 1); /* one call each time it is let go */
		sbx_stream_pause(e.s, false);
	}
	assert_false(e.wrong);
	sbx_stream_pause(e.s, true); /* there and back within a turn is nothing */
	sbx_stream_pause(e.s, false);
	e.pause_at_once = false;
	sbx_stream_close(peer.s, false, 0);
	UNTIL(loop, e.ends == 1);
	sbx_stream_close(e.s, false, 0);
	free(data);
}

static void test_end_while_paused(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	for (int unread = 0; unread < 2; unread++) {
		int fd[2];
		struct end e = { 0 };
		pair(fd);
		open_end(loop, &e, fd[0]);
		sbx_stream_pause(e.s, true);
		TURNS(loop, 2);
		assert_int_equal(e.ends, 0);
		if (unread)
			assert_int_equal(send(fd[1], "abc", 3, 0), 3);
		TURNS(loop, 2);
		assert_int_equal(e.ends, 0);
		uint64_t t0 = sbx_loop_clock_ns();
		close(fd[1]);
		UNTIL(loop, e.ends == 1);
		assert_true(sbx_loop_clock_ns() - t0 < 50 * MS);
		assert_int_equal(e.calls, 0);
		uint64_t turns = sbx_loop_stats(loop)->turns; /* told once, and no spinning on a dead peer */
		for (t0 = sbx_loop_clock_ns(); sbx_loop_clock_ns() < t0 + 30 * MS;)
			assert_int_equal(sbx_loop_turn(loop, t0 + 30 * MS), 0);
		assert_true(sbx_loop_stats(loop)->turns - turns < 6);
		assert_int_equal(e.ends, 1);
		sbx_stream_close(e.s, true, 1000 * MS);
	}
}

static void test_close_inside_callback(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	struct end e = { .close_at_once = true };
	pair(fd);
	open_end(loop, &e, fd[0]);
	assert_int_equal(send(fd[1], "x", 1, 0), 1);
	e.wrong = false;
	UNTIL(loop, loop->n_objects == 0);
	assert_int_equal(e.calls, 1);
	assert_int_equal(e.ends, 0);
	assert_int_equal(drain_fd(fd[1]), -1);
	close(fd[1]);
}

static void test_close_with_flush(void **state)
{
	enum { BYTES = 1024 * 1024 };
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	struct end e = { 0 };
	uint8_t *data = new_pattern(BYTES);
	pair(fd);
	open_end(loop, &e, fd[0]);
	assert_int_equal(sbx_stream_send(e.s, data, BYTES, -1), 0);
	sbx_stream_close(e.s, true, 5000 * MS);
	ssize_t got = 0, n = 0;
	for (int i = 0; n >= 0 && i < 10000; i++) {
		TURNS(loop, 1);
		n = drain_fd(fd[1]);
		got += n > 0 ? n : 0;
	}
	assert_int_equal(got, BYTES);
	assert_int_equal(e.ends + e.drains, 0);
	UNTIL(loop, loop->n_objects == 0);
	close(fd[1]);

	pair(fd); /* a peer that never reads */
	open_end(loop, &e, fd[0]);
	assert_int_equal(sbx_stream_send(e.s, data, BYTES, -1), 0);
	uint64_t t0 = sbx_loop_clock_ns();
	sbx_stream_close(e.s, true, 60 * MS);
	UNTIL(loop, loop->n_objects == 0);
	uint64_t took = sbx_loop_clock_ns() - t0;
	assert_true(took >= 60 * MS && took < 1000 * MS);
	assert_true(drain_fd(fd[1]) < BYTES);
	close(fd[1]);

	pair(fd); /* a peer that leaves meanwhile */
	open_end(loop, &e, fd[0]);
	assert_int_equal(sbx_stream_send(e.s, data, BYTES, -1), 0);
	sbx_stream_close(e.s, true, 60000 * MS);
	TURNS(loop, 2);
	close(fd[1]);
	UNTIL(loop, loop->n_objects == 0);
	free(data);
}

static void test_slow_reader(void **state)
{
	enum { BYTES = 1024 * 1024 };
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	struct end e = { 0 };
	uint8_t *data = new_pattern(BYTES);
	pair(fd);
	open_end(loop, &e, fd[0]);
	for (int i = 0; i < BYTES / 1024; i++)
		assert_int_equal(sbx_stream_send(e.s, data + i * 1024, 1024, -1), 0);
	TURNS(loop, 5);
	assert_int_equal(e.drains, 0);
	assert_true(sbx_stream_unsent_bytes(e.s) > 256 * 1024);
	uint64_t turns = sbx_loop_stats(loop)->turns, t0 = sbx_loop_clock_ns();
	while (sbx_loop_clock_ns() < t0 + 30 * MS) /* a peer that does not read costs no turns */
		assert_int_equal(sbx_loop_turn(loop, t0 + 30 * MS), 0);
	assert_true(sbx_loop_stats(loop)->turns - turns < 10);
	size_t got = 0;
	while (e.drains == 0) {
		static uint8_t buf[50000];
		ssize_t n = recv(fd[1], buf, sizeof buf, MSG_DONTWAIT);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(buf[i], pattern(got + (size_t)i));
		got += n > 0 ? (size_t)n : 0;
		assert_true(sbx_stream_unsent_bytes(e.s) > 32 * 1024 || e.drains == 0);
		TURNS(loop, 1);
	}
	assert_true(sbx_stream_unsent_bytes(e.s) <= 32 * 1024);
	UNTIL(loop, (got += (size_t)drain_fd(fd[1])) == BYTES);
	assert_int_equal(e.drains, 1);
	sbx_stream_close(e.s, false, 0);
	close(fd[1]);
	free(data);
}

static void test_peer_gone_while_sending(void **state)
{
	enum { BYTES = 1024 * 1024 };
	struct sbx_loop *loop = loop_of(state);
	for (int paused = 0; paused < 2; paused++) {
		int fd[2];
		struct end e = { 0 };
		uint8_t *data = new_pattern(BYTES);
		pair(fd);
		open_end(loop, &e, fd[0]);
		sbx_stream_pause(e.s, paused);
		assert_int_equal(sbx_stream_send(e.s, data, BYTES, -1), 0);
		TURNS(loop, 2);
		close(fd[1]);
		UNTIL(loop, e.ends == 1);
		TURNS(loop, 3);
		assert_int_equal(e.ends, 1);
		sbx_stream_close(e.s, true, 1000 * MS);
		free(data);
	}
	UNTIL(loop, loop->n_objects == 0);
}

/* The peer has finished writing but still reads: what was queued before the end is still sent by a flushing close. */
static void test_half_close(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	struct end e = { .echo = true };
	uint8_t *data = new_pattern(100000);
	pair(fd);
	open_end(loop, &e, fd[0]);
	assert_int_equal(send(fd[1], data, 100000, 0), 100000);
	assert_int_equal(shutdown(fd[1], SHUT_WR), 0);
	UNTIL(loop, e.ends == 1);
	assert_int_equal(e.got, 100000);
	sbx_stream_close(e.s, true, 5000 * MS);
	ssize_t got = 0;
	UNTIL(loop, (got += drain_fd(fd[1])) == 100000);
	close(fd[1]);
	free(data);
}

/* ---- descriptors ---- */

static void send_fd_to(int sock, int fd)
{
	struct iovec iov = { "z", 1 };
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fd)] = { 0 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	*c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd) };
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	assert_int_equal(sendmsg(sock, &m, 0), 1);
}

static void test_rights(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	int fd[2], pipe_fd[2];
	struct end e = { 0 };
	unsigned before = count_fds();
	pair(fd);
	assert_int_equal(pipe(pipe_fd), 0);
	open_end(loop, &e, fd[0]);
	assert_int_equal(sbx_stream_send(e.s, "abc", 3, -1), 0);
	assert_int_equal(sbx_stream_send(e.s, "def", 3, pipe_fd[1]), 0);
	assert_int_equal(sbx_stream_send(e.s, "ghi", 3, -1), 0);
	assert_int_equal(sbx_stream_send(e.s, "", 0, pipe_fd[1]), -EINVAL);
	assert_int_equal(sbx_stream_send(e.s, "x", 1, 1000000), -ENOMEM); /* no such descriptor */
	close(pipe_fd[1]); /* ours was duplicated */
	int received = -1;
	char text[16] = "", *at = text;
	for (int i = 0; at < text + 9 && i < 1000; i++) {
		TURNS(loop, 1);
		_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
		struct iovec iov = { at, (size_t)(text + 9 - at) };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
		                    .msg_controllen = sizeof control };
		ssize_t n = recvmsg(fd[1], &m, MSG_DONTWAIT);
		at += n > 0 ? n : 0;
		struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
		if (c)
			memcpy(&received, CMSG_DATA(c), sizeof received);
	}
	assert_string_equal(text, "abcdefghi");
	assert_true(received >= 0);
	assert_int_equal(write(received, "hi", 2), 2);
	close(received);
	TURNS(loop, 2);
	char buf[3];
	assert_int_equal(read(pipe_fd[0], buf, 3), 2);
	assert_int_equal(read(pipe_fd[0], buf, 3), 0); /* no duplicate left behind */

	unsigned open_now = count_fds(); /* and none is ever taken in */
	e.got = 0;
	for (int i = 0; i < 50; i++)
		send_fd_to(fd[1], pipe_fd[0]);
	UNTIL(loop, e.got == 50);
	assert_int_equal(count_fds(), open_now);
	sbx_stream_send(e.s, "x", 1, pipe_fd[0]); /* closed with it unsent */
	sbx_stream_close(e.s, false, 0);
	UNTIL(loop, loop->n_objects == 0);
	close(fd[1]);
	close(pipe_fd[0]);
	assert_int_equal(count_fds(), before);
}

/* ---- listeners ---- */

struct door {
	struct sbx_loop *loop;
	struct sbx_listener *l;
	int fds[64], n;
	bool free_at_once;
};

static void on_accept(void *arg, int fd)
{
	struct door *d = arg;
	d->fds[d->n++] = fd;
	if (d->free_at_once)
		sbx_listener_free(d->l);
}

static int listen_on(struct sockaddr_un *a)
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

static int connect_to(const struct sockaddr_un *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)a, sizeof *a), 0);
	return fd;
}

static void close_all(struct door *d)
{
	while (d->n > 0)
		close(d->fds[--d->n]);
}

static void test_listener(void **state)
{
	struct door d = { .loop = loop_of(state) };
	struct sockaddr_un a;
	int lfd = listen_on(&a), c[8];
	assert_int_equal(sbx_listener_new(d.loop, lfd, on_accept, &d, &d.l), 0);
	for (int i = 0; i < 3; i++)
		c[i] = connect_to(&a);
	UNTIL(d.loop, d.n == 3);
	assert_int_equal(fcntl(d.fds[0], F_GETFD), FD_CLOEXEC);
	assert_true(fcntl(d.fds[0], F_GETFL) & O_NONBLOCK);

	sbx_listener_pause(d.l, true);
	TURNS(d.loop, 2);
	c[3] = connect_to(&a);
	TURNS(d.loop, 3);
	assert_int_equal(d.n, 3);
	sbx_listener_pause(d.l, false);
	UNTIL(d.loop, d.n == 4);

	sbx_listener_free(d.l);
	TURNS(d.loop, 2);
	c[4] = connect_to(&a);
	TURNS(d.loop, 3);
	assert_int_equal(d.n, 4);

	/* Freed in the middle of a storm: each connection was handed out, or waits in the backlog for the next owner. */
	d.free_at_once = true;
	for (int i = 5; i < 8; i++)
		c[i] = connect_to(&a);
	assert_int_equal(sbx_listener_new(d.loop, lfd, on_accept, &d, &d.l), 0);
	UNTIL(d.loop, d.n >= 5);
	UNTIL(d.loop, d.loop->n_objects == 0);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(drain_fd(c[i]), 0); /* nobody was hung up on */
		close(c[i]);
	}
	int left = 0, fd;
	while ((fd = accept(lfd, NULL, NULL)) >= 0) {
		left++;
		close(fd);
	}
	assert_int_equal(d.n + left, 8);
	close(lfd);
	close_all(&d);
}

static void test_out_of_descriptors(void **state)
{
	struct door d = { .loop = loop_of(state) };
	struct sockaddr_un a;
	struct rlimit old, low;
	int lfd = listen_on(&a), c = connect_to(&a);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	int next = dup(0); /* the lowest free number: no descriptor can be had from there on */
	close(next);
	low.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_int_equal(sbx_listener_new(d.loop, lfd, on_accept, &d, &d.l), 0);
	uint64_t t0 = sbx_loop_clock_ns(), turns = sbx_loop_stats(d.loop)->turns;
	while (sbx_loop_clock_ns() < t0 + 250 * MS)
		(void)sbx_loop_turn(d.loop, t0 + 250 * MS);
	uint64_t spent = sbx_loop_stats(d.loop)->turns - turns, pauses = sbx_loop_stats(d.loop)->accept_pauses;
	(void)setrlimit(RLIMIT_NOFILE, &old);
	assert_true(pauses >= 2 && pauses <= 4);
	assert_true(spent <= 10); /* no busy loop */
	assert_int_equal(d.n, 0);
	t0 = sbx_loop_clock_ns();
	UNTIL(d.loop, d.n == 1);
	assert_true(sbx_loop_clock_ns() - t0 < 500 * MS);
	sbx_listener_free(d.l);
	close(lfd);
	close(c);
	close_all(&d);
}

/* ---- watches ---- */

struct eye {
	struct sbx_watch *w;
	unsigned events;
	int calls;
	bool free_at_once;
};

static void on_watch(void *arg, int fd, unsigned events)
{
	struct eye *e = arg;
	(void)fd;
	e->calls++;
	e->events = events;
	if (e->free_at_once)
		sbx_watch_free(e->w);
}

static void test_watch_is_level(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	char buf[8];
	struct eye e = { 0 };
	pair(fd);
	assert_int_equal(sbx_watch_new(loop, fd[0], SBX_WATCH_IN, on_watch, &e, &e.w), 0);
	TURNS(loop, 2);
	assert_int_equal(e.calls, 0);
	assert_int_equal(send(fd[1], "abc", 3, 0), 3);
	for (int i = 1; i <= 5; i++) { /* unread bytes fire again, whether or not anything was read */
		UNTIL(loop, e.calls == i);
		assert_int_equal(e.events, SBX_WATCH_IN);
		if (i == 3)
			assert_int_equal(recv(fd[0], buf, 1, 0), 1);
	}
	sbx_watch_set(e.w, 0);
	int calls = e.calls;
	TURNS(loop, 3);
	assert_int_equal(e.calls, calls);
	sbx_watch_set(e.w, SBX_WATCH_IN);
	UNTIL(loop, e.calls > calls);
	assert_int_equal(recv(fd[0], buf, 8, 0), 2);
	TURNS(loop, 1);
	calls = e.calls;
	TURNS(loop, 3);
	assert_int_equal(e.calls, calls);
	sbx_watch_set(e.w, SBX_WATCH_IN | SBX_WATCH_OUT); /* more than is armed */
	UNTIL(loop, e.calls > calls);
	assert_int_equal(e.events, SBX_WATCH_OUT);
	sbx_watch_set(e.w, SBX_WATCH_IN); /* less */
	TURNS(loop, 1);
	calls = e.calls;
	TURNS(loop, 3);
	assert_int_equal(e.calls, calls);
	close(fd[1]);
	UNTIL(loop, e.calls > calls);
	assert_true(e.events & SBX_WATCH_ERR && e.events & SBX_WATCH_IN);
	e.free_at_once = true;
	calls = e.calls;
	UNTIL(loop, loop->n_objects == 0);
	assert_int_equal(e.calls, calls + 1);
	close(fd[0]);
}

/* An armed poll keeps a file open. After sbx_watch_free() the peer must see the close in the next turn. */
static void test_watch_lets_go(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	for (int close_first = 0; close_first < 2; close_first++) {
		int fd[2];
		struct eye e = { 0 };
		pair(fd);
		assert_int_equal(sbx_watch_new(loop, fd[0], SBX_WATCH_IN, on_watch, &e, &e.w), 0);
		TURNS(loop, 2);
		if (close_first)
			close(fd[0]);
		sbx_watch_free(e.w);
		if (!close_first)
			close(fd[0]);
		int again[2]; /* the number is in use again at once, as with libcurl */
		struct eye e2 = { 0 };
		pair(again);
		assert_int_equal(sbx_watch_new(loop, again[0], SBX_WATCH_IN, on_watch, &e2, &e2.w), 0);
		uint64_t t0 = sbx_loop_clock_ns();
		assert_int_equal(sbx_loop_turn(loop, t0 + 20 * MS), 0);
		assert_int_equal(drain_fd(fd[1]), -1);
		assert_int_equal(e.calls, 0);
		assert_int_equal(send(again[1], "x", 1, 0), 1);
		UNTIL(loop, e2.calls > 0);
		sbx_watch_free(e2.w);
		close(fd[1]);
		close(again[0]);
		close(again[1]);
	}
}

static void test_watch_of_nothing(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	struct eye e = { 0 };
	int fd = dup(0);
	close(fd);
	assert_int_equal(sbx_watch_new(loop, fd, SBX_WATCH_IN, on_watch, &e, &e.w), 0);
	UNTIL(loop, e.calls > 0);
	assert_true(e.events & SBX_WATCH_ERR);
	TURNS(loop, 3);
	assert_int_equal(e.calls, 1); /* said once */
	sbx_watch_free(e.w);
}

/* ---- the loop ---- */

static void test_deadline(void **state)
{
	struct sbx_loop *loop = loop_of(state);
	static const uint64_t want[] = { 0, 300000, 2 * MS, 20 * MS };
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		uint64_t t0 = sbx_loop_clock_ns();
		int turns = 0;
		do
			assert_int_equal(sbx_loop_turn(loop, want[i] ? t0 + want[i] : 0), 0);
		while (++turns < 4 && sbx_loop_clock_ns() < t0 + want[i]);
		uint64_t took = sbx_loop_clock_ns() - t0;
		assert_true(took >= want[i]);
		assert_true(took < want[i] + 100 * MS); /* wide: the machine may be busy; the bench looks closer */
		assert_true(sbx_loop_now_ns(loop) >= t0 + want[i]);
	}
	uint64_t t0 = sbx_loop_clock_ns();
	assert_int_equal(sbx_loop_turn(loop, t0 > MS ? t0 - MS : 1), 0); /* already over */
	assert_true(sbx_loop_clock_ns() - t0 < 100 * MS);
}

static size_t rss_bytes(void)
{
	long pages = 0, all = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%ld %ld", &all, &pages), 2);
	(void)fclose(f);
	return (size_t)pages * 4096;
}

static void test_idle_streams_are_small(void **state)
{
	enum { N = 2000, BURST = 20000 };
	struct sbx_loop *loop = loop_of(state);
	struct rlimit lim;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &lim), 0);
	if (lim.rlim_cur < 2 * N + 100)
		skip();
	struct end *e = calloc(N, sizeof *e);
	int *peer = calloc(N, sizeof *peer), *mine = calloc(N, sizeof *mine);
	uint8_t *data = new_pattern(BURST);
	for (int i = 0; i < N; i++) {
		int fd[2];
		pair(fd);
		mine[i] = fd[0];
		peer[i] = fd[1];
	}
	size_t heap0 = mallinfo2().uordblks, rss0 = rss_bytes();
	for (int i = 0; i < N; i++)
		open_end(loop, &e[i], mine[i]);
	TURNS(loop, 3);
	size_t heap1 = mallinfo2().uordblks, rss1 = rss_bytes();
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < N; i++) {
			assert_int_equal(sbx_stream_send(e[i].s, data, BURST, -1), 0);
			size_t got = 0;
			if (i % 100 == 99) /* a hundred of them together */
				for (int k = i - 99; k <= i; k++, got = 0)
					UNTIL(loop, (got += (size_t)drain_fd(peer[k])) == BURST);
		}
	size_t heap2 = mallinfo2().uordblks, rss2 = rss_bytes();
	print_message("a stream: %zu bytes of heap, %zu of RSS; after bursts %zu and %zu\n", (heap1 - heap0) / N,
	              (rss1 - rss0) / N, (heap2 - heap0) / N, (rss2 - rss0) / N);
#ifndef __SANITIZE_ADDRESS__
	assert_true(heap1 - heap0 < 512 * N);
	assert_true(rss1 - rss0 < 1024 * N);
	assert_true(heap2 - heap1 < 512 * 1024); /* the spare chunks */
#endif
	for (int i = 0; i < N; i++) {
		sbx_stream_close(e[i].s, false, 0);
		close(peer[i]);
	}
	UNTIL(loop, loop->n_objects == 0);
	free(e);
	free(peer);
	free(mine);
	free(data);
}

/* Everything armed, sending, lingering, paused: sbx_loop_free() must bring it home. The sanitizer looks for the rest. */
static void test_free_in_flight(void **state)
{
	struct world *w = *state;
	struct sbx_loop *loop = loop_of(state);
	unsigned before = count_fds();
	uint8_t *data = new_pattern(1024 * 1024);
	struct sockaddr_un a;
	struct door d = { .loop = loop };
	struct end e[6] = { 0 };
	struct eye eye = { 0 };
	int fd[6][2], lfd = listen_on(&a);
	assert_int_equal(sbx_listener_new(loop, lfd, on_accept, &d, &d.l), 0);
	for (int i = 0; i < 6; i++) {
		pair(fd[i]);
		if (i < 5)
			open_end(loop, &e[i], fd[i][0]);
	}
	assert_int_equal(sbx_watch_new(loop, fd[5][0], SBX_WATCH_IN, on_watch, &eye, &eye.w), 0);
	sbx_stream_pause(e[1].s, true);
	assert_int_equal(sbx_stream_send(e[2].s, data, 1024 * 1024, lfd), 0);
	assert_int_equal(sbx_stream_send(e[3].s, data, 1024 * 1024, -1), 0);
	TURNS(loop, 3);
	sbx_stream_close(e[3].s, true, 30 * MS);
	sbx_stream_close(e[4].s, false, 0);
	int c = connect_to(&a);
	sbx_loop_free(loop);
	w->loop = NULL;
	assert_int_equal(e[0].ends + e[1].ends + e[2].ends + e[3].ends, 0);
	for (int i = 0; i < 6; i++)
		close(fd[i][1]);
	close(fd[5][0]);
	close(c);
	close(lfd);
	close_all(&d);
	free(data);
	assert_true(count_fds() < before); /* the loop's own are gone too */
}

/* ---- faults, io_uring only ---- */

struct fault {
	enum sbx_uring_op op;
	int err;        /* 0 = make it shorter */
	int every;      /* the n-th operation of that kind, and each n-th after it */
	int seen, done; /* operations; faults */
};

static int inject(void *arg, enum sbx_uring_op op, unsigned *bytes)
{
	struct fault *f = arg;
	if (op != f->op || ++f->seen % f->every != 0)
		return 0;
	f->done++;
	if (f->err == 0)
		*bytes = *bytes > 7 ? 7 : *bytes;
	return f->err;
}

static struct sbx_loop *ring_or_skip(void)
{
	char why[128];
	struct sbx_loop *loop;
	if (sbx_loop_new(SBX_LOOP_URING, why, sizeof why, &loop) < 0) {
		sbx_uring_test = NULL;
		print_message("%s\n", why);
		skip();
	}
	return loop;
}

/* Accept, echo half a megabyte with pauses, watch, close: all must come out right whatever fails on the way. */
static void everything(struct sbx_loop *loop)
{
	enum { BYTES = 500000 };
	struct sockaddr_un a;
	struct door d = { .loop = loop };
	struct end client = { .pause_at_once = true }, server = { .echo = true };
	struct eye eye = { 0 };
	int lfd = listen_on(&a), fd[2];
	uint8_t *data = new_pattern(BYTES);
	assert_int_equal(sbx_listener_new(loop, lfd, on_accept, &d, &d.l), 0);
	open_end(loop, &client, connect_to(&a));
	UNTIL(loop, d.n == 1);
	open_end(loop, &server, d.fds[0]);
	pair(fd);
	assert_int_equal(sbx_watch_new(loop, fd[0], SBX_WATCH_IN, on_watch, &eye, &eye.w), 0);
	assert_int_equal(sbx_stream_send(client.s, data, BYTES, -1), 0);
	TURNS(loop, 2);
	assert_int_equal(send(fd[1], "x", 1, 0), 1);
	while (client.got < BYTES) {
		int calls = client.calls;
		sbx_stream_pause(client.s, false);
		UNTIL(loop, client.calls > calls);
	}
	assert_false(client.wrong || server.wrong);
	UNTIL(loop, eye.calls > 3);
	sbx_stream_pause(server.s, true);
	TURNS(loop, 3);
	sbx_stream_close(client.s, true, 1000 * MS);
	UNTIL(loop, server.ends == 1);
	sbx_stream_close(server.s, false, 0);
	sbx_watch_free(eye.w);
	sbx_listener_free(d.l);
	UNTIL(loop, loop->n_objects == 0);
	close(fd[0]);
	close(fd[1]);
	close(lfd);
	free(data);
}

static void test_ring_faults(void **state)
{
	(void)state;
	static const struct { enum sbx_uring_op op; int err; int every; } cases[] = {
		{ SBX_UOP_ACCEPT, -EINTR, 2 },     { SBX_UOP_ACCEPT, -ECANCELED, 2 }, { SBX_UOP_ACCEPT, -EMFILE, 2 },
		{ SBX_UOP_RECV, -EINTR, 2 },       { SBX_UOP_RECV, -EAGAIN, 2 },      { SBX_UOP_RECV, -ECANCELED, 2 },
		{ SBX_UOP_RECV, -ENOBUFS, 2 },     { SBX_UOP_RECV, -ENOMEM, 40 },     { SBX_UOP_SEND, -EINTR, 2 },
		{ SBX_UOP_SEND, -EAGAIN, 2 },      { SBX_UOP_SEND, -ECANCELED, 2 },   { SBX_UOP_SEND, -ENOBUFS, 40 },
		{ SBX_UOP_SEND, 0, 2 },            { SBX_UOP_HUP, -EINTR, 2 },        { SBX_UOP_HUP, -ECANCELED, 2 },
		{ SBX_UOP_POLL, -EINTR, 2 },       { SBX_UOP_POLL, -ECANCELED, 2 },   { SBX_UOP_CANCEL, -EINTR, 2 },
		{ SBX_UOP_CANCEL, -EAGAIN, 2 },    { SBX_UOP_RECV, -ENOMEM, 1000000 },
	};
	struct fault f;
	const struct sbx_uring_test t = { .fault = inject, .arg = &f };
	sbx_uring_test = &t;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (int first = 0; first < 2; first++) {
			/* the first one too: `seen` starts so that it is hit */
			f = (struct fault){ cases[i].op, cases[i].err, cases[i].every, 0, 0 };
			f.seen = first ? f.every - 1 : 0;
			struct sbx_loop *loop = ring_or_skip();
			everything(loop);
			sbx_loop_free(loop);
			if (first && f.done == 0)
				fail_msg("operation %d: never hit", f.op);
		}
	sbx_uring_test = NULL;
}

static void test_ring_fatal(void **state)
{
	(void)state;
	for (int sending = 0; sending < 2; sending++) {
		struct fault f = { sending ? SBX_UOP_SEND : SBX_UOP_RECV, -ECONNRESET, 2, 1, 0 };
		const struct sbx_uring_test t = { .fault = inject, .arg = &f };
		sbx_uring_test = &t;
		struct sbx_loop *loop = ring_or_skip();
		int fd[2];
		struct end e = { 0 };
		pair(fd);
		open_end(loop, &e, fd[0]);
		assert_int_equal(sbx_stream_send(e.s, "hello", 5, -1), 0);
		UNTIL(loop, e.ends == 1);
		assert_int_equal(e.end_err, -ECONNRESET);
		TURNS(loop, 3);
		assert_int_equal(e.ends, 1);
		sbx_stream_close(e.s, true, 100 * MS);
		sbx_loop_free(loop);
		close(fd[1]);
	}
	sbx_uring_test = NULL;
}

/* Rings far too small: the submission queue fills in the middle of a sync, completions overflow, buffers run out. */
static void test_tiny_ring(void **state)
{
	const struct sbx_uring_test t = { .sq_entries = 2, .cq_entries = 4, .n_buffers = 2, .buffer_bytes = 512 };
	sbx_uring_test = &t;
	struct world w = { SBX_LOOP_URING, ring_or_skip() };
	void *world = &w;
	(void)state;
	everything(w.loop);
	test_many_streams(&world);
	test_pause_and_resume(&world);
	test_close_with_flush(&world);
	assert_true(sbx_loop_stats(w.loop)->enobufs > 0);
	sbx_loop_free(w.loop);
	sbx_uring_test = NULL;
}

static void test_fallback(void **state)
{
	(void)state;
	static const struct { int err; const char *says; } cases[] = {
		{ -EPERM, "not permitted" }, { -ENOSYS, "kernel has none" }, { -ENOMEM, "RLIMIT_MEMLOCK" },
		{ -EINVAL, "older than 6.1" }, { -EMFILE, "descriptors" }, { -ENODEV, "No such device" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const struct sbx_uring_test t = { .setup_err = cases[i].err };
		struct sbx_loop *loop = NULL;
		char why[128];
		sbx_uring_test = &t;
		assert_int_equal(sbx_loop_new(SBX_LOOP_URING, why, sizeof why, &loop), cases[i].err);
		assert_null(loop);
		assert_non_null(strstr(why, cases[i].says));
		assert_int_equal(sbx_loop_new(SBX_LOOP_AUTO, why, sizeof why, &loop), 0);
		assert_int_equal(sbx_loop_kind(loop), SBX_LOOP_EPOLL);
		assert_non_null(strstr(why, "epoll, since io_uring"));
		assert_non_null(strstr(why, cases[i].says));
		sbx_uring_test = NULL;
		everything(loop);
		sbx_loop_free(loop);
	}
}

int main(void)
{
	static struct world uring = { SBX_LOOP_URING, NULL }, epoll = { SBX_LOOP_EPOLL, NULL };
#define BOTH(test)                                                                         \
	{ #test " (io_uring)", test, set_up, tear_down, &uring },                          \
	{ #test " (epoll)", test, set_up, tear_down, &epoll }
	const struct CMUnitTest tests[] = {
		BOTH(test_echo),
		BOTH(test_reserve),
		BOTH(test_many_streams),
		BOTH(test_pause_and_resume),
		BOTH(test_end_while_paused),
		BOTH(test_close_inside_callback),
		BOTH(test_close_with_flush),
		BOTH(test_slow_reader),
		BOTH(test_peer_gone_while_sending),
		BOTH(test_half_close),
		BOTH(test_rights),
		BOTH(test_listener),
		BOTH(test_out_of_descriptors),
		BOTH(test_watch_is_level),
		BOTH(test_watch_lets_go),
		BOTH(test_watch_of_nothing),
		BOTH(test_deadline),
		BOTH(test_idle_streams_are_small),
		BOTH(test_free_in_flight),
		cmocka_unit_test(test_ring_faults),
		cmocka_unit_test(test_ring_fatal),
		cmocka_unit_test(test_tiny_ring),
		cmocka_unit_test(test_fallback),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
