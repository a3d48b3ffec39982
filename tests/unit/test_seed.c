/* SPDX-License-Identifier: Apache-2.0 */
/* test_seed.c -- what a start takes from the board of the agent before it: by whom, by which clock, and how far it is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/io/seed.h"
#include "tests/unit/board_rig.h"

#define MS 1000000ull
#define S 1000000000ull
#define NOW (500 * S)            /* of our own clock */
#define THERE (1000 * S)         /* the rig's last heartbeat: CLOCK_BOOTTIME, and */
#define THERE_UNIX 1800000000000000000ull

static struct {
	struct sbx_config config;
	struct sbx_world world;
	uint8_t *image;
	struct sbx_board board;
	struct sbx_seed_clocks clocks;
} s;

static struct sbx_board_hot *
hot(uint32_t row)
{
	return (void *)(s.image + s.board.hot.offset + row * s.board.hot.stride);
}

static struct sbx_board_credential *
key(uint32_t row)
{
	return (void *)(s.image + s.board.credential.offset + row * s.board.credential.stride);
}

static const struct sbx_target_health *
target(uint32_t row)
{
	return sbx_health_target(s.world.health, row);
}

/* A board of the rig, and a world of the same, 2 s later in the same boot. */
static int
setup(void **state)
{
	size_t bytes;
	(void)state;
	for (size_t i = 0; i < 3; i++)
		(void)snprintf(rig_credential[i].fingerprint, sizeof rig_credential[i].fingerprint, "%08x", 0xabc0u + (unsigned)i);
	s.config.tables = rig_tables();
	s.world.config = &s.config;
	s.world.health = sbx_health_new(&s.config.tables, NOW);
	s.image = rig_image(&bytes);
	s.clocks = (struct sbx_seed_clocks){ NOW, THERE + 2 * S, THERE_UNIX + 2 * S };
	return !s.world.health || sbx_board_check(s.image, bytes, &s.board, NULL, 0) ? -1 : 0;
}

static int
teardown(void **state)
{
	(void)state;
	sbx_health_free(s.world.health);
	free(s.image);
	return 0;
}

static uint32_t
seed(void)
{
	const char *why;
	const uint32_t n = sbx_seed(&s.world, &s.board, &s.clocks, &why);
	const char *broken = sbx_health_validate(s.world.health);
	if (broken)
		fail_msg("%s", broken);
	return n;
}

static struct sbx_gate_answer
gate(uint32_t row)
{
	return sbx_health_gate(s.world.health, &s.config.tables, row, s.config.tables.target[row].provider, 0, NOW);
}

/* ---- targets ---- */

