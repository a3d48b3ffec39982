/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.c -- see exchange.h. From top to bottom: legs, what a leg reports, effects, the client's side. */
#include "agent/io/exchange.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/io/admit.h"
#include "agent/io/ending.h"
#include "agent/io/record.h"
#include "agent/io/warm.h"
#include "agent/io/whom.h"
#include "agent/keys.h"
#include "agent/log.h"

#define EXCHANGE_MAGIC 0xe8c4a6e1u
#define LEG_MAGIC 0x1e65a6e1u
#define DRAIN_NS 2000000000ull /* after the end mark, the connection gets so long to end its answer in order and be kept */

/* One running attempt: the call and the decoder of its answer. */
struct sbx_leg {
	uint32_t magic;
	uint8_t attempt;                    /* number within the request */
	bool dead;                          /* freed at the end of the turn */
	bool paused;
	bool all_sent;                      /* libcurl needs the request's bytes no more */
	struct sbx_agent *agent;
	struct sbx_exchange *ex;            /* NULL: the request has what it wanted, only the connection is being drained */
	struct sbx_call *call;              /* NULL once it ended */
	struct sbx_decoder *decoder;
	const struct sbx_dialect *dialect;
	struct sbx_world *world;            /* one reference: the lane lives as long as the call */
	const struct sbx_call_end *call_end; /* during on_end */
	struct sbx_leg *next, **link;       /* in its request's list, or in the agent's of drained ones */
	struct sbx_leg *next_dead;
	struct sbx_timer drain;
	struct sbx_span usage;              /* in the payload whose WIRE comes next; empty = none there */
	struct sbx_pieces pieces;
};

static void step(struct sbx_exchange *ex, const struct sbx_req_event *ev);

/* ---- legs ---- */

static void
leg_link(struct sbx_leg *leg, struct sbx_leg **head)
{
	leg->next = *head;
	if (leg->next)
		leg->next->link = &leg->next;
	leg->link = head;
	*head = leg;
}

static void
leg_unlink(struct sbx_leg *leg)
{
	*leg->link = leg->next;
	if (leg->next)
		leg->next->link = leg->link;
}

static void
leg_die(struct sbx_leg *leg)
{
	if (leg->dead)
		return;
	leg_unlink(leg);
	leg->dead = true;
	if (leg->call)
		sbx_call_abort(leg->call);
	leg->call = NULL;
	sbx_timer_cancel(&leg->agent->timers, &leg->drain);
	leg->next_dead = leg->agent->dead_legs;
	leg->agent->dead_legs = leg;
}

static void
on_drain_timeout(void *arg, uint64_t now_ns)
{
	(void)now_ns;
	leg_die(arg);
}

/* Part a leg from its request. drain: the answer is complete; let the connection come to its orderly end. */
static void
leg_detach(struct sbx_leg *leg, bool drain)
{
	struct sbx_exchange *ex = leg->ex;
	if (!ex)
		return;
	leg->ex = NULL;
	ex->agent->count.events_malformed += leg->dialect->decoder_malformed(leg->decoder);
	if (drain && leg->call && leg->all_sent) {
		leg_unlink(leg);
		leg_link(leg, &leg->agent->drained_legs);
		sbx_call_pause(leg->call, false);
		sbx_timer_arm(&leg->agent->timers, &leg->drain, sbx_loop_now_ns(leg->agent->loop) + DRAIN_NS);
	} else {
		leg_die(leg);
	}
}

static struct sbx_leg *
leg_of(struct sbx_exchange *ex, uint8_t attempt)
{
	struct sbx_leg *leg = ex->leg;
	while (leg && leg->attempt != attempt)
		leg = leg->next;
	return leg;
}

static void
leg_free(struct sbx_leg *leg)
{
	leg->dialect->decoder_free(leg->decoder);
	sbx_world_put(leg->world);
	leg->magic = 0;
	free(leg);
}

/* ---- what a leg reports ---- */

static char *
copy_text(const char *text, size_t n, size_t max_bytes)
{
	if (n > max_bytes)
		n = max_bytes;
	char *copy = malloc(n + 1);
	if (copy) {
		memcpy(copy, text, n);
		copy[n] = 0;
	}
	return copy;
}

