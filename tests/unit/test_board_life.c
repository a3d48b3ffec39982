/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_board_life.c -- what a board says of its agent: stopped, hung, dead, or that it cannot be told. Real processes: one that is
 * killed, buried or not, one in another pid namespace, and pids that somebody else has now.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/io/publish.h"
#include "tests/unit/board_rig.h"

#define NOW 1000500000000ull /* half a second after the rig's heartbeat */
#define S 1000000000ull
#define LATE (2000 * S)      /* long after it */

static struct sbx_board
check(uint8_t *image, size_t n)
{
	struct sbx_board b = { .base = NULL };
	assert_int_equal(sbx_board_check(image, n, &b, NULL, 0), 0);
	return b;
}

static void
the_life_of_the_agent(void **state)
{
	static const struct {
		uint64_t state, age;
		bool snapshot;
		enum sbx_life want;
	} cases[] = {
		{ SBX_BOARD_STARTING, 0, false, SBX_LIFE_STARTING },
		{ SBX_BOARD_SERVING, 0, false, SBX_LIFE_SERVING },
		{ SBX_BOARD_SERVING, 3 * S, false, SBX_LIFE_SERVING },
		{ SBX_BOARD_SERVING, 3 * S + 1, false, SBX_LIFE_STALE },
		{ SBX_BOARD_DRAINING, 2 * S, false, SBX_LIFE_DRAINING },
		{ SBX_BOARD_DRAINING, 4 * S, false, SBX_LIFE_STALE },
		{ SBX_BOARD_STOPPED, 900 * S, false, SBX_LIFE_STOPPED },
		{ SBX_BOARD_REPLACED, 900 * S, false, SBX_LIFE_REPLACED },
		{ SBX_BOARD_SERVING, 13 * S, true, SBX_LIFE_SERVING },
		{ SBX_BOARD_SERVING, 13 * S + 1, true, SBX_LIFE_STALE },
		{ 77, 0, false, SBX_LIFE_STALE },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		size_t n;
		uint8_t *image = rig_image(&n);
		memcpy(image + 208, &cases[i].state, 8);
		struct sbx_board b = check(image, n);
		b.snapshot = cases[i].snapshot;
		assert_int_equal(sbx_board_life(&b, 1000 * S + cases[i].age), cases[i].want);
		free(image);
	}
	assert_string_equal(sbx_life_word(SBX_LIFE_HUNG), "hung");
}

/* ---- the process ---- */

struct rig {
	uint8_t *image;
	struct sbx_board_header *h;
	struct sbx_board board;
};

/* A board whose agent is this process. */
static void
rig_up(struct rig *r)
{
	struct stat ns;
	size_t n;
	r->image = rig_image(&n);
	r->h = (struct sbx_board_header *)(void *)r->image;
	r->board = check(r->image, n);
	assert_int_equal(stat("/proc/self/ns/pid", &ns), 0);
	r->h->agent_pid = (uint64_t)getpid();
	r->h->agent_pid_ns = ns.st_ino;
	r->h->agent_start_ticks = 0;
}

static void
its_process(void **state)
{
	struct rig r;
	(void)state;
	rig_up(&r);
	assert_int_equal(sbx_board_probe(&r.board, LATE), SBX_LIFE_HUNG);
	assert_int_equal(sbx_board_probe(&r.board, NOW), SBX_LIFE_SERVING);
	r.h->agent_start_ticks = 1; /* the number is somebody else's now */
	assert_int_equal(sbx_board_probe(&r.board, LATE), SBX_LIFE_DEAD);
	assert_int_equal(sbx_board_probe(&r.board, NOW), SBX_LIFE_DEAD); /* at once: the heartbeat is young */
	assert_int_equal(sbx_board_life(&r.board, NOW), SBX_LIFE_SERVING);
	r.h->state = SBX_BOARD_STOPPED; /* who has stopped is not dead */
	assert_int_equal(sbx_board_probe(&r.board, LATE), SBX_LIFE_STOPPED);
	r.h->state = SBX_BOARD_REPLACED;
	assert_int_equal(sbx_board_probe(&r.board, LATE), SBX_LIFE_REPLACED);
	free(r.image);
}

static void
dead_and_buried_or_not(void **state)
{
	struct rig r;
	siginfo_t info;
	(void)state;
	rig_up(&r);
	pid_t pid = fork();
	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	r.h->agent_pid = (uint64_t)pid;
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_int_equal(sbx_board_probe(&r.board, LATE), SBX_LIFE_HUNG);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(sbx_board_probe(&r.board, LATE), SBX_LIFE_DEAD); /* dead, not yet buried */
	assert_int_equal(sbx_board_probe(&r.board, NOW), SBX_LIFE_DEAD);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(sbx_board_probe(&r.board, LATE), SBX_LIFE_DEAD);
	free(r.image);
}

