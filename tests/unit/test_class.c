/* SPDX-License-Identifier: Apache-2.0 */
/* test_class.c -- every witness of how an attempt ended, and the class that follows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "agent/core/class.h"

#define NO_KIND (-1)
enum { SENT = 1, BYTES = 2, CONTENT = 4, COMPLETE = 8, COMMITTED = 16, RETRY_AFTER = 32 };

static const struct {
	const char *name;
	enum sbx_transport transport;
	int status, kind;
	unsigned facts;
	enum sbx_class want;
} cases[] = {
	/* success */
	{ "whole", SBX_TRANSPORT_OK, 200, NO_KIND, SENT | BYTES | CONTENT | COMPLETE, SBX_CLASS_OK },
	{ "whole, without content", SBX_TRANSPORT_OK, 200, NO_KIND, SENT | BYTES | COMPLETE, SBX_CLASS_OK },
	{ "reset after the last content", SBX_TRANSPORT_BROKEN, 200, NO_KIND, SENT | BYTES | CONTENT | COMPLETE | COMMITTED, SBX_CLASS_OK },
	{ "complete, but with an error after it", SBX_TRANSPORT_OK, 200, SBX_KIND_SERVER, SENT | BYTES | CONTENT | COMPLETE, SBX_CLASS_FAILED },
	{ "complete, committed, error after it", SBX_TRANSPORT_OK, 200, SBX_KIND_SERVER, SENT | CONTENT | COMPLETE | COMMITTED, SBX_CLASS_MIDSTREAM },
	{ "a complete error answer is no success", SBX_TRANSPORT_OK, 500, NO_KIND, SENT | BYTES | COMPLETE, SBX_CLASS_FAILED },
	{ "an answer in an encoding nobody asked for", SBX_TRANSPORT_JUNK, 200, NO_KIND, SENT | BYTES | COMPLETE, SBX_CLASS_FAILED },
	/* transport */
	{ "no connection", SBX_TRANSPORT_CONNECT, 0, NO_KIND, 0, SBX_CLASS_NOT_SENT },
	{ "REFUSED_STREAM", SBX_TRANSPORT_UNSENT, 0, NO_KIND, SENT, SBX_CLASS_NOT_SENT },
	{ "reset while the request was leaving", SBX_TRANSPORT_BROKEN, 0, NO_KIND, 0, SBX_CLASS_NOT_SENT },
	{ "reset while leaving, after some answer", SBX_TRANSPORT_BROKEN, 200, NO_KIND, BYTES, SBX_CLASS_FAILED },
	{ "reset without a byte", SBX_TRANSPORT_BROKEN, 0, NO_KIND, SENT, SBX_CLASS_UNCERTAIN },
	{ "reset after the headers", SBX_TRANSPORT_BROKEN, 200, NO_KIND, SENT | BYTES, SBX_CLASS_UNCERTAIN },
	{ "reset in a whole answer", SBX_TRANSPORT_BROKEN, 200, NO_KIND, SENT | BYTES | CONTENT, SBX_CLASS_UNCERTAIN },
	{ "reset after content was delivered", SBX_TRANSPORT_BROKEN, 200, NO_KIND, SENT | CONTENT | COMMITTED, SBX_CLASS_MIDSTREAM },
	{ "clean end in the middle, delivered", SBX_TRANSPORT_OK, 200, NO_KIND, SENT | CONTENT | COMMITTED, SBX_CLASS_MIDSTREAM },
	{ "clean end without an answer", SBX_TRANSPORT_OK, 200, NO_KIND, SENT | BYTES, SBX_CLASS_FAILED },
	{ "not HTTP", SBX_TRANSPORT_JUNK, 0, NO_KIND, SENT | BYTES, SBX_CLASS_FAILED },
	{ "no descriptors", SBX_TRANSPORT_LOCAL, 0, NO_KIND, 0, SBX_CLASS_LOCAL },
	{ "no memory, after content", SBX_TRANSPORT_LOCAL, 200, NO_KIND, SENT | CONTENT | COMMITTED, SBX_CLASS_LOCAL },
	{ "stopped by us", SBX_TRANSPORT_ABORTED, 0, NO_KIND, SENT, SBX_CLASS_CANCELLED },
	/* the provider's own kind, whatever the status */
	{ "wrong key as a 400", SBX_TRANSPORT_OK, 400, SBX_KIND_AUTH, SENT | BYTES, SBX_CLASS_AUTH },
	{ "moderation as a 403", SBX_TRANSPORT_OK, 403, SBX_KIND_CONTENT_FILTER, SENT | BYTES, SBX_CLASS_CONTENT_FILTER },
	{ "invalid as a 500", SBX_TRANSPORT_OK, 500, SBX_KIND_INVALID, SENT | BYTES, SBX_CLASS_BAD_REQUEST },
	{ "no money as a 429", SBX_TRANSPORT_OK, 429, SBX_KIND_QUOTA, SENT | BYTES, SBX_CLASS_QUOTA },
	{ "context as a 400", SBX_TRANSPORT_OK, 400, SBX_KIND_CONTEXT_LENGTH, SENT | BYTES, SBX_CLASS_CONTEXT_LENGTH },
	{ "overloaded inside a 200", SBX_TRANSPORT_OK, 200, SBX_KIND_OVERLOADED, SENT | BYTES, SBX_CLASS_REFUSED },
	{ "rate limit in a 400", SBX_TRANSPORT_OK, 400, SBX_KIND_RATE_LIMIT, SENT | BYTES, SBX_CLASS_REFUSED },
	{ "overloaded within an answer is work done", SBX_TRANSPORT_OK, 200, SBX_KIND_OVERLOADED, SENT | BYTES | CONTENT, SBX_CLASS_FAILED },
	{ "overloaded after delivery", SBX_TRANSPORT_OK, 200, SBX_KIND_OVERLOADED, SENT | CONTENT | COMMITTED, SBX_CLASS_MIDSTREAM },
	{ "permission", SBX_TRANSPORT_OK, 400, SBX_KIND_PERMISSION, SENT | BYTES, SBX_CLASS_FORBIDDEN },
	{ "no such model as a 400", SBX_TRANSPORT_OK, 400, SBX_KIND_NOT_FOUND, SENT | BYTES, SBX_CLASS_NOT_THERE },
	{ "its own failure as a 400", SBX_TRANSPORT_OK, 400, SBX_KIND_SERVER, SENT | BYTES, SBX_CLASS_FAILED },
	{ "lost content", SBX_TRANSPORT_OK, 200, SBX_KIND_LOSSY, SENT | BYTES | CONTENT, SBX_CLASS_FAILED },
	{ "above the limit", SBX_TRANSPORT_OK, 200, SBX_KIND_TOO_BIG, SENT | BYTES, SBX_CLASS_FAILED },
	{ "HTML in a 200", SBX_TRANSPORT_OK, 200, SBX_KIND_JUNK, SENT | BYTES, SBX_CLASS_FAILED },
	{ "an error that nobody knows in a 200", SBX_TRANSPORT_OK, 200, SBX_KIND_UNKNOWN, SENT | BYTES, SBX_CLASS_FAILED },
	/* the status, where the kind says nothing */
	{ "HTML in a 429", SBX_TRANSPORT_OK, 429, SBX_KIND_JUNK, SENT | BYTES, SBX_CLASS_REFUSED },
	{ "a 429 cut in its body", SBX_TRANSPORT_BROKEN, 429, NO_KIND, SENT | BYTES, SBX_CLASS_REFUSED },
	{ "413 before the body had left", SBX_TRANSPORT_BROKEN, 413, NO_KIND, BYTES, SBX_CLASS_BAD_REQUEST },
	{ "302", SBX_TRANSPORT_OK, 302, NO_KIND, SENT | BYTES, SBX_CLASS_NOT_THERE },
	{ "400", SBX_TRANSPORT_OK, 400, SBX_KIND_UNKNOWN, SENT | BYTES, SBX_CLASS_BAD_REQUEST },
	{ "401", SBX_TRANSPORT_OK, 401, NO_KIND, SENT | BYTES, SBX_CLASS_AUTH },
	{ "402", SBX_TRANSPORT_OK, 402, NO_KIND, SENT | BYTES, SBX_CLASS_QUOTA },
	{ "403", SBX_TRANSPORT_OK, 403, NO_KIND, SENT | BYTES, SBX_CLASS_FORBIDDEN },
	{ "404", SBX_TRANSPORT_OK, 404, NO_KIND, SENT | BYTES, SBX_CLASS_NOT_THERE },
	{ "405", SBX_TRANSPORT_OK, 405, NO_KIND, SENT | BYTES, SBX_CLASS_NOT_THERE },
	{ "408", SBX_TRANSPORT_OK, 408, NO_KIND, SENT | BYTES, SBX_CLASS_FAILED },
	{ "409", SBX_TRANSPORT_OK, 409, NO_KIND, SENT | BYTES, SBX_CLASS_FAILED },
	{ "410", SBX_TRANSPORT_OK, 410, NO_KIND, SENT | BYTES, SBX_CLASS_NOT_THERE },
	{ "413", SBX_TRANSPORT_OK, 413, NO_KIND, SENT | BYTES, SBX_CLASS_BAD_REQUEST },
	{ "422", SBX_TRANSPORT_OK, 422, NO_KIND, SENT | BYTES, SBX_CLASS_BAD_REQUEST },
	{ "424", SBX_TRANSPORT_OK, 424, NO_KIND, SENT | BYTES, SBX_CLASS_FAILED },
	{ "425", SBX_TRANSPORT_OK, 425, NO_KIND, SENT | BYTES, SBX_CLASS_FAILED },
	{ "429", SBX_TRANSPORT_OK, 429, NO_KIND, SENT | BYTES, SBX_CLASS_REFUSED },
	{ "451", SBX_TRANSPORT_OK, 451, NO_KIND, SENT | BYTES, SBX_CLASS_CONTENT_FILTER },
	{ "498", SBX_TRANSPORT_OK, 498, NO_KIND, SENT | BYTES, SBX_CLASS_REFUSED },
	{ "500", SBX_TRANSPORT_OK, 500, SBX_KIND_UNKNOWN, SENT | BYTES, SBX_CLASS_FAILED },
	{ "502", SBX_TRANSPORT_OK, 502, NO_KIND, SENT | BYTES, SBX_CLASS_FAILED },
	{ "503 in HTML", SBX_TRANSPORT_OK, 503, SBX_KIND_JUNK, SENT | BYTES, SBX_CLASS_FAILED },
	{ "503 in HTML with a Retry-After", SBX_TRANSPORT_OK, 503, SBX_KIND_JUNK, SENT | BYTES | RETRY_AFTER, SBX_CLASS_REFUSED },
	{ "503 with an error of the dialect", SBX_TRANSPORT_OK, 503, SBX_KIND_UNKNOWN, SENT | BYTES, SBX_CLASS_REFUSED },
	{ "504", SBX_TRANSPORT_OK, 504, NO_KIND, SENT | BYTES, SBX_CLASS_FAILED },
	{ "529", SBX_TRANSPORT_OK, 529, NO_KIND, SENT | BYTES, SBX_CLASS_REFUSED },
};

