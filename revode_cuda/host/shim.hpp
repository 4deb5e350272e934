// The CUDA machine of a laptop: one block at a time on one CPU thread, so that a kernel runs where there is no GPU.
//
// The kernel's own text follows this file; one thing in it is replaced, `extern __shared__ T s[]`, which becomes
// `T*& s = (T*&)shim::dynamic`. Each thread of a block is a fiber: it runs until it meets a barrier
// or a shuffle, or ends, and then the next one runs, in ascending, descending or random order. What the GPU hides shows:
//
//     a barrier that is missing       other bits in one of the orders, or poison: shared memory starts as a NaN
//     a barrier in a branch           an error that names the lines where the threads wait (a GPU hangs, or goes on)
//     shuffles                        within warps of 32, as on the GPU; lanes that do not come are an error
//     a place outside an array        an error that names the argument (guard pages), or the line (shared and local arrays)
//
// Fibers start through ucontext and then switch by longjmp, which makes no system calls: about 20 ns a barrier and thread.
#undef _FORTIFY_SOURCE                       // its longjmp refuses to leave one stack for another
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <utility>

// The words of CUDA ------------------------------------------------------------------------------------------------------
#define __CUDACC__
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static __attribute__((section("shared_memory")))
#define __launch_bounds__(...)
#define __noinline__ __attribute__((noinline))
#define __forceinline__ inline __attribute__((always_inline))
#define threadIdx (shim::current->index)
#define blockIdx shim::block_index
#define blockDim shim::how.block
#define gridDim shim::how.grid
#define warpSize 32
#define __syncthreads() shim::wait(__LINE__, shim::AT_BARRIER, 0)
#define __syncwarp(...) shim::wait(__LINE__, shim::AT_WARP, shim::mask_or_all(__VA_ARGS__))
#define __shfl_sync(mask, value, lane) shim::shuffle(__LINE__, mask, value, (lane) & 31)
#define __shfl_xor_sync(mask, value, bits) shim::shuffle(__LINE__, mask, value, shim::lane() ^ (bits))
#define __shfl_down_sync(mask, value, by) shim::shuffle(__LINE__, mask, value, shim::lane() + (int)(by))
#define __shfl_up_sync(mask, value, by) shim::shuffle(__LINE__, mask, value, shim::lane() - (int)(by))

struct dim3 { unsigned x, y, z; };

// Through memory, so that no compiler fuses the result with what follows.
#define SHIM_ROUNDED(name, T, expression) \
    static inline T name(T a, T b) { (void)b; T r = (expression); __asm__ volatile("" : "+m"(r)); return r; }
SHIM_ROUNDED(__dadd_rn, double, a + b)  SHIM_ROUNDED(__fadd_rn, float, a + b)
SHIM_ROUNDED(__dsub_rn, double, a - b)  SHIM_ROUNDED(__fsub_rn, float, a - b)
SHIM_ROUNDED(__dmul_rn, double, a * b)  SHIM_ROUNDED(__fmul_rn, float, a * b)
SHIM_ROUNDED(__ddiv_rn, double, a / b)  SHIM_ROUNDED(__fdiv_rn, float, a / b)

template <class To, class From> static inline To shim_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To bits; memcpy(&bits, &value, sizeof bits); return bits;
}
static inline long long __double_as_longlong(double x) { return shim_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return shim_bits<double>(x); }
static inline int __float_as_int(float x) { return shim_bits<int>(x); }
static inline float __int_as_float(int x) { return shim_bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return shim_bits<unsigned>(x); }
static inline float __uint_as_float(unsigned x) { return shim_bits<float>(x); }
static inline double __dsqrt_rn(double x) { return sqrt(x); }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }

// Fibers -----------------------------------------------------------------------------------------------------------------
extern "C" char __start_shared_memory[] __attribute__((visibility("hidden")));
extern "C" char __stop_shared_memory[] __attribute__((visibility("hidden")));

