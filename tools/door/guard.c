/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard.c -- may this request come in? Decided by its head, before its body is read.
 *
 * A page in a browser can send requests to loopback, and by DNS rebinding even read the answers: so Host has to be a name that we are
 * known by, an Origin has to be one that was allowed, the body has to be declared as JSON (which a page cannot do without asking
 * first), a key is demanded on loopback as well, and no CORS header is ever sent. On a Unix socket, which no page can reach, any
 * one Host will do.
 *
 * libmicrohttpd 0.9.75 lets pass what one should not: two Hosts, two lengths, a length beside a transfer coding, NULs in headers. What
 * can be seen here is refused here. What cannot is harmless, since nothing of the request's framing is ever passed on.
 */
#include "tools/door/door.h"

#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#define IDEMPOTENCY_KEY_MAX_BYTES SBX_IDEMPOTENCY_KEY_MAX_BYTES
#define BEARER "Bearer "

/* What the head says; everything borrowed from libmicrohttpd. */
struct head {
	const struct door *door;
	const char *host, *origin, *authorization, *content_type, *length, *coding, *idempotency_key, *litellm_key, *litellm_timeout;
	const char *twice;      /* a header that may stand once, and does not */
	const char *unknown;    /* one of LiteLLM's that we would have to obey and cannot */
	bool has_nul;
};

static enum MHD_Result
see_header(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_bytes, const char *value, size_t value_bytes)
{
	struct head *h = arg;
	const struct {
		const char *name;
		const char **at;
		bool litellm;
	} row[] = {
		{ "host", &h->host, false },
		{ "origin", &h->origin, false },
		{ "authorization", &h->authorization, false },
		{ "content-type", &h->content_type, false },
		{ "content-length", &h->length, false },
		{ "transfer-encoding", &h->coding, false },
		{ "idempotency-key", &h->idempotency_key, false },
		{ "x-litellm-api-key", &h->litellm_key, true },
		{ "x-litellm-timeout", &h->litellm_timeout, true },
	};
	(void)kind;
	if (!value || strlen(value) != value_bytes || strlen(name) != name_bytes) {
		h->has_nul |= value != NULL;
		return MHD_YES;
	}
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		if (strcasecmp(name, row[i].name) != 0 || (row[i].litellm && !h->door->options.litellm))
			continue;
		if (*row[i].at)
			h->twice = row[i].name;
		*row[i].at = value;
		return MHD_YES;
	}
	if (h->door->options.litellm && strncasecmp(name, "x-litellm-", 10) == 0)
		h->unknown = name;
	return MHD_YES;
}

/* ---- hosts ---- */

bool
guard_allow_host(struct door *d, const char *fmt, ...)
{
	va_list ap;
	char *name;
	va_start(ap, fmt);
	int n = vasprintf(&name, fmt, ap);
	va_end(ap);
	if (n < 0 || d->n_allowed_hosts == ALLOWED_HOSTS_MAX) {
		if (n >= 0)
			free(name);
		return false;
	}
	d->allowed_host[d->n_allowed_hosts++] = name;
	return true;
}

static bool
is_among(const char *text, const char *const *among, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (strcasecmp(text, among[i]) == 0)
			return true;
	return false;
}

static bool
is_host(const char *text)
{
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]%");
	return n <= 255 && !text[n];
}

/* ---- the target ---- */

/* "//" and encoded NULs, dots and slashes have no use here, and have fooled others: a path is compared as it is written. */
bool
guard_target_is_bad(const char *raw)
{
	if (raw[0] != '/')
		return true; /* absolute-form, authority-form, "*" */
	size_t n = strcspn(raw, "?#");
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)raw[i];
		if (c <= ' ' || c >= 0x7f || c == '\\' || (c == '/' && raw[i + 1] == '/' && i + 1 < n))
			return true;
		if (c == '%' && (strncmp(raw + i, "%00", 3) == 0 || strncasecmp(raw + i, "%2e", 3) == 0 || strncasecmp(raw + i, "%5c", 3) == 0))
			return true;
	}
	return false;
}

/* ---- bodies ---- */

static const char *
header(struct call *call, const char *name)
{
	return MHD_lookup_connection_value(call->conn->mhd, MHD_HEADER_KIND, name);
}

bool
guard_expects_continue(struct call *call)
{
	return header(call, "Expect") != NULL;
}

uint64_t
guard_length(struct call *call)
{
	const char *length = header(call, "Content-Length");
	if (header(call, "Transfer-Encoding"))
		return UINT64_MAX;
	return length ? strtoull(length, NULL, 10) : 0; /* libmicrohttpd has refused what is no number */
}

static bool
is_json(const char *type)
{
	static const char json[] = "application/json";
	const size_t n = sizeof json - 1;
	return type && strncasecmp(type, json, n) == 0 && (!type[n] || type[n] == ';' || type[n] == ' ');
}

/* ---- keys ---- */

static enum verdict
may_enter(struct call *call, const struct head *h)
{
	const char *key = h->litellm_key;
	if (call->conn->trusted) {
		(void)snprintf(call->principal.tenant, sizeof call->principal.tenant, "uid:%u", (unsigned)call->conn->uid);
		(void)snprintf(call->principal.key_id, sizeof call->principal.key_id, "none");
		return VERDICT_GOOD;
	}
	if (!key && h->authorization && strncasecmp(h->authorization, BEARER, sizeof BEARER - 1) == 0) {
		key = h->authorization + sizeof BEARER - 1;
		key += strspn(key, " ");
	}
	if (key && strncasecmp(key, BEARER, sizeof BEARER - 1) == 0)
		key += sizeof BEARER - 1; /* x-litellm-api-key may carry the word as well */
	return key ? keys_check(call, key) : VERDICT_BAD;
}

