/* Time. Durations and deadlines are monotonic nanoseconds; wall-clock time is for people and headers only. */
#ifndef LK_BASE_CLOCK_H
#define LK_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_now_ns(void);    /* monotonic */
int64_t clock_thread_ns(void); /* processor time of the calling thread; 0 where there is no such clock */
int64_t clock_wall_ms(void);   /* milliseconds since 1970 */

#define NS_PER_MS 1000000LL
#define NS_PER_S 1000000000LL

#endif
