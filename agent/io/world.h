/* SPDX-License-Identifier: Apache-2.0 */
/*
 * world.h -- one configuration brought to life: its tables, the health of its targets, a lane for each credential.
 *
 * A reload builds a new world beside the old one, carries over what is known about the targets that are in both, and swaps
 * the agent's pointer. Requests hold a reference to the world that they began in, so that nothing changes under them; the
 * old world goes when its last request has ended.
 */
#ifndef SBX_AGENT_IO_WORLD_H
#define SBX_AGENT_IO_WORLD_H

#include <stdint.h>

#include "agent/config.h"
#include "agent/core/health.h"
#include "agent/core/request.h"
#include "agent/core/route.h"
#include "agent/io/upstream.h"

struct sbx_world {
	uint32_t refs;
	struct sbx_config *config;    /* one reference */
	struct sbx_health *health;
	struct sbx_adhoc *adhoc;
	struct sbx_router router;
	struct sbx_judge judge;
	struct sbx_lane **lane;       /* by credential */
};

/* Takes over the caller's reference to the configuration, also on failure. old NULL = nothing is known yet. 0 or -SBX_ENOMEM. */
int sbx_world_new(struct sbx_config *config, struct sbx_upstream *upstream, const struct sbx_world *old, uint64_t now_ns,
                  struct sbx_world **ret_world);
struct sbx_world *sbx_world_get(struct sbx_world *w);
void sbx_world_put(struct sbx_world *w); /* NULL is fine */

#endif