/* What cannot be seen is not guessed. */
static void
nothing_is_guessed(void **state)
{
	static const struct { const char *name; uint64_t pid, other_ns; } cases[] = {
		{ "another namespace", 0, 1 }, { "a pid that is nobody's there", 0x3fffff, 1 }, { "no pid", UINT64_MAX, 0 }, { "a pid of 64 bits", (1ull << 32) + 1, 0 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_agent_view v;
		struct rig r;
		rig_up(&r);
		if (cases[i].pid)
			r.h->agent_pid = cases[i].pid == UINT64_MAX ? 0 : cases[i].pid;
		r.h->agent_pid_ns += cases[i].other_ns;
		if (sbx_board_probe(&r.board, LATE) != SBX_LIFE_STALE || sbx_board_probe(&r.board, NOW) != SBX_LIFE_SERVING)
			fail_msg("%s: %s", cases[i].name, sbx_life_word(sbx_board_probe(&r.board, LATE)));
		sbx_board_agent(&r.board, &v);
		assert_false(v.pid_visible);
		r.h->agent_pid_ns = 0; /* nor where the agent did not know its own */
		assert_int_equal(sbx_board_probe(&r.board, LATE), SBX_LIFE_STALE);
		free(r.image);
	}
}

/* A container: the agent runs, its number means nothing there. */
static void
from_another_pid_namespace(void **state)
{
	struct rig r;
	int status;
	(void)state;
	rig_up(&r);
	pid_t pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWPID) && unshare(CLONE_NEWUSER | CLONE_NEWPID))
			_exit(77);
		pid_t inside = fork(); /* the first that lives there */
		if (inside == 0)
			_exit(sbx_board_probe(&r.board, LATE) == SBX_LIFE_STALE && sbx_board_probe(&r.board, NOW) == SBX_LIFE_SERVING ? 0 : 1);
		if (inside < 0 || waitpid(inside, &status, 0) != inside)
			_exit(77);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(sbx_board_probe(&r.board, LATE), SBX_LIFE_HUNG);
	free(r.image);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip(); /* no namespaces here */
	assert_int_equal(status, 0);
}

/* ---- how old the facts are ---- */

static void
state_and_age(void **state)
{
	struct sbx_agent_view v;
	struct rig r;
	(void)state;
	rig_up(&r);
	r.h->heartbeat_boot_ns = sbx_boot_ns() - 100 * S;
	r.h->heartbeat_unix_ns = 77;
	sbx_board_agent(&r.board, &v);
	assert_int_equal(v.life, SBX_LIFE_HUNG);
	assert_int_equal(v.pid, getpid());
	assert_true(v.pid_visible);
	assert_true(v.facts_age_ns >= 100 * S && v.facts_age_ns < 160 * S);
	assert_int_equal(v.facts_unix_ns, 77);
	r.h->heartbeat_boot_ns = sbx_boot_ns() + S; /* by another core's clock, say */
	sbx_board_agent(&r.board, &v);
	assert_int_equal(v.life, SBX_LIFE_SERVING);
	assert_int_equal(v.facts_age_ns, 0);
	r.h->state = SBX_BOARD_STOPPED;
	sbx_board_agent(&r.board, &v);
	assert_int_equal(v.life, SBX_LIFE_STOPPED);
	free(r.image);
}

/* A snapshot that outlived the host's restart: its agent is dead, its clock is another one, and its facts are as old as the wall
 * clock says. */
static void
a_snapshot_from_before_the_restart(void **state)
{
	const struct { const char *name; uint64_t boot[2]; uint64_t beat_ahead_ns; enum sbx_life want; } cases[] = {
		{ "another boot, whose clock stood later", { 1, 2 }, 1000000 * S, SBX_LIFE_DEAD },
		{ "another boot", { 1, 2 }, 0, SBX_LIFE_DEAD },
		{ "this boot", { 0, 0 }, 0, SBX_LIFE_SERVING },
	};
	char dir[] = "/tmp/sbx-life-XXXXXX", path[64];
	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof path, "%s/board.snapshot", dir);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_agent_view v;
		struct sbx_board *b;
		struct timespec t;
		struct rig r;
		rig_up(&r);
		assert_int_equal(sbx_boot_id(r.h->boot_id), 0);
		assert_true(r.h->boot_id[0] && r.h->boot_id[1]);
		if (cases[i].boot[0])
			memcpy(r.h->boot_id, cases[i].boot, sizeof cases[i].boot);
		assert_int_equal(clock_gettime(CLOCK_REALTIME, &t), 0);
		r.h->heartbeat_unix_ns = ((uint64_t)t.tv_sec - 5) * S;
		r.h->heartbeat_boot_ns = sbx_boot_ns() - 5 * S + cases[i].beat_ahead_ns;
		assert_int_equal(sbx_snapshot_write(path, false, 0, r.image, r.board.bytes), 0);
		assert_int_equal(sbx_board_load(path, &b, NULL, 0), 0);
		sbx_board_agent(b, &v);
		if (v.life != cases[i].want)
			fail_msg("%s: %s", cases[i].name, sbx_life_word(v.life));
		assert_true(v.facts_age_ns >= 5 * S && v.facts_age_ns < 60 * S);
		assert_true(sbx_board_now(b) >= r.h->heartbeat_boot_ns + 5 * S && sbx_board_now(b) < r.h->heartbeat_boot_ns + 60 * S);
		assert_int_equal(sbx_board_life(b, sbx_board_now(b)), cases[i].want == SBX_LIFE_DEAD ? SBX_LIFE_STALE : SBX_LIFE_SERVING);
		sbx_board_close(b);
		free(r.image);
	}
	(void)unlink(path);
	(void)rmdir(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_life_of_the_agent),
		cmocka_unit_test(its_process),
		cmocka_unit_test(dead_and_buried_or_not),
		cmocka_unit_test(nothing_is_guessed),
		cmocka_unit_test(from_another_pid_namespace),
		cmocka_unit_test(state_and_age),
		cmocka_unit_test(a_snapshot_from_before_the_restart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
