/* SPDX-License-Identifier: Apache-2.0 */
/* stats.h -- the STATS frame: what the agent counts, and the state of every target. Built into agent->frame. */
#ifndef SBX_AGENT_IO_STATS_H
#define SBX_AGENT_IO_STATS_H

#include "agent/io/agent.h"

void sbx_stats_frame(struct sbx_agent *agent, uint64_t id);

#endif
