/* SPDX-License-Identifier: Apache-2.0 */
/*
 * board_pick.c -- to look at rows of the board, and to choose by them: sbx_board_target(), sbx_board_pick(), sbx_bypass().
 *
 * A row's words are read into locals that mean nothing until the second look at its sequence. A choice reads the first cache
 * line of a hot row, the cold row of its target, and one word for each of its keys (once for targets of a provider that stand
 * together); the second line only where a key is throttled. Whether a target may be used and which comes first is decided in
 * rank.h, as in the agent.
 */
#include "client/board.h"

#include <string.h>

#include "client/rank.h"

_Static_assert((int)SBX_BOARD_KEYS_MAX == SBX_GATE_KEYS_MAX, "a row has a throttle for every key that the gate looks at");

/* The build zeroes every local, which for these arrays costs more than all the rest of a choice. What is read of them was written:
 * the keys below n_keys, the candidates below n. */
#define UNFILLED __attribute__((uninitialized))

struct prices {
	int64_t in, out;
};

/* Now by the wall clock, from the last heartbeat's two times: a tariff's hour needs no system call. The two words are stored one
 * after the other, so this may be a beat off for an instant. */
static uint64_t
unix_s(const struct sbx_board *b, uint64_t now_boot_ns)
{
	const struct sbx_board_header *h = sbx_board_header(b);
	return (now_boot_ns - sbx_word_load(&h->heartbeat_boot_ns) + sbx_word_load(&h->heartbeat_unix_ns)) / 1000000000u;
}

static int64_t
price_of(uint64_t word)
{
	return word > (uint64_t)INT64_MAX ? SBX_UNPRICED : (int64_t)word; /* a negative price is none */
}

/* What the gate and the cost need of a hot row. prices_at_s: the second by the wall clock, 0 = no prices. False: busy, or its writer
 * died in it. */
static inline bool
read_decision(const struct sbx_board *b, uint32_t target, uint32_t n_keys, uint64_t prices_at_s, uint64_t now_boot_ns, struct sbx_gate_facts *f,
              struct prices *ret_prices)
{
	const struct sbx_board_hot *row = sbx_board_row(b, &b->hot, target);

	for (int tries = 0; tries < SBX_BOARD_TRIES; tries++, sbx_row_pause()) {
		uint64_t seq, in = 0, out = 0;
		if (!sbx_row_read_begin(&row->seq, &seq))
			continue;
		f->shut_until_ns = sbx_word_load(&row->shut_until_boot_ns);
		const bool throttled = now_boot_ns < sbx_word_load(&row->throttled_boot_ns);
		for (uint32_t k = 0; k < n_keys; k++)
			f->key[k].throttled_until_ns = throttled ? sbx_word_load(&row->throttle_boot_ns[k]) : 0;
		if (prices_at_s) {
			const uint64_t change_s = sbx_word_load(&row->price_change_unix_s);
			const bool changed = change_s && prices_at_s >= change_s;
			in = sbx_word_load(changed ? &row->price_in_after : &row->price_in);
			out = sbx_word_load(changed ? &row->price_out_after : &row->price_out);
		}
		if (!sbx_row_read_end(&row->seq, seq))
			continue;
		if (prices_at_s)
			*ret_prices = (struct prices){ price_of(in), price_of(out) };
		return true;
	}
	return false;
}

/* The keys of a target. own_keys: the caller brings his own, so that the agent's being refused or absent does not matter, but a
 * throttle does. */
static inline void
read_keys(const struct sbx_board *b, const struct sbx_board_target *t, bool own_keys, struct sbx_gate_facts *f)
{
	uint32_t first;
	const uint32_t n = sbx_board_n_keys(b, t, &first);
	const bool keyless = n == 0 && (t->keyless || own_keys);

	f->n_keys = keyless ? 1 : n;
	for (uint32_t k = 0; k < n; k++) {
		const struct sbx_board_credential *c = sbx_board_row(b, &b->credential, first + k);
		f->key[k].shut_until_ns = own_keys ? 0 : sbx_word_load(&c->shut_until_boot_ns); /* one word: no seqlock needed */
	}
	if (keyless)
		f->key[0].shut_until_ns = 0;
}

