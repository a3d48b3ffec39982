/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keys.c -- the key that a client must show, also on loopback: other users of this host, and pages in a browser, reach a port as
 * well as we do.
 *
 * One local key, in a file that only its owner can read. When the file is not there it is made with a random key, and the two
 * lines that an SDK needs are printed, once. In memory there is only the key's SHA-256, and what a client shows is hashed before it is
 * compared, in constant time: neither a core file nor a clock tells the key.
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

#define HASH_BYTES 32
#define KEY_MIN_BYTES 16       /* a shorter one can be guessed */
#define KEY_MAX_BYTES 512
#define RANDOM_BYTES 24        /* 192 bits */
#define PREFIX "sk-signalbox-" /* SDKs and secret scanners know "sk-" */

static unsigned char local_hash[HASH_BYTES];

static bool
hash(const char *key, size_t n, unsigned char to[HASH_BYTES])
{
	return EVP_Digest(key, n, to, NULL, EVP_sha256(), NULL) == 1;
}

bool
keys_check(const char *key, struct principal *ret_principal)
{
	unsigned char shown[HASH_BYTES];
	size_t n = strnlen(key, KEY_MAX_BYTES + 1);
	if (n > KEY_MAX_BYTES || !hash(key, n, shown) || CRYPTO_memcmp(shown, local_hash, HASH_BYTES) != 0)
		return false;
	*ret_principal = (struct principal){ .tenant = "local", .key_id = "local" };
	return true;
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