static void
what_a_row_becomes(void **state)
{
	const uint64_t never = UINT64_MAX;
	const struct {
		const char *name;
		uint64_t state, why, since, shut;         /* as published; heartbeat at 1000 s, seeded at 1002 s */
		enum sbx_breaker_state want;
		uint64_t want_until, want_since;
		enum sbx_gate gate;
	} rows[] = {
		{ "up", SBX_BOARD_UP, 0, 900 * S, 0, SBX_BREAKER_CLOSED, 0, NOW, SBX_GATE_YES },
		{ "down for 8 s more", SBX_BOARD_DOWN, SBX_BOARD_WHY_FAILED, 998 * S, 1010 * S, SBX_BREAKER_OPEN, NOW + 8 * S, NOW - 4 * S, SBX_GATE_BROKEN },
		{ "its trial ran", SBX_BOARD_PROBING, SBX_BOARD_WHY_UNCERTAIN, 999 * S, never, SBX_BREAKER_OPEN, NOW, NOW - 3 * S, SBX_GATE_PROBE },
		{ "due since 52 s", SBX_BOARD_DOWN, SBX_BOARD_WHY_NOT_SENT, 940 * S, 950 * S, SBX_BREAKER_OPEN, NOW - 52 * S, NOW - 62 * S, SBX_GATE_PROBE },
		{ "due for too long", SBX_BOARD_DOWN, SBX_BOARD_WHY_NOT_SENT, 800 * S, 880 * S, SBX_BREAKER_CLOSED, 0, NOW, SBX_GATE_YES },
		{ "the model is not there", SBX_BOARD_MISCONFIGURED, SBX_BOARD_WHY_NOT_THERE, 990 * S, 1050 * S, SBX_BREAKER_AWAY, NOW + 48 * S, NOW - 12 * S, SBX_GATE_BROKEN },
		{ "that one's trial ran", SBX_BOARD_PROBING, SBX_BOARD_WHY_FORBIDDEN, 1000 * S, never, SBX_BREAKER_AWAY, NOW, NOW - 2 * S, SBX_GATE_PROBE },
		{ "a state that is none", 4, SBX_BOARD_WHY_FAILED, 998 * S, 1010 * S, SBX_BREAKER_CLOSED, 0, NOW, SBX_GATE_YES },
		{ "a reason that is none", SBX_BOARD_DOWN, 99, 998 * S, 1010 * S, SBX_BREAKER_CLOSED, 0, NOW, SBX_GATE_YES },
		{ "no number of a reason", SBX_BOARD_DOWN, (1ull << 32) + SBX_BOARD_WHY_FAILED, 998 * S, 1010 * S, SBX_BREAKER_CLOSED, 0, NOW, SBX_GATE_YES },
		{ "no reason", SBX_BOARD_DOWN, 0, 998 * S, 1010 * S, SBX_BREAKER_CLOSED, 0, NOW, SBX_GATE_YES },
		{ "down by an answer", SBX_BOARD_DOWN, SBX_BOARD_WHY_OK, 998 * S, 1010 * S, SBX_BREAKER_CLOSED, 0, NOW, SBX_GATE_YES },
		{ "down by a rate limit", SBX_BOARD_DOWN, SBX_BOARD_WHY_REFUSED, 998 * S, 1010 * S, SBX_BREAKER_CLOSED, 0, NOW, SBX_GATE_YES },
		{ "away by a failure", SBX_BOARD_MISCONFIGURED, SBX_BOARD_WHY_FAILED, 998 * S, 1010 * S, SBX_BREAKER_CLOSED, 0, NOW, SBX_GATE_YES },
		{ "down for a year", SBX_BOARD_DOWN, SBX_BOARD_WHY_FAILED, 998 * S, 31536000 * S, SBX_BREAKER_OPEN, NOW + 120 * S, NOW - 4 * S, SBX_GATE_BROKEN },
		{ "down for ever", SBX_BOARD_DOWN, SBX_BOARD_WHY_FAILED, never, never, SBX_BREAKER_OPEN, NOW + 120 * S, NOW, SBX_GATE_BROKEN },
		{ "away for a year, since next year", SBX_BOARD_MISCONFIGURED, SBX_BOARD_WHY_NOT_THERE, 31536000 * S, 31536000 * S, SBX_BREAKER_AWAY, NOW + 60 * S, NOW, SBX_GATE_BROKEN },
		{ "since before our clock began", SBX_BOARD_DOWN, SBX_BOARD_WHY_FAILED, 1, 1010 * S, SBX_BREAKER_OPEN, NOW + 8 * S, 1, SBX_GATE_BROKEN },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		(void)teardown(state);
		(void)setup(state);
		struct sbx_board_hot *h = hot(2);
		h->state = rows[i].state;
		h->why = rows[i].why;
		h->since_boot_ns = rows[i].since;
		h->shut_until_boot_ns = rows[i].shut;
		assert_int_equal(seed(), 8);
		const struct sbx_target_health *t = target(2);
		if (t->state != rows[i].want || t->until_ns != rows[i].want_until || t->since_ns != rows[i].want_since || gate(2).gate != rows[i].gate)
			fail_msg("%s: state %d until %lld since %lld gate %d", rows[i].name, t->state, (long long)(t->until_ns - NOW), (long long)(t->since_ns - NOW), gate(2).gate);
		assert_int_equal(t->why, t->state == SBX_BREAKER_CLOSED ? 0 : rows[i].why);
	}
}

