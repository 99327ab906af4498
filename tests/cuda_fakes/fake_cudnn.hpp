// What a test asks of the fake cuDNN, besides cuDNN's own functions. Its engines, in the order in which it proposes
// them:
//
//     number  notes                          workspace   costs  makes a plan
//     10      tensor cores                   4 KiB       5 ms   yes            products of numbers rounded to tf32
//     11      inputs converted down          0           1 ms   yes            inputs rounded to bf16
//     12      not deterministic              0           1 ms   yes            results off by a thousandth
//     13                                     2 GiB       1 ms   yes
//     14                                     0           1 ms   no: not supported
//     15                                     1000 bytes  3 ms   yes
//     16                                     0           2 ms   yes
//     99      the fallback                   0           9 ms   yes
#pragma once

#include <cstddef>

extern "C" {
std::size_t fake_cudnn_live_descriptors();
std::size_t fake_cudnn_live_handles();
long fake_cudnn_plans_made();
/// The number of the engine that ran last; 0 when none has.
int fake_cudnn_last_engine();
/// Lets it propose no engine but the fallback, and with 2 not that either.
void fake_cudnn_refuse(int how);
}
