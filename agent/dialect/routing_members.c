/* SPDX-License-Identifier: Apache-2.0 */
/* routing_members.c -- see routing_members.h. One row per member; those whose feature does not work yet are rows as well. */
#include "agent/dialect/routing_members.h"

#include <stdarg.h>
#include <stdio.h>

#include <signalbox/errors.h>

/* What a reader works on. */
struct reading {
	struct sbx_routing *r;
	struct sbx_ask *ask;
	struct sbx_fault *fault;
	const char *param; /* the member, as it is called in a fault */
};

typedef int read_fn(const struct reading *rd, struct sbx_span value);

struct row {
	const char *name;
	read_fn *read;
};

/* ---- saying what is wrong ---- */

static int __attribute__((format(printf, 4, 5)))
refuse(const struct reading *rd, bool unsupported, const char *param, const char *rule, ...)
{
	struct sbx_fault *f = rd->fault;
	va_list ap;
	f->unsupported = unsupported;
	int n = snprintf(f->param, sizeof f->param, "%s", param);
	n = snprintf(f->why, sizeof f->why, "%.*s ", n < (int)sizeof f->param ? n : (int)sizeof f->param - 1, f->param);
	va_start(ap, rule);
	(void)vsnprintf(f->why + n, sizeof f->why - (size_t)n, rule, ap);
	va_end(ap);
	return -SBX_ESYNTAX;
}

static int
refuse_feature(const struct reading *rd, struct sbx_span value)
{
	(void)value;
	return refuse(rd, true, rd->param, "is not supported by this version of the agent");
}

static bool
asks_for_nothing(struct sbx_span value)
{
	bool on = true;
	return sbx_json_type(value) == SBX_JSON_NULL || (sbx_json_bool(value, &on) && !on);
}

/* ---- texts ---- */

/* A string's text: in place, or unescaped into the routing's memory. */
static int
read_text(const struct reading *rd, struct sbx_span value, size_t max_bytes, struct sbx_span *ret_text)
{
	struct sbx_routing *r = rd->r;
	size_t n;
	if (sbx_json_type(value) != SBX_JSON_STRING)
		return refuse(rd, false, rd->param, "must be a list of texts");
	if (!sbx_json_string_peek(value, ret_text)) {
		if (sbx_json_string_decode(value, r->text + r->text_n, sizeof r->text - r->text_n, &n))
			return refuse(rd, false, rd->param, "has names that are too long together");
		*ret_text = (struct sbx_span){r->text + r->text_n, n};
		r->text_n += n;
	}
	if (ret_text->n == 0 || ret_text->n > max_bytes)
		return refuse(rd, false, rd->param, "must have texts of 1 to %zu bytes", max_bytes);
	for (size_t i = 0; i < ret_text->n; i++)
		if ((unsigned char)ret_text->at[i] < 0x20 || ret_text->at[i] == 0x7f)
			return refuse(rd, false, rd->param, "must have no control characters");
	return 0;
}

static int
read_list(const struct reading *rd, struct sbx_span value, size_t max_bytes, struct sbx_said *said)
{
	struct sbx_json_iter it = sbx_json_array_iter(value);
	struct sbx_span element, text;
	if (sbx_json_type(value) != SBX_JSON_ARRAY)
		return refuse(rd, false, rd->param, "must be a list of texts");
	while (sbx_json_array_next(&it, &element)) {
		int rc = read_text(rd, element, max_bytes, &text);
		if (rc)
			return rc;
		if (said->n == SBX_SAID_MAX)
			return refuse(rd, false, rd->param, "has more than %d elements", SBX_SAID_MAX);
		said->name[said->n++] = text;
	}
	return 0;
}

#define MODEL_NAME_MAX_BYTES 384 /* of "provider/model"; the router says what a name is */

static int
read_models(const struct reading *rd, struct sbx_span value)
{
	return read_list(rd, value, MODEL_NAME_MAX_BYTES, &rd->r->models);
}

/* LiteLLM also has {"model": ["other"]}, and {"model": ..., "api_base": ...}. */
static int
read_fallbacks(const struct reading *rd, struct sbx_span value)
{
	struct sbx_json_iter it = sbx_json_array_iter(value);
	struct sbx_span element;
	while (sbx_json_array_next(&it, &element))
		if (sbx_json_type(element) == SBX_JSON_OBJECT)
			return refuse(rd, true, rd->param, "with objects are not supported by this version of the agent: name models or routes");
	return read_list(rd, value, MODEL_NAME_MAX_BYTES, &rd->r->fallbacks);
}

static int
read_tags(const struct reading *rd, struct sbx_span value)
{
	if (rd->r->tags.n)
		return refuse(rd, false, rd->param, "and %s exclude each other", rd->r->tags_param);
	rd->r->tags_param = rd->param;
	return read_list(rd, value, SBX_TAG_MAX_BYTES, &rd->r->tags);
}

static int
read_user(const struct reading *rd, struct sbx_span value)
{
	char *user = rd->r->user;
	(void)sbx_json_string_fmt(value, user, sizeof rd->r->user); /* "" where it is no text: that is between client and provider */
	for (char *at = user; *at; at++)
		if ((unsigned char)*at < 0x20 || *at == 0x7f)
			*at = '?';
	return 0;
}

