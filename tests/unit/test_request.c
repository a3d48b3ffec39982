/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_request.c -- the retry matrix, row by row, as scripts: each event, and exactly the effects that it must have.
 *
 * Events (of the latest attempt where they are an attempt's):
 *   start | connected | sent | bytes | content | complete | cancel | drain
 *   +N            N ms pass, and the clock is looked at
 *   ~N            N ms pass, and nobody looks
 *   wake          the clock is looked at exactly when the machine asked for it
 *   old ...       the event is one of the attempt before
 *   end HOW [ra=MS] [stop]   HOW: ok eof connect unsent reset junk local aborted, or a status, or a status and a kind as in
 *                 "400/context"; ra: Retry-After; stop: x-should-retry: false
 * Effects: S0A1 (START attempt 0 on target A with its key 1; "-" = none), A0 ABORT, C0 COMMIT, D0 DROP, R1 RESET, OK0,
 *   E:code:status:attempt[:ra=MS][:again] (attempt "-" = none, again = retryable), and W1500 when it then waits 1500 ms.
 * Health is the real one; back-off and jitter are 0 in the scripts and have a test of their own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/request.h"

#define MS ((uint64_t)1000000)
#define S ((uint64_t)1000000000)
#define TARGETS_MAX SBX_ROUTE_TARGETS_MAX

struct bench {
	struct sbx_tables tables;
	struct sbx_provider provider[TARGETS_MAX]; /* target n is the only one of provider n */
	struct sbx_credential credential[TARGETS_MAX * 2];
	struct sbx_target target[TARGETS_MAX];
	struct sbx_judge judge;
	struct sbx_request req;
	uint64_t now_ns;
};

#define MISSING 255
struct setup {
	unsigned targets;          /* 0 = 2 */
	bool whole, restart, no_replay, reasoning;
	uint64_t deadline_ms;      /* 0 = 600,000 */
	uint8_t tries_per_name;    /* 0 = as the policy has it */
	uint8_t name[4];           /* by which each target was found */
	uint8_t keys[4];           /* credentials of each target's provider; 0 = it needs none, MISSING = it has none */
	int64_t context[4];
	const char *before;        /* what health has seen: "A:FAILED A:FAILED B:REFUSED=60000 ..." */
};

/* ---- the bench ---- */

static void
bench_init(struct bench *b, const struct setup *setup, uint64_t now_ns)
{
	memset(b, 0, sizeof(*b));
	b->now_ns = now_ns;
	b->tables.provider = b->provider;
	b->tables.credential = b->credential;
	b->tables.target = b->target;
	b->tables.n_providers = b->tables.n_targets = setup->targets ? setup->targets : 2;
	for (uint32_t i = 0; i < b->tables.n_targets; i++) {
		struct sbx_provider *p = &b->provider[i];

		p->name = "p";
		p->policy = sbx_policy_default();
		p->policy.backoff_base_ns = 0;
		p->first_credential = b->tables.n_credentials;
		p->n_credentials = i < 4 && setup->keys[i] != MISSING ? setup->keys[i] : 0;
		p->auth = i < 4 && setup->keys[i] ? SBX_AUTH_BEARER : SBX_AUTH_NONE;
		for (uint32_t k = 0; k < p->n_credentials; k++)
			b->credential[b->tables.n_credentials++].provider = (uint16_t)i;
		b->target[i] = (struct sbx_target){ .name = "p/m", .model = "m", .provider = (uint16_t)i,
		                                    .context_tokens = i < 4 ? setup->context[i] : 0 };
	}
	b->judge.tables = &b->tables;
	b->judge.health = sbx_health_new(&b->tables, now_ns);
	assert_non_null(b->judge.health);
}

static void
bench_fini(struct bench *b)
{
	for (uint32_t i = 0; i < b->tables.n_targets; i++)
		assert_int_equal(sbx_health_target(b->judge.health, i)->in_flight, 0);
	sbx_health_free(b->judge.health);
}

static void
bench_request(struct bench *b, const struct setup *setup)
{
	const uint64_t deadline_ms = setup->deadline_ms ? setup->deadline_ms : 600000;

	sbx_request_init(&b->req, !setup->whole, setup->restart, b->now_ns + deadline_ms * MS, b->now_ns, 7);
	b->req.replay_uncertain = !setup->no_replay;
	b->req.tries_per_name = setup->tries_per_name;
	b->req.n_candidates = (uint8_t)b->tables.n_targets;
	for (uint8_t i = 0; i < b->req.n_candidates; i++)
		b->req.candidate[i] = (struct sbx_candidate_row){ .target = i, .provider = i, .reasoning = setup->reasoning, .name = i < 4 ? setup->name[i] : 0,
			.context_tokens = b->target[i].context_tokens, .policy = &b->provider[i].policy };
}

/* One attempt that ended long ago or just now, as another request would have booked it. */
static void
book(struct bench *b, uint32_t target, enum sbx_class class, int64_t retry_after_ns)
{
	const struct sbx_provider *p = &b->provider[target];
	const uint32_t credential = p->n_credentials ? p->first_credential : UINT32_MAX;

	sbx_health_on_start(b->judge.health, &b->tables, target, (uint16_t)target, credential, b->now_ns);
	sbx_health_on_end(b->judge.health, &b->tables, target, (uint16_t)target, credential, class, retry_after_ns, 0, 0, b->now_ns);
}

static void
play_before(struct bench *b, const char *before)
{
	while (before && *before) {
		char name[32];
		int used = 0;
		unsigned target = (unsigned)(*before - 'A');
		long ra_ms = -1;

		assert_int_equal(sscanf(before + 2, "%31[A-Z_]%n", name, &used), 1);
		before += 2 + used;
		if (*before == '=') {
			char *end;
			ra_ms = strtol(before + 1, &end, 10);
			before = end;
		}
		int c = 0;
		while (c < SBX_CLASS__COUNT && strcmp(sbx_class_name((enum sbx_class)c), name) != 0)
			c++;
		assert_true(c < SBX_CLASS__COUNT && target < b->tables.n_targets);
		book(b, target, (enum sbx_class)c, ra_ms < 0 ? -1 : ra_ms * (int64_t)MS);
		before += strspn(before, " ");
	}
}

static const char *
code_word(enum sbx_code code)
{
	static const char *const word[SBX_CODE__COUNT] = {
#define X(name, text, status) [name] = text,
		SBX_CODES(X)
#undef X
	};
	return word[code] ? word[code] : "?";
}

static void
fmt_effects(const struct bench *b, const struct sbx_effects *fx, char *out, size_t out_bytes)
{
	size_t n = 0;

	out[0] = '\0';
	for (uint32_t i = 0; i < fx->n; i++) {
		const struct sbx_effect *f = &fx->fx[i];
		const struct sbx_attempt *a = &b->req.attempt[f->attempt];
		char key[4] = "-", who[4] = "-", ra[32] = "";

		if (f->attempt < SBX_ATTEMPTS_MAX)
			snprintf(who, sizeof(who), "%u", f->attempt);
		if (f->kind == SBX_FX_START && a->credential != UINT32_MAX)
			snprintf(key, sizeof(key), "%u", (unsigned)(a->credential - b->provider[a->provider].first_credential));
		if (f->retry_after_ns >= 0)
			snprintf(ra, sizeof(ra), ":ra=%" PRId64, f->retry_after_ns / (int64_t)MS);
		if (n > 0)
			n += (size_t)snprintf(out + n, out_bytes - n, " ");
		switch (f->kind) {
		case SBX_FX_START:  n += (size_t)snprintf(out + n, out_bytes - n, "S%u%c%s", f->attempt, 'A' + (char)a->target, key); break;
		case SBX_FX_ABORT:  n += (size_t)snprintf(out + n, out_bytes - n, "A%u", f->attempt); break;
		case SBX_FX_COMMIT: n += (size_t)snprintf(out + n, out_bytes - n, "C%u", f->attempt); break;
		case SBX_FX_DROP:   n += (size_t)snprintf(out + n, out_bytes - n, "D%u", f->attempt); break;
		case SBX_FX_RESET:  n += (size_t)snprintf(out + n, out_bytes - n, "R%u", f->attempt); break;
		case SBX_FX_END_OK: n += (size_t)snprintf(out + n, out_bytes - n, "OK%u", f->attempt); break;
		case SBX_FX_END_ERROR:
			n += (size_t)snprintf(out + n, out_bytes - n, "E:%s:%d:%s%s%s", code_word(f->code), f->status, who, ra, f->retryable ? ":again" : "");
			break;
		}
	}
	if (b->req.state == SBX_REQ_WAITING)
		snprintf(out + n, out_bytes - n, "%sW%" PRIu64, n > 0 ? " " : "", (b->req.wait_until_ns - b->now_ns) / MS);
}

static void
read_end(const char *how, struct sbx_end *end, struct sbx_provider_error *error)
{
	static const struct { const char *word; enum sbx_transport transport; int status; } plain[] = {
		{ "ok", SBX_TRANSPORT_OK, 200 }, { "eof", SBX_TRANSPORT_OK, 200 }, { "connect", SBX_TRANSPORT_CONNECT, 0 },
		{ "unsent", SBX_TRANSPORT_UNSENT, 0 }, { "reset", SBX_TRANSPORT_BROKEN, 0 }, { "junk", SBX_TRANSPORT_JUNK, 200 },
		{ "local", SBX_TRANSPORT_LOCAL, 0 }, { "aborted", SBX_TRANSPORT_ABORTED, 0 },
	};
	static const struct { const char *word; enum sbx_error_kind kind; } kinds[] = {
		{ "invalid", SBX_KIND_INVALID }, { "context", SBX_KIND_CONTEXT_LENGTH }, { "filter", SBX_KIND_CONTENT_FILTER },
		{ "auth", SBX_KIND_AUTH }, { "quota", SBX_KIND_QUOTA }, { "overloaded", SBX_KIND_OVERLOADED }, { "server", SBX_KIND_SERVER },
	};
	const char *ra = strstr(how, "ra="), *slash = strchr(how, '/');

	memset(end, 0, sizeof(*end));
	memset(error, 0, sizeof(*error));
	end->retry_after_ns = ra ? strtol(ra + 3, NULL, 10) * (int64_t)MS : -1;
	end->told_no_retry = strstr(how, "stop") != NULL;
	if (*how >= '0' && *how <= '9') {
		end->transport = SBX_TRANSPORT_OK;
		end->status = (int)strtol(how, NULL, 10);
		end->got_bytes = true;
		for (size_t i = 0; slash && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
			if (strncmp(slash + 1, kinds[i].word, strlen(kinds[i].word)) == 0) {
				*error = (struct sbx_provider_error){ .kind = kinds[i].kind, .status = end->status, .retry_after_ns = -1 };
				end->error = error;
			}
		}
		assert_true(!slash || end->error);
		return;
	}
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
		if (strncmp(how, plain[i].word, strlen(plain[i].word)) == 0) {
			end->transport = plain[i].transport;
			end->status = plain[i].status;
			return;
		}
	}
	fail_msg("no such end: %s", how);
}

