/* SPDX-License-Identifier: Apache-2.0 */
/* health.c -- see health.h. */
#include "agent/core/health.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define S 1000000000ull

/* ---- limits, with their reasons ---- */

#define TRIP_FAILURES 3u        /* one may be chance, two a blip; at three every request has been failed over for a while */
#define TRIP_RATE_MIN 10u       /* a rate over fewer ends than this is noise */
#define RECENT_SLOT_NS (5 * S)  /* six slots: 30 s, the time in which half of the ends must have failed */
#define RECENT_SLOTS 6u

/* Without a free probe time alone decides when to ask again: 10 s, then every 12 s, finds a provider back within 16 s when a
 * request comes every 4 s, and costs at most 7 attempts in an outage of a minute. One that has lasted five minutes is no blip:
 * the pause doubles. */
#define OPEN_FIRST_NS (10 * S)
#define OPEN_NEXT_NS (12 * S)
#define OPEN_MAX_NS (120 * S)
#define OUTAGE_LONG_NS (300 * S)

#define AWAY_NS (60 * S)        /* a model that is not there appears by a deployment or a changed permission: minutes, not seconds */
#define KEY_OPEN_NS (300 * S)   /* a wrong key is mended by a person */
#define SPENT_OPEN_NS (3600 * S) /* an empty account too, and later */

/* A refusal that does not say until when (or says "0", which is what brought the refusal): 1 s is the shortest window in which
 * providers count, 30 s finds the start of the next minute's window soon enough; doubling between them. */
#define THROTTLE_FIRST_NS (1 * S)
#define THROTTLE_MAX_STEP 5u    /* 1 2 4 8 16 30 */
#define THROTTLE_LAST_NS (30 * S)
#define THROTTLE_LONGEST_NS (3600 * S) /* a Retry-After of days may be a slip: once an hour one request asks again */

#define BUDGET_SLOTS 10u        /* of a second each */
#define BUDGET_FLOOR 10u        /* 1 a second over the 10 s; all at once at most */
#define BUDGET_SHARE 5u         /* one retry for five requests: 20 % */

/* The limit of a reasoning model is only ever shortened by what was seen, so p99 has to be one: 100 answers. */
#define SHORTEN_MIN_SAMPLES 100u
#define LIMIT_FACTOR 3u

struct budget {
	uint64_t slot;              /* number of the second that is counted now */
	struct { uint32_t started, retried; } second[BUDGET_SLOTS];
};

/* Two histograms are 2.8 kB, a row 300 bytes: they lie apart, so that 4,352 rows do not touch the pages of 4,352 histograms. */
struct latencies {
	struct sbx_latency first_content, total;
};

struct sbx_health {
	uint32_t n_targets, n_credentials, n_providers;
	struct sbx_target_health *target;
	struct sbx_credential_health *credential;
	struct latencies *latency;
	struct budget *budget;
	uint32_t *dirty, n_dirty;   /* rows whose `dirty` is set */
};

_Static_assert(SBX_KEYS_MAX <= SBX_GATE_KEYS_MAX, "the gate looks at all keys of a provider");

static const char *const words[] = {
#define X(name, word) [SBX_BREAKER_##name] = word,
	SBX_BREAKER_STATES(X)
#undef X
};

const char *
sbx_breaker_word(enum sbx_breaker_state s)
{
	assert(s < SBX_BREAKER__COUNT);
	return words[s];
}

/* ---- rows ---- */

static struct sbx_target_health
fresh_target(uint64_t now_ns)
{
	return (struct sbx_target_health){ .state = SBX_BREAKER_CLOSED, .since_ns = now_ns, .last_good = true };
}

