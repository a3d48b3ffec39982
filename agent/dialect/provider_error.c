/* SPDX-License-Identifier: Apache-2.0 */
/* provider_error.c -- see provider_error.h. New words of a provider are a new line in one of the two tables. */
#include "agent/dialect/provider_error.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define STATUS_WORD_BYTES 16 /* a number read as a word: "429" */

/* ==== the kind ==== */

/* Codes and types. A weak word is one that its users also send for other things: it counts only where the status agrees,
 * and after the message had its say. */
static const struct kind_word {
	const char *word;
	enum sbx_error_kind kind;
	bool weak;
} kind_words[] = {
	{"invalid_api_key", SBX_KIND_AUTH, false},
	{"authentication_error", SBX_KIND_AUTH, false},
	{"invalid_authentication", SBX_KIND_AUTH, false},
	{"invalid_authentication_error", SBX_KIND_AUTH, false},
	{"incorrect_api_key_error", SBX_KIND_AUTH, false},
	{"AuthenticationError", SBX_KIND_AUTH, false},
	{"unauthenticated", SBX_KIND_AUTH, false},
	{"unauthorized", SBX_KIND_AUTH, false},
	{"account_deactivated", SBX_KIND_AUTH, false},
	{"permission_error", SBX_KIND_PERMISSION, false},
	{"permission_denied", SBX_KIND_PERMISSION, false},
	{"permission_denied_error", SBX_KIND_PERMISSION, false},
	{"access_denied", SBX_KIND_PERMISSION, false},
	{"insufficient_quota", SBX_KIND_QUOTA, false},
	{"insufficient_balance", SBX_KIND_QUOTA, false},
	{"insufficient_credits", SBX_KIND_QUOTA, false},
	{"billing_error", SBX_KIND_QUOTA, false},
	{"billing_not_active", SBX_KIND_QUOTA, false},
	{"billing_hard_limit_reached", SBX_KIND_QUOTA, false},
	{"credit_balance_exhausted", SBX_KIND_QUOTA, false},
	{"organization_spend_limit_exceeded", SBX_KIND_QUOTA, false},
	{"project_spend_limit_exceeded", SBX_KIND_QUOTA, false},
	{"organization_usage_limit_exceeded", SBX_KIND_QUOTA, false},
	{"exceeded_current_quota_error", SBX_KIND_QUOTA, false},
	{"payment_required", SBX_KIND_QUOTA, false},
	{"enforced_spend_limit_reached", SBX_KIND_QUOTA, false}, /* Anthropic: in the details of a rate_limit_error */
	{"rate_limit_exceeded", SBX_KIND_RATE_LIMIT, false},
	{"rate_limit_error", SBX_KIND_RATE_LIMIT, false},
	{"rate_limited", SBX_KIND_RATE_LIMIT, false},
	{"rate_limit_reached_error", SBX_KIND_RATE_LIMIT, false},
	{"too_many_requests", SBX_KIND_RATE_LIMIT, false},
	{"tokens", SBX_KIND_RATE_LIMIT, false},
	{"requests", SBX_KIND_RATE_LIMIT, false},
	{"slow_down", SBX_KIND_OVERLOADED, false},
	{"server_is_overloaded", SBX_KIND_OVERLOADED, false},
	{"overloaded_error", SBX_KIND_OVERLOADED, false},
	{"overloaded", SBX_KIND_OVERLOADED, false},
	{"engine_overloaded_error", SBX_KIND_OVERLOADED, false},
	{"service_unavailable", SBX_KIND_OVERLOADED, false},
	{"unavailable", SBX_KIND_OVERLOADED, false},
	{"context_length_exceeded", SBX_KIND_CONTEXT_LENGTH, false},
	{"context_window_exceeded", SBX_KIND_CONTEXT_LENGTH, false},
	{"exceed_context_size_error", SBX_KIND_CONTEXT_LENGTH, false},
	{"content_filter", SBX_KIND_CONTENT_FILTER, false},
	{"content_policy_violation", SBX_KIND_CONTENT_FILTER, false},
	{"ResponsibleAIPolicyViolation", SBX_KIND_CONTENT_FILTER, false},
	{"moderation_blocked", SBX_KIND_CONTENT_FILTER, false},
	{"data_inspection_failed", SBX_KIND_CONTENT_FILTER, false},
	{"model_not_found", SBX_KIND_NOT_FOUND, false},
	{"DeploymentNotFound", SBX_KIND_NOT_FOUND, false},
	{"NotFoundError", SBX_KIND_NOT_FOUND, false},
	{"not_found_error", SBX_KIND_NOT_FOUND, false},
	{"resource_not_found_error", SBX_KIND_NOT_FOUND, false},
	{"tool_use_failed", SBX_KIND_SERVER, false}, /* the model made a bad call, the request is good */
	{"server_error", SBX_KIND_SERVER, false},
	{"internal_error", SBX_KIND_SERVER, false},
	{"internal_server_error", SBX_KIND_SERVER, false},
	{"InternalServerError", SBX_KIND_SERVER, false},
	{"timeout_error", SBX_KIND_SERVER, false},
	{"unsupported_value", SBX_KIND_INVALID, false},
	{"unsupported_parameter", SBX_KIND_INVALID, false},
	{"unknown_parameter", SBX_KIND_INVALID, false},
	{"missing_required_parameter", SBX_KIND_INVALID, false},
	{"invalid_value", SBX_KIND_INVALID, false},
	{"invalid_type", SBX_KIND_INVALID, false},
	{"invalid_request_error", SBX_KIND_INVALID, true},
	{"invalid_argument", SBX_KIND_INVALID, true}, /* Gemini: also for a bad key */
	{"BadRequestError", SBX_KIND_INVALID, true},
	{"bad_request", SBX_KIND_INVALID, true},
	{"api_error", SBX_KIND_SERVER, true}, /* Ollama: also for a 401 */
};

