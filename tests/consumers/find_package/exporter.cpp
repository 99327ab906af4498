#include <strata/io/onnx_export.hpp>
#include <strata/nn/conv2d.hpp>

void write_network(const char* path) {
  strata::Sequential<strata::Conv2d<1, 1, 1>> net;
  strata::export_onnx(path, net);
}