static enum sbx_standing
standing_of(enum sbx_gate gate)
{
	switch (gate) {
	case SBX_GATE_YES: return SBX_STANDING_UP;
	case SBX_GATE_PROBE: return SBX_STANDING_TRIAL;
	case SBX_GATE_THROTTLED: return SBX_STANDING_THROTTLED;
	case SBX_GATE_BROKEN: return SBX_STANDING_DOWN;
	case SBX_GATE_NO_KEY: return SBX_STANDING_NO_KEY;
	}
	return SBX_STANDING_UNKNOWN;
}

/* Words are kept in place, not by pointers: those would be relocations, which cost more than the text. */
const char *
sbx_standing_word(enum sbx_standing standing)
{
	static const char words[][10] = { "up", "trial", "throttled", "down", "no key", "unknown" };
	_Static_assert(sizeof words / sizeof words[0] == SBX_STANDING_UNKNOWN + 1, "a word for each");
	return (size_t)standing < sizeof words / sizeof words[0] ? words[standing] : "";
}

/* ---- looking ---- */

static const char *
state_word(uint64_t state)
{
	static const char words[][16] = {
#define X(name, number, word) [number] = word,
		SBX_BOARD_TARGET_STATES(X)
#undef X
	};
	return state < sizeof words / sizeof words[0] ? words[state] : "";
}

static const char *
why_word(uint64_t why)
{
	static const char words[][24] = {
#define X(name, number, word) [number] = word,
		SBX_BOARD_WHYS(X)
#undef X
	};
	return why < sizeof words / sizeof words[0] ? words[why] : "";
}

/* The first words of a row, as of one moment; its sequence is the first of them. bytes: a multiple of 8. */
static __attribute__((cold)) bool
read_row(const void *row, void *ret_row, size_t bytes)
{
	const uint64_t *from = row;
	uint64_t *to = ret_row;

	for (int tries = 0; tries < SBX_BOARD_TRIES; tries++, sbx_row_pause()) {
		if (!sbx_row_read_begin(from, &to[0]))
			continue;
		for (size_t i = 1; i < bytes / sizeof *to; i++)
			to[i] = sbx_word_load(&from[i]);
		if (sbx_row_read_end(from, to[0]))
			return true;
	}
	return false;
}

/* When the first of its keys is free again; 0 = one is now. */
static uint64_t
throttled_until(const struct sbx_board_hot *row, uint32_t n_keys, uint64_t now_boot_ns)
{
	uint64_t soonest = UINT64_MAX;
	for (uint32_t k = 0; k < n_keys; k++)
		if (row->throttle_boot_ns[k] < soonest)
			soonest = row->throttle_boot_ns[k];
	return soonest != UINT64_MAX && soonest > now_boot_ns ? soonest : 0;
}

