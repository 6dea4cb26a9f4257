// Every loop nest of the convolutions on shapes drawn at random, against loops that are the definition (conv_shape.h). Operands
// are small whole numbers, so results are equal or wrong. Arguments: how many shapes, a seed. Prints what each nest did; the exit
// status says whether all of it was right.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <random>
#include <string>

#include "conv_batch_lanes.h"
#include "conv_filter_lanes.h"
#include "conv_pointwise.h"
#include "conv_row_lanes.h"
#include "conv_scatter.h"
#include "conv_unpacked.h"
#include "forward_correlation.h"
#include "gradient_correlation.h"
#include "weight_acts.h"

using namespace c01b;

struct Floats {
    std::vector<float> values;
    Floats(int64_t count, std::mt19937& rng) : values(count) {
        std::uniform_int_distribution<int> some(-3, 3);
        for (float& v : values) v = static_cast<float>(some(rng));
    }
    float* data() { return values.data(); }
};

ConvShape shape(std::mt19937& rng) {
    const auto draw = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); };
    ConvShape s{};
    s.groups = draw(0, 3) ? 1 : draw(2, 3);
    s.channels = s.groups * draw(1, draw(0, 1) ? 3 : 19), s.filters = s.groups * draw(1, draw(0, 1) ? 7 : 40);
    s.batch = draw(0, 1) ? draw(1, 8) : draw(1, 70);
    if (!draw(0, 5)) {  // several blocks of filters in the lanes, of either direction's filters
        (draw(0, 1) ? s.channels : s.filters) = s.groups * draw(65, 220);
        s.batch = draw(1, 3);
    }
    s.filter_h = draw(1, draw(0, 2) ? 3 : 7), s.filter_w = draw(0, 1) ? s.filter_h : draw(1, 7);
    s.stride_y = draw(0, 1) ? 1 : draw(1, 5), s.stride_x = draw(0, 1) ? s.stride_y : draw(1, 5);
    if (!draw(0, 3)) s.filter_h = s.filter_w = 1;
    const bool padded = draw(0, 1) || s.filter_h + s.filter_w > 2;
    s.pad_y = padded * draw(0, s.filter_h + 1), s.pad_x = padded * draw(0, s.filter_w + 1);
    s.out_h = draw(1, 7), s.out_w = draw(0, 3) ? draw(1, 9) : draw(17, 40);
    // Images whose last pixels no window meets, or whose last windows hang over the end.
    s.height = std::max<int64_t>(1, (s.out_h - 1) * s.stride_y + s.filter_h - s.pad_y - draw(-2, s.filter_h));
    s.width = std::max<int64_t>(1, (s.out_w - 1) * s.stride_x + s.filter_w - s.pad_x - draw(-2, s.filter_w));
    s.flip = draw(0, 1);
    return s;
}

// Calls product(image, filter, output), the places of the three factors of each product in the definition.
template <class Product>
void each_product(const ConvShape& s, const Product& product) {
    const int64_t channels = s.group_channels(), filters = s.group_filters();
    for (int64_t k = 0; k < s.filters; ++k)
        for (int64_t c = 0; c < channels; ++c)
            for (int64_t i = 0; i < s.out_h; ++i)
                for (int64_t j = 0; j < s.out_w; ++j)
                    for (int64_t u = 0; u < s.filter_h; ++u)
                        for (int64_t v = 0; v < s.filter_w; ++v) {
                            const int64_t y = i * s.stride_y - s.pad_y + u, x = j * s.stride_x - s.pad_x + v;
                            if (y < 0 || x < 0 || y >= s.height || x >= s.width) continue;
                            const int64_t channel = k / filters * channels + c;
                            const int64_t row = s.flip ? s.filter_h - 1 - u : u, column = s.flip ? s.filter_w - 1 - v : v;
                            for (int64_t b = 0; b < s.batch; ++b)
                                product(((channel * s.height + y) * s.width + x) * s.batch + b,
                                        ((c * s.filter_h + row) * s.filter_w + column) * s.filters + k,
                                        ((k * s.out_h + i) * s.out_w + j) * s.batch + b);
                        }
}

