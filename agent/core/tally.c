/* SPDX-License-Identifier: Apache-2.0 */
/* tally.c -- see tally.h. */
#include "agent/core/tally.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/names.h"

#define NAMES_MAX 256                     /* of the kind of which there are most */
#define NAME_SLOTS (2 * NAMES_MAX)        /* half of them free: every search ends soon */
#define ROW_SLOTS (2 * SBX_TALLY_ROWS_MAX)
/* Rows are kept free for those without a tenant of their own, and the last ones for those without anything of their own. */
#define ROWS_OF_TENANTS (SBX_TALLY_ROWS_MAX - SBX_TALLY_ROWS_MAX / 4)
#define ROWS_OF_NAMES (SBX_TALLY_ROWS_MAX - ROWS_OF_NOBODY)
#define ROWS_OF_NOBODY ((SBX_OP__COUNT + 1) * (SBX_CLASS__COUNT + SBX_CODE__COUNT) + 1)
_Static_assert(ROWS_OF_TENANTS < ROWS_OF_NAMES, "there are rows without a tenant");
_Static_assert(SBX_TALLY_TARGETS_MAX <= NAMES_MAX && SBX_TALLY_ROUTES_MAX <= NAMES_MAX && SBX_TALLY_TENANTS_MAX <= NAMES_MAX, "names fit");
_Static_assert((ROW_SLOTS & (ROW_SLOTS - 1)) == 0 && (NAME_SLOTS & (NAME_SLOTS - 1)) == 0, "masks");

enum { NOBODY, OTHER, FIRST_NAME }; /* numbers of names */

struct names {
	char *name[NAMES_MAX];            /* of number FIRST_NAME + i */
	uint32_t n, max;
	uint64_t folded;
	struct { uint32_t hash; uint16_t number; } slot[NAME_SLOTS]; /* number 0 = free */
};

struct sbx_tally {
	struct names names[SBX_TALLY__LABELS];
	uint32_t n_rows;
	uint64_t crowded;
	uint16_t slot[ROW_SLOTS];         /* 1 + row; 0 = free */
	struct sbx_tally_row row[SBX_TALLY_ROWS_MAX]; /* last: pages that no row was written to are never touched */
};

struct sbx_tally *
sbx_tally_new(void)
{
	struct sbx_tally *t = calloc(1, sizeof *t);
	if (t) {
		t->names[SBX_TALLY_TARGET].max = SBX_TALLY_TARGETS_MAX;
		t->names[SBX_TALLY_ROUTE].max = SBX_TALLY_ROUTES_MAX;
		t->names[SBX_TALLY_TENANT].max = SBX_TALLY_TENANTS_MAX;
	}
	return t;
}

void
sbx_tally_free(struct sbx_tally *t)
{
	for (uint32_t k = 0; t && k < SBX_TALLY__LABELS; k++)
		for (uint32_t i = 0; i < t->names[k].n; i++)
			free(t->names[k].name[i]);
	free(t);
}

/* ---- names ---- */

/* Where that name is, or the free place where it belongs. */
static uint32_t
slot_of(const struct names *names, struct sbx_span name, uint32_t hash)
{
	uint32_t i = hash & (NAME_SLOTS - 1);
	while (names->slot[i].number &&
	       !(names->slot[i].hash == hash && sbx_span_is(name, names->name[names->slot[i].number - FIRST_NAME])))
		i = (i + 1) & (NAME_SLOTS - 1);
	return i;
}

/* max: a new name is remembered as long as there are fewer. */
static uint16_t
number_of(struct names *names, struct sbx_span name, uint32_t max)
{
	if (!name.n)
		return NOBODY;
	const uint32_t hash = sbx_names_hash(0, name), at = slot_of(names, name, hash);
	if (names->slot[at].number)
		return names->slot[at].number;
	char *copy = names->n < max && !sbx_span_is(name, SBX_TALLY_OTHER) ? malloc(name.n + 1) : NULL;
	if (!copy) {
		names->folded++;
		return OTHER;
	}
	memcpy(copy, name.at, name.n);
	copy[name.n] = '\0';
	names->name[names->n] = copy;
	names->slot[at].hash = hash;
	names->slot[at].number = (uint16_t)(FIRST_NAME + names->n++);
	return names->slot[at].number;
}

