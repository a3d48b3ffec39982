/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c -- THE state machine of a request: the policy of failover, in one file.
 *
 * Reading order: set_state() and its table of moves (request.h) say what may happen; choose() says which target is asked
 * next; after_failure() says what a failure means for the rest of the request, class by class; the on_ functions at the end
 * translate events into these.
 *
 * Bounds, all from struct sbx_policy: counted attempts of the request and of a target; one free repeat after NOT_SENT; one
 * repeat after a Retry-After; each credential once after AUTH or QUOTA; one last-resort trial of a target that is down; all
 * waiting for refusals together; the deadline above everything.
 *
 * The invariants are checked by sbx_request_validate() in request_check.c.
 *
 * What it deliberately does not do: hedge (one attempt runs at a time, though the struct and the loops below take several),
 * judge health (asked of health.h at each choice), or look at content.
 */
#include "agent/core/request.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "client/rank.h"

#define NO_ATTEMPT SBX_ATTEMPTS_MAX /* no attempt */

/* A wait is at least this long: a health row whose "until" has just passed must not turn into a busy loop. */
#define WAIT_MIN_NS 1000000ull

/* One step's context, so that the helpers below need not pass four arguments on. */
struct step {
	struct sbx_request *req;
	struct sbx_judge *judge;
	uint64_t now_ns;
	struct sbx_effects *fx;
};

/* ---- moves ---- */

static void
set_state(struct sbx_request *req, enum sbx_req_state to)
{
	static const bool legal[SBX_REQ__COUNT][SBX_REQ__COUNT] = {
#define X(from, to) [SBX_REQ_##from][SBX_REQ_##to] = true,
		SBX_REQ_MOVES(X)
#undef X
	};
	assert(legal[req->state][to]);
	req->state = to;
}

static void
set_att_state(struct sbx_attempt *a, enum sbx_att_state to)
{
	static const bool legal[SBX_ATT__COUNT][SBX_ATT__COUNT] = {
#define X(from, to) [SBX_ATT_##from][SBX_ATT_##to] = true,
		SBX_ATT_MOVES(X)
#undef X
	};
	assert(legal[a->state][to]);
	a->state = to;
}

static bool
state_is_final(enum sbx_req_state s)
{
	return s == SBX_REQ_DONE || s == SBX_REQ_FAILED || s == SBX_REQ_CANCELLED;
}

static int
code_status(enum sbx_code code)
{
	static const int status[SBX_CODE__COUNT] = {
#define X(name, word, http) [name] = http,
		SBX_CODES(X)
#undef X
	};
	return status[code];
}

/* ---- small helpers ---- */

