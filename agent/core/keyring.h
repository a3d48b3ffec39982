/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keyring.h -- virtual keys: what a program shows to a door instead of a provider's key, and what it may do with it. Pure.
 *
 * A key's secret has 256 random bits, so its SHA-256 is all that is kept: nobody can guess a secret and try whether it hashes to
 * that, and a slow hash, which passwords need because they can be guessed, would buy nothing.
 *
 * A key that is shown is found by the first bytes of its hash and then compared whole, in a time that does not depend on where the two
 * differ. What the search itself takes tells at most something about a hash, and from a hash nothing leads back to a secret.
 *
 *   ACTIVE --revoke--> REVOKED (its id is refused; forgotten when that is durable)
 *      \---time-----> EXPIRED
 *   rotate: another secret, and until `old_until_unix_s` the one before it as well
 *
 * The caller makes things durable, and knows the time.
 */
#ifndef SBX_AGENT_CORE_KEYRING_H
#define SBX_AGENT_CORE_KEYRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/span.h"

#define SBX_KEYRING_MAX 10000     /* 2 MiB; a key for every program and person of a large company */
#define SBX_KEY_HASH_BYTES 32
#define SBX_KEY_SECRET_PREFIX "sk-sbx-" /* SDKs and secret scanners know "sk-" */
#define SBX_KEY_SECRET_DIGITS 43       /* base 62: 256 bits */
#define SBX_KEY_SECRET_BYTES (sizeof SBX_KEY_SECRET_PREFIX + SBX_KEY_SECRET_DIGITS)
#define SBX_KEY_ID_PREFIX "key-"       /* ids that begin so are ours alone: one that is not in the ring is no key */
#define SBX_KEY_ID_DIGITS 16
#define SBX_KEY_ID_BYTES (sizeof SBX_KEY_ID_PREFIX + SBX_KEY_ID_DIGITS)
#define SBX_KEY_NAME_MAX_BYTES 64
#define SBX_KEY_MODELS_MAX_BYTES 4096
#define SBX_KEY_TENANT_MAX_BYTES 255   /* SBX_PRINCIPAL_MAX_BYTES */

enum sbx_vkey_life { SBX_VKEY_ACTIVE, SBX_VKEY_EXPIRED, SBX_VKEY_REVOKED };
const char *sbx_vkey_life_word(enum sbx_vkey_life state);

/* One virtual key. The texts never change. */
struct sbx_vkey {
	char id[SBX_KEY_ID_BYTES];
	uint8_t hash[SBX_KEY_HASH_BYTES];
	uint8_t old_hash[SBX_KEY_HASH_BYTES];
	int64_t old_until_unix_s;    /* the old one holds before this; 0 = there is none */
	int64_t created_unix_s;
	int64_t expires_unix_s;      /* from then on it is refused; 0 = never */
	int64_t revoked_unix_s;      /* 0 = not */
	const char *tenant;          /* printable ASCII */
	const char *name;            /* for people; "" = none */
	const char *models;          /* names that requests may ask for, with commas between; "" = all */
	char text[];                 /* of the three */
};

/* A copy on the heap; free() it. NULL = no memory. */
struct sbx_vkey *sbx_vkey_copy(const struct sbx_vkey *k);
enum sbx_vkey_life sbx_vkey_life(const struct sbx_vkey *k, int64_t now_unix_s);
/* May requests with this key ask for that name (of a model, of a target, of a route), as it is written? */
bool sbx_vkey_allows(const struct sbx_vkey *k, struct sbx_span name);
/* Is the text a list of models as above: names without blanks, none of them empty? */
bool sbx_vkey_models_ok(struct sbx_span models);
/* Has the id the form of one of ours? */
bool sbx_vkey_is_id(struct sbx_span id);

/* Bytes from a source of randomness, as digits. Each bounded by its _BYTES, NUL included. 0; -SBX_EBUSY: these bytes did not yield
 * enough digits without bias (once in 10^20 calls); call with others. */
#define SBX_KEY_RANDOM_BYTES 128
int sbx_vkey_fmt_secret(char to[SBX_KEY_SECRET_BYTES], const uint8_t random[SBX_KEY_RANDOM_BYTES]);
void sbx_vkey_fmt_id(char to[SBX_KEY_ID_BYTES], const uint8_t random[SBX_KEY_ID_DIGITS / 2]);

struct sbx_keyring;
struct sbx_keyring *sbx_keyring_new(void); /* NULL = no memory */
void sbx_keyring_free(struct sbx_keyring *r); /* NULL is fine */
uint32_t sbx_keyring_count(const struct sbx_keyring *r);

/* Takes a key that was allocated by sbx_vkey_copy(): a new one, or in the place of the one with its id. 0; -SBX_EBUSY there are
 * SBX_KEYRING_MAX; -SBX_EINVAL another key has that secret. On failure it stays the caller's. */
int sbx_keyring_put(struct sbx_keyring *r, struct sbx_vkey *k);
void sbx_keyring_drop(struct sbx_keyring *r, const char *id);
/* Until the ring changes; NULL = there is none. */
struct sbx_vkey *sbx_keyring_find(const struct sbx_keyring *r, struct sbx_span id);
struct sbx_vkey *sbx_keyring_at(const struct sbx_keyring *r, uint32_t i); /* in no order */
/* The key with this secret, old or new, if it is active. */
const struct sbx_vkey *sbx_keyring_check(const struct sbx_keyring *r, const uint8_t hash[SBX_KEY_HASH_BYTES], int64_t now_unix_s);

#endif