int
sbx_board_target(const struct sbx_board *b, uint32_t i, uint64_t now_boot_ns, struct sbx_target_view *ret_view)
{
	struct sbx_gate_facts f;
	struct sbx_board_hot row;

	if (i >= b->target.count)
		return -SBX_ENOENT;
	const struct sbx_board_target *t = sbx_board_row(b, &b->target, i);
	const struct sbx_board_provider *p = sbx_board_provider_of(b, t->provider);
	*ret_view = (struct sbx_target_view){
		.name = sbx_board_text_of(b, t->name),
		.provider = p ? sbx_board_text_of(b, p->name) : "",
		.model = sbx_board_text_of(b, t->model),
		.dialect = p ? sbx_board_text_of(b, p->dialect) : "",
		.caps = t->caps,
		.caps_known = t->caps_known,
		.context_tokens = t->context_tokens,
		.output_tokens = t->output_tokens,
		.price_tokens = t->price_tokens,
		.price_request = price_of(t->price_request),
		.standing = SBX_STANDING_UNKNOWN,
		.state = "",
		.why = "",
		.price_in = SBX_UNPRICED,
		.price_out = SBX_UNPRICED,
		.price_in_after = SBX_UNPRICED,
		.price_out_after = SBX_UNPRICED,
	};
	if (!read_row(sbx_board_row(b, &b->hot, i), &row, sizeof row))
		return -SBX_EBUSY;
	read_keys(b, t, false, &f);
	f.shut_until_ns = row.shut_until_boot_ns;
	for (uint32_t k = 0; k < f.n_keys; k++)
		f.key[k].throttled_until_ns = row.throttle_boot_ns[k];
	const struct sbx_gate_verdict verdict = sbx_gate_ask(&f, 0, now_boot_ns);
	ret_view->standing = standing_of(verdict.gate);
	ret_view->until_boot_ns = verdict.until_ns;
	ret_view->state = state_word(row.state);
	ret_view->why = why_word(row.why);
	ret_view->since_boot_ns = row.since_boot_ns;
	ret_view->throttled_until_boot_ns = throttled_until(&row, f.n_keys, now_boot_ns);
	ret_view->in_flight = row.in_flight;
	ret_view->attempts = row.attempts;
	ret_view->recent_good = row.recent_good;
	ret_view->recent_bad = row.recent_bad;
	ret_view->first_content = (struct sbx_times){ row.first_p50_ns, row.first_p95_ns, row.first_p99_ns, row.first_n };
	ret_view->total = (struct sbx_times){ row.total_p50_ns, row.total_p95_ns, row.total_p99_ns, row.total_n };
	const uint64_t change_s = row.price_change_unix_s;
	const bool to_come = change_s > unix_s(b, now_boot_ns);
	ret_view->price_in = price_of(change_s && !to_come ? row.price_in_after : row.price_in);
	ret_view->price_out = price_of(change_s && !to_come ? row.price_out_after : row.price_out);
	if (to_come) {
		ret_view->price_change_unix_s = row.price_change_unix_s;
		ret_view->price_in_after = price_of(row.price_in_after);
		ret_view->price_out_after = price_of(row.price_out_after);
	}
	return 0;
}

__attribute__((cold)) int
sbx_board_credential(const struct sbx_board *b, uint32_t i, struct sbx_credential_view *ret_view)
{
	if (i >= b->credential.count)
		return -SBX_ENOENT;
	const struct sbx_board_credential *row = sbx_board_row(b, &b->credential, i);
	const struct sbx_board_provider *p = sbx_board_provider_of(b, row->provider);
	struct sbx_board_credential r;
	if (!read_row(row, &r, offsetof(struct sbx_board_credential, provider)))
		return -SBX_EBUSY;
	*ret_view = (struct sbx_credential_view){
		.provider = p ? sbx_board_text_of(b, p->name) : "",
		.source = sbx_board_text_of(b, row->source),
		.why = why_word(r.why),
		.shut_until_boot_ns = r.shut_until_boot_ns,
		.since_boot_ns = r.since_boot_ns,
	};
	return 0;
}

/* ---- choosing ---- */

/* As the agent's sbx_price_cost(): summed in 128 bits, divided once, rounded up once. */
static int64_t
cost_of(const struct sbx_need *need, const struct sbx_board_target *t, const struct prices *p)
{
	if (p->in == SBX_UNPRICED || p->out == SBX_UNPRICED || (t->price_tokens && need->input_tokens > t->price_tokens))
		return SBX_UNPRICED;
	uint64_t in, out, both, all; /* all but absurd sums fit; a 128-bit division takes longer than all the rest of a choice */
	if (!__builtin_mul_overflow(need->input_tokens, (uint64_t)p->in, &in) && !__builtin_mul_overflow(need->output_tokens, (uint64_t)p->out, &out) &&
	    !__builtin_add_overflow(in, out, &both) && !__builtin_add_overflow(both, t->price_request, &all))
		return (int64_t)(all / 1000000u + (all % 1000000u != 0));
	const unsigned __int128 sum = (unsigned __int128)need->input_tokens * (uint64_t)p->in + (unsigned __int128)need->output_tokens * (uint64_t)p->out + t->price_request;
	const unsigned __int128 cost = sum / 1000000u + (sum % 1000000u != 0);
	return cost > INT64_MAX ? INT64_MAX : (int64_t)cost;
}

