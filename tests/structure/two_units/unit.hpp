// What each unit of the link test says about itself: which instruction set it was compiled for, and the address of the
// pool it uses. Units compiled alike share one pool; units compiled differently must not share an inline function.
#pragma once

#include <string>

struct Unit {
  std::string instruction_set;
  const void* pool;
  double result;
};

Unit first();
Unit second();
Unit baseline();

/// Registers CUDA devices as a file for nvcc that was compiled for the baseline does.
void baseline_registers_cuda();
/// Why there is no CUDA device, asked in a file like the first.
std::string first_misses();
