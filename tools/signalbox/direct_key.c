/* SPDX-License-Identifier: Apache-2.0 */
/*
 * direct_key.c -- a key from where the agent has it, if this user may read it there. See direct.h.
 *
 * It is read without stdio, whose buffers nobody wipes, and nothing that goes wrong is told with a piece of it.
 */
#include "tools/signalbox/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_MAX_BYTES 65536u /* as the agent's */

static size_t
read_file(const char *path, char *to, size_t room, char *why, size_t why_bytes)
{
	struct stat st;
	size_t n = 0;
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); /* a fifo must not hold us */
	if (fd < 0) {
		(void)snprintf(why, why_bytes, "its key cannot be read: %s: %m", path);
		return 0;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		(void)snprintf(why, why_bytes, "its key cannot be read: %s is not a regular file", path);
	} else {
		for (ssize_t got; n < room && (got = read(fd, to + n, room - n)) != 0;) {
			if (got < 0 && errno != EINTR) {
				(void)snprintf(why, why_bytes, "its key cannot be read: %s: %m", path);
				n = 0;
				break;
			}
			n += got > 0 ? (size_t)got : 0;
		}
		if (n == 0 && !why[0])
			(void)snprintf(why, why_bytes, "the file of its key is empty: %s", path);
	}
	(void)close(fd); /* it was only read */
	return n;
}

bool
direct_key_read(struct direct_key *k, const char *source, char *why, size_t why_bytes)
{
	const char *name = strchr(source, ':');
	size_t n = 0;
	name = name ? name + 1 : "";
	why[0] = 0;
	*k = (struct direct_key){ .at = must(calloc(1, KEY_MAX_BYTES + 1)), .room = KEY_MAX_BYTES + 1 };
	(void)mlock(k->at, k->room); /* refused by a limit: then it may reach the swap, as everything else of this process */
	if (strncmp(source, "env:", 4) == 0) {
		const char *value = getenv(name);
		n = value ? strlen(value) : 0;
		if (n == 0 || n > KEY_MAX_BYTES)
			(void)snprintf(why, why_bytes, "its key is not in your environment: set %s", name);
		else
			memcpy(k->at, value, n);
	} else if (strncmp(source, "file:", 5) == 0) {
		n = read_file(name, k->at, KEY_MAX_BYTES, why, why_bytes);
	} else if (strncmp(source, "cred:", 5) == 0) {
		(void)snprintf(why, why_bytes, "its key is the systemd credential %s, which only the agent's unit can read", name);
	} else if (!*source) {
		(void)snprintf(why, why_bytes, "the agent has no key for it");
	} else {
		(void)snprintf(why, why_bytes, "its key is in %s, of which this version knows nothing", source);
	}
	while (!why[0] && n > 0 && (k->at[n - 1] == '\n' || k->at[n - 1] == '\r' || k->at[n - 1] == ' '))
		k->at[--n] = 0;
	for (size_t i = 0; i < n && !why[0]; i++) /* it becomes a header: no line of its own, no control character */
		if (k->at[i] < 0x21 || k->at[i] > 0x7e)
			(void)snprintf(why, why_bytes, "what %s holds is no key: it has a blank, or what is not printable", source);
	if (n == 0 && !why[0])
		(void)snprintf(why, why_bytes, "%s holds no key", source);
	if (!why[0])
		return true;
	direct_key_wipe(k);
	return false;
}

void
direct_key_wipe(struct direct_key *k)
{
	if (!k->at)
		return;
	explicit_bzero(k->at, k->room);
	(void)munlock(k->at, k->room);
	free(k->at);
	k->at = NULL;
}
