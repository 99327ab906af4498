// Parameters, buffers, and the walk over a module's members.
#include <doctest/doctest.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "strata/autograd/visit.hpp"

namespace st = strata;
using Names = std::vector<std::string>;

namespace {

struct Pair {
  st::Parameter a{st::Shape{2}, 1.0f}, b{st::Shape{3}};
  static constexpr void visit(auto& self, auto&& f) {
    f("a", self.a);
    f("b", self.b);
  }
};

struct Everything {
  Pair pair;
  std::array<Pair, 2> array;
  std::vector<Pair> list;
  std::optional<Pair> maybe, absent;
  std::tuple<Pair, st::Buffer> tuple;
  st::Buffer count = st::Buffer::integers(st::Shape{}, 4);
  float scale = 2;
  static constexpr void visit(auto& self, auto&& f) {
    f("pair", self.pair);
    f("array", self.array);
    f("list", self.list);
    f("maybe", self.maybe);
    f("absent", self.absent);
    f("tuple", self.tuple);
    f("count", self.count);
    f("scale", self.scale);
  }
};

/// Forgets b, with a visit() the compiler cannot run.
struct Forgetful {
  st::Parameter a{st::Shape{2}}, b{st::Shape{2}};
  static void visit(auto& self, auto&& f) { f("a", self.a); }
};
struct Outer {
  Forgetful inner;
  static constexpr void visit(auto& self, auto&& f) { f("inner", self.inner); }
};
struct NotForgetful {
  st::Parameter a{st::Shape{2}}, b{st::Shape{2}};
  static void visit(auto& self, auto&& f) {
    f("b", self.b);
    f("a", self.a);
  }
};

template <class M>
Names names_of(M& module) {
  Names names;
  st::for_each_tensor(module, [&](const std::string& name, const auto&) { names.push_back(name); });
  return names;
}


}  // namespace

TEST_CASE("names join with dots, in the order of the lists") {
  Everything module;
  module.list.resize(1);
  module.maybe.emplace();
  CHECK(names_of(module) == Names{"pair.a", "pair.b", "array.0.a", "array.0.b", "array.1.a", "array.1.b", "list.0.a", "list.0.b",
                                  "maybe.a", "maybe.b", "tuple.0.a", "tuple.0.b", "tuple.1", "count"});
  const Everything& fixed = module;
  CHECK(names_of(fixed).size() == 14);
  int parameters = 0, buffers = 0;
  st::for_each_parameter(fixed, [&](const std::string&, const st::Parameter&) { ++parameters; });
  st::for_each_buffer(fixed, [&](const std::string&, const st::Buffer&) { ++buffers; });
  CHECK(parameters == 12);
  CHECK(buffers == 2);
}

TEST_CASE("a forgotten member is found when the list runs, if the compiler could not") {
  Outer module;
  CHECK_THROWS_WITH_AS(st::zero_grad(module), doctest::Contains("does not list every member"), st::Error);
  NotForgetful complete;
  CHECK(names_of(complete) == Names{"b", "a"});
}

TEST_CASE("the members of an aggregate, by type") {
  struct Three {
    int a;
    st::Parameter b;
    double c;
  };
  struct Based : st::LayerTag {
    int a;
  };
  struct Nothing {};
  struct Private {
    explicit Private(int value) : a(value) {}
    int a;
  };
  CHECK(std::is_same_v<st::detail::fields_of<Three>, st::Types<int, st::Parameter, double>>);
  CHECK(std::is_same_v<st::detail::fields_of<Based>, st::Types<int>>);
  CHECK(std::is_same_v<st::detail::fields_of<Nothing>, st::Types<>>);
  CHECK(std::is_same_v<st::detail::fields_of<Private>, st::detail::Unknown>);
}

TEST_CASE("copies of parameters and buffers are their own") {
  Pair a;
  a.a.grad_target<float>().data[0] = 5;
  Pair b = a;
  CHECK(b.a.has_grad());
  b.a.value().data()[0] = 7;
  b.a.grad().data()[0] = 9;
  CHECK(a.a.value().data()[0] == 1.0f);
  CHECK(a.a.grad().data()[0] == 5.0f);
  a = b;
  b.a.value().data()[0] = 8;
  CHECK(a.a.value().data()[0] == 7.0f);

  st::Buffer c(st::Shape{2}, 1.0f), d = c;
  d.value().data()[0] = 3;
  CHECK(c.value().data()[0] == 1.0f);
}

TEST_CASE("conversion to double and back") {
  Everything module;
  module.pair.a.value().data()[1] = 0.1f;
  module.pair.a.grad_target<float>();
  st::to<double>(module);
  CHECK(module.pair.a.value<double>().data()[1] == double(0.1f));
  CHECK_FALSE(module.pair.a.has_grad());
  CHECK(module.count.value<std::int64_t>().data()[0] == 4);
  CHECK_THROWS_WITH_AS(module.pair.a.value(), doctest::Contains("holds float64, was used as float32"), st::Error);
  CHECK_THROWS_AS(module.count.value(), st::Error);
  st::to<float>(module);
  CHECK(module.pair.a.value().data()[1] == 0.1f);
}

TEST_CASE("gradients start anew after zero_grad, and reset gives the first value") {
  st::Parameter p(st::Shape{3}, 0.5f);
  CHECK_FALSE(p.grad_target<float>().accumulate);
  CHECK(p.grad_target<float>().accumulate);
  p.zero_grad();
  CHECK_FALSE(p.grad_target<float>().accumulate);
  p.value().fill(4);
  p.reset();
  CHECK(p.value().data()[2] == 0.5f);
  CHECK(p.size() == 3);
  CHECK(p.shape() == st::Shape{3});
}