static void
redact(char *text, size_t size)
{
	text[sbx_redact(text, strnlen(text, size - 1))] = 0;
}

static void
note_error(struct sbx_note_of_attempt *note, const struct sbx_provider_error *error)
{
	if (!note->error)
		note->error = malloc(sizeof *note->error);
	if (!note->error)
		return; /* the class is told all the same */
	*note->error = *error;
	redact(note->error->type, sizeof note->error->type);
	redact(note->error->code, sizeof note->error->code);
	redact(note->error->param, sizeof note->error->param);
	redact(note->error->message, sizeof note->error->message);
}

static void
note_call_end(struct sbx_note_of_attempt *note, const struct sbx_call_end *end)
{
	note->connection = end->connection;
	if (end->message[0] && !note->message) {
		note->message = copy_text(end->message, strlen(end->message), SBX_MESSAGE_MAX_BYTES);
		if (note->message)
			redact(note->message, strlen(note->message) + 1);
	}
}

static void
log_attempt(const struct sbx_exchange *ex, uint8_t attempt)
{
	const struct sbx_attempt *a = &ex->req.attempt[attempt];
	const struct sbx_target *t = sbx_router_target(&ex->world->router, a->target);
	const struct sbx_note_of_attempt *note = &ex->note[attempt];
	sbx_log(a->class == SBX_CLASS_OK ? SBX_LOG_DEBUG : SBX_LOG_INFO, "attempt", SBX_STR("target", t ? t->name : NULL),
	        SBX_STR("class", sbx_class_name(a->class)), SBX_INT("status", a->status), SBX_NS("took", a->ended_ns - a->started_ns),
	        SBX_STR("says", note->message));
}

