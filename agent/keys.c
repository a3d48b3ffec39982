/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keys.c -- see keys.h.
 *
 * One mapping per secret holds the header lines that a key can travel in, one after the other; the key itself is the
 * tail of the first. The bookkeeping lies in ordinary memory, since a forked child finds the mapping full of zeros.
 */
#include "agent/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <signalbox/errors.h>

static const char *const headers[SBX_AUTH__COUNT] = {
#define X(name, word, header) header,
	SBX_AUTHS(X)
#undef X
};

struct sbx_secret {
	struct sbx_secret *next;   /* registry, longest key first */
	uint32_t refs;
	char fingerprint[9];
	char *map;                 /* "Authorization: Bearer KEY\0api-key: KEY\0...", owned */
	size_t map_bytes;
	const char *line[SBX_AUTH__COUNT]; /* into map; NULL = that one sends no key */
	const char *key;           /* into map */
	size_t n;                  /* bytes of the key */
};

/* Longest first, so that a key which is the beginning of another one never leaves the other's tail behind. */
static struct sbx_secret *registry;
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;

/* ==== memory ==== */

/* Zeroed memory for secrets; NULL when there is none. All protections are best effort: an old kernel or a small
 * RLIMIT_MEMLOCK is no reason to refuse service. */
static char *
map_secret(size_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return NULL;
	(void)mlock(map, bytes);
	(void)madvise(map, bytes, MADV_DONTDUMP);
	(void)madvise(map, bytes, MADV_WIPEONFORK);
	return map;
}

static void
unmap_secret(char *map, size_t bytes)
{
	explicit_bzero(map, bytes);
	(void)munmap(map, bytes); /* fails for wrong arguments only */
}

static bool
is_visible_ascii(const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (bytes[i] < 0x21 || bytes[i] > 0x7e)
			return false;
	return true;
}

/* ==== one secret ==== */

int
sbx_secret_new(const char *bytes, size_t n, struct sbx_secret **ret_secret)
{
	if (n == 0 || n > SBX_KEY_FILE_MAX_BYTES || !is_visible_ascii(bytes, n))
		return -SBX_EINVAL;
	struct sbx_secret *s = calloc(1, sizeof *s);
	if (!s)
		return -SBX_ENOMEM;
	s->refs = 1;
	s->n = n;
	for (int auth = 0; auth < SBX_AUTH__COUNT; auth++)
		s->map_bytes += headers[auth] ? strlen(headers[auth]) + n + 1 : 0;
	s->map = map_secret(s->map_bytes);
	unsigned char digest[EVP_MAX_MD_SIZE];
	if (!s->map || !EVP_Digest(bytes, n, digest, NULL, EVP_sha256(), NULL)) {
		if (s->map)
			unmap_secret(s->map, s->map_bytes);
		free(s);
		return -SBX_ENOMEM;
	}
	(void)snprintf(s->fingerprint, sizeof s->fingerprint, "%02x%02x%02x%02x", digest[0], digest[1], digest[2], digest[3]);
	char *at = s->map;
	for (int auth = 0; auth < SBX_AUTH__COUNT; auth++) {
		if (!headers[auth])
			continue;
		const size_t header_bytes = strlen(headers[auth]);
		memcpy(at, headers[auth], header_bytes);
		memcpy(at + header_bytes, bytes, n);
		s->line[auth] = at;
		if (!s->key)
			s->key = at + header_bytes;
		at += header_bytes + n + 1; /* the mapping is zeros */
	}

	(void)pthread_mutex_lock(&registry_lock);
	struct sbx_secret **link = &registry;
	while (*link && (*link)->n > n)
		link = &(*link)->next;
	s->next = *link;
	*link = s;
	(void)pthread_mutex_unlock(&registry_lock);
	*ret_secret = s;
	return 0;
}

struct sbx_secret *
sbx_secret_get(struct sbx_secret *s)
{
	s->refs++;
	return s;
}

void
sbx_secret_put(struct sbx_secret *s)
{
	if (!s || --s->refs)
		return;
	(void)pthread_mutex_lock(&registry_lock);
	struct sbx_secret **link = &registry;
	while (*link != s)
		link = &(*link)->next;
	*link = s->next;
	(void)pthread_mutex_unlock(&registry_lock);
	unmap_secret(s->map, s->map_bytes);
	free(s);
}

const char *
sbx_secret_fingerprint(const struct sbx_secret *s)
{
	return s->fingerprint;
}

const char *
sbx_secret_header(const struct sbx_secret *s, enum sbx_auth auth)
{
	return s->line[auth];
}

/* ==== the environment ==== */

void
sbx_vault_init(struct sbx_vault *v)
{
	memset(v, 0, sizeof *v);
}