static void
play(struct bench *b, const char *event, char *out, size_t out_bytes)
{
	static const struct { const char *word; enum sbx_req_event_kind kind; enum sbx_code code; } words[] = {
		{ "start", SBX_REQ_EV_START, 0 }, { "connected", SBX_REQ_EV_CONNECTED, 0 }, { "sent", SBX_REQ_EV_SENT, 0 },
		{ "bytes", SBX_REQ_EV_BYTES, 0 }, { "content", SBX_REQ_EV_CONTENT, 0 }, { "complete", SBX_REQ_EV_COMPLETE, 0 },
		{ "cancel", SBX_REQ_EV_CANCEL, SBX_CODE_CANCELLED }, { "drain", SBX_REQ_EV_CANCEL, SBX_CODE_DRAINING },
	};
	struct sbx_req_event ev = { .kind = SBX_REQ_EV_TIMER, .attempt = (uint8_t)(b->req.n_attempts ? b->req.n_attempts - 1 : 0) };
	struct sbx_provider_error error;
	struct sbx_end end;
	struct sbx_effects fx;

	if (strncmp(event, "old ", 4) == 0) {
		event += 4;
		ev.attempt--;
	}
	if (*event == '~') {
		b->now_ns += strtoull(event + 1, NULL, 10) * MS;
		out[0] = '\0';
		return;
	}
	if (*event == '+') {
		b->now_ns += strtoull(event + 1, NULL, 10) * MS;
	} else if (strcmp(event, "wake") == 0) {
		b->now_ns = sbx_request_wake_ns(&b->req);
	} else if (strncmp(event, "end ", 4) == 0) {
		ev.kind = SBX_REQ_EV_ENDED;
		read_end(event + 4, &end, &error);
		ev.end = &end;
	} else {
		size_t i = 0;
		while (i < sizeof(words) / sizeof(words[0]) && strcmp(event, words[i].word) != 0)
			i++;
		assert_true(i < sizeof(words) / sizeof(words[0]));
		ev.kind = words[i].kind;
		ev.code = words[i].code;
	}
	sbx_request_step(&b->req, &b->judge, &ev, b->now_ns, &fx);
	fmt_effects(b, &fx, out, out_bytes);
	if (sbx_request_validate(&b->req))
		fail_msg("after %s: %s", event, sbx_request_validate(&b->req));
}

