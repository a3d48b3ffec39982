/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_board_prices.c -- prices, limits and capabilities on the board, through the real publisher, on a wall clock of the test's own;
 * and that whoever picks from the board gets the agent's own order: random tables, tariffs, healths and times.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "agent/core/tariff.h"
#include "agent/io/publish.h"
#include "client/rank.h"
#include "tests/unit/board_rig.h"

#define S 1000000000ull
#define MS 1000000ull

/* ---- the clocks ---- */

#define ASLEEP_NS (500 * S)           /* the host was suspended for so long: BOOTTIME is ahead of MONOTONIC */
static int64_t wall_ns;               /* what they show; they stand still */
static uint64_t mono_ns = 100000 * S;

/* In place of the C library's. */
int
clock_gettime(clockid_t id, struct timespec *t)
{
	const uint64_t ns = id == CLOCK_REALTIME ? (uint64_t)wall_ns : id == CLOCK_BOOTTIME ? mono_ns + ASLEEP_NS : mono_ns;
	t->tv_sec = (time_t)(ns / S);
	t->tv_nsec = (long)(ns % S);
	return 0;
}

/* ---- a published world ---- */

struct world_rig {
	struct sbx_config config;
	struct sbx_world world;
	struct sbx_publisher *publisher;
	struct sbx_board *board;
};

static void
world_rig_up(struct world_rig *r, const struct sbx_tables *tables, int64_t unix_s)
{
	const struct sbx_publish_opts opts = { .generation = 99 };
	wall_ns = unix_s * (int64_t)S;
	*r = (struct world_rig){ .config = { .tables = *tables } };
	r->world.config = &r->config;
	r->world.health = sbx_health_new(&r->config.tables, mono_ns);
	assert_non_null(r->world.health);
	assert_int_equal(sbx_publisher_new(&opts, &r->publisher), 0);
	assert_int_equal(sbx_publish_world(r->publisher, &r->world, mono_ns), 0);
	assert_int_equal(sbx_board_attach(sbx_publisher_fd(r->publisher), &r->board, NULL, 0), 0);
}

static void
world_rig_down(struct world_rig *r)
{
	sbx_board_close(r->board);
	sbx_publisher_free(r->publisher);
	sbx_health_free(r->world.health);
}

static void
beat(struct world_rig *r, int64_t unix_s)
{
	wall_ns = unix_s * (int64_t)S;
	mono_ns += S;
	sbx_publish_turn(r->publisher, &r->world, mono_ns);
}

/* What stands in the row itself, whatever a reader makes of it. */
static void
row_has(const struct world_rig *r, int64_t change, int64_t in, int64_t out, int64_t in_after, int64_t out_after)
{
	const struct sbx_board_hot *row = sbx_board_row(r->board, &r->board->hot, 2);
	assert_int_equal(row->price_change_unix_s, change);
	assert_int_equal((int64_t)row->price_in, in);
	assert_int_equal((int64_t)row->price_out, out);
	assert_int_equal((int64_t)row->price_in_after, in_after);
	assert_int_equal((int64_t)row->price_out_after, out_after);
}

#define NONE SBX_BOARD_UNPRICED
#define NOON 1800014400 /* 2027-01-15 12:00 UTC, a Friday */
#define HOUR 3600

