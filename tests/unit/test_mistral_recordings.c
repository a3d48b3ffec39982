/* SPDX-License-Identifier: Apache-2.0 */
/* Recorded exchanges of Mistral's: see recordings_rig.h. */
#include "tests/unit/recordings_rig.h"

#include "agent/dialect/mistral.h"

enum { NULLS, STREAM_FALSE, NO_CALLS, TOOL_TYPE };
static struct rec_reviewed reviewed[] = {
	[NULLS] = { "null", "a member that is null says nothing", 0 },
	[STREAM_FALSE] = { "stream", "false says nothing", 0 },
	[NO_CALLS] = { "messages[].tool_calls", "an empty list says nothing", 0 },
	[TOOL_TYPE] = { "tools[].type", "left out it is \"function\", and comes back as that", 0 },
};

static void
review(json_t *was, json_t *is)
{
	static const char *const opaque[] = { "parameters", "schema", NULL };
	reviewed[NULLS].seen += rec_strip_null(was, opaque);
	(void)rec_strip_null(is, opaque);
	if (json_is_false(json_object_get(was, "stream"))) {
		reviewed[STREAM_FALSE].seen++;
		json_object_del(was, "stream");
	}
	size_t i;
	json_t *message;
	json_array_foreach(json_object_get(was, "messages"), i, message) {
		const json_t *calls = json_object_get(message, "tool_calls");
		if (calls && json_array_size(calls) == 0) {
			reviewed[NO_CALLS].seen++;
			json_object_del(message, "tool_calls");
		}
	}
	json_t *tool;
	json_array_foreach(json_object_get(was, "tools"), i, tool) {
		if (json_object_get(tool, "type"))
			continue;
		reviewed[TOOL_TYPE].seen++;
		json_object_del(json_array_get(json_object_get(is, "tools"), i), "type");
	}
}

static void
recordings(void **state)
{
	const struct rec_subject subject = {
		.name = "mistral", .dialect = &sbx_dialect_mistral, .model = "m", .review = review,
		.reviewed = reviewed, .n_reviewed = sizeof reviewed / sizeof reviewed[0],
	};
	(void)state;
	rec_run(&subject);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(recordings) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
