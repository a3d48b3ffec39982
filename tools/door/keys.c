/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keys.c -- the key that a client must show, also on loopback: other users of this host, and pages in a browser, reach a port as
 * well as we do.
 *
 * Keys are the agent's (signalbox key). It is asked about the SHA-256 of what was shown, and what it said is remembered for KEEP_NS: a
 * key that is revoked opens no door after that. Half of that time before, one request asks anew while the others go on by what is
 * remembered. Good and bad ones are remembered apart, so that bad ones, of which anybody can make any number, do not push out the good. The
 * agent looks at a key's validity, and at what it may ask for, once more with each request.
 *
 * Beside these there may be one local key, for an agent without a store: in a file that only its owner can read (--key-file). When
 * that is not there it is made with a random key, and the two lines that an SDK needs are printed, once. In memory there is only the
 * key's SHA-256, and what a client shows is hashed before it is compared, in constant time: neither a core file nor a clock
 * tells the key.
 */
#include "tools/door/door.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "agent/log.h"

#define KEEP_NS 10000000000ull  /* what the agent said of a key */
#define RENEW_NS 5000000000ull  /* before its end: asked anew, by one */
#define REMEMBERED 1024         /* good ones, and as many bad ones; the place is given by the hash, and the last one has it */
#define AGENT_PREFIX "sk-sbx-"  /* what the agent's keys begin with: others it need not be asked about */
#define KEY_MIN_BYTES 16       /* a shorter one can be guessed */
#define KEY_MAX_BYTES 512
#define RANDOM_BYTES 24        /* 192 bits */
#define PREFIX "sk-signalbox-" /* SDKs and secret scanners know "sk-" */

struct remembered {
	unsigned char hash[KEY_HASH_BYTES];
	uint64_t until_ns;           /* 0 = nothing is */
	bool asked_anew;
	struct principal principal;  /* of a good one */
};

static unsigned char local_hash[KEY_HASH_BYTES];
static bool has_local;
static struct remembered *good, *bad; /* REMEMBERED each */

static bool
hash(const char *key, size_t n, unsigned char to[KEY_HASH_BYTES])
{
	return EVP_Digest(key, n, to, NULL, EVP_sha256(), NULL) == 1;
}

static struct remembered *
place_of(struct remembered *table, const unsigned char *shown)
{
	return &table[((uint32_t)shown[0] << 8 | shown[1]) % REMEMBERED];
}

static struct remembered *
recall(struct remembered *table, const unsigned char *shown, uint64_t now_ns)
{
	struct remembered *r = place_of(table, shown);
	return r->until_ns > now_ns && CRYPTO_memcmp(r->hash, shown, KEY_HASH_BYTES) == 0 ? r : NULL;
}

static void
forget(struct remembered *table, const unsigned char *shown)
{
	struct remembered *r = recall(table, shown, 0);
	if (r)
		r->until_ns = 0;
}

static void
remember(struct call *call, struct remembered *table)
{
	struct remembered *r = place_of(table, call->key_hash);
	*r = (struct remembered){ .until_ns = call->conn->door->now_ns + KEEP_NS, .principal = call->principal };
	memcpy(r->hash, call->key_hash, KEY_HASH_BYTES);
}

/* The agent cannot say: then what it said last holds for as long as it may. */
static enum verdict
unknown(struct call *call, const char *why)
{
	const struct remembered *r = recall(good, call->key_hash, call->conn->door->now_ns);
	sbx_log(SBX_LOG_WARNING, "key_check", SBX_STR("why", why));
	if (!r)
		return VERDICT_UNKNOWN;
	call->principal = r->principal;
	return VERDICT_GOOD;
}

