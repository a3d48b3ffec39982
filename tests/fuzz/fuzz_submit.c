/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_submit.c -- any bytes as one frame, read as a SUBMIT.
 *
 * What must hold: what is taken lies inside the frame and within its limits, names one kind of target at most, and can go into
 * a header; what is refused has a code of the wire and a sentence, and leaves the result untouched.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/io/submit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *from, *to; /* the frame */

static void
check_inside(struct sbx_span s, size_t max_bytes)
{
	assert(s.n <= max_bytes);
	assert(s.n == 0 || (s.at >= from && s.at + s.n <= to));
}

static void
check_taken(const struct sbx_submit *s)
{
	check_inside(s->body, SBX_BODY_IN_MAX_BYTES);
	check_inside(s->route, SBX_NAME_MAX_BYTES + 1 + SBX_MODEL_MAX_BYTES);
	check_inside(s->model, SBX_NAME_MAX_BYTES + 1 + SBX_MODEL_MAX_BYTES);
	check_inside(s->idempotency_key, SBX_IDEMPOTENCY_KEY_MAX_BYTES);
	assert(s->body.n > 0 && s->dialect);
	assert(s->n_targets <= SBX_ROUTE_TARGETS_MAX);
	for (uint32_t i = 0; i < s->n_targets; i++) {
		assert(s->target[i].n > 0);
		check_inside(s->target[i], SBX_NAME_MAX_BYTES + 1 + SBX_MODEL_MAX_BYTES);
	}
	assert((s->route.n > 0) + (s->model.n > 0) + (s->n_targets > 0) <= 1);
	assert(s->deadline_ms <= SBX_DEADLINE_MAX_MS); /* 0 = not said */
	for (size_t i = 0; i < s->idempotency_key.n; i++)
		assert(s->idempotency_key.at[i] > 0x20 && s->idempotency_key.at[i] < 0x7f);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct sbx_frame frame;
	struct sbx_submit s, before;
	enum sbx_code code = SBX_CODE_NONE;
	char why[256] = "";
	uint8_t *exact = malloc(n ? n : 1); /* so that one byte too far is seen */
	assert(exact);
	if (n)
		memcpy(exact, data, n);
	from = (const char *)exact;
	to = from + n;
	if (sbx_frame_check(exact, n, &frame, why, sizeof why) == 0) { /* of any kind: a fuzzer need not find the right one */
		memset(&s, 0xa5, sizeof s);
		memcpy(&before, &s, sizeof s);
		why[0] = 0;
		if (sbx_submit_read(&frame, &s, &code, why, sizeof why) == 0)
			check_taken(&s);
		else
			assert(code != SBX_CODE_NONE && why[0] && memcmp(&before, &s, sizeof s) == 0);
	}
	free(exact);
	return 0;
}
