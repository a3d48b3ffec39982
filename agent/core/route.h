/* SPDX-License-Identifier: Apache-2.0 */
/*
 * route.h -- from the name in a request to its candidates, in order.
 *
 * A name is: a route's name; else "provider/model", cut at the first slash, where that is a provider; else a bare model name,
 * which means every configured provider that offers it, the cheapest first at this hour (offers without a price after them, in the
 * order of the configuration): it offers what the configuration lists under that name, and what the catalog says is the same
 * model, whatever the provider calls it. "provider/model" of a usable provider need not be configured: it gets an ad-hoc row (a number from n_targets on), and the least recently used idle one
 * is reused when all SBX_TARGETS_ADHOC_MAX are taken.
 *
 * A target whose provider has no such operation (req->op) is no candidate. Targets of a provider without any key become candidates like others: the gate passes them over, and so the reply says why.
 */
#ifndef SBX_AGENT_CORE_ROUTE_H
#define SBX_AGENT_CORE_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/core/health.h"
#include "agent/core/request.h"
#include "agent/core/tables.h"

/* Does a model of that name reason unless told not to? Asked for ad-hoc targets, of which nothing else is known. */
typedef bool sbx_model_reasons_fn(const char *model);

struct sbx_adhoc; /* the index of one configuration's names, and its ad-hoc targets */
/* tables stay the caller's and must outlive it. reasons: NULL = none does. NULL on no memory. */
struct sbx_adhoc *sbx_adhoc_new(const struct sbx_tables *tables, sbx_model_reasons_fn *reasons);
void sbx_adhoc_free(struct sbx_adhoc *a); /* NULL is fine */

struct sbx_router {
	const struct sbx_tables *tables;
	struct sbx_health *health;
	struct sbx_adhoc *adhoc;
	int64_t now_unix_s;      /* wall clock, for the prices by which offers of one model are put in order; the caller keeps it */
};

/* A target's facts by row, configured or ad-hoc. NULL when there is no such row. An ad-hoc row's are valid while a request
 * holds it. */
const struct sbx_target *sbx_router_target(const struct sbx_router *r, uint32_t target);
/* The route of that name; NULL = none. It lives as long as the tables. */
const struct sbx_route *sbx_router_route(const struct sbx_router *r, struct sbx_span name);

/* A request holds its rows while it lives, so that an ad-hoc row is not reused under it. Hold when all candidates are
 * found and before another name is resolved; release when no attempt runs any more, with the same candidates. */
void sbx_router_hold(struct sbx_router *r, const struct sbx_request *req);
void sbx_router_release(struct sbx_router *r, const struct sbx_request *req);

/* Fill req->candidate[] from a name (route, provider/model or model). why is set on failure only, always terminated, and free of
 * control characters whatever the name was. Returns 0, or:
 *  -SBX_ENOENT  nothing of that name; why names the nearest
 *  -SBX_EBUSY   every ad-hoc row is in use
 *  -SBX_ESYNTAX no name at all: empty, too long, control characters, not UTF-8
 *  -SBX_EINVAL  it has targets, but none of them does what the request asks for (req->op)
 * req->n_candidates is 0 after a failure. reasoning_off: the request turned reasoning off. */
int sbx_router_resolve(struct sbx_router *r, struct sbx_span name, bool reasoning_off, struct sbx_request *req, uint64_t now_ns, char *why, size_t why_bytes);
/* What kind of name is accepted: for the frame keys `route` (only a route) and `model` (never a route). */
int sbx_router_resolve_route(struct sbx_router *r, struct sbx_span name, bool reasoning_off, struct sbx_request *req, uint64_t now_ns, char *why, size_t why_bytes);
int sbx_router_resolve_model(struct sbx_router *r, struct sbx_span name, bool reasoning_off, struct sbx_request *req, uint64_t now_ns, char *why, size_t why_bytes);
/* targets[]: appends "provider/model" as one more candidate (-SBX_ESYNTAX too for the same row twice, and for more than
 * SBX_ROUTE_TARGETS_MAX; -SBX_EINVAL: it does not do what is asked for). The candidates before it stay on failure. */
int sbx_router_add(struct sbx_router *r, struct sbx_span name, bool reasoning_off, struct sbx_request *req, uint64_t now_ns, char *why, size_t why_bytes);

#endif
