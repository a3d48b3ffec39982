/* SPDX-License-Identifier: Apache-2.0 */
/* publish.c -- see publish.h. */
#include "agent/io/publish.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <signalbox/errors.h>

#include "agent/core/tariff.h"
#include "agent/io/board_image.h"
#include "agent/log.h"
#include "client/board.h"

#define S 1000000000u
#define DIRTY_AT_ONCE 64u
#define REFRESH_BEATS 10u            /* heartbeats in which every row is written anew */
#define CLOCK_SLACK_NS 1000000ull    /* the two clocks are read one after the other; a suspend moves them apart by more */

struct sbx_publisher {
	struct sbx_board_identity id;
	char *snapshot_path;         /* NULL = none */
	bool has_group;
	gid_t group;
	int snapshot_error;          /* the last one that was logged */
	int fd;                      /* -1 = no board */
	uint8_t *base;               /* our writable map, older than the seal */
	size_t bytes;
	uint64_t boot_offset_ns;     /* CLOCK_BOOTTIME - CLOCK_MONOTONIC */
	uint64_t published_ns, beat_ns, snapshot_ns; /* last times, monotonic */
	uint32_t refresh_at;         /* row to be written anew next */
	struct sbx_tariff *tariff;   /* of each row */
};

/* ---- clocks and identity ---- */

