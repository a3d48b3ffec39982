/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.c -- see store.h: the queue between the loop and the writer, the writer's turn, and its states. SQLite is in store_db.c.
 *
 * Memory order. Rows: the loop fills a slot, then stores `tail`; the writer loads `tail`, reads slots below it, and stores
 * `head` when it is done with them; the loop frees rows below `head`, and so never fills a slot that is in use. Reports the
 * same way with three marks: asked (loop), done (writer), taken (loop). Release and acquire would do for that much. Sleeping
 * needs more: the writer announces at which tail it wants to be woken and then looks at the tail once more, the loop stores the
 * tail and then looks at the announcement. Each must see the other's store or be seen, which takes sequential consistency:
 * C11's default, used throughout.
 */
#include "agent/io/store.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <signalbox/errors.h>

#include "agent/io/store_db.h"
#include "agent/io/store_file.h"
#include "agent/log.h"

#define RING_SLOTS 16384 /* the power of two above the maximum */
#define RETRY_FIRST_NS 250000000ull /* after a failure; doubled each time, but for a lock: the agent that was replaced lets go of it any moment */
#define RETRY_MAX_NS 5000000000ull  /* how late space that was freed may be noticed */
#define LAST_WAIT_NS 3000000000ull  /* at the end, for a lock: of an agent that is ending as well */
#define NEVER UINT64_MAX
#define ASIDE_MAX 8                 /* damaged files in one life: a disk that spoils everything is not to be filled with what it spoiled */
_Static_assert(RING_SLOTS >= SBX_STORE_ROWS_MAX && (RING_SLOTS & (RING_SLOTS - 1)) == 0, "slots are picked by a mask");
_Static_assert((SBX_STORE_QUERIES_MAX & (SBX_STORE_QUERIES_MAX - 1)) == 0, "so are queries");

enum question_kind { ASK_REPORT, ASK_KEYS, PUT_KEY };

struct question {
	enum question_kind kind;
	struct sbx_store_report report; /* the writer's until done, then the loop's */
	struct sbx_vkey *put;           /* likewise; owned */
	struct sbx_store_keys keys;     /* likewise */
	sbx_store_keys_fn *keys_fn;     /* the loop's */
	sbx_store_report_fn *fn;        /* NULL = nobody wants it any more; the loop's, as are the next two */
	void *arg;
	uint64_t id;
};

struct sbx_store {
	char *path;
	int wake_fd, done_fd;
	pthread_t thread;
	/* shared */
	_Atomic uint64_t tail, head;         /* rows put; rows taken out, that is: acknowledged or given up */
	_Atomic uint64_t wake_at;            /* tail at which the writer wants to be woken; NEVER = it is awake */
	_Atomic uint64_t asked, done, taken; /* questions */
	_Atomic bool stop;
	_Atomic int state;                   /* enum sbx_store_state; the writer's to set */
	_Atomic uint64_t committed, lost, poisoned, commits, opens, put_aside, last_commit_ns;
	struct sbx_store_item *ring[RING_SLOTS];
	struct question question[SBX_STORE_QUERIES_MAX];
	/* the loop's own */
	uint64_t freed;                      /* rows below it are freed; not above head */
	/* the writer's own */
	struct sbx_store_db *db;             /* NULL = not open */
	int lock_fd;
	bool checked;                        /* quick_check has passed since the last failure that casts doubt on the file */
	uint64_t retry_ns;                   /* the next pause; 0 = the last thing went well */
	uint64_t question_until_ns;          /* patience with the report that runs */
};

/* ==== words ==== */

static const struct {
	const char *word, *says;
	bool well;
} states[] = {
#define X(name, word, well, says) { word, says, well },
	SBX_STORE_STATES(X)
#undef X
};

const char *
sbx_store_word(enum sbx_store_state state)
{
	return states[state].word;
}

const char *
sbx_store_says(enum sbx_store_state state)
{
	return states[state].says;
}

bool
sbx_store_well(enum sbx_store_state state)
{
	return states[state].well;
}

const char *
sbx_store_grouping_word(enum sbx_store_grouping by)
{
	static const char *const words[] = {
#define X(name, word, sql) word,
		SBX_STORE_GROUPINGS(X)
#undef X
	};
	return words[by];
}

/* ==== the writer ==== */

