#include "tls.h"

#include <gnutls/gnutls.h>

#include "base/file.h"
#include "base/mem.h"
#include "server.h"

#define PEM_BYTES_MAX ((size_t)1 << 20)

void tls_fini(struct tls_files *f)
{
    if (f->key.length)
        gnutls_memset(f->key.data, 0, f->key.length);
    buf_fini(&f->cert);
    buf_fini(&f->key);
}

/* Whether GnuTLS can serve with them. */
static enum status check(const struct conf *c, struct tls_files *f, struct error *err)
{
    gnutls_certificate_credentials_t made = NULL;
    const gnutls_datum_t cert = {(unsigned char *)f->cert.data, (unsigned)f->cert.length},
                         key = {(unsigned char *)f->key.data, (unsigned)f->key.length};
    int code = gnutls_certificate_allocate_credentials(&made);
    if (code == GNUTLS_E_SUCCESS)
        code = gnutls_certificate_set_x509_key_mem(made, &cert, &key, GNUTLS_X509_FMT_PEM);
    if (made)
        gnutls_certificate_free_credentials(made);
    if (code >= 0)
        return STATUS_OK;
    return fail(err, STATUS_FORMAT, "%s with %s: %s", c->tls_cert, c->tls_key, gnutls_strerror(code));
}

enum status tls_read(const struct conf *c, struct tls_files *out, struct error *err)
{
    buf_init(&out->cert, 0);
    buf_init(&out->key, 0);
    if (!c->tls_cert)
        return STATUS_OK;
    enum status s = file_read_all(c->tls_cert, PEM_BYTES_MAX, &out->cert, err);
    if (s == STATUS_OK)
        s = file_read_all(c->tls_key, PEM_BYTES_MAX, &out->key, err);
    return s == STATUS_OK ? check(c, out, err) : s;
}

/* ---- again */

struct reading {
    struct server *server;
    struct tls_files files;
    enum status status;
    struct error err;
};

static void read_again(void *data)
{
    struct reading *r = data;
    r->status = tls_read(r->server->conf, &r->files, &r->err);
}

static void was_read(void *data)
{
    struct reading *r = data;
    struct server *s = r->server;
    for (size_t i = 0; i < s->n_listeners && r->status == STATUS_OK; i++)
        if (http_is_secure(s->listeners[i]))
            r->status = http_renew(s->listeners[i], r->files.cert.data, r->files.key.data, &r->err);
    if (r->status == STATUS_OK)
        log_line(&s->log, LOG_INFO, "certificates read again");
    else
        LOG_EVENT(&s->log, LOG_ERROR, "new certificates are not taken; the ones before stay in force",
                  LOG_TEXT("why", r->err.text));
    tls_fini(&r->files);
    mem_free(r);
}

void tls_reload(struct server *s)
{
    if (!s->conf->tls_cert)
        return;
    struct reading *r = mem_zalloc(sizeof *r);
    if (r)
        r->server = s;
    if (r && server_work(s, read_again, was_read, r))
        return;
    mem_free(r);
    log_line(&s->log, LOG_ERROR, "no memory to read the certificates");
}
