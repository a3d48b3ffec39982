/* SPDX-License-Identifier: Apache-2.0 */
/*
 * board.c -- to get hold of a board: attach, check, load a snapshot; and what it says of its agent. Choosing from it is in
 * board_pick.c.
 *
 * Attaching is a ladder; each rung has its own answer: cannot be mapped, not sealed, still being built, another version, cut
 * short, numbers that contradict each other. Only what passed them all is ever handed out.
 */
#include "client/board.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STRIDE_MAX 4096u      /* sixteen times the largest row of today */
#define ROWS_MAX 65536u       /* of any table; the agent's own limit is 4,096 targets */
#define SEALS_WANTED (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE)

_Static_assert(sizeof(((struct sbx_route_view *)0)->target) / sizeof(uint32_t) == SBX_BOARD_ROUTE_TARGETS_MAX, "a route's targets");

static int __attribute__((format(printf, 4, 5)))
say(int rc, char *why, size_t why_bytes, const char *fmt, ...)
{
	va_list ap;
	if (!why || !why_bytes)
		return rc;
	va_start(ap, fmt);
	(void)vsnprintf(why, why_bytes, fmt, ap);
	va_end(ap);
	return rc;
}

/* ---- the check ---- */

static __attribute__((cold)) bool /* once for each board: small rather than fast */
table_ok(const struct sbx_board_table *t, size_t row_bytes, uint64_t header_bytes, uint64_t board_bytes)
{
	return t->offset % 8 == 0 && t->stride % 8 == 0 && t->stride >= row_bytes && t->stride <= STRIDE_MAX && t->count <= ROWS_MAX &&
	       t->offset >= header_bytes && t->offset <= board_bytes && (uint64_t)t->stride * t->count <= board_bytes - t->offset;
}

/* No table reaches into another one or into the text: what is cold must not lie where the agent writes. */
static __attribute__((cold)) bool
apart(const struct sbx_board *b, uint64_t text_offset)
{
	const struct sbx_board_table all[] = { b->hot, b->credential, b->provider, b->target, b->route, { text_offset, 1, (uint32_t)b->text_bytes } };
	const size_t n = sizeof all / sizeof all[0];
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < n; k++)
			if (k != i && all[i].count && all[i].offset - all[k].offset < (uint64_t)all[k].stride * all[k].count) /* what lies before wraps round */
				return false;
	return true;
}

static __attribute__((cold)) bool
text_ok(const struct sbx_board *b, struct sbx_board_text t)
{
	return t.offset < b->text_bytes && t.bytes < b->text_bytes - t.offset && b->text[t.offset + t.bytes] == 0;
}

static __attribute__((cold)) bool
keys_ok(const struct sbx_board *b, uint32_t first, uint32_t n)
{
	return n <= SBX_BOARD_KEYS_MAX && first <= b->credential.count && n <= b->credential.count - first;
}

/* What the rows refer to is there. The name of the table whose row is bad, or NULL. */
static __attribute__((cold)) const char *
bad_table(const struct sbx_board *b, uint32_t *ret_row)
{
	for (uint32_t i = *ret_row = 0; i < b->provider.count; *ret_row = ++i) {
		const struct sbx_board_provider *p = sbx_board_row(b, &b->provider, i);
		if (!text_ok(b, p->name) || !text_ok(b, p->base_url) || !text_ok(b, p->chat_url) || !text_ok(b, p->dialect) ||
		    !keys_ok(b, p->first_credential, p->n_credentials))
			return "provider";
	}
	for (uint32_t i = *ret_row = 0; i < b->credential.count; *ret_row = ++i) {
		const struct sbx_board_credential *c = sbx_board_row(b, &b->credential, i);
		if (c->provider >= b->provider.count || !text_ok(b, c->source))
			return "credential";
	}
	for (uint32_t i = *ret_row = 0; i < b->target.count; *ret_row = ++i) {
		const struct sbx_board_target *t = sbx_board_row(b, &b->target, i);
		if (t->provider >= b->provider.count || !text_ok(b, t->name) || !text_ok(b, t->model) || !keys_ok(b, t->first_credential, t->n_credentials))
			return "target";
	}
	for (uint32_t i = *ret_row = 0; i < b->route.count; *ret_row = ++i) {
		const struct sbx_board_route *r = sbx_board_row(b, &b->route, i);
		if (!text_ok(b, r->name) || r->n_targets > SBX_BOARD_ROUTE_TARGETS_MAX)
			return "route";
		for (uint32_t k = 0; k < r->n_targets; k++)
			if (r->target[k] >= b->target.count)
				return "route";
	}
	return NULL;
}

