/* SPDX-License-Identifier: Apache-2.0 */
/* admit.c -- see admit.h. */
#include "agent/io/admit.h"

#include <stdio.h>
#include <time.h>

#include "agent/core/wish.h"
#include "agent/io/vkeys.h"
#include "agent/io/whom.h"

int
sbx_refuse(struct sbx_refusal *r, enum sbx_code code, int64_t retry_after_ms, const char *why)
{
	r->code = code;
	r->retry_after_ms = retry_after_ms;
	(void)snprintf(r->why, sizeof r->why, "%s", why);
	return -SBX_EINVAL;
}

static int
refuse_fault(struct sbx_refusal *r, enum sbx_code code, int64_t retry_after_ms, const struct sbx_fault *fault)
{
	(void)snprintf(r->param, sizeof r->param, "%s", fault->param);
	return sbx_refuse(r, code, retry_after_ms, fault->why);
}

int
sbx_admit_submit(const struct sbx_agent *agent, const struct sbx_peer *peer, const struct sbx_submit *submit, struct sbx_refusal *r)
{
	const struct sbx_config *config = agent->world->config;
	if (submit->has_principal && !sbx_whom_trusts(agent, peer))
		return sbx_refuse(r, SBX_CODE_FORBIDDEN, -1, "principal is taken from the users in listen.trusted_uids only");
	if (agent->draining)
		return sbx_refuse(r, SBX_CODE_DRAINING, 1000, "the agent is stopping; submit again to its successor");
	if (agent->n_exchanges >= config->limits.max_in_flight)
		return sbx_refuse(r, SBX_CODE_BUSY, 1000, "limits.max_in_flight requests are running; try again soon");
	if (sbx_whom_in_flight(agent, peer, submit->tenant) >= (config->limits.max_in_flight + 1) / 2)
		return sbx_refuse(r, SBX_CODE_BUSY, 1000,
		                  submit->tenant.n ? "half of limits.max_in_flight requests of this tenant are running; try again soon" :
		                                     "half of limits.max_in_flight requests of this user are running; try again soon");
	if (agent->body_bytes + submit->body.n > config->limits.memory_max_bytes / 4)
		return sbx_refuse(r, SBX_CODE_BUSY, 1000, "request bodies fill a quarter of limits.memory_max; try again soon");
	return 0;
}

/* ---- who could answer ---- */

/* The candidates of the request's own name. A name that it need not have (`models` names others) is none: 0. */
static int
resolve_own(struct sbx_exchange *ex, const struct sbx_submit *submit, const struct sbx_routing *routing, uint64_t now_ns, struct sbx_fault *fault)
{
	struct sbx_router *router = &ex->world->router;
	bool quiet = ex->ask.reasoning_off;
	char text[SBX_NAME_MAX_BYTES + 1 + SBX_MODEL_MAX_BYTES];
	struct sbx_span name = { text, 0 };
	int rc = 0;
	if (submit->route.n) {
		ex->route = sbx_router_route(router, submit->route);
		return sbx_router_resolve_route(router, submit->route, quiet, &ex->req, now_ns, fault->why, sizeof fault->why);
	}
	if (submit->model.n)
		return sbx_router_resolve_model(router, submit->model, quiet, &ex->req, now_ns, fault->why, sizeof fault->why);
	if (submit->n_targets) {
		for (uint32_t i = 0; i < submit->n_targets && (!rc || rc == -SBX_EINVAL); i++)
			rc = sbx_router_add(router, submit->target[i], quiet, &ex->req, now_ns, fault->why, sizeof fault->why);
		return rc == -SBX_EINVAL && ex->req.n_candidates ? 0 : rc; /* others of them do what is asked for */
	}
	(void)snprintf(fault->param, sizeof fault->param, "model");
	if (!ex->ask.model.n) {
		(void)snprintf(fault->why, sizeof fault->why, "the request names no route and no model");
		return routing && routing->models.n ? 0 : -SBX_ESYNTAX;
	}
	if (sbx_json_string_decode(ex->ask.model, text, sizeof text, &name.n)) {
		(void)snprintf(fault->why, sizeof fault->why, "the body's \"model\" is longer than any name");
		return -SBX_ESYNTAX;
	}
	ex->route = sbx_router_route(router, name);
	return sbx_router_resolve(router, name, quiet, &ex->req, now_ns, fault->why, sizeof fault->why);
}

