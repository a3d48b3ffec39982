/* SPDX-License-Identifier: Apache-2.0 */
/* paths.c -- see paths.h. An empty variable counts as unset everywhere, as the XDG specification has it. */
#include "agent/paths.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <signalbox/errors.h>

#define SYSTEM_CONFIG "/etc/signalbox/config.json"
#define SYSTEM_SOCKET "/run/signalbox/agent.sock"

static const char *
env(const char *name)
{
	const char *value = getenv(name);
	return value && *value ? value : NULL;
}

static int
join(char *out, size_t cap, const char *head, const char *tail)
{
	char path[4096]; /* PATH_MAX; also keeps `out` untouched when it is too small */
	int n = snprintf(path, sizeof path, "%s%s", head, tail);
	if (n < 0 || (size_t)n >= sizeof path || (size_t)n >= cap)
		return -SBX_ETOOBIG;
	memcpy(out, path, (size_t)n + 1);
	return 0;
}

int
sbx_path_config(const char *named, char *ret_path, size_t path_bytes)
{
	if (!named)
		named = env("SIGNALBOX_CONFIG");
	if (named)
		return join(ret_path, path_bytes, named, "");

	char user[4096];
	const char *base = env("XDG_CONFIG_HOME"), *tail = "/signalbox/config.json";
	if (!base) {
		base = env("HOME");
		tail = "/.config/signalbox/config.json";
	}
	/* Whatever access() says but "not there" means: it is there, and opening it will tell what is wrong with it. */
	if (base && join(user, sizeof user, base, tail) == 0 &&
	    (access(user, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR)))
		return join(ret_path, path_bytes, user, "");
	if (access(SYSTEM_CONFIG, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR))
		return join(ret_path, path_bytes, SYSTEM_CONFIG, "");
	return -SBX_ENOENT;
}

int
sbx_path_socket(char *ret_path, size_t path_bytes)
{
	const char *path = env("SIGNALBOX_SOCKET");
	if (path)
		return join(ret_path, path_bytes, path, "");
	const char *runtime = env("XDG_RUNTIME_DIR");
	if (runtime)
		return join(ret_path, path_bytes, runtime, "/signalbox/agent.sock");
	return join(ret_path, path_bytes, SYSTEM_SOCKET, "");
}

/* `name` in the directory of another file. */
static int
beside(const char *path, const char *name, char *ret_path, size_t path_bytes)
{
	char dir[4096];
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) + 1 : 0;
	if (n >= sizeof dir)
		return -SBX_ETOOBIG;
	memcpy(dir, path, n);
	dir[n] = '\0';
	return join(ret_path, path_bytes, dir, name);
}

/* In the first directory of $STATE_DIRECTORY, which service managers set. -SBX_ENOENT: it is not set, or is no absolute path. */
static int
in_state_directory(const char *name, char *ret_path, size_t path_bytes)
{
	char dir[4096];
	const char *state = env("STATE_DIRECTORY");
	size_t n = state ? strcspn(state, ":") : 0; /* there may be several */
	if (n == 0 || state[0] != '/')
		return -SBX_ENOENT;
	if (n >= sizeof dir)
		return -SBX_ETOOBIG;
	memcpy(dir, state, n);
	dir[n] = '\0';
	return join(ret_path, path_bytes, dir, name);
}

int
sbx_path_admin_socket(const char *socket, char *ret_path, size_t path_bytes)
{
	return beside(socket, "admin.sock", ret_path, path_bytes);
}

int
sbx_path_snapshot(const char *socket, char *ret_path, size_t path_bytes)
{
	return beside(socket, "board.snapshot", ret_path, path_bytes);
}

int
sbx_path_store(bool home, char *ret_path, size_t path_bytes)
{
	int rc = in_state_directory("/signalbox.db", ret_path, path_bytes);
	if (rc != -SBX_ENOENT || !home)
		return rc;
	const char *state = env("XDG_STATE_HOME"), *user = env("HOME");
	if (state ? state[0] != '/' : !user || user[0] != '/')
		return -SBX_ENOENT;
	return join(ret_path, path_bytes, state ? state : user, state ? "/signalbox/signalbox.db" : "/.local/state/signalbox/signalbox.db");
}

void
sbx_path_make_parents(const char *path)
{
	char dir[4096];
	const char *slash = path;
	while ((slash = strchr(slash + 1, '/')) && (size_t)(slash - path) < sizeof dir) {
		memcpy(dir, path, (size_t)(slash - path));
		dir[slash - path] = '\0';
		(void)mkdir(dir, 0700); /* what is missing */
	}
}

bool
sbx_path_socket_ok(const char *path)
{
	return path[0] == '/' && strlen(path) < sizeof((struct sockaddr_un *)0)->sun_path;
}