static void
test_classify(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct sbx_provider_error error = { .kind = (enum sbx_error_kind)cases[i].kind, .status = 0, .retry_after_ns = -1 };
		const struct sbx_end end = {
			.transport = cases[i].transport,
			.status = cases[i].status,
			.sent = cases[i].facts & SENT,
			.got_bytes = cases[i].facts & BYTES,
			.got_content = cases[i].facts & CONTENT,
			.complete = cases[i].facts & COMPLETE,
			.committed = cases[i].facts & COMMITTED,
			.retry_after_ns = cases[i].facts & RETRY_AFTER ? 1 : -1,
			.error = cases[i].kind == NO_KIND ? NULL : &error,
		};
		if (sbx_classify(&end) != cases[i].want)
			fail_msg("%s: %s, want %s", cases[i].name, sbx_class_name(sbx_classify(&end)), sbx_class_name(cases[i].want));
	}
}

/* The status that an error inside a 200 carries decides where its kind does not. */
static void
test_carried_status(void **state)
{
	const struct sbx_provider_error error = { .kind = SBX_KIND_UNKNOWN, .status = 402, .retry_after_ns = -1 };
	struct sbx_end end = { .transport = SBX_TRANSPORT_OK, .status = 200, .sent = true, .got_bytes = true, .retry_after_ns = -1, .error = &error };

	(void)state;
	assert_int_equal(sbx_end_status(&end), 402);
	assert_int_equal(sbx_classify(&end), SBX_CLASS_QUOTA);
	end.status = 429; /* an error answer's own status holds */
	assert_int_equal(sbx_end_status(&end), 429);
	assert_int_equal(sbx_classify(&end), SBX_CLASS_REFUSED);
	end.error = NULL;
	end.status = 0;
	assert_int_equal(sbx_end_status(&end), 0);
}