static uint64_t
add_ns(uint64_t a, uint64_t b) /* "never" stays never */
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t
min_ns(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Full jitter: 0 .. top, from the request's own splitmix64, so that a seed replays. */
static uint64_t
jitter_ns(struct sbx_request *req, uint64_t top_ns)
{
	uint64_t z = req->jitter += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	z ^= z >> 31;
	assert(top_ns < UINT64_MAX);
	return z % (top_ns + 1);
}

static struct sbx_effect *
emit(struct step *s, enum sbx_effect_kind kind, uint8_t attempt)
{
	assert(s->fx->n < SBX_EFFECTS_MAX);
	struct sbx_effect *fx = &s->fx->fx[s->fx->n++];
	*fx = (struct sbx_effect){ .kind = kind, .attempt = attempt, .retry_after_ns = -1 };
	return fx;
}

/* The bit of an attempt's credential among its provider's; 0 = it used none. */
static uint8_t
key_bit(const struct step *s, const struct sbx_attempt *a)
{
	if (a->credential == UINT32_MAX)
		return 0;
	return (uint8_t)(1u << (a->credential - s->judge->tables->provider[a->provider].first_credential));
}

/* ---- the end of a request ---- */

/* Of all failures the one of the highest rank (class.h); among equals that of the target which the caller ranked first, and of
 * one target the latest. */
static void
note_failure(struct sbx_request *req, uint8_t ai)
{
	const struct sbx_attempt *a = &req->attempt[ai];

	if (req->shown != NO_ATTEMPT) {
		const struct sbx_attempt *b = &req->attempt[req->shown];
		const int ra = sbx_class_rank(a->class), rb = sbx_class_rank(b->class);

		if (ra < rb || (ra == rb && a->candidate > b->candidate))
			return;
	}
	req->shown = ai;
}

/* UNCERTAIN is not among them: it may have been carried out, and only the caller knows whether twice is harmless. */
static bool
code_is_retryable(enum sbx_code code)
{
	return code == SBX_CODE_RATE_LIMITED || code == SBX_CODE_UPSTREAM || code == SBX_CODE_UNREACHABLE ||
	       code == SBX_CODE_STREAM_BROKEN || code == SBX_CODE_TIMEOUT || code == SBX_CODE_BUSY || code == SBX_CODE_DRAINING;
}

static void
finish_error(struct step *s, enum sbx_req_state state, enum sbx_code code, uint8_t ai, int64_t retry_after_ns)
{
	struct sbx_request *req = s->req;
	struct sbx_effect *fx = emit(s, SBX_FX_END_ERROR, ai);

	fx->code = code;
	fx->status = ai != NO_ATTEMPT && req->attempt[ai].status >= 400 ? req->attempt[ai].status : code_status(code);
	fx->retry_after_ns = retry_after_ns;
	fx->retryable = code_is_retryable(code) && (ai == NO_ATTEMPT || !req->attempt[ai].told_no_retry);
	req->ended_ns = s->now_ns;
	set_state(req, state);
}

static struct sbx_gate_answer
ask_gate(const struct step *s, const struct sbx_candidate_row *c)
{
	const struct sbx_health *h = s->judge->health;
	const struct sbx_tables *t = s->judge->tables;
	struct sbx_gate_answer g = sbx_health_gate(h, t, c->target, c->provider, (uint32_t)c->keys_tried | c->keys_throttled, s->now_ns);

	/* Nothing left but keys that this request has seen throttled: the answer is when they come back, not "no key". If health
	 * thinks that they are back already (Retry-After: 0), they still have to be waited for, since only a wait is counted. */
	if (g.gate == SBX_GATE_NO_KEY && c->keys_throttled != 0) {
		g = sbx_health_gate(h, t, c->target, c->provider, c->keys_tried, s->now_ns);
		if (g.gate == SBX_GATE_YES || g.gate == SBX_GATE_PROBE)
			g = (struct sbx_gate_answer){ SBX_GATE_THROTTLED, UINT32_MAX, s->now_ns };
	}
	return g;
}

/* No target is left. */
static void
finish_exhausted(struct step *s)
{
	struct sbx_request *req = s->req;
	uint64_t throttled_until = UINT64_MAX, keys_until = UINT64_MAX;
	bool throttled = false, no_key = false, only_quota = true;

	if (req->content_reached) { /* what the last attempt delivered stands, and the client must know that it is not all */
		finish_error(s, SBX_REQ_FAILED, SBX_CODE_STREAM_BROKEN, (uint8_t)(req->n_attempts - 1), -1);
		return;
	}
	for (uint8_t i = 0; i < req->n_candidates; i++) { /* closed ones too: the client may come back to them */
		const struct sbx_candidate_row *c = &req->candidate[i];
		const struct sbx_provider *p = &s->judge->tables->provider[c->provider];
		const struct sbx_gate_answer g = ask_gate(s, c);

		if (g.gate == SBX_GATE_THROTTLED) {
			throttled = true;
			throttled_until = min_ns(throttled_until, g.until_ns);
		} else if (g.gate == SBX_GATE_NO_KEY) {
			no_key = true;
			keys_until = min_ns(keys_until, g.until_ns);
			only_quota = only_quota && p->n_credentials > 0;
			for (uint32_t k = 0; k < p->n_credentials; k++)
				if (sbx_health_credential(s->judge->health, p->first_credential + k)->why != SBX_CLASS_QUOTA)
					only_quota = false;
		}
	}
	if (throttled_until != UINT64_MAX)
		throttled_until = throttled_until > s->now_ns ? throttled_until - s->now_ns : 0;
	const int64_t retry_after_ns = throttled_until <= INT64_MAX ? (int64_t)throttled_until : -1;

	if (req->shown != NO_ATTEMPT) {
		enum sbx_code code = sbx_class_code(req->attempt[req->shown].class);

		if (code == SBX_CODE_STREAM_BROKEN)
			code = SBX_CODE_UPSTREAM; /* a RESET took its content back: nothing stands */
		finish_error(s, SBX_REQ_FAILED, code, req->shown, code == SBX_CODE_RATE_LIMITED ? retry_after_ns : -1);
	} else if (throttled) {
		finish_error(s, SBX_REQ_FAILED, SBX_CODE_RATE_LIMITED, NO_ATTEMPT, retry_after_ns);
	} else if (no_key) { /* nobody was asked, so no provider's 401 may be quoted: the service is not available */
		const bool known = keys_until != UINT64_MAX && keys_until > s->now_ns && keys_until - s->now_ns <= INT64_MAX;

		finish_error(s, SBX_REQ_FAILED, only_quota ? SBX_CODE_QUOTA : SBX_CODE_CREDENTIALS, NO_ATTEMPT,
		             known ? (int64_t)(keys_until - s->now_ns) : -1);
		s->fx->fx[s->fx->n - 1].status = 503;
	} else {
		finish_error(s, SBX_REQ_FAILED, SBX_CODE_UPSTREAM, NO_ATTEMPT, -1); /* a policy that allows no attempt at all */
	}
}

/* ---- attempts ---- */

/* Book the end of an attempt: here and in health, exactly once. */
static void
end_attempt(struct step *s, uint8_t ai, enum sbx_class class, int64_t retry_after_ns)
{
	struct sbx_request *req = s->req;
	struct sbx_attempt *a = &req->attempt[ai];
	struct sbx_candidate_row *c = &req->candidate[a->candidate];
	/* That of a whole answer is its end, and tells nothing about streams. */
	const uint64_t first_ns = req->stream && a->first_content_ns > a->started_ns ? a->first_content_ns - a->started_ns : 0;

	set_att_state(a, SBX_ATT_ENDED);
	a->class = class;
	a->ended_ns = s->now_ns;
	a->limit_ns = UINT64_MAX;
	req->running--;
	if (sbx_class_counts(class)) {
		req->counted++;
		c->counted++;
	} else {
		c->uncounted++;
	}
	/* That a chat model is not there for embeddings tells nothing about its chats: one client's mistake is no reason to pass the
	 * target over for the others. */
	const enum sbx_class learned = class == SBX_CLASS_NOT_THERE && req->op != SBX_OP_CHAT ? SBX_CLASS_BAD_REQUEST : class;
	sbx_health_on_end(s->judge->health, s->judge->tables, a->target, a->provider, a->credential, learned, retry_after_ns, first_ns,
	                  s->now_ns - a->started_ns, s->now_ns);
}

/* Whatever runs is stopped and booked as CANCELLED: by the client, or by the deadline. */
static void
abort_running(struct step *s)
{
	for (uint8_t i = 0; i < s->req->n_attempts && s->req->running > 0; i++) {
		if (s->req->attempt[i].state == SBX_ATT_ENDED)
			continue;
		emit(s, SBX_FX_ABORT, i);
		if (s->req->state != SBX_REQ_COMMITTED)
			emit(s, SBX_FX_DROP, i);
		end_attempt(s, i, SBX_CLASS_CANCELLED, -1);
	}
}

static void
start_attempt(struct step *s, uint8_t ci, uint32_t credential, bool probe)
{
	struct sbx_request *req = s->req;
	struct sbx_candidate_row *c = &req->candidate[ci];
	const uint8_t ai = req->n_attempts++;
	struct sbx_attempt *a = &req->attempt[ai];

	*a = (struct sbx_attempt){
		.started_ns = s->now_ns,
		.limit_ns = add_ns(s->now_ns, c->policy->connect_ns),
		.target = c->target,
		.credential = credential,
		.provider = c->provider,
		.candidate = ci,
		.probe = probe,
	};
	set_att_state(a, SBX_ATT_CONNECTING);
	c->passed_over = SBX_GATE_YES;
	req->running++;
	sbx_health_on_start(s->judge->health, s->judge->tables, c->target, c->provider, credential, s->now_ns);
	if (req->content_reached) {
		emit(s, SBX_FX_RESET, ai);
		req->content_reached = false;
	}
	emit(s, SBX_FX_START, ai);
	set_state(req, SBX_REQ_TRYING);
}

/* ---- which target next ---- */

static bool
is_untried(const struct sbx_candidate_row *c)
{
	return c->counted == 0 && c->uncounted == 0;
}

/* Attempts, of whatever class, on the candidates that have the name of this one. */
static unsigned
tries_of_name(const struct sbx_request *req, uint8_t name)
{
	unsigned n = 0;

	for (uint8_t i = 0; i < req->n_attempts; i++)
		n += req->candidate[req->attempt[i].candidate].name == name;
	return n;
}

/* Do the limits of this request allow one more attempt on this candidate? (Its health is another question.) */
static bool
may_start(const struct sbx_request *req, const struct sbx_candidate_row *c)
{
	unsigned untried = 0;

	if (c->closed || req->counted >= c->policy->attempts_max || c->counted >= c->policy->attempts_per_target ||
	    req->n_attempts >= SBX_ATTEMPTS_MAX || (req->tries_per_name && tries_of_name(req, c->name) >= req->tries_per_name))
		return false;
	if (is_untried(c))
		return true;
	for (uint8_t i = 0; i < req->n_candidates; i++)
		untried += !req->candidate[i].closed && is_untried(&req->candidate[i]);
	return req->n_attempts + untried < SBX_ATTEMPTS_MAX; /* a repeat leaves every other target its place */
}

static void
wait_until(struct step *s, uint64_t until_ns)
{
	s->req->wait_from_ns = s->now_ns;
	s->req->wait_until_ns = until_ns;
	set_state(s->req, SBX_REQ_WAITING);
}

/* Wait for a refused candidate until until_ns, if that is at most max_ns from now, within what is left of wait_max for all such
 * waits of this request, and before its deadline. False = not. */
static bool
try_hold(struct step *s, uint8_t ci, uint64_t until_ns, uint64_t max_ns)
{
	struct sbx_request *req = s->req;
	const struct sbx_policy *p = req->candidate[ci].policy;
	const uint64_t left_ns = min_ns(p->wait_max_ns - min_ns(req->held_ns, p->wait_max_ns), req->deadline_ns - s->now_ns - 1);
	uint64_t wait_ns = until_ns > s->now_ns + WAIT_MIN_NS ? until_ns - s->now_ns : WAIT_MIN_NS;

	if (wait_ns > max_ns || wait_ns > left_ns)
		return false;
	/* Many requests wait for the same moment: jitter, where there is room for it, keeps them from arriving together. */
	wait_ns += jitter_ns(req, min_ns(p->backoff_base_ns, left_ns - wait_ns));
	req->held_ns += wait_ns;
	wait_until(s, s->now_ns + wait_ns);
	return true;
}

/* ROUTING: down the ranking of the candidates (client/rank.h), start the first usable one, or wait for one, or give up. */
static void
choose(struct step *s)
{
	struct sbx_request *req = s->req;
	struct sbx_candidate ranked[SBX_ROUTE_TARGETS_MAX];
	uint32_t n = 0;

	if (s->now_ns >= req->deadline_ns) {
		finish_error(s, SBX_REQ_FAILED, SBX_CODE_TIMEOUT, NO_ATTEMPT, -1);
		return;
	}
	for (uint8_t i = 0; i < req->n_candidates && !sbx_rank_settled(SBX_RANK_PRIORITY, ranked, n, 1); i++) {
		struct sbx_candidate_row *c = &req->candidate[i];

		if (!may_start(req, c))
			continue;
		const struct sbx_gate_answer g = ask_gate(s, c);
		const struct sbx_candidate one = {
			.target = i,
			.position = i,
			.gate = g.gate,
			.key = g.credential,
			.until_ns = g.until_ns,
			.patience_ns = c->policy->wait_short_ns,
			.cost_nanousd = INT64_MIN,
		};
		if (g.gate != SBX_GATE_YES && g.gate != SBX_GATE_PROBE)
			c->passed_over = g.gate;
		n = sbx_rank_insert(SBX_RANK_PRIORITY, s->now_ns, &one, ranked, n, SBX_ROUTE_TARGETS_MAX);
	}
	/* Of those that are throttled only the one that is free first is waited for: were its wait too long, a longer one is no help. */
	uint32_t soonest = n;
	for (uint32_t i = 0; i < n; i++)
		if (ranked[i].gate == SBX_GATE_THROTTLED &&
		    (soonest == n || ranked[i].until_ns < ranked[soonest].until_ns ||
		     (ranked[i].until_ns == ranked[soonest].until_ns && ranked[i].position < ranked[soonest].position)))
			soonest = i;
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t ci = (uint8_t)ranked[i].target;
		const struct sbx_policy *p = req->candidate[ci].policy;

		switch (ranked[i].tier) {
		case SBX_TIER_USABLE:
			start_attempt(s, ci, ranked[i].key, ranked[i].gate == SBX_GATE_PROBE);
			return;
		case SBX_TIER_SHORT_WAIT:
			if (i == soonest && try_hold(s, ci, ranked[i].until_ns, p->wait_short_ns))
				return;
			break;
		case SBX_TIER_DOWN: /* never eject the last: one trial of one that is down, as the last resort */
			if (req->forced)
				break;
			req->forced = true;
			start_attempt(s, ci, ranked[i].key, true);
			return;
		case SBX_TIER_LONG_WAIT:
			if (i == soonest && try_hold(s, ci, ranked[i].until_ns, p->wait_max_ns))
				return;
			break;
		case SBX_TIER_OUT:
			break;
		}
	}
	finish_exhausted(s);
}