struct sbx_health *
sbx_health_new(const struct sbx_tables *tables, uint64_t now_ns)
{
	struct sbx_health *h = calloc(1, sizeof *h);
	if (!h)
		return NULL;
	h->n_targets = tables->n_targets + SBX_TARGETS_ADHOC_MAX;
	h->n_credentials = tables->n_credentials;
	h->n_providers = tables->n_providers;
	h->target = calloc(h->n_targets, sizeof *h->target);
	h->latency = calloc(h->n_targets, sizeof *h->latency);
	h->credential = calloc(h->n_credentials + 1u, sizeof *h->credential); /* + 1: never an allocation of nothing */
	h->budget = calloc(h->n_providers + 1u, sizeof *h->budget);
	h->dirty = calloc(h->n_targets, sizeof *h->dirty);
	if (!h->target || !h->latency || !h->credential || !h->budget || !h->dirty) {
		sbx_health_free(h);
		return NULL;
	}
	for (uint32_t i = 0; i < h->n_targets; i++)
		h->target[i] = fresh_target(now_ns);
	return h;
}

void
sbx_health_free(struct sbx_health *h)
{
	if (!h)
		return;
	free(h->target);
	free(h->latency);
	free(h->credential);
	free(h->budget);
	free(h->dirty);
	free(h);
}

static void
mark_dirty(struct sbx_health *h, uint32_t target)
{
	if (h->target[target].dirty)
		return;
	h->target[target].dirty = true;
	h->dirty[h->n_dirty++] = target;
}

bool
sbx_health_is_dirty(const struct sbx_health *h)
{
	return h->n_dirty > 0;
}

uint32_t
sbx_health_take_dirty(struct sbx_health *h, uint32_t *ret_target, uint32_t max)
{
	uint32_t n = 0;
	while (n < max && h->n_dirty > 0) {
		ret_target[n] = h->dirty[--h->n_dirty];
		h->target[ret_target[n++]].dirty = false;
	}
	return n;
}

static bool
has_samples(const struct sbx_latency *l)
{
	return l->n[0] || l->n[1];
}

void
sbx_health_carry_target(struct sbx_health *h, uint32_t to, const struct sbx_health *old, uint32_t from)
{
	assert(to < h->n_targets && from < old->n_targets);
	struct sbx_target_health *t = &h->target[to];
	const bool dirty = t->dirty;
	*t = old->target[from];
	t->dirty = dirty;
	t->in_flight = 0;
	if (t->state == SBX_BREAKER_HALF_OPEN) {
		t->state = SBX_BREAKER_OPEN;
		t->until_ns = t->since_ns;
		t->probing = false;
	}
	if (has_samples(&old->latency[from].first_content))
		h->latency[to].first_content = old->latency[from].first_content;
	if (has_samples(&old->latency[from].total))
		h->latency[to].total = old->latency[from].total;
	mark_dirty(h, to);
}

void
sbx_health_carry_credential(struct sbx_health *h, uint32_t to, const struct sbx_health *old, uint32_t from)
{
	assert(to < h->n_credentials && from < old->n_credentials);
	h->credential[to] = old->credential[from];
	h->credential[to].probing = false;
}

void
sbx_health_clear_target(struct sbx_health *h, uint32_t target, uint64_t now_ns)
{
	assert(target < h->n_targets && h->target[target].in_flight == 0);
	const bool dirty = h->target[target].dirty;
	h->target[target] = fresh_target(now_ns);
	h->target[target].dirty = dirty;
	mark_dirty(h, target);
	if (has_samples(&h->latency[target].first_content) || has_samples(&h->latency[target].total))
		h->latency[target] = (struct latencies){ 0 };
}

uint32_t
sbx_health_n_targets(const struct sbx_health *h)
{
	return h->n_targets;
}

const struct sbx_target_health *
sbx_health_target(const struct sbx_health *h, uint32_t target)
{
	assert(target < h->n_targets);
	return &h->target[target];
}

const struct sbx_credential_health *
sbx_health_credential(const struct sbx_health *h, uint32_t credential)
{
	assert(credential < h->n_credentials);
	return &h->credential[credential];
}

const struct sbx_latency *
sbx_health_first_content(const struct sbx_health *h, uint32_t target)
{
	assert(target < h->n_targets);
	return &h->latency[target].first_content;
}

const struct sbx_latency *
sbx_health_total(const struct sbx_health *h, uint32_t target)
{
	assert(target < h->n_targets);
	return &h->latency[target].total;
}

