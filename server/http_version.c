/* Which HTTP library this is; beside http.c because only server/http*.c may see its header. */
#include <microhttpd.h>

#include "http_version.h"

const char *http_library_version(void)
{
    return MHD_get_version();
}