int
sbx_board_check(const void *base, size_t bytes, struct sbx_board *ret_board, char *why, size_t why_bytes)
{
	const struct sbx_board_header *shared = base;
	struct sbx_board b = { .base = base, .bytes = bytes };
	uint32_t row;

	if (bytes < sizeof *shared)
		return say(-SBX_EPROTO, why, why_bytes, "cut short: %zu bytes are less than a board's header", bytes);
	const uint64_t magic = sbx_word_load_acquire(&shared->magic);
	if (magic == 0)
		return say(-SBX_EBUSY, why, why_bytes, "the board is not ready yet");
	if (magic != SBX_BOARD_MAGIC)
		return say(-SBX_EPROTO, why, why_bytes, "this is not a board");
	if (shared->version_major != SBX_BOARD_VERSION_MAJOR)
		return say(-SBX_EVERSION, why, why_bytes, "the board has version %u.%u, this library reads %d.x; update the older side",
		           shared->version_major, shared->version_minor, SBX_BOARD_VERSION_MAJOR);
	const uint64_t board_bytes = shared->board_bytes, header_bytes = shared->header_bytes;
	if (board_bytes > bytes)
		return say(-SBX_EPROTO, why, why_bytes, "cut short: the board has %llu bytes, %zu are there", (unsigned long long)board_bytes, bytes);
	if (header_bytes < sizeof *shared || header_bytes > board_bytes)
		return say(-SBX_EPROTO, why, why_bytes, "a header of %llu bytes cannot be", (unsigned long long)header_bytes);
	b.hot = shared->hot;
	b.credential = shared->credential;
	b.provider = shared->provider;
	b.target = shared->target;
	b.route = shared->route;
	if (!table_ok(&b.hot, sizeof(struct sbx_board_hot), header_bytes, board_bytes) ||
	    !table_ok(&b.credential, sizeof(struct sbx_board_credential), header_bytes, board_bytes) ||
	    !table_ok(&b.provider, sizeof(struct sbx_board_provider), header_bytes, board_bytes) ||
	    !table_ok(&b.target, sizeof(struct sbx_board_target), header_bytes, board_bytes) ||
	    !table_ok(&b.route, sizeof(struct sbx_board_route), header_bytes, board_bytes) || b.hot.count != b.target.count)
		return say(-SBX_EPROTO, why, why_bytes, "a table of the board lies outside of it, or its rows are of an impossible size");
	const uint64_t text_offset = shared->text_offset;
	b.text_bytes = shared->text_bytes;
	if (text_offset < header_bytes || text_offset > board_bytes || b.text_bytes == 0 || b.text_bytes > board_bytes - text_offset)
		return say(-SBX_EPROTO, why, why_bytes, "the text of the board lies outside of it");
	if (!apart(&b, text_offset))
		return say(-SBX_EPROTO, why, why_bytes, "tables of the board overlap");
	b.text = (const char *)b.base + text_offset;
	const char *table = bad_table(&b, &row);
	if (table)
		return say(-SBX_EPROTO, why, why_bytes, "row %u of the board's %s table refers to what is not there", row, table);
	*ret_board = b;
	return 0;
}

/* ---- attach, load, close ---- */

__attribute__((cold)) int
sbx_boot_id(uint64_t ret_id[2])
{
	char text[40], hex[2][17];
	size_t n = 0;
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -SBX_ENOENT;
	const ssize_t got = read(fd, text, sizeof text);
	(void)close(fd); /* it was only read */
	for (ssize_t i = 0; i < got && n < 32; i++)
		if (text[i] != '-')
			hex[n / 16][n % 16] = text[i], n++;
	if (n < 32)
		return -SBX_ENOENT;
	for (int k = 0; k < 2; k++) {
		hex[k][16] = 0;
		ret_id[k] = strtoull(hex[k], NULL, 16);
	}
	return 0;
}