/* ---- what a failure means ---- */

static bool
other_may_start(const struct sbx_request *req, uint8_t ci)
{
	for (uint8_t i = 0; i < req->n_candidates; i++)
		if (i != ci && may_start(req, &req->candidate[i]))
			return true;
	return false;
}

/* Attempt ai has failed and is booked; the request is in ROUTING. was_good: the target's outcome before this one was a success.
 * Each class either leaves its candidate open (it may be asked again) or closes it, and then a choice is made. */
static void
after_failure(struct step *s, uint8_t ai, int64_t retry_after_ns, bool was_good)
{
	struct sbx_request *req = s->req;
	const struct sbx_attempt *a = &req->attempt[ai];
	struct sbx_candidate_row *c = &req->candidate[a->candidate];

	note_failure(req, ai);
	if (s->now_ns >= req->deadline_ns) {
		choose(s); /* which says that time is up */
		return;
	}
	if (a->told_no_retry)
		c->closed = true; /* the provider's own word: never the same target, whatever the class allows */
	switch ((enum sbx_class)a->class) {
	case SBX_CLASS_NOT_SENT:
		/* Provably not looked at: the same target once more, free, at once (a stale connection, a GOAWAY). Not so after a full
		 * connect limit of silence, while somebody else could answer: the caller has paid enough time there. */
		if (c->resent || (a->timed_out && other_may_start(req, a->candidate)))
			c->closed = true;
		c->resent = true;
		break;

	case SBX_CLASS_REFUSED:
		/* The target works, but not now. A second refusal after a wait is its last word. */
		if (c->waited) {
			c->closed = true;
			break;
		}
		c->refused = true;
		if (c->closed)
			break;
		if (a->status == 429) /* a limit of the key: another key may be free. An overload has no such side door */
			c->keys_throttled |= key_bit(s, a);
		const struct sbx_gate_answer g = ask_gate(s, c);
		if (c->keys_throttled != 0 && (g.gate == SBX_GATE_YES || g.gate == SBX_GATE_PROBE))
			break; /* it is: choose() will find it */
		/* The caller ranked it first and its prompt cache is warm: a short wait, once, beats a failover. Health may know of a
		 * longer one (what others were told; after "0 s" a back-off), and the longest holds. */
		uint64_t until_ns = add_ns(s->now_ns, retry_after_ns > 0 ? (uint64_t)retry_after_ns : 0);
		if (g.gate == SBX_GATE_THROTTLED && g.until_ns > until_ns)
			until_ns = g.until_ns;
		if (retry_after_ns >= 0 && may_start(req, c) && try_hold(s, a->candidate, until_ns, c->policy->wait_short_ns))
			return;
		/* Else it stays open: health has its throttle, so choose() passes it over for any other that is usable, and waits for
		 * it, if that is not too long, when there is none. */
		break;

	case SBX_CLASS_BAD_REQUEST:    /* wrong everywhere: re-sending a prompt ten times helps nobody */
	case SBX_CLASS_CONTENT_FILTER: /* asking around until somebody answers is not ours to do */
	case SBX_CLASS_LOCAL:          /* the next attempt would need the same descriptors and memory */
		c->closed = true;
		if (req->content_reached)
			finish_exhausted(s);
		else
			finish_error(s, SBX_REQ_FAILED, sbx_class_code(a->class), ai, a->class == SBX_CLASS_LOCAL ? 1000000000 : -1);
		return;

	case SBX_CLASS_CONTEXT_LENGTH:
		/* Only a model that holds more, or of which it is not known, is worth another try. */
		c->closed = true;
		if (c->context_tokens > req->context_too_small)
			req->context_too_small = c->context_tokens;
		for (uint8_t i = 0; i < req->n_candidates; i++) {
			struct sbx_candidate_row *o = &req->candidate[i];
			if (!o->closed && o->context_tokens > 0 && o->context_tokens <= req->context_too_small)
				o->closed = o->too_small = true;
		}
		break;

	case SBX_CLASS_AUTH:
	case SBX_CLASS_QUOTA:
		/* The key is to blame, not the target: the next key of the provider, else the next target. */
		if (key_bit(s, a) == 0)
			c->closed = true;
		c->keys_tried |= key_bit(s, a);
		break;

	case SBX_CLASS_FORBIDDEN:
	case SBX_CLASS_NOT_THERE:
		c->closed = true;
		break;

	case SBX_CLASS_FAILED:
		/* Once more on the same target, before any other, only where this looks like a hiccup: its outcome before was good.
		 * The provider's retry budget keeps a real outage from being doubled by this. */
		if (was_good && may_start(req, c)) {
			uint64_t top_ns = c->policy->backoff_base_ns;
			for (uint8_t n = 1; n < c->counted && top_ns < c->policy->backoff_cap_ns; n++)
				top_ns *= 2;
			const uint64_t wait_ns = jitter_ns(req, min_ns(top_ns, c->policy->backoff_cap_ns));

			if (wait_ns < req->deadline_ns - s->now_ns && ask_gate(s, c).gate == SBX_GATE_YES &&
			    sbx_health_try_retry(s->judge->health, c->provider, s->now_ns)) {
				if (wait_ns > 0) {
					wait_until(s, s->now_ns + wait_ns);
					return;
				}
				break;
			}
		}
		c->closed = true; /* no back-off before a different target: it is not the one that is ill */
		break;

	case SBX_CLASS_UNCERTAIN:
		/* It may have been carried out and billed. Never again there, where it may still be running; elsewhere if allowed. */
		c->closed = true;
		if (!req->replay_uncertain || !c->policy->replay_uncertain) {
			finish_error(s, SBX_REQ_FAILED, SBX_CODE_UNCERTAIN, ai, -1);
			return;
		}
		break;

	case SBX_CLASS_MIDSTREAM:
		/* Content stands at the client. Only one that can forget it gets another answer. */
		c->closed = true;
		if (!req->restart) {
			finish_exhausted(s);
			return;
		}
		break;

	case SBX_CLASS_CANCELLED: /* the transfer was stopped, but not by this request: the agent is going down */
		finish_error(s, SBX_REQ_FAILED, SBX_CODE_DRAINING, NO_ATTEMPT, -1);
		return;

	case SBX_CLASS_NONE:
	case SBX_CLASS_OK:
	case SBX_CLASS_PASSED_OVER:
	case SBX_CLASS__COUNT:
		assert(false); /* not a failure */
	}
	choose(s);
}

