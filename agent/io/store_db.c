/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_db.c -- see store_db.h.
 *
 * The schema, version SBX_STORE_SCHEMA. A step of the migration is never edited once it was released: a change is a new step.
 */
#include "agent/io/store_db.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sqlite3.h>

#include <signalbox/errors.h>

#include "agent/io/store_file.h"

#define PROGRESS_STEPS 20000        /* of SQLite's machine between two looks at the clock: below 1 ms */
#define TOKENS_MAX "1000000000000"  /* a provider that says more lies: its rows must not overflow the sums of all */
#define COST_MAX "1000000000000000" /* a million USD for one attempt */

struct sbx_store_db {
	sqlite3 *sql;
	sqlite3_stmt *insert, *begin, *commit, *rollback, *key_put, *keys;
	sqlite3_stmt *report[SBX_STORE_BY__COUNT];
};

/* ==== the schema ==== */

struct migration {
	const char *what, *sql; /* step n makes version n + 1 of version n */
};
static const struct migration migrations[SBX_STORE_SCHEMA] = {
	{ "attempts",
	  "CREATE TABLE migration ("
	  " version INTEGER PRIMARY KEY, what TEXT NOT NULL, release TEXT NOT NULL, applied_unix_s INTEGER NOT NULL) STRICT;"
	  "CREATE TABLE attempt ("
	  " agent INTEGER NOT NULL," /* generation: one start of the agent */
	  " request INTEGER NOT NULL,"
	  " attempt INTEGER NOT NULL CHECK (attempt >= 0),"
	  " uid INTEGER NOT NULL,"
	  " route TEXT,"
	  " target TEXT NOT NULL,"
	  " class TEXT NOT NULL,"
	  " status INTEGER,"
	  " connection TEXT CHECK (connection IN ('reused', 'new')),"
	  " wasted INTEGER NOT NULL CHECK (wasted IN (0, 1)),"
	  " start_unix_ms INTEGER NOT NULL,"
	  " first_content_unix_ms INTEGER,"
	  " end_unix_ms INTEGER NOT NULL CHECK (end_unix_ms >= start_unix_ms),"
	  " prompt_tokens INTEGER CHECK (prompt_tokens >= 0)," /* NULL = the provider did not say, in all of them */
	  " completion_tokens INTEGER CHECK (completion_tokens >= 0),"
	  " cached_tokens INTEGER CHECK (cached_tokens >= 0),"
	  " cache_write_tokens INTEGER CHECK (cache_write_tokens >= 0),"
	  " reasoning_tokens INTEGER CHECK (reasoning_tokens >= 0),"
	  " estimated INTEGER NOT NULL CHECK (estimated IN (0, 1)),"
	  " usage_raw TEXT,"
	  " cost_nanousd INTEGER CHECK (cost_nanousd >= 0)," /* NULL = not known; then there is a cost_status that says why */
	  " cost_status TEXT CHECK ((cost_status IS NULL) = (cost_nanousd IS NOT NULL)),"
	  " price_row TEXT," /* "provider/model@day" of the catalog */
	  " PRIMARY KEY (agent, request, attempt)) STRICT;"
	  "CREATE INDEX attempt_by_end ON attempt (end_unix_ms);" },
	{ "for whom",
	  "ALTER TABLE attempt ADD COLUMN tenant TEXT;" /* as a client said whom the agent trusts; NULL = nobody but uid */
	  "ALTER TABLE attempt ADD COLUMN key_id TEXT;"
	  "ALTER TABLE attempt ADD COLUMN end_user TEXT;"
	  "ALTER TABLE attempt ADD COLUMN tags TEXT;" }, /* a JSON list of texts */
	{ "virtual keys", /* what attempt.key_id names, revoked ones included. A secret is never here */
	  "CREATE TABLE key ("
	  " id TEXT PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 20),"
	  " hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32)," /* SHA-256 of the secret */
	  " old_hash BLOB CHECK (length(old_hash) = 32)," /* of the one before, and until when it holds */
	  " old_until_unix_s INTEGER CHECK ((old_until_unix_s IS NULL) = (old_hash IS NULL)),"
	  " tenant TEXT NOT NULL,"
	  " name TEXT NOT NULL,"
	  " models TEXT NOT NULL," /* with commas between; '' = all */
	  " created_unix_s INTEGER NOT NULL,"
	  " expires_unix_s INTEGER," /* NULL = never */
	  " revoked_unix_s INTEGER) STRICT;" },
};