static __attribute__((cold)) bool
is_of_other_boot(const struct sbx_board *b)
{
	const uint64_t *its = sbx_board_header(b)->boot_id;
	uint64_t id[2];
	return (its[0] || its[1]) && sbx_boot_id(id) == 0 && (its[0] != id[0] || its[1] != id[1]);
}

/* Takes over the memory, also on failure. */
static __attribute__((cold)) int
adopt(void *base, size_t bytes, bool snapshot, struct sbx_board **ret_board, char *why, size_t why_bytes)
{
	struct sbx_board *b = malloc(sizeof *b);
	int rc = b ? sbx_board_check(base, bytes, b, why, why_bytes) : say(-SBX_ENOMEM, why, why_bytes, "out of memory for a board");
	if (rc) {
		free(b);
		if (snapshot)
			free(base);
		else
			(void)munmap(base, bytes);
		return rc;
	}
	b->snapshot = snapshot;
	b->other_boot = snapshot && is_of_other_boot(b);
	b->refs = 1;
	*ret_board = b;
	return 0;
}

int
sbx_board_attach(int fd, struct sbx_board **ret_board, char *why, size_t why_bytes)
{
	struct stat st;
	const int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0)
		return say(-SBX_EPROTO, why, why_bytes, "the descriptor is no sealed memory: %m");
	if ((seals & SEALS_WANTED) != SEALS_WANTED)
		return say(-SBX_EPROTO, why, why_bytes, "the board's memory is not sealed: it could shrink, or be written by anybody");
	if (fstat(fd, &st) < 0)
		return say(-SBX_ENOBOARD, why, why_bytes, "the board's size cannot be told: %m");
	if (st.st_size < (off_t)sizeof(struct sbx_board_header) || st.st_size > (off_t)SBX_BOARD_BYTES_MAX)
		return say(-SBX_EPROTO, why, why_bytes, "a board of %lld bytes cannot be", (long long)st.st_size);
	void *base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return say(-SBX_ENOBOARD, why, why_bytes, "the board cannot be mapped: %m");
	return adopt(base, (size_t)st.st_size, false, ret_board, why, why_bytes);
}

static int
read_all(int fd, uint8_t *to, size_t bytes)
{
	for (size_t n = 0; n < bytes;) {
		ssize_t got = read(fd, to + n, bytes - n);
		if (got == 0 || (got < 0 && errno != EINTR))
			return -1;
		n += got > 0 ? (size_t)got : 0;
	}
	return 0;
}

static __attribute__((cold)) int
load_file(const char *path, struct sbx_board **ret_board, char *why, size_t why_bytes)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a fifo must not hold us */
	if (fd < 0)
		return say(errno == ENOENT || errno == ENOTDIR ? -SBX_ENOENT : -SBX_EACCESS, why, why_bytes, "no snapshot in %s: %m", path);
	uint8_t *base = NULL;
	int rc;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(struct sbx_board_header) || st.st_size > (off_t)SBX_BOARD_BYTES_MAX)
		rc = say(-SBX_EPROTO, why, why_bytes, "%s is no snapshot of a board", path);
	else if (!(base = malloc((size_t)st.st_size)))
		rc = say(-SBX_ENOMEM, why, why_bytes, "out of memory for a snapshot");
	else if (read_all(fd, base, (size_t)st.st_size))
		rc = say(-SBX_EPROTO, why, why_bytes, "%s cannot be read whole", path);
	else
		rc = adopt(base, (size_t)st.st_size, true, ret_board, why, why_bytes), base = NULL;
	free(base);
	(void)close(fd); /* it was only read */
	return rc;
}

__attribute__((cold)) int
sbx_board_load(const char *path, struct sbx_board **ret_board, char *why, size_t why_bytes)
{
	const char *socket = secure_getenv("SIGNALBOX_SOCKET"), *runtime = secure_getenv("XDG_RUNTIME_DIR");
	char place[512];
	int rc = -SBX_ENOENT;

	if (path)
		return load_file(path, ret_board, why, why_bytes);
	if (socket && *socket) { /* another agent's would be the wrong one */
		const char *slash = strrchr(socket, '/');
		(void)snprintf(place, sizeof place, "%.*sboard.snapshot", slash ? (int)(slash + 1 - socket) : 0, socket);
		return load_file(place, ret_board, why, why_bytes);
	}
	if (runtime && *runtime) {
		(void)snprintf(place, sizeof place, "%s/signalbox/board.snapshot", runtime);
		rc = load_file(place, ret_board, why, why_bytes);
	}
	return rc == -SBX_ENOENT ? load_file("/run/signalbox/board.snapshot", ret_board, why, why_bytes) : rc;
}