/* ---- events ---- */

static void
finish_ok(struct step *s, uint8_t ai, bool still_running)
{
	struct sbx_request *req = s->req;

	if (req->state != SBX_REQ_COMMITTED)
		emit(s, SBX_FX_COMMIT, ai);
	if (still_running)
		emit(s, SBX_FX_ABORT, ai);
	end_attempt(s, ai, SBX_CLASS_OK, -1);
	emit(s, SBX_FX_END_OK, ai);
	req->ended_ns = s->now_ns;
	set_state(req, SBX_REQ_DONE);
}

static void
fail_attempt(struct step *s, uint8_t ai, const struct sbx_end *end)
{
	struct sbx_request *req = s->req;
	struct sbx_attempt *a = &req->attempt[ai];
	/* Before this failure is booked: health's memory of the outcome before it. */
	const bool was_good = sbx_health_target(s->judge->health, a->target)->last_good;
	const int64_t in_body_ns = end->error ? end->error->retry_after_ns : -1;
	const int64_t retry_after_ns = end->retry_after_ns > in_body_ns ? end->retry_after_ns : in_body_ns; /* the longest holds */

	a->status = (int16_t)sbx_end_status(end);
	a->told_no_retry = end->told_no_retry;
	if (req->state != SBX_REQ_COMMITTED)
		emit(s, SBX_FX_DROP, ai);
	end_attempt(s, ai, sbx_classify(end), retry_after_ns);
	set_state(req, SBX_REQ_ROUTING);
	after_failure(s, ai, retry_after_ns, was_good);
}