static uint64_t
clock_ns(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void
ring_bell(int fd)
{
	const uint64_t one = 1;
	while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
		;
}

static void
silence_bell(int fd)
{
	uint64_t n;
	while (read(fd, &n, sizeof n) < 0 && errno == EINTR)
		;
}

/* A load by name: as an array's index gcc 12 reads an atomic object plainly. */
static enum sbx_store_state
state_now(const struct sbx_store *s)
{
	return (enum sbx_store_state)atomic_load(&s->state);
}

/* Told once for each change. */
static void
set_state(struct sbx_store *s, enum sbx_store_state state, const struct sbx_store_trouble *t)
{
	enum sbx_store_state was = state_now(s);
	s->state = (int)state;
	if (was == state)
		return;
	if (t)
		sbx_log(SBX_LOG_ERROR, "store", SBX_STR("state", states[state].word), SBX_STR("says", states[state].says), SBX_STR("file", s->path),
		        SBX_STR("reason", t->says), SBX_INT("sqlite", t->code), SBX_ERRNO_F("error", t->err),
		        SBX_UINT("queued", s->tail - s->head), SBX_UINT("lost", s->lost));
	else
		sbx_log(SBX_LOG_NOTICE, "store", SBX_STR("state", states[state].word), SBX_STR("file", s->path), SBX_UINT("queued", s->tail - s->head),
		        SBX_UINT("lost", s->lost));
}

static void
close_db(struct sbx_store *s, bool well)
{
	sbx_store_db_close(s->db, well);
	s->db = NULL;
}

/* A damaged database is not written to again: it is kept under another name, and the next opening makes a new one. */
static bool
put_aside(struct sbx_store *s, const struct sbx_store_trouble *t)
{
	char name[SBX_STORE_PATH_BYTES] = "";
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail with this clock */
	int rc = s->put_aside < ASIDE_MAX ? sbx_store_file_put_aside(s->path, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000, name) : -EMFILE;
	sbx_log(SBX_LOG_ERROR, "store_damaged", SBX_STR("file", s->path), SBX_STR("reason", t->says), SBX_INT("sqlite", t->code),
	        SBX_STR("put_aside_as", rc ? NULL : name), SBX_ERRNO_F("error", rc));
	s->put_aside += rc == 0;
	return rc == 0;
}

static void
on_trouble(struct sbx_store *s, const struct sbx_store_trouble *t)
{
	close_db(s, false);
	if (t->state == SBX_STORE_IO_ERROR || t->state == SBX_STORE_CORRUPT)
		s->checked = false;
	if (t->state == SBX_STORE_CORRUPT && put_aside(s, t)) {
		s->retry_ns = RETRY_FIRST_NS;
		set_state(s, SBX_STORE_OPENING, NULL);
		return;
	}
	s->retry_ns = !s->retry_ns || t->state == SBX_STORE_LOCKED ? RETRY_FIRST_NS : s->retry_ns * 2 < RETRY_MAX_NS ? s->retry_ns * 2 : RETRY_MAX_NS;
	set_state(s, t->state, t);
}

static void
try_open(struct sbx_store *s)
{
	struct sbx_store_trouble t;
	if (sbx_store_db_open(s->path, &s->lock_fd, !s->checked, &s->db, &t)) {
		on_trouble(s, &t);
		return;
	}
	s->checked = true;
	s->opens++;
	if (s->tail == s->head) { /* else a commit has to show that it works */
		s->retry_ns = 0;
		set_state(s, SBX_STORE_READY, NULL);
	}
}

static void
tell_poison(struct sbx_store *s, const struct sbx_store_row *row, const char *why)
{
	int rc = sbx_store_file_poison(s->path, row, why);
	s->poisoned++;
	sbx_log(SBX_LOG_ERROR, "store_refused_row", SBX_UINT("agent", row->agent), SBX_UINT("request", row->request), SBX_UINT("attempt", row->attempt),
	        SBX_STR("target", row->target), SBX_INT("prompt_tokens", row->prompt_tokens), SBX_INT("completion_tokens", row->completion_tokens),
	        SBX_INT("cost_nanousd", row->cost_nanousd), SBX_STR("reason", why), SBX_BOOL("in_side_file", rc == 0), SBX_ERRNO_F("error", rc));
}

/* One batch: the rows leave the queue only when it is on the disk. */
static void
commit_batch(struct sbx_store *s)
{
	struct sbx_store_item *batch[SBX_STORE_BATCH_ROWS];
	struct sbx_store_trouble t = { .says = "" };
	uint64_t head = s->head;
	size_t n = s->tail - head, refused = 0;
	if (n > SBX_STORE_BATCH_ROWS)
		n = SBX_STORE_BATCH_ROWS;
	for (size_t i = 0; i < n; i++)
		batch[i] = s->ring[(head + i) & (RING_SLOTS - 1)];
	uint64_t from_ns = clock_ns();
	if (sbx_store_db_commit(s->db, batch, n, &refused, &t)) {
		on_trouble(s, &t);
		return;
	}
	s->last_commit_ns = clock_ns() - from_ns;
	s->commits++;
	size_t bad = 0;
	for (size_t i = 0; i < n; i++) {
		if (batch[i]->poison) {
			tell_poison(s, &batch[i]->row, refused ? t.says : "refused in an earlier try");
			bad++;
		}
	}
	s->committed += n - bad;
	s->head = head + n;
	s->retry_ns = 0;
	set_state(s, SBX_STORE_READY, NULL);
}

static bool
out_of_patience(void *arg)
{
	struct sbx_store *s = arg;
	return s->stop || clock_ns() > s->question_until_ns;
}

/* One question a turn, so that rows get theirs. */
static void
answer_one(struct sbx_store *s)
{
	uint64_t done = s->done;
	if (done == s->asked)
		return;
	struct question *q = &s->question[done & (SBX_STORE_QUERIES_MAX - 1)];
	struct sbx_store_trouble t;
	q->report.rc = q->keys.rc = -SBX_EBUSY;
	s->question_until_ns = clock_ns() + SBX_STORE_QUERY_NS;
	if (s->db && ((q->kind == ASK_REPORT && sbx_store_db_report(s->db, &q->report, out_of_patience, s, &t)) ||
	              (q->kind == ASK_KEYS && sbx_store_db_keys(s->db, &q->keys, &t)) ||
	              (q->kind == PUT_KEY && sbx_store_db_key_put(s->db, q->put, &q->keys.rc, &t) && q->keys.rc == -SBX_EBUSY)))
		on_trouble(s, &t);
	s->done = done + 1;
	ring_bell(s->done_fd);
}

/* Until the tail is at `tail`, a question is asked, the end has come, or the time is there. */
static void
wait_until(struct sbx_store *s, uint64_t tail, uint64_t until_ns)
{
	s->wake_at = tail;
	while (s->tail < tail && s->asked == s->done && !s->stop) {
		uint64_t now_ns = clock_ns();
		if (now_ns >= until_ns)
			break;
		uint64_t left_ns = until_ns - now_ns;
		struct timespec wait = { (time_t)(left_ns / 1000000000u), (long)(left_ns % 1000000000u) };
		struct pollfd p = { .fd = s->wake_fd, .events = POLLIN };
		if (ppoll(&p, 1, until_ns == NEVER ? NULL : &wait, NULL) > 0) {
			silence_bell(s->wake_fd);
			s->wake_at = tail; /* whoever rang has taken the announcement down */
		}
	}
	s->wake_at = NEVER;
}

/* The end came before the disk was well: nothing can be done for these rows but to say how many they were. */
static void
give_up_rows(struct sbx_store *s)
{
	uint64_t n = s->tail - s->head;
	if (n) {
		s->lost += n;
		sbx_log(SBX_LOG_ERROR, "store_lost_rows", SBX_UINT("rows", n), SBX_STR("state", sbx_store_word(state_now(s))), SBX_STR("file", s->path));
	}
	s->head = s->tail;
}

static void *
writer(void *arg)
{
	struct sbx_store *s = arg;
	uint64_t retry_at_ns = 0;
	while (!s->stop) {
		if (!s->db && clock_ns() >= retry_at_ns)
			try_open(s);
		if (s->db && s->tail != s->head)
			commit_batch(s);
		answer_one(s);
		if (!s->db) {
			if (clock_ns() >= retry_at_ns)
				retry_at_ns = clock_ns() + s->retry_ns;
			wait_until(s, NEVER, retry_at_ns);
			continue;
		}
		wait_until(s, s->head + 1, NEVER);
		if (s->tail != s->head && s->asked == s->done)
			wait_until(s, s->head + SBX_STORE_BATCH_ROWS, clock_ns() + SBX_STORE_BATCH_NS);
	}
	for (const uint64_t until_ns = clock_ns() + LAST_WAIT_NS; !s->db && s->tail != s->head;) {
		try_open(s); /* a last time */
		if (s->db || state_now(s) != SBX_STORE_LOCKED || clock_ns() > until_ns)
			break;
		(void)poll(NULL, 0, 20);
	}
	while (s->db && s->tail != s->head)
		commit_batch(s);
	give_up_rows(s);
	close_db(s, true);
	if (s->lock_fd >= 0)
		(void)close(s->lock_fd); /* the lock goes with it */
	s->lock_fd = -1;
	s->state = SBX_STORE_STOPPED;
	return NULL;
}

/* ==== the loop's side ==== */

/* Those that were taken out. Freed by the thread that allocates them, so that it never meets the writer at the heap's lock. */
static void
free_rows(struct sbx_store *s, uint64_t head)
{
	for (; s->freed < head; s->freed++)
		free(s->ring[s->freed & (RING_SLOTS - 1)]);
}

int
sbx_store_new(const char *path, struct sbx_store **ret_store)
{
	struct sbx_store *s = calloc(1, sizeof *s);
	sigset_t all, before;
	if (!s)
		return -SBX_ENOMEM;
	s->lock_fd = -1;
	s->wake_at = NEVER;
	s->path = strdup(path);
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
	bool failed = !s->path || s->wake_fd < 0 || s->done_fd < 0 || pthread_create(&s->thread, NULL, writer, s);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed) {
		if (s->wake_fd >= 0)
			(void)close(s->wake_fd);
		if (s->done_fd >= 0)
			(void)close(s->done_fd);
		free(s->path);
		free(s);
		return -SBX_ENOMEM;
	}
	(void)pthread_setname_np(s->thread, "store"); /* for top and gdb */
	*ret_store = s;
	return 0;
}

