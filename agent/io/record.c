/* SPDX-License-Identifier: Apache-2.0 */
/* record.c -- see record.h. */
#include "agent/io/record.h"

#include "agent/io/ending.h"
#include "agent/io/store.h"
#include "agent/io/whom.h"

/* Durations are measured on the monotonic clock; all three times of a row hang on one look at the wall clock, so that they agree. */
static int64_t
unix_ms_of(int64_t now_unix_ms, uint64_t now_ns, uint64_t at_ns)
{
	return now_unix_ms - (int64_t)((now_ns - at_ns) / 1000000u);
}

void
sbx_record_attempt(const struct sbx_exchange *ex, uint8_t attempt, int64_t unix_ms)
{
	const struct sbx_attempt *a = &ex->req.attempt[attempt];
	const struct sbx_note_of_attempt *note = &ex->note[attempt];
	const struct sbx_target *t = sbx_router_target(&ex->world->router, a->target);
	uint64_t now_ns = sbx_loop_now_ns(ex->agent->loop);
	if (!ex->agent->store)
		return;
	const struct sbx_store_row row = {
		.agent = ex->agent->generation,
		.request = ex->number,
		.attempt = attempt,
		.uid = (uint32_t)ex->peer->uid,
		.route = ex->route ? ex->route->name : NULL,
		.target = t ? t->name : "",
		.class = sbx_class_name(a->class),
		.connection = note->connection < 0 ? NULL : note->connection ? "new" : "reused",
		.usage_raw = note->usage_raw,
		.status = a->status,
		.wasted = a->class != SBX_CLASS_OK,
		.estimated = note->usage.estimated,
		.start_unix_ms = unix_ms_of(unix_ms, now_ns, a->started_ns),
		.end_unix_ms = unix_ms_of(unix_ms, now_ns, a->ended_ns),
		.first_content_unix_ms = a->first_content_ns ? unix_ms_of(unix_ms, now_ns, a->first_content_ns) : -1,
		.prompt_tokens = note->usage.prompt_tokens,
		.completion_tokens = note->usage.completion_tokens,
		.cached_tokens = note->usage.cached_tokens,
		.cache_write_tokens = note->usage.cache_write_tokens,
		.reasoning_tokens = note->usage.reasoning_tokens,
		.cost_nanousd = note->bill.status == SBX_COST_KNOWN ? note->bill.nanousd : -1,
		.cost_status = sbx_cost_status_word(note->bill.status),
		.price_row = note->bill.row ? note->bill.row->id : NULL,
		.tenant = ex->whom ? ex->whom->tenant : NULL,
		.key_id = ex->whom ? ex->whom->key : NULL,
		.end_user = ex->whom ? ex->whom->user : NULL,
		.tags = ex->whom ? ex->whom->tags : NULL,
	};
	(void)sbx_store_put(ex->agent->store, &row); /* a row that is lost is counted and told there; the request goes on */
}
