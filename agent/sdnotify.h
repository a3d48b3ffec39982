/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sdnotify.h -- the two small protocols of a systemd service, spoken without libsystemd: saying how we are
 * (sd_notify(3)) and taking over listening sockets (sd_listen_fds(3)).
 *
 * Outside systemd every function here finds nothing in the environment and does nothing. Errors are negative errno values.
 */
#ifndef SBX_AGENT_SDNOTIFY_H
#define SBX_AGENT_SDNOTIFY_H

#include <stdbool.h>
#include <stdint.h>

#define SBX_SD_FDS_MAX 16 /* we have two sockets; more than this is somebody else's idea */

/* "READY=1", "RELOADING=1", "STOPPING=1", "STATUS=...", "WATCHDOG=1"; several separated by line feeds.
 * Returns 1 when it was sent, 0 when nobody asked for it ($NOTIFY_SOCKET is not set), -errno. Never blocks. */
int sbx_sd_notify(const char *state);

/* How often the manager wants WATCHDOG=1 at least, in ns; send it at half of that. 0 = no watchdog, or not for us. */
uint64_t sbx_sd_watchdog_ns(void);

/* What another agent of this service was told by the manager is true of us too, where we were told nothing ourselves. notify_socket ""
 * and watchdog_us 0: it was not told either. */
void sbx_sd_inherit(const char *notify_socket, uint64_t watchdog_us);

struct sbx_sd_fds {
	struct {
		int fd;         /* close-on-exec */
		char name[64];  /* FileDescriptorName= of the socket unit; "" = unnamed */
	} fd[SBX_SD_FDS_MAX];
	uint32_t n;
};
/* The descriptors that were passed to us, n = 0 when there are none. Removes LISTEN_* from the environment, so that it
 * finds them once. Returns 0 or -errno: -EINVAL (nonsense in the variables), -E2BIG (more than SBX_SD_FDS_MAX). */
int sbx_sd_listen_fds(struct sbx_sd_fds *ret_fds);
/* Is it a listening Unix stream socket? */
bool sbx_sd_is_unix_listener(int fd);

#endif