namespace shim {

enum State { READY, AT_BARRIER, AT_WARP, FINISHED, FAILED };
struct Launch { dim3 grid, block; int64_t shared; int32_t order; uint32_t seed; };     // order: 0, 1, 2 as in the title
struct Fiber {
    dim3 index; int linear; State state; bool started; int line; unsigned mask, turn; uint64_t posted[2];
    jmp_buf place; ucontext_t start;
};

static const size_t STACK = 256 << 10;       // bytes a fiber; the system gives pages only when they are touched
static const size_t ZONE = 256;              // bytes behind dynamic shared memory that no kernel may write
static const uint64_t POISON = 0x7FF4DEAD7FF4DEADu;      // NaN as a double (signalling), as two floats, and huge as integers

static Launch how;
static dim3 block_index;
static char* dynamic;
static Fiber *fibers, *current;
static int count;                            // threads in a block
static jmp_buf scheduler;
static void (*body)(void**);
static void** arguments;
static char said[4000];
static uint64_t empty __attribute__((section("shared_memory"), used)) = POISON;      // so that the section exists

static int lane() { return current->linear & 31; }
static unsigned mask_or_all(unsigned mask = 0xFFFFFFFFu) { return mask; }

static __attribute__((noinline)) void wait(int line, State why, unsigned mask) {
    current->line = line; current->state = why; current->mask = mask;
    if (!_setjmp(current->place)) _longjmp(scheduler, 1);
}

// Two places to post in turn: who is one shuffle ahead does not overwrite what a slower lane has yet to read.
template <class T> static T shuffle(int line, unsigned mask, T value, int source) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    Fiber *me = current, *warp = me - lane();
    unsigned turn = me->turn++ & 1;
    memcpy(&me->posted[turn], &value, sizeof value);
    wait(line, AT_WARP, mask);
    if (source < 0 || source > 31 || warp + source >= fibers + count) return value;
    memcpy(&value, mask >> source & 1 ? &warp[source].posted[turn] : &POISON, sizeof value);
    return value;
}

static void run_thread() {
    body(arguments);
    current->state = FINISHED;
    _longjmp(scheduler, 1);
}

static __attribute__((noinline)) void resume(Fiber* fiber) {
    current = fiber;
    if (_setjmp(scheduler)) return;
    if (fiber->started) _longjmp(fiber->place, 1);
    fiber->started = true;
    setcontext(&fiber->start);
}

// Words of 4 bytes, which are alike: POISON repeats one.
static void poison(char* from, size_t bytes) {
    for (size_t i = 0; i + 4 <= bytes; i += 4) memcpy(from + i, &POISON, 4);
}

// The first byte in a zone that is not as poison() left it, or -1.
static long touched(const char* from, size_t bytes) {
    for (size_t i = 0; i + 4 <= bytes; i += 4) if (memcmp(from + i, &POISON, 4)) return (long)i;
    return -1;
}

// The running thread ends here, and the launch with it.
template <class... A> static void fail(const char* format, A... values) {
    int n = snprintf(said, sizeof said, "thread %d of block (%u, %u, %u) ", current->linear, block_index.x, block_index.y,
                     block_index.z);
    snprintf(said + n, sizeof said - n, format, values...);
    current->state = FAILED;
    _longjmp(scheduler, 1);
}

// Lets the warps go on whose lanes have all come to the same shuffle.
static bool release_warps() {
    bool moved = false;
    for (int first = 0; first < count; first += 32) {
        int lanes = count - first < 32 ? count - first : 32;
        for (int i = 0; i < lanes; i++) {
            Fiber* f = fibers + first + i;
            if (f->state != AT_WARP) continue;
            unsigned here = 0, present = lanes == 32 ? 0xFFFFFFFFu : (1u << lanes) - 1;
            for (int j = 0; j < lanes; j++) {
                Fiber* g = fibers + first + j;
                if (g->state == AT_WARP && g->line == f->line && g->mask == f->mask) here |= 1u << j;
            }
            unsigned wanted = f->mask & present;
            if ((here & wanted) != wanted) continue;
            for (int j = 0; j < lanes; j++) if (wanted >> j & 1) fibers[first + j].state = READY;
            moved = true;
        }
    }
    return moved;
}

static int describe(char* to, size_t size, const Fiber* f) {
    if (f->state == FINISHED) return snprintf(to, size, "thread %d has ended", f->linear);
    return snprintf(to, size, "thread %d waits %sin line %d", f->linear, f->state == AT_WARP ? "for its warp " : "", f->line);
}

