/* SPDX-License-Identifier: Apache-2.0 */
/* seed.c -- see seed.h. */
#include "agent/io/seed.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <signalbox/board.h>
#include <signalbox/errors.h>

#include "agent/log.h"
#include "client/board.h"

/* Two readings of wall clock minus boot time are further apart than this only if the host was booted in between, or its clock
 * was set by more than it drifts in an hour. */
#define SAME_BOOT_NS 10000000000ull

/* ---- time ---- */

struct clock {
	uint64_t now_ns;    /* ours */
	uint64_t there_ns;  /* the same moment in the board's time, also if that clock was lost with its boot */
};

static uint64_t
apart(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

/* False: the board is too old, or says that it comes from the future. */
static bool
read_clock(const struct sbx_board *b, const struct sbx_seed_clocks *now, struct clock *ret_clock, uint64_t *ret_age_ns)
{
	const uint64_t beat_ns = sbx_word_load(&sbx_board_header(b)->heartbeat_boot_ns), beat_unix_ns = sbx_word_load(&sbx_board_header(b)->heartbeat_unix_ns);
	const bool same_boot = beat_ns <= now->boot_ns && apart(beat_unix_ns - beat_ns, now->unix_ns - now->boot_ns) < SAME_BOOT_NS;
	const uint64_t age_ns = same_boot ? now->boot_ns - beat_ns : now->unix_ns - beat_unix_ns;
	if (age_ns > SBX_SEED_AGE_MAX_NS || beat_ns > UINT64_MAX / 2)
		return false; /* one from the future is too old by unsigned numbers */
	*ret_clock = (struct clock){ now->now_ns, beat_ns + age_ns };
	*ret_age_ns = age_ns;
	return true;
}

/* 0 and all ones have a meaning of their own. Before the start of our clock is 1; the far future is cut, whoever believes it. */
static uint64_t
to_own(const struct clock *c, uint64_t there_ns)
{
	if (there_ns == 0 || there_ns == UINT64_MAX)
		return there_ns;
	if (there_ns >= c->there_ns)
		return c->now_ns + (there_ns - c->there_ns < 2 * SBX_SEED_AGE_MAX_NS ? there_ns - c->there_ns : 2 * SBX_SEED_AGE_MAX_NS);
	return c->now_ns > c->there_ns - there_ns ? c->now_ns - (c->there_ns - there_ns) : 1;
}

/* ---- rows ---- */

/* Words 1 to n-1 of a row that may be written meanwhile. False: it is busy, or its writer died in the middle. */
static bool
copy_row(const uint64_t *row, uint64_t *words, size_t n)
{
	uint64_t seq;
	for (int tries = 0; tries < SBX_BOARD_TRIES; tries++, sbx_row_pause()) {
		if (!sbx_row_read_begin(row, &seq))
			continue;
		for (size_t i = 1; i < n; i++)
			words[i] = sbx_word_load(&row[i]);
		if (sbx_row_read_end(row, seq))
			return true;
	}
	return false;
}

static bool
same_provider(const struct sbx_board *b, uint32_t theirs, const struct sbx_provider *ours)
{
	const struct sbx_board_provider *p = sbx_board_provider_of(b, theirs);
	return p && strcmp(sbx_board_text_of(b, p->name), ours->name) == 0 && strcmp(sbx_board_text_of(b, p->base_url), ours->base_url) == 0;
}

static bool
same_credential(const struct sbx_board *b, uint32_t row, const struct sbx_tables *t, const struct sbx_credential *ours)
{
	const struct sbx_board_credential *c = sbx_board_row(b, &b->credential, row);
	return c->fingerprint == (uint32_t)strtoul(ours->fingerprint, NULL, 16) && strcmp(sbx_board_text_of(b, c->source), ours->source) == 0 &&
	       same_provider(b, c->provider, &t->provider[ours->provider]);
}

/* The board's number of our credential k of a provider, among the target's; SBX_BOARD_KEYS_MAX = it has no such one. */
static uint32_t
their_key(const struct sbx_board *b, const struct sbx_board_target *target, const struct sbx_tables *t, const struct sbx_provider *p, uint32_t k)
{
	uint32_t first, n = sbx_board_n_keys(b, target, &first);
	if (p->n_credentials == 0)
		return k == 0 && n == 0 ? 0 : SBX_BOARD_KEYS_MAX; /* without keys the throttle is under number 0 */
	for (uint32_t i = 0; k < p->n_credentials && i < n; i++)
		if (same_credential(b, first + i, t, &t->credential[p->first_credential + k]))
			return i;
	return SBX_BOARD_KEYS_MAX;
}

static bool
seed_target(struct sbx_world *w, uint32_t i, const struct sbx_board *b, uint32_t row, const struct clock *c, uint64_t age_ns)
{
	const struct sbx_tables *t = &w->config->tables;
	const struct sbx_provider *p = &t->provider[t->target[i].provider];
	const struct sbx_board_target *target = sbx_board_row(b, &b->target, row);
	struct sbx_board_hot hot;
	if (!copy_row(sbx_board_row(b, &b->hot, row), &hot.seq, sizeof hot / sizeof hot.seq))
		return false;
	struct sbx_past_target past = {
		.state = hot.state,
		.why = hot.why,
		.since_ns = to_own(c, hot.since_boot_ns),
		.shut_until_ns = to_own(c, hot.shut_until_boot_ns),
		.first_content = { hot.first_n, hot.first_p50_ns, hot.first_p95_ns, hot.first_p99_ns },
		.total = { hot.total_n, hot.total_p50_ns, hot.total_p95_ns, hot.total_p99_ns },
	};
	for (uint32_t k = 0; k < SBX_KEYS_MAX; k++) {
		const uint32_t theirs = their_key(b, target, t, p, k);
		past.throttle_until_ns[k] = theirs < SBX_BOARD_KEYS_MAX ? to_own(c, hot.throttle_boot_ns[theirs]) : 0;
	}
	sbx_health_seed_target(w->health, i, &past, c->now_ns > age_ns ? c->now_ns - age_ns : 0, c->now_ns);
	return true;
}

static bool
seed_credential(struct sbx_world *w, uint32_t i, const struct sbx_board *b, uint32_t row, const struct clock *c)
{
	enum { SEQ, SHUT_UNTIL, WHY, SINCE, WORDS };
	uint64_t word[WORDS];
	if (!copy_row(sbx_board_row(b, &b->credential, row), word, WORDS))
		return false;
	const struct sbx_past_credential past = { .why = word[WHY], .since_ns = to_own(c, word[SINCE]), .shut_until_ns = to_own(c, word[SHUT_UNTIL]) };
	sbx_health_seed_credential(w->health, i, &past, c->now_ns);
	return true;
}

uint32_t
sbx_seed(struct sbx_world *w, const struct sbx_board *from, const struct sbx_seed_clocks *now, const char **ret_why)
{
	const struct sbx_tables *t = &w->config->tables;
	struct clock c;
	uint64_t age_ns;
	uint32_t taken = 0;

	*ret_why = "no row of it is of a target of ours";
	if (!read_clock(from, now, &c, &age_ns)) {
		*ret_why = "it is of more than an hour ago, or of the future";
		return 0;
	}
	/* Rows mostly keep their place: the search begins where the last one was found. */
	for (uint32_t i = 0, row = 0; i < t->n_targets; i++)
		for (uint32_t tried = 0; tried < from->target.count; tried++, row++) {
			row %= from->target.count;
			const struct sbx_board_target *theirs = sbx_board_row(from, &from->target, row);
			if (strcmp(sbx_board_text_of(from, theirs->name), t->target[i].name) == 0 &&
			    same_provider(from, theirs->provider, &t->provider[t->target[i].provider])) {
				taken += seed_target(w, i, from, row++, &c, age_ns);
				break;
			}
		}
	for (uint32_t i = 0; i < t->n_credentials; i++)
		for (uint32_t row = 0; row < from->credential.count; row++)
			if (same_credential(from, row, t, &t->credential[i])) {
				taken += seed_credential(w, i, from, row, &c);
				break;
			}
	return taken;
}

static uint64_t
clock_ns(clockid_t id)
{
	struct timespec t;
	(void)clock_gettime(id, &t); /* cannot fail for these clocks */
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void
sbx_seed_world(struct sbx_world *w, const struct sbx_board *from, const char *source)
{
	const struct sbx_seed_clocks now = { clock_ns(CLOCK_MONOTONIC), sbx_boot_ns(), clock_ns(CLOCK_REALTIME) };
	const char *why;
	const uint32_t taken = sbx_seed(w, from, &now, &why);
	if (taken)
		sbx_log(SBX_LOG_INFO, "health_seeded", SBX_STR("from", source), SBX_UINT("rows", taken));
	else
		sbx_log(SBX_LOG_INFO, "health_not_seeded", SBX_STR("from", source), SBX_STR("why", why));
}

void
sbx_seed_from_file(struct sbx_world *w, const char *path)
{
	struct sbx_board *snapshot;
	char why[512];
	const int rc = sbx_board_load(path, &snapshot, why, sizeof why);
	if (rc == 0) {
		sbx_seed_world(w, snapshot, path);
		sbx_board_close(snapshot);
	} else if (rc != -SBX_ENOENT) {
		sbx_log(SBX_LOG_WARNING, "health_not_seeded", SBX_STR("from", path), SBX_STR("why", why));
	}
}
