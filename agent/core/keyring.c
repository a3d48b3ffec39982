/* SPDX-License-Identifier: Apache-2.0 */
/* keyring.c -- see keyring.h. Two tables of chains over one list: by hash (a key with an old secret stands there twice), and by id. */
#include "agent/core/keyring.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/crypto.h>

#include <signalbox/errors.h>

#include "agent/core/names.h"

#define BUCKETS 16384 /* a power of two; 1.2 entries in each when the ring is full and all were rotated */

struct entry {
	struct sbx_vkey *key;        /* owned */
	uint32_t next_new, next_old, next_id; /* in their chains; NONE = the end */
};
#define NONE UINT32_MAX

struct sbx_keyring {
	uint32_t n;
	uint32_t by_new[BUCKETS], by_old[BUCKETS], by_id[BUCKETS];
	struct entry entry[SBX_KEYRING_MAX];
};

/* ==== one key ==== */

const char *
sbx_vkey_life_word(enum sbx_vkey_life state)
{
	static const char *const words[] = { "active", "expired", "revoked" };
	return words[state];
}

struct sbx_vkey *
sbx_vkey_copy(const struct sbx_vkey *k)
{
	const size_t tenant = strlen(k->tenant) + 1, name = strlen(k->name) + 1, models = strlen(k->models) + 1;
	struct sbx_vkey *copy = malloc(sizeof *copy + tenant + name + models);
	if (!copy)
		return NULL;
	*copy = *k;
	copy->tenant = memcpy(copy->text, k->tenant, tenant);
	copy->name = memcpy(copy->text + tenant, k->name, name);
	copy->models = memcpy(copy->text + tenant + name, k->models, models);
	return copy;
}

enum sbx_vkey_life
sbx_vkey_life(const struct sbx_vkey *k, int64_t now_unix_s)
{
	if (k->revoked_unix_s)
		return SBX_VKEY_REVOKED;
	return k->expires_unix_s && now_unix_s >= k->expires_unix_s ? SBX_VKEY_EXPIRED : SBX_VKEY_ACTIVE;
}

bool
sbx_vkey_allows(const struct sbx_vkey *k, struct sbx_span name)
{
	if (!*k->models)
		return true;
	for (const char *at = k->models; *at; at += *at == ',') {
		const size_t n = strcspn(at, ",");
		if (sbx_span_eq(name, (struct sbx_span){ at, n }))
			return true;
		at += n;
	}
	return false;
}

bool
sbx_vkey_models_ok(struct sbx_span models)
{
	if (models.n > SBX_KEY_MODELS_MAX_BYTES)
		return false;
	for (size_t i = 0; i < models.n; i++) {
		const char c = models.at[i];
		if (c <= ' ' || c > '~' || (c == ',' && (i == 0 || i + 1 == models.n || models.at[i + 1] == ',')))
			return false;
	}
	return true;
}

bool
sbx_vkey_is_id(struct sbx_span id)
{
	const size_t prefix = sizeof SBX_KEY_ID_PREFIX - 1;
	return id.n >= prefix && memcmp(id.at, SBX_KEY_ID_PREFIX, prefix) == 0;
}

int
sbx_vkey_fmt_secret(char to[SBX_KEY_SECRET_BYTES], const uint8_t random[SBX_KEY_RANDOM_BYTES])
{
	static const char digit[62] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	size_t n = sizeof SBX_KEY_SECRET_PREFIX - 1;
	memcpy(to, SBX_KEY_SECRET_PREFIX, n);
	for (size_t i = 0; i < SBX_KEY_RANDOM_BYTES && n < SBX_KEY_SECRET_BYTES - 1; i++)
		if (random[i] < 248) /* four times 62: the rest would make some digits likelier */
			to[n++] = digit[random[i] % 62];
	to[n] = '\0';
	return n == SBX_KEY_SECRET_BYTES - 1 ? 0 : -SBX_EBUSY;
}

void
sbx_vkey_fmt_id(char to[SBX_KEY_ID_BYTES], const uint8_t random[SBX_KEY_ID_DIGITS / 2])
{
	size_t n = sizeof SBX_KEY_ID_PREFIX - 1;
	memcpy(to, SBX_KEY_ID_PREFIX, n);
	for (size_t i = 0; i < SBX_KEY_ID_DIGITS / 2; i++, n += 2)
		(void)snprintf(to + n, 3, "%02x", random[i]);
}

/* ==== the ring ==== */

static uint32_t *
bucket_of_hash(uint32_t *table, const uint8_t *hash)
{
	return &table[((uint32_t)hash[0] << 8 | hash[1]) % BUCKETS];
}

static uint32_t *
bucket_of_id(struct sbx_keyring *r, struct sbx_span id)
{
	return &r->by_id[sbx_names_hash(0, id) % BUCKETS];
}

/* In constant time: how far two secrets' hashes agree is nobody's business. */
static bool
same_hash(const uint8_t *a, const uint8_t *b)
{
	return CRYPTO_memcmp(a, b, SBX_KEY_HASH_BYTES) == 0;
}