/* 2 and 8 a million, from 13:00 to 15:00 4 and 16; from 18:00 on 1 and 1, with one hour of a gap before it. */
static struct sbx_price_tier day_tier[] = {
	{ -1, { [SBX_PRICE_INPUT] = 2000, [SBX_PRICE_OUTPUT] = 8000 } },
	{ -1, { [SBX_PRICE_INPUT] = 4000, [SBX_PRICE_OUTPUT] = 16000 } },
	{ -1, { [SBX_PRICE_INPUT] = 1000, [SBX_PRICE_OUTPUT] = 1000 } },
};
static struct sbx_price_window day_window[] = { { .from_min = 13 * 60, .to_min = 15 * 60, .weekdays = 0x7f, .n_tiers = 1, .first_tier = 1 } };
static struct sbx_price_row day_row[] = {
	{ .from_unix_s = NOON - 1000000, .until_unix_s = NOON + 5 * HOUR, .first_tier = 0, .n_tiers = 1, .n_windows = 1 },
	{ .from_unix_s = NOON + 6 * HOUR, .until_unix_s = SBX_PRICE_FOREVER, .first_tier = 2, .n_tiers = 1 },
};
static struct sbx_model day_model = { .name = (char[]){ "two/c" }, .n_rows = 2 };
static const struct sbx_facts day_facts = { .model = &day_model, .row = day_row, .window = day_window, .tier = day_tier, .n_models = 1, .n_rows = 2, .n_windows = 1, .n_tiers = 3 };

static struct sbx_tables
day_tables(void)
{
	struct sbx_tables t = rig_tables();
	static struct sbx_target target[RIG_TARGETS];
	memcpy(target, rig_target, sizeof target);
	target[2].known = &day_model;
	target[2].context_tokens = 0;
	t.target = target;
	t.facts = &day_facts;
	return t;
}

static void
prices_change_on_the_board_by_themselves(void **state)
{
	const struct sbx_tables t = day_tables();
	struct world_rig r;
	(void)state;
	world_rig_up(&r, &t, NOON);
	row_has(&r, NOON + HOUR, 2000, 8000, 4000, 16000); /* when it is handed out */
	beat(&r, NOON + HOUR - 1);
	row_has(&r, NOON + HOUR, 2000, 8000, 4000, 16000);
	beat(&r, NOON + HOUR);
	row_has(&r, NOON + 3 * HOUR, 4000, 16000, 2000, 8000);
	beat(&r, NOON + 3 * HOUR + 1);
	row_has(&r, NOON + 5 * HOUR, 2000, 8000, NONE, NONE);
	beat(&r, NOON + 5 * HOUR);
	row_has(&r, NOON + 6 * HOUR, NONE, NONE, 1000, 1000);
	beat(&r, NOON + 6 * HOUR);
	row_has(&r, 0, 1000, 1000, NONE, NONE);
	beat(&r, NOON + 2 * HOUR); /* somebody sets the clock */
	row_has(&r, NOON + 3 * HOUR, 4000, 16000, 2000, 8000);
	beat(&r, NOON + 7 * HOUR);
	row_has(&r, 0, 1000, 1000, NONE, NONE);
	world_rig_down(&r);
}

/* A reader needs no beat: it knows the wall clock from the last one, and what comes next. */
static void
readers_do_not_wait_for_the_agent(void **state)
{
	const struct sbx_tables t = day_tables();
	struct sbx_need need = SBX_NEED_INIT;
	struct sbx_board_info info;
	struct sbx_target_view v;
	struct sbx_pick pick[8];
	struct world_rig r;
	(void)state;
	world_rig_up(&r, &t, NOON + HOUR - 10);
	sbx_board_describe(r.board, &info);
	need.input_tokens = 1000000;
	need.max_cost_nanousd = 2000;
	for (uint64_t s = 0; s < 20; s++) {
		const uint64_t now = info.heartbeat_boot_ns + s * S + S / 2;
		assert_int_equal(sbx_board_target(r.board, 2, now, &v), 0);
		assert_int_equal(v.price_in, s < 10 ? 2000 : 4000);
		assert_int_equal(v.price_out, s < 10 ? 8000 : 16000);
		assert_int_equal(v.price_change_unix_s, s < 10 ? NOON + HOUR : 0);
		assert_int_equal(v.price_in_after, s < 10 ? 4000 : SBX_UNPRICED);
		assert_int_equal(sbx_board_pick(r.board, &need, now, pick, 8), s < 10 ? 1 : 0);
	}
	world_rig_down(&r);
}

