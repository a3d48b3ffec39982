/* SPDX-License-Identifier: Apache-2.0 */
/* ending.h -- the last frame of a request: DONE or ERROR, with what each attempt did. Builds agent->frame; sends nothing. */
#ifndef SBX_AGENT_IO_ENDING_H
#define SBX_AGENT_IO_ENDING_H

#include "agent/core/bill.h"
#include "agent/core/request.h"
#include "agent/io/exchange.h"

/* What is remembered of an attempt beside the request's own record of it. */
struct sbx_note_of_attempt {
	struct sbx_usage usage;
	char *usage_raw;                  /* NULL = none; owned */
	struct sbx_provider_error *error; /* NULL = none; owned; secrets redacted */
	char *message;                    /* of the connection; NULL = none; owned */
	int64_t connection;               /* 0 reused, > 0 new, -1 not known */
	enum sbx_finish finish;
	struct sbx_bill bill;             /* reckoned once, when the attempt has ended: what DONE tells is what the store keeps */
};

#define SBX_USAGE_RAW_MAX_BYTES 4096 /* the largest recorded one has 700 */
#define SBX_MESSAGE_MAX_BYTES 512

void sbx_ending_done(struct sbx_exchange *ex, uint8_t attempt, uint64_t now_ns);
void sbx_ending_error(struct sbx_exchange *ex, const struct sbx_effect *fx, uint64_t now_ns);
/* An ERROR for a request that never became an exchange, or for the connection (id 0). */
void sbx_ending_refusal(struct sbx_agent *agent, uint64_t id, bool data, const struct sbx_refusal *refusal);

#endif