/* The next failure continues the outage; the first success ends it. */
static void
an_outage_goes_on(void **state)
{
	(void)state;
	hot(3)->state = SBX_BOARD_DOWN;
	hot(3)->why = SBX_BOARD_WHY_FAILED;
	hot(3)->shut_until_boot_ns = 1001 * S;
	hot(3)->since_boot_ns = 977 * S;
	(void)seed();
	assert_int_equal(gate(3).gate, SBX_GATE_PROBE);
	sbx_health_on_start(s.world.health, &s.config.tables, 3, 2, UINT32_MAX, NOW);
	sbx_health_on_end(s.world.health, &s.config.tables, 3, 2, UINT32_MAX, SBX_CLASS_FAILED, -1, 0, 1, NOW + 1);
	assert_int_equal(target(3)->state, SBX_BREAKER_OPEN); /* one failure, not three */
	assert_true(target(3)->until_ns > NOW + 5 * S);
	sbx_health_on_start(s.world.health, &s.config.tables, 3, 2, UINT32_MAX, NOW + 200 * S);
	sbx_health_on_end(s.world.health, &s.config.tables, 3, 2, UINT32_MAX, SBX_CLASS_OK, -1, 1, 2, NOW + 200 * S + 2);
	assert_int_equal(target(3)->state, SBX_BREAKER_CLOSED);
	assert_null(sbx_health_validate(s.world.health));
}

static void
another_address_is_another_target(void **state)
{
	(void)state;
	char *was = rig_provider[1].base_url;
	hot(2)->state = SBX_BOARD_DOWN;
	hot(2)->why = SBX_BOARD_WHY_FAILED;
	hot(2)->shut_until_boot_ns = 1010 * S;
	rig_provider[1].base_url = (char[]){ "https://elsewhere.example/v1" };
	const uint32_t taken = seed();
	rig_provider[1].base_url = was;
	assert_int_equal(taken, 6); /* neither the target nor its key */
	assert_int_equal(gate(2).gate, SBX_GATE_YES);
}

static void
a_row_half_written_is_left_out(void **state)
{
	(void)state;
	hot(2)->state = SBX_BOARD_DOWN;
	hot(2)->why = SBX_BOARD_WHY_FAILED;
	hot(2)->shut_until_boot_ns = 1010 * S;
	hot(2)->seq = 7;
	key(0)->seq = 1;
	assert_int_equal(seed(), 6);
	assert_int_equal(gate(2).gate, SBX_GATE_YES);
}

/* ---- keys ---- */

static void
throttles_follow_their_key(void **state)
{
	(void)state;
	hot(0)->throttle_boot_ns[0] = 1030 * S;
	hot(0)->throttle_boot_ns[1] = 1001 * S;  /* over by now */
	hot(1)->throttle_boot_ns[1] = UINT64_MAX / 3;
	hot(3)->throttle_boot_ns[0] = 1005 * S;  /* wants no key */
	struct sbx_credential first = rig_credential[0];
	rig_credential[0] = rig_credential[1];   /* now in the other order */
	rig_credential[1] = first;
	(void)seed();
	rig_credential[1] = rig_credential[0];
	rig_credential[0] = first;
	assert_int_equal(target(0)->throttle_until_ns[0], 0);
	assert_int_equal(target(0)->throttle_until_ns[1], NOW + 28 * S);
	assert_int_equal(target(1)->throttle_until_ns[0], NOW + 3600 * S); /* no longer than a Retry-After is believed */
	assert_int_equal(target(1)->throttle_until_ns[1], 0);
	assert_int_equal(target(3)->throttle_until_ns[0], NOW + 3 * S);
}