/* Sentences, where code and type say too little. */
static const struct kind_phrase {
	const char *phrase;
	enum sbx_error_kind kind;
} kind_phrases[] = {
	{"maximum context length", SBX_KIND_CONTEXT_LENGTH},
	{"max context length", SBX_KIND_CONTEXT_LENGTH},
	{"context length exceeded", SBX_KIND_CONTEXT_LENGTH},
	{"context window", SBX_KIND_CONTEXT_LENGTH},
	{"available context size", SBX_KIND_CONTEXT_LENGTH},
	{"prompt is too long", SBX_KIND_CONTEXT_LENGTH},
	{"prompt too long", SBX_KIND_CONTEXT_LENGTH},
	{"input token count", SBX_KIND_CONTEXT_LENGTH},
	{"incorrect api key", SBX_KIND_AUTH},
	{"invalid api key", SBX_KIND_AUTH},
	{"api key not valid", SBX_KIND_AUTH},
	{"api key not found", SBX_KIND_AUTH},
	{"api key expired", SBX_KIND_AUTH},
	{"insufficient balance", SBX_KIND_QUOTA},
	{"insufficient credits", SBX_KIND_QUOTA},
	{"exceeded your current quota", SBX_KIND_QUOTA},
	{"credit balance is too low", SBX_KIND_QUOTA},
	{"requires more credits", SBX_KIND_QUOTA},
	{"content management policy", SBX_KIND_CONTENT_FILTER},
	{"flagged by moderation", SBX_KIND_CONTENT_FILTER},
	{"requires moderation", SBX_KIND_CONTENT_FILTER},
	{"overloaded", SBX_KIND_OVERLOADED},
};

static const struct kind_word *
find_word(const char *word)
{
	for (size_t i = 0; *word && i < sizeof kind_words / sizeof kind_words[0]; i++)
		if (strcasecmp(kind_words[i].word, word) == 0)
			return &kind_words[i];
	return NULL;
}

/* A word for bad requests counts on a 4xx that means them, one for bad servers on a 5xx; both inside a 200. */
static bool
status_agrees(const struct kind_word *w, int status)
{
	if (status == 200)
		return true;
	return w->kind == SBX_KIND_INVALID ? status == 400 || status == 413 || status == 422 : status >= 500;
}

static enum sbx_error_kind
kind_of(const struct sbx_provider_error *e)
{
	const struct kind_word *words[] = {find_word(e->code), find_word(e->type)};
	for (size_t i = 0; i < 2; i++)
		if (words[i] && !words[i]->weak)
			return words[i]->kind;
	for (size_t i = 0; i < sizeof kind_phrases / sizeof kind_phrases[0]; i++)
		if (strcasestr(e->message, kind_phrases[i].phrase))
			return kind_phrases[i].kind;
	for (size_t i = 0; i < 2; i++)
		if (words[i] && status_agrees(words[i], e->status))
			return words[i]->kind;
	return SBX_KIND_UNKNOWN;
}

/* ==== the shapes ==== */

/* A word that may also come as a number. */
static void
read_word(struct sbx_span value, char *buf, size_t cap)
{
	if (sbx_json_type(value) == SBX_JSON_NUMBER)
		(void)snprintf(buf, cap, "%.*s", (int)(value.n < STATUS_WORD_BYTES ? value.n : STATUS_WORD_BYTES), value.at);
	else
		(void)sbx_json_string_fmt(value, buf, cap);
}

