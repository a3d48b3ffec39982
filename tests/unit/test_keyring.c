/* SPDX-License-Identifier: Apache-2.0 */
/* test_keyring.c -- virtual keys in memory: found by secret and by id, for their time, up to the limit; and what they may ask for. */
#include "agent/core/keyring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/crypto.h>

#include <signalbox/errors.h>

#define NOW 1800000000

/* In the place of libcrypto's: is it by this that secrets are compared, and over all of their bytes? */
static unsigned compared, compared_short;

int
CRYPTO_memcmp(const void *a, const void *b, size_t n)
{
	compared++;
	compared_short += n != SBX_KEY_HASH_BYTES;
	return memcmp(a, b, n);
}

static struct sbx_vkey *
key(uint32_t number, const char *models)
{
	struct sbx_vkey k = { .tenant = "t", .name = "n", .models = models, .created_unix_s = NOW };
	(void)snprintf(k.id, sizeof k.id, "key-%016x", number);
	for (uint32_t i = 0; i < sizeof k.hash; i++)
		k.hash[i] = (uint8_t)((number + 1) * 2654435761u >> (i % 4 * 8)) ^ (uint8_t)i;
	return sbx_vkey_copy(&k);
}

static const struct sbx_vkey *
find(const struct sbx_keyring *r, uint32_t number)
{
	char id[SBX_KEY_ID_BYTES];
	(void)snprintf(id, sizeof id, "key-%016x", number);
	return sbx_keyring_find(r, sbx_span_of(id));
}

static bool
opens(const struct sbx_keyring *r, uint32_t number, int64_t now)
{
	struct sbx_vkey *k = key(number, "");
	const struct sbx_vkey *found = sbx_keyring_check(r, k->hash, now);
	bool same = found && strcmp(found->id, k->id) == 0;
	free(k);
	return same;
}

static void
the_limit_holds_and_every_key_is_found(void **state)
{
	(void)state;
	struct sbx_keyring *r = sbx_keyring_new();
	for (uint32_t i = 0; i < SBX_KEYRING_MAX; i++)
		assert_int_equal(sbx_keyring_put(r, key(i, "")), 0);
	struct sbx_vkey *more = key(SBX_KEYRING_MAX, "");
	assert_int_equal(sbx_keyring_put(r, more), -SBX_EBUSY);
	free(more);
	assert_int_equal(sbx_keyring_count(r), SBX_KEYRING_MAX);
	for (uint32_t i = 0; i < SBX_KEYRING_MAX; i++)
		assert_true(opens(r, i, NOW) && find(r, i));
	assert_false(opens(r, SBX_KEYRING_MAX, NOW));
	for (uint32_t i = 0; i < SBX_KEYRING_MAX; i += 2) { /* every second one goes */
		char id[SBX_KEY_ID_BYTES];
		(void)snprintf(id, sizeof id, "key-%016x", i);
		sbx_keyring_drop(r, id);
		sbx_keyring_drop(r, id); /* twice is fine */
	}
	assert_int_equal(sbx_keyring_count(r), SBX_KEYRING_MAX / 2);
	for (uint32_t i = 0; i < SBX_KEYRING_MAX; i++) {
		assert_int_equal(opens(r, i, NOW), i % 2);
		assert_int_equal(find(r, i) != NULL, i % 2);
	}
	sbx_keyring_free(r);
}

static void
a_secret_is_one_keys_alone(void **state)
{
	(void)state;
	struct sbx_keyring *r = sbx_keyring_new();
	assert_int_equal(sbx_keyring_put(r, key(1, "")), 0);
	struct sbx_vkey *other = key(1, "");
	other->id[4] = 'f';
	assert_int_equal(sbx_keyring_put(r, other), -SBX_EINVAL);
	free(other);
	sbx_keyring_free(r);
}

static void
time_decides(void **state)
{
	(void)state;
	struct sbx_keyring *r = sbx_keyring_new();
	struct sbx_vkey *k = key(1, "");
	k->expires_unix_s = NOW + 10;
	assert_int_equal(sbx_keyring_put(r, k), 0);
	assert_true(opens(r, 1, NOW + 9));
	assert_false(opens(r, 1, NOW + 10));
	assert_int_equal(sbx_vkey_life(k, NOW + 9), SBX_VKEY_ACTIVE);
	assert_int_equal(sbx_vkey_life(k, NOW + 10), SBX_VKEY_EXPIRED);
	k->revoked_unix_s = NOW;
	assert_false(opens(r, 1, NOW));
	assert_int_equal(sbx_vkey_life(k, NOW + 10), SBX_VKEY_REVOKED);
	sbx_keyring_free(r);
}

