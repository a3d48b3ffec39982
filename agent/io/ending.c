/* SPDX-License-Identifier: Apache-2.0 */
/* ending.c -- see ending.h; the keys are specified in signalbox/wire.h. */
#include "agent/io/ending.h"

#include <stdio.h>
#include <string.h>

#include "agent/keys.h"

#define ERROR_BODY_MAX_BYTES 16384 /* the longest message of a provider, every byte of it escaped, and what is around it */
#define MS(ns) ((ns) / 1000000u)

static bool
has_usage(const struct sbx_usage *u)
{
	return u->prompt_tokens >= 0 || u->completion_tokens >= 0 || u->total_tokens >= 0;
}

static void
pack_usage(struct sbx_packer *p, const char *key, const struct sbx_usage *u)
{
	const struct {
		const char *key;
		int64_t tokens;
	} row[] = {
		{ "prompt_tokens", u->prompt_tokens }, { "completion_tokens", u->completion_tokens },   { "total_tokens", u->total_tokens },
		{ "cached_tokens", u->cached_tokens }, { "cache_write_tokens", u->cache_write_tokens }, { "reasoning_tokens", u->reasoning_tokens },
	};
	uint32_t n = (u->estimated ? 1u : 0u) + (u->clamped ? 1u : 0u);
	if (!has_usage(u)) {
		sbx_pack_nil(p, key);
		return;
	}
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
		n += row[i].tokens >= 0;
	sbx_pack_map(p, key, n);
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
		if (row[i].tokens >= 0)
			sbx_pack_uint(p, row[i].key, (uint64_t)row[i].tokens);
	if (u->estimated)
		sbx_pack_bool(p, "estimated", true);
	if (u->clamped)
		sbx_pack_bool(p, "clamped", true);
}

/* What is not known is nil, never 0. */
static void
pack_cost(struct sbx_packer *p, const struct sbx_bill *bill)
{
	if (bill->status == SBX_COST_KNOWN)
		sbx_pack_uint(p, "cost_nanousd", (uint64_t)bill->nanousd);
	else
		sbx_pack_nil(p, "cost_nanousd");
	if (bill->status != SBX_COST_KNOWN)
		sbx_pack_str(p, "cost_status", sbx_span_of(sbx_cost_status_word(bill->status)));
}

/* Keys that pack_cost() packs. */
static uint32_t
cost_keys(const struct sbx_bill *bill)
{
	return bill->status == SBX_COST_KNOWN ? 1 : 2;
}

/* The last attempt has no note where memory for it was out: nothing of it was sent, so it cost 0. */
static const struct sbx_note_of_attempt *
note_of(const struct sbx_exchange *ex, uint8_t attempt)
{
	static const struct sbx_note_of_attempt none = { .usage = { -1, -1, -1, -1, -1, -1, false, false }, .connection = -1, .bill = { .status = SBX_COST_KNOWN } };
	return attempt < ex->n_notes ? &ex->note[attempt] : &none;
}

static struct sbx_bill
bill_of_all(const struct sbx_exchange *ex)
{
	struct sbx_bill sum = { .status = SBX_COST_KNOWN };
	for (uint8_t i = 0; i < ex->req.n_attempts; i++)
		sbx_bill_add(&sum, &note_of(ex, i)->bill);
	return sum;
}

static const char *
target_name(const struct sbx_exchange *ex, uint32_t target)
{
	const struct sbx_target *t = sbx_router_target(&ex->world->router, target);
	return t ? t->name : "";
}

static void
pack_ms_or_nil(struct sbx_packer *p, const char *key, uint64_t at_ns, uint64_t from_ns)
{
	if (at_ns)
		sbx_pack_uint(p, key, MS(at_ns - from_ns));
	else
		sbx_pack_nil(p, key);
}

static void
pack_attempt(struct sbx_packer *p, const struct sbx_exchange *ex, uint8_t attempt)
{
	const struct sbx_attempt *a = &ex->req.attempt[attempt];
	const struct sbx_note_of_attempt *note = note_of(ex, attempt);
	uint64_t from = ex->req.started_ns;
	const char *message = note->message ? note->message : note->error ? note->error->message : a->timed_out ? "no answer in time" : NULL;
	sbx_pack_map(p, NULL, 10 + cost_keys(&note->bill));
	sbx_pack_str(p, "target", sbx_span_of(target_name(ex, a->target)));
	sbx_pack_str(p, "class", sbx_span_of(sbx_class_name(a->class)));
	if (a->status)
		sbx_pack_uint(p, "status", (uint64_t)a->status);
	else
		sbx_pack_nil(p, "status");
	sbx_pack_uint(p, "started_ms", MS(a->started_ns - from));
	pack_ms_or_nil(p, "ended_ms", a->ended_ns, from);
	pack_ms_or_nil(p, "first_content_ms", a->first_content_ns, from);
	pack_usage(p, "usage", &note->usage);
	pack_cost(p, &note->bill);
	if (note->bill.row)
		sbx_pack_str(p, "price", sbx_span_of(note->bill.row->id));
	else
		sbx_pack_nil(p, "price");
	if (note->connection < 0)
		sbx_pack_nil(p, "connection");
	else
		sbx_pack_str(p, "connection", note->connection ? SBX_SPAN("new") : SBX_SPAN("reused"));
	if (message && message[0])
		sbx_pack_str(p, "message", sbx_span_of(message));
	else
		sbx_pack_nil(p, "message");
}

