/* SPDX-License-Identifier: Apache-2.0 */
/* Recorded exchanges of Anthropic's: see recordings_rig.h. */
#include "tests/unit/recordings_rig.h"

#include "agent/dialect/anthropic.h"

enum { BUDGET, EFFORT, CALLER, NULLS, STREAM_FALSE, MODEL };
static struct rec_reviewed reviewed[] = {
	[BUDGET] = { "thinking.budget_tokens",
		     "chat has words for how much, not numbers: it comes back as the share of max_tokens that the word stands for", 0 },
	[EFFORT] = { "output_config.effort", "adaptive thinking with nothing said is high, and comes back with the word", 0 },
	[CALLER] = { "tool_use.caller", "\"direct\" is so anyway: the provider adds it to its answers", 0 },
	[NULLS] = { "null", "a member that is null says nothing", 0 },
	[STREAM_FALSE] = { "stream", "false says nothing", 0 },
	[MODEL] = { "model", "is written for a target: some of the recorded ones have it in the URL", 0 },
};

static unsigned
strip_caller(json_t *value)
{
	size_t i;
	json_t *child;
	const char *name;
	void *next;
	unsigned n = 0;
	if (json_is_array(value)) {
		json_array_foreach(value, i, child)
			n += strip_caller(child);
	} else if (json_is_object(value)) {
		json_object_foreach_safe(value, next, name, child) {
			if (strcmp(name, "caller") == 0) {
				json_object_del(value, name);
				n++;
			} else if (strcmp(name, "input") != 0 && strcmp(name, "input_schema") != 0) {
				n += strip_caller(child);
			}
		}
	}
	return n;
}

static void
review(json_t *was, json_t *is)
{
	static const char *const opaque[] = { "input", "input_schema", NULL }; /* what the client says in them is the client's */
	reviewed[CALLER].seen += strip_caller(was);
	(void)strip_caller(is);
	reviewed[NULLS].seen += rec_strip_null(was, opaque);
	(void)rec_strip_null(is, opaque);
	if (!json_object_get(was, "model")) {
		reviewed[MODEL].seen++;
		json_object_del(is, "model");
	}
	if (json_is_false(json_object_get(was, "stream"))) {
		reviewed[STREAM_FALSE].seen++;
		json_object_del(was, "stream");
	}
	json_t *was_thinking = json_object_get(was, "thinking"), *is_thinking = json_object_get(is, "thinking");
	if (json_object_get(was_thinking, "budget_tokens") && json_object_get(is_thinking, "budget_tokens")) {
		reviewed[BUDGET].seen++;
		json_object_del(was_thinking, "budget_tokens");
		json_object_del(is_thinking, "budget_tokens");
	}
	if (json_object_get(json_object_get(is, "output_config"), "effort") && !json_object_get(json_object_get(was, "output_config"), "effort")) {
		reviewed[EFFORT].seen++;
		json_object_del(json_object_get(is, "output_config"), "effort");
		if (json_object_size(json_object_get(is, "output_config")) == 0)
			json_object_del(is, "output_config");
	}
}

static void
recordings(void **state)
{
	const struct rec_subject subject = {
		.name = "anthropic", .dialect = &sbx_dialect_anthropic, .model = "claude", .review = review,
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
