/* SPDX-License-Identifier: Apache-2.0 */
/*
 * whom.h -- for whom a request runs, as a client says who may speak for others: its tenant, key, end user, and tags.
 *
 * A client that serves others, as a door for HTTP does, is one user of the host but many payers. So whoever it names as tenant
 * has a share of the agent of his own, as a user of the host has; and the store keeps all four. Who may be believed is a matter of
 * the peer's user id: those in listen.trusted_uids, and without being named the agent's own user and root, who could read its
 * keys anyway, and whoever the door is that the agent started itself.
 */
#ifndef SBX_AGENT_IO_WHOM_H
#define SBX_AGENT_IO_WHOM_H

#include "agent/io/agent.h"
#include "agent/io/submit.h"

/* Requests in flight of one tenant; there is one as long as he has any. */
struct sbx_tenant;

struct sbx_whom {
	const char *tenant, *key, *user; /* NULL = not said */
	const char *tags;                /* a JSON list of texts; NULL = none */
	struct sbx_tenant *share;        /* this request is counted there; NULL = with its peer's user */
	char text[];                     /* of the four */
};

bool sbx_whom_trusts(const struct sbx_agent *agent, const struct sbx_peer *peer);
/* How many requests run for this tenant, or where none is named for this user. */
uint32_t sbx_whom_in_flight(const struct sbx_agent *agent, const struct sbx_peer *peer, struct sbx_span tenant);
/* Counts one more. *ret_whom is NULL where nothing is to be remembered but the peer. 0 or -SBX_ENOMEM. */
int sbx_whom_new(struct sbx_agent *agent, struct sbx_peer *peer, const struct sbx_submit *submit, const struct sbx_routing *routing,
                 struct sbx_whom **ret_whom);
void sbx_whom_free(struct sbx_agent *agent, struct sbx_peer *peer, struct sbx_whom *whom); /* and one less */

#endif
