// Image files to tensors and back: PNG and BMP and JPEG; 8 and 16 bits; grey, RGB and alpha.
//
//     st::Image<1> grey = st::load_image<1>("photo.png");                        // values in [0, 1]
//     st::Image<1> luma = st::load_image<1>("colour.jpg", {.convert = true});    // RGB to grey only when asked
//     st::save_image("denoised.png", grey, {.bits = 16});
//
// A file that is cut short, damaged, too large or no image is a FileError with the path and the reason.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "strata/core/output_file.hpp"
#include "strata/data/detail/bmp.hpp"
#include "strata/data/detail/image_bytes.hpp"
#include "strata/data/detail/jpeg.hpp"
#include "strata/data/detail/png.hpp"
#include "strata/data/detail/png_pixels.hpp"
#include "strata/data/detail/stb.hpp"
#include "strata/tensor/image.hpp"

namespace strata::inline STRATA_ABI {

struct LoadOptions {
  bool convert = false;                             ///< RGB files to grey by BT.601 luma: 0.299 R + 0.587 G + 0.114 B
  bool drop_alpha = false;                          ///< ignore the alpha channel of files that have one
  std::int64_t max_pixels = std::int64_t{1} << 28;  ///< larger images are refused before memory is taken for them
};

struct SaveOptions {
  int bits = 8;      ///< per channel; 16 for PNG alone
  int quality = 95;  ///< JPEG, 1 to 100
};

namespace detail {

/// The first `limit` bytes of a regular file.
inline std::vector<unsigned char> read_bytes(const std::filesystem::path& path, std::uintmax_t limit) {
  const auto failed = [&](const char* what) {
    return FileError(concat(path.string(), ": ", what, ": ", std::error_code(errno, std::generic_category()).message()));
  };
  struct Closed {
    int number;
    ~Closed() { ::close(number); }
  };
  const int number = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not block
  if (number < 0 && errno == ENOENT) throw FileError(concat(path.string(), ": there is no such file"));
  if (number < 0) throw failed("it cannot be opened for reading");
  const Closed file{number};
  struct stat status {};
  if (::fstat(number, &status) != 0) throw failed("it cannot be examined");
  if (!S_ISREG(status.st_mode)) throw FileError(concat(path.string(), ": it is not a file"));
  const auto size = std::size_t(std::min(std::uintmax_t(status.st_size), limit));
  std::vector<unsigned char> bytes;
  bytes.reserve(size + inflate_padding);  // a decoder may want that much behind it
  bytes.resize(size);
  for (std::size_t done = 0; done < bytes.size();) {
    const ::ssize_t count = ::read(number, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw failed("reading it failed");
    if (count == 0) throw FileError(concat(path.string(), ": reading it failed: it has become shorter"));
    done += std::size_t(count);
  }
  return bytes;
}

/// Writes a file that holds the parts one after another.
inline void write_bytes(const std::filesystem::path& path, std::span<const Bytes> parts) {
  AtomicFile file(path);
  for (const Bytes bytes : parts) file.write(std::as_bytes(bytes));
  file.commit();
}

/// Recognises the format by its first bytes, whatever the file's name, and reads its structure.
inline ImageInfo read_structure(Bytes file, bool whole) {
  if (file.empty()) throw BadImage("it is empty (0 bytes)");
  ImageInfo info;
  if (file.size() >= 8 && std::equal(png_signature.begin(), png_signature.end(), file.begin()))
    info = read_png_structure(file, whole);
  else if (file.size() >= 3 && file[0] == 0xFF && file[1] == 0xD8 && file[2] == 0xFF)
    info = read_jpeg_structure(file, whole);
  else if (file.size() >= 2 && file[0] == 'B' && file[1] == 'M')
    info = read_bmp_structure(file).info;
  else
    throw BadImage("it is not a PNG, JPEG or BMP image");
  if (info.w <= 0 || info.h <= 0) throw BadImage(concat("it is an image of ", info.w, "x", info.h, " pixels"));
  return info;
}

/// A rectangle of pixels.
struct ImagePart {
  std::int64_t y, x, h, w;
};

/// The whole picture or, of files that allow it, no more than the rows and columns up to the end of `wanted`. Throws
/// BadImage, also when `wanted` is not inside.
inline DecodedImage decode_image(std::vector<unsigned char> file, std::int64_t max_pixels, const ImagePart* wanted = nullptr) {
  if (file.size() > std::size_t(std::numeric_limits<int>::max())) throw BadImage("it is larger than 2 GiB");
  const ImageInfo info = read_structure(file, false);
  if (info.h > max_pixels / info.w)
    throw BadImage(concat("it has ", info.w, "x", info.h, " pixels, the limit is ", max_pixels,
                          " in all; raise LoadOptions::max_pixels if that is meant"));
  if (wanted) {
    const auto& [y, x, h, w] = *wanted;
    if (y < 0 || x < 0 || h <= 0 || w <= 0 || h > info.h - y || w > info.w - x)
      throw BadImage(concat("it has ", info.h, "x", info.w, " pixels (rows x columns), and ", h, "x", w, " at row ", y,
                            ", column ", x, " are not inside"));
  }
  if (info.format == ImageFormat::bmp) return decode_bmp(file, read_bmp_structure(file));
  read_structure(file, true);
  if (info.format == ImageFormat::png && is_usual_png(file))
    return decode_usual_png(std::move(file), info, wanted ? wanted->y + wanted->h : info.h, wanted ? wanted->x + wanted->w : info.w);

  struct Limit {  // sixteen bytes a pixel are enough for all that stb takes at once
    explicit Limit(std::size_t bytes) { stb::allocation_limit() = bytes; }
    ~Limit() { stb::allocation_limit() = std::numeric_limits<std::size_t>::max(); }
  } limit((std::size_t{1} << 20) + 16 * std::size_t(info.w) * std::size_t(info.h));
  DecodedImage image{info, 0, info.w, {}};
  int w = 0, h = 0;
  if (info.bits == 16)
    image.stb.reset(stb::stbi_load_16_from_memory(file.data(), int(file.size()), &w, &h, &image.stored_channels, 0));
  else
    image.stb.reset(stb::stbi_load_from_memory(file.data(), int(file.size()), &w, &h, &image.stored_channels, 0));
  if (!image.stb) throw BadImage(concat("it is damaged: ", stb::stbi_failure_reason()));
  if (w != info.w || h != info.h || image.stored_channels < info.channels)
    throw BadImage("it is damaged: its header contradicts its image data");
  return image;
}

/// The value in [0, 1] of every sample of a part: v / 255 or v / 65535, rounded once.
template <int C, class Sample>
void to_floats(const DecodedImage& image, const ImagePart& part, float* out) {
  constexpr float scale = float(std::numeric_limits<Sample>::max());
  const bool grey = image.info.channels <= 2;
  const int stored = image.stored_channels;
  for (std::int64_t y = part.y; y < part.y + part.h; ++y) {
    const auto* in = static_cast<const Sample*>(image.samples()) + (y * image.stored_w + part.x) * stored;
    if (stored == C) {
      for (std::int64_t i = 0; i < part.w * C; ++i) *out++ = float(in[i]) / scale;
      continue;
    }
    for (std::int64_t i = 0; i < part.w; ++i, in += stored, out += C) {
      if constexpr (C == 1) {
        out[0] = grey ? float(in[0]) / scale : float((0.299 * in[0] + 0.587 * in[1] + 0.114 * in[2]) / double(scale));
      } else {
        for (int c = 0; c < C; ++c) out[c] = float(in[C == 3 && grey ? 0 : c]) / scale;
      }
    }
  }
}

inline std::string lower_extension(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  for (char& letter : extension) letter = char(std::tolower(static_cast<unsigned char>(letter)));
  return extension;
}

}  // namespace detail

/// Size, channels and bits of an image file, from its header; the pixels are neither read nor checked.
inline ImageInfo read_image_info(const std::filesystem::path& path) {
  constexpr std::size_t usual_header = std::size_t{1} << 16;
  try {
    const auto start = detail::read_bytes(path, usual_header);
    try {
      return detail::read_structure(start, false);
    } catch (const detail::TruncatedImage&) {
      if (start.size() < usual_header) throw;
    }
    return detail::read_structure(detail::read_bytes(path, std::numeric_limits<int>::max()), false);
  } catch (const detail::BadImage& problem) {
    throw FileError(concat(path.string(), ": cannot read the image: ", problem.what()));
  }
}

namespace detail {

template <int C>
Image<C> load_part(const std::filesystem::path& path, const LoadOptions& options, const ImagePart* wanted) {
  static_assert(C >= 1 && C <= 4,
                "strata::load_image<C>: C is 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha)");
  try {
    auto file = read_bytes(path, std::uintmax_t{1} << 31);
    const DecodedImage decoded = decode_image(std::move(file), options.max_pixels, wanted);
    const ImageInfo& info = decoded.info;
    const std::string need = concat("it has ", info.channels, " channels and load_image<", C, "> wants ", C, ": ");
    if (C % 2 == 0 && info.channels != C) throw BadImage(concat(need, "use load_image<", info.channels, ">"));
    if (C % 2 == 1 && info.has_alpha() && !options.drop_alpha)
      throw BadImage(concat(need, "pass {.drop_alpha = true} to ignore its alpha channel"));
    if (C == 1 && info.channels >= 3 && !options.convert)
      throw BadImage(concat(need, "pass {.convert = true} for its luma, or use load_image<3>"));
    const ImagePart part = wanted ? *wanted : ImagePart{0, 0, info.h, info.w};
    Image<C> image(1, part.h, part.w);
    if (info.bits == 16)
      to_floats<C, std::uint16_t>(decoded, part, image.data());
    else
      to_floats<C, std::uint8_t>(decoded, part, image.data());
    return image;
  } catch (const BadImage& problem) {
    throw FileError(concat(path.string(), ": cannot read the image: ", problem.what()));
  }
}

}  // namespace detail

/// Reads a PNG, JPEG or BMP file (told by its content, not its name) as one image of shape (1, C, H, W) in [0, 1].
/// C is 1 (grey), 3 (RGB), 2 or 4 (the same with alpha). A grey file read as RGB is copied to the three channels. Other
/// changes lose something and happen when asked for: LoadOptions::convert and ::drop_alpha. Throws FileError.
template <int C>
Image<C> load_image(const std::filesystem::path& path, const LoadOptions& options = {}) {
  return detail::load_part<C>(path, options, nullptr);
}

/// The h x w pixels of load_image<C>(path, options) at row y, column x. Of the usual PNG files (8 bits, not interlaced) the
/// rows below them and the columns to their right are not decoded: what damage leaves the file's checksums right there goes
/// unseen. Throws FileError, also when they are not all inside.
template <int C>
Image<C> load_image_part(const std::filesystem::path& path, std::int64_t y, std::int64_t x, std::int64_t h,
                         std::int64_t w, const LoadOptions& options = {}) {
  const detail::ImagePart part{y, x, h, w};
  return detail::load_part<C>(path, options, &part);
}

/// Writes one image, shape (1, C, H, W), as the file name's ending says: .png (C 1 to 4), .jpg, .jpeg, .bmp (C 1 or 3).
/// Values are clamped to [0, 1] and rounded to the nearest of 2^bits levels. The file appears whole or not at all.
/// Throws FileError; NumericError for a NaN; ValueError and ShapeError for options and shapes that cannot be written.
template <int C>
void save_image(const std::filesystem::path& path, const Image<C>& image, const SaveOptions& options = {}) {
  static_assert(C >= 1 && C <= 4, "strata::save_image: images have 1 (grey), 2, 3 (RGB) or 4 channels");
  const std::string extension = detail::lower_extension(path);
  const bool png = extension == ".png", jpeg = extension == ".jpg" || extension == ".jpeg", bmp = extension == ".bmp";
  if (!png && !jpeg && !bmp)
    throw FileError(concat(path.string(),
                           ": cannot tell the image format: wanted a name ending in .png, .jpg, .jpeg "
                           "or .bmp"));
  if (image.n() != 1 || image.empty())
    throw ShapeError(concat("save_image: got a batch of shape ", image.shape().str(),
                            ", wanted one image (1, C, H, W); select(batch, n) gives image n"));
  if (options.bits != 8 && options.bits != 16)
    throw ValueError(concat("save_image: got .bits = ", options.bits, ", wanted 8 or 16"));
  if (!png && (options.bits != 8 || C % 2 == 0))
    throw ValueError(concat("save_image: ", extension, " holds 8 bits of 1 or 3 channels, not ", options.bits, " of ",
                            C, "; write a .png"));
  if (options.quality < 1 || options.quality > 100)
    throw ValueError(concat("save_image: got .quality = ", options.quality, ", wanted 1 to 100"));

  const float levels = options.bits == 16 ? 65535.0f : 255.0f;
  std::vector<unsigned char> samples;
  samples.reserve(std::size_t(image.size()) * std::size_t(options.bits / 8) + std::size_t(image.h()));
  for (const float value : image.span()) {
    if (std::isnan(value)) throw NumericError(concat("save_image: ", path.string(), ": the image has NaN values"));
    const auto level = static_cast<unsigned>(std::lround(std::clamp(value, 0.0f, 1.0f) * levels));
    if (options.bits == 16) samples.push_back(static_cast<unsigned char>(level >> 8));
    samples.push_back(static_cast<unsigned char>(level & 0xFFu));
  }
  try {
    std::vector<unsigned char> file;
    if (png) {
      const detail::PngFile encoded = detail::encode_png(std::move(samples), image.w(), image.h(), C, options.bits);
      return detail::write_bytes(path, encoded.parts());
    }
    if (bmp) {
      file = detail::encode_bmp(samples, image.w(), image.h(), C);
    } else {
      if (image.w() > 65535 || image.h() > 65535)
        throw detail::BadImage("JPEG images have at most 65535 rows and columns");
      const auto append = [](void* to, void* data, int size) {
        const auto* bytes = static_cast<const unsigned char*>(data);
        auto& out = *static_cast<std::vector<unsigned char>*>(to);
        for (int i = 0; i < size; ++i) out.push_back(bytes[i]);  // insert() makes g++ 12 warn of an overflow that is not there
      };
      if (!detail::stb::stbi_write_jpg_to_func(append, &file, int(image.w()), int(image.h()), C, samples.data(),
                                               options.quality))
        throw detail::BadImage("the JPEG encoder failed");
    }
    const detail::Bytes whole = file;
    detail::write_bytes(path, {&whole, 1});
  } catch (const detail::BadImage& problem) {
    throw FileError(concat(path.string(), ": cannot write the image: ", problem.what()));
  }
}

/// The image files of a folder (not of folders inside it), sorted by name: .png, .jpg, .jpeg and .bmp in either case.
/// Hidden files and files that are no images are passed over. Throws FileError when there is no image, and when there
/// is one in a format that Strata cannot read, since leaving it out would go unseen.
inline std::vector<std::filesystem::path> list_images(const std::filesystem::path& folder) {
  std::error_code failure;
  std::filesystem::directory_iterator entry(folder, failure);
  if (failure) throw FileError(concat(folder.string(), ": cannot list the folder: ", failure.message()));
  std::vector<std::filesystem::path> images;
  for (; entry != std::filesystem::directory_iterator(); entry.increment(failure)) {
    const std::filesystem::path path = entry->path();
    if (path.filename().string().starts_with('.') || entry->is_directory()) continue;
    const std::string extension = detail::lower_extension(path);
    if (extension == ".png" || extension == ".jpg" || extension == ".jpeg" || extension == ".bmp")
      images.push_back(path);
    for (const char* other : {".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2", ".avif", ".heic", ".tga"})
      if (extension == other)
        throw FileError(concat(path.string(), ": cannot read ", other, " images: convert it to PNG, or move it out of ",
                               folder.string()));
  }
  if (failure) throw FileError(concat(folder.string(), ": cannot list the folder: ", failure.message()));
  if (images.empty())
    throw FileError(concat(folder.string(), ": there is no image (.png, .jpg, .jpeg, .bmp) in this folder"));
  std::sort(images.begin(), images.end());
  return images;
}

}  // namespace strata::inline STRATA_ABI
