// Eight at a time. What is left over is done in a copy of eight.
#include "ans/quantize.h"

#if CKBD_X86

#include <immintrin.h>

namespace ckbd::ans {
namespace {

constexpr size_t kLanes = 8;

// -1 where v is above the border, or no number.
inline __m256i above(__m256 v, __m256 border) { return _mm256_castps_si256(_mm256_cmp_ps(v, border, _CMP_NLE_UQ)); }

// First the eighth that v is in, then the borders within: those of a lane's eighth come to it by a permutation.
inline __m256i small_indexes(const Borders& borders, __m256 v) {
  v = _mm256_max_ps(_mm256_set1_ps(borders.bound), v);  // of a pair that is not ordered, the second
  __m256i group = _mm256_setzero_si256();
  for (int g = 0; g < kGroups - 1; ++g) group = _mm256_sub_epi32(group, above(v, _mm256_set1_ps(borders.group[g])));
  __m256i index = _mm256_add_epi32(_mm256_slli_epi32(group, 3), _mm256_set1_epi32(borders.base));
  for (int j = 0; j < kGroup - 1; ++j) {
    const __m256 border = _mm256_permutevar8x32_ps(_mm256_loadu_ps(borders.within[j]), group);
    index = _mm256_sub_epi32(index, above(v, border));
  }
  return _mm256_min_epi32(index, _mm256_set1_epi32(borders.top));
}

void scale_indexes(const Borders& borders, const float* scales, size_t n, int32_t* out) {
  if (borders.count > kSmallTable) return scalar_quantizer.scale_indexes(borders, scales, n, out);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const __m256i index = small_indexes(borders, _mm256_loadu_ps(scales + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), index);
  }
  if (i == n) return;
  float last[kLanes] = {};
  int32_t result[kLanes];
  for (size_t j = i; j < n; ++j) last[j - i] = scales[j];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(result), small_indexes(borders, _mm256_loadu_ps(last)));
  for (size_t j = i; j < n; ++j) out[j] = result[j - i];
}

// The conversion gives -2^31 for what has no room, and rounds to even by default.
void symbols_of(const float* x, const float* means, size_t n, int32_t* out) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    __m256 value = _mm256_loadu_ps(x + i);
    if (means != nullptr) value = _mm256_sub_ps(value, _mm256_loadu_ps(means + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), _mm256_cvtps_epi32(value));
  }
  for (; i < n; ++i) {
    const float value = means == nullptr ? x[i] : x[i] - means[i];
    out[i] = _mm_cvtss_si32(_mm_set_ss(value));
  }
}

}  // namespace

const Quantizer avx2_quantizer = {"avx2", scale_indexes, symbols_of};

}  // namespace ckbd::ans

#endif