/* A credential's number within its provider. */
static uint32_t
key_number(const struct sbx_tables *t, uint16_t provider, uint32_t credential)
{
	if (credential == UINT32_MAX)
		return 0;
	uint32_t k = credential - t->provider[provider].first_credential;
	assert(k < t->provider[provider].n_credentials && k < SBX_KEYS_MAX);
	return k;
}

/* ---- the gate ---- */

static bool
is_due(const struct sbx_target_health *row, uint64_t now_ns)
{
	return (row->state == SBX_BREAKER_OPEN || row->state == SBX_BREAKER_AWAY) && now_ns >= row->until_ns;
}

uint64_t
sbx_health_shut_until_ns(const struct sbx_target_health *row)
{
	switch (row->state) {
	case SBX_BREAKER_CLOSED:
		return 0;
	case SBX_BREAKER_OPEN:
	case SBX_BREAKER_AWAY:
		return row->until_ns ? row->until_ns : 1; /* 0 would mean: up */
	case SBX_BREAKER_HALF_OPEN:
	case SBX_BREAKER__COUNT:
		break;
	}
	return UINT64_MAX;
}

uint64_t
sbx_health_credential_shut_until_ns(const struct sbx_credential_health *c)
{
	return c->probing ? UINT64_MAX : c->open_until_ns;
}

struct sbx_gate_answer
sbx_health_gate(const struct sbx_health *h, const struct sbx_tables *t, uint32_t target, uint16_t provider, uint32_t not_keys,
                uint64_t now_ns)
{
	assert(target < h->n_targets && provider < h->n_providers);
	const struct sbx_target_health *row = &h->target[target];
	const struct sbx_provider *p = &t->provider[provider];
	const bool keyless = p->n_credentials == 0 && p->auth == SBX_AUTH_NONE;
	struct sbx_gate_facts f;

	assert(p->n_credentials <= SBX_KEYS_MAX);
	f.shut_until_ns = sbx_health_shut_until_ns(row);
	f.n_keys = keyless ? 1 : p->n_credentials;
	for (uint32_t k = 0; k < f.n_keys; k++)
		f.key[k] = (struct sbx_gate_key){
			.shut_until_ns = keyless ? 0 : sbx_health_credential_shut_until_ns(&h->credential[p->first_credential + k]),
			.throttled_until_ns = row->throttle_until_ns[k],
		};
	const struct sbx_gate_verdict v = sbx_gate_ask(&f, not_keys, now_ns);
	return (struct sbx_gate_answer){ v.gate, keyless || v.key == UINT32_MAX ? UINT32_MAX : p->first_credential + v.key, v.until_ns };
}

/* ---- breaker ---- */

static void
forget_recent(struct sbx_target_health *row)
{
	memset(row->recent, 0, sizeof row->recent);
}

static void
count_recent(struct sbx_target_health *row, bool good, uint64_t now_ns)
{
	uint64_t slot = now_ns / RECENT_SLOT_NS;
	if (slot > row->recent_slot + RECENT_SLOTS)
		row->recent_slot = slot - RECENT_SLOTS; /* everything is older than 30 s */
	while (row->recent_slot < slot) {
		row->recent_slot++;
		row->recent[row->recent_slot % RECENT_SLOTS].good = 0;
		row->recent[row->recent_slot % RECENT_SLOTS].bad = 0;
	}
	uint16_t *n = good ? &row->recent[row->recent_slot % RECENT_SLOTS].good : &row->recent[row->recent_slot % RECENT_SLOTS].bad;
	if (*n < UINT16_MAX)
		++*n;
}

static bool
half_failed(const struct sbx_target_health *row)
{
	uint32_t good = 0, bad = 0;
	for (uint32_t i = 0; i < RECENT_SLOTS; i++) {
		good += row->recent[i].good;
		bad += row->recent[i].bad;
	}
	return good + bad >= TRIP_RATE_MIN && bad >= good;
}

