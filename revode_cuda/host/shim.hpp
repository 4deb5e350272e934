// The CUDA machine of a laptop: one block at a time on one CPU thread, so that a kernel runs where there is no GPU.
//
// The kernel's own text follows this file; one thing in it is replaced, `extern __shared__ T s[]`, which becomes
// `T*& s = (T*&)shim::dynamic`. Each thread of a block is a fiber: it runs until it meets a barrier
// or a shuffle, or ends, and then the next one runs, in ascending, descending or random order. What the GPU hides shows:
//
//     a barrier that is missing       other bits in one of the orders, or poison: shared memory starts as a NaN
//     a barrier in a branch           an error that names the lines where the threads wait (a GPU hangs, or goes on)
//     shuffles                        within warps of 32, as on the GPU; lanes that do not come are an error
//     a race (SHIM_RACES)             an error: two threads touch a place between the same barriers, one of them writes
//     a place outside an array        an error that names the argument (guard pages), or the line (shared and local arrays)
//
// Fibers start through ucontext and then switch by longjmp, which makes no system calls: about 20 ns a barrier and thread.
#undef _FORTIFY_SOURCE                       // its longjmp refuses to leave one stack for another
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS      // C's own math.h and stdlib.h: those of C++ are two thirds of what a compiler does here
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

// What C++ makes of C's functions of double, and CUDA too: those of float beside them.
#define SHIM_FLOAT(name) static inline float name(float x) { return name##f(x); }
SHIM_FLOAT(fabs) SHIM_FLOAT(sqrt) SHIM_FLOAT(floor) SHIM_FLOAT(ceil) SHIM_FLOAT(rint) SHIM_FLOAT(exp) SHIM_FLOAT(log)
SHIM_FLOAT(sin) SHIM_FLOAT(cos) SHIM_FLOAT(tanh)
static inline float copysign(float x, float y) { return copysignf(x, y); }
static inline float fma(float x, float y, float z) { return fmaf(x, y, z); }

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
static const size_t ZONE = 256;              // bytes of poison in front of an array
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

static bool inside;                          // a thread of the kernel runs, not the machine
static unsigned phase, warp_phase[32];       // counts of the barriers that were passed; of each warp, of its own

static __attribute__((noinline)) void resume(Fiber* fiber) {
    current = fiber;
    if (_setjmp(scheduler)) { inside = false; return; }
    inside = true;
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
            warp_phase[first / 32]++;
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
    phase++;
    poison(__start_shared_memory, __stop_shared_memory - __start_shared_memory);
    poison(dynamic, how.shared);
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
        if (ended == count) return 0;
        if (waiting < count) return divergent();
        for (int i = 0; i < count; i++) fibers[i].state = READY;
        phase++;
    }
}

// Arrays ---------------------------------------------------------------------------------------------------------------
// A copy of each argument's array ends where pages begin that nobody may touch. What lies in front of it is poison, and then
// such pages again. They take no memory.
static const size_t GUARD = 4 << 20;
struct Array { char *given, *map, *data; long bytes; size_t mapped; int argument; };
static Array arrays[65];                     // arguments, and dynamic shared memory
static int array_count;
static struct sigaction before[2];           // what SIGSEGV and SIGBUS did

