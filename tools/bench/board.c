/* SPDX-License-Identifier: Apache-2.0 */
/*
 * board.c -- what a look at the board costs, and that it makes no system call.
 *
 * THE BOARD is a real one: an agent with 168 models and a route of 8 leaves its snapshot, and its bytes become the sealed memfd
 * that a client would have got. Only health and prices are then written into its rows, so that choices can be measured in the
 * situations that matter; a choice that finds its four at once says little, so the dearest situation is what is judged.
 *
 * THE PROOF. All of it is measured in a child under a seccomp filter that kills at any system call whatever, the one that would
 * end it included: so it says in shared memory that it is through, and waits to be killed. That the filter does kill is shown by a
 * child that makes one harmless call. The clock is read by the vDSO; where that is none, a child that only reads it is killed,
 * and nothing can be measured.
 */
#include "tools/bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <signalbox.h>

#define N_TARGETS 168u
#define N_PICKS 4u
#define UP 0u
#define HOUR_NS 3600000000000ull
#define CHILD_NS 30000000000ull
#define BLOCK_ROW 200000u    /* looks and choices between two looks at the clock: some milliseconds */
#define BLOCK_MANY 2000u
#define BLOCK_FEW 20000u

enum situation { ALL_UP, LAST_UP, ALL_THROTTLED, ALL_DOWN, SITUATIONS };
static const char *const situation_words[SITUATIONS] = { "all up", "the last four up", "all throttled", "all down" };

/* What the child leaves behind; the parent reads it when `done` is set. */
struct findings {
	uint32_t done;
	uint32_t rounds;
	uint64_t choices;        /* made under the filter */
	uint64_t sink;           /* so that nothing measured can be left out by the compiler */
	double row[ROUNDS_MAX], row_floor[ROUNDS_MAX];
	double many[SITUATIONS][ROUNDS_MAX], many_floor[ROUNDS_MAX];
	double few[SITUATIONS][ROUNDS_MAX], few_floor[ROUNDS_MAX];
};

/* ---- a board ---- */

/* The snapshot of an agent with those models, which has ended; malloc'd. NULL: said why. */
static uint8_t *
agents_board(enum loop_kind loop, size_t *ret_bytes)
{
	const struct double_ nobody = { .http = "http://127.0.0.1:9/v1" };
	struct agent a = { .process.pid = 0 };
	char path[160];
	uint8_t *image = NULL;
	long n = -1;
	bool ok = agent_start(&a, loop, &nobody, &(const struct agent_as){ .n_models = N_TARGETS });
	process_stop(&a.process); /* writes it */
	if (!ok)
		return NULL;
	(void)snprintf(path, sizeof path, "%s/board.snapshot", a.dir);
	FILE *f = fopen(path, "re");
	if (f && fseek(f, 0, SEEK_END) == 0 && (n = ftell(f)) > (long)sizeof(struct sbx_board_header) && fseek(f, 0, SEEK_SET) == 0)
		image = malloc((size_t)n);
	if (image && fread(image, 1, (size_t)n, f) != (size_t)n) {
		free(image);
		image = NULL;
	}
	if (f)
		(void)fclose(f); /* it was only read */
	if (!image)
		say("the agent left no snapshot of its board");
	*ret_bytes = image ? (size_t)n : 0;
	return image;
}

static void *
row_at(uint8_t *image, const struct sbx_board_table *t, uint32_t i)
{
	return image + t->offset + (uint64_t)i * t->stride;
}

