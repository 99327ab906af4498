// The updates of the optimisers on the CUDA backend, against the CPU's in double: many tensors of all sizes in one
// call.
#include <cmath>
#include <limits>
#include <memory>

#include "device_test.hpp"
#include "strata/cpu/optimizer.hpp"

using namespace device_test;
using strata::TensorSpan, strata::TensorUpdate;

namespace {

/// Tensors of many sizes, among them none, one element, more than a block, and ones that are not aligned.
struct Tensors {
  explicit Tensors(int count) {
    const std::int64_t sizes[] = {1, 64, 0, 1027, 36, 2500, 3};
    for (int i = 0; i < count; ++i) {
      const std::int64_t size = sizes[i % 7], shift = i % 3 == 1 || size == 0 ? 1 : 0;
      shifts.push_back(shift), lengths.push_back(size);
      for (int array = 0; array < 6; ++array) {
        Numbers values = numbers(size + shift, std::uint32_t(10 * i + array));
        if (array == 3)
          for (float& v : values) v = std::abs(v);
        if (array == 5)  // squares' average: more than the square of any
          for (float& v : values) v = 2 + std::abs(v);
        host[array].push_back(values);
        device[array].push_back(std::make_unique<DeviceArray<float>>(values));
      }
    }
  }
  std::vector<TensorUpdate> updates(bool state1, bool state2) const {
    std::vector<TensorUpdate> list;
    for (std::size_t i = 0; i < lengths.size(); ++i)
      list.push_back({.size = lengths[i],
                      .value = at(0, i),
                      .gradient = at(1, i),
                      .state1 = state1 ? at(2, i) : nullptr,
                      .state2 = state2 ? at(3, i) : nullptr});
    return list;
  }
  std::vector<TensorSpan> spans() const {
    std::vector<TensorSpan> list;
    for (std::size_t i = 0; i < lengths.size(); ++i) list.push_back({lengths[i], at(0, i)});
    return list;
  }
  float* at(int array, std::size_t i) const { return device[array][i]->data() + shifts[i]; }
  /// Array `array` of tensor i in double, from its first element on.
  std::vector<double> reference(int array, std::size_t i) const {
    return {host[array][i].begin() + shifts[i], host[array][i].end()};
  }
  double error(int array, std::size_t i, const std::vector<double>& wanted) const {
    const Numbers all = device[array][i]->download();
    if (shifts[i] == 1) CHECK(all[0] == host[array][i][0]);
    return largest_error(Numbers(all.begin() + shifts[i], all.end()), wanted);
  }

  std::vector<std::int64_t> lengths, shifts;
  std::vector<Numbers> host[6];
  std::vector<std::unique_ptr<DeviceArray<float>>> device[6];
};

}  // namespace

TEST_CASE("SGD: momentum, decay, Nesterov, first steps; more tensors than one launch takes") {
  for (const int form : {0, 1, 2}) {
    CAPTURE(form);
    in_random_order([&] {
      const Tensors tensors(form == 1 ? 60 + 9 : 9);  // a launch takes 60
      strata::SgdUpdate update{.lr = 0.1, .weight_decay = 1e-2};
      if (form > 0) update.momentum = 0.9;
      if (form == 1) update.dampening = 0.1;
      if (form == 2) update.nesterov = true;
      std::vector<TensorUpdate> list = tensors.updates(form > 0, false);
      for (std::size_t i = 0; i < list.size(); i += 2) list[i].first = true;
      gpu().sgd_update(list, update);
      for (std::size_t i = 0; i < list.size(); ++i) {
        std::vector<double> w = tensors.reference(0, i), v = tensors.reference(2, i);
        update.first = list[i].first;
        strata::cpu::sgd_update<double>(list[i].size, w.data(), tensors.reference(1, i).data(),
                                        form > 0 ? v.data() : nullptr, update);
        CHECK(tensors.error(0, i, w) <= 4 * unit);
        CHECK(tensors.error(2, i, v) <= 4 * unit);
      }
    });
  }
}