typedef std::function<bool(const Correlation&, int)> Nest;  // false: it does not apply, or not to these numbers

const std::map<std::string, Nest> nests = {
    {"images in the lanes", [](const Correlation& c, int threads) { return correlate_batch_lanes(c, threads), true; }},
    {"filters in the lanes", [](const Correlation& c, int threads) { return correlate_filter_lanes(c, threads), true; }},
    {"no panel", [](const Correlation& c, int threads) { return correlate_unpacked(c, threads), true; }},
    {"rows in the lanes", [](const Correlation& c, int threads) {
         const RowLanes nest(c, threads);
         return nest.cost < HUGE_VAL && nest.run(threads);
     }},
    {"one tap", [](const Correlation& c, int threads) {
         const Pointwise nest(c, threads);
         return nest.cost < HUGE_VAL && (nest.run(threads), true);
     }},
    {"scattered", [](const Correlation& c, int threads) {
         const Scatter nest(c, threads);
         return nest.cost < HUGE_VAL && (nest.run(threads), true);
     }},
};

// The weight gradient by tiles of one kind, cut as the plan says that has them.
std::vector<float> weight_gradient(const ConvShape& s, bool dot, const float* images, const float* grads, int threads) {
    using namespace weight_grad;
    Plan plan = make_plan(s, 0, threads);
    plan.dot = dot;
    const int64_t size = result_floats(s);
    std::vector<float> slices(plan.slices * size, 1e9f), result(size, 1e9f);
    run_plan(s, plan, images, grads, slices.data());
    sum_slices(slices.data(), plan.slices, size, result.data(), threads);
    return result;
}

int main(int, char** arguments) {
    std::mt19937 rng(std::atoi(arguments[2]));
    std::map<std::string, int> right, wrong;
    for (int n = std::atoi(arguments[1]); n; --n) {
        const ConvShape s = shape(rng);
        Floats x(s.channels * s.height * s.width * s.batch, rng), y(s.filters * s.out_h * s.out_w * s.batch, rng);
        Floats w(s.group_channels() * s.filter_h * s.filter_w * s.filters, rng);
        std::vector<float> forward(y.values.size()), gradient(x.values.size()), weights(w.values.size());
        each_product(s, [&](int64_t image, int64_t filter, int64_t output) {
            forward[output] += x.values[image] * w.values[filter], gradient[image] += y.values[output] * w.values[filter];
            weights[filter] += x.values[image] * y.values[output];
        });
        const auto judge = [&](const std::string& what, bool equal) {
            ++(equal ? right : wrong)[what];
            if (!equal && wrong[what] == 1)
                std::printf("WRONG %s: groups %ld images %ld x %ld x %ld x %ld filters %ld x %ld x %ld outputs %ld x %ld "
                            "stride %ld %ld pad %ld %ld flip %d\n",
                            what.c_str(), (long)s.groups, (long)s.channels, (long)s.height, (long)s.width, (long)s.batch,
                            (long)s.filters, (long)s.filter_h, (long)s.filter_w, (long)s.out_h, (long)s.out_w,
                            (long)s.stride_y, (long)s.stride_x, (long)s.pad_y, (long)s.pad_x, s.flip);
        };
        for (bool dot : {false, true})
            judge(dot ? "dot tiles, weights" : "outer tiles, weights", weight_gradient(s, dot, x.data(), y.data(), 1 + n % 3) == weights);
        for (bool back : {false, true})
            for (const auto& [name, nest] : nests) {
                std::vector<float> result(back ? gradient.size() : forward.size(), 1e9f);
                const Correlation c = back ? gradient_correlation(s, y.data(), w.data(), result.data())
                                           : forward_correlation(s, x.data(), w.data(), result.data());
                const std::string what = name + (back ? ", gradient" : ", forward");
                if (!nest(c, 1 + n % 3)) continue;
                judge(what, result == (back ? gradient : forward));
            }
    }
    for (const auto& [what, count] : right) std::printf("%s: %d\n", what.c_str(), count);
    return wrong.empty() ? 0 : 1;
}