/* Another target could still take over: worth leaving it half of the time that is left. */
static bool
other_could_follow(const struct step *s, const struct sbx_attempt *a)
{
	const struct sbx_request *req = s->req;
	const struct sbx_candidate_row *own = &req->candidate[a->candidate];

	if (!req->replay_uncertain || !own->policy->replay_uncertain)
		return false;
	for (uint8_t i = 0; i < req->n_candidates; i++) {
		const struct sbx_candidate_row *c = &req->candidate[i];

		if (i == a->candidate || !is_untried(c) || !may_start(req, c) || req->counted + 1 >= c->policy->attempts_max)
			continue;
		const enum sbx_gate g = ask_gate(s, c).gate;
		if (g == SBX_GATE_YES || g == SBX_GATE_PROBE)
			return true;
	}
	return false;
}

static void
on_connected(struct step *s, struct sbx_attempt *a)
{
	if (a->state != SBX_ATT_CONNECTING)
		return;
	/* A large body over a slow line is no connect failure: it gets the time of a whole answer. */
	a->limit_ns = add_ns(s->now_ns, s->req->candidate[a->candidate].policy->whole_ns);
	set_att_state(a, SBX_ATT_SENDING);
}

static void
on_sent(struct step *s, struct sbx_attempt *a)
{
	const struct sbx_request *req = s->req;
	const struct sbx_candidate_row *c = &req->candidate[a->candidate];
	uint64_t limit_ns;

	if (a->state != SBX_ATT_CONNECTING && a->state != SBX_ATT_SENDING)
		return;
	if (req->stream) {
		limit_ns = sbx_health_first_content_limit_ns(s->judge->health, c->policy, c->target, c->reasoning, s->now_ns);
	} else {
		limit_ns = sbx_health_whole_limit_ns(s->judge->health, c->policy, c->target, c->reasoning, s->now_ns);
		if (other_could_follow(s, a))
			limit_ns = min_ns(limit_ns, (req->deadline_ns - min_ns(s->now_ns, req->deadline_ns)) / 2);
	}
	a->sent_ns = s->now_ns;
	a->limit_ns = add_ns(s->now_ns, limit_ns);
	set_att_state(a, SBX_ATT_WAITING_FIRST);
}

