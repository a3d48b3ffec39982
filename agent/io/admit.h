/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admit.h -- whether a SUBMIT becomes a request: may this client say what it says, is there room, is the body right, and who could
 * answer it. Sends nothing, and starts nothing.
 */
#ifndef SBX_AGENT_IO_ADMIT_H
#define SBX_AGENT_IO_ADMIT_H

#include "agent/io/exchange.h"

/* Before anything is allocated for it. 0, or -SBX_EINVAL with the refusal. */
int sbx_admit_submit(const struct sbx_agent *agent, const struct sbx_peer *peer, const struct sbx_submit *submit, struct sbx_refusal *ret_refusal);
/* An exchange that has its body and its world: reads the one, and finds its candidates in the other. 0, and it is counted for whom
 * it runs (ex->whom); or -SBX_EINVAL with the refusal. */
int sbx_admit_request(struct sbx_exchange *ex, const struct sbx_submit *submit, uint64_t now_ns, struct sbx_refusal *ret_refusal);

int sbx_refuse(struct sbx_refusal *ret_refusal, enum sbx_code code, int64_t retry_after_ms, const char *why); /* -SBX_EINVAL */

#endif