static void
what_a_key_becomes(void **state)
{
	static const struct {
		const char *name;
		uint64_t why, shut, want; /* 0 = usable */
	} rows[] = {
		{ "usable", 0, 0, 0 },
		{ "refused", SBX_BOARD_WHY_AUTH, 1100 * S, NOW + 98 * S },
		{ "empty", SBX_BOARD_WHY_QUOTA, 4500 * S, NOW + 3498 * S },
		{ "its trial ran", SBX_BOARD_WHY_QUOTA, UINT64_MAX, NOW },
		{ "over", SBX_BOARD_WHY_AUTH, 1001 * S, 0 },
		{ "refused for a year", SBX_BOARD_WHY_AUTH, 31536000 * S, NOW + 300 * S },
		{ "empty for a year", SBX_BOARD_WHY_QUOTA, 31536000 * S, NOW + 3600 * S },
		{ "a reason that shuts no key", SBX_BOARD_WHY_FAILED, 1100 * S, 0 },
		{ "a reason that is none", 1000, 1100 * S, 0 },
		{ "no reason", 0, 1100 * S, 0 },
		{ "a reason, and not shut", SBX_BOARD_WHY_AUTH, 0, 0 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		(void)teardown(state);
		(void)setup(state);
		key(1)->why = rows[i].why;
		key(1)->shut_until_boot_ns = rows[i].shut;
		key(1)->since_boot_ns = 990 * S;
		assert_int_equal(seed(), 8);
		const struct sbx_credential_health *c = sbx_health_credential(s.world.health, 1);
		if (c->open_until_ns != rows[i].want || c->probing || (c->open_until_ns && c->why != (enum sbx_class)rows[i].why))
			fail_msg("%s: until %lld", rows[i].name, (long long)(c->open_until_ns - NOW));
		assert_int_equal(sbx_health_credential(s.world.health, 0)->open_until_ns, 0);
	}
}

static void
a_mended_key_starts_afresh(void **state)
{
	(void)state;
	key(2)->why = SBX_BOARD_WHY_QUOTA;
	key(2)->shut_until_boot_ns = 4000 * S;
	(void)snprintf(rig_credential[2].fingerprint, sizeof rig_credential[2].fingerprint, "%08x", 0x12345678u);
	assert_int_equal(seed(), 7);
	assert_int_equal(gate(2).gate, SBX_GATE_YES);
}

/* ---- quantiles ---- */

static void
quantiles_come_back_as_they_stood(void **state)
{
	static const uint64_t counts[] = { 1, 2, 3, 19, 20, 21, 99, 100, 101, 1000 };
	(void)state;
	for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
		struct sbx_latency was = { 0 }, is = { 0 };
		uint64_t x = 88172645463325252ull;
		for (uint64_t k = 0; k < counts[i]; k++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			sbx_latency_add(&was, x % (20 * S) + MS, NOW);
		}
		uint64_t p[3];
		for (uint32_t k = 0; k < 3; k++)
			p[k] = sbx_latency_quantile_ns(&was, (const uint32_t[]){ 500, 950, 990 }[k], NOW, NULL);
		sbx_latency_refill(&is, counts[i], p[0], p[1], p[2], NOW);
		for (uint32_t k = 0; k < 3; k++) {
			uint32_t n;
			assert_int_equal(sbx_latency_quantile_ns(&is, (const uint32_t[]){ 500, 950, 990 }[k], NOW, &n), p[k]);
			assert_int_equal(n, counts[i]);
		}
		assert_int_equal(sbx_latency_quantile_ns(&is, 500, NOW + 600 * S, NULL), 0); /* and fade */
	}
	static const uint64_t none[][4] = { { 0, 1, 2, 3 }, { 5, 0, 2, 3 }, { 5, 3, 2, 3 }, { 5, 1, 4, 3 } };
	for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
		struct sbx_latency l = { 0 };
		sbx_latency_refill(&l, none[i][0] * S, none[i][1] * S, none[i][2] * S, none[i][3] * S, NOW);
		assert_int_equal(l.n[0] + l.n[1], 0);
	}
}

static void
deadlines_are_those_of_before(void **state)
{
	(void)state;
	const struct sbx_policy p = sbx_policy_default();
	hot(0)->first_n = hot(0)->total_n = UINT64_MAX; /* cut */
	hot(0)->first_p50_ns = 2 * S;
	hot(0)->first_p95_ns = 4 * S;
	hot(0)->first_p99_ns = hot(0)->total_p50_ns = hot(0)->total_p95_ns = 6 * S;
	hot(0)->total_p99_ns = 100 * S;
	(void)seed();
	assert_in_range(sbx_health_first_content_limit_ns(s.world.health, &p, 0, false, NOW), 17 * S, 19 * S);
	assert_in_range(sbx_health_whole_limit_ns(s.world.health, &p, 0, false, NOW), 290 * S, 310 * S);
	uint32_t n;
	(void)sbx_latency_quantile_ns(sbx_health_total(s.world.health, 0), 500, NOW, &n);
	assert_int_equal(n, SBX_LATENCY_REFILL_MAX);
}

/* ---- clocks ---- */

