// HDF5's shuffle and deflate filters in one pass for float32 maps: bytes are sorted into planes,
// and each plane becomes one block of runs and Huffman codes, or is stored when that is smaller.
// Matches other than runs of one byte are rare in such planes; not looking for them is what is
// fast.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace fastconv::deflate {

constexpr int kEndOfBlock = 256;
constexpr int kLiteralCodes = 286;  // literals, end of block, lengths
constexpr int kMaxBits = 12;  // of a code; deflate allows 15, which costs speed and saves nothing
constexpr int kMinRun = 3, kMaxRun = 258;
constexpr int kTokens = 256 + kMaxRun + 1;  // a byte, or 256 + the length of a run
constexpr int64_t kStoredBlock = 65535;

// The longest stream that n bytes in `planes` planes can become.
constexpr int64_t bound(int64_t n, int64_t planes) {
  return n + 5 * (n / kStoredBlock + 2 * planes) + 64;
}

class BitWriter {
 public:
  explicit BitWriter(uint8_t* out) : out_(out) {}
  void put(uint64_t bits, int count) {  // count <= 57
    acc_ |= bits << filled_;
    filled_ += count;
    std::memcpy(out_, &acc_, 8);  // little-endian; at most 7 bits stay behind
    out_ += filled_ >> 3;
    acc_ >>= filled_ & ~7;
    filled_ &= 7;
  }
  void align() {
    if (filled_) put(0, 8 - filled_);
  }
  void copy(const uint8_t* from, int64_t count) {  // after align
    std::memcpy(out_, from, count);
    out_ += count;
  }
  uint8_t* end() const { return out_; }

 private:
  uint8_t* out_;
  uint64_t acc_ = 0;
  int filled_ = 0;
};

// Huffman code lengths of at most `limit` bits; symbols that do not occur get 0.
template <int N>
void code_lengths(std::array<uint32_t, N> counts, int limit, std::array<uint8_t, N>& lengths) {
  if (std::count_if(counts.begin(), counts.end(), [](uint32_t c) { return c > 0; }) < 2)
    ++counts[counts[0] ? 1 : 0];  // a complete code has two symbols
  for (;;) {
    std::array<int, 2 * N> order{}, parent{};
    std::array<uint64_t, 2 * N> weight{};
    int leaves = 0;
    for (int s = 0; s < N; ++s)
      if (counts[s]) order[leaves++] = s;
    std::sort(order.begin(), order.begin() + leaves,
              [&](int a, int b) { return counts[a] != counts[b] ? counts[a] < counts[b] : a < b; });
    for (int i = 0; i < leaves; ++i) weight[i] = counts[order[i]];
    // leaves and inner nodes are both met in order of weight
    int leaf = 0, inner = leaves;
    for (int node = leaves; node < 2 * leaves - 1; ++node)
      for (int child = 0; child < 2; ++child) {
        const bool take_leaf = leaf < leaves && (inner == node || weight[leaf] <= weight[inner]);
        const int taken = take_leaf ? leaf++ : inner++;
        weight[node] += weight[taken];
        parent[taken] = node;
      }
    std::array<int, 2 * N> depth{};
    int deepest = 0;
    for (int node = 2 * leaves - 3; node >= 0; --node)
      deepest = std::max(deepest, depth[node] = depth[parent[node]] + 1);
    if (deepest <= limit) {
      lengths.fill(0);
      for (int i = 0; i < leaves; ++i) lengths[order[i]] = static_cast<uint8_t>(depth[i]);
      return;
    }
    for (auto& c : counts)  // flatten, and try again
      if (c) c = c / 2 + 1;
  }
}

struct Code {
  uint32_t bits = 0;
  uint32_t length = 0;
};

// Canonical codes, first bit lowest, as deflate sends them.
template <int N>
std::array<Code, N> canonical(const std::array<uint8_t, N>& lengths) {
  std::array<Code, N> codes{};
  uint32_t next = 0;
  for (uint32_t length = 1; length <= 15; ++length, next <<= 1)
    for (int s = 0; s < N; ++s) {
      if (lengths[s] != length) continue;
      uint32_t reversed = 0;
      for (uint32_t i = 0; i < length; ++i) reversed |= (next >> i & 1) << (length - 1 - i);
      codes[s] = {reversed, length};
      ++next;
    }
  return codes;
}

