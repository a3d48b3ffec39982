/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_request.c -- the state machine of a request under any order of events, sensible or not.
 *
 * The input is a script: four bytes describe the world (targets, credentials, kinds of requests), then each operation is one
 * byte, with one or two more where it needs them. Three requests share one table of health. The simulation (tests/sim) plays
 * providers that make sense; here an attempt may complete before it was sent, end twice, or give content after its end.
 *
 * Checked after every event: the machine's own invariants and those of health; START only when nothing runs, and never after
 * content without a RESET that the client takes; ABORT only of what runs; COMMIT before END_OK; one END, nothing after it, never
 * an END_OK that no COMPLETE or complete end stood before. At the end everything is cancelled, and nothing may be in flight.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/request.h"

#define MS ((uint64_t)1000000)
#define S ((uint64_t)1000000000)
#define REQUESTS 3
#define TARGETS 4
#define KEYS_MAX 2

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct client {
	struct sbx_request req;
	uint8_t running;           /* attempt; SBX_ATTEMPTS_MAX = none */
	uint8_t n_started;
	bool started, ended, committed, holds_content, reset;
	bool whole[SBX_ATTEMPTS_MAX]; /* a COMPLETE or a complete end was fed */
};

struct bench {
	const uint8_t *at, *end;
	uint64_t now_ns;
	struct sbx_tables tables;
	struct sbx_provider provider[TARGETS];
	struct sbx_credential credential[TARGETS * KEYS_MAX];
	struct sbx_target target[TARGETS];
	struct sbx_judge judge;
	struct client client[REQUESTS];
};

static void
demand(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "invariant does not hold: %s\n", what);
	abort();
}

static uint8_t
next(struct bench *b)
{
	return b->at < b->end ? *b->at++ : 0;
}

static void
apply(struct client *c, const struct sbx_effects *fx)
{
	for (uint32_t i = 0; i < fx->n; i++) {
		const uint8_t attempt = fx->fx[i].attempt;

		demand(!c->ended, "no effect after the end");
		switch (fx->fx[i].kind) {
		case SBX_FX_START:
			demand(c->running == SBX_ATTEMPTS_MAX && attempt == c->n_started, "one attempt at a time");
			demand(!c->holds_content, "no attempt after content without a RESET");
			c->running = attempt;
			c->n_started++;
			c->committed = c->reset = false;
			break;
		case SBX_FX_ABORT:
			demand(attempt == c->running, "only what runs is aborted");
			c->running = SBX_ATTEMPTS_MAX;
			break;
		case SBX_FX_COMMIT:
			demand(!c->committed && !c->holds_content && attempt + 1 == c->n_started, "one commit, of the latest attempt");
			c->committed = c->holds_content = true;
			break;
		case SBX_FX_DROP:
			demand(!c->committed, "what was delivered is not dropped");
			break;
		case SBX_FX_RESET:
			demand(c->req.restart && c->holds_content, "a RESET takes something back, from a client that allows it");
			c->holds_content = false;
			break;
		case SBX_FX_END_OK:
			demand(c->committed && c->whole[attempt], "a success was committed, and is whole");
			c->ended = true;
			break;
		case SBX_FX_END_ERROR:
			demand(fx->fx[i].code != SBX_CODE_NONE && fx->fx[i].status >= 400, "an error has a code and a status");
			c->ended = true;
			break;
		}
	}
}

static void
step(struct bench *b, struct client *c, const struct sbx_req_event *ev)
{
	struct sbx_effects fx;

	if (ev->kind == SBX_REQ_EV_START ? c->started : !c->started && ev->kind != SBX_REQ_EV_CANCEL && ev->kind != SBX_REQ_EV_TIMER)
		return; /* START comes once and first: a matter of the caller's code, not of what comes from outside */
	c->started = c->started || ev->kind == SBX_REQ_EV_START;
	if (ev->kind == SBX_REQ_EV_ENDED && ev->attempt == c->running)
		c->running = SBX_ATTEMPTS_MAX;
	sbx_request_step(&c->req, &b->judge, ev, b->now_ns, &fx);
	apply(c, &fx);
	if (sbx_request_validate(&c->req))
		demand(false, sbx_request_validate(&c->req));
	if (sbx_health_validate(b->judge.health))
		demand(false, sbx_health_validate(b->judge.health));
	demand(sbx_request_ended(&c->req) == c->ended, "a final state and an END come together");
	demand(!c->ended || c->running == SBX_ATTEMPTS_MAX, "nothing runs after the end");
	if (ev->kind == SBX_REQ_EV_TIMER && c->started)
		demand(sbx_request_wake_ns(&c->req) > b->now_ns, "after a look at the clock the next one lies ahead");
}

static void
feed_end(struct bench *b, struct client *c, uint8_t attempt)
{
	static const int status[16] = { 200, 0, 400, 401, 402, 403, 404, 413, 429, 500, 503, 529, 302, 999, 451, 200 };
	static const int64_t retry_after_ms[8] = { -1, 0, 1500, 60000, 119999, 3600000, 277403000, -1 };
	const uint8_t how = next(b), what = next(b);
	const struct sbx_provider_error error = {
		.kind = (enum sbx_error_kind)(what % SBX_KIND__COUNT),
		.status = status[how & 15],
		.retry_after_ns = what & 0x40 ? (int64_t)(5 * S) : -1,
	};
	const int64_t ra_ms = retry_after_ms[(what >> 4) & 7];
	const struct sbx_end end = {
		.transport = (enum sbx_transport)((how >> 4) % (SBX_TRANSPORT_ABORTED + 1)),
		.status = status[how & 15],
		.complete = how & 0x80,
		.sent = what & 1,
		.got_bytes = what & 2,
		.retry_after_ns = ra_ms < 0 ? -1 : ra_ms * (int64_t)MS,
		.told_no_retry = what == 0xff,
		.error = what & 0x80 ? &error : NULL,
	};

	if (end.complete && attempt < SBX_ATTEMPTS_MAX && attempt == c->running)
		c->whole[attempt] = true;
	step(b, c, &(struct sbx_req_event){ .kind = SBX_REQ_EV_ENDED, .attempt = attempt, .end = &end });
}

