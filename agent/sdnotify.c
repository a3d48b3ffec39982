/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sdnotify.c -- see sdnotify.h.
 *
 * libsystemd would be a dependency of several megabytes for one datagram and three variables, and both protocols are
 * documented as stable.
 */
#include "agent/sdnotify.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_FDS_START 3 /* SD_LISTEN_FDS_START */

/* A decimal number and nothing else. */
static bool
parse_uint(const char *text, uint64_t max, uint64_t *ret_value)
{
	uint64_t v = 0;
	if (!text || !*text)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		uint64_t digit = (uint64_t)(*text - '0');
		if (v > (max - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*ret_value = v;
	return true;
}

int
sbx_sd_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	if (!path || !*path)
		return 0;
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	size_t n = strlen(path);
	if ((path[0] != '/' && path[0] != '@') || n >= sizeof to.sun_path)
		return -EINVAL;
	memcpy(to.sun_path, path, n);
	if (path[0] == '@') /* the abstract namespace; such names carry no NUL at the end */
		to.sun_path[0] = '\0';
	socklen_t to_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (path[0] == '/'));

	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	ssize_t sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to, to_bytes);
	int rc = sent < 0 ? -errno : 1;
	(void)close(fd); /* nothing of ours is lost: the datagram is queued or refused */
	return rc;
}

uint64_t
sbx_sd_watchdog_ns(void)
{
	uint64_t pid, usec;
	const char *for_pid = getenv("WATCHDOG_PID");
	if (for_pid && (!parse_uint(for_pid, INT32_MAX, &pid) || pid != (uint64_t)getpid()))
		return 0;
	return parse_uint(getenv("WATCHDOG_USEC"), UINT64_MAX / 1000, &usec) ? usec * 1000 : 0;
}

void
sbx_sd_inherit(const char *notify_socket, uint64_t watchdog_us)
{
	char text[24];
	if (*notify_socket)
		(void)setenv("NOTIFY_SOCKET", notify_socket, 0); /* fails for want of memory only, and so for the next ones */
	if (watchdog_us && !sbx_sd_watchdog_ns()) {
		(void)snprintf(text, sizeof text, "%llu", (unsigned long long)watchdog_us);
		(void)setenv("WATCHDOG_USEC", text, 1);
		(void)unsetenv("WATCHDOG_PID"); /* that of a parent of ours */
	}
}

static void
forget_listen_variables(void)
{
	(void)unsetenv("LISTEN_PID"); /* fails for malformed names only */
	(void)unsetenv("LISTEN_FDS");
	(void)unsetenv("LISTEN_FDNAMES");
}

int
sbx_sd_listen_fds(struct sbx_sd_fds *ret_fds)
{
	struct sbx_sd_fds fds = { .n = 0 };
	uint64_t pid, n;
	const char *for_pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
	if (!for_pid || !count) {
		*ret_fds = fds;
		return 0;
	}
	int rc = 0;
	if (!parse_uint(for_pid, INT32_MAX, &pid) || !parse_uint(count, INT32_MAX - LISTEN_FDS_START, &n))
		rc = -EINVAL;
	else if (pid != (uint64_t)getpid()) /* meant for a parent of ours that did not clean up */
		n = 0;
	else if (n > SBX_SD_FDS_MAX)
		rc = -E2BIG;
	if (rc)
		goto out;
	for (; fds.n < n; fds.n++) {
		int fd = LISTEN_FDS_START + (int)fds.n;
		int flags = fcntl(fd, F_GETFD);
		if (flags < 0 || fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0) {
			rc = -errno;
			goto out;
		}
		fds.fd[fds.n].fd = fd;
		if (names) {
			size_t len = strcspn(names, ":");
			if (len < sizeof fds.fd[fds.n].name)
				memcpy(fds.fd[fds.n].name, names, len); /* zeroed above */
			names = names[len] ? names + len + 1 : NULL;
		}
	}
	*ret_fds = fds;
out:
	forget_listen_variables();
	return rc;
}

bool
sbx_sd_is_unix_listener(int fd)
{
	int domain = 0, type = 0, listening = 0;
	socklen_t n = sizeof domain;
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0)
		return false;
	n = sizeof type;
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0)
		return false;
	n = sizeof listening;
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) < 0)
		return false;
	return domain == AF_UNIX && type == SOCK_STREAM && listening;
}
