/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS by OpenSSL on the non-blocking descriptor, ALPN, and certificates made
 * on the spot, so that a test needs no openssl program.
 *
 * --make-cert writes three files: ca.pem (what a client trusts), cert.pem (the
 * server's, signed by that CA, for localhost, 127.0.0.1 and ::1) and key.pem.
 * The CA's own key is thrown away.
 */
#include "tools/mock/mock.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#define CERT_DAYS 30   /* longer than any test, too short to be kept */
#define PATH_BYTES 4096

static int fail(char *error, size_t error_bytes, const char *what)
{
	unsigned long code = ERR_get_error();

	(void)snprintf(error, error_bytes, "%s: %s", what,
	    code != 0 ? ERR_reason_error_string(code) : errno != 0 ? strerror(errno) : "failed");
	return -1;
}

/* ---- certificates ------------------------------------------------------------ */

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;
	bool good;

	X509V3_set_ctx_nodb(&context);
	X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	good = extension != NULL && X509_add_ext(cert, extension, -1) == 1;
	X509_EXTENSION_free(extension);
	return good;
}

/* A certificate for `key`, signed by `issuer_key`; issuer NULL = by itself, as a CA. */
static X509 *make_cert(EVP_PKEY *key, const char *common_name, long serial, X509 *issuer, EVP_PKEY *issuer_key)
{
	X509 *cert = X509_new();
	X509_NAME *name;

	if (cert == NULL)
		return NULL;
	name = X509_get_subject_name(cert);
	if (X509_set_version(cert, X509_VERSION_3) == 1 &&
	    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial) == 1 &&
	    X509_gmtime_adj(X509_getm_notBefore(cert), -86400) != NULL &&
	    X509_gmtime_adj(X509_getm_notAfter(cert), 86400L * CERT_DAYS) != NULL &&
	    X509_set_pubkey(cert, key) == 1 &&
	    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)common_name, -1, -1, 0) == 1 &&
	    X509_set_issuer_name(cert, issuer == NULL ? name : X509_get_subject_name(issuer)) == 1 &&
	    add_extension(cert, issuer == NULL ? cert : issuer, NID_subject_key_identifier, "hash") &&
	    (issuer == NULL
		 ? add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE") &&
		       add_extension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign")
		 : add_extension(cert, issuer, NID_authority_key_identifier, "keyid") &&
		       add_extension(cert, issuer, NID_basic_constraints, "critical,CA:FALSE") &&
		       add_extension(cert, issuer, NID_key_usage, "critical,digitalSignature") &&
		       add_extension(cert, issuer, NID_ext_key_usage, "serverAuth") &&
		       add_extension(cert, issuer, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1,IP:::1")) &&
	    X509_sign(cert, issuer_key, EVP_sha256()) > 0)
		return cert;
	X509_free(cert);
	return NULL;
}

/* Writes DIR/NAME by way of a temporary name; exactly one of cert and key is given. */
static bool write_pem(const char *dir, const char *name, X509 *cert, EVP_PKEY *key)
{
	char path[PATH_BYTES], temp[PATH_BYTES + 8];
	FILE *file;
	bool good;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	(void)snprintf(temp, sizeof(temp), "%s.tmp", path);
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, key != NULL ? 0600 : 0644);
	file = fd < 0 ? NULL : fdopen(fd, "w");
	if (file == NULL) {
		if (fd >= 0)
			(void)close(fd);
		return false;
	}
	good = cert != NULL ? PEM_write_X509(file, cert) == 1
	    : PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1;
	good = fclose(file) == 0 && good;
	return good && rename(temp, path) == 0;
}

static int make_certs(const char *dir, char *error, size_t error_bytes)
{
	EVP_PKEY *ca_key = EVP_EC_gen("P-256");
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *ca = NULL, *cert = NULL;
	long serial = (long)time(NULL);
	int rc = 0;

	errno = 0;
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		rc = fail(error, error_bytes, dir);
	errno = 0;
	if (rc == 0 && (ca_key == NULL || key == NULL ||
	    (ca = make_cert(ca_key, "signalbox-mock CA", serial, NULL, ca_key)) == NULL ||
	    (cert = make_cert(key, "localhost", serial + 1, ca, ca_key)) == NULL ||
	    !write_pem(dir, "ca.pem", ca, NULL) || !write_pem(dir, "cert.pem", cert, NULL) ||
	    !write_pem(dir, "key.pem", NULL, key)))
		rc = fail(error, error_bytes, "--make-cert");
	X509_free(ca);
	X509_free(cert);
	EVP_PKEY_free(ca_key);
	EVP_PKEY_free(key);
	return rc;
}

/* ---- the context ------------------------------------------------------------- */