/* Whatever the facts, there is a class, and never OK without a complete answer. All combinations. */
static void
test_total(void **state)
{
	(void)state;
	for (int transport = 0; transport <= SBX_TRANSPORT_ABORTED; transport++)
		for (int status = 0; status < 1000; status++)
			for (int kind = NO_KIND; kind < SBX_KIND__COUNT; kind++)
				for (unsigned facts = 0; facts < 64; facts += status % 7 ? 5 : 1) {
					const struct sbx_provider_error error = { .kind = (enum sbx_error_kind)kind, .status = 200, .retry_after_ns = -1 };
					const struct sbx_end end = {
						.transport = (enum sbx_transport)transport, .status = status,
						.sent = facts & SENT, .got_bytes = facts & BYTES, .got_content = facts & CONTENT,
						.complete = facts & COMPLETE, .committed = facts & COMMITTED,
						.retry_after_ns = facts & RETRY_AFTER ? 1 : -1, .error = kind == NO_KIND ? NULL : &error,
					};
					const enum sbx_class c = sbx_classify(&end);

					if (c <= SBX_CLASS_NONE || c >= SBX_CLASS_PASSED_OVER)
						fail_msg("no class for transport %d status %d kind %d facts %u", transport, status, kind, facts);
					if (c == SBX_CLASS_OK && (!end.complete || end.error || status / 100 != 2))
						fail_msg("OK for transport %d status %d kind %d facts %u", transport, status, kind, facts);
				}
}