static const char *
why_passed_over(enum sbx_gate gate)
{
	switch (gate) {
	case SBX_GATE_THROTTLED:
		return "throttled: the provider asked to wait";
	case SBX_GATE_BROKEN:
		return "down: it failed too often, and its next trial is not due";
	case SBX_GATE_NO_KEY:
		return "no usable key";
	case SBX_GATE_YES:
	case SBX_GATE_PROBE:
		break;
	}
	return "";
}

static bool
was_passed_over(const struct sbx_candidate_row *c)
{
	return c->counted + c->uncounted == 0 &&
	       (c->passed_over == SBX_GATE_THROTTLED || c->passed_over == SBX_GATE_BROKEN || c->passed_over == SBX_GATE_NO_KEY);
}

/* The attempts in their order, then the targets that were not tried and why. */
static void
pack_attempts(struct sbx_packer *p, const struct sbx_exchange *ex)
{
	const struct sbx_request *req = &ex->req;
	uint32_t n = req->n_attempts;
	for (uint8_t i = 0; i < req->n_candidates; i++)
		n += was_passed_over(&req->candidate[i]);
	sbx_pack_array(p, "attempts", n);
	for (uint8_t i = 0; i < req->n_attempts; i++)
		pack_attempt(p, ex, i);
	for (uint8_t i = 0; i < req->n_candidates; i++)
		if (was_passed_over(&req->candidate[i])) {
			sbx_pack_map(p, NULL, 3);
			sbx_pack_str(p, "target", sbx_span_of(target_name(ex, req->candidate[i].target)));
			sbx_pack_str(p, "class", sbx_span_of(sbx_class_name(SBX_CLASS_PASSED_OVER)));
			sbx_pack_str(p, "message", sbx_span_of(why_passed_over(req->candidate[i].passed_over)));
		}
}

void
sbx_ending_done(struct sbx_exchange *ex, uint8_t attempt, uint64_t now_ns)
{
	const struct sbx_attempt *a = &ex->req.attempt[attempt];
	const struct sbx_note_of_attempt *note = &ex->note[attempt];
	const struct sbx_target *t = sbx_router_target(&ex->world->router, a->target);
	const struct sbx_bill bill = bill_of_all(ex);
	struct sbx_packer p;
	sbx_frame_begin(&p, &ex->agent->frame, SBX_FRAME_DONE, ex->id, 9 + cost_keys(&bill));
	sbx_pack_str(&p, "provider", sbx_span_of(ex->world->config->tables.provider[a->provider].name));
	sbx_pack_str(&p, "model", sbx_span_of(t ? t->model : ""));
	sbx_pack_str(&p, "target", sbx_span_of(t ? t->name : ""));
	if (sbx_finish_word(note->finish))
		sbx_pack_str(&p, "finish", sbx_span_of(sbx_finish_word(note->finish)));
	else
		sbx_pack_nil(&p, "finish");
	pack_usage(&p, "usage", &note->usage);
	if (note->usage_raw)
		sbx_pack_str(&p, "usage_raw", sbx_span_of(note->usage_raw));
	else
		sbx_pack_nil(&p, "usage_raw");
	pack_cost(&p, &bill);
	sbx_pack_uint(&p, "total_ms", MS(now_ns - ex->req.started_ns));
	pack_ms_or_nil(&p, "first_content_ms", a->first_content_ns, ex->req.started_ns);
	pack_attempts(&p, ex);
	(void)sbx_frame_end(&p); /* without memory for it there is no frame, as sbx_outbox_last() will see */
}

/* ---- errors ---- */

/* The error as a client of the dialect expects it. */
static void
pack_error_body(struct sbx_packer *p, const struct sbx_dialect *dialect, enum sbx_code code, const char *message, const char *param,
                const struct sbx_provider_error *e)
{
	struct sbx_buf json;
	sbx_buf_init(&json, ERROR_BODY_MAX_BYTES);
	int rc = dialect->write_error(code, message, param, e, &json);
	sbx_pack_bin(p, "data", rc ? SBX_SPAN("{}") : (struct sbx_span){ (const char *)json.data, json.n });
	sbx_buf_fini(&json);
}

static void
pack_provider_error(struct sbx_packer *p, const struct sbx_exchange *ex, uint8_t attempt, const struct sbx_provider_error *e)
{
	const struct {
		const char *key, *text;
	} row[] = { { "type", e->type }, { "code", e->code }, { "param", e->param }, { "message", e->message } };
	uint32_t n = 2;
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
		n += row[i].text[0] != 0;
	sbx_pack_map(p, "provider_error", n);
	sbx_pack_str(p, "provider", sbx_span_of(ex->world->config->tables.provider[ex->req.attempt[attempt].provider].name));
	sbx_pack_uint(p, "status", (uint64_t)e->status);
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
		if (row[i].text[0])
			sbx_pack_str(p, row[i].key, sbx_span_of(row[i].text));
}