/* The catalog is read when something changes, not whenever a row is written. */
static void
the_tariff_is_remembered(void **state)
{
	const struct sbx_tables t = day_tables();
	const int64_t was = day_tier[0].nanousd[SBX_PRICE_INPUT];
	struct world_rig r;
	(void)state;
	world_rig_up(&r, &t, NOON);
	day_tier[0].nanousd[SBX_PRICE_INPUT] = 77; /* nobody does this: it shows who looks */
	for (int i = 0; i < 30; i++) {
		sbx_health_on_start(r.world.health, &r.config.tables, 2, 1, 2, mono_ns);
		sbx_health_on_end(r.world.health, &r.config.tables, 2, 1, 2, SBX_CLASS_OK, -1, 1, 2, mono_ns + 1);
		beat(&r, NOON + i);
	}
	assert_int_equal(((const struct sbx_board_hot *)sbx_board_row(r.board, &r.board->hot, 2))->attempts, 30);
	row_has(&r, NOON + HOUR, 2000, 8000, 4000, 16000);
	beat(&r, NOON + HOUR);
	row_has(&r, NOON + 3 * HOUR, 4000, 16000, 77, 8000);
	day_tier[0].nanousd[SBX_PRICE_INPUT] = was;
	world_rig_down(&r);
}

/* ---- the agent's order and the board's ---- */

static uint64_t seed;
static char provider_name[] = "p", model_name[] = "m", target_name[] = "p/m", route_name[] = "r", base_url[] = "http://h", key_source[] = "env:K";

static uint32_t
dice(uint32_t sides)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % sides;
}

#define TARGETS 24u
#define PROVIDERS 6u
struct tables_rig {
	struct sbx_tables tables;
	struct sbx_facts facts;
	struct sbx_provider provider[PROVIDERS];
	struct sbx_credential credential[PROVIDERS * 3];
	struct sbx_target target[TARGETS];
	struct sbx_route route[2];
	struct sbx_model model[TARGETS];
	struct sbx_price_row row[TARGETS * 2];
	struct sbx_price_window window[TARGETS];
	struct sbx_price_tier tier[TARGETS * 8];
};

/* Tiers of one row or window: the second, where there is one, begins at 1,000 tokens or more. */
static uint32_t
random_tiers(struct tables_rig *r, int64_t fee, bool two)
{
	const uint32_t first = r->facts.n_tiers;
	for (uint32_t i = 0; i < 1u + two; i++) {
		struct sbx_price_tier *t = &r->tier[r->facts.n_tiers++];
		for (int k = 0; k < SBX_PRICE__COUNT; k++)
			t->nanousd[k] = SBX_PRICE_NONE;
		t->above_tokens = i ? 1000 + (int64_t)dice(1000) : -1;
		t->nanousd[SBX_PRICE_INPUT] = dice(20) ? dice(1000) * (int64_t)dice(1000000) : SBX_PRICE_NONE;
		t->nanousd[SBX_PRICE_OUTPUT] = dice(20) ? dice(1000) * (int64_t)dice(1000000) : SBX_PRICE_NONE;
		t->nanousd[SBX_PRICE_REQUEST] = fee;
	}
	return first;
}