// Two threads that differ in where they are.
static const char* divergent() {
    Fiber* other = fibers;
    while (other + 1 < fibers + count && other->state == fibers->state && other->line == fibers->line) other++;
    int n = snprintf(said, sizeof said, "divergent barrier in block (%u, %u, %u): ", block_index.x, block_index.y, block_index.z);
    n += describe(said + n, sizeof said - n, fibers);
    n += snprintf(said + n, sizeof said - n, " and ");
    describe(said + n, sizeof said - n, other);
    return said;
}

static const char* run_block(int* order, char* stacks, uint64_t* random) {
    poison(__start_shared_memory, __stop_shared_memory - __start_shared_memory);
    poison(dynamic, how.shared + ZONE);
    for (int i = 0; i < count; i++) {
        Fiber* f = fibers + i;
        f->index = {i % how.block.x, i / how.block.x % how.block.y, i / (how.block.x * how.block.y)};
        f->linear = i; f->state = READY; f->started = false; f->turn = 0;
        getcontext(&f->start);
        f->start.uc_stack.ss_sp = stacks + i * STACK;
        f->start.uc_stack.ss_size = STACK;
        f->start.uc_link = 0;
        makecontext(&f->start, run_thread, 0);
        order[i] = how.order == 1 ? count - 1 - i : i;
    }
    for (;;) {
        for (int i = count - 1; how.order == 2 && i > 0; i--) {
            *random = *random * 6364136223846793005u + 1442695040888963407u;
            int j = (int)((*random >> 33) % (unsigned)(i + 1)), held = order[i];
            order[i] = order[j]; order[j] = held;
        }
        for (int i = 0; i < count; i++) {
            if (fibers[order[i]].state == READY) resume(fibers + order[i]);
            if (current->state == FAILED) return said;
        }
        if (release_warps()) continue;
        int ended = 0, waiting = 0;
        for (int i = 0; i < count; i++) {
            ended += fibers[i].state == FINISHED;
            waiting += fibers[i].state == AT_BARRIER && fibers[i].line == fibers[0].line;
        }
        if (ended == count) break;
        if (waiting < count) return divergent();
        for (int i = 0; i < count; i++) fibers[i].state = READY;
    }
    long past = touched(dynamic + how.shared, ZONE);
    if (past < 0) return 0;
    snprintf(said, sizeof said, "block (%u, %u, %u) has %lld bytes of dynamic shared memory and writes %ld bytes past them",
             block_index.x, block_index.y, block_index.z, (long long)how.shared, past);
    return said;
}

// Arrays ---------------------------------------------------------------------------------------------------------------
// A copy of each argument's array ends where pages begin that nobody may touch. What lies in front of it is poison, and then
// such pages again. They take no memory.
static const size_t GUARD = 64 << 20;
struct Array { char *given, *map, *data; long bytes; size_t mapped; int argument; };
static Array arrays[64];
static int array_count;
static struct sigaction before[2];