static uint16_t
label_of(struct sbx_tally *t, enum sbx_tally_label label, struct sbx_span name)
{
	return number_of(&t->names[label], name, t->names[label].max);
}

/* ---- rows ---- */

static bool
is_same(const struct sbx_tally_key *a, const struct sbx_tally_key *b)
{
	return a->what == b->what && a->op == b->op && a->outcome == b->outcome && a->target == b->target && a->route == b->route && a->tenant == b->tenant;
}

/* The row of that key; a new one as long as there are fewer than `max`. NULL = there is none. */
static struct sbx_tally_row *
find(struct sbx_tally *t, const struct sbx_tally_key *key, uint32_t max)
{
	const uint64_t mixed = ((uint64_t)key->target << 48 | (uint64_t)key->route << 32 | (uint64_t)key->tenant << 16 |
	                        (uint64_t)key->outcome << 8 | (uint64_t)key->op << 4 | key->what) * 0x9e3779b97f4a7c15ull;
	uint32_t i = (uint32_t)(mixed >> 40) & (ROW_SLOTS - 1);
	for (; t->slot[i]; i = (i + 1) & (ROW_SLOTS - 1))
		if (is_same(&t->row[t->slot[i] - 1u].key, key))
			return &t->row[t->slot[i] - 1u];
	if (t->n_rows >= max)
		return NULL;
	t->row[t->n_rows].key = *key;
	t->slot[i] = (uint16_t)++t->n_rows;
	return &t->row[t->n_rows - 1];
}

static struct sbx_tally_row *
row_of(struct sbx_tally *t, struct sbx_tally_key key)
{
	struct sbx_tally_row *row = find(t, &key, key.tenant > OTHER ? ROWS_OF_TENANTS : ROWS_OF_NAMES);
	if (row)
		return row;
	t->crowded++;
	key.tenant = OTHER;
	row = find(t, &key, ROWS_OF_NAMES);
	if (row)
		return row;
	key.target = key.route = OTHER;
	row = find(t, &key, SBX_TALLY_ROWS_MAX);
	assert(row); /* as many were kept as there are keys of this kind */
	return row;
}

/* ---- histograms ---- */

uint64_t
sbx_tally_time_bound_ms(uint32_t i)
{
	return 10ull << i;
}

uint64_t
sbx_tally_token_bound(uint32_t i)
{
	return 1ull << 2 * i;
}

/* The least n with value <= 2^n. */
static uint32_t
log2_up(uint64_t value)
{
	return value <= 1 ? 0 : 64u - (uint32_t)__builtin_clzll(value - 1);
}

static void
observe(struct sbx_tally_histogram *h, uint32_t bucket, uint64_t value)
{
	h->bucket[bucket < SBX_TALLY_BOUNDS ? bucket : SBX_TALLY_BOUNDS]++;
	h->sum += value;
}

static void
observe_time(struct sbx_tally_histogram *h, uint64_t ns)
{
	observe(h, log2_up(ns / 10000000u + (ns % 10000000u != 0)), ns);
}

static void
observe_tokens(struct sbx_tally_histogram *h, int64_t tokens)
{
	if (tokens >= 0) /* else it is not known */
		observe(h, (log2_up((uint64_t)tokens) + 1) / 2, (uint64_t)tokens);
}

static void
add(uint64_t *sum, int64_t tokens)
{
	if (tokens > 0)
		*sum += (uint64_t)tokens;
}

/* ---- counting ---- */