/* A message that may also be an object or a list: then its first text, or else its JSON. */
static void
read_message(struct sbx_span value, struct sbx_provider_error *e)
{
	static const char *const names[] = {"message", "msg", "detail"};
	for (int depth = 0; depth < 4; depth++) { /* {"message":{"detail":[{"msg":"..."}]}} is the deepest in use */
		struct sbx_json_iter it = sbx_json_array_iter(value);
		(void)sbx_json_array_next(&it, &value);
		if (sbx_json_type(value) != SBX_JSON_OBJECT)
			break;
		for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
			if (sbx_json_get(value, names[i], &value))
				break;
	}
	if (sbx_json_type(value) == SBX_JSON_STRING)
		(void)sbx_json_string_fmt(value, e->message, sizeof e->message);
	else if (sbx_json_type(value) != SBX_JSON_NULL && sbx_json_type(value) != SBX_JSON_NONE)
		(void)snprintf(e->message, sizeof e->message, "%.*s", (int)(value.n < 256 ? value.n : 256), value.at);
}

/* "34.4s" -> nanoseconds; -1 when it is no such thing. */
static int64_t
read_seconds(struct sbx_span value)
{
	char text[24];
	unsigned long seconds = 0;
	char fraction[10] = "000000000";
	if (sbx_json_string_fmt(value, text, sizeof text) == 0 || sscanf(text, "%9lu", &seconds) != 1)
		return -1;
	const char *point = strchr(text, '.');
	for (size_t i = 0; point && i < 9 && point[1 + i] >= '0' && point[1 + i] <= '9'; i++)
		fraction[i] = point[1 + i];
	unsigned long ns = 0;
	(void)sscanf(fraction, "%lu", &ns); /* nine digits */
	return (int64_t)seconds * 1000000000 + (int64_t)ns;
}

/* error.details. Google's are a list: when to come back, and whether it is a daily allowance that is used up. Anthropic's are an
 * object, with a code that says more than the type. */
static bool
read_details(struct sbx_span details, struct sbx_provider_error *e)
{
	struct sbx_json_iter it = sbx_json_array_iter(details);
	struct sbx_span detail, value;
	bool daily = false;
	if (sbx_json_get(details, "error_code", &value))
		read_word(value, e->code, sizeof e->code);
	while (sbx_json_array_next(&it, &detail)) {
		if (sbx_json_get(detail, "retryDelay", &value))
			e->retry_after_ns = read_seconds(value);
		struct sbx_span violations = {NULL, 0}, violation;
		(void)sbx_json_get(detail, "violations", &violations);
		struct sbx_json_iter each = sbx_json_array_iter(violations);
		while (sbx_json_array_next(&each, &violation)) {
			char id[128];
			if (sbx_json_get(violation, "quotaId", &value) && sbx_json_string_fmt(value, id, sizeof id))
				daily |= strstr(id, "PerDay") != NULL;
		}
	}
	return daily;
}

/* A status that an error inside a 200 carries: error.status_code, error.status or a numeric code. */
static void
read_carried_status(struct sbx_span value, struct sbx_provider_error *e)
{
	int64_t status;
	if (e->status == 200 && sbx_json_int64(value, &status) && status >= 400 && status <= 599)
		e->status = (int)status;
}

void
sbx_provider_error_set(struct sbx_provider_error *e, enum sbx_error_kind kind, int status, const char *message)
{
	memset(e, 0, sizeof *e);
	e->kind = kind;
	e->status = status;
	e->retry_after_ns = -1;
	(void)snprintf(e->message, sizeof e->message, "%s", message);
}

bool
sbx_provider_error_given(struct sbx_span error)
{
	struct sbx_json_iter it;
	struct sbx_span name, value;
	switch (sbx_json_type(error)) {
	case SBX_JSON_STRING: return error.n > 2;
	case SBX_JSON_OBJECT:
		it = sbx_json_object_iter(error);
		return sbx_json_object_next(&it, &name, &value);
	case SBX_JSON_ARRAY: return error.n > 2;
	case SBX_JSON_NUMBER: return true;
	case SBX_JSON_BOOL: return error.at[0] == 't';
	default: return false;
	}
}