void
sbx_health_recent(const struct sbx_health *h, uint32_t target, uint64_t now_ns, uint32_t *ret_good, uint32_t *ret_bad)
{
	assert(target < h->n_targets);
	const struct sbx_target_health *row = &h->target[target];
	const uint64_t slot = now_ns / RECENT_SLOT_NS;
	uint32_t good = 0, bad = 0;

	for (uint32_t age = 0; age < RECENT_SLOTS && age <= row->recent_slot; age++) {
		if (row->recent_slot - age + RECENT_SLOTS <= slot)
			break; /* it and all before it are older than 30 s */
		good += row->recent[(row->recent_slot - age) % RECENT_SLOTS].good;
		bad += row->recent[(row->recent_slot - age) % RECENT_SLOTS].bad;
	}
	*ret_good = good;
	*ret_bad = bad;
}

static void
enter(struct sbx_target_health *row, enum sbx_breaker_state state, enum sbx_class why, uint64_t now_ns, uint64_t until_ns)
{
	row->state = state;
	row->why = why;
	row->since_ns = now_ns;
	row->until_ns = until_ns;
	row->probing = state == SBX_BREAKER_HALF_OPEN;
}

static void
close_target(struct sbx_target_health *row, uint64_t now_ns)
{
	if (row->state != SBX_BREAKER_CLOSED) {
		enter(row, SBX_BREAKER_CLOSED, SBX_CLASS_NONE, now_ns, 0);
		forget_recent(row); /* or the first failure after the outage would find the outage's rate, and trip */
	}
	row->failures = row->trips = 0;
	row->tripped_ns = row->open_ns = 0;
}

static void
trip(struct sbx_target_health *row, enum sbx_class why, uint64_t now_ns)
{
	if (!row->tripped_ns)
		row->tripped_ns = now_ns ? now_ns : 1;
	if (row->trips == 0)
		row->open_ns = OPEN_FIRST_NS;
	else if (now_ns < row->tripped_ns + OUTAGE_LONG_NS)
		row->open_ns = OPEN_NEXT_NS;
	else
		row->open_ns = row->open_ns < OPEN_MAX_NS / 2 ? row->open_ns * 2 : OPEN_MAX_NS;
	row->trips++;
	enter(row, SBX_BREAKER_OPEN, why, now_ns, now_ns + row->open_ns);
}

/* A failure of an attempt that began in the row's present state, or later. */
static void
on_failure(struct sbx_target_health *row, enum sbx_class why, uint64_t now_ns)
{
	row->failures++;
	switch (row->state) {
	case SBX_BREAKER_CLOSED:
		count_recent(row, false, now_ns);
		if (row->failures >= TRIP_FAILURES || half_failed(row))
			trip(row, why, now_ns);
		break;
	case SBX_BREAKER_HALF_OPEN:
		trip(row, why, now_ns);
		break;
	case SBX_BREAKER_OPEN: /* a last resort that failed: the time of the regular trial stands */
	case SBX_BREAKER_AWAY:
	case SBX_BREAKER__COUNT:
		break;
	}
}

/* ---- throttle ---- */

static void
throttle(struct sbx_target_health *row, uint32_t number, int64_t retry_after_ns, uint64_t now_ns)
{
	uint64_t *until_ns = &row->throttle_until_ns[number], wait_ns;

	if (retry_after_ns > 0) {
		wait_ns = (uint64_t)retry_after_ns;
		if (wait_ns > THROTTLE_LONGEST_NS)
			wait_ns = THROTTLE_LONGEST_NS;
	} else {
		uint8_t *step = &row->throttle_step[number];
		if (now_ns < *until_ns)
			return; /* many requests were under way and are refused together: that is one refusal, not many in a row */
		wait_ns = *step < THROTTLE_MAX_STEP ? THROTTLE_FIRST_NS << *step : THROTTLE_LAST_NS;
		if (*step < THROTTLE_MAX_STEP)
			++*step;
	}
	if (now_ns + wait_ns > *until_ns)
		*until_ns = now_ns + wait_ns; /* of several deadlines the longest holds */
}

/* ---- credentials ---- */

static void
open_credential(struct sbx_credential_health *c, enum sbx_class why, uint64_t for_ns, uint64_t now_ns)
{
	c->probing = false;
	c->since_ns = now_ns;
	c->why = why;
	if (now_ns + for_ns > c->open_until_ns)
		c->open_until_ns = now_ns + for_ns;
}