void
sbx_vault_fini(struct sbx_vault *v)
{
	for (uint32_t i = 0; i < v->n; i++) {
		free(v->entry[i].name);
		sbx_secret_put(v->entry[i].secret);
	}
	free(v->entry);
	sbx_vault_init(v);
}

static struct sbx_vault_entry *
vault_find(const struct sbx_vault *v, const char *name)
{
	for (uint32_t i = 0; i < v->n; i++)
		if (strcmp(v->entry[i].name, name) == 0)
			return &v->entry[i];
	return NULL;
}

bool
sbx_vault_has(const struct sbx_vault *v, const char *name)
{
	const char *value = getenv(name);
	return (value && *value) || vault_find(v, name);
}

/* The vault takes the caller's reference, also on failure. */
static int
vault_put(struct sbx_vault *v, const char *name, struct sbx_secret *secret)
{
	struct sbx_vault_entry *e = vault_find(v, name);
	if (e) {
		sbx_secret_put(e->secret);
		e->secret = secret;
		return 0;
	}
	struct sbx_vault_entry *grown = realloc(v->entry, (v->n + 1) * sizeof *grown);
	char *copy = strdup(name);
	if (grown)
		v->entry = grown;
	if (!grown || !copy) {
		free(copy);
		sbx_secret_put(secret);
		return -SBX_ENOMEM;
	}
	v->entry[v->n++] = (struct sbx_vault_entry){ copy, secret };
	return 0;
}

/* Overwrites every definition of the variable (getenv() shows the first only, an environment may hold more), then removes
 * it. */
static void
wipe_variable(const char *name)
{
	size_t n = strlen(name);
	for (char **e = environ; e && *e; e++)
		if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
			explicit_bzero(*e + n + 1, strlen(*e + n + 1));
	(void)unsetenv(name); /* names with '=' were refused before */
}

/* Without the line end that files and shells leave behind. */
static size_t
trim_line_end(const char *bytes, size_t n)
{
	if (n && bytes[n - 1] == '\n')
		n--;
	if (n && bytes[n - 1] == '\r')
		n--;
	return n;
}

/* A key from untrimmed bytes; `of` names their origin in `why`. */
static int
secret_from(const char *bytes, size_t n, const char *of, struct sbx_secret **ret_secret, char *why, size_t why_bytes)
{
	n = trim_line_end(bytes, n);
	int rc = sbx_secret_new(bytes, n, ret_secret);
	if (rc == -SBX_EINVAL)
		(void)snprintf(why, why_bytes, n ? "%s does not hold a key: a key is one line of visible ASCII without spaces, at most 64 KiB" :
		                                   "%s is empty", of);
	return rc;
}

static int
read_env(struct sbx_vault *v, const char *name, struct sbx_secret **ret_secret, char *why, size_t why_bytes)
{
	const char *value = getenv(name);
	struct sbx_secret *secret = NULL;
	if (value && *value) {
		char of[160];
		(void)snprintf(of, sizeof of, "the variable %s", name);
		int rc = secret_from(value, strlen(value), of, &secret, why, why_bytes);
		wipe_variable(name); /* a value that was refused may still be a key with a typing error */
		if (rc == 0)
			rc = vault_put(v, name, secret);
		if (rc)
			return rc;
	}
	struct sbx_vault_entry *e = vault_find(v, name);
	if (!e) {
		(void)snprintf(why, why_bytes, "the variable %s is not set", name);
		return -SBX_ENOENT;
	}
	*ret_secret = sbx_secret_get(e->secret);
	return 0;
}

/* ==== files ==== */

/* Symbolic links are followed: that is how Kubernetes and configuration tools rotate files. What is checked is the file
 * that was opened. */
static int
read_file(const char *path, bool credential, struct sbx_secret **ret_secret, char *why, size_t why_bytes)
{
	/* NONBLOCK: a FIFO must not hang the agent before fstat() can refuse it. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0) {
		int rc = errno == ENOENT || errno == ENOTDIR ? -SBX_ENOENT : -SBX_EINVAL;
		(void)snprintf(why, why_bytes, "cannot open %s: %s", path, strerror(errno));
		return rc;
	}
	int rc = -SBX_EINVAL;
	char *text = NULL;
	size_t cap = SBX_KEY_FILE_MAX_BYTES + 2, n = 0; /* a line end may come on top of the longest key */
	struct stat st;
	if (fstat(fd, &st) < 0) {
		(void)snprintf(why, why_bytes, "cannot look at %s: %s", path, strerror(errno));
		goto out;
	}
	if (!S_ISREG(st.st_mode)) {
		(void)snprintf(why, why_bytes, "%s is not a regular file", path);
		goto out;
	}
	if (st.st_mode & S_IRWXO) {
		(void)snprintf(why, why_bytes, "%s is open to every user (mode %04o): chmod 0400 it, and replace the key that all could read",
		               path, (unsigned)(st.st_mode & 07777));
		goto out;
	}
	if (st.st_size > (off_t)cap) {
		(void)snprintf(why, why_bytes, "%s is larger than 64 KiB", path);
		goto out;
	}
	text = map_secret(cap);
	if (!text) {
		rc = -SBX_ENOMEM;
		goto out;
	}
	while (n < cap) {
		ssize_t got = read(fd, text + n, cap - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			(void)snprintf(why, why_bytes, "cannot read %s: %s", path, strerror(errno));
			goto out;
		}
		if (got == 0)
			break;
		n += (size_t)got;
	}
	rc = secret_from(text, n, path, ret_secret, why, why_bytes);
	if (rc == 0 && !credential && (st.st_mode & S_IRWXG))
		(void)snprintf(why, why_bytes, "%s is open to its group (mode %04o)", path, (unsigned)(st.st_mode & 07777));
	else if (rc == 0 && st.st_uid != 0 && st.st_uid != geteuid())
		(void)snprintf(why, why_bytes, "%s belongs to another user, who can replace the key", path);
out:
	if (text)
		unmap_secret(text, cap);
	(void)close(fd); /* read only */
	return rc;
}