/* Health and prices of the situation; `few` is its route of the first ones, in which the last four are others. */
static void
put_situation(uint8_t *image, enum situation situation, bool few, uint64_t now_boot_ns)
{
	struct sbx_board_header *h = (struct sbx_board_header *)(void *)image;
	const uint32_t n = few ? FEW_TARGETS : h->hot.count;
	h->state = SBX_BOARD_SERVING;
	h->heartbeat_boot_ns = now_boot_ns;
	for (uint32_t i = 0; i < n; i++) {
		struct sbx_board_hot *row = row_at(image, &h->hot, i);
		const bool up = situation == ALL_UP || (situation == LAST_UP && i + N_PICKS >= n);
		const uint64_t later_ns = HOUR_NS + i * 61u % n; /* in no order */
		row->shut_until_boot_ns = up || situation == ALL_THROTTLED ? UP : now_boot_ns + later_ns;
		row->throttled_boot_ns = situation == ALL_THROTTLED ? now_boot_ns + HOUR_NS : 0;
		for (uint32_t k = 0; k < SBX_BOARD_KEYS_MAX; k++)
			row->throttle_boot_ns[k] = situation == ALL_THROTTLED ? now_boot_ns + later_ns : 0;
		row->price_in = 2500000000u;
		row->price_out = 10000000000u;
	}
}

/* As a client gets it: sealed, and mapped by the library. */
static struct sbx_board *
attach(const uint8_t *image, size_t bytes)
{
	char why[160] = "no memfd";
	struct sbx_board *board = NULL;
	int fd = memfd_create("bench-board", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd >= 0 && write(fd, image, bytes) == (ssize_t)bytes &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0)
		(void)sbx_board_attach(fd, &board, why, sizeof why);
	if (fd >= 0)
		(void)close(fd);
	if (!board)
		say("a board cannot be made: %s", why);
	return board;
}

/* ---- what is measured ---- */

struct boards {
	struct sbx_board *many[SITUATIONS], *few[SITUATIONS];
	uint32_t few_route;
	const uint8_t *image;    /* of our own: its rows are those of the boards */
	uint64_t now_boot_ns;
};

static const struct sbx_board_hot *
hot_row(const struct boards *b, uint32_t i)
{
	const struct sbx_board_header *h = (const struct sbx_board_header *)(const void *)b->image;
	return (const struct sbx_board_hot *)(const void *)(b->image + h->hot.offset + (uint64_t)i * h->hot.stride);
}

static inline uint64_t
decision_words(const struct sbx_board_hot *row)
{
	return sbx_word_load(&row->shut_until_boot_ns) ^ sbx_word_load(&row->throttled_boot_ns) ^ sbx_word_load(&row->price_change_unix_s) ^
	       sbx_word_load(&row->price_in) ^ sbx_word_load(&row->price_out) ^ sbx_word_load(&row->in_flight) ^ sbx_word_load(&row->first_p50_ns);
}

/* As signalbox/board.h tells a reader to. */
static inline uint64_t
look(const struct sbx_board_hot *row)
{
	uint64_t seq, got = 0;
	for (int tries = 0; tries < SBX_BOARD_TRIES; tries++, sbx_row_pause()) {
		if (!sbx_row_read_begin(&row->seq, &seq))
			continue;
		got = decision_words(row);
		if (sbx_row_read_end(&row->seq, seq))
			return got;
	}
	return 0;
}

static double
time_rows(const struct boards *b, struct findings *f, bool locked)
{
	const struct sbx_board_hot *rows = hot_row(b, 0);
	uint64_t sum = 0, from_ns = now_ns();
	for (uint32_t i = 0, row = 0; i < BLOCK_ROW; i++) {
		sum += locked ? look(&rows[row]) : decision_words(&rows[row]);
		row = row < 61 ? row + N_TARGETS - 61 : row - 61; /* all of them, never the neighbour */
	}
	const double ns = (double)(now_ns() - from_ns) / BLOCK_ROW;
	f->sink += sum;
	return ns;
}

/* The floor of a choice: the decision words of as many rows, and no decision. */
static double
time_loads(const struct boards *b, struct findings *f, uint32_t rows, uint32_t times)
{
	uint64_t sum = 0, from_ns = now_ns();
	for (uint32_t i = 0; i < times; i++)
		for (uint32_t row = 0; row < rows; row++)
			sum += decision_words(hot_row(b, row));
	const double ns = (double)(now_ns() - from_ns) / times;
	f->sink += sum;
	return ns;
}

