/* Dense products for work outside a step (merging, DoRA's norms), by OpenBLAS: cblas.h is seen nowhere else.
 *
 * The library comes with a pool of threads and would use it inside each call. Our callers are threads of our
 * own team or of the loop's pool, each with rows of its own, so it is told to stay in the calling thread: no
 * more threads than cores compute, and the result depends on the operands alone. */
#include <cblas.h>

#include "kernels.h"

/* One setting for the process, and all calls want the same one: whoever sees another writes it. */
static void stay_in_this_thread(void)
{
    if (openblas_get_num_threads() != 1)
        openblas_set_num_threads(1);
}

void gemm_add_f32(uint32_t rows, uint32_t cols, uint32_t k, float scale, const float *b, const float *a,
                  float *y)
{
    require(rows <= INT32_MAX && cols <= INT32_MAX && k <= INT32_MAX); /* the library counts in int */
    if (rows == 0 || cols == 0 || k == 0)
        return;
    stay_in_this_thread();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)rows, (blasint)cols, (blasint)k, scale, b,
                (blasint)k, a, (blasint)cols, 1, y, (blasint)cols);
}
