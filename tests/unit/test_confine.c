/* SPDX-License-Identifier: Apache-2.0 */
/* test_confine.c -- no thread of a confined process starts a program, and everything else goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/confine.h"

static sem_t confined;

static int
try_exec(void)
{
	char *const argv[] = { (char *)(uintptr_t)"true", NULL };
	return execv("/bin/true", argv) < 0 ? errno : 0;
}

static void *
thread_of_before(void *arg)
{
	while (sem_wait(&confined) < 0) {}
	*(int *)arg = try_exec();
	return NULL;
}

/* In a child, since it cannot be undone. Its exit status: 0, or the number of what is wrong. */
static int
child(void)
{
	pthread_t thread;
	int seen = 0, fds[2], status;
	if (sem_init(&confined, 0, 0) || pthread_create(&thread, NULL, thread_of_before, &seen))
		return 1;
	const int rc = sbx_confine();
	if (rc)
		return rc == -EPERM || rc == -EACCES || rc == -ENOSYS ? 77 : 2;
	if (sem_post(&confined) || pthread_join(thread, NULL) || seen != EPERM)
		return 3;
	if (try_exec() != EPERM)
		return 4;
	if (syscall(SYS_execveat, AT_FDCWD, "/bin/true", NULL, NULL, 0) == 0 || errno != EPERM)
		return 5;
	const pid_t pid = fork(); /* a child of it is confined as well */
	if (pid == 0)
		_exit(try_exec() == EPERM ? 0 : 1);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
		return 6;
	return socketpair(AF_UNIX, SOCK_STREAM, 0, fds) || open("/dev/null", O_RDONLY | O_CLOEXEC) < 0 ? 7 : 0;
}

static void
no_thread_starts_a_program(void **state)
{
	(void)state;
	int status;
	const pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(child());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_thread_starts_a_program),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
