// CUDA's words for a C++ compiler of the host: what is in front of `device.cu` when the tests run it on a processor.
// The threads of a block are threads here too; blocks run one after another.
#include <cmath>
#include <pthread.h>

#define __global__
#define __device__ static inline
#define __shared__ static

using std::exp;
using std::fabs;
using std::log;
using std::log1p;
using std::sqrt;

struct Index {
    unsigned x;
};
static thread_local Index threadIdx{0}, blockIdx{0};
static Index blockDim{1}, gridDim{1};
static pthread_barrier_t barrier;

static inline void __syncthreads() {
    if (blockDim.x > 1) pthread_barrier_wait(&barrier);
}

extern "C" void host_launch(unsigned blocks, unsigned threads) {
    gridDim.x = blocks;
    blockDim.x = threads;
    pthread_barrier_init(&barrier, nullptr, threads);
}

extern "C" void host_enter(unsigned block, unsigned thread) {
    blockIdx.x = block;
    threadIdx.x = thread;
}
