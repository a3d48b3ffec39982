/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spawner.h -- signalboxd --http: the HTTP door as a process beside the agent, kept running by a third one that holds nothing.
 *
 * The agent cannot start the door itself: it denies execve to itself (confine.h), and what a child of it inherits would hold keys. So
 * a spawner is forked before any key is read. It wipes the environment out of its memory, lets go of every descriptor but the
 * channel to the agent and the program that it will start, and does three things: start the door, start it again when it ends,
 * end it with the agent.
 *
 *   agent ==channel== spawner --execve--> signalbox-http
 *
 *   the agent listens       a message with the path of its socket: the door is started
 *   the agent drains        end of file: SIGTERM, and the door drains as well
 *   the agent is gone       end of file, and SIGTERM by the kernel (PR_SET_PDEATHSIG): the door has ENDING_NS, then SIGKILL
 *   the spawner is gone     the door is killed by the kernel; the agent says so in its log, and goes on
 *   the door ends           started again, after a pause that doubles while it does not live for LONG_LIFE_NS; not after exit 64, which
 *                           is a mistake in its arguments
 *
 * The door has no right that the agent has not, and fewer where the agent is root's: then it is another user (--http-user), who is
 * given the agent's socket itself, as a descriptor, whatever the directories above it allow. It cannot gain rights, has a clean
 * environment, and the file that it is started from is the one that was found beside the agent at the start.
 */
#ifndef SBX_AGENT_SPAWNER_H
#define SBX_AGENT_SPAWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SBX_SPAWNER_ADDRESSES_MAX 8 /* as many as the door takes */

struct sbx_spawner_opts {
	const char *address[SBX_SPAWNER_ADDRESSES_MAX]; /* as the door's --listen takes them */
	uint32_t n_addresses;
	const char *user;            /* the door's; NULL = root's agent has its door as signalbox-http, if there is such a user, or as a number
	                              * that is nobody's; any other agent as himself */
	const char *log_level;
	uint64_t drain_ns;
};

struct sbx_spawner {
	int fd;                      /* the channel; readable = the spawner has ended. -1 = there is none */
	pid_t pid;
	bool has_user;               /* the door is another user than we are: */
	uid_t uid;
	gid_t gid;
};

/* sbx_spawner_start() -- before anything is read that the door must not have, and before there is a thread.
 *  why  a sentence, at least 512 bytes
 * 0; -SBX_EINVAL the user, or the program, is not to be had; -SBX_ENOMEM. */
int sbx_spawner_start(const struct sbx_spawner_opts *opts, struct sbx_spawner *ret, char *why, size_t why_bytes);
/* Start the door: clients can connect to `socket`. 0 or -SBX_EAGENT, the spawner is gone. */
int sbx_spawner_go(const struct sbx_spawner *s, const char *socket);
/* The door drains and ends; nothing is started any more. */
void sbx_spawner_stop(const struct sbx_spawner *s);
/* Waits until both have ended: the door within what is left of its drain, or, at_once, within 2 s. */
void sbx_spawner_end(struct sbx_spawner *s, bool at_once);

#endif