/* ---- the matrix ---- */

#define STEPS_MAX 24
struct script {
	const char *name;
	struct setup setup;
	const char *step[STEPS_MAX][2];
};

#define FAIL_2 "A:FAILED"  /* its last outcome was bad */
static const struct script scripts[] = {
	/* ---- success ---- */
	{ "stream", { 0 }, { { "start", "S0A-" }, { "connected", "" }, { "sent", "" }, { "bytes", "" }, { "content", "C0" }, { "content", "" },
		{ "complete", "" }, { "end ok", "OK0" }, { "cancel", "" }, { "+600000", "" } } },
	{ "stream: the usage never comes", { 0 }, { { "start", "S0A-" }, { "sent", "" }, { "content", "C0" }, { "complete", "" }, { "+1999", "" },
		{ "bytes", "" }, { "+1", "A0 OK0" }, { "end reset", "" } } },
	{ "stream: reset after its last content", { 0 }, { { "start", "S0A-" }, { "sent", "" }, { "content", "C0" }, { "complete", "" },
		{ "end ok", "OK0" } } },
	{ "stream without content", { 0 }, { { "start", "S0A-" }, { "sent", "" }, { "bytes", "" }, { "complete", "" }, { "end ok", "C0 OK0" } } },
	{ "stream without content or end mark", { 0 }, { { "start", "S0A-" }, { "sent", "" }, { "complete", "" }, { "+2000", "C0 A0 OK0" } } },
	{ "whole", { .whole = true }, { { "start", "S0A-" }, { "sent", "" }, { "content", "" }, { "complete", "" }, { "end ok", "C0 OK0" } } },
	{ "content implies sent", { 0 }, { { "start", "S0A-" }, { "content", "C0" }, { "complete", "" }, { "end ok", "OK0" } } },
	{ "complete at the deadline is in time", { .deadline_ms = 5000 }, { { "start", "S0A-" }, { "sent", "" }, { "+4000", "" },
		{ "content", "C0" }, { "complete", "" }, { "+1000", "A0 OK0" } } },

	/* ---- a request that bounds its tries of each name ---- */
	{ "one try of each name", { .targets = 3, .tries_per_name = 1, .name = { 0, 0, 1 } }, { { "start", "S0A-" }, { "end connect", "D0 S1C-" },
		{ "end connect", "D1 E:unreachable:502:0:again" } } },
	{ "two tries of each name", { .targets = 3, .tries_per_name = 2, .name = { 0, 0, 1 } }, { { "start", "S0A-" }, { "end 500", "D0 S1A-" },
		{ "end 500", "D1 S2C-" }, { "sent", "" }, { "content", "C2" }, { "complete", "" }, { "end ok", "OK2" } } },
	{ "no second key, and no wait", { .targets = 2, .tries_per_name = 1, .keys = { 2 }, .name = { 0, 1 } }, { { "start", "S0A0" },
		{ "end 429 ra=100", "D0 S1B-" }, { "end 429 ra=100", "D1 E:rate_limited:429:0:ra=100:again" } } },
	{ "more tries than the policy allows", { .tries_per_name = 101 }, { { "start", "S0A-" }, { "end 500", "D0 S1A-" }, { "end 500", "D1 S2B-" },
		{ "end 500", "D2 E:upstream_failed:500:1:again" } } },

	/* ---- NOT_SENT: same target once, free; then others ---- */
	{ "not sent", { 0 }, { { "start", "S0A-" }, { "end connect", "D0 S1A-" }, { "end connect", "D1 S2B-" }, { "sent", "" },
		{ "content", "C2" }, { "complete", "" }, { "end ok", "OK2" } } },
	{ "not sent, everywhere: uncounted", { 0 }, { { "start", "S0A-" }, { "end connect", "D0 S1A-" }, { "end unsent", "D1 S2B-" },
		{ "end connect", "D2 S3B-" }, { "end connect", "D3 E:unreachable:502:1:again" } } },
	{ "connect limit: others first", { 0 }, { { "start", "S0A-" }, { "+4999", "" }, { "+1", "A0 D0 S1B-" }, { "wake", "A1 D1 S2B-" },
		{ "wake", "A2 D2 E:unreachable:502:0:again" } } },
	{ "connected, but takes nothing", { .targets = 1 }, { { "start", "S0A-" }, { "connected", "" }, { "+29999", "" }, { "+1", "A0 D0 S1A-" } } },

	/* ---- REFUSED ---- */
	{ "429, short: waited out once, same target", { 0 }, { { "start", "S0A-" }, { "sent", "" }, { "end 429 ra=1500", "D0 W1500" },
		{ "+1499", "W1" }, { "+1", "S1A-" }, { "end 429 ra=1500", "D1 S2B-" }, { "end ok", "D2 S3B-" }, { "complete", "" }, { "end ok", "C3 OK3" } } },
	{ "429, 0 s: a back-off", { 0 }, { { "start", "S0A-" }, { "end 429 ra=0", "D0 W1000" }, { "wake", "S1A-" }, { "end 429 ra=0", "D1 S2B-" } } },
	{ "429, longer: at once to the other", { 0 }, { { "start", "S0A-" }, { "end 429 ra=2001", "D0 S1B-" }, { "complete", "" }, { "end ok", "C1 OK1" } } },
	{ "429, not said: at once to the other", { 0 }, { { "start", "S0A-" }, { "end 429", "D0 S1B-" } } },
	{ "429, long, nobody else: waits", { .targets = 1 }, { { "start", "S0A-" }, { "end 429 ra=60000", "D0 W60000" }, { "wake", "S1A-" },
		{ "end 429 ra=60000", "D1 E:rate_limited:429:1:ra=60000:again" } } },
	{ "429, not said, nobody else", { .targets = 1 }, { { "start", "S0A-" }, { "end 429", "D0 W1000" }, { "wake", "S1A-" }, { "complete", "" },
		{ "end ok", "C1 OK1" } } },
	{ "429, above 120 s: never waited for", { .targets = 1 }, { { "start", "S0A-" }, { "end 429 ra=120001", "D0 E:rate_limited:429:0:ra=120001:again" } } },
	{ "429, three days", { .targets = 1 }, { { "start", "S0A-" }, { "end 429 ra=277403000", "D0 E:rate_limited:429:0:ra=3600000:again" } } },
	{ "429, beyond the deadline", { .targets = 1, .deadline_ms = 30000 }, { { "start", "S0A-" }, { "end 429 ra=30000", "D0 E:rate_limited:429:0:ra=30000:again" } } },
	{ "429, all: waits for the first to be free", { 0 }, { { "start", "S0A-" }, { "end 429 ra=50000", "D0 S1B-" }, { "end 429 ra=20000", "D1 W20000" },
		{ "wake", "S2B-" }, { "end 429 ra=90000", "D2 W30000" }, { "wake", "S3A-" }, { "end 429 ra=60000", "D3 E:rate_limited:429:3:ra=60000:again" } } },
	{ "all waits together stay within 120 s", { 0 }, { { "start", "S0A-" }, { "end 429 ra=110000", "D0 S1B-" }, { "end 429 ra=100000", "D1 W100000" },
		{ "wake", "S2B-" }, { "end 429 ra=100000", "D2 W10000" }, { "wake", "S3A-" } } },
	{ "throttled by others before: passed over", { .before = "A:REFUSED=60000" }, { { "start", "S0B-" } } },
	{ "all throttled, far: 429 untried", { .before = "A:REFUSED=200000 B:REFUSED=150000" }, { { "start", "E:rate_limited:429:-:ra=150000:again" } } },
	{ "all throttled, near: waits", { .before = "A:REFUSED=60000 B:REFUSED=30000" }, { { "start", "W30000" }, { "wake", "S0B-" } } },
	{ "429 of one key: the other key at once", { .keys = { 2, 1 } }, { { "start", "S0A0" }, { "end 429 ra=60000", "D0 S1A1" }, { "end 429 ra=60000", "D1 S2B0" } } },
	{ "the key's throttle ends while another is asked", { .keys = { 1, 1 } }, { { "start", "S0A0" }, { "end 429 ra=3000", "D0 S1B0" }, { "+4000", "" },
		{ "end 404", "D1 W1" }, { "wake", "S2A0" }, { "end 429 ra=3000", "D2 E:rate_limited:429:2:ra=3000:again" } } },
	{ "529: no other key of the same target", { .keys = { 2, 1 } }, { { "start", "S0A0" }, { "end 529 ra=1000", "D0 W1000" }, { "wake", "S1A0" } } },
	{ "a back-off is no wait for a refusal", { .targets = 1 }, { { "start", "S0A-" }, { "end 500", "D0 S1A-" }, { "end 429 ra=60000", "D1 W60000" } } },
	{ "503 with an error is a refusal", { 0 }, { { "start", "S0A-" }, { "end 503/overloaded ra=60000", "D0 S1B-" } } },
	{ "overloaded as the first event of a 200", { 0 }, { { "start", "S0A-" }, { "sent", "" }, { "end 200/overloaded", "D0 S1B-" } } },
	{ "refused, and told not to ask again", { 0 }, { { "start", "S0A-" }, { "end 429 ra=1000 stop", "D0 S1B-" },
		{ "end 429 ra=1000 stop", "D1 E:rate_limited:429:0:ra=1000" } } },

	{ "told so by a fallback whose error is not the one shown", { .before = FAIL_2 }, { { "start", "S0A-" }, { "end 500", "D0 S1B-" },
		{ "end 404 stop", "D1 E:upstream_failed:500:0:again" } } },

	/* ---- final: the request itself is refused ---- */
	{ "400", { 0 }, { { "start", "S0A-" }, { "end 400/invalid", "D0 E:rejected:400:0" } } },
	{ "422", { 0 }, { { "start", "S0A-" }, { "end 422", "D0 E:rejected:422:0" } } },
	{ "413", { 0 }, { { "start", "S0A-" }, { "end 413", "D0 E:rejected:413:0" } } },
	{ "451", { 0 }, { { "start", "S0A-" }, { "end 451", "D0 E:content_filter:451:0" } } },
	{ "content filter", { 0 }, { { "start", "S0A-" }, { "end 400/filter", "D0 E:content_filter:400:0" } } },
	{ "a rejection inside a 200", { 0 }, { { "start", "S0A-" }, { "end 200/invalid", "D0 E:rejected:400:0" } } },
	{ "context: only a larger one, or an unknown", { .targets = 4, .context = { 32000, 16000, 32000, 0 } }, { { "start", "S0A-" },
		{ "end 400/context", "D0 S1D-" }, { "end 400/context", "D1 E:context_length:400:0" } } },
	{ "context: unknown at first, so any", { .context = { 0, 1000 } }, { { "start", "S0A-" }, { "end 400/context", "D0 S1B-" } } },
	{ "context: none is larger", { .context = { 128000, 32000 } }, { { "start", "S0A-" }, { "end 400/context", "D0 E:context_length:400:0" } } },

	/* ---- AUTH, QUOTA: another key, else another target ---- */
	{ "401, then the next key", { .keys = { 2, 1 } }, { { "start", "S0A0" }, { "end 401", "D0 S1A1" }, { "end 401", "D1 S2B0" },
		{ "end 401", "D2 E:credentials:401:1" } } },
	{ "a key error as a 400", { .keys = { 1, 1 } }, { { "start", "S0A0" }, { "end 400/auth", "D0 S1B0" } } },
	{ "402", { .keys = { 1, 1 } }, { { "start", "S0A0" }, { "end 402", "D0 S1B0" }, { "end 402", "D1 E:quota:402:0" } } },
	{ "401 without a key", { 0 }, { { "start", "S0A-" }, { "end 401", "D0 S1B-" }, { "end 401", "D1 E:credentials:401:0" } } },
	{ "keys refused before: nobody is asked", { .keys = { 1, 1 }, .before = "A:AUTH B:AUTH" }, { { "start", "E:credentials:503:-:ra=300000" } } },
	{ "no key at all", { .keys = { MISSING, MISSING } }, { { "start", "E:credentials:503:-" } } },
	{ "no key, then one", { .keys = { MISSING, 1 } }, { { "start", "S0B0" } } },
	{ "no money anywhere", { .keys = { 1, 1 }, .before = "A:QUOTA B:QUOTA" }, { { "start", "E:quota:503:-:ra=3600000" } } },

	/* ---- FORBIDDEN, NOT_THERE: others ---- */
	{ "403", { 0 }, { { "start", "S0A-" }, { "end 403", "D0 S1B-" }, { "end 403", "D1 E:credentials:403:0" } } },
	{ "404", { 0 }, { { "start", "S0A-" }, { "end 404", "D0 S1B-" }, { "end 404", "D1 E:not_found:404:0" } } },
	{ "a wrong fallback does not hide the primary", { .before = FAIL_2 }, { { "start", "S0A-" }, { "end 500", "D0 S1B-" },
		{ "end 404", "D1 E:upstream_failed:500:0:again" } } },

	/* ---- FAILED: same target once, only after a success; never a back-off before another ---- */
	{ "500 out of health: once more", { 0 }, { { "start", "S0A-" }, { "end 500", "D0 S1A-" }, { "end 502", "D1 S2B-" },
		{ "end 500", "D2 E:upstream_failed:502:1:again" } } },
	{ "500 after a failure: the other at once", { .before = FAIL_2 }, { { "start", "S0A-" }, { "end 500", "D0 S1B-" },
		{ "end 500", "D1 S2B-" }, { "end 500", "D2 E:upstream_failed:500:0:again" } } },
	{ "500, told not to ask again", { 0 }, { { "start", "S0A-" }, { "end 500 stop", "D0 S1B-" } } },
	{ "500, one target, ill before", { .targets = 1, .before = FAIL_2 }, { { "start", "S0A-" }, { "end 504", "D0 E:upstream_failed:504:0:again" } } },
	{ "junk 200", { 0 }, { { "start", "S0A-" }, { "end junk", "D0 S1A-" }, { "end eof", "D1 S2B-" }, { "end eof", "D2 E:upstream_failed:502:1:again" } } },
	{ "clean end without an answer", { .before = FAIL_2 }, { { "start", "S0A-" }, { "sent", "" }, { "bytes", "" }, { "end eof", "D0 S1B-" } } },
	{ "third counted attempt is the last", { .targets = 4 }, { { "start", "S0A-" }, { "end 500", "D0 S1A-" }, { "end 500", "D1 S2B-" },
		{ "end 500", "D2 E:upstream_failed:500:1:again" } } },
	{ "uncounted ones leave room", { .targets = 4, .before = FAIL_2 " B:FAILED C:FAILED D:FAILED" }, { { "start", "S0A-" }, { "end 404", "D0 S1B-" }, { "end 500", "D1 S2C-" },
		{ "end 500", "D2 S3D-" }, { "end 500", "D3 E:upstream_failed:500:1:again" } } },

	/* ---- UNCERTAIN: never the same, others if allowed ---- */
	{ "reset after sending", { 0 }, { { "start", "S0A-" }, { "sent", "" }, { "end reset", "D0 S1B-" }, { "sent", "" },
		{ "end reset", "D1 E:uncertain:502:0" } } },
	{ "replay forbidden", { .no_replay = true }, { { "start", "S0A-" }, { "sent", "" }, { "end reset", "D0 E:uncertain:502:0" } } },
	{ "replay forbidden, but provably not sent", { .no_replay = true }, { { "start", "S0A-" }, { "end reset", "D0 S1A-" } } },
	{ "silence", { 0 }, { { "start", "S0A-" }, { "sent", "" }, { "+9999", "" }, { "+1", "A0 D0 S1B-" }, { "content", "C1" },
		{ "end reset", "E:stream_broken:502:1:again" } } },

	/* ---- first content: pings and bytes feed nothing ---- */
	{ "drip and pings before content", { 0 }, { { "start", "S0A-" }, { "sent", "" }, { "+3000", "" }, { "bytes", "" }, { "+3000", "" }, { "bytes", "" },
		{ "+3999", "" }, { "bytes", "" }, { "+1", "A0 D0 S1B-" } } },
	{ "a reasoning model may think 300 s", { .reasoning = true }, { { "start", "S0A-" }, { "sent", "" }, { "+299999", "" }, { "+1", "A0 D0 S1B-" } } },
	{ "whole: 30 s", { .whole = true }, { { "start", "S0A-" }, { "sent", "" }, { "content", "" }, { "+29999", "" }, { "+1", "A0 D0 S1B-" } } },
	{ "whole: half of what is left, while others remain", { .whole = true, .deadline_ms = 40000 }, { { "start", "S0A-" }, { "sent", "" },
		{ "+19999", "" }, { "+1", "A0 D0 S1B-" }, { "sent", "" }, { "+19999", "" }, { "+1", "A1 D1 E:timeout:504:-:again" } } },
	{ "whole: all of it, when nobody else could follow", { .whole = true, .deadline_ms = 40000, .no_replay = true }, { { "start", "S0A-" },
		{ "sent", "" }, { "+29999", "" }, { "+1", "A0 D0 E:uncertain:502:0" } } },
	{ "whole, reasoning", { .whole = true, .reasoning = true, .targets = 1 }, { { "start", "S0A-" }, { "sent", "" }, { "+299999", "" },
		{ "+1", "A0 D0 E:uncertain:502:0" } } },

	/* ---- after content ---- */
	{ "cut after content", { 0 }, { { "start", "S0A-" }, { "sent", "" }, { "content", "C0" }, { "end eof", "E:stream_broken:502:0:again" } } },
	{ "error after content keeps its status", { 0 }, { { "start", "S0A-" }, { "content", "C0" }, { "end 429", "E:stream_broken:429:0:again" } } },
	{ "bytes idle 20 s", { 0 }, { { "start", "S0A-" }, { "content", "C0" }, { "+19999", "" }, { "+1", "A0 E:stream_broken:502:0:again" } } },
	{ "pings feed the bytes, not the content", { 0 }, { { "start", "S0A-" }, { "content", "C0" }, { "+19000", "" }, { "bytes", "" }, { "+19000", "" },
		{ "bytes", "" }, { "+19000", "" }, { "bytes", "" }, { "+2999", "" }, { "+1", "A0 E:stream_broken:502:0:again" } } },
	{ "content feeds both", { 0 }, { { "start", "S0A-" }, { "content", "C0" }, { "+19999", "" }, { "content", "" }, { "+19999", "" }, { "content", "" },
		{ "+19999", "" }, { "content", "" }, { "+19999", "" }, { "complete", "" }, { "end ok", "OK0" } } },
	{ "restart", { .restart = true }, { { "start", "S0A-" }, { "content", "C0" }, { "end reset", "R1 S1B-" }, { "sent", "" }, { "content", "C1" },
		{ "complete", "" }, { "end ok", "OK1" } } },
	{ "restart: never the same target", { .restart = true, .targets = 1 }, { { "start", "S0A-" }, { "content", "C0" },
		{ "end reset", "E:stream_broken:502:0:again" } } },
	{ "restart that fails before content: nothing stands", { .restart = true }, { { "start", "S0A-" }, { "content", "C0" }, { "end reset", "R1 S1B-" },
		{ "end 404", "D1 E:upstream_failed:502:0:again" } } },
	{ "restart, waiting: what was given still stands", { .restart = true, .before = "B:REFUSED=30000" }, { { "start", "S0A-" }, { "content", "C0" },
		{ "end reset", "W30000" }, { "wake", "R1 S1B-" } } },
	{ "restart, nobody usable", { .restart = true, .before = "B:REFUSED=300000" }, { { "start", "S0A-" }, { "content", "C0" },
		{ "end reset", "E:stream_broken:502:0:again" } } },

	/* ---- this host, cancel, deadline ---- */
	{ "no descriptors", { 0 }, { { "start", "S0A-" }, { "end local", "D0 E:busy:503:0:ra=1000:again" } } },
	{ "no memory after content", { 0 }, { { "start", "S0A-" }, { "content", "C0" }, { "end local", "E:stream_broken:502:0:again" } } },
	{ "cancel before the start", { 0 }, { { "cancel", "E:cancelled:499:-" }, { "cancel", "" } } },
	{ "cancel while connecting", { 0 }, { { "start", "S0A-" }, { "cancel", "A0 D0 E:cancelled:499:-" }, { "end connect", "" } } },
	{ "cancel while waiting", { .targets = 1 }, { { "start", "S0A-" }, { "end 429 ra=1000", "D0 W1000" }, { "cancel", "E:cancelled:499:-" }, { "+1000", "" } } },
	{ "cancel of a stream", { 0 }, { { "start", "S0A-" }, { "content", "C0" }, { "cancel", "A0 E:cancelled:499:-" }, { "content", "" } } },
	{ "cancel of a finished one that waits for usage", { 0 }, { { "start", "S0A-" }, { "content", "C0" }, { "complete", "" }, { "cancel", "A0 E:cancelled:499:-" } } },
	{ "the agent stops", { 0 }, { { "start", "S0A-" }, { "drain", "A0 D0 E:draining:503:-:again" } } },
	{ "deadline before content", { .deadline_ms = 3000 }, { { "start", "S0A-" }, { "sent", "" }, { "+2999", "" }, { "+1", "A0 D0 E:timeout:504:-:again" } } },
	{ "deadline of a stream", { .deadline_ms = 3000 }, { { "start", "S0A-" }, { "content", "C0" }, { "wake", "A0 E:timeout:504:-:again" } } },
	{ "deadline has passed at the start", { .deadline_ms = 1 }, { { "+1", "" }, { "start", "E:timeout:504:-:again" } } },
	{ "a failure at the deadline", { .deadline_ms = 1000 }, { { "start", "S0A-" }, { "sent", "" }, { "~1000", "" }, { "end 500", "D0 E:timeout:504:-:again" } } },
	{ "an answer at the deadline", { .deadline_ms = 1000 }, { { "start", "S0A-" }, { "complete", "" }, { "~1000", "" }, { "end ok", "C0 OK0" } } },
	{ "stopped from outside", { 0 }, { { "start", "S0A-" }, { "end aborted", "D0 E:draining:503:-:again" } } },
	{ "events of an attempt that is over", { 0 }, { { "start", "S0A-" }, { "end connect", "D0 S1A-" }, { "old content", "" }, { "old complete", "" },
		{ "old end ok", "" }, { "sent", "" }, { "connected", "" }, { "complete", "" }, { "complete", "" }, { "end ok", "C1 OK1" } } },

	/* ---- health decides who is asked ---- */
	{ "down: passed over", { .before = "A:FAILED A:FAILED A:FAILED" }, { { "start", "S0B-" } } },
	{ "all down: the one due soonest, once", { .before = "A:FAILED A:FAILED A:FAILED B:FAILED B:FAILED B:FAILED" }, { { "start", "S0A-" },
		{ "end connect", "D0 E:unreachable:502:0:again" } } },
	{ "all down, and it is back", { .before = "A:FAILED A:FAILED A:FAILED B:FAILED B:FAILED B:FAILED" }, { { "start", "S0A-" },
		{ "complete", "" }, { "end ok", "C0 OK0" } } },
	{ "one down, one throttled for 1 s: the wait", { .before = "A:FAILED A:FAILED A:FAILED B:REFUSED=1000" }, { { "start", "W1000" }, { "wake", "S0B-" } } },
	{ "one down, one throttled for 60 s: the trial, then the wait", { .before = "A:FAILED A:FAILED A:FAILED B:REFUSED=60000" },
		{ { "start", "S0A-" }, { "end connect", "D0 W60000" }, { "wake", "S1A-" } } },
	{ "one down, one throttled beyond the deadline", { .deadline_ms = 500, .before = "A:FAILED A:FAILED A:FAILED B:REFUSED=1000" },
		{ { "start", "S0A-" } } },
	{ "misconfigured: passed over", { .before = "A:NOT_THERE" }, { { "start", "S0B-" } } },
};