static void
credential_on_end(struct sbx_credential_health *c, enum sbx_breaker_note note, enum sbx_class class, uint64_t started_ns, uint64_t now_ns)
{
	if (note == SBX_NOTE_BREAKER_KEY) {
		open_credential(c, class, KEY_OPEN_NS, now_ns);
	} else if (note == SBX_NOTE_BREAKER_SPENT) {
		open_credential(c, class, SPENT_OPEN_NS, now_ns);
	} else if (c->open_until_ns && started_ns >= c->since_ns) {
		/* Unlike a target, a key is not proven good by a stream that began before it was refused. */
		c->probing = false; /* whatever else happened says nothing about the key: it stays due */
		if (note == SBX_NOTE_BREAKER_GOOD)
			*c = (struct sbx_credential_health){ 0 };
	}
}

/* ---- retry budget ---- */

static void
budget_turn(struct budget *b, uint64_t now_ns)
{
	uint64_t slot = now_ns / S;
	if (slot > b->slot + BUDGET_SLOTS)
		b->slot = slot - BUDGET_SLOTS;
	while (b->slot < slot) {
		b->slot++;
		b->second[b->slot % BUDGET_SLOTS].started = 0;
		b->second[b->slot % BUDGET_SLOTS].retried = 0;
	}
}

bool
sbx_health_try_retry(struct sbx_health *h, uint16_t provider, uint64_t now_ns)
{
	assert(provider < h->n_providers);
	struct budget *b = &h->budget[provider];
	uint64_t started = 0, retried = 0;

	budget_turn(b, now_ns);
	for (uint32_t i = 0; i < BUDGET_SLOTS; i++) {
		started += b->second[i].started;
		retried += b->second[i].retried;
	}
	uint64_t requests = started > retried ? started - retried : 0; /* a retry is started too, and earns nothing */
	if (retried >= BUDGET_FLOOR + requests / BUDGET_SHARE)
		return false;
	b->second[b->slot % BUDGET_SLOTS].retried++;
	return true;
}

/* ---- attempts ---- */

void
sbx_health_on_start(struct sbx_health *h, const struct sbx_tables *t, uint32_t target, uint16_t provider, uint32_t credential, uint64_t now_ns)
{
	assert(target < h->n_targets && provider < h->n_providers);
	struct sbx_target_health *row = &h->target[target];

	(void)key_number(t, provider, credential); /* asserts that it is one of this provider's */
	mark_dirty(h, target);
	row->attempts++;
	row->in_flight++;
	if (is_due(row, now_ns))
		enter(row, SBX_BREAKER_HALF_OPEN, row->why, now_ns, row->until_ns);
	if (credential != UINT32_MAX) {
		struct sbx_credential_health *c = &h->credential[credential];
		if (c->open_until_ns && now_ns >= c->open_until_ns && !c->probing) {
			c->probing = true;
			c->since_ns = now_ns;
		}
	}
	budget_turn(&h->budget[provider], now_ns);
	h->budget[provider].second[h->budget[provider].slot % BUDGET_SLOTS].started++;
}

void
sbx_health_on_end(struct sbx_health *h, const struct sbx_tables *t, uint32_t target, uint16_t provider, uint32_t credential,
                  enum sbx_class class, int64_t retry_after_ns, uint64_t first_content_ns, uint64_t total_ns, uint64_t now_ns)
{
	assert(target < h->n_targets && provider < h->n_providers);
	struct sbx_target_health *row = &h->target[target];
	const uint32_t number = key_number(t, provider, credential);
	const uint64_t started_ns = now_ns > total_ns ? now_ns - total_ns : 0;
	const bool late = started_ns < row->since_ns; /* it began before the row came to its state */
	const enum sbx_breaker_note note = sbx_class_breaker(class);

	assert(row->in_flight > 0);
	mark_dirty(h, target);
	row->in_flight--;
	if (credential != UINT32_MAX)
		credential_on_end(&h->credential[credential], note, class, started_ns, now_ns);