static uint64_t
clock_ns(clockid_t id)
{
	struct timespec t;
	(void)clock_gettime(id, &t); /* cannot fail for these clocks */
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t
to_boot_ns(const struct sbx_publisher *p, uint64_t ns) /* "none" and "never" stay that */
{
	return ns == 0 || ns == UINT64_MAX ? ns : ns + p->boot_offset_ns;
}

/* CLOCK_BOOTTIME - CLOCK_MONOTONIC. They are read one after the other: a pair with a pause in between is read again. */
static uint64_t
boot_offset_ns(void)
{
	uint64_t before_ns, boot_ns, after_ns;
	int tries = 0;
	do {
		before_ns = clock_ns(CLOCK_MONOTONIC);
		boot_ns = clock_ns(CLOCK_BOOTTIME);
		after_ns = clock_ns(CLOCK_MONOTONIC);
	} while (after_ns - before_ns > CLOCK_SLACK_NS / 4 && ++tries < 4);
	return boot_ns - before_ns;
}

/* True: the clocks have moved apart (the host was suspended), and every time on the board is wrong. */
static bool
read_clocks(struct sbx_publisher *p)
{
	const uint64_t offset_ns = boot_offset_ns();
	const uint64_t apart_ns = offset_ns > p->boot_offset_ns ? offset_ns - p->boot_offset_ns : p->boot_offset_ns - offset_ns;
	if (apart_ns < CLOCK_SLACK_NS)
		return false;
	p->boot_offset_ns = offset_ns;
	return true;
}

/* Field 22 of /proc/self/stat: with the pid it names this process and no later one. 0 = not to be had. */
static uint64_t
own_start_ticks(void)
{
	unsigned long long ticks = 0;
	char line[1024];
	FILE *f = fopen("/proc/self/stat", "re");
	if (!f)
		return 0;
	const char *after_name = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
	if (!after_name || sscanf(after_name, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &ticks) != 1)
		ticks = 0;
	(void)fclose(f); /* it was only read */
	return ticks;
}

static void
identify(struct sbx_publisher *p)
{
	const long hz = sysconf(_SC_CLK_TCK);
	struct stat ns;
	p->id.pid = (uint64_t)getpid();
	p->id.start_ticks = own_start_ticks();
	p->id.start_boot_ns = p->id.start_ticks && hz > 0 ? p->id.start_ticks * (1000000000u / (uint64_t)hz) : clock_ns(CLOCK_BOOTTIME);
	if (sbx_boot_id(p->id.boot_id))
		p->id.boot_id[0] = p->id.boot_id[1] = 0;
	p->id.pid_ns = stat("/proc/self/ns/pid", &ns) == 0 ? ns.st_ino : 0;
}

/* ---- rows ---- */

static struct sbx_board_header *
header_of(const struct sbx_publisher *p)
{
	return (struct sbx_board_header *)(void *)p->base;
}

static void
quantiles(const struct sbx_latency *l, uint64_t now_ns, uint64_t *ret_p50, uint64_t *ret_p95, uint64_t *ret_p99, uint64_t *ret_n)
{
	uint32_t n;
	*ret_p50 = sbx_latency_quantile_ns(l, 500, now_ns, &n);
	*ret_p95 = n ? sbx_latency_quantile_ns(l, 950, now_ns, NULL) : 0;
	*ret_p99 = n ? sbx_latency_quantile_ns(l, 990, now_ns, NULL) : 0;
	*ret_n = n;
}

static uint64_t
price_word(int64_t price)
{
	return (uint64_t)(price == SBX_PRICE_NONE ? SBX_BOARD_UNPRICED : price);
}

static void
publish_target(const struct sbx_publisher *p, const struct sbx_world *w, uint32_t i, uint64_t now_ns)
{
	const struct sbx_target_health *h = sbx_health_target(w->health, i);
	const struct sbx_tariff *t = &p->tariff[i];
	struct sbx_board_hot *row = sbx_board_slot(p->base, &header_of(p)->hot, i), r = { .seq = 0 };
	uint32_t good, bad;

	r.shut_until_boot_ns = to_boot_ns(p, sbx_health_shut_until_ns(h));
	r.state = (uint64_t)h->state;
	r.price_change_unix_s = t->change_unix_s == SBX_PRICE_FOREVER ? 0 : (uint64_t)t->change_unix_s;
	r.price_in = price_word(t->now.in);
	r.price_out = price_word(t->now.out);
	r.price_in_after = price_word(t->after.in);
	r.price_out_after = price_word(t->after.out);
	r.in_flight = h->in_flight;
	for (uint32_t k = 0; k < SBX_KEYS_MAX; k++) {
		r.throttle_boot_ns[k] = to_boot_ns(p, h->throttle_until_ns[k]);
		if (r.throttle_boot_ns[k] > r.throttled_boot_ns)
			r.throttled_boot_ns = r.throttle_boot_ns[k];
	}
	r.why = (uint64_t)h->why;
	r.since_boot_ns = to_boot_ns(p, h->since_ns);
	quantiles(sbx_health_first_content(w->health, i), now_ns, &r.first_p50_ns, &r.first_p95_ns, &r.first_p99_ns, &r.first_n);
	quantiles(sbx_health_total(w->health, i), now_ns, &r.total_p50_ns, &r.total_p95_ns, &r.total_p99_ns, &r.total_n);
	sbx_health_recent(w->health, i, now_ns, &good, &bad);
	r.recent_good = good;
	r.recent_bad = bad;
	r.attempts = h->attempts;
	sbx_row_write(&row->seq, &r.seq, sizeof r / sizeof(uint64_t));
}

static void
publish_credential(const struct sbx_publisher *p, const struct sbx_world *w, uint32_t i)
{
	const struct sbx_credential_health *c = sbx_health_credential(w->health, i);
	struct sbx_board_credential *row = sbx_board_slot(p->base, &header_of(p)->credential, i);
	const uint64_t words[] = { 0, to_boot_ns(p, sbx_health_credential_shut_until_ns(c)), (uint64_t)c->why, to_boot_ns(p, c->since_ns) };
	sbx_row_write(&row->seq, words, sizeof words / sizeof words[0]);
}

/* A target and its provider's credentials, which change with it. */
static void
publish_row(const struct sbx_publisher *p, const struct sbx_world *w, uint32_t i, uint64_t now_ns)
{
	const struct sbx_tables *t = &w->config->tables;
	if (i >= t->n_targets)
		return; /* an ad-hoc target: the board has the configured ones */
	const struct sbx_provider *of = &t->provider[t->target[i].provider];
	publish_target(p, w, i, now_ns);
	for (uint32_t k = 0; k < of->n_credentials; k++)
		publish_credential(p, w, of->first_credential + k);
}

static void
publish_all(const struct sbx_publisher *p, const struct sbx_world *w, uint64_t now_ns)
{
	for (uint32_t i = 0; i < w->config->tables.n_targets; i++)
		publish_row(p, w, i, now_ns);
}

static void
publish_dirty(struct sbx_publisher *p, const struct sbx_world *w, uint64_t now_ns)
{
	uint32_t target[DIRTY_AT_ONCE], n;
	while ((n = sbx_health_take_dirty(w->health, target, DIRTY_AT_ONCE)) > 0)
		for (uint32_t i = 0; i < n; i++)
			publish_row(p, w, target[i], now_ns);
	p->published_ns = now_ns;
}

/* True: the row has other prices than it had. */
static bool
follow_tariff(const struct sbx_publisher *p, const struct sbx_world *w, uint32_t i, int64_t unix_s)
{
	const struct sbx_tables *t = &w->config->tables;
	return sbx_tariff_follow(&p->tariff[i], t->facts, t->target[i].known, unix_s);
}

static void
beat(struct sbx_publisher *p, const struct sbx_world *w, uint64_t now_ns)
{
	struct sbx_board_header *h = header_of(p);
	const uint32_t n = w->config->tables.n_targets;
	const uint64_t unix_ns = clock_ns(CLOCK_REALTIME);

	if (read_clocks(p))
		publish_all(p, w, now_ns);
	for (uint32_t i = 0; i < n; i++)
		if (follow_tariff(p, w, i, (int64_t)(unix_ns / S)))
			publish_row(p, w, i, now_ns);
	for (uint32_t i = 0; n && i < (n + REFRESH_BEATS - 1) / REFRESH_BEATS; i++)
		publish_row(p, w, p->refresh_at++ % n, now_ns);
	__atomic_store_n(&h->heartbeat_unix_ns, unix_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&h->heartbeat_boot_ns, clock_ns(CLOCK_BOOTTIME), __ATOMIC_RELEASE);
	p->beat_ns = now_ns;
}

/* ---- the snapshot ---- */

static int
write_all(int fd, const uint8_t *data, size_t n)
{
	while (n > 0) {
		ssize_t put = write(fd, data, n);
		if (put < 0 && errno != EINTR)
			return -errno;
		data += put > 0 ? put : 0;
		n -= put > 0 ? (size_t)put : 0;
	}
	return 0;
}

int
sbx_snapshot_write(const char *path, bool has_group, gid_t group, const void *data, size_t n)
{
	char temporary[4096];
	if ((size_t)snprintf(temporary, sizeof temporary, "%s.new", path) >= sizeof temporary)
		return -ENAMETOOLONG;
	(void)unlink(temporary); /* of an agent that died while it wrote */
	int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	int rc = write_all(fd, data, n);
	if (rc == 0 && has_group && fchown(fd, (uid_t)-1, group))
		rc = -errno;
	if (rc == 0 && fchmod(fd, 0440))
		rc = -errno;
	if (close(fd) && rc == 0)
		rc = -errno; /* some file systems tell only here that the disk is full */
	if (rc == 0 && rename(temporary, path))
		rc = -errno;
	if (rc)
		(void)unlink(temporary);
	return rc; /* not synced: after a crash of the host its facts are worth nothing */
}

static void
take_snapshot(struct sbx_publisher *p, uint64_t now_ns)
{
	p->snapshot_ns = now_ns;
	if (!p->snapshot_path)
		return;
	/* Straight from our map: this thread is the only one that writes to it, so no row is half written. */
	const int rc = sbx_snapshot_write(p->snapshot_path, p->has_group, p->group, p->base, p->bytes);
	if (rc && rc != p->snapshot_error)
		sbx_log(SBX_LOG_WARNING, "snapshot", SBX_STR("path", p->snapshot_path), SBX_ERRNO_F("error", rc));
	else if (rc == 0 && p->snapshot_error)
		sbx_log(SBX_LOG_NOTICE, "snapshot", SBX_STR("path", p->snapshot_path), SBX_STR("says", "can be written again"));
	p->snapshot_error = rc;
}

/* ---- boards ---- */

static void
let_go(struct sbx_publisher *p)
{
	if (p->base)
		(void)munmap(p->base, p->bytes);
	if (p->fd >= 0)
		(void)close(p->fd);
	free(p->tariff);
	p->base = NULL;
	p->tariff = NULL;
	p->fd = -1;
}

/* A memfd with the image in it, mapped by us and sealed against everybody else. 0 or -errno. */
static int
make_memory(const struct sbx_buf *image, int *ret_fd, uint8_t **ret_base)
{
	const size_t n = image->n;
	int rc = 0, fd = memfd_create("signalbox-board", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	void *base = MAP_FAILED;
	if (ftruncate(fd, (off_t)n) == 0)
		base = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
		rc = -errno;
	if (rc) {
		if (base != MAP_FAILED)
			(void)munmap(base, n);
		(void)close(fd);
		return rc;
	}
	memcpy(base, image->data, n);
	*ret_fd = fd;
	*ret_base = base;
	return 0;
}

int
sbx_publish_world(struct sbx_publisher *p, const struct sbx_world *w, uint64_t now_ns)
{
	const uint32_t n_targets = w->config->tables.n_targets;
	const int64_t unix_s = (int64_t)(clock_ns(CLOCK_REALTIME) / S);
	struct sbx_tariff *tariff = calloc(n_targets ? n_targets : 1, sizeof *tariff);
	struct sbx_buf image;
	uint8_t *base = NULL;
	int fd = -1;

	p->id.edition++;
	sbx_buf_init(&image, SBX_BOARD_BYTES_MAX);
	int rc = tariff && sbx_board_image(&w->config->tables, &p->id, unix_s, &image) == 0 ? make_memory(&image, &fd, &base) : -ENOMEM;
	const size_t bytes = image.n;
	sbx_buf_fini(&image);
	if (p->base) /* also when there is no new one: the old one is of a configuration that is gone */
		__atomic_store_n(&header_of(p)->state, (uint64_t)SBX_BOARD_REPLACED, __ATOMIC_RELEASE);
	let_go(p);
	if (rc) {
		free(tariff);
		sbx_log(SBX_LOG_WARNING, "no_board", SBX_STR("says", "clients cannot see health in shared memory; all else works"), SBX_ERRNO_F("error", rc));
		return -SBX_ENOBOARD;
	}
	p->fd = fd;
	p->base = base;
	p->bytes = bytes;
	p->refresh_at = 0;
	p->tariff = tariff;
	for (uint32_t i = 0; i < n_targets; i++)
		(void)follow_tariff(p, w, i, unix_s);
	(void)read_clocks(p);
	publish_dirty(p, w, now_ns); /* empties the list */
	publish_all(p, w, now_ns);
	beat(p, w, now_ns);
	__atomic_store_n(&header_of(p)->state, (uint64_t)SBX_BOARD_SERVING, __ATOMIC_RELEASE);
	__atomic_store_n(&header_of(p)->magic, SBX_BOARD_MAGIC, __ATOMIC_RELEASE);
	take_snapshot(p, now_ns);
	return 0;
}

void
sbx_publish_turn(struct sbx_publisher *p, const struct sbx_world *w, uint64_t now_ns)
{
	if (!p->base)
		return;
	if (sbx_health_is_dirty(w->health) && now_ns - p->published_ns >= SBX_PUBLISH_EVERY_NS)
		publish_dirty(p, w, now_ns);
	if (now_ns - p->beat_ns >= SBX_BOARD_HEARTBEAT_NS)
		beat(p, w, now_ns);
	if (now_ns - p->snapshot_ns >= SBX_BOARD_SNAPSHOT_NS)
		take_snapshot(p, now_ns);
}

uint64_t
sbx_publish_wake_ns(const struct sbx_publisher *p, const struct sbx_world *w)
{
	if (!p->base)
		return UINT64_MAX;
	const uint64_t beat_ns = p->beat_ns + SBX_BOARD_HEARTBEAT_NS, rows_ns = p->published_ns + SBX_PUBLISH_EVERY_NS;
	return sbx_health_is_dirty(w->health) && rows_ns < beat_ns ? rows_ns : beat_ns; /* a snapshot waits for the next beat */
}

void
sbx_publish_state(struct sbx_publisher *p, const struct sbx_world *w, enum sbx_board_agent_state state, uint64_t now_ns)
{
	if (!p->base)
		return;
	publish_dirty(p, w, now_ns);
	beat(p, w, now_ns);
	__atomic_store_n(&header_of(p)->state, (uint64_t)state, __ATOMIC_RELEASE);
	if (state == SBX_BOARD_STOPPED)
		take_snapshot(p, now_ns);
	if (state == SBX_BOARD_REPLACED) {
		free(p->snapshot_path);
		p->snapshot_path = NULL;
	}
}

/* ---- life ---- */

int
sbx_publisher_new(const struct sbx_publish_opts *opts, struct sbx_publisher **ret_publisher)
{
	struct sbx_publisher *p = calloc(1, sizeof *p);
	if (!p)
		return -SBX_ENOMEM;
	p->fd = -1;
	p->has_group = opts->has_group;
	p->group = opts->group;
	if (opts->snapshot_path && !(p->snapshot_path = strdup(opts->snapshot_path))) {
		free(p);
		return -SBX_ENOMEM;
	}
	p->id.generation = opts->generation;
	identify(p);
	*ret_publisher = p;
	return 0;
}

void
sbx_publisher_free(struct sbx_publisher *p)
{
	if (!p)
		return;
	let_go(p);
	free(p->snapshot_path);
	free(p);
}

int
sbx_publisher_fd(const struct sbx_publisher *p)
{
	return p ? p->fd : -1;
}

uint64_t
sbx_publisher_edition(const struct sbx_publisher *p)
{
	return p->id.edition;
}