static void
run_script(const struct script *sc, uint64_t origin_ns)
{
	struct bench b;
	char got[256];

	bench_init(&b, &sc->setup, origin_ns);
	play_before(&b, sc->setup.before);
	bench_request(&b, &sc->setup);
	for (int i = 0; i < STEPS_MAX && sc->step[i][0]; i++) {
		play(&b, sc->step[i][0], got, sizeof(got));
		if (strcmp(got, sc->step[i][1]) != 0)
			fail_msg("%s: step %d, %s: \"%s\", want \"%s\"", sc->name, i + 1, sc->step[i][0], got, sc->step[i][1]);
	}
	play(&b, "cancel", got, sizeof(got));
	assert_true(sbx_request_ended(&b.req));
	assert_int_equal(sbx_request_wake_ns(&b.req), UINT64_MAX);
	bench_fini(&b);
}

/* T14: every row of the matrix, with its exact attempts. */
static void
test_matrix(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
		run_script(&scripts[i], 1000 * S);
}

/* T31: time is only ever a difference; where the clock stands, and how far it may have been set, changes nothing. */
static void
test_any_clock(void **state)
{
	static const uint64_t origin_ns[] = { 1, 86400 * S, UINT64_MAX / 2 };

	(void)state;
	for (size_t o = 0; o < sizeof(origin_ns) / sizeof(origin_ns[0]); o++)
		for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
			run_script(&scripts[i], origin_ns[o]);
}

