// The vector passes of CG and MINRES with their scalars on the device.
//
// A record of doubles holds the scalars of one solve.  A kernel that ends a sum computes, in
// the last block to finish, the scalars that follow from it: the host reads the record every
// few iterations, and a solve that has ended changes nothing more.  The sums of blocks are
// added in their order, so that results do not depend on the schedule.
//
//   CG       q = A p     cg_curvature    α = ρ / p'q
//                        cg_residual     r −= α q,  ‖r‖
//            z = M r     cg_metric       ρ₊ = r'z,  β = ρ₊ / ρ           (M = 1: ρ₊ = ‖r‖²)
//                        cg_advance      x += α p,  p = z + β p
//   MINRES   y = A v     minres_alpha    α = v'y / size²
//                        lanczos         r₋ = c₋ r₋ + c r + c_y y
//            v = M r₋    minres_metric   size₊ = √(r₋'v), the next rotation
//                        minres_advance  w₋ = e w₋ + d w + g v,  x += φ w₋

#define THREADS 256

// Slots of a record, by the names that device.py reads.
enum {
    ACTIVE, STATUS, NITER, TARGET, ROUNDOFF, ALPHA, BETA, RHO, RESIDUAL, DECREASE, P_SQUARE,
    LARGEST, SIZE, SIZE_OLD, SCALE, BETA_OLD, PHI, COSINE, SINE, DELTA_NEXT, EPSILON_NEXT,
    T_NORM, A_NORM, ROOT, OF_W_OLD, OF_W, OF_V, STEP, SLOTS
};

enum { GOING, MET, NEGATIVE, SINGULAR, NOT_FINITE, BAD_METRIC, LEAST_SQUARES, EXHAUSTED };

// Behind the slots: what CG did in its last steps, five numbers a step.
enum { H_ALPHA, H_DECREASE, H_RHO, H_P_SQUARE, H_RESIDUAL, H_SLOTS };

#define EACH(i, n)                                                        \
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; \
         i += (size_t)blockDim.x * gridDim.x)

__device__ bool is_finite(double v) { return v - v == 0.0; }

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

