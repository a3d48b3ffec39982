/* SPDX-License-Identifier: Apache-2.0 */
/* record.c -- see record.h. */
#include "agent/io/record.h"

#include <stdio.h>

#include "agent/io/ending.h"
#include "agent/io/store.h"
#include "agent/io/whom.h"

#define UID_BYTES sizeof "uid:4294967295"

/* ---- counting ---- */

/* As a door names a user of the host: who asks through it and without it is the same one. */
static struct sbx_span
user_of(const struct sbx_peer *peer, char text[static UID_BYTES])
{
	int n = snprintf(text, UID_BYTES, "uid:%u", (unsigned)peer->uid);
	return (struct sbx_span){ text, (size_t)n };
}

void
sbx_record_begin(struct sbx_exchange *ex)
{
	char uid[UID_BYTES];
	ex->ticket = sbx_tally_begin(ex->agent->tally, sbx_span_of(ex->route ? ex->route->name : NULL),
	                             ex->whom && ex->whom->tenant ? sbx_span_of(ex->whom->tenant) : user_of(ex->peer, uid));
}

void
sbx_record_refusal(struct sbx_agent *agent, const struct sbx_peer *peer, const struct sbx_submit *submit, enum sbx_code code)
{
	char uid[UID_BYTES];
	bool believed = submit && submit->tenant.n && sbx_whom_trusts(agent, peer);
	sbx_tally_refusal(agent->tally, believed ? submit->tenant : user_of(peer, uid), submit ? (uint8_t)submit->op : SBX_OP__COUNT, code);
}

static struct sbx_tally_end
end_of(const struct sbx_exchange *ex, uint8_t attempt, uint64_t from_ns, uint64_t to_ns)
{
	struct sbx_tally_end end = { .op = (uint8_t)ex->req.op, .duration_ns = to_ns - from_ns };
	if (attempt >= ex->req.n_attempts)
		return end;
	const struct sbx_attempt *a = &ex->req.attempt[attempt];
	const struct sbx_target *t = sbx_router_target(&ex->world->router, a->target);
	end.target = sbx_span_of(t ? t->name : NULL);
	end.unknown = a->target >= ex->world->config->tables.n_targets;
	end.streamed = ex->req.stream && a->first_content_ns;
	end.first_content_ns = end.streamed ? a->first_content_ns - from_ns : 0;
	return end;
}

void
sbx_record_end(struct sbx_exchange *ex, uint8_t attempt, enum sbx_code code)
{
	struct sbx_tally_end end = end_of(ex, attempt, ex->req.started_ns, sbx_loop_now_ns(ex->agent->loop));
	end.outcome = (uint8_t)code;
	sbx_tally_request(ex->agent->tally, &ex->ticket, &end);
}

static void
tally_attempt(const struct sbx_exchange *ex, uint8_t attempt)
{
	const struct sbx_attempt *a = &ex->req.attempt[attempt];
	struct sbx_tally_end end = end_of(ex, attempt, a->started_ns, a->ended_ns);
	end.outcome = (uint8_t)a->class;
	end.usage = &ex->note[attempt].usage;
	end.bill = &ex->note[attempt].bill;
	sbx_tally_attempt(ex->agent->tally, &ex->ticket, &end);
}

/* ---- the store ---- */

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
	tally_attempt(ex, attempt);
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
