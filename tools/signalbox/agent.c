/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent.c -- the connection to the agent, and waiting for it. See cli.h.
 *
 * Waiting uses the library's own-loop face (sbx_fd, sbx_events, sbx_timeout_ms, sbx_process), because a signal has to be heard
 * as well: sbx_next() and sbx_ask() go on after one.
 */
#include "tools/signalbox/cli.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t
monotonic_ms(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int
agent_open(const char *socket, bool quiet, struct sbx_client **ret_client)
{
	struct sbx_open_options options = SBX_OPEN_OPTIONS_INIT;
	struct sbx_client *c = NULL;
	options.socket = socket;
	options.name = "signalbox";
	int rc = sbx_open(&options, &c);
	if (rc == 0) {
		*ret_client = c;
		return CLI_OK;
	}
	if (!quiet) {
		(void)fprintf(stderr, "signalbox: %s\n", c ? sbx_client_error(c) : "out of memory");
		if (rc == -SBX_EAGENT)
			(void)fputs("start the agent with `signalboxd`, or as a service with `systemctl start signalboxd`;\n"
			            "if it runs elsewhere, name its socket with --socket PATH or $SIGNALBOX_SOCKET\n",
			            stderr);
	}
	sbx_close(c);
	return CLI_NO_AGENT;
}

int
agent_next(struct sbx_client *c, int timeout_ms, bool hear, struct sbx_event *ret_event)
{
	uint64_t until_ms = timeout_ms < 0 ? UINT64_MAX : monotonic_ms() + (uint64_t)timeout_ms;
	for (;;) {
		if (hear && interrupt_signal())
			return AGENT_INTERRUPTED;
		int rc = sbx_next(c, 0, ret_event);
		if (rc != -SBX_ETIME)
			return rc;
		(void)fflush(stdout); /* what was said is seen before we wait; a failure is found at the end */
		uint64_t now_ms = monotonic_ms();
		if (now_ms >= until_ms)
			return -SBX_ETIME;
		uint64_t wait_ms = until_ms - now_ms;
		int due_ms = sbx_timeout_ms(c);
		if (due_ms >= 0 && (uint64_t)due_ms < wait_ms)
			wait_ms = (uint64_t)due_ms;
		struct pollfd p[2] = {
			{ .fd = sbx_fd(c), .events = sbx_events(c) },
			{ .fd = hear ? interrupt_fd() : -1, .events = POLLIN },
		};
		int n = poll(p, 2, until_ms == UINT64_MAX && due_ms < 0 ? -1 : wait_ms > INT_MAX ? INT_MAX : (int)wait_ms);
		if (n < 0 && errno != EINTR)
			return -SBX_ENOMEM; /* all that is left with valid arguments */
		rc = sbx_process(c, n > 0 ? p[0].revents : 0);
		if (rc < 0 && rc != -SBX_EAGENT) /* lost: sbx_next() tells it as the end of the request */
			return rc;
	}
}

bool
agent_path_beside(const char *socket, const char *name, char *ret_path, size_t path_bytes)
{
	const char *named = socket ? socket : getenv("SIGNALBOX_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");
	int n = -1;
	if (named && *named) {
		const char *slash = strrchr(named, '/');
		n = snprintf(ret_path, path_bytes, "%.*s%s", slash ? (int)(slash - named) + 1 : 0, named, name);
	} else if (runtime && *runtime) {
		n = snprintf(ret_path, path_bytes, "%s/signalbox/%s", runtime, name);
		if (n > 0 && (size_t)n < path_bytes && access(ret_path, F_OK) != 0)
			n = -1;
	}
	if (n < 0)
		n = snprintf(ret_path, path_bytes, "/run/signalbox/%s", name);
	return n > 0 && (size_t)n < path_bytes;
}