static void
on_content(struct step *s, uint8_t ai)
{
	struct sbx_request *req = s->req;
	struct sbx_attempt *a = &req->attempt[ai];

	on_sent(s, a); /* an answer implies it */
	a->last_bytes_ns = a->last_content_ns = s->now_ns;
	if (a->first_content_ns == 0)
		a->first_content_ns = s->now_ns;
	if (!req->stream)
		return; /* a whole answer is good for nothing until its end: its limit goes on */
	if (a->state == SBX_ATT_WAITING_FIRST) {
		a->limit_ns = UINT64_MAX;
		set_att_state(a, SBX_ATT_STREAMING);
	}
	if (req->state == SBX_REQ_TRYING) {
		emit(s, SBX_FX_COMMIT, ai);
		req->content_reached = true;
		set_state(req, SBX_REQ_COMMITTED);
	}
}

static void
on_complete(struct step *s, struct sbx_attempt *a)
{
	on_sent(s, a);
	if (a->state != SBX_ATT_WAITING_FIRST && a->state != SBX_ATT_STREAMING)
		return;
	a->last_bytes_ns = s->now_ns;
	a->complete = true;
	a->limit_ns = add_ns(s->now_ns, s->req->candidate[a->candidate].policy->after_finish_ns);
	set_att_state(a, SBX_ATT_FINISHING);
}

