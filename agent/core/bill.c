/* SPDX-License-Identifier: Apache-2.0 */
/* bill.c -- see bill.h. */
#include "agent/core/bill.h"

#include <assert.h>
#include <stdio.h>

struct sbx_bill
sbx_bill_attempt(const struct sbx_facts *facts, const struct sbx_model *m, enum sbx_class class, bool got_content,
                 const struct sbx_usage *usage, int64_t ended_unix_s)
{
	struct sbx_bill bill = { .status = SBX_COST_KNOWN };
	struct sbx_price price;
	struct sbx_amounts amounts;
	enum sbx_ledger ledger = sbx_class_ledger(class);
	bool told = sbx_amounts_of_usage(usage, &amounts);
	if (!told && !got_content && (ledger == SBX_LEDGER_VOID || ledger == SBX_LEDGER_NONE))
		return bill;
	if (!sbx_price_at(facts, m, ended_unix_s, &price)) {
		bill.status = SBX_COST_UNPRICED;
		return bill;
	}
	bill.row = price.row;
	bill.status = told ? sbx_price_cost(&price, &amounts, &bill.nanousd) : SBX_COST_NO_USAGE;
	return bill;
}

void
sbx_bill_add(struct sbx_bill *sum, const struct sbx_bill *attempt)
{
	if (sum->status != SBX_COST_KNOWN)
		return;
	if (attempt->status != SBX_COST_KNOWN)
		sum->status = attempt->status;
	else if (__builtin_add_overflow(sum->nanousd, attempt->nanousd, &sum->nanousd))
		sum->status = SBX_COST_TOO_LARGE;
}

const char *
sbx_bill_fmt_usd(int64_t nanousd, char buf[static SBX_USD_BYTES])
{
	assert(nanousd >= 0);
	int n = snprintf(buf, SBX_USD_BYTES, "%lld.%09lld", (long long)(nanousd / 1000000000), (long long)(nanousd % 1000000000));
	while (buf[n - 1] == '0')
		n--;
	n -= buf[n - 1] == '.';
	buf[n] = '\0';
	return buf;
}