/* A fee does not change with the hour here, since the board has the highest. */
static void
random_model(struct tables_rig *r, struct sbx_model *m, int64_t unix_s)
{
	const int64_t fee = dice(4) ? SBX_PRICE_NONE : dice(5) * (int64_t)1000000000;
	*m = (struct sbx_model){ .name = target_name, .caps = dice(64), .says_caps = dice(3), .max_output_tokens = dice(2) ? 500 + dice(500) : 0, .first_row = r->facts.n_rows, .n_rows = dice(3) };
	int64_t from = unix_s - dice(5000);
	for (uint32_t i = 0; i < m->n_rows; i++) {
		const bool tiers = dice(3) == 0;
		struct sbx_price_row *row = &r->row[r->facts.n_rows++];
		*row = (struct sbx_price_row){ .from_unix_s = from, .until_unix_s = dice(2) ? SBX_PRICE_FOREVER : from + 1 + dice(9000), .n_tiers = 1 + tiers, .first_tier = random_tiers(r, fee, tiers) };
		if (i == 0 && m->n_rows == 2 && row->until_unix_s == SBX_PRICE_FOREVER)
			row->until_unix_s = from + 1 + dice(9000);
		if (dice(2) && r->facts.n_windows < TARGETS) {
			const uint16_t at = (uint16_t)dice(24 * 60), to = (uint16_t)((at + 1 + dice(600)) % (24 * 60));
			r->window[r->facts.n_windows] = (struct sbx_price_window){ .from_min = at, .to_min = to, .weekdays = (uint8_t)(1 + dice(127)), .n_tiers = 1, .first_tier = random_tiers(r, fee, false) };
			row->first_window = r->facts.n_windows++;
			row->n_windows = 1;
		}
		from = row->until_unix_s == SBX_PRICE_FOREVER ? from : row->until_unix_s + (dice(2) ? dice(3000) : 0);
	}
}

static void
random_tables(struct tables_rig *r, int64_t unix_s)
{
	memset(r, 0, sizeof *r);
	r->tables = (struct sbx_tables){ .provider = r->provider, .credential = r->credential, .target = r->target, .route = r->route, .facts = &r->facts,
		                         .n_providers = 1 + dice(PROVIDERS), .n_targets = 1 + dice(TARGETS), .n_routes = 2 };
	r->facts = (struct sbx_facts){ .model = r->model, .row = r->row, .window = r->window, .tier = r->tier };
	for (uint32_t i = 0; i < r->tables.n_providers; i++) {
		r->provider[i] = (struct sbx_provider){ .name = provider_name, .base_url = base_url, .dialect = sbx_dialect_find("openai-chat"), .policy = sbx_policy_default(),
			                                .auth = dice(4) ? SBX_AUTH_BEARER : SBX_AUTH_NONE, .first_credential = r->tables.n_credentials };
		r->provider[i].policy.wait_short_ns = dice(4) * 3 * S;
		r->provider[i].n_credentials = r->provider[i].auth == SBX_AUTH_NONE ? 0 : dice(4);
		for (uint32_t k = 0; k < r->provider[i].n_credentials; k++)
			r->credential[r->tables.n_credentials++] = (struct sbx_credential){ .provider = (uint16_t)i, .source = key_source };
	}
	for (uint32_t i = 0; i < r->tables.n_targets; i++) {
		struct sbx_target *t = &r->target[i];
		*t = (struct sbx_target){ .name = target_name, .model = model_name, .provider = (uint16_t)dice(r->tables.n_providers), .reasoning = dice(2), .context_tokens = dice(2) ? 1500 + dice(1000) : 0 };
		if (dice(5)) {
			random_model(r, &r->model[i], unix_s);
			t->known = &r->model[i];
		}
	}
	for (uint32_t k = 0; k < 2; k++) {
		r->route[k].name = route_name;
		for (uint32_t i = dice(r->tables.n_targets); i < r->tables.n_targets && r->route[k].n_targets < SBX_ROUTE_TARGETS_MAX; i += 1 + dice(2))
			r->route[k].target[r->route[k].n_targets++] = i;
		for (uint32_t i = r->route[k].n_targets; i > 1; i--) { /* a route has an order of its own */
			const uint32_t other = dice(i), was = r->route[k].target[i - 1];
			r->route[k].target[i - 1] = r->route[k].target[other];
			r->route[k].target[other] = was;
		}
	}
}