// Length symbol, extra bits and their number of a run.
struct RunCode {
  int symbol;
  uint32_t extra;
  int extra_bits;
};

inline RunCode run_code(int run) {
  if (run == kMaxRun) return {285, 0, 0};
  const int value = run - kMinRun;
  if (value < 8) return {257 + value, 0, 0};
  int bits = 0;
  while (value >> (bits + 3)) ++bits;
  return {257 + 4 * bits + (value >> bits), static_cast<uint32_t>(value & ((1 << bits) - 1)), bits};
}

// Bit j says that in[j] equals the byte before it, for 64 bytes.
inline uint64_t repeats(const uint8_t* in) {
  constexpr uint64_t kLow = 0x7F7F7F7F7F7F7F7F, kGather = 0x0102040810204080;
  uint64_t found = 0;
  for (int k = 0; k < 8; ++k) {
    uint64_t here, before;
    std::memcpy(&here, in + 8 * k, 8);
    std::memcpy(&before, in + 8 * k - 1, 8);
    const uint64_t x = here ^ before;
    const uint64_t zero = ~(((x & kLow) + kLow) | x | kLow) >> 7;  // 1 in every byte that is zero
    found |= (zero * kGather >> 56) << 8 * k;
  }
  return found;
}

// How many bytes, of at most `most`, equal the one before.
inline int64_t run_length(const uint8_t* in, int64_t most) {
  const uint64_t wanted = in[-1] * 0x0101010101010101u;
  int64_t run = 0;
  for (; run + 8 <= most; run += 8) {
    uint64_t here;
    std::memcpy(&here, in + run, 8);
    if (here != wanted) return run + (__builtin_ctzll(here ^ wanted) >> 3);
  }
  while (run < most && in[run] == in[-1]) ++run;
  return run;
}

// Splits bytes into literals and runs, of 4 or more, of the byte before. Windows of 64 bytes, whose
// repeats are bits, need no branch on a byte. `tokens` has room for n + 16.
inline int64_t tokenize(const uint8_t* in, int64_t n, uint16_t* tokens) {
  int64_t made = 0, i = 0;
  const auto literals = [&](int64_t from, int64_t to) {
    for (int64_t at = from; at < to; at += 16)  // whole sixteens: what is too much is overwritten
      for (int j = 0; j < 16; ++j) tokens[made + at - from + j] = in[at + j];
    made += to - from;
  };
  if (n > 0) tokens[made++] = in[i++];
  while (i + 80 <= n) {
    const uint64_t same = repeats(in + i);
    uint64_t starts = same & same >> 1 & same >> 2 & same >> 3;  // of runs, in bytes 0 to 60
    int at = 0;
    while (starts && at < 64) {
      const int begin = __builtin_ctzll(starts);
      literals(i + at, i + begin);
      const uint64_t others = ~same >> begin;
      int64_t run = others ? __builtin_ctzll(others) : 64;
      if (begin + run >= 64)  // it may go on
        run = run_length(in + i + begin, std::min<int64_t>(kMaxRun, n - i - begin));
      tokens[made++] = static_cast<uint16_t>(256 + run);
      at = static_cast<int>(begin + run);
      if (at < 64) starts &= ~uint64_t{0} << at;
    }
    if (at < 61) literals(i + at, i + 61);
    i += std::max(at, 61);
  }
  while (i < n) tokens[made++] = in[i++];
  return made;
}

inline void count_tokens(const uint16_t* tokens, int64_t n, std::array<uint32_t, kTokens>& counts) {
  std::array<std::array<uint32_t, kTokens>, 4> partial{};  // one alone would stall on itself
  int64_t t = 0;
  for (; t + 4 <= n; t += 4)
    for (int j = 0; j < 4; ++j) ++partial[j][tokens[t + j]];
  for (; t < n; ++t) ++partial[0][tokens[t]];
  for (int s = 0; s < kTokens; ++s)
    counts[s] = partial[0][s] + partial[1][s] + partial[2][s] + partial[3][s];
}

