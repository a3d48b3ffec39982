/* SPDX-License-Identifier: Apache-2.0 */
/* proxy.c -- see proxy.h. A thread accepts, and one more serves each connection until either side closes. */
#include "tests/e2e/proxy.h"

#include <arpa/inet.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define LOOK_MS 20 /* how often a thread that waits looks whether the proxy goes down */

struct served {
	struct proxy *proxy;
	int fd;
};

static struct sockaddr_in
loopback(int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
}

static bool
send_all(int fd, const char *bytes, size_t n)
{
	while (n) {
		ssize_t did = send(fd, bytes, n, MSG_NOSIGNAL);
		if (did <= 0)
			return false;
		bytes += did;
		n -= (size_t)did;
	}
	return true;
}

/* Bytes both ways until either side closes. */
static void
relay(const struct proxy *p, int one, int other)
{
	const int fd[2] = { one, other };
	char bytes[16384];
	while (!p->down) {
		struct pollfd look[2] = { { one, POLLIN, 0 }, { other, POLLIN, 0 } };
		if (poll(look, 2, LOOK_MS) < 0)
			return;
		for (int i = 0; i < 2; i++) {
			if (!look[i].revents)
				continue;
			ssize_t n = recv(fd[i], bytes, sizeof bytes, 0);
			if (n <= 0 || !send_all(fd[1 - i], bytes, (size_t)n))
				return;
		}
	}
}

/* The head of a request, NUL-terminated; what came behind it stays in the buffer. Its length, 0 = none came. */
static size_t
read_head(const struct proxy *p, int fd, char *to, size_t room, size_t *ret_n)
{
	size_t n = 0;
	while (!p->down && n + 1 < room) {
		struct pollfd look = { fd, POLLIN, 0 };
		if (poll(&look, 1, LOOK_MS) <= 0)
			continue;
		ssize_t got = recv(fd, to + n, room - n - 1, 0);
		if (got <= 0)
			return 0;
		n += (size_t)got;
		to[n] = 0;
		char *end = strstr(to, "\r\n\r\n");
		if (end) {
			*ret_n = n;
			return (size_t)(end + 4 - to);
		}
	}
	return 0;
}

static int
reach(const char *host_port)
{
	static const char host[] = "127.0.0.1:";
	if (strncmp(host_port, host, sizeof host - 1) != 0)
		return -1;
	struct sockaddr_in to = loopback((int)strtol(host_port + sizeof host - 1, NULL, 10));
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to)) {
		(void)close(fd);
		fd = -1;
	}
	return fd;
}

static void
serve_request(struct proxy *p, int fd)
{
	static const char absolute[] = "POST http://", established[] = "HTTP/1.1 200 Connection established\r\n\r\n";
	char head[16384], refusal[128];
	size_t n, head_n = read_head(p, fd, head, sizeof head, &n);
	if (!head_n)
		return;
	bool connects = strncmp(head, "CONNECT ", 8) == 0, is_absolute = strncmp(head, absolute, sizeof absolute - 1) == 0;
	(void)atomic_fetch_add(connects ? &p->n_connects : is_absolute ? &p->n_absolute : &p->n_other, 1);
	if (p->refuse_status) {
		int bytes = snprintf(refusal, sizeof refusal, "HTTP/1.1 %d Not here\r\nContent-Length: 0\r\n\r\n", p->refuse_status);
		(void)send_all(fd, refusal, (size_t)bytes);
		return;
	}
	if (!connects && !is_absolute)
		return;
	char *authority = head + (connects ? 8 : sizeof absolute - 1);
	int to = reach(authority);
	if (to < 0)
		return;
	bool ok;
	if (connects) {
		ok = send_all(fd, established, sizeof established - 1);
	} else { /* in origin form; later requests of this connection go as they are, which servers take */
		char *path = strchr(authority, '/');
		ok = path && send_all(to, "POST ", 5) && send_all(to, path, (size_t)(head + n - path));
	}
	if (ok)
		relay(p, fd, to);
	(void)close(to);
}

static void *
serve(void *arg)
{
	struct served *s = arg;
	serve_request(s->proxy, s->fd);
	(void)close(s->fd);
	free(s);
	return NULL;
}

static void *
accept_all(void *arg)
{
	struct proxy *p = arg;
	while (!p->down) {
		struct pollfd look = { p->listener, POLLIN, 0 };
		if (poll(&look, 1, LOOK_MS) <= 0 || p->n_workers == PROXY_CONNECTIONS_MAX)
			continue;
		struct served *s = malloc(sizeof *s);
		if (!s)
			continue;
		*s = (struct served){ p, accept4(p->listener, NULL, NULL, SOCK_CLOEXEC) };
		if (s->fd < 0 || pthread_create(&p->worker[p->n_workers], NULL, serve, s)) {
			free(s);
			continue;
		}
		p->n_workers++;
	}
	return NULL;
}

void
proxy_up(struct proxy *p, int refuse_status)
{
	struct sockaddr_in at = loopback(0);
	socklen_t n = sizeof at;
	memset(p, 0, sizeof *p);
	p->refuse_status = refuse_status;
	p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(p->listener, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(p->listener, 64), 0);
	assert_int_equal(getsockname(p->listener, (struct sockaddr *)&at, &n), 0);
	p->port = ntohs(at.sin_port);
	assert_int_equal(pthread_create(&p->acceptor, NULL, accept_all, p), 0);
}

void
proxy_down(struct proxy *p)
{
	p->down = true;
	(void)pthread_join(p->acceptor, NULL);
	for (int i = 0; i < p->n_workers; i++)
		(void)pthread_join(p->worker[i], NULL);
	(void)close(p->listener);
}