	switch (note) {
	case SBX_NOTE_BREAKER_GOOD:
		row->successes++;
		row->last_good = true;
		row->throttle_step[number] = 0;
		close_target(row, now_ns);
		count_recent(row, true, now_ns);
		if (first_content_ns)
			sbx_latency_add(&h->latency[target].first_content, first_content_ns, now_ns);
		sbx_latency_add(&h->latency[target].total, total_ns, now_ns);
		return;
	case SBX_NOTE_BREAKER_FAIL:
		row->failures_total++;
		row->last_good = false;
		if (!late)
			on_failure(row, class, now_ns);
		return;
	case SBX_NOTE_BREAKER_AWAY:
		row->last_good = false;
		if (!late)
			enter(row, SBX_BREAKER_AWAY, class, now_ns, now_ns + AWAY_NS);
		return;
	case SBX_NOTE_BREAKER_THROTTLE:
		row->refusals++;
		row->last_good = false;
		throttle(row, number, retry_after_ns, now_ns);
		break;
	case SBX_NOTE_BREAKER_NONE:  /* our own doing, or the caller's: tells nothing about the target */
	case SBX_NOTE_BREAKER_KEY:
	case SBX_NOTE_BREAKER_SPENT:
		break;
	}
	/* A trial that ended without telling whether the target works: the next request may make it, at once. */
	if (row->state == SBX_BREAKER_HALF_OPEN && !late)
		enter(row, SBX_BREAKER_OPEN, row->why, now_ns, now_ns);
}

/* ---- what an earlier agent knew ---- */

