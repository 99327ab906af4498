// The weights that the program carries. RESTORE_MODELS is the folder of their files.
#include "built_in.hpp"

#define RESTORE_EMBED(name, file)                                                                               \
  __asm__(".section .rodata\n.balign 16\nrestore_" #name "_begin:\n.incbin \"" RESTORE_MODELS "/" file         \
          "\"\nrestore_" #name "_end:\n.byte 0\n.previous\n");                                                  \
  extern "C" const char restore_##name##_begin[], restore_##name##_end[];

RESTORE_EMBED(denoise_grey, "denoise_grey.safetensors")
RESTORE_EMBED(denoise_colour, "denoise_colour.safetensors")
RESTORE_EMBED(upscale_x2, "upscale_x2.safetensors")

namespace restore {

std::span<const char> built_in(Task task) {
  if (task == Task::denoise_grey) return {restore_denoise_grey_begin, restore_denoise_grey_end};
  if (task == Task::denoise_colour) return {restore_denoise_colour_begin, restore_denoise_colour_end};
  return {restore_upscale_x2_begin, restore_upscale_x2_end};
}

}  // namespace restore