/* A key that is there gets another secret, or is revoked; all else of it stays. */
static const char key_put_sql[] =
	"INSERT INTO key (id, hash, old_hash, old_until_unix_s, tenant, name, models, created_unix_s, expires_unix_s, revoked_unix_s)"
	" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, old_hash = excluded.old_hash,"
	" old_until_unix_s = excluded.old_until_unix_s, revoked_unix_s = excluded.revoked_unix_s";
static const char keys_sql[] =
	"SELECT id, hash, old_hash, old_until_unix_s, tenant, name, models, created_unix_s, expires_unix_s FROM key"
	" WHERE revoked_unix_s IS NULL ORDER BY created_unix_s, id";

/* In the order of fill(). A row that is there already was committed before its commit seemed to fail. */
static const char insert_sql[] =
	"INSERT INTO attempt (agent, request, attempt, uid, route, target, class, status, connection, wasted, start_unix_ms,"
	" first_content_unix_ms, end_unix_ms, prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,"
	" estimated, usage_raw, cost_nanousd, cost_status, price_row, tenant, key_id, end_user, tags)"
	" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24,"
	" ?25, ?26, ?27)"
	" ON CONFLICT (agent, request, attempt) DO NOTHING";

/* In the order of SBX_STORE_FIGURES, after the group's name. */
#define SUM_TOKENS(column) " sum(min(" column ", " TOKENS_MAX ")),"
#define REPORT_SQL(group)                                                                                                      \
	"SELECT " group " AS grp, count(*), sum(class = 'OK'), sum(wasted), sum(cost_nanousd IS NULL),"                         \
	" sum(min(cost_nanousd, " COST_MAX ")), sum(CASE WHEN wasted THEN min(cost_nanousd, " COST_MAX ") END),"               \
	SUM_TOKENS("prompt_tokens") SUM_TOKENS("completion_tokens") SUM_TOKENS("cached_tokens")                                \
	SUM_TOKENS("cache_write_tokens") SUM_TOKENS("reasoning_tokens")                                                        \
	" sum(first_content_unix_ms - start_unix_ms), count(first_content_unix_ms), sum(end_unix_ms - start_unix_ms)"          \
	" FROM attempt WHERE end_unix_ms >= ?1 AND end_unix_ms < ?2 GROUP BY grp ORDER BY count(*) DESC, grp"
static const char *const report_sql[] = {
#define X(name, word, sql) REPORT_SQL(sql),
	SBX_STORE_GROUPINGS(X)
#undef X
};

/* ==== errors ==== */

static enum sbx_store_state
state_of_errno(int err)
{
	switch (err) {
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return SBX_STORE_DISK_FULL;
	case EACCES:
	case EPERM:
	case EROFS:
		return SBX_STORE_READ_ONLY;
	case ENOENT:
	case ENOTDIR:
		return SBX_STORE_NO_DIRECTORY;
	case EWOULDBLOCK:
		return SBX_STORE_LOCKED;
	case ENOMEM:
	case EMFILE:
	case ENFILE:
		return SBX_STORE_NO_MEMORY;
	case EISDIR:
	case EINVAL:
		return SBX_STORE_FOREIGN;
	default:
		return SBX_STORE_IO_ERROR;
	}
}

/* SQLITE_ROW of a statement that should yield none, and the like, are our bugs; they show as an I/O error with SQLite's words. */
static enum sbx_store_state
state_of_code(int code, int err)
{
	switch (code & 0xff) {
	case SQLITE_FULL:
		return SBX_STORE_DISK_FULL;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return SBX_STORE_CORRUPT;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL:
		return SBX_STORE_BUSY;
	case SQLITE_READONLY:
	case SQLITE_PERM:
		return SBX_STORE_READ_ONLY;
	case SQLITE_NOMEM:
		return SBX_STORE_NO_MEMORY;
	case SQLITE_CANTOPEN:
	case SQLITE_IOERR:
		return code == SQLITE_IOERR_NOMEM ? SBX_STORE_NO_MEMORY : state_of_errno(err);
	default:
		return SBX_STORE_IO_ERROR;
	}
}