/* ---- numbers ---- */

/* Seconds, perhaps with a fraction, of which milliseconds are kept; a wait of less than one is one. */
static bool
seconds_to_ms(struct sbx_span value, uint32_t *ret_ms)
{
	const char *p = value.at, *end = value.at + value.n;
	uint64_t ms = 0, unit_ms = 1000;
	int64_t whole;
	if (sbx_json_int64(value, &whole)) { /* however it is spelled */
		if (whole < 1 || whole > SBX_TIMEOUT_MAX_S)
			return false;
		*ret_ms = (uint32_t)whole * 1000;
		return true;
	}
	if (sbx_json_type(value) != SBX_JSON_NUMBER || *p == '-')
		return false;
	for (; p < end && *p >= '0' && *p <= '9' && ms <= SBX_TIMEOUT_MAX_S * 1000ull; p++)
		ms = ms * 10 + (uint64_t)(*p - '0') * 1000;
	if (p == end || *p != '.')
		return false; /* an exponent and a fraction: nobody writes that */
	for (p++; p < end && *p >= '0' && *p <= '9'; p++)
		ms += (uint64_t)(*p - '0') * (unit_ms /= 10);
	if (p < end || ms > SBX_TIMEOUT_MAX_S * 1000ull)
		return false;
	*ret_ms = ms ? (uint32_t)ms : 1;
	return true;
}

static int
read_timeout(const struct reading *rd, struct sbx_span value)
{
	if (!seconds_to_ms(value, &rd->r->timeout_ms))
		return refuse(rd, false, rd->param, "must be a number of seconds above 0 and at most %d", SBX_TIMEOUT_MAX_S);
	return 0;
}

static int
read_retries(const struct reading *rd, struct sbx_span value)
{
	int64_t n;
	if (!sbx_json_int64(value, &n) || n < 0 || n > SBX_RETRIES_MAX)
		return refuse(rd, false, rd->param, "must be a whole number from 0 to %d", SBX_RETRIES_MAX);
	rd->r->retries = (int32_t)n;
	return 0;
}

/* ---- OpenRouter's objects ---- */

static int
read_order(const struct reading *rd, struct sbx_span value)
{
	return read_list(rd, value, MODEL_NAME_MAX_BYTES, &rd->r->order);
}

static int
read_only(const struct reading *rd, struct sbx_span value)
{
	return read_list(rd, value, MODEL_NAME_MAX_BYTES, &rd->r->only);
}

static int
read_ignore(const struct reading *rd, struct sbx_span value)
{
	return read_list(rd, value, MODEL_NAME_MAX_BYTES, &rd->r->ignore);
}

static int
read_allow_fallbacks(const struct reading *rd, struct sbx_span value)
{
	bool allow;
	if (!sbx_json_bool(value, &allow))
		return refuse(rd, false, rd->param, "must be true or false");
	rd->r->no_other = !allow;
	return 0;
}

static int
read_data_collection(const struct reading *rd, struct sbx_span value)
{
	return sbx_json_string_eq(value, "allow") ? 0 : refuse_feature(rd, value);
}

static int
read_include(const struct reading *rd, struct sbx_span value)
{
	if (!sbx_json_bool(value, &rd->r->want_cost))
		return refuse(rd, false, rd->param, "must be true or false");
	return 0;
}

/* "outer.name", cut to fit. */
static void
fmt_param(const char *outer, struct sbx_span name, char *buf, size_t cap)
{
	int n = snprintf(buf, cap, "%s.", outer);
	(void)sbx_json_string_fmt(name, buf + n, cap - (size_t)n);
}

/* An object that is ours as a whole: what is in it and not in the table is a feature that we have not. */
static int
read_object(const struct reading *rd, struct sbx_span value, const struct row *rows, size_t n_rows)
{
	struct sbx_json_iter it = sbx_json_object_iter(value);
	struct sbx_span name, inner;
	char param[sizeof rd->fault->param];
	if (sbx_json_type(value) != SBX_JSON_OBJECT)
		return refuse(rd, false, rd->param, "must be an object");
	while (sbx_json_object_next(&it, &name, &inner)) {
		struct reading deeper = *rd;
		read_fn *read = asks_for_nothing(inner) ? NULL : refuse_feature;
		for (size_t i = 0; i < n_rows; i++)
			if (sbx_json_string_eq(name, rows[i].name) && sbx_json_type(inner) != SBX_JSON_NULL)
				read = rows[i].read;
		fmt_param(rd->param, name, param, sizeof param);
		deeper.param = param;
		int rc = read ? read(&deeper, inner) : 0;
		if (rc)
			return rc;
	}
	return 0;
}

static int
read_provider(const struct reading *rd, struct sbx_span value)
{
	static const struct row rows[] = {
		{"order", read_order},
		{"only", read_only},
		{"ignore", read_ignore},
		{"allow_fallbacks", read_allow_fallbacks},
		{"data_collection", read_data_collection},
	};
	return read_object(rd, value, rows, sizeof rows / sizeof rows[0]);
}

