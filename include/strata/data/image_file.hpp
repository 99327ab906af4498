// Image files to tensors and back: PNG and BMP and JPEG; 8 and 16 bits; grey, RGB and alpha.
//
//     st::Image<1> grey = st::load_image<1>("photo.png");                        // values in [0, 1]
//     st::Image<1> luma = st::load_image<1>("colour.jpg", {.convert = true});    // RGB to grey only when asked
//     st::save_image("denoised.png", grey, {.bits = 16});
//
// A picture comes as it is to be seen: turned as its EXIF orientation says. A file that is cut short, too large or no image is
// a FileError with the path and the reason, and so is a damaged one: a PNG file always, since it has checksums; of a JPEG
// file, whose format has none, what leaves too few or too many codes for its pixels, or values that no picture has.
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
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "strata/core/output_file.hpp"
#include "strata/data/detail/decode.hpp"
#include "strata/data/detail/encode.hpp"
#include "strata/data/detail/image_bytes.hpp"
#include "strata/tensor/image.hpp"

namespace strata::inline STRATA_ABI {

struct LoadOptions {
  bool convert = false;                          ///< RGB files to grey by BT.601 luma: 0.299 R + 0.587 G + 0.114 B
  bool drop_alpha = false;                       ///< ignore the alpha channel of files that have one
  std::int64_t max_pixels = default_max_pixels;  ///< larger images are refused before memory is taken for them
};

struct SaveOptions {
  int bits = 8;      ///< per channel; 16 for PNG alone
  int quality = 95;  ///< JPEG, 1 to 100
};

namespace detail {

/// The first `limit` bytes of a regular file. When the first of them, a usual header's size, are there, inspect(them, size of
/// the file) may throw: nothing more is read then.
template <class Check>
std::vector<unsigned char> read_bytes(const std::filesystem::path& path, std::uintmax_t limit, Check inspect) {
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
  const std::size_t start = std::min(size, usual_header);
  std::size_t done = 0;
  bool unchecked = true;
  for (const std::size_t wanted : {start, size}) {
    if (wanted == size) bytes.reserve(size + inflate_padding);  // a decoder may want that much behind it
    bytes.resize(wanted);
    while (done < wanted) {
      const ::ssize_t count = ::read(number, bytes.data() + done, wanted - done);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw failed("reading it failed");
      if (count == 0) throw FileError(concat(path.string(), ": reading it failed: it has become shorter"));
      done += std::size_t(count);
    }
    if (std::exchange(unchecked, false)) inspect(Bytes(bytes), std::uintmax_t(status.st_size));
  }
  return bytes;
}
inline std::vector<unsigned char> read_bytes(const std::filesystem::path& path, std::uintmax_t limit) {
  return read_bytes(path, limit, [](Bytes, std::uintmax_t) {});
}

/// Writes a file that holds the parts one after another.
inline void write_bytes(const std::filesystem::path& path, std::span<const Bytes> parts) {
  AtomicFile file(path);
  for (const Bytes bytes : parts) file.write(std::as_bytes(bytes));
  file.commit();
}

/// work(), with what is wrong with the image as a FileError with its path.
template <class Work>
auto with_path(const std::filesystem::path& path, const char* what, Work work) {
  try {
    return work();
  } catch (const BadImage& problem) {
    throw FileError(concat(path.string(), ": cannot ", what, " the image: ", problem.what()));
  } catch (const std::bad_alloc&) {
    throw FileError(concat(path.string(), ": cannot ", what, " the image: there is not enough memory"));
  }
}

/// The bytes of an image of at most so many pixels, which must have the part that is wanted. Of other files no more than the
/// header is read, where it has the usual size.
inline std::vector<unsigned char> read_image_bytes(const std::filesystem::path& path, std::int64_t max_pixels, const ImagePart* wanted) {
  return read_bytes(path, std::numeric_limits<std::uintmax_t>::max(), [&](Bytes start, std::uintmax_t size) {
    if (size > std::uintmax_t(std::numeric_limits<int>::max())) throw BadImage("it is larger than 2 GiB");
    try {
      check_extents(read_structure(start, false), max_pixels, wanted);
    } catch (const TruncatedImage&) {
      if (size <= start.size()) throw;
    }
  });
}

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

inline std::string lower_extension(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  for (char& letter : extension) letter = char(std::tolower(static_cast<unsigned char>(letter)));
  return extension;
}

}  // namespace detail

/// Size, channels and bits of an image file, from its header; the pixels are neither read nor checked.
inline ImageInfo read_image_info(const std::filesystem::path& path) {
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

/// The image that is in the bytes of a file. Throws BadImage.
template <int C>
Image<C> image_of_bytes(std::vector<unsigned char> file, const LoadOptions& options, const ImagePart* wanted = nullptr) {
  static_assert(C >= 1 && C <= 4,
                "strata::load_image<C>: C is 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha)");
  const DecodedImage decoded = decode_image(std::move(file), options.max_pixels, wanted);
  const ImageInfo& info = decoded.info;
  const std::string need = concat("it has ", info.channels, " channels and load_image<", C, "> wants ", C, ": ");
  if (C % 2 == 0 && info.channels != C) throw BadImage(concat(need, "use load_image<", info.channels, ">"));
  if (C % 2 == 1 && info.has_alpha() && !options.drop_alpha)
    throw BadImage(concat(need, "pass {.drop_alpha = true} to ignore its alpha channel"));
  if (C == 1 && info.channels >= 3 && !options.convert)
    throw BadImage(concat(need, "pass {.convert = true} for its luma, or use load_image<3>"));
  const bool turned = info.orientation >= 5;
  const ImagePart part = wanted ? *wanted : ImagePart{0, 0, turned ? info.w : info.h, turned ? info.h : info.w};
  Image<C> image(1, part.h, part.w);
  if (info.bits == 16)
    to_floats<C, std::uint16_t>(decoded, part, image.data());
  else
    to_floats<C, std::uint8_t>(decoded, part, image.data());
  return image;
}

template <int C>
Image<C> load_part(const std::filesystem::path& path, const LoadOptions& options, const ImagePart* wanted) {
  return with_path(path, "read", [&] {
    return image_of_bytes<C>(read_image_bytes(path, options.max_pixels, wanted), options, wanted);
  });
}

/// The format that a file's name asks for. Throws FileError.
inline ImageFormat format_of_name(const std::filesystem::path& path) {
  const std::string extension = lower_extension(path);
  if (extension == ".png") return ImageFormat::png;
  if (extension == ".jpg" || extension == ".jpeg") return ImageFormat::jpeg;
  if (extension == ".bmp") return ImageFormat::bmp;
  throw FileError(concat(path.string(), ": cannot tell the image format: wanted a name ending in .png, .jpg, .jpeg or .bmp"));
}

inline void write_image(const std::filesystem::path& path, ImageFormat format, EncoderInput input) {
  with_path(path, "write", [&] {
    encode_image(format, std::move(input), [&](std::span<const Bytes> parts) { write_bytes(path, parts); });
  });
}

}  // namespace detail

/// Reads a PNG, JPEG or BMP file (told by its content, not its name) as one image of shape (1, C, H, W) in [0, 1].
/// C is 1 (grey), 3 (RGB), 2 or 4 (the same with alpha). A grey file read as RGB is copied to the three channels. Other
/// changes lose something and happen when asked for: LoadOptions::convert and ::drop_alpha. Throws FileError.
template <int C>
Image<C> load_image(const std::filesystem::path& path, const LoadOptions& options = {}) {
  return detail::load_part<C>(path, options, nullptr);
}

/// The h x w pixels of load_image<C>(path, options) at row y, column x. Of the usual PNG files (8 or 16 bits, no palette, not
/// interlaced, upright) the rows below them and the columns to their right are not decoded: what damage leaves the file's checksums right there goes
/// unseen. Throws FileError, also when they are not all inside.
template <int C>
Image<C> load_image_part(const std::filesystem::path& path, std::int64_t y, std::int64_t x, std::int64_t h,
                         std::int64_t w, const LoadOptions& options = {}) {
  const detail::ImagePart part{y, x, h, w};
  return detail::load_part<C>(path, options, &part);
}

/// Writes one image, shape (1, C, H, W), as the file name's ending says: .png (C 1 to 4), .jpg, .jpeg, .bmp (C 1 or 3).
/// Values are clamped to [0, 1] and rounded to the nearest of 2^bits levels. The file appears whole or not at all. A JPEG file of
/// a grey image has three channels (load it again with `convert`). Throws FileError; NumericError for a NaN;
/// ValueError and ShapeError for options and shapes that cannot be written.
template <int C>
void save_image(const std::filesystem::path& path, const Image<C>& image, const SaveOptions& options = {}) {
  static_assert(C >= 1 && C <= 4, "strata::save_image: images have 1 (grey), 2, 3 (RGB) or 4 channels");
  const ImageFormat format = detail::format_of_name(path);
  if (image.n() != 1 || image.empty())
    throw ShapeError(concat("save_image: got a batch of shape ", image.shape().str(),
                            ", wanted one image (1, C, H, W); select(batch, n) gives image n"));
  if (options.bits != 8 && options.bits != 16)
    throw ValueError(concat("save_image: got .bits = ", options.bits, ", wanted 8 or 16"));
  if (format != ImageFormat::png && (options.bits != 8 || C % 2 == 0))
    throw ValueError(concat("save_image: ", path.extension().string(), " holds 8 bits of 1 or 3 channels, not ", options.bits, " of ",
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
  detail::write_image(path, format,
                      {.samples = std::move(samples), .w = image.w(), .h = image.h(), .channels = C, .bits = options.bits,
                       .quality = options.quality, .metadata = {}});
}

namespace detail {

/// list_images, empty where there are none.
inline std::vector<std::filesystem::path> list_images_if_any(const std::filesystem::path& folder) {
  const auto failed = [&] {
    return FileError(concat(folder.string(), ": cannot list the folder: ", std::error_code(errno, std::generic_category()).message()));
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

/// The image files of a folder (not of folders inside it), sorted by name: .png, .jpg, .jpeg and .bmp in either case.
/// Hidden files and files that are no images are passed over. Throws FileError when there is no image, and when there
/// is one in a format that Strata cannot read, since leaving it out would go unseen.
inline std::vector<std::filesystem::path> list_images(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> images = detail::list_images_if_any(folder);
  if (images.empty())
    throw FileError(concat(folder.string(), ": there is no image (.png, .jpg, .jpeg, .bmp) in this folder"));
  return images;
}

}  // namespace strata::inline STRATA_ABI
