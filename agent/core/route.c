/* SPDX-License-Identifier: Apache-2.0 */
/* route.c -- see route.h. */
#include "agent/core/route.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/names.h"
#include "agent/core/price.h"

#define FULL_NAME_MAX_BYTES (SBX_NAME_MAX_BYTES + 1 + SBX_MODEL_MAX_BYTES)

/* A target that was asked for without being configured. The strings of `facts` point into `text`. */
struct adhoc_row {
	struct sbx_target facts;    /* facts.name NULL: never used */
	uint32_t hash;              /* of the name */
	uint32_t holds;             /* requests that have it as a candidate */
	uint64_t used_ns;           /* last asked for */
	char text[FULL_NAME_MAX_BYTES + 1]; /* "provider/model" */
};

struct sbx_adhoc {
	struct sbx_names *names;
	sbx_model_reasons_fn *reasons;
	uint32_t n_used;            /* rows that were ever used: they are taken in order */
	struct adhoc_row row[SBX_TARGETS_ADHOC_MAX]; /* untouched pages cost nothing */
};

struct sbx_adhoc *
sbx_adhoc_new(const struct sbx_tables *tables, sbx_model_reasons_fn *reasons)
{
	struct sbx_adhoc *a = calloc(1, sizeof *a);
	if (!a)
		return NULL;
	a->reasons = reasons;
	a->names = sbx_names_new(tables);
	if (!a->names) {
		free(a);
		return NULL;
	}
	return a;
}

void
sbx_adhoc_free(struct sbx_adhoc *a)
{
	if (!a)
		return;
	sbx_names_free(a->names);
	free(a);
}

const struct sbx_target *
sbx_router_target(const struct sbx_router *r, uint32_t target)
{
	if (target < r->tables->n_targets)
		return &r->tables->target[target];
	target -= r->tables->n_targets;
	return target < r->adhoc->n_used ? &r->adhoc->row[target].facts : NULL;
}

static void
change_holds(struct sbx_router *r, const struct sbx_request *req, bool hold)
{
	for (uint32_t i = 0; i < req->n_candidates; i++) {
		if (req->candidate[i].target < r->tables->n_targets)
			continue;
		struct adhoc_row *row = &r->adhoc->row[req->candidate[i].target - r->tables->n_targets];
		assert(hold || row->holds > 0);
		row->holds += hold ? 1u : -1u;
	}
}

void
sbx_router_hold(struct sbx_router *r, const struct sbx_request *req)
{
	change_holds(r, req, true);
}

void
sbx_router_release(struct sbx_router *r, const struct sbx_request *req)
{
	change_holds(r, req, false);
}

/* ---- candidates ---- */

static bool
is_candidate(const struct sbx_request *req, uint32_t target)
{
	for (uint32_t i = 0; i < req->n_candidates; i++)
		if (req->candidate[i].target == target)
			return true;
	return false;
}

static void
append(const struct sbx_router *r, struct sbx_request *req, uint32_t target, bool reasoning_off)
{
	const struct sbx_target *t = sbx_router_target(r, target);
	assert(t && req->n_candidates < SBX_ROUTE_TARGETS_MAX);
	if (!sbx_provider_does(&r->tables->provider[t->provider], req->op))
		return;
	req->candidate[req->n_candidates++] = (struct sbx_candidate_row){
		.policy = &r->tables->provider[t->provider].policy,
		.context_tokens = t->context_tokens,
		.target = target,
		.provider = t->provider,
		.reasoning = t->reasoning && !reasoning_off,
	};
}

static bool
provider_has_key(const struct sbx_router *r, uint32_t provider)
{
	const struct sbx_provider *p = &r->tables->provider[provider];
	return p->n_credentials > 0 || p->auth == SBX_AUTH_NONE;
}

static bool
has_key(const struct sbx_router *r, uint32_t target)
{
	return provider_has_key(r, sbx_router_target(r, target)->provider);
}

/* ---- ad-hoc rows ---- */

/* A row that nobody uses: a fresh one, else the least recently used. Not one of this request's own candidates, which it does not
 * hold yet. */
static struct adhoc_row *
take_row(struct sbx_router *r, const struct sbx_request *req)
{
	struct sbx_adhoc *a = r->adhoc;
	struct adhoc_row *oldest = NULL;

	if (a->n_used < SBX_TARGETS_ADHOC_MAX)
		return &a->row[a->n_used++];
	for (uint32_t i = 0; i < SBX_TARGETS_ADHOC_MAX; i++) {
		struct adhoc_row *row = &a->row[i];
		uint32_t target = r->tables->n_targets + i;
		if (row->holds == 0 && (!oldest || row->used_ns < oldest->used_ns) && !is_candidate(req, target) &&
		    sbx_health_target(r->health, target)->in_flight == 0)
			oldest = row;
	}
	return oldest;
}