struct sbx_tally_ticket
sbx_tally_begin(struct sbx_tally *t, struct sbx_span route, struct sbx_span tenant)
{
	const struct sbx_tally_key key = { .what = SBX_TALLY_RUNNING, .route = label_of(t, SBX_TALLY_ROUTE, route), .tenant = label_of(t, SBX_TALLY_TENANT, tenant) };
	struct sbx_tally_row *row = row_of(t, key);
	row->n++;
	return (struct sbx_tally_ticket){ key.route, key.tenant, (uint16_t)(row - t->row) };
}

static struct sbx_tally_row *
count(struct sbx_tally *t, enum sbx_tally_what what, const struct sbx_tally_ticket *ticket, const struct sbx_tally_end *end)
{
	const struct sbx_tally_key key = {
		.what = what,
		.op = end->op,
		.outcome = end->outcome,
		.target = number_of(&t->names[SBX_TALLY_TARGET], end->target, end->unknown ? SBX_TALLY_TARGETS_UNKNOWN_MAX : SBX_TALLY_TARGETS_MAX),
		.route = ticket->route,
		.tenant = ticket->tenant,
	};
	struct sbx_tally_row *row = row_of(t, key);
	row->n++;
	observe_time(&row->duration, end->duration_ns);
	if (end->streamed)
		observe_time(&row->first_content, end->first_content_ns);
	return row;
}

void
sbx_tally_attempt(struct sbx_tally *t, const struct sbx_tally_ticket *ticket, const struct sbx_tally_end *end)
{
	struct sbx_tally_row *row = count(t, SBX_TALLY_ATTEMPT, ticket, end);
	const struct sbx_usage *u = end->usage;
	observe_tokens(&row->input, u->prompt_tokens);
	observe_tokens(&row->output, u->completion_tokens);
	add(&row->cached, u->cached_tokens);
	add(&row->cache_write, u->cache_write_tokens);
	add(&row->reasoning, u->reasoning_tokens);
	if (end->bill->status == SBX_COST_KNOWN)
		add(&row->cost_nanousd, end->bill->nanousd);
	else
		row->cost_unknown++;
}

void
sbx_tally_request(struct sbx_tally *t, const struct sbx_tally_ticket *ticket, const struct sbx_tally_end *end)
{
	assert(t->row[ticket->running].key.what == SBX_TALLY_RUNNING && t->row[ticket->running].n);
	t->row[ticket->running].n--;
	(void)count(t, SBX_TALLY_REQUEST, ticket, end);
}

void
sbx_tally_refusal(struct sbx_tally *t, struct sbx_span tenant, uint8_t op, enum sbx_code code)
{
	const struct sbx_tally_key key = { .what = SBX_TALLY_REQUEST, .op = op, .outcome = (uint8_t)code, .tenant = label_of(t, SBX_TALLY_TENANT, tenant) };
	row_of(t, key)->n++;
}

/* ---- reading ---- */

uint32_t
sbx_tally_rows(const struct sbx_tally *t)
{
	return t->n_rows;
}

const struct sbx_tally_row *
sbx_tally_row(const struct sbx_tally *t, uint32_t i)
{
	return i < t->n_rows ? &t->row[i] : NULL;
}

const char *
sbx_tally_name(const struct sbx_tally *t, enum sbx_tally_label label, uint16_t number)
{
	return number == NOBODY ? "" : number == OTHER ? SBX_TALLY_OTHER : t->names[label].name[number - FIRST_NAME];
}

bool
sbx_tally_knows_target(const struct sbx_tally *t, struct sbx_span target)
{
	const struct names *names = &t->names[SBX_TALLY_TARGET];
	return names->slot[slot_of(names, target, sbx_names_hash(0, target))].number != 0;
}

uint64_t
sbx_tally_folded(const struct sbx_tally *t, enum sbx_tally_label label)
{
	return t->names[label].folded;
}

uint64_t
sbx_tally_crowded(const struct sbx_tally *t)
{
	return t->crowded;
}