static uint32_t
usable_caps(uint32_t caps, bool reasoning)
{
	return (caps & SBX_MODEL_REASONING || reasoning ? SBX_CAP_REASONING : 0) | (caps & SBX_MODEL_TOOLS ? SBX_CAP_TOOLS : 0) | (caps & SBX_MODEL_VISION ? SBX_CAP_VISION : 0) |
	       (caps & SBX_MODEL_JSON_SCHEMA ? SBX_CAP_JSON_SCHEMA : 0);
}

/* What the agent's own tables say of a need: may it go there, and what does it cost exactly? A price beyond the lowest tier is not on
 * the board, nor was it when the board was made. */
static bool
serves(const struct sbx_tables *t, const struct sbx_target *to, const struct sbx_need *need, int64_t built_unix_s, int64_t unix_s, int64_t *ret_cost)
{
	struct sbx_price p;
	struct sbx_amounts a = { .prompt_tokens = need->input_tokens };
	uint64_t limit, fee;
	const bool priced = need->max_cost_nanousd >= 0 || need->input_tokens || need->output_tokens;

	*ret_cost = SBX_UNPRICED;
	if (to->known && to->known->says_caps && need->caps & ~SBX_CAP_PREFILL & ~usable_caps(to->known->caps, to->reasoning))
		return false;
	if (to->known && to->known->max_output_tokens && need->output_tokens > (uint64_t)to->known->max_output_tokens)
		return false;
	if (to->context_tokens && need->input_tokens + need->output_tokens > (uint64_t)to->context_tokens)
		return false;
	sbx_tariff_bounds(t->facts, to->known, built_unix_s, &limit, &fee);
	if (priced && (!limit || need->input_tokens <= limit) && sbx_price_at(t->facts, to->known, unix_s, &p) && sbx_price_of(&p, SBX_PRICE_INPUT, 0) >= 0 && sbx_price_of(&p, SBX_PRICE_OUTPUT, 0) >= 0) {
		a.n[SBX_PRICE_INPUT] = need->input_tokens;
		a.n[SBX_PRICE_OUTPUT] = need->output_tokens;
		a.n[SBX_PRICE_REQUEST] = 1;
		assert_int_equal(sbx_price_cost(&p, &a, ret_cost), SBX_COST_KNOWN);
	}
	return need->max_cost_nanousd < 0 || (*ret_cost != SBX_UNPRICED && *ret_cost <= need->max_cost_nanousd);
}

/* As request.c ranks: its gate, its policies, all candidates, nobody left out for being settled. */
static uint32_t
agent_order(const struct world_rig *r, const struct sbx_need *need, uint64_t ask_ns, int64_t built_unix_s, int64_t unix_s, struct sbx_candidate *ranked)
{
	const struct sbx_tables *t = &r->config.tables;
	const struct sbx_route *route = need->route == SBX_ROUTE_ALL ? NULL : &t->route[need->route];
	uint32_t n = 0;
	for (uint32_t i = 0; i < (route ? route->n_targets : t->n_targets); i++) {
		const uint32_t target = route ? route->target[i] : i;
		struct sbx_candidate c = { .target = target, .position = i, .patience_ns = t->provider[t->target[target].provider].policy.wait_short_ns };
		if (!serves(t, &t->target[target], need, built_unix_s, unix_s, &c.cost_nanousd))
			continue;
		const struct sbx_gate_answer g = sbx_health_gate(r->world.health, t, target, t->target[target].provider, 0, ask_ns);
		c.gate = g.gate;
		c.until_ns = g.until_ns;
		if (g.gate != SBX_GATE_NO_KEY) /* the agent says of these why they were passed over; nobody can ask them */
			n = sbx_rank_insert(SBX_RANK_PRIORITY, ask_ns, &c, ranked, n, SBX_PICK_MAX);
	}
	return n;
}

