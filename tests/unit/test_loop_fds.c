/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_loop_fds.c -- the event loop and descriptors: passing them, accepting them, running out of them, watching other
 * people's. Every case runs over io_uring (skipped where the kernel refuses it) and over epoll.
 */
#include "tests/unit/loop_rig.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_rights),
		BOTH(test_listener),
		BOTH(test_out_of_descriptors),
		BOTH(test_watch_is_level),
		BOTH(test_watch_lets_go),
		BOTH(test_watch_of_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
