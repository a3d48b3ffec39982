/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay.c -- one HTTP request, one request to the agent.
 *
 *   WAITING --first DATA of a stream, or commit_after--> STREAMING --DONE, ERROR--> ended; what is in `out` goes first
 *           --DONE of a whole answer, ERROR------------> READY
 *
 * HOLD-BACK. Nothing is said before the first piece of the answer is there, so a failure before it has a status of its own and an
 * SDK can raise what it means. A stream that waits for longer than commit_after is given its head and a comment after all, since
 * proxies and people give up on silence; from then on a failure is an event of the stream.
 *
 * CREDIT. What a stream's reader has not taken is not granted to the agent again, which then stops reading from the provider: at
 * most 256 KiB wait here for a slow reader, and no other one waits for it. A whole answer is granted as it comes; the agent bounds it.
 */
#include "tools/door/door.h"

#include "agent/log.h"

#define COMMENT ": waiting\n\n"

static void
refuse_agent(struct call *call, int rc, const char *why)
{
	struct problem p;
	switch (rc) {
	case -SBX_EBUSY:
		p = problem_of(503, "server_error", "busy", "%s", why);
		p.retry_after_s = 1;
		break;
	case -SBX_ETOOBIG:
		p = problem_of(413, "invalid_request_error", "too_large", "%s", why);
		break;
	case -SBX_EINVAL:
		p = problem_of(400, "invalid_request_error", "invalid_request", "%s", why);
		break;
	case -SBX_EAGENT:
	case -SBX_EACCESS:
	case -SBX_EVERSION:
		p = problem_of(503, "server_error", "agent_unavailable", "the signalbox agent of this host cannot be reached: %s", why);
		p.retry_after_s = 1;
		break;
	default:
		p = problem_of(500, "server_error", "internal", "%s", why);
		break;
	}
	answer_problem(call, &p);
}

void
relay_begin(struct call *call)
{
	struct sbx_request_options o = SBX_REQUEST_INIT;
	const char *why = "";
	o.body = call->body.at ? call->body.at + call->body.from : NULL;
	o.body_bytes = call->body.n;
	o.operation = call->endpoint->operation;
	o.as_http = true;
	o.tenant = call->principal.tenant;
	o.key_id = call->principal.key_id;
	o.deadline_ms = call->deadline_ms;
	o.idempotency_key = call->idempotency_key;
	if (call->conn->hung_up) {
		conn_kill(call->conn); /* it did not wait for the answer */
		return;
	}
	if (o.body_bytes == 0) {
		const struct problem p = problem_of(400, "invalid_request_error", "invalid_request", "the body is empty; it should be a JSON object");
		answer_problem(call, &p);
		return;
	}
	int rc = links_submit(call, &o, &why);
	bytes_fini(&call->body); /* the library has its copy */
	if (rc)
		refuse_agent(call, rc, why);
}

void
relay_abandon(struct call *call)
{
	if (!call->request)
		return;
	struct link *l = call->link;
	uint64_t request = call->request;
	links_forget(call);
	(void)sbx_cancel(l->client, request); /* it may have ended, which is as good */
}

/* There is no memory for what should be said: better no answer than half of one that looks whole. */
static void
give_up(struct call *call)
{
	relay_abandon(call);
	sbx_log(SBX_LOG_ERROR, "no_memory", SBX_STR("for", "an answer"), SBX_STR("request", call->id));
	conn_kill(call->conn);
}

/* ---- events ---- */

static void
on_target(struct call *call, const struct sbx_event *ev)
{
	if (call->n_targets && strcmp(call->target, ev->text) != 0)
		call->n_switches++;
	call->n_targets++;
	size_t n = ev->text_bytes < sizeof call->target - 1 ? ev->text_bytes : sizeof call->target - 1;
	memcpy(call->target, ev->text, n);
	call->target[n] = 0;
}

static void
on_data(struct call *call, const struct sbx_event *ev)
{
	size_t n = ev->text_bytes;
	if (!bytes_append(&call->out, ev->text, n)) {
		give_up(call);
	} else if (!call->streamed) {
		(void)sbx_grant(call->link->client, call->request, n); /* the event is over with this */
	} else if (call->state == CALL_WAITING) {
		answer_stream(call);
	} else {
		clock_set(call->conn, CLOCK_NONE);
		call_wake(call);
	}
}

static void
on_end(struct call *call, const struct sbx_event *ev)
{
	bool ok = ev->note == SBX_NOTE_DONE, began = call->state == CALL_STREAMING;
	call->ended = true;
	clock_set(call->conn, CLOCK_NONE);
	if (!began && !ok)
		answer_failure(call, ev->reply);
	else if (!began && !call->streamed)
		answer_whole(call, ev->reply);
	else if (!began)
		answer_stream(call);
	else if (ok || answer_failure_in_stream(call, ev->reply))
		call_wake(call);
	else
		give_up(call);
}

void
relay_on_event(struct call *call, const struct sbx_event *ev)
{
	if (call->state == CALL_CHECKING) {
		keys_on_answer(call, ev);
		return;
	}
	if (!call->endpoint->operation) {
		if (ev->last)
			call->endpoint->on_reply(call, ev->note == SBX_NOTE_STATS ? ev->reply : NULL);
		return;
	}
	switch (ev->note) {
	case SBX_NOTE_ACCEPTED:
		call->streamed = ev->streamed;
		call->out.max = call->streamed ? STREAM_MAX_BYTES : WHOLE_MAX_BYTES;
		if (call->streamed && call->conn->door->options.commit_after_ns)
			clock_set(call->conn, CLOCK_COMMIT);
		break;
	case SBX_NOTE_TARGET:
		on_target(call, ev);
		break;
	case SBX_NOTE_DATA:
		on_data(call, ev);
		break;
	case SBX_NOTE_RESET: /* submitted again by the library, which happens only before anything was said to the client */
		call->out.from = call->out.n = 0;
		break;
	case SBX_NOTE_DONE:
	case SBX_NOTE_ERROR:
		on_end(call, ev);
		break;
	default:
		break;
	}
}

void
relay_on_clock(struct call *call)
{
	if (!bytes_append(&call->out, COMMENT, sizeof COMMENT - 1)) {
		give_up(call);
		return;
	}
	if (call->state == CALL_WAITING)
		answer_stream(call);
	else
		call_wake(call);
	clock_set(call->conn, CLOCK_COMMENT);
}
