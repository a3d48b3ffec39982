/* SPDX-License-Identifier: Apache-2.0 */
/* warm.c -- see warm.h. Rows are few (a provider each) and looked at only when a round is due: no heap, no index. */
#include "agent/core/warm.h"

#include <assert.h>
#include <stdlib.h>

struct row {
	uint32_t connections;  /* of a round; 0 = never warmed */
	uint32_t running;      /* warm-ups of the present round that have not ended */
	uint32_t failures;     /* rounds in a row in which nothing went well */
	bool good;             /* something of the present round went well */
	bool owed;             /* the first round after the start has not gone well yet */
	uint64_t every_ns, after_use_ns;
	uint64_t owed_ns;      /* when that first round was due */
	uint64_t used_ns;      /* last use; 0 = none was seen */
	uint64_t due_ns;       /* next round; UINT64_MAX = none, or one is running */
};

struct sbx_warm {
	uint32_t n;
	uint64_t random;
	struct row row[];
};

/* A little early, never late: `every` is below what connections live for, and providers are not asked all at once. */
static uint64_t
jittered(struct sbx_warm *w, uint64_t ns)
{
	w->random = w->random * 6364136223846793005u + 1442695040888963407u;
	return ns - (w->random >> 16) % (ns / 4 + 1);
}

static bool
in_use(const struct row *r, uint64_t now_ns)
{
	return r->used_ns && now_ns - r->used_ns < r->after_use_ns;
}

/* No round is running: when is the next? */
static void
plan(struct sbx_warm *w, struct row *r, uint64_t now_ns)
{
	uint64_t rest_ns = r->every_ns;
	for (uint32_t i = 0; i < r->failures && rest_ns < SBX_WARM_REST_MAX_NS; i++)
		rest_ns *= 2;
	if (rest_ns > SBX_WARM_REST_MAX_NS)
		rest_ns = SBX_WARM_REST_MAX_NS;
	bool wanted = in_use(r, now_ns) || (r->owed && now_ns - r->owed_ns < r->after_use_ns);
	r->due_ns = wanted ? now_ns + jittered(w, rest_ns) : UINT64_MAX;
}

struct sbx_warm *
sbx_warm_new(uint32_t n_rows, uint64_t seed)
{
	struct sbx_warm *w = calloc(1, sizeof *w + n_rows * sizeof w->row[0]);
	if (!w)
		return NULL;
	w->n = n_rows;
	w->random = seed;
	for (uint32_t i = 0; i < n_rows; i++)
		w->row[i].due_ns = UINT64_MAX;
	return w;
}

void
sbx_warm_free(struct sbx_warm *w)
{
	free(w);
}

void
sbx_warm_set(struct sbx_warm *w, uint32_t row, uint32_t connections, uint64_t every_ns, uint64_t after_use_ns, uint64_t owed_ns)
{
	assert(row < w->n && connections <= SBX_WARM_AT_ONCE);
	w->row[row] = (struct row){
		.connections = connections, .every_ns = every_ns, .after_use_ns = after_use_ns,
		.owed = owed_ns != UINT64_MAX, .owed_ns = owed_ns, .due_ns = connections ? owed_ns : UINT64_MAX,
	};
}

void
sbx_warm_carry(struct sbx_warm *w, uint32_t to, const struct sbx_warm *old, uint32_t from, uint64_t now_ns)
{
	assert(to < w->n && from < old->n);
	struct row *r = &w->row[to];
	r->used_ns = old->row[from].used_ns;
	if (r->connections && r->due_ns == UINT64_MAX && in_use(r, now_ns))
		r->due_ns = now_ns + SBX_WARM_FIRST_NS;
}

bool
sbx_warm_on_use(struct sbx_warm *w, uint32_t row, uint64_t now_ns)
{
	assert(row < w->n);
	struct row *r = &w->row[row];
	r->used_ns = now_ns;
	if (!r->connections || !r->after_use_ns || r->running || r->due_ns != UINT64_MAX)
		return false;
	r->due_ns = now_ns + SBX_WARM_FIRST_NS;
	return true;
}

bool
sbx_warm_take(struct sbx_warm *w, uint32_t room, uint64_t now_ns, uint32_t *ret_row, uint32_t *ret_connections)
{
	struct row *first = NULL;
	for (struct row *r = w->row; r < w->row + w->n; r++)
		if (r->due_ns <= now_ns && r->connections <= room && (!first || r->due_ns < first->due_ns))
			first = r;
	if (!first)
		return false;
	first->due_ns = UINT64_MAX;
	first->running = first->connections;
	first->good = false;
	*ret_row = (uint32_t)(first - w->row);
	*ret_connections = first->connections;
	return true;
}

void
sbx_warm_pass(struct sbx_warm *w, uint32_t row, uint64_t now_ns)
{
	assert(row < w->n && w->row[row].running == w->row[row].connections);
	w->row[row].running = 0;
	plan(w, &w->row[row], now_ns);
}

enum sbx_warm_change
sbx_warm_on_end(struct sbx_warm *w, uint32_t row, bool good, uint64_t now_ns)
{
	assert(row < w->n && w->row[row].running);
	struct row *r = &w->row[row];
	r->good |= good;
	if (--r->running)
		return SBX_WARM_AS_BEFORE;
	bool was_good = !r->failures;
	r->failures = r->good ? 0 : r->failures + 1;
	r->owed &= !r->good;
	plan(w, r, now_ns);
	return r->good == was_good ? SBX_WARM_AS_BEFORE : r->good ? SBX_WARM_HEALED : SBX_WARM_BROKE;
}

uint64_t
sbx_warm_next_ns(const struct sbx_warm *w, uint32_t room)
{
	uint64_t next = UINT64_MAX;
	for (const struct row *r = w->row; r < w->row + w->n; r++)
		if (r->connections <= room && r->due_ns < next)
			next = r->due_ns;
	return next;
}
