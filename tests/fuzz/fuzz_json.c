/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_json.c -- any bytes as JSON. What the checker accepts is walked whole, every value read in every way, every string
 * decoded, encoded again and found the same; and it must not be accepted any more once something stands behind it.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/dialect/json_scan.h"
#include "client/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void
visit_string(struct sbx_span value)
{
	struct sbx_buf text, again;
	char few[7];
	sbx_buf_init(&text, value.n);
	sbx_buf_init(&again, 8 * value.n);
	int rc = sbx_json_string_append(value, &text);
	assert(rc == 0);
	const char *at = text.n ? (const char *)text.data : "";
	assert(sbx_json_string_eq_n(value, at, text.n));
	assert(sbx_json_string_fmt(value, few, sizeof few) < sizeof few);
	rc = sbx_json_string_encode(at, text.n, &again);
	assert(rc == 0);
	assert(sbx_json_string_eq_n((struct sbx_span){(const char *)again.data, again.n}, at, text.n));
	sbx_buf_fini(&text);
	sbx_buf_fini(&again);
}

static void
visit(struct sbx_span value, int depth)
{
	struct sbx_json_iter it;
	struct sbx_span name, inner;
	int64_t number;
	bool flag;
	assert(depth <= SBX_JSON_DEPTH_MAX && value.n > 0);
	(void)sbx_json_int64(value, &number);
	(void)sbx_json_bool(value, &flag);
	switch (sbx_json_type(value)) {
	case SBX_JSON_STRING: visit_string(value); break;
	case SBX_JSON_ARRAY:
		it = sbx_json_array_iter(value);
		while (sbx_json_array_next(&it, &inner)) {
			assert(inner.at > value.at && inner.at + inner.n < value.at + value.n);
			visit(inner, depth + 1);
		}
		break;
	case SBX_JSON_OBJECT:
		it = sbx_json_object_iter(value);
		while (sbx_json_object_next(&it, &name, &inner)) {
			assert(name.at > value.at && inner.at > name.at + name.n && inner.at + inner.n < value.at + value.n);
			visit_string(name);
			visit(inner, depth + 1);
		}
		break;
	case SBX_JSON_NONE: abort();
	default: break;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct sbx_json_scratch scratch;
	struct sbx_json_error error = {NULL, 0, 0};
	char *text = malloc(bytes + 1); /* exact, so that reading beyond the end is seen */
	if (!text)
		return 0;
	if (bytes)
		memcpy(text, data, bytes);
	text[bytes] = ',';
	sbx_json_scratch_init(&scratch);
	char *exact = malloc(bytes ? bytes : 1);
	if (exact) {
		if (bytes)
			memcpy(exact, text, bytes);
		if (sbx_json_check(exact, bytes, &scratch, &error) == 0) {
			visit(sbx_json_root(exact, bytes), 0);
			assert(sbx_json_check(text, bytes + 1, &scratch, NULL) != 0);
		} else {
			assert(error.what && error.offset <= bytes && error.line >= 1);
		}
	}
	free(exact);
	free(text);
	sbx_json_scratch_fini(&scratch);
	return 0;
}