/* Whom the agent asks first, by the real state machine; UINT32_MAX = it waits or gives up. */
static uint32_t
agent_asks(const struct world_rig *r, uint32_t route, uint64_t now_ns)
{
	const struct sbx_tables *t = &r->config.tables;
	struct sbx_judge judge = { t, r->world.health };
	struct sbx_effects fx;
	struct sbx_request req;
	sbx_request_init(&req, true, false, now_ns + 600 * S, now_ns, 1);
	for (uint32_t i = 0; i < t->route[route].n_targets; i++) {
		const uint32_t target = t->route[route].target[i];
		req.candidate[req.n_candidates++] = (struct sbx_candidate_row){ .target = target, .provider = t->target[target].provider, .policy = &t->provider[t->target[target].provider].policy };
	}
	if (req.n_candidates == 0)
		return UINT32_MAX;
	sbx_request_step(&req, &judge, &(struct sbx_req_event){ .kind = SBX_REQ_EV_START }, now_ns, &fx);
	const uint32_t asked = fx.n && fx.fx[0].kind == SBX_FX_START ? req.attempt[0].target : UINT32_MAX;
	sbx_request_step(&req, &judge, &(struct sbx_req_event){ .kind = SBX_REQ_EV_CANCEL, .code = SBX_CODE_CANCELLED }, now_ns, &fx);
	return asked;
}

/* Some history for every target: it ends in ups, downs, throttles, refused keys and trials under way. */
static void
random_history(struct world_rig *r)
{
	static const enum sbx_class classes[] = { SBX_CLASS_OK, SBX_CLASS_OK, SBX_CLASS_OK, SBX_CLASS_OK, SBX_CLASS_FAILED, SBX_CLASS_FAILED, SBX_CLASS_REFUSED,
	                                          SBX_CLASS_REFUSED, SBX_CLASS_REFUSED, SBX_CLASS_REFUSED, SBX_CLASS_AUTH, SBX_CLASS_NOT_THERE };
	const struct sbx_tables *t = &r->config.tables;
	for (uint32_t i = 0; i < 30; i++) {
		const uint32_t target = dice(t->n_targets);
		const enum sbx_class class = classes[dice(sizeof classes / sizeof classes[0])];
		const struct sbx_gate_answer g = sbx_health_gate(r->world.health, t, target, t->target[target].provider, 0, mono_ns);
		mono_ns += dice(20) ? 20 * MS : dice(10) * S;
		if (g.gate != SBX_GATE_YES && g.gate != SBX_GATE_PROBE)
			continue;
		sbx_health_on_start(r->world.health, t, target, t->target[target].provider, g.credential, mono_ns);
		if (dice(20)) /* else it runs for good: a trial that nobody ends */
			sbx_health_on_end(r->world.health, t, target, t->target[target].provider, g.credential, class, dice(2) ? (int64_t)(dice(30) * S) : -1, 1, 2, mono_ns);
	}
}

/* The board knows one change of each price, and the agent is there to write the next. */
static bool
changes_twice(const struct sbx_tables *t, int64_t from_s, int64_t to_s)
{
	for (uint32_t i = 0; i < t->n_targets; i++) {
		const int64_t change = sbx_price_next_change(t->facts, t->target[i].known, from_s);
		if (change <= to_s && sbx_price_next_change(t->facts, t->target[i].known, change) <= to_s)
			return true;
	}
	return false;
}

static const enum sbx_standing standing[] = { [SBX_GATE_YES] = SBX_STANDING_UP, [SBX_GATE_PROBE] = SBX_STANDING_TRIAL, [SBX_GATE_THROTTLED] = SBX_STANDING_THROTTLED,
	                                      [SBX_GATE_BROKEN] = SBX_STANDING_DOWN, [SBX_GATE_NO_KEY] = SBX_STANDING_NO_KEY };