TEST_CASE("Adam and AdamW, each tensor at its own step") {
  for (const bool decoupled : {false, true}) {
    in_random_order([&] {
      const Tensors tensors(9);
      strata::AdamUpdate update{
          .lr = 1e-2, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 1e-2, .decoupled = decoupled};
      std::vector<TensorUpdate> list = tensors.updates(true, true);
      for (std::size_t i = 0; i < list.size(); ++i) list[i].step = std::int64_t(1 + 3 * i);
      gpu().adam_update(list, update);
      for (std::size_t i = 0; i < list.size(); ++i) {
        std::vector<double> w = tensors.reference(0, i), m = tensors.reference(2, i), v = tensors.reference(3, i);
        update.step = list[i].step;
        strata::cpu::adam_update<double>(list[i].size, w.data(), tensors.reference(1, i).data(), m.data(), v.data(),
                                         update);
        CHECK(tensors.error(0, i, w) <= 8 * unit);
        CHECK(tensors.error(2, i, m) <= 4 * unit);
        CHECK(tensors.error(3, i, v) <= 4 * unit);
      }
    });
  }
}

TEST_CASE("RMSprop: alone, centered, with momentum, with both") {
  for (const bool centered : {false, true})
    for (const double momentum : {0.0, 0.9}) {
      CAPTURE(centered);
      CAPTURE(momentum);
      in_random_order([&] {
        const Tensors tensors(centered && momentum > 0 ? 60 + 9 : 9);
        const strata::RmspropUpdate update{
            .lr = 1e-2, .alpha = 0.9, .eps = 1e-3, .weight_decay = 1e-2, .momentum = momentum};
        std::vector<TensorUpdate> list = tensors.updates(false, false);
        for (std::size_t i = 0; i < list.size(); ++i) {
          list[i].state1 = tensors.at(5, i);
          if (centered) list[i].state2 = tensors.at(2, i);
          if (momentum > 0) list[i].state3 = tensors.at(4, i);
        }
        gpu().rmsprop_update(list, update);
        for (std::size_t i = 0; i < list.size(); ++i) {
          std::vector<double> w = tensors.reference(0, i), a = tensors.reference(2, i), s = tensors.reference(5, i),
                              b = tensors.reference(4, i);
          strata::cpu::rmsprop_update<double>(list[i].size, w.data(), tensors.reference(1, i).data(), s.data(),
                                              centered ? a.data() : nullptr, momentum > 0 ? b.data() : nullptr, update);
          CHECK(tensors.error(5, i, s) <= 4 * unit);
          CHECK(tensors.error(2, i, a) <= 4 * unit);
          CHECK(tensors.error(4, i, b) <= 12 * unit);  // the variance, above 0.8, is what is left of numbers up to 3
          CHECK(tensors.error(0, i, w) <= 4 * unit);
        }
      });
    }
}

TEST_CASE("RMSprop: a variance that rounding made negative counts as 0") {
  const DeviceArray<float> w(Numbers{1}), g(Numbers{1e-3f}), s(Numbers{0.5f}), a(Numbers{1});
  gpu().rmsprop_update(
      std::vector<TensorUpdate>{
          {.size = 1, .value = w.data(), .gradient = g.data(), .state1 = s.data(), .state2 = a.data()}},
      {.lr = 0.5, .alpha = 0.9, .eps = 1e-3});
  CHECK(std::abs(double(w.download()[0]) - 0.5) <= 4 * unit);  // 1e-3 / (0 + 1e-3)
}

TEST_CASE("averages, scaling, limits, norms") {
  in_every_order([] {
    const Tensors tensors(8), scaled(8), limited(8);
    const std::vector<TensorUpdate> list = tensors.updates(false, false);
    double squares = 0;
    for (std::size_t i = 0; i < list.size(); ++i)
      for (const double x : tensors.reference(0, i)) squares += x * x;
    CHECK(std::abs(gpu().sum_of_squares(tensors.spans()) - squares) <= 30 * unit * squares);
    gpu().average_update(list, 0.9);
    gpu().scale(scaled.spans(), 0.25);
    gpu().clamp(limited.spans(), 0.5);
    for (std::size_t i = 0; i < list.size(); ++i) {
      std::vector<double> average = tensors.reference(0, i), quarter = average, limit = average;
      strata::cpu::average_update<double>(list[i].size, average.data(), tensors.reference(1, i).data(), 0.9);
      strata::cpu::scale<double>(list[i].size, quarter.data(), 0.25);
      strata::cpu::clamp<double>(list[i].size, limit.data(), 0.5);
      CHECK(tensors.error(0, i, average) <= 4 * unit);
      CHECK(scaled.error(0, i, quarter) == 0);
      CHECK(limited.error(0, i, limit) == 0);
    }
    CHECK(gpu().sum_of_squares({}) == 0);
  });
}

