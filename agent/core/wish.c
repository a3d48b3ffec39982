/* SPDX-License-Identifier: Apache-2.0 */
/* wish.c -- see wish.h. */
#include "agent/core/wish.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- providers ---- */

/* Whatever the case: OpenRouter's own names of them are spelled both ways. */
static bool
is_name_of(struct sbx_span name, const struct sbx_provider *p)
{
	return strlen(p->name) == name.n && strncasecmp(p->name, name.at, name.n) == 0;
}

/* The place in the list; n when it is not there. */
static uint32_t
place_in(const struct sbx_said *said, const struct sbx_provider *p)
{
	uint32_t i = 0;
	while (i < said->n && !is_name_of(said->name[i], p))
		i++;
	return i;
}

/* To wish for somebody who is not there is a mistake, and most often one of spelling; to ignore him is harmless. */
static int
check_known(const struct sbx_router *r, const struct sbx_said *said, const char *param, struct sbx_fault *fault)
{
	for (uint32_t i = 0; i < said->n; i++) {
		uint32_t p = 0;
		while (p < r->tables->n_providers && !is_name_of(said->name[i], &r->tables->provider[p]))
			p++;
		if (p < r->tables->n_providers)
			continue;
		(void)snprintf(fault->param, sizeof fault->param, "%s", param);
		(void)snprintf(fault->why, sizeof fault->why, "%s names \"%.*s\", which is no provider here; see `signalbox status`", param,
		               (int)(said->name[i].n < 128 ? said->name[i].n : 128), said->name[i].at);
		return -SBX_ESYNTAX;
	}
	return 0;
}

/* Those of one name, as they are wanted; how many are left. */
static uint8_t
narrow(const struct sbx_router *r, const struct sbx_routing *w, struct sbx_candidate_row *c, uint8_t n)
{
	struct sbx_candidate_row kept[SBX_ROUTE_TARGETS_MAX];
	uint32_t place[SBX_ROUTE_TARGETS_MAX];
	uint8_t n_kept = 0;
	for (uint8_t i = 0; i < n; i++) {
		const struct sbx_provider *p = &r->tables->provider[c[i].provider];
		uint32_t at = place_in(&w->order, p);
		if (place_in(&w->ignore, p) < w->ignore.n || (w->only.n && place_in(&w->only, p) == w->only.n) ||
		    (w->no_other && w->order.n && at == w->order.n))
			continue;
		uint8_t k = n_kept++;
		for (; k > 0 && place[k - 1] > at; k--) { /* equals stay as they were */
			kept[k] = kept[k - 1];
			place[k] = place[k - 1];
		}
		kept[k] = c[i];
		place[k] = at;
	}
	if (w->no_other && !w->order.n && n_kept > 1)
		n_kept = 1;
	memcpy(c, kept, n_kept * sizeof *c);
	return n_kept;
}

/* ---- names ---- */

static bool
has_target(const struct sbx_request *req, uint32_t target)
{
	for (uint8_t i = 0; i < req->n_candidates; i++)
		if (req->candidate[i].target == target)
			return true;
	return false;
}

/* The candidates of one more name behind those that are there, as far as there are places. */
static int
add_name(struct sbx_router *r, const struct sbx_routing *w, struct sbx_span name, uint8_t number, uint32_t places, bool reasoning_off,
         struct sbx_request *req, uint64_t now_ns, struct sbx_fault *fault)
{
	struct sbx_request own;
	sbx_request_init(&own, req->stream, req->restart, req->deadline_ns, now_ns, 0);
	own.op = req->op;
	sbx_router_hold(r, req); /* an ad-hoc row of an earlier name must not be given to this one */
	int rc = sbx_router_resolve(r, name, reasoning_off, &own, now_ns, fault->why, sizeof fault->why);
	sbx_router_release(r, req);
	if (rc)
		return rc;
	req->restart = own.restart;
	own.n_candidates = narrow(r, w, own.candidate, own.n_candidates);
	for (uint8_t i = 0; i < own.n_candidates && req->n_candidates < places; i++)
		if (!has_target(req, own.candidate[i].target)) {
			own.candidate[i].name = number;
			req->candidate[req->n_candidates++] = own.candidate[i];
		}
	return 0;
}

int
sbx_wish_apply(struct sbx_router *r, const struct sbx_routing *w, bool reasoning_off, struct sbx_request *req, uint64_t now_ns,
               struct sbx_fault *ret_fault)
{
	const struct sbx_said *const more[] = { &w->models, &w->fallbacks };
	static const char *const param[] = { "models", "fallbacks" };
	uint32_t left = w->models.n + w->fallbacks.n;
	uint8_t number = 0;
	int lacking = 0, rc = check_known(r, &w->order, "provider.order", ret_fault);
	if (rc == 0)
		rc = check_known(r, &w->only, "provider.only", ret_fault);
	if (rc)
		return rc;
	if (left >= SBX_ROUTE_TARGETS_MAX) {
		(void)snprintf(ret_fault->param, sizeof ret_fault->param, "%s", w->models.n ? "models" : "fallbacks");
		(void)snprintf(ret_fault->why, sizeof ret_fault->why, "models and fallbacks name more than %d in all", SBX_ROUTE_TARGETS_MAX - 1);
		return -SBX_ESYNTAX;
	}
	req->n_candidates = narrow(r, w, req->candidate, req->n_candidates);
	if (req->n_candidates > SBX_ROUTE_TARGETS_MAX - left)
		req->n_candidates = (uint8_t)(SBX_ROUTE_TARGETS_MAX - left);
	for (size_t k = 0; k < 2; k++)
		for (uint32_t i = 0; i < more[k]->n; i++) {
			rc = add_name(r, w, more[k]->name[i], ++number, SBX_ROUTE_TARGETS_MAX - --left, reasoning_off, req, now_ns, ret_fault);
			if (rc == -SBX_EINVAL) { /* others may do what is asked for */
				lacking = rc;
				continue;
			}
			if (rc) {
				(void)snprintf(ret_fault->param, sizeof ret_fault->param, "%s", param[k]);
				return rc;
			}
		}
	if (w->retries >= 0)
		req->tries_per_name = (uint8_t)(w->retries + 1);
	if (req->n_candidates)
		return 0;
	if (lacking)
		return lacking;
	(void)snprintf(ret_fault->param, sizeof ret_fault->param, "provider");
	(void)snprintf(ret_fault->why, sizeof ret_fault->why, "provider leaves nobody who has this model; see `signalbox status`");
	return -SBX_ENOENT;
}