static void
the_agents_order_is_the_boards(void **state)
{
	static struct tables_rig tables; /* large */
	uint32_t compared[SBX_STANDING_UNKNOWN + 1] = { 0 }, first_compared = 0, priced = 0, left_out = 0;
	(void)state;
	for (uint32_t round = 0; round < 1500; round++) {
		seed = round * 7919u + 1;
		const int64_t built_unix_s = NOON + dice(7 * 86400);
		int64_t unix_s = built_unix_s;
		struct world_rig r;
		random_tables(&tables, unix_s);
		world_rig_up(&r, &tables.tables, unix_s);
		for (int look = 0; look < 20; look++) {
			random_history(&r);
			mono_ns += S;
			unix_s += dice(1000);
			wall_ns = unix_s * (int64_t)S;
			sbx_publish_turn(r.publisher, &r.world, mono_ns); /* a beat, with all that is dirty */
			struct sbx_need need = SBX_NEED_INIT;
			need.route = dice(3) == 2 ? SBX_ROUTE_ALL : dice(2);
			need.caps = dice(3) ? 0 : 1u << dice(5);
			need.input_tokens = dice(3) ? dice(2500) : 0;
			need.output_tokens = dice(3) ? dice(1200) : 0;
			need.max_cost_nanousd = dice(2) ? -1 : (int64_t)dice(2000000);
			const uint64_t later_s = dice(4) ? 0 : dice(2000), ask_ns = mono_ns + later_s * S;
			if (changes_twice(&tables.tables, unix_s, unix_s + (int64_t)later_s))
				continue;
			struct sbx_candidate want[SBX_PICK_MAX];
			struct sbx_pick got[SBX_PICK_MAX];
			const uint32_t n = agent_order(&r, &need, ask_ns, built_unix_s, unix_s + (int64_t)later_s, want);
			const int rc = sbx_board_pick(r.board, &need, ask_ns + ASLEEP_NS, got, SBX_PICK_MAX);
			if (rc != (int)n)
				fail_msg("round %u look %d: %d picked, not %u", round, look, rc, n);
			for (uint32_t i = 0; i < n; i++) {
				if (got[i].target != want[i].target || got[i].standing != standing[want[i].gate] || got[i].cost_nanousd != want[i].cost_nanousd)
					fail_msg("round %u look %d place %u: target %u, %s, cost %" PRId64 ", not target %u, gate %d, cost %" PRId64, round, look, i, got[i].target,
					         sbx_standing_word(got[i].standing), got[i].cost_nanousd, want[i].target, (int)want[i].gate, want[i].cost_nanousd);
				compared[got[i].standing]++;
				priced += got[i].cost_nanousd > 0;
			}
			left_out += (need.route == SBX_ROUTE_ALL ? tables.tables.n_targets : tables.route[need.route].n_targets) - n;
			for (uint32_t k = 0; k < 2; k++) { /* and the first of a plain need is the one that the agent asks */
				need = (struct sbx_need)SBX_NEED_INIT;
				need.route = k;
				if (sbx_board_pick(r.board, &need, ask_ns + ASLEEP_NS, got, 1) != 1 || got[0].standing > SBX_STANDING_TRIAL)
					continue;
				assert_int_equal(agent_asks(&r, k, ask_ns), got[0].target);
				first_compared++;
			}
		}
		world_rig_down(&r);
	}
	print_message("compared: %u up, %u on trial, %u throttled, %u down, %u of them with a cost; %u left out; %u first choices\n", compared[SBX_STANDING_UP], compared[SBX_STANDING_TRIAL],
	              compared[SBX_STANDING_THROTTLED], compared[SBX_STANDING_DOWN], priced, left_out, first_compared);
	assert_true(compared[SBX_STANDING_UP] > 1000 && compared[SBX_STANDING_TRIAL] > 1000 && compared[SBX_STANDING_THROTTLED] > 1000 && compared[SBX_STANDING_DOWN] > 1000);
	assert_true(priced > 5000 && left_out > 5000 && first_compared > 5000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prices_change_on_the_board_by_themselves),
		cmocka_unit_test(readers_do_not_wait_for_the_agent),
		cmocka_unit_test(the_tariff_is_remembered),
		cmocka_unit_test(the_agents_order_is_the_boards),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