static void
end_question(struct question *q)
{
	sbx_store_report_fini(&q->report);
	sbx_store_keys_fini(&q->keys);
	free(q->put);
}

void
sbx_store_free(struct sbx_store *s)
{
	if (!s)
		return;
	s->stop = true;
	ring_bell(s->wake_fd);
	(void)pthread_join(s->thread, NULL); /* it is ours, and joined once */
	free_rows(s, s->head);
	for (uint32_t i = 0; i < SBX_STORE_QUERIES_MAX; i++)
		end_question(&s->question[i]);
	(void)close(s->wake_fd);
	(void)close(s->done_fd);
	free(s->path);
	free(s);
}

/* Copies `text` to *at, which moves on. */
static const char *
copy_text(char **at, const char *text, size_t n)
{
	if (!text)
		return NULL;
	char *copy = *at;
	memcpy(copy, text, n);
	copy[n] = 0;
	*at += n + 1;
	return copy;
}

static struct sbx_store_item *
copy_row(const struct sbx_store_row *row)
{
	const char *const text[] = { row->route, row->target, row->class, row->connection, row->usage_raw, row->cost_status, row->price_row,
	                             row->tenant, row->key_id, row->end_user, row->tags };
	size_t n[sizeof text / sizeof text[0]], bytes = 0;
	for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
		n[i] = text[i] ? strnlen(text[i], SBX_STORE_TEXT_MAX_BYTES) : 0;
		bytes += n[i] + 1;
	}
	struct sbx_store_item *item = malloc(sizeof *item + bytes);
	if (!item)
		return NULL;
	char *at = item->text;
	item->row = *row;
	item->poison = false;
	item->row.route = copy_text(&at, text[0], n[0]);
	item->row.target = copy_text(&at, text[1], n[1]);
	item->row.class = copy_text(&at, text[2], n[2]);
	item->row.connection = copy_text(&at, text[3], n[3]);
	item->row.usage_raw = copy_text(&at, text[4], n[4]);
	item->row.cost_status = copy_text(&at, text[5], n[5]);
	item->row.price_row = copy_text(&at, text[6], n[6]);
	item->row.tenant = copy_text(&at, text[7], n[7]);
	item->row.key_id = copy_text(&at, text[8], n[8]);
	item->row.end_user = copy_text(&at, text[9], n[9]);
	item->row.tags = copy_text(&at, text[10], n[10]);
	return item;
}