void
sbx_provider_error_from_json(int status, struct sbx_span root, struct sbx_provider_error *ret_error)
{
	struct sbx_provider_error *e = ret_error;
	struct sbx_json_iter it = sbx_json_array_iter(root); /* [{"error":...}]: Gemini */
	struct sbx_span error = {NULL, 0}, word = {NULL, 0}, name, value;
	bool daily = false;

	sbx_provider_error_set(e, SBX_KIND_UNKNOWN, status, "");
	(void)sbx_json_array_next(&it, &root);
	(void)sbx_json_get(root, "error", &error);
	if (!sbx_provider_error_given(error))
		error = root; /* {"message":...}, {"detail":...}: the object is the error itself */
	if (sbx_json_type(error) != SBX_JSON_OBJECT && sbx_json_type(root) == SBX_JSON_OBJECT) {
		read_message(error, e); /* {"code":"...","error":"text"}: xAI */
		error = root;
	}
	it = sbx_json_object_iter(error);
	while (sbx_json_object_next(&it, &name, &value)) {
		if (sbx_json_string_eq(name, "type")) {
			read_word(value, e->type, sizeof e->type);
		} else if (sbx_json_string_eq(name, "code")) {
			read_word(value, e->code, sizeof e->code);
			read_carried_status(value, e);
		} else if (sbx_json_string_eq(name, "param")) {
			(void)sbx_json_string_fmt(value, e->param, sizeof e->param);
		} else if (sbx_json_string_eq(name, "status")) {
			word = value;
			read_carried_status(value, e);
		} else if (sbx_json_string_eq(name, "status_code")) {
			read_carried_status(value, e);
		} else if (sbx_json_string_eq(name, "details")) {
			daily = read_details(value, e);
		} else if (!e->message[0] && (sbx_json_string_eq(name, "message") || sbx_json_string_eq(name, "detail"))) {
			read_message(value, e);
		}
	}
	if (!e->type[0]) /* Gemini says INVALID_ARGUMENT there */
		read_word(word, e->type, sizeof e->type);
	e->kind = daily ? SBX_KIND_QUOTA : kind_of(e);
}

/* ==== bodies that are no JSON ==== */

/* Text for a message: one line, cut to fit, with anything but printable ASCII left out. */
static void
copy_text(struct sbx_span text, char *buf, size_t cap)
{
	size_t n = 0;
	bool space = false;
	for (size_t i = 0; i < text.n && n + 2 < cap; i++) {
		unsigned char c = (unsigned char)text.at[i];
		if (c <= 0x20 || c >= 0x7f) {
			space = n > 0;
			continue;
		}
		if (space)
			buf[n++] = ' ';
		space = false;
		buf[n++] = (char)c;
	}
	buf[n] = '\0';
}

static struct sbx_span
trim(struct sbx_span s)
{
	if (s.n >= 3 && memcmp(s.at, "\xef\xbb\xbf", 3) == 0)
		s = (struct sbx_span){s.at + 3, s.n - 3};
	while (s.n && strchr(" \t\r\n", s.at[0]) && s.at[0])
		s = (struct sbx_span){s.at + 1, s.n - 1};
	while (s.n && strchr(" \t\r\n", s.at[s.n - 1]) && s.at[s.n - 1])
		s.n--;
	return s;
}

/* What stands between <title> and its end, or the page itself. */
static struct sbx_span
html_title(struct sbx_span page)
{
	for (size_t i = 0; i + 7 <= page.n; i++) {
		if (strncasecmp(page.at + i, "<title>", 7) != 0)
			continue;
		const char *from = page.at + i + 7;
		const char *to = memchr(from, '<', page.n - i - 7);
		if (to)
			return trim((struct sbx_span){from, (size_t)(to - from)});
	}
	return page;
}

void
sbx_provider_error_read(int status, struct sbx_span body, struct sbx_json_scratch *scratch,
			struct sbx_provider_error *ret_error)
{
	struct sbx_span text = trim(body);
	if (text.n >= 5 && memcmp(text.at, "data:", 5) == 0) /* an error answer in the clothes of a stream */
		text = trim((struct sbx_span){text.at + 5, text.n - 5});
	if (text.n && (text.at[0] == '{' || text.at[0] == '[') && sbx_json_check(text.at, text.n, scratch, NULL) == 0) {
		sbx_provider_error_from_json(status, sbx_json_root(text.at, text.n), ret_error);
		/* JSON that says nothing of an error, where an answer should be */
		if (status == 200 && ret_error->kind == SBX_KIND_UNKNOWN && ret_error->status == 200 && !ret_error->message[0])
			sbx_provider_error_set(ret_error, SBX_KIND_JUNK, status, "not an answer of this dialect");
		return;
	}
	sbx_provider_error_set(ret_error, SBX_KIND_JUNK, status, "");
	if (text.n == 0)
		(void)snprintf(ret_error->message, sizeof ret_error->message, "empty body");
	else
		copy_text(text.at[0] == '<' ? html_title(text) : text, ret_error->message, sizeof ret_error->message);
}