/* Does the model do what is needed, as far as is known? */
static bool
can_serve(const struct sbx_need *need, const struct sbx_board_target *t)
{
	if (need->caps & t->caps_known & ~t->caps)
		return false;
	if (t->output_tokens && need->output_tokens > t->output_tokens)
		return false;
	return !t->context_tokens || (need->input_tokens <= t->context_tokens && need->output_tokens <= t->context_tokens - need->input_tokens);
}

/* How long the agent waits for one that is throttled before it tries one that is down. */
static uint64_t
patience_of(const struct sbx_board *b, uint32_t provider)
{
	const struct sbx_board_provider *p = sbx_board_provider_of(b, provider);
	return p ? p->wait_short_ns : 0;
}

/* The options that the caller knows; those of a later version of this library have their defaults. */
static int
read_need(const struct sbx_need *from, struct sbx_need *ret_need)
{
	struct sbx_need need = SBX_NEED_INIT;
	if (!from || from->size < offsetof(struct sbx_need, caps) || from->size > sizeof need)
		return -SBX_EINVAL;
	memcpy(&need, from, from->size);
	*ret_need = need;
	return 0;
}

static int
pick(const struct sbx_board *b, const struct sbx_need *options, bool own_keys, uint64_t now_boot_ns, struct sbx_candidate *best, uint32_t max)
{
	struct sbx_need need;
	uint32_t n = 0, n_positions = b->target.count;
	const struct sbx_board_route *route = NULL;

	if (max > SBX_PICK_MAX || read_need(options, &need))
		return -SBX_EINVAL;
	if (need.route != SBX_ROUTE_ALL) {
		if (need.route >= b->route.count)
			return -SBX_ENOENT;
		route = sbx_board_row(b, &b->route, need.route);
		n_positions = route->n_targets <= SBX_BOARD_ROUTE_TARGETS_MAX ? route->n_targets : 0;
	}
	const bool priced = need.max_cost_nanousd >= 0 || need.input_tokens || need.output_tokens;
	const uint64_t prices_at_s = priced ? unix_s(b, now_boot_ns) : 0;
	struct sbx_gate_facts f UNFILLED;
	uint64_t provider = UINT64_MAX; /* whose keys are in f: targets of one mostly stand together */
	uint64_t patience_ns = 0;
	f.n_keys = 0;
	bool settled = max == 0;
	for (uint32_t i = 0; i < n_positions && !settled; i++) {
		const uint32_t target = route ? route->target[i] : i;
		struct prices prices = { SBX_UNPRICED, SBX_UNPRICED };
		if (target >= b->target.count)
			continue;
		const struct sbx_board_target *t = sbx_board_row(b, &b->target, target);
		if (!can_serve(&need, t))
			continue;
		if (t->provider != provider) {
			provider = t->provider;
			patience_ns = patience_of(b, t->provider);
			read_keys(b, t, own_keys, &f);
		}
		struct sbx_candidate c = { .target = target, .position = i, .patience_ns = patience_ns, .cost_nanousd = SBX_UNPRICED };
		if (read_decision(b, target, f.n_keys, prices_at_s, now_boot_ns, &f, &prices)) {
			const struct sbx_gate_verdict v = sbx_gate_ask(&f, 0, now_boot_ns);
			c.gate = v.gate;
			c.key = v.key;
			c.until_ns = v.until_ns;
		} else { /* nobody knows: among what is down, and of these the first */
			c.gate = SBX_GATE_BROKEN;
			c.key = UINT32_MAX;
		}
		if (c.gate == SBX_GATE_NO_KEY)
			continue;
		if (priced)
			c.cost_nanousd = cost_of(&need, t, &prices);
		if (need.max_cost_nanousd >= 0 && (c.cost_nanousd == SBX_UNPRICED || c.cost_nanousd > need.max_cost_nanousd))
			continue;
		n = sbx_rank_insert(SBX_RANK_PRIORITY, now_boot_ns, &c, best, n, max);
		settled = c.gate <= SBX_GATE_PROBE && sbx_rank_settled(SBX_RANK_PRIORITY, best, n, max); /* only one that is usable can settle it */
	}
	return (int)n;
}