/* Full jitter: between 0 and 250 ms before the same target, and not always the same. */
static void
test_backoff(void **state)
{
	const struct setup setup = { 0 };
	uint64_t lo = UINT64_MAX, hi = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 256; seed++) {
		struct bench b;
		char got[256];

		bench_init(&b, &setup, 1000 * S);
		b.provider[0].policy.backoff_base_ns = 250 * MS;
		bench_request(&b, &setup);
		b.req.jitter = seed;
		play(&b, "start", got, sizeof(got));
		play(&b, "end 500", got, sizeof(got));
		const uint64_t wait_ns = sbx_request_wake_ns(&b.req) - b.now_ns;
		assert_true(wait_ns <= 250 * MS);
		lo = wait_ns < lo ? wait_ns : lo;
		hi = wait_ns > hi ? wait_ns : hi;
		play(&b, "wake", got, sizeof(got));
		assert_string_equal(got, "S1A-");
		play(&b, "cancel", got, sizeof(got));
		bench_fini(&b);
	}
	assert_true(lo < 10 * MS && hi > 240 * MS);
}

/* It doubles, where the configuration allows more than one repeat and others have seen the target well in between. */
static void
test_backoff_doubles(void **state)
{
	const struct setup setup = { .targets = 1 };
	uint64_t hi_ns = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 64; seed++) {
		struct bench b;
		char got[256];

		bench_init(&b, &setup, 1000 * S);
		b.provider[0].policy.attempts_max = b.provider[0].policy.attempts_per_target = 5;
		b.provider[0].policy.backoff_base_ns = 250 * MS;
		b.provider[0].policy.backoff_cap_ns = 800 * MS;
		bench_request(&b, &setup);
		b.req.jitter = seed;
		play(&b, "start", got, sizeof(got));
		for (int i = 0; i < 4; i++) {
			book(&b, 0, SBX_CLASS_OK, -1);
			play(&b, "end 500", got, sizeof(got));
			assert_int_equal(b.req.state, SBX_REQ_WAITING);
			hi_ns = sbx_request_wake_ns(&b.req) - b.now_ns;
			assert_true(hi_ns <= (i == 0 ? 250 * MS : i == 1 ? 500 * MS : 800 * MS));
			play(&b, "wake", got, sizeof(got));
		}
		play(&b, "end 500", got, sizeof(got));
		assert_string_equal(got, "D4 E:upstream_failed:500:4:again");
		bench_fini(&b);
	}
}

