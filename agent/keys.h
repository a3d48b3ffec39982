/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keys.h -- provider keys in memory: read once, kept apart, never shown.
 *
 * A secret lives in pages of its own: locked, left out of core files, zero in a forked child, wiped when the last
 * reference goes. It comes from one of three places, named by a source:
 *   env:NAME   the variable's value is overwritten in place (so that /proc/PID/environ has it no more) and the variable
 *              is removed. A vault keeps the secret, so that a reload finds it again.
 *   file:/PATH a regular file of root's or our own, not accessible to others, at most SBX_KEY_FILE_MAX_BYTES
 *   cred:NAME  a file in $CREDENTIALS_DIRECTORY (systemd's LoadCredential=)
 * A key is visible ASCII on one line: anything else could break out of the header that carries it.
 *
 * What may be shown of a secret is its source and its fingerprint, 8 hex digits of SHA-256: a prefix of the key would
 * tell too much. sbx_redact() is the last filter of everything that leaves the process as text: it replaces every live
 * secret. It knows exact occurrences only, so it is a net below the rule that keys are not put there in the first place.
 *
 * libcurl and OpenSSL copy headers into ordinary memory; the process as a whole is therefore made undumpable by main.
 * The registry of live secrets is one for the process and may be used from any thread.
 */
#ifndef SBX_AGENT_KEYS_H
#define SBX_AGENT_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/core/tables.h"

#define SBX_KEY_FILE_MAX_BYTES 65536 /* the largest header block that servers take; real keys have 30 to 2,000 bytes */
#define SBX_REDACT_MIN_BYTES   8     /* shorter ones ("ollama", "EMPTY") are dummies, and words of ordinary text */

/* ---- one secret ---- */

/* A copy of n bytes, which the caller wipes. 0, -SBX_EINVAL (empty, too long, or not visible ASCII), -SBX_ENOMEM. The
 * caller holds one reference. */
int sbx_secret_new(const char *bytes, size_t n, struct sbx_secret **ret_secret);
struct sbx_secret *sbx_secret_get(struct sbx_secret *s); /* one more reference */
void sbx_secret_put(struct sbx_secret *s);               /* one less; the last wipes. NULL is fine */
const char *sbx_secret_fingerprint(const struct sbx_secret *s);

/* The header line that carries it ("Authorization: Bearer ...", "api-key: ..."), in the secret's own pages and valid as
 * long as the secret: a curl_slist node may point to it, so that no copy is made. NULL for SBX_AUTH_NONE. */
const char *sbx_secret_header(const struct sbx_secret *s, enum sbx_auth auth);

/* ---- where they come from ---- */

/* Secrets that were taken from the environment, by the variable's name. The caller's storage, in one thread. */
struct sbx_vault_entry {
	char *name;
	struct sbx_secret *secret;
};
struct sbx_vault {
	struct sbx_vault_entry *entry;
	uint32_t n;
};
void sbx_vault_init(struct sbx_vault *v);
void sbx_vault_fini(struct sbx_vault *v);
/* Is there a secret of that variable, in the vault or (not empty) in the environment? Takes nothing. */
bool sbx_vault_has(const struct sbx_vault *v, const char *name);

/* Does the text begin like a source? It may still name nothing. */
bool sbx_key_source_ok(const char *source);

/* sbx_key_read() -- the secret that a source names.
 *  source      "env:NAME", "file:/PATH" or "cred:NAME"
 *  ret_secret  one reference, the caller's
 *  why         on failure a sentence; on success a warning, or "". It never holds a part of the key
 * Returns 0, -SBX_ENOENT (variable not set or empty, no such file), -SBX_EINVAL (refused: rights, kind, content),
 * -SBX_ENOMEM. */
int sbx_key_read(struct sbx_vault *v, const char *source, struct sbx_secret **ret_secret, char *why, size_t why_bytes);

/* ---- keeping them out of text ---- */

/* Replaces every live secret in text[0..n) by "[key FINGERPRINT]" (or "[key]" where that would not fit) in place. Returns
 * the new length, never more than n. A NUL is not added. */
size_t sbx_redact(char *text, size_t n);

#endif
