// The deploy form of a network: batch norm goes into the convolution before it, ReLU into its last step, Dropout and
// nested lists disappear. What is left holds no gradient, no running statistics and no training code.
//
//     using Deployed = st::deploy_t<Net>;             // a type of its own
//     Deployed deployed = st::fold(net);              // the same function, to rounding
//     st::save_weights("deployed.safetensors", deployed);
//
// It looks into Sequential, Repeat, Add, Subtract and into modules of your own, where there is a type for the result: a
// module that takes its members' types as template arguments has one.
//
//     template <class Body>
//     struct Gated : st::Layer<Gated<Body>> {
//       using io = typename Body::io;
//       Body body;
//       float scale = 0.1f;                                       // taken along
//       static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
//       static constexpr auto forward(auto& self, auto& pass, const auto& x) {
//         return x * (self.scale * self.body(pass, x));
//       }
//     };
//     st::deploy_t<Gated<Net>>                                    // Gated<st::deploy_t<Net>>
//
// That works for aggregates, whose members the compiler can see: those of type Body, and arrays, std::array,
// std::vector and std::optional of it. Any other module stays as it is where nothing in it is to be folded away; with a
// batch norm, a dropout or the like inside it is an error, unless it has a member fold() that gives its deploy form, or
// says `using keeps_its_form = void;`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/deploy/layers.hpp"
#include "strata/nn/fuse.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

template <class M>
struct Folding;

/// Whether folding would change something below a member of this type.
template <class M>
constexpr bool folding_changes_members();
/// Whether folding alters M's type at most in who runs it: a convolution alone or with the activation behind it, and
/// lists of such, compute the same as they are, and may stay.
template <class M>
constexpr bool may_stay();
template <class Part>
struct FoldingChanges {
  static constexpr bool value = !may_stay<Part>();
};
template <class Part>
  requires is_leaf<Part>
struct FoldingChanges<Part> : std::false_type {};
template <class Part>
  requires(sequence<Part> || associative<Part>)
struct FoldingChanges<Part> : FoldingChanges<std::remove_cv_t<typename Part::value_type>> {};
template <owner Part>
struct FoldingChanges<Part> : FoldingChanges<std::remove_cv_t<typename Part::element_type>> {};
template <class Part>
struct FoldingChanges<std::optional<Part>> : FoldingChanges<Part> {};
template <class... Parts>
struct FoldingChanges<std::tuple<Parts...>> : std::bool_constant<(FoldingChanges<Parts>::value || ...)> {};

struct AskFoldingChanges {
  bool changes = false;
  template <class Part>
  constexpr void operator()(auto&&, Part&) {
    changes = changes || FoldingChanges<std::remove_const_t<Part>>::value;
  }
};
#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wundefined-var-template"
#endif
/// Whether folding would change a member of a module that does not say what becomes of it.
template <class M>
constexpr bool folding_changes_members() {
  if constexpr (!has_visit<M> || requires { M::is_leaf_layer; } || requires { typename M::keeps_its_form; }) {
    return false;
  } else {
    AskFoldingChanges ask;
    M::visit(Somewhere<M>::place.object, ask);
    return ask.changes;
  }
}
#if defined(__clang__)
#pragma clang diagnostic pop
#endif
template <class M>
struct ListMayStay : std::false_type {};
template <class... Ms>
struct ListMayStay<Sequential<Ms...>> : std::bool_constant<(may_stay<Ms>() && ...)> {};
template <int N, class M>
struct ListMayStay<Repeat<N, M>> : std::bool_constant<may_stay<M>()> {};
template <class M>
constexpr bool folds_by_members();
template <class M>
constexpr bool may_stay() {
  if constexpr (
      requires { typename M::wraps; } || requires(const M& m) { m.fold(); } || requires(const M& m) { m.plain(); } ||
      IdleInInference<M>)
    return false;
  else if constexpr (std::is_same_v<typename Folding<M>::type, M>)
    return !folding_changes_members<M>();
  else if constexpr (TakesAffine<M> && !Affine<M>)
    return true;
  else if constexpr (folds_by_members<M>())
    return !folding_changes_members<M>();
  else
    return ListMayStay<M>::value;
}
template <class M>
concept folding_changes_nothing =
    requires { typename std::bool_constant<folding_changes_members<M>()>; } && !folding_changes_members<M>();