/* The longest route, all of it dead: every target is asked, within the array of attempts. */
static void
test_longest_route(void **state)
{
	const struct setup setup = { .targets = SBX_ROUTE_TARGETS_MAX };
	bool asked[SBX_ROUTE_TARGETS_MAX] = { false };
	struct bench b;
	char got[256];

	(void)state;
	bench_init(&b, &setup, 1000 * S);
	bench_request(&b, &setup);
	play(&b, "start", got, sizeof(got));
	while (!sbx_request_ended(&b.req)) {
		asked[b.req.attempt[b.req.n_attempts - 1].target] = true;
		play(&b, "end connect", got, sizeof(got));
	}
	for (int i = 0; i < SBX_ROUTE_TARGETS_MAX; i++)
		assert_true(asked[i]);
	bench_fini(&b);
}

/* Many refused keys do not use up the attempts that other targets need. */
static void
test_many_keys(void **state)
{
	const struct setup setup = { .targets = 12, .keys = { 8, 8 } };
	struct bench b;
	char got[256];

	(void)state;
	bench_init(&b, &setup, 1000 * S);
	bench_request(&b, &setup);
	play(&b, "start", got, sizeof(got));
	for (int i = 0; i < SBX_ATTEMPTS_MAX && !sbx_request_ended(&b.req); i++)
		play(&b, b.req.attempt[b.req.n_attempts - 1].target < 2 ? "end 401" : "end 404", got, sizeof(got));
	assert_true(sbx_request_ended(&b.req));
	assert_int_equal(b.req.attempt[b.req.n_attempts - 1].target, 11);
	bench_fini(&b);
}

