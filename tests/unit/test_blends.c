/* server/blends.c: equal sums are one object while in use, in whatever order they were named; nothing stays.
 */
#include "tests/test.h"

#include <string.h>

#include "base/mem.h"
#include "blends.h"

static struct lora *adapter(uint8_t first_byte)
{
    struct lora *l = mem_zalloc(sizeof *l);
    assert_non_null(l);
    atomic_init(&l->refs, 1);
    l->digest[0] = first_byte;
    l->t_max = 4;
    return l;
}

static unsigned n_refs(struct lora *l)
{
    return atomic_load(&l->refs);
}

static struct lora *sum(struct blends *b, const struct lora_member *parts, uint32_t n)
{
    struct lora *l = NULL;
    struct error err = {0};
    if (blends_acquire(b, parts, n, &l, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return l;
}

static void order_changes_nothing(void **state)
{
    (void)state;
    struct blends *b = blends_create();
    struct lora *x = adapter(1), *y = adapter(2), *z = adapter(3);
    struct lora *one = sum(b, (struct lora_member[]){{x, 1}, {y, 0.5F}, {z, -1}}, 3);
    struct lora *two = sum(b, (struct lora_member[]){{z, -1}, {x, 1}, {y, 0.5F}}, 3);
    assert_ptr_equal(one, two);
    assert_int_equal(blends_count(b), 1);
    assert_ptr_equal(one->members[0].lora, x);
    assert_ptr_equal(one->members[2].lora, z);
    uint8_t digest[32];
    memcpy(digest, one->digest, sizeof digest);
    struct lora *other = sum(b, (struct lora_member[]){{y, 0.25F}, {x, 1}, {z, -1}}, 3);
    assert_ptr_not_equal(one, other);
    assert_memory_not_equal(digest, other->digest, 32);
    blends_release(b, other);
    blends_release(b, one);
    assert_int_equal(blends_count(b), 1);
    blends_release(b, two);
    assert_int_equal(blends_count(b), 0);
    assert_true(n_refs(x) == 1 && n_refs(y) == 1 && n_refs(z) == 1); /* nothing is kept for later */
    one = sum(b, (struct lora_member[]){{y, 0.5F}, {z, -1}, {x, 1}}, 3);
    assert_memory_equal(one->digest, digest, 32); /* the same content again, the same key */
    blends_release(b, one);
    lora_release(x);
    lora_release(y);
    lora_release(z);
    blends_destroy(b);
}

static void plain_ones_stay_themselves(void **state)
{
    (void)state;
    struct blends *b = blends_create();
    struct lora *x = adapter(1), *y = adapter(2), *scaled;
    assert_int_equal(lora_compose(&x, &(float){2}, 1, &scaled, NULL), STATUS_OK); /* loaded as x:2 */
    struct lora *l = sum(b, (struct lora_member[]){{x, 1}}, 1);
    assert_ptr_equal(l, x);
    blends_release(b, l);
    l = sum(b, (struct lora_member[]){{scaled, 1}}, 1);
    assert_ptr_equal(l, scaled);
    blends_release(b, l);
    l = sum(b, (struct lora_member[]){{scaled, 0.5F}}, 1); /* 0.5 * 2 */
    assert_ptr_equal(l, x);
    blends_release(b, l);
    l = sum(b, (struct lora_member[]){{y, 0}, {x, 1}}, 2);
    assert_ptr_equal(l, x);
    blends_release(b, l);
    assert_null(sum(b, NULL, 0));
    assert_null(sum(b, (struct lora_member[]){{y, 0}, {x, 0}}, 2));
    assert_int_equal(blends_count(b), 0);
    l = sum(b, (struct lora_member[]){{scaled, 0.25F}, {y, 1}}, 2);
    assert_int_equal(l->n_members, 2);
    assert_ptr_equal(l->members[0].lora, x);
    assert_true(l->members[0].weight == 0.5F);
    blends_release(b, l);
    blends_release(b, NULL);
    lora_release(scaled);
    assert_true(n_refs(x) == 1 && n_refs(y) == 1);
    lora_release(x);
    lora_release(y);
    blends_destroy(b);
}

static void one_adapter_twice(void **state)
{
    (void)state;
    struct blends *b = blends_create();
    struct lora *x = adapter(1);
    struct lora *l = sum(b, (struct lora_member[]){{x, 0.5F}, {x, 0.25F}}, 2);
    assert_int_equal(l->n_members, 2); /* a policy's part is its own, beside the caller's */
    assert_ptr_equal(l, sum(b, (struct lora_member[]){{x, 0.25F}, {x, 0.5F}}, 2));
    blends_release(b, l);
    blends_release(b, l);
    assert_int_equal(n_refs(x), 1);
    lora_release(x);
    blends_destroy(b);
}

static void refusals(void **state)
{
    (void)state;
    struct blends *b = blends_create();
    struct lora *x = adapter(1), *saved = adapter(2), *l;
    struct error err = {0};
    saved->replaces = true;
    struct lora_member nine[LORA_MEMBERS_MAX + 1];
    for (unsigned i = 0; i <= LORA_MEMBERS_MAX; i++)
        nine[i] = (struct lora_member){x, 1};
    assert_int_equal(blends_acquire(b, nine, LORA_MEMBERS_MAX + 1, &l, &err), STATUS_INVALID);
    assert_null(l);
    assert_int_equal(blends_acquire(b, (struct lora_member[]){{x, 1}, {saved, 1}}, 2, &l, &err),
                     STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "stands alone"));
    assert_int_equal(blends_acquire(b, (struct lora_member[]){{saved, 0.5F}}, 1, &l, &err),
                     STATUS_UNSUPPORTED);
    l = sum(b, (struct lora_member[]){{x, 1}, {saved, 0}}, 2);
    assert_ptr_equal(l, x);
    blends_release(b, l);
    assert_int_equal(blends_count(b), 0);
    assert_true(n_refs(x) == 1 && n_refs(saved) == 1);
    lora_release(x);
    lora_release(saved);
    blends_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_changes_nothing),
        cmocka_unit_test(plain_ones_stay_themselves),
        cmocka_unit_test(one_adapter_twice),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
