// Winograd's minimal filtering in two dimensions: M x M outputs of a correlation with R x R taps come from a tile of N x N
// pixels d, N = M + R - 1, and taps g as
//
//     y = A^T [ (G g G^T) * (B^T d B) ] A          * element by element: P^2 products instead of R^2 M^2
//
// (A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308, 2015, sections 4.1 and
// 4.3; S. Winograd, "Arithmetic complexity of computations", SIAM 1980.) Sums over channels stand inside the brackets.
//
// Products by P, for one output and tap        F(2,2): 3 / 4          F(2,3): 4 / 6          F(4,3): 6 / 12
//
// F(4,3) evaluates polynomials at 0, 1, -1, 2, -2 and infinity, and its coefficients cost digits. Larger filters are put
// together from the two small ones, which have no coefficients but 1, 1/2 and their negatives, so that small whole numbers
// go through them exactly and rounding is that of short sums:
//
//     tap after tap      taps  0 1 2 | 3 4       F(2,5) = F(2,3) + F(2,2) on pixels 3 later: 4 + 3 = 7 products
//     pairs in pairs     taps (0 1)(2 3)(4 5)    F(4,6) = F(2,3) of pairs, and in each F(2,2): 4 * 3 = 12 products;
//                                                without tap 5 one of them is 0: F(4,5) has 11
#pragma once
#include "simd.h"

namespace c01b {

template <int Rows, int Columns>
struct Matrix {
    static constexpr int rows = Rows, columns = Columns;
    float at[Rows][Columns];

    constexpr const float* operator[](int row) const { return at[row]; }
    constexpr float* operator[](int row) { return at[row]; }
};

// A bilinear algorithm for M outputs of a correlation with R taps, by P products.
template <int M, int R, int P>
struct Bilinear {
    static constexpr int N = M + R - 1;