/* These say something about the file or the disk; all others about the statement, which is to say the row. */
static bool
is_about_the_file(int code)
{
	switch (code & 0xff) {
	case SQLITE_FULL:
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL:
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_NOMEM:
	case SQLITE_CANTOPEN:
	case SQLITE_IOERR:
	case SQLITE_INTERRUPT:
		return true;
	default:
		return false;
	}
}

static int
fail_errno(struct sbx_store_trouble *t, int err, const char *what)
{
	*t = (struct sbx_store_trouble){ .state = state_of_errno(err), .err = err };
	(void)snprintf(t->says, sizeof t->says, "%s", what);
	return -1;
}

/* SQLite tells the errno of the call that failed; where it has lost it, the file of the log still knows. */
static int
errno_of(sqlite3 *sql)
{
	sqlite3_file *log = NULL;
	int err = sqlite3_system_errno(sql);
	if (err == 0 && sqlite3_file_control(sql, "main", SQLITE_FCNTL_JOURNAL_POINTER, (void *)&log) == SQLITE_OK && log && log->pMethods)
		(void)log->pMethods->xFileControl(log, SQLITE_FCNTL_LAST_ERRNO, &err); /* a VFS may not know it: 0 */
	return err;
}

static int
fail_sql(struct sbx_store_trouble *t, sqlite3 *sql)
{
	int code = sqlite3_extended_errcode(sql);
	int err = (code & 0xff) == SQLITE_IOERR || (code & 0xff) == SQLITE_CANTOPEN ? errno_of(sql) : 0;
	*t = (struct sbx_store_trouble){ .state = state_of_code(code, err), .code = code, .err = err };
	(void)snprintf(t->says, sizeof t->says, "%s", sqlite3_errmsg(sql));
	return -1;
}

static int
fail_state(struct sbx_store_trouble *t, enum sbx_store_state state, const char *what)
{
	*t = (struct sbx_store_trouble){ .state = state };
	(void)snprintf(t->says, sizeof t->says, "%s", what);
	return -1;
}

/* ==== opening ==== */

/* The first column of the first row as a number, and as text. */
static int
ask_one(sqlite3 *sql, const char *text, int64_t *ret_number, char *ret_text, size_t text_bytes, struct sbx_store_trouble *t)
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(sql, text, -1, &s, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(s);
	if (rc == SQLITE_ROW) {
		if (ret_number)
			*ret_number = sqlite3_column_int64(s, 0);
		const unsigned char *column = sqlite3_column_text(s, 0);
		if (ret_text)
			(void)snprintf(ret_text, text_bytes, "%s", column ? (const char *)column : "");
	} else {
		(void)fail_sql(t, sql);
	}
	(void)sqlite3_finalize(s); /* repeats the error of step */
	return rc == SQLITE_ROW ? 0 : -1;
}