static void
build(struct bench *b)
{
	const uint8_t world = next(b), keys = next(b), kinds = next(b), limits = next(b);

	b->now_ns = S;
	b->tables = (struct sbx_tables){ .provider = b->provider, .credential = b->credential, .target = b->target };
	b->tables.n_providers = b->tables.n_targets = TARGETS;
	for (uint32_t i = 0; i < TARGETS; i++) {
		struct sbx_provider *p = &b->provider[i];

		p->name = "p";
		p->policy = sbx_policy_default();
		if (limits & 1)
			p->policy.attempts_max = (uint8_t)(1 + (limits >> 1) % 5);
		if (limits & 0x80)
			p->policy.wait_max_ns = 10 * S;
		p->first_credential = b->tables.n_credentials;
		p->n_credentials = ((uint32_t)keys >> (2 * i) & 3) % (KEYS_MAX + 1);
		p->auth = p->n_credentials ? SBX_AUTH_BEARER : SBX_AUTH_NONE;
		for (uint32_t k = 0; k < p->n_credentials; k++)
			b->credential[b->tables.n_credentials++].provider = (uint16_t)i;
		b->target[i] = (struct sbx_target){ .name = "p/m", .model = "m", .provider = (uint16_t)i, .context_tokens = (world >> 4 & 3) * (int64_t)i * 1000 };
	}
	for (unsigned r = 0; r < REQUESTS; r++) {
		struct client *c = &b->client[r];
		const uint64_t deadline_ns = b->now_ns + (kinds & 0x40 ? 7 * S : 600 * S);

		sbx_request_init(&c->req, kinds >> r & 1, kinds >> (r + 3) & 1, deadline_ns, b->now_ns, limits + r);
		c->req.replay_uncertain = !(kinds & 0x80);
		c->running = SBX_ATTEMPTS_MAX;
		c->req.n_candidates = (uint8_t)(1 + ((world >> r) & 3) % TARGETS);
		for (uint8_t i = 0; i < c->req.n_candidates; i++)
			c->req.candidate[i] = (struct sbx_candidate_row){ .target = i, .provider = i, .context_tokens = b->target[i].context_tokens,
				.policy = &b->provider[i].policy };
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct bench b;

	memset(&b, 0, sizeof(b));
	b.at = data;
	b.end = data + size;
	build(&b);
	b.judge = (struct sbx_judge){ &b.tables, sbx_health_new(&b.tables, b.now_ns) };
	if (!b.judge.health)
		return 0;
	while (b.at < b.end) {
		const uint8_t op = next(&b);
		struct client *c = &b.client[(op >> 4 & 3) % REQUESTS];
		uint8_t attempt = (uint8_t)(c->n_started - (c->n_started > 0));
		struct sbx_req_event ev = { .kind = SBX_REQ_EV_TIMER };

		if (op & 0x80 && attempt > 0)
			attempt--; /* an event of one that is over */
		if (op & 0x40)
			attempt = next(&b); /* or of none at all */
		ev.attempt = attempt;
		switch (op & 15) {
		case 0:  ev.kind = SBX_REQ_EV_START; break;
		case 1:  ev.kind = SBX_REQ_EV_CONNECTED; break;
		case 2:  ev.kind = SBX_REQ_EV_SENT; break;
		case 3:  ev.kind = SBX_REQ_EV_BYTES; break;
		case 4:  ev.kind = SBX_REQ_EV_CONTENT; break;
		case 5:
			ev.kind = SBX_REQ_EV_COMPLETE;
			if (attempt < SBX_ATTEMPTS_MAX && attempt == c->running)
				c->whole[attempt] = true;
			break;
		case 6:
		case 7:
		case 8:  feed_end(&b, c, attempt); continue;
		case 9:  ev.kind = SBX_REQ_EV_CANCEL; ev.code = op & 0x80 ? SBX_CODE_DRAINING : SBX_CODE_CANCELLED; break;
		case 10: b.now_ns += next(&b) * MS; break;
		case 11: b.now_ns += next(&b) * S; break;
		case 12: /* exactly when the machine asked for it */
			if (c->started && !c->ended && sbx_request_wake_ns(&c->req) > b.now_ns)
				b.now_ns = sbx_request_wake_ns(&c->req);
			break;
		case 13:
			if (c->req.state == SBX_REQ_COMMITTED && c->running < SBX_ATTEMPTS_MAX)
				sbx_request_on_content(&c->req, c->running, b.now_ns);
			break;
		default: break; /* a look at the clock */
		}
		step(&b, c, &ev);
	}
	for (unsigned r = 0; r < REQUESTS; r++) {
		if (b.client[r].started)
			step(&b, &b.client[r], &(struct sbx_req_event){ .kind = SBX_REQ_EV_CANCEL, .code = SBX_CODE_CANCELLED });
		demand(!b.client[r].started || b.client[r].ended, "a cancel ends a request in any state");
	}
	for (uint32_t i = 0; i < TARGETS; i++)
		demand(sbx_health_target(b.judge.health, i)->in_flight == 0 && !sbx_health_target(b.judge.health, i)->probing, "at rest: nothing in flight");
	sbx_health_free(b.judge.health);
	return 0;
}
