// Runs a CUDA kernel on the host: blocks one after another, the threads of a block as
// fibers that take turns at the barriers.  Slow and exact: for tests of the arithmetic.

#include <setjmp.h>
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
    ucontext_t first;  // only to be entered once; then by jumps, without system calls
    jmp_buf here;
    std::vector<char> stack = std::vector<char>(64 * 1024);
    Waits waits = DONE;
    bool begun = false;
};

static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static unsigned current;
static void (*body)(void*);
static void* body_arguments;

static void wait(Waits what) {
    Fiber& fiber = fibers[current];
    fiber.waits = what;
    if (_setjmp(fiber.here) == 0) _longjmp(scheduler, 1);
}

static void run_fiber() {
    for (;;) {
        body(body_arguments);
        wait(DONE);
    }
}

static void enter(unsigned i) {
    Fiber& fiber = fibers[i];
    current = threadIdx.x = i;
    if (_setjmp(scheduler) != 0) return;
    if (fiber.begun) _longjmp(fiber.here, 1);
    fiber.begun = true;
    getcontext(&fiber.first);
    fiber.first.uc_stack.ss_sp = fiber.stack.data();
    fiber.first.uc_stack.ss_size = fiber.stack.size();
    makecontext(&fiber.first, run_fiber, 0);
    setcontext(&fiber.first);
}

// A barrier opens when all that are not done have come to it.
static bool open(Waits what, unsigned from, unsigned to) {
    bool any = false;
    for (unsigned i = from; i < to; ++i) {
        if (fibers[i].waits == DONE) continue;
        if (fibers[i].waits != what) return false;
        any = true;
    }
    for (unsigned i = from; any && i < to; ++i)
        if (fibers[i].waits == what) fibers[i].waits = NOT;
    return any;
}

static void run_block() {
    unsigned count = blockDim.x;
    if (fibers.empty()) fibers.resize(1024);  // once: a fiber's stack must not move
    for (unsigned i = 0; i < count; ++i) fibers[i].waits = NOT;
    for (bool going = true; going;) {
        going = false;
        for (unsigned i = 0; i < count; ++i) {
            if (fibers[i].waits != NOT) continue;
            enter(i);
            going = true;
        }
        for (unsigned from = 0; from < count; from += 32)
            going |= open(WARP, from, from + 32 < count ? from + 32 : count);
        going |= open(BLOCK, 0, count);
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
