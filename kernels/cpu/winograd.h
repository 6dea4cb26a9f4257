// Winograd's minimal filtering in two dimensions: the matrices of F(2x2, 3x3) and F(4x4, 3x3), and their application to
// vectors. M x M outputs of a correlation with 3 x 3 taps come from a tile of (M+2) x (M+2) pixels d and taps g as
//
//     y = A^T [ (G g G^T) * (B^T d B) ] A          * element by element: (M+2)^2 products instead of 9 M^2
//
// (A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308, 2015, sections 4.1 and
// 4.3; the algorithm evaluates polynomials at 0, 1, -1 (, 2, -2) and infinity: S. Winograd, "Arithmetic complexity of
// computations", SIAM 1980.) Sums over channels stand inside the brackets. A pair of points a, -a has the same even and
// odd part, so that rows come in pairs `even + odd`, `even - odd`; that is all there is to be saved here.
//
// F(2x2) has no coefficients but 1, 1/2 and their negatives: small whole numbers go through it exactly.
#pragma once
#include "simd.h"

namespace c01b {

template <int M>
struct Winograd;

template <>
struct Winograd<2> {
    static constexpr float image[4][4] = {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}};  // B^T
    static constexpr float filter[4][3] = {{1, 0, 0}, {.5f, .5f, .5f}, {.5f, -.5f, .5f}, {0, 0, 1}};   // G
    static constexpr float output[2][4] = {{1, 1, 1, 0}, {0, 1, -1, -1}};                              // A^T
};

template <>
struct Winograd<4> {
    static constexpr float image[6][6] = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
                                          {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
    static constexpr float filter[6][3] = {{1 / 4.f, 0, 0},
                                           {-1 / 6.f, -1 / 6.f, -1 / 6.f},
                                           {-1 / 6.f, 1 / 6.f, -1 / 6.f},
                                           {1 / 24.f, 1 / 12.f, 1 / 6.f},
                                           {1 / 24.f, -1 / 12.f, 1 / 6.f},
                                           {0, 0, 1}};
    static constexpr float output[4][6] = {
        {1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}};
};

// sum + the products of row Row with x[J], x[J + Step], ...; coefficients of 0 are left out.
template <const auto& Matrix, int Row, int J, int Step, int N>
inline vec add_terms(vec sum, const vec (&x)[N]) {
    if constexpr (J >= N) return sum;
    else if constexpr (Matrix[Row][J] == 0) return add_terms<Matrix, Row, J + Step, Step>(sum, x);
    else return add_terms<Matrix, Row, J + Step, Step>(sum + Matrix[Row][J] * x[J], x);
}

// The same without a sum to begin with; not all coefficients are 0.
template <const auto& Matrix, int Row, int J, int Step, int N>
inline vec terms(const vec (&x)[N]) {
    if constexpr (Matrix[Row][J] == 0) return terms<Matrix, Row, J + Step, Step>(x);
    else return add_terms<Matrix, Row, J + Step, Step>(Matrix[Row][J] * x[J], x);
}

// Rows [Row, End) of Matrix x, for B^T and G, whose first and last of R rows stand alone and whose others come in pairs.
template <const auto& Matrix, int R, int Row, int End, int N>
inline void evaluate(const vec (&x)[N], vec* y) {
    if constexpr (Row == End) {
    } else if constexpr (Row == 0 || Row == R - 1) {
        y[0] = terms<Matrix, Row, 0, 1>(x);
        evaluate<Matrix, R, Row + 1, End>(x, y + 1);
    } else {
        const vec even = terms<Matrix, Row, 0, 2>(x), odd = terms<Matrix, Row, 1, 2>(x);
        y[0] = even + odd, y[1] = even - odd;
        evaluate<Matrix, R, Row + 2, End>(x, y + 2);
    }
}

// Rows Row, Row + 1, ... of what interpolate computes. Coefficients of the second column of a pair are not looked at.
template <const auto& Matrix, int Row, int R, int N>
inline void interpolate_rows(const vec (&sums)[N], const vec (&differences)[N], vec (&y)[R]) {
    const auto& x = Row % 2 ? differences : sums;
    if constexpr (Matrix[Row][0] == 0) y[Row] = terms<Matrix, Row, 1, 2>(x);
    else y[Row] = add_terms<Matrix, Row, 1, 2>(Matrix[Row][0] * x[0], x);
    if constexpr (Row + 1 < R) interpolate_rows<Matrix, Row + 1>(sums, differences, y);
}

// y = Matrix x for A^T: columns 2i-1 and 2i belong to a pair of points; they are equal in even rows, and each other's
// negatives in odd ones.
template <const auto& Matrix, int R, int N>
inline void interpolate(const vec (&x)[N], vec (&y)[R]) {
    vec sums[N], differences[N];
    sums[0] = differences[0] = x[0], sums[N - 1] = differences[N - 1] = x[N - 1];
#pragma GCC unroll 8
    for (int j = 1; j + 1 < N; j += 2) sums[j] = x[j] + x[j + 1], differences[j] = x[j] - x[j + 1];
    interpolate_rows<Matrix, 0>(sums, differences, y);
}

// Rows [Row, End) of what evaluate_square computes.
template <const auto& Matrix, int R, int Row, int End, int N>
__attribute__((always_inline)) inline void evaluate_rows(const float* from, int64_t row, const int64_t (&column)[N],
                                                         float* to, int64_t point) {
    vec half[End - Row][N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
        vec x[N], y[End - Row];
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) x[i] = load(from + i * row + column[j]);
        evaluate<Matrix, R, Row, End>(x, y);
#pragma GCC unroll 8
        for (int i = 0; i < End - Row; ++i) half[i][j] = y[i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < End - Row; ++i) {
        vec y[R];
        evaluate<Matrix, R, 0, R>(half[i], y);
#pragma GCC unroll 8
        for (int j = 0; j < R; ++j) store(to + ((Row + i) * R + j) * point, y[j]);
    }
}

// Matrix x Matrix^T, R x R, for the N x N values x[i][j] at from + i * row + column[j]; stored at to + (i * R + j) *
// point. Half of the rows at a time where all are more than the registers hold: loading twice is cheaper than storing
// in between.
template <const auto& Matrix, int R, int N>
__attribute__((always_inline)) inline void evaluate_square(const float* from, int64_t row, const int64_t (&column)[N],
                                                           float* to, int64_t point) {
    constexpr int middle = R * N > 24 ? R / 2 : 0;
    if constexpr (middle) evaluate_rows<Matrix, R, 0, middle>(from, row, column, to, point);
    evaluate_rows<Matrix, R, middle, R>(from, row, column, to, point);
}

// result = Matrix x Matrix^T, R x R, for the N x N values x[i][j] at from + (i * N + j) * point.
template <const auto& Matrix, int R, int N>
__attribute__((always_inline)) inline void interpolate_square(const float* from, int64_t point, vec (&result)[R][R]) {
    vec half[R][N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
        vec x[N], y[R];
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) x[i] = load(from + (i * N + j) * point);
        interpolate<Matrix>(x, y);
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) half[i][j] = y[i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) interpolate<Matrix>(half[i], result[i]);
}

}  // namespace c01b
