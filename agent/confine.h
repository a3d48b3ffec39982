/* SPDX-License-Identifier: Apache-2.0 */
/*
 * confine.h -- after the start the agent starts no other program, ever: the kernel holds it to that.
 *
 * A process that holds keys and reads what strangers send is worth breaking into; what a break-in does first is to start a shell. A
 * seccomp filter denies execve and execveat (EPERM), to every thread that there is and every one to come, and cannot be taken
 * off again. A service manager cannot set it, since it has to start the agent by the same call. What else a filter might deny
 * is the unit's matter, where an administrator sees it.
 */
#ifndef SBX_AGENT_CONFINE_H
#define SBX_AGENT_CONFINE_H

/* 0, or -errno: this kernel or container does not allow a filter. Nothing is confined then, and all works. */
int sbx_confine(void);

#endif