static void guard(int argument, char** pointer, long bytes) {
    for (Array* a = arrays; a < arrays + array_count; a++)
        if (a->given == *pointer && a->bytes == bytes) { *pointer = a->data; return; }
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = ((size_t)bytes + ZONE + page - 1) / page * page;
    Array a = {*pointer, 0, 0, bytes, GUARD + inside + GUARD, argument};
    a.map = (char*)mmap(0, a.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mprotect(a.map + GUARD, inside, PROT_READ | PROT_WRITE);
    a.data = a.map + GUARD + inside - bytes;
    poison(a.data - ZONE, ZONE);
    memcpy(a.data, a.given, bytes);
    arrays[array_count++] = a;
    *pointer = a.data;
}

static const char* release(const char* wrong) {
    for (Array* a = arrays; a < arrays + array_count; a++) {
        long at = touched(a->data - ZONE, ZONE);
        if (!wrong && at >= 0) {
            snprintf(said, sizeof said, "argument %d has %ld bytes, and is written %ld bytes in front of them", a->argument,
                     a->bytes, (long)ZONE - at);
            wrong = said;
        }
        if (!wrong && memcmp(a->given, a->data, a->bytes)) memcpy(a->given, a->data, a->bytes);
        munmap(a->map, a->mapped);
    }
    array_count = 0;
    return wrong;
}

static void fault(int signal, siginfo_t* info, void*) {
    char* at = (char*)info->si_addr;
    for (Array* a = arrays; a < arrays + array_count; a++)
        if (at >= a->map && at < a->map + a->mapped)
            fail("touches byte %ld of argument %d, which has %ld", (long)(at - a->data), a->argument, a->bytes);
    if (at < (char*)4096) fail("reads or writes through a null pointer");
    sigaction(signal, &before[signal == SIGBUS], 0);         // not ours: again, as if we had not been here
}

static void watch() {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;               // fault() leaves by longjmp
    sigaction(SIGSEGV, &action, &before[0]);
    sigaction(SIGBUS, &action, &before[1]);
}

// bytes: of each argument's array, or -1.
static const char* run(const Launch* launch, void** args, const int64_t* bytes, int arity, void (*kernel)(void**)) {
    how = *launch; arguments = args; body = kernel;
    count = (int)(how.block.x * how.block.y * how.block.z);
    uint64_t random = how.seed;
    const char* wrong = 0;
    fibers = (Fiber*)calloc(count, sizeof(Fiber));
    dynamic = (char*)aligned_alloc(16, (how.shared + ZONE + 15) / 16 * 16);
    char* stacks = (char*)malloc(count * STACK);
    int* order = (int*)malloc(count * sizeof(int));
    for (int i = 0; i < arity; i++) if (bytes[i] >= 0) guard(i, (char**)args[i], bytes[i]);
    watch();
    for (unsigned z = 0; z < how.grid.z && !wrong; z++)
        for (unsigned y = 0; y < how.grid.y && !wrong; y++)
            for (unsigned x = 0; x < how.grid.x && !wrong; x++) {
                block_index = {x, y, z};
                wrong = run_block(order, stacks, &random);
            }
    sigaction(SIGSEGV, &before[0], 0);
    sigaction(SIGBUS, &before[1], 0);
    free(fibers); free(dynamic); free(stacks); free(order);
    return release(wrong);
}

// What a kernel's arguments are, said by its own type ---------------------------------------------------------------------
template <class T> struct Name;
#define SHIM_NAME(T) template <> struct Name<T> { static void print() { strcat(said, #T); } };
SHIM_NAME(double) SHIM_NAME(float) SHIM_NAME(int) SHIM_NAME(unsigned) SHIM_NAME(long) SHIM_NAME(unsigned long)
SHIM_NAME(long long) SHIM_NAME(unsigned long long) SHIM_NAME(unsigned char) SHIM_NAME(bool)
template <class T> struct Name<T*> { static void print() { Name<T>::print(); strcat(said, "*"); } };
template <class T> struct Name<const T> { static void print() { strcat(said, "const "); Name<T>::print(); } };

template <class... A> const char* types(void (*)(A...)) {
    said[0] = 0;
    int each[] = {0, (Name<A>::print(), strcat(said, ","), 0)...};
    (void)each;
    return said;
}
template <class... A, size_t... I> void call(void (*kernel)(A...), void** a, std::index_sequence<I...>) { kernel(*(A*)a[I]...); }
template <class... A> void call(void (*kernel)(A...), void** a) { call(kernel, a, std::index_sequence_for<A...>{}); }

}  // namespace shim

// What -fsanitize=bounds calls; its own library is not linked. The index comes by value.
struct ShimPlace { const char* file; uint32_t line, column; };
extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_out_of_bounds(ShimPlace* place, uintptr_t index) {
    shim::fail("takes index %ld of an array that ends before, in line %u", (long)index, place->line);
}

#define SHIM_KERNEL(name) \
    extern "C" const char* shim_types_##name() { return shim::types(name); } \
    extern "C" const char* shim_run_##name(const shim::Launch* launch, void** args, const int64_t* bytes, int arity) { \
        return shim::run(launch, args, bytes, arity, [](void** a) { shim::call(name, a); }); \
    }
