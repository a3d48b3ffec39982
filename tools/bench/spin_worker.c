/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spin_worker.c -- keeps every core awake while latencies are measured, at a priority that gives way to anything.
 *
 * A core with nothing to do halts, and on a virtual machine it takes 50 us and more to wake it: many times what is to be
 * measured, and paid or not as the scheduler's choice of cores happens to fall. Spinning at SCHED_IDLE takes no time from
 * anybody, and what is left is the programs' own latency.
 */
#include "tools/bench/bench.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#define CORES_MAX 64 /* more than the processes of the bench can keep busy */

_Noreturn static void
spin(int core)
{
	const struct sched_param none = { .sched_priority = 0 };
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(core, &set);
	(void)sched_setaffinity(0, sizeof set, &set); /* elsewhere it spins as well */
	if (sched_setscheduler(0, SCHED_IDLE, &none))
		_exit(1); /* at any other priority it would do harm */
	for (;;)
		__asm__ volatile("" ::: "memory"); /* a loop that the compiler keeps */
}

int
spin_worker(void)
{
	cpu_set_t set;
	struct order order;
	if (sched_getaffinity(0, sizeof set, &set))
		return 1;
	for (int core = 0; core < CPU_SETSIZE && core < CORES_MAX; core++) {
		if (!CPU_ISSET(core, &set))
			continue;
		pid_t pid = fork();
		if (pid == 0) {
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			spin(core);
		}
	}
	while (next_order(&order))
		;
	return 0;
}
