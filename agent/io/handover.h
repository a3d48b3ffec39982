/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handover.h -- one agent takes the place of another, without a client being refused: both sides of TAKING OVER in signalbox/wire.h.
 *
 * The running agent gives duplicates of its listening sockets, and of the locks beside them, to one that asks on the admin socket, and
 * goes on until that one says that it serves. As long as one of the two lives the sockets listen; a connection that is made
 * meanwhile waits in the kernel. Nothing is undone when the heir fails: its duplicates die with it.
 *
 * The other way, making a new socket and renaming it over the path, would lose who waits in the backlog of the old one.
 */
#ifndef SBX_AGENT_IO_HANDOVER_H
#define SBX_AGENT_IO_HANDOVER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

#include <signalbox.h>

#include "agent/io/agent.h"
#include "agent/io/listen.h"

/* ---- the running agent; the session is one of the admin socket ---- */

void sbx_handover_on_takeover(struct sbx_session *session, uint64_t id);
void sbx_handover_on_serving(struct sbx_session *session, uint64_t id);
void sbx_handover_forget(struct sbx_agent *agent, const struct sbx_session *session); /* the session is gone */

/* ---- the one that takes over; these two block, at most SBX_HANDOVER_ANSWER_NS for an answer, and a minute while
 * the running agent is busy with another handover, or its own predecessor has not ended ---- */

#define SBX_HANDOVER_ANSWER_NS 5000000000ull /* a loop that turns answers within a millisecond: this one hangs */

struct sbx_inheritance {
	int fd;                                    /* the connection; -1 = none */
	pid_t pid;                                 /* of the running agent; 0 = not known */
	char agent[64];                            /* what it is: "signalboxd/0.1.0" */
	struct sbx_board *board;                   /* its; NULL = it has none */
	struct sbx_listen_socket client, admin;    /* without paths: these are still its own */
	char client_path[sizeof((struct sockaddr_un *)0)->sun_path], admin_path[sizeof((struct sockaddr_un *)0)->sun_path]; /* "" = systemd's */
	char notify_socket[sizeof((struct sockaddr_un *)0)->sun_path]; /* "" = none */
	uint64_t watchdog_us;                      /* 0 = none */
};

/* sbx_handover_ask() -- get the sockets.
 *  ret  always set; end with sbx_handover_end(). Whoever takes .client and .admin out of it leaves { -1, -1, NULL } behind
 *  why  a sentence on failure, at least 512 bytes
 * 0; -SBX_ENOENT nobody listens there; -SBX_EAGENT the running agent hangs, refuses, is too old for this, or breaks the protocol. */
int sbx_handover_ask(const char *admin_path, struct sbx_inheritance *ret, char *why, size_t why_bytes);
/* sbx_handover_serve() -- say that we serve: the sockets are ours, and their paths are put where the sockets now are. An agent that dies or
 * falls silent at this point leaves too. 0; -SBX_EAGENT it goes on after all: we must not. */
int sbx_handover_serve(struct sbx_inheritance *in, struct sbx_listen_socket *client, struct sbx_listen_socket *admin, char *why, size_t why_bytes);
void sbx_handover_end(struct sbx_inheritance *in);

#endif