static double
time_choices(const struct boards *b, struct findings *f, const struct sbx_board *board, uint32_t route, uint32_t times)
{
	struct sbx_need need = SBX_NEED_INIT;
	struct sbx_pick pick[N_PICKS];
	uint64_t from_ns = now_ns();
	need.route = route;
	need.input_tokens = 1000;
	need.output_tokens = 500;
	for (uint32_t i = 0; i < times; i++) {
		need.input_tokens ^= 1; /* so that no two are the same */
		f->sink += (uint64_t)sbx_board_pick(board, &need, b->now_boot_ns, pick, N_PICKS) + pick[0].target;
	}
	f->choices += times;
	return (double)(now_ns() - from_ns) / times;
}

static void
measure_all(const struct boards *b, struct findings *f)
{
	for (uint32_t i = 0; i <= f->rounds; i++) {
		const uint32_t at = i ? i - 1 : 0; /* the first warms up, and is written over */
		f->row_floor[at] = time_rows(b, f, false);
		f->row[at] = time_rows(b, f, true);
		f->many_floor[at] = time_loads(b, f, N_TARGETS, BLOCK_MANY);
		f->few_floor[at] = time_loads(b, f, FEW_TARGETS, BLOCK_FEW);
		for (int s = 0; s < SITUATIONS; s++) {
			f->many[s][at] = time_choices(b, f, b->many[s], SBX_ROUTE_ALL, BLOCK_MANY);
			f->few[s][at] = time_choices(b, f, b->few[s], b->few_route, BLOCK_FEW);
		}
	}
}

/* ---- the proof ---- */

enum deed { ONE_CALL, ONLY_THE_CLOCK, EVERYTHING };

/* True once the filter is in force. From then on not even returning from main() is allowed. */
static bool
forbid_everything(void)
{
	struct sock_filter kill_it = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	const struct sock_fprog program = { .len = 1, .filter = &kill_it };
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

_Noreturn static void
child(enum deed deed, const struct boards *b, struct findings *f, pid_t parent)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || !forbid_everything())
		_exit(1);
	if (deed == ONE_CALL)
		(void)syscall(SYS_getppid);
	else if (deed == ONLY_THE_CLOCK)
		f->sink += now_ns();
	else
		measure_all(b, f);
	__atomic_store_n(&f->done, 1, __ATOMIC_RELEASE);
	for (;;)
		sbx_row_pause();
}

