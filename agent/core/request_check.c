/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request_check.c -- a request looked at from outside: the names of its states, and the invariants that hold between steps.
 *
 * The checks recount from the attempts what request.c keeps as running counters, so that a slip in one of them shows. They are
 * cheap enough for the simulation and the fuzzer to make after every step. What no single request can know (one terminal event,
 * nothing left in health at rest, no success that is not complete by the provider's own script) is checked in tests/sim.
 */
#include "agent/core/request.h"

#include <stddef.h>

const char *
sbx_req_state_name(enum sbx_req_state s)
{
	static const char *const name[SBX_REQ__COUNT] = {
#define X(n) [SBX_REQ_##n] = #n,
		SBX_REQ_STATES(X)
#undef X
	};
	return (unsigned)s < SBX_REQ__COUNT ? name[s] : "?";
}

const char *
sbx_att_state_name(enum sbx_att_state s)
{
	static const char *const name[SBX_ATT__COUNT] = {
#define X(n) [SBX_ATT_##n] = #n,
		SBX_ATT_STATES(X)
#undef X
	};
	return (unsigned)s < SBX_ATT__COUNT ? name[s] : "?";
}

static const char *
validate_attempt(const struct sbx_request *req, const struct sbx_attempt *a)
{
	const bool ended = a->state == SBX_ATT_ENDED;

	if (a->candidate >= req->n_candidates || req->candidate[a->candidate].target != a->target)
		return "an attempt is on the target of its candidate";
	if (a->state == SBX_ATT_QUEUED)
		return "an attempt starts at once";
	if (ended != (a->class != SBX_CLASS_NONE))
		return "an attempt has a class exactly when it has ended";
	if (a->started_ns < req->started_ns || (a->sent_ns && a->sent_ns < a->started_ns) ||
	    (a->first_content_ns && a->first_content_ns < a->sent_ns) || (ended && a->ended_ns < a->started_ns))
		return "the times of an attempt are in order";
	if (a->class == SBX_CLASS_OK && !a->complete)
		return "only a complete answer is a success";
	if (a->state == SBX_ATT_STREAMING && (!req->stream || a->last_content_ns == 0))
		return "only a stream with content is STREAMING";
	if (!ended && a->state != SBX_ATT_STREAMING && a->limit_ns == UINT64_MAX)
		return "every state of a running attempt has a limit";
	return NULL;
}

const char *
sbx_request_validate(const struct sbx_request *req)
{
	unsigned running = 0, counted = 0, uncounted = 0, ok = 0, by_candidate = 0, counted_max = 0;

	if (req->magic != SBX_REQUEST_MAGIC || req->state >= SBX_REQ__COUNT)
		return "it is a request";
	if (req->n_candidates > SBX_ROUTE_TARGETS_MAX || req->n_attempts > SBX_ATTEMPTS_MAX || req->shown > SBX_ATTEMPTS_MAX)
		return "counts are within their arrays";
	for (uint8_t i = 0; i < req->n_attempts; i++) {
		const struct sbx_attempt *a = &req->attempt[i];
		const char *why = validate_attempt(req, a);

		if (why)
			return why;
		running += a->state != SBX_ATT_ENDED;
		counted += a->state == SBX_ATT_ENDED && sbx_class_counts(a->class);
		uncounted += a->state == SBX_ATT_ENDED && !sbx_class_counts(a->class);
		ok += a->class == SBX_CLASS_OK;
	}
	for (uint8_t i = 0; i < req->n_candidates; i++) {
		const struct sbx_candidate_row *c = &req->candidate[i];

		if (c->counted > c->policy->attempts_per_target)
			return "counted attempts of a target are bounded";
		if (c->policy->attempts_max > counted_max)
			counted_max = c->policy->attempts_max;
		by_candidate += (unsigned)c->counted + c->uncounted;
	}
	if (running != req->running || counted != req->counted || by_candidate != counted + uncounted)
		return "the counters are what the attempts say";
	if (req->counted > counted_max)
		return "counted attempts of a request are bounded";
	if (running > 1 || (running == 1) != (req->state == SBX_REQ_TRYING || req->state == SBX_REQ_COMMITTED))
		return "an attempt runs exactly while the request is TRYING or COMMITTED";
	if (req->state == SBX_REQ_ROUTING)
		return "ROUTING does not outlast a step";
	if (req->state == SBX_REQ_WAITING && (req->wait_until_ns <= req->wait_from_ns || req->wait_until_ns > req->deadline_ns))
		return "a wait ends, and not after the deadline";
	if (req->state == SBX_REQ_COMMITTED && (!req->stream || !req->content_reached))
		return "only content of a stream commits";
	if (req->content_reached && req->state == SBX_REQ_TRYING)
		return "after content no other attempt starts without a RESET";
	if ((ok == 1) != (req->state == SBX_REQ_DONE))
		return "a request is DONE exactly when one attempt succeeded";
	if (sbx_request_ended(req) != (sbx_request_wake_ns(req) == UINT64_MAX) || sbx_request_ended(req) != (req->ended_ns != 0))
		return "every state that is not final has a deadline";
	if (!sbx_request_ended(req) && sbx_request_wake_ns(req) > req->deadline_ns)
		return "nothing is waited for beyond the deadline";
	return NULL;
}