/// Folding<M>::type is the deploy form of M, and Folding<M>::of(m) makes it. What has nothing to fold stays as it is.
template <class M>
struct Folding {
  using type = M;
  static type of(const M& module) { return module; }
};
template <class M>
  requires requires(const M& module) { module.fold(); }
struct Folding<M> {
  using type = decltype(std::declval<const M&>().fold());
  static type of(const M& module) { return module.fold(); }
};
// A layer whose weights are made of others (nn/spectral_norm.hpp) becomes the layer with the weights as they are.
template <class M>
  requires requires(const M& module) { module.plain(); }
struct Folding<M> {
  using Plain = decltype(std::declval<const M&>().plain());
  using type = typename Folding<Plain>::type;
  static type of(const M& module) { return Folding<Plain>::of(module.plain()); }
};
// What wraps a module to run it in another way when it is trained (nn/checkpoint.hpp).
template <class M>
  requires requires { typename M::wraps; }
struct Folding<M> {
  using type = typename Folding<typename M::wraps>::type;
  static type of(const M& module) { return Folding<typename M::wraps>::of(module.body); }
};
template <IdleInInference M>
struct Folding<M> {
  using type = Identity;
  static type of(const M&) { return {}; }
};
template <int N, class M>
struct Folding<Repeat<N, M>> {
  using Part = typename Folding<M>::type;
  static constexpr bool empty = std::is_same_v<Part, Identity>;
  using type = std::conditional_t<empty, Identity, Repeat<N, Part>>;
  static type of([[maybe_unused]] const Repeat<N, M>& module) {
    type folded;
    if constexpr (!empty)
      for (std::size_t i = 0; i < std::size_t(N); ++i) folded.blocks[i] = Folding<M>::of(module.blocks[i]);
    return folded;
  }
};

// ---- a list of layers: nested lists opened, what does nothing left out, then neighbours joined

template <class M>
struct Leaves {
  static constexpr bool gone = std::is_same_v<typename Folding<M>::type, Identity>;
  static auto of(const M& module) {
    if constexpr (gone)
      return std::tuple<>();
    else
      return std::tie(module);
  }
};
template <class M>
  requires requires { typename M::wraps; }
struct Leaves<M> {
  static auto of(const M& module) { return Leaves<typename M::wraps>::of(module.body); }
};
template <class... Ms>
struct Leaves<Sequential<Ms...>> {
  static auto of(const Sequential<Ms...>& module) {
    return std::apply([](const Ms&... layers) { return std::tuple_cat(Leaves<Ms>::of(layers)...); }, module.layers);
  }
};

/// The steps of the result: what an Infer pass runs as one (nn/fuse.hpp).
struct FoldStep {
  std::size_t first = 0;
  FusedRun run;
};
template <std::size_t N>
struct FoldPlan {
  std::array<FoldStep, N == 0 ? 1 : N> steps{};
  std::size_t count = 0;
};
/// Whether a layer folds into one that an activation can end.
template <class M>
concept FoldsActivation = TakesAffine<M> || Affine<M>;
template <class... Ms>
constexpr FoldPlan<sizeof...(Ms)> fold_plan() {
  constexpr std::size_t size = sizeof...(Ms);
  constexpr bool ends[size + 1] = {FoldsActivation<Ms>..., false};
  FoldPlan<size> plan;
  for (std::size_t i = 0; i < size;) {
    FusedRun run = fused_runs<false, Ms...>[i];
    if (!ends[i]) run = {};
    plan.steps[plan.count++] = {i, run};
    i += run.length;
  }
  return plan;
}

/// Layer M with the affine layers and the activation that go into it. What an affine layer adds goes into a bias.
template <class M, Activation Act, bool HasNorms>
struct Joined {
  using type = typename Folding<M>::type;
};
template <TakesAffine M, Activation Act, bool HasNorms>
struct Joined<M, Act, HasNorms> {
  using type = Folded<std::conditional_t<HasNorms, typename M::with_bias, M>, Act>;
};
template <Affine M, Activation Act, bool HasNorms>
struct Joined<M, Act, HasNorms> {
  using type = ChannelScale<M::io::out, Act>;
};