static int choose_alpn(SSL *ssl, const unsigned char **ret_out, unsigned char *ret_n, const unsigned char *in,
    unsigned n, void *arg)
{
	static const unsigned char both[] = "\x02h2\x08http/1.1";
	static const unsigned char one[] = "\x08http/1.1";
	const struct mock *mock = arg;
	unsigned char *out;
	int rc;

	(void)ssl;
	rc = SSL_select_next_proto(&out, ret_n, mock->http2 ? both : one,
	    mock->http2 ? sizeof(both) - 1 : sizeof(one) - 1, in, n);
	if (rc != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_NOACK;
	*ret_out = out;
	return SSL_TLSEXT_ERR_OK;
}

int mock_tls_init(struct mock *mock, const struct mock_tls_options *options, char *error, size_t error_bytes)
{
	const char *cert = options->cert_path, *key = options->key_path;
	char made_cert[PATH_BYTES], made_key[PATH_BYTES];

	if (options->make_dir != NULL) {
		if (make_certs(options->make_dir, error, error_bytes) < 0)
			return -1;
		(void)snprintf(made_cert, sizeof(made_cert), "%s/cert.pem", options->make_dir);
		(void)snprintf(made_key, sizeof(made_key), "%s/key.pem", options->make_dir);
		cert = made_cert;
		key = made_key;
	}
	errno = 0;
	mock->http2 = options->http2;
	mock->tls = SSL_CTX_new(TLS_server_method());
	if (mock->tls == NULL)
		return fail(error, error_bytes, "TLS");
	if (SSL_CTX_use_certificate_chain_file(mock->tls, cert) != 1)
		return fail(error, error_bytes, cert);
	if (SSL_CTX_use_PrivateKey_file(mock->tls, key, SSL_FILETYPE_PEM) != 1)
		return fail(error, error_bytes, key);
	(void)SSL_CTX_set_min_proto_version(mock->tls, TLS1_2_VERSION);
	(void)SSL_CTX_set_mode(mock->tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
	    SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_alpn_select_cb(mock->tls, choose_alpn, mock);
	return 0;
}

void mock_tls_fini(struct mock *mock)
{
	SSL_CTX_free(mock->tls);
	mock->tls = NULL;
}

/* ---- a connection -------------------------------------------------------------- */

int mock_tls_open(struct mock_conn *conn)
{
	conn->ssl = SSL_new(conn->mock->tls);
	if (conn->ssl == NULL || SSL_set_fd(conn->ssl, conn->source.fd) != 1)
		return -1;
	SSL_set_accept_state(conn->ssl);
	return 0;
}

/* Turns the result of an SSL call into that of recv or send. */
static ssize_t result_of(struct mock_conn *conn, int rc)
{
	int what;

	if (rc > 0)
		return rc;
	what = SSL_get_error(conn->ssl, rc);
	ERR_clear_error();
	if (what == SSL_ERROR_ZERO_RETURN)
		return 0;
	errno = what == SSL_ERROR_WANT_READ || what == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
	return -1;
}

int mock_tls_handshake(struct mock_conn *conn)
{
	const unsigned char *protocol;
	unsigned n;
	int rc = SSL_do_handshake(conn->ssl);

	if (rc != 1)
		return result_of(conn, rc) < 0 && errno == EAGAIN ? 0 : -1;
	conn->mock->n_tls_handshakes++;
	SSL_get0_alpn_selected(conn->ssl, &protocol, &n);
	if (n == 2 && memcmp(protocol, "h2", 2) == 0)
		mock_h2_open(conn);
	else
		mock_http1_open(conn);
	return 1;
}

ssize_t mock_tls_read(struct mock_conn *conn, char *into, size_t n)
{
	return result_of(conn, SSL_read(conn->ssl, into, n > INT32_MAX ? INT32_MAX : (int)n));
}

ssize_t mock_tls_write(struct mock_conn *conn, const char *at, size_t n)
{
	return result_of(conn, SSL_write(conn->ssl, at, n > INT32_MAX ? INT32_MAX : (int)n));
}

void mock_tls_close(struct mock_conn *conn, bool orderly)
{
	if (orderly && SSL_is_init_finished(conn->ssl))
		(void)SSL_shutdown(conn->ssl);
	ERR_clear_error();
	SSL_free(conn->ssl);
	conn->ssl = NULL;
}

void mock_tls_hash(struct mock_span key, char ret_hash[9])
{
	unsigned char digest[EVP_MAX_MD_SIZE];

	ret_hash[0] = '\0';
	if (EVP_Digest(key.at, key.n, digest, NULL, EVP_sha256(), NULL) == 1)
		(void)snprintf(ret_hash, 9, "%02x%02x%02x%02x", digest[0], digest[1], digest[2], digest[3]);
}