/* The row of "provider/model", new or known; SBX_NAMES_NONE if all are in use. */
static uint32_t
adhoc_target(struct sbx_router *r, const struct sbx_request *req, struct sbx_span name, uint32_t provider, uint64_t now_ns)
{
	struct sbx_adhoc *a = r->adhoc;
	uint32_t hash = sbx_names_hash(0, name);
	struct adhoc_row *row = NULL;

	for (uint32_t i = 0; i < a->n_used && !row; i++)
		if (a->row[i].hash == hash && sbx_span_is(name, a->row[i].text))
			row = &a->row[i];
	if (!row) {
		row = take_row(r, req);
		if (!row)
			return SBX_NAMES_NONE;
		size_t before_model = strlen(r->tables->provider[provider].name) + 1;
		assert(name.n > before_model && name.n < sizeof row->text);
		memcpy(row->text, name.at, name.n);
		row->text[name.n] = '\0';
		row->hash = hash;
		row->facts = (struct sbx_target){ .name = row->text, .provider = (uint16_t)provider, .model = row->text + before_model };
		row->facts.known = sbx_facts_find(r->tables->facts, name);
		row->facts.context_tokens = row->facts.known ? row->facts.known->context_tokens : 0;
		row->facts.reasoning = row->facts.known ? row->facts.known->caps & SBX_MODEL_REASONS : a->reasons && a->reasons(row->facts.model);
		sbx_health_clear_target(r->health, r->tables->n_targets + (uint32_t)(row - a->row), now_ns);
	}
	row->used_ns = now_ns;
	return r->tables->n_targets + (uint32_t)(row - a->row);
}

/* ---- every offer of a model ---- */

static void
append_offer(const struct sbx_router *r, struct sbx_request *req, uint32_t target, bool with_key, bool reasoning_off)
{
	if (target != SBX_NAMES_NONE && req->n_candidates < SBX_ROUTE_TARGETS_MAX && has_key(r, target) == with_key && !is_candidate(req, target))
		append(r, req, target, reasoning_off);
}

static int64_t
rank_of(const struct sbx_router *r, uint32_t target)
{
	return sbx_price_rank(r->tables->facts, sbx_router_target(r, target)->known, r->now_unix_s);
}

/* Cheapest first, equals as they were. At most SBX_ROUTE_TARGETS_MAX of them. */
static void
sort_by_price(const struct sbx_router *r, struct sbx_candidate_row *c, uint32_t n)
{
	int64_t rank[SBX_ROUTE_TARGETS_MAX];
	for (uint32_t i = 0; i < n; i++) {
		struct sbx_candidate_row row = c[i];
		int64_t own = rank_of(r, row.target);
		uint32_t k = i;
		for (; k > 0 && rank[k - 1] > own; k--) {
			c[k] = c[k - 1];
			rank[k] = rank[k - 1];
		}
		c[k] = row;
		rank[k] = own;
	}
}

/* What the configuration lists under that name, then what the catalog knows as the same model. Offers without a key come last: with
 * more of them than a request has places, they must not take those of the usable ones. */
static void
append_model(struct sbx_router *r, struct sbx_request *req, struct sbx_span name, bool reasoning_off, uint64_t now_ns)
{
	const struct sbx_names *names = r->adhoc->names;
	uint32_t usable = 0;
	for (int with_key = 1; with_key >= 0; with_key--) {
		for (uint32_t i = sbx_names_model(names, name); i != SBX_NAMES_NONE; i = sbx_names_next_of_model(names, i))
			append_offer(r, req, i, with_key, reasoning_off);
		for (uint32_t i = sbx_names_known(names, name); i != SBX_NAMES_NONE; i = sbx_names_next_known(names, i)) {
			const struct sbx_model *m = &r->tables->facts->model[i];
			struct sbx_span whole = sbx_span_of(m->name);
			uint32_t target = sbx_names_target(names, whole);
			uint32_t provider = sbx_names_provider(names, (struct sbx_span){ m->name, m->provider_bytes });
			if (target == SBX_NAMES_NONE && provider_has_key(r, provider) == with_key && req->n_candidates < SBX_ROUTE_TARGETS_MAX)
				target = adhoc_target(r, req, whole, provider, now_ns); /* none is free: this offer is left out */
			append_offer(r, req, target, with_key, reasoning_off);
		}
		if (with_key)
			sort_by_price(r, req->candidate, usable = req->n_candidates);
	}
	sort_by_price(r, req->candidate + usable, req->n_candidates - usable);
}

