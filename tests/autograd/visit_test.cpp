// Parameters, buffers, and the walk over a module's members.
#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <deque>
#include <list>
#include <memory>
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

// Lists that the compiler does not compare: of classes with a constructor, of private members, of what extends a class.
struct WithConstructor {
  Pair a, b;
  float scale = 1;
  WithConstructor() {}
  static constexpr void visit(auto& self, auto&& f) { f("a", self.a); }
};
class Private {
 public:
  static constexpr void visit(auto& self, auto&& f) { f("a", self.a); }

 private:
  st::Buffer b{st::Shape{2}};
  Pair a;
};
struct Extended : Pair {
  std::string note = "text";
  st::Parameter c{st::Shape{4}};
  static constexpr void visit(auto& self, auto&& f) {
    Pair::visit(self, f);
    f("c", self.c);
  }
};
struct BadlyExtended : Pair {
  st::Parameter c{st::Shape{4}};
  static constexpr void visit(auto& self, auto&& f) { f("c", self.c); }
};
struct InheritedList : Pair {
  st::Parameter c{st::Shape{4}};
};
struct Twice {
  Pair first, second;
  Twice() {}
  static constexpr void visit(auto& self, auto&& f) {
    f("first", self.first);
    f("second", self.first);
  }
};
struct Inside {
  Pair first;
  Inside() {}
  static constexpr void visit(auto& self, auto&& f) {
    f("first", self.first);
    f("again", self.first.b);
  }
};
struct InsideAsWell {  // the compiler can compare this one, but for what is inside
  Pair first;
  static constexpr void visit(auto& self, auto&& f) {
    f("first", self.first);
    f("again", self.first.b);
  }
};
struct ByParts {
  Pair first;
  static constexpr void visit(auto& self, auto&& f) {
    f("a", self.first.a);
    f("b", self.first.b);
  }
};
struct OneName {
  Pair first, second;
  OneName() {}
  static constexpr void visit(auto& self, auto&& f) {
    f("first", self.first);
    f("first", self.second);
  }
};
struct Many {  // more members than the compiler compares
  st::Parameter p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, q0, q1, q2, q3, q4, q5, q6, q7, q8, q9;
  int i0 = 0, i1 = 0, i2 = 0, i3 = 0, i4 = 0, i5 = 0, i6 = 0, i7 = 0, i8 = 0, i9 = 0, j0 = 0, j1 = 0;
  st::Parameter last{st::Shape{7}};
  bool complete = false;
  static constexpr void visit(auto& s, auto&& f) {
    f("p0", s.p0), f("p1", s.p1), f("p2", s.p2), f("p3", s.p3), f("p4", s.p4), f("p5", s.p5), f("p6", s.p6),
        f("p7", s.p7);
    f("p8", s.p8), f("p9", s.p9), f("q0", s.q0), f("q1", s.q1), f("q2", s.q2), f("q3", s.q3), f("q4", s.q4),
        f("q5", s.q5);
    f("q6", s.q6), f("q7", s.q7), f("q8", s.q8), f("q9", s.q9);
    if (s.complete) f("last", s.last);
  }
};

/// Each way to hold others, in a class whose members the compiler cannot tell.
struct Holders {
  std::vector<std::unique_ptr<Pair>> owned;
  std::unique_ptr<Pair> nothing;
  std::deque<Pair> queue = std::deque<Pair>(2);
  std::list<Pair> list = std::list<Pair>(1);
  Pair plain[2];
  std::pair<Pair, int> pair;
  Holders() { owned.push_back(std::make_unique<Pair>()); }
  static constexpr void visit(auto& self, auto&& f) {
    f("owned", self.owned);
    f("nothing", self.nothing);
    f("queue", self.queue);
    f("list", self.list);
    f("plain", self.plain);
    f("pair", self.pair);
  }
};

struct WithoutBias {
  st::Parameter weight{st::Shape{2}}, bias{st::Shape{0}};
  WithoutBias() {}
  static constexpr void visit(auto& self, auto&& f) { f("weight", self.weight); }
};

struct Room {
  alignas(st::Parameter) std::byte bytes[sizeof(st::Parameter)];
  st::Parameter a;
  Room() {}
  static constexpr void visit(auto& self, auto&& f) { f("a", self.a); }
};