static uint64_t
min_ns(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static enum sbx_class
class_of(uint64_t word)
{
	return word < SBX_CLASS__COUNT ? (enum sbx_class)word : SBX_CLASS_NONE;
}

static void
seed_breaker(struct sbx_target_health *row, const struct sbx_past_target *past, uint64_t now_ns)
{
	const enum sbx_class why = class_of(past->why);
	const enum sbx_breaker_note note = sbx_class_breaker(why);
	const enum sbx_breaker_state state = note == SBX_NOTE_BREAKER_AWAY ? SBX_BREAKER_AWAY : SBX_BREAKER_OPEN;
	const bool trial = past->state == SBX_BREAKER_HALF_OPEN;
	const uint64_t since_ns = min_ns(past->since_ns, now_ns), until_ns = trial ? now_ns : min_ns(past->shut_until_ns, now_ns + OPEN_MAX_NS);

	if ((note != SBX_NOTE_BREAKER_FAIL && note != SBX_NOTE_BREAKER_AWAY) || (!trial && past->state != (uint64_t)state) || until_ns + OPEN_MAX_NS < now_ns)
		return;
	enter(row, state, why, since_ns, min_ns(until_ns, now_ns + (state == SBX_BREAKER_AWAY ? AWAY_NS : OPEN_MAX_NS)));
	row->last_good = false;
	if (state == SBX_BREAKER_AWAY)
		return;
	row->failures = TRIP_FAILURES;
	row->trips = 1;
	row->tripped_ns = since_ns ? since_ns : 1; /* at least since then */
	/* How long it was opened for can be read off a target that is open; of one in its trial only that it was the first pause. */
	row->open_ns = trial || until_ns < since_ns + OPEN_FIRST_NS ? OPEN_FIRST_NS : min_ns(until_ns - since_ns, OPEN_MAX_NS);
}

void
sbx_health_seed_target(struct sbx_health *h, uint32_t target, const struct sbx_past_target *past, uint64_t then_ns, uint64_t now_ns)
{
	assert(target < h->n_targets);
	struct sbx_target_health *row = &h->target[target];
	struct latencies *l = &h->latency[target];

	seed_breaker(row, past, now_ns);
	for (uint32_t k = 0; k < SBX_KEYS_MAX; k++)
		if (past->throttle_until_ns[k] > now_ns)
			row->throttle_until_ns[k] = min_ns(past->throttle_until_ns[k], now_ns + THROTTLE_LONGEST_NS);
	sbx_latency_refill(&l->first_content, past->first_content.n, past->first_content.p50_ns, past->first_content.p95_ns, past->first_content.p99_ns, then_ns);
	sbx_latency_refill(&l->total, past->total.n, past->total.p50_ns, past->total.p95_ns, past->total.p99_ns, then_ns);
	mark_dirty(h, target);
}

void
sbx_health_seed_credential(struct sbx_health *h, uint32_t credential, const struct sbx_past_credential *past, uint64_t now_ns)
{
	assert(credential < h->n_credentials);
	const enum sbx_class why = class_of(past->why);
	const enum sbx_breaker_note note = sbx_class_breaker(why);
	const uint64_t longest_ns = note == SBX_NOTE_BREAKER_KEY ? KEY_OPEN_NS : SPENT_OPEN_NS;
	const uint64_t until_ns = past->shut_until_ns == UINT64_MAX ? now_ns : past->shut_until_ns;

	if ((note == SBX_NOTE_BREAKER_KEY || note == SBX_NOTE_BREAKER_SPENT) && until_ns && until_ns >= now_ns)
		h->credential[credential] = (struct sbx_credential_health){
			.open_until_ns = min_ns(until_ns, now_ns + longest_ns), .since_ns = min_ns(past->since_ns, now_ns), .why = why,
		};
}

/* ---- deadlines ---- */

static uint64_t
clamp(uint64_t v, uint64_t low, uint64_t high)
{
	return v < low ? low : v > high ? high : v;
}

uint64_t
sbx_health_first_content_limit_ns(const struct sbx_health *h, const struct sbx_policy *p, uint32_t target, bool reasoning, uint64_t now_ns)
{
	assert(target < h->n_targets);
	uint32_t n;
	uint64_t p99_ns = sbx_latency_quantile_ns(&h->latency[target].first_content, 990, now_ns, &n);

	if (!reasoning) /* only ever longer than the seed: one slow answer is enough to learn from */
		return clamp(LIMIT_FACTOR * p99_ns, p->first_content_ns, p->first_content_max_ns > p->first_content_ns ? p->first_content_max_ns : p->first_content_ns);
	if (n < SHORTEN_MIN_SAMPLES || p->reasoning_first_content_ns <= p->first_content_ns)
		return p->reasoning_first_content_ns;
	return clamp(LIMIT_FACTOR * p99_ns, p->first_content_ns, p->reasoning_first_content_ns);
}

uint64_t
sbx_health_whole_limit_ns(const struct sbx_health *h, const struct sbx_policy *p, uint32_t target, bool reasoning, uint64_t now_ns)
{
	assert(target < h->n_targets);
	uint64_t learned_ns = LIMIT_FACTOR * sbx_latency_quantile_ns(&h->latency[target].total, 990, now_ns, NULL);
	uint64_t floor_ns = reasoning ? p->reasoning_whole_ns : p->whole_ns;
	return learned_ns > floor_ns ? learned_ns : floor_ns;
}

const char *
sbx_health_validate(const struct sbx_health *h)
{
	for (uint32_t i = 0; i < h->n_targets; i++) {
		const struct sbx_target_health *row = &h->target[i];
		if (row->probing != (row->state == SBX_BREAKER_HALF_OPEN))
			return "a trial runs exactly while a target is half-open";
		if (row->state == SBX_BREAKER_HALF_OPEN && row->in_flight == 0)
			return "a half-open target has its trial in flight";
		if (row->state == SBX_BREAKER_CLOSED && (row->tripped_ns || row->trips))
			return "a closed target is in no outage";
		if (row->state == SBX_BREAKER_CLOSED && row->failures >= TRIP_FAILURES)
			return "so many failures in a row trip";
		if (row->state == SBX_BREAKER_OPEN && row->open_ns > OPEN_MAX_NS)
			return "no target is open for longer than the maximum";
		if (row->attempts < row->successes + row->failures_total + row->refusals + row->in_flight)
			return "every end had a start";
	}
	for (uint32_t i = 0; i < h->n_credentials; i++)
		if (h->credential[i].probing && !h->credential[i].open_until_ns)
			return "a usable credential needs no trial";
	return NULL;
}