/* ---- names ---- */

/* Bytes of the UTF-8 character at the front, 0 if there is none: overlong forms, surrogates and what is above U+10FFFF are none. */
static size_t
utf8_bytes(const uint8_t *s, size_t n)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t len;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf) {
		len = 2;
	} else if (s[0] >= 0xe0 && s[0] <= 0xef) {
		len = 3;
		low = s[0] == 0xe0 ? 0xa0 : low;
		high = s[0] == 0xed ? 0x9f : high;
	} else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		len = 4;
		low = s[0] == 0xf0 ? 0x90 : low;
		high = s[0] == 0xf4 ? 0x8f : high;
	} else {
		return 0;
	}
	if (n < len || s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	return len;
}

/* A name is repeated in messages, logs and in the body to the provider: text, and no control characters (C1 among them). */
static bool
is_name(struct sbx_span s)
{
	const uint8_t *p = (const uint8_t *)s.at;

	if (s.n == 0 || s.n > FULL_NAME_MAX_BYTES)
		return false;
	for (size_t i = 0, len; i < s.n; i += len) {
		len = utf8_bytes(p + i, s.n - i);
		if (len == 0 || p[i] < 0x20 || p[i] == 0x7f || (p[i] == 0xc2 && p[i + 1] < 0xa0))
			return false;
	}
	return true;
}

static int
say_no_name(char *why, size_t why_bytes)
{
	(void)snprintf(why, why_bytes, "a name is 1 to %d bytes of UTF-8 (the model in it at most %d) without control characters",
	               FULL_NAME_MAX_BYTES, SBX_MODEL_MAX_BYTES);
	return -SBX_ESYNTAX;
}

enum { ROUTES = 1, MODELS = 2 };

static int
say_unknown(const struct sbx_router *r, struct sbx_span name, unsigned kinds, char *why, size_t why_bytes)
{
	const char *what = kinds == ROUTES ? "route" : kinds == MODELS ? "model" : "route or model";
	char nearest[FULL_NAME_MAX_BYTES + SBX_NAME_MAX_BYTES];
	int n = (int)name.n;

	if ((kinds & MODELS) && sbx_names_provider(r->adhoc->names, name) != SBX_NAMES_NONE)
		(void)snprintf(why, why_bytes, "\"%.*s\" is a provider: name one of its models, as in \"%.*s/MODEL\"", n, name.at, n, name.at);
	else if (kinds == MODELS && sbx_names_route(r->adhoc->names, name) != SBX_NAMES_NONE)
		(void)snprintf(why, why_bytes, "no model \"%.*s\"; there is a route of that name", n, name.at);
	else if (*sbx_names_nearest(r->adhoc->names, name, kinds & ROUTES, kinds & MODELS, nearest, sizeof nearest))
		(void)snprintf(why, why_bytes, "no %s \"%.*s\"; nearest is \"%s\"; see `signalbox status`", what, n, name.at, nearest);
	else
		(void)snprintf(why, why_bytes, "no %s \"%.*s\"; see `signalbox status`", what, n, name.at);
	return -SBX_ENOENT;
}

static int
say_lacks(const struct sbx_request *req, struct sbx_span name, char *why, size_t why_bytes)
{
	(void)snprintf(why, why_bytes, "no target of \"%.*s\" does %s", (int)name.n, name.at, sbx_op_word(req->op));
	return -SBX_EINVAL;
}

/* The row of "provider/model". 0, -SBX_ENOENT (not of that form, or no such provider; nothing said), or with why set
 * -SBX_ESYNTAX, -SBX_EBUSY. */