static void
unchain(struct sbx_keyring *r, uint32_t *at, uint32_t i, size_t next)
{
	while (*at != i) {
		assert(*at != NONE);
		at = (uint32_t *)((char *)&r->entry[*at] + next);
	}
	*at = *(uint32_t *)((char *)&r->entry[i] + next);
}

static void
link_entry(struct sbx_keyring *r, uint32_t i)
{
	struct entry *e = &r->entry[i];
	uint32_t *new = bucket_of_hash(r->by_new, e->key->hash), *old = bucket_of_hash(r->by_old, e->key->old_hash);
	uint32_t *id = bucket_of_id(r, sbx_span_of(e->key->id));
	e->next_new = *new;
	e->next_id = *id;
	*new = *id = i;
	if (e->key->old_until_unix_s) {
		e->next_old = *old;
		*old = i;
	}
}

static void
unlink_entry(struct sbx_keyring *r, uint32_t i)
{
	const struct sbx_vkey *k = r->entry[i].key;
	unchain(r, bucket_of_hash(r->by_new, k->hash), i, offsetof(struct entry, next_new));
	unchain(r, bucket_of_id(r, sbx_span_of(k->id)), i, offsetof(struct entry, next_id));
	if (k->old_until_unix_s)
		unchain(r, bucket_of_hash(r->by_old, k->old_hash), i, offsetof(struct entry, next_old));
}

static uint32_t
index_of_id(const struct sbx_keyring *r, struct sbx_span id)
{
	uint32_t i = *bucket_of_id((struct sbx_keyring *)(uintptr_t)r, id); /* only looks */
	while (i != NONE && !sbx_span_is(id, r->entry[i].key->id))
		i = r->entry[i].next_id;
	return i;
}

struct sbx_keyring *
sbx_keyring_new(void)
{
	struct sbx_keyring *r = malloc(sizeof *r);
	if (!r)
		return NULL;
	r->n = 0;
	for (uint32_t i = 0; i < BUCKETS; i++)
		r->by_new[i] = r->by_old[i] = r->by_id[i] = NONE;
	return r;
}

void
sbx_keyring_free(struct sbx_keyring *r)
{
	for (uint32_t i = 0; r && i < r->n; i++)
		free(r->entry[i].key);
	free(r);
}

uint32_t
sbx_keyring_count(const struct sbx_keyring *r)
{
	return r->n;
}

/* The entry whose new secret this is, or else whose old one. NONE = nobody's. */
static uint32_t
index_of_hash(const struct sbx_keyring *r, const uint8_t *hash)
{
	struct sbx_keyring *look = (struct sbx_keyring *)(uintptr_t)r; /* only looks */
	uint32_t i = *bucket_of_hash(look->by_new, hash);
	while (i != NONE && !same_hash(r->entry[i].key->hash, hash))
		i = r->entry[i].next_new;
	if (i != NONE)
		return i;
	i = *bucket_of_hash(look->by_old, hash);
	while (i != NONE && !same_hash(r->entry[i].key->old_hash, hash))
		i = r->entry[i].next_old;
	return i;
}

int
sbx_keyring_put(struct sbx_keyring *r, struct sbx_vkey *k)
{
	uint32_t i = index_of_id(r, sbx_span_of(k->id)), of_secret = index_of_hash(r, k->hash);
	if (of_secret != NONE && of_secret != i)
		return -SBX_EINVAL;
	if (i == NONE && r->n == SBX_KEYRING_MAX)
		return -SBX_EBUSY;
	if (i == NONE) {
		i = r->n++;
	} else {
		unlink_entry(r, i);
		free(r->entry[i].key);
	}
	r->entry[i].key = k;
	link_entry(r, i);
	return 0;
}

void
sbx_keyring_drop(struct sbx_keyring *r, const char *id)
{
	const uint32_t i = index_of_id(r, sbx_span_of(id)), last = r->n - 1;
	if (i == NONE)
		return;
	unlink_entry(r, i);
	free(r->entry[i].key);
	if (i != last) { /* the last one takes its place */
		unlink_entry(r, last);
		r->entry[i].key = r->entry[last].key;
		link_entry(r, i);
	}
	r->n--;
}

struct sbx_vkey *
sbx_keyring_find(const struct sbx_keyring *r, struct sbx_span id)
{
	const uint32_t i = index_of_id(r, id);
	return i == NONE ? NULL : r->entry[i].key;
}

struct sbx_vkey *
sbx_keyring_at(const struct sbx_keyring *r, uint32_t i)
{
	return r->entry[i].key;
}

const struct sbx_vkey *
sbx_keyring_check(const struct sbx_keyring *r, const uint8_t hash[SBX_KEY_HASH_BYTES], int64_t now_unix_s)
{
	const uint32_t i = index_of_hash(r, hash);
	const struct sbx_vkey *k = i == NONE ? NULL : r->entry[i].key;
	if (!k || sbx_vkey_life(k, now_unix_s) != SBX_VKEY_ACTIVE)
		return NULL;
	if (!same_hash(k->hash, hash) && now_unix_s >= k->old_until_unix_s)
		return NULL;
	return k;
}