namespace {

/// update(tensors, step) recorded once and replayed, and called: the same bits after each of two steps, and no change
/// by a replay whose condition is not finite.
template <class Update>
void compare_replays(const char* what, int tensors, const Update& update) {
  CAPTURE(what);
  in_random_order([&] {
    const Tensors called(tensors), recorded(tensors);
    const DeviceArray<float> condition(Numbers{-3});
    const auto differences = [&] {
      int count = 0;
      for (const int array : {0, 2, 3})
        for (std::size_t i = 0; i < called.lengths.size(); ++i)
          count += called.device[array][i]->download() != recorded.device[array][i]->download();
      return count;
    };
    gpu().begin_recording();
    gpu().update_where_finite(condition.data());
    update(recorded, 1);
    const auto work = gpu().end_recording();
    for (int step = 1; step <= 2; ++step) {
      if (step > 1) work->renew([&] { update(recorded, step); });
      CHECK(differences() == 0);
      update(called, step);
      CHECK(differences() > 0);
      work->replay();
      CHECK(differences() == 0);
    }
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
      gpu().upload(condition.data(), &bad, sizeof bad);
      work->replay();
      CHECK(differences() == 0);
    }
  });
}

}  // namespace

TEST_CASE("recorded updates: other numbers for every replay, and none where their condition is not finite") {
  compare_replays("sgd", 5, [](const Tensors& t, int step) {
    gpu().sgd_update(t.updates(true, false), {.lr = 0.1 / step, .momentum = 0.9, .weight_decay = 1e-2});
  });
  compare_replays("adam", 60 + 3, [](const Tensors& t, int step) {  // a launch takes 60
    std::vector<TensorUpdate> list = t.updates(true, true);
    for (std::size_t i = 0; i < list.size(); ++i) list[i].step = std::int64_t(i) + step;
    gpu().adam_update(list, {.lr = 0.1 / step, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 1e-2,
                             .decoupled = true});
  });
  compare_replays("rmsprop", 5, [](const Tensors& t, int step) {
    std::vector<TensorUpdate> list = t.updates(false, false);
    for (std::size_t i = 0; i < list.size(); ++i) list[i].state1 = t.at(3, i);
    gpu().rmsprop_update(list, {.lr = 0.1 / step, .alpha = 0.9, .eps = 1e-3});
  });
  compare_replays("average", 5, [](const Tensors& t, int step) {
    gpu().average_update(t.updates(false, false), 0.9 / step);
  });
  compare_replays("rescale", 5, [](const Tensors& t, int step) { gpu().rescale(t.spans(), 0.3 / step); });
  compare_replays("clamp", 5, [](const Tensors& t, int step) { gpu().clamp(t.spans(), 0.3 / step); });
}

TEST_CASE("a norm limited on the device, as by the host's factor") {
  in_random_order([] {
    for (const double part : {0.25, 1.5}) {
      const Tensors limited(9), scaled(9);
      const DeviceArray<float> squares(1);
      gpu().queue_sum_of_squares(limited.spans(), squares.data());
      const double all = double(squares.download()[0]), norm = std::sqrt(all);
      CHECK(all == gpu().sum_of_squares(scaled.spans()));
      gpu().limit_norm(limited.spans(), squares.data(), part * norm);
      if (part < 1) gpu().scale(scaled.spans(), part * norm / (norm + 1e-6));
      for (std::size_t i = 0; i < limited.lengths.size(); ++i)
        CHECK(limited.device[0][i]->download() == scaled.device[0][i]->download());
    }
  });
}
