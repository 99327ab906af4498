// dlib's side: a training step of DnCNN-17 with 64 channels. It learns the noise itself, which costs the same as
// learning the image through the subtraction. Answers the lines that network_server.cpp describes. The BLAS it is
// linked with does the work; OPENBLAS_NUM_THREADS sets its threads.
#include <dlib/dnn.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace {

template <class Below>
using Block = dlib::relu<dlib::bn_con<dlib::con<64, 3, 3, 1, 1, Below>>>;
using Net = dlib::loss_mean_squared_per_pixel<dlib::con<
    1, 3, 3, 1, 1, dlib::repeat<15, Block, dlib::relu<dlib::con<64, 3, 3, 1, 1, dlib::input<dlib::matrix<float>>>>>>>;

class TrainingStep {
 public:
  TrainingStep(long n, long h, long w) : solvers_(Net::num_computational_layers, dlib::sgd(0.0f, 0.9f)) {
    dlib::rand random;
    const auto image = [&] {
      dlib::matrix<float> pixels(h, w);
      for (float& x : pixels) x = random.get_random_float();
      return pixels;
    };
    for (long i = 0; i < n; ++i) {
      input_.push_back(image());
      target_.push_back(image());
    }
    dlib::disable_duplicative_biases(net_);  // as the others: no bias before batch norm
  }

  void operator()() {
    net_.to_tensor(input_.begin(), input_.end(), tensor_);
    net_.compute_parameter_gradients(tensor_, target_.begin());
    net_.update_parameters(solvers_, 1e-3);
  }

 private:
  Net net_;
  std::vector<dlib::sgd> solvers_;
  std::vector<dlib::matrix<float>> input_, target_;
  dlib::resizable_tensor tensor_;
};

}  // namespace

int main() {
  std::string line, current;
  std::unique_ptr<TrainingStep> step;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string work, network;
    long n = 0, h = 0, w = 0;
    int repetitions = 0;
    if (!(words >> work >> network >> n >> h >> w >> repetitions) || work != "train" || network != "dncnn17") {
      std::cerr << "dlib_server: cannot serve the line: " << line << '\n';
      return 1;
    }
    const std::string asked = std::to_string(n) + ' ' + std::to_string(h) + ' ' + std::to_string(w);
    if (asked != current) step = std::make_unique<TrainingStep>(n, h, w);
    current = asked;
    for (int i = 0; i < repetitions; ++i) {
      const auto start = std::chrono::steady_clock::now();
      (*step)();
      std::cout << std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() << ' ';
    }
    std::cout << std::endl;
  }
}
