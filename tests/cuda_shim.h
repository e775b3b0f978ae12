// Runs a CUDA kernel on the host: blocks one after another, the threads of a block as
// fibers that take turns at the barriers.  Slow and exact: for tests of the arithmetic.

#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__ static
#define __forceinline__ inline
#define __restrict__
#define __shared__ static
#define __launch_bounds__(n)

struct Dim { unsigned x = 1, y = 1, z = 1; };
static Dim threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

enum Waits { NOT, BLOCK, WARP, DONE };

struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(64 * 1024);
    Waits waits = NOT;
};

static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static unsigned current;
static void (*body)(void*);
static void* body_arguments;

static void wait(Waits what) {
    fibers[current].waits = what;
    unsigned me = current;
    swapcontext(&fibers[me].context, &scheduler);
}

static void run_fiber() {
    body(body_arguments);
    fibers[current].waits = DONE;
    swapcontext(&fibers[current].context, &scheduler);
}

// A barrier opens when all that are not done have come to it.
static bool open(Waits what, unsigned from, unsigned to) {
    bool any = false;
    for (unsigned i = from; i < to; ++i) {
        if (fibers[i].waits == DONE) continue;
        if (fibers[i].waits != what) return false;
        any = true;
    }
    return any;
}

static void run_block() {
    unsigned count = blockDim.x;
    if (fibers.size() < count) fibers.resize(count);
    for (unsigned i = 0; i < count; ++i) {
        Fiber& fiber = fibers[i];
        fiber.waits = NOT;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, run_fiber, 0);
    }
    for (bool going = true; going;) {
        going = false;
        for (unsigned i = 0; i < count; ++i) {
            if (fibers[i].waits != NOT) continue;
            current = threadIdx.x = i;
            swapcontext(&scheduler, &fibers[i].context);
            going = true;
        }
        for (unsigned from = 0; from < count; from += 32) {
            unsigned to = from + 32 < count ? from + 32 : count;
            if (!open(WARP, from, to)) continue;
            going = true;
            for (unsigned i = from; i < to; ++i)
                if (fibers[i].waits == WARP) fibers[i].waits = NOT;
        }
        if (open(BLOCK, 0, count)) {
            going = true;
            for (unsigned i = 0; i < count; ++i)
                if (fibers[i].waits == BLOCK) fibers[i].waits = NOT;
        }
    }
}

template <typename... A, size_t... I>
void unpack(void (*kernel)(A...), void** a, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<A>*>(a[I])...);
}

template <typename... A>
struct Call {
    void (*kernel)(A...);
    void** arguments;
    static void run(void* self) {
        auto* call = static_cast<Call*>(self);
        unpack(call->kernel, call->arguments, std::index_sequence_for<A...>());
    }
};

template <typename... A>
void launch(void (*kernel)(A...), unsigned grid, unsigned block, void** arguments) {
    Call<A...> call{kernel, arguments};
    body = Call<A...>::run;
    body_arguments = &call;
    gridDim.x = grid;
    blockDim.x = block;
    for (unsigned b = 0; b < grid; ++b) {
        blockIdx.x = b;
        run_block();
    }
}

}  // namespace shim

static inline void __syncthreads() { shim::wait(shim::BLOCK); }
static inline void __syncwarp(unsigned = 0xffffffffu) { shim::wait(shim::WARP); }
static inline void __threadfence() {}

// The value of another lane of the warp; all lanes must come here together.
template <typename T>
T exchanged(T value, unsigned other) {
    static T slots[1024];
    slots[threadIdx.x] = value;
    __syncwarp();
    T result = slots[other];
    __syncwarp();
    return result;
}

template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned delta, int = 32) {
    unsigned me = threadIdx.x;
    return exchanged(value, me % 32 + delta < 32 ? me + delta : me);
}

template <typename T>
T __shfl_sync(unsigned, T value, int lane, int = 32) {
    return exchanged(value, threadIdx.x / 32 * 32 + lane);
}

template <typename T>
T atomicAdd(T* address, T value) {
    T old = *address;
    *address = old + value;
    return old;
}

static inline unsigned atomicInc(unsigned* address, unsigned top) {
    unsigned old = *address;
    *address = old >= top ? 0 : old + 1;
    return old;
}