static int
run(sqlite3 *sql, const char *text, struct sbx_store_trouble *t)
{
	return sqlite3_exec(sql, text, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail_sql(t, sql);
}

/* Exclusive before the first access: then the index of the log lies in our memory, and no other process can open the file. An
 * empty file is marked as ours before it has a log: from then on its header alone says so, whatever becomes of the log. */
static int
configure(sqlite3 *sql, struct sbx_store_trouble *t)
{
	char mode[16] = "", mark[64];
	int64_t id;
	(void)snprintf(mark, sizeof mark, "PRAGMA application_id = %d", SBX_STORE_APPLICATION_ID);
	(void)sqlite3_db_config(sql, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
	(void)sqlite3_db_config(sql, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, (int *)NULL);
	if (run(sql, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -1024", t) ||
	    ask_one(sql, "PRAGMA application_id", &id, NULL, 0, t) || (id != SBX_STORE_APPLICATION_ID && run(sql, mark, t)) ||
	    ask_one(sql, "PRAGMA journal_mode = WAL", NULL, mode, sizeof mode, t))
		return -1;
	if (strcmp(mode, "wal") != 0)
		return fail_state(t, SBX_STORE_IO_ERROR, "the file system does not allow a write-ahead log");
	return run(sql, "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 1000; PRAGMA journal_size_limit = 16777216", t);
}

static int
quick_check(sqlite3 *sql, struct sbx_store_trouble *t)
{
	char verdict[160] = "";
	if (ask_one(sql, "PRAGMA quick_check(1)", NULL, verdict, sizeof verdict, t))
		return -1;
	return strcmp(verdict, "ok") == 0 ? 0 : fail_state(t, SBX_STORE_CORRUPT, verdict);
}

/* Each step in a transaction of its own, with the version that it makes: a start that is cut off goes on where it was. */
static int
migrate(sqlite3 *sql, const struct migration *step, int n_steps, struct sbx_store_trouble *t)
{
	int64_t version;
	if (ask_one(sql, "PRAGMA user_version", &version, NULL, 0, t))
		return -1;
	if (version < 0 || version > n_steps)
		return fail_state(t, SBX_STORE_NEWER, "its user_version is beyond what this release knows");
	for (; version < n_steps; version++) {
		char note[512];
		(void)snprintf(note, sizeof note,
		               "INSERT INTO migration VALUES (%d, '%s', '" SBX_VERSION "', %lld); PRAGMA user_version = %d; COMMIT", (int)version + 1,
		               step[version].what, (long long)time(NULL), (int)version + 1);
		if (run(sql, "BEGIN IMMEDIATE", t) || run(sql, step[version].sql, t) || run(sql, note, t))
			return -1; /* closing rolls it back */
	}
	return 0;
}

/* What was found in the log may never have reached the disk: after a sync that failed the kernel shows pages that it could not
 * write as if they were clean. Written through to the database file and synced there, it has. */
static int
write_through(sqlite3 *sql, struct sbx_store_trouble *t)
{
	int64_t busy = 0;
	if (ask_one(sql, "PRAGMA wal_checkpoint(TRUNCATE)", &busy, NULL, 0, t))
		return -1;
	return busy ? fail_state(t, SBX_STORE_BUSY, "the log cannot be emptied") : 0;
}

static int
prepare(struct sbx_store_db *db, struct sbx_store_trouble *t)
{
	const struct {
		const char *sql;
		sqlite3_stmt **to;
	} fixed[] = { { insert_sql, &db->insert }, { "BEGIN IMMEDIATE", &db->begin }, { "COMMIT", &db->commit }, { "ROLLBACK", &db->rollback },
		    { key_put_sql, &db->key_put }, { keys_sql, &db->keys } };
	for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
		if (sqlite3_prepare_v3(db->sql, fixed[i].sql, -1, SQLITE_PREPARE_PERSISTENT, fixed[i].to, NULL) != SQLITE_OK)
			goto fail;
	for (size_t i = 0; i < SBX_STORE_BY__COUNT; i++)
		if (sqlite3_prepare_v3(db->sql, report_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &db->report[i], NULL) != SQLITE_OK)
			goto fail;
	return 0;
fail:
	(void)fail_sql(t, db->sql);
	if (t->code == SQLITE_ERROR) /* no such table, no such column */
		t->state = SBX_STORE_FOREIGN;
	return -1;
}

int
sbx_store_db_open(const char *path, int *lock_fd, bool check, struct sbx_store_db **ret_db, struct sbx_store_trouble *ret_trouble)
{
	int err = sbx_store_file_lock(path, lock_fd);
	if (err)
		return fail_errno(ret_trouble, -err, "the lock file");
	err = sbx_store_file_make(path);
	if (err)
		return fail_errno(ret_trouble, -err, err == -EINVAL ? "it is neither empty nor a database of signalbox" : "the file of the database");
	struct sbx_store_db *db = calloc(1, sizeof *db);
	if (!db)
		return fail_errno(ret_trouble, ENOMEM, "out of memory");
	/* No statistics of memory, which nobody reads: they take a mutex at each allocation. Only before the first connection; later it
	 * is refused, and still in force. */
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	int rc = sqlite3_open_v2(path, &db->sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
	if (rc != SQLITE_OK) {
		if (db->sql)
			(void)fail_sql(ret_trouble, db->sql);
		else
			(void)fail_errno(ret_trouble, ENOMEM, "out of memory");
		sbx_store_db_close(db, false);
		return -1;
	}
	if (configure(db->sql, ret_trouble) || (check && quick_check(db->sql, ret_trouble)) || migrate(db->sql, migrations, SBX_STORE_SCHEMA, ret_trouble) ||
	    write_through(db->sql, ret_trouble) || prepare(db, ret_trouble)) {
		sbx_store_db_close(db, false);
		return -1;
	}
	*ret_db = db;
	return 0;
}

void
sbx_store_db_close(struct sbx_store_db *db, bool well)
{
	if (!db)
		return;
	(void)sqlite3_finalize(db->insert); /* finalize repeats what step said */
	(void)sqlite3_finalize(db->begin);
	(void)sqlite3_finalize(db->commit);
	(void)sqlite3_finalize(db->rollback);
	(void)sqlite3_finalize(db->key_put);
	(void)sqlite3_finalize(db->keys);
	for (size_t i = 0; i < SBX_STORE_BY__COUNT; i++)
		(void)sqlite3_finalize(db->report[i]);
	if (db->sql && !well) /* a disk that just failed is no place to move pages on */
		(void)sqlite3_db_config(db->sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
	(void)sqlite3_close(db->sql); /* every statement is finalized, so it closes */
	free(db);
}

/* ==== rows ==== */

static int
bind_text(sqlite3_stmt *s, int i, const char *text)
{
	return text ? sqlite3_bind_text(s, i, text, -1, SQLITE_STATIC) : sqlite3_bind_null(s, i);
}

static int
bind_known(sqlite3_stmt *s, int i, int64_t value)
{
	return value != -1 ? sqlite3_bind_int64(s, i, value) : sqlite3_bind_null(s, i);
}

static int
fill(sqlite3_stmt *s, const struct sbx_store_row *r)
{
	int rc = 0, i = 0;
	rc |= sqlite3_bind_int64(s, ++i, (int64_t)r->agent);
	rc |= sqlite3_bind_int64(s, ++i, (int64_t)r->request);
	rc |= sqlite3_bind_int64(s, ++i, r->attempt);
	rc |= sqlite3_bind_int64(s, ++i, r->uid);
	rc |= bind_text(s, ++i, r->route);
	rc |= bind_text(s, ++i, r->target);
	rc |= bind_text(s, ++i, r->class);
	rc |= r->status ? sqlite3_bind_int(s, ++i, r->status) : sqlite3_bind_null(s, ++i);
	rc |= bind_text(s, ++i, r->connection);
	rc |= sqlite3_bind_int(s, ++i, r->wasted);
	rc |= sqlite3_bind_int64(s, ++i, r->start_unix_ms);
	rc |= bind_known(s, ++i, r->first_content_unix_ms);
	rc |= sqlite3_bind_int64(s, ++i, r->end_unix_ms);
	rc |= bind_known(s, ++i, r->prompt_tokens);
	rc |= bind_known(s, ++i, r->completion_tokens);
	rc |= bind_known(s, ++i, r->cached_tokens);
	rc |= bind_known(s, ++i, r->cache_write_tokens);
	rc |= bind_known(s, ++i, r->reasoning_tokens);
	rc |= sqlite3_bind_int(s, ++i, r->estimated);
	rc |= bind_text(s, ++i, r->usage_raw);
	rc |= bind_known(s, ++i, r->cost_nanousd);
	rc |= bind_text(s, ++i, r->cost_status);
	rc |= bind_text(s, ++i, r->price_row);
	rc |= bind_text(s, ++i, r->tenant);
	rc |= bind_text(s, ++i, r->key_id);
	rc |= bind_text(s, ++i, r->end_user);
	rc |= bind_text(s, ++i, r->tags);
	return rc;
}

/* A statement without rows. 0 or -1 with sqlite's error standing. */
static int
step_once(sqlite3_stmt *s)
{
	int rc = sqlite3_step(s);
	int done = sqlite3_reset(s); /* keeps the error for errcode and errmsg */
	return rc == SQLITE_DONE && done == SQLITE_OK ? 0 : -1;
}

static int
put_row(struct sbx_store_db *db, struct sbx_store_item *item, size_t *refused, struct sbx_store_trouble *t)
{
	if (fill(db->insert, &item->row) == 0 && step_once(db->insert) == 0)
		return 0;
	(void)fail_sql(t, db->sql);
	if (is_about_the_file(t->code) || sqlite3_get_autocommit(db->sql)) /* the transaction is gone with it */
		return -1;
	item->poison = true; /* only the statement was undone */
	++*refused;
	return 0;
}

int
sbx_store_db_commit(struct sbx_store_db *db, struct sbx_store_item *const *item, size_t n, size_t *ret_refused,
                    struct sbx_store_trouble *ret_trouble)
{
	*ret_refused = 0;
	if (step_once(db->begin))
		return fail_sql(ret_trouble, db->sql);
	for (size_t i = 0; i < n; i++)
		if (!item[i]->poison && put_row(db, item[i], ret_refused, ret_trouble)) {
			if (!sqlite3_get_autocommit(db->sql))
				(void)step_once(db->rollback); /* the connection is closed next in any case */
			return -1;
		}
	return step_once(db->commit) ? fail_sql(ret_trouble, db->sql) : 0;
}

/* ==== reports ==== */

struct patience {
	sbx_store_stop_fn *stop;
	void *arg;
};

static int
on_progress(void *arg)
{
	const struct patience *p = arg;
	return p->stop(p->arg);
}

static int
add_saturated(int64_t *sum, int64_t more)
{
	return __builtin_add_overflow(*sum, more, sum) ? -SBX_ETOOBIG : 0;
}

static int
add_group(struct sbx_store_report *report, sqlite3_stmt *s)
{
	struct sbx_store_figures f;
	int rc = 0, i = 1;
#define X(member) f.member = sqlite3_column_int64(s, i++), rc |= add_saturated(&report->total.member, f.member);
	SBX_STORE_FIGURES(X)
#undef X
	if (rc)
		return -SBX_ETOOBIG;
	if (report->n_groups == SBX_STORE_GROUPS_MAX) {
		report->n_left_out++;
		return 0;
	}
	const char *name = (const char *)sqlite3_column_text(s, 0);
	struct sbx_store_group *group = reallocarray(report->group, report->n_groups + 1, sizeof *group);
	if (group)
		report->group = group;
	char *copy = strdup(name ? name : "");
	if (!group || !copy) {
		free(copy);
		return -SBX_ENOMEM;
	}
	report->group[report->n_groups++] = (struct sbx_store_group){ copy, f };
	return 0;
}

int
sbx_store_db_report(struct sbx_store_db *db, struct sbx_store_report *report, sbx_store_stop_fn *stop, void *arg,
                    struct sbx_store_trouble *ret_trouble)
{
	struct patience patience = { stop, arg };
	sqlite3_stmt *s = db->report[report->query.by];
	int rc = SQLITE_OK, failed = 0;
	report->rc = 0;
	sqlite3_progress_handler(db->sql, PROGRESS_STEPS, on_progress, &patience);
	rc |= sqlite3_bind_int64(s, 1, report->query.since_unix_ms);
	rc |= sqlite3_bind_int64(s, 2, report->query.until_unix_ms);
	while (rc == SQLITE_OK && !report->rc && sqlite3_step(s) == SQLITE_ROW)
		report->rc = add_group(report, s);
	int code = report->rc ? SQLITE_OK : sqlite3_extended_errcode(db->sql);
	switch (code & 0xff) {
	case SQLITE_OK:
	case SQLITE_DONE:
	case SQLITE_ROW:
		break;
	case SQLITE_INTERRUPT:
		report->rc = -SBX_ETIME;
		break;
	case SQLITE_NOMEM:
		report->rc = -SBX_ENOMEM;
		break;
	case SQLITE_ERROR: /* "integer overflow" is the one that data can bring about */
		report->rc = -SBX_ETOOBIG;
		break;
	default:
		report->rc = -SBX_EBUSY;
		failed = fail_sql(ret_trouble, db->sql);
		break;
	}
	(void)sqlite3_reset(s); /* repeats the error */
	sqlite3_progress_handler(db->sql, 0, NULL, NULL);
	return failed;
}

void
sbx_store_report_fini(struct sbx_store_report *report)
{
	for (uint32_t i = 0; i < report->n_groups; i++)
		free(report->group[i].name);
	free(report->group);
	report->group = NULL;
	report->n_groups = 0;
}

/* ==== keys ==== */

static int
bind_time(sqlite3_stmt *s, int i, int64_t unix_s)
{
	return unix_s ? sqlite3_bind_int64(s, i, unix_s) : sqlite3_bind_null(s, i);
}

int
sbx_store_db_key_put(struct sbx_store_db *db, const struct sbx_vkey *k, int *ret_rc, struct sbx_store_trouble *ret_trouble)
{
	sqlite3_stmt *s = db->key_put;
	int rc = 0, i = 0;
	rc |= bind_text(s, ++i, k->id);
	rc |= sqlite3_bind_blob(s, ++i, k->hash, sizeof k->hash, SQLITE_STATIC);
	rc |= k->old_until_unix_s ? sqlite3_bind_blob(s, ++i, k->old_hash, sizeof k->old_hash, SQLITE_STATIC) : sqlite3_bind_null(s, ++i);
	rc |= bind_time(s, ++i, k->old_until_unix_s);
	rc |= bind_text(s, ++i, k->tenant);
	rc |= bind_text(s, ++i, k->name);
	rc |= bind_text(s, ++i, k->models);
	rc |= sqlite3_bind_int64(s, ++i, k->created_unix_s);
	rc |= bind_time(s, ++i, k->expires_unix_s);
	rc |= bind_time(s, ++i, k->revoked_unix_s);
	const bool done = rc == 0 && step_once(s) == 0; /* alone it is a transaction */
	*ret_rc = 0;
	if (!done) {
		(void)fail_sql(ret_trouble, db->sql);
		*ret_rc = is_about_the_file(ret_trouble->code) ? -SBX_EBUSY : -SBX_EINVAL;
	}
	(void)sqlite3_clear_bindings(s); /* they point into the key */
	return done ? 0 : -1;
}

/* The row that a statement stands on. NULL = no memory, or a row that this program did not write. */
static struct sbx_vkey *
read_key(sqlite3_stmt *s)
{
	struct sbx_vkey k = { .old_until_unix_s = sqlite3_column_int64(s, 3), .created_unix_s = sqlite3_column_int64(s, 7), .expires_unix_s = sqlite3_column_int64(s, 8) };
	const char *id = (const char *)sqlite3_column_text(s, 0);
	const void *hash = sqlite3_column_blob(s, 1), *old = sqlite3_column_blob(s, 2);
	k.tenant = (const char *)sqlite3_column_text(s, 4);
	k.name = (const char *)sqlite3_column_text(s, 5);
	k.models = (const char *)sqlite3_column_text(s, 6);
	if (!id || strlen(id) >= sizeof k.id || !hash || sqlite3_column_bytes(s, 1) != sizeof k.hash || !k.tenant || !k.name || !k.models ||
	    (k.old_until_unix_s && (!old || sqlite3_column_bytes(s, 2) != sizeof k.old_hash)))
		return NULL;
	(void)snprintf(k.id, sizeof k.id, "%s", id);
	memcpy(k.hash, hash, sizeof k.hash);
	if (k.old_until_unix_s)
		memcpy(k.old_hash, old, sizeof k.old_hash);
	return sbx_vkey_copy(&k);
}

int
sbx_store_db_keys(struct sbx_store_db *db, struct sbx_store_keys *keys, struct sbx_store_trouble *ret_trouble)
{
	int rc, failed = 0;
	keys->rc = 0;
	while ((rc = sqlite3_step(db->keys)) == SQLITE_ROW && !keys->rc) {
		struct sbx_vkey **more = reallocarray(keys->key, keys->n + 1, sizeof *more);
		if (more)
			keys->key = more;
		struct sbx_vkey *key = more ? read_key(db->keys) : NULL;
		if (key)
			keys->key[keys->n++] = key;
		else
			keys->rc = -SBX_ENOMEM;
	}
	if (rc != SQLITE_DONE && !keys->rc) {
		keys->rc = -SBX_EBUSY;
		failed = fail_sql(ret_trouble, db->sql);
	}
	(void)sqlite3_reset(db->keys); /* repeats the error */
	return failed;
}

void
sbx_store_keys_fini(struct sbx_store_keys *keys)
{
	for (uint32_t i = 0; i < keys->n; i++)
		free(keys->key[i]);
	free(keys->key);
	*keys = (struct sbx_store_keys){ .rc = 0 };
}
