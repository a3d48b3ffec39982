/* SPDX-License-Identifier: Apache-2.0 */
/*
 * listen.h -- the agent's two Unix sockets: made safely, or taken over from systemd, or from another agent (handover.h).
 *
 * A socket appears under its name only when it listens and has its mode and group (bind to a temporary name, then rename), and
 * a lock file beside it tells a live agent from a dead one's leftovers: two agents never share a path, and a stale socket is
 * replaced without a question.
 */
#ifndef SBX_AGENT_IO_LISTEN_H
#define SBX_AGENT_IO_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct sbx_listen_socket {
	int fd;          /* listening; -1 = not open */
	int lock_fd;     /* holds the lock; -1 where systemd owns the path */
	char *path;      /* NULL where systemd owns it */
};

/* sbx_listen_open() -- make the socket at `path`.
 *  mode  0660 for clients, 0600 for the admin socket; has_group: give it to that group
 * Creates the directory (0750) if only the last part of it is missing. 0, or -1 with a sentence in why (at least 512 bytes). */
int sbx_listen_open(struct sbx_listen_socket *l, const char *path, mode_t mode, bool has_group, gid_t group, char *why, size_t why_bytes);
void sbx_listen_adopt(struct sbx_listen_socket *l, int fd); /* from systemd */
void sbx_listen_disown(struct sbx_listen_socket *l);        /* another agent has it: closing leaves its path and its lock alone */
void sbx_listen_close(struct sbx_listen_socket *l);         /* removes the path if it is ours */

#endif
