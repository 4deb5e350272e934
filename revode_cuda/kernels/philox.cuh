// Noise without a state: the bits of revode/paths/philox.py, where the formulas are explained.
//
//     (w0, w1, w2, w3) = philox(counter, key);   b = (w0 << 20) | (w1 >> 12);   u = (b + 1/2) / 2^52;   Z = PHI^-1(u)
//
// Every product and sum is MUL or ADD, which round once each: the noise keeps its bits in fast mode as well.
// Sources: Salmon, Moraes, Dror & Shaw 2011 (Philox4x32-10); Wichura 1988, AS 241 (PPND16).

struct Words { unsigned w0, w1, w2, w3; };

FUNCTION Words philox4x32(Words c, unsigned k0, unsigned k1) {
    #pragma unroll
    for (int i = 0; i < 10; i++) {
        unsigned long long p0 = 0xD2511F53ull * c.w0, p1 = 0xCD9E8D57ull * c.w2;
        c = Words{(unsigned)(p1 >> 32) ^ c.w1 ^ k0, (unsigned)p1, (unsigned)(p0 >> 32) ^ c.w3 ^ k1, (unsigned)p0};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// The middles of 2^52 equal cells of (0, 1), all exact.
FUNCTION double uniform(unsigned w0, unsigned w1) {
    unsigned long long b = (unsigned long long)w0 << 20 | w1 >> 12;
    return MUL(ADD((double)b, 0.5), 0x1p-52);
}

// ((a x + b) x + c) x + ..., the highest power's coefficient first.
template <int n> FUNCTION double horner(const double (&a)[n], double x) {
    double total = a[0];
    #pragma unroll
    for (int i = 1; i < n; i++) total = ADD(MUL(total, x), a[i]);
    return total;
}

//     x = m 2^e, sqrt(1/2) <= m < sqrt 2;     log m = 2 atanh(s) = 2 s + 2 s^3/3 + ...,     s = (m - 1)/(m + 1)
FUNCTION double log_of(double x) {
    const double atanh[10] = {2. / 21, 2. / 19, 2. / 17, 2. / 15, 2. / 13, 2. / 11, 2. / 9, 2. / 7, 2. / 5, 2. / 3};
    union { double value; unsigned long long bits; } m = {x};
    double e = (double)((int)(m.bits >> 52) - 1022);                    // x is positive and normal: no sign, no subnormals
    m.bits = (m.bits & 0x000FFFFFFFFFFFFFull) | 0x3FE0000000000000ull;  // 1/2 <= m < 1
    if (m.value < 0.7071067811865476) { m.value = MUL(2., m.value); e = ADD(e, -1.); }
    double s = ADD(m.value, -1.) / ADD(m.value, 1.), z = MUL(s, s);
    double rest = ADD(MUL(s, MUL(z, horner(atanh, z))), MUL(e, 0x1.a39ef35793c76p-33));
    return ADD(MUL(e, 0x1.62e42feep-1), ADD(MUL(2., s), rest));         // log 2 in two parts, the first product exact
}

//     q = u - 1/2;   |q| <= 0.425:  q P(r)/Q(r),  r = 0.425^2 - q^2
//                    else:          +-P(r)/Q(r),  r = sqrt(-log min(u, 1 - u)) - 1.6, or - 5 where it is above 5
FUNCTION double normal(double u) {
    const double centre_p[8] = {2.5090809287301226727e+3, 3.3430575583588128105e+4, 6.7265770927008700853e+4,
        4.5921953931549871457e+4, 1.3731693765509461125e+4, 1.9715909503065514427e+3, 1.3314166789178437745e+2,
        3.3871328727963666080e+0};
    const double centre_q[8] = {5.2264952788528545610e+3, 2.8729085735721942674e+4, 3.9307895800092710610e+4,
        2.1213794301586595867e+4, 5.3941960214247511077e+3, 6.8718700749205790830e+2, 4.2313330701600911252e+1, 1.0};
    const double tail_p[8] = {7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
        1.27045825245236838258e+0, 3.64784832476320460504e+0, 5.76949722146069140550e+0, 4.63033784615654529590e+0,
        1.42343711074968357734e+0};
    const double tail_q[8] = {1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
        1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e+0, 2.05319162663775882187e+0, 1.0};
    const double far_p[8] = {2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
        2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e+0, 5.46378491116411436990e+0,
        6.65790464350110377720e+0};
    const double far_q[8] = {2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
        7.86869131145613259100e-4, 1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0};
    double q = ADD(u, -0.5), r = ADD(0.180625, -MUL(q, q));
    if (q <= 0.425 && q >= -0.425) return MUL(q, horner(centre_p, r)) / horner(centre_q, r);
    r = sqrt(-log_of(q < 0 ? u : ADD(1., -u)));
    double z = r > 5 ? horner(far_p, ADD(r, -5.)) / horner(far_q, ADD(r, -5.))
                     : horner(tail_p, ADD(r, -1.6)) / horner(tail_q, ADD(r, -1.6));
    return q < 0 ? -z : z;
}

FUNCTION double normal_of(unsigned trajectory, unsigned step, unsigned channel, unsigned last, unsigned k0, unsigned k1) {
    Words w = philox4x32(Words{trajectory, step, channel, last}, k0, k1);
    return normal(uniform(w.w0, w.w1));
}
