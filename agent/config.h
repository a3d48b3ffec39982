/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h -- the configuration: from one JSON file (and the environment) to one immutable struct.
 *
 * The file is JSON with comments from "//" to the end of the line. It is validated whole: every mistake is reported with
 * its line, and a file with a mistake yields nothing. A member that is not known is a mistake, and the nearest known
 * name is offered; a member whose feature this version does not have is refused by name. Nothing is accepted and ignored.
 * Only where the text is no JSON at all (syntax, a member named twice, not UTF-8) the first place is the only one named.
 *
 * Providers: those of the file, in its order; then every known provider (agent/providers.h) that the file does not mention
 * and whose usual key variable is set, in the order of that table. "openai": false keeps one out. Without a file only the
 * latter. A provider whose key variable is not set is kept but unusable (no credentials), as are its targets, so that a
 * route need not be edited to run without one of its keys; notes say so.
 *
 * A reload is: load a new one, hand it out, give the reference to the old one back when its last user is done. Keys from
 * the environment were wiped there by the first load; the vault that both loads share has them.
 *
 * agent/signalboxd.conf.5 is the manual page of the file.
 */
#ifndef SBX_AGENT_CONFIG_H
#define SBX_AGENT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/core/tables.h"
#include "agent/keys.h"

#define SBX_CONFIG_MAX_BYTES     (4u << 20) /* 4,096 targets with long names are 1 MiB */
#define SBX_CONFIG_MESSAGES_MAX  100        /* a file with more mistakes than this is not a configuration */
#define SBX_TRUSTED_UIDS_MAX     32         /* a host has a door or two */
#define SBX_MAX_IN_FLIGHT        16384      /* default of limits.max_in_flight */

/* ---- what is to be said about a configuration ---- */
enum sbx_config_severity {
	SBX_CONFIG_NOTE,    /* worth knowing */
	SBX_CONFIG_WARNING, /* works, but probably not as meant */
	SBX_CONFIG_ERROR,
};
struct sbx_config_message {
	enum sbx_config_severity severity;
	char *text; /* "config.json:12: providers.openai.base_url: ..." */
};
struct sbx_config_messages {
	struct sbx_config_message message[SBX_CONFIG_MESSAGES_MAX];
	uint32_t n;
	uint32_t dropped; /* beyond the maximum */
};
void sbx_config_messages_fini(struct sbx_config_messages *m); /* of a zeroed one too; leaves it empty */

/* ---- the result ---- */
struct sbx_catalog;
struct sbx_config {
	struct sbx_tables tables;
	struct sbx_catalog *catalog; /* owns tables.facts */
	struct sbx_policy policy;   /* the top level's times and counts: the defaults that every provider's began with */

	struct {
		char *socket;           /* absolute */
		char *admin_socket;     /* absolute; beside the other by default */
		bool has_group;
		gid_t group;            /* of the socket; meaningless without has_group */
		uid_t trusted_uid[SBX_TRUSTED_UIDS_MAX]; /* whose clients may say for whom they ask (io/whom.h) */
		uint32_t n_trusted_uids;
	} listen;
	struct {
		uint32_t max_in_flight;
		uint64_t memory_max_bytes;
	} limits;

	char *store;                /* path of the database, absolute; NULL = none is kept */
	bool store_by_default;      /* nobody has named it */
	char *source;               /* path of the file; NULL: there was none */
	uint32_t n_usable;          /* providers with at least one credential */
	struct sbx_config_messages notes; /* notes and warnings, never errors */
	uint32_t refs;              /* the only member that changes */
};

struct sbx_config_opts {
	const char *path;           /* --config; NULL = $SIGNALBOX_CONFIG, the user's, the system's, none (agent/paths.h) */
	struct sbx_vault *vault;    /* the same one at every load */
	bool home_store;            /* where no store is named, and no service manager says where one is kept, there is one in the user's home */
	bool strict;                /* no usable provider at all is an error, not a warning */
};

/* sbx_config_load() -- find, read and validate the configuration.
 *  ret_config  one reference, the caller's
 *  ret_errors  zeroed or used before; filled on failure with at least one message, empty on success
 * Returns 0, -SBX_ESYNTAX (the messages say what and where), -SBX_ENOMEM. */
int sbx_config_load(const struct sbx_config_opts *opts, struct sbx_config **ret_config, struct sbx_config_messages *ret_errors);
/* The same for text in memory. name stands in messages and becomes `source`; opts->path is not used. */
int sbx_config_parse(const char *name, const char *text, size_t n, const struct sbx_config_opts *opts,
                     struct sbx_config **ret_config, struct sbx_config_messages *ret_errors);
struct sbx_config *sbx_config_get(struct sbx_config *config); /* one more reference */
void sbx_config_free(struct sbx_config *config); /* one less; the last frees it all, keys included. NULL is fine */

#endif