static int
read_usage(const struct reading *rd, struct sbx_span value)
{
	static const struct row rows[] = {{"include", read_include}};
	return read_object(rd, value, rows, sizeof rows / sizeof rows[0]);
}

/* OpenRouter's older switch for `models`; it knows one word. */
static int
read_route(const struct reading *rd, struct sbx_span value)
{
	return sbx_json_string_eq(value, "fallback") ? 0 : refuse(rd, true, rd->param, "can only be \"fallback\"");
}

/* ---- metadata: OpenAI's, but for the list `tags` that LiteLLM puts there ---- */

static int
read_metadata(const struct reading *rd, struct sbx_span value)
{
	static const char param[] = "metadata.tags";
	struct sbx_json_iter it = sbx_json_object_iter(value);
	struct sbx_span name, inner, tags = {NULL, 0};
	const char *before = NULL; /* the end of the member before it */
	const char *from = NULL, *to = NULL;
	uint32_t n = 0;
	while (sbx_json_object_next(&it, &name, &inner)) {
		n++;
		if (tags.n && !to) {
			to = name.at; /* up to the next member, comma and all */
		} else if (sbx_json_string_eq(name, "tags") && sbx_json_type(inner) == SBX_JSON_ARRAY) {
			tags = inner;
			from = name.at;
		} else if (!tags.n) {
			before = inner.at + inner.n;
		}
	}
	if (!tags.n)
		return 0;
	const struct reading deeper = {rd->r, rd->ask, rd->fault, param};
	int rc = read_tags(&deeper, tags);
	if (rc)
		return rc;
	if (n == 1)
		return 1; /* nothing of it is left */
	if (to)
		rd->ask->cut = (struct sbx_span){from, (size_t)(to - from)};
	else
		rd->ask->cut = (struct sbx_span){before, (size_t)(tags.at + tags.n - before)};
	return 0;
}

/* ---- the table ---- */

static const struct row rows_taken[] = {
	/* OpenRouter */
	{"models", read_models},
	{"provider", read_provider},
	{"route", read_route},
	{"usage", read_usage},
	/* LiteLLM, Bifrost */
	{"fallbacks", read_fallbacks},
	{"timeout", read_timeout},
	{"num_retries", read_retries},
	{"tags", read_tags},
	{"priority", refuse_feature},
	{"context_window_fallbacks", refuse_feature},
	{"content_policy_fallbacks", refuse_feature},
	{"stream_timeout", refuse_feature},
	{"mock_response", refuse_feature},
	{"cache", refuse_feature},
	{"guardrails", refuse_feature},
	/* where a request would choose whom its key, or ours, goes to */
	{"api_base", refuse_feature},
	{"base_url", refuse_feature},
	{"api_key", refuse_feature},
};

#define MOCK_TESTING "\"mock_testing_" /* and what a test of LiteLLM's own wants to see fail */

static read_fn *
find_reader(struct sbx_span name, const char **ret_param)
{
	for (size_t i = 0; i < sizeof rows_taken / sizeof rows_taken[0]; i++)
		if (sbx_json_string_eq(name, rows_taken[i].name)) {
			*ret_param = rows_taken[i].name;
			return rows_taken[i].read;
		}
	if (name.n >= sizeof MOCK_TESTING && memcmp(name.at, MOCK_TESTING, sizeof MOCK_TESTING - 1) == 0)
		return refuse_feature;
	return NULL;
}

void
sbx_routing_init(struct sbx_routing *r)
{
	r->models.n = r->fallbacks.n = r->order.n = r->only.n = r->ignore.n = r->tags.n = 0;
	r->no_other = r->want_cost = false;
	r->retries = -1;
	r->timeout_ms = 0;
	r->user[0] = '\0';
	r->text_n = 0;
}

int
sbx_routing_read(struct sbx_routing *r, struct sbx_span name, struct sbx_span value, struct sbx_ask *ask, struct sbx_fault *ret_fault)
{
	char other[sizeof ret_fault->param];
	struct reading rd = {r, ask, ret_fault, NULL};
	read_fn *read = find_reader(name, &rd.param);
	int rc = 0;
	if (!read) {
		if (sbx_json_string_eq(name, "user"))
			return read_user(&rd, value);
		if (!sbx_json_string_eq(name, "metadata") || (rc = read_metadata(&rd, value)) <= 0)
			return rc;
	} else if (!rd.param) {
		(void)sbx_json_string_fmt(name, other, sizeof other);
		rd.param = other;
	}
	bool nothing = sbx_json_type(value) == SBX_JSON_NULL || (read == refuse_feature && asks_for_nothing(value));
	if (read && !nothing)
		rc = read(&rd, value);
	if (rc < 0)
		return rc;
	if (ask->n_taken == SBX_ASK_TAKEN_MAX) {
		char param[sizeof ret_fault->param];
		(void)sbx_json_string_fmt(name, param, sizeof param);
		return refuse(&rd, false, param, "is one too many of the members that are for a gateway");
	}
	ask->taken[ask->n_taken++] = value;
	return 1;
}
