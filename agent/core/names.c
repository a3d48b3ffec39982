/* SPDX-License-Identifier: Apache-2.0 */
/* names.c -- see names.h. */
#include "agent/core/names.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/facts.h"

/* GROUP: what all offers of a known model share; OFFER: a known model as its provider calls it. 0 = the slot is free */
enum kind { ROUTE = 1, PROVIDER, TARGET, MODEL, GROUP, OFFER };

struct slot {
	uint32_t hash;
	uint16_t index;
	uint16_t kind;
};

struct sbx_names {
	const struct sbx_tables *tables;
	struct slot *slot;
	uint32_t mask;         /* slots - 1; at least half of them are free, so that every search ends soon */
	uint32_t *next_model;  /* by target */
	uint32_t *next_known;  /* by known model */
};

_Static_assert(SBX_TARGETS_MAX <= UINT16_MAX && SBX_MODELS_MAX <= UINT16_MAX && SBX_ROUTES_MAX <= UINT16_MAX && SBX_PROVIDERS_MAX <= UINT16_MAX, "an index fits a slot");

uint32_t
sbx_names_hash(uint32_t seed, struct sbx_span s)
{
	uint32_t h = 2166136261u ^ seed;
	for (size_t i = 0; i < s.n; i++)
		h = (h ^ (uint8_t)s.at[i]) * 16777619u;
	return h;
}

static const char *
text_of(const struct sbx_names *n, enum kind kind, uint32_t index)
{
	switch (kind) {
	case ROUTE: return n->tables->route[index].name;
	case PROVIDER: return n->tables->provider[index].name;
	case TARGET: return n->tables->target[index].name;
	case MODEL: return n->tables->target[index].model;
	case GROUP: return sbx_model_group(&n->tables->facts->model[index]);
	case OFFER: return n->tables->facts->model[index].model;
	}
	abort(); /* no such kind */
}

/* Where that name is, or the free slot where it belongs. */
static struct slot *
find(const struct sbx_names *n, enum kind kind, struct sbx_span name, uint32_t hash)
{
	uint32_t i = hash & n->mask;
	for (;; i = (i + 1) & n->mask) {
		struct slot *s = &n->slot[i];
		if (!s->kind || (s->hash == hash && s->kind == kind && sbx_span_is(name, text_of(n, kind, s->index))))
			return s;
	}
}

/* Of two of the same name the one that is put last is found. Returns the one before it. */
static uint32_t
put(struct sbx_names *n, enum kind kind, uint32_t index)
{
	struct sbx_span name = sbx_span_of(text_of(n, kind, index));
	uint32_t hash = sbx_names_hash(kind, name);
	struct slot *s = find(n, kind, name, hash);
	uint32_t before = s->kind ? s->index : SBX_NAMES_NONE;
	*s = (struct slot){ hash, (uint16_t)index, (uint16_t)kind };
	return before;
}

static uint32_t
get(const struct sbx_names *n, enum kind kind, struct sbx_span name)
{
	const struct slot *s = find(n, kind, name, sbx_names_hash(kind, name));
	return s->kind ? s->index : SBX_NAMES_NONE;
}

struct sbx_names *
sbx_names_new(const struct sbx_tables *tables)
{
	struct sbx_names *n = calloc(1, sizeof *n);
	if (!n)
		return NULL;
	const uint32_t n_known = tables->facts ? tables->facts->n_models : 0;
	uint32_t slots = 8, names = tables->n_routes + tables->n_providers + 2 * tables->n_targets + 2 * n_known;
	while (slots < 2 * names)
		slots *= 2;
	n->tables = tables;
	n->mask = slots - 1;
	n->slot = calloc(slots, sizeof *n->slot);
	n->next_model = calloc(tables->n_targets + 1u, sizeof *n->next_model);
	n->next_known = calloc(n_known + 1u, sizeof *n->next_known);
	if (!n->slot || !n->next_model || !n->next_known) {
		sbx_names_free(n);
		return NULL;
	}
	/* Backwards, so that the first of a name is found, and models chain forwards. */
	for (uint32_t i = tables->n_routes; i-- > 0;)
		(void)put(n, ROUTE, i);
	for (uint32_t i = tables->n_providers; i-- > 0;)
		(void)put(n, PROVIDER, i);
	for (uint32_t i = tables->n_targets; i-- > 0;) {
		(void)put(n, TARGET, i);
		n->next_model[i] = put(n, MODEL, i);
	}
	for (uint32_t i = n_known; i-- > 0;) {
		const struct sbx_model *m = &tables->facts->model[i];
		if (get(n, PROVIDER, (struct sbx_span){ m->name, m->provider_bytes }) == SBX_NAMES_NONE)
			continue;
		(void)put(n, OFFER, i);
		n->next_known[i] = put(n, GROUP, i);
	}
	return n;
}

void
sbx_names_free(struct sbx_names *n)
{
	if (!n)
		return;
	free(n->slot);
	free(n->next_model);
	free(n->next_known);
	free(n);
}

uint32_t
sbx_names_route(const struct sbx_names *n, struct sbx_span name)
{
	return get(n, ROUTE, name);
}

uint32_t
sbx_names_provider(const struct sbx_names *n, struct sbx_span name)
{
	return get(n, PROVIDER, name);
}

uint32_t
sbx_names_target(const struct sbx_names *n, struct sbx_span name)
{
	return get(n, TARGET, name);
}

uint32_t
sbx_names_model(const struct sbx_names *n, struct sbx_span model)
{
	return get(n, MODEL, model);
}

uint32_t
sbx_names_next_of_model(const struct sbx_names *n, uint32_t target)
{
	assert(target < n->tables->n_targets);
	return n->next_model[target];
}

