/* SPDX-License-Identifier: Apache-2.0 */
/* store_file.c -- see store_file.h. */
#include "agent/io/store_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/dialect/json_scan.h"
#include "client/buf.h"

#define POISON_MAX_BYTES (16u << 20) /* rows that SQLite refuses are a bug: thousands of them tell no more than one */
#define HEADER_BYTES 100             /* of an SQLite database; the application id is at 68, big-endian */
#define HEADER_ID_AT 68

int
sbx_store_file_lock(const char *path, int *lock_fd)
{
	char name[SBX_STORE_PATH_BYTES];
	if (*lock_fd >= 0)
		return 0;
	(void)snprintf(name, sizeof name, "%s.lock", path);
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		int err = errno;
		(void)close(fd);
		return -err;
	}
	*lock_fd = fd;
	return 0;
}

/* The entry of a new file must survive a loss of power as well as its content, and that of a file that was moved. */
static int
sync_directory_of(const char *path)
{
	char name[SBX_STORE_PATH_BYTES];
	(void)snprintf(name, sizeof name, "%s", path);
	char *slash = strrchr(name, '/');
	if (slash)
		slash[slash == name] = 0;
	int fd = open(slash ? name : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int rc = fsync(fd) && errno != EINVAL ? -errno : 0; /* some file systems sync no directory */
	(void)close(fd);
	return rc;
}

static bool
is_ours(int fd)
{
	uint8_t h[HEADER_BYTES];
	if (pread(fd, h, sizeof h, 0) != (ssize_t)sizeof h || memcmp(h, "SQLite format 3", 16) != 0)
		return false;
	const uint8_t *id = h + HEADER_ID_AT;
	return ((uint32_t)id[0] << 24 | (uint32_t)id[1] << 16 | (uint32_t)id[2] << 8 | id[3]) == SBX_STORE_APPLICATION_ID;
}

/* SQLite would make it readable for all. A descriptor of ours on the file must be gone before SQLite has one: closing any
 * descriptor drops all POSIX locks of the process on it. */
int
sbx_store_file_make(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
	if (fd < 0)
		return -errno;
	int rc = fstat(fd, &st) ? -errno : S_ISREG(st.st_mode) && (st.st_size == 0 || is_ours(fd)) ? 0 : -EINVAL;
	(void)close(fd); /* nothing was written */
	return rc == 0 && st.st_size == 0 ? sync_directory_of(path) : rc;
}

/* The log first: a log that stays behind alone would be emptied by the new database, a database without its log is only as old
 * as the last checkpoint. */
int
sbx_store_file_put_aside(const char *path, int64_t unix_ms, char *ret_name)
{
	char name[SBX_STORE_PATH_BYTES], log[SBX_STORE_PATH_BYTES], log_name[SBX_STORE_PATH_BYTES];
	time_t s = (time_t)(unix_ms / 1000);
	struct tm tm;
	(void)gmtime_r(&s, &tm); /* fails beyond the year 2^31 */
	int n = snprintf(name, sizeof name, "%s.damaged-%04d%02d%02dT%02d%02d%02d.%03dZ", path, tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
	                 tm.tm_min, tm.tm_sec, (int)(unix_ms % 1000));
	if (n < 0 || (size_t)n + sizeof "-wal" > sizeof name)
		return -ENAMETOOLONG;
	(void)snprintf(log, sizeof log, "%s-wal", path);
	(void)snprintf(log_name, sizeof log_name, "%.*s-wal", n, name);
	if (access(name, F_OK) == 0)
		return -EEXIST; /* of this millisecond: the next try has another name */
	if ((rename(log, log_name) && errno != ENOENT) || rename(path, name))
		return -errno;
	memcpy(ret_name, name, (size_t)n + 1);
	return sync_directory_of(path);
}

/* ==== rows that were refused ==== */

static void
add_text(struct sbx_buf *line, const char *name, const char *text)
{
	(void)sbx_buf_printf(line, ",\"%s\":", name);
	if (!text || sbx_json_string_encode(text, strlen(text), line))
		(void)sbx_buf_append(line, "null", 4);
}

static void
add_number(struct sbx_buf *line, const char *name, int64_t value)
{
	(void)sbx_buf_printf(line, ",\"%s\":%lld", name, (long long)value);
}

int
sbx_store_file_poison(const char *path, const struct sbx_store_row *r, const char *why)
{
	struct sbx_buf line; /* what memory or its maximum cuts off is not worth a second way of failing */
	char name[SBX_STORE_PATH_BYTES];
	struct stat st;
	sbx_buf_init(&line, 1u << 20);
	(void)sbx_buf_printf(&line, "{\"agent\":%llu", (unsigned long long)r->agent);
	add_number(&line, "request", (int64_t)r->request);
	add_number(&line, "attempt", r->attempt);
	add_number(&line, "uid", r->uid);
	add_text(&line, "route", r->route);
	add_text(&line, "target", r->target);
	add_text(&line, "class", r->class);
	add_number(&line, "status", r->status);
	add_text(&line, "connection", r->connection);
	add_number(&line, "wasted", r->wasted);
	add_number(&line, "start_unix_ms", r->start_unix_ms);
	add_number(&line, "first_content_unix_ms", r->first_content_unix_ms);
	add_number(&line, "end_unix_ms", r->end_unix_ms);
	add_number(&line, "prompt_tokens", r->prompt_tokens);
	add_number(&line, "completion_tokens", r->completion_tokens);
	add_number(&line, "cached_tokens", r->cached_tokens);
	add_number(&line, "cache_write_tokens", r->cache_write_tokens);
	add_number(&line, "reasoning_tokens", r->reasoning_tokens);
	add_number(&line, "estimated", r->estimated);
	add_text(&line, "usage_raw", r->usage_raw);
	add_number(&line, "cost_nanousd", r->cost_nanousd);
	add_text(&line, "cost_status", r->cost_status);
	add_text(&line, "price_row", r->price_row);
	add_text(&line, "tenant", r->tenant);
	add_text(&line, "key_id", r->key_id);
	add_text(&line, "end_user", r->end_user);
	add_text(&line, "tags", r->tags);
	add_text(&line, "refused_because", why);
	(void)sbx_buf_append(&line, "}\n", 2);

	(void)snprintf(name, sizeof name, "%s.poison", path);
	int rc = 0, fd = open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
	if (fd < 0 || fstat(fd, &st))
		rc = -errno;
	else if (!S_ISREG(st.st_mode) || st.st_size + (off_t)line.n > (off_t)POISON_MAX_BYTES)
		rc = -EFBIG;
	else if (write(fd, line.data, line.n) != (ssize_t)line.n || fdatasync(fd))
		rc = errno ? -errno : -ENOSPC;
	if (fd >= 0)
		(void)close(fd); /* synced, or told as failed already */
	sbx_buf_fini(&line);
	return rc;
}