/* T15: all open: each request makes one trial, and the first one after the recovery is answered. */
static void
test_all_open(void **state)
{
	const struct setup setup = { .before = "A:FAILED A:FAILED A:FAILED B:FAILED B:FAILED B:FAILED" };
	struct bench b;
	char got[256];

	(void)state;
	bench_init(&b, &setup, 1000 * S);
	play_before(&b, setup.before);
	for (int i = 0; i < 20; i++) {
		const bool back = i >= 15;

		bench_request(&b, &setup);
		play(&b, "start", got, sizeof(got));
		assert_int_equal(b.req.n_attempts, 1);
		while (!sbx_request_ended(&b.req)) {
			if (back)
				play(&b, "complete", got, sizeof(got));
			play(&b, back ? "end ok" : "end reset", got, sizeof(got));
		}
		assert_int_equal(b.req.state == SBX_REQ_DONE, back);
		assert_true(b.req.n_attempts <= 3);
		b.now_ns += S;
	}
	bench_fini(&b);
}

/* T16, and the second half of the bar on outages: 60 s of it, a request every 4 s, where no probe tells. Every request is
 * answered by the fallback; at most 7 attempts on the primary; back on it within 16 s of its recovery. */
enum outage { REFUSES_CONNECTIONS, ANSWERS_500, HANGS };

