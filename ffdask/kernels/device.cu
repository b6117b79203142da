// What a GPU does beside products: the same arithmetic as `reference.py`, each kernel named after its function there.
//
// Compiled for REAL, float or double. Every loop strides by the grid and by the block, so that a kernel is right in any
// launch of blocks of 1, 2, 4, ... 1024 threads; sums are taken in an order that depends on the shapes and on the block
// alone, never on timing: equal launches, equal bits. NaN stays NaN: comparisons are written so.

typedef REAL real;

#define EPSILON ((real)1e-8)
#define MOST 1024

// The sum of every thread's value, to all of them. All threads of the block must call it.
template <typename T> __device__ T block_sum(T value) {
    __shared__ T part[MOST];
    part[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    T total = part[0];
    __syncthreads();
    return total;
}

// A block's threads as columns side by side, which read memory together, and lanes, which share a column's rows.
__device__ unsigned columns() { return blockDim.x < 32 ? blockDim.x : 32; }
__device__ unsigned lane() { return threadIdx.x / columns(); }
__device__ unsigned lanes() { return blockDim.x / columns(); }

// The sum over a column's lanes, to lane 0. All threads of the block must call it.
__device__ real lane_sum(real value) {
    __shared__ real part[MOST];
    part[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = lanes() / 2; half; half /= 2) {
        if (lane() < half) part[threadIdx.x] += part[threadIdx.x + half * columns()];
        __syncthreads();
    }
    real total = part[threadIdx.x % columns()];
    __syncthreads();
    return total;
}

#define FOR_ROWS(i, rows) for (long long i = blockIdx.x; i < (rows); i += gridDim.x)
#define FOR_BLOCK(j, width) for (int j = threadIdx.x; j < (width); j += blockDim.x)
#define FOR_ALL(k, size) \
    for (long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x; k < (size); k += (long long)gridDim.x * blockDim.x)
// Whole blocks take each turn, since they sum together: `j` may be beyond the width.
#define FOR_COLUMNS(j, width) \
    for (long long first = (long long)blockIdx.x * columns(), j = first + threadIdx.x % columns(); first < (width); \
         first += (long long)gridDim.x * columns(), j = first + threadIdx.x % columns())
#define KERNEL extern "C" __global__ void

__device__ real length_of(real squares, int width) { return (real)sqrt(squares / (real)width) + EPSILON; }

// --- a layer's forward pass

KERNEL activate(real* z, const real* bias, real* goodness, int rows, int width) {
    FOR_ROWS(i, rows) {
        real squares = 0;
        FOR_BLOCK(j, width) {
            real value = z[i * width + j] + bias[j];
            value = value < 0 ? (real)0 : value;
            z[i * width + j] = value;
            squares += value * value;
        }
        squares = block_sum(squares);
        if (threadIdx.x == 0) goodness[i] = squares;
    }
}

KERNEL normalise(const real* y, const real* goodness, real* out, int rows, int width) {
    FOR_ROWS(i, rows) {
        real length = length_of(goodness[i], width);
        FOR_BLOCK(j, width) out[i * width + j] = y[i * width + j] / length;
    }
}

// --- layer one's input

template <typename Pixel>
__device__ void scaled(const Pixel* images, real top, real* values, real* squares, int rows, int inputs, int pixels, int cleared) {
    int lead = inputs - pixels;
    FOR_ROWS(i, rows) {
        real sum = 0;
        FOR_BLOCK(j, inputs) {
            real value = j < cleared || j < lead ? (real)0 : (real)images[i * pixels + j - lead] / top;
            values[i * inputs + j] = value;
            sum += value * value;
        }
        sum = block_sum(sum);
        if (threadIdx.x == 0) squares[i] = sum;
    }
}

KERNEL scale_bytes(const unsigned char* images, real* values, real* squares, int rows, int inputs, int pixels, int cleared) {
    scaled(images, (real)255, values, squares, rows, inputs, pixels, cleared);
}

KERNEL scale_reals(const real* images, real* values, real* squares, int rows, int inputs, int pixels, int cleared) {
    scaled(images, (real)1, values, squares, rows, inputs, pixels, cleared);
}

// Rows of a data set, each shifted: what comes in from the border is zero.
template <typename Pixel>
__device__ void gathered(const Pixel* images, const long long* rows, const int* down, const int* right, Pixel* out, int n, int height, int width, int channels) {
    long long size = (long long)height * width * channels;
    FOR_ROWS(i, n) {
        FOR_BLOCK(k, size) {
            int channel = k % channels, x = k / channels % width + right[i], y = k / channels / width + down[i];
            bool inside = 0 <= x && x < width && 0 <= y && y < height;
            out[i * size + k] = inside ? images[rows[i] * size + ((long long)y * width + x) * channels + channel] : (Pixel)0;
        }
    }
}

KERNEL gather_bytes(const unsigned char* images, const long long* rows, const int* down, const int* right, unsigned char* out, int n, int height, int width, int channels) {
    gathered(images, rows, down, right, out, n, height, width, channels);
}

KERNEL gather_reals(const real* images, const long long* rows, const int* down, const int* right, real* out, int n, int height, int width, int channels) {
    gathered(images, rows, down, right, out, n, height, width, channels);
}

// `height` may be null: 1 in every row.
KERNEL overlay(const real* product, const real* table, const unsigned char* labels, const real* length, const real* height, real* z, int rows, int n, int width) {
    FOR_ROWS(i, rows) {
        const real* shared = product + i % n * width;
        const real* added = table + (long long)labels[i] * width;
        real high = height ? height[i] : (real)1;
        FOR_BLOCK(j, width) z[i * width + j] = (shared[j] + high * added[j]) / length[i];
    }
}

KERNEL fold(const real* dz, const real* length, const unsigned char* labels, const real* height, real* both, real* top, int n, int width, int classes) {
    FOR_ALL(k, (long long)n * width) {
        long long i = k / width;
        both[k] = dz[k] / length[i] + dz[k + (long long)n * width] / length[i + n];
    }
    FOR_ALL(k, (long long)classes * width) {
        long long label = k / width, j = k % width;
        real total = 0;
        for (int i = 0; i < 2 * n; ++i)
            if (labels[i] == label) total += (height ? height[i] : (real)1) * (dz[(long long)i * width + j] / length[i]);
        top[k] = total;
    }
}

// --- a layer's backward pass

KERNEL running(const real* mean, const real* positive, real* found, int rows, int width, real keep) {
    FOR_COLUMNS(j, width) {
        real total = 0;
        if (j < width)
            for (long long i = lane(); i < rows; i += lanes()) total += positive[i * width + j];
        total = lane_sum(total);
        if (j < width && lane() == 0) found[j] = keep * mean[j] + (1 - keep) * (total / (real)rows);
    }
}

// One block.
KERNEL pull(const real* running, real* found, int width, real share) {
    double total = 0;
    FOR_BLOCK(j, width) total += running[j];
    real mean = (real)(block_sum(total) / width);
    FOR_BLOCK(j, width) found[j] = (running[j] - mean) * share;
}

KERNEL derivative(real* y, const real* scale, const real* peer, real* total, int rows, int width) {
    FOR_COLUMNS(j, width) {
        real sum = 0;
        if (j < width)
            for (long long i = lane(); i < rows; i += lanes()) {
                real value = y[i * width + j] * scale[i] + peer[j];
                y[i * width + j] = value;
                sum += value;
            }
        sum = lane_sum(sum);
        if (j < width && lane() == 0) total[j] = sum;
    }
}

KERNEL along(const real* dh, const real* h, real* found, int rows, int width) {
    FOR_ROWS(i, rows) {
        real sum = 0;
        FOR_BLOCK(j, width) sum += dh[i * width + j] * h[i * width + j];
        sum = block_sum(sum);
        if (threadIdx.x == 0) found[i] = sum / (real)width;
    }
}

KERNEL derivative_below(real* dh, const real* h, const real* goodness, const real* along, const real* peer, real* total, int rows, int width) {
    FOR_COLUMNS(j, width) {
        real sum = 0;
        if (j < width)
            for (long long i = lane(); i < rows; i += lanes()) {
                long long k = i * width + j;
                real value = (dh[k] - h[k] * along[i]) / length_of(goodness[i], width);
                value = (h[k] > 0 ? value : 0 * value) + peer[j];
                dh[k] = value;
                sum += value;
            }
        sum = lane_sum(sum);
        if (j < width && lane() == 0) total[j] = sum;
    }
}

// --- objectives: each row's 2 dL/dg, by which its activities are scaled, and what was seen. One block each.

__device__ real softplus(real x) { return (x > 0 ? x : (real)0) + (real)log1p(exp(-fabs(x))); }

__device__ real sigmoid(real x) {
    x = x < -60 ? (real)-60 : x > 60 ? (real)60 : x;
    return 1 / (1 + (real)exp(-x));
}

// `sums`: the loss over all rows, the goodness of the positive and of the negative rows over the width, rows that are wrong.
__device__ void seen(double* sums, double loss, double positive, double negative, double wrong, int width) {
    loss = block_sum(loss);
    positive = block_sum(positive);
    negative = block_sum(negative);
    wrong = block_sum(wrong);
    if (threadIdx.x == 0) {
        sums[0] = loss;
        sums[1] = positive / width;
        sums[2] = negative / width;
        sums[3] = wrong;
    }
}

// `over` is what the squares that the loss sees are divided by: 1, or the width for their mean.
KERNEL pairs_goodness(const real* goodness, real* slope, double* sums, int n, int width, real threshold, real over) {
    double loss = 0, positive = 0, negative = 0, wrong = 0;
    FOR_BLOCK(i, n) {
        real p = goodness[i] / over, q = goodness[i + n] / over;
        loss += (double)softplus(threshold - p) + (double)softplus(q - threshold);
        slope[i] = -2 * sigmoid(threshold - p) / (real)n / over;
        slope[i + n] = 2 * sigmoid(q - threshold) / (real)n / over;
        wrong += (p <= threshold) + (q > threshold);
        positive += goodness[i];
        negative += goodness[i + n];
    }
    seen(sums, loss, positive, negative, wrong, width);
}

KERNEL pairs_symba(const real* goodness, real* slope, double* sums, int n, int width, real threshold, real over) {
    const real alpha = 4;
    double loss = 0, positive = 0, negative = 0, wrong = 0;
    FOR_BLOCK(i, n) {
        real p = goodness[i] / over, q = goodness[i + n] / over, margin = alpha * (q - p);
        real steep = 2 * alpha / (real)n * sigmoid(margin) / over;
        loss += (double)softplus(margin);
        slope[i] = -steep;
        slope[i + n] = steep;
        wrong += 2 * (p <= q);
        positive += goodness[i];
        negative += goodness[i + n];
    }
    seen(sums, loss, positive, negative, wrong, width);
}

// Softmax cross-entropy. `goodness` may be null.
KERNEL classes(const real* logits, const unsigned char* labels, const real* goodness, real* slope, double* sums, int n, int count, int width, real tiny) {
    double loss = 0, squares = 0, wrong = 0;
    FOR_BLOCK(i, n) {
        const real* row = logits + (long long)i * count;
        real* out = slope + (long long)i * count;
        real most = row[0], total = 0;
        int best = 0;
        for (int c = 1; c < count; ++c)
            if (row[c] > most || (row[c] != row[c] && most == most)) most = row[best = c];
        for (int c = 0; c < count; ++c) total += out[c] = (real)exp(row[c] - most);
        for (int c = 0; c < count; ++c) out[c] /= total;
        real likelihood = out[labels[i]];
        likelihood = likelihood < tiny ? tiny : likelihood;
        out[labels[i]] -= 1;
        for (int c = 0; c < count; ++c) out[c] /= (real)n;
        loss -= log((double)likelihood);
        wrong += best != labels[i];
        if (goodness) squares += goodness[i];
    }
    seen(sums, loss, squares, 0, wrong, width);
}

// --- optimisers. `now` holds the cool-down's factor of the rate, and Adam's corrections 1 - 0.9^step and 1 - 0.999^step.

KERNEL momentum(real* weights, real* moment, const real* gradient, const double* now, long long size, double rate, double keep, double decay) {
    rate *= now[0];
    real step = (real)rate, old = (real)keep, fresh = (real)(1 - keep), hold = (real)(1 - rate * decay);
    FOR_ALL(k, size) {
        real moved = old * moment[k] + fresh * gradient[k];
        moment[k] = moved;
        weights[k] = hold * weights[k] - step * moved;
    }
}

KERNEL adam(real* weights, real* first, real* second, const real* gradient, const double* now, long long size, double rate, double decay) {
    rate *= now[0];
    real by = (real)(rate / now[1]), correction = (real)now[2], hold = (real)(1 - rate * decay);
    FOR_ALL(k, size) {
        real slope = gradient[k];
        real m = (real)0.9 * first[k] + (real)0.1 * slope, v = (real)0.999 * second[k] + (real)0.001 * slope * slope;
        first[k] = m;
        second[k] = v;
        weights[k] = hold * weights[k] - by * m / ((real)sqrt(v / correction) + EPSILON);
    }
}

KERNEL descend(real* weights, real* moment, const real* gradient, const double* now, long long size, double rate, double keep, double decay) {
    real step = (real)(rate * now[0]), old = (real)keep, fresh = (real)(1 - keep), pull = (real)decay;
    FOR_ALL(k, size) {
        real moved = old * moment[k] + fresh * (gradient[k] + pull * weights[k]);
        moment[k] = moved;
        weights[k] -= step * moved;
    }
}

// --- bfloat16: the nearest, ties to even, as bits

KERNEL to_bfloat16(const unsigned* x, unsigned short* out, long long size) {
    FOR_ALL(k, size) {
        unsigned bits = x[k], high = bits >> 16;
        bool not_a_number = (bits & 0x7FFFFFFFu) > 0x7F800000u;
        out[k] = (unsigned short)(not_a_number ? high | 0x40u : (bits + (0x7FFFu + (high & 1u))) >> 16);
    }
}