static void
an_old_secret_holds_for_its_grace(void **state)
{
	(void)state;
	struct sbx_keyring *r = sbx_keyring_new();
	assert_int_equal(sbx_keyring_put(r, key(1, "")), 0);
	struct sbx_vkey *k = key(1, ""), *fresh = key(2, ""), *third = key(3, ""), *rotated = sbx_vkey_copy(k);
	memcpy(rotated->old_hash, k->hash, sizeof k->hash);
	memcpy(rotated->hash, fresh->hash, sizeof k->hash);
	rotated->old_until_unix_s = NOW + 60;
	struct sbx_vkey *again = sbx_vkey_copy(rotated);
	assert_int_equal(sbx_keyring_put(r, rotated), 0);
	assert_int_equal(sbx_keyring_count(r), 1);
	assert_ptr_equal(sbx_keyring_check(r, k->hash, NOW + 59), rotated);
	assert_ptr_equal(sbx_keyring_check(r, fresh->hash, NOW + 59), rotated);
	assert_null(sbx_keyring_check(r, k->hash, NOW + 60));
	assert_ptr_equal(sbx_keyring_check(r, fresh->hash, NOW + 60), rotated);
	/* Once more: the first secret is gone at once, whatever its grace was. */
	memcpy(again->old_hash, fresh->hash, sizeof k->hash);
	memcpy(again->hash, third->hash, sizeof k->hash);
	assert_int_equal(sbx_keyring_put(r, again), 0);
	assert_null(sbx_keyring_check(r, k->hash, NOW));
	assert_ptr_equal(sbx_keyring_check(r, fresh->hash, NOW), again);
	assert_ptr_equal(sbx_keyring_check(r, third->hash, NOW), again);
	sbx_keyring_drop(r, again->id);
	assert_null(sbx_keyring_check(r, fresh->hash, NOW));
	assert_null(sbx_keyring_check(r, third->hash, NOW));
	free(k);
	free(fresh);
	free(third);
	sbx_keyring_free(r);
}

static void
secrets_are_compared_whole_and_in_constant_time(void **state)
{
	(void)state;
	struct sbx_keyring *r = sbx_keyring_new();
	struct sbx_vkey *k = key(1, ""), *wrong = key(1, "");
	wrong->hash[SBX_KEY_HASH_BYTES - 1] ^= 1; /* the same but for its last bit */
	assert_int_equal(sbx_keyring_put(r, k), 0);
	compared = compared_short = 0;
	assert_null(sbx_keyring_check(r, wrong->hash, NOW));
	assert_true(compared > 0);
	compared = 0;
	assert_ptr_equal(sbx_keyring_check(r, k->hash, NOW), k);
	assert_true(compared > 0);
	assert_int_equal(compared_short, 0);
	free(wrong);
	sbx_keyring_free(r);
}

static void
models_limit_names(void **state)
{
	(void)state;
	static const struct {
		const char *models, *name;
		bool allowed;
	} rows[] = {
		{ "", "anything", true },
		{ "a", "a", true },
		{ "a", "aa", false },
		{ "aa", "a", false },
		{ "a", "", false },
		{ "openai/gpt-5.2,chat", "chat", true },
		{ "openai/gpt-5.2,chat", "openai/gpt-5.2", true },
		{ "openai/gpt-5.2,chat", "gpt-5.2", false }, /* every provider's: more than what was allowed */
		{ "gpt-5.2", "openai/gpt-5.2", false },
		{ "openai/gpt-5.2,chat", "openai/gpt-5.2,chat", false },
		{ "openai/gpt-5.2,chat", ",", false },
		{ "openai/gpt-5.2,chat", "CHAT", false },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct sbx_vkey *k = key(1, rows[i].models);
		assert_int_equal(sbx_vkey_allows(k, sbx_span_of(rows[i].name)), rows[i].allowed);
		free(k);
	}
	static const char *const good[] = { "", "a", "a,b", "a/b-1.0:x,c" }, *const bad[] = { ",", "a,", ",a", "a,,b", "a b", "a\n", "a\x7f", "\xc3\xa4" };
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
		assert_true(sbx_vkey_models_ok(sbx_span_of(good[i])));
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_false(sbx_vkey_models_ok(sbx_span_of(bad[i])));
	char *long_one = malloc(SBX_KEY_MODELS_MAX_BYTES + 2);
	memset(long_one, 'a', SBX_KEY_MODELS_MAX_BYTES + 1);
	assert_true(sbx_vkey_models_ok((struct sbx_span){ long_one, SBX_KEY_MODELS_MAX_BYTES }));
	assert_false(sbx_vkey_models_ok((struct sbx_span){ long_one, SBX_KEY_MODELS_MAX_BYTES + 1 }));
	free(long_one);
}

/* Each digit comes from a byte that has no favourite among them. */
static void
secrets_have_all_their_digits(void **state)
{
	(void)state;
	uint8_t random[SBX_KEY_RANDOM_BYTES];
	char secret[SBX_KEY_SECRET_BYTES], id[SBX_KEY_ID_BYTES];
	for (uint32_t i = 0; i < sizeof random; i++)
		random[i] = (uint8_t)(i % 2 ? 255 : i); /* 64 good ones */
	assert_int_equal(sbx_vkey_fmt_secret(secret, random), 0);
	assert_int_equal(strlen(secret), 7 + 43);
	assert_memory_equal(secret, "sk-sbx-02468", 12);
	memset(random, 248, sizeof random);
	assert_int_equal(sbx_vkey_fmt_secret(secret, random), -SBX_EBUSY);
	memset(random, 247, sizeof random);
	assert_int_equal(sbx_vkey_fmt_secret(secret, random), 0);
	assert_string_equal(secret + 7 + 42, "z");
	sbx_vkey_fmt_id(id, (const uint8_t[8]){ 0, 1, 0xab, 0xff, 4, 5, 6, 7 });
	assert_string_equal(id, "key-0001abff04050607");
	assert_true(sbx_vkey_is_id(sbx_span_of(id)));
	assert_false(sbx_vkey_is_id(SBX_SPAN("local")));
	assert_false(sbx_vkey_is_id(SBX_SPAN("ke")));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_limit_holds_and_every_key_is_found),
		cmocka_unit_test(a_secret_is_one_keys_alone),
		cmocka_unit_test(time_decides),
		cmocka_unit_test(an_old_secret_holds_for_its_grace),
		cmocka_unit_test(secrets_are_compared_whole_and_in_constant_time),
		cmocka_unit_test(models_limit_names),
		cmocka_unit_test(secrets_have_all_their_digits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