/// The layer and the affine layers behind it as one layer; the sums are in double and rounded once.
template <class Result, class Layer, class... Norms>
Result join_layers(const Layer& layer, const Norms&... norms) {
  const Device host = Device::cpu();
  if constexpr (TakesAffine<Layer>) {
    constexpr int out = Layer::io::out;
    const std::int64_t taps = layer.weight.size() / out;
    Result folded;
    const float* from = layer.weight.template value<float>().data();
    float* to = folded.weight.template value<float>().data();
    each_scale(out, [&](int c, double scale, double shift) {
      for (std::int64_t i = c * taps; i < (c + 1) * taps; ++i) to[i] = float(double(from[i]) * scale);
      if constexpr (Layer::has_bias) shift += double(layer.bias.template value<float>().data()[c]) * scale;
      if constexpr (Result::has_bias) folded.bias.template value<float>().data()[c] = float(shift);
    }, norms.template affine<float>(norms, host)...);
    return folded;
  } else if constexpr (Affine<Layer>) {
    Result folded;
    each_scale(Layer::io::out, [&](int c, double scale, double shift) {
      folded.scale.template value<float>().data()[c] = float(scale);
      folded.shift.template value<float>().data()[c] = float(shift);
    }, layer.template affine<float>(layer, host), norms.template affine<float>(norms, host)...);
    return folded;
  } else {
    return Folding<Layer>::of(layer);
  }
}

/// The result for a list of layers, given as a tuple of references to them.
template <class Tuple>
struct FoldedList;
template <class... Ms>
struct FoldedList<std::tuple<const Ms&...>> {
  static constexpr FoldPlan<sizeof...(Ms)> plan = fold_plan<Ms...>();

  template <std::size_t S>
  using step_type = typename Joined<std::tuple_element_t<plan.steps[S].first, std::tuple<Ms...>>,
                                    plan.steps[S].run.behind, (plan.steps[S].run.affines > 0)>::type;
  template <std::size_t S>
  static auto step(const std::tuple<const Ms&...>& layers) {
    return [&]<std::size_t... K>(std::index_sequence<K...>) {
      return join_layers<step_type<S>>(std::get<plan.steps[S].first + K>(layers)...);
    }(std::make_index_sequence<1 + plan.steps[S].run.affines>{});
  }

  template <class Indices>
  struct Steps;
  template <std::size_t... S>
  struct Steps<std::index_sequence<S...>> {
    using type = Sequential<step_type<S>...>;
    static type of(const std::tuple<const Ms&...>& layers) {
      type folded;
      ((std::get<S>(folded.layers) = step<S>(layers)), ...);
      return folded;
    }
  };
  using All = Steps<std::make_index_sequence<plan.count>>;
};
template <>
struct FoldedList<std::tuple<>> {
  struct All {
    using type = Identity;
    static type of(const std::tuple<>&) { return {}; }
  };
};

// ---- modules over other modules: Block<Body> becomes Block<deploy_t<Body>>

/// The deploy form of a member: of what it is, or holds; void where it has none.
template <class Field>
struct FoldingField : Folding<Field> {};
template <class Part, std::size_t N>
struct FoldingField<Part[N]> {
  using type = void;
};
template <class Part, std::size_t N>
struct FoldingField<std::array<Part, N>> {
  using type = std::array<typename Folding<Part>::type, N>;
  static type of(const std::array<Part, N>& parts) {
    type folded;
    for (std::size_t i = 0; i < N; ++i) folded[i] = Folding<Part>::of(parts[i]);
    return folded;
  }
};
template <class Part>
struct FoldingField<std::vector<Part>> {
  using type = std::vector<typename Folding<Part>::type>;
  static type of(const std::vector<Part>& parts) {
    type folded;
    for (const Part& part : parts) folded.push_back(Folding<Part>::of(part));
    return folded;
  }
};
template <class Part>
struct FoldingField<std::optional<Part>> {
  using type = std::optional<typename Folding<Part>::type>;
  static type of(const std::optional<Part>& part) {
    type folded;
    if (part.has_value()) folded = Folding<Part>::of(*part);
    return folded;
  }
};

/// M<Part...> with the deploy forms of its template arguments.
template <class M>
struct Rebound { using type = M; };
template <template <class...> class M, class... Parts>
struct Rebound<M<Parts...>> { using type = M<typename FoldingField<Parts>::type...>; };
template <template <class, int...> class M, class Part, int... Numbers>
  requires(sizeof...(Numbers) > 0)
