#include <ratio>

#include "ready.hpp"
#include "strata/networks/mobilenet_v2.hpp"
#include "strata/networks/resnet.hpp"

namespace bench {

std::function<void()> ready_classifiers(const Request& request) {
  std::function<void()> work;
  take<st::networks::ResNet18<10, st::networks::SmallImageStem>>(request, "resnet18_cifar", work);
  take<st::networks::MobileNetV2<1000, st::DropoutOf<std::ratio<0>>>>(request, "mobilenet_v2", work);
  return work;
}

}  // namespace bench