uint32_t
sbx_names_known(const struct sbx_names *n, struct sbx_span model)
{
	uint32_t i = get(n, GROUP, model);
	if (i == SBX_NAMES_NONE && (i = get(n, OFFER, model)) != SBX_NAMES_NONE)
		i = get(n, GROUP, sbx_span_of(text_of(n, GROUP, i)));
	return i;
}

uint32_t
sbx_names_next_known(const struct sbx_names *n, uint32_t known)
{
	assert(known < n->tables->facts->n_models);
	return n->next_known[known];
}

/* ---- the nearest ---- */

static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* Letters to insert, delete or replace to make a of b, whatever their case; limit + 1 as soon as it is more than limit. */
static uint32_t
distance(struct sbx_span a, struct sbx_span b, uint32_t limit)
{
	uint32_t row[SBX_NEAREST_MAX_BYTES + 1];
	if (a.n > SBX_NEAREST_MAX_BYTES || b.n > SBX_NEAREST_MAX_BYTES || (a.n > b.n ? a.n - b.n : b.n - a.n) > limit)
		return limit + 1;
	/* Equal ends cost nothing: thousands of names that differ in a few digits are compared in these only. */
	while (a.n && b.n && lower(a.at[0]) == lower(b.at[0])) {
		a = (struct sbx_span){ a.at + 1, a.n - 1 };
		b = (struct sbx_span){ b.at + 1, b.n - 1 };
	}
	while (a.n && b.n && lower(a.at[a.n - 1]) == lower(b.at[b.n - 1])) {
		a.n--;
		b.n--;
	}
	for (uint32_t j = 0; j <= b.n; j++)
		row[j] = j;
	for (size_t i = 0; i < a.n; i++) {
		/* Only near the diagonal can the distance be within the limit. Left of it is limit + 1; right of it still stand the
		 * numbers of the first row, which are over the limit as well. */
		const size_t first = i > limit ? i - limit : 0, end = i + limit + 1 < b.n ? i + limit + 1 : b.n;
		uint32_t diagonal = row[first], least = row[first] = first ? limit + 1 : (uint32_t)i + 1;
		for (size_t j = first; j < end; j++) {
			uint32_t best = diagonal + (lower(a.at[i]) != lower(b.at[j]));
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j + 1] + 1 < best)
				best = row[j + 1] + 1;
			diagonal = row[j + 1];
			row[j + 1] = best;
			if (best < least)
				least = best;
		}
		if (least > limit)
			return limit + 1;
	}
	return row[b.n] > limit ? limit + 1 : row[b.n];
}

/* What is searched for, and how near the best so far is. Every hit lowers the limit, so the first of equals wins. */
struct search {
	struct sbx_span name;
	uint32_t left; /* nearer than this: strictly better than what was found */
};

static bool
is_nearer(struct search *s, struct sbx_span candidate)
{
	if (s->left == 0)
		return false;
	uint32_t d = distance(s->name, candidate, s->left - 1);
	if (d >= s->left)
		return false;
	s->left = d;
	return true;
}

static uint32_t
reach(struct sbx_span name)
{
	uint32_t half = (uint32_t)(name.n / 2);
	return (half < SBX_NEAREST_DISTANCE ? half : SBX_NEAREST_DISTANCE) + 1;
}

static bool
has_key(const struct sbx_provider *p) /* nobody is helped by the name of something that cannot be used */
{
	return p->n_credentials > 0 || p->auth == SBX_AUTH_NONE;
}

const char *
sbx_names_nearest(const struct sbx_names *n, struct sbx_span name, bool routes, bool models, char *buf, size_t buf_bytes)
{
	const struct sbx_tables *t = n->tables;
	const char *slash = name.n ? memchr(name.at, '/', name.n) : NULL;
	struct search s = { name, reach(name) };
	const char *nearest = NULL, *provider = NULL;

	for (uint32_t i = 0; routes && i < t->n_routes; i++)
		if (is_nearer(&s, sbx_span_of(t->route[i].name)))
			nearest = t->route[i].name;
	for (uint32_t i = 0; models && i < t->n_targets; i++)
		if (has_key(&t->provider[t->target[i].provider]) &&
		    (is_nearer(&s, sbx_span_of(t->target[i].model)) || is_nearer(&s, sbx_span_of(t->target[i].name))))
			nearest = t->target[i].name;
	for (uint32_t i = 0; models && t->facts && i < t->facts->n_models; i++) {
		const struct sbx_model *m = &t->facts->model[i];
		uint32_t offers = get(n, PROVIDER, (struct sbx_span){ m->name, m->provider_bytes });
		if (offers != SBX_NAMES_NONE && has_key(&t->provider[offers]) &&
		    (is_nearer(&s, sbx_span_of(sbx_model_group(m))) || is_nearer(&s, sbx_span_of(m->name))))
			nearest = m->name;
	}
	if (models && slash) { /* the model need not be configured: perhaps only the provider is misspelt */
		struct search p = { { name.at, (size_t)(slash - name.at) }, 0 };
		p.left = reach(p.name) < s.left ? reach(p.name) : s.left;
		for (uint32_t i = 0; i < t->n_providers; i++)
			if (has_key(&t->provider[i]) && is_nearer(&p, sbx_span_of(t->provider[i].name)))
				provider = t->provider[i].name;
	}
	if (provider)
		(void)snprintf(buf, buf_bytes, "%s%.*s", provider, (int)(name.n - (size_t)(slash - name.at)), slash);
	else
		(void)snprintf(buf, buf_bytes, "%s", nearest ? nearest : "");
	return buf;
}