static bool
take_idempotency_key(struct call *call, const char *key)
{
	size_t n = strlen(key);
	if (n == 0 || n > IDEMPOTENCY_KEY_MAX_BYTES)
		return false;
	for (size_t i = 0; i < n; i++)
		if (key[i] <= ' ' || key[i] > '~')
			return false;
	call->idempotency_key = key;
	return true;
}

static bool
take_timeout(struct call *call, const char *text)
{
	char *end;
	double seconds = strtod(text, &end);
	if (end == text || *end || !(seconds >= 0.001 && seconds * 1000 <= SBX_DEADLINE_MAX_MS))
		return false;
	call->deadline_ms = (uint32_t)(seconds * 1000);
	return true;
}

#define REFUSE(...) return (*ret_problem = problem_of(__VA_ARGS__), false)
#define REFUSE_AND_CLOSE(...) return (*ret_problem = problem_of(__VA_ARGS__), ret_problem->close = true, false)

/* Is it well formed, and does it come from where it may? After what can be read in two ways the connection ends: where the next
 * request begins is anybody's guess. */
static bool
check_origin(struct call *call, const struct head *h, struct problem *ret_problem)
{
	const struct door *d = call->conn->door;
	if (call->conn->bad_target)
		REFUSE_AND_CLOSE(400, "invalid_request_error", "invalid_request", "this path is not written as a path of this API is");
	if (h->has_nul)
		REFUSE_AND_CLOSE(400, "invalid_request_error", "invalid_request", "a header holds a NUL");
	if (h->twice)
		REFUSE_AND_CLOSE(400, "invalid_request_error", "invalid_request", "the header %s is there twice", h->twice);
	if (h->length && h->coding)
		REFUSE_AND_CLOSE(400, "invalid_request_error", "invalid_request", "Content-Length and Transfer-Encoding exclude each other");
	if (!h->host || !is_host(h->host))
		REFUSE(400, "invalid_request_error", "invalid_request", "a Host header is needed");
	if (!call->conn->local && !is_among(h->host, (const char *const *)d->allowed_host, d->n_allowed_hosts))
		REFUSE(403, "invalid_request_error", "forbidden_host", "this door is not known by that Host; --host adds names to it");
	if (h->origin && !is_among(h->origin, d->options.origin, d->options.n_origin))
		REFUSE(403, "invalid_request_error", "forbidden_origin", "requests of web pages are refused; --origin allows one");
	return true;
}

static bool
check_body(struct call *call, const struct head *h, struct problem *ret_problem)
{
	if (!is_json(h->content_type))
		REFUSE(415, "invalid_request_error", "unsupported_media_type", "Content-Type has to be application/json");
	if (h->idempotency_key && !take_idempotency_key(call, h->idempotency_key))
		REFUSE(400, "invalid_request_error", "invalid_request", "Idempotency-Key has 1 to %d printable characters", IDEMPOTENCY_KEY_MAX_BYTES);
	if (h->unknown)
		REFUSE(400, "invalid_request_error", "unsupported", "the header %.64s is not supported; nothing is ignored that would change the answer", h->unknown);
	if (h->litellm_timeout && !take_timeout(call, h->litellm_timeout))
		REFUSE(400, "invalid_request_error", "invalid_request", "x-litellm-timeout is a number of seconds, at most a day");
	uint64_t length = guard_length(call);
	if (length != UINT64_MAX && length > BODY_MAX_BYTES)
		REFUSE(413, "invalid_request_error", "too_large", "the body is larger than %u MiB", BODY_MAX_BYTES >> 20);
	return true;
}

bool
guard_check(struct call *call, const char *url, const char *method, struct problem *ret_problem)
{
	struct head h = { .door = call->conn->door };
	const char *allow = NULL;
	(void)MHD_get_connection_values_n(call->conn->mhd, MHD_HEADER_KIND, see_header, &h);
	if (!check_origin(call, &h, ret_problem))
		return false;
	call->endpoint = endpoint_find(url, method, &call->name, &allow);
	call->verdict = call->endpoint && (call->endpoint->open || metrics_are_open(call)) ? VERDICT_GOOD : may_enter(call, &h);
	if (call->verdict != VERDICT_GOOD)
		call->endpoint = NULL; /* who has no key learns nothing of what there is */
	switch (call->verdict) {
	case VERDICT_GOOD:
		break;
	case VERDICT_ASKED:
		return false;
	case VERDICT_UNKNOWN:
		*ret_problem = problem_of(503, "server_error", "agent_unavailable", "the key cannot be checked, because the signalbox agent of this host does not answer");
		ret_problem->retry_after_s = 1;
		return false;
	case VERDICT_NONE:
	case VERDICT_BAD:
		REFUSE(401, "invalid_request_error", "invalid_api_key", "a valid key is needed: Authorization: Bearer KEY");
	}
	if (!call->endpoint && allow) {
		*ret_problem = problem_of(405, "invalid_request_error", "method_not_allowed", "this path takes %s", allow);
		ret_problem->allow = allow;
		return false;
	}
	if (!call->endpoint)
		REFUSE(404, "invalid_request_error", "unknown_url", "no such path; the base URL of this door ends in /v1");
	return !call->endpoint->operation || check_body(call, &h, ret_problem);
}
