// Runs ready networks on what their PyTorch originals were given; ready.py calls it.
//
//     interchange_ready FOLDER NAME
#include "ready.hpp"

int main(int argc, char** argv) {
  try {
    if (argc == 3)
      for (const auto check :
           {ready::check_super_resolution, ready::check_rcan, ready::check_denoisers, ready::check_nafnet,
            ready::check_vgg, ready::check_mobilenet, ready::check_unet, ready::check_resnet, ready::check_dcgan})
        if (check(argv[1], argv[2])) return 0;
    std::fputs("usage: interchange_ready FOLDER NAME\n", stderr);
  } catch (const strata::Error& error) {
    std::fprintf(stderr, "interchange_ready: %s\n", error.what());
  }
  return 1;
}