int
sbx_store_put(struct sbx_store *s, const struct sbx_store_row *row)
{
	uint64_t tail = s->tail;
	uint64_t head = s->head;
	bool full = tail - head >= SBX_STORE_ROWS_MAX;
	free_rows(s, head);
	struct sbx_store_item *item = full ? NULL : copy_row(row);
	if (!item) {
		s->lost++;
		sbx_log(SBX_LOG_ERROR, "store_lost_row", SBX_STR("because", full ? "the queue is full" : "out of memory"),
		        SBX_STR("state", sbx_store_word(state_now(s))), SBX_UINT("lost", s->lost), SBX_UINT("request", row->request), SBX_STR("target", row->target),
		        SBX_INT("cost_nanousd", row->cost_nanousd));
		return full ? -SBX_EBUSY : -SBX_ENOMEM;
	}
	s->ring[tail & (RING_SLOTS - 1)] = item;
	s->tail = tail + 1;
	uint64_t at = s->wake_at;
	if (tail + 1 >= at && atomic_compare_exchange_strong(&s->wake_at, &at, NEVER))
		ring_bell(s->wake_fd);
	return 0;
}

struct sbx_store_view
sbx_store_look(const struct sbx_store *s)
{
	uint64_t head = s->head, tail = s->tail; /* in this order: never negative */
	return (struct sbx_store_view){
		.state = state_now(s),
		.queued = tail - head,
		.committed = s->committed,
		.lost = s->lost,
		.poisoned = s->poisoned,
		.commits = s->commits,
		.opens = s->opens,
		.put_aside = s->put_aside,
		.last_commit_ns = s->last_commit_ns,
	};
}