// Add the shares of all threads of the grid.  True in one thread of the last block alone.
__device__ bool total(double share, double* sum, double* partials, unsigned* ticket) {
    __shared__ double shared[THREADS];
    __shared__ bool last;
    double mine = block_sum(share, shared);
    if (threadIdx.x == 0) {
        partials[blockIdx.x] = mine;
        __threadfence();
        last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return false;
    __threadfence();
    share = 0.0;
    for (unsigned b = threadIdx.x; b < gridDim.x; b += blockDim.x) share += partials[b];
    *sum = block_sum(share, shared);
    return threadIdx.x == 0;
}

__device__ void end(double* record, int status) {
    record[STATUS] = status;
    record[ACTIVE] = 0.0;
}

// conjugate gradients ----------------------------------------------------------------------

template <typename T>
__global__ void cg_curvature(size_t n, const T* p, const T* q, double* record,
                             double* partials, unsigned* ticket) {
    double share = 0.0, curvature;
    EACH(i, n) share += (double)p[i] * (double)q[i];
    if (!total(share, &curvature, partials, ticket)) return;
    record[ALPHA] = 0.0;
    if (record[ACTIVE] == 0.0) return;
    if (!(record[RHO] > 0.0)) return end(record, BAD_METRIC);
    if (!is_finite(curvature) || !is_finite(record[RHO])) return end(record, NOT_FINITE);
    double quotient = curvature / record[P_SQUARE];
    record[LARGEST] = fmax(record[LARGEST], fabs(quotient));
    double zero = 10.0 * record[ROUNDOFF] * record[LARGEST];
    if (quotient <= zero) return end(record, quotient < -zero ? NEGATIVE : SINGULAR);
    record[ALPHA] = record[RHO] / curvature;
    record[DECREASE] = record[ALPHA] * record[RHO];
}

// ρ₊ is known: what follows from it, and a line of history.
__device__ void cg_scalars(double* record, double rho, int length) {
    double* line = record + SLOTS + H_SLOTS * ((int)record[NITER] % length);
    record[BETA] = rho / record[RHO];
    record[P_SQUARE] = rho + record[BETA] * record[BETA] * record[P_SQUARE];
    record[RHO] = rho;
    record[NITER] += 1.0;
    line[H_ALPHA] = record[ALPHA];
    line[H_DECREASE] = record[DECREASE];
    line[H_RHO] = rho;
    line[H_P_SQUARE] = record[P_SQUARE];
    line[H_RESIDUAL] = record[RESIDUAL];
    if (record[RESIDUAL] <= record[TARGET]) end(record, MET);
}

template <typename T>
__global__ void cg_residual(size_t n, T* r, const T* q, double* record, int length,
                            int preconditioned, double* partials, unsigned* ticket) {
    T alpha = (T)record[ALPHA];
    double share = 0.0, square;
    EACH(i, n) {
        T entry = r[i] - alpha * q[i];
        r[i] = entry;
        share += (double)entry * (double)entry;
    }
    if (!total(share, &square, partials, ticket)) return;
    if (record[ACTIVE] == 0.0) return;
    record[RESIDUAL] = sqrt(square);
    if (!preconditioned) cg_scalars(record, square, length);
}

template <typename T>
__global__ void cg_metric(size_t n, const T* r, const T* z, double* record, int length,
                          double* partials, unsigned* ticket) {
    double share = 0.0, rho;
    EACH(i, n) share += (double)r[i] * (double)z[i];
    if (!total(share, &rho, partials, ticket)) return;
    if (record[ACTIVE] != 0.0) cg_scalars(record, rho, length);
}

// Without a step p stays: it may be the direction whose curvature is not positive.
template <typename T>
__global__ void cg_advance(size_t n, T* x, T* p, const T* z, const double* record) {
    T alpha = (T)record[ALPHA], beta = (T)record[BETA];
    if (alpha == (T)0) return;
    EACH(i, n) {
        T entry = p[i];
        x[i] += alpha * entry;
        p[i] = z[i] + beta * entry;
    }
}

// minimal residuals ------------------------------------------------------------------------

template <typename T>
__global__ void minres_alpha(size_t n, const T* v, const T* y, double* record,
                             double* partials, unsigned* ticket) {
    double share = 0.0, product;
    EACH(i, n) share += (double)v[i] * (double)y[i];
    if (!total(share, &product, partials, ticket)) return;
    record[STEP] = 0.0;
    if (record[ACTIVE] == 0.0) return;
    record[ALPHA] = product / record[SIZE] / record[SIZE];
    if (!is_finite(record[ALPHA])) end(record, NOT_FINITE);
}

// ‖r₋‖²_M is known: the next length, the rotation, and the coefficients of the step.
__device__ void minres_scalars(double* record, double square, int preconditioned) {
    double alpha = record[ALPHA], scale = record[SCALE], unit = record[ROUNDOFF];
    double beta_old = record[SIZE] / scale, first = record[NITER] == 0.0;
    double size = sqrt(fmax(square, 0.0)), beta = size / scale;
    if (first) beta_old = 0.0;
    double t_norm = sqrt(record[T_NORM] * record[T_NORM] + alpha * alpha +
                         beta_old * beta_old + beta * beta);
    record[T_NORM] = t_norm;
    if (!preconditioned)
        record[A_NORM] = fmax(record[A_NORM],
                              sqrt(alpha * alpha + beta_old * beta_old + beta * beta));
    if (!is_finite(square)) return end(record, NOT_FINITE);
    if (square < -unit * t_norm * scale * t_norm * scale) return end(record, BAD_METRIC);
    double epsilon = record[EPSILON_NEXT];
    double delta = record[COSINE] * record[DELTA_NEXT] + record[SINE] * alpha;
    double gamma_bar = record[SINE] * record[DELTA_NEXT] - record[COSINE] * alpha;
    record[EPSILON_NEXT] = record[SINE] * beta;
    record[DELTA_NEXT] = -record[COSINE] * beta;
    record[ROOT] = sqrt(gamma_bar * gamma_bar + record[DELTA_NEXT] * record[DELTA_NEXT]);
    double gamma = sqrt(gamma_bar * gamma_bar + beta * beta);
    if (gamma <= 10.0 * unit * t_norm) return end(record, LEAST_SQUARES);
    record[COSINE] = gamma_bar / gamma;
    record[SINE] = beta / gamma;
    record[STEP] = record[COSINE] * record[PHI];
    record[PHI] *= record[SINE];
    record[OF_W_OLD] = -epsilon / gamma;
    record[OF_W] = -delta / gamma;
    record[OF_V] = 1.0 / gamma / record[SIZE];
    record[SIZE_OLD] = record[SIZE];
    record[SIZE] = size;
    record[NITER] += 1.0;
    if (record[PHI] <= record[TARGET]) end(record, MET);
    else if (beta <= unit * t_norm) end(record, EXHAUSTED);
}

template <typename T>
__global__ void lanczos(size_t n, T* older, const T* newer, const T* y, double* record,
                        int preconditioned, double* partials, unsigned* ticket) {
    bool active = record[ACTIVE] != 0.0;
    double size = record[SIZE], scale = record[SCALE];
    T of_y = (T)(scale / size), of_newer = (T)(-record[ALPHA] * scale / size);
    T of_older = (T)(record[NITER] == 0.0 ? 0.0 : -size / record[SIZE_OLD]);
    double share = 0.0, square;
    if (active)
        EACH(i, n) {
            T entry = of_older * older[i] + of_newer * newer[i] + of_y * y[i];
            older[i] = entry;
            share += (double)entry * (double)entry;
        }
    if (!total(share, &square, partials, ticket)) return;
    if (active && !preconditioned) minres_scalars(record, square, 0);
}

template <typename T>
__global__ void minres_metric(size_t n, const T* older, const T* z, double* record,
                              double* partials, unsigned* ticket) {
    double share = 0.0, square;
    EACH(i, n) share += (double)older[i] * (double)z[i];
    if (!total(share, &square, partials, ticket)) return;
    if (record[ACTIVE] != 0.0) minres_scalars(record, square, 1);
}

template <typename T>
__global__ void minres_advance(size_t n, T* x, T* w_old, const T* w, const T* v,
                               const double* record) {
    T step = (T)record[STEP];
    if (record[STEP] == 0.0 && record[ACTIVE] == 0.0) return;  // it has ended
    T of_w_old = (T)record[OF_W_OLD], of_w = (T)record[OF_W], of_v = (T)record[OF_V];
    EACH(i, n) {
        T entry = of_w_old * w_old[i] + of_w * w[i] + of_v * v[i];
        w_old[i] = entry;
        x[i] += step * entry;
    }
}
