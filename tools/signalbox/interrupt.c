/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interrupt.c -- Ctrl-C as something to wait for. See cli.h.
 *
 * The handler stores the number and writes to an eventfd: both are safe in a handler, and the descriptor closes the gap
 * between looking at the flag and going to sleep in poll(). SA_RESETHAND makes a second signal deadly, so that no hanging
 * clean-up can hold the user; without SA_RESTART a blocked write ends too.
 */
#include "tools/signalbox/cli.h"

#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

static volatile sig_atomic_t caught;
static int wake_fd = -1;

static void
on_signal(int number)
{
	int before = errno;
	uint64_t one = 1;
	caught = number;
	if (wake_fd >= 0 && write(wake_fd, &one, sizeof one) < 0)
		caught = number; /* nothing else can be done here; poll() ends by EINTR as well */
	errno = before;
}

void
interrupt_init(void)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
		struct sigaction before, action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
		/* Ignored by whoever started us (nohup, a shell's background job): it stays so. */
		if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
			(void)sigaction(numbers[i], &action, NULL);
	}
}

int
interrupt_fd(void)
{
	return wake_fd;
}

int
interrupt_signal(void)
{
	return caught;
}
