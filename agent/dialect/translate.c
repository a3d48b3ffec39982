/* SPDX-License-Identifier: Apache-2.0 */
/* translate.c -- see translate.h. */
#include "agent/dialect/translate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include <signalbox/errors.h>

void
sbx_tr_begin(struct sbx_translating *x, const char *dialect, const char *whose, const struct sbx_translation *t, struct sbx_buf *out,
	     struct sbx_fault *fault)
{
	*x = (struct sbx_translating){
		.t = t, .dialect = dialect, .whose = whose, .w = sbx_json_writer(out), .fault = fault, .before = out->n,
		.message = -1, .part = -1, .call = -1, .tool = -1,
	};
	sbx_json_scratch_init(&x->scratch);
	sbx_buf_init(&x->text, SBX_BODY_MAX_BYTES);
}

int
sbx_tr_end(struct sbx_translating *x)
{
	/* What was copied unseen may name again what is said elsewhere: the model, or a limit. No reader may see two values. */
	if (x->native && !sbx_tr_stopped(x)) {
		const struct sbx_buf *out = x->w.out;
		if (sbx_json_check((const char *)out->data + x->before, out->n - x->before, &x->scratch, NULL))
			sbx_tr_wrong(x, "x_native", "must not repeat what the request says elsewhere");
	}
	sbx_buf_fini(&x->text);
	sbx_json_scratch_fini(&x->scratch);
	return x->faulty ? -SBX_ESYNTAX : x->w.rc;
}

/* ==== looking ==== */

bool
sbx_tr_holds(struct sbx_span value)
{
	struct sbx_json_iter list = sbx_json_array_iter(value), members = sbx_json_object_iter(value);
	struct sbx_span name, first;
	return sbx_json_array_next(&list, &first) || sbx_json_object_next(&members, &name, &first);
}

bool
sbx_tr_listed(struct sbx_span name, const char *const *names)
{
	for (; *names; names++)
		if (sbx_json_string_eq(name, *names))
			return true;
	return false;
}

bool
sbx_tr_has_rest(struct sbx_span object, const char *const *said)
{
	struct sbx_json_iter it = sbx_json_object_iter(object);
	struct sbx_span name, value;
	while (sbx_json_object_next(&it, &name, &value))
		if (sbx_json_type(value) != SBX_JSON_NULL && !sbx_tr_listed(name, said))
			return true;
	return false;
}

double
sbx_tr_number(struct sbx_span value)
{
	char digits[64];
	if (sbx_json_type(value) != SBX_JSON_NUMBER || value.n >= sizeof digits)
		return NAN;
	memcpy(digits, value.at, value.n);
	digits[value.n] = '\0';
	return strtod(digits, NULL);
}

struct sbx_span
sbx_tr_text(struct sbx_translating *x, struct sbx_span string)
{
	struct sbx_span text = SBX_NO_SPAN;
	if (sbx_json_string_peek(string, &text))
		return text;
	sbx_buf_clear(&x->text);
	int rc = sbx_json_string_append(string, &x->text);
	if (rc && x->w.rc == 0)
		x->w.rc = rc;
	return (struct sbx_span){ (const char *)x->text.data, x->text.n };
}

bool
sbx_tr_data_url(struct sbx_span url, struct sbx_span *ret_type, struct sbx_span *ret_data)
{
	static const char middle[] = ";base64,";
	if (url.n < 5 || strncasecmp(url.at, "data:", 5) != 0)
		return false;
	const char *at = memmem(url.at, url.n, middle, sizeof middle - 1);
	if (!at)
		return false;
	*ret_type = (struct sbx_span){ url.at + 5, (size_t)(at - url.at) - 5 };
	*ret_data = (struct sbx_span){ at + sizeof middle - 1, url.n - (size_t)(at - url.at) - (sizeof middle - 1) };
	return true;
}

