/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h -- one connected client: bytes into frames, frames into what they ask for, and who the peer is.
 *
 * A session trusts nothing that comes in: a frame is collected only as its bytes arrive (never by the length it claims),
 * checked as a whole, and then read. What breaks the protocol ends the session; what is merely wrong ends its request. The
 * socket is read with plain recv, so that descriptors nobody asked for are never installed.
 *
 *   CONNECTED --HELLO of our version, within 10 s--> OPEN --end of file, error, bad frame--> (gone, its requests cancelled)
 */
#ifndef SBX_AGENT_IO_SESSION_H
#define SBX_AGENT_IO_SESSION_H

#include "agent/io/agent.h"

#define SBX_SESSIONS_PER_USER_MAX 4096  /* two for every worker of a large host */
#define SBX_PART_FRAME_TIMEOUT_MS 30000 /* a frame that was begun must be there in whole; 33 MiB take 20 ms on this socket */

/* Takes the descriptor. admin: it came in on the admin socket. */
void sbx_session_accept(struct sbx_agent *agent, int fd, bool admin);
/* Tells every session that the agent leaves: what it has not accepted it will not act on. agent->draining is set. */
void sbx_session_leave_all(struct sbx_agent *agent);
/* No new requests; idle sessions are closed, the others when their last request has ended. */
void sbx_session_drain_all(struct sbx_agent *agent);
/* The deadline of the drain: what still runs ends with `code`, and every session closes. */
void sbx_session_close_all(struct sbx_agent *agent, enum sbx_code code);
/* Sends the frame that was built in agent->frame. */
void sbx_session_send(struct sbx_session *session);
/* The same, and a descriptor with its first byte; it stays the caller's. 0 or -SBX_ENOMEM: then nothing was sent. */
int sbx_session_send_fd(struct sbx_session *session, int fd);
struct sbx_agent *sbx_session_agent(const struct sbx_session *session);
pid_t sbx_session_pid(const struct sbx_session *session); /* as the kernel told it when the connection was made */
/* Tells every session that another board is current, and hands it over. */
void sbx_session_board_all(struct sbx_agent *agent);
void sbx_session_reap(struct sbx_agent *agent);
/* Peers are kept while the agent lives: at most one per user of the host. */
void sbx_session_free_peers(struct sbx_agent *agent);

#endif