static void guard(int argument, char** pointer, long bytes) {
    for (Array* a = arrays; a < arrays + array_count; a++)
        if (argument >= 0 && a->given == *pointer && a->bytes == bytes) { *pointer = a->data; return; }
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = ((size_t)bytes + ZONE + page - 1) / page * page;
    Array a = {*pointer, 0, 0, bytes, GUARD + inside + GUARD, argument};
    a.map = (char*)mmap(0, a.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mprotect(a.map + GUARD, inside, PROT_READ | PROT_WRITE);
    a.data = a.map + GUARD + inside - bytes;
    poison(a.data - ZONE, ZONE);
    if (argument >= 0) memcpy(a.data, a.given, bytes);
    arrays[array_count++] = a;
    *pointer = a.data;
}

static const char* name(const Array* a) {
    static char text[40];
    snprintf(text, sizeof text, a->argument < 0 ? "dynamic shared memory" : "argument %d", a->argument);
    return text;
}

static const char* release(const char* wrong) {
    for (Array* a = arrays; a < arrays + array_count; a++) {
        long at = touched(a->data - ZONE, ZONE);
        if (!wrong && at >= 0) {
            snprintf(said, sizeof said, "%s has %ld bytes, and is written %ld bytes in front of them", name(a), a->bytes, (long)ZONE - at);
            wrong = said;
        }
        if (!wrong && a->argument >= 0 && memcmp(a->given, a->data, a->bytes)) memcpy(a->given, a->data, a->bytes);
        munmap(a->map, a->mapped);
    }
    array_count = 0;
    return wrong;
}

static void fault(int signal, siginfo_t* info, void*) {
    char* at = (char*)info->si_addr;
    for (Array* a = arrays; inside && a < arrays + array_count; a++)
        if (at >= a->map && at < a->map + a->mapped)
            fail("touches byte %ld of %s, which has %ld", (long)(at - a->data), name(a), a->bytes);
    if (inside && at < (char*)4096) fail("reads or writes through a null pointer");
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

// Races ----------------------------------------------------------------------------------------------------------------
// -fsanitize=thread calls a function at every read and write; its own library is not linked. Of every 4 bytes of the arrays
// and of shared memory we keep who wrote and who read them last. Two threads of a block meet there between the same barriers,
// or two blocks in one launch, and one of them writes: a race, whether or not it shows in the bits. Accesses of 1 and 2 bytes
// are not followed; a barrier of a part of a warp counts for all of it.
#ifdef SHIM_RACES
#define UNSEEN __attribute__((no_sanitize("thread")))
enum { NOBODY = -1, MANY = -2 };             // MANY readers, of several warps
struct Access { int thread, warp; unsigned phase, warp_phase, block; };
struct Trace { Access write, read; };
struct Range { const char* base; size_t bytes; int argument; Trace* trace; };      // argument: or -1, shared memory
static Range ranges[66];
static int range_count;
static unsigned block_number;

static void follow(const char* base, size_t bytes, int argument) {
    Range r = {base, bytes, argument, (Trace*)malloc((bytes + 3) / 4 * sizeof(Trace))};
    for (size_t i = 0; i < (bytes + 3) / 4; i++) r.trace[i].write.thread = r.trace[i].read.thread = NOBODY;
    ranges[range_count++] = r;
}

UNSEEN static bool ordered(const Access* other, const Range* range) {
    if (other->thread == NOBODY) return true;
    if (other->block != block_number) return range->argument < 0;
    int warp = current->linear / 32;
    return other->thread == current->linear || other->phase != phase || (other->warp == warp && other->warp_phase != warp_phase[warp]);
}

UNSEEN static void race(const Access* other, const char* did, const Range* range, size_t at, const char* does) {
    char where[40] = "shared memory", who[40] = "other threads", since[40] = "the kernel began";
    if (range->argument >= 0) snprintf(where, sizeof where, "argument %d", range->argument);
    if (other->thread >= 0) snprintf(who, sizeof who, "thread %d", other->thread);
    if (current->line) snprintf(since, sizeof since, "the barrier in line %d", current->line);
    if (other->block != block_number) fail("%s byte %zu of %s, which another block %s: a race", does, at, where, did);
    fail("%s byte %zu of %s, which %s %s since %s: a race", does, at, where, who, did, since);
}

UNSEEN static void access(const void* place, size_t bytes, bool writes) {
    if (!inside) return;
    for (Range* r = ranges; r < ranges + range_count; r++) {
        if ((const char*)place < r->base || (const char*)place >= r->base + r->bytes) continue;
        size_t first = (const char*)place - r->base;
        int me = current->linear, warp = me / 32;
        Access now = {me, warp, phase, warp_phase[warp], block_number};
        for (size_t at = first; at < first + bytes && at < r->bytes; at += 4) {
            Trace* trace = r->trace + at / 4;
            if (!ordered(&trace->write, r)) race(&trace->write, "wrote", r, at, writes ? "writes" : "reads");
            if (writes && !ordered(&trace->read, r)) race(&trace->read, "read", r, at, "writes");
            if (writes) { trace->write = now; continue; }
            Access *last = &trace->read, next = now;
            if (last->thread != NOBODY && last->thread != me && last->phase == phase && last->block == block_number) {
                next.thread = MANY;
                if (last->warp != warp) next.warp = MANY;
            }
            *last = next;
        }
        return;
    }
}

static void next_block() { block_number++; }
static void unfollow() { while (range_count) free(ranges[--range_count].trace); }
#else
static void follow(const char*, size_t, int) {}
static void next_block() {}
static void unfollow() {}
#endif

// bytes: of each argument's array, or -1.
static const char* run(const Launch* launch, void** args, const int64_t* bytes, int arity, void (*kernel)(void**)) {
    how = *launch; arguments = args; body = kernel;
    count = (int)(how.block.x * how.block.y * how.block.z);
    uint64_t random = how.seed;
    const char* wrong = 0;
    fibers = (Fiber*)calloc(count, sizeof(Fiber));
    char* stacks = (char*)malloc(count * STACK);
    int* order = (int*)malloc(count * sizeof(int));
    for (int i = 0; i < arity; i++) if (bytes[i] >= 0) guard(i, (char**)args[i], bytes[i]);
    guard(-1, &dynamic, how.shared = (how.shared + 15) / 16 * 16);
    for (Array* a = arrays; a < arrays + array_count; a++) follow(a->data, a->bytes, a->argument);
    follow(__start_shared_memory, __stop_shared_memory - __start_shared_memory, -1);
    watch();
    for (unsigned z = 0; z < how.grid.z && !wrong; z++)
        for (unsigned y = 0; y < how.grid.y && !wrong; y++)
            for (unsigned x = 0; x < how.grid.x && !wrong; x++) {
                block_index = {x, y, z};
                wrong = run_block(order, stacks, &random);
                next_block();
            }
    sigaction(SIGSEGV, &before[0], 0);
    sigaction(SIGBUS, &before[1], 0);
    unfollow();
    free(fibers); free(stacks); free(order);
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
template <size_t n, size_t... I> struct Count : Count<n - 1, n - 1, I...> {};          // is a Count<0, 0, 1, ..., n - 1>
template <size_t... I> struct Count<0, I...> {};
template <class... A, size_t... I> void call(void (*kernel)(A...), void** a, Count<0, I...>) { kernel(*(A*)a[I]...); }
template <class... A> void call(void (*kernel)(A...), void** a) { call(kernel, a, Count<sizeof...(A)>{}); }

}  // namespace shim

// What -fsanitize=bounds calls; its own library is not linked. The index comes by value.
struct ShimPlace { const char* file; uint32_t line, column; };
extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_out_of_bounds(ShimPlace* place, uintptr_t index) {
    shim::fail("takes index %ld of an array that ends before, in line %u", (long)index, place->line);
}

#ifdef SHIM_RACES
#define SHIM_HOOK(name, bytes, writes) \
    extern "C" UNSEEN __attribute__((visibility("hidden"))) void __tsan_##name(void* place) { shim::access(place, bytes, writes); }
SHIM_HOOK(read1, 0, false) SHIM_HOOK(read2, 0, false) SHIM_HOOK(read4, 4, false) SHIM_HOOK(read8, 8, false)
SHIM_HOOK(read16, 16, false) SHIM_HOOK(write1, 0, true) SHIM_HOOK(write2, 0, true) SHIM_HOOK(write4, 4, true)
SHIM_HOOK(write8, 8, true) SHIM_HOOK(write16, 16, true) SHIM_HOOK(unaligned_read2, 0, false)
SHIM_HOOK(unaligned_read4, 4, false) SHIM_HOOK(unaligned_read8, 8, false) SHIM_HOOK(unaligned_read16, 16, false)
SHIM_HOOK(unaligned_write2, 0, true) SHIM_HOOK(unaligned_write4, 4, true) SHIM_HOOK(unaligned_write8, 8, true)
SHIM_HOOK(unaligned_write16, 16, true) SHIM_HOOK(func_entry, 0, false)
extern "C" UNSEEN __attribute__((visibility("hidden"))) void __tsan_func_exit() {}
extern "C" UNSEEN __attribute__((visibility("hidden"))) void __tsan_init() {}
extern "C" UNSEEN __attribute__((visibility("hidden"))) void __tsan_read_range(void* p, size_t n) { shim::access(p, n, false); }
extern "C" UNSEEN __attribute__((visibility("hidden"))) void __tsan_write_range(void* p, size_t n) { shim::access(p, n, true); }
#endif

#define SHIM_KERNEL(name) \
    extern "C" const char* shim_types_##name() { return shim::types(name); } \
    extern "C" const char* shim_run_##name(const shim::Launch* launch, void** args, const int64_t* bytes, int arity) { \
        return shim::run(launch, args, bytes, arity, [](void** a) { shim::call(name, a); }); \
    }
