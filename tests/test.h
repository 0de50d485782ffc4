/* What every unit test includes, first: cmocka with what it needs, without its macro that takes our name
 * `fail`. */
#ifndef LK_TESTS_TEST_H
#define LK_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                                        \
    do {                                                                                                     \
        print_error("%s:%d: ", __FILE__, __LINE__);                                                          \
        print_error(__VA_ARGS__);                                                                            \
        print_error("\n");                                                                                   \
        _fail(__FILE__, __LINE__);                                                                           \
    } while (0)

#endif
