// Prints the multiply-add peak in GFLOP/s: on each of argv[1] threads, 12 independent chains of vector FMAs in registers.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif
typedef float vec __attribute__((vector_size(lanes * sizeof(float))));
constexpr int chains = 12;
constexpr long rounds = 20000000;

static float multiply_add() {
    vec sums[chains], factor, term;
    for (int lane = 0; lane < lanes; ++lane) factor[lane] = 0.999f, term[lane] = 1e-3f * lane;
    for (vec& sum : sums) sum = term;
    for (long i = 0; i < rounds; ++i)
        for (vec& sum : sums) sum = sum * factor + term;
    vec total = sums[0];
    for (int c = 1; c < chains; ++c) total += sums[c];
    return total[0] + total[lanes - 1];
}

int main(int, char** argv) {
    const int threads = std::atoi(argv[1]);
    std::vector<float> results(threads);
    std::vector<std::thread> running;
    const auto started = std::chrono::steady_clock::now();
    for (int t = 0; t < threads; ++t) running.emplace_back([&results, t] { results[t] = multiply_add(); });
    for (std::thread& thread : running) thread.join();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
    std::printf("%.2f\n", 2e-9 * lanes * chains * rounds * threads / seconds.count());
    return results[0] < 0;  // always 0, but the compiler cannot know
}
