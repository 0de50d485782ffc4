#ifndef LK_HTTP_VERSION_H
#define LK_HTTP_VERSION_H

const char *http_library_version(void); /* static, "0.9.75" */

#endif