static void
test_table(void **state)
{
	(void)state;
	for (int c = 0; c < SBX_CLASS__COUNT; c++) {
		assert_string_not_equal(sbx_class_name((enum sbx_class)c), "?");
		assert_true(strlen(sbx_class_meaning((enum sbx_class)c)) > 0);
	}
	assert_string_equal(sbx_class_name(SBX_CLASS_NOT_SENT), "NOT_SENT");
	assert_string_equal(sbx_class_name(SBX_CLASS__COUNT), "?");
	assert_string_equal(sbx_class_meaning(SBX_CLASS__COUNT), "?");
	assert_false(sbx_class_counts(SBX_CLASS_REFUSED));
	assert_true(sbx_class_counts(SBX_CLASS_UNCERTAIN));
	assert_false(sbx_class_counts(SBX_CLASS__COUNT));
	assert_int_equal(sbx_class_breaker(SBX_CLASS_AUTH), SBX_NOTE_BREAKER_KEY);
	assert_int_equal(sbx_class_breaker(SBX_CLASS_BAD_REQUEST), SBX_NOTE_BREAKER_NONE); /* a client's mistake never trips a target */
	assert_int_equal(sbx_class_breaker(SBX_CLASS__COUNT), SBX_NOTE_BREAKER_NONE);
	assert_int_equal(sbx_class_code(SBX_CLASS_REFUSED), SBX_CODE_RATE_LIMITED);
	assert_int_equal(sbx_class_code(SBX_CLASS__COUNT), SBX_CODE_NONE);
	assert_true(sbx_class_rank(SBX_CLASS_FAILED) > sbx_class_rank(SBX_CLASS_AUTH));
	assert_int_equal(sbx_class_rank(SBX_CLASS__COUNT), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_classify),
		cmocka_unit_test(test_carried_status),
		cmocka_unit_test(test_total),
		cmocka_unit_test(test_table),
	};
	return cmocka_run_group_tests_name("class", tests, NULL, NULL);
}
