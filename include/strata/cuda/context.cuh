// One CUDA device in use: its stream, its pools of memory, what it can do, and why a device cannot be used.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/cuda/elementwise.cuh"
#include "strata/cuda/launch.cuh"
#include "strata/cuda/memory.cuh"
#include "strata/kernels/accelerator.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

inline std::string version_text(int version) { return concat(version / 1000, ".", version % 1000 / 10); }

/// Number of devices, 0 where anything is missing.
inline int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  (void)cudaGetLastError();
  return 0;
}

/// Why device `index` cannot be used; empty where it can.
inline std::string device_missing(int index) {
  const std::string who = Device::cuda(index).str() + ": ";
  int count = 0, driver = 0, runtime = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  (void)cudaDriverGetVersion(&driver);
  (void)cudaRuntimeGetVersion(&runtime);
  if (status != cudaSuccess && driver == 0)
    return who + "there is no NVIDIA driver on this machine; install one, or use the cpu";
  if (status == cudaErrorInsufficientDriver)
    return concat(who, "the NVIDIA driver serves CUDA up to ", version_text(driver),
                  ", this program was built with CUDA ", version_text(runtime), ": update the driver");
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0))
    return who + "there is a driver but no NVIDIA device, or CUDA_VISIBLE_DEVICES hides it";
  if (status != cudaSuccess) return concat(who, "CUDA does not start: ", cudaGetErrorString(status));
  if (index < 0 || index >= count)
    return concat(
        who, "there ",
        count == 1 ? "is only one device, cuda:0" : concat("are only ", count, " devices, cuda:0 to cuda:", count - 1));
  // In a thread of its own: to choose a device makes a context there, so that the caller's cannot be chosen again
  // without making one on a device that nobody has asked for.
  cudaError_t image = cudaSuccess;
  std::thread([&] {
    cudaFuncAttributes attributes{};
    image = cudaSetDevice(index);
    if (image == cudaSuccess)
      image = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(&elementwise_kernel<Fill, true>));
    (void)cudaGetLastError();
  }).join();
  if (image == cudaErrorNoKernelImageForDevice) {
    cudaDeviceProp properties{};
    (void)cudaGetDeviceProperties(&properties, index);
    return concat(who, "this program was built without code for its compute capability ", properties.major, ".",
                  properties.minor, ": add it to CMAKE_CUDA_ARCHITECTURES");
  }
  if (image != cudaSuccess) return concat(who, "does not start: ", cudaGetErrorString(image));
  return {};
}