static int
read_credential(const char *name, struct sbx_secret **ret_secret, char *why, size_t why_bytes)
{
	const char *dir = getenv("CREDENTIALS_DIRECTORY");
	char path[4096];
	if (!dir || *dir != '/') {
		(void)snprintf(why, why_bytes, "there are no systemd credentials here: $CREDENTIALS_DIRECTORY is not set");
		return -SBX_ENOENT;
	}
	int n = snprintf(path, sizeof path, "%s/%s", dir, name);
	if (n < 0 || (size_t)n >= sizeof path) {
		(void)snprintf(why, why_bytes, "the credential's path is too long");
		return -SBX_EINVAL;
	}
	return read_file(path, true, ret_secret, why, why_bytes);
}

/* ==== sources ==== */

static const char *
after(const char *text, const char *prefix)
{
	size_t n = strlen(prefix);
	return strncmp(text, prefix, n) == 0 ? text + n : NULL;
}

static bool
is_variable_name(const char *name)
{
	if (!*name || (*name >= '0' && *name <= '9') || strlen(name) > 128)
		return false;
	return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name);
}

static bool
is_credential_name(const char *name)
{
	return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

bool
sbx_key_source_ok(const char *source)
{
	const char *rest;
	if ((rest = after(source, "env:")) != NULL)
		return is_variable_name(rest);
	if ((rest = after(source, "file:")) != NULL)
		return rest[0] == '/';
	if ((rest = after(source, "cred:")) != NULL)
		return is_credential_name(rest);
	return false;
}

int
sbx_key_read(struct sbx_vault *v, const char *source, struct sbx_secret **ret_secret, char *why, size_t why_bytes)
{
	const char *rest;
	if (why_bytes)
		why[0] = '\0';
	if (!sbx_key_source_ok(source)) { /* the text may be a key: it is not repeated */
		(void)snprintf(why, why_bytes, "not a source of a key: env:NAME, file:/PATH or cred:NAME");
		return -SBX_EINVAL;
	}
	if ((rest = after(source, "env:")) != NULL)
		return read_env(v, rest, ret_secret, why, why_bytes);
	if ((rest = after(source, "file:")) != NULL)
		return read_file(rest, false, ret_secret, why, why_bytes);
	return read_credential(after(source, "cred:"), ret_secret, why, why_bytes);
}

/* ==== redaction ==== */

static size_t
redact_one(char *text, size_t n, const struct sbx_secret *s)
{
	char mark[24];
	int mark_n = snprintf(mark, sizeof mark, "[key %s]", s->fingerprint);
	if (mark_n < 0 || (size_t)mark_n > s->n) /* text never grows */
		mark_n = snprintf(mark, sizeof mark, "[key]");
	char *in = text, *out = text, *end = text + n, *hit;
	while (in < end && (hit = memmem(in, (size_t)(end - in), s->key, s->n)) != NULL) {
		memmove(out, in, (size_t)(hit - in));
		out += hit - in;
		memcpy(out, mark, (size_t)mark_n);
		out += mark_n;
		in = hit + s->n;
	}
	memmove(out, in, (size_t)(end - in));
	out += end - in;
	explicit_bzero(out, (size_t)(end - out)); /* no tail of a key behind the new end */
	return (size_t)(out - text);
}

size_t
sbx_redact(char *text, size_t n)
{
	(void)pthread_mutex_lock(&registry_lock);
	for (const struct sbx_secret *s = registry; s && n; s = s->next)
		if (s->n >= SBX_REDACT_MIN_BYTES)
			n = redact_one(text, n, s);
	(void)pthread_mutex_unlock(&registry_lock);
	return n;
}
