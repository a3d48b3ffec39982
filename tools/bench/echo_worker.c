/* SPDX-License-Identifier: Apache-2.0 */
/*
 * echo_worker.c -- the floor of the added latency: a request and its answer over a Unix socket, between two processes that do
 * nothing else. The bytes are as many as those of a short call; reads and writes block, which is the fastest there is without
 * spinning.
 */
#include "tools/bench/bench.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

static bool
move(ssize_t (*how)(int, char *, size_t), int fd, char *bytes, size_t n)
{
	while (n) {
		ssize_t some = how(fd, bytes, n);
		if (some <= 0)
			return false;
		bytes += some;
		n -= (size_t)some;
	}
	return true;
}

static ssize_t
get(int fd, char *bytes, size_t n)
{
	return read(fd, bytes, n);
}

static ssize_t
put(int fd, char *bytes, size_t n)
{
	return write(fd, bytes, n);
}

_Noreturn static void
echo(int fd)
{
	char up[BODY_UP_BYTES], down[BODY_DOWN_BYTES];
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(down, 'd', sizeof down);
	while (move(get, fd, up, sizeof up) && move(put, fd, down, sizeof down))
		;
	_exit(0);
}

int
echo_worker(void)
{
	char up[BODY_UP_BYTES], down[BODY_DOWN_BYTES];
	struct order order;
	int fd[2];
	memset(up, 'u', sizeof up);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		return 1;
	pid_t pid = fork();
	if (pid < 0)
		return 1;
	if (pid == 0) {
		(void)close(fd[0]);
		echo(fd[1]);
	}
	(void)close(fd[1]);
	while (next_order(&order)) {
		struct outcome o = { 0 };
		uint64_t *ns = calloc(order.n ? order.n : 1, sizeof *ns), begun = now_ns();
		if (!ns)
			return 1;
		for (uint32_t i = 0; i < order.n && !o.failed; i++) {
			uint64_t from = now_ns();
			if (!move(put, fd[0], up, sizeof up) || !move(get, fd[0], down, sizeof down))
				fail_outcome(&o, "the echo is gone");
			ns[i] = now_ns() - from;
		}
		o.wall_ns = now_ns() - begun;
		take_quantiles(ns, order.n, &o);
		free(ns);
		answer(&o);
	}
	return 0;
}