/// Throws DeviceError, with the reason, where there is no such device.
class Context {
 public:
  explicit Context(int index) : index_(index), source_(index), pool_(source_) {
    if (const std::string reason = device_missing(index); !reason.empty()) throw DeviceError(reason);
    check_runtime(cudaSetDevice(index), "choosing a device");
    check_runtime(cudaGetDeviceProperties(&properties_, index), "asking what the device is");
    check_runtime(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
    uploader_ = std::make_unique<Uploader>(stream_);
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() {
    (void)cudaSetDevice(index_);
    (void)cudaStreamSynchronize(stream_);
    uploader_.reset();
    pool_.trim();
    (void)cudaStreamDestroy(stream_);
  }

  Device device() const { return Device::cuda(index_); }
  std::string name() const {
    return concat(static_cast<const char*>(properties_.name), " (compute capability ", properties_.major, ".",
                  properties_.minor, ")");
  }
  int capability() const { return 10 * properties_.major + properties_.minor; }

  /// The stream, with this device made the current one.
  cudaStream_t stream() const {
    check_runtime(cudaSetDevice(index_), "choosing a device");
    return stream_;
  }
  MemoryPool& pool() { return recording_ != nullptr ? recording_->pool : pool_; }
  Uploader& uploader() { return *uploader_; }
  bool recording() const { return recording_ != nullptr; }

  /// Throws Error, naming the call, while work is recorded.
  void not_while_recording(const char* call) const {
    if (recording_ != nullptr)
      throw Error(concat(device().str(), ": ", call, " cannot be recorded: it waits, or reads host memory"));
  }

  void begin_recording() {
    not_while_recording("begin_recording");
    auto recording = std::make_shared<Recording>(index_);
    check_runtime(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed), "beginning a recording");
    recording_ = std::move(recording);
    pool_.take_from(&recording_->pool);  // layers take their results from the pool of their input
  }
  void update_where_finite(const float* number) {
    if (recording_ == nullptr)
      throw Error(concat(device().str(), ": update_where_finite: only recorded updates have a condition"));
    recording_->condition = number;
  }
  const float* condition() const { return recording_->condition; }

  /// Writes down an update with its numbers, and says where on the device replays will find them.
  const void* record_numbers(const char* what, std::span<const TensorUpdate> tensors,
                             std::vector<unsigned char> numbers) {
    void* const place = recording_->source.allocate(numbers.size());
    recording_->updates.push_back({what, {tensors.begin(), tensors.end()}, std::move(numbers), place});
    return place;
  }
  /// Whether calls of updates are only to tell their numbers.
  bool renewing() const { return renewed_ != nullptr; }
  /// The numbers of the next update of a recording. Throws Error where it is another than was recorded.
  void renew(const char* what, std::span<const TensorUpdate> tensors, std::vector<unsigned char> numbers) {
    const std::vector<Update>& recorded = renewed_->updates;
    const std::size_t i = new_numbers_.size();
    if (i == recorded.size() || std::string_view(recorded[i].what) != what ||
        !std::equal(tensors.begin(), tensors.end(), recorded[i].tensors.begin(), recorded[i].tensors.end(),
                    same_tensor))
      throw Error(concat(device().str(), ": ", what, " is not the update that was recorded, or of other tensors: "
                         "record the work anew"));
    new_numbers_.push_back(std::move(numbers));
  }

  std::unique_ptr<RecordedWork> end_recording() {
    if (recording_ == nullptr) throw Error(concat(device().str(), ": end_recording without begin_recording"));
    const std::shared_ptr<Recording> recording = std::exchange(recording_, nullptr);
    pool_.take_from(nullptr);
    recording->pool.take_from(&pool_);  // its free blocks are what replays write to
    forget_recordings();
    recordings_.push_back(recording);  // also where the next lines throw: somebody may hold a result
    cudaGraph_t graph = nullptr;
    check_runtime(cudaStreamEndCapture(stream(), &graph), "ending a recording");
    const cudaError_t status = cudaGraphInstantiate(&recording->graph, graph, 0);
    (void)cudaGraphDestroy(graph);
    check_runtime(status, "preparing a recording");
    for (const Update& update : recording->updates)
      uploader_->upload(update.place, update.numbers.data(), update.numbers.size());
    return std::make_unique<Replay>(*this, recording);
  }

 private:
  struct Update {
    const char* what;
    std::vector<TensorUpdate> tensors;
    std::vector<unsigned char> numbers;
    void* place;  // of the numbers on the device
  };
  static bool same_tensor(const TensorUpdate& a, const TensorUpdate& b) {
    return a.size == b.size && a.value == b.value && a.gradient == b.gradient && a.state1 == b.state1 &&
           a.state2 == b.state2 && a.state3 == b.state3 && a.first == b.first;
  }
  struct Recording {
    RecordingMemory source;
    MemoryPool pool;
    cudaGraphExec_t graph = nullptr;
    std::vector<Update> updates;
    const float* condition = nullptr;
    explicit Recording(int index) : source(index), pool(source) {}
    ~Recording() {
      if (graph != nullptr) (void)cudaGraphExecDestroy(graph);
    }
  };
  class Replay final : public RecordedWork {
   public:
    Replay(Context& context, std::shared_ptr<Recording> recording)
        : context_(context), recording_(std::move(recording)) {}
    ~Replay() override {
      (void)cudaStreamSynchronize(context_.stream_);
      recording_ = nullptr;
      context_.forget_recordings();
    }
    void replay() override {
      check_runtime(cudaGraphLaunch(recording_->graph, context_.stream()), "replaying recorded work");
    }
    void renew(const std::function<void()>& updates) override { context_.renew_all(*recording_, updates); }

   private:
    Context& context_;
    std::shared_ptr<Recording> recording_;
  };

  void renew_all(Recording& recording, const std::function<void()>& updates) {
    not_while_recording("RecordedWork::renew");
    (void)stream();  // makes the device the current one
    const struct End {
      Context& context;
      ~End() {
        context.renewed_ = nullptr;
        context.new_numbers_.clear();
      }
    } end{*this};
    renewed_ = &recording;
    updates();
    if (new_numbers_.size() != recording.updates.size())
      throw Error(concat(device().str(), ": renew: ", new_numbers_.size(), " updates, and ", recording.updates.size(),
                         " were recorded: record the work anew"));
    for (std::size_t i = 0; i < new_numbers_.size(); ++i) {
      Update& update = recording.updates[i];
      if (update.numbers == new_numbers_[i]) continue;
      update.numbers.swap(new_numbers_[i]);
      uploader_->upload(update.place, update.numbers.data(), update.numbers.size());
    }
  }

  void forget_recordings() {
    std::erase_if(recordings_, [](const auto& one) { return one.use_count() == 1 && one->pool.live_bytes() == 0; });
  }

  int index_;
  DeviceMemory source_;
  MemoryPool pool_;
  cudaStream_t stream_ = nullptr;
  cudaDeviceProp properties_{};
  std::unique_ptr<Uploader> uploader_;
  std::shared_ptr<Recording> recording_;
  Recording* renewed_ = nullptr;
  std::vector<std::vector<unsigned char>> new_numbers_;  // of its updates
  std::vector<std::shared_ptr<Recording>> recordings_;  // that can be replayed, or of which somebody holds a result
};

}}}  // namespace strata::STRATA_ABI::cuda