static int
find_target(struct sbx_router *r, const struct sbx_request *req, struct sbx_span name, uint64_t now_ns, uint32_t *ret_target, char *why, size_t why_bytes)
{
	const char *slash = memchr(name.at, '/', name.n);
	if (!slash)
		return -SBX_ENOENT;
	uint32_t target = sbx_names_target(r->adhoc->names, name);
	if (target == SBX_NAMES_NONE) {
		uint32_t provider = sbx_names_provider(r->adhoc->names, (struct sbx_span){ name.at, (size_t)(slash - name.at) });
		size_t model_bytes = name.n - (size_t)(slash - name.at) - 1;
		if (provider == SBX_NAMES_NONE)
			return -SBX_ENOENT;
		if (model_bytes == 0 || model_bytes > SBX_MODEL_MAX_BYTES)
			return say_no_name(why, why_bytes);
		target = adhoc_target(r, req, name, provider, now_ns);
		if (target == SBX_NAMES_NONE) {
			(void)snprintf(why, why_bytes, "%d models that are not configured are in use at once; try again, or configure \"%.*s\"",
			               SBX_TARGETS_ADHOC_MAX, (int)name.n, name.at);
			return -SBX_EBUSY;
		}
	}
	*ret_target = target;
	return 0;
}

const struct sbx_route *
sbx_router_route(const struct sbx_router *r, struct sbx_span name)
{
	uint32_t i = is_name(name) ? sbx_names_route(r->adhoc->names, name) : SBX_NAMES_NONE;
	return i == SBX_NAMES_NONE ? NULL : &r->tables->route[i];
}

static int
resolve(struct sbx_router *r, struct sbx_span name, unsigned kinds, bool reasoning_off, struct sbx_request *req, uint64_t now_ns,
        char *why, size_t why_bytes)
{
	uint32_t i;

	req->n_candidates = 0;
	if (!is_name(name))
		return say_no_name(why, why_bytes);
	if ((kinds & ROUTES) && (i = sbx_names_route(r->adhoc->names, name)) != SBX_NAMES_NONE) {
		const struct sbx_route *route = &r->tables->route[i];
		req->restart = req->restart && route->restart;
		for (i = 0; i < route->n_targets; i++)
			append(r, req, route->target[i], reasoning_off);
		return req->n_candidates ? 0 : say_lacks(req, name, why, why_bytes);
	}
	if (kinds & MODELS) {
		int rc = find_target(r, req, name, now_ns, &i, why, why_bytes);
		if (rc == 0)
			append(r, req, i, reasoning_off);
		if (rc != -SBX_ENOENT)
			return rc || req->n_candidates ? rc : say_lacks(req, name, why, why_bytes);
		append_model(r, req, name, reasoning_off, now_ns);
		if (req->n_candidates)
			return 0;
		if (sbx_names_model(r->adhoc->names, name) != SBX_NAMES_NONE || sbx_names_known(r->adhoc->names, name) != SBX_NAMES_NONE)
			return say_lacks(req, name, why, why_bytes);
	}
	return say_unknown(r, name, kinds, why, why_bytes);
}

int
sbx_router_resolve(struct sbx_router *r, struct sbx_span name, bool reasoning_off, struct sbx_request *req, uint64_t now_ns, char *why, size_t why_bytes)
{
	return resolve(r, name, ROUTES | MODELS, reasoning_off, req, now_ns, why, why_bytes);
}

int
sbx_router_resolve_route(struct sbx_router *r, struct sbx_span name, bool reasoning_off, struct sbx_request *req, uint64_t now_ns, char *why, size_t why_bytes)
{
	return resolve(r, name, ROUTES, reasoning_off, req, now_ns, why, why_bytes);
}

int
sbx_router_resolve_model(struct sbx_router *r, struct sbx_span name, bool reasoning_off, struct sbx_request *req, uint64_t now_ns, char *why, size_t why_bytes)
{
	return resolve(r, name, MODELS, reasoning_off, req, now_ns, why, why_bytes);
}

int
sbx_router_add(struct sbx_router *r, struct sbx_span name, bool reasoning_off, struct sbx_request *req, uint64_t now_ns, char *why, size_t why_bytes)
{
	uint32_t target;

	if (!is_name(name))
		return say_no_name(why, why_bytes);
	if (req->n_candidates == SBX_ROUTE_TARGETS_MAX) {
		(void)snprintf(why, why_bytes, "at most %d targets", SBX_ROUTE_TARGETS_MAX);
		return -SBX_ESYNTAX;
	}
	int rc = find_target(r, req, name, now_ns, &target, why, why_bytes);
	if (rc == -SBX_ENOENT)
		return say_unknown(r, name, MODELS, why, why_bytes);
	if (rc)
		return rc;
	if (is_candidate(req, target)) {
		(void)snprintf(why, why_bytes, "the target \"%.*s\" is named twice", (int)name.n, name.at);
		return -SBX_ESYNTAX;
	}
	append(r, req, target, reasoning_off);
	return is_candidate(req, target) ? 0 : say_lacks(req, name, why, why_bytes);
}