static enum verdict
ask_agent(struct call *call)
{
	char hex[2 * KEY_HASH_BYTES + 1];
	const char *why;
	for (size_t i = 0; i < KEY_HASH_BYTES; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", call->key_hash[i]);
	return links_ask_key(call, hex, &why) == 0 ? VERDICT_ASKED : unknown(call, why);
}

enum verdict
keys_check(struct call *call, const char *key)
{
	const uint64_t now_ns = call->conn->door->now_ns;
	size_t n = strnlen(key, KEY_MAX_BYTES + 1);
	if (call->verdict == VERDICT_GOOD || call->verdict == VERDICT_BAD || call->verdict == VERDICT_UNKNOWN)
		return call->verdict; /* the agent has answered */
	if (n > KEY_MAX_BYTES || !hash(key, n, call->key_hash))
		return VERDICT_BAD;
	if (has_local && CRYPTO_memcmp(call->key_hash, local_hash, KEY_HASH_BYTES) == 0) {
		call->principal = (struct principal){ .tenant = "local", .key_id = "local" };
		return VERDICT_GOOD;
	}
	if (strncmp(key, AGENT_PREFIX, sizeof AGENT_PREFIX - 1) != 0 || recall(bad, call->key_hash, now_ns))
		return VERDICT_BAD;
	struct remembered *r = recall(good, call->key_hash, now_ns);
	if (!r || (r->until_ns - now_ns < RENEW_NS && !r->asked_anew)) {
		if (r)
			r->asked_anew = true;
		return ask_agent(call);
	}
	call->principal = r->principal;
	return VERDICT_GOOD;
}

void
keys_on_answer(struct call *call, const struct sbx_event *ev)
{
	const char *tenant, *id;
	if (!ev->last)
		return;
	if (ev->note == SBX_NOTE_STATS && sbx_reply_string(ev->reply, "tenant", &tenant) && sbx_reply_string(ev->reply, "key", &id)) {
		call->verdict = VERDICT_GOOD;
		(void)snprintf(call->principal.tenant, sizeof call->principal.tenant, "%s", tenant);
		(void)snprintf(call->principal.key_id, sizeof call->principal.key_id, "%s", id);
		remember(call, good);
	} else if (ev->note == SBX_NOTE_ERROR && sbx_reply_code(ev->reply) == SBX_CODE_INVALID_KEY) {
		call->verdict = VERDICT_BAD;
		forget(good, call->key_hash);
		remember(call, bad);
	} else {
		call->verdict = unknown(call, ev->note == SBX_NOTE_ERROR ? sbx_reply_message(ev->reply) : "the agent's answer is not understood");
	}
	clock_set(call->conn, CLOCK_NONE);
	call_wake(call);
}

void
keys_on_clock(struct call *call)
{
	call->verdict = unknown(call, "the agent does not answer");
	relay_abandon(call);
	clock_set(call->conn, CLOCK_NONE);
	call_wake(call);
}

/* ---- the file ---- */

static bool
complain(const char *path, const char *why)
{
	sbx_log(SBX_LOG_ERROR, "key_file", SBX_STR("path", path), SBX_STR("why", why));
	return false;
}

static bool
take(const char *path, char *key, size_t n)
{
	while (n && (key[n - 1] == '\n' || key[n - 1] == '\r' || key[n - 1] == ' '))
		n--;
	for (size_t i = 0; i < n; i++)
		if (key[i] <= ' ' || key[i] > '~')
			return complain(path, "it holds more than one line of visible ASCII");
	if (n < KEY_MIN_BYTES)
		return complain(path, "its key is shorter than 16 characters, which can be guessed");
	return hash(key, n, local_hash) ? true : complain(path, "SHA-256 is not available");
}

static bool
read_file(const char *path, int fd)
{
	char key[KEY_MAX_BYTES + 2];
	struct stat st;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return complain(path, "it is no regular file");
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return complain(path, "it belongs to another user");
	if (st.st_mode & 077)
		return complain(path, "others may read or change it; chmod 600");
	ssize_t n = read(fd, key, sizeof key);
	bool ok = n < 0 ? complain(path, "it cannot be read") : n > KEY_MAX_BYTES + 1 ? complain(path, "it is longer than a key") : take(path, key, (size_t)n);
	OPENSSL_cleanse(key, sizeof key);
	return ok;
}

/* Both lines can be pasted as they are. What is not a terminal may be a log, and a log is no place for a key. */
static void
say_once(const struct door *d, const char *path, const char *key)
{
	const struct listener *at = NULL;
	for (uint32_t i = 0; i < d->n_listeners && !at; i++)
		at = d->listener[i].local ? NULL : &d->listener[i];
	(void)printf("# a key was made, in %s; what an SDK needs:\n", path);
	if (at)
		(void)printf("export OPENAI_BASE_URL=%s://%s/v1\n", at->tls ? "https" : "http", at->name);
	if (isatty(STDOUT_FILENO))
		(void)printf("export OPENAI_API_KEY=%s\n", key);
	else
		(void)printf("export OPENAI_API_KEY=$(cat '%s')\n", path);
	(void)fflush(stdout);
}

static bool
make_file(const struct door *d, const char *path)
{
	static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	unsigned char random[RANDOM_BYTES];
	char key[sizeof PREFIX + RANDOM_BYTES * 4 / 3], line[sizeof key + 1];
	if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
		return complain(path, "no random numbers for a new key");
	size_t n = sizeof PREFIX - 1;
	memcpy(key, PREFIX, n);
	for (size_t i = 0; i < sizeof random; i += 3) {
		uint32_t v = (uint32_t)random[i] << 16 | (uint32_t)random[i + 1] << 8 | random[i + 2];
		for (int shift = 18; shift >= 0; shift -= 6)
			key[n++] = digit[v >> shift & 63];
	}
	key[n] = 0;
	int size = snprintf(line, sizeof line, "%s\n", key);
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	bool ok = fd >= 0 && write(fd, line, (size_t)size) == size && fsync(fd) == 0;
	if (fd >= 0 && close(fd) < 0)
		ok = false;
	if (!ok) {
		char why[128];
		(void)snprintf(why, sizeof why, "it cannot be made: %m");
		if (fd >= 0)
			(void)unlink(path); /* half a key helps nobody */
		return complain(path, why);
	}
	ok = hash(key, n, local_hash);
	if (ok)
		say_once(d, path, key);
	OPENSSL_cleanse(key, sizeof key);
	OPENSSL_cleanse(line, sizeof line);
	return ok;
}

bool
keys_open(struct door *d)
{
	const char *path = d->options.key_file;
	good = calloc(REMEMBERED, sizeof *good);
	bad = calloc(REMEMBERED, sizeof *bad);
	if (!good || !bad) {
		sbx_log(SBX_LOG_ERROR, "start", SBX_STR("why", "out of memory"));
		return false;
	}
	has_local = path != NULL;
	if (!path)
		return true;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return make_file(d, path);
	if (fd < 0) {
		char why[128];
		(void)snprintf(why, sizeof why, "it cannot be opened: %m");
		return complain(path, why);
	}
	bool ok = read_file(path, fd);
	(void)close(fd); /* it was only read */
	return ok;
}

void
keys_close(void)
{
	free(good);
	free(bad);
	good = bad = NULL;
}
