// The vector updates of CG and MINRES, fused: one pass over memory each, scalars on the device.
//
// A record of doubles holds the scalars of one right-hand side.  A kernel that ends a sum
// computes, in the last block to finish, the scalars that follow from it, so that the host
// need not look: it reads the record every few iterations.  Sums of blocks are added in
// their order: results do not depend on the schedule.
//
//   CG       q = A p;    cg_curvature:  α = ρ / p'q
//                        cg_residual:   r −= α q,   ρ' = r'D r,   β = ρ' / ρ
//                        cg_step:       x += α p,   p = D r + β p
//   MINRES   q = A r2;   minres_alpha:  α = r2'q / β²
//                        minres_lanczos: r1 ← q/β − (β/β₋) r1 − (α/β) r2,  β₊ = ‖r1‖, rotation
//                        minres_step:   w1 ← (r2/β − ε w1 − δ w2)/γ,   x += φ w1

#define THREADS 256

// Slots of a record; kernels/device.py has the same list.
enum { ACTIVE, TARGET, ROUNDOFF, NITER, STATUS, RHO, CURVATURE, ALPHA, BETA, RESIDUAL,
       P_SQUARE, LARGEST, DECREASE,
       BETA_OLD, BETA_NOW, PHI, COSINE, SINE, DELTA_NEXT, EPSILON_NEXT, EPSILON_NOW, DELTA,
       GAMMA, STEP, T_NORM, BETA_NEXT, ROOT, SLOTS };

// Values of STATUS.
enum { GOING, MET, NEGATIVE, SINGULAR, NOT_FINITE, BAD_METRIC, LEAST_SQUARES, EXHAUSTED };

__device__ bool is_finite(double v) { return v - v == 0.0; }

// Add COUNT sums over the grid.  True in one thread of the last block, with the totals in s.
template <int COUNT>
__device__ bool total(double (&s)[COUNT], double* partials, unsigned* ticket) {
    __shared__ double shared[COUNT][THREADS];
    __shared__ bool last;
    for (int k = 0; k < COUNT; ++k) shared[k][threadIdx.x] = s[k];
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            for (int k = 0; k < COUNT; ++k)
                shared[k][threadIdx.x] += shared[k][threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        for (int k = 0; k < COUNT; ++k) partials[COUNT * blockIdx.x + k] = shared[k][0];
        __threadfence();
        last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return false;
    for (int k = 0; k < COUNT; ++k) {
        double sum = 0.0;
        for (unsigned b = threadIdx.x; b < gridDim.x; b += blockDim.x)
            sum += partials[COUNT * b + k];
        shared[k][threadIdx.x] = sum;
    }
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            for (int k = 0; k < COUNT; ++k)
                shared[k][threadIdx.x] += shared[k][threadIdx.x + half];
        __syncthreads();
    }
    for (int k = 0; k < COUNT; ++k) s[k] = shared[k][0];
    return threadIdx.x == 0;
}

#define EACH(i, n)                                                            \
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;     \
         i += (size_t)blockDim.x * gridDim.x)

// conjugate gradients ----------------------------------------------------------------------

template <typename T>
__global__ void cg_curvature(size_t n, const T* p, const T* q, double* record,
                             double* partials, unsigned* ticket) {
    double s[1] = {0.0};
    EACH(i, n) s[0] += (double)p[i] * (double)q[i];
    if (!total<1>(s, partials, ticket)) return;
    record[ALPHA] = 0.0;
    record[DECREASE] = 0.0;
    if (record[ACTIVE] == 0.0) return;
    record[CURVATURE] = s[0];
    double quotient = s[0] / record[P_SQUARE];
    double magnitude = quotient < 0.0 ? -quotient : quotient;
    if (magnitude > record[LARGEST]) record[LARGEST] = magnitude;
    double zero = 10.0 * record[ROUNDOFF] * record[LARGEST];
    if (!is_finite(s[0])) record[STATUS] = NOT_FINITE;
    else if (quotient < -zero) record[STATUS] = NEGATIVE;
    else if (quotient <= zero) record[STATUS] = SINGULAR;
    if (record[STATUS] != GOING) {
        record[ACTIVE] = 0.0;
        return;
    }
    record[ALPHA] = record[RHO] / s[0];
    record[DECREASE] = record[ALPHA] * record[RHO];
}

template <typename T>
__global__ void cg_residual(size_t n, T* r, const T* q, const T* diagonal, double* record,
                            double* partials, unsigned* ticket) {
    T alpha = (T)record[ALPHA];
    double s[2] = {0.0, 0.0};
    EACH(i, n) {
        T left = r[i] - alpha * q[i];
        r[i] = left;
        double square = (double)left * (double)left;
        s[0] += square;
        s[1] += diagonal ? (double)diagonal[i] * square : square;
    }
    if (!total<2>(s, partials, ticket)) return;
    record[BETA] = 0.0;
    if (record[ACTIVE] == 0.0) return;
    record[NITER] += 1.0;
    record[RESIDUAL] = sqrt(s[0]);
    double beta = s[1] / record[RHO];
    if (record[RESIDUAL] <= record[TARGET]) record[STATUS] = MET;
    else if (!is_finite(s[1])) record[STATUS] = NOT_FINITE;
    else if (s[1] <= 0.0) record[STATUS] = BAD_METRIC;
    if (record[STATUS] != GOING) {
        record[ACTIVE] = 0.0;
        return;
    }
    record[BETA] = beta;
    record[P_SQUARE] = s[1] + beta * beta * record[P_SQUARE];
    record[RHO] = s[1];
}

