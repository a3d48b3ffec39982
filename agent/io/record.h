/* SPDX-License-Identifier: Apache-2.0 */
/* record.h -- an attempt that has ended, as a row for the store. Decides nothing; does nothing where no store is configured. */
#ifndef SBX_AGENT_IO_RECORD_H
#define SBX_AGENT_IO_RECORD_H

#include "agent/io/exchange.h"

/* Once it is billed. unix_ms: the wall clock now. */
void sbx_record_attempt(const struct sbx_exchange *ex, uint8_t attempt, int64_t unix_ms);

#endif
