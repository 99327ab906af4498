// A standard allocator on the pool of host memory, for the few objects that a training step makes and forgets.
//
//     auto shared = std::allocate_shared<Thing>(st::PoolAllocator<Thing>(), arguments...);
#pragma once

#include <cstddef>
#include <new>
#include <utility>

#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI {

template <class T>
class PoolAllocator {
 public:
  using value_type = T;

  PoolAllocator() = default;
  template <class U>
  PoolAllocator(const PoolAllocator<U>&) {}

  T* allocate(std::size_t count) {
    Storage block = cpu_pool().take(header + count * sizeof(T));
    auto* const memory = static_cast<std::byte*>(block.data());
    new (memory) Storage(std::move(block));  // the block's handle stands at its own beginning
    return reinterpret_cast<T*>(memory + header);
  }
  void deallocate(T* memory, std::size_t) noexcept {
    auto* const handle = std::launder(reinterpret_cast<Storage*>(reinterpret_cast<std::byte*>(memory) - header));
    const Storage last = std::move(*handle);
    handle->~Storage();
  }

  friend bool operator==(const PoolAllocator&, const PoolAllocator&) { return true; }

 private:
  static constexpr std::size_t header = 64;
};

}}  // namespace strata::STRATA_ABI
