// Products of a sparse model on the device: a warp per row of a CSR matrix.
//
//   gram_start       out = λ ∘ v
//   gram_rows        out += F'(d ∘ (F v))       one pass, sums by atomics: for an output that
//                                               fits the L2 cache; the order is not fixed
//   csr_scaled       z = d ∘ (F v)              two passes, in a fixed order: F, then the
//   csr_add          out += F z                 stored transpose
//
// Each adds its share of v'Hv to curvature[0] where that is not null: Σ λ v² and Σ d (F v)²,
// sums of terms that are not negative.

template <typename T>
__device__ T row_times(const T* data, const int* indices, int start, int end, int lane,
                       const T* v) {
    T sum = 0;
    for (int k = start + lane; k < end; k += 32) sum += data[k] * v[indices[k]];
    for (int delta = 16; delta > 0; delta /= 2)
        sum += __shfl_down_sync(0xffffffffu, sum, delta);
    return sum;  // whole in lane 0
}

__device__ void add_curvature(double* curvature, double share, int lane) {
    for (int delta = 16; delta > 0; delta /= 2)
        share += __shfl_down_sync(0xffffffffu, share, delta);
    if (lane == 0 && curvature) atomicAdd(curvature, share);
}

template <typename T>
__global__ void gram_start(size_t n, const T* weights, const T* v, T* out,
                           double* curvature) {
    double share = 0.0;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)blockDim.x * gridDim.x) {
        T term = weights[i] * v[i];
        out[i] = term;
        share += (double)term * (double)v[i];
    }
    add_curvature(curvature, share, threadIdx.x % 32);
}

template <typename T>
__global__ void gram_rows(int rows, const T* data, const int* indices, const int* indptr,
                          const T* d, const T* v, T* out, double* curvature) {
    int lane = threadIdx.x % 32, warps = blockDim.x * gridDim.x / 32;
    double share = 0.0;
    for (int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32; row < rows; row += warps) {
        int start = indptr[row], end = indptr[row + 1];
        T z = row_times(data, indices, start, end, lane, v);
        T scaled = d[row] * z;
        if (lane == 0) share += (double)scaled * (double)z;
        scaled = __shfl_sync(0xffffffffu, scaled, 0);
        for (int k = start + lane; k < end; k += 32)
            atomicAdd(&out[indices[k]], scaled * data[k]);
    }
    add_curvature(curvature, share, lane);
}

template <typename T>
__global__ void csr_scaled(int rows, const T* data, const int* indices, const int* indptr,
                           const T* d, const T* v, T* z, double* curvature) {
    int lane = threadIdx.x % 32, warps = blockDim.x * gridDim.x / 32;
    double share = 0.0;
    for (int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32; row < rows; row += warps) {
        T sum = row_times(data, indices, indptr[row], indptr[row + 1], lane, v);
        if (lane > 0) continue;
        z[row] = d[row] * sum;
        share += (double)z[row] * (double)sum;
    }
    add_curvature(curvature, share, lane);
}

template <typename T>
__global__ void csr_add(int rows, const T* data, const int* indices, const int* indptr,
                        const T* z, T* out) {
    int lane = threadIdx.x % 32, warps = blockDim.x * gridDim.x / 32;
    for (int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32; row < rows; row += warps) {
        T sum = row_times(data, indices, indptr[row], indptr[row + 1], lane, z);
        if (lane == 0) out[row] += sum;
    }
}