// Whether coding would save less than a sixteenth of the plane, by a sample: then it is stored.
inline bool is_noise(const uint8_t* in, int64_t n) {
  constexpr int64_t kPiece = 2048, kPieces = 4, kSample = kPiece * kPieces;
  if (n < kSample * 2) return false;
  std::array<uint32_t, 256> counts{};
  for (int64_t piece = 0; piece < kPieces; ++piece)
    for (int64_t i = 0; i < kPiece; ++i) ++counts[in[piece * (n - kPiece) / (kPieces - 1) + i]];
  double bits = 0;
  for (uint32_t c : counts)
    if (c > 0) bits -= c * std::log2(c / static_cast<double>(kSample));
  return bits > 7.5 * kSample;
}

// The code lengths of literals and two distances, themselves coded; zeros in runs.
inline void write_lengths(BitWriter& out, const std::array<uint8_t, kLiteralCodes>& literals,
                          int used) {
  static constexpr std::array<uint8_t, 19> kOrder = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                     11, 4,  12, 3, 13, 2, 14, 1, 15};
  std::vector<uint8_t> all(literals.begin(), literals.begin() + used);
  all.insert(all.end(), {1, 1});  // distances 1 and 2, of which the first alone is used
  struct Item {
    uint8_t symbol, extra, bits;
  };
  std::vector<Item> items;
  std::array<uint32_t, 19> counts{};
  for (size_t i = 0; i < all.size();) {
    size_t zeros = 0;
    while (i + zeros < all.size() && all[i + zeros] == 0 && zeros < 138) ++zeros;
    if (zeros >= 11)
      items.push_back({18, static_cast<uint8_t>(zeros - 11), 7});
    else if (zeros >= 3)
      items.push_back({17, static_cast<uint8_t>(zeros - 3), 3});
    else
      items.push_back({all[i], 0, 0}), zeros = 1;
    ++counts[items.back().symbol];
    i += zeros;
  }
  std::array<uint8_t, 19> lengths{};
  code_lengths<19>(counts, 7, lengths);
  const auto codes = canonical<19>(lengths);
  int sent = 19;
  while (sent > 4 && lengths[kOrder[sent - 1]] == 0) --sent;
  out.put(used - 257, 5);
  out.put(1, 5);
  out.put(sent - 4, 4);
  for (int i = 0; i < sent; ++i) out.put(lengths[kOrder[i]], 3);
  for (const Item& item : items) {
    out.put(codes[item.symbol].bits, static_cast<int>(codes[item.symbol].length));
    if (item.bits) out.put(item.extra, item.bits);
  }
}

inline void write_stored(BitWriter& out, const uint8_t* in, int64_t n, bool last) {
  for (int64_t at = 0; at < n; at += kStoredBlock) {
    const int64_t count = std::min(kStoredBlock, n - at);
    out.put(last && at + count == n, 3);
    out.align();
    out.put(count, 16);
    out.put(~count & 0xFFFF, 16);
    out.copy(in + at, count);
  }
}

