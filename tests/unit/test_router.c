/* The table of routes: which handler, which listener, which methods. */
#include "../test.h"

#include <string.h>

#include "api.h"
#include "router.h"

static void finds(void **state)
{
    (void)state;
    static const struct {
        const char *method, *path;
        enum plane plane;
        void (*handle)(struct request *r); /* NULL: none */
        const char *allow;
    } cases[] = {
        {"POST", "/v1/chat/completions", PLANE_DATA, api_chat_completions, ""},
        {"POST", "/v1/completions", PLANE_DATA, api_completions, ""},
        {"GET", "/v1/models", PLANE_DATA, api_models, ""},
        {"GET", "/v1/models/pt", PLANE_DATA, api_model, ""},
        {"GET", "/v1/models/a/b", PLANE_DATA, api_model, ""},
        {"GET", "/v1/models/", PLANE_DATA, NULL, ""},
        {"HEAD", "/livez", PLANE_DATA, api_livez, ""},
        {"HEAD", "/v1/completions", PLANE_DATA, NULL, "POST"},
        {"GET", "/v1/completions", PLANE_DATA, NULL, "POST"},
        {"DELETE", "/v1/models", PLANE_DATA, NULL, "GET, HEAD"},
        {"OPTIONS", "/tokenize", PLANE_DATA, NULL, "POST"},
        {"get", "/livez", PLANE_DATA, NULL, "GET, HEAD"},
        {"GET", "/v1/model", PLANE_DATA, NULL, ""},
        {"GET", "/v1/modelsx", PLANE_DATA, NULL, ""},
        {"GET", "/", PLANE_DATA, NULL, ""},
        {"GET", "", PLANE_DATA, NULL, ""},
        /* what operators do is not even visible to clients, and the other way round */
        {"POST", "/v1/load_lora_adapter", PLANE_ADMIN, api_adapter_load, ""},
        {"POST", "/v1/load_lora_adapter", PLANE_DATA, NULL, ""},
        {"GET", "/v1/lora_adapters", PLANE_DATA, NULL, ""},
        {"POST", "/v1/completions", PLANE_ADMIN, NULL, ""},
        {"GET", "/metrics", PLANE_ADMIN, api_metrics, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char allow[80] = "x";
        const struct route *r =
            router_find(cases[i].method, cases[i].path, cases[i].plane, allow, sizeof allow);
        if ((r ? r->handle : NULL) != cases[i].handle || strcmp(allow, cases[i].allow) != 0)
            fail_msg("%s %s: allow \"%s\"", cases[i].method, cases[i].path, allow);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