bool
sbx_tr_is_base64(struct sbx_span data)
{
	size_t n = data.n, pad = 0;
	while (pad < 2 && n > 0 && data.at[n - 1] == '=') {
		n--;
		pad++;
	}
	for (size_t i = 0; i < n; i++) {
		char c = data.at[i];
		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/'))
			return false;
	}
	return data.n % 4 == 0;
}

/* ==== faults ==== */

/* "messages[2].content[1].type" */
static void
locate(const struct sbx_translating *x, const char *member, char *buf, size_t cap)
{
	char where[64] = "";
	if (x->message >= 0) {
		if (x->part >= 0)
			(void)snprintf(where, sizeof where, "messages[%d].content[%d].", x->message, x->part);
		else if (x->call >= 0)
			(void)snprintf(where, sizeof where, "messages[%d].tool_calls[%d].", x->message, x->call);
		else
			(void)snprintf(where, sizeof where, "messages[%d].", x->message);
	} else if (x->tool >= 0) {
		(void)snprintf(where, sizeof where, "tools[%d].", x->tool);
	}
	(void)snprintf(buf, cap, "%s%s", where, member);
}

static void
set_fault(struct sbx_translating *x, const char *member, const char *rule, bool unsupported)
{
	struct sbx_fault *f = x->fault;
	if (sbx_tr_stopped(x))
		return;
	*f = (struct sbx_fault){ .unsupported = unsupported };
	locate(x, member, f->param, sizeof f->param);
	(void)snprintf(f->why, sizeof f->why, "%s %s", f->param, rule);
	x->faulty = true;
}

void
sbx_tr_wrong(struct sbx_translating *x, const char *member, const char *rule)
{
	set_fault(x, member, rule, false);
}

void
sbx_tr_cannot_say(struct sbx_translating *x, const char *member)
{
	char rule[96];
	if (x->t && x->t->drop_params)
		return;
	(void)snprintf(rule, sizeof rule, "cannot be said in %s", x->whose);
	set_fault(x, member, rule, true);
}

void
sbx_tr_no_cache_mark(struct sbx_translating *x, struct sbx_span object)
{
	if (sbx_tr_member(object, "cache_control").n)
		sbx_tr_cannot_say(x, "cache_control");
}

int
sbx_tr_no_operation(const char *whose, enum sbx_op op, struct sbx_fault *ret_fault)
{
	*ret_fault = (struct sbx_fault){ .unsupported = true };
	(void)snprintf(ret_fault->why, sizeof ret_fault->why, "operation %s: %s has none such", sbx_op_word(op), whose);
	return -SBX_ESYNTAX;
}

/* ==== out of the hub's form ==== */

/* How the work is to be done, who asks for it, or what is said elsewhere. None of them changes the answer. */
static const char *const quiet_members[] = {
	"model", "stream", "stream_options", "x_native", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user", NULL,
};

/* With this value they say what is so anyway. */
static const struct usual_value {
	const char *name, *json;
} usual_values[] = {
	{ "n", "1" },
	{ "logprobs", "false" },
	{ "top_logprobs", "0" },
	{ "presence_penalty", "0" },
	{ "frequency_penalty", "0" },
	{ "parallel_tool_calls", "true" },
	{ "store", "false" },
	{ "verbosity", "\"medium\"" },
	{ "service_tier", "\"auto\"" },
	{ "service_tier", "\"default\"" },
	{ "modalities", "[\"text\"]" },
	{ "response_format", "{\"type\":\"text\"}" },
	{ "encoding_format", "\"float\"" },
	{ "encoding_format", "\"base64\"" }, /* what the vectors come as for the client is not the provider's business */
	{ "logit_bias", "{}" },
	{ "metadata", "{}" },
	{ "tools", "[]" },
};

