/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.h -- the METRICS frame: the tally and the state of the targets, some rows at a time. Built into agent->frame. */
#ifndef SBX_AGENT_IO_METRICS_H
#define SBX_AGENT_IO_METRICS_H

#include "agent/io/agent.h"

void sbx_metrics_frame(struct sbx_agent *agent, uint64_t id, uint64_t from); /* from: the first row */

#endif