static int64_t
wall_clock_ms(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail with this clock */
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* By the prices of this moment, at which it has ended. */
static void
bill_attempt(struct sbx_exchange *ex, uint8_t attempt, int64_t unix_s)
{
	const struct sbx_attempt *a = &ex->req.attempt[attempt];
	const struct sbx_target *t = sbx_router_target(&ex->world->router, a->target);
	ex->note[attempt].bill = sbx_bill_attempt(ex->world->config->tables.facts, t ? t->known : NULL, a->class, a->first_content_ns != 0,
	                                          &ex->note[attempt].usage, unix_s);
}

/* Each attempt is counted, told, billed and recorded once, when it has ended; more than one can end in a step. */
static void
tell_ended(struct sbx_exchange *ex)
{
	int64_t unix_ms = 0; /* asked once, and only if something has ended */
	for (uint8_t i = 0; i < ex->req.n_attempts && i < ex->n_notes; i++)
		if (ex->req.attempt[i].state == SBX_ATT_ENDED && !(ex->told & 1u << i)) {
			ex->told |= 1u << i;
			ex->agent->count.attempts_failed += ex->req.attempt[i].class != SBX_CLASS_OK;
			log_attempt(ex, i);
			unix_ms = unix_ms ? unix_ms : wall_clock_ms();
			bill_attempt(ex, i, unix_ms / 1000);
			sbx_record_attempt(ex, i, unix_ms);
		}
}

/* The attempt is over as far as the request is concerned. */
static void
leg_ended(struct sbx_leg *leg, enum sbx_transport transport, bool complete, bool drain)
{
	struct sbx_exchange *ex = leg->ex;
	uint8_t attempt = leg->attempt;
	const struct sbx_attempt *a = &ex->req.attempt[attempt];
	struct sbx_note_of_attempt *note = &ex->note[attempt];
	const struct sbx_call_end *call_end = leg->call_end;
	struct sbx_end end = {
		.transport = transport,
		.sent = a->sent_ns != 0,
		.got_bytes = a->last_bytes_ns != 0,
		.got_content = a->first_content_ns != 0,
		.complete = complete || a->complete,
		.committed = ex->req.state == SBX_REQ_COMMITTED,
		.retry_after_ns = -1,
		.error = note->error,
	};
	if (call_end) {
		end.sent |= call_end->sent;
		end.got_bytes |= call_end->got_bytes;
		end.status = call_end->status;
		end.retry_after_ns = sbx_retry_after_ns(call_end->retry, call_end->head_unix_s);
		end.told_no_retry = call_end->retry->told_no_retry;
	} else {
		end.status = note->error ? note->error->status : 200;
	}
	if (note->error && note->error->retry_after_ns > end.retry_after_ns)
		end.retry_after_ns = note->error->retry_after_ns;
	leg_detach(leg, drain);
	struct sbx_req_event ev = { .kind = SBX_REQ_EV_ENDED, .attempt = attempt, .end = &end };
	step(ex, &ev);
}

/* The first content commits a stream; what follows takes the short path. */
static void
saw_content(struct sbx_leg *leg)
{
	struct sbx_exchange *ex = leg->ex;
	if (ex->req.attempt[leg->attempt].first_content_ns) {
		sbx_request_on_content(&ex->req, leg->attempt, sbx_loop_now_ns(ex->agent->loop));
	} else {
		struct sbx_req_event first = { .kind = SBX_REQ_EV_CONTENT, .attempt = leg->attempt };
		step(ex, &first);
	}
}

/* As a server-sent event: a payload of several lines (JSON may be laid out so) has `data: ` before each. */
static void
put_sse(struct sbx_outbox *out, struct sbx_span payload)
{
	const char *line_end;
	while (payload.n && (line_end = memchr(payload.at, '\n', payload.n))) {
		struct sbx_span line = { payload.at, (size_t)(line_end - payload.at) };
		sbx_outbox_data(out, SBX_SPAN("data: "), line, SBX_SPAN("\n"));
		payload.at += line.n + 1;
		payload.n -= line.n + 1;
	}
	sbx_outbox_data(out, SBX_SPAN("data: "), payload, SBX_SPAN("\n\n"));
}

/* What the request has cost so far: the attempts that have ended, and this one by the usage that it just told. */
static struct sbx_bill
bill_so_far(const struct sbx_exchange *ex, uint8_t attempt)
{
	const struct sbx_target *t = sbx_router_target(&ex->world->router, ex->req.attempt[attempt].target);
	struct sbx_bill sum = sbx_bill_attempt(ex->world->config->tables.facts, t ? t->known : NULL, SBX_CLASS_OK, true, &ex->note[attempt].usage,
	                                       wall_clock_ms() / 1000);
	for (uint8_t i = 0; i < ex->n_notes; i++)
		if (i != attempt)
			sbx_bill_add(&sum, &ex->note[i].bill);
	return sum;
}

static void
put_wire(struct sbx_exchange *ex, struct sbx_span payload)
{
	if (ex->req.stream)
		put_sse(&ex->out, payload);
	else
		sbx_outbox_data(&ex->out, SBX_SPAN(""), payload, SBX_SPAN(""));
}

/* The payload as the client of the dialect gets it. The end mark is not passed on: we say it, once we know it to be true. */
static void
on_wire(struct sbx_leg *leg, const struct sbx_hub_event *ev)
{
	struct sbx_exchange *ex = leg->ex;
	struct sbx_span usage = leg->usage;
	leg->usage = (struct sbx_span){ NULL, 0 };
	if (ev->flags & SBX_WIRE_CONTENT) /* also content that has no typed event, as a piece of audio */
		saw_content(leg);
	if (!leg->ex || !ex->data || ev->flags & (SBX_WIRE_UNASKED | SBX_WIRE_END | SBX_WIRE_MALFORMED))
		return;
	if (!ex->want_cost || !usage.n) {
		put_wire(ex, ev->text);
		return;
	}
	const struct sbx_bill bill = bill_so_far(ex, leg->attempt);
	char usd[SBX_USD_BYTES];
	struct sbx_buf with_cost;
	sbx_buf_init(&with_cost, SBX_BODY_MAX_BYTES + SBX_USD_BYTES + 16);
	if (leg->dialect->add_cost(ev->text, usage, bill.status == SBX_COST_KNOWN ? sbx_bill_fmt_usd(bill.nanousd, usd) : NULL, &with_cost))
		ex->out.failed = true;
	else
		put_wire(ex, (struct sbx_span){ (const char *)with_cost.data, with_cost.n });
	sbx_buf_fini(&with_cost);
}

static void
on_hub_event(void *arg, const struct sbx_hub_event *ev)
{
	struct sbx_leg *leg = arg;
	struct sbx_exchange *ex = leg->ex;
	assert(leg->magic == LEG_MAGIC);
	if (!ex)
		return; /* what comes after the end concerns nobody */
	struct sbx_note_of_attempt *note = &ex->note[leg->attempt];
	switch (ev->kind) {
	case SBX_HUB_LIFECYCLE:
		sbx_request_on_bytes(&ex->req, leg->attempt, sbx_loop_now_ns(ex->agent->loop));
		break;
	case SBX_HUB_DETAIL:
		break; /* for a client of another dialect, and for the next turn */
	case SBX_HUB_TEXT:
	case SBX_HUB_REASONING:
	case SBX_HUB_REFUSAL:
	case SBX_HUB_TOOL_CALL:
	case SBX_HUB_VECTOR:
		saw_content(leg);
		if (leg->ex && ev->kind == SBX_HUB_TOOL_CALL && ex->req.state == SBX_REQ_COMMITTED)
			ex->req.restart = false; /* a client may have begun to act on a call; it cannot be taken back */
		if (leg->ex && !ex->data)
			sbx_outbox_event(&ex->out, ev);
		break;
	case SBX_HUB_USAGE:
		note->usage = *ev->usage;
		leg->usage = ev->usage_raw;
		free(note->usage_raw);
		note->usage_raw = ev->usage_raw.n <= SBX_USAGE_RAW_MAX_BYTES ? copy_text(ev->usage_raw.at, ev->usage_raw.n, ev->usage_raw.n) : NULL;
		if (note->usage_raw)
			redact(note->usage_raw, ev->usage_raw.n + 1); /* it goes to the client, and into the store */
		break;
	case SBX_HUB_FINISH:
		if (ev->choice == 0 || note->finish == SBX_FINISH_NONE)
			note->finish = ev->finish;
		if (!ex->data)
			sbx_outbox_event(&ex->out, ev);
		break;
	case SBX_HUB_COMPLETE: {
		struct sbx_req_event complete = { .kind = SBX_REQ_EV_COMPLETE, .attempt = leg->attempt };
		step(ex, &complete);
		break;
	}
	case SBX_HUB_ERROR:
		note_error(note, ev->error);
		leg_ended(leg, SBX_TRANSPORT_OK, false, false);
		break;
	case SBX_HUB_END:
		/* The end of a whole body comes with the end of the call, which knows more. */
		if (!leg->call_end)
			leg_ended(leg, SBX_TRANSPORT_OK, ex->req.attempt[leg->attempt].complete, true);
		break;
	case SBX_HUB_WIRE:
		on_wire(leg, ev);
		break;
	}
}

static void
on_call_connected(void *arg)
{
	struct sbx_leg *leg = arg;
	if (!leg->ex)
		return;
	struct sbx_req_event ev = { .kind = SBX_REQ_EV_CONNECTED, .attempt = leg->attempt };
	step(leg->ex, &ev);
}

static void
on_call_sent(void *arg)
{
	struct sbx_leg *leg = arg;
	leg->all_sent = true;
	if (!leg->ex)
		return;
	struct sbx_req_event ev = { .kind = SBX_REQ_EV_SENT, .attempt = leg->attempt };
	step(leg->ex, &ev);
}

static void
on_call_head(void *arg, int status, const char *content_type)
{
	struct sbx_leg *leg = arg;
	if (!leg->ex)
		return;
	leg->ex->note[leg->attempt].connection = sbx_call_connection(leg->call); /* a stream may end before its call does */
	leg->dialect->decoder_head(leg->decoder, status, content_type);
	sbx_request_on_bytes(&leg->ex->req, leg->attempt, sbx_loop_now_ns(leg->agent->loop));
}

/* A client that does not take what it asked for stops its provider's stream, and nobody else's. */
static void
set_paused(struct sbx_leg *leg, bool paused)
{
	if (leg->paused == paused || !leg->call)
		return;
	leg->paused = paused;
	if (paused)
		leg->agent->count.credit_stalls++;
	else
		sbx_request_on_content(&leg->ex->req, leg->attempt, sbx_loop_now_ns(leg->agent->loop)); /* the silence was ours */
	sbx_call_pause(leg->call, paused);
}

static void
on_call_body(void *arg, const char *bytes, size_t n)
{
	struct sbx_leg *leg = arg;
	if (!leg->ex)
		return;
	sbx_request_on_bytes(&leg->ex->req, leg->attempt, sbx_loop_now_ns(leg->agent->loop));
	leg->dialect->decoder_feed(leg->decoder, bytes, n);
	struct sbx_exchange *ex = leg->ex;
	if (!ex)
		return;
	if (ex->out.failed)
		sbx_exchange_cancel(ex, SBX_CODE_INTERNAL);
	else if (ex->out.open && sbx_outbox_waiting(&ex->out) && !ex->req.attempt[leg->attempt].complete) /* only its usage is to come */
		set_paused(leg, true);
}

static void
on_call_end(void *arg, const struct sbx_call_end *end)
{
	struct sbx_leg *leg = arg;
	leg->call = NULL; /* gone after this */
	if (!leg->ex) {
		leg_die(leg);
		return;
	}
	leg->call_end = end;
	note_call_end(&leg->ex->note[leg->attempt], end);
	if (end->transport == SBX_TRANSPORT_OK)
		leg->dialect->decoder_end(leg->decoder);
	if (leg->ex)
		leg_ended(leg, end->transport, false, false);
	leg->call_end = NULL;
}

static const struct sbx_call_ops call_ops = { on_call_connected, on_call_sent, on_call_head, on_call_body, on_call_end };

/* ---- effects ---- */

static int
add_note(struct sbx_exchange *ex, uint8_t attempt)
{
	struct sbx_note_of_attempt *note = realloc(ex->note, (attempt + 1u) * sizeof *note);
	if (!note)
		return -SBX_ENOMEM;
	ex->note = note;
	for (; ex->n_notes <= attempt; ex->n_notes++)
		note[ex->n_notes] = (struct sbx_note_of_attempt){ .usage = SBX_USAGE_NONE, .connection = -1 };
	return 0;
}

static int
leg_start(struct sbx_exchange *ex, uint8_t attempt)
{
	const struct sbx_attempt *a = &ex->req.attempt[attempt];
	const struct sbx_provider *p = &ex->world->config->tables.provider[a->provider];
	const struct sbx_target *t = sbx_router_target(&ex->world->router, a->target);
	struct sbx_decode_opts opts = {
		.op = ex->req.op,
		.quirks = p->quirks,
		.choices = ex->ask.choices,
		.stream = ex->req.stream,
		.stream_only = ex->data,
		.want_text = !ex->data,
		.drop_usage = !ex->client_usage,
	};
	int rc = -SBX_ENOMEM;
	struct sbx_leg *leg = calloc(1, sizeof *leg);
	if (!leg)
		return rc;
	leg->magic = LEG_MAGIC;
	leg->attempt = attempt;
	leg->agent = ex->agent;
	leg->dialect = p->dialect;
	leg->drain = (struct sbx_timer){ .fire = on_drain_timeout, .arg = leg };
	leg->decoder = p->dialect->decoder_new(&opts, &ex->agent->scratch, on_hub_event, leg);
	if (!leg->decoder)
		goto fail;
	p->dialect->write_request(&ex->ask, t->model, ex->req.stream, &p->quirks, &leg->pieces);
	assert(a->credential != UINT32_MAX); /* config gives every usable provider a credential, if only one without a secret */
	struct sbx_call_ask ask = {
		.op = ex->req.op,
		.model = t->model,
		.stream = ex->req.stream,
		.idempotency_key = p->idempotency_key ? ex->idempotency_key : NULL,
		.body = &leg->pieces,
	};
	rc = sbx_call_start(ex->world->lane[a->credential], &ask, &call_ops, leg, &leg->call);
	if (rc)
		goto fail;
	leg->world = sbx_world_get(ex->world);
	leg->ex = ex;
	leg_link(leg, &ex->leg);
	sbx_outbox_target(&ex->out, t->name, attempt);
	ex->agent->count.attempts++;
	sbx_warmer_on_use(ex->agent, ex->world, a->provider);
	return 0;
fail:
	p->dialect->decoder_free(leg->decoder);
	free(leg);
	return rc;
}

static void
start_attempt(struct sbx_exchange *ex, uint8_t attempt)
{
	if (add_note(ex, attempt)) { /* not even room to remember it: the whole request is given up */
		sbx_exchange_cancel(ex, SBX_CODE_INTERNAL);
		return;
	}
	if (leg_start(ex, attempt) == 0)
		return;
	struct sbx_end end = { .transport = SBX_TRANSPORT_LOCAL, .retry_after_ns = -1 };
	struct sbx_req_event ev = { .kind = SBX_REQ_EV_ENDED, .attempt = attempt, .end = &end };
	step(ex, &ev);
}

/* The last frame is out, or nobody waits for it: the exchange is over. */
static void
finish_when_flushed(struct sbx_exchange *ex)
{
	if (ex->dead || !sbx_request_ended(&ex->req) || (ex->session && sbx_outbox_waiting(&ex->out)))
		return;
	ex->dead = true;
	sbx_timer_cancel(&ex->agent->timers, &ex->timer);
	if (ex->session)
		sbx_session_forget(ex->session, ex);
	ex->session = NULL;
	ex->next_dead = ex->agent->dead_exchanges;
	ex->agent->dead_exchanges = ex;
}

/* ERROR as the last frame: behind what waits, or, where memory is out, instead of it. */
static void
send_error(struct sbx_exchange *ex, const struct sbx_effect *fx)
{
	uint64_t now_ns = sbx_loop_now_ns(ex->agent->loop);
	if (!ex->session)
		return;
	sbx_ending_error(ex, fx, now_ns);
	if (sbx_outbox_last(&ex->out)) {
		sbx_outbox_drop(&ex->out);
		sbx_ending_error(ex, fx, now_ns);
		(void)sbx_outbox_last(&ex->out); /* nothing is before it now */
	}
}

/* The request has ended, but not all of it reached the client, nor will it: an ERROR instead of the rest. */
static void
replace_rest(struct sbx_exchange *ex, enum sbx_code code)
{
	const struct sbx_effect fx = { .kind = SBX_FX_END_ERROR, .attempt = SBX_ATTEMPTS_MAX, .code = code, .status = sbx_code_status(code), .retry_after_ns = -1 };
	sbx_outbox_drop(&ex->out);
	send_error(ex, &fx);
}

static void
end_ok(struct sbx_exchange *ex, uint8_t attempt)
{
	if (ex->data && ex->req.stream)
		sbx_outbox_data(&ex->out, SBX_SPAN(""), SBX_SPAN("data: [DONE]\n\n"), SBX_SPAN(""));
	if (!ex->out.failed) {
		sbx_ending_done(ex, attempt, sbx_loop_now_ns(ex->agent->loop));
		if (sbx_outbox_last(&ex->out) == 0) {
			ex->agent->count.requests_ok++;
			ex->agent->count.failovers += ex->req.attempt[attempt].candidate != 0;
			sbx_record_end(ex, attempt, SBX_CODE_NONE);
			return;
		}
	}
	ex->agent->count.requests_failed++;
	sbx_record_end(ex, attempt, SBX_CODE_INTERNAL);
	replace_rest(ex, SBX_CODE_INTERNAL);
}

static void
end_error(struct sbx_exchange *ex, const struct sbx_effect *fx)
{
	struct sbx_counters *count = &ex->agent->count;
	if (fx->code == SBX_CODE_CANCELLED)
		count->requests_cancelled++;
	else if (fx->code == SBX_CODE_DRAINING)
		count->requests_lost++;
	else
		count->requests_failed++;
	sbx_record_end(ex, fx->attempt, fx->code);
	send_error(ex, fx);
}

static void
reset(struct sbx_exchange *ex, uint8_t attempt)
{
	struct sbx_packer p;
	sbx_outbox_drop(&ex->out);
	ex->agent->count.resets++;
	sbx_frame_begin(&p, &ex->agent->frame, SBX_FRAME_RESET, ex->id, 1);
	sbx_pack_uint(&p, "attempt", attempt);
	if (sbx_frame_end(&p))
		ex->out.failed = true;
	else
		sbx_outbox_now(&ex->out);
}

static void
carry_out(struct sbx_exchange *ex, const struct sbx_effect *fx)
{
	struct sbx_leg *leg;
	switch (fx->kind) {
	case SBX_FX_START:
		start_attempt(ex, fx->attempt);
		break;
	case SBX_FX_ABORT:
		if ((leg = leg_of(ex, fx->attempt)))
			leg_detach(leg, false);
		break;
	case SBX_FX_COMMIT:
		sbx_outbox_open(&ex->out);
		break;
	case SBX_FX_DROP:
		sbx_outbox_drop(&ex->out);
		break;
	case SBX_FX_RESET:
		reset(ex, fx->attempt);
		break;
	case SBX_FX_END_OK:
		end_ok(ex, fx->attempt);
		break;
	case SBX_FX_END_ERROR:
		end_error(ex, fx);
		break;
	}
}

/* The lazy timer: it may be early, never late. Once the request has ended, it bounds how long its last frames wait. */
static void
arm_timer(struct sbx_exchange *ex)
{
	uint64_t at = sbx_request_ended(&ex->req) ? ex->req.deadline_ns : sbx_request_wake_ns(&ex->req);
	if (!ex->timer.place || at < ex->timer.at_ns)
		sbx_timer_arm(&ex->agent->timers, &ex->timer, at);
}

static void
step(struct sbx_exchange *ex, const struct sbx_req_event *ev)
{
	struct sbx_effects fx = { 0 };
	sbx_request_step(&ex->req, &ex->world->judge, ev, sbx_loop_now_ns(ex->agent->loop), &fx);
	tell_ended(ex);
	for (uint32_t i = 0; i < fx.n; i++)
		carry_out(ex, &fx.fx[i]);
	if (sbx_request_ended(&ex->req))
		finish_when_flushed(ex);
	if (!ex->dead)
		arm_timer(ex);
}

static void
on_timer(void *arg, uint64_t now_ns)
{
	struct sbx_exchange *ex = arg;
	assert(ex->magic == EXCHANGE_MAGIC);
	if (sbx_request_ended(&ex->req)) {
		/* The client has not taken its answer within the deadline: it gets the error instead of the rest. */
		if (now_ns >= ex->req.deadline_ns)
			replace_rest(ex, SBX_CODE_TIMEOUT);
		finish_when_flushed(ex);
		if (!ex->dead)
			arm_timer(ex);
		return;
	}
	for (struct sbx_leg *leg = ex->leg; leg; leg = leg->next)
		if (leg->paused) /* silence that the client causes is not the provider's */
			sbx_request_on_content(&ex->req, leg->attempt, now_ns);
	struct sbx_req_event ev = { .kind = SBX_REQ_EV_TIMER, .attempt = SBX_ATTEMPTS_MAX };
	step(ex, &ev);
}

/* ---- the client's side ---- */

static void
exchange_free(struct sbx_exchange *ex)
{
	for (uint32_t i = 0; i < ex->n_notes; i++) {
		free(ex->note[i].usage_raw);
		free(ex->note[i].error);
		free(ex->note[i].message);
	}
	free(ex->note);
	sbx_outbox_fini(&ex->out);
	free(ex->idempotency_key);
	free(ex->body);
	sbx_world_put(ex->world);
	ex->magic = 0;
	free(ex);
}

/* For each exchange its own and that of the connection it may leave behind; for each call, which may be such a connection; for
 * each session; and the few of main: arming one cannot fail then. In steps, since each new one asks. */
int
sbx_exchange_reserve_timers(struct sbx_agent *agent)
{
	uint32_t n = 2 * agent->n_exchanges + sbx_upstream_stats(agent->upstream)->active + agent->n_sessions + 16;
	return sbx_timers_reserve(&agent->timers, (n | 1023) + 1);
}

int
sbx_exchange_new(struct sbx_agent *agent, struct sbx_session *session, struct sbx_stream *stream, struct sbx_peer *peer, uint64_t id,
                 const struct sbx_submit *submit, struct sbx_exchange **ret_exchange, struct sbx_refusal *r)
{
	uint64_t now_ns = sbx_loop_now_ns(agent->loop);
	int rc = sbx_admit_submit(agent, peer, submit, r);
	if (rc)
		return rc;
	struct sbx_exchange *ex = calloc(1, sizeof *ex);
	if (!ex || sbx_exchange_reserve_timers(agent)) {
		free(ex);
		return sbx_refuse(r, SBX_CODE_INTERNAL, 1000, "out of memory");
	}
	ex->magic = EXCHANGE_MAGIC;
	ex->agent = agent;
	ex->world = sbx_world_get(agent->world);
	ex->session = session;
	ex->peer = peer;
	ex->id = id;
	ex->number = agent->count.requests;
	ex->data = submit->data;
	ex->dialect = submit->dialect;
	ex->timer = (struct sbx_timer){ .fire = on_timer, .arg = ex };
	sbx_outbox_init(&ex->out, agent, stream, id);
	ex->body = copy_text(submit->body.at, submit->body.n, SBX_BODY_IN_MAX_BYTES);
	if (submit->idempotency_key.n)
		ex->idempotency_key = copy_text(submit->idempotency_key.at, submit->idempotency_key.n, SBX_IDEMPOTENCY_KEY_MAX_BYTES);
	if (!ex->body || (submit->idempotency_key.n && !ex->idempotency_key)) {
		exchange_free(ex);
		return sbx_refuse(r, SBX_CODE_INTERNAL, 1000, "out of memory");
	}
	rc = sbx_admit_request(ex, submit, now_ns, r);
	if (rc) {
		exchange_free(ex);
		return rc;
	}
	sbx_router_hold(&ex->world->router, &ex->req);
	sbx_record_begin(ex);
	agent->n_exchanges++;
	agent->body_bytes += submit->body.n;
	*ret_exchange = ex;
	return 0;
}

void
sbx_exchange_start(struct sbx_exchange *ex)
{
	struct sbx_req_event ev = { .kind = SBX_REQ_EV_START, .attempt = SBX_ATTEMPTS_MAX };
	step(ex, &ev);
}

void
sbx_exchange_cancel(struct sbx_exchange *ex, enum sbx_code code)
{
	if (ex->dead)
		return;
	if (!sbx_request_ended(&ex->req)) {
		struct sbx_req_event ev = { .kind = SBX_REQ_EV_CANCEL, .attempt = SBX_ATTEMPTS_MAX, .code = code };
		sbx_outbox_drop(&ex->out);
		step(ex, &ev);
		return;
	}
	replace_rest(ex, code); /* the client wants it no more */
	finish_when_flushed(ex);
}

static void
go_on(struct sbx_exchange *ex)
{
	if (!sbx_outbox_waiting(&ex->out))
		for (struct sbx_leg *leg = ex->leg; leg; leg = leg->next)
			set_paused(leg, false);
	finish_when_flushed(ex);
}

void
sbx_exchange_credit(struct sbx_exchange *ex, uint64_t bytes)
{
	sbx_outbox_grant(&ex->out, bytes);
	go_on(ex);
}

void
sbx_exchange_flush(struct sbx_exchange *ex)
{
	sbx_outbox_flush(&ex->out);
	go_on(ex);
}

void
sbx_exchange_orphan(struct sbx_exchange *ex)
{
	ex->session = NULL;
	ex->out.stream = NULL;
	sbx_exchange_cancel(ex, SBX_CODE_CANCELLED);
}

void
sbx_exchange_drop_legs(struct sbx_agent *agent)
{
	while (agent->drained_legs)
		leg_die(agent->drained_legs);
}

void
sbx_exchange_reap(struct sbx_agent *agent)
{
	struct sbx_leg *leg;
	while ((leg = agent->dead_legs)) {
		agent->dead_legs = leg->next_dead;
		leg_free(leg);
	}
	struct sbx_exchange *ex;
	while ((ex = agent->dead_exchanges)) {
		agent->dead_exchanges = ex->next_dead;
		assert(!ex->leg);
		sbx_router_release(&ex->world->router, &ex->req);
		agent->n_exchanges--;
		agent->body_bytes -= ex->ask.body.n;
		sbx_whom_free(agent, ex->peer, ex->whom);
		exchange_free(ex);
	}
}