/* Both hold the same, member by member. Whole numbers are compared by what they are. */
static bool
is_usual(struct sbx_span value, struct sbx_span usual)
{
	struct sbx_json_iter a, b;
	struct sbx_span of_a, of_b, name_a, name_b;
	int64_t number, usual_number;
	bool more;
	if (sbx_json_type(value) != sbx_json_type(usual))
		return false;
	switch (sbx_json_type(value)) {
	case SBX_JSON_NUMBER:
		return sbx_json_int64(usual, &usual_number) && sbx_json_int64(value, &number) && number == usual_number;
	case SBX_JSON_ARRAY:
		a = sbx_json_array_iter(value);
		b = sbx_json_array_iter(usual);
		do {
			more = sbx_json_array_next(&a, &of_a);
			if (more != sbx_json_array_next(&b, &of_b) || (more && !is_usual(of_a, of_b)))
				return false;
		} while (more);
		return true;
	case SBX_JSON_OBJECT:
		a = sbx_json_object_iter(value);
		b = sbx_json_object_iter(usual);
		do {
			more = sbx_json_object_next(&a, &name_a, &of_a);
			if (more != sbx_json_object_next(&b, &name_b, &of_b) || (more && !(sbx_span_eq(name_a, name_b) && is_usual(of_a, of_b))))
				return false;
		} while (more);
		return true;
	default:
		return sbx_span_eq(value, usual);
	}
}

static bool
says_nothing(struct sbx_span name, struct sbx_span value)
{
	if (sbx_tr_listed(name, quiet_members))
		return true;
	for (size_t i = 0; i < sizeof usual_values / sizeof usual_values[0]; i++)
		if (sbx_json_string_eq(name, usual_values[i].name) && is_usual(value, sbx_span_of(usual_values[i].json)))
			return true;
	return false;
}

void
sbx_tr_take(struct sbx_translating *x, struct sbx_span body, const struct sbx_tr_member_at *known, size_t n_known, void *ret)
{
	struct sbx_json_iter it = sbx_json_object_iter(body);
	struct sbx_span name, value;
	char word[64];
	for (size_t i = 0; i < n_known; i++)
		*(struct sbx_span *)((char *)ret + known[i].offset) = sbx_tr_member(body, known[i].name);
	while (!sbx_tr_stopped(x) && sbx_json_object_next(&it, &name, &value)) {
		size_t i = 0;
		while (i < n_known && !sbx_json_string_eq(name, known[i].name))
			i++;
		if (i < n_known || sbx_json_type(value) == SBX_JSON_NULL || says_nothing(name, value))
			continue;
		(void)sbx_json_string_fmt(name, word, sizeof word);
		sbx_tr_cannot_say(x, word);
	}
}

struct sbx_span
sbx_tr_native(struct sbx_translating *x, struct sbx_span object)
{
	struct sbx_json_iter it = sbx_json_object_iter(sbx_tr_member(object, "x_native"));
	struct sbx_span name, value, ours = SBX_NO_SPAN;
	while (sbx_json_object_next(&it, &name, &value)) {
		if (sbx_json_string_eq(name, x->dialect) && sbx_json_type(value) == SBX_JSON_OBJECT)
			ours = value;
		else
			sbx_tr_cannot_say(x, "x_native");
	}
	x->native |= ours.n > 0;
	return ours;
}

void
sbx_tr_put_members(struct sbx_translating *x, struct sbx_span object)
{
	struct sbx_json_iter it = sbx_json_object_iter(object);
	struct sbx_span name, value;
	while (sbx_json_object_next(&it, &name, &value)) {
		sbx_jw_name_span(&x->w, name);
		sbx_jw_value(&x->w, value);
	}
}

void
sbx_tr_put_list(struct sbx_translating *x, const char *name, struct sbx_span one_or_many)
{
	if (sbx_json_type(one_or_many) != SBX_JSON_STRING) {
		sbx_jw_member(&x->w, name, one_or_many);
		return;
	}
	sbx_jw_name(&x->w, name);
	sbx_jw_open(&x->w, '[');
	sbx_jw_value(&x->w, one_or_many);
	sbx_jw_close(&x->w, ']');
}

