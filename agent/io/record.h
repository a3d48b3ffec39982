/* SPDX-License-Identifier: Apache-2.0 */
/* record.h -- what happened, as it is remembered: each request and attempt in the tally, and each attempt as a row for the store, where one
 * is configured. Decides nothing. */
#ifndef SBX_AGENT_IO_RECORD_H
#define SBX_AGENT_IO_RECORD_H

#include "agent/io/exchange.h"

/* Once its route is known and for whom it is; exactly one sbx_record_end() follows. */
void sbx_record_begin(struct sbx_exchange *ex);
/* attempt: the one that answered (code NONE), or whose failure is told; SBX_ATTEMPTS_MAX = none. */
void sbx_record_end(struct sbx_exchange *ex, uint8_t attempt, enum sbx_code code);
/* A request that never began. submit NULL = it could not be read. */
void sbx_record_refusal(struct sbx_agent *agent, const struct sbx_peer *peer, const struct sbx_submit *submit, enum sbx_code code);
/* Once it is billed. unix_ms: the wall clock now. */
void sbx_record_attempt(const struct sbx_exchange *ex, uint8_t attempt, int64_t unix_ms);

#endif
