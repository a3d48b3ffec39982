/* SPDX-License-Identifier: Apache-2.0 */
/* stats.h -- the STATS frame: what the agent counts, and the state of every target. Built into agent->frame. */
#ifndef SBX_AGENT_IO_STATS_H
#define SBX_AGENT_IO_STATS_H

#include "agent/io/agent.h"

const char *sbx_stats_state(const struct sbx_world *w, uint32_t row, const struct sbx_target *t); /* "up", "down", "no key" ... */
uint64_t sbx_stats_throttled_ms(const struct sbx_target_health *h, uint64_t now_ns); /* until one of its keys may be used; 0 = now */
void sbx_stats_frame(struct sbx_agent *agent, uint64_t id);

#endif