struct sbx_span
sbx_tr_arguments(struct sbx_translating *x, struct sbx_span arguments)
{
	struct sbx_span object = arguments;
	if (!sbx_tr_is_text(arguments) && sbx_json_type(arguments) != SBX_JSON_OBJECT)
		return SBX_SPAN("{}"); /* absent, or "" for a tool that takes none */
	if (sbx_json_type(arguments) == SBX_JSON_STRING) {
		object = sbx_tr_text(x, arguments);
		if (sbx_json_check(object.at, object.n, &x->scratch, NULL) == 0)
			object = sbx_json_root(object.at, object.n);
		else
			object = SBX_NO_SPAN;
	}
	if (sbx_json_type(object) == SBX_JSON_OBJECT)
		return object;
	sbx_tr_wrong(x, "function.arguments", "must be a JSON object");
	return SBX_NO_SPAN;
}

struct sbx_span
sbx_tr_schema(struct sbx_span response_format)
{
	return sbx_tr_member(sbx_tr_member(response_format, "json_schema"), "schema");
}

/* ==== into the hub's form ==== */

void
sbx_tr_open_native(struct sbx_translating *x, bool *open)
{
	if (*open)
		return;
	*open = true;
	sbx_jw_name(&x->w, "x_native");
	sbx_jw_open(&x->w, '{');
	sbx_jw_name(&x->w, x->dialect);
	sbx_jw_open(&x->w, '{');
}

void
sbx_tr_close_native(struct sbx_translating *x, bool open)
{
	if (!open)
		return;
	sbx_jw_close(&x->w, '}');
	sbx_jw_close(&x->w, '}');
}

void
sbx_tr_put_rest(struct sbx_translating *x, struct sbx_span object, const char *const *said, bool *open)
{
	struct sbx_json_iter it = sbx_json_object_iter(object);
	struct sbx_span name, value;
	while (sbx_json_object_next(&it, &name, &value)) {
		if (sbx_json_type(value) == SBX_JSON_NULL || sbx_tr_listed(name, said))
			continue;
		sbx_tr_open_native(x, open);
		sbx_jw_name_span(&x->w, name);
		sbx_jw_value(&x->w, value);
	}
}

void
sbx_tr_put_native(struct sbx_translating *x, struct sbx_span object, const char *const *said)
{
	bool open = false;
	sbx_tr_put_rest(x, object, said, &open);
	sbx_tr_close_native(x, open);
}

void
sbx_tr_put_remains(struct sbx_translating *x, const char *name, struct sbx_span object, const char *const *said, bool *open)
{
	bool inside = true;
	if (!sbx_tr_has_rest(object, said))
		return;
	sbx_tr_open_native(x, open);
	sbx_jw_name(&x->w, name);
	sbx_jw_open(&x->w, '{');
	sbx_tr_put_rest(x, object, said, &inside);
	sbx_jw_close(&x->w, '}');
}

void
sbx_tr_put_whole(struct sbx_translating *x, const char *name, struct sbx_span object)
{
	bool open = false;
	sbx_jw_open(&x->w, '{');
	sbx_tr_put_word(&x->w, name, "x_native");
	sbx_tr_open_native(x, &open);
	sbx_tr_put_rest(x, object, (const char *const[]){ NULL }, &open);
	sbx_tr_close_native(x, open);
	sbx_jw_close(&x->w, '}');
}

void
sbx_tr_put_data_url(struct sbx_translating *x, const char *name, const char *type, struct sbx_span data)
{
	struct sbx_json_writer *w = &x->w;
	sbx_jw_name(w, name);
	sbx_jw_raw(w, "\"data:", 6);
	sbx_jw_raw(w, type, strlen(type));
	sbx_jw_raw(w, ";base64,", 8);
	if (sbx_tr_is_text(data))
		sbx_jw_raw(w, data.at + 1, data.n - 2);
	sbx_jw_raw(w, "\"", 1);
	w->follows = true;
}

void
sbx_tr_open_function(struct sbx_json_writer *w)
{
	sbx_jw_open(w, '{');
	sbx_tr_put_word(w, "type", "function");
	sbx_jw_name(w, "function");
	sbx_jw_open(w, '{');
}