/* For people: what happened, and what to do next. */
static void
fmt_message(const struct sbx_exchange *ex, const struct sbx_effect *fx, char *to, size_t bytes)
{
	const struct sbx_note_of_attempt *note = fx->attempt < ex->n_notes ? &ex->note[fx->attempt] : NULL;
	const char *from = note ? target_name(ex, ex->req.attempt[fx->attempt].target) : "";
	const char *said = note && note->error && note->error->message[0] ? note->error->message : note && note->message ? note->message : NULL;
	const char *means = note ? sbx_class_meaning(ex->req.attempt[fx->attempt].class) : "";
	double wait_s = fx->retry_after_ns > 0 ? (double)fx->retry_after_ns / 1e9 : 0;
	switch (fx->code) {
	case SBX_CODE_TIMEOUT:
		(void)snprintf(to, bytes, "no complete answer within the deadline of %llu ms; %u attempt(s) were made",
		               (unsigned long long)MS(ex->req.deadline_ns - ex->req.started_ns), ex->req.n_attempts);
		return;
	case SBX_CODE_CANCELLED:
		(void)snprintf(to, bytes, "cancelled by the client");
		return;
	case SBX_CODE_DRAINING:
		(void)snprintf(to, bytes, "the agent is stopping; submit again to its successor");
		return;
	case SBX_CODE_INTERNAL:
		(void)snprintf(to, bytes, "the agent had no memory for the answer");
		return;
	case SBX_CODE_RATE_LIMITED:
		if (!note || !said) {
			(void)snprintf(to, bytes, "every target is throttled by its provider; try again in %.1f s", wait_s);
			return;
		}
		break;
	default:
		break;
	}
	if (note)
		(void)snprintf(to, bytes, "%s: %s", from, said ? said : means);
	else
		(void)snprintf(to, bytes, "no target could be tried; `signalbox status` shows why");
}

void
sbx_ending_error(struct sbx_exchange *ex, const struct sbx_effect *fx, uint64_t now_ns)
{
	const struct sbx_note_of_attempt *note = fx->attempt < ex->n_notes ? &ex->note[fx->attempt] : NULL;
	const struct sbx_provider_error *e = note ? note->error : NULL;
	char message[1600];
	fmt_message(ex, fx, message, sizeof message);
	const struct sbx_bill bill = bill_of_all(ex);
	struct sbx_packer p;
	bool wait = fx->retry_after_ns >= 0;
	sbx_frame_begin(&p, &ex->agent->frame, SBX_FRAME_ERROR, ex->id, 7 + cost_keys(&bill) + (wait ? 1u : 0u) + (e ? 1u : 0u) + (ex->data ? 1u : 0u));
	sbx_pack_str(&p, "code", sbx_span_of(sbx_code_word(fx->code)));
	sbx_pack_uint(&p, "status", (uint64_t)fx->status);
	sbx_pack_str(&p, "message", sbx_span_of(message));
	sbx_pack_bool(&p, "retryable", fx->retryable);
	if (wait)
		sbx_pack_uint(&p, "retry_after_ms", (uint64_t)(fx->retry_after_ns + 999999) / 1000000u);
	if (e)
		pack_provider_error(&p, ex, fx->attempt, e);
	pack_usage(&p, "usage", note ? &note->usage : &SBX_USAGE_NONE);
	pack_cost(&p, &bill);
	sbx_pack_uint(&p, "total_ms", MS(now_ns - ex->req.started_ns));
	pack_attempts(&p, ex);
	if (ex->data)
		pack_error_body(&p, ex->dialect, fx->code, e && e->message[0] ? e->message : message, NULL, e);
	(void)sbx_frame_end(&p);
}

void
sbx_ending_refusal(struct sbx_agent *agent, uint64_t id, bool data, const struct sbx_refusal *refusal)
{
	struct sbx_packer p;
	bool wait = refusal->retry_after_ms >= 0;
	sbx_frame_begin(&p, &agent->frame, SBX_FRAME_ERROR, id, 5 + (wait ? 1u : 0u) + (data ? 1u : 0u));
	sbx_pack_str(&p, "code", sbx_span_of(sbx_code_word(refusal->code)));
	sbx_pack_uint(&p, "status", (uint64_t)sbx_code_status(refusal->code));
	sbx_pack_str(&p, "message", sbx_span_of(refusal->why));
	sbx_pack_bool(&p, "retryable", wait);
	if (wait)
		sbx_pack_uint(&p, "retry_after_ms", (uint64_t)refusal->retry_after_ms);
	sbx_pack_array(&p, "attempts", 0);
	if (data)
		pack_error_body(&p, sbx_dialect_find("openai-chat"), refusal->code, refusal->why, refusal->param, NULL); /* a SUBMIT that cannot be read
		                                                                                                         * has no other dialect */
	(void)sbx_frame_end(&p);
}