static void
flap(enum outage outage, uint64_t phase_ns)
{
	const struct setup setup = { 0 };
	const uint64_t begin_ns = 1000 * S, over_ns = begin_ns + 60 * S, step_ns = 50 * MS;
	static struct { struct bench b; bool live; uint64_t began_ns; } slot[64]; /* each with a copy of the one health */
	struct bench b;
	char got[256];
	unsigned n = 0, on_primary = 0;
	uint64_t back_ns = 0;

	bench_init(&b, &setup, begin_ns - 20 * S);
	memset(slot, 0, sizeof(slot));
	for (uint64_t now_ns = begin_ns - 20 * S; now_ns < over_ns + 40 * S; now_ns += step_ns) {
		if ((now_ns - begin_ns + 20 * S + phase_ns) % (4 * S) == 0) {
			slot[n].b = b; /* the tables stay those of `b`: only the request is its own */
			slot[n].b.now_ns = now_ns;
			bench_request(&slot[n].b, &setup);
			for (uint8_t i = 0; i < slot[n].b.req.n_candidates; i++)
				slot[n].b.req.candidate[i].policy = &b.provider[i].policy;
			play(&slot[n].b, "start", got, sizeof(got));
			slot[n].live = true;
			n++;
		}
		for (unsigned i = 0; i < n; i++) {
			struct sbx_request *req = &slot[i].b.req;

			if (!slot[i].live)
				continue;
			slot[i].b.now_ns = now_ns;
			play(&slot[i].b, "+0", got, sizeof(got));
			if (req->running > 0) {
				const struct sbx_attempt *a = &req->attempt[req->n_attempts - 1];
				const bool ill = a->target == 0 && a->started_ns >= begin_ns && a->started_ns < over_ns;

				if (ill && outage == HANGS && a->state == SBX_ATT_CONNECTING) {
					play(&slot[i].b, "sent", got, sizeof(got));
				} else if (ill && outage == ANSWERS_500) {
					play(&slot[i].b, "end 500", got, sizeof(got));
				} else if (ill && outage == REFUSES_CONNECTIONS) {
					play(&slot[i].b, "end connect", got, sizeof(got));
				} else if (!ill) {
					play(&slot[i].b, "complete", got, sizeof(got));
					play(&slot[i].b, "end ok", got, sizeof(got));
				}
			}
			if (!sbx_request_ended(req))
				continue;
			slot[i].live = false;
			assert_int_equal(req->state, SBX_REQ_DONE); /* every request is served */
			for (uint8_t k = 0; k < req->n_attempts; k++)
				on_primary += req->attempt[k].target == 0 && req->attempt[k].started_ns >= begin_ns && req->attempt[k].started_ns < over_ns;
			if (back_ns == 0 && req->started_ns >= over_ns && req->attempt[req->n_attempts - 1].target == 0)
				back_ns = now_ns - over_ns;
		}
	}
	for (unsigned i = 0; i < n; i++)
		assert_false(slot[i].live);
	/* A trial that hangs is known to have failed only when its limit has passed: 10 s more. */
	const uint64_t back_max_ns = (outage == HANGS ? 26 : 16) * S + step_ns;
	if (on_primary > 7 || back_ns == 0 || back_ns > back_max_ns)
		fail_msg("outage %d, phase %.3f s: %u attempts on the primary (7), back after %.1f s (%.1f)", (int)outage, (double)phase_ns / 1e9,
		         on_primary, (double)back_ns / 1e9, (double)back_max_ns / 1e9);
	bench_fini(&b);
}

static void
test_flap(void **state)
{
	(void)state;
	for (uint64_t phase_ns = 0; phase_ns < 4 * S; phase_ns += 500 * MS) {
		flap(REFUSES_CONNECTIONS, phase_ns);
		flap(ANSWERS_500, phase_ns);
		flap(HANGS, phase_ns);
	}
}

/* The short path of a committed stream: only the idle limits move, and always later. */
static void
test_short_path(void **state)
{
	const struct setup setup = { 0 };
	struct bench b;
	char got[256];

	(void)state;
	bench_init(&b, &setup, 1000 * S);
	bench_request(&b, &setup);
	play(&b, "start", got, sizeof(got));
	play(&b, "content", got, sizeof(got));
	for (int i = 0; i < 25; i++) {
		const uint64_t before_ns = sbx_request_wake_ns(&b.req);

		b.now_ns += 15 * S;
		sbx_request_on_content(&b.req, 0, b.now_ns);
		assert_true(sbx_request_wake_ns(&b.req) > before_ns);
		assert_int_equal(sbx_request_wake_ns(&b.req), b.now_ns + 20 * S);
	}
	for (int i = 0; i < 3; i++) {
		b.now_ns += 15 * S;
		sbx_request_on_bytes(&b.req, 0, b.now_ns);
	}
	assert_int_equal(sbx_request_wake_ns(&b.req), b.now_ns + 15 * S); /* now the content limit is the nearer one */
	play(&b, "wake", got, sizeof(got));
	assert_string_equal(got, "A0 E:stream_broken:502:0:again");
	bench_fini(&b);
}

static void
test_names(void **state)
{
	(void)state;
	for (int i = 0; i < SBX_REQ__COUNT; i++)
		assert_string_not_equal(sbx_req_state_name((enum sbx_req_state)i), "?");
	for (int i = 0; i < SBX_ATT__COUNT; i++)
		assert_string_not_equal(sbx_att_state_name((enum sbx_att_state)i), "?");
	assert_string_equal(sbx_req_state_name(SBX_REQ_COMMITTED), "COMMITTED");
	assert_string_equal(sbx_att_state_name(SBX_ATT_WAITING_FIRST), "WAITING_FIRST");
	assert_string_equal(sbx_req_state_name(SBX_REQ__COUNT), "?");
	assert_string_equal(sbx_att_state_name(SBX_ATT__COUNT), "?");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_matrix),     cmocka_unit_test(test_any_clock), cmocka_unit_test(test_backoff),
		cmocka_unit_test(test_backoff_doubles),
		cmocka_unit_test(test_longest_route), cmocka_unit_test(test_many_keys), cmocka_unit_test(test_all_open),
		cmocka_unit_test(test_flap),       cmocka_unit_test(test_short_path), cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests_name("request", tests, NULL, NULL);
}