const char *
sbx_store_path(const struct sbx_store *s)
{
	return s->path;
}

static int
ask(struct sbx_store *s, const struct question *q)
{
	uint64_t asked = s->asked;
	if (asked - s->taken >= SBX_STORE_QUERIES_MAX)
		return -SBX_EBUSY;
	s->question[asked & (SBX_STORE_QUERIES_MAX - 1)] = *q;
	s->asked = asked + 1;
	ring_bell(s->wake_fd);
	return 0;
}

int
sbx_store_ask(struct sbx_store *s, const struct sbx_store_query *query, sbx_store_report_fn *fn, void *arg, uint64_t id)
{
	return ask(s, &(struct question){ .kind = ASK_REPORT, .report = { .query = *query }, .fn = fn, .arg = arg, .id = id });
}

int
sbx_store_key_load(struct sbx_store *s, sbx_store_keys_fn *fn, void *arg)
{
	return ask(s, &(struct question){ .kind = ASK_KEYS, .keys_fn = fn, .arg = arg });
}

int
sbx_store_key_put(struct sbx_store *s, const struct sbx_vkey *key, sbx_store_keys_fn *fn, void *arg)
{
	struct sbx_vkey *copy = sbx_vkey_copy(key);
	int rc = copy ? ask(s, &(struct question){ .kind = PUT_KEY, .put = copy, .keys_fn = fn, .arg = arg }) : -SBX_ENOMEM;
	if (rc)
		free(copy);
	return rc;
}

int
sbx_store_fd(const struct sbx_store *s)
{
	return s->done_fd;
}

void
sbx_store_collect(struct sbx_store *s)
{
	silence_bell(s->done_fd); /* before the look: what is done after it rings again */
	while (s->taken != s->done) {
		struct question q = s->question[s->taken & (SBX_STORE_QUERIES_MAX - 1)];
		s->question[s->taken & (SBX_STORE_QUERIES_MAX - 1)] = (struct question){ .fn = NULL };
		s->taken++; /* first: the callee may ask again */
		if (q.fn)
			q.fn(q.arg, q.id, &q.report);
		if (q.keys_fn)
			q.keys_fn(q.arg, &q.keys);
		end_question(&q);
	}
}

void
sbx_store_forget(struct sbx_store *s, const void *arg)
{
	for (uint64_t i = s->taken; i != s->asked; i++) {
		struct question *q = &s->question[i & (SBX_STORE_QUERIES_MAX - 1)];
		if (q->arg == arg)
			q->fn = NULL;
	}
}
