/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bill.h -- what an attempt cost, whatever became of it, and all attempts of a request together.
 *
 * What a provider says was used is priced, also of an attempt that failed. Where it says nothing, the class decides
 * (class.h, `ledger`): what cannot have been billed cost 0; what may have been is unknown, and so is then the sum.
 */
#ifndef SBX_AGENT_CORE_BILL_H
#define SBX_AGENT_CORE_BILL_H

#include <stdint.h>

#include "agent/core/class.h"
#include "agent/core/price.h"

struct sbx_bill {
	enum sbx_cost_status status;
	int64_t nanousd;                 /* meaningless unless KNOWN */
	const struct sbx_price_row *row; /* by which it was priced; NULL = none was needed, or there is none */
};

/* got_content: some of an answer came, so that a failure after it was worked for. ended_unix_s: when the attempt ended; the prices of that instant count. m: NULL = nothing is known of its model. */
struct sbx_bill sbx_bill_attempt(const struct sbx_facts *facts, const struct sbx_model *m, enum sbx_class class, bool got_content,
                                 const struct sbx_usage *usage, int64_t ended_unix_s);
/* Adds one attempt to the sum, which begins zeroed. The first that is not known decides the status; the row stays NULL. */
void sbx_bill_add(struct sbx_bill *sum, const struct sbx_bill *attempt);

/* Nano-USD, not negative, as a decimal number of USD: exact, and without zeros that say nothing. Returns buf. */
#define SBX_USD_BYTES 24
const char *sbx_bill_fmt_usd(int64_t nanousd, char buf[static SBX_USD_BYTES]);

#endif