/* Does the child live to the end of its deed? *ret_killed: no, for the filter killed it. */
static bool
lives(enum deed deed, const struct boards *b, struct findings *f, bool *ret_killed)
{
	int status = 0;
	pid_t ended = 0, parent = getpid();
	f->done = 0;
	pid_t pid = fork();
	if (pid == 0)
		child(deed, b, f, parent);
	for (uint64_t until = now_ns() + CHILD_NS; pid > 0 && !ended && now_ns() < until && !rig_interrupted(); pause_ns(1000000)) {
		if (__atomic_load_n(&f->done, __ATOMIC_ACQUIRE))
			break;
		ended = waitpid(pid, &status, WNOHANG);
	}
	const bool lived = pid > 0 && !ended && __atomic_load_n(&f->done, __ATOMIC_ACQUIRE);
	if (pid > 0 && !ended) {
		(void)kill(pid, SIGKILL);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	*ret_killed = ended > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
	return lived;
}

static bool
run_under_filter(const struct boards *b, struct findings *f)
{
	bool killed;
	if (lives(ONE_CALL, b, f, &killed) || !killed) {
		say("no filter that kills at a system call can be had here");
		return false;
	}
	if (!lives(ONLY_THE_CLOCK, b, f, &killed)) {
		say("the clock of this host is a system call: nothing can be measured under the filter");
		return false;
	}
	if (lives(EVERYTHING, b, f, &killed))
		return true;
	if (!rig_interrupted())
		say(killed ? "a look at the board made a system call, and was killed for it" : "the child that looks at the board did not come to its end");
	return false;
}

/* ---- figures ---- */

static void
take_rounds(struct figure *f, const double *values, const double *floors, uint32_t rounds)
{
	struct series s = { .n = 0 };
	for (uint32_t i = 0; i < rounds; i++)
		series_add(&s, values[i], floors[i]);
	series_take(&s, f);
	series_take_best(&s, f);
}

/* Of the situation in which it takes longest; the others are told beside it. */
static void
add_choice(struct bench *b, struct figure f, double rounds_of[SITUATIONS][ROUNDS_MAX], const double *floors, uint32_t rounds)
{
	double sorted[ROUNDS_MAX], ns[SITUATIONS];
	int worst = 0;
	size_t at = 0;
	for (int s = 0; s < SITUATIONS; s++) {
		memcpy(sorted, rounds_of[s], rounds * sizeof sorted[0]);
		ns[s] = spread_of(sorted, rounds).median;
		if (ns[s] > ns[worst])
			worst = s;
		int n = snprintf(f.detail + at, sizeof f.detail - at, "%s%s %.0f ns", at ? ", " : "", situation_words[s], ns[s]);
		at += n > 0 && (size_t)n < sizeof f.detail - at ? (size_t)n : 0;
	}
	take_rounds(&f, rounds_of[worst], floors, rounds);
	(void)report_add(&b->report, &f);
}

static void
add_figures(struct bench *b, struct findings *f)
{
	struct figure row = { .name = "board_row", .what = "board: decision words of one row", .unit = "ns", .floor_is = "the same words without looking at their sequence",
	                      .limit_of = LIMIT_VALUE, .limit = 25 };
	const struct figure many = { .name = "board_pick_168", .what = "board: pick of 4 among 168, at worst", .unit = "ns",
	                             .floor_is = "loading the decision words of 168 rows", .limit_of = LIMIT_VALUE, .limit = 3000 };
	const struct figure few = { .name = "board_pick_8", .what = "board: pick of 4 among 8, at worst", .unit = "ns",
	                            .floor_is = "loading the decision words of 8 rows", .limit_of = LIMIT_VALUE, .limit = 300 };
	struct figure calls = { .name = "board_system_calls", .what = "board: system calls", .unit = "", .limit_of = LIMIT_VALUE, .limit = 0 };
	take_rounds(&row, f->row, f->row_floor, f->rounds);
	(void)report_add(&b->report, &row);
	add_choice(b, many, f->many, f->many_floor, f->rounds);
	add_choice(b, few, f->few, f->few_floor, f->rounds);
	(void)snprintf(calls.detail, sizeof calls.detail, "under a seccomp filter that kills: %llu picks lived, a child that made one getppid() was killed",
	               (unsigned long long)f->choices);
	(void)report_add(&b->report, &calls);
}

bool
measure_board(struct bench *b)
{
	struct boards boards = { .now_boot_ns = sbx_boot_ns() };
	size_t bytes = 0;
	struct findings *f = MAP_FAILED;
	progress("the board");
	uint8_t *image = agents_board(b->loop[LOOP_URING] ? LOOP_URING : LOOP_EPOLL, &bytes);
	bool ok = image != NULL;
	for (int s = 0; ok && s < SITUATIONS; s++) {
		put_situation(image, (enum situation)s, false, boards.now_boot_ns);
		boards.many[s] = attach(image, bytes);
		put_situation(image, (enum situation)s, true, boards.now_boot_ns);
		boards.few[s] = attach(image, bytes);
		ok = boards.many[s] && boards.few[s];
	}
	boards.image = image;
	if (ok && sbx_board_find_route(boards.few[0], "few", &boards.few_route)) {
		say("the board has no route \"few\"");
		ok = false;
	}
	if (ok) {
		f = mmap(NULL, sizeof *f, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		ok = f != MAP_FAILED;
	}
	if (ok) {
		f->rounds = b->quick ? 3 : 11;
		ok = run_under_filter(&boards, f);
	}
	if (ok)
		add_figures(b, f);
	for (int s = 0; s < SITUATIONS; s++) {
		sbx_board_close(boards.many[s]);
		sbx_board_close(boards.few[s]);
	}
	if (f != MAP_FAILED)
		(void)munmap(f, sizeof *f);
	free(image);
	return ok;
}
