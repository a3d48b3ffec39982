/* SPDX-License-Identifier: Apache-2.0 */
/* confine.c -- see confine.h. */
#include "agent/confine.h"

#include <errno.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

/* Numbers of system calls are of one architecture; those of another (32-bit programs) are denied whole. */
#if defined(__x86_64__)
#define OWN_ARCH AUDIT_ARCH_X86_64
#define X32_CALLS 0x40000000u /* a third set of numbers, of the same architecture */
#elif defined(__aarch64__)
#define OWN_ARCH AUDIT_ARCH_AARCH64
#define X32_CALLS 0xffffffffu /* there is none */
#else
#define OWN_ARCH 0
#endif

int
sbx_confine(void)
{
#if OWN_ARCH
	const unsigned deny = SECCOMP_RET_ERRNO | EPERM;
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCH, 0, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_CALLS, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execveat, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, deny),
	};
	const struct sock_fprog program = { sizeof code / sizeof code[0], code };
	/* Without it a filter is the privilege of root. It also means that no program started from here could gain rights. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	const long rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
	if (rc < 0)
		return -errno;
	return rc > 0 ? -EBUSY : 0; /* the number of a thread that has a filter of its own */
#else
	return -ENOSYS;
#endif
}