static int
resolve(struct sbx_exchange *ex, const struct sbx_submit *submit, const struct sbx_routing *routing, uint64_t now_ns, struct sbx_refusal *r)
{
	struct sbx_fault fault = { .unsupported = false };
	ex->world->router.now_unix_s = (int64_t)time(NULL);
	int rc = resolve_own(ex, submit, routing, now_ns, &fault);
	bool others = routing && routing->models.n + routing->fallbacks.n > 0;
	if (routing && (rc == 0 || (rc == -SBX_EINVAL && others))) {
		fault.param[0] = '\0';
		rc = sbx_wish_apply(&ex->world->router, routing, ex->ask.reasoning_off, &ex->req, now_ns, &fault);
	}
	switch (rc) {
	case 0:
		return 0;
	case -SBX_ENOENT:
		return refuse_fault(r, SBX_CODE_UNKNOWN_MODEL, -1, &fault);
	case -SBX_EBUSY:
		return refuse_fault(r, SBX_CODE_BUSY, 1000, &fault);
	case -SBX_EINVAL:
		return refuse_fault(r, SBX_CODE_UNSUPPORTED, -1, &fault);
	default:
		return refuse_fault(r, SBX_CODE_INVALID_REQUEST, -1, &fault);
	}
}

/* The frame's limit and the body's both hold. */
static uint64_t
deadline_ms(const struct sbx_submit *submit, const struct sbx_routing *routing)
{
	uint64_t frame_ms = submit->deadline_ms, body_ms = routing ? routing->timeout_ms : 0;
	if (frame_ms && body_ms)
		return frame_ms < body_ms ? frame_ms : body_ms;
	return frame_ms ? frame_ms : body_ms ? body_ms : SBX_DEADLINE_DEFAULT_MS;
}

int
sbx_admit_request(struct sbx_exchange *ex, const struct sbx_submit *submit, uint64_t now_ns, struct sbx_refusal *r)
{
	struct sbx_agent *agent = ex->agent;
	struct sbx_routing said, *routing = submit->as_http ? &said : NULL;
	struct sbx_fault fault;
	if (submit->dialect->read_request(submit->op, (struct sbx_span){ ex->body, submit->body.n }, &agent->scratch, routing, &ex->ask, &fault))
		return refuse_fault(r, fault.unsupported ? SBX_CODE_UNSUPPORTED : SBX_CODE_INVALID_REQUEST, -1, &fault);
	if (routing && routing->tags.n && !agent->store) {
		(void)snprintf(r->param, sizeof r->param, "%s", routing->tags_param);
		return sbx_refuse(r, SBX_CODE_UNSUPPORTED, -1, "tags are kept by the store, and this agent has none: see \"store\" in its configuration");
	}
	if (sbx_vkeys_admit(agent, submit, &ex->ask, routing, r))
		return -SBX_EINVAL;
	ex->want_cost = routing && routing->want_cost;
	ex->client_usage = ex->ask.body_include_usage || ex->want_cost;
	sbx_request_init(&ex->req, submit->has_stream ? submit->stream : ex->ask.body_stream, submit->restart,
	                 now_ns + deadline_ms(submit, routing) * 1000000u, now_ns, agent->seed++);
	ex->req.op = submit->op;
	int rc = resolve(ex, submit, routing, now_ns, r);
	if (rc)
		return rc;
	if (sbx_whom_new(agent, ex->peer, submit, routing, &ex->whom))
		return sbx_refuse(r, SBX_CODE_INTERNAL, 1000, "out of memory");
	return 0;
}