static void
by_which_clock(void **state)
{
	static const struct {
		const char *name;
		uint64_t boot_ns, unix_ns;
		bool taken;
		int64_t until_ns; /* of a target that was shut for 60 s from the heartbeat on, relative to now; 0 = not any more */
	} rows[] = {
		{ "the same moment", THERE, THERE_UNIX, true, (int64_t)(60 * S) },
		{ "the same boot", THERE + 20 * S, THERE_UNIX + 20 * S, true, (int64_t)(40 * S) },
		{ "the clock was set a little", THERE + 20 * S, THERE_UNIX + 25 * S, true, (int64_t)(40 * S) },
		{ "another boot, since 5 s", 5 * S, THERE_UNIX + 50 * S, true, (int64_t)(10 * S) },
		{ "another boot, longer than the last", THERE + 500 * S, THERE_UNIX + 50 * S, true, (int64_t)(10 * S) },
		{ "an hour", THERE + 3600 * S, THERE_UNIX + 3600 * S, true, 0 },
		{ "more than an hour", THERE + 3601 * S, THERE_UNIX + 3601 * S, false, 0 },
		{ "another boot, more than an hour ago", 5 * S, THERE_UNIX + 3601 * S, false, 0 },
		{ "another boot, and from the future", 5 * S, THERE_UNIX - 1 * S, false, 0 },
		{ "a wall clock of 1970", 5 * S, 5 * S, false, 0 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		(void)teardown(state);
		(void)setup(state);
		hot(2)->state = SBX_BOARD_DOWN;
		hot(2)->why = SBX_BOARD_WHY_FAILED;
		hot(2)->since_boot_ns = THERE;
		hot(2)->shut_until_boot_ns = THERE + 60 * S;
		s.clocks = (struct sbx_seed_clocks){ NOW, rows[i].boot_ns, rows[i].unix_ns };
		const uint32_t taken = seed();
		if ((taken > 0) != rows[i].taken || (int64_t)(target(2)->until_ns ? target(2)->until_ns - NOW : 0) != rows[i].until_ns)
			fail_msg("%s: %u rows, until %lld", rows[i].name, taken, (long long)(target(2)->until_ns - NOW));
	}
}

/* ---- hostile ---- */

/* Whatever stands in the rows, nothing is shut for longer than an event could have shut it, and all invariants hold. */
static void
anything_may_stand_there(void **state)
{
	uint64_t x = 42;
	static const uint64_t odd[] = { 0, 1, 2, 3, 7, 8, 10, THERE, THERE + 5 * S, THERE - 5 * S, UINT64_MAX, UINT64_MAX - 1, UINT64_MAX / 2, 1ull << 63 };
	for (int round = 0; round < 3000; round++) {
		(void)teardown(state);
		(void)setup(state);
		for (uint32_t row = 0; row < RIG_TARGETS; row++)
			for (size_t k = 1; k < sizeof(struct sbx_board_hot) / 8; k++) {
				x = x * 6364136223846793005ull + 1442695040888963407ull;
				((uint64_t *)(void *)hot(row))[k] = x >> 62 ? odd[(x >> 32) % (sizeof odd / sizeof odd[0])] : x;
			}
		for (uint32_t row = 0; row < 3; row++)
			for (size_t k = 1; k < 4; k++) {
				x = x * 6364136223846793005ull + 1442695040888963407ull;
				((uint64_t *)(void *)key(row))[k] = x >> 63 ? odd[(x >> 32) % (sizeof odd / sizeof odd[0])] : x;
			}
		(void)seed();
		for (uint32_t row = 0; row < RIG_TARGETS; row++) {
			assert_true(target(row)->until_ns <= NOW + 120 * S && target(row)->since_ns <= NOW);
			for (uint32_t k = 0; k < SBX_KEYS_MAX; k++)
				assert_true(target(row)->throttle_until_ns[k] <= NOW + 3600 * S);
		}
		for (uint32_t row = 0; row < 3; row++)
			assert_true(sbx_health_credential(s.world.health, row)->open_until_ns <= NOW + 3600 * S);
	}
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(what_a_row_becomes), T(an_outage_goes_on), T(another_address_is_another_target), T(a_row_half_written_is_left_out),
		T(throttles_follow_their_key), T(what_a_key_becomes), T(a_mended_key_starts_afresh),
		T(quantiles_come_back_as_they_stood), T(deadlines_are_those_of_before), T(by_which_clock), T(anything_may_stand_there),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