/* A BROKEN candidate without a key is one whose row could not be read. */
static enum sbx_standing
candidate_standing(const struct sbx_candidate *c)
{
	return c->gate == SBX_GATE_BROKEN && c->key == UINT32_MAX ? SBX_STANDING_UNKNOWN : standing_of(c->gate);
}

int
sbx_board_pick(const struct sbx_board *b, const struct sbx_need *need, uint64_t now_boot_ns, struct sbx_pick *ret_pick, uint32_t n)
{
	struct sbx_candidate best[SBX_PICK_MAX] UNFILLED;
	const int found = pick(b, need, false, now_boot_ns, best, n);
	for (int i = 0; i < found; i++)
		ret_pick[i] = (struct sbx_pick){ best[i].target, candidate_standing(&best[i]), best[i].until_ns, best[i].cost_nanousd };
	return found;
}

static const char *
auth_word(uint32_t auth)
{
	static const char words[][16] = {
#define X(name, number, word) [number] = word,
		SBX_BOARD_AUTHS(X)
#undef X
	};
	return auth < sizeof words / sizeof words[0] ? words[auth] : "";
}

static __attribute__((cold)) struct sbx_direct
direct_of(const struct sbx_board *b, uint32_t provider, const char *target, const char *model, enum sbx_standing standing)
{
	const struct sbx_board_provider *p = sbx_board_provider_of(b, provider);
	struct sbx_direct d = { .target = target, .model = model, .dialect = "", .url = "", .auth = "", .key_name = "", .standing = standing };
	if (!p)
		return d;
	d.dialect = sbx_board_text_of(b, p->dialect);
	d.url = sbx_board_text_of(b, p->chat_url);
	d.auth = auth_word(p->auth);
	const uint32_t first = p->first_credential;
	if (p->n_credentials && first < b->credential.count) {
		const struct sbx_board_credential *c = sbx_board_row(b, &b->credential, first);
		d.key_name = sbx_board_text_of(b, c->source);
	}
	return d;
}

__attribute__((cold)) int
sbx_bypass(const struct sbx_board *b, const struct sbx_need *need, uint64_t now_boot_ns, struct sbx_direct *ret_direct, uint32_t n)
{
	struct sbx_candidate best[SBX_PICK_MAX] UNFILLED;
	const int found = pick(b, need, true, now_boot_ns, best, n);
	for (int i = 0; i < found; i++) {
		const struct sbx_board_target *t = sbx_board_row(b, &b->target, best[i].target);
		ret_direct[i] = direct_of(b, t->provider, sbx_board_text_of(b, t->name), sbx_board_text_of(b, t->model), candidate_standing(&best[i]));
	}
	return found;
}

__attribute__((cold)) int
sbx_bypass_target(const struct sbx_board *b, const char *name, uint64_t now_boot_ns, struct sbx_direct *ret_direct)
{
	struct sbx_gate_facts f;
	uint32_t i;

	if (sbx_board_find_target(b, name, &i) == 0) {
		const struct sbx_board_target *t = sbx_board_row(b, &b->target, i);
		read_keys(b, t, true, &f);
		const bool read = read_decision(b, i, f.n_keys, 0, now_boot_ns, &f, NULL);
		*ret_direct = direct_of(b, t->provider, name, sbx_board_text_of(b, t->model),
		                         read ? standing_of(sbx_gate_ask(&f, 0, now_boot_ns).gate) : SBX_STANDING_UNKNOWN);
		return 0;
	}
	const char *slash = strchr(name, '/'); /* the first: names of models may have others */
	for (i = 0; slash && i < b->provider.count; i++) {
		const char *text = sbx_board_text_of(b, sbx_board_provider_of(b, i)->name);
		if (strncmp(text, name, (size_t)(slash - name)) == 0 && text[slash - name] == 0) {
			*ret_direct = direct_of(b, i, name, slash + 1, SBX_STANDING_UP);
			return 0;
		}
	}
	return -SBX_ENOENT;
}
