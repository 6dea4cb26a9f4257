// float32 on units that multiply TF32, a float32 with 10 bits of fraction instead of 23.
//
// Rounding. The units cut the lower 13 bits off. Half a TF32 step is added beforehand, by a multiplication, so that the
// cut rounds instead: x * (1 + 2^-12 * 4/3) adds between 1/3 and 2/3 of a step, half a step in the middle of a binade.
// An integer addition to the bits would round exactly, but takes twice the time and turns the usual NaN into a zero.
//
// Three terms. x = high + low with high = x rounded to TF32; x*y = high*high' + high*low' + low*high' up to 2^-22. Here high
// must be exact, so it is masked. An infinity becomes NaN (inf - inf), which scalar arithmetic may do too (inf * 0).

constexpr float rounding = 1.0f + 4.0f / 3.0f / 4096.0f;

__device__ __forceinline__ float rounded(float x) { return x * rounding; }

__device__ __forceinline__ float high_part(float x) { return __uint_as_float(__float_as_uint(x * rounding) & 0xffffe000u); }
