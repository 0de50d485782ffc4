/* SHA-256 over what an adapter's files hold, in a form that sha256sum can check. Files that no number depends
 * on (probes, the base's stamp) are left out by their readers: stamping an adapter doesn't make it another
 * one. */
#include "content_hash.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"

void hex_of(const uint8_t *bytes, size_t n, char *hex)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        hex[2 * i] = digits[bytes[i] >> 4];
        hex[2 * i + 1] = digits[bytes[i] & 15];
    }
    hex[2 * n] = '\0';
}

void content_hash_fini(struct content_hash *h)
{
    mem_free(h->files);
    *h = (struct content_hash){0};
}

void content_hash_file(void *data, const char *name, const void *bytes, size_t n_bytes)
{
    struct content_hash *h = data;
    if (h->n == h->room) {
        size_t room = h->room ? h->room * 2 : 4;
        struct file_hash *files = mem_realloc(h->files, room * sizeof *files);
        if (!files) {
            h->failed = true;
            return;
        }
        h->files = files;
        h->room = room;
    }
    struct file_hash *f = &h->files[h->n];
    if (strlen(name) >= sizeof f->name ||
        gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes, n_bytes, f->sha256) < 0) {
        h->failed = true;
        return;
    }
    memcpy(f->name, name, strlen(name) + 1);
    h->n++;
    h->n_bytes += n_bytes;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct file_hash *)a)->name, ((const struct file_hash *)b)->name);
}

enum status content_hash_end(struct content_hash *h, uint8_t digest[32], struct error *err)
{
    struct buf lines;
    char hex[65];
    if (h->failed)
        return fail(err, STATUS_NO_MEMORY, "no memory for the digest of %zu files", h->n + 1);
    if (h->n == 1) {
        memcpy(digest, h->files[0].sha256, 32);
        return STATUS_OK;
    }
    if (h->n)
        qsort(h->files, h->n, sizeof *h->files, compare_names);
    buf_init(&lines, 0);
    for (size_t i = 0; i < h->n; i++) {
        hex_of(h->files[i].sha256, 32, hex);
        buf_printf(&lines, "%s  %s\n", hex, h->files[i].name);
    }
    enum status s = STATUS_OK;
    if (lines.failed)
        s = fail(err, STATUS_NO_MEMORY, "no memory for the digest of %zu files", h->n);
    else if (gnutls_hash_fast(GNUTLS_DIG_SHA256, lines.data, lines.length, digest) < 0)
        s = fail(err, STATUS_INTERNAL, "SHA-256 failed");
    buf_fini(&lines);
    return s;
}

enum status content_key(const uint8_t digest[32], double scale, const char *store, uint8_t key[32],
                        struct error *err)
{
    uint8_t all[32 + sizeof scale + 16] = {0};
    size_t n = strlen(store);
    require(n < 16);
    scale += 0.0; /* -0 is 0 */
    memcpy(all, digest, 32);
    memcpy(all + 32, &scale, sizeof scale);
    memcpy(all + 32 + sizeof scale, store, n);
    return gnutls_hash_fast(GNUTLS_DIG_SHA256, all, sizeof all, key) < 0
               ? fail(err, STATUS_INTERNAL, "SHA-256 failed")
               : STATUS_OK;
}
