/* SPDX-License-Identifier: Apache-2.0 */
/* listen.c -- see listen.h. */
#include "agent/io/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4096 /* every worker of a large host may come back at once */

static int
say(char *why, size_t why_bytes, const char *what, const char *path)
{
	(void)snprintf(why, why_bytes, "%s %s: %s", what, path, strerror(errno));
	return -1;
}

static int
make_directory(const char *path, bool has_group, gid_t group, char *why, size_t why_bytes)
{
	char copy[sizeof ((struct sockaddr_un *)0)->sun_path + 1];
	(void)snprintf(copy, sizeof copy, "%s", path);
	const char *dir = dirname(copy);
	const int rc = mkdir(dir, 0750);
	if (rc && errno != EEXIST)
		return say(why, why_bytes, "cannot make the directory", dir);
	if (rc == 0 && has_group && chown(dir, (uid_t)-1, group)) /* who may use the socket has to come to it */
		return say(why, why_bytes, "cannot give to its group the directory", dir);
	return 0;
}

static int
take_lock(struct sbx_listen_socket *l, const char *path, char *why, size_t why_bytes)
{
	char lock[sizeof ((struct sockaddr_un *)0)->sun_path + 8];
	(void)snprintf(lock, sizeof lock, "%s.lock", path);
	l->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (l->lock_fd < 0)
		return say(why, why_bytes, "cannot open", lock);
	if (flock(l->lock_fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK)
			return say(why, why_bytes, "cannot lock", lock);
		(void)snprintf(why, why_bytes, "another agent is running on %s; stop it, or choose another \"listen\": {\"socket\": ...}", path);
		return -1;
	}
	return 0;
}

int
sbx_listen_open(struct sbx_listen_socket *l, const char *path, mode_t mode, bool has_group, gid_t group, char *why, size_t why_bytes)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	*l = (struct sbx_listen_socket){ -1, -1, NULL };
	/* The temporary name is the longer one. */
	if ((size_t)snprintf(addr.sun_path, sizeof addr.sun_path, "%s.new", path) >= sizeof addr.sun_path) {
		(void)snprintf(why, why_bytes, "%s is too long for a socket's path; at most %zu bytes", path, sizeof addr.sun_path - 5);
		return -1;
	}
	if (make_directory(path, has_group, group, why, why_bytes) || take_lock(l, path, why, why_bytes))
		goto fail;
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0) {
		(void)say(why, why_bytes, "cannot make a socket for", path);
		goto fail;
	}
	(void)unlink(addr.sun_path); /* of an agent that died between bind and rename */
	mode_t before = umask(0177);
	int rc = bind(l->fd, (struct sockaddr *)&addr, sizeof addr);
	(void)umask(before);
	if (rc) {
		(void)say(why, why_bytes, "cannot bind", addr.sun_path);
		goto fail;
	}
	if ((has_group && chown(addr.sun_path, (uid_t)-1, group)) || chmod(addr.sun_path, mode) || listen(l->fd, BACKLOG) || rename(addr.sun_path, path)) {
		(void)say(why, why_bytes, "cannot set up", path);
		(void)unlink(addr.sun_path);
		goto fail;
	}
	l->path = strdup(path);
	return 0;
fail:
	sbx_listen_close(l);
	return -1;
}

void
sbx_listen_adopt(struct sbx_listen_socket *l, int fd)
{
	int flags = fcntl(fd, F_GETFL);
	/* Service managers hand over blocking sockets unless told otherwise, and a blocking accept would stop the loop. */
	if (flags >= 0)
		(void)fcntl(fd, F_SETFL, flags | O_NONBLOCK); /* cannot fail for a socket that is open */
	*l = (struct sbx_listen_socket){ fd, -1, NULL };
}

void
sbx_listen_disown(struct sbx_listen_socket *l)
{
	free(l->path); /* the lock belongs to the open file, which the other agent has as well: it outlives our descriptor */
	l->path = NULL;
}

void
sbx_listen_close(struct sbx_listen_socket *l)
{
	if (l->path)
		(void)unlink(l->path); /* the lock file stays: removing it would let two agents hold "the" lock */
	if (l->fd >= 0)
		(void)close(l->fd);
	if (l->lock_fd >= 0)
		(void)close(l->lock_fd);
	free(l->path);
	*l = (struct sbx_listen_socket){ -1, -1, NULL };
}
