// Hessian products of a sparse model on the device: a warp per row of a CSR matrix.
//
//   gram_start     out = λ ∘ v, zero beyond λ
//   gram_rows      out += F'(d ∘ (F v))    one pass; sums by atomics, in no fixed order: for
//                                          an output that fits the L2 cache
//   csr_scaled     u = d ∘ (F v)           two passes, in a fixed order: F, then its stored
//   csr_add        out += F' u             transpose
//
// ``data`` is null where every entry is one.  ``constant`` points to the intercept's
// coefficient, the last one, and is null without: its feature is one in every row.

#define WARP 32
#define ALL_LANES 0xffffffffu

template <typename T>
__device__ T warp_sum(T value) {  // whole in lane 0
    for (int delta = WARP / 2; delta > 0; delta /= 2)
        value += __shfl_down_sync(ALL_LANES, value, delta);
    return value;
}

template <typename T>
__device__ T row_times(const T* data, const int* indices, long long start, long long end,
                       int lane, const T* v) {
    T sum = 0;
    for (long long k = start + lane; k < end; k += WARP)
        sum += data ? data[k] * v[indices[k]] : v[indices[k]];
    return warp_sum(sum);
}

#define EACH_ROW(row, rows)                                                      \
    for (int row = (blockIdx.x * blockDim.x + threadIdx.x) / WARP; row < (rows); \
         row += blockDim.x * gridDim.x / WARP)

template <typename T, typename I>
__global__ void gram_start(int n, int count, const T* weights, const T* v, T* out) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += blockDim.x * gridDim.x)
        out[i] = i < count ? weights[i] * v[i] : (T)0;
}

template <typename T, typename I>
__global__ void gram_rows(int rows, const T* data, const int* indices, const I* indptr,
                          const T* d, const T* v, const T* constant, T* out, T* out_constant) {
    int lane = threadIdx.x % WARP;
    T all = 0;
    EACH_ROW(row, rows) {
        long long start = indptr[row], end = indptr[row + 1];
        T z = row_times(data, indices, start, end, lane, v);
        T u = d[row] * (constant ? z + *constant : z);
        all += u;
        u = __shfl_sync(ALL_LANES, u, 0);
        for (long long k = start + lane; k < end; k += WARP)
            atomicAdd(&out[indices[k]], data ? data[k] * u : u);
    }
    if (constant && lane == 0) atomicAdd(out_constant, all);
}

template <typename T, typename I>
__global__ void csr_scaled(int rows, const T* data, const int* indices, const I* indptr,
                           const T* d, const T* v, const T* constant, T* u) {
    int lane = threadIdx.x % WARP;
    EACH_ROW(row, rows) {
        T z = row_times(data, indices, indptr[row], indptr[row + 1], lane, v);
        if (lane == 0) u[row] = d[row] * (constant ? z + *constant : z);
    }
}

template <typename T, typename I>
__global__ void csr_add(int rows, const T* data, const int* indices, const I* indptr,
                        const T* u, T* out) {
    int lane = threadIdx.x % WARP;
    EACH_ROW(row, rows) {
        T sum = row_times(data, indices, indptr[row], indptr[row + 1], lane, u);
        if (lane == 0) out[row] += sum;
    }
}
