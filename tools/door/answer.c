/* SPDX-License-Identifier: Apache-2.0 */
/*
 * answer.c -- status, headers and bodies of what is said.
 *
 * An error has OpenAI's shape: that of the agent, which knows the dialect, is passed on as it is; only what is decided here, or by
 * the library when the agent is gone, is worded here. x-should-retry tells an SDK whether to ask again: it says false once the
 * agent has tried, since its retries and ours would multiply.
 *
 * Numbers that are known only at the end (cost, overhead) are headers of whole answers alone. HTTP trailers are not used: SDKs do
 * not read them; a stream tells its cost in its usage.
 */
#include "tools/door/door.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include <jansson.h>

#include "agent/log.h"

struct problem
problem_of(int status, const char *type, const char *code, const char *fmt, ...)
{
	struct problem p = { .status = status, .type = type, .code = code, .retry_after_s = -1 };
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(p.message, sizeof p.message, fmt, ap);
	va_end(ap);
	return p;
}

/* ---- headers ---- */

static void
put(struct call *call, const char *name, const char *value)
{
	(void)MHD_add_response_header(call->response, name, value); /* refused: no memory, or a line end in it; the answer stands without */
}

static void put_fmt(struct call *call, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void
put_fmt(struct call *call, const char *name, const char *fmt, ...)
{
	char value[64];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(value, sizeof value, fmt, ap);
	va_end(ap);
	put(call, name, value);
}

static void
put_usd(struct call *call, const char *name, int64_t nanousd)
{
	put_fmt(call, name, "%lld.%09lld", (long long)(nanousd / 1000000000), (long long)(nanousd % 1000000000));
}

/* What is known whenever an answer begins. */
static void
put_common(struct call *call)
{
	const struct door_options *o = &call->conn->door->options;
	put(call, "x-request-id", call->id);
	if (call->target[0]) {
		put(call, "x-signalbox-target", call->target);
		put_fmt(call, "x-signalbox-attempts", "%u", call->n_targets);
	}
	if (o->litellm && call->endpoint && call->endpoint->operation) {
		put(call, "x-litellm-call-id", call->id);
		if (call->target[0]) {
			put(call, "x-litellm-model-id", call->target);
			put_fmt(call, "x-litellm-attempted-retries", "%u", call->n_targets - 1 - call->n_switches);
			put_fmt(call, "x-litellm-attempted-fallbacks", "%u", call->n_switches);
		}
	}
	if (call->conn->door->draining)
		put(call, "Connection", "close");
}

static uint64_t
monotonic_ns(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* What the end of the request tells. Overhead: its time without that from the first attempt's start to the last one's end. */
static void
put_bill(struct call *call, const struct sbx_reply *reply)
{
	const struct door_options *o = &call->conn->door->options;
	struct sbx_attempt_info a;
	uint64_t total_ms = (monotonic_ns() - call->began_ns) / 1000000;
	uint32_t from_ms = UINT32_MAX, to_ms = 0;
	for (uint32_t i = 0; sbx_reply_attempt(reply, i, &a); i++) {
		if (a.ended_ms == 0)
			continue; /* passed over */
		from_ms = a.started_ms < from_ms ? a.started_ms : from_ms;
		to_ms = a.ended_ms > to_ms ? a.ended_ms : to_ms;
	}
	uint64_t busy_ms = to_ms > from_ms ? to_ms - from_ms : 0;
	uint64_t overhead_ms = total_ms > busy_ms ? total_ms - busy_ms : 0;
	int64_t cost = sbx_reply_cost_nanousd(reply);
	put_fmt(call, "x-signalbox-overhead", "%llu", (unsigned long long)overhead_ms);
	if (cost >= 0)
		put_usd(call, "x-signalbox-cost", cost);
	if (!o->litellm)
		return;
	put_fmt(call, "x-litellm-response-duration-ms", "%llu", (unsigned long long)total_ms);
	put_fmt(call, "x-litellm-overhead-duration-ms", "%llu", (unsigned long long)overhead_ms);
	if (cost >= 0)
		put_usd(call, "x-litellm-response-cost", cost);
}

/* ---- bodies ---- */

/* Takes `bytes`, a malloc'd text; NULL = there was no memory for it. */
static void
respond(struct call *call, int status, const char *type, char *bytes, size_t n)
{
	call->response = bytes ? MHD_create_response_from_buffer(n, bytes, MHD_RESPMEM_MUST_FREE) : NULL;
	if (!call->response) {
		free(bytes);
		sbx_log(SBX_LOG_ERROR, "no_memory", SBX_STR("for", "an answer"), SBX_STR("request", call->id));
		conn_kill(call->conn);
		return;
	}
	call->status = status;
	call->state = CALL_READY;
	call->conn->door->count.sent_bytes += n;
	put(call, "Content-Type", type);
	put_common(call);
}

static char *
error_json(const char *type, const char *code, const char *message)
{
	json_t *j = json_pack("{s:{s:s, s:s, s:n, s:s}}", "error", "message", message, "type", type, "param", "code", code);
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	return text;
}

static void
log_failure(const struct call *call, int status, const char *code)
{
	sbx_log(status >= 500 ? SBX_LOG_INFO : SBX_LOG_DEBUG, "refused", SBX_STR("request", call->id),
	        SBX_STR("endpoint", call->endpoint ? call->endpoint->path : NULL), SBX_INT("status", status), SBX_STR("code", code));
}

void
answer_problem(struct call *call, const struct problem *problem)
{
	char *json = error_json(problem->type, problem->code, problem->message);
	respond(call, problem->status, "application/json", json, json ? strlen(json) : 0);
	if (!call->response)
		return;
	if (problem->retry_after_s >= 0)
		put_fmt(call, "Retry-After", "%d", problem->retry_after_s);
	if (problem->allow)
		put(call, "Allow", problem->allow);
	if (problem->close)
		put(call, "Connection", "close");
	if (problem->status == 401)
		put(call, "WWW-Authenticate", "Bearer");
	put(call, "x-should-retry", problem->retry_after_s >= 0 ? "true" : "false");
	log_failure(call, problem->status, problem->code);
	call_wake(call);
}

void
answer_json(struct call *call, int status, char *json)
{
	respond(call, status, "application/json", json, json ? strlen(json) : 0);
	call_wake(call);
}

void
answer_text(struct call *call, const char *type, char *text, size_t n)
{
	respond(call, 200, type, text, n);
	call_wake(call);
}

void
answer_whole(struct call *call, const struct sbx_reply *reply)
{
	struct bytes *out = &call->out;
	char *json = out->n ? out->at : calloc(1, 1); /* nothing was ever taken from the front of it */
	size_t n = out->n;
	if (out->n)
		*out = (struct bytes){ .max = out->max };
	respond(call, 200, "application/json", json, n);
	if (!call->response)
		return;
	put_bill(call, reply);
	call_wake(call);
}

/* The error as a body: the agent's own, or, when it is the library that tells, ours. */
static char *
failure_json(const struct sbx_reply *reply, size_t *ret_n)
{
	size_t n;
	const char *data = sbx_reply_data(reply, &n);
	char *json = NULL;
	if (data && n) {
		json = malloc(n);
		if (json)
			memcpy(json, data, n);
	} else {
		json = error_json("server_error", sbx_reply_code_word(reply), sbx_reply_message(reply));
		n = json ? strlen(json) : 0;
	}
	*ret_n = n;
	return json;
}

/* Attempts come first; behind them stand the targets that were passed over. */
static bool
was_tried(const struct sbx_reply *reply)
{
	struct sbx_attempt_info first;
	return sbx_reply_attempt(reply, 0, &first) && strcmp(first.outcome, "PASSED_OVER") != 0;
}

static bool
should_retry(const struct sbx_reply *reply)
{
	if (sbx_reply_code(reply) == SBX_CODE_AGENT_LOST)
		return !sbx_reply_sent(reply);
	return sbx_reply_retryable(reply) && !was_tried(reply);
}

void
answer_failure(struct call *call, const struct sbx_reply *reply)
{
	int status = sbx_reply_status(reply);
	int64_t wait_ms = sbx_reply_retry_after_ms(reply);
	size_t n;
	char *json = failure_json(reply, &n);
	respond(call, status >= 400 && status <= 599 ? status : 502, "application/json", json, n);
	if (!call->response)
		return;
	if (wait_ms >= 0) {
		put_fmt(call, "Retry-After", "%lld", (long long)(wait_ms + 999) / 1000);
		put_fmt(call, "retry-after-ms", "%lld", (long long)wait_ms);
	} else if (sbx_reply_code(reply) == SBX_CODE_AGENT_LOST) {
		put(call, "Retry-After", "1");
	}
	put(call, "x-should-retry", should_retry(reply) ? "true" : "false");
	if (was_tried(reply))
		put_bill(call, reply);
	log_failure(call, call->status, sbx_reply_code_word(reply));
	call_wake(call);
}

/* ---- streams ---- */

static ssize_t
read_stream(void *cls, uint64_t at, char *to, size_t max)
{
	struct call *call = cls;
	struct bytes *out = &call->out;
	(void)at;
	if (call->conn->killed)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (out->n == 0 && call->ended)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (out->n == 0) {
		call->suspended = true;
		MHD_suspend_connection(call->conn->mhd);
		return 0;
	}
	size_t n = out->n < max ? out->n : max;
	memcpy(to, out->at + out->from, n);
	bytes_take(out, n);
	call->conn->door->count.sent_bytes += n;
	if (call->request)
		(void)sbx_grant(call->link->client, call->request, n);
	return (ssize_t)n;
}

void
answer_stream(struct call *call)
{
	/* The block size is a hint that nothing follows: a piece is sent as soon as it is there. */
	call->response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, HEADER_POOL_BYTES, read_stream, call, NULL);
	if (!call->response) {
		sbx_log(SBX_LOG_ERROR, "no_memory", SBX_STR("for", "an answer"), SBX_STR("request", call->id));
		relay_abandon(call);
		conn_kill(call->conn);
		return;
	}
	call->status = 200;
	call->state = CALL_STREAMING;
	put(call, "Content-Type", "text/event-stream; charset=utf-8");
	put(call, "Cache-Control", "no-cache");
	put(call, "X-Accel-Buffering", "no"); /* a proxy before us should not gather what is meant to be read as it comes */
	put_common(call);
	call_wake(call);
}

bool
answer_failure_in_stream(struct call *call, const struct sbx_reply *reply)
{
	size_t n;
	char *json = failure_json(reply, &n);
	if (!json)
		return false;
	for (size_t i = 0; i < n; i++)
		if (json[i] == '\n' || json[i] == '\r') /* between tokens, where a blank means the same; an event's line ends there */
			json[i] = ' ';
	call->out.max = STREAM_MAX_BYTES + n + 16; /* what is there, and this */
	bool ok = bytes_append(&call->out, "data: ", 6) && bytes_append(&call->out, json, n) && bytes_append(&call->out, "\n\n", 2);
	free(json);
	log_failure(call, 200, sbx_reply_code_word(reply));
	return ok;
}
