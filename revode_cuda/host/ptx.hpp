// What translated PTX needs besides the shim: addresses that are looked up before they are used, and a few operations.
//
// Global memory has the addresses of the arguments' arrays, as the shim holds them, and of the module's own tables. Shared
// memory begins at 0 with what is dynamic, and at STATIC with what is not. An access has to lie inside one of them, whole, and
// on a multiple of its own size: a GPU ends the program otherwise, or writes elsewhere.
#define UNFOLLOWED __attribute__((noinline, no_sanitize("thread")))
namespace ptx {

static const uint64_t STATIC = 1 << 30;
struct Table { const void* at; size_t bytes; };
extern const Table tables[];               // of the module; the last one is null

static void check(uint64_t offset, size_t size, size_t bytes, const char* what) {
    if (offset % size) shim::fail("touches %zu bytes at byte %zu of %s: not aligned", size, (size_t)offset, what);
    if (offset + size > bytes) shim::fail("touches %zu bytes at byte %zu of %s, which has %zu", size, (size_t)offset, what, bytes);
}

UNFOLLOWED static void* shared_place(uint64_t address, size_t size) {
    if (address >= STATIC) {
        check(address - STATIC, size, sizeof statics, "static shared memory");
        return statics + (address - STATIC);
    }
    check(address, size, (size_t)shim::how.shared, "dynamic shared memory");
    return shim::dynamic + address;
}

// Of a generic address, which may be one of shared memory.
UNFOLLOWED static void* place(uint64_t address, size_t size) {
    static const shim::Array* last = shim::arrays;
    const char* at = (const char*)address;
    for (int i = -1; i < shim::array_count; i++) {
        const shim::Array* a = i < 0 ? last : shim::arrays + i;
        if (a >= shim::arrays + shim::array_count || at < a->map || at >= a->map + a->mapped) continue;
        last = a;
        if (at < a->data) shim::fail("touches %zu bytes in front of %s", (size_t)(a->data - at), shim::name(a));
        check((uint64_t)(at - a->data), size, (size_t)a->bytes, shim::name(a));
        return (void*)at;
    }
    for (const Table* t = tables; t->at; t++)
        if (at >= (const char*)t->at && at < (const char*)t->at + t->bytes) {
            check((uint64_t)(at - (const char*)t->at), size, t->bytes, "a table");
            return (void*)at;
        }
    if (at >= statics && at < statics + sizeof statics) {
        check((uint64_t)(at - statics), size, sizeof statics, "static shared memory");
        return (void*)at;
    }
    shim::fail("touches an address that lies in nothing it was given");
    return 0;
}

// The generic address of a place in shared memory, and back.
static uint64_t address_of(uint64_t offset) {
    return offset >= STATIC ? (uint64_t)(statics + (offset - STATIC)) : (uint64_t)(shim::dynamic + offset);
}
static uint64_t offset_of(uint64_t address) {
    const char* at = (const char*)address;
    return at >= statics && at <= statics + sizeof statics ? STATIC + (uint64_t)(at - statics) : (uint64_t)(at - shim::dynamic);
}

template <class T> static inline T* shared(uint64_t address, int n) { return (T*)shared_place(address, n * sizeof(T)); }
template <class T> static inline T* generic(uint64_t address, int n) { return (T*)place(address, n * sizeof(T)); }

// The bits of a register as another type; of a wider one the lower part.
template <class To, class From> static inline To as(From value) {
    To bits = To();
    memcpy(&bits, &value, sizeof(To) < sizeof(From) ? sizeof(To) : sizeof(From));
    return bits;
}

static inline float fused(float a, float b, float c) { return fmaf(a, b, c); }
static inline double fused(double a, double b, double c) { return fma(a, b, c); }
static inline float absolute(float x) { return fabsf(x); }
static inline double absolute(double x) { return fabs(x); }
template <class T> static inline T absolute(T x) { return x < 0 ? -x : x; }
// Of two floating-point numbers the one that is a number, and +0 above -0.
template <class T> static inline T least(T a, T b) { return a != a ? b : b != b ? a : a < b || (a == b && signbit((double)a)) ? a : b; }
template <class T> static inline T most(T a, T b) { return a != a ? b : b != b ? a : a > b || (a == b && !signbit((double)a)) ? a : b; }
template <class T> static inline T insert(T a, T b, uint32_t at, uint32_t length) {
    T mask = (length >= 8 * sizeof(T) ? ~(T)0 : ((T)1 << length) - 1) << at;
    return (b & ~mask) | (a << at & mask);
}
// Beyond the range the end of it; no number is 0, or the smallest of 64 bits.
template <class T, class F> static inline T to_integer(F x) {
    const bool sign = (T)-1 < 0;
    const int bits = 8 * sizeof(T) - sign;
    const F limit = ldexp((F)1, bits);
    const T top = sign ? (T)(((uint64_t)1 << bits) - 1) : (T)-1;
    if (x != x) return sizeof(T) == 8 && sizeof(F) == 8 ? (T)((uint64_t)1 << 63) : 0;
    return x >= limit ? top : x < (sign ? -limit : 0) ? (T)(sign ? -top - 1 : 0) : (T)x;
}

}  // namespace ptx
using namespace ptx;
