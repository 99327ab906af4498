// Definitions of data/image_file.hpp.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "strata/data/detail/decode.hpp"
#include "strata/data/detail/encode.hpp"
#include "strata/data/detail/read_image.hpp"
#include "strata/data/image_file.hpp"

namespace strata::inline STRATA_ABI {

STRATA_INLINE ImageInfo read_image_info(const std::filesystem::path& path) {
  return detail::with_path(path, "read", [&] {
    const auto start = detail::read_bytes(path, detail::usual_header);
    try {
      return detail::read_structure(start, false);
    } catch (const detail::TruncatedImage&) {
      if (start.size() < detail::usual_header) throw;
    }
    return detail::read_structure(detail::read_bytes(path, std::numeric_limits<int>::max()), false);
  });
}

namespace detail {

/// The value in [0, 1] of every sample of a part of the upright picture: v / 255 or v / 65535, rounded once.
template <int C, class Sample>
void to_floats(const DecodedImage& image, const ImagePart& part, float* out) {
  constexpr float scale = float(std::numeric_limits<Sample>::max());
  const ImageInfo& info = image.info;
  const bool grey = info.channels <= 2;
  const auto* const samples = reinterpret_cast<const Sample*>(image.samples.data());
  const auto put = [&](const Sample* in) {
    if constexpr (C == 1) {
      out[0] = grey ? float(in[0]) / scale : float((299 * in[0] + 587 * in[1] + 114 * in[2]) / (1000 * double(scale)));
    } else {
      for (int c = 0; c < C; ++c) out[c] = float(in[C == 3 && grey ? 0 : c]) / scale;
    }
    out += C;
  };
  for (std::int64_t y = part.y; y < part.y + part.h; ++y) {
    if (info.orientation != 1) {
      for (std::int64_t x = part.x; x < part.x + part.w; ++x) {
        const auto [row, column] = upright_source(info.orientation, info.h, info.w, y, x);
        put(samples + (row * image.stored_w + column) * info.channels);
      }
      continue;
    }
    const Sample* in = samples + (y * image.stored_w + part.x) * info.channels;
    if (info.channels == C)
      for (std::int64_t i = 0; i < part.w * C; ++i) *out++ = float(in[i]) / scale;
    else
      for (std::int64_t i = 0; i < part.w; ++i, in += info.channels) put(in);
  }
}

/// to_floats for so many channels.
template <class Sample>
void to_floats(int channels, const DecodedImage& image, const ImagePart& part, float* out) {
  if (channels == 1) to_floats<1, Sample>(image, part, out);
  if (channels == 2) to_floats<2, Sample>(image, part, out);
  if (channels == 3) to_floats<3, Sample>(image, part, out);
  if (channels == 4) to_floats<4, Sample>(image, part, out);
}

STRATA_INLINE Tensor<float> floats_of_bytes(std::vector<unsigned char> file, int channels, const LoadOptions& options,
                                            const ImagePart* wanted) {
  const DecodedImage decoded = decode_image(std::move(file), options.max_pixels, wanted);
  const ImageInfo& info = decoded.info;
  const std::string need =
      concat("it has ", info.channels, " channels and load_image<", channels, "> wants ", channels, ": ");
  if (channels % 2 == 0 && info.channels != channels)
    throw BadImage(concat(need, "use load_image<", info.channels, ">"));
  if (channels % 2 == 1 && info.has_alpha() && !options.drop_alpha)
    throw BadImage(concat(need, "pass {.drop_alpha = true} to ignore its alpha channel"));
  if (channels == 1 && info.channels >= 3 && !options.convert)
    throw BadImage(concat(need, "pass {.convert = true} for its luma, or use load_image<3>"));
  const bool turned = info.orientation >= 5;
  const ImagePart part = wanted ? *wanted : ImagePart{0, 0, turned ? info.w : info.h, turned ? info.h : info.w};
  Tensor<float> image(Shape{1, channels, part.h, part.w});
  if (info.bits == 16)
    to_floats<std::uint16_t>(channels, decoded, part, image.data());
  else
    to_floats<std::uint8_t>(channels, decoded, part, image.data());
  return image;
}

STRATA_INLINE Tensor<float> load_floats(const std::filesystem::path& path, int channels, const LoadOptions& options,
                                        const ImagePart* wanted) {
  return with_path(path, "read", [&] {
    return floats_of_bytes(read_image_bytes(path, options.max_pixels, wanted), channels, options, wanted);
  });
}

inline std::string lower_extension(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  for (char& letter : extension) letter = char(std::tolower(static_cast<unsigned char>(letter)));
  return extension;
}

STRATA_INLINE ImageFormat format_of_name(const std::filesystem::path& path) {
  const std::string extension = lower_extension(path);
  if (extension == ".png") return ImageFormat::png;
  if (extension == ".jpg" || extension == ".jpeg") return ImageFormat::jpeg;
  if (extension == ".bmp") return ImageFormat::bmp;
  throw FileError(
      concat(path.string(), ": cannot tell the image format: wanted a name ending in .png, .jpg, .jpeg or .bmp"));
}

STRATA_INLINE void save_floats(const std::filesystem::path& path, const Tensor<float>& image,
                               const SaveOptions& options) {
  const Shape& shape = image.shape();
  const int channels = int(shape.c());
  const ImageFormat format = format_of_name(path);
  if (shape.n() != 1 || image.empty())
    throw ShapeError(concat("save_image: got a batch of shape ", shape.str(),
                            ", wanted one image (1, C, H, W); select(batch, n) gives image n"));
  if (options.bits != 8 && options.bits != 16)
    throw ValueError(concat("save_image: got .bits = ", options.bits, ", wanted 8 or 16"));
  if (format != ImageFormat::png && (options.bits != 8 || channels % 2 == 0))
    throw ValueError(concat("save_image: ", path.extension().string(), " holds 8 bits of 1 or 3 channels, not ",
                            options.bits, " of ", channels, "; write a .png"));
  if (options.quality < 1 || options.quality > 100)
    throw ValueError(concat("save_image: got .quality = ", options.quality, ", wanted 1 to 100"));

  const float levels = options.bits == 16 ? 65535.0f : 255.0f;
  std::vector<unsigned char> samples;
  samples.reserve(std::size_t(image.size()) * std::size_t(options.bits / 8) + std::size_t(shape.h()));
  for (const float value : image.span()) {
    if (std::isnan(value)) throw NumericError(concat("save_image: ", path.string(), ": the image has NaN values"));
    const auto level = static_cast<unsigned>(std::lround(std::clamp(value, 0.0f, 1.0f) * levels));
    if (options.bits == 16) samples.push_back(static_cast<unsigned char>(level >> 8));
    samples.push_back(static_cast<unsigned char>(level & 0xFFu));
  }
  write_image(path, format,
              {.samples = std::move(samples),
               .w = shape.w(),
               .h = shape.h(),
               .channels = channels,
               .bits = options.bits,
               .quality = options.quality,
               .metadata = {}});
}

}  // namespace detail

namespace detail {

STRATA_INLINE std::vector<std::filesystem::path> list_images_if_any(const std::filesystem::path& folder) {
  const auto failed = [&] {
    return FileError(concat(folder.string(),
                            ": cannot list the folder: ", std::error_code(errno, std::generic_category()).message()));
  };
  // Not the standard library's iterator: libstdc++'s ends the program when memory runs out.
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(folder.c_str()), ::closedir);
  if (!entries) throw failed();
  std::vector<std::filesystem::path> images;
  while (true) {
    errno = 0;
    const dirent* const entry = ::readdir(entries.get());
    if (!entry && errno != 0) throw failed();
    if (!entry) break;
    const std::filesystem::path path = folder / entry->d_name;
    struct stat status {};
    if (entry->d_name[0] == '.' || (::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode))) continue;
    const std::string extension = lower_extension(path);
    if (extension == ".png" || extension == ".jpg" || extension == ".jpeg" || extension == ".bmp")
      images.push_back(path);
    for (const char* other : {".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2", ".avif", ".heic", ".tga"})
      if (extension == other)
        throw FileError(concat(path.string(), ": cannot read ", other, " images: convert it to PNG, or move it out of ",
                               folder.string()));
  }
  std::sort(images.begin(), images.end());
  return images;
}

}  // namespace detail

STRATA_INLINE std::vector<std::filesystem::path> list_images(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> images = detail::list_images_if_any(folder);
  if (images.empty())
    throw FileError(concat(folder.string(), ": there is no image (.png, .jpg, .jpeg, .bmp) in this folder"));
  return images;
}

}  // namespace strata::inline STRATA_ABI