struct Rebound<M<Part, Numbers...>> { using type = M<typename FoldingField<Part>::type, Numbers...>; };
template <template <int, class...> class M, int Number, class... Parts>
  requires(sizeof...(Parts) > 0)
struct Rebound<M<Number, Parts...>> { using type = M<Number, typename FoldingField<Parts>::type...>; };

template <class Fields>
struct FoldingFields { using type = void; };
template <class... Fields>
struct FoldingFields<Types<Fields...>> { using type = Types<typename FoldingField<Fields>::type...>; };

/// Whether each member of M, folded, is that of M's other form.
template <class M>
constexpr bool folds_by_members() {
  if constexpr (
      !has_visit<M> || LeafLayer<M> || requires { typename M::keeps_its_form; } || requires { typename M::wraps; } ||
      requires(const M& m) { m.fold(); } || requires(const M& m) { m.plain(); }) {
    return false;
  } else if constexpr (!std::is_aggregate_v<M> || !std::is_copy_assignable_v<M>) {
    return false;
  } else {
    using Other = typename Rebound<M>::type;
    if constexpr (std::is_same_v<Other, M>)
      return false;
    else
      return std::is_same_v<typename FoldingFields<fields_of<M>>::type, fields_of<Other>>;
  }
}
template <class M>
  requires(folds_by_members<M>())
struct Folding<M> {
  using type = typename Rebound<M>::type;
  static type of(const M& module) {
    type folded;
    with_fields(folded, [&](auto&... to) {
      with_fields(module, [&](const auto&... from) {
        const auto targets = std::tie(to...);
        const auto sources = std::tie(from...);
        [&]<std::size_t... I>(std::index_sequence<I...>) {
          ((std::get<I>(targets) =
                FoldingField<std::remove_cvref_t<decltype(std::get<I>(sources))>>::of(std::get<I>(sources))),
           ...);
        }(std::index_sequence_for<decltype(from)...>{});
      });
    });
    return folded;
  }
};

template <class... Ms>
struct Folding<Sequential<Ms...>> {
  using List = Leaves<Sequential<Ms...>>;
  using All = typename FoldedList<decltype(List::of(std::declval<const Sequential<Ms...>&>()))>::All;
  using type = typename All::type;
  static type of(const Sequential<Ms...>& module) { return All::of(List::of(module)); }
};
// A layer that stands alone, as a member of a module with a fold() of its own.
template <FoldsActivation M>
struct Folding<M> {
  using type = typename Joined<M, Activation::none, false>::type;
  static type of(const M& module) { return join_layers<type>(module); }
};

template <class M>
struct folds;
/// Whether the modules that M is a template over fold: their sentence comes first.
template <class M>
struct ArgumentsFold : std::true_type {};
template <template <class...> class M, class... Parts>
struct ArgumentsFold<M<Parts...>> : std::bool_constant<(folds<Parts>::all && ...)> {};

/// One error for a module that folding would leave as it is without a word. Read folds<Module> in the compiler's text.
template <class M>
struct folds {
  static constexpr bool arguments = ArgumentsFold<M>::value;
  static constexpr bool all =
      requires(const M& module) { module.fold(); } || folds_by_members<M>() || folding_changes_nothing<M>;
  static_assert(all || !arguments,
                "strata::fold: this module has members that folding would change, and does not say what becomes of it: "
                "take their types as template arguments (deploy/fold.hpp shows how), give it a member fold(), or "
                "'using keeps_its_form = void;' to leave it "
                "as it is (read folds<Module> beside this message)");
};
template <class M>
  requires requires { typename M::wraps; }
struct folds<M> : folds<typename M::wraps> {};
template <class... Ms>
struct folds<Sequential<Ms...>> {
  static constexpr bool all = (folds<Ms>::all && ...);
};
template <int N, class M>
struct folds<Repeat<N, M>> : folds<M> {};

}  // namespace detail

/// The type of a network's deploy form.
template <class Net>
using deploy_t = typename detail::Folding<Net>::type;

/// The deploy form of a trained network of float32, which st::to(folded, device) moves as any other. Throws Error for a
/// network converted to another type, DeviceError for one that is not in the host's memory.
template <class Net>
deploy_t<Net> fold(const Net& net) {
  [[maybe_unused]] constexpr bool checked = detail::folds<Net>::all;  // has an assertion of its own
  require_host(net, "fold");
  return detail::Folding<Net>::of(net);
}

}}  // namespace strata::STRATA_ABI
