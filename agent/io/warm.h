/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warm.h -- connections opened ahead of need: the hands of core/warm.
 *
 * Nothing waits for a warm-up, and none is a request or an attempt: health, latency, store and board do not hear of it. It begins a
 * moment after the start or a reload, when the first requests have had their turn. A provider whose targets are broken or
 * throttled is passed over; one that cannot be reached is told in the log once, and once more when it can be again.
 */
#ifndef SBX_AGENT_IO_WARM_H
#define SBX_AGENT_IO_WARM_H

#include "agent/io/agent.h"

struct sbx_warmer;

/* For agent->world, and again after a reload has replaced that: what ran for the old one is given up, what it knew of use is kept.
 * 0, or -SBX_ENOMEM: nothing is warmed then. */
int sbx_warmer_begin(struct sbx_agent *agent);
/* A request goes to this provider of this world. */
void sbx_warmer_on_use(struct sbx_agent *agent, const struct sbx_world *world, uint16_t provider);
void sbx_warmer_end(struct sbx_agent *agent); /* for good: the agent drains, or comes down. Twice is fine */

#endif