static void
on_ended(struct step *s, uint8_t ai, const struct sbx_end *what)
{
	struct sbx_attempt *a = &s->req->attempt[ai];
	struct sbx_end end = *what;

	/* What this machine has seen itself holds, whatever the caller noted. */
	end.sent = end.sent || a->sent_ns != 0;
	end.got_content = end.got_content || a->first_content_ns != 0;
	end.complete = end.complete || a->complete;
	end.committed = s->req->state == SBX_REQ_COMMITTED;
	if (sbx_classify(&end) != SBX_CLASS_OK) {
		fail_attempt(s, ai, &end);
		return;
	}
	a->complete = true;
	a->status = (int16_t)end.status;
	finish_ok(s, ai, false);
}

/* When the attempt's present state has lasted too long. */
static uint64_t
attempt_limit_ns(const struct sbx_request *req, const struct sbx_attempt *a)
{
	if (a->state != SBX_ATT_STREAMING)
		return a->limit_ns;
	const struct sbx_policy *p = req->candidate[a->candidate].policy;
	return min_ns(add_ns(a->last_bytes_ns, p->idle_bytes_ns), add_ns(a->last_content_ns, p->idle_content_ns));
}

static void
on_attempt_limit(struct step *s, uint8_t ai)
{
	struct sbx_attempt *a = &s->req->attempt[ai];

	if (a->complete) { /* only usage or the end mark is missing */
		finish_ok(s, ai, true);
		return;
	}
	/* Silence before the request had left proves that nothing was carried out; after that it proves nothing. */
	const struct sbx_end end = {
		.transport = a->sent_ns == 0 ? SBX_TRANSPORT_CONNECT : SBX_TRANSPORT_BROKEN,
		.sent = a->sent_ns != 0,
		.got_bytes = a->last_bytes_ns != 0,
		.got_content = a->first_content_ns != 0,
		.committed = s->req->state == SBX_REQ_COMMITTED,
		.retry_after_ns = -1,
	};
	a->timed_out = true;
	emit(s, SBX_FX_ABORT, ai);
	fail_attempt(s, ai, &end);
}

static void
on_waited(struct step *s)
{
	struct sbx_request *req = s->req;

	for (uint8_t i = 0; i < req->n_candidates; i++) {
		req->candidate[i].waited = req->candidate[i].refused;
		req->candidate[i].keys_throttled = 0;
	}
	set_state(req, SBX_REQ_ROUTING);
	choose(s);
}