    Matrix<P, N> image;   // B^T
    Matrix<P, R> filter;  // G
    Matrix<M, P> output;  // A^T
};

inline constexpr Bilinear<2, 2, 3> f22 = {
    {{{1, -1, 0}, {0, 1, 0}, {0, -1, 1}}}, {{{1, 0}, {1, 1}, {0, 1}}}, {{{1, 1, 0}, {0, 1, 1}}}};

inline constexpr Bilinear<2, 3, 4> f23 = {{{{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}}},
                                   {{{1, 0, 0}, {.5f, .5f, .5f}, {.5f, -.5f, .5f}, {0, 0, 1}}},
                                   {{{1, 1, 1, 0}, {0, 1, -1, -1}}}};

inline constexpr Bilinear<4, 3, 6> f43 = {
    {{{4, 0, -5, 0, 1, 0},
      {0, -4, -4, 1, 1, 0},
      {0, 4, -4, -1, 1, 0},
      {0, -2, -1, 2, 1, 0},
      {0, 2, -1, -2, 1, 0},
      {0, 4, 0, -5, 0, 1}}},
    {{{1 / 4.f, 0, 0},
      {-1 / 6.f, -1 / 6.f, -1 / 6.f},
      {-1 / 6.f, 1 / 6.f, -1 / 6.f},
      {1 / 24.f, 1 / 12.f, 1 / 6.f},
      {1 / 24.f, -1 / 12.f, 1 / 6.f},
      {0, 0, 1}}},
    {{{1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}}}};

// The taps of a, and after them those of b.
template <int M, int R, int P, int S, int Q>
constexpr Bilinear<M, R + S, P + Q> tap_after_tap(const Bilinear<M, R, P>& a, const Bilinear<M, S, Q>& b) {
    Bilinear<M, R + S, P + Q> c = {};
    for (int p = 0; p < P; ++p) {
        for (int i = 0; i < a.N; ++i) c.image[p][i] = a.image[p][i];
        for (int i = 0; i < R; ++i) c.filter[p][i] = a.filter[p][i];
        for (int i = 0; i < M; ++i) c.output[i][p] = a.output[i][p];
    }
    for (int p = 0; p < Q; ++p) {
        for (int i = 0; i < b.N; ++i) c.image[P + p][R + i] = b.image[p][i];
        for (int i = 0; i < S; ++i) c.filter[P + p][R + i] = b.filter[p][i];
        for (int i = 0; i < M; ++i) c.output[i][P + p] = b.output[i][p];
    }
    return c;
}

// a on pairs of outputs and of taps, and in each of its products F(2,2).
template <int M, int R, int P>
constexpr Bilinear<2 * M, 2 * R, 3 * P> in_pairs(const Bilinear<M, R, P>& a) {
    Bilinear<2 * M, 2 * R, 3 * P> c = {};
    for (int p = 0; p < P; ++p)
        for (int q = 0; q < 3; ++q) {
            for (int j = 0; j < a.N; ++j)
                for (int i = 0; i < 3; ++i) c.image[3 * p + q][2 * j + i] += a.image[p][j] * f22.image[q][i];
            for (int j = 0; j < R; ++j)
                for (int i = 0; i < 2; ++i) c.filter[3 * p + q][2 * j + i] = a.filter[p][j] * f22.filter[q][i];
            for (int j = 0; j < M; ++j)
                for (int i = 0; i < 2; ++i) c.output[2 * j + i][3 * p + q] = a.output[j][p] * f22.output[i][q];
        }
    return c;
}

// a for one tap less, where that is the only one of its last product.
template <int M, int R, int P>
constexpr Bilinear<M, R - 1, P - 1> without_last_tap(const Bilinear<M, R, P>& a) {
    Bilinear<M, R - 1, P - 1> c = {};
    for (int p = 0; p + 1 < P; ++p) {
        for (int i = 0; i < c.N; ++i) c.image[p][i] = a.image[p][i];
        for (int i = 0; i + 1 < R; ++i) c.filter[p][i] = a.filter[p][i];
        for (int i = 0; i < M; ++i) c.output[i][p] = a.output[i][p];
    }
    return c;
}

inline constexpr auto f25 = tap_after_tap(f23, f22);
inline constexpr auto f27 = tap_after_tap(f25, f22);
inline constexpr auto f45 = without_last_tap(in_pairs(f23));

template <int Rows, int Columns>
constexpr Matrix<Columns, Rows> transposed(const Matrix<Rows, Columns>& a) {
    Matrix<Columns, Rows> b = {};
    for (int i = 0; i < Rows; ++i)
        for (int j = 0; j < Columns; ++j) b[j][i] = a[i][j];
    return b;
}

template <const auto& algorithm>
struct Algorithm {
    static constexpr auto image = algorithm.image;
    static constexpr auto image_transposed = transposed(image);
    static constexpr auto filter = algorithm.filter;
    static constexpr auto filter_transposed = transposed(filter);
    static constexpr auto output = algorithm.output;
    static constexpr auto output_transposed = transposed(output);
    static constexpr int N = image.columns, P = image.rows;
};

// For tiles of M x M results and R x R taps.
template <int M, int R>
struct Winograd;
template <>
struct Winograd<2, 3> : Algorithm<f23> {};
template <>
struct Winograd<4, 3> : Algorithm<f43> {};
template <>
struct Winograd<2, 5> : Algorithm<f25> {};
template <>
struct Winograd<4, 5> : Algorithm<f45> {};
template <>
struct Winograd<2, 7> : Algorithm<f27> {};

// Whether row `point` of G is the last tap alone.
template <const auto& Filter>
constexpr bool is_last_tap(int64_t point) {
    for (int i = 0; i + 1 < Filter.columns; ++i)
        if (Filter[point][i] != 0) return false;
    return true;
}

// sum + the products of row Row with x[J], x[J + Step], ...; coefficients of 0 are left out.
template <const auto& Factor, int Row, int J, int Step, int N>
inline vec add_terms(vec sum, const vec (&x)[N]) {
    if constexpr (J >= N) return sum;
    else if constexpr (Factor[Row][J] == 0) return add_terms<Factor, Row, J + Step, Step>(sum, x);
    else return add_terms<Factor, Row, J + Step, Step>(sum + Factor[Row][J] * x[J], x);
}

// The same without a sum to begin with; not all coefficients are 0.
template <const auto& Factor, int Row, int J, int Step, int N>
inline vec terms(const vec (&x)[N]) {
    if constexpr (Factor[Row][J] == 0) return terms<Factor, Row, J + Step, Step>(x);
    else return add_terms<Factor, Row, J + Step, Step>(Factor[Row][J] * x[J], x);
}

// Whether rows Row and Row + 1 of B^T or G are `even + odd` and `even - odd`, as those of points a and -a are.
template <int P, int N>
constexpr bool rows_pair(const Matrix<P, N>& matrix, int row) {
    bool even = false, odd = false;
    for (int j = 0; row + 1 < P && j < N; ++j) {
        const float a = matrix[row][j], b = matrix[row + 1][j];
        if (b != (j % 2 ? -a : a)) return false;
        (j % 2 ? odd : even) |= a != 0;
    }
    return even && odd;
}

// Whether columns j and j + 1 of A^T are equal in even rows and each other's negatives in odd ones.
template <int M, int P>
constexpr bool columns_pair(const Matrix<M, P>& matrix, int j) {
    if (j < 0 || j + 1 >= P) return false;
    for (int i = 0; i < M; ++i)
        if (matrix[i][j + 1] != (i % 2 ? -matrix[i][j] : matrix[i][j])) return false;
    return true;
}

// Rows [Row, End) of Factor x, for B^T and G.
template <const auto& Factor, int Row, int End, int N>
inline void evaluate(const vec (&x)[N], vec* y) {
    if constexpr (Row == End) {
    } else if constexpr (Row + 1 < End && rows_pair(Factor, Row)) {
        const vec even = terms<Factor, Row, 0, 2>(x), odd = terms<Factor, Row, 1, 2>(x);
        y[0] = even + odd, y[1] = even - odd;
        evaluate<Factor, Row + 2, End>(x, y + 2);
    } else {
        y[0] = terms<Factor, Row, 0, 1>(x);
        evaluate<Factor, Row + 1, End>(x, y + 1);
    }
}

// Adds the products of row Row of A^T from column J on to `sum`, or begins one: a pair's sum or difference at once.
template <const auto& Factor, int Row, int J, bool Begun, int P>
inline vec interpolate_row(vec sum, const vec (&x)[P], const vec (&pairs)[2][P]) {
    if constexpr (J >= P) return sum;
    else if constexpr (Factor[Row][J] == 0 || columns_pair(Factor, J - 1))
        return interpolate_row<Factor, Row, J + 1, Begun>(sum, x, pairs);
    else {
        const vec term = columns_pair(Factor, J) ? pairs[Row % 2][J] : x[J];
        if constexpr (Begun) sum += Factor[Row][J] * term;
        else sum = Factor[Row][J] * term;
        return interpolate_row<Factor, Row, J + 1, true>(sum, x, pairs);
    }
}

template <const auto& Factor, int Row, int M, int P>
inline void interpolate_rows(const vec (&x)[P], const vec (&pairs)[2][P], vec (&y)[M]) {
    y[Row] = interpolate_row<Factor, Row, 0, false>(zero(), x, pairs);
    if constexpr (Row + 1 < M) interpolate_rows<Factor, Row + 1>(x, pairs, y);
}

// y = Factor x for A^T.
template <const auto& Factor, int M, int P>
inline void interpolate(const vec (&x)[P], vec (&y)[M]) {
    vec pairs[2][P];
#pragma GCC unroll 16
    for (int j = 0; j + 1 < P; ++j) pairs[0][j] = x[j] + x[j + 1], pairs[1][j] = x[j] - x[j + 1];
    interpolate_rows<Factor, 0>(x, pairs, y);
}

// Rows [Row, End) of what evaluate_square computes.
template <const auto& Factor, int Row, int End, int P, int N>
__attribute__((always_inline)) inline void evaluate_rows(const float* from, int64_t row, const int64_t (&column)[N],
                                                         float* to, int64_t point) {
    vec half[End - Row][N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
        vec x[N], y[End - Row];
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) x[i] = load(from + i * row + column[j]);
        evaluate<Factor, Row, End>(x, y);
#pragma GCC unroll 8
        for (int i = 0; i < End - Row; ++i) half[i][j] = y[i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < End - Row; ++i) {
        vec y[P];
        evaluate<Factor, 0, P>(half[i], y);
#pragma GCC unroll 16
        for (int j = 0; j < P; ++j) store(to + ((Row + i) * P + j) * point, y[j]);
    }
}

// Where to stop with rows of N values, from `row` on, so that the registers hold them and no pair is parted.
template <int P, int N>
constexpr int rows_end(const Matrix<P, N>& matrix, int row) {
    constexpr int held = 24 / N;
    if (row + held >= P) return P;
    return rows_pair(matrix, row + held - 1) ? row + held - 1 : row + held;
}

// Factor x Factor^T, P x P, for the N x N values x[i][j] at from + i * row + column[j]; stored at to + (i * P + j) *
// point. Some of the rows at a time where all are more than the registers hold: loading twice is cheaper than storing
// in between.
template <const auto& Factor, int P, int N, int Row = 0>
__attribute__((always_inline)) inline void evaluate_square(const float* from, int64_t row, const int64_t (&column)[N],
                                                           float* to, int64_t point) {
    constexpr int end = rows_end(Factor, Row);
    evaluate_rows<Factor, Row, end, P>(from, row, column, to, point);
    if constexpr (end < P) evaluate_square<Factor, P, N, end>(from, row, column, to, point);
}

// result = Factor x Factor^T, M x M, for the P x P values x[i][j] at from + (i * P + j) * point.
template <const auto& Factor, int M, int P>
__attribute__((always_inline)) inline void interpolate_square(const float* from, int64_t point, vec (&result)[M][M]) {
    vec half[M][P];
#pragma GCC unroll 16
    for (int j = 0; j < P; ++j) {
        vec x[P], y[M];
#pragma GCC unroll 16
        for (int i = 0; i < P; ++i) x[i] = load(from + (i * P + j) * point);
        interpolate<Factor>(x, y);
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i) half[i][j] = y[i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) interpolate<Factor>(half[i], result[i]);
}

}  // namespace c01b