// One plane as one block, or stored.
inline void write_plane(BitWriter& out, const uint8_t* in, int64_t n, bool last,
                        std::vector<uint16_t>& tokens) {
  if (is_noise(in, n)) return write_stored(out, in, n, last);
  tokens.resize(n + 16);
  const int64_t made = tokenize(in, n, tokens.data());
  std::array<uint32_t, kTokens> counts;
  count_tokens(tokens.data(), made, counts);
  std::array<uint32_t, kLiteralCodes> symbols{};
  std::copy_n(counts.begin(), 256, symbols.begin());
  symbols[kEndOfBlock] = 1;
  for (int run = kMinRun; run <= kMaxRun; ++run) symbols[run_code(run).symbol] += counts[256 + run];
  std::array<uint8_t, kLiteralCodes> lengths{};
  code_lengths<kLiteralCodes>(symbols, kMaxBits, lengths);
  const auto codes = canonical<kLiteralCodes>(lengths);
  std::array<Code, kTokens> table{};
  std::copy_n(codes.begin(), 256, table.begin());
  int64_t bits = 2400;  // more than the lengths of the codes take
  for (int run = kMinRun; run <= kMaxRun; ++run) {
    const RunCode code = run_code(run);
    const Code& symbol = codes[code.symbol];  // then the extra bits, then the distance: one 0 bit
    table[256 + run] = {symbol.bits | code.extra << symbol.length,
                        symbol.length + code.extra_bits + 1};
  }
  for (int t = 0; t < kTokens; ++t) bits += static_cast<int64_t>(counts[t]) * table[t].length;
  if (bits >= 8 * n) return write_stored(out, in, n, last);
  out.put(last, 1);
  out.put(2, 2);
  int used = kLiteralCodes;
  while (lengths[used - 1] == 0) --used;
  write_lengths(out, lengths, used);
  int64_t t = 0;
  for (; t + 2 < made; t += 3) {  // at most 3 * 18 bits
    const Code x = table[tokens[t]], y = table[tokens[t + 1]], z = table[tokens[t + 2]];
    out.put(x.bits | static_cast<uint64_t>(y.bits) << x.length |
                static_cast<uint64_t>(z.bits) << (x.length + y.length),
            static_cast<int>(x.length + y.length + z.length));
  }
  for (; t < made; ++t) out.put(table[tokens[t]].bits, static_cast<int>(table[tokens[t]].length));
  out.put(codes[kEndOfBlock].bits, static_cast<int>(codes[kEndOfBlock].length));
}

inline uint32_t adler32(const uint8_t* in, int64_t n) {
  uint64_t a = 1, b = 0;
  constexpr int kStep = 32;
  int64_t i = 0;
  while (n - i >= kStep) {
    const int64_t stop = std::min(i + 4096, i + (n - i) / kStep * kStep);
    for (; i < stop; i += kStep) {
      int32_t sum = 0, weighted = 0;
      for (int j = 0; j < kStep; ++j) sum += in[i + j];
      for (int j = 0; j < kStep; ++j)  // 16-bit factors: one instruction multiplies and adds
        weighted += static_cast<int16_t>(in[i + j]) * static_cast<int16_t>(kStep - j);
      b += kStep * a + weighted;
      a += sum;
    }
    a %= 65521;
    b %= 65521;
  }
  for (; i < n; ++i) b += a += in[i];
  return static_cast<uint32_t>(b % 65521 << 16 | a % 65521);
}

// Rounds float32 bits to `keepbits` bits of mantissa, ties to even; NaN becomes the quiet one.
inline uint32_t round_bits(uint32_t v, int keepbits) {
  const int drop = 23 - keepbits;
  const uint32_t rounded = (v + ((1u << (drop - 1)) - 1) + (v >> drop & 1)) & (0xFFFFFFFFu << drop);
  return static_cast<int32_t>(v & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC00000 : rounded;
}

// A zlib stream of n float32 values, rounded, shuffled and deflated; returns its length.
inline int64_t pack(const uint32_t* in, int64_t n, int keepbits, uint8_t* out) {
  static thread_local std::vector<uint8_t> planes;
  static thread_local std::vector<uint16_t> tokens;
  planes.resize(4 * n);
  uint8_t* p = planes.data();
  const int first = keepbits <= 15 ? 1 : 0;  // the lowest byte is rounded away
  if (first) std::memset(p, 0, n);
  constexpr int64_t kBlock = 1024;  // in the first cache; simple loops, which vectorise
  uint32_t block[kBlock];
  for (int64_t at = 0; at < n; at += kBlock) {
    const int64_t count = std::min(kBlock, n - at);
    for (int64_t i = 0; i < count; ++i)
      block[i] = keepbits < 23 ? round_bits(in[at + i], keepbits) : in[at + i];
    for (int plane = first; plane < 4; ++plane)
      for (int64_t i = 0; i < count; ++i)
        p[plane * n + at + i] = static_cast<uint8_t>(block[i] >> 8 * plane);
  }
  BitWriter writer(out);
  writer.put(0x0178, 16);
  for (int plane = 0; plane < 4; ++plane) write_plane(writer, p + plane * n, n, plane == 3, tokens);
  writer.align();
  const uint32_t sum = adler32(p, 4 * n);
  writer.put(__builtin_bswap32(sum), 32);
  return writer.end() - out;
}

}  // namespace fastconv::deflate