static void
on_timer(struct step *s)
{
	struct sbx_request *req = s->req;

	if (s->now_ns >= req->deadline_ns && req->state != SBX_REQ_NEW) {
		for (uint8_t i = 0; i < req->n_attempts; i++) {
			if (req->attempt[i].state == SBX_ATT_FINISHING) {
				finish_ok(s, i, true); /* it was whole in time */
				return;
			}
		}
		abort_running(s);
		finish_error(s, SBX_REQ_FAILED, SBX_CODE_TIMEOUT, NO_ATTEMPT, -1);
		return;
	}
	if (req->state == SBX_REQ_WAITING && s->now_ns >= req->wait_until_ns) {
		on_waited(s);
		return;
	}
	for (uint8_t i = 0; i < req->n_attempts; i++) {
		const struct sbx_attempt *a = &req->attempt[i];

		if (a->state != SBX_ATT_ENDED && s->now_ns >= attempt_limit_ns(req, a)) {
			on_attempt_limit(s, i);
			return; /* a second one, if any, is found by the next look at the clock */
		}
	}
}

static void
on_cancel(struct step *s, enum sbx_code code)
{
	abort_running(s);
	finish_error(s, SBX_REQ_CANCELLED, code == SBX_CODE_DRAINING || code == SBX_CODE_INTERNAL ? code : SBX_CODE_CANCELLED, NO_ATTEMPT, -1);
}

/* ---- public ---- */

void
sbx_request_init(struct sbx_request *req, bool stream, bool restart, uint64_t deadline_ns, uint64_t now_ns, uint64_t seed)
{
	memset(req, 0, sizeof(*req));
	req->magic = SBX_REQUEST_MAGIC;
	req->stream = stream;
	req->restart = restart;
	req->replay_uncertain = true;
	req->shown = NO_ATTEMPT;
	req->started_ns = now_ns;
	req->deadline_ns = deadline_ns;
	req->jitter = seed;
}

void
sbx_request_step(struct sbx_request *req, struct sbx_judge *judge, const struct sbx_req_event *ev, uint64_t now_ns,
                 struct sbx_effects *ret_effects)
{
	struct step s = { req, judge, now_ns, ret_effects };

	assert(req->magic == SBX_REQUEST_MAGIC);
	ret_effects->n = 0;
	if (state_is_final(req->state))
		return; /* a late timer, a second cancel, the end of an aborted transfer: harmless */
	switch (ev->kind) {
	case SBX_REQ_EV_START:
		assert(req->n_candidates > 0 && req->n_candidates <= SBX_ROUTE_TARGETS_MAX);
		set_state(req, SBX_REQ_ROUTING);
		choose(&s);
		return;
	case SBX_REQ_EV_TIMER:
		on_timer(&s);
		return;
	case SBX_REQ_EV_CANCEL:
		on_cancel(&s, ev->code);
		return;
	case SBX_REQ_EV_CONNECTED:
	case SBX_REQ_EV_SENT:
	case SBX_REQ_EV_BYTES:
	case SBX_REQ_EV_CONTENT:
	case SBX_REQ_EV_COMPLETE:
	case SBX_REQ_EV_ENDED:
		break;
	}
	if (ev->attempt >= req->n_attempts || req->attempt[ev->attempt].state == SBX_ATT_ENDED)
		return; /* an attempt that was given up may still have had something under way */

	struct sbx_attempt *a = &req->attempt[ev->attempt];
	switch (ev->kind) {
	case SBX_REQ_EV_CONNECTED: on_connected(&s, a); break;
	case SBX_REQ_EV_SENT:      on_sent(&s, a); break;
	case SBX_REQ_EV_BYTES:     sbx_request_on_bytes(req, ev->attempt, now_ns); break;
	case SBX_REQ_EV_CONTENT:   on_content(&s, ev->attempt); break;
	case SBX_REQ_EV_COMPLETE:  on_complete(&s, a); break;
	case SBX_REQ_EV_ENDED:     on_ended(&s, ev->attempt, ev->end); break;
	case SBX_REQ_EV_START:
	case SBX_REQ_EV_TIMER:
	case SBX_REQ_EV_CANCEL:    break;
	}
}

uint64_t
sbx_request_wake_ns(const struct sbx_request *req)
{
	uint64_t at_ns = req->deadline_ns;

	if (state_is_final(req->state))
		return UINT64_MAX;
	if (req->state == SBX_REQ_WAITING)
		return min_ns(at_ns, req->wait_until_ns);
	if (req->running > 0)
		for (uint8_t i = 0; i < req->n_attempts; i++)
			if (req->attempt[i].state != SBX_ATT_ENDED)
				at_ns = min_ns(at_ns, attempt_limit_ns(req, &req->attempt[i]));
	return at_ns;
}

bool
sbx_request_ended(const struct sbx_request *req)
{
	return state_is_final(req->state);
}