struct sbx_board *
sbx_board_get(struct sbx_board *b)
{
	(void)__atomic_add_fetch(&b->refs, 1, __ATOMIC_RELAXED);
	return b;
}

void
sbx_board_close(struct sbx_board *b)
{
	if (!b || __atomic_sub_fetch(&b->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	if (b->snapshot)
		free((void *)(uintptr_t)b->base);
	else
		(void)munmap((void *)(uintptr_t)b->base, b->bytes);
	free(b);
}

/* ---- the agent ---- */

uint64_t
sbx_boot_ns(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_BOOTTIME, &t); /* cannot fail */
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t
unix_ns(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_REALTIME, &t); /* cannot fail */
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t
sbx_board_now(const struct sbx_board *b)
{
	const struct sbx_board_header *h = sbx_board_header(b);
	const uint64_t beat_unix_ns = sbx_word_load(&h->heartbeat_unix_ns), now_unix_ns = b->other_boot ? unix_ns() : 0;
	if (!b->other_boot)
		return sbx_boot_ns();
	return sbx_word_load(&h->heartbeat_boot_ns) + (now_unix_ns > beat_unix_ns ? now_unix_ns - beat_unix_ns : 0);
}

enum sbx_life
sbx_board_life(const struct sbx_board *b, uint64_t now_boot_ns)
{
	const struct sbx_board_header *h = sbx_board_header(b);
	const uint64_t state = sbx_word_load_acquire(&h->state), beat_ns = sbx_word_load(&h->heartbeat_boot_ns);
	const uint64_t limit_ns = SBX_BOARD_STALE_BEATS * h->heartbeat_interval_ns + (b->snapshot ? SBX_BOARD_SNAPSHOT_NS : 0);

	switch (state) {
	case SBX_BOARD_STOPPED:
		return SBX_LIFE_STOPPED;
	case SBX_BOARD_REPLACED:
		return SBX_LIFE_REPLACED;
	default:
		break;
	}
	if ((now_boot_ns > beat_ns && now_boot_ns - beat_ns > limit_ns) || state > SBX_BOARD_REPLACED || b->other_boot)
		return SBX_LIFE_STALE;
	return state == SBX_BOARD_STARTING ? SBX_LIFE_STARTING : state == SBX_BOARD_DRAINING ? SBX_LIFE_DRAINING : SBX_LIFE_SERVING;
}

/* Field 22 of /proc/PID/stat; 0 = not to be had. ret_zombie: it is dead, only not yet buried. */
static __attribute__((cold)) uint64_t
start_ticks(pid_t pid, bool *ret_zombie)
{
	char path[64], line[1024];
	(void)snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, line, sizeof line - 1);
	(void)close(fd); /* it was only read */
	line[n > 0 ? n : 0] = 0;
	char state = 0;
	unsigned long long ticks = 0;
	const char *after_name = strrchr(line, ')'); /* the name may hold anything */
	if (!after_name || sscanf(after_name, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &state, &ticks) != 2)
		return 0;
	*ret_zombie = state == 'Z' || state == 'X';
	return ticks;
}

enum process { UNSEEN, THERE, GONE };

/* Is the board's agent there? Only what is certain: a pid means its process only in the same pid namespace, and with its start. */
static __attribute__((cold)) enum process
look_for_agent(const struct sbx_board *b)
{
	const struct sbx_board_header *h = sbx_board_header(b);
	const uint64_t pid = h->agent_pid;
	struct stat own_ns;
	bool zombie = false;

	if (b->other_boot)
		return GONE;
	if (pid == 0 || pid > INT32_MAX || stat("/proc/self/ns/pid", &own_ns) || own_ns.st_ino != h->agent_pid_ns)
		return UNSEEN;
	const uint64_t ticks = start_ticks((pid_t)pid, &zombie);
	if (zombie || (ticks && h->agent_start_ticks && ticks != h->agent_start_ticks)) /* pids are reused */
		return GONE;
	if (ticks)
		return THERE;
	return kill((pid_t)pid, 0) < 0 && errno == ESRCH ? GONE : UNSEEN; /* where others' processes are hidden it may be anybody */
}

__attribute__((cold)) enum sbx_life
sbx_board_probe(const struct sbx_board *b, uint64_t now_boot_ns)
{
	const enum sbx_life life = sbx_board_life(b, now_boot_ns);

	if (life == SBX_LIFE_STOPPED || life == SBX_LIFE_REPLACED)
		return life;
	switch (look_for_agent(b)) {
	case GONE:
		return SBX_LIFE_DEAD; /* however young the heartbeat */
	case THERE:
		return life == SBX_LIFE_STALE ? SBX_LIFE_HUNG : life;
	case UNSEEN:
		break;
	}
	return life;
}

__attribute__((cold)) void
sbx_board_agent(const struct sbx_board *b, struct sbx_agent_view *ret_view)
{
	const struct sbx_board_header *h = sbx_board_header(b);
	const uint64_t now_ns = sbx_board_now(b), beat_ns = sbx_word_load(&h->heartbeat_boot_ns);

	*ret_view = (struct sbx_agent_view){
		.life = sbx_board_probe(b, now_ns),
		.pid = (int64_t)h->agent_pid,
		.pid_visible = look_for_agent(b) != UNSEEN,
		.facts_age_ns = now_ns > beat_ns ? now_ns - beat_ns : 0,
		.facts_unix_ns = sbx_word_load(&h->heartbeat_unix_ns),
	};
}

const char *
sbx_life_word(enum sbx_life life)
{
	static const char words[][9] = { "starting", "serving", "draining", "stopped", "replaced", "stale", "hung", "dead" };
	_Static_assert(sizeof words / sizeof words[0] == SBX_LIFE_DEAD + 1, "a word for each");
	return (size_t)life < sizeof words / sizeof words[0] ? words[life] : "";
}

void
sbx_board_describe(const struct sbx_board *b, struct sbx_board_info *ret_info)
{
	const struct sbx_board_header *h = sbx_board_header(b);
	*ret_info = (struct sbx_board_info){
		.generation = h->generation,
		.edition = h->edition,
		.agent_pid = (int64_t)h->agent_pid,
		.agent_start_boot_ns = h->agent_start_boot_ns,
		.heartbeat_boot_ns = sbx_word_load(&h->heartbeat_boot_ns),
		.heartbeat_unix_ns = sbx_word_load(&h->heartbeat_unix_ns),
		.n_targets = b->target.count,
		.n_routes = b->route.count,
		.n_providers = b->provider.count,
		.n_credentials = b->credential.count,
		.snapshot = b->snapshot,
	};
}

/* ---- routes ---- */

int
sbx_board_route(const struct sbx_board *b, uint32_t i, struct sbx_route_view *ret_view)
{
	if (i >= b->route.count)
		return -SBX_ENOENT;
	const struct sbx_board_route *r = sbx_board_row(b, &b->route, i);
	struct sbx_route_view v = { .name = sbx_board_text_of(b, r->name), .policy = r->policy == SBX_BOARD_POLICY_PRIORITY ? "priority" : "" };
	const uint32_t n = r->n_targets;
	for (uint32_t k = 0; k < n && k < SBX_BOARD_ROUTE_TARGETS_MAX; k++)
		v.target[v.n_targets++] = r->target[k];
	*ret_view = v;
	return 0;
}

/* The row whose text at that offset is the name. */
static int
find_row(const struct sbx_board *b, const struct sbx_board_table *t, size_t text_at, const char *name, uint32_t *ret_row)
{
	for (uint32_t i = 0; i < t->count; i++) {
		const struct sbx_board_text *text = (const void *)((const uint8_t *)sbx_board_row(b, t, i) + text_at);
		if (strcmp(sbx_board_text_of(b, *text), name) == 0) {
			*ret_row = i;
			return 0;
		}
	}
	return -SBX_ENOENT;
}

int
sbx_board_find_route(const struct sbx_board *b, const char *name, uint32_t *ret_route)
{
	return find_row(b, &b->route, offsetof(struct sbx_board_route, name), name, ret_route);
}

int
sbx_board_find_target(const struct sbx_board *b, const char *name, uint32_t *ret_target)
{
	return find_row(b, &b->target, offsetof(struct sbx_board_target, name), name, ret_target);
}
