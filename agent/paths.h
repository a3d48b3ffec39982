/* SPDX-License-Identifier: Apache-2.0 */
/* paths.h -- where things are by default: the configuration, the sockets. Reads the environment; opens nothing. */
#ifndef SBX_AGENT_PATHS_H
#define SBX_AGENT_PATHS_H

#include <stdbool.h>
#include <stddef.h>

/* sbx_path_config() -- the configuration file to read.
 *  named     --config, or NULL
 *  ret_path  set on success
 * `named`, else $SIGNALBOX_CONFIG, else the first that exists of $XDG_CONFIG_HOME/signalbox/config.json (without
 * XDG_CONFIG_HOME: ~/.config), /etc/signalbox/config.json. The first two need not exist: a name that was given and
 * leads nowhere is for the caller to report, never a reason to look further.
 * Returns 0, -SBX_ENOENT (there is none), -SBX_ETOOBIG. */
int sbx_path_config(const char *named, char *ret_path, size_t path_bytes);

/* The agent's socket: $SIGNALBOX_SOCKET, else $XDG_RUNTIME_DIR/signalbox/agent.sock, else /run/signalbox/agent.sock; the
 * same places in the same order as clients look. Returns 0 or -SBX_ETOOBIG. */
int sbx_path_socket(char *ret_path, size_t path_bytes);
/* "admin.sock" in the directory of that socket. Returns 0 or -SBX_ETOOBIG. */
int sbx_path_admin_socket(const char *socket, char *ret_path, size_t path_bytes);
/* "signalbox.db" in the first directory of $STATE_DIRECTORY, which service managers set; else, if `home`, signalbox/signalbox.db in
 * $XDG_STATE_HOME, or in ~/.local/state. 0; -SBX_ENOENT none of them is set to an absolute path; -SBX_ETOOBIG. */
int sbx_path_store(bool home, char *ret_path, size_t path_bytes);
/* Makes the directories above it that are missing, for us alone. A failure shows when the file is opened. */
void sbx_path_make_parents(const char *path);
/* Where the board's snapshot goes: "board.snapshot" in the directory of that socket. Those who may use the socket may enter it, and
 * find the file by the same rule; the state directory is closed to them. Its facts are of this boot, as /run is. Returns 0 or
 * -SBX_ETOOBIG. */
int sbx_path_snapshot(const char *socket, char *ret_path, size_t path_bytes);
/* An absolute path that fits into a sockaddr_un. */
bool sbx_path_socket_ok(const char *path);

#endif