// A direction whose curvature is not positive is kept: β = 0 would overwrite it.
template <typename T>
__global__ void cg_step(size_t n, T* x, T* p, const T* r, const T* diagonal,
                        const double* record) {
    T alpha = (T)record[ALPHA], beta = (T)record[BETA];
    if (record[STATUS] == NEGATIVE || record[STATUS] == SINGULAR) return;
    EACH(i, n) {
        T direction = p[i];
        x[i] += alpha * direction;
        p[i] = (diagonal ? diagonal[i] * r[i] : r[i]) + beta * direction;
    }
}

// minimal residuals ------------------------------------------------------------------------

template <typename T>
__global__ void minres_alpha(size_t n, const T* r2, const T* q, double* record,
                             double* partials, unsigned* ticket) {
    double s[1] = {0.0};
    EACH(i, n) s[0] += (double)r2[i] * (double)q[i];
    if (!total<1>(s, partials, ticket)) return;
    double beta = record[BETA_NOW];
    record[ALPHA] = record[ACTIVE] == 0.0 ? 0.0 : s[0] / (beta * beta);
    if (record[ACTIVE] != 0.0 && !is_finite(s[0])) {
        record[STATUS] = NOT_FINITE;
        record[ACTIVE] = 0.0;
    }
}

// The residual of the Lanczos process, its norm, and in the last block the rotation.
template <typename T>
__global__ void minres_lanczos(size_t n, T* r1, const T* r2, const T* q, double* record,
                               double* partials, unsigned* ticket) {
    double beta = record[BETA_NOW], beta_old = record[BETA_OLD], alpha = record[ALPHA];
    bool active = record[ACTIVE] != 0.0;
    T by_q = (T)(1.0 / beta), by_old = (T)(beta_old > 0.0 ? beta / beta_old : 0.0);
    T by_new = (T)(alpha / beta);
    double s[1] = {0.0};
    if (active)
        EACH(i, n) {
            T left = by_q * q[i] - by_old * r1[i] - by_new * r2[i];
            r1[i] = left;
            s[0] += (double)left * (double)left;
        }
    if (!total<1>(s, partials, ticket)) return;
    record[STEP] = 0.0;
    if (!active) return;
    double next = sqrt(s[0]);
    record[NITER] += 1.0;
    double t_norm = record[T_NORM];
    t_norm = sqrt(t_norm * t_norm + alpha * alpha + beta_old * beta_old + next * next);
    record[T_NORM] = t_norm;
    double c = record[COSINE], sn = record[SINE];
    double delta = c * record[DELTA_NEXT] + sn * alpha;
    double gamma_bar = sn * record[DELTA_NEXT] - c * alpha;
    record[EPSILON_NOW] = record[EPSILON_NEXT];
    record[DELTA] = delta;
    record[EPSILON_NEXT] = sn * next;
    record[DELTA_NEXT] = -c * next;
    record[ROOT] = sqrt(gamma_bar * gamma_bar + record[DELTA_NEXT] * record[DELTA_NEXT]);
    double gamma = sqrt(gamma_bar * gamma_bar + next * next);
    if (!is_finite(gamma)) record[STATUS] = NOT_FINITE;
    else if (gamma <= 10.0 * record[ROUNDOFF] * t_norm) record[STATUS] = LEAST_SQUARES;
    if (record[STATUS] != GOING) {
        record[ACTIVE] = 0.0;
        return;
    }
    record[GAMMA] = gamma;
    record[COSINE] = gamma_bar / gamma;
    record[SINE] = next / gamma;
    record[STEP] = record[COSINE] * record[PHI];
    record[PHI] *= record[SINE];
    record[BETA_NEXT] = next;
    if (record[PHI] <= record[TARGET]) record[STATUS] = MET;
    else if (next <= record[ROUNDOFF] * t_norm) record[STATUS] = EXHAUSTED;
}

// The last step of a run is taken too: STEP is not zero then.
template <typename T>
__global__ void minres_step(size_t n, T* x, T* w1, const T* w2, const T* r2,
                            const double* record) {
    if (record[STEP] == 0.0 && record[STATUS] != GOING) return;
    T by_v = (T)(1.0 / record[BETA_NOW] / record[GAMMA]);
    T by_w1 = (T)(record[EPSILON_NOW] / record[GAMMA]);
    T by_w2 = (T)(record[DELTA] / record[GAMMA]), step = (T)record[STEP];
    EACH(i, n) {
        T w = by_v * r2[i] - by_w1 * w1[i] - by_w2 * w2[i];
        w1[i] = w;
        x[i] += step * w;
    }
}

// One thread: the roles of β move on when an iteration is done.
__global__ void minres_advance(double* record) {
    if (record[ACTIVE] == 0.0) return;
    record[BETA_OLD] = record[BETA_NOW];
    record[BETA_NOW] = record[BETA_NEXT];
    if (record[STATUS] != GOING) record[ACTIVE] = 0.0;
}