struct Odd {  // no initialiser for its second member in braces: {} does not make one
  struct Numbered {
    explicit Numbered(int) {}
  };
  st::Parameter a;
  Numbered b{3};
  st::Parameter c{st::Shape{2}};
  static constexpr void visit(auto& self, auto&& f) { f("a", self.a); }
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
  CHECK(names_of(module) == Names{"pair.a", "pair.b", "array.0.a", "array.0.b", "array.1.a", "array.1.b", "list.0.a",
                                  "list.0.b", "maybe.a", "maybe.b", "tuple.0.a", "tuple.0.b", "tuple.1", "count"});
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

TEST_CASE("a forgotten member is found in classes that the compiler cannot look into") {
  const auto check = [](auto module, const char* type, const char* text) {
    CHECK_THROWS_WITH_AS(st::zero_grad(module), doctest::Contains(text), st::Error);
    CHECK_THROWS_WITH_AS(names_of(module), doctest::Contains(type), st::Error);
  };
  check(WithConstructor(), "WithConstructor", "does not list every member that holds parameters: one lies behind 'a'");
  check(Private(), "Private", "one lies before all that are listed (at byte 0");
  check(BadlyExtended(), "BadlyExtended", "one lies before all");
  check(InheritedList(), "InheritedList", "one lies behind 'b'");
  check(Many(), "Many", "one lies behind 'q9'");
  check(Odd(), "Odd", "one lies behind 'a'");
  Many many;
  many.complete = true;
  CHECK(names_of(many).size() == 21);
  Extended extended;
  CHECK(names_of(extended) == Names{"a", "b", "c"});
}

TEST_CASE("a parameter without numbers, as the bias of a layer that has none, need not be listed") {
  WithoutBias layer;
  CHECK(names_of(layer) == Names{"weight"});
  layer.bias = st::Parameter(st::Shape{3});
  CHECK_THROWS_WITH_AS(st::zero_grad(layer), doctest::Contains("one lies behind 'weight'"), st::Error);
  WithoutBias copy = layer, moved = std::move(layer);
  CHECK_THROWS_AS(st::zero_grad(copy), st::Error);
  CHECK_THROWS_AS(st::zero_grad(moved), st::Error);
}

TEST_CASE("memory in which a parameter has lain is not taken for one") {
  Room room;
  auto* parameter = new (room.bytes) st::Parameter(st::Shape{2});
  CHECK_THROWS_AS(st::zero_grad(room), st::Error);
  parameter->~Parameter();
  CHECK_NOTHROW(st::zero_grad(room));
}

TEST_CASE("a member listed twice, or two under one name, are found when the list runs") {
  Twice twice;
  CHECK_THROWS_WITH_AS(st::zero_grad(twice),
                       doctest::Contains("Twice lists one member twice, as 'first' and as 'second'"), st::Error);
  Inside inside;
  CHECK_THROWS_WITH_AS(st::zero_grad(inside),
                       doctest::Contains("Inside lists one member twice, as 'first' and as 'again'"), st::Error);
  InsideAsWell as_well;
  CHECK_THROWS_WITH_AS(st::zero_grad(as_well), doctest::Contains("InsideAsWell lists one member twice"), st::Error);
  ByParts parts;
  CHECK(names_of(parts) == Names{"a", "b"});
  OneName one_name;
  CHECK_THROWS_WITH_AS(st::zero_grad(one_name), doctest::Contains("gives two members the name 'first'"), st::Error);
}

TEST_CASE("modules in sequences, pairs and pointers") {
  Holders module;
  const Names names{"owned.0.a", "owned.0.b", "queue.0.a", "queue.0.b", "queue.1.a", "queue.1.b", "list.0.a",
                    "list.0.b",  "plain.0.a", "plain.0.b", "plain.1.a", "plain.1.b", "pair.0.a",  "pair.0.b"};
  CHECK(names_of(module) == names);
  CHECK(names_of(std::as_const(module)) == names);
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
  struct Bits {
    int a : 3;
    st::Parameter b[2];
  };
  struct TwoBases : st::LayerTag, Nothing {
    int a;
    float b;
  };
  CHECK(std::is_same_v<st::detail::fields_of<Bits>, st::Types<int, st::Parameter[2]>>);
  CHECK(std::is_same_v<st::detail::fields_of<TwoBases>, st::Types<int, float>>);
  CHECK(std::is_same_v<st::detail::fields_of<Extended>, st::detail::Unknown>);
  CHECK(std::is_same_v<st::detail::fields_of<Odd>, st::detail::Unknown>);
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
