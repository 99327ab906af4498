// The shape of one leaf of the dead-leaves model: convex, so that each row of pixels meets it in one interval.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "strata/core/random.hpp"
#include "strata/core/rounded.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

class Leaf {
 public:
  /// A disc, ellipse, rectangle or convex polygon of about `radius` around (x, y), turned at random or, long ones, by
  /// `angle`.
  Leaf(float x, float y, float radius, Rng& rng, const float* angle = nullptr)
      : x_(x), y_(y), angle_(angle ? *angle : rng.uniform(0, 2 * std::numbers::pi_v<float>)) {
    const float kind = angle ? 0.4f : rng.uniform();
    if (kind < 0.5f) {
      const float stretch = kind < 0.2f ? 1.0f : rng.uniform(0.15f, 1.0f);  // short axis to long axis
      const float a = radius, b = radius * stretch;
      const float cosine = std::cos(angle_), sine = std::sin(angle_);
      // Q(dx, dy) = xx dx^2 + 2 xy dx dy + yy dy^2 <= 1
      xx_ = cosine * cosine / (a * a) + sine * sine / (b * b);
      yy_ = sine * sine / (a * a) + cosine * cosine / (b * b);
      xy_ = cosine * sine * (1 / (a * a) - 1 / (b * b));
      reach_ = std::sqrt(rounded(a * a * sine * sine) + rounded(b * b * cosine * cosine));
    } else {
      const bool rectangle = kind < 0.75f;
      sides_ = rectangle ? 4 : 3 + int(rng.below(5));
      const float flat = rectangle ? rng.uniform(0.1f, 1.0f) : 1.0f;
      const float turn = 2 * std::numbers::pi_v<float> / float(sides_);
      for (int side = 0; side < sides_; ++side) {
        const float jitter = rectangle ? 0.0f : rounded(rng.uniform(-0.3f, 0.3f) * turn);
        const float direction = angle_ + rounded(float(side) * turn) + jitter;
        normal_x_[side] = std::cos(direction);
        normal_y_[side] = std::sin(direction);
        distance_[side] = rounded(radius * (!rectangle ? rng.uniform(0.5f, 1.0f) : side % 2 ? flat : 1.0f));
      }
      reach_ = rounded(3 * radius);  // corners reach beyond the sides' distance; sharper ones are cut
    }
  }

  float x() const { return x_; }
  float y() const { return y_; }
  float angle() const { return angle_; }

  /// The first row it may meet and the one after the last, within [0, h).
  std::int64_t top() const { return std::int64_t(std::max(0.0f, std::ceil(y_ - reach_))); }
  std::int64_t bottom(std::int64_t h) const {
    return std::clamp(std::int64_t(std::floor(std::min(y_ + reach_, float(h)))) + 1, std::int64_t{0}, h);
  }

  /// The columns [begin, end) within [0, w) whose pixel centres lie inside on row y.
  void columns(std::int64_t y, std::int64_t w, std::int64_t& begin, std::int64_t& end) const {
    const float dy = float(y) - y_;
    float low = -reach_, high = reach_;
    if (sides_ == 0) {
      const float half = rounded(xy_ * dy);
      const float rest = rounded(half * half) - rounded(xx_ * (rounded(yy_ * dy * dy) - 1));
      if (rest <= 0) {
        begin = end = 0;
        return;
      }
      const float root = std::sqrt(rest);
      low = (-half - root) / xx_;
      high = (-half + root) / xx_;
    }
    for (int side = 0; side < sides_; ++side) {
      const float room = distance_[side] - rounded(normal_y_[side] * dy);  // normal_x dx <= room
      if (normal_x_[side] > 1e-6f)
        high = std::min(high, room / normal_x_[side]);
      else if (normal_x_[side] < -1e-6f)
        low = std::max(low, room / normal_x_[side]);
      else if (room < 0)
        high = -reach_ - 1;
    }
    const float last = float(w);
    begin = std::int64_t(std::ceil(std::clamp(x_ + low, 0.0f, last)));
    end = std::int64_t(std::floor(std::clamp(x_ + high, -1.0f, last - 1))) + 1;
  }

 private:
  static constexpr int max_sides = 7;
  float x_, y_, angle_, reach_ = 0;
  int sides_ = 0;  // 0: an ellipse
  float xx_ = 0, xy_ = 0, yy_ = 0;
  float normal_x_[max_sides] = {}, normal_y_[max_sides] = {}, distance_[max_sides] = {};
};

}}}  // namespace strata::STRATA_ABI::detail
