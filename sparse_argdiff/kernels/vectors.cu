// The vector passes of CG and MINRES, with their scalars on the device.
//
//     dot              x'y
//     cg_residual      r -= alpha q,  r'r
//     cg_advance       x += alpha p,  p = z + beta p       nothing where alpha = 0
//     lanczos          r- = a r- + b r + c y,  r-'r-
//     minres_advance   w- = a w- + b w + c v,  x += step w-
//
// A sum is added up in double precision by the last block to finish, block after block, so
// that the result does not depend on the schedule.

#define THREADS 256

#define EACH(i, n)                                                        \
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; \
         i += (size_t)blockDim.x * gridDim.x)

__device__ double block_sum(double share, double* shared) {
    __syncthreads();
    shared[threadIdx.x] = share;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[0];
}

// Add the shares of all threads of the grid.
__device__ void total(double share, double* sum, double* partials, unsigned* ticket) {
    __shared__ double shared[THREADS];
    __shared__ bool last;
    double mine = block_sum(share, shared);
    if (threadIdx.x == 0) {
        partials[blockIdx.x] = mine;
        __threadfence();
        last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    share = 0.0;
    for (unsigned b = threadIdx.x; b < gridDim.x; b += blockDim.x) share += partials[b];
    share = block_sum(share, shared);
    if (threadIdx.x == 0) *sum = share;
}

template <typename T>
__global__ void dot(size_t n, const T* x, const T* y, double* sum, double* partials,
                    unsigned* ticket) {
    double share = 0.0;
    EACH(i, n) share += (double)x[i] * (double)y[i];
    total(share, sum, partials, ticket);
}

template <typename T>
__global__ void cg_residual(size_t n, T* r, const T* q, const double* alpha_, double* sum,
                            double* partials, unsigned* ticket) {
    T alpha = (T)*alpha_;
    double share = 0.0;
    EACH(i, n) {
        T entry = alpha == (T)0 ? r[i] : r[i] - alpha * q[i];
        r[i] = entry;
        share += (double)entry * (double)entry;
    }
    total(share, sum, partials, ticket);
}

template <typename T>
__global__ void cg_advance(size_t n, T* x, T* p, const T* z, const double* alpha_,
                           const double* beta_) {
    T alpha = (T)*alpha_, beta = (T)*beta_;
    if (alpha == (T)0) return;
    EACH(i, n) {
        T entry = p[i];
        x[i] += alpha * entry;
        p[i] = z[i] + beta * entry;
    }
}

template <typename T>
__global__ void lanczos(size_t n, T* older, const T* newer, const T* y, const double* a_,
                        const double* b_, const double* c_, double* sum, double* partials,
                        unsigned* ticket) {
    T a = (T)*a_, b = (T)*b_, c = (T)*c_;
    double share = 0.0;
    EACH(i, n) {
        T entry = a * older[i] + b * newer[i] + c * y[i];
        older[i] = entry;
        share += (double)entry * (double)entry;
    }
    total(share, sum, partials, ticket);
}

template <typename T>
__global__ void minres_advance(size_t n, T* x, T* w_old, const T* w, const T* v,
                               const double* a_, const double* b_, const double* c_,
                               const double* step_) {
    T a = (T)*a_, b = (T)*b_, c = (T)*c_, step = (T)*step_;
    EACH(i, n) {
        T entry = a * w_old[i] + b * w[i] + c * v[i];
        w_old[i] = entry;
        if (step != (T)0) x[i] += step * entry;  // what has ended need not be finite
    }
}
